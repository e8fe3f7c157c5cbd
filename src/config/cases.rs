//! Files with unit tests of rules: what `scalebridge test` runs. Text -> checked cases, or every diagnostic.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::decode::{Fields, entries, list, named};
use super::diagnostic::{Code, Diagnostics, Place};
use super::scalar::{any_text, duration, number, owned, text, word};
use super::yaml::{Kind, Node};
use super::{document, file, load, scalar, sources};
use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::notification::Status;
use crate::domain::rate::PerMinute;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;
use crate::domain::time::Time;

/// The time at which a test starts, unless it says another.
pub const START: &str = "2026-01-01T00:00:00Z";
/// What an expectation can speak of: the fields of a decision.
const FIELDS: [&str; 14] = [
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

/// A file of tests with what they test.
#[derive(Debug)]
pub struct Cases {
    /// The rules.
    pub rules: Arc<RuleTable>,
    /// The sources: those of the configuration, or all that the tests and the rules name.
    pub sources: BTreeMap<Name, Source>,
    /// What holds for all rules.
    pub policy: Policy,
    /// The tests in the order of the file.
    pub tests: Vec<Test>,
}

/// One test.
#[derive(Debug)]
pub struct Test {
    /// What it says that it proves.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// The time at which it starts.
    pub start: Time,
    /// What happens, in the order of time.
    pub steps: Vec<Step>,
}

/// One moment of a test.
#[derive(Debug)]
pub struct Step {
    /// After the start.
    pub at: Duration,
    /// Where it stands.
    pub place: Place,
    /// What arrives then.
    pub notify: Vec<Notify>,
    /// What has to be decided since the step before; `None` where nobody looks.
    pub expect: Option<Vec<Expected>>,
}

/// A notification.
#[derive(Debug)]
pub struct Notify {
    /// Who sends it.
    pub source: Name,
    /// How many alerts it leaves out.
    pub truncated: u64,
    /// What it says about the whole group.
    pub envelope: BTreeMap<&'static str, String>,
    /// Its alerts.
    pub alerts: Vec<Alert>,
}

/// An alert; what is not given is made up by who runs the test.
#[derive(Debug)]
pub struct Alert {
    /// Whether it fires.
    pub status: Status,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it began.
    pub starts_at: Option<Time>,
    /// When it ended.
    pub ends_at: Option<Time>,
    /// Its fingerprint.
    pub fingerprint: Option<String>,
    /// The page of the expression.
    pub generator_url: Option<String>,
}

/// A decision that has to come, as far as it is described.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Where it stands.
    pub place: Place,
    /// The fields that are given.
    pub fields: Value,
}

/// Reads a file of tests and the rules or the configuration that it names, relative to its own directory.
///
/// # Errors
/// Every fault of all of them at once.
pub fn read(path: &Path) -> Result<Cases, Diagnostics> {
    let mut faults = Diagnostics::default();
    let cases = file::read(path, None, &mut faults)
        .and_then(|(root, _)| cases(&root, path.parent().unwrap_or(Path::new("")), &mut faults));
    match cases {
        Some(cases) if !faults.has_errors() => Ok(cases),
        _ => Err(faults),
    }
}

const RULES_OR_CONFIG: &str =
    "name what is tested: `rules: [rules.yaml]`, or `config: scalebridge.yaml` with its sources";

