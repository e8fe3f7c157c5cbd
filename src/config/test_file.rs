//! Parses and validates test files: unit tests of rules, run by `scalebridge test`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::decode::{Fields, entries, list};
use super::diagnostic::{Code, Diagnostics, Location};
use super::kinds::{DestinationSettings, SourceKind};
use super::names::{name, named_entries};
use super::scalar::{any_text, duration, keyword, number, owned_text, text};
use super::yaml::{Kind, Node};
use super::{assemble, file, load, scalar, sources};
use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::notification::Status;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;
use crate::domain::time::Time;

/// The start time of a test without `start`.
pub const DEFAULT_START_TIME: &str = "2026-01-01T00:00:00Z";
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
    /// The name, which describes what the test verifies.
    pub name: String,
    /// The location of the test.
    pub location: Location,
    /// The time of the simulated clock at offset 0.
    pub start: Time,
    /// The steps, sorted by time.
    pub steps: Vec<TestStep>,
}

/// Notifications and expectations at one point in time.
#[derive(Debug)]
pub struct TestStep {
    /// Offset from the start of the test.
    pub at: Duration,
    /// The location of the step.
    pub location: Location,
    /// The notifications that arrive.
    pub notify: Vec<TestNotification>,
    /// The decisions expected since the previous step; `None` if they are not checked.
    pub expect: Option<Vec<Expected>>,
}

/// A notification that arrives in a step.
#[derive(Debug)]
pub struct TestNotification {
    /// The source that sends it.
    pub source: Name,
    /// The value of `truncatedAlerts`: the number of omitted alerts.
    pub truncated: u64,
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
    /// `startsAt`; by default the time of the step that first fires the alert.
    pub starts_at: Option<Time>,
    /// `endsAt`; by default the time of the step that resolves the alert.
    pub ends_at: Option<Time>,
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
    let tests = fields.get("tests", list(test)).unwrap_or_default();
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
            let rules = assemble::standalone_rules::<D>(node, directory, fields.diagnostics);
            let mut sources: BTreeMap<Name, Source> = configured_sources
                .into_iter()
                .flatten()
                .map(|(source, _)| (source.name.clone(), source))
                .collect();
            let notifications = tests.iter().flat_map(|test| &test.steps).flat_map(|step| &step.notify);
            let named: BTreeSet<&Name> = notifications
                .map(|notify| &notify.source)
                .chain(rules.rules().iter().flat_map(|rule| rule.sources.iter().flatten()))
                .collect();
            for name in named {
                let default = || sources::default_source(name.clone());
                sources.entry(name.clone()).or_insert_with(default);
            }
            Some((rules, sources, assemble::default_policy(fields.diagnostics)?))
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
            load_tested_config::<D, S>(node, directory, &tests, fields.diagnostics)
        }
        None => None,
    };
    fields.finish();
    let (rules, sources, policy) = tested?;
    Some(TestFile { rules, sources, policy, tests })
}

fn load_tested_config<D: DestinationSettings, S: SourceKind>(
    node: &Node,
    directory: &Path,
    tests: &[Test],
    diagnostics: &mut Diagnostics,
) -> Option<(Arc<RuleTable>, BTreeMap<Name, Source>, Policy)> {
    let path = text(node, diagnostics)?;
    // Tests do not depend on the environment.
    match load::<D, S>(&directory.join(path), []) {
        Ok(loaded) => {
            let settings = loaded.settings;
            let known: Vec<&str> = settings.sources.keys().map(Name::as_str).collect();
            for step in tests.iter().flat_map(|test| &test.steps) {
                for notify in step.notify.iter().filter(|one| !settings.sources.contains_key(&one.source)) {
                    let message = format!("unknown source `{}`", notify.source);
                    let help = super::suggest::did_you_mean(notify.source.as_str(), &known);
                    diagnostics.add_with_help(Code::UnknownName, &step.location, message, help);
                }
            }
            let policy = settings.policy();
            Some((settings.rules, settings.sources, policy))
        }
        Err(found) => {
            diagnostics.append(found);
            None
        }
    }
}

fn test(node: &Node, diagnostics: &mut Diagnostics) -> Option<Test> {
    let mut fields = Fields::from_node(node, "tests.*", diagnostics)?;
    let name = fields.get_required("name", "name: three pods make one event", owned_text);
    let start = fields.get("start", timestamp).or_else(|| Time::parse(DEFAULT_START_TIME).ok())?;
    let steps = fields.get_required(
        "steps",
        "steps: [{ at: 0s, expect: [] }]",
        list(|node, diagnostics| step(node, start, diagnostics)),
    );
    let location = fields.location().clone();
    fields.finish();
    let steps = steps?;
    for pair in steps.windows(2).filter(|pair| pair[1].at < pair[0].at) {
        let help = "sort the steps by `at`";
        diagnostics.add_with_help(
            Code::Contradiction,
            &pair[1].location,
            "step is earlier than the previous one",
            help,
        );
    }
    Some(Test { name: name?, location, start, steps })
}

