//! Cost of single components: decoding a body, evaluating rules, rendering a target, encoding an event, and the
//! stores. The engine is measured by `decide.rs`, the whole bridge by `harness/`.
//!
//! `cargo bench --bench parts`; `throughput` is alerts or events per second.

#![expect(clippy::expect_used, reason = "a program that measures")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use scalebridge::domain::engine::EvaluatedAlert;
use scalebridge::domain::event::{Adjustment, AdjustmentType, EpisodeRef, Event, EventAlert};
use scalebridge::domain::name::Name;
use scalebridge::domain::notification::{Alert, Envelope};
use scalebridge::domain::phase::Phase;
use scalebridge::domain::size_limit::SizeLimit;
use scalebridge::domain::source::Source;
use scalebridge::domain::state::TargetState;
use scalebridge::domain::target::{Platform, Target, TargetKey};
use scalebridge::domain::time::Time;
use scalebridge::domain::trigger::Trigger;
use scalebridge::testing::{
    self, BridgeSettings, Changes, DeliveryQueue as _, Keys, Memory, NewEvent, Settlement, Sqlite, Store,
};
use tokio::runtime::Runtime;

// The allocator of the bridge.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn body(alerts: usize) -> String {
    let one = |alert: usize| {
        format!(
            r#"{{"status":"firing","labels":{{"alertname":"KubePodUnschedulable","cluster":"prod-eu","namespace":"shop","nodegroup":"workers","pod":"web-7d4b9c6f8-{alert:05}","prometheus":"monitoring/k8s","region":"eu-west-1","severity":"warning"}},"annotations":{{"description":"Pod shop/web-7d4b9c6f8-{alert:05} has been unschedulable for more than five minutes.","summary":"Pod unschedulable.","value":"3"}},"startsAt":"2026-11-22T16:55:15.05042Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://prometheus:9090/graph?g0.expr=kube_pod_status_unschedulable","fingerprint":"{alert:016x}"}}"#
        )
    };
    let list = (0..alerts).map(one).collect::<Vec<_>>().join(",");
    format!(r#"{{"version":"4","groupKey":"{{}}:{{}}","receiver":"scaling","alerts":[{list}]}}"#)
}

fn alerts(count: usize) -> Vec<Alert> {
    let read = testing::parse_notification(body(count).as_bytes()).expect("a notification");
    read.alerts.into_iter().map(|alert| alert.expect("an alert")).collect()
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for count in [1, 20, 500] {
        let body = body(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| testing::parse_notification(black_box(body.as_bytes())));
        });
    }
    group.finish();
}

/// Ten rules; only the last one, which contains `last`, matches the alert.
fn settings(last: &str) -> BridgeSettings {
    let mut rules = "defaults: { send_to: [journal] }\nrules:\n".to_owned();
    let constant = "target: { platform: eks, kind: nodegroup, name: workers }";
    for rule in 1..10 {
        let matchers = format!("['alertname =~ \"Other{rule}(Again)?\"']");
        writeln!(
            rules,
            "  - {{ name: other-{rule}, matchers: {matchers}, {constant}, on_firing: {{ notify: {{}} }} }}"
        )
        .expect("memory does not fail");
    }
    let taking = "['alertname = KubePodUnschedulable', 'severity =~ \"warning|critical\"']";
    writeln!(
        rules,
        "  - {{ name: taking, matchers: {taking}, on_firing: {{ scale_out: {{ by: 2 }} }}, {last} }}"
    )
    .expect("memory does not fail");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let configuration = "
sources: { prod-eu: { labels: { cluster: prod-eu, region: eu-west-1 } } }
destinations: { journal: { file: { path: '-' } } }
rules: [rules.yaml]
";
    std::fs::write(folder.path().join("scalebridge.yaml"), configuration).expect("write the configuration");
    std::fs::write(folder.path().join("rules.yaml"), rules).expect("write the rules");
    let loaded = testing::load(&folder.path().join("scalebridge.yaml"));
    loaded.unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// Matching alone, and with the templates that the matching rule renders.
fn evaluate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("judge");
    let templates = "target: { platform: eks, kind: nodegroup, name: '{{ labels.nodegroup }}', cluster: '{{ labels.cluster }}', region: '{{ labels.region }}' }";
    for (what, last) in [
        ("match", "target: { platform: eks, kind: nodegroup, name: workers }".to_owned()),
        ("match, render a target", templates.to_owned()),
        ("match, when, render a target", format!("when: 'annotations.value | float >= 1', {templates}")),
        (
            "match, render a target and a filter",
            format!("parameters: {{ pod: '{{{{ labels.pod | upper }}}}' }}, {templates}"),
        ),
    ] {
        let settings = settings(&last);
        let source: Source = settings.sources.values().next().expect("a source").clone();
        let alert = alerts(1).remove(0);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(what), |bencher| {
            bencher.iter(|| EvaluatedAlert::new(&settings.rules, &source, Ok(black_box(alert.clone()))));
        });
    }
    group.finish();
}

