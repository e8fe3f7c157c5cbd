//! The end of a worker, and failures of the store.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_calls_in_flight_and_claims_nothing() {
    let harness = WorkerHarness::new(deliver_all).with(|inner| inner.latency = seconds(8));
    (0..4).for_each(|seq| harness.scale_out(seq));
    let (stop, worker) = harness.start(1);
    tokio::time::sleep(seconds(1)).await;
    harness.scale_out(4);
    stop.cancel();
    tokio::time::timeout(seconds(8), worker).await.unwrap().unwrap();
    assert!((0..4).all(|seq| harness.history(seq) == [Settlement::Delivered { answer: None }]));
    assert_eq!(harness.history(4), [], "it stays in the store");
    harness.assert_none_claimed();
}

#[tokio::test(start_paused = true)]
async fn a_drain_sends_every_claimed_delivery_also_to_an_unavailable_destination() {
    let harness = WorkerHarness::new(|_, _| Err(Failure::transient("connection refused")))
        .with(|inner| inner.limits.bytes = 1);
    (0..8).for_each(|seq| harness.scale_out(seq));
    let (stop, worker) = harness.start(2);
    tokio::time::sleep(Duration::from_millis(15)).await;
    stop.cancel();
    tokio::time::timeout(seconds(1), worker).await.unwrap().unwrap();
    assert!((0..8).all(|seq| harness.outcomes(seq) == ["retry"]));
    harness.assert_none_claimed();
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_stops_at_once_also_during_a_backoff() {
    let harness = WorkerHarness::new(|_, _| Err(Failure::transient("connection refused")));
    let (stop, worker) = harness.start(1);
    tokio::time::sleep(seconds(1)).await;
    harness.scale_out(1);
    tokio::time::sleep(seconds(200)).await;
    stop.cancel();
    tokio::time::timeout(Duration::from_millis(50), worker).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_settlement_is_retried_without_sending_again() {
    let harness = WorkerHarness::new(deliver_all);
    harness.0.faults.lock().settles = vec![Error::Unavailable("disk full".into()); 7];
    (0..3).for_each(|seq| harness.scale_out(seq));
    harness.run(4, seconds(60)).await;
    assert_eq!(harness.sends().len(), 1);
    assert!((0..3).all(|seq| harness.history(seq) == [Settlement::Delivered { answer: None }]));
    assert!(harness.0.faults.lock().settles.is_empty());
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_are_locked_in_the_store_are_settled_later_and_hold_up_no_others() {
    let harness = WorkerHarness::new(deliver_all).with(|inner| inner.limits.events = 3);
    // The harness does not compare tokens.
    let locked = Error::Locked(vec![Lease::new(EventSeq(1), 0)]);
    harness.0.faults.lock().settles = vec![locked.clone(), locked];
    (0..3).for_each(|seq| harness.scale_out(seq));
    let (stop, worker) = harness.start(1);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!([0, 1, 2].map(|seq| harness.history(seq).len()), [1, 0, 1]);
    harness.scale_out(3);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((harness.history(1).len(), harness.history(3).len()), (0, 1), "a later one");
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(harness.history(1), [Settlement::Delivered { answer: None }]);
    assert_eq!(harness.sends().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_settlements() {
    let harness = WorkerHarness::new(deliver_all);
    harness.0.faults.lock().settles = vec![Error::Unavailable("disk full".into()); 7];
    harness.scale_out(1);
    let (stop, worker) = harness.start(1);
    tokio::time::sleep(Duration::from_millis(5)).await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(harness.history(1), [Settlement::Delivered { answer: None }]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_claim_is_retried() {
    let harness = WorkerHarness::new(deliver_all);
    harness.0.faults.lock().claims = vec![Error::Unavailable("locked".into()); 9];
    harness.scale_out(1);
    harness.run(1, seconds(60)).await;
    assert_eq!(harness.history(1), [Settlement::Delivered { answer: None }]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_stops_when_its_store_is_closed() {
    let harness = WorkerHarness::new(deliver_all);
    harness.0.faults.lock().claims = vec![Error::Closed];
    let (_stop, worker) = harness.start(1);
    worker.await.unwrap();

    let harness = WorkerHarness::new(deliver_all);
    harness.0.faults.lock().settles = vec![Error::Closed];
    harness.scale_out(1);
    let (stop, worker) = harness.start(1);
    tokio::time::sleep(seconds(1)).await;
    stop.cancel();
    worker.await.unwrap();
    assert!(harness.0.outcomes.lock().is_empty(), "unsettled deliveries are not reported");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_call_is_propagated() {
    let harness = WorkerHarness::new(|_, _| panic!("a bug"));
    harness.scale_out(1);
    let (_stop, worker) = harness.start(1);
    assert!(worker.await.unwrap_err().is_panic());
}

/// The order per target of a function follows from the outbox: the next event of a target is sent after
/// the previous one was settled, and no two of them share a call.
#[tokio::test]
async fn a_function_gets_the_events_of_a_target_in_their_order_one_at_a_time() {
    use crate::dispatch::aws::Access;
    use crate::dispatch::lambda::{InvocationType, Lambda, Settings};
    use crate::dispatch::stub::{Reply, Stub, lambda_client};

    let calls = Arc::new(Mutex::new(0));
    let stub = Stub::start(move |_| {
        let mut calls = calls.lock();
        *calls += 1;
        let fails = *calls == 1 || *calls == 4;
        let reply = Reply::text(200, "{}");
        if fails { reply.header("x-amz-function-error", "Unhandled") } else { reply }
    })
    .await;
    let harness = WorkerHarness::new(deliver_all);
    (0..12).for_each(|seq| harness.emit(seq, if seq < 6 { "workers" } else { "others" }, "scale_out"));
    (12..30).for_each(|seq| harness.scale_out(seq));
    let settings = Settings {
        function: "scaler".into(),
        qualifier: None,
        invocation_type: InvocationType::RequestResponse,
        max_events: 10,
        durable: false,
        access: Access::default(),
    };
    let mut options = harness.options(8);
    options.backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(20)).unwrap();
    let stop = CancellationToken::new();
    let function = Lambda::new(lambda_client(&stub), &settings);
    let worker =
        tokio::spawn(Worker::new(options, harness.clone(), function, harness.clone()).run(stop.clone()));
    let answered = Settlement::Delivered { answer: Some("{}".into()) };
    tokio::time::timeout(seconds(30), async {
        while !(0..30).all(|seq| harness.history(seq).last() == Some(&answered)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    stop.cancel();
    worker.await.unwrap();

    let mut sequences: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for call in stub.requests() {
        let events = call.json();
        let events: Vec<_> = events.as_array().unwrap().iter().collect();
        let subjects: BTreeSet<_> = events.iter().map(|event| event["subject"].as_str().unwrap()).collect();
        assert_eq!(subjects.len(), events.len(), "a target twice in one call");
        for event in events {
            let sequence = event["sequence"].as_str().unwrap().parse().unwrap();
            sequences.entry(event["subject"].as_str().unwrap().to_owned()).or_default().push(sequence);
        }
    }
    for (subject, sequence) in &sequences {
        assert!(sequence.is_sorted(), "{subject}: {sequence:?}");
    }
    assert!(sequences.values().map(Vec::len).sum::<usize>() > 30, "some were retried");
}

#[tokio::test(start_paused = true)]
async fn under_any_mix_of_failures_every_event_is_settled_once_and_in_order() {
    for seed in 0..20 {
        let rng = Mutex::new(fastrand::Rng::with_seed(seed));
        let harness = WorkerHarness::new(move |batch, _| {
            let mut rng = rng.lock();
            if rng.u8(..10) < 3 {
                return Err(Failure::transient("reset by peer"));
            }
            let mut answer = || match rng.u8(..10) {
                0..2 => Err(Failure::transient("busy")),
                2 => Err(Failure::permanent("never")),
                _ => Ok(None),
            };
            Ok(batch.iter().map(|_| answer()).collect())
        });
        (0..60).for_each(|seq| harness.emit(seq, &format!("target-{}", seq % 7), "scale_out"));
        harness.run(3, seconds(3600)).await;
        let mut last_sent = BTreeMap::new();
        for seq in harness.sends().into_iter().flat_map(|sent| sent.seqs) {
            let before = last_sent.insert(seq % 7, seq);
            assert!(before.is_none_or(|before| before <= seq), "seed {seed}: {seq} after {before:?}");
        }
        for seq in 0..60 {
            let ends = harness.outcomes(seq).into_iter().filter(|&word| word != "retry").count();
            assert_eq!(ends, 1, "seed {seed}, event {seq}: {:?}", harness.outcomes(seq));
        }
        harness.assert_none_claimed();
    }
}
