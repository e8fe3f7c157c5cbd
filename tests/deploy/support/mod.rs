//! Test support: the programs that read what is in `deploy/`, and a bridge.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[allow(dead_code, reason = "shared with the tests of the bridge")]
#[path = "../../it/support/bridge.rs"]
pub(crate) mod bridge;
#[allow(dead_code, reason = "shared with the tests of the bridge")]
#[path = "../../it/support/prometheus.rs"]
pub(crate) mod prometheus;
pub(crate) mod scaler;
#[allow(dead_code, reason = "shared with the tests of the bridge")]
#[path = "../../it/support/schema.rs"]
pub(crate) mod schema;
#[allow(dead_code, reason = "shared with the tests of the bridge")]
#[path = "../../it/support/secrets.rs"]
pub(crate) mod secrets;
#[allow(dead_code, reason = "shared with the tests of the bridge")]
#[path = "../../it/support/tools.rs"]
pub(crate) mod tools;

/// A path of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a command. Returns its output, or panics with what it printed if it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let (out, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {}\n{out}{errors}", done.status);
    out.into_owned()
}

/// Copies `deploy/DIRECTORY` and the example rules below `root`, and makes `rules.yaml` as the README of the directory
/// says. Returns the directory of the copy.
pub(crate) fn copy_with_rules(directory: &str, root: &Path) -> PathBuf {
    let copy = root.join("deploy").join(directory);
    for path in [root.join("deploy"), root.join("config")] {
        fs::create_dir_all(path).expect("a directory");
    }
    run(Command::new("cp").arg("-r").arg(repository(&format!("deploy/{directory}"))).arg(&copy));
    fs::copy(repository("config/rules.yaml"), root.join("config/rules.yaml")).expect("the rules");
    let readme = fs::read_to_string(copy.join("README.md")).expect("a document");
    let step =
        readme.lines().map(str::trim).find(|line| line.starts_with("sed ")).expect("a step for the rules");
    run(Command::new("sh").args(["-ec", step]).current_dir(&copy));
    copy
}

/// `scalebridge check` finds nothing in the configuration, except that it has no TLS.
pub(crate) fn assert_checked(config: &Path) {
    let mut check = Command::new(bridge::program());
    check.args(["check", "--output", "json", "--config"]).arg(config);
    let done = check.output().expect("the bridge starts");
    let report: Value = serde_json::from_slice(&done.stdout).expect("a report");
    let mut findings = report["findings"].as_array().expect("a list").clone();
    findings.retain(|finding| finding["code"] != "W047");
    assert!(done.status.success() && findings.is_empty(), "{}: {findings:#?}", config.display());
}
