//! File stamps: metadata of a file at one point in time, to detect changes.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The path and version of a file when the stamp was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    path: PathBuf,
    version: Option<FileVersion>,
}

/// Device and inode, length and modification time. Links are followed, so that a new target of a link is a
/// new version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileVersion {
    inode: (u64, u64),
    bytes: u64,
    modified_at: Option<SystemTime>,
}

impl FileStamp {
    /// Reads the stamp of the file at `path`; a missing file has a stamp too.
    pub fn read(path: PathBuf) -> Self {
        let version = std::fs::metadata(&path).ok().map(|file| FileVersion {
            inode: inode(&file),
            bytes: file.len(),
            modified_at: file.modified().ok(),
        });
        Self { path, version }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the stamp of the same path again.
    pub fn refresh(&self) -> Self {
        Self::read(self.path.clone())
    }
}

#[cfg(unix)]
pub(super) fn inode(file: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (file.dev(), file.ino())
}

#[cfg(not(unix))]
pub(super) const fn inode(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_detect_changed_and_removed_files() {
        let (folder, examples) =
            (tempfile::tempdir().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")).join("config"));
        for name in ["scalebridge.yaml", "rules.yaml"] {
            std::fs::copy(examples.join(name), folder.path().join(name)).unwrap();
        }
        let files = crate::kinds::load(&folder.path().join("scalebridge.yaml"), []).unwrap().files;
        let unchanged = || files.iter().map(|file| file.refresh() == *file).collect::<Vec<_>>();
        assert_eq!(unchanged(), [true, true]);
        std::fs::write(folder.path().join("rules.yaml"), "rules: []").unwrap();
        assert_eq!(unchanged(), [true, false]);
        std::fs::remove_file(folder.path().join("scalebridge.yaml")).unwrap();
        assert_eq!(unchanged(), [false, false]);
    }
}
