//! `scalebridge pause` and `scalebridge resume`.

use std::process::ExitCode;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::{InitiatorArgs, author, cell, optional_cell, targets};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::output::{Format, OutputArgs, print, print_json, table, usage_error};
use crate::domain::direction::Direction;
use crate::ops::api::{NewPause, PauseView};

/// Pause actions: all, or by rule, target and direction
///
/// Paused actions are deferred and re-evaluated when the pause ends. Without flags, lists the active pauses.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    server: Server,
    /// Pause all actions
    #[arg(long, conflicts_with_all = ["rule", "target", "direction"])]
    all: bool,
    /// Pause actions of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Pause actions for targets of this name, or whose key matches this pattern, such as 'eks/*/prod-eu/*'; `*` matches
    /// any text
    #[arg(long, value_name = "PATTERN")]
    target: Option<String>,
    /// Pause actions in this direction
    #[arg(long, value_parser = direction_parser())]
    direction: Option<Direction>,
    /// End the pause after this duration. Default: until `resume`
    #[arg(long = "for", value_name = "DURATION")]
    ends_after: Option<String>,
    /// Reason, for other operators
    #[arg(long)]
    reason: Option<String>,
    /// Operator name. Default: $USER
    #[arg(long)]
    author: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

const PAUSE_HEADERS: [&str; 8] = ["ID", "RULE", "TARGET", "DIRECTION", "SINCE", "UNTIL", "AUTHOR", "REASON"];

fn row(pause: &PauseView) -> Vec<String> {
    vec![
        pause.id.to_string(),
        optional_cell(pause.rule.as_deref()),
        optional_cell(pause.target.as_deref()),
        optional_cell(pause.direction.as_deref()),
        cell(&pause.since),
        optional_cell(pause.until.as_deref()),
        cell(&pause.author),
        cell(&pause.reason),
    ]
}

/// What a new pause means for events that are emitted already.
fn covered(pause: &PauseView) -> Option<String> {
    let (events, calls) = (pause.undelivered_events?, pause.calls_in_flight?);
    Some(format!("covers {events} undelivered events; calls that may have been under way: {calls}\n"))
}

impl Pause {
    pub(crate) fn run(&self) -> ExitCode {
        let has_filter = self.rule.is_some() || self.target.is_some() || self.direction.is_some();
        let pauses: Result<Vec<Raw<PauseView>>, ClientError> = if has_filter || self.all {
            let Some(reason) = &self.reason else {
                return usage_error("--reason is required, for example --reason 'replacing the node image'");
            };
            let new = NewPause {
                rule: self.rule.clone(),
                target: self.target.clone(),
                direction: self.direction,
                ends_after: self.ends_after.clone(),
                author: author(self.author.as_ref()),
                reason: reason.clone(),
            };
            let paused = self.server.post_json("/api/v1/pauses", &new).map(|pause| vec![pause]);
            // It is in force, whether or not its targets can be counted.
            let counted = paused.is_ok() && self.output.format == Format::Text;
            if counted && let Err(error) = targets::note_covered(&self.server, self.target.as_ref()) {
                error.report();
            }
            paused
        } else if self.reason.is_some() || self.ends_after.is_some() {
            return usage_error("specify what to pause: --all, --rule, --target or --direction");
        } else {
            self.server.get("/api/v1/pauses", &())
        };
        match (pauses, self.output.format) {
            (Ok(pauses), Format::Json) => print_json(&pauses),
            (Ok(pauses), Format::Text) => {
                let rows: Vec<Vec<String>> = pauses.iter().map(|pause| row(&pause.value)).collect();
                print(table(&PAUSE_HEADERS, &rows));
                pauses.iter().filter_map(|pause| covered(&pause.value)).for_each(print);
            }
            (Err(error), _) => return error.report(),
        }
        ExitCode::SUCCESS
    }
}

fn direction_parser() -> impl clap::builder::TypedValueParser<Value = Direction> {
    PossibleValuesParser::new(Direction::ALL.map(Direction::as_str)).try_map(|text| {
        let found = Direction::ALL.into_iter().find(|direction| direction.as_str() == text);
        found.ok_or("unknown direction")
    })
}

/// End a pause; deferred actions are re-evaluated at once
#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    server: Server,
    /// Number of the pause, as shown by `pause`
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<u64>,
    /// End all pauses
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    initiator: InitiatorArgs,
}

impl Resume {
    pub(crate) fn run(&self) -> ExitCode {
        let ids = match self.id {
            Some(id) => Ok(vec![id]),
            None => self
                .server
                .get("/api/v1/pauses", &())
                .map(|pauses: Vec<PauseView>| pauses.iter().map(|pause| pause.id).collect()),
        };
        let end = |id: &u64| {
            let path = format!("/api/v1/pauses/{id}");
            let ended = self.server.delete::<PauseView>(&path, &self.initiator.params());
            ended.map(|_| print(format!("pause {id} ended")))
        };
        let ended = ids.and_then(|ids| ids.iter().try_for_each(end));
        ended.map_or_else(ClientError::report, |()| ExitCode::SUCCESS)
    }
}
