//! Whether the files of an open store are still at their paths and complete. If one was removed or replaced, SQLite goes on
//! with the open one, and everything that is committed from then on is lost when the process ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::length::DatabaseLength;

/// The files of an open store: the database, the WAL and its index.
pub(crate) struct Attachment {
    files: Vec<(PathBuf, Inode)>,
    length: DatabaseLength,
}

type Inode = (u64, u64);

impl Attachment {
    /// Reads which files are at the paths now. `path` is that of an open database in WAL mode, and `database` its file.
    pub(crate) fn read(path: &Path, database: Arc<File>) -> io::Result<Self> {
        // SQLite resolves links, and puts the other files beside the file itself.
        let real = fs::canonicalize(path)?;
        let beside = ["-wal", "-shm"].map(|suffix| {
            let mut name = real.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        });
        let paths = std::iter::once(path.to_owned()).chain(beside);
        let read = |path: PathBuf| inode(&path).map(|inode| (path, inode));
        Ok(Self {
            files: paths.map(read).collect::<io::Result<_>>()?,
            length: DatabaseLength::read(database)?,
        })
    }

    /// The database has this number of pages after a commit.
    pub(crate) fn record_commit(&mut self, pages: u64) {
        self.length.record_commit(pages);
    }

    /// The database file, if it was truncated in place.
    pub(crate) fn truncated(&mut self) -> Option<&Path> {
        let is_truncated = self.length.is_truncated();
        self.files.first().filter(|_| is_truncated).map(|(path, _)| path.as_path())
    }

    /// The first file that is not at its path. A path that cannot be read for another reason counts as unchanged.
    pub(crate) fn detached(&self) -> Option<&Path> {
        let is_detached = |path: &Path, opened: Inode| match inode(path) {
            Ok(found) => found != opened,
            Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        };
        let mut files = self.files.iter();
        files.find(|(path, opened)| is_detached(path, *opened)).map(|(path, _)| path.as_path())
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}
