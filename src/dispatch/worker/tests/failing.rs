//! Failures of destinations and events, and expiry.

use super::*;
use crate::domain::delivery::GiveUp;

#[tokio::test(start_paused = true)]
async fn an_unavailable_destination_is_probed_and_recovers() {
    let harness = WorkerHarness::new(|batch, call| {
        if call <= 10 { Err(Failure::transient("connection refused")) } else { deliver_all(batch, call) }
    });
    (0..1000).for_each(|seq| harness.scale_out(seq));
    let (stop, worker) = harness.start(4);
    tokio::time::sleep(seconds(900)).await;
    let first: Vec<_> = harness.sends().iter().map(|sent| sent.at).collect();
    assert_eq!(first[..4], [Duration::ZERO; 4], "they ran concurrently");
    assert_eq!(
        first[4..6],
        [Duration::from_millis(10); 2],
        "after the first and second failure, not the third"
    );
    // Then one call follows each backoff, from the second on.
    for (failures, pair) in (2..).zip(first[6..11].windows(2)) {
        let pause = pair[1] - pair[0];
        let ceiling = seconds(1 << (failures - 1)) + Duration::from_millis(20);
        assert!(pause >= Duration::from_millis(10) && pause <= ceiling, "{pause:?} after {failures}");
    }
    stop.cancel();
    worker.await.unwrap();
    let retried_events = (0..1000).filter(|&seq| harness.outcomes(seq).contains(&"retry")).count();
    assert!(retried_events <= 80, "{retried_events}: a dead destination does not use up its backlog");
    assert!((0..1000).all(|seq| harness.outcomes(seq).last() == Some(&"delivered")));
    let reported = harness.0.health_changes.lock().clone();
    let refused = Some("connection refused".to_owned());
    assert_eq!(reported, [vec![refused; 5], vec![None]].concat(), "opened, four failed probes, closed");
}

#[tokio::test(start_paused = true)]
async fn a_dead_destination_is_probed_with_backoff_regardless_of_its_backlog() {
    let harness = WorkerHarness::new(|_, _| Err(Failure::transient("connection refused")));
    (0..10_000).for_each(|seq| harness.scale_out(seq));
    harness.run(8, seconds(1200)).await;
    let calls = harness.sends().len();
    assert!((30..90).contains(&calls), "{calls} calls, with an average backoff of 30 s");
    assert!(harness.0.health_changes.lock().iter().all(Option::is_some));
}

#[tokio::test(start_paused = true)]
async fn an_expired_delivery_is_given_up_and_never_sent() {
    let harness = WorkerHarness::new(|_, _| Err(Failure::transient("connection refused")));
    harness.emit(1, "a", "scale_in");
    harness.emit(2, "b", "scale_out");
    harness.emit(3, "c", "set_capacity");
    let soon = harness.now().after(seconds(60));
    harness.insert(4, "d", &stub::event(4, "d", "notify", soon));
    harness.run(1, seconds(2400)).await;
    let given_up = |seq| match harness.history(seq).pop() {
        Some(Settlement::Dead { error, .. }) => error,
        other => panic!("{other:?}"),
    };
    let last = "; last error: connection refused";
    assert_eq!(given_up(1), format!("expired: not delivered within 5m{last}"));
    assert_eq!(given_up(2), format!("expired: not delivered within 30m{last}"));
    assert_eq!(given_up(3), format!("expired: not delivered within 5m{last}"));
    assert_eq!(given_up(4), format!("expired: its expirytime 2027-01-15T08:01:00Z has passed{last}"));
    let last = |seq| harness.sends().iter().filter(|sent| sent.seqs.contains(&seq)).map(|sent| sent.at).max();
    assert!(last(1) <= Some(seconds(300)) && last(3) <= Some(seconds(300)));
    assert!(last(2) <= Some(seconds(1800)) && last(2) > Some(seconds(300)));
    assert!(last(4) <= Some(seconds(60)));
}

