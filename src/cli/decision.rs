//! How decisions are shown, and their comparison.

use serde::Deserialize;
use serde_json::Value;

use std::collections::BTreeSet;

use super::escape::escape_control_chars;
use super::output::pluralize;
use super::style::{Style, Tone};
use crate::bridge::decision_view::{AlertView, ExplainedDecision};
use crate::domain::target::PartialTarget;
use crate::ops::api::DecisionView;

/// The adjustment of an event.
#[derive(Deserialize)]
struct Adjustment {
    #[serde(rename = "type")]
    kind: String,
    value: i64,
}

/// Formats an event's adjustment as `+2`, `-25%` or `to 6`.
fn amount(event: &Value) -> Option<String> {
    let Adjustment { kind, value } = Adjustment::deserialize(event.pointer("/data/adjustment")?).ok()?;
    Some(match kind.as_str() {
        "ExactCapacity" => format!("to {value}"),
        "PercentChangeInCapacity" => format!("{value:+}%"),
        _ => format!("{value:+}"),
    })
}

/// The longest name of a verdict.
const VERDICT_WIDTH: usize = 15;
/// Names of alerts that are shown.
const MAX_NAMES: usize = 3;

/// A decision as an entry: when, what, which rule and target, about which alerts, why, and until when.
pub(super) fn entry(style: &Style, decision: &DecisionView) -> String {
    let at = style.clock(&decision.at);
    let indent = at.chars().count() + 2;
    let verdict = format!("{:<VERDICT_WIDTH$}", decision.verdict);
    let verdict = style.paint(tone(&decision.verdict), &escape_control_chars(verdict.trim_end()))
        + &verdict[verdict.trim_end().len()..];
    let mut parts = vec![at, verdict];
    parts.extend(requested(decision));
    parts.extend(decision.rule.as_deref().map(escape_control_chars));
    parts.push(subject(decision));
    parts.push(about(decision, style.is_wide()));
    parts.extend(decision.event.as_deref().map(|id| format!("event {}", escape_control_chars(id))));
    parts.extend(
        decision.destination.as_deref().map(|name| format!("not sent to {}", escape_control_chars(name))),
    );
    parts.push(why(style, decision));
    parts.extend(suppressions(&decision.alerts));
    if style.is_wide() {
        parts.push(format!("decision {}", escape_control_chars(&decision.id)));
        parts.extend(decision.episode.as_deref().map(|id| format!("episode {}", escape_control_chars(id))));
    }
    style.entry(indent, &parts)
}

fn tone(verdict: &str) -> Tone {
    match verdict {
        "emitted" => Tone::Good,
        "paused" | "held" | "outranked" | "stabilizing" | "cooling_down" | "over_budget" | "late" => {
            Tone::Blocked
        }
        "invalid" | "unmatched" | "no_evidence" | "expired" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// The action and its amount: `scale_out +2`, `set_capacity → 10`.
fn requested(decision: &DecisionView) -> Option<String> {
    let action = escape_control_chars(decision.action.as_deref()?);
    let amount = decision.amount.as_deref().map(|amount| format!(" {}", readable_amount(amount)));
    Some(action + &amount.unwrap_or_default())
}

/// `+2`, `-25 %`, `→ 10`.
pub(super) fn readable_amount(amount: &str) -> String {
    let amount = escape_control_chars(amount);
    match (amount.strip_prefix('='), amount.strip_suffix('%')) {
        (Some(capacity), _) => format!("→ {}", capacity.trim_end_matches('!')),
        (None, Some(percent)) => format!("{percent} %"),
        (None, None) => amount,
    }
}

/// The target; for a hold what it covers.
fn subject(decision: &DecisionView) -> String {
    let Some(subject) = decision.subject.as_deref() else { return String::new() };
    match &decision.target {
        Some(target) if subject.starts_with("hold/") => format!("hold on {}", covered(target)),
        _ => escape_control_chars(subject),
    }
}

/// What a hold covers: `cluster=prod-eu`.
pub(super) fn covered(target: &PartialTarget) -> String {
    let fields = serde_json::to_value(target).unwrap_or_default();
    let fields = fields.as_object().into_iter().flatten();
    let fields: Vec<String> =
        fields.filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?))).collect();
    let covered = if fields.is_empty() { "all targets".to_owned() } else { fields.join(", ") };
    escape_control_chars(&covered)
}

/// The names of the alerts, their number and their sources; all labels of those that no rule takes.
fn about(decision: &DecisionView, is_wide: bool) -> String {
    let alerts = &decision.alerts;
    let has_rule = decision.rule.is_some() || decision.verdict == "heartbeat";
    let name = |alert: &AlertView| if is_wide || !has_rule { labelled(alert) } else { named(alert) };
    let names: BTreeSet<String> = alerts.iter().map(name).filter(|name| !name.is_empty()).collect();
    let more = names.len().saturating_sub(MAX_NAMES);
    let shown: Vec<String> = names.into_iter().take(MAX_NAMES).collect();
    let mut text = shown.join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    if text.is_empty() {
        text = pluralize(alerts.len(), "alert");
    } else if alerts.len() > 1 {
        text += &format!(" ({})", pluralize(alerts.len(), "alert"));
    }
    let notified_by = decision.notification.iter().map(|notification| notification.source.as_str());
    let sources: BTreeSet<&str> = alerts.iter().filter_map(|alert| alert.source.as_deref()).collect();
    let sources: Vec<&str> =
        if sources.is_empty() { notified_by.collect() } else { sources.into_iter().collect() };
    if !sources.is_empty() {
        text += &format!(" from {}", sources.join(", "));
    }
    escape_control_chars(&text)
}

