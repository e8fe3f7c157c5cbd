//! Text that must never be printed.

use std::fmt;

/// A secret: a token, a password, its hash, or a URL with user info. It has no `Display`, its `Debug` shows nothing of
/// it, and it cannot be serialized, so that it reaches no log, no response and no diagnostic by accident.
///
/// `==` is for settings, to find what a reload changes; it does not take constant time. Credentials are compared by
/// `credentials`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Each use is a place to review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