fn cases(root: &Node, directory: &Path, faults: &mut Diagnostics) -> Option<Cases> {
    let mut fields = Fields::of(root, "tests", faults)?;
    let tested = fields.one_of(&["rules", "config"], RULES_OR_CONFIG);
    let tests = fields.get("tests", list(test)).unwrap_or_default();
    if tests.is_empty() {
        let help = "add one: `tests: [{ name: …, steps: [{ at: 0s, notify: …, expect: [] }] }]`";
        let place = fields.place_of("tests");
        fields.faults.help(Code::Empty, place, "there is no test", help);
    }
    let own = fields.get("sources", |node, faults| {
        let named = named(node, faults);
        Some(
            named
                .into_iter()
                .filter_map(|(name, node)| sources::source(name.value, node, faults))
                .collect::<Vec<_>>(),
        )
    });
    let policy = Policy {
        last_resolve_retention: Duration::from_hours(1),
        expired_episode_retention: Duration::from_hours(7 * 24),
        max_deferral: Duration::from_hours(1),
        per_minute: PerMinute { scale_out: 0, scale_in: 60 },
    };
    let cases = match tested {
        Some(("rules", node)) => {
            let rules = document::rules_alone(node, directory, fields.faults);
            let mut sources: BTreeMap<Name, Source> =
                own.into_iter().flatten().map(|source| (source.name.clone(), source)).collect();
            let spoken_of = tests.iter().flat_map(|test| &test.steps).flat_map(|step| &step.notify);
            let named: BTreeSet<&Name> = spoken_of
                .map(|notify| &notify.source)
                .chain(rules.rules().iter().flat_map(|rule| rule.sources.iter().flatten()))
                .collect();
            for name in named {
                let plain = || sources::plain(name.clone());
                sources.entry(name.clone()).or_insert_with(plain);
            }
            Some((rules, sources, policy))
        }
        Some((_, node)) => {
            if fields.has("sources") {
                let place = fields.place_of("sources");
                let message = "`sources` stand in the configuration that is tested";
                fields.faults.help(Code::Contradiction, place, message, "leave them out here");
            }
            configured(node, directory, &tests, fields.faults)
        }
        None => None,
    };
    fields.finish();
    let (rules, sources, policy) = cases?;
    Some(Cases { rules, sources, policy, tests })
}

fn configured(
    node: &Node,
    directory: &Path,
    tests: &[Test],
    faults: &mut Diagnostics,
) -> Option<(Arc<RuleTable>, BTreeMap<Name, Source>, Policy)> {
    let path = text(node, faults)?;
    // The environment is none of a test's business.
    match load(&directory.join(path), []) {
        Ok(loaded) => {
            let settings = loaded.settings;
            let known: Vec<&str> = settings.sources.keys().map(Name::as_str).collect();
            for step in tests.iter().flat_map(|test| &test.steps) {
                for notify in step.notify.iter().filter(|one| !settings.sources.contains_key(&one.source)) {
                    let message = format!("there is no source `{}`", notify.source);
                    let help = super::slip::did_you_mean(notify.source.as_str(), &known);
                    faults.help(Code::UnknownName, &step.place, message, help);
                }
            }
            let policy = settings.policy();
            Some((settings.rules, settings.sources, policy))
        }
        Err(found) => {
            faults.append(found);
            None
        }
    }
}

fn test(node: &Node, faults: &mut Diagnostics) -> Option<Test> {
    let mut fields = Fields::of(node, "tests.*", faults)?;
    let name = fields.need("name", "name: three pods make one event", owned);
    let start = fields.get("start", moment).or_else(|| Time::parse(START).ok())?;
    let steps = fields.need(
        "steps",
        "steps: [{ at: 0s, expect: [] }]",
        list(|node, faults| step(node, start, faults)),
    );
    let place = fields.place().clone();
    fields.finish();
    let steps = steps?;
    for pair in steps.windows(2).filter(|pair| pair[1].at < pair[0].at) {
        let help = "put the steps in the order of their times";
        faults.help(Code::Contradiction, &pair[1].place, "this step is before the one above it", help);
    }
    Some(Test { name: name?, place, start, steps })
}

fn moment(node: &Node, faults: &mut Diagnostics) -> Option<Time> {
    let text = text(node, faults)?;
    Time::parse(text).map_err(|error| faults.add(Code::Value, &node.place, error.to_string())).ok()
}