fn event(target: &str, alerts: &[Alert]) -> Event {
    let time = Time::parse("2026-11-22T16:55:20.062131Z").expect("a time");
    let shown = |alert: &Alert| EventAlert {
        fingerprint: alert.fingerprint.clone(),
        labels: alert.labels.clone(),
        annotations: alert.annotations.clone(),
        starts_at: alert.starts_at,
        generator_url: alert.generator_url.clone(),
    };
    let source = Name::new("prod-eu").expect("a name");
    let target = Target {
        platform: Platform::Eks,
        kind: "nodegroup".into(),
        name: target.into(),
        account: None,
        region: Some("eu-west-1".into()),
        cluster: Some("prod-eu".into()),
        namespace: None,
    };
    Event {
        id: "b3f0b3f0b3f0b3f0b3f0b3f0b3f0b3f0".into(),
        action: "scale_out",
        time,
        sequence: time.as_micros(),
        expires_after: Duration::from_secs(3600),
        rule: Name::new("unschedulable-pods").expect("a name"),
        phase: Phase::Firing,
        adjustment: Some(Adjustment {
            kind: AdjustmentType::ChangeInCapacity,
            value: 2,
            min_magnitude: None,
            allow_decrease: None,
        }),
        key: target.key(),
        target: Arc::new(target),
        limits: Default::default(),
        reason: "1 alert firing: KubePodUnschedulable".into(),
        episode: EpisodeRef { id: "80f0d427f82813c8994c35fef5d7232a".into(), opened_at: time, emission: 1 },
        alerts: alerts.iter().map(shown).collect(),
        trigger: Arc::new(Trigger::new(&source, &Envelope::default(), None)),
        parameters: Default::default(),
        reverts: Vec::new(),
    }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for count in [1, 20, 500] {
        let event = event("workers", &alerts(count));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| black_box(&event).encode(SizeLimit::of_body(1 << 20)));
        });
    }
    group.finish();
}

/// An empty store of each kind. Files are in the target directory, on a real disk.
fn stores(folder: &Path) -> Vec<(&'static str, Store)> {
    let queue = [Name::new("queue").expect("a name")];
    let clock = || Time::from_millis(1_795_366_520_000);
    let path = folder.join("bridge.db");
    let sqlite = Sqlite::open(&path, &queue, Arc::new(clock)).expect("a store");
    vec![("sqlite", Store::Sqlite(sqlite)), ("memory", Store::Memory(Memory::new(&queue, Arc::new(clock))))]
}

/// Writes `count` new targets with one event each in one transaction.
async fn append(store: &Store, from: usize, count: usize, alert: &[Alert]) {
    let queue: Arc<[Name]> = [Name::new("queue").expect("a name")].into();
    let events: Vec<Event> = (from..from + count).map(|at| event(&format!("workers-{at}"), alert)).collect();
    let decide = move |_: &_| {
        let made = events.iter().map(|event| {
            let body = event.encode(SizeLimit::of_body(1 << 18)).into();
            let (target, destinations) = (event.target.key(), queue.clone());
            NewEvent {
                target,
                acting: destinations.clone(),
                destinations,
                may_decrease_capacity: false,
                reverts: Arc::default(),
                episode_phase: None,
                body,
            }
        });
        let state = |event: &Event| -> (TargetKey, TargetState) {
            (event.target.key(), TargetState { sequence: event.sequence, ..TargetState::default() })
        };
        (
            Changes {
                states: events.iter().map(state).collect(),
                events: made.collect(),
                ..Changes::default()
            },
            (),
        )
    };
    store.transact(Keys::default(), decide).await.expect("written");
}

/// Append, claim and settle, measured separately.
fn store(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let queue = Name::new("queue").expect("a name");
    let alert = alerts(1);
    for count in [20, 500] {
        for step in ["append", "claim", "settle"] {
            let mut group = criterion.benchmark_group(format!("store/{step}"));
            group.sample_size(10).throughput(Throughput::Elements(count as u64));
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
            for (kind, store) in stores(folder.path()) {
                let mut from = 0;
                group.bench_function(BenchmarkId::new(kind, count), |bencher| {
                    bencher.iter_custom(|times| {
                        let mut took = Duration::ZERO;
                        for _ in 0..times {
                            let spent =
                                runtime.block_on(append_claim_settle(&store, &queue, from, count, &alert));
                            took += spent[["append", "claim", "settle"]
                                .iter()
                                .position(|one| *one == step)
                                .unwrap_or(0)];
                            from += count;
                        }
                        took
                    });
                });
                runtime.block_on(store.close());
            }
            group.finish();
        }
    }
}

/// Appends, claims and settles `count` events and returns the duration of each step.
async fn append_claim_settle(
    store: &Store,
    queue: &Name,
    from: usize,
    count: usize,
    alert: &[Alert],
) -> [Duration; 3] {
    let begun = Instant::now();
    append(store, from, count, alert).await;
    let appended = Instant::now();
    let mut claimed = Vec::new();
    while claimed.len() < count {
        claimed.extend(store.claim(queue, 10).await.expect("claimed"));
    }
    let claimed_at = Instant::now();
    let settled = claimed.iter().map(|one| (one.lease, Settlement::Delivered { answer: None })).collect();
    store.settle(queue, settled).await.expect("settled");
    [appended - begun, claimed_at - appended, claimed_at.elapsed()]
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    decode(&mut criterion);
    evaluate(&mut criterion);
    encode(&mut criterion);
    store(&mut criterion);
    criterion.final_summary();
}
