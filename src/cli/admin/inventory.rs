//! `scalebridge rules`, `scalebridge sources` and `scalebridge destinations`.

use std::process::ExitCode;

use clap::Args;
use serde::de::DeserializeOwned;

use super::{cell, list_cell, optional_cell};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::escape::escape_control_chars;
use crate::cli::output::{OutputArgs, pluralize, print_note};
use crate::cli::style::{Style, span};
use crate::ops::api::{
    ActionView, AlertmanagerView, DestinationView, QueueView, ReceptionGapView, RuleView, SourceView,
    SuppressedAlertView,
};

/// Show the rules in evaluation order, with their open episodes
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  What is paused, in shadow mode, or has open episodes?
    scalebridge rules
  The matchers and targets too
    scalebridge rules -o wide

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input")]
pub(crate) struct Rules {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: OutputArgs,
}

/// Show the sources: when each was last heard, its heartbeat, and its last reception gap
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  Is a source quiet?
    scalebridge sources

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input")]
pub(crate) struct Sources {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: OutputArgs,
}

/// Show the destinations with what they have not received
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  Does every destination work, and how far behind is it?
    scalebridge destinations

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input")]
pub(crate) struct Destinations {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: OutputArgs,
}

impl Rules {
    pub(crate) fn run(&self) -> ExitCode {
        list(&self.server, self.output, "/api/v1/rules", rules_table)
    }
}

impl Sources {
    pub(crate) fn run(&self) -> ExitCode {
        list(&self.server, self.output, "/api/v1/sources", sources_table)
    }
}

impl Destinations {
    pub(crate) fn run(&self) -> ExitCode {
        list(&self.server, self.output, "/api/v1/destinations", destinations_table)
    }
}

/// Prints a list of the API, as a table in text.
fn list<T: DeserializeOwned>(
    server: &Server,
    output: OutputArgs,
    path: &str,
    table: impl Fn(&Style, &[&T]) -> String,
) -> ExitCode {
    let found: Result<Vec<Raw<T>>, ClientError> = server.get(path, &());
    found.map_or_else(ClientError::report, |items| {
        output.print(&items, |style| table(style, &items.iter().map(|raw| &raw.value).collect::<Vec<_>>()));
        ExitCode::SUCCESS
    })
}

fn rules_table(style: &Style, rules: &[&RuleView]) -> String {
    if rules.is_empty() {
        print_note("no rules are configured");
        return String::new();
    }
    let mut headers = vec!["RULE", "MODE", "ON FIRING", "ON RESOLVED", "OPEN", "SEND TO"];
    if style.is_wide() {
        headers.extend(["SOURCES", "MATCHERS", "TARGET"]);
    }
    let row = |rule: &&RuleView| {
        let holds = format!("hold {}", list_cell_of(rule.holds.iter().map(AsRef::as_ref)));
        let firing = if rule.holds.is_empty() { action_cell(rule.on_firing.as_ref()) } else { holds };
        let mut row = vec![
            cell(&rule.name),
            cell(&rule.mode),
            firing,
            action_cell(rule.on_resolved.as_ref()),
            rule.open_episodes.to_string(),
            list_cell(&rule.send_to),
        ];
        if style.is_wide() {
            let fields = rule.target.iter().map(|(name, value)| format!("{name}={value}"));
            row.extend([
                rule.sources.as_deref().map_or_else(|| "all".to_owned(), list_cell),
                cell(&rule.matchers.join(", ")),
                cell(&fields.collect::<Vec<_>>().join(" ")),
            ]);
        }
        row
    };
    style.table(&headers, &rules.iter().map(row).collect::<Vec<_>>())
}

pub(super) fn list_cell_of<'a>(items: impl Iterator<Item = &'a str>) -> String {
    list_cell(&items.map(str::to_owned).collect::<Vec<_>>())
}

/// `scale_out 2`.
fn action_cell(action: Option<&ActionView>) -> String {
    action.map_or_else(
        || "-".to_owned(),
        |ActionView { action, amount, .. }| match &**amount {
            "none" => cell(action),
            amount => cell(&format!("{action} {amount}")),
        },
    )
}

