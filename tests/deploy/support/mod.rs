//! Test support: the programs that read what is in `deploy/`, and a bridge.

use std::path::PathBuf;
use std::process::Command;

#[allow(dead_code, reason = "shared with the tests of the bridge")]
#[path = "../../it/support/bridge.rs"]
pub(crate) mod bridge;
#[allow(dead_code, reason = "shared with the tests of the bridge")]
#[path = "../../it/support/prometheus.rs"]
pub(crate) mod prometheus;
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
