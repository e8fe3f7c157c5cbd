//! The task under paused time, over the in-memory store.

use tokio::time::Instant;

use super::*;
use crate::domain::phase::Phase;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(start_paused = true)]
async fn a_removed_destination_waits_for_old_rules_and_worker_and_leaves_dead_letters() {
    let outbox = FaultyOutbox::memory().with_events().await;
    let mut running = Running::of_removed(&outbox);
    running.reach(|state| matches!(state, State::Quiescing { .. })).await;
    let worker = running.worker.take().unwrap();
    assert!(!running.handle.wait_retired(Instant::now() + seconds(30)).await);
    assert!(!worker.stop().is_cancelled(), "the worker continues while the old rules are in use");
    // The old rules enqueue one more event, which the worker claims.
    emit(&outbox.store, 6, "d").await;
    running.rules_released.cancel();
    worker.stop().cancelled().await;
    assert!(matches!(running.state(), State::Stopping(_)));
    let claimed = outbox.store.claim(&queue(), 1).await.unwrap();
    let settled = vec![(claimed[0].lease, Settlement::Delivered { answer: None })];
    outbox.store.settle(&queue(), settled).await.unwrap();
    outbox.expect_dead(&[]).await;
    drop(worker);
    assert_eq!(running.end().await, State::Retired { drained: 5 });
    outbox.expect_dead(&[2, 3, 4, 5, 6]).await;
    assert!(outbox.store.claim(&queue(), 1).await.is_err(), "the lane is closed");
    assert_eq!(outbox.store.backlog(&name("journal")).pending, 6, "others are not concerned");
}

#[tokio::test(start_paused = true)]
async fn old_rules_that_stay_in_use_are_waited_for_a_minute() {
    let outbox = FaultyOutbox::memory().with_events().await;
    let start = Instant::now();
    let mut running = Running::of_removed(&outbox);
    running.worker.as_ref().unwrap().stop().cancelled().await;
    assert_eq!(start.elapsed(), seconds(60));
    running.worker = None;
    assert_eq!(running.end().await, State::Retired { drained: 5 });
}

/// A worker that ends in an earlier state has failed; the process exits then, and the state does not change.
#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_early_does_not_end_the_wait_for_the_old_rules() {
    let outbox = FaultyOutbox::memory().with_events().await;
    let mut running = Running::of_removed(&outbox);
    running.worker = None;
    tokio::time::sleep(seconds(1)).await;
    assert!(matches!(running.state(), State::Quiescing { .. }));
    running.proceed();
    assert_eq!(running.end().await, State::Retired { drained: 5 });
}

/// Its claims are those of a worker that could not settle them, or that wait for a retry.
#[tokio::test(start_paused = true)]
async fn claimed_and_failed_deliveries_are_drained_without_their_backoff() {
    let outbox = FaultyOutbox::memory().with_events().await;
    let claimed = outbox.store.claim(&queue(), 2).await.unwrap();
    let retry = Settlement::Retry { delay: seconds(3600), error: "later".into(), uncertain: false };
    outbox.store.settle(&queue(), vec![(claimed[0].lease, retry)]).await.unwrap();
    let start = Instant::now();
    assert_eq!(Running::of_orphan(&outbox).end().await, State::Retired { drained: 5 });
    assert_eq!(start.elapsed(), Duration::ZERO);
    outbox.expect_dead(&[1, 2, 3, 4, 5]).await;
    // One event a target at a time.
    let batches: Vec<usize> = outbox.shared.settled.lock().iter().map(Vec::len).collect();
    assert_eq!(batches, [3, 1, 1]);
}