fn timestamp(node: &Node, diagnostics: &mut Diagnostics) -> Option<Time> {
    let text = text(node, diagnostics)?;
    Time::parse(text).map_err(|error| diagnostics.add(Code::Value, &node.location, error.to_string())).ok()
}

/// Reads a time: RFC 3339, or a duration relative to the start, negative for earlier times.
fn relative_time(start: Time) -> impl Fn(&Node, &mut Diagnostics) -> Option<Time> {
    move |node, diagnostics| {
        let text = any_text(node, diagnostics)?;
        if text.contains('T') {
            return timestamp(node, diagnostics);
        }
        let (is_before_start, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let length = scalar::duration(
            &Node { location: node.location.clone(), kind: Kind::Text(rest.to_owned()) },
            diagnostics,
        )?;
        let nanos = i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
        let nanos = if is_before_start {
            start.as_nanos().saturating_sub(nanos)
        } else {
            start.as_nanos().saturating_add(nanos)
        };
        Some(Time::from_nanos(nanos))
    }
}

fn step(node: &Node, start: Time, diagnostics: &mut Diagnostics) -> Option<TestStep> {
    let mut fields = Fields::from_node(node, "tests.*.steps.*", diagnostics)?;
    let at = fields.get_required("at", "at: 0s", duration);
    let notify = fields.get("notify", |node, diagnostics| match node.kind {
        Kind::List(_) => list(|node, diagnostics| notify(node, start, diagnostics))(node, diagnostics),
        _ => notify(node, start, diagnostics).map(|one| vec![one]),
    });
    let expect = fields.get("expect", |node, diagnostics| {
        list(|node, diagnostics| expected(node, start, diagnostics))(node, diagnostics)
    });
    let location = fields.location().clone();
    fields.finish();
    Some(TestStep { at: at?, location, notify: notify.unwrap_or_default(), expect })
}

fn notify(node: &Node, start: Time, diagnostics: &mut Diagnostics) -> Option<TestNotification> {
    let mut fields = Fields::from_node(node, "tests.*.notify", diagnostics)?;
    let source = fields.get_required("source", "source: prod-eu", name);
    let truncated = fields.get("truncatedAlerts", number::<u64>(0..=i64::from(u32::MAX))).unwrap_or(0);
    let envelope = ["receiver", "groupKey", "externalURL", "notification_reason"];
    let envelope = envelope.map(|key| (key, fields.get(key, owned_text)));
    let alerts =
        fields.get_required("alerts", "alerts: [{ status: firing, labels: { alertname: Disk } }]", {
            list(|node, diagnostics| alert(node, start, diagnostics))
        });
    fields.finish();
    let envelope = envelope.into_iter().filter_map(|(key, text)| Some((key, text?))).collect();
    Some(TestNotification { source: source?, truncated, envelope, alerts: alerts? })
}

fn alert(node: &Node, start: Time, diagnostics: &mut Diagnostics) -> Option<TestAlert> {
    let mut fields = Fields::from_node(node, "tests.*.alert", diagnostics)?;
    let words = [("firing", Status::Firing), ("resolved", Status::Resolved)];
    let status = fields.get_required("status", "status: firing", keyword(&words));
    let labels = fields.get_required("labels", "labels: { alertname: Disk }", string_map);
    let annotations = fields.get("annotations", string_map).unwrap_or_default();
    let starts_at = fields.get("startsAt", relative_time(start));
    let ends_at = fields.get("endsAt", relative_time(start));
    let fingerprint = fields.get("fingerprint", owned_text);
    let generator_url = fields.get("generatorURL", owned_text);
    fields.finish();
    Some(TestAlert {
        status: status?,
        labels: labels?,
        annotations,
        starts_at,
        ends_at,
        fingerprint,
        generator_url,
    })
}

fn string_map(node: &Node, diagnostics: &mut Diagnostics) -> Option<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for (key, value) in entries(node, diagnostics)? {
        if let Some(text) = any_text(value, diagnostics) {
            texts.insert(key.name.clone(), text.to_owned());
        }
    }
    Some(texts)
}

fn expected(node: &Node, start: Time, diagnostics: &mut Diagnostics) -> Option<Expected> {
    let mut fields = Fields::from_node(node, "tests.*.expect", diagnostics)?;
    for key in DECISION_FIELDS {
        fields.lookup(key);
    }
    let verdicts = crate::domain::verdict::Verdict::ALL.map(|verdict| (verdict.as_str(), verdict));
    fields.get("verdict", keyword(&verdicts));
    let until = fields.get("until", relative_time(start));
    fields.finish();
    let mut value = Value::from(node);
    if let (Some(until), Value::Object(object)) = (until, &mut value) {
        object.insert("until".to_owned(), until.to_millis_string().into());
    }
    Some(Expected { location: node.location.clone(), fields: value })
}
