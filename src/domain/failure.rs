//! Failures of calls of other services, by the reaction that they require.

use std::time::Duration;

/// The failure of an event or of a whole call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Determines how the delivery and the destination are treated.
    pub class: Class,
    /// Shown to operators and logged: no body, no secret, at most [`Failure::MAX_CHARS`] characters.
    pub message: String,
    /// The start of a function's response, at most [`Failure::MAX_CHARS`] characters. Its content is
    /// arbitrary, so it is stored with the delivery and not logged.
    pub answer: Option<String>,
    /// Whether the event may have arrived: no answer said that it did not.
    pub uncertain: bool,
    /// How long the service asks to wait before the next attempt.
    pub retry_after: Option<Duration>,
}

/// The class of a failure, which determines the reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Possibly temporary: the delivery is retried until it expires.
    Transient,
    /// Too many concurrent calls: retried as well, and the concurrency is reduced.
    Throttled,
    /// Every call fails until an operator acts: retried as well, and the circuit breaker opens at once.
    Misconfigured,
    /// This event can never be delivered: it becomes a dead letter at once.
    Permanent,
    /// The consumer answered that this event came too late: it becomes a dead letter at once, as one that expired.
    NotApplied,
}

impl Failure {
    /// The maximum length of `message` and of `answer`.
    pub const MAX_CHARS: usize = 500;

    /// A failure that is possibly temporary.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, message)
    }

    /// A failure of an event that can never be delivered.
    #[cfg(test)]
    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        Self::new(Class::Permanent, message)
    }

    /// A failure with `message`, cut to [`Failure::MAX_CHARS`].
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(Self::MAX_CHARS) {
            message.truncate(end);
        }
        Self { class, message, answer: None, uncertain: false, retry_after: None }
    }

    /// The same failure, after which the event may have arrived if `uncertain`.
    #[must_use]
    pub fn with_uncertainty(self, uncertain: bool) -> Self {
        Self { uncertain, ..self }
    }

    /// The error that is stored with the delivery.
    pub fn stored_error(&self) -> String {
        match &self.answer {
            Some(answer) => format!("{}: {answer}", self.message),
            None => self.message.clone(),
        }
    }
}
