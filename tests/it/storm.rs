//! After a burst of events pruning shrinks the store's file, in steps that do not block other commands for long.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scalebridge::domain::name::Name;
use scalebridge::domain::target::TargetKey;
use scalebridge::testing::wall_clock;
use scalebridge::testing::{Changes, Keys, NewEvent, Record, Settlement, Sqlite, Store};

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
            destinations: [queue()].into(),
            increases_capacity: false,
            may_decrease_capacity: false,
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
        let settled = claimed.iter().map(|one| (one.seq, settlement.clone())).collect();
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
    settle_all(&store, Settlement::Dead { error: "refused".into() }).await;
    while store.prune(Duration::ZERO, Duration::ZERO).await.expect("pruned") {}
    let before = bytes(dir.path());
    for part in 0..EVENTS / EVENTS_PER_COMMIT {
        write(&store, &format!("storm-{part}"), EVENTS_PER_COMMIT, 1000).await;
        settle_all(&store, Settlement::Delivered).await;
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
