//! Builds the decision record of one transaction, which explains later why something did or did not scale.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use crate::domain::decision_record::{DecisionEntry, DecisionRecord, RecordedAlert};
use crate::domain::engine::{EvaluatedAlert, Input, States};
use crate::domain::name::Name;
use crate::domain::notification::Status;
use crate::domain::phase::Phase;
use crate::domain::size_limit::SizeLimit;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, DisplayTime};
use crate::domain::trigger::Trigger;
use crate::domain::verdict::Decision;
use crate::json;
use crate::store::Record;

/// The record of a notification; `states` are those before it was processed. `None` without decisions.
pub(super) fn for_notification(
    clock: ClockReading,
    input: &Input,
    states: &States,
    decisions: &[Decision],
) -> Option<Record> {
    let deferred = decisions.iter().filter(|decision| !decision.is_reply);
    let mut alerts = deferred_alerts(states, deferred, Some(&input.source.name));
    alerts.extend(input.alerts.iter().filter_map(EvaluatedAlert::alert).map(|alert| {
        let recorded = RecordedAlert {
            status: alert.status,
            source: None,
            starts_at: DisplayTime(alert.starts_at),
            ends_at: alert.ends_at.map(DisplayTime),
            labels: Cow::Borrowed(&*alert.labels),
        };
        (Cow::Borrowed(&*alert.fingerprint), recorded)
    }));
    record(clock, Some(&input.trigger), input.truncated, alerts, decisions)
}

/// The record of due targets; `states` are those before they were processed. `None` without decisions.
pub(super) fn for_due(clock: ClockReading, states: &States, decisions: &[Decision]) -> Option<Record> {
    record(clock, None, false, deferred_alerts(states, decisions, None), decisions)
}

/// The alerts of decisions about deferred actions and due targets, as they were when the action was requested:
/// those of a closed episode are resolved.
fn deferred_alerts<'a>(
    states: &'a States,
    decisions: impl IntoIterator<Item = &'a Decision>,
    notified_by: Option<&Name>,
) -> BTreeMap<Cow<'a, str>, RecordedAlert<'a>> {
    let mut recorded = BTreeMap::new();
    for decision in decisions {
        let state = decision.target.as_ref().and_then(|target| states.targets.get(target));
        let Some(state) = state else { continue };
        let status = match decision.phase {
            Some(Phase::Resolved) => Status::Resolved,
            Some(Phase::Firing) | None => Status::Firing,
        };
        for open in decision.alerts.iter().filter_map(|alert| state.occurrence(alert)) {
            let ended = state.last_resolve(&open.alert).filter(|_| status == Status::Resolved);
            let source = Some(&open.alert.source).filter(|source| notified_by != Some(*source));
            let alert = RecordedAlert {
                status,
                source: source.map(|source| Cow::Borrowed(source.as_str())),
                starts_at: DisplayTime(open.starts_at),
                ends_at: ended.map(|ended| DisplayTime(ended.ends_at)),
                labels: Cow::Borrowed(&*open.labels),
            };
            recorded.insert(Cow::Borrowed(&*open.alert.fingerprint), alert);
        }
    }
    recorded
}

#[expect(clippy::expect_used, reason = "all keys are strings")]
fn record(
    clock: ClockReading,
    notification: Option<&Trigger>,
    truncated: bool,
    alerts: BTreeMap<Cow<'_, str>, RecordedAlert<'_>>,
    decisions: &[Decision],
) -> Option<Record> {
    if decisions.is_empty() {
        return None;
    }
    let targets: BTreeSet<&TargetKey> =
        decisions.iter().filter_map(|decision| decision.target.as_ref()).collect();
    let record = DecisionRecord {
        at: clock.wall.millis(),
        notification: notification.map(Cow::Borrowed),
        truncated,
        decisions: decisions.iter().map(|decision| entry(decision, clock)).collect(),
        alerts,
    };
    let capacity = 512 + 1024 * record.alerts.len();
    let body = json::to_string(&record, capacity).expect("all keys are strings");
    Some(Record { targets: targets.into_iter().cloned().collect(), body })
}

