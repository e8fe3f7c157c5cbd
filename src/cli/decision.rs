//! Decisions for people, one line each.

use serde_json::Value;

fn text<'a>(decision: &'a Value, key: &str) -> Option<&'a str> {
    decision.get(key).and_then(Value::as_str)
}

/// `+2`, `-25%` or `to 6`, of an event's adjustment.
fn amount(adjustment: &Value) -> Option<String> {
    let value = adjustment.get("value")?.as_i64()?;
    Some(match text(adjustment, "type")? {
        "ExactCapacity" => format!("to {value}"),
        "PercentChangeInCapacity" => format!("{value:+}%"),
        _ => format!("{value:+}"),
    })
}

/// `emitted unschedulable-pods scale_out eks/nodegroup/-/-/-/-/workers, 3 alerts`, and when it is looked at
/// again and why.
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

/// Fields of an event that say what it is about and not when it was made: where the same decision is made by
/// other rules, these tell what is different for whoever gets it.
pub(super) fn comparable_fields(decision: &Value) -> Value {
    let mut data = decision.pointer("/event/data").cloned().unwrap_or_default();
    if let Some(fields) = data.as_object_mut() {
        fields.shift_remove("episode");
    }
    let lasts = || {
        let at = |key: &str| {
            let text = decision.pointer("/event")?.get(key)?.as_str()?;
            crate::domain::time::Time::parse(text).ok()
        };
        Some(crate::domain::duration::format(at("expirytime")?.since(at("time")?)))
    };
    serde_json::json!({ "data": data, "expires_after": lasts() })
}
