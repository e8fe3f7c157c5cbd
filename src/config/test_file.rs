//! Parses and validates test files: unit tests of rules, run by `scalebridge test`.

mod actions;
mod names;
mod notifications;
mod steps;
mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::decode::{Fields, Spanned, list};
use super::diagnostic::{Code, Diagnostics, Location};
use super::kinds::{DestinationSettings, SourceKind};
use super::names::named_entries;
use super::scalar::text;
use super::yaml::Node;
use super::{assemble, file, load, sources};
use crate::domain::delivery::DestinationState;
use crate::domain::direction::Direction;
use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::notification::Status;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;
use crate::domain::target_pattern::TargetPattern;
use crate::domain::time::Time;

/// The start time of a test without `start`.
pub const DEFAULT_START_TIME: &str = "2026-01-01T00:00:00Z";
/// The tests of a file, with the rules that they test.
#[derive(Debug)]
pub struct TestFile {
    /// The rules under test.
    pub rules: Arc<RuleTable>,
    /// The sources of the configuration, or all sources that tests and rules name.
    pub sources: BTreeMap<Name, Source>,
    /// The engine settings of the configuration, or the defaults.
    pub policy: Policy,
    /// The tests, in the order of the file.
    pub tests: Vec<Test>,
}

/// A test: steps on a simulated clock.
#[derive(Debug)]
pub struct Test {
    /// The name, which describes what the test verifies. Unique in the file.
    pub name: String,
    /// The location of the name.
    pub name_location: Location,
    /// The location of the test.
    pub location: Location,
    /// The time of the simulated clock at offset 0.
    pub start: Time,
    /// The steps, sorted by time.
    pub steps: Vec<TestStep>,
}

/// What happens at one point in time, and what is expected then.
#[derive(Debug)]
pub struct TestStep {
    /// Offset from the start of the test.
    pub at: Duration,
    /// The location of the step.
    pub location: Location,
    /// What happens, in the order of the file.
    pub actions: Vec<TestAction>,
    /// The decisions expected since the previous step; `None` if they are not checked.
    pub expect: Option<Vec<Expected>>,
}

/// What happens in a step.
#[derive(Debug)]
pub enum TestAction {
    /// A notification arrives.
    Notify(TestNotification),
    /// Notifications are refused for this long.
    Gap {
        /// The source whose notifications are refused; `None` for all sources.
        source: Option<Name>,
        /// The location of the source.
        source_location: Location,
        /// The length of the gap; positive.
        length: Duration,
    },
    /// The bridge does not run for this long, which is positive.
    Restart(Duration),
    /// An operator pauses actions.
    Pause(TestPause),
    /// An operator ends all pauses.
    Resume,
    /// A destination answers in another way from now on.
    Destination {
        /// The destination.
        name: Name,
        /// The location of the name.
        location: Location,
        /// How it answers.
        state: DestinationState,
    },
}

/// A pause; an absent condition covers all actions.
#[derive(Debug)]
pub struct TestPause {
    /// Only actions of this rule.
    pub rule: Option<Name>,
    /// The location of the rule.
    pub rule_location: Location,
    /// Only actions on targets whose key matches.
    pub target: Option<TargetPattern>,
    /// Only actions in this direction.
    pub direction: Option<Direction>,
    /// When the pause expires; `None` if it lasts until it is resumed.
    pub until: Option<Time>,
}

impl TestStep {
    /// Offset of the end of the step: later than `at` if the bridge does not listen for a while.
    pub fn end(&self) -> Duration {
        let lengths = self.actions.iter().map(|action| match action {
            TestAction::Gap { length, .. } | TestAction::Restart(length) => *length,
            _ => Duration::ZERO,
        });
        lengths.fold(self.at, Duration::saturating_add)
    }

    /// The notifications that arrive.
    fn notifications(&self) -> impl Iterator<Item = &TestNotification> {
        self.actions.iter().filter_map(|action| match action {
            TestAction::Notify(notification) => Some(notification),
            _ => None,
        })
    }
}

/// A notification that arrives in a step.
#[derive(Debug)]
pub struct TestNotification {
    /// The source that sends it.
    pub source: Name,
    /// The location of the source.
    pub source_location: Location,
    /// The value of `truncatedAlerts`: the number of omitted alerts.
    pub truncated: u64,
    /// When it was sent, if a queue has delayed it.
    pub sent_at: Option<Time>,
    /// Fields of Alertmanager's body about the group, by JSON name.
    pub envelope: BTreeMap<&'static str, String>,
    /// The alerts of the notification.
    pub alerts: Vec<TestAlert>,
}

