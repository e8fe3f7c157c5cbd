//! Who acts, and why.

use std::fmt;

use super::error::Error;
use super::parse;
use crate::domain::actor_name;

/// Who performs an act. Nothing outside this module can make one that the bridge itself uses: [`Requester`] refuses their
/// names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// The name of the credential of a request or, without credentials, its author.
    Named(String),
    /// A request without an author.
    Unknown,
    Signal,
    FileWatcher,
}

impl Actor {
    /// The actor of a reload by SIGHUP.
    pub(crate) fn signal() -> Self {
        Self(Kind::Signal)
    }

    /// The actor of a reload after a change of the configuration's files.
    pub(crate) fn file_watcher() -> Self {
        Self(Kind::FileWatcher)
    }

    /// An actor with a name from outside.
    fn named(key: &str, name: &str) -> Result<Self, Error> {
        let name = parse::required_text(key, name)?;
        if actor_name::is_reserved(&name) {
            return Err(Error::Invalid(format!(
                "{key}: `{name}` is what the bridge calls itself; use another name"
            )));
        }
        Ok(Self(Kind::Named(name)))
    }

    pub(crate) fn as_str(&self) -> &str {
        match &self.0 {
            Kind::Named(name) => name,
            Kind::Unknown => "unknown",
            Kind::Signal => actor_name::SIGNAL,
            Kind::FileWatcher => actor_name::FILE_WATCHER,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who sends a request: the name of its credential, if the listener asks for credentials. Then the author of the request
/// must be absent or the same; without credentials the request names its author itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requester(Option<Actor>);

impl Requester {
    /// The requester that a credential names.
    ///
    /// # Errors
    /// The name cannot be shown as it is, or is one that the bridge uses.
    pub(crate) fn of_credential(name: &str) -> Result<Self, Error> {
        Ok(Self(Some(Actor::named("name of the credential", name)?)))
    }

    /// The initiator of a request, whose author and reason can be absent.
    ///
    /// # Errors
    /// One of the texts is too long or has hidden characters, or the author is not the credential.
    pub(crate) fn initiator(&self, author: Option<&str>, reason: Option<&str>) -> Result<Initiator, Error> {
        let author = author.filter(|author| !author.trim().is_empty());
        let named = author.map(|author| Actor::named("author", author)).transpose()?;
        let actor = match (&self.0, named) {
            (Some(credential), Some(named)) if named != *credential => {
                return Err(Error::Invalid(format!(
                    "author: `{named}` is not the name of the credential of this request, `{credential}`; leave the \
                     author out"
                )));
            }
            (Some(credential), _) => credential.clone(),
            (None, Some(named)) => named,
            (None, None) => Actor(Kind::Unknown),
        };
        Ok(Initiator { actor, reason: parse::optional_text("reason", reason)? })
    }

    /// The initiator of an act that requires a reason.
    ///
    /// # Errors
    /// As [`Self::initiator`], or the reason is empty.
    pub(crate) fn initiator_with_reason(
        &self,
        author: Option<&str>,
        reason: &str,
    ) -> Result<Initiator, Error> {
        let by = self.initiator(author, None)?;
        Ok(Initiator { reason: Some(parse::required_text("reason", reason)?), ..by })
    }

    /// The initiator of an act that requires a reason, and an author if no credential names one.
    ///
    /// # Errors
    /// As [`Self::initiator`], or one of the texts is empty.
    pub(crate) fn named_initiator(&self, author: Option<&str>, reason: &str) -> Result<Initiator, Error> {
        if self.0.is_none() {
            return Initiator::with_reason(author.unwrap_or_default(), reason);
        }
        self.initiator_with_reason(author, reason)
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
    /// The initiator of a request without credentials. Without an author it is `unknown`.
    ///
    /// # Errors
    /// One of the texts is too long or has hidden characters.
    pub fn from_request(author: Option<&str>, reason: Option<&str>) -> Result<Self, Error> {
        Requester::default().initiator(author, reason)
    }

    /// The initiator of an act that requires author and reason.
    ///
    /// # Errors
    /// One of the texts is empty, too long or has hidden characters.
    pub fn with_reason(author: &str, reason: &str) -> Result<Self, Error> {
        let actor = Actor::named("author", author)?;
        Ok(Self { actor, reason: Some(parse::required_text("reason", reason)?) })
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
        for text in ["a\nb", "\u{1b}[2J", "\u{202e}nna", "a\u{200b}nn", &"x".repeat(501)] {
            Initiator::from_request(Some(text), None).unwrap_err();
            Initiator::from_request(None, Some(text)).unwrap_err();
            Requester::of_credential(text).unwrap_err();
        }
        Initiator::with_reason("ann", " ").unwrap_err();
        Initiator::with_reason("", "upgrade").unwrap_err();
        let anyone = Requester::default();
        anyone.initiator_with_reason(None, " ").unwrap_err();
        let by = anyone.initiator_with_reason(None, " upgrade ").unwrap();
        assert_eq!((by.actor.as_str(), by.reason_text()), ("unknown", "upgrade"));
        anyone.named_initiator(None, "upgrade").unwrap_err();
    }

    #[test]
    fn what_the_bridge_calls_itself_cannot_be_given_from_outside() {
        for name in ["signal", " Signal ", "file watcher", "FILE  watcher", "file\u{a0}watcher"] {
            Initiator::from_request(Some(name), None).unwrap_err();
            Initiator::with_reason(name, "upgrade").unwrap_err();
            Requester::of_credential(name).unwrap_err();
        }
        let unknown = Initiator::from_request(Some("unknown"), None).unwrap();
        assert_ne!(unknown.actor, Actor::signal());
    }

    #[test]
    fn a_credential_names_the_actor_and_the_author_cannot_be_another() {
        let ci = Requester::of_credential("ci").unwrap();
        for author in [None, Some(" "), Some("ci"), Some(" ci ")] {
            assert_eq!(ci.initiator(author, None).unwrap().actor.as_str(), "ci");
            assert_eq!(ci.named_initiator(author, "upgrade").unwrap().actor.as_str(), "ci");
        }
        for author in ["ann", "unknown", "CI"] {
            ci.initiator(Some(author), None).unwrap_err();
            ci.initiator_with_reason(Some(author), "upgrade").unwrap_err();
            ci.named_initiator(Some(author), "upgrade").unwrap_err();
        }
        ci.named_initiator(None, " ").unwrap_err();
    }
}
