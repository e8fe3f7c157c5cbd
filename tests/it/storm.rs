//! After a burst of events pruning shrinks the store's file, in steps that do not block other commands for long.
//! Beside a load, it deletes only what is settled.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scalebridge::domain::delivery::GiveUp;
use scalebridge::domain::engine::Policy;
use scalebridge::domain::name::Name;
use scalebridge::domain::rate::PerMinute;
use scalebridge::domain::target::TargetKey;
use scalebridge::testing::{
    self, Bridge, Changes, DeliveryQueue as _, Keys, Metrics, NewEvent, Record, Settlement, Sqlite, Store,
    wall_clock,
};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::bridge::{CONFIG, RULES, notification, pending_pod};
use crate::support::tools::eventually;

const EVENTS: usize = 60_000;
const EVENTS_PER_COMMIT: usize = 500;

fn queue() -> Name {
    Name::new("queue").expect("a name")
}

fn bytes(dir: &Path) -> u64 {
    let size = |suffix: &str| {
        let path = dir.join(format!("bridge.db{suffix}"));
        std::fs::metadata(path).map_or(0, |file| file.len())
    };
    size("") + size("-wal")
}

/// Writes `count` events of `bytes` bytes, each about its own target, and their decision record.
async fn write(store: &Store, name: &str, count: usize, bytes: usize) {
    let name = name.to_owned();
    let body = format!("{{\"x\":\"{}\"}}", "x".repeat(bytes));
    let decide = move |_: &_| {
        let targets: Vec<TargetKey> =
            (0..count).map(|at| TargetKey::from_stored(&format!("{name}-{at}"))).collect();
        let event = |target: &TargetKey| NewEvent {
            target: target.clone(),
            acting: [queue()].into(),
            destinations: [queue()].into(),
            may_decrease_capacity: false,
            reverts: Arc::default(),
            episode_phase: None,
            body: body.as_str().into(),
        };
        let events = targets.iter().map(event).collect();
        let record = Some(Record { targets, body: body.clone() });
        (Changes { record, events, ..Changes::default() }, ())
    };
    store.transact(Keys::default(), decide).await.expect("written");
}

