//! What decisions know of reception gaps, and what is written about them. The real process is tested in
//! `tests/it/gaps.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde_json::json;

use super::*;
use crate::domain::control::ReceptionGap;
use crate::domain::engine::Policy;
use crate::domain::rate::PerMinute;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::{DeliveryQueue as _, Lease, Memory, RefusalReason, Store};
use crate::telemetry::Metrics;
use crate::testing;

/// A bridge with the sources `prod` and `lab` on an in-memory store, whose clocks the test sets, in seconds.
struct World {
    bridge: Bridge,
    store: Store,
    metrics: Metrics,
    clock: Arc<AtomicI64>,
    boot_clock: Arc<AtomicU64>,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn at(seconds: i64) -> Time {
    Time::from_millis(seconds * 1000)
}

fn gap(from: i64, until: i64, cause: GapCause) -> ReceptionGap {
    ReceptionGap { from: at(from), until: at(until), cause }
}

fn sources(names: &[&str]) -> BTreeMap<Name, Source> {
    let source = |text: &&str| {
        let source = Source {
            name: name(text),
            labels: Arc::default(),
            late_window: Duration::from_secs(360),
            occurrence_ttl: Duration::from_secs(3600),
            heartbeat: None,
            ignore_labels: Vec::new(),
            permissions: crate::domain::source::SourcePermissions::default(),
        };
        (name(text), source)
    };
    names.iter().map(source).collect()
}

fn rules() -> Arc<RuleTable> {
    Arc::new(RuleTable::new(Vec::new(), Default::default()))
}

fn policy() -> Policy {
    Policy {
        last_resolve_retention: Duration::ZERO,
        expired_episode_retention: Duration::ZERO,
        owed_retention: Duration::ZERO,
        probes_destinations: true,
        per_minute: PerMinute::default(),
    }
}

const CONFIG: &str = "
sources: { prod: {}, lab: {} }
destinations: { queue: { file: { path: queue.jsonl } } }
rules: [rules.yaml]
";
const RULES: &str = r#"
defaults: { send_to: [queue] }
rules:
  - name: idle
    matchers: [alertname = Idle]
    target: { platform: custom, kind: pool, name: workers }
    on_firing: { scale_in: { by: 1 }, stabilization_window: 0s }
"#;

impl World {
    fn new() -> Self {
        Self::with(rules(), sources(&["prod", "lab"]))
    }

    /// With the rule `idle`, which decreases capacity.
    fn with_decrease() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("scalebridge.yaml"), CONFIG).unwrap();
        std::fs::write(dir.path().join("rules.yaml"), RULES).unwrap();
        let settings = testing::load(&dir.path().join("scalebridge.yaml")).unwrap();
        Self::with(settings.rules, settings.sources)
    }

    fn with(rules: Arc<RuleTable>, sources: BTreeMap<Name, Source>) -> Self {
        let (clock, boot_clock) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicU64::new(0)));
        let (store_clock, read_boot_clock) = (clock.clone(), boot_clock.clone());
        let store_clock = Arc::new(move || at(store_clock.load(Ordering::Relaxed)));
        let store = Store::Memory(Memory::new(&[name("queue")], store_clock));
        let metrics = Metrics::new();
        let bridge = Bridge::with_boot_clock(
            store.clone(),
            rules,
            sources,
            policy(),
            metrics.clone(),
            Arc::new(move || Duration::from_secs(read_boot_clock.load(Ordering::Relaxed))),
        );
        Self { bridge, store, metrics, clock, boot_clock }
    }

    /// Lets time pass. The process is running meanwhile, unless `is_stopped`.
    fn pass(&self, seconds: i64, is_stopped: bool) {
        for _ in 0..seconds {
            let now = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
            self.boot_clock.fetch_add(1, Ordering::Relaxed);
            if !is_stopped {
                self.bridge.0.gaps.tick(at(now));
            }
        }
    }

    fn refuse(&self, source: &str, cause: GapCause) {
        self.bridge.receive(&name(source)).refuse(cause);
    }

    /// The last gap that decisions see.
    fn seen(&self, source: &str) -> Option<ReceptionGap> {
        Some(self.bridge.controls().reception_gaps(&name(source))?.last)
    }

    /// The last gap in the store.
    fn committed(&self, source: &str) -> Option<ReceptionGap> {
        Some(self.store.controls().reception_gaps(&name(source))?.last)
    }

    /// Decides something that changes no controls.
    async fn decide(&self) {
        let snapshot = self.bridge.0.snapshot.load_full();
        let work = super::super::Work::Due(Vec::new());
        self.bridge.transact(snapshot, Keys::default(), work).await.unwrap();
    }

    /// Emits the decrease and claims it, as its worker does before a call.
    async fn claim_decrease(&self) -> Lease {
        let alert = json!({
            "status": "firing", "labels": { "alertname": "Idle" }, "annotations": {},
            "startsAt": self.store.now().to_millis_string(), "fingerprint": "idle",
        });
        let body = json!({ "version": "4", "alerts": [alert] }).to_string();
        let notification = testing::parse_notification(body.as_bytes()).unwrap();
        let source = self.bridge.source("prod").unwrap();
        self.bridge.ingest(&source, notification, None).await.unwrap();
        let claimed = self.store.claim(&name("queue"), 10).await.unwrap();
        assert_eq!(claimed.len(), 1);
        claimed[0].lease
    }

    /// Why the worker must not call the decrease, after it has asked for a recheck.
    async fn refusal(&self, lease: Lease) -> Option<RefusalReason> {
        let target = TargetKey::from_stored("custom/pool/-/-/-/-/workers");
        self.bridge.recheck_before_call(vec![target]).await.unwrap();
        let refused = self.store.begin_calls(&name("queue"), vec![lease]).await.unwrap();
        refused.first().map(|refused| refused.reason)
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.encode().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no series {series}: {text}")).parse().unwrap()
    }
}

