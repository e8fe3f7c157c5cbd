//! Reads the paths of files with secrets, keys and certificates.

use std::path::{Path, PathBuf};

use super::super::diagnostic::{Diagnostics, Location};
use super::super::scalar::text;
use super::super::yaml::Node;

/// Reads the path of a file with a token or a password.
pub(super) fn token_file(node: &Node, diagnostics: &mut Diagnostics) -> Option<PathBuf> {
    path(node, diagnostics)
}

/// Reads the path of a file with users and their hashes.
pub(super) fn users_file(node: &Node, diagnostics: &mut Diagnostics) -> Option<PathBuf> {
    path(node, diagnostics)
}

/// Reads the path of a file with a private key.
pub(super) fn key_file(node: &Node, diagnostics: &mut Diagnostics) -> Option<PathBuf> {
    path(node, diagnostics)
}

/// Reads the path of a file that contains no secret.
pub(super) fn public_file(node: &Node, diagnostics: &mut Diagnostics) -> Option<PathBuf> {
    path(node, diagnostics)
}

/// Reads a path. A relative one is relative to the file in which it is written; in an environment variable, to the
/// working directory.
fn path(node: &Node, diagnostics: &mut Diagnostics) -> Option<PathBuf> {
    let path = Path::new(text(node, diagnostics)?);
    let directory = match &node.location {
        Location::File { file, .. } => file.parent(),
        _ => None,
    };
    Some(directory.unwrap_or(Path::new("")).join(path))
}
