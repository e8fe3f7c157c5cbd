//! The house keeps its floor plan: imports run one way, and the domain stays pure.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with its floor. A file may use what lies below its own floor, and its own layer; layers
/// beside each other do not know each other.
const LAYERS: [(&str, u8); 10] = [
    ("json", 0),
    ("domain", 1),
    ("config", 2),
    ("store", 2),
    ("telemetry", 3),
    ("bridge", 4),
    ("dispatch", 4),
    ("http", 5),
    ("app", 6),
    ("cli", 7),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    assert!(found.len() > 40, "the sources are not where they were");
    let name = |path: &Path| path.strip_prefix(&root).expect("below src").to_str().expect("UTF-8").to_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).expect("a source"))).collect()
}

fn level(layer: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == layer).map(|(_, level)| *level)
}

fn layer(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap_or_default()
}

/// What a line names of this crate: `config` of `use crate::config::{…}`, also inside an expression.
fn named_layers(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn imports_run_one_way() {
    let mut violations = Vec::new();
    for (file, text) in all_sources() {
        let Some(own) = level(layer(&file)) else { continue };
        for (at, line) in text.lines().enumerate() {
            for other in named_layers(line).filter(|other| *other != layer(&file)) {
                // `use crate::{a, b}` would hide from this test.
                let Some(level) = level(other) else {
                    violations.push(format!("{file}:{}: name the module after crate:: ({line})", at + 1));
                    continue;
                };
                if level >= own {
                    violations.push(format!("{file}:{}: {} must not know {other}", at + 1, layer(&file)));
                }
            }
        }
    }
    assert!(violations.is_empty(), "imports run from cli down to json:\n{}", violations.join("\n"));
}

#[test]
fn every_module_belongs_to_a_layer() {
    for (file, _) in all_sources() {
        let layer = layer(&file);
        assert!(
            level(layer).is_some() || ["lib", "main"].contains(&layer),
            "{file}: on which floor is {layer}?"
        );
    }
}

#[test]
fn the_domain_is_pure() {
    const IMPURE: [&str; 9] = [
        "tokio",
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "SystemTime",
        "Instant::now",
        "fastrand",
        "println!",
    ];
    for (file, text) in all_sources().iter().filter(|(file, _)| layer(file) == "domain") {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (at, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for impure in IMPURE {
                assert!(!line.contains(impure), "src/{file}:{}: no {impure} in the domain", at + 1);
            }
        }
    }
}