fn entry(decision: &Decision, clock: ClockReading) -> DecisionEntry<'_> {
    let Decision {
        rule,
        target,
        phase,
        episode,
        action,
        verdict,
        detail,
        blocked_by,
        until,
        alerts,
        event,
        shadow,
        ..
    } = decision;
    let emitted = event.as_deref().or(shadow.as_deref());
    let amount =
        emitted.and_then(|event| event.adjustment.as_ref()).map(|change| Cow::Owned(change.to_short()));
    let shadow =
        shadow.as_ref().and_then(|shadow| RawValue::from_string(shadow.encode(SizeLimit::NONE)).ok());
    DecisionEntry {
        rule: rule.as_ref().map(|rule| Cow::Borrowed(rule.as_str())),
        target: target.as_ref().map(|target| Cow::Borrowed(target.as_str())),
        phase: *phase,
        episode: episode.as_deref().map(Cow::Borrowed),
        action: action.map(Cow::Borrowed),
        amount,
        verdict: *verdict,
        detail: detail.as_deref().filter(|_| blocked_by.is_none()).map(Cow::Borrowed),
        blocked_by: blocked_by.as_deref().map(Cow::Borrowed),
        until: until.map(|until| clock.on_wall(until).millis()),
        alerts: alerts.iter().map(|alert| Cow::Borrowed(&*alert.fingerprint)).collect(),
        event: event.as_ref().map(|event| Cow::Borrowed(&*event.id)),
        shadow,
        destination: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::alert_key::AlertKey;
    use crate::domain::notification::Envelope;
    use crate::domain::source::Source;
    use crate::domain::state::TargetState;
    use crate::domain::time::Time;
    use crate::domain::verdict::Verdict;

    /// A target with a deferred scale-in, and the decision that withdraws or emits it.
    fn deferred_scale_in() -> (States, Decision) {
        let state: TargetState = serde_json::from_value(json!({
            "rules": { "pods": { "closing": {
                "episode": {
                    "id": "e", "target": { "platform": "eks", "kind": "nodegroup", "name": "workers" },
                    "opened_at": 0, "open": [], "emissions": 1, "most_open": 1,
                },
                "closed": [{
                    "alert": { "source": "prod", "fingerprint": "f" }, "starts_at": 1_000_000_000_i64,
                    "heard_at": 0, "expires_at": 0, "labels": { "pod": "a" }, "annotations": {},
                }],
                "kept": {
                    "since": 0, "alerts": [],
                    "cause": { "source": "prod", "receiver": "", "group_key": "", "external_url": "" },
                },
            } } },
            "ended": [{
                "alert": { "source": "prod", "fingerprint": "f" }, "ends_at": 2_000_000_000_i64,
                "was_open": true, "until": 0,
            }],
        }))
        .unwrap();
        let key = TargetKey::from_stored("eks/nodegroup/-/-/-/-/workers");
        let alert = AlertKey { source: Name::new("prod").unwrap(), fingerprint: "f".into() };
        let mut states = States::default();
        states.targets.insert(key.clone(), Arc::new(state));
        let decision = Decision::new(Verdict::Withdrawn, vec![alert]);
        (states, Decision { target: Some(key), is_reply: false, phase: Some(Phase::Resolved), ..decision })
    }

    fn alerts(record: Option<Record>) -> Value {
        serde_json::from_str::<Value>(&record.unwrap().body).unwrap()["alerts"].take()
    }

    #[test]
    fn an_alert_whose_scale_in_was_deferred_is_recorded_as_resolved_whatever_ends_the_deferral() {
        let (states, decision) = deferred_scale_in();
        let recorded = json!({ "f": {
            "status": "resolved", "source": "prod", "starts_at": "1970-01-01T00:00:01Z", "ends_at": "1970-01-01T00:00:02Z",
            "labels": { "pod": "a" },
        } });
        let clock = ClockReading::equal(Time::from_millis(3000));
        assert_eq!(alerts(for_due(clock, &states, std::slice::from_ref(&decision))), recorded);
        let name = Name::new("prod").unwrap();
        let trigger = Arc::new(Trigger::new(&name, &Envelope::default(), None));
        let source = Arc::new(Source {
            name,
            labels: Arc::default(),
            late_window: Duration::ZERO,
            occurrence_ttl: Duration::ZERO,
            heartbeat: None,
            ignore_labels: Vec::new(),
            permissions: crate::domain::source::SourcePermissions::default(),
        });
        let input = Input { source, trigger, truncated: false, sent_at: None, alerts: Vec::new() };
        // The notification gives the source.
        let without_source = recorded.to_string().replace("\"source\":\"prod\",", "");
        assert_eq!(alerts(for_notification(clock, &input, &states, &[decision])).to_string(), without_source);
    }

    #[test]
    fn the_times_of_a_record_are_those_of_the_wall_clock() {
        let (states, decision) = deferred_scale_in();
        let decision = Decision { until: Some(Time::from_millis(63_000)), ..decision };
        let clock = ClockReading { now: Time::from_millis(3_000), wall: Time::from_millis(7_203_000) };
        let record = for_due(clock, &states, &[decision]).unwrap();
        let record: Value = serde_json::from_str(&record.body).unwrap();
        assert_eq!(record["at"], "1970-01-01T02:00:03.000Z");
        assert_eq!(record["decisions"][0]["until"], "1970-01-01T02:01:03.000Z", "a minute later");
    }
}
