//! The floor plan: imports run one way between layers and without cycles between modules, and the domain is pure.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::TokenTree;

use crate::support::sources::{self, ModulePath};

/// Each layer with its level. A layer may use itself and layers of a lower level.
const LAYERS: [(&str, u8); 17] = [
    ("json", 0),
    ("domain", 1),
    ("config", 2),
    ("aws", 3),
    ("credentials", 3),
    ("store", 4),
    ("telemetry", 5),
    ("bridge", 6),
    ("dispatch", 6),
    ("sources", 6),
    ("kinds", 7),
    ("intake", 8),
    ("ops", 9),
    ("http", 10),
    ("app", 11),
    ("fuzzing", 11),
    ("cli", 12),
];

fn level(layer: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == layer).map(|(_, level)| *level)
}

/// For each module of `src` the modules that it names, by `crate::`, `self::` and `super::` paths.
fn imports() -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let modules = sources::modules();
    let resolve = |module: &ModulePath, path: &[String]| {
        let mut names = path.iter().peekable();
        let mut base = match names.next().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("super") => parent(module),
            _ => module.clone(),
        };
        while names.next_if(|name| *name == "super").is_some() {
            base = parent(&base);
        }
        for name in names {
            let child: ModulePath = base.iter().cloned().chain([name.clone()]).collect();
            if !modules.contains_key(&child) {
                break;
            }
            base = child;
        }
        base
    };
    let named = |module: &ModulePath, tokens: &[TokenTree]| {
        sources::crate_paths(tokens).iter().map(|path| resolve(module, path)).collect()
    };
    modules.iter().map(|(module, tokens)| (module.clone(), named(module, tokens))).collect()
}

fn parent(module: &ModulePath) -> ModulePath {
    module[..module.len().saturating_sub(1)].to_vec()
}

#[test]
fn imports_run_one_way() {
    let mut violations = Vec::new();
    for (module, imported) in imports() {
        let Some(own) = module.first().and_then(|layer| level(layer)) else { continue };
        for other in imported.iter().filter(|other| other.first() != module.first()) {
            // What `lib.rs` itself exports is for users of the crate.
            let lower = other.first().and_then(|layer| level(layer)).is_some_and(|level| level < own);
            if !lower {
                violations.push(format!("{} imports {}", module.join("::"), other.join("::")));
            }
        }
    }
    assert!(violations.is_empty(), "imports run from cli down to json:\n{}", violations.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    for module in sources::modules().keys() {
        let Some(layer) = module.first() else { continue };
        assert!(level(layer).is_some(), "src/{layer} is in no layer");
    }
}

/// For each pair of modules of one folder the imports between them, whatever lies below each.
fn sibling_imports() -> BTreeMap<ModulePath, BTreeSet<(String, String)>> {
    let mut siblings: BTreeMap<ModulePath, BTreeSet<(String, String)>> = BTreeMap::new();
    for (module, imported) in imports() {
        for other in imported {
            let common = module.iter().zip(&other).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (module.get(common), other.get(common)) {
                siblings.entry(module[..common].to_vec()).or_default().insert((from.clone(), to.clone()));
            }
        }
    }
    siblings
}

/// The modules that can be reached from `start`.
fn reachable(imports: &BTreeSet<(String, String)>, start: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start.to_owned()];
    while let Some(module) = open.pop() {
        for (_, to) in imports.iter().filter(|(from, _)| *from == module) {
            if reached.insert(to.clone()) {
                open.push(to.clone());
            }
        }
    }
    reached
}

#[test]
fn no_two_modules_of_a_folder_import_each_other() {
    let siblings = sibling_imports();
    assert!(siblings.len() > 8, "imports are not read any more: {siblings:?}");
    let mut cycles = Vec::new();
    for (folder, imports) in &siblings {
        let in_cycle = |(from, to): &&(String, String)| reachable(imports, to).contains(from);
        let found = imports.iter().filter(in_cycle);
        cycles.extend(found.map(|(from, to)| format!("{}: {from} -> {to}", folder.join("::"))));
    }
    assert!(cycles.is_empty(), "these imports are part of a cycle:\n{}", cycles.join("\n"));
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
    for (module, tokens) in sources::modules() {
        if module.first().is_some_and(|layer| layer == "domain") {
            let code = sources::code(&tokens);
            for impure in IMPURE {
                assert!(!code.contains(impure), "{}: {impure} in the domain", module.join("::"));
            }
        }
    }
}
