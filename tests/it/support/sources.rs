//! The crate's own sources as tokens, for the tests of its structure.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The path of a module below the crate: `["store", "sqlite"]`.
pub(crate) type ModulePath = Vec<String>;

/// The Rust files of a folder of this package, with their paths below it.
pub(crate) fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    collect(&root, &mut found);
    found.sort();
    let below = |path: &Path| path.strip_prefix(&root).expect("a path below the folder").to_owned();
    found.iter().map(|path| (below(path), fs::read_to_string(path).expect("UTF-8"))).collect()
}

/// Each module of `src` with its tokens, without items that are only for tests.
pub(crate) fn modules() -> BTreeMap<ModulePath, Vec<TokenTree>> {
    let files = rust_files("src").into_iter().filter(|(path, _)| path != Path::new("main.rs"));
    let modules: BTreeMap<_, _> = files
        .map(|(path, text)| {
            let module = module_path(&path);
            let tokens: TokenStream =
                text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (module, without_tests(tokens))
        })
        .filter(|(module, _)| !module.iter().any(|name| name == "tests"))
        .collect();
    assert!(modules.len() > 40, "the sources have moved");
    modules
}

fn module_path(file: &Path) -> ModulePath {
    let mut names: Vec<_> =
        file.with_extension("").iter().map(|name| name.to_str().expect("UTF-8").to_owned()).collect();
    if names.last().is_some_and(|name| name == "mod" || name == "lib") {
        names.pop();
    }
    names
}

/// Leaves out each item under `#[cfg(test)]`: it ends with its braces, or with a semicolon.
fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let mut kept: Vec<TokenTree> = Vec::new();
    let mut skipping = false;
    for token in tokens {
        let is_test = matches!(&token, TokenTree::Group(group)
            if group.delimiter() == Delimiter::Bracket && group.to_string().replace(' ', "") == "[cfg(test)]");
        if is_test {
            kept.pop();
            skipping = true;
        } else if skipping {
            skipping = !match &token {
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                TokenTree::Punct(punct) => punct.as_char() == ';',
                _ => false,
            };
        } else if let TokenTree::Group(group) = &token {
            let inner: TokenStream = without_tests(group.stream()).into_iter().collect();
            kept.push(proc_macro2::Group::new(group.delimiter(), inner).into());
        } else {
            kept.push(token);
        }
    }
    kept
}

/// Every path that begins with `crate`, `self` or `super`, each branch of a `use` tree apart.
pub(crate) fn crate_paths(tokens: &[TokenTree]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                paths.extend(crate_paths(&inner));
            }
            TokenTree::Ident(ident) if ["crate", "self", "super"].iter().any(|root| ident == root) => {
                let (mut found, after) = branches(tokens, at);
                found.retain(|path| path.len() > 1);
                paths.extend(found);
                at = after;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    paths
}

/// The paths that begin at `at`, and the token behind them.
fn branches(tokens: &[TokenTree], mut at: usize) -> (Vec<Vec<String>>, usize) {
    let mut path = Vec::new();
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        path.push(ident.to_string());
        let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
        if !is_colon(tokens.get(at + 1)) || !is_colon(tokens.get(at + 2)) {
            return (vec![path], at + 1);
        }
        at += 3;
    }
    match tokens.get(at) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let inner: Vec<_> = group.stream().into_iter().collect();
            let trees =
                inner.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','));
            let tails = trees.filter(|tree| !tree.is_empty()).flat_map(|tree| branches(tree, 0).0);
            (tails.map(|tail| path.iter().cloned().chain(tail).collect()).collect(), at + 1)
        }
        // `use super::*`.
        _ => (vec![path], at + 1),
    }
}

/// Identifiers and punctuation without spaces: no comment, no text.
pub(crate) fn code(tokens: &[TokenTree]) -> String {
    let mut code = String::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                code.push_str(&self::code(&inner));
            }
            TokenTree::Literal(_) => code.push(' '),
            token => code.push_str(&token.to_string()),
        }
    }
    code
}