async fn settle_all(store: &Store, settlement: Settlement) {
    loop {
        let claimed = store.claim(&queue(), EVENTS_PER_COMMIT).await.expect("a claim");
        if claimed.is_empty() {
            return;
        }
        let settled = claimed.iter().map(|one| (one.lease, settlement.clone())).collect();
        store.settle(&queue(), settled).await.expect("settled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_shrinks_after_a_storm_and_no_pruning_step_is_long() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = Sqlite::open(&dir.path().join("bridge.db"), &[queue()], Arc::new(wall_clock));
    let store = Store::Sqlite(opened.expect("a store"));
    // Data from before the storm, which stays: dead letters.
    write(&store, "before", 200, 8000).await;
    settle_all(
        &store,
        Settlement::Dead { error: "refused".into(), cause: GiveUp::Rejected, called: true, uncertain: false },
    )
    .await;
    while store.prune(Duration::ZERO, Duration::ZERO).await.expect("pruned") {}
    let before = bytes(dir.path());
    for part in 0..EVENTS / EVENTS_PER_COMMIT {
        write(&store, &format!("storm-{part}"), EVENTS_PER_COMMIT, 1000).await;
        settle_all(&store, Settlement::Delivered { answer: None }).await;
    }
    let storm = bytes(dir.path());
    assert!(storm > 10 * before, "{before} bytes before, {storm} in the storm");
    let (mut steps, mut longest) = (0, Duration::ZERO);
    // Another thread checkpoints the WAL, so pruning may end shortly before the file has shrunk.
    let mut more = true;
    while more || bytes(dir.path()) > 2 * before {
        let began = Instant::now();
        more = store.prune(Duration::ZERO, Duration::ZERO).await.expect("pruned");
        longest = longest.max(began.elapsed());
        steps += 1;
        assert!(steps < 20_000, "{} bytes, {before} before the storm", bytes(dir.path()));
    }
    assert!(longest < Duration::from_secs(2), "a step took {longest:?}");
    assert_eq!(store.backlog(&queue()).dead, 200);
    store.close().await;
}

const SENDERS: usize = 3;
const TARGETS_PER_SENDER: usize = 8;
/// The load ends when this many events have been pruned beside it.
const PRUNED_UNDER_LOAD: i64 = 500;

fn bridge(dir: &Path, store: &Store) -> Bridge {
    std::fs::write(dir.join("scalebridge.yaml"), CONFIG.replace("journal:", "queue:")).expect("a file");
    std::fs::write(dir.join("rules.yaml"), RULES.replace("[journal]", "[queue]")).expect("a file");
    let settings = testing::load(&dir.join("scalebridge.yaml")).expect("a configuration");
    let policy = Policy {
        last_resolve_retention: Duration::ZERO,
        expired_episode_retention: Duration::ZERO,
        owed_retention: Duration::from_secs(3600),
        probes_destinations: true,
        per_minute: PerMinute::default(),
    };
    Bridge::new(store.clone(), settings.rules, settings.sources, policy, Metrics::new())
}

/// The sizes of the delivered events of each target, in the order of their delivery.
type Delivered = BTreeMap<String, Vec<u64>>;

/// Adds one alert after another to each target of a sender, until the token is cancelled. Each alert causes an event,
/// since it follows the delivery of the event before it. Returns the number of alerts of each target.
async fn grow(
    bridge: Bridge,
    sender: usize,
    mut delivered: watch::Receiver<Delivered>,
    stop: CancellationToken,
) -> BTreeMap<String, u64> {
    let source = bridge.source("prod-eu").expect("a source").clone();
    let targets: Vec<String> = (0..TARGETS_PER_SENDER).map(|at| format!("group-{sender}-{at}")).collect();
    let mut pods = 0;
    while !stop.is_cancelled() {
        let pod = format!("pod-{pods}");
        let alerts: Vec<Value> = targets.iter().map(|target| pending_pod(target, &pod)).collect();
        let body = testing::parse_notification(notification(&alerts).as_bytes()).expect("a notification");
        let summary = bridge.ingest(&source, body, None).await.expect("a decision");
        assert_eq!(summary.events, TARGETS_PER_SENDER as u64, "{summary:?}");
        pods += 1;
        let has_all = |sizes: &Delivered| {
            targets.iter().all(|target| sizes.get(target).and_then(|sizes| sizes.last()) == Some(&pods))
        };
        delivered.wait_for(has_all).await.expect("deliveries");
    }
    targets.into_iter().map(|target| (target, pods)).collect()
}

/// Delivers events until the token is cancelled and none are left. Every third fails once, so that it is read from the
/// store again.
async fn deliver(store: Store, delivered: watch::Sender<Delivered>, stop: CancellationToken) {
    loop {
        let is_last = stop.is_cancelled();
        let claimed = store.claim(&queue(), EVENTS_PER_COMMIT).await.expect("a claim");
        if is_last && claimed.is_empty() && store.undelivered() == 0 {
            return;
        }
        let (mut settled, mut sizes) = (Vec::new(), Vec::new());
        for one in claimed {
            if one.lease.seq().0 % 3 == 0 && one.attempts == 0 {
                let error = "reset by peer".to_owned();
                settled
                    .push((one.lease, Settlement::Retry { delay: Duration::ZERO, error, uncertain: false }));
                continue;
            }
            let event: Value = serde_json::from_str(&one.body).expect("an event");
            let target = event["data"]["target"]["name"].as_str().expect("a name").to_owned();
            sizes.push((target, event["data"]["alerts_total"].as_u64().expect("a number")));
            settled.push((one.lease, Settlement::Delivered { answer: None }));
        }
        if !settled.is_empty() {
            store.settle(&queue(), settled).await.expect("settled");
            delivered.send_modify(|all| {
                sizes.into_iter().for_each(|(target, size)| all.entry(target).or_default().push(size));
            });
        }
        tokio::task::yield_now().await;
    }
}

/// The number of deleted events: ids rise from 1. The newest events may be among the deleted ones and are not counted.
fn pruned_events(dir: &Path) -> i64 {
    let database = rusqlite::Connection::open(dir.join("bridge.db")).expect("a database");
    let query = "SELECT coalesce(max(id), 0) - count(*) FROM events";
    database.query_row(query, [], |row| row.get(0)).expect("a number")
}

/// Nothing is retained, so each step deletes what was settled a moment ago, next to what is still to be delivered.
#[tokio::test(flavor = "multi_thread")]
async fn pruning_beside_a_load_deletes_settled_events_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = Sqlite::open(&dir.path().join("bridge.db"), &[queue()], Arc::new(wall_clock));
    let store = Store::Sqlite(opened.expect("a store"));
    let bridge = bridge(dir.path(), &store);
    let (end_of_load, end_of_delivery) = (CancellationToken::new(), CancellationToken::new());
    let (sizes, delivered) = watch::channel(Delivered::new());
    let grow = |sender| grow(bridge.clone(), sender, delivered.clone(), end_of_load.clone());
    let senders: JoinSet<_> = (0..SENDERS).map(grow).collect();
    let delivering = tokio::spawn(deliver(store.clone(), sizes, end_of_delivery.clone()));

    eventually("events to be pruned under load", async || {
        for _ in 0..20 {
            store.prune(Duration::ZERO, Duration::ZERO).await.expect("pruned");
        }
        (pruned_events(dir.path()) >= PRUNED_UNDER_LOAD).then_some(())
    })
    .await;
    end_of_load.cancel();
    let alerts: BTreeMap<String, u64> = senders.join_all().await.into_iter().flatten().collect();
    end_of_delivery.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(30), delivering).await;
    ended.expect("everything is delivered").expect("the deliveries");
    let expected = alerts.into_iter().map(|(target, alerts)| (target, (1..=alerts).collect()));
    assert_eq!(*delivered.borrow(), expected.collect::<Delivered>());
    assert_eq!(store.undelivered(), 0);
    store.close().await;
}
