//! One-line summaries of decisions, and their comparison.

use serde::Deserialize;
use serde_json::Value;

use crate::bridge::decision_view::ExplainedDecision;
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
    line += &format!(", {}", super::output::pluralize(decision.alerts.len(), "alert"));
    if let Some(until) = &decision.until {
        line += &format!(", until {until}");
    }
    if let Some(detail) = &decision.detail {
        line += &format!(": {detail}");
    }
    super::output::escape_control_chars(&line)
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
