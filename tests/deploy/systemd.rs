//! `deploy/systemd`: the units are valid and confined, and the programs tell systemd what the units rely on.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::bridge::{Bridge, CONFIG, RULES, program};
use crate::support::scaler::scaler_program;
use crate::support::tools::{LocalAws, Port, eventually, get, tool};
use crate::support::{repository, run};

/// The units, with the programs that they start.
fn units() -> [(&'static str, PathBuf); 2] {
    [("scalebridge", program()), ("scalebridge-scaler", scaler_program())]
}

fn unit(name: &str) -> String {
    fs::read_to_string(repository(&format!("deploy/systemd/{name}.service"))).expect("a unit")
}

/// The value of a setting that occurs once.
fn setting<'u>(unit: &'u str, name: &str) -> &'u str {
    let values: Vec<&str> =
        unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect();
    assert_eq!(values.len(), 1, "{name}");
    values[0]
}

/// Runs `systemd-analyze` on a copy of the unit that starts the program that was built.
fn analyze(arguments: &[&str], name: &str, program: &Path) -> (String, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let installed = format!("/usr/local/bin/{name} ");
    let text = unit(name);
    assert!(setting(&text, "ExecStart").starts_with(&installed));
    let file = directory.path().join(format!("{name}.service"));
    fs::write(&file, text.replace(&installed, &format!("{} ", program.display()))).expect("a unit");
    let done = tool("bin/systemd-analyze").args(arguments).arg(&file).output().expect("systemd-analyze");
    let printed = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(done.status.success(), "{printed:?}");
    printed.into()
}

#[test]
fn the_units_are_valid() {
    for (name, program) in units() {
        // What it does not know, it ignores with a line, and succeeds.
        let (_, warnings) = analyze(&["verify", "--man=no"], name, &program);
        assert_eq!(warnings, "", "{name}");
    }
}

#[test]
fn the_units_expose_little() {
    for (name, program) in units() {
        let (report, _) = analyze(&["security", "--offline=yes", "--no-pager"], name, &program);
        let (_, overall) = report.split_once("Overall exposure level for ").expect("a result");
        let exposure: f64 =
            overall.split(' ').nth(1).and_then(|number| number.parse().ok()).expect("a number");
        assert!(exposure < 2.0, "{name}: {exposure}\n{report}");
    }
}

#[test]
fn the_programs_have_the_options_of_the_units() {
    for (name, program) in units() {
        let unit = unit(name);
        let arguments = setting(&unit, "ExecStart").split(' ').skip(1);
        // An unknown option is an error, also before --help.
        let help = run(Command::new(program).args(arguments).arg("--help"));
        assert!(help.contains("--config"), "{help}");
    }
}

/// The seconds of `90`, `90s` or `5min`.
fn seconds(text: &str) -> u64 {
    let (number, factor) = match text.strip_suffix("min") {
        Some(minutes) => (minutes, 60),
        None => (text.trim_end_matches('s'), 1),
    };
    number.parse::<u64>().expect("a number") * factor
}

#[test]
fn the_units_wait_for_what_the_programs_need() {
    let bridge = unit("scalebridge");
    let config = fs::read_to_string(repository("config/scalebridge.yaml")).expect("a configuration");
    let drain =
        config.lines().find_map(|line| line.trim().strip_prefix("drain_timeout: ")).expect("the default");
    let drain = seconds(drain.split(' ').next().expect("a duration"));
    assert!(seconds(setting(&bridge, "TimeoutStopSec")) > drain);
    // How long a database that is away is tried.
    assert!(seconds(setting(&bridge, "TimeoutStartSec")) > 180);
    let scaler = unit("scalebridge-scaler");
    let (_, drain) = setting(&scaler, "ExecStart").split_once("--drain-timeout ").expect("an option");
    assert!(seconds(setting(&scaler, "TimeoutStopSec")) > seconds(drain));
}

