//! Readers of tests, their steps and expectations.

use serde_json::Value;

use super::super::decode::{Fields, Spanned, list, spanned};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{duration, keyword, owned_text};
use super::super::yaml::{Kind, Node};
use super::times::{relative_time, timestamp};
use super::{DEFAULT_START_TIME, Expected, Test, TestAction, TestStep, actions};
use crate::domain::duration::format;
use crate::domain::time::Time;

/// The fields of a decision that `expect` can name.
const DECISION_FIELDS: [&str; 14] = [
    "rule",
    "verdict",
    "action",
    "phase",
    "subject",
    "target",
    "detail",
    "until",
    "event",
    "alerts",
    "episode",
    "destination",
    "notification",
    "truncated",
];

const STEPS_EXAMPLE: &str = "steps: [{ at: 0s, expect: [] }]";

pub(super) fn test(node: &Node, diagnostics: &mut Diagnostics) -> Option<Test> {
    let mut fields = Fields::from_node(node, "tests.*", diagnostics)?;
    let name = fields.get_required("name", "name: three pods make one event", spanned(owned_text));
    let start = fields.get("start", timestamp).or_else(|| Time::parse(DEFAULT_START_TIME).ok())?;
    let steps =
        fields.get_required("steps", STEPS_EXAMPLE, list(|node, diagnostics| step(node, start, diagnostics)));
    let location = fields.location().clone();
    if steps.as_ref().is_some_and(Vec::is_empty) && is_empty(node.get("steps")) {
        let help = format!("add one, for example `{STEPS_EXAMPLE}`");
        let steps = fields.location_of("steps");
        fields.diagnostics.add_with_help(Code::Empty, steps, "test has no steps", help);
    }
    fields.finish();
    let steps = steps?;
    check_order(&steps, diagnostics);
    let name = name?;
    Some(Test { name: name.value, name_location: name.location, location, start, steps })
}

fn is_empty(node: Option<&Node>) -> bool {
    match node.map(|node| &node.kind) {
        Some(Kind::List(items)) => items.is_empty(),
        Some(Kind::Null) => true,
        _ => false,
    }
}

/// Checks that each step is not before the one above it has ended.
fn check_order(steps: &[TestStep], diagnostics: &mut Diagnostics) {
    for pair in steps.windows(2) {
        let [before, step] = pair else { continue };
        let (message, help) = if step.at < before.at {
            ("step is earlier than the previous one".to_owned(), "sort the steps by `at`".to_owned())
        } else if step.at < before.end() {
            let end = format(before.end());
            (
                format!(
                    "the step before lasts until {end}: nothing arrives while the bridge does not listen"
                ),
                format!("set `at: {end}` or later"),
            )
        } else {
            continue;
        };
        diagnostics.add_with_help(Code::Contradiction, &step.location, message, help);
    }
}

fn step(node: &Node, start: Time, diagnostics: &mut Diagnostics) -> Option<TestStep> {
    let mut fields = Fields::from_node(node, "tests.*.steps.*", diagnostics)?;
    let at = fields.get_required("at", "at: 0s", duration);
    let actions = actions::actions(node, start, &mut fields);
    let expect = fields.get("expect", |node, diagnostics| {
        list(|node, diagnostics| expected(node, start, diagnostics))(node, diagnostics)
    });
    if let Some(at) = at {
        check_pause(start.after(at), &actions, &mut fields);
    }
    let location = fields.location().clone();
    fields.finish();
    Some(TestStep { at: at?, location, actions, expect })
}

/// Checks that a pause does not expire before it begins.
fn check_pause(now: Time, actions: &[TestAction], fields: &mut Fields<'_, '_>) {
    let has_expired = |action: &TestAction| matches!(action, TestAction::Pause(pause) if pause.until.is_some_and(|it| it <= now));
    if actions.iter().any(has_expired) {
        let help = "set a later `until`: a duration is relative to the start of the test, not to the step";
        let location = fields.location_of("pause");
        fields.diagnostics.add_with_help(
            Code::Contradiction,
            location,
            "`until` of the pause is not after the step",
            help,
        );
    }
}

fn expected(node: &Node, start: Time, diagnostics: &mut Diagnostics) -> Option<Expected> {
    let mut fields = Fields::from_node(node, "tests.*.expect", diagnostics)?;
    for key in DECISION_FIELDS {
        fields.lookup(key);
    }
    let verdicts = crate::domain::verdict::Verdict::ALL.map(|verdict| (verdict.as_str(), verdict));
    fields.get("verdict", keyword(&verdicts));
    let rule = fields.get("rule", |node, _| match &node.kind {
        Kind::Text(rule) => Some(Spanned { value: rule.clone(), location: node.location.clone() }),
        // For example null: no rule.
        _ => None,
    });
    let until = fields.get("until", relative_time(start));
    fields.finish();
    let mut value = Value::from(node);
    if let (Some(until), Value::Object(object)) = (until, &mut value) {
        object.insert("until".to_owned(), until.to_millis_string().into());
    }
    Some(Expected { location: node.location.clone(), fields: value, rule })
}
