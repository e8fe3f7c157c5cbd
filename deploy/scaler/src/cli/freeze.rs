//! `freeze` and `unfreeze`: stop increases, decreases or both, also for what is already in the queue.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, ValueEnum};
use scalebridge::domain::time::Time;
use serde_json::json;

use super::{Exit, Io, load};
use crate::config::{Config, LedgerSettings};
use crate::ledger::open::AnyLedger;
use crate::ledger::{Freeze, Frozen, Ledger, LedgerError, Written};

const NOTE: &str = "Events that it stops wait in their queue until they expire; a change that was already called is \
                    not taken back.\n`scalebridge-scaler unfreeze` lets them go on.";
/// How often a change is tried again if others change the same item at the same moment.
const ATTEMPTS: u32 = 5;
/// In characters: it is in the answer of each event that waits.
const MAX_REASON: usize = 500;
const MAX_NAME: usize = 100;

/// The arguments of `freeze`.
#[derive(Args)]
pub(super) struct FreezeArguments {
    /// Only this direction; by default both.
    #[arg(long, value_name = "DIRECTION")]
    direction: Option<Direction>,
    /// Why, for everybody who wonders: it is in the answer of each event that waits.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who stops it; by default the user of the operating system.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    #[arg(long, short, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// The arguments of `unfreeze`.
#[derive(Args)]
pub(super) struct UnfreezeArguments {
    /// Only this direction; by default both.
    #[arg(long, value_name = "DIRECTION")]
    direction: Option<Direction>,
    #[arg(long, short, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    Increases,
    Decreases,
}

/// What is frozen before and after a command.
struct Change {
    before: Freeze,
    after: Freeze,
}

pub(super) fn freeze(arguments: &FreezeArguments, config: Option<&Path>, io: &mut Io<'_>) -> Exit {
    let Some(by) = arguments.by.clone().or_else(|| io.user.clone()).filter(|by| !by.trim().is_empty()) else {
        return unusable(io, "who stops it is not known, since USER is not set: pass --by NAME");
    };
    if arguments.reason.trim().is_empty() {
        return unusable(io, "--reason is empty: say why, for those who wonder why nothing is scaled");
    }
    for (option, text, limit) in [("--reason", &arguments.reason, MAX_REASON), ("--by", &by, MAX_NAME)] {
        if text.contains(char::is_control) {
            return unusable(io, &format!("{option} has control characters: it is shown on one line"));
        }
        if text.chars().count() > limit {
            return unusable(io, &format!("{option} is longer than {limit} characters"));
        }
    }
    let frozen =
        Frozen { by, reason: arguments.reason.trim().to_owned(), since: Time::from_millis(io.now_millis) };
    let change = |before: &Freeze| with(before, arguments.direction, Some(&frozen));
    let Some(Change { before, after }) = run(config, change, io) else { return Exit::Unusable };
    show(&before, &after, &arguments.output, io);
    if arguments.output == "text" {
        drop(writeln!(io.out, "{NOTE}"));
    }
    Exit::Success
}

pub(super) fn unfreeze(arguments: &UnfreezeArguments, config: Option<&Path>, io: &mut Io<'_>) -> Exit {
    let change = |before: &Freeze| with(before, arguments.direction, None);
    let Some(Change { before, after }) = run(config, change, io) else { return Exit::Unusable };
    if before.version == after.version && arguments.output == "text" {
        let what = match arguments.direction {
            None => "nothing was",
            Some(Direction::Increases) => "increases were not",
            Some(Direction::Decreases) => "decreases were not",
        };
        drop(writeln!(io.out, "{what} frozen; nothing is changed"));
    }
    show(&before, &after, &arguments.output, io);
    Exit::Success
}

/// The directions, `None` is both, stopped by `frozen`, or no longer stopped. The version rises if that is a change.
fn with(before: &Freeze, direction: Option<Direction>, frozen: Option<&Frozen>) -> Freeze {
    let mut after = before.clone();
    if direction != Some(Direction::Decreases) {
        after.increases = frozen.cloned();
    }
    if direction != Some(Direction::Increases) {
        after.decreases = frozen.cloned();
    }
    if after != *before {
        after.version += 1;
    }
    after
}

/// Changes the ledger of the configuration. `None` after an error, which is written.
fn run(config: Option<&Path>, change: impl Fn(&Freeze) -> Freeze, io: &mut Io<'_>) -> Option<Change> {
    let (_, Config { ledger: settings, .. }) = load(config, io).ok()?;
    // An empty ledger would be created, and would stop nothing.
    if let LedgerSettings::Sqlite { path } = &settings
        && !path.exists()
    {
        let text = format!(
            "the ledger {} does not exist here: run the command in the worker's directory, as its user",
            path.display()
        );
        unusable(io, &text);
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let changed = match runtime {
        Ok(runtime) => runtime.block_on(async {
            let ledger = AnyLedger::open(&settings).await.map_err(|LedgerError(error)| error)?;
            apply(&ledger, change).await
        }),
        Err(error) => Err(error.to_string()),
    };
    match changed {
        Ok(change) => Some(change),
        Err(error) => {
            unusable(io, &error);
            None
        }
    }
}

/// Reads, changes and writes; anew if somebody else has written in between.
async fn apply(ledger: &impl Ledger, change: impl Fn(&Freeze) -> Freeze) -> Result<Change, String> {
    for _ in 0..ATTEMPTS {
        let before = ledger.read_freeze().await.map_err(|LedgerError(error)| error)?;
        let after = change(&before);
        if after.version == before.version {
            return Ok(Change { before, after });
        }
        match ledger.write_freeze(before.version, &after).await {
            Ok(Written::Yes) => return Ok(Change { before, after }),
            Ok(Written::Changed) => {}
            Err(LedgerError(error)) => {
                return Err(format!(
                    "{error}; it is not known whether it was written: run the command again"
                ));
            }
        }
    }
    Err("others freeze and unfreeze at the same moment, nothing was written: run the command again"
        .to_owned())
}

fn show(before: &Freeze, after: &Freeze, output: &str, io: &mut Io<'_>) {
    let text = match output {
        "json" => format!("{}\n", json!({ "before": directions(before), "after": directions(after) })),
        _ => format!("before:\n{}after:\n{}", lines(before), lines(after)),
    };
    // That it is not shown is said for all commands.
    if io.out.write_all(text.as_bytes()).and_then(|()| io.out.flush()).is_err() {
        drop(writeln!(io.err, "note: the ledger is changed nevertheless"));
    }
}

fn directions(freeze: &Freeze) -> serde_json::Value {
    let shown = |frozen: &Option<Frozen>| {
        frozen.as_ref().map(|Frozen { by, reason, since }| {
            json!({ "by": by, "reason": reason, "since": since.to_millis_string() })
        })
    };
    json!({ "increases": shown(&freeze.increases), "decreases": shown(&freeze.decreases) })
}

fn lines(freeze: &Freeze) -> String {
    let mut text = String::new();
    for (direction, frozen) in [("increases", &freeze.increases), ("decreases", &freeze.decreases)] {
        let state = match frozen {
            None => "not frozen".to_owned(),
            Some(Frozen { by, reason, since }) => {
                format!("frozen by {by} since {}: {reason}", since.to_millis_string())
            }
        };
        let _ = writeln!(text, "  {direction}: {state}");
    }
    text
}

fn unusable(io: &mut Io<'_>, error: &str) -> Exit {
    drop(writeln!(io.err, "error: {error}"));
    Exit::Unusable
}

#[cfg(test)]
mod tests;