#[tokio::test]
async fn a_refused_notification_is_a_gap_of_its_source_that_the_next_decision_commits() {
    let world = World::new();
    world.pass(10, false);
    assert_eq!(world.seen("prod"), None);
    world.refuse("prod", GapCause::Refused);
    let instant = gap(10, 10, GapCause::Refused);
    assert_eq!((world.seen("prod"), world.committed("prod")), (Some(instant), None));
    world.decide().await;
    assert_eq!(world.committed("prod"), Some(instant));
    assert_eq!(world.seen("lab"), None);
}

#[tokio::test]
async fn an_accepted_notification_is_no_gap_and_one_whose_sender_has_gone_is() {
    let world = World::new();
    let source = name("prod");
    world.bridge.receive(&source).accept();
    assert_eq!(world.seen("prod"), None);
    drop(world.bridge.receive(&source));
    assert_eq!(world.seen("prod"), Some(gap(0, 0, GapCause::Refused)));
}

#[tokio::test]
async fn many_refused_notifications_are_one_gap_and_one_write_a_second() {
    let world = World::new();
    world.bridge.begin_reception().await;
    let version = world.store.controls().version;
    for second in 1..=3 {
        world.pass(1, false);
        for _ in 0..1000 {
            world.refuse("prod", GapCause::Backlog);
            world.decide().await;
            assert_eq!(world.seen("prod"), Some(gap(1, second, GapCause::Backlog)));
        }
    }
    assert_eq!(world.store.controls().version, version + 3);
    assert_eq!(
        world.metric(r#"scalebridge_source_reception_gaps_total{source="prod",cause="backlog"}"#),
        1.0
    );
    assert_eq!(world.metric(r#"scalebridge_source_reception_gap_seconds_total{source="prod"}"#), 2.0);
}

#[tokio::test]
async fn without_gaps_no_decision_writes_controls() {
    let world = World::new();
    world.bridge.begin_reception().await;
    let version = world.store.controls().version;
    for _ in 0..100 {
        world.pass(1, false);
        world.decide().await;
    }
    assert_eq!(world.store.controls().version, version);
}

#[tokio::test]
async fn a_gap_that_is_over_is_followed_by_a_new_one() {
    let world = World::new();
    world.refuse("prod", GapCause::Refused);
    world.bridge.commit_gaps().await;
    world.pass(61, false);
    world.refuse("prod", GapCause::Refused);
    assert_eq!(world.seen("prod"), Some(gap(61, 61, GapCause::Refused)));
    assert_eq!(
        world.metric(r#"scalebridge_source_reception_gaps_total{source="prod",cause="refused"}"#),
        2.0
    );
}

#[tokio::test]
async fn a_process_that_was_stopped_for_more_than_five_seconds_decides_only_with_the_gap() {
    let world = World::new();
    world.pass(100, false);
    world.pass(5, true);
    world.decide().await;
    assert_eq!(world.committed("prod"), None, "a busy machine");
    world.pass(6, true);
    world.decide().await;
    for source in ["prod", "lab"] {
        assert_eq!(world.committed(source), Some(gap(105, 111, GapCause::Suspended)));
    }
    world.pass(20, false);
    assert_eq!(world.seen("prod"), Some(gap(105, 111, GapCause::Suspended)), "once");
}

/// The gap lasts until its end, also if nothing is written or decided for longer than decisions wait after a gap.
#[tokio::test]
async fn a_queue_that_is_not_read_is_a_gap_of_its_source_until_it_is_read() {
    let world = World::new();
    let source = name("prod");
    world.pass(20, false);
    world.bridge.begin_unread_queue(&source, at(10));
    world.pass(1000, false);
    assert_eq!(world.seen("prod"), Some(gap(10, 1020, GapCause::Queue)));
    world.bridge.commit_gaps().await;
    world.pass(100, false);
    world.bridge.begin_unread_queue(&source, at(1120));
    world.decide().await;
    assert_eq!(world.committed("prod"), Some(gap(10, 1120, GapCause::Queue)), "it is still the same");
    world.pass(5, false);
    world.bridge.end_unread_queue(&source);
    world.pass(100, false);
    assert_eq!(world.seen("prod"), Some(gap(10, 1125, GapCause::Queue)));
    assert_eq!(world.seen("lab"), None);
    assert_eq!(world.metric(r#"scalebridge_source_reception_gaps_total{source="prod",cause="queue"}"#), 1.0);
    assert_eq!(world.metric(r#"scalebridge_source_reception_gap_seconds_total{source="prod"}"#), 1115.0);
}

#[tokio::test]
async fn a_stop_is_a_gap_of_all_sources_until_the_end() {
    let world = World::new();
    world.bridge.begin_reception().await;
    assert_eq!(world.seen("prod"), None, "a new store");
    world.pass(100, false);
    world.bridge.end_reception();
    world.pass(20, true);
    world.decide().await;
    assert_eq!(world.committed("lab"), Some(gap(100, 120, GapCause::NotRunning)));
    world.pass(3, true);
    world.bridge.commit_gaps().await;
    assert_eq!(world.committed("prod"), Some(gap(100, 123, GapCause::NotRunning)), "not suspended");
}

#[tokio::test]
async fn the_sources_of_the_last_reload_are_known_to_the_next_process() {
    let world = World::new();
    world.bridge.begin_reception().await;
    let (_, rechecked) = world.bridge.reload(rules(), sources(&["prod", "new"]), policy()).await;
    rechecked.unwrap();
    let controls = world.store.controls();
    let known = ["prod", "lab", "new", "other"].map(|source| controls.was_receiving(&name(source)));
    assert_eq!(known, [true, false, true, false]);
    assert_eq!(world.metric(r#"scalebridge_source_reception_gaps_total{source="new",cause="store"}"#), 0.0);
}

#[tokio::test]
async fn a_gap_that_is_not_committed_stays_known_and_is_one_until_the_last_refused_notification() {
    let world = World::new();
    world.refuse("prod", GapCause::Store);
    world.pass(600, false);
    world.bridge.0.gaps.forget_ended(at(600));
    world.refuse("prod", GapCause::Store);
    assert_eq!(world.seen("prod"), Some(gap(0, 600, GapCause::Store)));
    world.bridge.commit_gaps().await;
    assert_eq!(world.committed("prod"), Some(gap(0, 600, GapCause::Store)));
    world.pass(61, false);
    world.bridge.0.gaps.forget_ended(at(661));
    assert_eq!(world.seen("prod"), Some(gap(0, 600, GapCause::Store)));
}

#[tokio::test]
async fn a_decrease_is_not_called_in_a_gap_of_its_source_that_is_not_committed() {
    for (refused, expected) in
        [(None, None), (Some("lab"), None), (Some("prod"), Some(RefusalReason::Superseded))]
    {
        let world = World::with_decrease();
        world.pass(10, false);
        let lease = world.claim_decrease().await;
        refused.into_iter().for_each(|source| world.refuse(source, GapCause::Refused));
        assert_eq!(world.refusal(lease).await, expected, "refused by {refused:?}");
    }
}

#[tokio::test]
async fn a_decrease_is_not_called_after_the_process_was_stopped() {
    let world = World::with_decrease();
    world.pass(10, false);
    let lease = world.claim_decrease().await;
    world.pass(6, true);
    assert_eq!(world.refusal(lease).await, Some(RefusalReason::Superseded));
}
