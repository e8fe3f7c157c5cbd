//! `scalebridge decisions` and `scalebridge event`.

use std::io::BufRead as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::{QueryParams, fetch_pages, query_params, text};
use crate::cli::client::{ClientError, Server};
use crate::cli::decision;
use crate::cli::output::{Format, OutputArgs, print, print_json};

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
        let query = query_params([
            ("rule", self.rule.clone()),
            ("target", self.target.clone()),
            ("verdict", self.verdict.clone()),
            ("fingerprint", self.fingerprint.clone()),
            ("since", self.since.clone()),
            ("until", self.until.clone()),
        ]);
        if self.watch {
            return self.follow(&query).map_or_else(ClientError::report, |()| ExitCode::SUCCESS);
        }
        match fetch_pages(&self.server, "/api/v1/decisions", &query, "decisions", self.limit.max(1)) {
            Ok(decisions) => {
                match self.output.format {
                    Format::Json => print_json(&decisions),
                    Format::Text => {
                        let lines = decisions.as_array().into_iter().flatten().map(line);
                        print(lines.collect::<Vec<_>>().join("\n"));
                    }
                }
                ExitCode::SUCCESS
            }
            Err(error) => error.report(),
        }
    }

    fn follow(&self, query: &QueryParams) -> Result<(), ClientError> {
        let lines = self.server.stream("/api/v1/decisions/stream", query)?.lines();
        for event in lines {
            let event = event.map_err(|error| {
                ClientError::RequestFailed(format!("the stream was interrupted: {error}"))
            })?;
            let Some(data) = event.strip_prefix("data:").map(str::trim_start) else { continue };
            match (self.output.format, serde_json::from_str::<Value>(data)) {
                (Format::Json, _) => print(data),
                (Format::Text, Ok(decision)) => print(line(&decision)),
                (Format::Text, Err(_)) => {}
            }
        }
        Err(ClientError::RequestFailed("the stream has ended: the bridge is stopping".to_owned()))
    }
}

fn line(decision: &Value) -> String {
    format!("{} {}", text(decision, "at"), decision::summary_line(decision))
}

/// Show an event with its deliveries
#[derive(Debug, Args)]
pub(crate) struct Event {
    #[command(flatten)]
    server: Server,
    /// Id of the event
    id: String,
}

impl Event {
    pub(crate) fn run(&self) -> ExitCode {
        let found = self.server.get(&format!("/api/v1/events/{}", self.id), &[]);
        found.map_or_else(ClientError::report, |event| {
            print_json(&event);
            ExitCode::SUCCESS
        })
    }
}