/// An alert. The test runner fills in absent fields.
#[derive(Debug)]
pub struct TestAlert {
    /// Firing or resolved.
    pub status: Status,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// Annotations by name.
    pub annotations: BTreeMap<String, String>,
    /// `startsAt`; by default the time of the step that first fires the alert, or first fires it again after a resolve.
    pub starts_at: Option<Time>,
    /// `endsAt`; by default the time of the step that resolves the alert.
    pub ends_at: Option<Time>,
    /// Why the sender has ended a resolved alert without evidence, such as `MissingSeries`.
    pub absence: Option<String>,
    /// For how long, from its step on, the sender vouches for a firing alert.
    pub valid_for: Option<Duration>,
    /// By default Alertmanager's hash of the labels.
    pub fingerprint: Option<String>,
    /// `generatorURL`: the URL of the alerting expression.
    pub generator_url: Option<String>,
}

/// An expected decision; only the given fields are compared.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The location of the expectation.
    pub location: Location,
    /// The given fields, as a JSON object.
    pub fields: Value,
    /// The rule, if one is given.
    rule: Option<Spanned<String>>,
}

/// Reads a test file and the rules or configuration that it names, relative to its directory.
///
/// # Errors
/// All errors and warnings of these files, if there is an error.
pub fn read<D: DestinationSettings, S: SourceKind>(path: &Path) -> Result<TestFile, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let test_file = file::read(path, None, &mut diagnostics).and_then(|(root, _)| {
        test_file::<D, S>(&root, path.parent().unwrap_or(Path::new("")), &mut diagnostics)
    });
    match test_file {
        Some(test_file) if !diagnostics.has_errors() => Ok(test_file),
        _ => Err(diagnostics),
    }
}

const RULES_OR_CONFIG: &str =
    "set the files under test: `rules: [rules.yaml]`, or `config: scalebridge.yaml` with its sources";

fn test_file<D: DestinationSettings, S: SourceKind>(
    root: &Node,
    directory: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<TestFile> {
    let mut fields = Fields::from_node(root, "tests", diagnostics)?;
    let tested = fields.one_of(&["rules", "config"], RULES_OR_CONFIG);
    let tests = fields.get("tests", list(steps::test)).unwrap_or_default();
    if tests.is_empty() {
        let help = "add one, for example `tests: [{ name: …, steps: [{ at: 0s, notify: …, expect: [] }] }]`";
        let location = fields.location_of("tests");
        fields.diagnostics.add_with_help(Code::Empty, location, "no tests defined", help);
    }
    let configured_sources = fields.get("sources", |node, diagnostics| {
        let named = named_entries(node, diagnostics);
        Some(
            named
                .into_iter()
                .filter_map(|(name, node)| sources::source::<S>(name.value, node, diagnostics))
                .collect::<Vec<_>>(),
        )
    });
    let tested = match tested {
        Some(("rules", node)) => {
            let sources = fields.peek("sources");
            let rules = assemble::standalone_rules::<D>(node, sources, directory, fields.diagnostics);
            let mut sources: BTreeMap<Name, Source> = configured_sources
                .into_iter()
                .flatten()
                .map(|(source, ..)| (source.name.clone(), source))
                .collect();
            let notifications = tests.iter().flat_map(|test| &test.steps).flat_map(TestStep::notifications);
            let named: BTreeSet<&Name> = notifications
                .map(|notify| &notify.source)
                .chain(rules.rules().iter().flat_map(|rule| rule.sources.iter().flatten()))
                .collect();
            for name in named {
                let default = || sources::default_source::<S>(name.clone());
                sources.entry(name.clone()).or_insert_with(default);
            }
            let destinations = rules.rules().iter().flat_map(|rule| rule.send_to.clone()).collect();
            let policy = assemble::default_policy(fields.diagnostics)?;
            Some(Tested { rules, sources, destinations, policy })
        }
        Some((_, node)) => {
            if fields.has("sources") {
                let location = fields.location_of("sources");
                let message = "`sources` is not allowed with `config`";
                fields.diagnostics.add_with_help(
                    Code::Contradiction,
                    location,
                    message,
                    "remove it: the sources are those of the configuration under test",
                );
            }
            load_tested_config::<D, S>(node, directory, fields.diagnostics)
        }
        None => None,
    };
    names::check_test_names(&tests, fields.diagnostics);
    if let Some(tested) = &tested {
        names::check_references(&tests, tested, fields.diagnostics);
    }
    fields.finish();
    let Tested { rules, sources, policy, .. } = tested?;
    Some(TestFile { rules, sources, policy, tests })
}

/// What the tests can refer to.
struct Tested {
    rules: Arc<RuleTable>,
    sources: BTreeMap<Name, Source>,
    destinations: BTreeSet<Name>,
    policy: Policy,
}

fn load_tested_config<D: DestinationSettings, S: SourceKind>(
    node: &Node,
    directory: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<Tested> {
    let path = text(node, diagnostics)?;
    // Tests do not depend on the environment.
    match load::<D, S>(&directory.join(path), []) {
        Ok(loaded) => {
            let settings = loaded.settings;
            let policy = settings.policy();
            let destinations = settings.destinations.keys().cloned().collect();
            Some(Tested { rules: settings.rules, sources: settings.sources, destinations, policy })
        }
        Err(found) => {
            diagnostics.append(found);
            None
        }
    }
}
