//! Reads lists of files: names and patterns, relative to the directory of the file that has the list.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use super::decode::{Spanned, list, spanned};
use super::diagnostic::{Code, Diagnostics, Location};
use super::file;
use super::file_pattern::FilePattern;
use super::file_stamp::FileStamp;
use super::scalar::text;
use super::yaml::Node;

/// The files of a list in order, those of a pattern by name, each once.
#[derive(Debug, Default)]
pub(super) struct FileList {
    files: Vec<ListedFile>,
    /// Where the files are, whatever links lead there, and whether the list names them.
    known: HashMap<PathBuf, bool>,
    /// The stamps of the patterns.
    patterns: Vec<FileStamp>,
}

#[derive(Debug)]
struct ListedFile {
    path: PathBuf,
    named_at: Location,
    /// Whether the list names it, and not a pattern.
    is_named: bool,
}

/// The content of the files of a list.
#[derive(Debug, Default)]
pub(super) struct ListedTrees {
    /// The files that could be parsed.
    pub trees: Vec<Node>,
    /// The stamps of all files and patterns.
    pub stamps: Vec<FileStamp>,
    /// Whether all files could be parsed.
    pub is_complete: bool,
}

impl FileList {
    /// Reads a list of names and patterns.
    pub(super) fn from_node(node: &Node, directory: &Path, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut found = Self::default();
        let mut known: Vec<&str> = Vec::new();
        for Spanned { value: text, location } in list(spanned(text))(node, diagnostics)? {
            if known.contains(&text) {
                report_duplicate(text, &location, diagnostics);
            } else if FilePattern::is_pattern(text) {
                found.add_pattern(text, directory, &location, diagnostics);
            } else {
                found.add_file(text, directory, location, diagnostics);
            }
            known.push(text);
        }
        Some(found)
    }

    fn add_file(&mut self, text: &str, directory: &Path, named_at: Location, diagnostics: &mut Diagnostics) {
        let path = directory.join(text);
        match self.known.insert(place(&path), true) {
            None => self.files.push(ListedFile { path, named_at, is_named: true }),
            Some(true) => report_duplicate(text, &named_at, diagnostics),
            Some(false) => {}
        }
    }

    fn add_pattern(
        &mut self,
        text: &str,
        directory: &Path,
        location: &Location,
        diagnostics: &mut Diagnostics,
    ) {
        let pattern = match FilePattern::parse(text, directory) {
            Ok(pattern) => pattern,
            Err(error) => {
                let message = format!("invalid pattern `{text}`: {}", error.msg);
                let help =
                    "`*`, `?` and `[a-z]` match within a name, and `**` alone any number of directories";
                return diagnostics.add_with_help(Code::Value, location, message, help);
            }
        };
        let (paths, unreadable) = pattern.find();
        for (path, error) in &unreadable {
            let message = format!("cannot read {}: {error}", path.display());
            diagnostics.add(Code::Unreadable, location, message);
            diagnostics.record_read_error(error);
        }
        if paths.is_empty() && unreadable.is_empty() {
            let message = format!("no file matches `{text}`");
            let help = format!(
                "add a file, or correct the pattern: it is relative to {}; hidden files and backup files do not match",
                if directory == Path::new("") {
                    "the working directory".into()
                } else {
                    directory.display().to_string()
                }
            );
            diagnostics.add_with_help(Code::NoFile, location, message, help);
        }
        self.patterns.push(FileStamp::of_matching(pattern, paths.clone()));
        for path in paths {
            if let Entry::Vacant(unknown) = self.known.entry(place(&path)) {
                unknown.insert(false);
                self.files.push(ListedFile { path, named_at: location.clone(), is_named: false });
            }
        }
    }

    /// Reads and parses all files.
    pub(super) fn read(self, diagnostics: &mut Diagnostics) -> ListedTrees {
        let Self { files, patterns, .. } = self;
        let mut read = ListedTrees { trees: Vec::new(), stamps: patterns, is_complete: true };
        for ListedFile { path, named_at, is_named } in files {
            match file::read(&path, Some(&named_at), diagnostics) {
                Some((tree, stamp)) => {
                    read.trees.push(tree);
                    // The stamp of a pattern has those of its files.
                    read.stamps.extend(Some(stamp).filter(|_| is_named));
                }
                None => read.is_complete = false,
            }
        }
        read
    }
}

/// The path without links; of a file that does not exist, as it is written.
fn place(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn report_duplicate(text: &str, location: &Location, diagnostics: &mut Diagnostics) {
    diagnostics.add(Code::DuplicateName, location, format!("`{text}` is listed more than once"));
}
