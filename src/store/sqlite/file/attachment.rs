//! Whether the files of an open store are still at their paths. If one was removed or replaced, SQLite goes on with the
//! open one, and everything that is committed from then on is lost when the process ends.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files of an open store: the database, the WAL and its index.
pub(crate) struct Attachment(Vec<(PathBuf, Inode)>);

type Inode = (u64, u64);

impl Attachment {
    /// Reads which files are at the paths now. `path` is that of an open database in WAL mode.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        // SQLite resolves links, and puts the other files beside the file itself.
        let real = fs::canonicalize(path)?;
        let beside = ["-wal", "-shm"].map(|suffix| {
            let mut name = real.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        });
        let paths = std::iter::once(path.to_owned()).chain(beside);
        let read = |path: PathBuf| inode(&path).map(|inode| (path, inode));
        Ok(Self(paths.map(read).collect::<io::Result<_>>()?))
    }

    /// The first file that is not at its path. A path that cannot be read for another reason counts as unchanged.
    pub(crate) fn detached(&self) -> Option<&Path> {
        let is_detached = |path: &Path, opened: Inode| match inode(path) {
            Ok(found) => found != opened,
            Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        };
        let mut files = self.0.iter();
        files.find(|(path, opened)| is_detached(path, *opened)).map(|(path, _)| path.as_path())
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}
