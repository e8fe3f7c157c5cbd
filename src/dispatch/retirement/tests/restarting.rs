//! A retirement that a restart interrupts completes after it: nothing is lost, and nothing is done twice. Over SQLite.

use tempfile::TempDir;

use super::*;
use crate::store::Sqlite;

fn open(dir: &TempDir, destinations: &[Name]) -> FaultyOutbox {
    let path = dir.path().join("bridge.db");
    FaultyOutbox::new(Store::Sqlite(Sqlite::open(&path, destinations, clock()).unwrap()))
}

/// Interrupts a retirement when it has reached a state, restarts without the destination, and expects that the
/// remaining events become dead letters.
async fn check(
    prepare: impl FnOnce(FaultyOutbox) -> FaultyOutbox,
    is_reached: impl FnMut(&State) -> bool,
    proceed: impl FnOnce(&mut Running),
    dead_before: usize,
) {
    let dir = tempfile::tempdir().unwrap();
    let outbox = prepare(open(&dir, &destinations()).with_events().await);
    // The worker has delivered one event, waits for the retry of another, and is sending a third one.
    let claimed = outbox.store.claim(&queue(), 3).await.unwrap();
    let retry =
        Settlement::Retry { delay: Duration::from_secs(3600), error: "later".into(), uncertain: false };
    let settled = vec![(claimed[0].lease, Settlement::Delivered { answer: None }), (claimed[1].lease, retry)];
    outbox.store.settle(&queue(), settled).await.unwrap();
    let mut running = Running::of_removed(&outbox);
    proceed(&mut running);
    running.reach(is_reached).await;
    eventually_dead(&outbox, dead_before).await;
    running.process_stop.cancel();
    assert_eq!(running.end().await, State::Interrupted);
    outbox.store.close().await;

    // Twice: the second start finds nothing to do.
    for orphans in [usize::from(dead_before < 4), 0] {
        let outbox = open(&dir, &[name("journal")]);
        let found = outbox.store.orphaned_destinations().await.unwrap();
        assert_eq!(found.len(), orphans);
        for orphan in found {
            assert_eq!(orphan, queue());
            outbox.store.add_destinations(&[orphan]).await.unwrap();
            let drained = 4 - dead_before as u64;
            assert_eq!(Running::of_orphan(&outbox).end().await, State::Retired { drained });
        }
        outbox.expect_dead(&[2, 3, 4, 5]).await;
        assert_eq!(outbox.store.backlog(&name("journal")).pending, 5);
        outbox.store.close().await;
    }
}

/// The state is published before the drain of that state begins.
async fn eventually_dead(outbox: &FaultyOutbox, count: usize) {
    while outbox.shared.settled.lock().iter().map(Vec::len).sum::<usize>() < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn while_old_rules_are_in_use() {
    check(|outbox| outbox, |state| matches!(state, State::Quiescing { .. }), |_| {}, 0).await;
}

#[tokio::test]
async fn while_its_worker_settles() {
    let release_rules = |running: &mut Running| running.rules_released.cancel();
    check(|outbox| outbox, |state| matches!(state, State::Stopping(_)), release_rules, 0).await;
}

#[tokio::test]
async fn before_and_between_batches() {
    let at_first = |outbox: FaultyOutbox| outbox.fault(Operation::Settle, Fault::Hang);
    check(at_first, |state| matches!(state, State::Draining(_)), Running::proceed, 0).await;
    let at_second = |outbox: FaultyOutbox| {
        outbox.fault(Operation::Settle, Fault::None).fault(Operation::Settle, Fault::Hang)
    };
    // Three targets, so three deliveries are settled first.
    let has_drained = |state: &State| matches!(state, State::Draining(progress) if progress.drained == 3);
    check(at_second, has_drained, Running::proceed, 3).await;
}

#[tokio::test]
async fn while_deliveries_are_withheld() {
    let is_withheld = |state: &State| matches!(state, State::Withheld { .. });
    check(FaultyOutbox::withhold, is_withheld, Running::proceed, 0).await;
}

#[tokio::test]
async fn while_the_store_fails() {
    let fail = |outbox: FaultyOutbox| outbox.fault(Operation::Settle, Fault::Fail);
    check(fail, |state| matches!(state, State::BackingOff { .. }), Running::proceed, 0).await;
}

#[tokio::test]
async fn before_the_lane_is_closed() {
    let hang = |outbox: FaultyOutbox| outbox.fault(Operation::Remove, Fault::Hang);
    check(hang, |state| matches!(state, State::ClosingLane(_)), Running::proceed, 4).await;
}