pub(super) fn sources_table(style: &Style, sources: &[&SourceView]) -> String {
    let mut headers =
        vec!["SOURCE", "LAST NOTIFICATION", "HEARTBEAT", "LAST RECEPTION GAP", "NO DECREASE BEFORE"];
    let has_alertmanagers = sources.iter().any(|source| source.alertmanager.is_some());
    if has_alertmanagers {
        headers.push("ALERTMANAGER");
    }
    let has_queues = sources.iter().any(|source| source.queue.is_some());
    if has_queues {
        headers.push("QUEUE");
    }
    if style.is_wide() {
        headers.extend([
            "KIND",
            "CREDENTIALS",
            "HEARTBEAT SETTINGS",
            "LATE WINDOW",
            "OCCURRENCE TTL",
            "IGNORED LABELS",
        ]);
        if has_queues {
            headers.push("QUEUE ADDRESS");
        }
    }
    let row = |source: &&SourceView| {
        let gap = source.last_gap.as_ref();
        let shown = |gap: &ReceptionGapView| format!("{} until {}", gap.cause, style.time(&gap.until));
        let blocking = gap.filter(|gap| !style.is_past(&gap.no_decrease_before));
        let heard = source.last_notification_at.as_deref();
        let mut row = vec![
            cell(&source.name),
            heard.map_or_else(|| "none known".to_owned(), |at| style.time(at)),
            heartbeat_cell(style, source),
            gap.map_or_else(|| "-".to_owned(), shown),
            style.optional_time(blocking.map(|gap| gap.no_decrease_before.as_str())),
        ];
        if has_alertmanagers {
            row.push(alertmanager_cell(style, source.alertmanager.as_ref()));
        }
        if has_queues {
            row.push(queue_cell(source.queue.as_ref()));
        }
        if style.is_wide() {
            row.extend([
                cell(&source.kind),
                list_cell_of(source.auth.iter().map(AsRef::as_ref)),
                heartbeat_settings(source),
                cell(&source.late_window),
                cell(&source.occurrence_ttl),
                list_cell(&source.ignore_labels),
            ]);
            if has_queues {
                row.push(optional_cell(source.queue.as_ref().map(|queue| queue.address.as_str())));
            }
        }
        row
    };
    let table = style.table(&headers, &sources.iter().map(row).collect::<Vec<_>>());
    table + &sources.iter().map(|source| suppressed_lines(source)).collect::<String>()
}

/// When Alertmanager has answered last, and of how many alerts it notifies nobody; what went wrong, if something did.
fn alertmanager_cell(style: &Style, alertmanager: Option<&AlertmanagerView>) -> String {
    let Some(AlertmanagerView { last_success, last_error, suppressed_total, .. }) = alertmanager else {
        return "-".to_owned();
    };
    let mut parts = vec![match last_success {
        Some(at) => format!("answered {}", style.time(at)),
        None => "has not answered".to_owned(),
    }];
    if *suppressed_total > 0 {
        parts.push(format!(
            "{} suppressed",
            pluralize(usize::try_from(*suppressed_total).unwrap_or(usize::MAX), "alert")
        ));
    }
    parts.extend(last_error.as_ref().map(|error| format!("ERROR: {}", cell(error))));
    parts.join(", ")
}

/// The suppressed alerts of a source that are listed.
const MAX_SUPPRESSED_LINES: usize = 20;

