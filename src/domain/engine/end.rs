//! Ends of alerts: by resolve, and without evidence.

use std::sync::Arc;

use crate::domain::alert_key::AlertKey;
use crate::domain::time::Time;

/// The end of an alert that is open or late at this target.
pub(super) struct ResolvedAlert {
    pub key: AlertKey,
    pub ends_at: Time,
    pub last_end: Option<Time>,
    /// Why the sender has ended it without evidence that its condition is over; `None` if it has resolved.
    pub absence: Option<Arc<str>>,
}

impl ResolvedAlert {
    /// Whether this end or a later one was applied before.
    pub(super) fn is_known(&self) -> bool {
        self.last_end.is_some_and(|last| self.ends_at <= last)
    }

    /// The reason of an absence, for decisions.
    pub(super) fn detail(&self) -> Option<String> {
        self.absence.as_deref().map(absence_detail)
    }
}

/// The longest reason of an absence that is shown.
const MAX_REASON_CHARS: usize = 100;

/// The reason of an absence, for decisions.
pub fn absence_detail(reason: &str) -> String {
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    format!("the sender has ended the alert without evidence that its condition is over: {reason}")
}
