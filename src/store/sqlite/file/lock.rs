//! Opening the database file, and locking it against a second process, which would not see what this one has in memory.
//!
//! Two locks, both by `flock`:
//!
//! - of the database file itself, so that a hard link, a symbolic link, a bind mount or another spelling of its path
//!   makes no difference. `flock` and the POSIX locks of SQLite are independent of each other on a local file system;
//!   on NFS they are not, which is one reason why it is refused.
//! - of the file `.lock` beside it, which earlier versions lock, and only that.
//!
//! `flock` belongs to the open file, not to the process: closing another descriptor of the file does not release it.
//! With SQLite's POSIX locks that is different: closing any descriptor of the file drops those of all connections of the
//! process. So the descriptor that is locked here is opened before the first connection and closed after the last one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::file_system;
use crate::store::Error;

/// How long a start waits for the lock of a process that is ending, and the interval of its attempts.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(20);
/// The modes of files and directories that are created; SQLite copies that of the database to `-wal` and `-shm`. Others
/// can read neither. The modes of existing ones are kept.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// The locks of a store. Released when it is dropped, although `database` may be open for longer.
pub(crate) struct StoreLock {
    database: Arc<File>,
    _beside: File,
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        if let Err(error) = self.database.unlock() {
            tracing::debug!(%error, "unlocking the store failed, it is unlocked when the process ends");
        }
    }
}

/// Opens the database file at `path` and locks it. Creates it and its directory if they do not exist.
pub(super) fn open(path: &Path) -> Result<(Arc<File>, StoreLock), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(folder).map_err(|error| {
        Error::Unusable(format!("cannot create the directory {} of the store: {error}", folder.display()))
    })?;
    // Before anything is created there; and again for the file itself, which may be a link.
    file_system::check(path, rustix::fs::statfs(folder))?;
    let beside = open_beside(path)?;
    lock(&beside, path)?;
    let database = open_or_create(path)
        .map_err(|error| Error::Unusable(format!("cannot open the store {}: {error}", path.display())))?;
    file_system::check(path, rustix::fs::fstatfs(&database))?;
    lock(&database, path)?;
    check_names(path, &database)?;
    let database = Arc::new(database);
    Ok((database.clone(), StoreLock { database, _beside: beside }))
}

fn open_or_create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(FILE_MODE).open(path)
}

fn open_beside(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    open_or_create(&name).map_err(|error| {
        Error::Unusable(format!(
            "cannot open {}: {error}; the directory of the store has to be writable",
            name.display()
        ))
    })
}

fn lock(file: &File, path: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            // The holder may be ending, or be a forked child that has not called exec yet.
            Err(_) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY_DELAY),
            Err(error @ TryLockError::WouldBlock) => {
                return Err(Error::Unusable(format!(
                    "another scalebridge uses the store {} ({error}); stop it, or set `store.sqlite.path` to another file",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::Unusable(format!(
                    "cannot lock the store {}: {error}; put it on a local disk",
                    path.display()
                )));
            }
        }
    }
}

/// Checks that the file that is locked is the one that a connection will open, and warns if it has other names.
fn check_names(path: &Path, database: &File) -> Result<(), Error> {
    let unreadable = |error| {
        Error::Unusable(format!("cannot read the attributes of the store {}: {error}", path.display()))
    };
    let opened = database.metadata().map_err(unreadable)?;
    let named = fs::metadata(path).map_err(unreadable)?;
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Err(Error::Unusable(format!(
            "the store {} was replaced while it was opened; start again",
            path.display()
        )));
    }
    if opened.nlink() > 1 {
        // SQLite finds the WAL by the name that the file is opened by.
        tracing::warn!(
            store = %path.display(),
            links = opened.nlink(),
            "the store has several hard links, use always the same one: its WAL is beside that name"
        );
    }
    Ok(())
}
