//! The stores are durable, and the in-memory store and SQLite behave alike.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use scalebridge::domain::delivery::GiveUp;
use scalebridge::domain::engine::Policy;
use scalebridge::domain::name::Name;
use scalebridge::domain::rate::PerMinute;
use scalebridge::domain::summary::Summary;
use scalebridge::domain::target::TargetKey;
use scalebridge::domain::time::Time;
use scalebridge::domain::verdict::Verdict;
use scalebridge::testing::{self, DeliveryQueue as _, Metrics, wall_clock};
use scalebridge::testing::{Bridge, Initiator, PauseRequest, Pauses};
use scalebridge::testing::{Memory, Settlement, Sqlite, Store};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::bridge::{CONFIG, RULES};
use crate::support::tools::eventually;

fn journal() -> Name {
    Name::new("journal").expect("a name")
}

fn sqlite(dir: &Path) -> Store {
    let opened = Sqlite::open(&dir.join("bridge.db"), &[journal()], Arc::new(wall_clock));
    Store::Sqlite(opened.expect("a store"))
}

fn policy(retention_secs: u64) -> Policy {
    Policy {
        last_resolve_retention: Duration::from_secs(retention_secs),
        expired_episode_retention: Duration::from_secs(retention_secs),
        owed_retention: Duration::from_secs(3600),
        probes_destinations: true,
        per_minute: PerMinute::default(),
    }
}

fn bridge(dir: &Path, store: &Store) -> Bridge {
    bridge_with(dir, store, policy(3600))
}

fn bridge_with(dir: &Path, store: &Store, policy: Policy) -> Bridge {
    std::fs::write(dir.join("scalebridge.yaml"), CONFIG).expect("a file");
    std::fs::write(dir.join("rules.yaml"), RULES).expect("a file");
    let settings = testing::load(&dir.join("scalebridge.yaml")).expect("a configuration");
    Bridge::new(store.clone(), settings.rules, settings.sources, policy, Metrics::new())
}

async fn post(bridge: &Bridge, body: &Value) -> Summary {
    let notification = testing::parse_notification(body.to_string().as_bytes()).expect("a notification");
    let source = bridge.source("prod-eu").expect("a source").clone();
    bridge.ingest(&source, notification, None).await.expect("a decision")
}

/// Claims and delivers all events. Returns their ids in the order of the claims, by target.
async fn deliver(store: &Store) -> BTreeMap<String, Vec<String>> {
    let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
    loop {
        let claimed = store.claim(&journal(), 7).await.expect("a claim");
        if claimed.is_empty() {
            return ids;
        }
        let mut settled = Vec::new();
        for one in claimed {
            let event: Value = serde_json::from_str(&one.body).expect("an event");
            let text = |field: &str| event[field].as_str().expect("a text").to_owned();
            ids.entry(text("subject")).or_default().push(text("id"));
            settled.push((one.lease, Settlement::Delivered { answer: None }));
        }
        store.settle(&journal(), settled).await.expect("settled");
    }
}

/// An operation of the property test. The times of alerts are seconds relative to the creation of the stores, so
/// some of the alerts are adopted.
#[derive(Debug, Clone)]
enum Operation {
    Post { alerts: Vec<(u8, u8, bool, i64)>, truncated: bool },
    Restart,
    Deliver,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let alert = (0..3_u8, 0..4_u8, any::<bool>(), -50..50_i64);
    let post = (prop::collection::vec(alert, 1..6), prop::bool::weighted(0.1))
        .prop_map(|(alerts, truncated)| Operation::Post { alerts, truncated });
    let operation = prop_oneof![8 => post, 1 => Just(Operation::Restart), 1 => Just(Operation::Deliver)];
    prop::collection::vec(operation, 1..25)
}

