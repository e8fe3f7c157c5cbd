//! What is kept of the decisions of one transaction: enough to say later why something did or did not
//! scale. One JSON document, since it is written always and read rarely.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::engine::{Input, Judged, States};
use crate::domain::labels::Labels;
use crate::domain::name::Name;
use crate::domain::notification::Status;
use crate::domain::state::{AlertKey, Cause, Occurrence};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Phase, Verdict};
use crate::store::Record;

#[derive(Serialize)]
struct Document<'a> {
    at: String,
    /// Absent where the store's clock was the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    notification: Option<&'a Cause>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    decisions: Vec<Line<'a>>,
    /// The alerts of the notification, or those that waited, by their fingerprints.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    alerts: BTreeMap<&'a str, Alert<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    episode: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    alerts: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    /// The whole event that `mode: shadow` only would have sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Alert<'a> {
    status: &'static str,
    starts_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
    labels: &'a Labels,
}

/// The record of a notification. `None` if nothing was decided.
pub fn of_notification(now: Time, input: &Input, decisions: &[Decision]) -> Option<Record> {
    let alerts = input.alerts.iter().filter_map(Judged::alert).map(|alert| {
        let told = Alert {
            status: alert.status.as_str(),
            starts_at: alert.starts_at.to_string(),
            ends_at: alert.ends_at.map(|at| at.to_string()),
            labels: &alert.labels,
        };
        (alert.fingerprint.as_str(), told)
    });
    record(now, Some(&input.cause), input.truncated, alerts.collect(), decisions)
}

/// The record of what came due at targets that were in these states. `None` if nothing was decided.
pub fn of_what_came_due(now: Time, states: &States, decisions: &[Decision]) -> Option<Record> {
    let about = |decision: &'_ Decision| {
        let state = decision.target.as_ref().and_then(|target| states.targets.get(target));
        let known = move |alert: &AlertKey| state.and_then(|state| state.occurrence(alert));
        decision.alerts.iter().filter_map(known).collect::<Vec<&Occurrence>>()
    };
    let alerts = decisions.iter().flat_map(about).map(|open| {
        let told = Alert {
            status: Status::Firing.as_str(),
            starts_at: open.starts_at.to_string(),
            ends_at: None,
            labels: &open.labels,
        };
        (&*open.alert.fingerprint, told)
    });
    record(now, None, false, alerts.collect(), decisions)
}

#[expect(clippy::expect_used, reason = "all keys are strings, and memory is written to")]
fn record(
    now: Time,
    notification: Option<&Cause>,
    truncated: bool,
    alerts: BTreeMap<&str, Alert<'_>>,
    decisions: &[Decision],
) -> Option<Record> {
    if decisions.is_empty() {
        return None;
    }
    let targets: BTreeSet<&TargetKey> =
        decisions.iter().filter_map(|decision| decision.target.as_ref()).collect();
    let document = Document {
        at: now.to_millis_text(),
        notification,
        truncated,
        decisions: decisions.iter().map(line).collect(),
        alerts,
    };
    let body = serde_json::to_string(&document).expect("all keys are strings and memory does not fail");
    Some(Record { targets: targets.into_iter().cloned().collect(), body })
}

fn line(decision: &Decision) -> Line<'_> {
    let Decision {
        rule, target, phase, episode, action, verdict, detail, until, alerts, event, shadow, ..
    } = decision;
    let shadow = shadow.as_ref().and_then(|shadow| RawValue::from_string(shadow.encode(usize::MAX)).ok());
    Line {
        rule: rule.as_ref().map(Name::as_str),
        target: target.as_ref().map(TargetKey::as_str),
        phase: *phase,
        episode: episode.as_deref(),
        action: *action,
        verdict: *verdict,
        detail: detail.as_deref(),
        until: until.map(Time::to_millis_text),
        alerts: alerts.iter().map(|alert| &*alert.fingerprint).collect(),
        event: event.as_ref().map(|event| event.id.as_str()),
        shadow,
    }
}
