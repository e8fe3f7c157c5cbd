//! A program as a child process, with a directory of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long, since the machine may be busy with other tests.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
/// Lines of its log that a failed test prints.
const LOG_LINES: usize = 60;

/// Waits until `poll` finds something.
pub(crate) async fn eventually<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out after {WAIT_TIMEOUT:?} waiting for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A program that cargo has built.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    // PROFILE/deps/TEST
    let program = test.ancestors().nth(2).expect("the profile's directory").join(name);
    assert!(program.exists(), "{} is missing: run `cargo build --bin {name}`", program.display());
    program
}

/// A process. It is killed when its value is dropped.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in `directory`, with these environment variables and none of AWS or of proxies.
    pub(crate) fn start(
        name: &'static str,
        directory: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
    ) -> Self {
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = Command::new(program(name));
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy().to_ascii_uppercase();
            if text.starts_with("AWS_") || text.ends_with("_PROXY") {
                command.env_remove(variable);
            }
        }
        command.current_dir(directory).args(arguments).envs(environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a second handle")).stderr(output);
        Self { name, child: command.spawn().expect("a program that starts"), log }
    }

    /// Everything that it and its predecessors in the same directory have written.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn assert_runs(&mut self) {
        let ended = self.child.try_wait().expect("a process status");
        assert!(ended.is_none(), "{} has ended with {ended:?}:\n{}", self.name, self.log());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a process that runs");
        self.child.wait().expect("a process status");
    }

    /// SIGTERM. Returns the exit code.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        let kill = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.child.id())).status();
        assert!(kill.expect("a shell").success());
        let status = eventually("the end of the process", async || self.child.try_wait().expect("a status"));
        status.await.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- the end of the log of {} ---\n{}", self.name, tail.join("\n"));
        }
    }
}
