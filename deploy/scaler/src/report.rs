//! What is said about each event: one line of the log, which in Lambda carries metrics in CloudWatch's embedded format.

use scalebridge::domain::time::Time;
use serde_json::{Map, Value, json};

use crate::event::ScalingEvent;
use crate::ledger::Pending;
use crate::outcome::{Answer, Outcome};

/// The namespace in CloudWatch, and the prefix of the names in Prometheus.
pub const NAMESPACE: &str = "scalebridge_scaler";

/// The length of a body in a line of the log, in bytes.
const MAX_SHOWN_BODY: usize = 4 * 1024;

/// What was received.
#[derive(Debug, Clone, Copy)]
pub enum Received<'a> {
    Event(&'a ScalingEvent),
    /// It could not be read as an event.
    Unreadable,
}

impl Received<'_> {
    /// The value of the label `platform`.
    pub fn platform(self) -> &'static str {
        match self {
            Self::Event(event) => event.target.platform.as_str(),
            Self::Unreadable => "unknown",
        }
    }
}

/// The units that were added or taken away.
pub fn capacity_change(answer: &Answer) -> Option<(&'static str, u32)> {
    if !matches!(answer.outcome, Outcome::Applied | Outcome::Capped) {
        return None;
    }
    difference(answer.from?, answer.to?)
}

/// The same for two capacities.
pub fn difference(from: u32, to: u32) -> Option<(&'static str, u32)> {
    match (from, to) {
        (from, to) if to > from => Some(("increase", to - from)),
        (from, to) if to < from => Some(("decrease", from - to)),
        _ => None,
    }
}

/// The line of the log. `embeds_metrics` in Lambda, where nothing scrapes.
pub fn line(received: Received<'_>, answer: &Answer, now: Time, embeds_metrics: bool) -> Value {
    let level = match answer.outcome {
        Outcome::Refused => "ERROR",
        Outcome::Retry | Outcome::Expired => "WARN",
        _ => "INFO",
    };
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| drop(line.insert(key.to_owned(), value));
    put("timestamp", json!(now.to_millis_string()));
    put("level", json!(level));
    put("message", json!("event"));
    put("event", json!(answer.id));
    put("outcome", json!(answer.outcome));
    if let Some((from, to)) = answer.from.zip(answer.to) {
        put("from", json!(from));
        put("to", json!(to));
    }
    if !answer.reason.is_empty() {
        put("reason", json!(answer.reason));
    }
    if let Received::Event(event) = received {
        put("target", json!(event.subject));
        put("rule", json!(event.rule));
        put("adjustment", json!(event.adjustment.to_short()));
        put("sequence", json!(event.sequence.to_string()));
    }
    if embeds_metrics {
        embed_metrics(&mut line, received, answer, now);
    }
    Value::Object(line)
}

/// The line about a change of a target whose event has no answer yet: the worker that began it has died or given up, and
/// it was ended with another event. Its own event is `already_applied` when it comes again.
pub fn change_line(target: &str, pending: &Pending, now: Time, embeds_metrics: bool) -> Value {
    let Pending { id, sequence, from, to, cut_by, note, .. } = pending;
    let outcome = if cut_by.is_empty() { Outcome::Applied } else { Outcome::Capped };
    let reasons = ["it was ended with another event of the target", cut_by, note];
    let reasons: Vec<&str> = reasons.into_iter().filter(|reason| !reason.is_empty()).collect();
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| drop(line.insert(key.to_owned(), value));
    put("timestamp", json!(now.to_millis_string()));
    put("level", json!("INFO"));
    put("message", json!("change"));
    put("event", json!(id));
    put("outcome", json!(outcome));
    put("from", json!(from));
    put("to", json!(to));
    put("reason", json!(reasons.join("; ")));
    put("target", json!(target));
    put("sequence", json!(sequence.to_string()));
    if embeds_metrics && let Some(change) = difference(*from, *to) {
        let metrics = vec![embed_change(&mut line, change)];
        embed(&mut line, &metrics, now);
    }
    Value::Object(line)
}

