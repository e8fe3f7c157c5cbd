//! File stamps: metadata of files at one point in time, to detect changes.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::file_pattern::FilePattern;

/// The version of a file when the stamp was read, or of all files that matched a pattern then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    /// `None` for a single file.
    pattern: Option<FilePattern>,
    files: Vec<(PathBuf, Option<FileVersion>)>,
}

/// Device and inode, length, modification time, permissions and owner (not the change time, which a rename moves). Links are
/// followed, so that a new target of a link is a new version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileVersion {
    inode: (u64, u64),
    bytes: u64,
    modified_at: Option<SystemTime>,
    access: (u32, u32, u32),
}

impl FileStamp {
    /// Reads the stamp of the file at `path`; a missing file has a stamp too.
    pub fn read(path: PathBuf) -> Self {
        Self { pattern: None, files: vec![FileVersion::read(path)] }
    }

    /// Reads the stamp of these files, which match a pattern. Another file that matches it later is a change, and so is
    /// one that is removed.
    pub(super) fn of_matching(pattern: FilePattern, files: Vec<PathBuf>) -> Self {
        Self { pattern: Some(pattern), files: files.into_iter().map(FileVersion::read).collect() }
    }

    /// Reads the stamp of the same path or pattern again.
    pub fn refresh(&self) -> Self {
        match &self.pattern {
            Some(pattern) => Self::of_matching(pattern.clone(), pattern.find().0),
            None => Self {
                pattern: None,
                files: self.paths().map(|path| FileVersion::read(path.into())).collect(),
            },
        }
    }

    /// The paths of the files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }
}

impl FileVersion {
    fn read(path: PathBuf) -> (PathBuf, Option<Self>) {
        let version = std::fs::metadata(&path).ok().map(|file| Self {
            inode: inode(&file),
            bytes: file.len(),
            modified_at: file.modified().ok(),
            access: access(&file),
        });
        (path, version)
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

/// Who may read the file: its mode, user and group.
#[cfg(unix)]
fn access(file: &Metadata) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    (file.mode(), file.uid(), file.gid())
}

#[cfg(not(unix))]
const fn access(_: &Metadata) -> (u32, u32, u32) {
    (0, 0, 0)
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

    #[test]
    fn stamps_of_a_pattern_detect_changed_added_and_removed_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.yaml", "a");
        let pattern = super::FilePattern::parse("*.yaml", folder.path()).unwrap();
        let read = || super::FileStamp::of_matching(pattern.clone(), pattern.find().0);
        let is_changed = |change: &dyn Fn()| {
            let before = read();
            assert_eq!(before.refresh(), before);
            change();
            before.refresh() != before
        };
        assert!(is_changed(&|| write("a.yaml", "another")));
        assert!(is_changed(&|| write("b.yaml", "b")));
        assert!(!is_changed(&|| write("b.yaml~", "b")));
        assert!(is_changed(&|| std::fs::remove_file(folder.path().join("a.yaml")).unwrap()));
    }
}
