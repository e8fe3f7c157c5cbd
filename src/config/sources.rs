//! Senders of notifications.

use std::sync::Arc;
use std::time::Duration;

use super::decode::{Fields, entries, not_empty};
use super::diagnostic::{Code, Diagnostics};
use super::matchers::matchers;
use super::scalar::{any_text, duration, time};
use super::yaml::Node;
use crate::domain::duration::format;
use crate::domain::labels::Labels;
use crate::domain::matcher::Matcher;
use crate::domain::name::Name;
use crate::domain::source::Source;

const LATE_WINDOW: Duration = Duration::from_mins(6);
const OCCURRENCE_TTL: Duration = Duration::from_hours(24);

pub(super) fn source(name: Name, node: &Node, faults: &mut Diagnostics) -> Option<Source> {
    let mut fields = Fields::of(node, "sources.*", faults)?;
    let labels = fields.get("labels", labels).unwrap_or_default();
    let heartbeat = fields.get("heartbeat", heartbeat).unwrap_or_default();
    let late_window = fields.get("late_window", duration).unwrap_or(LATE_WINDOW);
    let occurrence_ttl = fields.get("occurrence_ttl", time).unwrap_or(OCCURRENCE_TTL);
    if occurrence_ttl <= late_window {
        let (ttl, late) = (format(occurrence_ttl), format(late_window));
        let place =
            fields.place_of(if fields.has("occurrence_ttl") { "occurrence_ttl" } else { "late_window" });
        fields.faults.help(
            Code::Contradiction,
            place,
            format!("`occurrence_ttl` ({ttl}) is not above `late_window` ({late})"),
            "an alert would be forgotten before its late copy is judged: take an `occurrence_ttl` longer than \
             Alertmanager's repeat_interval",
        );
    }
    fields.finish();
    Some(Source { name, labels: Arc::new(labels), late_window, occurrence_ttl, heartbeat })
}

/// A source of which nothing is said.
pub(super) fn plain(name: Name) -> Source {
    Source {
        name,
        labels: Arc::default(),
        late_window: LATE_WINDOW,
        occurrence_ttl: OCCURRENCE_TTL,
        heartbeat: Vec::new(),
    }
}

/// The matchers of one alert. Rules never see a heartbeat, so it must not be any alert.
fn heartbeat(node: &Node, faults: &mut Diagnostics) -> Option<Vec<Matcher>> {
    const ONE: &str =
        "name the alert that always fires: `heartbeat: ['alertname = \"Watchdog\"']`, or leave it out";
    not_empty(node, ONE, faults);
    let matchers = matchers("Watchdog")(node, faults)?;
    let anything = Labels::default();
    if !matchers.is_empty() && matchers.iter().all(|matcher| matcher.matches(&anything)) {
        let message =
            "these matchers hold for an alert without any label too, and rules do not see a heartbeat";
        faults.help(Code::Contradiction, &node.place, message, ONE);
    }
    Some(matchers)
}

fn labels(node: &Node, faults: &mut Diagnostics) -> Option<Labels> {
    let mut labels = Labels::default();
    for (key, value) in entries(node, faults)? {
        if key.name.is_empty() {
            faults.add(Code::Value, &key.place, "a label's name must not be empty");
        }
        if let Some(text) = any_text(value, faults) {
            labels.set(&key.name, text);
        }
    }
    Some(labels)
}