fn body(start: Time, alerts: &[(u8, u8, bool, i64)], truncated: bool) -> Value {
    let at = |seconds: i64| Time::from_nanos(start.as_nanos() + seconds * 1_000_000_000).to_string();
    let alerts: Vec<Value> = alerts
        .iter()
        .map(|(group, pod, firing, seconds)| {
            json!({
                "status": if *firing { "firing" } else { "resolved" },
                "labels": { "alertname": "KubePodsPending", "nodegroup": format!("group-{group}") },
                "annotations": {}, "startsAt": at(*seconds), "endsAt": at(*seconds + 10),
                "fingerprint": format!("{group}-{pod}"),
            })
        })
        .collect();
    json!({ "version": "4", "alerts": alerts, "truncatedAlerts": u64::from(truncated) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// SQLite, restarted at random, decides and delivers like the in-memory store.
    #[test]
    fn both_stores_decide_and_deliver_alike(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("a directory");
            let start = wall_clock();
            let memory = Store::Memory(Memory::new(&[journal()], Arc::new(wall_clock)));
            let in_memory = bridge(dir.path(), &memory);
            let mut file = sqlite(dir.path());
            let mut in_file = bridge(dir.path(), &file);
            for operation in operations {
                match operation {
                    Operation::Post { alerts, truncated } => {
                        let body = body(start, &alerts, truncated);
                        prop_assert_eq!(post(&in_memory, &body).await, post(&in_file, &body).await);
                    }
                    Operation::Deliver => prop_assert_eq!(deliver(&memory).await, deliver(&file).await),
                    Operation::Restart => {
                        file.close().await;
                        file = sqlite(dir.path());
                        in_file = bridge(dir.path(), &file);
                    }
                }
                prop_assert_eq!(memory.backlog(&journal()), file.backlog(&journal()));
            }
            prop_assert_eq!(deliver(&memory).await, deliver(&file).await);
            for group in 0..3 {
                let key = TargetKey::from_stored(&format!("eks/nodegroup/-/eu-west-1/prod-eu/-/group-{group}"));
                let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
                let decisions_of = |records: Vec<String>| records.iter().map(|record| decisions(record)).collect::<Vec<_>>();
                let one = decisions_of(memory.history(&key, from, to).await.expect("a history"));
                let other = decisions_of(file.history(&key, from, to).await.expect("a history"));
                prop_assert_eq!(one, other);
            }
            file.close().await;
            Ok(())
        })?;
    }
}

/// The decisions of a record without `until`, which differs between the clocks of two stores.
fn decisions(record: &str) -> Value {
    let mut record: Value = serde_json::from_str(record).expect("a record");
    let mut decisions = record["decisions"].take();
    for decision in decisions.as_array_mut().expect("a list") {
        decision.as_object_mut().expect("a decision").remove("until");
    }
    decisions
}

#[tokio::test]
async fn a_failed_delivery_is_retried_with_its_attempt_count_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = wall_clock();
    let mut store = sqlite(dir.path());
    post(
        &bridge(dir.path(), &store),
        &body(start, &[(0, 0, true, 0), (1, 0, true, 0), (2, 0, true, 0)], false),
    )
    .await;
    let claimed = store.claim(&journal(), 10).await.expect("a claim");
    assert_eq!(claimed.len(), 3);
    let retry = Settlement::Retry { delay: Duration::ZERO, error: "no answer".into(), uncertain: false };
    let dead =
        Settlement::Dead { error: "too old".into(), cause: GiveUp::Rejected, called: true, uncertain: false };
    let settled = vec![(claimed[0].lease, retry), (claimed[1].lease, dead)];
    store.settle(&journal(), settled).await.expect("settled");
    store.close().await;

    store = sqlite(dir.path());
    let backlog = store.backlog(&journal());
    assert_eq!((backlog.pending, backlog.retrying, backlog.dead), (1, 1, 1));
    let again = store.claim(&journal(), 10).await.expect("a claim");
    let attempts: Vec<_> = again.iter().map(|one| (one.lease.seq(), one.attempts)).collect();
    assert_eq!(attempts, [(claimed[0].lease.seq(), 1), (claimed[2].lease.seq(), 0)]);
    assert_eq!(again[0].body, claimed[0].body);
    let settled = again.iter().map(|one| (one.lease, Settlement::Delivered { answer: None })).collect();
    store.settle(&journal(), settled).await.expect("settled");
    assert_eq!(store.backlog(&journal()).retrying, 0);
    store.close().await;
}

