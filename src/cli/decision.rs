//! Decisions for people, one line each.

use serde_json::Value;

fn text<'a>(decision: &'a Value, key: &str) -> Option<&'a str> {
    decision.get(key).and_then(Value::as_str)
}

/// `emitted unschedulable-pods scale_out eks/nodegroup/-/-/-/-/workers, 3 alerts`, and when it is looked at
/// again and why.
pub fn line(decision: &Value) -> String {
    let words = ["verdict", "rule", "action", "subject"].map(|key| text(decision, key));
    let mut line = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if let Some(alerts) = decision.get("alerts").and_then(Value::as_array) {
        line += &format!(", {}", super::shell::count(alerts.len(), "alert"));
    }
    if let Some(until) = text(decision, "until") {
        line += &format!(", until {until}");
    }
    if let Some(detail) = text(decision, "detail") {
        line += &format!(": {detail}");
    }
    line
}
