//! The emulators that `deploy/tools.sh` installs. Each listens on a port of its own of 127.0.0.1, and is stopped when
//! its value is dropped; if the test has failed, the tail of its log is printed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::REGION;

const START_TIMEOUT: Duration = Duration::from_secs(180);
/// Between SIGTERM and SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of its log that a failed test prints.
const LOG_LINES: usize = 40;

/// A running emulator.
pub(crate) struct Emulator {
    child: Child,
    port: Port,
    dir: tempfile::TempDir,
}

/// ministack: DynamoDB, ECS, Auto Scaling.
pub(crate) async fn ministack() -> Emulator {
    Emulator::start("venv", "/_ministack/health", |command, port, dir| {
        // It does not remove its temporary files.
        command.args(["-m", "ministack"]).env("TMPDIR", dir);
        command.env("BIND_HOST", "127.0.0.1").env("MINISTACK_HOST", "127.0.0.1");
        command.env("GATEWAY_PORT", port).env("MINISTACK_REGION", REGION);
    })
    .await
}

/// moto: EKS and Application Auto Scaling, and the others once more.
pub(crate) async fn moto() -> Emulator {
    Emulator::start("moto", "/moto-api/data.json", |command, port, _| {
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", port]);
    })
    .await
}

impl Emulator {
    async fn start(venv: &str, ready: &str, arrange: impl FnOnce(&mut Command, &str, &Path)) -> Self {
        let python = tools().join(venv).join("bin/python");
        assert!(python.exists(), "{} is missing: run deploy/tools.sh", python.display());
        let dir = tempfile::tempdir().expect("a directory");
        let port = Port::reserve();
        let log = File::create(dir.path().join("log")).expect("a log file");
        let mut command = Command::new(python);
        // Nothing of the machine's own accounts.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            if text.starts_with("AWS_") || text.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        arrange(&mut command, &port.number.to_string(), dir.path());
        let command = command.current_dir(dir.path()).stdin(Stdio::null());
        let command = command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = command.spawn().expect("python starts");
        let mut emulator = Self { child, port, dir };
        emulator.wait_ready(ready).await;
        emulator
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number)
    }

    async fn wait_ready(&mut self, path: &str) {
        let deadline = Instant::now() + START_TIMEOUT;
        while !answers(self.port.number, path).await {
            let ended = self.child.try_wait().expect("a process status");
            assert!(ended.is_none(), "the emulator has ended: {ended:?}");
            assert!(Instant::now() < deadline, "the emulator is not ready after {START_TIMEOUT:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The standard library can only send SIGKILL.
        let _ = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.child.id())).status();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- the end of the emulator's log ---\n{}", tail.join("\n"));
        }
    }
}

/// Whether `GET path` is answered with 200.
async fn answers(port: u16, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return false };
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
    let mut answer = Vec::new();
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.split(|byte| *byte == b' ').nth(1) == Some(b"200")
}

/// `tools` in the target directory, wherever that is.
pub(crate) fn tools() -> PathBuf {
    let test = env::current_exe().expect("the test's own path");
    // TARGET/PROFILE/deps/TEST
    test.ancestors().nth(3).expect("the target directory").join("tools")
}

/// A free port for a program that cannot listen on port 0 and say which one it got. Until it is dropped, no other test
/// gets it, whatever its process: each port has a lock file, and none is in the range from which the system chooses.
struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    fn reserve() -> Self {
        // Below 32768, where the system's range begins.
        const MIN_PORT: u32 = 20_000;
        const PORTS: u32 = 10_000;
        let locks = env::temp_dir().join("scalebridge-test-ports");
        fs::create_dir_all(&locks).expect("a directory");
        // Processes begin at different ports, so that they seldom meet.
        let start = std::process::id().wrapping_mul(97);
        let mut ports = (0..PORTS).filter_map(|step| {
            let number = u16::try_from(MIN_PORT + start.wrapping_add(step) % PORTS).ok()?;
            let lock = File::create(locks.join(number.to_string())).ok()?;
            lock.try_lock().ok()?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
            Some(Self { number, _lock: lock })
        });
        ports.next().expect("a free port")
    }
}