/// The line about a refused event that the queue for those has not taken. It has the event, since nothing else may have it
/// later.
pub fn unsent_line(body: &str, answer: &Answer, error: &str, now: Time, embeds_metrics: bool) -> Value {
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| drop(line.insert(key.to_owned(), value));
    put("timestamp", json!(now.to_millis_string()));
    put("level", json!("ERROR"));
    put("message", json!("the refused event was not sent to `refusals`"));
    put("event", json!(answer.id));
    put("reason", json!(answer.reason));
    put("error", json!(error));
    put("body", json!(&body[..body.floor_char_boundary(MAX_SHOWN_BODY)]));
    if embeds_metrics {
        line.insert("call".to_owned(), json!("send"));
        line.insert("queue_errors_total".to_owned(), json!(1));
        embed(&mut line, &[metric("queue_errors_total", json!(["call"]))], now);
    }
    Value::Object(line)
}

fn embed_metrics(line: &mut Map<String, Value>, received: Received<'_>, answer: &Answer, now: Time) {
    let mut metrics = vec![metric("events_total", json!(["platform", "outcome"]))];
    line.insert("platform".to_owned(), json!(received.platform()));
    line.insert("events_total".to_owned(), json!(1));
    if let Some(change) = capacity_change(answer) {
        metrics.push(embed_change(line, change));
    }
    embed(line, &metrics, now);
}

fn embed_change(line: &mut Map<String, Value>, (direction, units): (&str, u32)) -> Value {
    line.insert("direction".to_owned(), json!(direction));
    line.insert("capacity_change_total".to_owned(), json!(units));
    metric("capacity_change_total", json!(["direction"]))
}

fn metric(name: &str, dimensions: Value) -> Value {
    json!({
        "Namespace": NAMESPACE,
        "Dimensions": [dimensions],
        "Metrics": [{ "Name": name, "Unit": "Count" }],
    })
}

fn embed(line: &mut Map<String, Value>, metrics: &[Value], now: Time) {
    line.insert("_aws".to_owned(), json!({ "Timestamp": now.as_millis(), "CloudWatchMetrics": metrics }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::test_support::{NOW, event};

    fn answer(outcome: Outcome, change: Option<(u32, u32)>, reason: &str) -> Answer {
        let (from, to) = (change.map(|(from, _)| from), change.map(|(_, to)| to));
        Answer { id: "0".repeat(32), outcome, from, to, reason: reason.to_owned() }
    }

    #[test]
    fn the_line_says_what_was_done_for_which_rule_and_target() {
        let event = event(0, 7, "+4");
        let answer = answer(Outcome::Capped, Some((4, 6)), "the maximum of the group is 6");
        let line = line(Received::Event(&event), &answer, NOW, false);
        assert_eq!(
            line,
            json!({
                "timestamp": "1970-01-01T00:16:40.000Z", "level": "INFO", "message": "event",
                "event": "00000000000000000000000000000000", "outcome": "capped", "from": 4, "to": 6,
                "reason": "the maximum of the group is 6",
                "target": "eks/nodegroup/-/eu-west-1/prod/-/workers", "rule": "unschedulable-pods",
                "adjustment": "+4", "sequence": "7",
            })
        );
    }

    #[test]
    fn in_lambda_the_line_carries_the_metrics() {
        let event = event(0, 7, "-4");
        let metrics = |answer: &Answer, received| {
            let line = line(received, answer, NOW, true);
            let names: Vec<String> = line["_aws"]["CloudWatchMetrics"]
                .as_array()
                .unwrap()
                .iter()
                .map(|metric| {
                    let name = metric["Metrics"][0]["Name"].as_str().unwrap();
                    let labels = metric["Dimensions"][0].as_array().unwrap().iter();
                    let labels: Vec<&str> =
                        labels.map(|label| line[label.as_str().unwrap()].as_str().unwrap()).collect();
                    format!("{name}{{{}}} {}", labels.join(","), line[name])
                })
                .collect();
            assert_eq!(line["_aws"]["Timestamp"], 1_000_000);
            names
        };
        assert_eq!(
            metrics(&answer(Outcome::Applied, Some((6, 2)), ""), Received::Event(&event)),
            ["events_total{eks,applied} 1", "capacity_change_total{decrease} 4"]
        );
        assert_eq!(
            metrics(&answer(Outcome::Refused, None, "x"), Received::Unreadable),
            ["events_total{unknown,refused} 1"]
        );
        // What was applied before, or would have been, changes nothing now.
        for outcome in [Outcome::AlreadyApplied, Outcome::DryRun] {
            assert_eq!(metrics(&answer(outcome, Some((2, 4)), ""), Received::Event(&event)).len(), 1);
        }
    }
}
