//! Runs a unit test of rules on a virtual clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::matching::{compare, mismatches};
use crate::bridge::decision_view::ExplainedDecision;
use crate::bridge::{Simulator, SimulatorError};
use crate::cli::escape::escape_control_chars;
use crate::config::diagnostic::Location;
use crate::config::test_file::{
    Expected, Test, TestAction, TestAlert, TestFile, TestNotification, TestPause,
};
use crate::domain::control::Pause;
use crate::domain::duration::format;
use crate::domain::fingerprint;
use crate::domain::name::Name;
use crate::domain::notification::{Notification, Status};
use crate::domain::time::Time;
use crate::sources::SourceKind;

/// Alertmanager's `endsAt` of a firing alert.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// A failed step.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The position of the step in the test file.
    pub location: Location,
    /// The difference as text, in several lines.
    pub message: String,
}

/// The start of each firing alert, used when a later step mentions the alert without `startsAt`.
type StartTimes = BTreeMap<(Name, String), Time>;

/// Runs a test and returns its failures. The first one usually causes the others.
pub(crate) async fn run(test_file: &TestFile, test: &Test) -> Result<Vec<Failure>, SimulatorError> {
    let mut simulator =
        Simulator::new(test_file.rules.clone(), test_file.sources.clone(), test_file.policy, test.start);
    let mut start_times = StartTimes::new();
    let mut failures = Vec::new();
    for step in &test.steps {
        let mut decided = simulator.advance_to(test.start.after(step.at)).await?;
        for action in &step.actions {
            // What is due at the end of a gap is decided before something else happens.
            decided.extend(simulator.advance_to(simulator.now()).await?);
            match execute(action, &mut simulator, &mut start_times).await? {
                Ok(decisions) => decided.extend(decisions),
                Err(message) => failures.push(Failure { location: step.location.clone(), message }),
            }
        }
        if let Some(expected) = &step.expect
            && let Some(message) = describe_difference(expected, &decided)
        {
            let message = format!("at {}:\n{message}", format(step.at));
            failures.push(Failure { location: step.location.clone(), message });
        }
    }
    Ok(failures)
}

/// Executes an action of a step. Returns the decisions, or why a notification cannot be parsed.
async fn execute(
    action: &TestAction,
    simulator: &mut Simulator,
    start_times: &mut StartTimes,
) -> Result<Result<Vec<ExplainedDecision>, String>, SimulatorError> {
    let now = simulator.now();
    match action {
        TestAction::Notify(notify) => {
            let body = body(notify, now, start_times);
            // Parsed like the body of a webhook request.
            return match SourceKind::default().parse(body.to_string().as_bytes(), now) {
                Ok(mut notification) => {
                    add_what_alertmanager_does_not_say(notify, &mut notification, now);
                    Ok(Ok(simulator.notify(notify.source.as_str(), notification).await?))
                }
                Err(error) => Ok(Err(error.to_string())),
            };
        }
        // What has become due until the end of a gap belongs to the next step.
        TestAction::Gap { source, length, .. } => {
            simulator.gap(source.as_ref(), *length).await?;
            return Ok(Ok(Vec::new()));
        }
        TestAction::Restart(length) => {
            simulator.restart(*length).await?;
            return Ok(Ok(Vec::new()));
        }
        TestAction::Pause(pause) => simulator.pause(pause_since(pause, now)).await?,
        TestAction::Resume => simulator.resume().await?,
        TestAction::Destination { name, state, .. } => simulator.set_destination(name.clone(), *state),
    }
    Ok(Ok(simulator.advance_to(now).await?))
}

fn pause_since(pause: &TestPause, since: Time) -> Pause {
    Pause {
        id: 0,
        rule: pause.rule.clone(),
        target: pause.target.clone(),
        direction: pause.direction,
        since,
        until: pause.until,
        author: "test".to_owned(),
        reason: String::new(),
    }
}

