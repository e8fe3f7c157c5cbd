//! Configurations as files, each with what it is told: `tests/config`.

use std::path::{Path, PathBuf};

use super::*;
use crate::domain::name::Name;

/// Set to write the expected diagnostics anew.
const BLESS: &str = "BLESS_DIAGNOSTICS";

fn configurations(directory: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(".yaml") && !name.ends_with(".rules.yaml")
    });
    paths.sort();
    assert!(!paths.is_empty(), "no configuration in {directory}");
    paths
}

/// The lines `# env: NAME=VALUE` at the top of a file.
fn environment(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| line.strip_prefix("# env: "));
    lines.map(|line| line.split_once('=').unwrap()).map(|(name, value)| (name.into(), value.into())).collect()
}

fn check(path: &Path) -> Result<Loaded, Diagnostics> {
    load(path, environment(path))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn each_bad_configuration_is_told_everything_that_is_wrong_with_it() {
    let mut wrong = Vec::new();
    for path in configurations("tests/config/bad") {
        let told = match check(&path) {
            Ok(loaded) => format!("loaded, with these warnings:\n{}\n", loaded.warnings),
            Err(faults) => format!("{faults}\n"),
        };
        let expected = path.with_extension("diagnostics");
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(&expected, &told).unwrap();
        }
        if std::fs::read_to_string(&expected).unwrap_or_default() != told {
            wrong.push(format!(
                "{} should be told what is in {}, not:\n{told}",
                path.display(),
                expected.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}\n\nset {BLESS}=1 to accept", wrong.join("\n"));
}

#[test]
fn good_configurations_have_no_fault() {
    for path in configurations("tests/config/good") {
        match check(&path) {
            Ok(loaded) => assert_eq!(loaded.warnings.to_string(), "", "{}", path.display()),
            Err(faults) => panic!("{faults}"),
        }
    }
}

#[test]
fn the_example_is_the_default() {
    let example = load(Path::new("config/scalebridge.yaml"), []).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(example.warnings.to_string(), "");
    let settings = example.settings;
    assert_eq!(settings.rules.rules().len(), 3);
    assert_eq!(settings.destinations[&name("journal")].kind, DestinationKind::File(File::Stdout));

    // Whatever the example says, it says what holds without it.
    let bare =
        load(Path::new("tests/config/good/least.yaml"), []).unwrap_or_else(|faults| panic!("{faults}"));
    let bare = bare.settings;
    assert_eq!((&settings.server, &settings.admin), (&bare.server, &bare.admin));
    assert_eq!((&settings.store, &settings.retention), (&bare.store, &bare.retention));
    assert_eq!(settings.log, bare.log);
    assert_eq!(settings.destinations, bare.destinations);
    let (written, unwritten) = (&settings.sources[&name("local")], &bare.sources[&name("local")]);
    assert_eq!(written.late_window, unwritten.late_window);
    assert_eq!(written.occurrence_ttl, unwritten.occurrence_ttl);
}
