//! Patterns for the names of files, such as `rules/*.yaml`.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};

use super::diagnostic::may_pass;

/// The characters that make a name a pattern.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// A pattern for the names of files. `*`, `?` and `[a-z]` match within one segment of the path, `**` any number of
/// directories. As in a shell, hidden files and directories are matched only by a segment that begins with a dot; backup
/// files of editors (`rules.yaml~`, `#rules.yaml#`) are not matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePattern {
    /// The directory before the first segment with a wildcard.
    base: PathBuf,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// A name, or `.` or `..`.
    Name(String),
    /// A pattern for one name.
    Pattern(Pattern),
    /// `**`.
    AnyDirectories,
}

impl FilePattern {
    /// Whether a name of files is a pattern.
    pub(super) fn is_pattern(text: &str) -> bool {
        text.contains(WILDCARDS)
    }

    /// Parses a pattern, which is relative to `directory`.
    pub(super) fn parse(text: &str, directory: &Path) -> Result<Self, PatternError> {
        let mut base = if text.starts_with('/') { PathBuf::from("/") } else { directory.to_owned() };
        let mut segments = Vec::new();
        for segment in text.split('/').filter(|segment| !segment.is_empty()) {
            match segment {
                "**" if segments.last() == Some(&Segment::AnyDirectories) => {}
                "**" => segments.push(Segment::AnyDirectories),
                segment if Self::is_pattern(segment) => {
                    segments.push(Segment::Pattern(Pattern::new(segment)?));
                }
                segment if segments.is_empty() => base.push(segment),
                segment => segments.push(Segment::Name(segment.to_owned())),
            }
        }
        Ok(Self { base, segments })
    }

    /// The files that match, each segment of the path in the order of its bytes. Links are followed, except by `**`. Second,
    /// the directories and files that cannot be read; a directory that does not exist has no files.
    pub(super) fn find(&self) -> (Vec<PathBuf>, Vec<(PathBuf, io::Error)>) {
        let mut found = Found { files: Vec::new(), unreadable: Vec::new() };
        found.descend(&self.base, &self.segments);
        // Several `**` find a file once for each way in which they can divide its directories.
        found.files.sort();
        found.files.dedup();
        (found.files, found.unreadable)
    }
}

struct Found {
    files: Vec<PathBuf>,
    unreadable: Vec<(PathBuf, io::Error)>,
}

impl Found {
    fn descend(&mut self, path: &Path, segments: &[Segment]) {
        let Some((segment, rest)) = segments.split_first() else {
            match std::fs::metadata(path) {
                Ok(found) if found.is_file() => self.files.push(path.to_owned()),
                // A file must not disappear from the configuration for lack of memory.
                Err(error) if may_pass(&error) => self.unreadable.push((path.to_owned(), error)),
                Ok(_) | Err(_) => {}
            }
            return;
        };
        match segment {
            Segment::Name(name) => self.descend(&path.join(name), rest),
            Segment::Pattern(pattern) => {
                for name in self.names(path).iter().filter(|name| matches(pattern, name)) {
                    self.descend(&path.join(name), rest);
                }
            }
            Segment::AnyDirectories => {
                self.descend(path, rest);
                for name in self.names(path).iter().filter(|name| !name.starts_with('.')) {
                    let inner = path.join(name);
                    // A link may lead back to where it is.
                    if inner.is_dir() && !inner.is_symlink() {
                        self.descend(&inner, segments);
                    }
                }
            }
        }
    }

    /// The names in a directory. One that is not UTF-8 cannot be written in a configuration either.
    fn names(&mut self, directory: &Path) -> Vec<String> {
        let path = if directory == Path::new("") { Path::new(".") } else { directory };
        let read = std::fs::read_dir(path).and_then(|entries| {
            let names = entries.map(|entry| Ok(entry?.file_name()));
            names.collect::<io::Result<Vec<_>>>()
        });
        match read {
            Ok(names) => names.iter().filter_map(|name| OsStr::to_str(name)).map(ToOwned::to_owned).collect(),
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                    self.unreadable.push((directory.to_owned(), error));
                }
                Vec::new()
            }
        }
    }
}