/// Other kinds of sources say more than a body of Alertmanager.
fn add_what_alertmanager_does_not_say(notify: &TestNotification, notification: &mut Notification, now: Time) {
    notification.sent_at = notify.sent_at;
    for (test_alert, alert) in notify.alerts.iter().zip(&mut notification.alerts) {
        if let Ok(alert) = alert {
            alert.absence = test_alert.absence.as_deref().map(Arc::from);
            alert.valid_until = test_alert.valid_for.map(|length| now.after(length));
        }
    }
}

fn body(notify: &TestNotification, now: Time, start_times: &mut StartTimes) -> Value {
    let alerts: Vec<Value> =
        notify.alerts.iter().map(|one| alert(one, &notify.source, now, start_times)).collect();
    let mut body = json!({
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": notify.truncated,
        "status": "firing",
        "receiver": "test",
        "externalURL": "http://alertmanager.test:9093",
        "alerts": alerts,
    });
    for (key, text) in &notify.envelope {
        body[*key] = text.as_str().into();
    }
    body
}

fn alert(alert: &TestAlert, source: &Name, now: Time, start_times: &mut StartTimes) -> Value {
    let labels = alert.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let fingerprint = alert.fingerprint.clone().unwrap_or_else(|| fingerprint::from_labels(labels));
    let key = (source.clone(), fingerprint.clone());
    let starts_at = alert.starts_at.or_else(|| start_times.get(&key).copied()).unwrap_or(now);
    let ends_at = match alert.status {
        Status::Firing => {
            start_times.insert(key, starts_at);
            alert.ends_at.map_or_else(|| ZERO_TIME.to_owned(), |at| at.to_string())
        }
        Status::Resolved => {
            start_times.remove(&key);
            alert.ends_at.unwrap_or(now).to_string()
        }
    };
    json!({
        "status": alert.status.as_str(),
        "labels": alert.labels,
        "annotations": alert.annotations,
        "startsAt": starts_at.to_string(),
        "endsAt": ends_at,
        "generatorURL": alert.generator_url.as_deref().unwrap_or("http://prometheus.test:9090/graph"),
        "fingerprint": fingerprint,
    })
}

/// Describes the difference as text; `None` if there is none.
fn describe_difference(expected: &[Expected], decided: &[ExplainedDecision]) -> Option<String> {
    let wanted: Vec<Value> = expected.iter().map(|one| one.fields.clone()).collect();
    let decided: Vec<Value> =
        decided.iter().map(|decision| serde_json::to_value(decision).unwrap_or_default()).collect();
    let difference = compare(&wanted, &decided);
    if difference.is_empty() {
        return None;
    }
    let mut text = String::new();
    let mut line = |indent: usize, words: String| text += &format!("{:indent$}{words}\n", "");
    let mut reported = Vec::new();
    for (missing, nearest) in difference.missing {
        line(2, format!("expected {}", expected[missing].fields));
        match nearest {
            Some(at) => {
                reported.push(at);
                line(2, format!("but got  {}", brief(&decided[at])));
                for mismatch in mismatches(&wanted[missing], &decided[at]) {
                    line(
                        4,
                        format!("{}: expected {}, got {}", mismatch.path, mismatch.expected, mismatch.found),
                    );
                }
            }
            None => line(2, "but there is no other decision".to_owned()),
        }
    }
    for at in difference.unexpected.into_iter().filter(|at| !reported.contains(at)) {
        line(2, format!("unexpected {}", brief(&decided[at])));
    }
    Some(text.trim_end().to_owned())
}

/// A decision in one line, in the syntax of `expect`.
pub(crate) fn brief(decision: &Value) -> String {
    let mut parts = Vec::new();
    for key in ["rule", "verdict", "action", "phase", "until", "detail"] {
        if let Some(text) = decision.get(key).and_then(Value::as_str) {
            parts.push(format!("{key}: {text}"));
        }
    }
    if let Some(name) = decision.pointer("/target/name").and_then(Value::as_str) {
        parts.push(format!("target: {{ name: {name} }}"));
    }
    if let Some(alerts) = decision.get("alerts").and_then(Value::as_array) {
        parts.push(format!("alerts: {}", alerts.len()));
    }
    escape_control_chars(&format!("{{ {} }}", parts.join(", ")))
}