/// The socket of a service manager, and what it was told.
struct Manager {
    directory: TempDir,
    told: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        let told = Arc::new(Mutex::new(Vec::new()));
        let kept = told.clone();
        // Ends with the process of the tests.
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                kept.lock().expect("the lock is not poisoned").extend(text.lines().map(str::to_owned));
            }
        });
        Self { directory, told }
    }

    /// The variables that systemd sets for a service whose `WatchdogSec=` is `watchdog`.
    fn environment(&self, watchdog: Duration) -> [(&'static str, String); 2] {
        let socket = self.directory.path().join("notify").display().to_string();
        [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", watchdog.as_micros().to_string())]
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().expect("the lock is not poisoned").clone()
    }

    fn count(&self, line: &str) -> usize {
        self.told().iter().filter(|told| *told == line).count()
    }

    async fn wait_for(&self, line: &str) {
        eventually(line, async || (self.count(line) > 0).then_some(())).await;
    }

    /// Waits until something was told once more than `count` times.
    async fn wait_for_more(&self, line: &str, count: usize) {
        eventually(line, async || (self.count(line) > count).then_some(())).await;
    }
}

const WATCHDOG: Duration = Duration::from_millis(400);

/// A bridge that is started by this manager, at a port that is known before it is ready.
fn managed(manager: &Manager, port: &Port, store: &str) -> Bridge {
    let config = CONFIG
        .replace(
            "listen: \"127.0.0.1:0\" }\nadmin",
            &format!("listen: \"127.0.0.1:{}\" }}\nadmin", port.number),
        )
        .replace("{ sqlite: { path: bridge.db } }", store);
    let mut bridge = Bridge::new(&config, RULES);
    for (name, value) in manager.environment(WATCHDOG) {
        bridge.env(name, &value);
    }
    bridge
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_tells_systemd_when_it_is_ready_alive_and_stopping() {
    let (manager, port) = (Manager::start(), Port::reserve());
    let mut bridge = managed(&manager, &port, "{ sqlite: { path: bridge.db } }");
    bridge.launch();
    manager.wait_for("READY=1").await;
    let ready = get(&format!("http://127.0.0.1:{}/-/ready", port.number)).await.expect("an answer");
    assert_eq!(ready.0, 200, "{}", ready.1);
    bridge.wait_ready().await;
    manager.wait_for("STATUS=ready").await;
    manager.wait_for_more("WATCHDOG=1", manager.count("WATCHDOG=1") + 1).await;

    // The watchdog does not restart a bridge whose store refuses, only one that is stuck.
    let database = bridge.dir().join("bridge.db");
    fs::rename(&database, bridge.dir().join("away")).expect("a move");
    let removed = "STATUS=refusing notifications: a file of the store was removed or replaced; see the log";
    manager.wait_for(removed).await;
    manager.wait_for_more("WATCHDOG=1", manager.count("WATCHDOG=1") + 1).await;
    fs::rename(bridge.dir().join("away"), &database).expect("a move");

    let hang_up = || run(Command::new("kill").args(["-HUP", &bridge.pid().to_string()]));
    let ready = manager.count("READY=1");
    bridge.write("rules.yaml", "rules: [{ name: broken }]");
    hang_up();
    manager.wait_for("RELOADING=1").await;
    manager.wait_for_more("READY=1", ready).await;
    manager.wait_for("STATUS=ready; the last reload was rejected, see the log").await;
    let told = manager.told();
    let reloading = told.iter().position(|line| line == "RELOADING=1").expect("it was told");
    assert!(told[reloading + 1].starts_with("MONOTONIC_USEC="), "systemd 253 needs the time: {told:?}");

    assert_eq!(manager.count("STOPPING=1"), 0);
    assert!(bridge.stop().await.success());
    manager.wait_for("STOPPING=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_is_not_ready_without_its_database_and_says_so() {
    let (manager, port, database) = (Manager::start(), Port::reserve(), Port::reserve());
    let mut bridge = managed(&manager, &port, "{ postgres: { url_file: url } }");
    let url = format!("postgresql://scalebridge@127.0.0.1:{}/scalebridge?sslmode=disable", database.number);
    bridge.write("url", &url);
    bridge.launch();
    manager.wait_for("STATUS=starting: waiting for the database, see the log").await;
    manager.wait_for("WATCHDOG=1").await;
    assert_eq!(manager.count("READY=1"), 0);
    assert!(bridge.stop().await.success());
    assert_eq!(manager.count("READY=1"), 0, "also not later");
}

/// A worker of the scaler, which ends with the test.
struct Worker(Child);

impl Worker {
    fn start(manager: &Manager, aws: &LocalAws, queue: &str, directory: &Path) -> Self {
        let config = format!(
            "queue: {{ queue_url: \"{queue}\" }}\nledger: {{ sqlite: {{ path: ledger.db }} }}\n\
             targets: [{{ match: \"nomad/job/*\", dry_run: true }}]\n"
        );
        let mut command = Command::new(scaler_program());
        command
            .args(["worker", "--listen", "127.0.0.1:0"])
            .current_dir(directory)
            .env("SCALEBRIDGE_SCALER_CONFIG", config)
            .env("AWS_ENDPOINT_URL", aws.url())
            .envs([
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
                ("AWS_REGION", "eu-west-1"),
            ])
            .envs(manager.environment(WATCHDOG))
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("worker.log")).expect("a log"));
        Self(command.spawn().expect("the worker"))
    }

    fn terminate(&mut self) {
        run(Command::new("kill").args(["-TERM", &self.0.id().to_string()]));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_of_the_scaler_is_ready_when_it_has_polled_its_queue() {
    let directory = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(directory.path()).await;
    let queue = aws.create_fifo_queue("scaling.fifo").await;
    let manager = Manager::start();
    let mut worker = Worker::start(&manager, &aws, &queue, directory.path());
    manager.wait_for("READY=1").await;
    manager.wait_for("STATUS=ready").await;
    manager.wait_for_more("WATCHDOG=1", manager.count("WATCHDOG=1") + 1).await;
    worker.terminate();
    manager.wait_for("STOPPING=1").await;

    let manager = Manager::start();
    let missing = queue.replace("scaling.fifo", "missing.fifo");
    let _worker = Worker::start(&manager, &aws, &missing, directory.path());
    eventually("the reason", async || {
        let told = manager.told();
        told.iter()
            .any(|line| line.starts_with("STATUS=not ready: the queue could not be polled"))
            .then_some(())
    })
    .await;
    assert_eq!(manager.count("READY=1"), 0);
}