/// RFC 3339, or a duration after the start, or before it with a minus.
fn when(start: Time) -> impl Fn(&Node, &mut Diagnostics) -> Option<Time> {
    move |node, faults| {
        let text = any_text(node, faults)?;
        if text.contains('T') {
            return moment(node, faults);
        }
        let (back, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let length =
            scalar::duration(&Node { place: node.place.clone(), kind: Kind::Text(rest.to_owned()) }, faults)?;
        let nanos = i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
        let nanos = if back {
            start.as_nanos().saturating_sub(nanos)
        } else {
            start.as_nanos().saturating_add(nanos)
        };
        Some(Time::from_nanos(nanos))
    }
}

fn step(node: &Node, start: Time, faults: &mut Diagnostics) -> Option<Step> {
    let mut fields = Fields::of(node, "tests.*.steps.*", faults)?;
    let at = fields.need("at", "at: 0s", duration);
    let notify = fields.get("notify", |node, faults| match node.kind {
        Kind::List(_) => list(|node, faults| notify(node, start, faults))(node, faults),
        _ => notify(node, start, faults).map(|one| vec![one]),
    });
    let expect =
        fields.get("expect", |node, faults| list(|node, faults| expected(node, start, faults))(node, faults));
    let place = fields.place().clone();
    fields.finish();
    Some(Step { at: at?, place, notify: notify.unwrap_or_default(), expect })
}

fn notify(node: &Node, start: Time, faults: &mut Diagnostics) -> Option<Notify> {
    let mut fields = Fields::of(node, "tests.*.notify", faults)?;
    let source = fields.need("source", "source: prod-eu", scalar::name);
    let truncated = fields.get("truncatedAlerts", number::<u64>(0..=i64::from(u32::MAX))).unwrap_or(0);
    let envelope = ["receiver", "groupKey", "externalURL", "notification_reason"];
    let envelope = envelope.map(|key| (key, fields.get(key, owned)));
    let alerts = fields.need("alerts", "alerts: [{ status: firing, labels: { alertname: Disk } }]", {
        list(|node, faults| alert(node, start, faults))
    });
    fields.finish();
    let envelope = envelope.into_iter().filter_map(|(key, text)| Some((key, text?))).collect();
    Some(Notify { source: source?, truncated, envelope, alerts: alerts? })
}

fn alert(node: &Node, start: Time, faults: &mut Diagnostics) -> Option<Alert> {
    let mut fields = Fields::of(node, "tests.*.alert", faults)?;
    let words = [("firing", Status::Firing), ("resolved", Status::Resolved)];
    let status = fields.need("status", "status: firing", word(&words));
    let labels = fields.need("labels", "labels: { alertname: Disk }", texts);
    let annotations = fields.get("annotations", texts).unwrap_or_default();
    let starts_at = fields.get("startsAt", when(start));
    let ends_at = fields.get("endsAt", when(start));
    let fingerprint = fields.get("fingerprint", owned);
    let generator_url = fields.get("generatorURL", owned);
    fields.finish();
    Some(Alert {
        status: status?,
        labels: labels?,
        annotations,
        starts_at,
        ends_at,
        fingerprint,
        generator_url,
    })
}

fn texts(node: &Node, faults: &mut Diagnostics) -> Option<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for (key, value) in entries(node, faults)? {
        if let Some(text) = any_text(value, faults) {
            texts.insert(key.name.clone(), text.to_owned());
        }
    }
    Some(texts)
}

fn expected(node: &Node, start: Time, faults: &mut Diagnostics) -> Option<Expected> {
    let mut fields = Fields::of(node, "tests.*.expect", faults)?;
    for key in FIELDS {
        fields.take(key);
    }
    let verdicts = crate::domain::verdict::Verdict::ALL.map(|verdict| (verdict.as_str(), verdict));
    fields.get("verdict", word(&verdicts));
    let until = fields.get("until", when(start));
    fields.finish();
    let mut value = Value::from(node);
    if let (Some(until), Value::Object(object)) = (until, &mut value) {
        object.insert("until".to_owned(), until.to_millis_string().into());
    }
    Some(Expected { place: node.place.clone(), fields: value })
}
