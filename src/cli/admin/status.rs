//! `scalebridge status`, `scalebridge episodes` and `scalebridge reload`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::inventory::{destinations_table, sources_table};
use super::replicas::{fleet_heading, replicas_table};
use super::{InitiatorArgs, Watch, cell, fetch_pages, list_cell, store};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::decision::{covered, end_of};
use crate::cli::output::{OutputArgs, pluralize, print_note};
use crate::cli::style::{Style, Tone};
use crate::ops::api::{
    self, DeferredView, DestinationView, EpisodePage, EpisodeView, HoldView, ListEpisodesParams, OwedView,
    ReloadReport, SourceView, UnreadableRowView,
};

/// Show the status of a running bridge
#[derive(Debug, Args)]
#[command(after_long_help = STATUS_EXAMPLES)]
pub(crate) struct Status {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    output: OutputArgs,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  Is the bridge healthy, and how far behind is it?
    scalebridge status
  Follow a deployment
    scalebridge status --watch

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input";

impl Status {
    pub(crate) fn run(&self) -> ExitCode {
        self.watch.show(self.output.format, || {
            let status: Raw<api::Status> = self.server.get("/api/v1/status", &())?;
            let destinations: Vec<Raw<DestinationView>> = self.server.get("/api/v1/destinations", &())?;
            let sources: Vec<Raw<SourceView>> = self.server.get("/api/v1/sources", &())?;
            let all = json!({ "status": status, "destinations": destinations, "sources": sources });
            self.output.print(&all, |style| {
                let destinations: Vec<&DestinationView> = destinations.iter().map(|raw| &raw.value).collect();
                let sources: Vec<&SourceView> = sources.iter().map(|raw| &raw.value).collect();
                let destinations = destinations_table(style, &destinations);
                let sources = sources_table(style, &sources);
                format!("{}\n{destinations}\n{sources}", summary(style, &status.value))
            });
            Ok(())
        })
    }
}

fn summary(style: &Style, status: &api::Status) -> String {
    let api::Status { version, phase, configuration, rules, sources, destinations, failing, .. } = status;
    let health = match (&**phase, failing.len(), &configuration.last_error) {
        ("ready", ..) if status.refusing.is_some() => style.paint(Tone::Bad, "not ready"),
        ("ready", 0, None) => style.paint(Tone::Good, "ready"),
        ("ready", failing, None) => {
            style.paint(Tone::Bad, &format!("ready, {} failing", pluralize(failing, "destination")))
        }
        ("ready", _, Some(_)) => style.paint(Tone::Bad, "ready, with an old configuration"),
        (phase, ..) => style.paint(Tone::Blocked, &cell(phase)),
    };
    let mut shown =
        format!("{} {health}\n", style.paint(Tone::Strong, &format!("scalebridge {}", cell(version))));
    let loaded = (
        "configuration",
        format!(
            "{}, {}, {}, loaded {}",
            pluralize(*rules, "rule"),
            pluralize(*sources, "source"),
            pluralize(*destinations, "destination"),
            style.time(&configuration.loaded_at)
        ),
    );
    let of_store = [
        ("undelivered events", status.undelivered.to_string()),
        ("pauses", status.pauses.to_string()),
        ("holds", holds(style, &status.holds)),
        ("open episodes", counts(&status.open_episodes)),
        ("deferred", counts(&status.deferred)),
    ];
    shown += &match &status.fleet {
        None => style.fields(&[&[loaded], &of_store[..]].concat()),
        Some(fleet) => {
            let replica = fleet.replicas.iter().find(|replica| replica.answers);
            let name = replica.map(|replica| cell(&replica.name)).unwrap_or_default();
            let own = style.fields(&[("replica", name), loaded]);
            format!("{own}{}{}", fleet_heading(style, fleet), style.fields(&of_store))
        }
    };
    if let Some(refusing) = &status.refusing {
        shown += &format!("Notifications are REFUSED: {}\n", cell(refusing));
    }
    if let Some(error) = &configuration.last_error {
        shown += &format!("The last reload was REJECTED, the running configuration stays active:\n{error}\n");
    }
    if !configuration.needs_restart.is_empty() {
        shown +=
            &format!("Restart needed to apply changes to: {}\n", list_cell(&configuration.needs_restart));
    }
    shown += &(unreadable_credentials(&status.auth_errors) + &unreadable(&status.unreadable_rows));
    match &status.fleet {
        None => shown,
        Some(fleet) => format!("{shown}\n{}", replicas_table(style, &fleet.replicas)),
    }
}

/// Which of the bridge's own secrets cannot be read.
fn unreadable_credentials(errors: &BTreeMap<String, String>) -> String {
    if errors.is_empty() {
        return String::new();
    }
    let lines: String =
        errors.iter().map(|(at, error)| format!("  {}: {}\n", cell(at), cell(error))).collect();
    format!("UNREADABLE CREDENTIALS: requests there get 503, as the last one did\n{lines}")
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

/// `deploy-freeze on cluster=prod-eu until 06:00:00 (in 3h 30m)`.
fn holds(style: &Style, holds: &[HoldView]) -> String {
    let hold = |hold: &HoldView| {
        let covered = hold.covers.as_ref().map_or_else(|| "all targets".to_owned(), covered);
        let until = hold.until.as_deref().map_or_else(
            || "until its alert resolves".to_owned(),
            |until| format!("until {} at the latest", style.time(until)),
        );
        let within = hold.within.as_ref().map(|within| format!(" within {}", cell(&within.join(", "))));
        let unreadable = if hold.unreadable { " (alert unreadable, blocks decreases only)" } else { "" };
        format!("{} on {covered}{} {until}{unreadable}", cell(&hold.rule), within.unwrap_or_default())
    };
    let holds: Vec<String> = holds.iter().map(hold).collect();
    if holds.is_empty() { "none".to_owned() } else { holds.join("; ") }
}

fn counts<K: AsRef<str>>(counts: &BTreeMap<K, u64>) -> String {
    let counts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{} {count}", name.as_ref())).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

/// Show open episodes and deferred actions
#[derive(Debug, Args)]
#[command(after_long_help = EPISODE_EXAMPLES)]
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

const EPISODE_EXAMPLES: &str = "\
Examples:
  What waits, until when, and behind what?
    scalebridge episodes
  What has been added and not taken back?
    scalebridge episodes --owing

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input";

impl Episodes {
    pub(crate) fn run(&self) -> ExitCode {
        self.watch.show(self.output.format, || {
            let episodes = fetch_pages(self.limit, |limit, cursor| {
                let (rule, target) = (self.rule.clone(), self.target.clone());
                let owing = Some(true).filter(|_| self.owing);
                let params = ListEpisodesParams { rule, target, owing, limit: Some(limit), cursor };
                let page: EpisodePage<Raw<EpisodeView>> = self.server.get("/api/v1/episodes", &params)?;
                Ok((page.episodes, page.next))
            })?;
            self.output.print(&episodes, |style| {
                if episodes.is_empty() {
                    print_note("no open episodes found");
                }
                episodes.iter().map(|raw| episode_entry(style, &raw.value) + "\n").collect()
            });
            Ok(())
        })
    }
}

/// The number of increases that are not taken back, and their units if all of them have been added in units.
fn owed_cell(owed: &[OwedView]) -> String {
    let units: Option<i64> = owed.iter().map(|owed| owed.value).sum();
    match (owed.len(), units) {
        (0, _) => "-".to_owned(),
        (events, Some(units)) => format!("{units:+} in {}", pluralize(events, "event")),
        (events, None) => pluralize(events, "event"),
    }
}

/// `unschedulable-pods  eks/…/workers  firing since 02:10:05  2 alerts  1 event  scale_in paused until …`.
fn episode_entry(style: &Style, episode: &EpisodeView) -> String {
    let EpisodeView { rule, subject, phase, opened_at, alerts, emissions, owed, deferred, .. } = episode;
    let opened = match &**phase {
        "late" => format!("late, opens {}", style.time(opened_at)),
        "resolved" => format!("resolved, opened {}", style.time(opened_at)),
        phase => format!("{} since {}", cell(phase), style.time(opened_at)),
    };
    let emitted = if *emissions == 0 { String::new() } else { pluralize(*emissions as usize, "event") };
    let owed = if owed.is_empty() { String::new() } else { format!("owes {}", owed_cell(owed)) };
    let names: BTreeSet<&str> =
        alerts.iter().filter_map(|alert| Some(alert.labels.get("alertname")?.as_str())).collect();
    let about = match names.len() {
        1..=3 => format!(
            "{} ({})",
            names.into_iter().collect::<Vec<_>>().join(", "),
            pluralize(alerts.len(), "alert")
        ),
        _ => pluralize(alerts.len(), "alert"),
    };
    let ends = match (&*episode.scope, &episode.hold_until) {
        ("hold", _) if episode.hold_over => "has ended: its max_duration is over".to_owned(),
        ("hold", Some(until)) => {
            format!("ends when its alert resolves, at the latest {}", style.time(until))
        }
        ("hold", None) => "ends when its alert resolves".to_owned(),
        _ => String::new(),
    };
    let parts = [
        style.paint(Tone::Strong, &cell(rule)),
        cell(subject),
        opened,
        cell(&about),
        ends,
        emitted,
        owed,
        deferred.as_ref().map(|deferred| waiting(style, deferred)).unwrap_or_default(),
        if style.is_wide() && !episode.id.is_empty() {
            format!("episode {}", cell(&episode.id))
        } else {
            String::new()
        },
    ];
    style.entry(4, &parts)
}

/// What waits, until when, and behind what.
fn waiting(style: &Style, deferred: &DeferredView) -> String {
    let action = deferred.action.as_deref().map(cell).unwrap_or_default();
    let until = match (&deferred.until, &deferred.blocked_by) {
        (Some(until), _) => format!("until {}", style.time(until)),
        (None, Some(blocker)) => end_of(blocker).to_owned(),
        (None, None) => String::new(),
    };
    let Some(verdict) = deferred.verdict.as_deref() else {
        return format!("{action} is repeated {until}").trim().replace("repeated until", "repeated at");
    };
    let why = deferred.detail.as_deref().map(|detail| format!(": {}", cell(detail))).unwrap_or_default();
    let verdict = style.paint(Tone::Blocked, &cell(verdict));
    format!("{action} {verdict} {until}{why}")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" :", ":")
}

/// Reload the configuration of a running bridge (atomic)
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  Load the changed rules, and say why
    scalebridge reload --reason 'larger cooldown'

Exit codes: 0 success, 1 the configuration was rejected or the bridge does not answer, 2 unusable input")]
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
            self.server.post("/-/reload", &self.initiator.params(&self.server), b"");
        let report = match report {
            Ok(report) => report,
            Err(error) => return error.report(),
        };
        self.output.print(&report, |_| reload_text(&report.value));
        ExitCode::SUCCESS
    }
}

