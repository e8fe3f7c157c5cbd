//! Readers of sources.

use std::sync::Arc;
use std::time::Duration;

use super::access::{SourceAuthDraft, source_auth};
use super::alertmanager_api;
use super::decode::{Fields, check_not_empty, distinct, entries};
use super::diagnostic::{Code, Diagnostics};
use super::kinds::{OwnSettings, SourceKind, SourceRow};
use super::matchers::matchers;
use super::names::names;
use super::scalar::{any_text, duration, owned_text, positive_duration, text};
use super::settings::AlertmanagerApi;
use super::suggest::did_you_mean;
use super::yaml::{Kind, Node};
use crate::domain::duration::format;
use crate::domain::labels::Labels;
use crate::domain::matcher::{Matcher, possible_values};
use crate::domain::name::Name;
use crate::domain::source::{HeartbeatSettings, Source, SourcePermissions};
use crate::domain::target_pattern::TargetPattern;

const DEFAULT_LATE_WINDOW: Duration = Duration::from_mins(6);

/// Reads a source, its kind and its credentials.
pub(super) fn source<S: SourceKind>(
    name: Name,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<(Source, S, SourceAuthDraft, Option<AlertmanagerApi>)> {
    let mut fields = Fields::from_node(node, "sources.*", diagnostics)?;
    let row = if fields.has("kind") { fields.get("kind", kind::<S>) } else { Some(default_kind()) };
    let kind = kind_settings(row, &mut fields);
    let default_ttl = row.unwrap_or(default_kind()).default_occurrence_ttl;
    if fields.has("auth") && kind.as_ref().is_some_and(SourceKind::is_polled) {
        let message = "`auth` has no effect: the bridge fetches the notifications of this source, and accepts no requests";
        let (location, help) =
            (fields.location_of("auth"), "remove it; the policy of the queue grants access");
        fields.diagnostics.add_with_help(Code::NoEffect, location, message, help);
    }
    let auth = fields.get("auth", source_auth).unwrap_or_default();
    let labels = fields.get("labels", labels).unwrap_or_default();
    let heartbeat = heartbeat_settings(&mut fields);
    if let Some(heartbeat) = &heartbeat {
        check_heartbeat_can_match(&heartbeat.matchers, &labels, &mut fields);
    }
    let ignore_labels = fields.get("ignore_labels", ignore_labels).unwrap_or_default();
    let late_window = fields.get("late_window", duration).unwrap_or(DEFAULT_LATE_WINDOW);
    let occurrence_ttl = fields.get("occurrence_ttl", positive_duration).unwrap_or(default_ttl);
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
    let api = alertmanager_api::of_source::<S>(row.map_or("", |row| row.key), &mut fields);
    let permissions = permissions(&mut fields);
    fields.finish();
    let labels = Arc::new(labels);
    Some((
        Source {
            name,
            labels,
            late_window,
            occurrence_ttl,
            heartbeat,
            ignore_labels,
            permissions: permissions?,
        },
        kind?,
        auth,
        api,
    ))
}

/// The kind of a source that does not name one.
fn default_kind<S: SourceKind>() -> &'static SourceRow<S> {
    const { &S::KINDS[0] }
}

fn kind<S: SourceKind>(node: &Node, diagnostics: &mut Diagnostics) -> Option<&'static SourceRow<S>> {
    let text = any_text(node, diagnostics)?;
    let found = S::KINDS.iter().find(|row| row.key == text);
    if found.is_none() {
        let known: Vec<&str> = S::KINDS.iter().map(|row| row.key).collect();
        let message = format!("unknown kind `{text}`");
        diagnostics.add_with_help(Code::Value, &node.location, message, did_you_mean(text, &known));
    }
    found
}