/// A line for each alert that fires and of which Alertmanager notifies nobody.
fn suppressed_lines(source: &SourceView) -> String {
    let Some(AlertmanagerView { suppressed, suppressed_total, .. }) = &source.alertmanager else {
        return String::new();
    };
    let line = |alert: &SuppressedAlertView| {
        let labels = alert.labels.iter().map(|(name, value)| format!("{name}={value:?}"));
        let why: Vec<String> = alert.suppressed_by.iter().map(ToString::to_string).collect();
        let text = format!("{} {}: {}", source.name, labels.collect::<Vec<_>>().join(" "), why.join(", "));
        escape_control_chars(&text) + "\n"
    };
    let mut lines: String = suppressed.iter().take(MAX_SUPPRESSED_LINES).map(line).collect();
    let shown = suppressed.len().min(MAX_SUPPRESSED_LINES) as u64;
    if *suppressed_total > shown {
        lines += &format!("{} and {} more suppressed alerts\n", source.name, suppressed_total - shown);
    }
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// Whether the queue is read.
fn queue_cell(queue: Option<&QueueView>) -> String {
    match queue {
        None => "-".to_owned(),
        Some(QueueView { last_error: Some(error), .. }) => cell(&format!("NOT READ: {error}")),
        Some(QueueView { is_current: false, .. }) => "not read completely yet: no decrease".to_owned(),
        Some(_) => "read".to_owned(),
    }
}

/// Whether the heartbeat is open, and since when.
fn heartbeat_cell(style: &Style, source: &SourceView) -> String {
    let SourceView { heartbeat, heartbeat_open_since, heartbeat_ended_at, .. } = source;
    match (heartbeat.is_empty(), heartbeat_open_since, heartbeat_ended_at) {
        (true, ..) => "-".to_owned(),
        (false, Some(since), _) => format!("open since {}", style.time(since)),
        (false, None, Some(ended)) => format!("NOT OPEN since {}: no decrease", style.time(ended)),
        (false, None, None) => "NOT OPEN, never heard: no decrease".to_owned(),
    }
}

/// The matchers of the heartbeat and the settings beside them: `alertname="Watchdog", equal cluster, grace 15m`.
fn heartbeat_settings(source: &SourceView) -> String {
    let mut shown = list_cell(&source.heartbeat);
    if !source.heartbeat_equal.is_empty() {
        shown += &format!(", equal {}", list_cell(&source.heartbeat_equal));
    }
    for (name, length) in [("timeout", &source.heartbeat_timeout), ("grace", &source.heartbeat_grace)] {
        if let Some(length) = length {
            shown += &format!(", {name} {}", cell(length));
        }
    }
    shown
}

pub(super) fn destinations_table(style: &Style, destinations: &[&DestinationView]) -> String {
    // The other columns are about the fleet.
    let replica = destinations.iter().find_map(|destination| destination.replica.as_deref());
    let failing = replica.map_or_else(|| "FAILING".to_owned(), |name| format!("FAILING AT {}", cell(name)));
    let mut headers = vec!["DESTINATION", "KIND", "PENDING", "RETRYING", "DEAD", "OLDEST", &failing];
    if style.is_wide() {
        headers.push("ADDRESS");
    }
    let row = |destination: &&DestinationView| {
        let mut row = vec![
            cell(&destination.name),
            cell(&destination.kind),
            destination.pending.to_string(),
            destination.retrying.to_string(),
            destination.dead_letters.to_string(),
            oldest_cell(destination),
            condition_cell(style, destination),
        ];
        if style.is_wide() {
            row.push(cell(&destination.address));
        }
        row
    };
    style.table(&headers, &destinations.iter().map(row).collect::<Vec<_>>())
}

/// The age of the oldest delivery that is not settled.
fn oldest_cell(destination: &DestinationView) -> String {
    match destination.pending + destination.retrying {
        0 => "-".to_owned(),
        // Not negative, and far below the limit.
        _ => span(destination.oldest_seconds as u64),
    }
}

/// Why a destination fails, or that it has nothing to deliver after its last call failed.
fn condition_cell(style: &Style, destination: &DestinationView) -> String {
    let DestinationView { failing, idle_since, last_error, .. } = destination;
    match (failing, last_error) {
        (None, Some(error)) => {
            let since =
                idle_since.as_ref().map_or_else(String::new, |since| format!(" since {}", style.time(since)));
            cell(&format!("nothing to deliver{since}; last error: {error}"))
        }
        (failing, _) => optional_cell(failing.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::style::tests::terminal;

    fn source(json: serde_json::Value) -> SourceView {
        let mut whole = json!({
            "name": "prod", "labels": {}, "heartbeat": [], "heartbeat_equal": [], "heartbeat_timeout": null,
            "heartbeat_grace": null, "ignore_labels": [], "heartbeat_open_since": null, "late_window": "6m",
            "occurrence_ttl": "1d",
        });
        for (key, value) in json.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn the_heartbeat_is_shown_with_the_settings_beside_it() {
        assert_eq!(heartbeat_settings(&source(json!({}))), "-");
        let shown = heartbeat_settings(&source(json!({
            "heartbeat": ["alertname=\"Watchdog\""], "heartbeat_equal": ["cluster", "prometheus"],
            "heartbeat_timeout": "11m", "heartbeat_grace": "0s",
        })));
        assert_eq!(shown, "alertname=\"Watchdog\", equal cluster prometheus, timeout 11m, grace 0s");
    }

    #[test]
    fn a_quiet_source_is_seen() {
        let heartbeat = json!(["alertname=\"Watchdog\""]);
        let sources = [
            source(json!({ "name": "lab" })),
            source(json!({
                "name": "prod", "heartbeat": heartbeat, "last_notification_at": "2026-11-29T00:29:30Z",
                "heartbeat_open_since": "2026-11-28T00:00:00Z",
            })),
            source(json!({
                "name": "quiet", "heartbeat": heartbeat, "last_notification_at": "2026-11-28T22:00:00Z",
                "heartbeat_ended_at": "2026-11-28T22:11:00Z",
                "last_gap": { "from": "2026-11-29T00:20:00Z", "until": "2026-11-29T00:28:00Z", "cause": "not_running",
                    "no_decrease_before": "2026-11-29T00:34:00Z" },
            })),
        ];
        let sources: Vec<&SourceView> = sources.iter().collect();
        insta::assert_snapshot!(sources_table(&terminal(140), &sources), @r"
        SOURCE  LAST NOTIFICATION      HEARTBEAT                                          LAST RECEPTION GAP                   NO DECREASE BEFORE
        lab     none known             -                                                  -                                    -
        prod    02:29:30 (30s ago)     open since 2026-11-28 02:00:00 (1d ago)            -                                    -
        quiet   00:00:00 (2h 30m ago)  NOT OPEN since 00:11:00 (2h 19m ago): no decrease  not_running until 02:28:00 (2m ago)  02:34:00 (in 4m)
        ");
    }

    #[test]
    fn a_destination_says_how_far_behind_it_is() {
        let destination =
            |json: serde_json::Value| -> DestinationView { serde_json::from_value(json).unwrap() };
        let destinations = [
            destination(json!({ "name": "queue", "kind": "sqs", "address": "https://queue", "pending": 2,
                "retrying": 5, "dead_letters": 1, "oldest_seconds": 754.2, "failing": "throttled" })),
            destination(
                json!({ "name": "journal", "kind": "file", "address": "-", "pending": 0, "retrying": 0,
                "dead_letters": 0, "oldest_seconds": 0.0 }),
            ),
        ];
        let destinations: Vec<&DestinationView> = destinations.iter().collect();
        insta::assert_snapshot!(destinations_table(&terminal(80), &destinations), @r"
        DESTINATION  KIND  PENDING  RETRYING  DEAD  OLDEST  FAILING
        queue        sqs   2        5         1     12m     throttled
        journal      file  0        0         0     -       -
        ");
        let of_fleet =
            destination(json!({ "name": "queue", "kind": "sqs", "address": "https://queue", "pending": 2,
            "retrying": 0, "dead_letters": 0, "oldest_seconds": 3.0, "replica": "bridge-1" }));
        insta::assert_snapshot!(destinations_table(&terminal(80), &[&of_fleet]), @r"
        DESTINATION  KIND  PENDING  RETRYING  DEAD  OLDEST  FAILING AT bridge-1
        queue        sqs   2        0         0     3s      -
        ");
    }
}
