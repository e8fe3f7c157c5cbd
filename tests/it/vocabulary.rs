//! Names that were replaced by the field's terms stay replaced.
//!
//! `tests/fixtures/retired-names.txt` lists them: files, types, constants and flags that nothing else is called.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

use crate::support::sources;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The names of one section of the list.
fn retired(section: &str) -> BTreeSet<String> {
    let list =
        fs::read_to_string(Path::new(ROOT).join("tests/fixtures/retired-names.txt")).expect("the list");
    let (_, rest) = list.split_once(&format!("[{section}]\n")).expect("a section");
    let names: BTreeSet<_> = rest.lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect();
    assert!(!names.is_empty(), "no {section} are listed");
    names
}

fn identifiers(tokens: TokenStream, found: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                found.insert(ident.to_string());
            }
            TokenTree::Group(group) => identifiers(group.stream(), found),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// All Rust files of the package, by their paths below it.
fn rust_files() -> Vec<(PathBuf, String)> {
    let folders = ["src", "tests", "benches"];
    let files = folders.iter().flat_map(|folder| {
        sources::rust_files(folder).into_iter().map(move |(path, text)| (Path::new(folder).join(path), text))
    });
    files.collect()
}

/// Documents for users and developers. CHANGELOG.md names what a flag was called before.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let deploy = fs::read_dir(Path::new(ROOT).join("deploy")).expect("a directory");
    let deploy = deploy.map(|entry| entry.expect("a directory entry").path()).filter(|path| path.is_dir());
    let folders = ["", "docs", "docs/adr", "docs/runbooks", "tests/cmd", "config"];
    for folder in folders.map(|folder| Path::new(ROOT).join(folder)).into_iter().chain(deploy) {
        for entry in fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("a directory entry").path();
            let is_text = path
                .extension()
                .is_some_and(|kind| ["md", "trycmd", "yaml"].iter().any(|text| kind == *text));
            if is_text && !path.ends_with("CHANGELOG.md") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 15, "the documents have moved");
    found
}

#[test]
fn no_file_has_a_retired_name() {
    for file in retired("files") {
        assert!(!Path::new(ROOT).join(&file).exists(), "{file} is a retired name");
    }
}

#[test]
fn no_identifier_is_a_retired_name() {
    let retired: BTreeSet<_> = retired("types").union(&retired("constants")).cloned().collect();
    for (path, text) in rust_files() {
        let mut found = BTreeSet::new();
        identifiers(text.parse().expect("Rust"), &mut found);
        let names: Vec<_> = found.intersection(&retired).collect();
        assert!(names.is_empty(), "{}: {names:?}", path.display());
    }
}

/// Doc comments are help texts, and messages name flags. An alias is written without its dashes.
#[test]
fn no_help_or_message_names_a_retired_flag() {
    for (path, text) in sources::rust_files("src") {
        for flag in retired("flags") {
            assert!(!text.contains(&flag), "{}: {flag} is a retired name", path.display());
        }
    }
}

#[test]
fn no_document_uses_a_retired_name() {
    let (files, flags) = (retired("files"), retired("flags"));
    let names = |path: &Path| {
        // Some type names are ordinary words elsewhere.
        let code = path
            .extension()
            .is_some_and(|kind| kind == "md")
            .then(|| [retired("types"), retired("constants")]);
        files
            .iter()
            .chain(&flags)
            .cloned()
            .chain(code.into_iter().flatten().flatten())
            .collect::<BTreeSet<_>>()
    };
    for (path, text) in documents() {
        let is_markdown = path.extension().is_some_and(|kind| kind == "md");
        let code: Vec<&str> =
            if is_markdown { text.split('`').skip(1).step_by(2).collect() } else { vec![&text] };
        let words: BTreeSet<_> = code
            .iter()
            .flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && !"_-./".contains(c)))
            .collect();
        for name in names(&path) {
            let below_src = name.strip_prefix("src/").unwrap_or(&name);
            let is_used = words.contains(name.as_str()) || words.contains(below_src);
            assert!(!is_used, "{}: {name} is a retired name", path.display());
        }
    }
}
