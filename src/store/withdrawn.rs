//! The line in a target's history that says why an event was not sent somewhere.

use serde::{Deserialize, Serialize};

use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

/// Why a destination is not sent what undoes something.
pub(super) const NEVER_ROUTED: &str =
    "no on_firing event of this episode was meant for this destination, so there is nothing to undo";

#[derive(Serialize)]
struct DecisionRecord<'a> {
    at: String,
    decisions: [DecisionEntry<'a>; 1],
}

/// As the lines of other decisions, with the destination that it is about.
#[derive(Serialize)]
struct DecisionEntry<'a> {
    rule: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    target: &'a str,
    phase: Phase,
    #[serde(skip_serializing_if = "str::is_empty")]
    episode: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    action: &'a str,
    verdict: Verdict,
    detail: &'a str,
    alerts: Vec<&'a str>,
    event: &'a str,
    destination: &'a str,
}

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

/// The record, JSON: an event is not sent to a destination, for this reason.
#[expect(clippy::expect_used, reason = "all keys are strings, and memory is written to")]
pub(super) fn withdrawal_record(now: Time, event: &str, destination: &Name, reason: &str) -> String {
    let Event { id, subject, data } = serde_json::from_str(event).unwrap_or_default();
    let entry = DecisionEntry {
        rule: &data.rule,
        target: &subject,
        phase: Phase::Resolved,
        episode: &data.episode.id,
        action: &data.action,
        verdict: Verdict::Withdrawn,
        detail: reason,
        alerts: data.alerts.iter().map(|alert| alert.fingerprint.as_str()).collect(),
        event: &id,
        destination: destination.as_str(),
    };
    let record = DecisionRecord { at: now.to_millis_string(), decisions: [entry] };
    serde_json::to_string(&record).expect("all keys are strings and memory does not fail")
}
