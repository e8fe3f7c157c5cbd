//! Who acts, and why.

use std::fmt;

use super::error::Error;
use super::parse;

/// The name of the operator: until there are credentials, the `author` of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor(String);

impl Actor {
    /// The actor of a request without an author.
    const UNKNOWN: &'static str = "unknown";

    /// The actor of a reload by SIGHUP.
    pub(crate) fn signal() -> Self {
        Self("signal".to_owned())
    }

    /// The actor of a reload after a change of the configuration's files.
    pub(crate) fn file_watcher() -> Self {
        Self("file watcher".to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who performs an act, and the reason that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initiator {
    pub(crate) actor: Actor,
    pub(crate) reason: Option<String>,
}

impl From<Actor> for Initiator {
    fn from(actor: Actor) -> Self {
        Self { actor, reason: None }
    }
}

impl Initiator {
    /// The initiator of a request. Without an author it is `unknown`.
    ///
    /// # Errors
    /// One of the texts is too long or has control characters.
    pub fn from_request(author: Option<&str>, reason: Option<&str>) -> Result<Self, Error> {
        let actor = parse::optional_text("author", author)?;
        let actor = Actor(actor.unwrap_or_else(|| Actor::UNKNOWN.to_owned()));
        Ok(Self { actor, reason: parse::optional_text("reason", reason)? })
    }

    /// The initiator of an act that requires author and reason.
    ///
    /// # Errors
    /// One of the texts is empty, too long or has control characters.
    pub fn with_reason(author: &str, reason: &str) -> Result<Self, Error> {
        let actor = Actor(parse::required_text("author", author)?);
        Ok(Self { actor, reason: Some(parse::required_text("reason", reason)?) })
    }

    /// The initiator of an act that requires a reason. Without an author it is `unknown`.
    ///
    /// # Errors
    /// The reason is empty, or one of the texts is too long or has control characters.
    pub(crate) fn from_request_with_reason(author: Option<&str>, reason: &str) -> Result<Self, Error> {
        let by = Self::from_request(author, None)?;
        Ok(Self { reason: Some(parse::required_text("reason", reason)?), ..by })
    }

    /// The reason; empty if none was given.
    pub(crate) fn reason_text(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_an_author_has_an_unknown_actor() {
        for author in [None, Some(""), Some("  ")] {
            let by = Initiator::from_request(author, Some(" ")).unwrap();
            assert_eq!((by.actor.as_str(), by.reason_text()), ("unknown", ""));
        }
        let by = Initiator::from_request(Some(" ann "), Some("upgrade")).unwrap();
        assert_eq!((by.actor.as_str(), by.reason_text()), ("ann", "upgrade"));
    }

    #[test]
    fn texts_that_do_not_fit_a_log_line_are_rejected() {
        for text in ["a\nb", "\u{1b}[2J", &"x".repeat(501)] {
            Initiator::from_request(Some(text), None).unwrap_err();
            Initiator::from_request(None, Some(text)).unwrap_err();
        }
        Initiator::with_reason("ann", " ").unwrap_err();
        Initiator::with_reason("", "upgrade").unwrap_err();
        Initiator::from_request_with_reason(None, " ").unwrap_err();
        let by = Initiator::from_request_with_reason(None, " upgrade ").unwrap();
        assert_eq!((by.actor.as_str(), by.reason_text()), ("unknown", "upgrade"));
    }
}
