//! `plan`: what would be done for an event, from a capacity and a ledger that are given in a file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use scalebridge::domain::time::Time;
use serde::Deserialize;

use super::{Exit, Io, load};
use crate::capacity::Lever;
use crate::config::{form_error, from_yaml};
use crate::event::{Limits, ScalingEvent};
use crate::ledger::{AppliedItem, Entries, Freeze, Frozen, TargetItem};
use crate::outcome::{Answer, Outcome};
use crate::plan::{self, Facts, Policy, Present, Step};
use crate::resolve::{Resolved, resolve};

/// The arguments of `plan`.
#[derive(Args)]
pub(super) struct Arguments {
    /// The event, in JSON; - is stdin.
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// The present capacity and the ledger, in YAML or JSON, for example `{ size: 4, max: 6 }`.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// The time of the plan, RFC 3339; by default now.
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Time>,
    #[arg(long, short, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

fn time(text: &str) -> Result<Time, String> {
    Time::parse(text).map_err(|error| error.to_string())
}

/// The present capacity and the ledger.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The size; or `floor` and `current`.
    size: Option<u32>,
    floor: Option<u32>,
    current: Option<u32>,
    min: Option<u32>,
    max: Option<u32>,
    busy: Option<String>,
    refuses_increase: Option<String>,
    refuses_decrease: Option<String>,
    /// The highest sequence that was applied.
    #[serde(default)]
    sequence: u64,
    baseline: Option<u32>,
    /// What was applied, by the id of the event.
    #[serde(default)]
    applied: BTreeMap<String, Applied>,
    #[serde(default)]
    frozen: Vec<Direction>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Applied {
    from: u32,
    to: u32,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Direction {
    Increase,
    Decrease,
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>, io: &mut Io<'_>) -> Exit {
    let (_, config) = match load(config, io) {
        Ok(loaded) => loaded,
        Err(_) => return Exit::Unusable,
    };
    let (text, state) = match (read(&arguments.event), read(&arguments.state)) {
        (Ok(event), Ok(state)) => (event, state),
        (Err(error), _) | (_, Err(error)) => return unusable(io, &error),
    };
    let (present, entries) = match parse_state(&state) {
        Ok(state) => state,
        Err(error) => return unusable(io, &format!("{}: {error}", arguments.state.display())),
    };
    let now = arguments.at.unwrap_or(Time::from_millis(io.now_millis));
    let answer = match ScalingEvent::read(&text) {
        Err(malformed) => refused(String::new(), malformed.to_string()),
        Ok(event) => match resolve(&config, &event) {
            Err(why) => refused(event.id, why),
            Ok(Resolved { settings, .. }) => would_be(&event, entries, &present, &settings.policy, now),
        },
    };
    let line = match arguments.output.as_str() {
        "json" => serde_json::to_string(&answer).unwrap_or_default(),
        _ => show(&answer),
    };
    drop(writeln!(io.out, "{line}"));
    match answer.outcome {
        Outcome::Applied | Outcome::Capped | Outcome::AlreadyApplied | Outcome::DryRun => Exit::Success,
        _ => Exit::Found,
    }
}

fn unusable(io: &mut Io<'_>, error: &str) -> Exit {
    drop(writeln!(io.err, "error: {error}"));
    Exit::Unusable
}

fn read(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text).map(|_| text),
        _ => std::fs::read_to_string(file),
    };
    read.map_err(|error| format!("{} cannot be read: {error}", file.display()))
}

fn refused(id: String, reason: String) -> Answer {
    Answer { id, outcome: Outcome::Refused, from: None, to: None, reason }
}

/// The answer if every step succeeds.
fn would_be(
    event: &ScalingEvent,
    mut entries: Entries,
    present: &Present,
    policy: &Policy,
    now: Time,
) -> Answer {
    let policy = Policy { dry_run: false, ..policy.clone() };
    // The file is about the event's target.
    entries.applied.values_mut().for_each(|item| item.subject.clone_from(&event.subject));
    match plan::plan(&Facts { worker: 1, event, entries: &entries, present, policy: &policy, now }) {
        Step::Answer(answer) => answer,
        Step::Begin(TargetItem { pending: Some(pending), .. }) => plan::answer_of(event, &pending),
        // Nothing is pending in the ledger of a file.
        step => plan::retry(event, format!("another step comes first: {step:?}")),
    }
}

fn parse_state(text: &str) -> Result<(Present, Entries), String> {
    let state: State = from_yaml(text).map_err(|error| form_error(&error).to_string())?;
    let lever = match (state.size, state.floor, state.current) {
        (Some(size), None, None) => Lever::Size(size),
        (None, Some(floor), Some(current)) => Lever::Floor { floor, current },
        _ => return Err("the state has either `size`, or `floor` and `current`".to_owned()),
    };
    let present = Present {
        lever,
        revision: String::new(),
        limits: Limits { min_capacity: state.min, max_capacity: state.max },
        busy: state.busy,
        refuses_increase: state.refuses_increase,
        refuses_decrease: state.refuses_decrease,
    };
    let since = Time::from_millis(0);
    let frozen = |direction| {
        state.frozen.contains(&direction).then(|| Frozen {
            by: "the state file".to_owned(),
            reason: "frozen".to_owned(),
            since,
        })
    };
    let (increases, decreases) = (frozen(Direction::Increase), frozen(Direction::Decrease));
    let freeze = Freeze { version: 0, increases, decreases };
    let item = |(id, Applied { from, to }): (String, Applied)| {
        (id.clone(), AppliedItem::new(&id, "", (from, to), since))
    };
    let target = TargetItem { sequence: state.sequence, baseline: state.baseline, ..TargetItem::default() };
    Ok((present, Entries { target, applied: state.applied.into_iter().map(item).collect(), freeze }))
}

fn show(answer: &Answer) -> String {
    let Answer { outcome, from, to, reason, .. } = answer;
    let name = serde_json::to_value(outcome).unwrap_or_default();
    let change = from.zip(*to).map(|(from, to)| format!("{from} to {to}, "));
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{}{}{reason}", change.unwrap_or_default(), name.as_str().unwrap_or_default().replace('_', " "))
}