fn named(alert: &AlertView) -> String {
    match alert.labels.get("alertname") {
        Some(name) => name.clone(),
        None if alert.labels.is_empty() => alert.fingerprint.clone(),
        None => labelled(alert),
    }
}

/// `Disk{instance="a"}`.
fn labelled(alert: &AlertView) -> String {
    let others = alert.labels.iter().filter(|(name, _)| *name != "alertname");
    let others: Vec<String> = others.map(|(name, value)| format!("{name}={value:?}")).collect();
    let name = alert.labels.get("alertname").map(String::as_str).unwrap_or_default();
    match (name.is_empty(), others.is_empty()) {
        (true, true) => alert.fingerprint.clone(),
        (false, true) => name.to_owned(),
        _ => format!("{name}{{{}}}", others.join(", ")),
    }
}

/// The reason, and until when it blocks.
fn why(style: &Style, decision: &DecisionView) -> String {
    let detail = decision.detail.as_deref().map(escape_control_chars);
    let until = decision.until.as_deref().map(|until| format!("until {}", style.time(until)));
    let ends = decision.blocked_by.as_ref().filter(|_| until.is_none()).map(end_of);
    let parts: Vec<String> =
        [detail, until.or_else(|| ends.map(str::to_owned))].into_iter().flatten().collect();
    parts.join(", ")
}

/// Why Alertmanager notifies nobody of the alerts now: `now silenced by alice until 2026-12-01T10:00:00.000Z`.
fn suppressions(alerts: &[AlertView]) -> Option<String> {
    let all: BTreeSet<String> =
        alerts.iter().flat_map(|alert| &alert.suppressed_by).map(ToString::to_string).collect();
    let mut shown: Vec<String> = all.iter().take(MAX_NAMES).cloned().collect();
    if all.len() > shown.len() {
        shown.push(format!("{} more", all.len() - shown.len()));
    }
    (!shown.is_empty()).then(|| escape_control_chars(&format!("now {}", shown.join(", "))))
}

/// What ends a block whose end is not known.
pub(super) fn end_of(blocker: &crate::domain::blocker::Blocker) -> &'static str {
    use crate::domain::blocker::Blocker;
    match blocker {
        Blocker::Pause { .. } => "until it is resumed",
        Blocker::Hold { .. } => "until the hold ends",
        Blocker::Heartbeat { .. } => "until it opens",
        Blocker::Episode { .. } => "until it closes",
        Blocker::Undelivered { .. } => "until it is delivered or given up",
        Blocker::Destination => "at most a day",
        _ => "until that is over",
    }
}

/// `emitted unschedulable-pods scale_out +2 eks/nodegroup/-/-/-/-/workers, 3 alerts`, followed by the time of the
/// re-evaluation and the detail, if there are any. The amount is shown if the event is given.
pub(super) fn summary_line(decision: &DecisionView, event: Option<&Value>) -> String {
    let amount = event.and_then(amount);
    let words = [
        Some(decision.verdict.as_ref()),
        decision.rule.as_deref(),
        decision.action.as_deref(),
        amount.as_deref(),
        decision.subject.as_deref(),
    ];
    let words: Vec<&str> = words.into_iter().flatten().collect();
    let mut line = words.join(" ");
    line += &format!(", {}", pluralize(decision.alerts.len(), "alert"));
    if let Some(until) = &decision.until {
        line += &format!(", until {until}");
    }
    if let Some(detail) = &decision.detail {
        line += &format!(": {detail}");
    }
    escape_control_chars(&line)
}

/// The same for a decision with its whole event.
pub(super) fn explained_line(explained: &ExplainedDecision) -> String {
    summary_line(&explained.decision, explained.event.as_ref())
}

/// The fields of an event that do not depend on when it was emitted: if two rule tables make the same decision, these
/// show whether its consumers would receive something different.
pub(super) fn comparable_fields(explained: &ExplainedDecision) -> Value {
    let event = explained.event.as_ref();
    let mut data = event.and_then(|event| event.get("data")).cloned().unwrap_or_default();
    if let Some(fields) = data.as_object_mut() {
        fields.shift_remove("episode");
    }
    let lifetime = || {
        let at = |key: &str| {
            let text = event?.get(key)?.as_str()?;
            crate::domain::time::Time::parse(text).ok()
        };
        Some(crate::domain::duration::format(at("expirytime")?.since(at("time")?)))
    };
    serde_json::json!({ "data": data, "expires_after": lifetime() })
}
