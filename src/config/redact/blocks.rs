//! Which lines of a file of our own are below a key with secrets, by their indentation: the YAML may be invalid.

use std::ops::Range;

use super::key_start;

/// What is below a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A secret.
    Secret,
    /// Maps and lists of maps, in which a secret may be written by mistake.
    Credentials,
    /// A list of names of files with tokens.
    TokenFiles,
    /// Within `Credentials`, values that are no secrets.
    Shown,
}

/// The keys above a line whose values are below them: the column and what is there. Only those with credentials.
#[derive(Debug, Default)]
pub(super) struct Blocks(Vec<(usize, Kind)>);

impl Blocks {
    /// Leaves the blocks that end before `line`. Returns the innermost one that it is in.
    pub(super) fn enter(&mut self, line: &str) -> Option<Kind> {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        let is_item = content.starts_with('-') && item_start(content) > 0;
        // A list may be as far to the left as its key.
        let is_in = |column: usize| indent > column || (indent == column && is_item);
        if content.is_empty() {
            return None;
        }
        // The value of a key may come after a comment.
        if content.starts_with('#') {
            return self.0.last().filter(|(column, _)| is_in(*column)).map(|(_, kind)| *kind);
        }
        while self.0.pop_if(|(column, _)| !is_in(*column)).is_some() {}
        self.0.last().map(|(_, kind)| *kind)
    }

    /// Remembers what is below the key of `line`.
    pub(super) fn open(&mut self, line: &str, kind: Option<Kind>) {
        let content = line.trim_start();
        let column = line.len() - content.len() + item_start(content);
        self.0.extend(kind.filter(|_| !content.starts_with('#')).map(|kind| (column, kind)));
    }
}

/// Where the text of a list item starts, after its dashes.
fn item_start(content: &str) -> usize {
    let mut rest = content;
    while let Some(item) =
        rest.strip_prefix('-').filter(|item| item.is_empty() || item.starts_with([' ', '\n', '\r']))
    {
        rest = item.trim_start();
    }
    content.len() - rest.len()
}

/// The scalar or list item of a line in a block where a key was expected, which may be a secret. Empty if there is none.
pub(super) fn misplaced(line: &str, within: Kind) -> Range<usize> {
    let content = line.trim_start();
    let indent = line.len() - content.len();
    let start = indent + item_start(content);
    let text = line[start..].trim_end();
    let is_shown = match within {
        Kind::Shown => true,
        Kind::TokenFiles => start > indent || !is_secret_instead_of_files(text),
        Kind::Credentials | Kind::Secret => false,
    };
    if is_shown || text.starts_with('#') || !text.contains(char::is_alphanumeric) {
        return 0..0;
    }
    let Some(colon) = key_end(text) else { return start..start + text.len() };
    // What is before the first key, in a flow list.
    let before = text[..colon].trim_end_matches(['"', '\'', ' ']);
    let key = key_start(before);
    if before[..key].contains(char::is_alphanumeric) { start..start + key } else { 0..0 }
}

/// Whether a flow map or list has content, and no key.
pub(super) fn is_bare(flow: &str) -> bool {
    flow.contains(char::is_alphanumeric) && key_end(flow).is_none()
}

/// Whether a value is not a list, as names of files must be, and does not begin as a path does.
pub(super) fn is_secret_instead_of_files(value: &str) -> bool {
    let value = value.trim_start_matches(['"', '\'']);
    !value.is_empty() && !value.starts_with(['[', '#', '/', '.', ']'])
}

/// The colon after the first key.
fn key_end(text: &str) -> Option<usize> {
    let is_end = |rest: &str| rest.is_empty() || rest.starts_with(char::is_whitespace);
    text.match_indices(':').map(|(at, _)| at).find(|at| is_end(&text[at + 1..]))
}
