//! `scalebridge decisions` and `scalebridge event`.

use std::io::BufRead as _;
use std::process::ExitCode;

use clap::Args;

use super::{cell, fetch_pages};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::decision;
use crate::cli::output::{Format, OutputArgs, print, print_json};
use crate::ops::api::{DecisionPage, DecisionView, EventView, ListDecisionsParams};

/// Show decisions and their reasons, newest first
#[derive(Debug, Args)]
pub(crate) struct Decisions {
    #[command(flatten)]
    server: Server,
    /// Filter by rule
    #[arg(long)]
    rule: Option<String>,
    /// Filter by target key pattern, such as 'eks/nodegroup/*/workers'; `*` matches any text
    #[arg(long, value_name = "PATTERN")]
    target: Option<String>,
    /// Filter by verdict; separate several with commas
    #[arg(long)]
    verdict: Option<String>,
    /// Filter by the fingerprint of an alert
    #[arg(long)]
    fingerprint: Option<String>,
    /// Earliest time: RFC 3339, or a duration before now such as 90m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Latest time: RFC 3339, or a duration before now
    #[arg(long, value_name = "TIME", conflicts_with = "watch")]
    until: Option<String>,
    /// Maximum number of results
    #[arg(long, default_value_t = 50, conflicts_with = "watch")]
    limit: usize,
    /// Print new decisions as they are made, until interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Decisions {
    pub(crate) fn run(&self) -> ExitCode {
        let shown = if self.watch { self.follow() } else { self.list() };
        shown.map_or_else(ClientError::report, |()| ExitCode::SUCCESS)
    }

    fn filter(&self) -> ListDecisionsParams {
        ListDecisionsParams {
            rule: self.rule.clone(),
            target: self.target.clone(),
            verdict: self.verdict.clone(),
            fingerprint: self.fingerprint.clone(),
            since: self.since.clone(),
            until: self.until.clone(),
            ..ListDecisionsParams::default()
        }
    }

    fn list(&self) -> Result<(), ClientError> {
        let decisions = fetch_pages(self.limit, |limit, cursor| {
            let params = ListDecisionsParams { limit: Some(limit), cursor, ..self.filter() };
            let page: DecisionPage<Raw<DecisionView>> = self.server.get("/api/v1/decisions", &params)?;
            Ok((page.decisions, page.next))
        })?;
        match self.output.format {
            Format::Json => print_json(&decisions),
            Format::Text => {
                let lines = decisions.iter().map(|decision| line(&decision.value));
                print(lines.collect::<Vec<_>>().join("\n"));
            }
        }
        Ok(())
    }

    fn follow(&self) -> Result<(), ClientError> {
        let lines = self.server.stream("/api/v1/decisions/stream", &self.filter())?.lines();
        for event in lines {
            let event = event.map_err(|error| {
                ClientError::RequestFailed(format!("the stream was interrupted: {error}"))
            })?;
            let Some(data) = event.strip_prefix("data:").map(str::trim_start) else { continue };
            match (self.output.format, serde_json::from_str::<DecisionView>(data)) {
                (Format::Json, _) => print(data),
                (Format::Text, Ok(decision)) => print(line(&decision)),
                (Format::Text, Err(_)) => {}
            }
        }
        Err(ClientError::RequestFailed("the stream has ended: the bridge is stopping".to_owned()))
    }
}

fn line(decision: &DecisionView) -> String {
    format!("{} {}", cell(&decision.at), decision::summary_line(decision, None))
}

/// Show an event with its deliveries
///
/// The bridge searches from the newest event backwards, in bounded steps and without an index: an old event among
/// millions takes longer.
#[derive(Debug, Args)]
pub(crate) struct Event {
    #[command(flatten)]
    server: Server,
    /// Id of the event
    id: String,
}

impl Event {
    pub(crate) fn run(&self) -> ExitCode {
        let found = self.server.get::<Raw<EventView>>(&format!("/api/v1/events/{}", self.id), &());
        found.map_or_else(ClientError::report, |event| {
            print_json(&event);
            ExitCode::SUCCESS
        })
    }
}
