//! The decision record of a withdrawn delivery: why an event was not sent to a destination.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use crate::domain::decision_record::{DecisionEntry, DecisionRecord};
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

/// The reason of a withdrawal at commit: the destination is not in the route of any event of the episode.
pub(super) const NEVER_ROUTED: &str =
    "no on_firing event of this episode was routed to this destination, so there is nothing to compensate";

#[derive(Debug, Default, Deserialize)]
struct Event {
    #[serde(default)]
    id: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    #[serde(default)]
    rule: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    episode: Episode,
    #[serde(default)]
    alerts: Vec<Alert>,
}

#[derive(Debug, Default, Deserialize)]
struct Episode {
    #[serde(default)]
    id: String,
}

#[derive(Debug, Deserialize)]
struct Alert {
    #[serde(default)]
    fingerprint: String,
}

/// The record as JSON: the event is not sent to the destination, for this reason.
#[expect(clippy::expect_used, reason = "all keys are strings, and memory is written to")]
pub(super) fn withdrawal_record(now: Time, event: &str, destination: &Name, reason: &str) -> String {
    let Event { id, subject, data } = serde_json::from_str(event).unwrap_or_default();
    let entry = DecisionEntry {
        rule: Some(Cow::Borrowed(&data.rule)),
        target: unless_empty(&subject),
        phase: Some(Phase::Resolved),
        episode: unless_empty(&data.episode.id),
        action: unless_empty(&data.action),
        verdict: Verdict::Withdrawn,
        detail: Some(Cow::Borrowed(reason)),
        until: None,
        alerts: data.alerts.iter().map(|alert| Cow::Borrowed(alert.fingerprint.as_str())).collect(),
        event: Some(Cow::Borrowed(&id)),
        shadow: None,
        destination: Some(Cow::Borrowed(destination.as_str())),
    };
    let record = DecisionRecord {
        at: now.millis(),
        notification: None,
        truncated: false,
        decisions: vec![entry],
        alerts: BTreeMap::new(),
    };
    serde_json::to_string(&record).expect("all keys are strings and memory does not fail")
}

/// Texts that an event lacks are absent, as in other records.
fn unless_empty(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}