/// After hours of downtime, the store returns old deliveries that were never sent.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_expired_in_the_store_is_a_dead_letter_without_a_call() {
    let harness = WorkerHarness::new(deliver_all);
    (0..3).for_each(|seq| harness.scale_out(seq));
    tokio::time::sleep(seconds(1801)).await;
    harness.scale_out(3);
    harness.run(2, seconds(1)).await;
    let expired = Settlement::Dead {
        error: "expired: not delivered within 30m".into(),
        cause: GiveUp::Expired,
        called: false,
        uncertain: false,
    };
    assert!((0..3).all(|seq| harness.history(seq) == [expired.clone()]));
    assert_eq!(harness.history(3), [Settlement::Delivered { answer: None }]);
    assert_eq!(harness.sends().into_iter().map(|sent| sent.seqs).collect::<Vec<_>>(), [[3]]);
}

#[tokio::test(start_paused = true)]
async fn an_oversized_event_is_given_up_without_a_call() {
    let harness = WorkerHarness::new(deliver_all).with(|inner| inner.limits.max_event_bytes = 500);
    (0..3).for_each(|seq| harness.scale_out(seq));
    harness.emit(3, &"t".repeat(500), "scale_out");
    harness.run(1, seconds(1)).await;
    let Some(Settlement::Dead { error, .. }) = harness.history(3).pop() else {
        panic!("{:?}", harness.history(3))
    };
    assert!(error.starts_with("too large: ") && error.ends_with(" bytes, the limit is 500"), "{error}");
    assert!((0..3).all(|seq| harness.history(seq) == [Settlement::Delivered { answer: None }]));
    assert_eq!(harness.sends().into_iter().map(|sent| sent.seqs).collect::<Vec<_>>(), [[0, 1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn an_event_with_nothing_to_compensate_is_withdrawn_and_never_sent() {
    let harness = WorkerHarness::new(deliver_all);
    harness.emit(1, "a", "scale_in");
    harness.emit(2, "b", "scale_out");
    harness.insert(3, "c", "{}");
    for seq in [1, 3] {
        harness.0.deliveries.lock().get_mut(&EventSeq(seq)).unwrap().nothing_to_compensate = true;
    }
    harness.run(1, seconds(1)).await;
    let withdrawn = Settlement::Withdrawn {
        reason: "the event that it compensates never arrived at this destination".into(),
    };
    assert_eq!((harness.history(1), harness.history(3)), (vec![withdrawn.clone()], vec![withdrawn]));
    assert_eq!(harness.sends().into_iter().map(|sent| sent.seqs).collect::<Vec<_>>(), [[2]]);
    let outcomes = harness.0.outcomes.lock();
    let withdrawn = outcomes.iter().filter(|(outcome, _)| outcome.as_str() == "withdrawn").count();
    assert_eq!(withdrawn, 2);
}

/// Six events are claimed at once, and each needs a call of its own. The destination fails, and during the
/// backoff two of the waiting deliveries are superseded.
#[tokio::test(start_paused = true)]
async fn a_delivery_superseded_while_it_waits_for_a_call_is_not_sent() {
    let harness = WorkerHarness::new(|batch, call| {
        if call <= 3 { Err(Failure::transient("connection refused")) } else { deliver_all(batch, call) }
    });
    let harness =
        harness.with(|inner| inner.limits = Limits { events: 6, bytes: 1, max_event_bytes: usize::MAX });
    (1..=6).for_each(|seq| harness.emit(seq, &format!("target-{seq}"), "scale_in"));
    let (stop, worker) = harness.start(1);
    // A call takes 10 ms: the third is in flight.
    tokio::time::sleep(Duration::from_millis(25)).await;
    assert_eq!(harness.sends().len(), 3);
    for seq in [4, 6] {
        let mut deliveries = harness.0.deliveries.lock();
        let delivery = deliveries.get_mut(&EventSeq(seq)).unwrap();
        assert!(delivery.claimed && delivery.history.is_empty(), "it waits for a call");
        delivery.cancelled = true;
    }
    tokio::time::sleep(seconds(60)).await;
    stop.cancel();
    worker.await.unwrap();
    let withdrawn = Settlement::Withdrawn { reason: "superseded by an increase before it was sent".into() };
    assert_eq!((harness.history(4), harness.history(6)), (vec![withdrawn.clone()], vec![withdrawn]));
    assert!([1, 2, 3, 5].iter().all(|&seq| harness.outcomes(seq).last() == Some(&"delivered")));
    let mut sent: Vec<i64> = harness.sends().into_iter().flat_map(|sent| sent.seqs).collect();
    sent.sort_unstable();
    assert_eq!(sent, [1, 1, 2, 2, 3, 3, 5]);
    harness.assert_none_claimed();
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_the_destination_is_stored() {
    let harness = WorkerHarness::new(|batch, _| {
        Ok(batch.iter().map(|event| Ok(Some(format!("did {}", event.lease.seq().0)))).collect())
    });
    harness.scale_out(7);
    harness.run(1, seconds(1)).await;
    assert_eq!(harness.history(7), [Settlement::Delivered { answer: Some("did 7".into()) }]);
    assert_eq!(harness.0.outcomes.lock()[0].0, Outcome::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a_probe_carries_one_delivery_and_an_expired_one_is_replaced_by_the_next() {
    let harness = WorkerHarness::new(|batch, call| {
        if call <= 3 {
            Err(Failure::new(Class::Misconfigured, "AccessDenied"))
        } else {
            deliver_all(batch, call)
        }
    });
    (0..40).for_each(|seq| harness.scale_out(seq));
    let soon = harness.now().after(Duration::from_millis(5));
    (40..60).for_each(|seq| harness.insert(seq, &format!("t{seq}"), &stub::event(seq, "t", "notify", soon)));
    harness.run(2, seconds(120)).await;
    let sizes: Vec<_> = harness.sends().iter().map(|sent| sent.seqs.len()).collect();
    assert_eq!(sizes[..4], [10, 10, 1, 1], "two concurrent calls, two probes");
    assert!((0..40).all(|seq| harness.outcomes(seq).last() == Some(&"delivered")));
    assert!((40..60).all(|seq| harness.outcomes(seq) == ["dead"]));
    assert_eq!(harness.0.health_changes.lock().len(), 3, "opened, one failed probe, closed");
}

#[tokio::test(start_paused = true)]
async fn misconfigured_entries_open_the_breaker_if_every_entry_failed() {
    let denied = || Err(Failure::new(Class::Misconfigured, "KMS.DisabledException"));
    let harness = WorkerHarness::new(move |batch, _| Ok(batch.iter().map(|_| denied()).collect()));
    (0..1000).for_each(|seq| harness.scale_out(seq));
    harness.run(4, seconds(600)).await;
    assert!(harness.sends().len() < 50, "{} calls", harness.sends().len());
    assert!(harness.sends()[4..].iter().all(|sent| sent.seqs.len() == 1));
    assert_eq!(harness.0.health_changes.lock()[0].as_deref(), Some("KMS.DisabledException"));

    let harness = WorkerHarness::new(move |batch, _| {
        Ok(batch.iter().map(|event| if has_seq_1(event) { denied() } else { Ok(None) }).collect())
    });
    (0..10).for_each(|seq| harness.scale_out(seq));
    harness.run(1, Duration::from_millis(100)).await;
    assert!(harness.0.health_changes.lock().is_empty(), "other entries were delivered");
}

#[tokio::test(start_paused = true)]
async fn throttling_reduces_concurrency_and_does_not_open_the_breaker() {
    // The destination accepts two concurrent calls.
    let running = Arc::new(Mutex::new(0usize));
    let harness = WorkerHarness::new({
        let running = Arc::clone(&running);
        move |batch, call| {
            let mut running = running.lock();
            *running += 1;
            // Throttles each call beyond two within 10 ms.
            let throttled = *running > 2;
            if throttled { Err(Failure::new(Class::Throttled, "SlowDown")) } else { deliver_all(batch, call) }
        }
    });
    let reset = {
        let running = Arc::clone(&running);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                *running.lock() = 0;
            }
        })
    };
    (0..2000).for_each(|seq| harness.scale_out(seq));
    harness.run(8, seconds(120)).await;
    reset.abort();
    assert!((0..2000).all(|seq| harness.outcomes(seq).last() == Some(&"delivered")));
    assert!(harness.0.health_changes.lock().is_empty(), "a throttle is not a failure");
    let sends = harness.sends();
    let retried: usize = (0..2000).map(|seq| harness.outcomes(seq).len() - 1).sum();
    assert!(retried < 1000, "{retried} deliveries were throttled, in {} calls", sends.len());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_a_whole_call_is_isolated_by_bisection() {
    let harness = WorkerHarness::new(|batch, call| {
        if batch.iter().any(has_seq_1) {
            Err(Failure::permanent("too large"))
        } else {
            deliver_all(batch, call)
        }
    });
    (0..10).for_each(|seq| harness.scale_out(seq));
    harness.run(1, seconds(1)).await;
    assert!(
        (0..10)
            .filter(|&seq| seq != 1)
            .all(|seq| harness.history(seq) == [Settlement::Delivered { answer: None }])
    );
    assert_eq!(
        harness.history(1),
        [Settlement::Dead {
            error: "too large".into(),
            cause: GiveUp::Rejected,
            called: true,
            uncertain: false
        }]
    );
    let sizes: Vec<_> = harness.sends().iter().map(|sent| sent.seqs.len()).collect();
    assert_eq!(sizes, [10, 5, 2, 1, 1, 3, 5], "by bisection");

    let harness = WorkerHarness::new(|_, call| match call {
        1 => Err(Failure::permanent("too large")),
        _ => Err(Failure::transient("reset by peer")),
    });
    (0..4).for_each(|seq| harness.scale_out(seq));
    harness.run(1, Duration::from_millis(15)).await;
    assert_eq!(harness.sends().len(), 2, "the rest is not sent after a lost connection");
    assert!((0..4).all(|seq| harness.outcomes(seq) == ["retry"]));
}

/// Measures the effect of `LINGER`: the number of calls, and the delay of single events.
#[tokio::test(start_paused = true)]
async fn events_that_arrive_one_by_one_share_calls_while_others_are_in_flight() {
    let harness = WorkerHarness::new(deliver_all);
    let (stop, worker) = harness.start(8);
    for seq in 0..1000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        harness.scale_out(seq);
    }
    tokio::time::sleep(seconds(1)).await;
    let calls = harness.sends().len();
    assert!(calls < 300, "{calls} calls for 1000 events; without the linger there are 800");
    let waited: Vec<_> = harness
        .sends()
        .iter()
        .flat_map(|sent| sent.seqs.iter().map(|seq| sent.at - Duration::from_millis(*seq as u64 + 1)))
        .collect();
    assert!(
        waited.iter().all(|waited| *waited <= LINGER + Duration::from_millis(2)),
        "{:?}",
        waited.iter().max()
    );

    let before = tokio::time::Instant::now() - harness.0.start;
    harness.scale_out(1000);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(harness.sends().last().unwrap().at, before, "a single event is sent at once");
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_event_is_a_dead_letter_with_the_reason() {
    let harness = WorkerHarness::new(deliver_all);
    harness.insert(1, "a", "{}");
    harness.scale_out(2);
    harness.run(1, seconds(1)).await;
    let expected = "the event cannot be read: missing field `id`";
    assert_eq!(
        harness.history(1),
        [Settlement::Dead {
            error: expected.into(),
            cause: GiveUp::Rejected,
            called: false,
            uncertain: false
        }]
    );
    assert_eq!(harness.history(2), [Settlement::Delivered { answer: None }]);
    let outcomes = harness.0.outcomes.lock();
    assert!(outcomes.contains(&(Outcome::Dead, None)), "{outcomes:?}");
}