fn reload_text(report: &ReloadReport) -> String {
    let ReloadReport { changed, needs_restart, warnings } = report;
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
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::style::tests::terminal;

    #[test]
    fn a_hold_says_when_it_ends_at_the_latest_and_that_it_has_ended() {
        let holds_of = |json| holds(&terminal(80), &serde_json::from_value::<Vec<HoldView>>(json).unwrap());
        assert_eq!(holds_of(json!([])), "none");
        let both = holds_of(json!([
            { "rule": "freeze", "covers": { "cluster": "prod-eu" }, "since": "", "until": "2026-11-29T04:00:00Z" },
            { "rule": "all", "covers": {}, "since": "" },
        ]));
        let guest = holds_of(json!([
            { "rule": "all", "covers": {}, "since": "", "unreadable": true, "within": ["*/*/*/*/prod-us/*/*"] },
        ]));
        assert_eq!(
            guest,
            "all on all targets within */*/*/*/prod-us/*/* until its alert resolves (alert unreadable, blocks decreases only)"
        );
        assert_eq!(
            both,
            "freeze on cluster=prod-eu until 06:00:00 (in 3h 30m) at the latest; all on all targets until its alert resolves"
        );
        let episode = |own: serde_json::Value| {
            let mut view = json!({
                "id": "e", "rule": "freeze", "scope": "hold", "subject": "hold/-/-/-/-/prod-eu/-/-",
                "phase": "firing", "opened_at": "2026-11-29T00:10:05Z", "emissions": 0, "adopted": false,
                "expired": false, "alerts": [],
            });
            view.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            episode_entry(&terminal(120), &serde_json::from_value(view).unwrap())
        };
        let limited = episode(json!({ "hold_until": "2026-11-29T04:00:00Z" }));
        assert!(
            limited.contains("ends when its alert resolves, at the latest 06:00:00 (in 3h 30m)"),
            "{limited}"
        );
        let over = episode(json!({ "hold_over": true }));
        assert!(over.contains("has ended: its max_duration is over"), "{over}");
    }

    #[test]
    fn what_is_of_the_fleet_is_told_apart_from_what_is_of_the_replica() {
        let replica = |name: &str, status: &str| {
            json!({
                "id": "00000000000000aa", "name": name, "answers": name == "bridge-1", "version": "0.1.0",
                "schema_step": 1, "status": status, "started_at": "2026-11-29T00:00:00Z",
                "last_seen_at": "2026-11-29T00:29:59Z", "clock_offset_seconds": -0.25,
            })
        };
        let mut lost = replica("bridge-2", "lost");
        lost["version"] = json!("0.2.0");
        lost["last_seen_at"] = json!("2026-11-29T00:10:00Z");
        lost["clock_offset_seconds"] = serde_json::Value::Null;
        let mut whole = json!({
            "version": "0.1.0", "phase": "ready", "now": "2026-11-29T00:30:00Z",
            "configuration": { "loaded_at": "2026-11-29T00:00:00Z" }, "rules": 3, "sources": 1, "destinations": 2,
            "failing": [], "undelivered": 4, "pauses": 0, "open_episodes": { "pods": 2 }, "deferred": {},
        });
        let text = |whole: &serde_json::Value| {
            summary(&terminal(120), &serde_json::from_value::<api::Status>(whole.clone()).unwrap())
        };
        insta::assert_snapshot!(text(&whole), @r"
        scalebridge 0.1.0 ready
          configuration       3 rules, 1 source, 2 destinations, loaded 02:00:00 (30m ago)
          undelivered events  4
          pauses              0
          holds               none
          open episodes       pods 2
          deferred            none
        ");
        whole["fleet"] = json!({
            "schema_step": 1, "read_at": "2026-11-29T00:30:00Z",
            "replicas": [replica("bridge-0", "ready"), replica("bridge-1", "not_ready"), lost],
        });
        insta::assert_snapshot!(text(&whole), @r"
        scalebridge 0.1.0 ready
          replica        bridge-1
          configuration  3 rules, 1 source, 2 destinations, loaded 02:00:00 (30m ago)
        Fleet: 1 of 3 replicas ready, schema step 1, versions 0.1.0 0.2.0, as of 02:30:00 (now)
          undelivered events  4
          pauses              0
          holds               none
          open episodes       pods 2
          deferred            none

        REPLICA             STATUS     LAST SEEN           VERSION  SCHEMA  CLOCK
        bridge-0            ready      02:29:59 (1s ago)   0.1.0    1       -0.250 s
        bridge-1 (answers)  not ready  02:29:59 (1s ago)   0.1.0    1       -0.250 s
        bridge-2            lost       02:10:00 (20m ago)  0.2.0    1       -
        ");
    }

    #[test]
    fn an_episode_says_what_waits_until_when_and_behind_what() {
        let episode = |phase: &str, deferred: serde_json::Value| {
            let alert = json!({ "source": "prod", "fingerprint": "f", "starts_at": "", "heard_at": "",
                "labels": { "alertname": "KubePodUnschedulable" } });
            let view = json!({
                "id": "e", "rule": "pods", "scope": "target", "subject": "eks/nodegroup/-/eu-west-1/prod-eu/-/workers",
                "phase": phase, "opened_at": "2026-11-29T00:10:05Z", "emissions": 1, "adopted": false, "expired": false,
                "alerts": [alert], "deferred": deferred,
                "owed": [{ "event": "05527f34f17c7c15de78327fa19e43ef", "emitted_at": "", "value": 2 }],
            });
            episode_entry(&terminal(80), &serde_json::from_value(view).unwrap())
        };
        let paused = episode(
            "resolved",
            json!({
                "verdict": "paused", "action": "scale_in", "since": "", "until": "2026-11-29T04:00:00Z",
                "detail": "pause 2 by ann: change freeze",
                "blocked_by": { "kind": "pause", "id": 2, "author": "ann", "reason": "change freeze" },
            }),
        );
        let held = episode(
            "firing",
            json!({
                "verdict": "held", "action": "scale_out", "since": "", "detail": "held by rule deploy-freeze",
                "blocked_by": { "kind": "hold", "rule": "deploy-freeze" },
            }),
        );
        insta::assert_snapshot!(format!("{paused}\n{held}"), @r"
        pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers
            resolved, opened 02:10:05 (19m ago)  KubePodUnschedulable (1 alert)  1 event
            owes +2 in 1 event
            scale_in paused until 06:00:00 (in 3h 30m): pause 2 by ann: change freeze
        pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers
            firing since 02:10:05 (19m ago)  KubePodUnschedulable (1 alert)  1 event
            owes +2 in 1 event
            scale_out held until the hold ends: held by rule deploy-freeze
        ");
    }
}
