//! `scalebridge pause` and `scalebridge resume`.

use std::process::ExitCode;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::{InitiatorArgs, author, cell, targets};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::output::{OutputArgs, print, print_note, usage_error};
use crate::cli::style::Style;
use crate::cli::when::{self, Calendar, When};
use crate::domain::direction::Direction;
use crate::domain::duration;
use crate::ops::api::{ListPausesParams, NewPause, PauseView};

/// Pause actions: all, or by rule, target and direction
///
/// Paused actions are deferred and re-evaluated when the pause ends. Without flags, lists the active pauses.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
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
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "until")]
    ends_after: Option<String>,
    /// End the pause at this time: 06:00 (the next one), a day such as 2026-11-30, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    until: Option<When>,
    /// List pauses that have ended too
    #[arg(long, conflicts_with_all = ["all", "rule", "target", "direction", "ends_after", "until", "reason"])]
    ended: bool,
    /// Reason, for other operators
    #[arg(long)]
    reason: Option<String>,
    /// Operator name. Default: $USER, or the name of the credential
    #[arg(long)]
    author: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

const PAUSE_HEADERS: [&str; 6] = ["ID", "COVERS", "SINCE", "UNTIL", "AUTHOR", "REASON"];

const EXAMPLES: &str = "\
Examples:
  Stop scale-ins until 06:00
    scalebridge pause --direction scale_in --until 06:00 --reason 'database migration'
  What is paused, until when, by whom?
    scalebridge pause
  What was paused?
    scalebridge pause --ended

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input, also an unknown rule";

fn row(style: &Style, pause: &PauseView) -> Vec<String> {
    let until = match (&pause.ended_at, &pause.ended_by, &pause.until) {
        (Some(at), Some(by), _) => format!("ended {} by {}", style.time(at), cell(by)),
        (Some(at), None, _) => format!("ended {}", style.time(at)),
        (None, _, Some(until)) => style.time(until),
        (None, _, None) => "resumed".to_owned(),
    };
    vec![
        pause.id.to_string(),
        covers(pause),
        style.time(&pause.since),
        until,
        cell(&pause.author),
        cell(&pause.reason),
    ]
}

/// The actions that a pause covers: `scale_in of rule pods on */workers`.
fn covers(pause: &PauseView) -> String {
    let direction = pause.direction.as_deref().unwrap_or("all actions");
    let rule = pause.rule.as_ref().map(|rule| format!(" of rule {rule}")).unwrap_or_default();
    let target = pause.target.as_ref().map(|target| format!(" on {target}")).unwrap_or_default();
    cell(&format!("{direction}{rule}{target}"))
}

/// Other active pauses that cover the same actions as a new one.
fn same_pauses(new: &PauseView, all: &[PauseView]) -> String {
    let same = |known: &&PauseView| {
        known.id != new.id
            && (&known.rule, &known.target, &known.direction) == (&new.rule, &new.target, &new.direction)
    };
    let note = |known: &PauseView| {
        format!(
            "pause {} by {} covers the same: the actions wait for the end of both\n",
            known.id,
            cell(&known.author)
        )
    };
    all.iter().filter(same).map(note).collect()
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
            let ends_after = match (&self.until, &self.ends_after) {
                (Some(until), _) => match Calendar::new(self.output.utc).time_until(until) {
                    Some(length) => Some(duration::format(length)),
                    None => return usage_error("--until: this time has passed"),
                },
                (None, ends_after) => ends_after.clone(),
            };
            let new = NewPause {
                rule: self.rule.clone(),
                target: self.target.clone(),
                direction: self.direction,
                ends_after,
                author: author(self.author.as_ref(), &self.server),
                reason: reason.clone(),
            };
            let paused = self.server.post_json("/api/v1/pauses", &new).map(|pause| vec![pause]);
            // It is in force, whether or not its targets can be counted.
            let counted = paused.is_ok() && self.output.format.is_text();
            if counted && let Err(error) = targets::note_covered(&self.server, self.target.as_ref()) {
                error.report();
            }
            paused
        } else if self.reason.is_some() || self.ends_after.is_some() || self.until.is_some() {
            return usage_error("specify what to pause: --all, --rule, --target or --direction");
        } else {
            let params = ListPausesParams { ended: Some(true).filter(|_| self.ended) };
            self.server.get("/api/v1/pauses", &params)
        };
        let pauses = match pauses {
            Ok(pauses) => pauses,
            Err(error) => return error.report(),
        };
        self.output.print(&pauses, |style| {
            if pauses.is_empty() {
                print_note("nothing is paused");
                return String::new();
            }
            let rows: Vec<Vec<String>> = pauses.iter().map(|pause| row(style, &pause.value)).collect();
            let mut shown = style.table(&PAUSE_HEADERS, &rows);
            shown.extend(pauses.iter().filter_map(|pause| covered(&pause.value)));
            if let ([new], true) = (pauses.as_slice(), has_filter || self.all) {
                let active: Vec<PauseView> = self.server.get("/api/v1/pauses", &()).unwrap_or_default();
                shown += &same_pauses(&new.value, &active);
                shown += &format!("to end it: scalebridge resume {}\n", new.value.id);
            }
            shown
        });
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
#[command(after_long_help = "\
Examples:
  Undo a pause
    scalebridge resume 3
  Undo a hold: it ends when its alert resolves; which alert that is
    scalebridge episodes --target 'hold/*'

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input, also an unknown pause")]
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
            let ended = self.server.delete::<PauseView>(&path, &self.initiator.params(&self.server));
            ended.map(|_| print(format!("pause {id} ended")))
        };
        let ended = ids.and_then(|ids| ids.iter().try_for_each(end));
        let rest = ended.and_then(|()| self.server.get::<Vec<PauseView>>("/api/v1/pauses", &()));
        rest.map_or_else(ClientError::report, |rest| {
            for pause in &rest {
                print_note(format_args!("still paused by pause {}: {}", pause.id, covers(pause)));
            }
            ExitCode::SUCCESS
        })
    }
}
