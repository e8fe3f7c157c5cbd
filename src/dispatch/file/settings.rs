//! The settings of files.

use std::path::{Path, PathBuf};

use crate::config::read::{Diagnostics, Fields, Node, text};
use crate::domain::size_limit::SizeLimit;

/// A file or stream for events, one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settings {
    /// Standard output.
    Stdout,
    /// A file, relative to the working directory.
    Path(PathBuf),
}

impl Settings {
    /// Consumers of lines expect them to fit in memory.
    #[expect(clippy::unused_self, reason = "the other kinds have a limit that depends on the settings")]
    pub(crate) fn size_limit(&self) -> SizeLimit {
        SizeLimit::of_body(1024 * 1024)
    }

    /// The file that no other destination may write.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::Path(path) => Some(path),
        }
    }

    /// The file as operators see it.
    pub(crate) fn address(&self) -> String {
        self.path().map_or_else(|| "-".to_owned(), |path| path.display().to_string())
    }
}

/// Reads and checks the settings.
pub(crate) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<Settings> {
    let mut fields = Fields::from_node(node, "destinations.*.file", diagnostics)?;
    let path = fields.get_required("path", "path: data/events.jsonl", text);
    fields.finish();
    match path? {
        "-" => Some(Settings::Stdout),
        path => Some(Settings::Path(PathBuf::from(path))),
    }
}
