//! Decisions as returned by the API, read from decision records.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Suppression;
use crate::domain::blocker::Blocker;
use crate::domain::decision_record::{DecisionRecord, RecordedAlert};
use crate::domain::phase::Phase;
use crate::domain::target::{PartialTarget, TargetKey};
use crate::domain::trigger::Trigger;
use crate::domain::verdict::Verdict;
use crate::json::lenient;
use crate::store::RecordCursor;

/// A decision about alerts of one rule and one target, with its verdict and reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Decision")]
pub struct DecisionView {
    /// The decision's id: `record.index`. Decisions of one transaction share the record.
    pub id: String,
    /// When the decision was made, RFC 3339.
    pub at: String,
    /// The rule's name; absent if no rule matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The outcome.
    // A text, because a newer bridge may have more verdicts.
    #[schemars(with = "Verdict")]
    pub verdict: Cow<'static, str>,
    /// The reason, where the verdict alone does not give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What blocks the action, of which `detail` is the text.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<Blocker>,
    /// When the deferred action is rechecked, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// `scale_out`, `scale_in`, `set_capacity` or `notify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// By how much the event changes capacity: `+2`, `-25%`, `=10`, or `=10!` if consumers may decrease capacity with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// The phase of the episode that the decision is about: firing or resolved.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The target's key, which is the `subject` of its events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The target's fields; for a hold, those that it specifies.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub target: Option<PartialTarget>,
    /// The episode's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<String>,
    /// The id of the emitted event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The event that would have been emitted; only with `shadowed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Value>,
    /// The destination, if the decision is about a single delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The alerts concerned.
    pub alerts: Vec<AlertView>,
    /// The notification that was processed; absent if the target was due or an operator acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<NotificationView>,
    /// Whether Alertmanager left alerts out of the notification.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// An alert as it was when the decision was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DecidedAlert")]
pub struct AlertView {
    /// Alertmanager's hash of the labels; empty if it is unreadable.
    pub fingerprint: String,
    /// `firing` or `resolved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The source that sent the alert; absent in records of earlier versions about actions that became due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When the alert started, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<String>,
    /// When the alert ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<String>,
    /// The alert's labels, overridden by those of its source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Why Alertmanager notifies nobody of the alert now, not at the time of the decision; as it has said last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_by: Vec<Suppression>,
}

/// The notification that led to a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Notification")]
pub struct NotificationView {
    /// The source's name.
    pub source: String,
    /// The receiver in Alertmanager's configuration.
    pub receiver: String,
    /// Alertmanager's group key.
    pub group_key: String,
    /// Alertmanager's external URL.
    pub external_url: String,
    /// Why Alertmanager sent it, if the notification has a reason.
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
pub(crate) fn read(id: RecordCursor, body: &str) -> serde_json::Result<Vec<DecisionView>> {
    let DecisionRecord { at, notification, truncated, decisions, alerts } =
        serde_json::from_str::<DecisionRecord<'static>>(body)?;
    let at = at.to_string();
    let notification = notification.map(|trigger| NotificationView::from(trigger.into_owned()));
    let notified_by = || Some(notification.as_ref()?.source.clone());
    let alert_view = |fingerprint: Cow<'static, str>| match alerts.get(&fingerprint) {
        Some(RecordedAlert { status, source, starts_at, ends_at, labels }) => AlertView {
            fingerprint: fingerprint.into_owned(),
            status: Some(status.as_str().to_owned()),
            source: source.as_deref().map(str::to_owned).or_else(notified_by),
            starts_at: Some(starts_at.0.to_string()),
            ends_at: ends_at.map(|ends_at| ends_at.0.to_string()),
            labels: labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            suppressed_by: Vec::new(),
        },
        None => {
            AlertView { fingerprint: fingerprint.into_owned(), source: notified_by(), ..AlertView::default() }
        }
    };
    let decisions = decisions.into_iter().enumerate().map(|(index, entry)| {
        let target = entry.target.as_deref().and_then(|key| TargetKey::from_stored(key).fields());
        Ok(DecisionView {
            id: format!("{id}.{index}"),
            at: at.clone(),
            rule: entry.rule.map(Cow::into_owned),
            verdict: entry.verdict.as_str().into(),
            detail: detail(entry.detail, entry.blocked_by.as_deref()),
            blocked_by: entry.blocked_by.map(Cow::into_owned),
            until: entry.until.map(|until| until.to_string()),
            action: entry.action.map(Cow::into_owned),
            amount: entry.amount.map(Cow::into_owned),
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

/// The reason as it was recorded, or as the blocker gives it.
fn detail(recorded: Option<Cow<'_, str>>, blocked_by: Option<&Blocker>) -> Option<String> {
    recorded.map(Cow::into_owned).or_else(|| blocked_by.map(ToString::to_string))
}

/// A decision with the whole event in place of its id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainedDecision {
    /// The decision, without event.
    #[serde(flatten)]
    pub decision: DecisionView,
    /// The event that was or would be emitted, or that a rule in `mode: shadow` would have emitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Value>,
}

impl DecisionView {
    /// The decision with its event: `event`, or else the shadowed one, or else the id.
    pub fn with_event(mut self, event: Option<Value>) -> ExplainedDecision {
        let (id, shadow) = (self.event.take().map(Value::from), self.shadow.take());
        ExplainedDecision { decision: self, event: event.or(shadow).or(id) }
    }
}
