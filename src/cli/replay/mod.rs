//! `scalebridge replay`: processes captured notifications, or those that a bridge has kept, under new and old rules and
//! compares the decisions.

mod diff;
mod outages;
mod recorded;
mod report;
mod scenario;
mod simulate;
mod write_test;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::capture;
use super::check::render_diagnostics;
use super::client::{ClientError, Server};
use super::output::{EXIT_FAILED, EXIT_USAGE, OutputArgs, current_thread_runtime, environment, usage_error};
use super::when::{self, Calendar, When};
use crate::bridge::decision_view::ExplainedDecision;
use crate::domain::duration;
use crate::domain::name::Name;
use crate::kinds::{self, Settings};
use crate::sources::SourceKind;
use crate::telemetry;
use recorded::Recorded;
use scenario::{Period, Scenario};
use write_test::TestFile;

/// The time that is simulated after the last notification of a file.
const ADVANCE_AFTER_FILES: Duration = Duration::from_hours(1);

/// Replay notifications, and compare new with old rules
///
/// With --against, differences are marked with + and -, and the exit code is 1 if there are any. Captured notifications
/// are processed in the given order, each at the time of its latest alert start or end. Those of Prometheus, whose meaning
/// depends on when they were received, are processed at the time at which their file was modified.
///
/// With --since, the notifications that a running bridge has kept are processed at the times at which it received them,
/// under its pauses, and with the failures of its destinations and its last reception gaps. Both sides start with
/// nothing: alerts that were firing before cannot decrease capacity, and those that are first seen resolved are listed
/// as not comparable.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  Would the new rules have decided otherwise yesterday?
    scalebridge replay --since 24h --config new.yaml --against old.yaml
  What would they decide about notifications that were captured?
    scalebridge replay --config new.yaml notification-1.json notification-2.json

Exit codes: 0 success, 1 the rules decide differently, 2 unusable input")]
pub(super) struct Replay {
    /// Bodies of notifications as JSON, in the format of any kind of source, oldest first
    #[arg(value_name = "BODY.json", required_unless_present = "since", conflicts_with = "since")]
    bodies: Vec<PathBuf>,
    /// Configuration with the new rules
    #[arg(long, value_name = "NEW", default_value = "config/scalebridge.yaml", env = "SCALEBRIDGE_CONFIG")]
    config: PathBuf,
    /// Configuration with the old rules
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
    /// Replay what a running bridge has received since this time: 24h, 02:10, today, 2026-11-29, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    since: Option<When>,
    /// With --since, until this time. Default: now
    #[arg(long, value_name = "TIME", requires = "since", value_parser = when::parse)]
    until: Option<When>,
    /// Source of the notifications. Required for files if several are configured; with --since, only this source
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Time to simulate after the end, so that deferred actions are processed. Default: 1h for files, 0 with --since
    #[arg(long, alias = "then", value_name = "DURATION", value_parser = duration::parse)]
    advance: Option<Duration>,
    /// Also write a rule test of what happened, which expects the decisions of the old rules, or without --against of
    /// the new ones
    #[arg(long, value_name = "FILE")]
    write_test: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: OutputArgs,
}

/// The decisions of a configuration: one list for each step, and one for what comes due after them.
type Decisions = Vec<Vec<ExplainedDecision>>;

/// A configuration, with the source of notifications that have none.
struct Side<'a> {
    config: &'a Path,
    settings: Settings,
    source: Option<Name>,
}

impl Replay {
    pub(super) fn run(&self) -> ExitCode {
        self.replay().unwrap_or_else(|code| code)
    }

    fn replay(&self) -> Result<ExitCode, ExitCode> {
        let new = self.load(&self.config)?;
        let old = self.against.as_deref().map(|against| self.load(against)).transpose()?;
        let mut kinds = new.settings.source_kinds.clone();
        for (name, kind) in old.iter().flat_map(|old| &old.settings.source_kinds) {
            kinds.entry(name.clone()).or_insert_with(|| kind.clone());
        }
        let recorded = self.since.as_ref().map(|since| self.fetch(since, &kinds)).transpose()?;
        let from_files;
        let scenario = match &recorded {
            Some(recorded) => &recorded.scenario,
            None => {
                let advance = self.advance.unwrap_or(ADVANCE_AFTER_FILES);
                from_files = Scenario::from_files(&self.bodies, advance).map_err(usage_error)?;
                &from_files
            }
        };
        let decided = decide(&new, scenario)?;
        let decided_before = old.as_ref().map(|old| decide(old, scenario)).transpose()?;
        let mut passes = true;
        if let Some(path) = &self.write_test {
            let (expected, side) = match (&old, &decided_before) {
                (Some(old), Some(decided)) => (decided, old),
                _ => (&decided, &new),
            };
            passes = TestFile { path, scenario, side, expected }.write()?;
        }
        let differs = match &recorded {
            Some(recorded) => report::of_recorded(recorded, decided, decided_before, self.output.format),
            None => report::of_files(scenario, decided, decided_before, self.output.format),
        };
        Ok(if differs || !passes { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS })
    }

    fn load<'a>(&self, config: &'a Path) -> Result<Side<'a>, ExitCode> {
        let loaded = kinds::load(config, environment()).map_err(|diagnostics| {
            telemetry::print_to_stderr(render_diagnostics(&diagnostics).trim_end());
            ExitCode::from(EXIT_USAGE)
        })?;
        let settings = loaded.settings;
        let source = match self.since {
            Some(_) => None,
            None => {
                let source =
                    capture::select_source(&settings, self.source.as_deref()).map_err(usage_error)?;
                Some(Name::new(&source).map_err(usage_error)?)
            }
        };
        Ok(Side { config, settings, source })
    }

    fn fetch(&self, since: &When, kinds: &BTreeMap<Name, SourceKind>) -> Result<Recorded, ExitCode> {
        let period = Calendar::new(self.output.utc).period(since, self.until.as_ref());
        let Some((from, until)) = period else {
            return Err(usage_error("--since or --until is out of range"));
        };
        if from > until {
            return Err(usage_error("--since is after --until"));
        }
        let (from, until) = (scenario::floor_millis(from), scenario::floor_millis(until));
        let period = Period { from, until, source: self.source.clone() };
        let mut recorded = Recorded::fetch(&self.server, &period, kinds).map_err(ClientError::report)?;
        if recorded.retention == "off" {
            let hint = "set it, or replay files with captured notifications";
            return Err(usage_error(format_args!(
                "the bridge keeps no notifications (retention.notifications is off): {hint}"
            )));
        }
        recorded.scenario.end = until.after(self.advance.unwrap_or_default());
        Ok(recorded)
    }
}

fn decide(side: &Side<'_>, scenario: &Scenario) -> Result<Decisions, ExitCode> {
    let runtime = current_thread_runtime().ok_or(ExitCode::FAILURE)?;
    let decided = runtime.block_on(simulate::decide(&side.settings, scenario, side.source.as_ref()));
    decided.map_err(usage_error)
}
