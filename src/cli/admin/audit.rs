//! `scalebridge audit`.

use std::process::ExitCode;

use clap::Args;

use super::{cell, fetch_pages, optional_cell, store};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::output::{OutputArgs, print_note};
use crate::cli::style::Style;
use crate::cli::when::{self, Calendar, When};
use crate::ops::api::{
    AuditDetails, AuditEntryView, AuditPage, BulkDetails, DeadLetterSelector, ListAuditParams, PauseView,
};

/// Show what operators did, newest first: pauses, redrives, discards, reloads and dropped states
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  Who paused or resumed something today?
    scalebridge audit --since today

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input")]
pub(crate) struct Audit {
    #[command(flatten)]
    server: Server,
    /// Filter by actor
    #[arg(long)]
    actor: Option<String>,
    /// Filter by act: pause, resume, redrive, discard, bulk_redrive, bulk_discard, reload or drop_state
    #[arg(long)]
    act: Option<String>,
    /// Earliest time: 1h (ago), 02:10 (the last one), today, 2026-11-29, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    since: Option<When>,
    /// Latest time, in the same forms
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    until: Option<When>,
    /// Maximum number of results
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    output: OutputArgs,
}

impl Audit {
    pub(crate) fn run(&self) -> ExitCode {
        let (since, until) = Calendar::new(self.output.utc).range(self.since.as_ref(), self.until.as_ref());
        let entries = fetch_pages(self.limit, |limit, cursor| {
            let params = ListAuditParams {
                actor: self.actor.clone(),
                act: self.act.clone(),
                since: since.clone(),
                until: until.clone(),
                limit: Some(limit),
                cursor,
            };
            let page: AuditPage<Raw<AuditEntryView>> = self.server.get("/api/v1/audit", &params)?;
            Ok((page.entries, page.next))
        });
        let entries: Vec<Raw<AuditEntryView>> = match entries {
            Ok(entries) => entries,
            Err(error) => return ClientError::report(error),
        };
        self.output.print(&entries, |style| {
            if entries.is_empty() {
                print_note("no acts found");
                return String::new();
            }
            let rows: Vec<Vec<String>> = entries.iter().map(|entry| row(style, &entry.value)).collect();
            style.table(&["TIME", "ACTOR", "ACT", "OUTCOME", "ABOUT", "REASON"], &rows)
        });
        ExitCode::SUCCESS
    }
}

fn row(style: &Style, entry: &AuditEntryView) -> Vec<String> {
    let AuditEntryView { id: _, at, actor, act, details } = entry;
    vec![
        style.clock(at),
        cell(actor),
        cell(act),
        cell(&details.outcome),
        cell(&about(details)),
        optional_cell(details.reason.as_deref()),
    ]
}

/// What an act concerned, and why it failed.
fn about(details: &AuditDetails) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(details.pause.as_ref().map(about_pause));
    parts.extend(details.dead_letter.clone());
    parts.extend(details.bulk.as_ref().map(about_bulk));
    parts.extend(details.dropped_state.as_ref().map(|row| format!("state of {}", store::name(row))));
    if let Some(reload) = &details.reload {
        parts.extend(reload.changed.iter().cloned());
        parts.extend(reload.needs_restart.iter().map(|key| format!("{key} needs a restart")));
        if reload.attempts > 1 {
            parts.push(format!("{} attempts", reload.attempts));
        }
    }
    parts.extend(details.errors.iter().cloned());
    if parts.is_empty() { "-".to_owned() } else { parts.join("; ") }
}

/// `pause 3: rule nodes, scale_in`.
fn about_pause(pause: &PauseView) -> String {
    let conditions = [
        pause.rule.as_ref().map(|rule| format!("rule {rule}")),
        pause.target.as_ref().map(|target| format!("target {target}")),
        pause.direction.as_deref().map(str::to_owned),
    ];
    let conditions: Vec<String> = conditions.into_iter().flatten().collect();
    let covered = if conditions.is_empty() { "all actions".to_owned() } else { conditions.join(", ") };
    format!("pause {}: {covered}", pause.id)
}

/// `destination queue: 5 changed, 2 failed`.
fn about_bulk(bulk: &BulkDetails) -> String {
    let DeadLetterSelector { destination, rule, action, given_up_before, .. } =
        bulk.selector.clone().unwrap_or_default();
    let filters = [
        ("destination", destination),
        ("rule", rule),
        ("action", action),
        ("given up before", given_up_before),
    ];
    let filters: Vec<String> =
        filters.into_iter().filter_map(|(key, value)| Some(format!("{key} {}", value?))).collect();
    let selected = if filters.is_empty() { "all".to_owned() } else { filters.join(", ") };
    format!("{selected}: {} changed, {} failed", bulk.succeeded, bulk.failed_total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(details: serde_json::Value) -> String {
        about(&serde_json::from_value(details).unwrap())
    }

    #[test]
    fn an_entry_says_what_the_act_concerned() {
        use serde_json::json;
        let pause = json!({ "id": 3, "rule": "nodes", "direction": "scale_in", "since": "", "author": "", "reason": "" });
        assert_eq!(shown(json!({ "pause": pause })), "pause 3: rule nodes, scale_in");
        let all = json!({ "id": 4, "since": "", "author": "", "reason": "" });
        assert_eq!(shown(json!({ "pause": all })), "pause 4: all actions");
        assert_eq!(shown(json!({ "dead_letter": "17-queue" })), "17-queue");
        let bulk = json!({ "selector": { "destination": "queue" }, "succeeded": 5, "failed_total": 2 });
        assert_eq!(shown(json!({ "bulk": bulk })), "destination queue: 5 changed, 2 failed");
        let reload = json!({ "changed": ["rule nodes changed"], "needs_restart": ["server"] });
        assert_eq!(shown(json!({ "reload": reload })), "rule nodes changed; server needs a restart");
        assert_eq!(shown(json!({ "errors": ["E012"], "reload": { "attempts": 3 } })), "3 attempts; E012");
        let row = json!({ "row": 17, "since": "", "error": "" });
        assert_eq!(shown(json!({ "dropped_state": row })), "state of #17");
        assert_eq!(shown(json!({})), "-");
    }
}
