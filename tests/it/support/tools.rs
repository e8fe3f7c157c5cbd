//! Servers as child processes, the local AWS among them, and an exporter inside the test.
//!
//! `deploy/tools.sh` installs the programs; a test that needs a missing one fails and says so. Each child
//! listens on its own port of 127.0.0.1 and writes its files to the test's directory. Dropping its value
//! stops it and, if the test has failed, prints the tail of its log.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener as PortHolder};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Timeout of [`eventually`].
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between SIGTERM and SIGKILL.
const TERM_GRACE_PERIOD: Duration = Duration::from_secs(10);
/// Lines of a child's log that a failed test prints.
const MAX_LOG_LINES: usize = 40;

/// The region of the local AWS.
pub(crate) const REGION: &str = "eu-west-1";

/// Polls until `poll` returns a value, and returns it. Panics after [`WAIT_TIMEOUT`].
pub(crate) async fn eventually<T>(what: &str, poll: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(WAIT_TIMEOUT, what, poll).await
}

/// [`eventually`], with another timeout.
pub(crate) async fn eventually_within<T>(
    timeout: Duration,
    what: &str,
    mut poll: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out after {timeout:?} waiting for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends `GET url`. Returns status and body.
pub(crate) async fn get(url: &str) -> io::Result<(u16, String)> {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// A free port of 127.0.0.1 for a program that cannot listen on port 0 and say which one it got. Until it is dropped,
/// no other test gets it, whatever its process: each port has a lock file, and none is in the range from which the
/// system chooses.
pub(crate) struct Port {
    pub number: u16,
    _lock: File,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        // Below 32768, where the system's range begins.
        const MIN_PORT: u32 = 20_000;
        const PORTS: u32 = 10_000;
        let locks = env::temp_dir().join("scalebridge-test-ports");
        fs::create_dir_all(&locks).expect("a directory");
        // Processes begin at different ports, so that they seldom meet.
        let start = std::process::id().wrapping_mul(97);
        let candidates = (0..PORTS).map(|step| MIN_PORT + start.wrapping_add(step) % PORTS);
        let mut ports = candidates.filter_map(|port| {
            let number = u16::try_from(port).ok()?;
            let lock = File::create(locks.join(port.to_string())).ok()?;
            lock.try_lock().ok()?;
            PortHolder::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
            Some(Self { number, _lock: lock })
        });
        ports.next().expect("a free port")
    }
}

/// A child process that serves HTTP.
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// Released when the child has ended.
    port: Port,
}

impl Server {
    /// Starts the program with a free port and waits until `GET` of `ready` answers 200.
    pub(crate) async fn start(
        name: &'static str,
        dir: &Path,
        ready: &str,
        command: impl FnOnce(u16) -> Command,
    ) -> Self {
        let port = Port::reserve();
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).expect("a log file");
        let child = without_aws_accounts(&mut command(port.number))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        let mut server = Self { name, child, log, port };
        server.wait_ready(ready).await;
        server
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number)
    }

    /// Sends SIGKILL and waits for the exit.
    #[allow(dead_code, reason = "the tests of the scaler kill no server")]
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("an exit status");
    }

    async fn wait_ready(&mut self, path: &str) {
        let url = self.url() + path;
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            let ended = self.child.try_wait().expect("a process status");
            assert!(ended.is_none(), "{} exited with {ended:?}", self.name);
            if matches!(get(&url).await, Ok((200, _))) {
                return;
            }
            assert!(Instant::now() < deadline, "{} is not ready after {WAIT_TIMEOUT:?}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child);
        if thread::panicking() {
            eprintln!("--- the end of {}'s log ---\n{}", self.name, log_tail(&self.log));
        }
    }
}

/// Sends SIGTERM, and SIGKILL after [`TERM_GRACE_PERIOD`].
fn stop(child: &mut Child) {
    // The number of an ended process may be that of another one by now.
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    // The standard library can only send SIGKILL.
    let _ = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", child.id())).status();
    let deadline = Instant::now() + TERM_GRACE_PERIOD;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn log_tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(MAX_LOG_LINES)..].join("\n")
}