#[tokio::test]
async fn expired_rows_are_pruned_and_unsettled_deliveries_stay() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = wall_clock();
    let store = sqlite(dir.path());
    let bridge = bridge(dir.path(), &store);
    post(&bridge, &body(start, &[(0, 0, true, 0), (1, 0, true, 0), (2, 0, true, 0)], false)).await;
    post(&bridge, &body(start, &[(3, 0, true, 0)], false)).await;
    let claimed = store.claim(&journal(), 10).await.expect("a claim");
    let dead =
        Settlement::Dead { error: "too old".into(), cause: GiveUp::Rejected, called: true, uncertain: false };
    let settled = vec![(claimed[0].lease, Settlement::Delivered { answer: None }), (claimed[1].lease, dead)];
    store.settle(&journal(), settled).await.expect("settled");
    while store.prune(Duration::ZERO, Duration::ZERO).await.expect("pruned") {}
    store.close().await;

    let events = |database: &rusqlite::Connection, query: &str| {
        database.query_row(query, [], |row| row.get::<_, i64>(0)).expect("a number")
    };
    let database = rusqlite::Connection::open(dir.path().join("bridge.db")).expect("a database");
    assert_eq!(
        events(&database, "SELECT count(*) FROM events"),
        3,
        "one dead letter, one claimed and one pending delivery"
    );
    assert_eq!(events(&database, "SELECT count(*) FROM records"), 1, "the newest decision record stays");
    assert_eq!(
        events(&database, "SELECT count(*) FROM history"),
        1,
        "the first record has no history any more"
    );
    assert_eq!(events(&database, "SELECT count(*) FROM targets"), 4, "targets with open episodes stay");
}

#[tokio::test]
async fn the_history_of_a_target_outlives_its_state() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = sqlite(dir.path());
    std::fs::write(dir.path().join("scalebridge.yaml"), CONFIG).expect("a file");
    std::fs::write(dir.path().join("rules.yaml"), RULES).expect("a file");
    let settings = testing::load(&dir.path().join("scalebridge.yaml")).expect("a configuration");
    // The last resolve of an alert is not retained.
    let bridge = Bridge::new(store.clone(), settings.rules, settings.sources, policy(0), Metrics::new());
    let start = wall_clock();
    post(&bridge, &body(start, &[(0, 0, true, 1)], false)).await;
    deliver(&store).await;
    post(&bridge, &body(start, &[(0, 0, false, 1)], false)).await;
    deliver(&store).await;
    bridge.process_due().await.expect("decided");
    post(&bridge, &body(start, &[(0, 1, true, 60)], false)).await;
    let key = TargetKey::from_stored("eks/nodegroup/-/eu-west-1/prod-eu/-/group-0");
    let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
    let history = store.history(&key, from, to).await.expect("a history");
    let verdicts: Vec<_> = history.iter().map(|record| decisions(record)[0]["verdict"].clone()).collect();
    assert_eq!(verdicts, ["emitted", "emitted", "emitted"]);
    store.close().await;
}

/// Concurrent transactions about one target are serialized.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_notifications_about_one_target_are_decided_one_after_the_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = wall_clock();
    let store = sqlite(dir.path());
    let bridge = bridge(dir.path(), &store);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let bridge = bridge.clone();
        tasks.spawn(async move {
            for pods in 1..=4 {
                let alerts: Vec<_> = (0..pods).map(|pod| (0, pod, true, 1)).collect();
                post(&bridge, &body(start, &alerts, false)).await;
            }
        });
    }
    let posted = tokio::spawn(tasks.join_all());
    // Growth waits for the delivery of the event before it.
    let mut sizes = Vec::new();
    loop {
        let is_last = posted.is_finished();
        bridge.process_due().await.expect("decided");
        let claimed = store.claim(&journal(), 7).await.expect("a claim");
        if is_last && claimed.is_empty() {
            break;
        }
        sizes.extend(claimed.iter().map(|one| {
            let event: Value = serde_json::from_str(&one.body).expect("an event");
            event["data"]["alerts_total"].as_u64().expect("a number of alerts")
        }));
        let settled = claimed.iter().map(|one| (one.lease, Settlement::Delivered { answer: None })).collect();
        store.settle(&journal(), settled).await.expect("settled");
        tokio::task::yield_now().await;
    }
    posted.await.expect("the notifications");
    // How many bodies find growth depends on their order; each event must exceed the one before.
    let key = TargetKey::from_stored("eks/nodegroup/-/eu-west-1/prod-eu/-/group-0");
    let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
    let history = store.history(&key, from, to).await.expect("a history");
    let all = history.iter().flat_map(|record| decisions(record).as_array().cloned().unwrap_or_default());
    let emitted = all.filter(|decision| decision["verdict"] == "emitted").count();
    assert_eq!(sizes.len(), emitted, "{sizes:?}");
    assert!(sizes.is_sorted_by(|a, b| a < b), "growth is emitted once: {sizes:?}");
    assert_eq!(sizes.last(), Some(&4), "the last growth is emitted");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn concurrent_notifications_about_many_targets_stay_within_the_rate_limit() {
    const PER_MINUTE: u32 = 5;
    let dir = tempfile::tempdir().expect("a directory");
    let start = wall_clock();
    for store in [sqlite(dir.path()), Store::Memory(Memory::new(&[journal()], Arc::new(wall_clock)))] {
        let per_minute = PerMinute { scale_out: PER_MINUTE, scale_in: 0 };
        let bridge = bridge_with(dir.path(), &store, Policy { per_minute, ..policy(3600) });
        // What is only explained does not count.
        let source = bridge.source("prod-eu").expect("a source");
        let all: Vec<_> = (0..20).map(|group| (group, 0, true, 1)).collect();
        let notification = testing::parse_notification(body(start, &all, false).to_string().as_bytes());
        bridge.explain(&source, notification.expect("a notification")).await.expect("an explanation");

        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8_u8 {
            let bridge = bridge.clone();
            tasks.spawn(async move {
                let mut verdicts: BTreeMap<Verdict, u64> = BTreeMap::new();
                for group in 0..20 {
                    let alerts = [(20 * task + group, 0, true, 1)];
                    for (verdict, count) in post(&bridge, &body(start, &alerts, false)).await.verdicts {
                        *verdicts.entry(verdict).or_default() += count;
                    }
                }
                verdicts
            });
        }
        let verdicts = tasks.join_all().await;
        let total = |verdict| verdicts.iter().filter_map(|counts| counts.get(&verdict)).sum::<u64>();
        assert_eq!(total(Verdict::Emitted), u64::from(PER_MINUTE));
        assert_eq!(total(Verdict::OverBudget), 160 - u64::from(PER_MINUTE));
        let events: usize = deliver(&store).await.values().map(Vec::len).sum();
        assert_eq!(events, PER_MINUTE as usize);
        store.close().await;
    }
}

