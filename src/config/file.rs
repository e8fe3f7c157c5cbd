//! A file -> its tree.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::diagnostic::{Code, Diagnostics, Place};
use super::yaml::{self, Node, Origin};

/// A file, as it was before it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    path: PathBuf,
    mark: Option<Mark>,
}

/// Device, number, length, and when it was written. Links are followed, so another file behind one is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    place: (u64, u64),
    bytes: u64,
    written: Option<SystemTime>,
}

impl Seen {
    /// The file as it is now, or that it is not there.
    pub fn look(path: PathBuf) -> Self {
        let mark = std::fs::metadata(&path).ok().map(|file| Mark {
            place: place(&file),
            bytes: file.len(),
            written: file.modified().ok(),
        });
        Self { path, mark }
    }

    /// The same file as it is now.
    pub fn again(&self) -> Self {
        Self::look(self.path.clone())
    }
}

#[cfg(unix)]
fn place(file: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (file.dev(), file.ino())
}

#[cfg(not(unix))]
const fn place(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

/// Reads a file. `named_at` is where another file names it.
pub(super) fn read(path: &Path, named_at: Option<&Place>, faults: &mut Diagnostics) -> Option<Node> {
    let file: Arc<Path> = path.into();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let place = named_at.cloned().unwrap_or(Place::Whole(file));
            faults.add(Code::Unreadable, &place, format!("cannot read {}: {error}", path.display()));
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => yaml::parse(&text, &Origin::File(file), faults),
        Err(error) => {
            let (line, column) = end_of(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
            let place = Place::File { file, line, column };
            faults.help(Code::Syntax, &place, "this is not UTF-8", "save the file as UTF-8");
            None
        }
    }
}

/// Line and column behind `text`.
fn end_of(text: &[u8]) -> (u32, u32) {
    let text = String::from_utf8_lossy(text);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let last = text.rsplit('\n').next().unwrap_or_default();
    (count(text.matches('\n').count() + 1), count(last.chars().count() + 1))
}