/// The `on_firing` event becomes a dead letter, so its `on_resolved` event has nothing to compensate.
#[tokio::test(start_paused = true)]
async fn a_compensation_of_what_never_arrived_is_withdrawn() {
    let outbox = FaultyOutbox::memory();
    for (seq, phase) in [(1, Phase::Firing), (2, Phase::Resolved)] {
        let episode_phase = Some(EpisodePhase { phase, episode: "e".into() });
        emit_phase(&outbox.store, seq, "a", episode_phase).await;
    }
    assert_eq!(Running::of_orphan(&outbox).end().await, State::Retired { drained: 2 });
    outbox.expect_dead(&[1]).await;
    let settled = outbox.shared.settled.lock();
    let [Settlement::Withdrawn { reason }] = settled[1].as_slice() else { panic!("{settled:?}") };
    assert!(reason.starts_with("destination_removed: "), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn each_failure_of_the_store_is_followed_by_another_attempt_after_five_seconds() {
    for operation in [Operation::Claim, Operation::Settle, Operation::Remove] {
        let outbox = FaultyOutbox::memory().with_events().await;
        let outbox = outbox.fault(operation, Fault::Fail).fault(operation, Fault::Fail);
        let start = Instant::now();
        assert_eq!(Running::of_orphan(&outbox).end().await, State::Retired { drained: 5 }, "{operation:?}");
        assert_eq!(start.elapsed(), seconds(10), "{operation:?}");
        outbox.expect_dead(&[1, 2, 3, 4, 5]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn withheld_deliveries_are_drained_when_they_are_released() {
    let outbox = FaultyOutbox::memory().with_events().await.withhold();
    let start = Instant::now();
    let mut running = Running::of_orphan(&outbox);
    running.reach(|state| matches!(state, State::Withheld { .. })).await;
    // A wake-up for another reason.
    outbox.shared.released.notify_one();
    tokio::time::sleep(seconds(1)).await;
    assert!(matches!(running.state(), State::Withheld { .. }));
    outbox.release();
    assert_eq!(running.end().await, State::Retired { drained: 5 });
    assert_eq!(start.elapsed(), seconds(1), "it is woken and does not poll");
    outbox.expect_dead(&[1, 2, 3, 4, 5]).await;
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_stay_withheld_are_left_to_the_next_start() {
    let outbox = FaultyOutbox::memory().with_events().await.withhold();
    let start = Instant::now();
    assert_eq!(Running::of_orphan(&outbox).end().await, State::Retired { drained: 0 });
    assert_eq!(start.elapsed(), seconds(2));
}

#[tokio::test(start_paused = true)]
async fn a_successor_takes_over_the_claims_of_a_worker_that_has_ended() {
    let outbox = FaultyOutbox::memory().with_events().await;
    let claimed = outbox.store.claim(&queue(), 10).await.unwrap();
    assert_eq!((claimed.len(), outbox.store.claim(&queue(), 10).await.unwrap().len()), (3, 0));
    let mut running = Running::of_replaced(&outbox);
    let worker = running.worker.take().unwrap();
    worker.stop().cancelled().await;
    tokio::time::sleep(seconds(100)).await;
    assert_eq!(outbox.store.claim(&queue(), 10).await.unwrap().len(), 0, "the worker has not ended");
    drop(worker);
    assert_eq!(running.end().await, State::HandedOver);
    assert_eq!(outbox.store.claim(&queue(), 10).await.unwrap().len(), 3);
    outbox.expect_dead(&[]).await;
}

/// The state of a running retirement that does not proceed.
struct Blocked {
    state: &'static str,
    outbox: FaultyOutbox,
    running: Running,
}

/// A retirement that stays in each of the states, as far as time alone does not change it within ten seconds.
async fn blocked() -> Vec<Blocked> {
    let mut all = Vec::new();
    let outbox = FaultyOutbox::memory().with_events().await;
    let running = Running::of_removed(&outbox);
    all.push(Blocked { state: "Quiescing", outbox, running });
    let outbox = FaultyOutbox::memory().with_events().await;
    let running = Running::of_removed(&outbox);
    running.rules_released.cancel();
    all.push(Blocked { state: "Stopping", outbox, running });
    for (state, operation) in
        [("Draining", Operation::Claim), ("Draining", Operation::Settle), ("ClosingLane", Operation::Remove)]
    {
        let outbox = FaultyOutbox::memory().with_events().await.fault(operation, Fault::Hang);
        let running = Running::of_orphan(&outbox);
        all.push(Blocked { state, outbox, running });
    }
    let outbox = FaultyOutbox::memory().with_events().await;
    let outbox = (0..100).fold(outbox, |outbox, _| outbox.fault(Operation::Claim, Fault::Fail));
    let running = Running::of_orphan(&outbox);
    all.push(Blocked { state: "BackingOff", outbox, running });
    for blocked in &mut all {
        blocked.running.reach(|state| format!("{state:?}").starts_with(blocked.state)).await;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_configured_again_is_waited_for_in_each_state_and_not_longer() {
    for Blocked { state, mut running, .. } in blocked().await {
        assert!(!running.handle.is_over(), "{state}");
        let start = Instant::now();
        assert!(!running.handle.wait_retired(start + seconds(10)).await, "{state}");
        assert_eq!(start.elapsed(), seconds(10), "{state}");
        assert!(format!("{:?}", running.state()).starts_with(state), "{state}: not reversed");
    }
    let refused = StillRetiring(queue()).to_string();
    assert_eq!(refused, "destination queue is still being removed, retry later");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_configured_again_can_be_added_as_soon_as_it_is_retired() {
    let outbox = FaultyOutbox::memory().with_events().await.fault(Operation::Settle, Fault::Fail);
    let mut running = Running::of_removed(&outbox);
    running.proceed();
    let start = Instant::now();
    assert!(running.handle.wait_retired(start + seconds(10)).await);
    assert_eq!(start.elapsed(), seconds(5));
    assert!(running.is_reported.load(Ordering::Relaxed), "metrics are removed before, not after it is added");
    assert!(running.handle.is_over());
    outbox.store.add_destinations(&[queue()]).await.unwrap();
    emit(&outbox.store, 6, "a").await;
    let claimed = outbox.store.claim(&queue(), 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    outbox.expect_dead(&[1, 2, 3, 4, 5]).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_interrupts_each_state_at_once() {
    for Blocked { state, outbox, running } in blocked().await {
        let start = Instant::now();
        running.process_stop.cancel();
        assert_eq!(running.end().await, State::Interrupted, "{state}");
        assert_eq!(start.elapsed(), Duration::ZERO, "{state}");
        let dead = outbox.dead_letters("queue").await.len() as u64;
        assert_eq!(dead + outbox.store.undelivered_at(&queue()), 5, "{state}");
    }
    let outbox = FaultyOutbox::memory().with_events().await.withhold();
    let mut running = Running::of_orphan(&outbox);
    running.reach(|state| matches!(state, State::Withheld { .. })).await;
    running.process_stop.cancel();
    assert_eq!(running.end().await, State::Interrupted);
    let outbox = FaultyOutbox::memory().with_events().await;
    let running = Running::of_replaced(&outbox);
    running.process_stop.cancel();
    assert_eq!(running.end().await, State::Interrupted);
}