/// A scale-in with a stabilization window of five minutes waits at most five minutes after a restart, wherever
/// the wall clock is then: a day back, unchanged, or ten minutes ahead.
#[tokio::test]
async fn a_deferred_action_waits_no_longer_than_its_guard_whatever_the_wall_clock_did() {
    const WINDOW: Duration = Duration::from_secs(300);
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("scalebridge.yaml"), CONFIG).expect("a file");
    let rules = RULES.replace("stabilization_window: 0s", "stabilization_window: 5m");
    std::fs::write(dir.path().join("rules.yaml"), rules).expect("a file");
    let open = |wall: Time| {
        let opened = Sqlite::open(&dir.path().join("bridge.db"), &[journal()], Arc::new(move || wall));
        let settings = testing::load(&dir.path().join("scalebridge.yaml")).expect("a configuration");
        let store = Store::Sqlite(opened.expect("a store"));
        let bridge =
            Bridge::new(store.clone(), settings.rules, settings.sources, policy(3600), Metrics::new());
        (store, bridge)
    };
    let begin = wall_clock();
    let (store, first) = open(begin);
    post(&first, &body(begin, &[(0, 0, true, 1)], false)).await;
    deliver(&store).await;
    let closed = post(&first, &body(begin, &[(0, 0, false, 1)], false)).await;
    assert_eq!(closed.events, 0);
    store.close().await;
    for offset in [-86_400, 0, 600] {
        let wall = Time::from_nanos(begin.as_nanos() + offset * 1_000_000_000);
        let (store, bridge) = open(wall);
        let now = store.now();
        let due = store.next_due().borrow().expect("a deferred action");
        assert!(due.since(now) <= WINDOW, "{:?} remaining with the clock {offset} s off", due.since(now));
        let before = store.backlog(&journal()).pending;
        bridge.process_due().await.expect("decided");
        let decided = store.backlog(&journal()).pending - before;
        assert_eq!(decided, u64::from(offset > 0), "with the clock {offset} s off");
        store.close().await;
    }
}

fn pauses(store: &Store) -> Pauses {
    Pauses::new(store.clone())
}

fn ana() -> Initiator {
    Initiator::with_reason("ana", "the database moves").expect("an initiator")
}

/// Deferred actions are rechecked when their pause ends, also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_survives_a_restart_and_deferred_actions_run_when_it_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let begin = wall_clock();
    let store = sqlite(dir.path());
    let request = PauseRequest { rule: None, target: None, direction: None, ends_after: None };
    let first = bridge(dir.path(), &store);
    let pause = pauses(&store).pause(ana(), request).await.expect("a pause");
    let fired = post(&first, &body(begin, &[(0, 0, true, 1)], false)).await;
    assert_eq!(fired.verdicts.get(&Verdict::Paused), Some(&1));
    store.close().await;

    let store = sqlite(dir.path());
    let second = bridge(dir.path(), &store);
    assert_eq!(pauses(&store).active(), std::slice::from_ref(&pause));
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (second, stop) = (second.clone(), stop.clone());
        async move { second.run(&stop).await }
    });
    assert_eq!(pauses(&store).resume(ana(), pause.id + 1).await.expect("an answer"), None);
    assert_eq!(pauses(&store).resume(ana(), pause.id).await.expect("an answer"), Some(pause));
    eventually("the event", async || (store.backlog(&journal()).pending == 1).then_some(())).await;
    stop.cancel();
    running.await.expect("the task");
    assert!(pauses(&store).active().is_empty());
    store.close().await;
}

