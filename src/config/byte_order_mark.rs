//! The byte order mark that some editors write at the start of a file.

const MARK: &str = "\u{feff}";

/// Removes it from the start of UTF-8 text.
pub(crate) fn strip(text: &mut Vec<u8>) {
    if text.starts_with(MARK.as_bytes()) {
        text.drain(..MARK.len());
    }
}
