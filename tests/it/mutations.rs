//! The mutations of `tests/mutations`, which the tests must catch: they still apply, and the tests that they name exist.
//! `tests/mutations/run` makes them; it takes too long for each change.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::sources;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A mutation as `tests/mutations/run` reads it.
struct Mutation {
    promise: String,
    broken: String,
    file: String,
    /// The test binary and the path of the test in it.
    test: (String, String),
    from: String,
    to: String,
}

impl Mutation {
    fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.split_once("--- from\n")?;
        let (from, to) = rest.split_once("\n--- to\n")?;
        let fields: BTreeMap<&str, &str> = head.lines().filter_map(|line| line.split_once(": ")).collect();
        let field = |name: &str| fields.get(name).map(|&value| value.to_owned());
        let test = field("test")?;
        let (binary, path) = test.split_once(' ')?;
        Some(Self {
            promise: field("promise")?,
            broken: field("broken")?,
            file: field("file")?,
            test: (binary.to_owned(), path.to_owned()),
            from: from.to_owned(),
            to: to.trim_end_matches('\n').to_owned(),
        })
    }
}

fn mutations() -> BTreeMap<String, Mutation> {
    let files = fs::read_dir(Path::new(ROOT).join("tests/mutations")).expect("a folder");
    let paths = files.map(|file| file.expect("a file").path());
    let mutations: BTreeMap<String, Mutation> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "mutation"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
            let text = fs::read_to_string(&path).expect("UTF-8");
            let mutation = Mutation::parse(&text).unwrap_or_else(|| panic!("{name} is not a mutation"));
            (name, mutation)
        })
        .collect();
    assert!(mutations.len() >= 10, "the mutations have moved");
    mutations
}

#[test]
fn every_mutation_applies() {
    for (name, Mutation { file, from, to, .. }) in mutations() {
        let source = fs::read_to_string(Path::new(ROOT).join(&file));
        let source = source.unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
        let found = source.matches(&from).count();
        assert_eq!(found, 1, "{name}: this text must be in {file} exactly once:\n{from}");
        assert_ne!(from, to, "{name} changes nothing");
    }
}

#[test]
fn every_test_of_a_mutation_exists() {
    let folders = [("lib", sources::rust_files("src")), ("it", sources::rust_files("tests/it"))];
    for (name, Mutation { test: (binary, path), .. }) in mutations() {
        let files = folders.iter().find(|(folder, _)| *folder == binary).map(|(_, files)| files);
        let files = files.unwrap_or_else(|| panic!("{name}: {binary} is not a test binary"));
        // `on_old_and_new!` makes this test of a function.
        let path = path.strip_suffix("::new").unwrap_or(&path);
        let function = path.rsplit("::").next().unwrap_or_default();
        let is_defined = files.iter().any(|(file, text)| {
            let module = file.with_extension("").to_str().expect("UTF-8").replace('/', "::");
            let module = module.trim_end_matches("::mod");
            path.starts_with(&format!("{module}::")) && text.contains(&format!("fn {function}("))
        });
        assert!(is_defined, "{name}: there is no test {path} in {binary}");
    }
}

/// The table for readers has a row for each mutation.
#[test]
fn the_table_of_mutations_is_complete() {
    let table = fs::read_to_string(Path::new(ROOT).join("docs/mutations.md")).expect("a table");
    let mutations = mutations();
    for (name, Mutation { promise, broken, test: (_, path), .. }) in &mutations {
        let row = format!("| {promise} | `{name}` | {broken} | `{path}` |");
        assert!(table.contains(&row), "docs/mutations.md must have this row:\n{row}");
    }
    let rows = table.lines().filter(|line| line.matches('`').count() == 4 && line.starts_with("| ")).count();
    assert_eq!(rows, mutations.len(), "a row of docs/mutations.md is about a mutation that does not exist");
}