/// Emits two scale-outs of one episode, and settles them as given. Returns which of them the scale-in of the episode
/// takes back; `None` if there is no scale-in.
async fn taken_back(ends: [Settlement; 2]) -> Option<Vec<usize>> {
    let dir = tempfile::tempdir().expect("a directory");
    let start = wall_clock();
    let mut store = sqlite(dir.path());
    let mut ids = Vec::new();
    for (pods, end) in (1..).zip(ends) {
        let alerts: Vec<_> = (0..pods).map(|pod| (0, pod, true, 1)).collect();
        assert_eq!(post(&bridge(dir.path(), &store), &body(start, &alerts, false)).await.events, 1);
        let claimed = store.claim(&journal(), 10).await.expect("a claim");
        let event: Value = serde_json::from_str(&claimed[0].body).expect("an event");
        ids.push(event["id"].clone());
        store.settle(&journal(), vec![(claimed[0].lease, end)]).await.expect("settled");
        store.close().await;
        store = sqlite(dir.path());
        while store.prune(Duration::ZERO, Duration::ZERO).await.expect("pruned") {}
    }
    let closed = body(start, &[(0, 0, false, 1), (0, 1, false, 1)], false);
    let closed = post(&bridge(dir.path(), &store), &closed).await;
    let claimed = store.claim(&journal(), 10).await.expect("a claim");
    store.close().await;
    let Some(claimed) = claimed.first() else {
        assert_eq!(closed.verdicts, BTreeMap::from([(Verdict::NoEvidence, 2)]));
        return None;
    };
    assert!(closed.events == 1 && !claimed.nothing_to_compensate, "{closed:?}");
    let event: Value = serde_json::from_str(&claimed.body).expect("an event");
    assert_eq!(event["data"]["action"], "scale_in");
    let reverts = event["data"]["reverts"].as_array().expect("a list");
    let place = |id| ids.iter().position(|known| known == id).expect("a scale-out");
    Some(reverts.iter().map(place).collect())
}

#[tokio::test]
async fn a_scale_in_takes_back_what_arrived_of_its_episode() {
    let delivered = || Settlement::Delivered { answer: None };
    let dead = || Settlement::Dead {
        error: "refused".into(),
        cause: GiveUp::Rejected,
        called: true,
        uncertain: false,
    };
    assert_eq!(taken_back([delivered(), delivered()]).await, Some(vec![0, 1]));
    assert_eq!(taken_back([dead(), delivered()]).await, Some(vec![1]));
    assert_eq!(taken_back([delivered(), dead()]).await, Some(vec![0]));
    assert_eq!(taken_back([dead(), dead()]).await, None);
}

/// Targets that become due while the store is locked are processed after it is unlocked.
#[tokio::test(flavor = "multi_thread")]
async fn targets_due_while_the_store_is_locked_are_processed_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let begin = wall_clock();
    let store = sqlite(dir.path());
    let first = bridge(dir.path(), &store);
    let request = PauseRequest {
        rule: None,
        target: None,
        direction: None,
        ends_after: Some(Duration::from_millis(300)),
    };
    pauses(&store).pause(ana(), request).await.expect("a pause");
    let fired = post(&first, &body(begin, &[(0, 0, true, 1)], false)).await;
    assert_eq!(fired.verdicts.get(&Verdict::Paused), Some(&1));
    let other = rusqlite::Connection::open(dir.path().join("bridge.db")).expect("a database");
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let failed = async || first.process_due().await.is_err().then_some(());
    eventually("a refusal", failed).await;
    assert_eq!(store.backlog(&journal()).pending, 0);
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (first, stop) = (first.clone(), stop.clone());
        async move { first.run(&stop).await }
    });
    other.execute_batch("ROLLBACK").expect("unlocked");
    eventually("the event", async || (store.backlog(&journal()).pending == 1).then_some(())).await;
    stop.cancel();
    running.await.expect("the task");
    store.close().await;
}
