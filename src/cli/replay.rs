//! `scalebridge replay`: processes captured notifications under new and old rules and compares the decisions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::check::render_diagnostics;
use super::output::{
    EXIT_FAILED, EXIT_USAGE, Format, OutputArgs, current_thread_runtime, environment, print, usage_error,
};
use super::test::{FieldMismatch, mismatches};
use super::{capture, decision};
use crate::bridge::decision_view::ExplainedDecision;
use crate::bridge::{Simulator, SimulatorError};
use crate::domain::duration;
use crate::domain::notification::Notification;
use crate::domain::time::Time;
use crate::kinds::{self, Settings};
use crate::telemetry;

/// Replay captured notifications, and compare new with old rules
///
/// The notifications are processed in the given order, each at the time of its latest alert start or end. With
/// --against, differences are marked with + and -, and the exit code is 1 if there are any.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  What would the new rules have decided otherwise?
    scalebridge replay --config new.yaml --against old.yaml notification-1.json notification-2.json

Exit codes: 0 success, 1 the rules decide differently, 2 unusable input")]
pub(super) struct Replay {
    /// Bodies of Alertmanager webhook requests as JSON, oldest first
    #[arg(value_name = "BODY.json", required = true)]
    bodies: Vec<PathBuf>,
    /// Configuration with the new rules
    #[arg(long, value_name = "NEW", default_value = "config/scalebridge.yaml", env = "SCALEBRIDGE_CONFIG")]
    config: PathBuf,
    /// Configuration with the old rules
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
    /// Source of the notifications; required if several are configured
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Time to simulate after the last notification, so that deferred actions are processed
    #[arg(long, alias = "then", value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    advance: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

/// The decisions of one notification.
#[derive(Debug, Serialize)]
struct Moment {
    /// The notification's file; absent for decisions that came due after the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    at: String,
    differs: bool,
    /// Decisions under the new rules.
    decisions: Vec<ExplainedDecision>,
    /// Decisions under the old rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Vec<ExplainedDecision>>,
}

struct CapturedNotification {
    name: String,
    at: Time,
    notification: Notification,
}

impl Replay {
    pub(super) fn run(&self) -> ExitCode {
        let (captured, start) = match self.read_captured() {
            Ok(captured) => captured,
            Err(error) => return usage_error(error),
        };
        let end = captured.last().map_or(start, |last| last.at).after(self.advance);
        let decide = |path: &Path| -> Result<Vec<Vec<ExplainedDecision>>, ExitCode> {
            let settings = kinds::load(path, environment()).map_err(|diagnostics| {
                telemetry::print_to_stderr(render_diagnostics(&diagnostics).trim_end());
                ExitCode::from(EXIT_USAGE)
            })?;
            let settings = settings.settings;
            let source = capture::select_source(&settings, self.source.as_deref()).map_err(usage_error)?;
            let runtime = current_thread_runtime().ok_or(ExitCode::FAILURE)?;
            runtime.block_on(decide(settings, &source, start, &captured, end)).map_err(usage_error)
        };
        let decided = decide(&self.config).and_then(|new| {
            let old = self.against.as_deref().map(decide).transpose()?;
            Ok((new, old))
        });
        let (new, mut old) = match decided {
            Ok((new, old)) => (new, old.map(Vec::into_iter)),
            Err(code) => return code,
        };
        let moments: Vec<Moment> = new
            .into_iter()
            .enumerate()
            .map(|(at, decisions)| {
                let against = old.as_mut().and_then(Iterator::next);
                let differs = against
                    .as_ref()
                    .is_some_and(|old| !diff_lines(old, &decisions).iter().all(|(mark, _)| *mark == ' '));
                let one = captured.get(at);
                let time = one.map_or(end, |one| one.at);
                let body = one.map(|one| one.name.clone());
                Moment { body, at: time.to_millis_string(), differs, decisions, against }
            })
            .collect();
        let differs = moments.iter().any(|moment| moment.differs);
        match self.output.format {
            Format::Json | Format::Yaml => self.output.format.print_data(&moments),
            Format::Text | Format::Wide => print(text(&moments)),
        }
        if differs { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS }
    }

