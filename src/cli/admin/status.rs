//! `scalebridge status`, `scalebridge episodes` and `scalebridge reload`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{InitiatorArgs, Watch, cell, fetch_pages, list_cell, optional_cell, store};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::output::{Format, OutputArgs, print, print_json, table};
use crate::ops::api::{
    self, DeferredView, DestinationView, EpisodePage, EpisodeView, ListEpisodesParams, OwedView,
    ReceptionGapView, ReloadReport, SourceView, UnreadableRowView,
};

/// Show the status of a running bridge
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    output: OutputArgs,
}

impl Status {
    pub(crate) fn run(&self) -> ExitCode {
        let format = self.output.format;
        self.watch.show(format, || {
            let status: Raw<api::Status> = self.server.get("/api/v1/status", &())?;
            let destinations: Vec<Raw<DestinationView>> = self.server.get("/api/v1/destinations", &())?;
            let sources: Vec<Raw<SourceView>> = self.server.get("/api/v1/sources", &())?;
            match format {
                Format::Json => {
                    print_json(
                        &json!({ "status": status, "destinations": destinations, "sources": sources }),
                    );
                }
                Format::Text => {
                    let destinations = destinations.iter().map(|raw| destination_row(&raw.value));
                    let headers =
                        ["DESTINATION", "KIND", "PENDING", "RETRYING", "DEAD", "OLDEST (S)", "FAILING"];
                    let destinations = table(&headers, &destinations.collect::<Vec<_>>());
                    let now = &status.value.now;
                    let sources = sources.iter().map(|raw| source_row(&raw.value, now));
                    let headers = [
                        "SOURCE",
                        "HEARTBEAT",
                        "OPEN SINCE",
                        "IGNORED LABELS",
                        "LAST GAP",
                        "NO DECREASE BEFORE",
                    ];
                    let sources = table(&headers, &sources.collect::<Vec<_>>());
                    print(format!("{}\n{destinations}\n{sources}", summary(&status.value)));
                }
            }
            Ok(())
        })
    }
}

fn summary(status: &api::Status) -> String {
    let api::Status { version, phase, configuration, rules, sources, destinations, .. } = status;
    let mut shown = format!(
        "scalebridge {} is {}: {rules} rules, {sources} sources, {destinations} destinations; configuration loaded at {}\n",
        cell(version),
        cell(phase),
        cell(&configuration.loaded_at),
    );
    if let Some(error) = &configuration.last_error {
        shown += &format!("The last reload was REJECTED, the running configuration stays active:\n{error}\n");
    }
    if !configuration.needs_restart.is_empty() {
        shown +=
            &format!("Restart needed to apply changes to: {}\n", list_cell(&configuration.needs_restart));
    }
    shown += &format!("pauses: {}\n", status.pauses);
    shown += &format!("open episodes: {}\n", counts(&status.open_episodes));
    shown += &format!("deferred: {}\n", counts(&status.deferred));
    shown + &unreadable(&status.unreadable_rows)
}

/// What cannot be read, what follows from it, and how to end it.
fn unreadable(rows: &[UnreadableRowView]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut shown = format!("UNREADABLE STATES: {}\n", rows.len());
    for row in rows {
        let (since, error) = (cell(&row.since), cell(&row.error));
        shown += &format!("  {} (row #{}) since {since}: {error}\n", store::name(row), row.row);
    }
    shown
        + "Alerts about these targets get 503, and Alertmanager sends them again; deferred actions of these targets wait.\n\
           Everything else goes on. To give up a state: scalebridge store drop TARGET --reason TEXT\n"
}

fn counts<K: AsRef<str>>(counts: &BTreeMap<K, u64>) -> String {
    let counts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{} {count}", name.as_ref())).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn destination_row(destination: &DestinationView) -> Vec<String> {
    vec![
        cell(&destination.name),
        cell(&destination.kind),
        destination.pending.to_string(),
        destination.retrying.to_string(),
        destination.dead_letters.to_string(),
        format!("{:.1}", destination.oldest_seconds),
        condition_cell(destination),
    ]
}

/// Why a destination fails, or that it has nothing to deliver after its last call failed.
fn condition_cell(destination: &DestinationView) -> String {
    let DestinationView { failing, idle_since, last_error, .. } = destination;
    match (failing, last_error) {
        (None, Some(error)) => {
            let since = idle_since.as_ref().map_or_else(String::new, |since| format!(" since {since}"));
            cell(&format!("nothing to deliver{since}; last error: {error}"))
        }
        (failing, _) => optional_cell(failing.as_deref()),
    }
}

