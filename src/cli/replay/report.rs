//! What `replay` prints.

use serde::Serialize;

use super::Decisions;
use super::diff::{count, diff_lines};
use super::recorded::Recorded;
use super::scenario::{NotComparable, Scenario, Step};
use super::simulate::by_time;
use crate::bridge::decision_view::ExplainedDecision;
use crate::cli::escape::escape_control_chars;
use crate::cli::output::{Format, pluralize, print};
use crate::domain::verdict::Verdict;

/// Lines about alerts that are not comparable in text output; JSON has all of them.
const MAX_NOT_COMPARABLE_LINES: usize = 20;

/// The decisions of one notification of a file, or of one time.
#[derive(Debug, Serialize)]
struct Moment {
    /// The notification's file; absent for decisions that came due after the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    at: String,
    /// What happened then; with `--since`. Empty for decisions that came due.
    #[serde(skip_serializing_if = "Option::is_none")]
    happened: Option<Vec<String>>,
    differs: bool,
    /// Decisions under the new rules.
    decisions: Vec<ExplainedDecision>,
    /// Decisions under the old rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Vec<ExplainedDecision>>,
}

impl Moment {
    /// Without old rules, the decisions are compared with themselves.
    fn lines(&self) -> Vec<(char, String)> {
        diff_lines(self.against.as_deref().unwrap_or(&self.decisions), &self.decisions)
    }

    fn is_empty(&self) -> bool {
        self.decisions.is_empty() && self.against.as_ref().is_none_or(Vec::is_empty)
    }

    fn text(&self, header: &str) -> String {
        let lines = self.lines().into_iter().map(|(mark, line)| format!("{mark} {line}\n"));
        std::iter::once(format!("{} {header}\n", self.at)).chain(lines).collect()
    }
}

/// Prints the decisions about notifications of files. Returns whether they differ.
pub(super) fn of_files(scenario: &Scenario, new: Decisions, old: Option<Decisions>, format: Format) -> bool {
    let mut old = old.map(Vec::into_iter);
    let moments: Vec<Moment> = new
        .into_iter()
        .enumerate()
        .map(|(at, decisions)| {
            let against = old.as_mut().and_then(Iterator::next);
            let step = scenario.steps.get(at);
            let at = step.map_or(scenario.end, |step| step.at).to_millis_string();
            let body = step.map(Step::describe);
            let moment = Moment { body, at, happened: None, differs: false, decisions, against };
            Moment { differs: count(&moment.lines()) > 0, ..moment }
        })
        .collect();
    match format {
        Format::Json | Format::Yaml => format.print_data(&moments),
        Format::Text | Format::Wide => {
            let shown = moments.iter().filter(|moment| moment.body.is_some() || !moment.is_empty());
            let text = |moment: &Moment| {
                moment.text(moment.body.as_deref().unwrap_or("after the last notification"))
            };
            print(shown.map(text).collect::<String>());
        }
    }
    moments.iter().any(|moment| moment.differs)
}

/// The JSON output with `--since`.
#[derive(Serialize)]
struct Report<'a> {
    since: String,
    until: String,
    /// The number of notifications.
    notifications: usize,
    /// The number of decisions that differ; absent without old rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    differing: Option<usize>,
    not_comparable: &'a [NotComparable],
    /// What the simulation does not know.
    notes: &'a [String],
    moments: Vec<Moment>,
}

/// Prints the decisions about what a bridge has recorded. Returns whether they differ.
pub(super) fn of_recorded(
    recorded: &Recorded,
    new: Decisions,
    old: Option<Decisions>,
    format: Format,
) -> bool {
    let Recorded { scenario, not_comparable, notes, .. } = recorded;
    let has_old = old.is_some();
    let mut differing = 0;
    let moments: Vec<Moment> = by_time(scenario, new, old)
        .into_iter()
        .map(|(at, instant)| {
            let (body, happened) = (None, Some(instant.happened));
            let against = has_old.then_some(instant.old);
            let at = at.to_millis_string();
            let moment = Moment { body, at, happened, differs: false, decisions: instant.new, against };
            let differs = count(&moment.lines());
            differing += differs;
            Moment { differs: differs > 0, ..moment }
        })
        .filter(|moment| !moment.is_empty())
        .collect();
    let report = Report {
        since: scenario.start.to_millis_string(),
        until: scenario.end.to_millis_string(),
        notifications: scenario.notifications(),
        differing: has_old.then_some(differing),
        not_comparable,
        notes,
        moments,
    };
    match format {
        Format::Json | Format::Yaml => format.print_data(&report),
        Format::Text | Format::Wide => print(text(&report)),
    }
    differing > 0
}

/// With old rules, only what differs; without them, what is not quiet.
fn text(report: &Report<'_>) -> String {
    let Report { since, until, notifications, differing, not_comparable, notes, moments } = report;
    let is_shown = |moment: &&Moment| match differing {
        Some(_) => moment.differs,
        None => moment.decisions.iter().any(|decision| !is_quiet(decision)),
    };
    let header = |moment: &Moment| match moment.happened.as_deref() {
        None | Some([]) => "due".to_owned(),
        Some(happened) => escape_control_chars(&happened.join("; ")),
    };
    let mut text: String =
        moments.iter().filter(is_shown).map(|moment| moment.text(&header(moment))).collect();
    for alert in not_comparable.iter().take(MAX_NOT_COMPARABLE_LINES) {
        text += &escape_control_chars(&format!(
            "not comparable: {}, first seen resolved at {}",
            name(alert),
            alert.at
        ));
        text += "\n";
    }
    if not_comparable.len() > MAX_NOT_COMPARABLE_LINES {
        text += &format!("not comparable: {} more\n", not_comparable.len() - MAX_NOT_COMPARABLE_LINES);
    }
    notes.iter().for_each(|note| text += &format!("note: {note}\n"));
    let result = match differing {
        Some(1) => "1 decision differs".to_owned(),
        Some(count) => format!("{count} decisions differ"),
        None => "nothing to compare with (--against)".to_owned(),
    };
    let not_comparable = pluralize(not_comparable.len(), "alert");
    let notifications = pluralize(*notifications, "notification");
    text += &format!("{notifications} from {since} to {until}: {result}, {not_comparable} not comparable\n");
    text
}

fn is_quiet(decision: &ExplainedDecision) -> bool {
    Verdict::parse(&decision.decision.verdict).is_some_and(Verdict::is_quiet)
}

/// `prod-eu alertname="Disk", instance="a"`.
fn name(alert: &NotComparable) -> String {
    let labels: Vec<String> = alert.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{} {}", alert.source, labels.join(", "))
}