fn matches(pattern: &Pattern, name: &str) -> bool {
    let is_backup = name.ends_with('~') || (name.len() > 1 && name.starts_with('#') && name.ends_with('#'));
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    !is_backup && pattern.matches_with(name, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files that `pattern` matches in a directory with `files`.
    fn found(pattern: &str, files: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        names(folder.path(), pattern)
    }

    fn names(directory: &Path, pattern: &str) -> Vec<String> {
        let (files, unreadable) = FilePattern::parse(pattern, directory).unwrap().find();
        assert!(unreadable.is_empty(), "{unreadable:?}");
        let names =
            files.iter().map(|file| file.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
        names.collect()
    }

    #[test]
    fn files_are_found_in_the_order_of_their_names() {
        let files = ["b.yaml", "a.yaml", "B.yaml", "10.yaml", "9.yaml", "a.yml", "d/c.yaml", "d.yaml"];
        assert_eq!(
            found("*.yaml", &files),
            ["10.yaml", "9.yaml", "B.yaml", "a.yaml", "b.yaml", "d.yaml"],
            "not what is in a directory"
        );
        assert_eq!(found("*/*.yaml", &files), ["d/c.yaml"]);
        assert_eq!(found("./[a-b].y?ml", &files), ["a.yaml", "b.yaml"]);
        assert_eq!(found("*", &files).len(), 7, "a directory is no file");
        assert_eq!(found("nowhere/*.yaml", &files), [""; 0]);
        assert_eq!(found("a.yaml/*", &files), [""; 0]);
    }

    #[test]
    fn hidden_files_and_backup_files_are_not_found() {
        let files = ["a.yaml", ".b.yaml", "c.yaml~", "#d.yaml#", ".e.yaml.swp", ".git/f.yaml", ".g/h.yaml"];
        assert_eq!(found("*", &files), ["a.yaml"]);
        assert_eq!(found("**/*", &files), ["a.yaml"]);
        assert_eq!(found("*/*", &files), [""; 0]);
        assert_eq!(found(".*", &files), [".b.yaml", ".e.yaml.swp"]);
        assert_eq!(found(".g/*.yaml", &files), [".g/h.yaml"]);
    }

    #[test]
    fn two_stars_are_any_number_of_directories() {
        let files = ["a.yaml", "x/b.yaml", "x/y/z/c.yaml", "x/y/d.txt"];
        assert_eq!(found("**/*.yaml", &files), ["a.yaml", "x/b.yaml", "x/y/z/c.yaml"]);
        assert_eq!(found("x/**/**/*.yaml", &files), ["x/b.yaml", "x/y/z/c.yaml"]);
        assert_eq!(found("**/y/*", &files), ["x/y/d.txt"]);
    }

    #[test]
    fn the_files_of_a_config_map_are_found_once() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("..2026_11_29")).unwrap();
        std::fs::write(at("..2026_11_29/eu.yaml"), "").unwrap();
        symlink("..2026_11_29", at("..data")).unwrap();
        symlink("..data/eu.yaml", at("eu.yaml")).unwrap();
        symlink("nowhere.yaml", at("broken.yaml")).unwrap();
        symlink(".", at("loop")).unwrap();
        for pattern in ["*.yaml", "**/*.yaml", "*"] {
            assert_eq!(names(folder.path(), pattern), ["eu.yaml"], "{pattern}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_passed_over() {
        use std::os::unix::ffi::OsStrExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(OsStr::from_bytes(b"\xff.yaml")), "").unwrap();
        std::fs::write(folder.path().join("a.yaml"), "").unwrap();
        assert_eq!(names(folder.path(), "*"), ["a.yaml"]);
    }

    #[test]
    fn an_invalid_pattern_is_an_error() {
        for pattern in ["[a.yaml", "a**.yaml", "***"] {
            assert!(FilePattern::parse(pattern, Path::new("")).is_err(), "{pattern}");
        }
    }
}