/// The matchers of the heartbeat and the settings beside them: `alertname="Watchdog", equal cluster, grace 15m`.
fn heartbeat_cell(source: &SourceView) -> String {
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

/// When the heartbeat opened. That it is not open is why nothing is decreased.
fn heartbeat_state_cell(source: &SourceView) -> String {
    match &source.heartbeat_open_since {
        Some(since) => cell(since),
        None if source.heartbeat.is_empty() => "-".to_owned(),
        None => "not open: no decrease".to_owned(),
    }
}

/// The time until which a gap blocks decreases is shown while it is not over. Both times have the same format, so they
/// are compared as text.
fn source_row(source: &SourceView, now: &str) -> Vec<String> {
    let last_gap = source.last_gap.as_ref();
    let shown = |gap: &ReceptionGapView| format!("{} until {}", gap.cause, cell(&gap.until));
    let blocking = last_gap.filter(|gap| gap.no_decrease_before.as_str() > now);
    vec![
        cell(&source.name),
        heartbeat_cell(source),
        heartbeat_state_cell(source),
        list_cell(&source.ignore_labels),
        last_gap.map_or_else(|| "-".to_owned(), shown),
        optional_cell(blocking.map(|gap| gap.no_decrease_before.as_str())),
    ]
}

/// Show open episodes and deferred actions
#[derive(Debug, Args)]
pub(crate) struct Episodes {
    #[command(flatten)]
    server: Server,
    /// Filter by rule
    #[arg(long)]
    rule: Option<String>,
    /// Filter by target key pattern; `*` matches any text
    #[arg(long, value_name = "PATTERN")]
    target: Option<String>,
    /// Only episodes of rules that owe a decrease on the target: what they have added and not taken back
    #[arg(long)]
    owing: bool,
    /// Maximum number of results
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    output: OutputArgs,
}

impl Episodes {
    pub(crate) fn run(&self) -> ExitCode {
        let format = self.output.format;
        self.watch.show(format, || {
            let episodes = fetch_pages(self.limit, |limit, cursor| {
                let (rule, target) = (self.rule.clone(), self.target.clone());
                let owing = Some(true).filter(|_| self.owing);
                let params = ListEpisodesParams { rule, target, owing, limit: Some(limit), cursor };
                let page: EpisodePage<Raw<EpisodeView>> = self.server.get("/api/v1/episodes", &params)?;
                Ok((page.episodes, page.next))
            })?;
            match format {
                Format::Json => print_json(&episodes),
                Format::Text => {
                    let headers =
                        ["RULE", "TARGET", "PHASE", "OPENED", "ALERTS", "EVENTS", "OWED", "DEFERRED"];
                    let rows: Vec<Vec<String>> =
                        episodes.iter().map(|episode| episode_row(&episode.value)).collect();
                    print(table(&headers, &rows));
                }
            }
            Ok(())
        })
    }
}

/// The number of increases that are not taken back, and their units if all of them have been added in units.
fn owed_cell(owed: &[OwedView]) -> String {
    let units: Option<i64> = owed.iter().map(|owed| owed.value).sum();
    match (owed.len(), units) {
        (0, _) => "-".to_owned(),
        (1, Some(units)) => format!("{units:+} in 1 event"),
        (events, Some(units)) => format!("{units:+} in {events} events"),
        (1, None) => "1 event".to_owned(),
        (events, None) => format!("{events} events"),
    }
}

fn episode_row(episode: &EpisodeView) -> Vec<String> {
    let deferred = |deferred: &DeferredView| {
        let (verdict, until) = (deferred.verdict.as_deref(), deferred.until.as_deref());
        // Without an end known in advance: on delivery, on resume, or when a control or an episode ends.
        let until = until.map_or_else(String::new, |until| format!(" until {}", cell(until)));
        optional_cell(verdict) + &until
    };
    vec![
        cell(&episode.rule),
        cell(&episode.subject),
        cell(&episode.phase),
        cell(&episode.opened_at),
        episode.alerts.len().to_string(),
        episode.emissions.to_string(),
        owed_cell(&episode.owed),
        episode.deferred.as_ref().map_or_else(|| "-".to_owned(), deferred),
    ]
}

/// Reload the configuration of a running bridge (atomic)
#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    initiator: InitiatorArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Reload {
    pub(crate) fn run(&self) -> ExitCode {
        let report: Result<Raw<ReloadReport>, ClientError> =
            self.server.post("/-/reload", &self.initiator.params(), b"");
        match (report, self.output.format) {
            (Ok(report), Format::Json) => print_json(&report),
            (Ok(report), Format::Text) => {
                let ReloadReport { changed, needs_restart, warnings } = report.value;
                let mut shown: String = changed.iter().map(|line| format!("{line}\n")).collect();
                if shown.is_empty() {
                    shown += "no changes\n";
                }
                for key in needs_restart {
                    shown += &format!("{key} changed, restart needed\n");
                }
                for warning in warnings {
                    shown += &format!("{warning}\n");
                }
                print(shown);
            }
            (Err(error), _) => return error.report(),
        }
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heartbeat_is_shown_with_the_settings_beside_it() {
        let source = |json: serde_json::Value| -> SourceView {
            let mut whole = json!({
                "name": "prod", "labels": {}, "heartbeat": [], "heartbeat_equal": [], "heartbeat_timeout": null,
                "heartbeat_grace": null, "ignore_labels": [], "heartbeat_open_since": null, "late_window": "6m",
                "occurrence_ttl": "1d",
            });
            for (key, value) in json.as_object().unwrap() {
                whole[key] = value.clone();
            }
            serde_json::from_value(whole).unwrap()
        };
        assert_eq!(heartbeat_cell(&source(json!({}))), "-");
        let shown = heartbeat_cell(&source(json!({
            "heartbeat": ["alertname=\"Watchdog\""], "heartbeat_equal": ["cluster", "prometheus"],
            "heartbeat_timeout": "11m", "heartbeat_grace": "0s",
        })));
        assert_eq!(shown, "alertname=\"Watchdog\", equal cluster prometheus, timeout 11m, grace 0s");
    }
}
