//! Give-up at the age, withheld deliveries, and what a settlement says.

use super::*;

/// The time between the checks of ages.
const CHECK: Duration = seconds(1);

#[tokio::test(start_paused = true)]
async fn a_delivery_is_given_up_at_its_age_while_the_breaker_is_open_or_its_retry_waits() {
    for (class, calls) in [(Class::Misconfigured, "breaker"), (Class::Transient, "retry")] {
        let harness = WorkerHarness::new(move |batch, _| {
            let failure = || Err(Failure::new(class, "no"));
            // As a whole, or for this event only.
            if class == Class::Misconfigured {
                failure().map(|()| vec![])
            } else {
                Ok(batch.iter().map(|_| failure().map(|()| None)).collect())
            }
        });
        harness.emit(1, "a", "scale_in");
        harness.emit(2, "b", "scale_out");
        // Behind an increase that is retried for longer.
        harness.emit(3, "b", "scale_in");
        let (stop, worker) = harness.start(1);
        for (age, given_up) in
            [(seconds(299), [false; 3]), (seconds(303), [true, false, true]), (seconds(1802), [true; 3])]
        {
            tokio::time::sleep(age - harness.0.start.elapsed()).await;
            let dead = [1, 2, 3].map(|seq| harness.outcomes(seq).last() == Some(&"dead"));
            assert_eq!(dead, given_up, "{calls} at {age:?}");
        }
        assert!(
            harness.history(3).iter().all(|settlement| matches!(settlement, Settlement::Dead { .. })),
            "never called"
        );
        stop.cancel();
        worker.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn any_number_of_expired_deliveries_is_given_up_in_bounded_steps() {
    let harness = WorkerHarness::new(|_, _| Err(Failure::new(Class::Misconfigured, "AccessDenied")));
    (0..2500).for_each(|seq| harness.scale_out(seq));
    harness.run(1, seconds(1800) + CHECK + seconds(1)).await;
    assert!((0..2500).all(|seq| harness.outcomes(seq).last() == Some(&"dead")));
    assert!(harness.sends().len() < 200, "{} calls", harness.sends().len());
    harness.assert_none_claimed();
}

#[tokio::test(start_paused = true)]
async fn after_everything_was_given_up_the_next_delivery_is_tried_at_once() {
    let harness = WorkerHarness::new(|batch, call| match call {
        1 => Err(Failure::new(Class::Misconfigured, "AccessDenied")),
        _ => deliver_all(batch, call),
    });
    let mut options = harness.options(1);
    options.backoff = Backoff::new(seconds(50_000), seconds(50_000)).unwrap();
    let stop = CancellationToken::new();
    let worker = Worker::new(options, harness.clone(), harness.clone(), harness.clone());
    let worker = tokio::spawn(worker.run(stop.clone()));
    harness.scale_out(1);
    tokio::time::sleep(seconds(1900)).await;
    assert_eq!(harness.outcomes(1), ["retry", "dead"]);
    harness.scale_out(2);
    tokio::time::sleep(CHECK).await;
    assert_eq!(harness.outcomes(2), ["delivered"]);
    assert_eq!(*harness.0.health_changes.lock(), [Some("AccessDenied".to_owned()), None]);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_withheld_delivery_is_not_called_expires_and_does_not_block_its_target() {
    let harness = WorkerHarness::new(deliver_all);
    harness.0.withheld.lock().insert("a".into());
    harness.emit(1, "a", "scale_out");
    harness.emit(2, "b", "scale_out");
    let (stop, worker) = harness.start(1);
    tokio::time::sleep(seconds(60)).await;
    assert!(harness.outcomes(1).iter().all(|outcome| *outcome == "not_called"));
    assert_eq!(harness.outcomes(2), ["delivered"]);
    assert_eq!(harness.0.deliveries.lock()[&EventSeq(1)].attempts, 0);
    assert!(
        harness.0.outcomes.lock().iter().all(|(outcome, _)| *outcome == Outcome::Delivered),
        "not counted"
    );

    harness.0.withheld.lock().clear();
    tokio::time::sleep(seconds(6)).await;
    assert_eq!(harness.outcomes(1).last(), Some(&"delivered"));

    harness.0.withheld.lock().insert("c".into());
    harness.emit(3, "c", "scale_out");
    tokio::time::sleep(seconds(1799)).await;
    assert_eq!(harness.outcomes(3).last(), Some(&"not_called"));
    tokio::time::sleep(seconds(3)).await;
    assert_eq!(harness.outcomes(3).last(), Some(&"dead"));
    assert!(!harness.sends().iter().any(|sent| sent.seqs.contains(&3)));
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_settlement_says_whether_the_event_may_have_arrived_and_why_it_was_given_up() {
    let harness = WorkerHarness::new(|batch, _| {
        let answer = |event: &OutgoingEvent| match event.lease.seq().0 {
            1 => Err(Failure::transient("time-out").with_uncertainty(true)),
            2 => Err(Failure::transient("busy")),
            3 => Err(Failure::permanent("refused")),
            4 => Err(Failure::new(Class::NotApplied, "overtaken")),
            _ => Ok(None),
        };
        // The answer for the last event is missing.
        Ok(batch.iter().take(4).map(answer).collect())
    });
    (1..=5).for_each(|seq| harness.scale_out(seq));
    harness.run(1, Duration::from_millis(50)).await;
    let uncertain = |seq| match &harness.history(seq)[0] {
        Settlement::Retry { uncertain, .. } => (*uncertain, None),
        Settlement::Dead { uncertain, cause, .. } => (*uncertain, Some(*cause)),
        other => panic!("{other:?}"),
    };
    let expected = [
        (true, None),
        (false, None),
        (false, Some(GiveUp::Rejected)),
        (false, Some(GiveUp::Expired)),
        (true, None),
    ];
    assert_eq!([1, 2, 3, 4, 5].map(uncertain), expected);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_fails_for_every_event_is_unavailable_and_one_event_delays_no_other() {
    let harness = WorkerHarness::new(|batch, _| {
        Ok(batch.iter().map(|_| Err(Failure::transient("function error"))).collect())
    })
    .with(|inner| inner.limits.events = 1);
    (0..200).for_each(|seq| harness.scale_out(seq));
    harness.run(1, seconds(600)).await;
    assert!(harness.sends().len() < 60, "{} calls", harness.sends().len());
    assert_eq!(harness.0.health_changes.lock()[0].as_deref(), Some("function error"));

    let harness = WorkerHarness::new(|batch, _| {
        let failure = || Err(Failure::transient("function error"));
        Ok(batch.iter().map(|event| if has_seq_1(event) { failure() } else { Ok(None) }).collect())
    })
    .with(|inner| inner.limits.events = 1);
    let (stop, worker) = harness.start(1);
    harness.scale_out(1);
    for seq in 2..40 {
        tokio::time::sleep(seconds(40)).await;
        let at = harness.0.start.elapsed();
        harness.scale_out(seq);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(harness.outcomes(seq), ["delivered"], "at {at:?}");
    }
    stop.cancel();
    worker.await.unwrap();
    let before = harness.0.health_changes.lock().len();
    assert_eq!(before, 0, "never ten calls in a row without a delivery");
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_delivery_that_expires_again_does_not_grow() {
    let harness = WorkerHarness::new(deliver_all);
    harness.scale_out(1);
    let again = "expired: not delivered within 30m; last error: refused".to_owned();
    let retry = Settlement::Retry { delay: Duration::ZERO, error: again.clone(), uncertain: false };
    harness.0.deliveries.lock().get_mut(&EventSeq(1)).unwrap().history.push(retry);
    tokio::time::sleep(seconds(1801)).await;
    harness.run(1, CHECK).await;
    let Some(Settlement::Dead { error, .. }) = harness.history(1).pop() else { panic!() };
    assert_eq!(error, again);
}
