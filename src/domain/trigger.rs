//! The notification that caused a decision.

use serde::{Deserialize, Serialize};

use super::name::Name;
use super::notification::Envelope;
use crate::json::truncate_escaped;

/// The notification that caused a decision, as events report it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The source that sent the notification.
    pub source: Name,
    /// The receiver in Alertmanager's configuration.
    pub receiver: String,
    /// Alertmanager's key of the group.
    pub group_key: String,
    /// Alertmanager's own address.
    pub external_url: String,
    /// Why Alertmanager sent it, if the notification contains a reason.
    pub reason: Option<String>,
    /// W3C trace context of the HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Each text of a [`Trigger`] is truncated to this many bytes of JSON, which bounds the fixed part of an
/// event.
pub const MAX_TRIGGER_FIELD_BYTES: usize = 1024;

impl Trigger {
    /// Takes the texts from a notification's envelope and truncates each to [`MAX_TRIGGER_FIELD_BYTES`].
    pub fn new(source: &Name, envelope: &Envelope, traceparent: Option<String>) -> Self {
        let cut = |text: &str| truncate_escaped(text, MAX_TRIGGER_FIELD_BYTES).to_owned();
        Self {
            source: source.clone(),
            receiver: cut(&envelope.receiver),
            group_key: cut(&envelope.group_key),
            external_url: cut(&envelope.external_url),
            reason: envelope.reason.as_deref().map(cut),
            traceparent,
        }
    }
}
