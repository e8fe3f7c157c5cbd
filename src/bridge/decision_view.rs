//! Decisions as they are told to people and programs: what records keep, one decision at a time.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::phase::Phase;
use crate::domain::target::{PartialTarget, TargetKey};
use crate::domain::verdict::Verdict;

/// One decision: what was made of some alerts of one rule and one target, at one moment, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Decision")]
pub struct DecisionView {
    /// Its number: decisions of one moment share what is before the dot.
    pub id: String,
    /// When it was decided, RFC 3339.
    pub at: String,
    /// The rule, unless none took the alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The outcome.
    pub verdict: Verdict,
    /// Why, where the verdict alone does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When it is looked at again, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// `scale_out`, `scale_in`, `set_capacity` or `notify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Which end of the episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The target's key, which is an event's `subject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The target's fields, or those that a hold gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PartialTarget>,
    /// The episode's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<String>,
    /// The id of the event that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The event that would have been sent, with `shadowed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Value>,
    /// The destination, where it is about one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The alerts that it is about.
    pub alerts: Vec<AlertView>,
    /// The notification that caused it; absent where the bridge's clock or an operator did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<NotificationView>,
    /// Whether the notification left alerts out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// An alert that a decision is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DecidedAlert")]
pub struct AlertView {
    /// Alertmanager's hash of its labels; empty where it could not be read.
    pub fingerprint: String,
    /// `firing` or `resolved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<String>,
    /// With those of the source laid over them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The notification that a decision goes back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Notification")]
pub struct NotificationView {
    /// The source.
    pub source: String,
    /// The receiver in Alertmanager's configuration.
    pub receiver: String,
    /// Alertmanager's key of the group.
    pub group_key: String,
    /// Alertmanager's own address.
    pub external_url: String,
    /// Why Alertmanager sent it, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a record says, as far as decisions go.
#[derive(Deserialize)]
struct DecisionRecord {
    at: String,
    #[serde(default)]
    notification: Option<NotificationView>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    decisions: Vec<DecisionEntry>,
    #[serde(default)]
    alerts: BTreeMap<String, RecordedAlert>,
}

#[derive(Deserialize)]
struct DecisionEntry {
    rule: Option<String>,
    target: Option<String>,
    phase: Option<Phase>,
    episode: Option<String>,
    action: Option<String>,
    verdict: Verdict,
    detail: Option<String>,
    until: Option<String>,
    #[serde(default)]
    alerts: Vec<String>,
    event: Option<String>,
    shadow: Option<Value>,
    destination: Option<String>,
}

#[derive(Deserialize)]
struct RecordedAlert {
    status: String,
    starts_at: String,
    ends_at: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The decisions of a record, in their order; none of a record of an operator's act.
///
/// # Errors
/// It is no record.
pub(crate) fn read(id: i64, body: &str) -> serde_json::Result<Vec<DecisionView>> {
    let DecisionRecord { at, notification, truncated, decisions, alerts } = serde_json::from_str(body)?;
    let alert_view = |fingerprint: String| match alerts.get(&fingerprint) {
        Some(RecordedAlert { status, starts_at, ends_at, labels }) => AlertView {
            fingerprint,
            status: Some(status.clone()),
            starts_at: Some(starts_at.clone()),
            ends_at: ends_at.clone(),
            labels: labels.clone(),
        },
        None => AlertView { fingerprint, ..AlertView::default() },
    };
    let decisions = decisions.into_iter().enumerate().map(|(index, line)| DecisionView {
        id: format!("{id}.{index}"),
        at: at.clone(),
        rule: line.rule,
        verdict: line.verdict,
        detail: line.detail,
        until: line.until,
        action: line.action,
        phase: line.phase,
        target: line.target.as_deref().and_then(|key| TargetKey::from_stored(key).fields()),
        subject: line.target,
        episode: line.episode,
        event: line.event,
        shadow: line.shadow,
        destination: line.destination,
        alerts: line.alerts.into_iter().map(alert_view).collect(),
        notification: notification.clone(),
        truncated,
    });
    Ok(decisions.collect())
}

impl DecisionView {
    /// The decision with `event`, the whole of it, in the place of the event's id. What only would have been
    /// sent stands there too.
    pub fn with_event(self, event: Option<Value>) -> Value {
        let shadow = self.shadow.clone();
        let mut whole = serde_json::to_value(self).unwrap_or_default();
        if let (Value::Object(fields), Some(event)) = (&mut whole, event.or(shadow)) {
            fields.remove("shadow");
            fields.insert("event".to_owned(), event);
        }
        whole
    }
}