/// Removes AWS credentials, proxies and bridge settings from the environment of a child, and sets test
/// credentials.
fn without_aws_accounts(command: &mut Command) -> &mut Command {
    let given: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in env::vars_os().filter(|(name, _)| !given.contains(name)) {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if text.starts_with("AWS_") || text.starts_with("SCALEBRIDGE_") || text.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", REGION)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
}

/// A program that `deploy/tools.sh` has installed.
pub(crate) fn tool(name: &str) -> Command {
    let path = installed(name);
    assert!(path.exists(), "{} is missing: run deploy/tools.sh", path.display());
    Command::new(path)
}

/// Where `deploy/tools.sh` installs it.
pub(super) fn installed(name: &str) -> PathBuf {
    // target/tmp, wherever the target directory is.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    target.join("tools").join(name)
}

/// The local AWS: SQS queues, Lambda functions that are executed, and Auto Scaling groups.
pub(crate) struct LocalAws {
    server: Server,
}

impl LocalAws {
    /// Starts it without any resources.
    pub(crate) async fn start(dir: &Path) -> Self {
        // It does not remove its temporary files.
        let temporary = dir.join("aws");
        fs::create_dir(&temporary).expect("a directory");
        let server = Server::start("aws", dir, "/_ministack/health", |port| {
            let mut command = tool("venv/bin/python");
            command.args(["-m", "ministack"]);
            command.env("BIND_HOST", "127.0.0.1").env("MINISTACK_HOST", "127.0.0.1");
            command.env("GATEWAY_PORT", port.to_string()).env("MINISTACK_REGION", REGION);
            command.env("TMPDIR", &temporary).env("LOG_LEVEL", "INFO");
            command
        })
        .await;
        Self { server }
    }

    /// The value for `AWS_ENDPOINT_URL`.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// An SQS client.
    pub(crate) fn sqs(&self) -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(self.url())
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .build();
        aws_sdk_sqs::Client::from_conf(config)
    }

    /// Creates a FIFO queue and returns its URL.
    pub(crate) async fn create_fifo_queue(&self, name: &str) -> String {
        use aws_sdk_sqs::types::QueueAttributeName::FifoQueue;
        let created = self.sqs().create_queue().queue_name(name).attributes(FifoQueue, "true").send().await;
        created.expect("a queue").queue_url.expect("its URL")
    }

    /// Runs `deploy/demo/aws.py` for services without a client in the tests. Returns its output.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/demo/aws.py");
        let mut command = tool("venv/bin/python");
        command.args(["-B", script, "--endpoint", &self.url()]).args(arguments);
        let done = without_aws_accounts(&mut command).output().expect("python");
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "aws.py {arguments:?}: {errors}");
        String::from_utf8(done.stdout).expect("UTF-8").trim().to_owned()
    }
}

/// Serves metrics that the test sets, for Prometheus to scrape.
pub(crate) struct Exporter {
    address: String,
    metrics: Arc<Mutex<String>>,
    serving: Option<JoinHandle<()>>,
    /// Kept while the exporter is stopped.
    _port: Port,
}

impl Exporter {
    /// Starts the server without any metrics.
    pub(crate) async fn start() -> Self {
        let port = Port::reserve();
        let address = format!("127.0.0.1:{}", port.number);
        let mut exporter = Self { address, metrics: Arc::default(), serving: None, _port: port };
        exporter.start_again().await;
        exporter
    }

    /// Starts it at its address again, with the metrics that were set last.
    pub(crate) async fn start_again(&mut self) {
        let listener = TcpListener::bind(&self.address).await.expect("its port");
        let served = Arc::clone(&self.metrics);
        let scrape = move || {
            let text = served.lock().expect("the lock is not poisoned").clone();
            // No connection outlives the listener.
            async move { ([("content-type", "text/plain; version=0.0.4"), ("connection", "close")], text) }
        };
        let router = axum::Router::new().route("/metrics", axum::routing::get(scrape));
        self.serving = Some(tokio::spawn(async move {
            // Until the task is aborted.
            let _ = axum::serve(listener, router).await;
        }));
    }

    /// From now on, connections are refused.
    #[allow(dead_code, reason = "only the tests of the scaler stop it")]
    pub(crate) async fn stop(&mut self) {
        let serving = self.serving.take().expect("an exporter that runs");
        serving.abort();
        let ended = serving.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the exporter ran until now");
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Replaces the metrics, in Prometheus' text format.
    pub(crate) fn set_metrics(&self, metrics: impl Into<String>) {
        *self.metrics.lock().expect("the lock is not poisoned") = metrics.into();
    }
}
