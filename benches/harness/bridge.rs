//! The bridge process under test, and its CPU time and memory from `/proc`.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::secured;

/// Timeout of each step of a run.
pub(crate) const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// Settings that differ from the bridge's defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub rules: usize,
    pub destinations: usize,
    /// `server.max_body_bytes`; `None` is the default.
    pub max_body_bytes: Option<u64>,
    /// `delivery.max_backlog`; `None` is the default.
    pub max_backlog: Option<u64>,
    /// TLS on the webhook, and a bearer token for the source.
    pub secured: bool,
    /// Logs at the level `debug`, as JSON.
    pub debug_log: bool,
    /// The source reads a queue of the stub.
    pub polled: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            rules: 10,
            destinations: 1,
            max_body_bytes: None,
            max_backlog: None,
            secured: false,
            debug_log: false,
            polled: false,
        }
    }
}

/// The store of a bridge.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store<'a> {
    /// A file in the folder of the bridge.
    Sqlite,
    /// The database at this URL.
    Postgres(&'a str),
}

/// A running bridge that has answered 200 to `/-/ready`.
pub(crate) struct Bridge {
    process: Child,
    folder: PathBuf,
    pub webhook: SocketAddr,
    /// The certificate of the webhook, if it has TLS.
    pub certificate: Option<PathBuf>,
    /// From the start of the process to the first 200 of `/-/ready`.
    pub ready_after: Duration,
}

impl Bridge {
    /// Starts a bridge with the store in `folder`, which is created if missing, and waits until it is ready.
    pub(crate) fn start(folder: &Path, setup: &Setup, aws: SocketAddr) -> io::Result<Self> {
        Self::start_on(Store::Sqlite, folder, setup, aws)
    }

