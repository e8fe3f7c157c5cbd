//! Readers of sources.

use std::sync::Arc;
use std::time::Duration;

use super::decode::{Fields, check_not_empty, entries};
use super::diagnostic::{Code, Diagnostics};
use super::kinds::SourceKind;
use super::matchers::matchers;
use super::scalar::{any_text, duration, positive_duration};
use super::suggest::did_you_mean;
use super::yaml::Node;
use crate::domain::duration::format;
use crate::domain::labels::Labels;
use crate::domain::name::Name;
use crate::domain::source::{HeartbeatSettings, Source};

const DEFAULT_LATE_WINDOW: Duration = Duration::from_mins(6);
const DEFAULT_OCCURRENCE_TTL: Duration = Duration::from_hours(24);

/// Reads a source and its kind.
pub(super) fn source<S: SourceKind>(
    name: Name,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<(Source, S)> {
    let mut fields = Fields::from_node(node, "sources.*", diagnostics)?;
    let (_, default_kind) = S::KINDS.first()?;
    let kind = fields.get("kind", kind).unwrap_or(*default_kind);
    let labels = fields.get("labels", labels).unwrap_or_default();
    let heartbeat = fields.get("heartbeat", heartbeat);
    let late_window = fields.get("late_window", duration).unwrap_or(DEFAULT_LATE_WINDOW);
    let occurrence_ttl = fields.get("occurrence_ttl", positive_duration).unwrap_or(DEFAULT_OCCURRENCE_TTL);
    if occurrence_ttl <= late_window {
        let (ttl, late) = (format(occurrence_ttl), format(late_window));
        let location =
            fields.location_of(if fields.has("occurrence_ttl") { "occurrence_ttl" } else { "late_window" });
        fields.diagnostics.add_with_help(
            Code::Contradiction,
            location,
            format!("`occurrence_ttl` ({ttl}) is not longer than `late_window` ({late})"),
            "use an `occurrence_ttl` longer than `late_window` and Alertmanager's `repeat_interval`: otherwise an \
             alert expires before a late copy of it is evaluated",
        );
    }
    fields.finish();
    Some((
        Source {
            name,
            labels: Arc::new(labels),
            late_window,
            occurrence_ttl,
            heartbeat,
            ignore_labels: Vec::new(),
        },
        kind,
    ))
}

fn kind<S: SourceKind>(node: &Node, diagnostics: &mut Diagnostics) -> Option<S> {
    let text = any_text(node, diagnostics)?;
    let found = S::KINDS.iter().find(|(key, _)| *key == text).map(|(_, kind)| *kind);
    if found.is_none() {
        let known: Vec<&str> = S::KINDS.iter().map(|(key, _)| *key).collect();
        let message = format!("unknown kind `{text}`");
        diagnostics.add_with_help(Code::Value, &node.location, message, did_you_mean(text, &known));
    }
    found
}

/// A source with default settings.
pub(super) fn default_source(name: Name) -> Source {
    Source {
        name,
        labels: Arc::default(),
        late_window: DEFAULT_LATE_WINDOW,
        occurrence_ttl: DEFAULT_OCCURRENCE_TTL,
        heartbeat: None,
        ignore_labels: Vec::new(),
    }
}

/// Reads the matchers of a heartbeat. Rules never see alerts that match them, so they must not match every
/// alert.
fn heartbeat(node: &Node, diagnostics: &mut Diagnostics) -> Option<HeartbeatSettings> {
    const HEARTBEAT_HELP: &str =
        "name the alert that always fires: `heartbeat: ['alertname = \"Watchdog\"']`, or remove it";
    check_not_empty(node, HEARTBEAT_HELP, diagnostics);
    let matchers = matchers("Watchdog")(node, diagnostics)?;
    let no_labels = Labels::default();
    if !matchers.is_empty() && matchers.iter().all(|matcher| matcher.matches(&no_labels)) {
        let message =
            "heartbeat matches alerts without any labels, and rules never see alerts that match a heartbeat";
        diagnostics.add_with_help(Code::Contradiction, &node.location, message, HEARTBEAT_HELP);
    }
    Some(HeartbeatSettings::new(matchers))
}

fn labels(node: &Node, diagnostics: &mut Diagnostics) -> Option<Labels> {
    let mut labels = Labels::default();
    for (key, value) in entries(node, diagnostics)? {
        if key.name.is_empty() {
            diagnostics.add(Code::Value, &key.location, "label name must not be empty");
        }
        if let Some(text) = any_text(value, diagnostics) {
            labels.set(&key.name, text);
        }
    }
    Some(labels)
}
