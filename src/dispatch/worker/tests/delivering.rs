//! Delivery: batches, order, and events that are not sent.

use super::*;

#[tokio::test(start_paused = true)]
async fn pending_and_later_events_are_delivered_in_batches() {
    let harness = WorkerHarness::new(deliver_all);
    (0..25).for_each(|seq| harness.scale_out(seq));
    let (stop, worker) = harness.start(2);
    tokio::time::sleep(seconds(1)).await;
    harness.scale_out(25);
    tokio::time::sleep(seconds(1)).await;
    stop.cancel();
    worker.await.unwrap();
    let sizes: Vec<_> = harness.sends().iter().map(|sent| sent.seqs.len()).collect();
    assert_eq!(sizes, [10, 10, 5, 1]);
    assert!((0..=25).all(|seq| harness.history(seq) == [Settlement::Delivered { answer: None }]));
    assert_eq!(harness.0.concurrent.lock().1, 2, "as many concurrent calls as allowed");
    assert_eq!(harness.0.outcomes.lock().len(), 26);
    assert!(harness.0.health_changes.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn events_about_one_target_are_sent_one_at_a_time() {
    let harness = WorkerHarness::new(|batch, call| {
        if call == 1 { Ok(vec![Err(Failure::transient("busy"))]) } else { deliver_all(batch, call) }
    });
    (0..5).for_each(|seq| harness.emit(seq, "workers", "scale_out"));
    harness.run(8, seconds(60)).await;
    let order: Vec<i64> = harness.sends().into_iter().flat_map(|sent| sent.seqs).collect();
    assert_eq!(order, [0, 0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn batches_beyond_the_available_calls_wait_for_one() {
    let harness = WorkerHarness::new(deliver_all).with(|inner| inner.limits.bytes = 1000);
    (0..9).for_each(|seq| harness.scale_out(seq));
    harness.run(2, seconds(5)).await;
    assert!(harness.sends().iter().all(|sent| sent.seqs.len() <= 2));
    assert!((0..9).all(|seq| harness.history(seq) == [Settlement::Delivered { answer: None }]));
    assert_eq!(harness.0.concurrent.lock().1, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_entry_is_retried_with_backoff_and_does_not_block_the_others() {
    let harness = WorkerHarness::new(|batch, call| {
        Ok(batch
            .iter()
            .map(
                |event| if has_seq_1(event) && call < 6 { Err(Failure::transient("busy")) } else { Ok(None) },
            )
            .collect())
    });
    (0..3).for_each(|seq| harness.scale_out(seq));
    harness.run(1, seconds(120)).await;
    assert_eq!((harness.outcomes(0), harness.outcomes(2)), (vec!["delivered"], vec!["delivered"]));
    assert_eq!(harness.outcomes(1), ["retry", "retry", "retry", "retry", "retry", "delivered"]);
    let delays: Vec<_> = harness
        .history(1)
        .iter()
        .filter_map(|settlement| match settlement {
            Settlement::Retry { delay, error, .. } => Some((*delay, error.clone())),
            _ => None,
        })
        .collect();
    for (attempt, (delay, error)) in delays.iter().enumerate() {
        assert!(*delay <= seconds(1 << attempt), "{delays:?}");
        assert_eq!(error, "busy");
    }
    assert!(harness.0.health_changes.lock().is_empty(), "the destination stays available");
}

#[tokio::test(start_paused = true)]
async fn a_missing_answer_is_a_retry() {
    let harness =
        WorkerHarness::new(|batch, call| Ok(vec![Ok(None); if call == 1 { 1 } else { batch.len() }]));
    (0..2).for_each(|seq| harness.scale_out(seq));
    harness.run(1, seconds(10)).await;
    assert_eq!((harness.outcomes(0), harness.outcomes(1)), (vec!["delivered"], vec!["retry", "delivered"]));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_is_a_dead_letter_at_once() {
    let harness = WorkerHarness::new(|batch, call| match call {
        1 => Ok(batch
            .iter()
            .map(
                |event| {
                    if has_seq_1(event) { Err(Failure::permanent("invalid character")) } else { Ok(None) }
                },
            )
            .collect()),
        _ => Err(Failure::permanent("too large")),
    });
    (0..2).for_each(|seq| harness.scale_out(seq));
    let (stop, worker) = harness.start(1);
    tokio::time::sleep(seconds(1)).await;
    harness.scale_out(2);
    tokio::time::sleep(seconds(1)).await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(harness.history(0), [Settlement::Delivered { answer: None }]);
    assert_eq!(
        harness.history(1),
        [Settlement::Dead {
            error: "invalid character".into(),
            cause: GiveUp::Rejected,
            called: true,
            uncertain: false
        }]
    );
    assert_eq!(
        harness.history(2),
        [Settlement::Dead {
            error: "too large".into(),
            cause: GiveUp::Rejected,
            called: true,
            uncertain: false
        }]
    );
    assert!(harness.0.health_changes.lock().is_empty(), "a permanent failure does not affect the health");
}

#[tokio::test(start_paused = true)]
async fn decreases_are_rechecked_right_before_their_call() {
    let harness = WorkerHarness::new(deliver_all);
    harness.0.taken_back.lock().insert("taken back".to_owned());
    harness.0.faults.lock().rechecks = vec![Error::Unavailable("disk full".into())];
    harness.emit(1, "a", "scale_in");
    harness.emit(2, "taken back", "scale_in");
    harness.emit(3, "b", "scale_out");
    harness.run(1, seconds(10)).await;
    assert_eq!(harness.outcomes(1), ["not_called", "delivered"], "it was not known whether it may be called");
    assert_eq!(harness.outcomes(2), ["not_called", "withdrawn"]);
    assert_eq!(harness.outcomes(3), ["delivered"]);
    let rechecked: BTreeSet<String> = harness.0.rechecked.lock().iter().cloned().collect();
    assert_eq!(rechecked, ["a".to_owned(), "taken back".to_owned()].into());
}

#[tokio::test(start_paused = true)]
async fn a_decrease_is_not_called_long_after_its_recheck() {
    let harness = WorkerHarness::new(deliver_all);
    *harness.0.recheck_time.lock() = seconds(6);
    harness.emit(1, "a", "scale_in");
    let (stop, worker) = harness.start(1);
    tokio::time::sleep(seconds(20)).await;
    assert!(harness.sends().is_empty(), "the process was stopped meanwhile");
    *harness.0.recheck_time.lock() = seconds(1);
    tokio::time::sleep(seconds(60)).await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(harness.outcomes(1).last(), Some(&"delivered"));
}