    /// Starts a bridge with this store and its other files in `folder`, and waits until it is ready.
    pub(crate) fn start_on(
        store: Store<'_>,
        folder: &Path,
        setup: &Setup,
        aws: SocketAddr,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (webhook, admin) = (free_port()?, free_port()?);
        let store = store_section(store, folder)?;
        std::fs::write(folder.join("scalebridge.yaml"), configuration(&store, setup, aws, webhook, admin))?;
        std::fs::write(folder.join("rules.yaml"), rules(setup))?;
        let certificate = setup.secured.then(|| secured::write_files(folder)).transpose()?;
        let log = std::fs::File::create(folder.join("log.txt"))?;
        let begun = Instant::now();
        let process = Command::new(binary())
            .args(["serve", "--config"])
            .arg(folder.join("scalebridge.yaml"))
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut bridge =
            Self { process, folder: folder.to_owned(), webhook, certificate, ready_after: Duration::ZERO };
        while !matches!(get(admin, "/-/ready"), Ok((200, _))) {
            if bridge.process.try_wait()?.is_some() || begun.elapsed() > RUN_TIMEOUT {
                let log = std::fs::read_to_string(folder.join("log.txt"))?;
                return Err(io::Error::other(format!("the bridge did not become ready:\n{log}")));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        bridge.ready_after = begun.elapsed();
        Ok(bridge)
    }

    /// CPU time of the process in microseconds, user and system.
    pub(crate) fn cpu_us(&self) -> io::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The process name ends with the last parenthesis and may contain spaces. A tick is 10 ms.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
        Ok(ticks.sum::<u64>() * 10_000)
    }

    fn status_mb(&self, field: &str) -> io::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.unwrap_or(f64::NAN) * 1024.0 / 1e6)
    }

    /// Current resident memory in MB.
    pub(crate) fn memory_mb(&self) -> io::Result<f64> {
        self.status_mb("VmRSS")
    }

    /// Peak resident memory in MB since the start or the last [`Self::reset_peak`].
    pub(crate) fn peak_mb(&self) -> io::Result<f64> {
        self.status_mb("VmHWM")
    }

    pub(crate) fn reset_peak(&self) -> io::Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("scalebridge.db")
    }

    /// Whether the log says that the store commits with `synchronous=FULL`.
    pub(crate) fn has_full_synchronous(&self) -> io::Result<bool> {
        Ok(std::fs::read_to_string(self.folder.join("log.txt"))?.contains("synchronous=FULL"))
    }

    /// The log so far.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log.txt")
    }

    /// Sends SIGTERM and waits for the exit. Returns the path of the store, if it is a file.
    pub(crate) fn stop(mut self) -> io::Result<PathBuf> {
        Command::new("kill").arg(self.process.id().to_string()).status()?;
        self.process.wait()?;
        Ok(self.store())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Fails after `stop`, when the process has exited.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The binary of this build, or the one named by `SCALEBRIDGE_BINARY`, for comparisons.
fn binary() -> PathBuf {
    let named = std::env::var_os("SCALEBRIDGE_BINARY").map(PathBuf::from);
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_scalebridge").into())
}

fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The section `store`, with the file that it names.
fn store_section(store: Store<'_>, folder: &Path) -> io::Result<String> {
    let Store::Postgres(url) = store else {
        return Ok(format!("{{ sqlite: {{ path: \"{}\" }} }}", folder.join("scalebridge.db").display()));
    };
    let path = folder.join("url");
    std::fs::write(&path, url)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(format!("{{ postgres: {{ url_file: \"{}\" }} }}", path.display()))
}

fn configuration(
    store: &str,
    setup: &Setup,
    aws: SocketAddr,
    webhook: SocketAddr,
    admin: SocketAddr,
) -> String {
    let body = setup.max_body_bytes.map_or(String::new(), |bytes| {
        format!(", max_body_bytes: {bytes}, max_in_flight_bytes: {}", bytes * 2)
    });
    let (tls, auth) = match setup.secured {
        true => {
            (", tls: { cert_file: tls.crt, key_file: tls.key }", ", auth: { bearer_token_files: [token] }")
        }
        false => ("", ""),
    };
    let log = if setup.debug_log { "level: debug, format: json" } else { "level: info" };
    let kind = match setup.polled {
        true => format!(
            ", kind: sqs, sqs: {{ queue_url: \"http://{aws}/123456789012/alerts\", region: eu-west-1, endpoint_url: \"http://{aws}\" }}"
        ),
        false => String::new(),
    };
    let backlog =
        setup.max_backlog.map_or(String::new(), |max| format!("delivery: {{ max_backlog: {max} }}\n"));
    let mut text = format!(
        "server: {{ listen: \"{webhook}\"{body}{tls} }}
admin: {{ listen: \"{admin}\" }}
store: {store}
log: {{ {log} }}
{backlog}sources: {{ prod-eu: {{ labels: {{ cluster: prod-eu, region: eu-west-1 }}{auth}{kind} }} }}
rules: [rules.yaml]
destinations:
"
    );
    for queue in queue_names(setup) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {queue}: {{ sqs: {{ queue_url: \"http://{aws}/123456789012/{queue}\", region: eu-west-1, \
             endpoint_url: \"http://{aws}\" }} }}"
        );
    }
    text
}

fn queue_names(setup: &Setup) -> impl Iterator<Item = String> {
    (1..=setup.destinations).map(|queue| format!("queue-{queue}"))
}

/// `setup.rules` rules; only the last one matches the alerts.
fn rules(setup: &Setup) -> String {
    let queues = queue_names(setup).collect::<Vec<_>>().join(", ");
    let mut text = format!("defaults: {{ send_to: [{queues}] }}\nrules:\n");
    for rule in (1..=setup.rules).rev() {
        let alertname = if rule == 1 { "KubePodUnschedulable".to_owned() } else { format!("Other{rule}") };
        let _ = writeln!(
            text,
            "  - name: rule-{rule}
    matchers: [alertname = {alertname}, 'severity =~ \"warning|critical\"']
    target: {{ platform: eks, kind: nodegroup, name: '{{{{ labels.nodegroup }}}}', cluster: '{{{{ labels.cluster }}}}', region: '{{{{ labels.region }}}}' }}
    on_firing: {{ scale_out: {{ by: 2 }}, cooldown: 3m }}
    on_resolved: {{ scale_in: {{ by: 1 }}, stabilization_window: 15m, cooldown: 10m }}
    limits: {{ min_capacity: 2, max_capacity: 40 }}"
        );
    }
    text
}

/// Sends a request with a body.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.contains(" 200 ") { Ok(()) } else { Err(io::Error::other(line)) }
}

/// Sends a request without a body. Returns the status and the body of the response.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(RUN_TIMEOUT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let (mut head, mut length) = (String::new(), 0);
    let mut reader = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        let begun = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((name, value)) = head[begun..].split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    io::Read::read_exact(&mut reader, &mut body)?;
    let status = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    request(address, "GET", path)
}
