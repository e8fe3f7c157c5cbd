//! Readers of what happens in a step.

use super::super::decode::{Fields, entries, list, spanned};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::names::{name, named_entries};
use super::super::scalar::{keyword, positive_duration};
use super::super::sources::target_pattern;
use super::super::yaml::{Kind, Node};
use super::notifications::notify;
use super::times::relative_time;
use super::{TestAction, TestPause};
use crate::domain::delivery::DestinationState;
use crate::domain::direction::Direction;
use crate::domain::time::Time;

/// Reads the actions of a step, in the order of their keys in the file.
pub(super) fn actions(node: &Node, start: Time, fields: &mut Fields<'_, '_>) -> Vec<TestAction> {
    let notify = fields.get("notify", |node, diagnostics| notifications(node, start, diagnostics));
    let gap = gap(fields);
    let restart = fields.get("restart", positive_duration).map(TestAction::Restart);
    let pause =
        fields.get("pause", |node, diagnostics| pause(node, start, diagnostics)).map(TestAction::Pause);
    let resume = fields.get("resume", resume);
    let destination = fields.get("destination", destinations);
    let mut by_key = vec![
        ("notify", notify.unwrap_or_default()),
        ("gap", gap.into_iter().collect()),
        ("restart", restart.into_iter().collect()),
        ("pause", pause.into_iter().collect()),
        ("resume", resume.into_iter().collect()),
        ("destination", destination.unwrap_or_default()),
    ];
    let Kind::Map(keys) = &node.kind else { return Vec::new() };
    by_key.sort_by_key(|(key, _)| keys.iter().position(|(known, _)| known.name == *key));
    by_key.into_iter().flat_map(|(_, actions)| actions).collect()
}

/// Reads one notification or a list of them.
fn notifications(node: &Node, start: Time, diagnostics: &mut Diagnostics) -> Option<Vec<TestAction>> {
    let notifications = match node.kind {
        Kind::List(_) => list(|node, diagnostics| notify(node, start, diagnostics))(node, diagnostics)?,
        _ => vec![notify(node, start, diagnostics)?],
    };
    Some(notifications.into_iter().map(TestAction::Notify).collect())
}

/// Reads `gap`, and `source` beside it.
fn gap(fields: &mut Fields<'_, '_>) -> Option<TestAction> {
    let length = fields.get("gap", positive_duration);
    let source = fields.get("source", spanned(name));
    if fields.has("source") && !fields.has("gap") {
        let help = "remove it; a notification has its own: `notify: { source: …, alerts: […] }`";
        let location = fields.location_of("source");
        fields.diagnostics.add_with_help(Code::Contradiction, location, "`source` requires `gap`", help);
    }
    let source_location = fields.location_of("source").clone();
    if fields.has("source") && source.is_none() {
        return None;
    }
    Some(TestAction::Gap { source: source.map(|source| source.value), source_location, length: length? })
}

fn pause(node: &Node, start: Time, diagnostics: &mut Diagnostics) -> Option<TestPause> {
    let before = diagnostics.len();
    let mut fields = Fields::from_node(node, "tests.*.pause", diagnostics)?;
    let rule = fields.get("rule", name);
    let rule_location = fields.location_of("rule").clone();
    let target = fields.get("target", target_pattern);
    let directions = Direction::ALL.map(|direction| (direction.as_str(), direction));
    let direction = fields.get("direction", keyword(&directions));
    let until = fields.get("until", relative_time(start));
    fields.finish();
    // With an invalid condition the pause would cover more than intended.
    (diagnostics.len() == before).then_some(TestPause { rule, rule_location, target, direction, until })
}

/// Reads `resume: {}`.
fn resume(node: &Node, diagnostics: &mut Diagnostics) -> Option<TestAction> {
    Fields::from_node(node, "tests.*.resume", diagnostics)?.finish();
    Some(TestAction::Resume)
}

/// Reads a map such as `{ scaling-queue: down }`.
fn destinations(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<TestAction>> {
    let words = DestinationState::ALL.map(|state| (state.as_str(), state));
    if entries(node, diagnostics)?.is_empty() {
        let help = "name a destination, for example `destination: { scaling-queue: down }`";
        diagnostics.add_with_help(Code::Range, &node.location, "map must not be empty", help);
    }
    let mut actions = Vec::new();
    for (name, node) in named_entries(node, diagnostics) {
        if let Some(state) = keyword(&words)(node, diagnostics) {
            actions.push(TestAction::Destination { name: name.value, location: name.location, state });
        }
    }
    Some(actions)
}
