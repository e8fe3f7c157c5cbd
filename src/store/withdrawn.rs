//! The decision record of a withdrawn delivery: why an event was not sent to a destination.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::domain::decision_record::{DecisionEntry, DecisionRecord};
use crate::domain::event::EventDocument;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

/// The reason of a withdrawal at commit: the destination is not in the route of any event of the episode.
pub(super) const NEVER_ROUTED: &str =
    "no on_firing event of this episode was routed to this destination, so there is nothing to compensate";

/// The record as JSON: the event is not sent to the destination, for this reason. What the event lacks is absent, as
/// in other records.
#[expect(clippy::expect_used, reason = "all keys are strings, and memory is written to")]
pub(super) fn withdrawal_record(wall: Time, event: &str, destination: &Name, reason: &str) -> String {
    let event = EventDocument::read(event).unwrap_or_default();
    let entry = DecisionEntry {
        rule: event.rule().map(Cow::Borrowed),
        target: event.subject().map(Cow::Borrowed),
        phase: Some(Phase::Resolved),
        episode: event.episode().map(Cow::Borrowed),
        action: event.action().map(Cow::Borrowed),
        amount: None,
        verdict: Verdict::Withdrawn,
        detail: Some(Cow::Borrowed(reason)),
        blocked_by: None,
        until: None,
        alerts: event.fingerprints().map(Cow::Borrowed).collect(),
        event: event.id().map(Cow::Borrowed),
        shadow: None,
        destination: Some(Cow::Borrowed(destination.as_str())),
    };
    let record = DecisionRecord {
        at: wall.millis(),
        notification: None,
        truncated: false,
        decisions: vec![entry],
        alerts: BTreeMap::new(),
    };
    serde_json::to_string(&record).expect("all keys are strings and memory does not fail")
}
