//! Reads a file into a YAML tree.

use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Code, Diagnostics, Location};
use super::file_stamp::FileStamp;
use super::redact;
use super::yaml::{self, Node, Origin};

/// Reads a file and its stamp. `named_at` is the location at which another file names it.
pub(super) fn read(
    path: &Path,
    named_at: Option<&Location>,
    diagnostics: &mut Diagnostics,
) -> Option<(Node, FileStamp)> {
    let file: Arc<Path> = path.into();
    // Taken before reading, so that a write during the read counts as a change.
    let stamp = FileStamp::read(path.to_owned());
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            diagnostics.record_read_error(&error);
            let location = named_at.cloned().unwrap_or(Location::WholeFile(file));
            diagnostics.add(Code::Unreadable, &location, format!("cannot read {}: {error}", path.display()));
            return None;
        }
    };
    parse(path, bytes, diagnostics).map(|tree| (tree, stamp))
}

/// Parses the content of a file.
pub(super) fn parse(path: &Path, bytes: Vec<u8>, diagnostics: &mut Diagnostics) -> Option<Node> {
    let file: Arc<Path> = path.into();
    match String::from_utf8(bytes) {
        Ok(text) => {
            if let Some(shown) = redact::own(&text) {
                diagnostics.show_redacted(path, shown);
            }
            yaml::parse(&text, &Origin::File(file), diagnostics)
        }
        Err(error) => {
            let (line, column) = end_position(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
            let location = Location::File { file, line, column };
            diagnostics.add_with_help(
                Code::Syntax,
                &location,
                "file is not valid UTF-8",
                "save the file as UTF-8",
            );
            None
        }
    }
}

/// The line and column after `text`.
fn end_position(text: &[u8]) -> (u32, u32) {
    let text = String::from_utf8_lossy(text);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let last = text.rsplit('\n').next().unwrap_or_default();
    (count(text.matches('\n').count() + 1), count(last.chars().count() + 1))
}

/// Reads the text of a file.
pub(super) fn read_text(path: &Path, diagnostics: &mut Diagnostics) -> Option<String> {
    let read = std::fs::read(path).map_err(|error| error.to_string());
    let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()));
    text.map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        diagnostics.add(Code::Unreadable, &Location::WholeFile(path.into()), message);
    })
    .ok()
}
