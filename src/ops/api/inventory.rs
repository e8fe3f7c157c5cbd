//! The configured rules, sources and destinations.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::bridge::Suppression;
use crate::domain::control::GapCause;

/// A rule of the rule table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RuleView {
    /// Its name.
    pub name: String,
    /// `active`, `shadow` or `disabled`.
    pub mode: Word,
    /// The sources whose alerts it evaluates; null means all.
    pub sources: Option<Vec<String>>,
    /// Matchers in Alertmanager's syntax; all must match.
    pub matchers: Vec<String>,
    /// The condition that must also be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The templates of the target's fields; empty for a hold on all targets.
    pub target: BTreeMap<Word, String>,
    /// The action when an episode opens or grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_firing: Option<ActionView>,
    /// The action when an episode closes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_resolved: Option<ActionView>,
    /// The directions that it blocks, if it is a hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Word>,
    /// How long one of its holds lasts at most, if that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<String>,
    /// The destinations of its events.
    pub send_to: Vec<String>,
    /// Whether later rules evaluate its alerts too.
    #[serde(rename = "continue")]
    pub continues: bool,
    /// The number of its open episodes.
    pub open_episodes: u64,
}

/// An action of a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ActionView {
    /// `scale_out`, `scale_in`, `set_capacity` or `notify`.
    pub action: Word,
    /// The size of the change, as text.
    pub amount: String,
    /// How long an emitted event blocks later ones.
    pub cooldown: String,
    /// How long the situation must be unchanged before it is emitted.
    pub stabilization_window: String,
    /// `never`, `on_growth` or `while_firing`; only for `on_firing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Word>,
}

/// A source of notifications.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SourceView {
    /// Its name, the last part of the webhook's path.
    pub name: String,
    /// The value of `kind`: `alertmanager`, `grafana`, `prometheus` or `sqs`.
    #[serde(default)]
    pub kind: Word,
    /// Its queue; absent if it sends requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueView>,
    /// The kinds of credentials that it accepts: `bearer`, `basic`, `client_cert`, `jwt`, `hmac`; empty if it asks for none.
    #[serde(default)]
    pub auth: Vec<Word>,
    /// Why its credentials could not be checked by the last request that needed it: what of the bridge's own cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_error: Option<String>,
    /// Labels that override those of its alerts.
    pub labels: BTreeMap<String, String>,
    /// The matchers of its heartbeat; empty if none is configured.
    pub heartbeat: Vec<String>,
    /// Labels whose values tell its heartbeats apart; empty if it has one heartbeat, or none.
    pub heartbeat_equal: Vec<String>,
    /// How long the heartbeat stays open without a notification that contains it; null if that is not limited.
    pub heartbeat_timeout: Option<String>,
    /// How long nothing is decreased after the heartbeat has opened; null if no heartbeat is configured.
    pub heartbeat_grace: Option<String>,
    /// Labels in which the copies of one alert differ.
    pub ignore_labels: Vec<String>,
    /// The rules that see its alerts, if their own `sources` allow it; null for all.
    #[serde(default)]
    pub rules: Option<Vec<String>>,
    /// Patterns for the targets that its alerts can be about; null for all.
    #[serde(default)]
    pub targets: Option<Vec<String>>,
    /// When the heartbeat was last opened, RFC 3339; null if it is not open. While it is not open, alerts of a source
    /// with a heartbeat do not decrease capacity.
    pub heartbeat_open_since: Option<String>,
    /// When the heartbeat was last lost, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ended_at: Option<String>,
    /// When its last notification was accepted, RFC 3339, also before the bridge started or by another replica if it was kept;
    /// null if none is known.
    #[serde(default)]
    pub last_notification_at: Option<String>,
    /// How long a late firing is deferred in case its resolve arrives.
    pub late_window: String,
    /// How long an alert stays open without a notification that mentions it.
    pub occurrence_ttl: String,
    /// The last reception gap; null if there was none.
    pub last_gap: Option<ReceptionGapView>,
    /// The Alertmanagers that are asked what fires; null if none are configured.
    #[serde(default)]
    pub alertmanager: Option<AlertmanagerView>,
}

/// The Alertmanagers of a source, and what they have said last to this process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct AlertmanagerView {
    /// Their URLs.
    pub urls: Vec<String>,
    /// The receivers that send to this source: those that are configured, else those that its notifications have named.
    pub receivers: Vec<String>,
    /// When one of them has answered last, RFC 3339; null if none has since the bridge was started.
    pub last_success: Option<String>,
    /// What went wrong when they were asked last; null if all have answered.
    pub last_error: Option<String>,
    /// The number of alerts for this source that fire, and of which Alertmanager notifies nobody.
    pub suppressed_total: u64,
    /// These alerts; at most 1,000.
    pub suppressed: Vec<SuppressedAlertView>,
}

/// An alert that fires, and of which Alertmanager notifies nobody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SuppressedAlertView {
    /// Alertmanager's hash of the labels.
    pub fingerprint: String,
    /// The alert's labels.
    pub labels: BTreeMap<String, String>,
    /// When it started, RFC 3339.
    pub starts_at: String,
    /// Why.
    pub suppressed_by: Vec<Suppression>,
}

/// The queue of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct QueueView {
    /// The queue's URL.
    pub address: String,
    /// Whether this replica has read everything that was in the queue when it connected to it. Until then, the source has a
    /// reception gap.
    pub is_current: bool,
    /// Why the queue cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A time in which notifications of a source could not be accepted, or were not heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ReceptionGapView {
    /// When it began, RFC 3339.
    pub from: String,
    /// When it ended, RFC 3339; the same as `from` for a single notification.
    pub until: String,
    /// The cause.
    pub cause: GapCause,
    /// Alerts of the source decrease no capacity before this time, RFC 3339: `until` and `late_window`, or `reconciled_at`
    /// if that is earlier.
    pub no_decrease_before: String,
    /// When it was known that nothing of the gap is missing, RFC 3339; null if that is not known. Only if the source's
    /// Alertmanager is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciled_at: Option<String>,
}

/// A destination of events. If several bridges share the store, the numbers of deliveries are the fleet's; whether it fails
/// is what `replica` has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DestinationView {
    /// Its name.
    pub name: String,
    /// `sqs`, `lambda`, `eventbridge`, `sns`, `step_functions`, `http` or `file`.
    pub kind: Word,
    /// The queue's URL, the name or ARN of the function or event bus, the ARN of the topic or state machine, the service's
    /// URL without its query, or the file's path.
    pub address: String,
    /// Why it fails, if it does and there is something to deliver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// Since when, RFC 3339, there has been nothing to deliver, if its last call failed. The next delivery will tell
    /// whether it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<String>,
    /// The error of the last call, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Deliveries that have not been attempted or are in flight.
    pub pending: u64,
    /// Deliveries that failed and will be retried.
    pub retrying: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// The age of the oldest unsettled delivery in seconds.
    pub oldest_seconds: f64,
    /// The host of the replica that answers, whose calls `failing`, `idle_since` and `last_error` are about; absent if only
    /// one bridge can use the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
}
