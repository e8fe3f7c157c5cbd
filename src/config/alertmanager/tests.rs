//! Alertmanager configurations in `tests/config/alertmanager`, with the expected diagnostics of each: what an operator
//! would write, and what `check` says about it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::{Diagnostics, snippet};
use crate::kinds::load_with_alertmanager;

const DIRECTORY: &str = "tests/config/alertmanager";

/// The diagnostics of an Alertmanager configuration for the bridge of `bridge.yaml`.
fn check(path: &Path) -> Diagnostics {
    let bridge = Path::new(DIRECTORY).join("bridge.yaml");
    load_with_alertmanager(&bridge, [], path).map_or_else(|diagnostics| diagnostics, |loaded| loaded.warnings)
}

fn configurations() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(DIRECTORY).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    paths.sort();
    assert!(paths.len() > 40, "{}", paths.len());
    paths
}

#[test]
fn each_configuration_has_its_diagnostics() {
    let mut mismatches = Vec::new();
    for path in configurations() {
        let found = check(&path);
        let rendered: String =
            found.iter().map(|one| format!("{}\n\n", snippet::render(one, found.redacted(&path)))).collect();
        let expected = path.with_extension("diagnostics");
        if std::env::var_os("BLESS_DIAGNOSTICS").is_some() && !rendered.is_empty() {
            fs::write(&expected, &rendered).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != rendered {
            mismatches.push(format!("{}:\n{rendered}", path.display()));
        }
        let is_good = path.file_name().unwrap().to_str().unwrap().starts_with("good-");
        assert_eq!(found.is_empty(), is_good, "{}:\n{rendered}", path.display());
        assert!(!rendered.contains("hunter2") && !rendered.contains("0815"), "a secret is shown: {rendered}");
    }
    assert!(mismatches.is_empty(), "{}\n\nset BLESS_DIAGNOSTICS=1 to accept", mismatches.join("\n"));
}

#[test]
fn a_source_that_prometheus_sends_to_does_not_take_a_webhook() {
    let directory = Path::new(DIRECTORY).join("other-kind");
    let found =
        load_with_alertmanager(&directory.join("bridge.yaml"), [], &directory.join("alertmanager.yml"));
    let found = found.map_or_else(|diagnostics| diagnostics, |loaded| loaded.warnings);
    let errors: Vec<String> =
        found.iter().filter(|one| one.message.contains("receiver")).map(ToString::to_string).collect();
    let [error] = &errors[..] else { panic!("{errors:?}") };
    assert!(error.contains("alertmanager.yml:6:30: error[E026]"), "{error}");
    assert!(error.contains("`scaling` sends to source `direct`, whose kind does not take"), "{error}");
}
