//! Checks the names in tests: those of the tests, and those of the rules, sources and destinations that they refer to.

use std::collections::HashMap;

use super::super::diagnostic::{Code, Diagnostics, Location};
use super::super::suggest::did_you_mean;
use super::{Expected, Test, TestAction, TestStep, Tested};
use crate::domain::name::Name;

/// Reports a test with the name of an earlier one.
pub(super) fn check_test_names(tests: &[Test], diagnostics: &mut Diagnostics) {
    let mut first: HashMap<&str, &Location> = HashMap::new();
    for test in tests {
        if let Some(first) = first.get(test.name.as_str()) {
            let message = format!("duplicate test name `{}`", test.name);
            let help = format!("first used at {first}; use a name that says what this test verifies");
            diagnostics.add_with_help(Code::DuplicateName, &test.name_location, message, help);
        } else {
            first.insert(&test.name, &test.name_location);
        }
    }
}

/// Reports names of rules, sources and destinations that do not exist.
pub(super) fn check_references(tests: &[Test], tested: &Tested, diagnostics: &mut Diagnostics) {
    let sources: Vec<&str> = tested.sources.keys().map(Name::as_str).collect();
    let rules: Vec<&str> = tested.rules.rules().iter().map(|rule| rule.name.as_str()).collect();
    let destinations: Vec<&str> = tested.destinations.iter().map(Name::as_str).collect();
    let mut check = |what: &str, name: &str, known: &[&str], location: &Location| {
        if !known.contains(&name) && !known.is_empty() {
            let message = format!("unknown {what} `{name}`");
            diagnostics.add_with_help(Code::UnknownName, location, message, did_you_mean(name, known));
        }
    };
    for step in tests.iter().flat_map(|test| &test.steps) {
        for action in &step.actions {
            match action {
                TestAction::Notify(notify) => {
                    check("source", notify.source.as_str(), &sources, &notify.source_location);
                }
                TestAction::Gap { source: Some(source), source_location, .. } => {
                    check("source", source.as_str(), &sources, source_location);
                }
                TestAction::Pause(pause) => {
                    if let Some(rule) = &pause.rule {
                        check("rule", rule.as_str(), &rules, &pause.rule_location);
                    }
                }
                TestAction::Destination { name, location, .. } => {
                    check("destination", name.as_str(), &destinations, location);
                }
                TestAction::Gap { source: None, .. } | TestAction::Restart(_) | TestAction::Resume => {}
            }
        }
        for rule in expected(step).filter_map(|expected| expected.rule.as_ref()) {
            check("rule", &rule.value, &rules, &rule.location);
        }
    }
}

fn expected(step: &TestStep) -> impl Iterator<Item = &Expected> {
    step.expect.iter().flatten()
}