    /// The notifications with their times, and a time before all of them.
    fn read_captured(&self) -> Result<(Vec<CapturedNotification>, Time), String> {
        let mut captured: Vec<CapturedNotification> = Vec::new();
        let mut start: Option<Time> = None;
        for path in &self.bodies {
            let notification = capture::read(path)?.notification;
            let previous = captured.last().map(|last| last.at);
            let (first, last) = capture::time_range(&notification)
                .or(previous.map(|at| (at, at)))
                .ok_or_else(|| format!("{}: the notification has no valid alert", path.display()))?;
            start = Some(start.map_or(first, |start| start.min(first)));
            let at = previous.map_or(last, |previous| previous.max(last));
            captured.push(CapturedNotification { name: path.display().to_string(), at, notification });
        }
        let before = |start: Time| Time::from_nanos(start.as_nanos().saturating_sub(1_000_000_000));
        Ok((captured, before(start.unwrap_or(Time::from_nanos(0)))))
    }
}

/// The decisions up to and including each notification, and those that come due after the last one.
async fn decide(
    settings: Settings,
    source: &str,
    start: Time,
    captured: &[CapturedNotification],
    end: Time,
) -> Result<Vec<Vec<ExplainedDecision>>, SimulatorError> {
    let policy = settings.policy();
    let mut simulator = Simulator::new(settings.rules, settings.sources, policy, start);
    let mut decided = Vec::new();
    for one in captured {
        let mut decisions = simulator.advance_to(one.at).await?;
        decisions.extend(simulator.notify(source, one.notification.clone()).await?);
        decided.push(decisions);
    }
    decided.push(simulator.advance_to(end).await?);
    Ok(decided)
}

/// Compares decisions line by line: common lines are marked with a space, others with `-` or `+`. If only the event
/// differs, its differing fields are listed.
fn diff_lines(old: &[ExplainedDecision], new: &[ExplainedDecision]) -> Vec<(char, String)> {
    let mut unmatched: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for one in old.iter().rev() {
        unmatched.entry(decision::explained_line(one)).or_default().push(decision::comparable_fields(one));
    }
    let mut lines: Vec<(char, String)> = Vec::new();
    for one in new {
        let (line, fields) = (decision::explained_line(one), decision::comparable_fields(one));
        let before = unmatched.get_mut(&line);
        let same = before.and_then(|before| {
            let at =
                before.iter().position(|before| *before == fields).or_else(|| before.len().checked_sub(1))?;
            Some(before.remove(at))
        });
        match same {
            Some(before) if before == fields => lines.push((' ', line)),
            Some(before) => {
                let both = mismatches(&before, &fields).into_iter().chain(
                    mismatches(&fields, &before).into_iter().map(|mismatch| FieldMismatch {
                        expected: mismatch.found,
                        found: mismatch.expected,
                        ..mismatch
                    }),
                );
                let mut named: Vec<String> = both
                    .map(|mismatch| format!("{} {} -> {}", mismatch.path, mismatch.expected, mismatch.found))
                    .collect();
                named.sort();
                named.dedup();
                lines.push(('-', line.clone()));
                lines.push(('+', format!("{line}; in the event: {}", named.join(", "))));
            }
            None => lines.push(('+', line)),
        }
    }
    let removed = unmatched.into_iter().flat_map(|(line, rest)| std::iter::repeat_n(('-', line), rest.len()));
    removed.chain(lines).collect()
}

fn text(moments: &[Moment]) -> String {
    let mut text = String::new();
    for Moment { body, at, decisions, against, .. } in moments {
        if body.is_none() && decisions.is_empty() && against.as_ref().is_none_or(Vec::is_empty) {
            continue;
        }
        text += &format!("{at} {}\n", body.as_deref().unwrap_or("after the last notification"));
        // Without old rules, the decisions are compared with themselves.
        for (mark, line) in diff_lines(against.as_deref().unwrap_or(decisions), decisions) {
            text += &format!("{mark} {line}\n");
        }
    }
    text
}
