//! Decisions as returned by the API, read from decision records.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::decision_record::{DecisionRecord, RecordedAlert};
use crate::domain::state::Trigger;
use crate::domain::target::{PartialTarget, TargetKey};
use crate::domain::verdict::{Phase, Verdict};

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

impl From<Trigger> for NotificationView {
    fn from(trigger: Trigger) -> Self {
        let Trigger { source, receiver, group_key, external_url, reason, traceparent: _ } = trigger;
        Self { source: source.to_string(), receiver, group_key, external_url, reason }
    }
}

/// The decisions of a record, in their order; none for the record of a pause.
///
/// # Errors
/// The text is not a decision record.
pub(crate) fn read(id: i64, body: &str) -> serde_json::Result<Vec<DecisionView>> {
    let DecisionRecord { at, notification, truncated, decisions, alerts } =
        serde_json::from_str::<DecisionRecord<'static>>(body)?;
    let at = at.to_string();
    let notification = notification.map(|trigger| NotificationView::from(trigger.into_owned()));
    let alert_view = |fingerprint: Cow<'static, str>| match alerts.get(&fingerprint) {
        Some(RecordedAlert { status, starts_at, ends_at, labels }) => AlertView {
            fingerprint: fingerprint.into_owned(),
            status: Some(status.as_str().to_owned()),
            starts_at: Some(starts_at.0.to_string()),
            ends_at: ends_at.map(|ends_at| ends_at.0.to_string()),
            labels: labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        },
        None => AlertView { fingerprint: fingerprint.into_owned(), ..AlertView::default() },
    };
    let decisions = decisions.into_iter().enumerate().map(|(index, entry)| {
        let target = entry.target.as_deref().and_then(|key| TargetKey::from_stored(key).fields());
        Ok(DecisionView {
            id: format!("{id}.{index}"),
            at: at.clone(),
            rule: entry.rule.map(Cow::into_owned),
            verdict: entry.verdict,
            detail: entry.detail.map(Cow::into_owned),
            until: entry.until.map(|until| until.to_string()),
            action: entry.action.map(Cow::into_owned),
            phase: entry.phase,
            target,
            subject: entry.target.map(Cow::into_owned),
            episode: entry.episode.map(Cow::into_owned),
            event: entry.event.map(Cow::into_owned),
            shadow: entry.shadow.map(|shadow| serde_json::from_str(shadow.get())).transpose()?,
            destination: entry.destination.map(Cow::into_owned),
            alerts: entry.alerts.into_iter().map(alert_view).collect(),
            notification: notification.clone(),
            truncated,
        })
    });
    decisions.collect()
}

impl DecisionView {
    /// The decision as JSON with the whole event in place of its id: `event`, or else the shadowed one.
    pub fn with_event(self, event: Option<Value>) -> Value {
        let shadow = self.shadow.clone();
        let mut json = serde_json::to_value(self).unwrap_or_default();
        if let (Value::Object(fields), Some(event)) = (&mut json, event.or(shadow)) {
            fields.remove("shadow");
            fields.insert("event".to_owned(), event);
        }
        json
    }
}
