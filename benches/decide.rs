//! Cost of a decision per alert: evaluate (overlay labels, match, render) and step (the engine).
//!
//! `cargo bench --bench decide`. The figures are for a body of 20 alerts; `throughput` is alerts per second.
//! The benchmarks under `rules` vary the number of rules: with `alertname = …` in each rule an index selects the
//! candidates, with a regular expression every rule is evaluated.

#![expect(clippy::expect_used, reason = "a program that measures")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use scalebridge::domain::control::Controls;
use scalebridge::domain::engine::{
    Context, DeliveryFeedback, EvaluatedAlert, Input, Policy, States, Step, process_notification,
};
use scalebridge::domain::name::Name;
use scalebridge::domain::notification::{Alert, Envelope};
use scalebridge::domain::rate::{PerMinute, Rates};
use scalebridge::domain::source::Source;
use scalebridge::domain::time::Time;
use scalebridge::domain::trigger::Trigger;
use scalebridge::testing::{self, BridgeSettings};

const ALERTS_PER_BODY: usize = 20;

const CONFIG: &str = "
sources: { prod-eu: { labels: { cluster: prod-eu, region: eu-west-1 } } }
destinations: { journal: { file: { path: '-' } } }
rules: [rules.yaml]
";

// The allocator of the bridge.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Matcher by which the rules distinguish their alerts.
#[derive(Clone, Copy)]
enum MatchBy {
    Name,
    Expression,
}

/// `count` rules; only the last one matches the alerts.
fn settings(rules: usize, by: MatchBy) -> BridgeSettings {
    let mut text = "defaults: { send_to: [journal] }\nrules:\n".to_owned();
    for rule in (0..rules).rev() {
        let matcher = match by {
            MatchBy::Name => format!("alertname = Pending{rule}"),
            MatchBy::Expression => format!("alertname =~ \"Pending{rule}(Again)?\""),
        };
        write!(
            text,
            "  - name: rule-{rule}
    matchers: ['{matcher}', 'severity =~ \"warning|critical\"']
    target: {{ platform: eks, kind: nodegroup, name: '{{{{ labels.nodegroup }}}}', cluster: '{{{{ labels.cluster }}}}', region: '{{{{ labels.region }}}}' }}
    on_firing: {{ scale_out: {{ by: 2 }}, cooldown: 3m }}
    on_resolved: {{ scale_in: {{ by: 1 }}, stabilization_window: 15m, cooldown: 10m }}
    limits: {{ min_capacity: 2, max_capacity: 40 }}
"
        )
        .expect("memory does not fail");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("scalebridge.yaml"), CONFIG).expect("write the configuration");
    std::fs::write(folder.path().join("rules.yaml"), text).expect("write the rules");
    let loaded = testing::load(&folder.path().join("scalebridge.yaml"));
    loaded.unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// A notification in which each alert has its own target, or all have the same.
fn alerts(one_target: bool) -> Vec<Alert> {
    let one = |alert: usize| {
        let group = if one_target { 0 } else { alert };
        format!(
            r#"{{"status":"firing","labels":{{"alertname":"Pending0","severity":"warning","namespace":"shop","nodegroup":"workers-{group}","pod":"web-{alert}","cluster":"prod-eu"}},
            "annotations":{{"summary":"pod web-{alert} unschedulable","value":"3"}},"startsAt":"2026-11-22T16:55:15.05042Z","endsAt":"0001-01-01T00:00:00Z",
            "generatorURL":"http://prometheus:9090/graph?g0.expr=up","fingerprint":"a657fb4d85b{alert:05x}"}}"#
        )
    };
    let list = (0..ALERTS_PER_BODY).map(one).collect::<Vec<_>>().join(",");
    let body = format!(r#"{{"version":"4","groupKey":"{{}}:{{}}","receiver":"scaling","alerts":[{list}]}}"#);
    let read = testing::parse_notification(body.as_bytes()).expect("a notification");
    read.alerts.into_iter().map(|alert| alert.expect("an alert")).collect()
}

/// Inputs of a decision.
struct World {
    settings: BridgeSettings,
    source: Arc<Source>,
    sources: BTreeMap<Name, Arc<Source>>,
    controls: Controls,
}

impl World {
    fn new(rules: usize, by: MatchBy) -> Self {
        let settings = settings(rules, by);
        let source = Arc::new(settings.sources.values().next().expect("a source").clone());
        let sources = BTreeMap::from([(source.name.clone(), source.clone())]);
        Self { settings, source, sources, controls: Controls::default() }
    }

    fn decide(&self, alerts: Vec<Alert>, states: &States) -> Step {
        let judge = |alert| EvaluatedAlert::new(&self.settings.rules, &self.source, Ok(alert));
        let input = Input {
            source: self.source.clone(),
            trigger: Arc::new(Trigger::new(&self.source.name, &Envelope::default(), None)),
            truncated: false,
            sent_at: None,
            alerts: alerts.into_iter().map(judge).collect(),
        };
        let now = Time::parse("2026-11-22T16:55:20Z").expect("a time");
        let context = Context {
            rules: &self.settings.rules,
            now,
            wall: now,
            created: Time::from_millis(0),
            policy: Policy {
                last_resolve_retention: Duration::from_secs(3600),
                expired_episode_retention: Duration::from_secs(7 * 24 * 3600),
                owed_retention: Duration::from_secs(3600),
                probes_destinations: true,
                per_minute: PerMinute { scale_out: 0, scale_in: 60 },
            },
            incarnation: 0,
            keeps_unknown_rules: false,
            controls: &self.controls,
            rates: &Rates::default(),
            sources: &self.sources,
            deliveries: &DeliveryFeedback::default(),
        };
        process_notification(&context, &input, states)
    }

    /// State after a step.
    fn states_after(&self, alerts: &[Alert]) -> States {
        let step = self.decide(alerts.to_vec(), &States::default());
        let mut states = States::default();
        for (key, state) in step.states {
            for alert in state.alerts() {
                states.alerts.entry(alert.clone()).or_default().push(key.clone());
            }
            states.targets.insert(key, Arc::new(state));
        }
        states
    }
}

fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    world: &World,
    alerts: &[Alert],
    states: &States,
) {
    group.throughput(Throughput::Elements(ALERTS_PER_BODY as u64));
    group.bench_function(id, |bencher| {
        bencher.iter_batched(
            || alerts.to_vec(),
            |alerts| black_box(world.decide(alerts, states)),
            BatchSize::SmallInput,
        );
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let (apart, together) = (alerts(false), alerts(true));

    let mut group = criterion.benchmark_group("decide");
    let ten = World::new(10, MatchBy::Name);
    let id = |what: &str| BenchmarkId::from_parameter(what);
    measure(&mut group, id("20 new targets"), &ten, &apart, &States::default());
    measure(&mut group, id("20 alerts of a new target"), &ten, &together, &States::default());
    measure(&mut group, id("20 targets, repeated"), &ten, &apart, &ten.states_after(&apart));
    measure(&mut group, id("20 alerts of a target, repeated"), &ten, &together, &ten.states_after(&together));
    group.finish();

    let mut group = criterion.benchmark_group("rules");
    for (what, by) in [("by alertname", MatchBy::Name), ("by expression", MatchBy::Expression)] {
        for rules in [10, 100, 1000] {
            let world = World::new(rules, by);
            measure(&mut group, BenchmarkId::new(what, rules), &world, &apart, &States::default());
        }
    }
    group.finish();
    criterion.final_summary();
}
