//! A notification, as each kind of source reads it from a body.
//!
//! An error in the body rejects the notification; an error in one alert makes only this alert invalid.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::labels::Labels;
use super::time::Time;

/// A larger alert is invalid.
pub const MAX_ALERT_BYTES: usize = 128 * 1024;
/// A notification with more alerts is rejected.
pub const MAX_ALERTS: usize = 250_000;
/// An alert with a longer fingerprint is invalid. Alertmanager's fingerprints have 16 bytes.
pub const MAX_FINGERPRINT_BYTES: usize = 128;

/// Whether an alert fires or has resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The condition of the alert is met.
    Firing,
    /// Prometheus has reported the end of the alert, or has not refreshed it in time.
    Resolved,
}

impl Status {
    /// The name in notifications and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// One alert of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Whether the alert fires or has resolved.
    pub status: Status,
    /// The labels. [`RuleTable`](super::table::RuleTable) expects that those of the source have already
    /// overridden them.
    pub labels: Arc<Labels>,
    /// The annotations.
    pub annotations: Arc<Labels>,
    /// The start of the alert by Prometheus' clock.
    pub starts_at: Time,
    /// The end of the alert; `Some` in every resolved alert.
    pub ends_at: Option<Time>,
    /// The time after which the sender does not vouch for a firing alert any more, unless it sends it again. Alertmanager
    /// keeps that to itself; Prometheus sends it as `endsAt`.
    pub valid_until: Option<Time>,
    /// Why the sender has ended a resolved alert without evidence that its condition is over, such as a series that is
    /// missing. `None`: the condition is over.
    pub absence: Option<Arc<str>>,
    /// The URL of the alert's expression in Prometheus.
    pub generator_url: Arc<str>,
    /// Alertmanager's hash of the labels: with the source, the identity of the alert.
    pub fingerprint: Arc<str>,
}

/// An alert that could not be parsed, and the parts that are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAlert {
    /// What is wrong, and in which field.
    pub error: String,
    /// The fingerprint; `None` if it is missing, cannot be read or is too long, so that nobody knows which alert this is.
    pub fingerprint: Option<String>,
    /// The status, if it could be read. Any other alert may fire.
    pub status: Option<Status>,
    /// The start, if it could be read.
    pub starts_at: Option<Time>,
}

/// The fields of a notification that concern all of its alerts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// The receiver in Alertmanager's configuration.
    pub receiver: String,
    /// Alertmanager's key of the group.
    pub group_key: String,
    /// Alertmanager's own address.
    pub external_url: String,
    /// Why Alertmanager sent it; present since Alertmanager 0.33.
    pub reason: Option<String>,
}

/// One webhook body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The fields that concern the whole group.
    pub envelope: Envelope,
    /// The number of alerts that Alertmanager left out due to its `max_alerts`.
    pub truncated_alerts: u64,
    /// The alerts in the order of the body.
    pub alerts: Vec<Result<Alert, InvalidAlert>>,
    /// When it was sent, of what arrives by a queue, which can reorder and repeat. `None` where the order of requests is that
    /// of the sender.
    pub sent_at: Option<Time>,
}
