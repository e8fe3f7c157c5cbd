//! Readers of maps and lists in which a secret may be written by mistake: their errors do not repeat what is there.

use std::path::PathBuf;

use super::super::decode::{self, Fields, Spanned};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::yaml::{Kind, Node};

/// Like [`Fields::from_node`], with an error that shows nothing of the value.
pub(super) fn fields<'n, 'f>(
    node: &'n Node,
    path: &'static str,
    diagnostics: &'f mut Diagnostics,
) -> Option<Fields<'n, 'f>> {
    match &node.kind {
        Kind::Map(_) | Kind::Null => Fields::from_node(node, path, diagnostics),
        kind => {
            report(node, "a map", kind, diagnostics);
            None
        }
    }
}

/// Like [`decode::list`], with an error that shows nothing of the value.
pub(super) fn list<'n, T>(
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<T>,
) -> impl Fn(&'n Node, &mut Diagnostics) -> Option<Vec<T>> {
    let read = decode::list(read);
    move |node, diagnostics| match &node.kind {
        Kind::List(_) | Kind::Null => read(node, diagnostics),
        kind => {
            report(node, "a list", kind, diagnostics);
            None
        }
    }
}

/// Reports files that are listed twice.
pub(super) fn distinct_files(
    files: Vec<Spanned<PathBuf>>,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<Spanned<PathBuf>>> {
    for (index, file) in files.iter().enumerate() {
        if files[..index].iter().any(|known| known.value == file.value) {
            let message = format!("`{}` is listed more than once", file.value.display());
            diagnostics.add(Code::DuplicateName, &file.location, message);
        }
    }
    Some(files)
}

fn report(node: &Node, expected: &str, kind: &Kind, diagnostics: &mut Diagnostics) {
    let found = match kind {
        Kind::List(_) => "a list",
        Kind::Map(_) => "a map",
        _ => "a single value",
    };
    let message = format!("expected {expected}, found {found}");
    let help = format!("use {expected}; secrets are only ever named by file, and not written here");
    diagnostics.add_with_help(Code::Type, &node.location, message, help);
}
