//! One-line summaries of decisions, and their comparison.

use serde_json::Value;

fn text<'a>(decision: &'a Value, key: &str) -> Option<&'a str> {
    decision.get(key).and_then(Value::as_str)
}

/// Formats an event's adjustment as `+2`, `-25%` or `to 6`.
fn amount(adjustment: &Value) -> Option<String> {
    let value = adjustment.get("value")?.as_i64()?;
    Some(match text(adjustment, "type")? {
        "ExactCapacity" => format!("to {value}"),
        "PercentChangeInCapacity" => format!("{value:+}%"),
        _ => format!("{value:+}"),
    })
}

/// `emitted unschedulable-pods scale_out +2 eks/nodegroup/-/-/-/-/workers, 3 alerts`, followed by the time of the
/// re-evaluation and the detail, if there are any.
pub(super) fn summary_line(decision: &Value) -> String {
    let mut words: Vec<String> = ["verdict", "rule", "action"]
        .into_iter()
        .filter_map(|key| text(decision, key).map(ToOwned::to_owned))
        .collect();
    words.extend(decision.pointer("/event/data/adjustment").and_then(amount));
    words.extend(text(decision, "subject").map(ToOwned::to_owned));
    let mut line = words.join(" ");
    if let Some(alerts) = decision.get("alerts").and_then(Value::as_array) {
        line += &format!(", {}", super::output::pluralize(alerts.len(), "alert"));
    }
    if let Some(until) = text(decision, "until") {
        line += &format!(", until {until}");
    }
    if let Some(detail) = text(decision, "detail") {
        line += &format!(": {detail}");
    }
    super::output::escape_control_chars(&line)
}

/// The fields of an event that do not depend on when it was emitted: if two rule tables make the same decision, these
/// show whether its consumers would receive something different.
pub(super) fn comparable_fields(decision: &Value) -> Value {
    let mut data = decision.pointer("/event/data").cloned().unwrap_or_default();
    if let Some(fields) = data.as_object_mut() {
        fields.shift_remove("episode");
    }
    let lifetime = || {
        let at = |key: &str| {
            let text = decision.pointer("/event")?.get(key)?.as_str()?;
            crate::domain::time::Time::parse(text).ok()
        };
        Some(crate::domain::duration::format(at("expirytime")?.since(at("time")?)))
    };
    serde_json::json!({ "data": data, "expires_after": lifetime() })
}