/// Reads the settings that only the kind of `row` has, and rejects those of other kinds. Without a kind, any of them may
/// be meant.
fn kind_settings<S: SourceKind>(
    row: Option<&'static SourceRow<S>>,
    fields: &mut Fields<'_, '_>,
) -> Option<S> {
    for other in S::KINDS.iter().filter(|other| matches!(other.settings, OwnSettings::Required(_))) {
        match row {
            Some(row) if row.key != other.key => {
                let why = format!("is for sources of another kind; this one is of kind {}", row.key);
                let help = format!("set `kind: {}`, or remove it", other.key);
                fields.reject(&[other.key], &why, &help);
            }
            Some(_) => {}
            None => drop(fields.lookup(other.key)),
        }
    }
    match &row?.settings {
        OwnSettings::None(kind) => Some(kind.clone()),
        OwnSettings::Required(own) => fields.get_required(row?.key, own.example, own.read),
    }
}

/// A source of the default kind with default settings.
pub(super) fn default_source<S: SourceKind>(name: Name) -> Source {
    Source {
        name,
        labels: Arc::default(),
        late_window: DEFAULT_LATE_WINDOW,
        occurrence_ttl: default_kind::<S>().default_occurrence_ttl,
        heartbeat: None,
        ignore_labels: Vec::new(),
        permissions: SourcePermissions::default(),
    }
}

/// Reads which rules and targets the alerts of the source may reach. `None` if a list is invalid: without it they could
/// reach more.
fn permissions(fields: &mut Fields<'_, '_>) -> Option<SourcePermissions> {
    let rules = fields.get("rules", |node, diagnostics| {
        let help = "name the rules that see the alerts of this source, or remove `rules` to allow all";
        check_not_empty(node, help, diagnostics);
        names(node, diagnostics)
    });
    let targets = fields.get("targets", |node, diagnostics| {
        let help = "name the targets that alerts of this source can be about, for example `targets: \
                    ['*/*/*/*/prod-eu/*/*']`, or remove `targets` to allow all";
        check_not_empty(node, help, diagnostics);
        distinct(target_pattern)(node, diagnostics)
    });
    if (rules.is_none() && fields.has("rules")) || (targets.is_none() && fields.has("targets")) {
        return None;
    }
    let rules = rules.map(|names| names.into_iter().map(|name| name.value).collect());
    let targets = targets.map(|patterns| patterns.into_iter().map(|pattern| pattern.value).collect());
    Some(SourcePermissions { rules, targets })
}

/// Reads a pattern for targets as operators write it.
pub(super) fn target_pattern(node: &Node, diagnostics: &mut Diagnostics) -> Option<TargetPattern> {
    let pattern = TargetPattern::from_operator(text(node, diagnostics)?);
    if pattern.is_none() {
        let message = format!("pattern is longer than {} bytes", TargetPattern::MAX_BYTES);
        diagnostics.add(Code::Range, &node.location, message);
    }
    pattern
}

const HEARTBEAT_EXAMPLE: &str = "`heartbeat: ['alertname = \"Watchdog\"']`";

/// Reads the heartbeat and the settings beside it.
fn heartbeat_settings(fields: &mut Fields<'_, '_>) -> Option<HeartbeatSettings> {
    let heartbeat = fields.get("heartbeat", heartbeat);
    let timeout = fields.get("heartbeat_timeout", positive_duration);
    let grace = fields.get("heartbeat_grace", duration);
    if !fields.has("heartbeat") {
        let help = format!("add {HEARTBEAT_EXAMPLE}, or remove the key");
        fields.reject(&["heartbeat_timeout", "heartbeat_grace"], "requires `heartbeat`", &help);
    }
    let (matchers, equal) = heartbeat?;
    let grace = grace.unwrap_or(HeartbeatSettings::DEFAULT_GRACE);
    Some(HeartbeatSettings { equal, timeout, grace, ..HeartbeatSettings::new(matchers) })
}

/// Reports matchers of a heartbeat that no alert of the source satisfies: then the heartbeat never opens, and the
/// source decreases nothing.
fn check_heartbeat_can_match(matchers: &[Matcher], labels: &Labels, fields: &mut Fields<'_, '_>) {
    let fixed = |label: &str| Some(labels.get(label)).filter(|value| !value.is_empty());
    let impossible = matchers
        .iter()
        .map(Matcher::label)
        .find(|label| possible_values(label, matchers, fixed(label)).is_some_and(|values| values.is_empty()));
    let Some(label) = impossible else { return };
    let own: Vec<String> =
        matchers.iter().filter(|it| it.label() == label).map(|it| format!("`{it}`")).collect();
    let message = match fixed(label) {
        Some(value) => format!(
            "the heartbeat never matches: {} contradicts the source's label `{label}: {value}`",
            own.join(" and ")
        ),
        None => format!("the heartbeat never matches: {} contradict each other", own.join(" and ")),
    };
    let help = "remove one of them: without its heartbeat a source decreases nothing";
    let location = fields.location_of("heartbeat");
    fields.diagnostics.add_with_help(Code::Contradiction, location, message, help);
}

/// Reads a heartbeat: its matchers, and the labels that tell several heartbeats of a source apart.
fn heartbeat(node: &Node, diagnostics: &mut Diagnostics) -> Option<(Vec<Matcher>, Vec<String>)> {
    if !matches!(node.kind, Kind::Map(_)) {
        return Some((heartbeat_matchers(node, diagnostics)?, Vec::new()));
    }
    let mut fields = Fields::from_node(node, "sources.*.heartbeat", diagnostics)?;
    let example = "matchers: ['alertname = \"Watchdog\"']";
    let matchers = fields.get_required("matchers", example, heartbeat_matchers);
    let equal = fields.get("equal", |node, diagnostics| {
        let help = "name the labels whose values tell the heartbeats of this source apart, for example \
                    `equal: [cluster]`, or remove `equal`";
        let why = "has another value in the heartbeat than in other alerts";
        label_names(node, help, why, diagnostics)
    });
    fields.finish();
    Some((matchers?, equal.unwrap_or_default()))
}

/// Reads the matchers of a heartbeat. Rules never see alerts that match them, so they must not match every
/// alert.
fn heartbeat_matchers(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<Matcher>> {
    let help = format!("name the alert that always fires: {HEARTBEAT_EXAMPLE}, or remove it");
    // The name of the alert, where a list of matchers is wanted.
    if let Kind::Text(name) = &node.kind
        && Matcher::parse_list(name).is_err()
    {
        let help = format!("use a list of matchers: `['alertname = \"{name}\"']`");
        diagnostics.add_with_help(
            Code::Type,
            &node.location,
            format!("expected a list, found the text `{name}`"),
            help,
        );
        return None;
    }
    check_not_empty(node, &help, diagnostics);
    let matchers = matchers("Watchdog")(node, diagnostics)?;
    let no_labels = Labels::default();
    if !matchers.is_empty() && matchers.iter().all(|matcher| matcher.matches(&no_labels)) {
        let message =
            "heartbeat matches alerts without any labels, and rules never see alerts that match a heartbeat";
        diagnostics.add_with_help(Code::Contradiction, &node.location, message, help);
    }
    Some(matchers)
}

/// Reads the labels in which the copies of one alert differ.
fn ignore_labels(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<String>> {
    let help = "name the labels in which the copies of an alert differ, for example `ignore_labels: [replica]`, or \
                remove `ignore_labels`";
    label_names(node, help, "tells alerts apart that are not copies of one another", diagnostics)
}

/// Reads a list of label names, which must not be empty. `why_not_alertname` completes the sentence that begins with
/// `alertname`, which must not be in it.
fn label_names(
    node: &Node,
    help: &str,
    why_not_alertname: &str,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<String>> {
    check_not_empty(node, help, diagnostics);
    let names = distinct(owned_text)(node, diagnostics)?;
    for name in names.iter().filter(|name| name.value == "alertname") {
        let message = format!("`alertname` {why_not_alertname}");
        diagnostics.add_with_help(Code::Contradiction, &name.location, message, help);
    }
    Some(names.into_iter().map(|name| name.value).collect())
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
