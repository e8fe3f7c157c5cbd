//! How a worker ends, and what a store that fails does to it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_is_in_flight_and_starts_nothing_new() {
    let bench = Bench::new(all_arrive).with(|inner| inner.latency = seconds(8));
    (0..4).for_each(|seq| bench.scale_out(seq));
    let (stop, worker) = bench.start(1);
    tokio::time::sleep(seconds(1)).await;
    bench.scale_out(4);
    stop.cancel();
    tokio::time::timeout(seconds(8), worker).await.unwrap().unwrap();
    assert!((0..4).all(|seq| bench.history(seq) == [Settlement::Delivered]));
    assert_eq!(bench.history(4), [], "it stays for the next start");
    bench.nothing_is_left_claimed();
}

#[tokio::test(start_paused = true)]
async fn a_drain_sends_all_that_was_claimed_also_to_a_destination_that_fails() {
    let bench =
        Bench::new(|_, _| Err(Failure::transient("connection refused"))).with(|inner| inner.limits.bytes = 1);
    (0..8).for_each(|seq| bench.scale_out(seq));
    let (stop, worker) = bench.start(2);
    tokio::time::sleep(Duration::from_millis(15)).await;
    stop.cancel();
    tokio::time::timeout(seconds(1), worker).await.unwrap().unwrap();
    assert!((0..8).all(|seq| bench.words(seq) == ["retry"]));
    bench.nothing_is_left_claimed();
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_work_stops_at_once_also_while_it_pauses() {
    let bench = Bench::new(|_, _| Err(Failure::transient("connection refused")));
    let (stop, worker) = bench.start(1);
    tokio::time::sleep(seconds(1)).await;
    bench.scale_out(1);
    tokio::time::sleep(seconds(200)).await;
    stop.cancel();
    tokio::time::timeout(Duration::from_millis(50), worker).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_settle_is_settled_later_and_not_sent_again() {
    let bench = Bench::new(all_arrive);
    bench.0.faults.lock().unwrap().settles = vec![Error::Unavailable("disk full".into()); 7];
    (0..3).for_each(|seq| bench.scale_out(seq));
    bench.run(4, seconds(60)).await;
    assert_eq!(bench.sends().len(), 1);
    assert!((0..3).all(|seq| bench.history(seq) == [Settlement::Delivered]));
    assert!(bench.0.faults.lock().unwrap().settles.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_store_to_settle() {
    let bench = Bench::new(all_arrive);
    bench.0.faults.lock().unwrap().settles = vec![Error::Unavailable("disk full".into()); 7];
    bench.scale_out(1);
    let (stop, worker) = bench.start(1);
    tokio::time::sleep(Duration::from_millis(5)).await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(bench.history(1), [Settlement::Delivered]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hands_out_nothing_is_asked_again() {
    let bench = Bench::new(all_arrive);
    bench.0.faults.lock().unwrap().claims = vec![Error::Unavailable("locked".into()); 9];
    bench.scale_out(1);
    bench.run(1, seconds(60)).await;
    assert_eq!(bench.history(1), [Settlement::Delivered]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_ends_with_its_store() {
    let bench = Bench::new(all_arrive);
    bench.0.faults.lock().unwrap().claims = vec![Error::Closed];
    let (_stop, worker) = bench.start(1);
    worker.await.unwrap();

    let bench = Bench::new(all_arrive);
    bench.0.faults.lock().unwrap().settles = vec![Error::Closed];
    bench.scale_out(1);
    let (stop, worker) = bench.start(1);
    tokio::time::sleep(seconds(1)).await;
    stop.cancel();
    worker.await.unwrap();
    assert!(bench.0.outcomes.lock().unwrap().is_empty(), "what is not settled is not counted");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_ends_the_worker_loudly() {
    let bench = Bench::new(|_, _| panic!("a bug"));
    bench.scale_out(1);
    let (_stop, worker) = bench.start(1);
    assert!(worker.await.unwrap_err().is_panic());
}

/// `per_target_order` of a function is what the outbox does: the next event of a target is not sent
/// before the one before it was settled, and no two of them share a call.
#[tokio::test]
async fn a_function_gets_the_events_of_a_target_in_their_order_one_at_a_time() {
    use crate::config::{InvocationType, Lambda as Settings};
    use crate::dispatch::lambda::Lambda;
    use crate::dispatch::stub::{Reply, Stub, lambda_client};

    let calls = Arc::new(Mutex::new(0));
    let stub = Stub::start(move |_| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let fails = *calls == 1 || *calls == 4;
        let reply = Reply::text(200, "{}");
        if fails { reply.header("x-amz-function-error", "Unhandled") } else { reply }
    })
    .await;
    let bench = Bench::new(all_arrive);
    (0..12).for_each(|seq| bench.emit(seq, if seq < 6 { "workers" } else { "others" }, "scale_out"));
    (12..30).for_each(|seq| bench.scale_out(seq));
    let settings = Settings {
        function: "scaler".into(),
        qualifier: None,
        invocation_type: InvocationType::RequestResponse,
        max_events: 10,
        region: None,
        endpoint_url: None,
        role: None,
    };
    let mut options = bench.options(8);
    options.backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(20)).unwrap();
    let stop = CancellationToken::new();
    let function = Lambda::new(lambda_client(&stub), &settings);
    let worker = tokio::spawn(Worker::new(options, bench.clone(), function, bench.clone()).run(stop.clone()));
    let answered = Settlement::Answered { answer: "{}".into() };
    tokio::time::timeout(seconds(30), async {
        while !(0..30).all(|seq| bench.history(seq).last() == Some(&answered)) {
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
    assert!(sequences.values().map(Vec::len).sum::<usize>() > 30, "some were tried again");
}

#[tokio::test(start_paused = true)]
async fn under_any_mix_of_failures_every_event_is_settled_once_and_in_order() {
    for seed in 0..20 {
        let rng = Mutex::new(fastrand::Rng::with_seed(seed));
        let bench = Bench::new(move |batch, _| {
            let mut rng = rng.lock().unwrap();
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
        (0..60).for_each(|seq| bench.emit(seq, &format!("target-{}", seq % 7), "scale_out"));
        bench.run(3, seconds(3600)).await;
        let mut last_sent = BTreeMap::new();
        for seq in bench.sends().into_iter().flat_map(|sent| sent.seqs) {
            let before = last_sent.insert(seq % 7, seq);
            assert!(before.is_none_or(|before| before <= seq), "seed {seed}: {seq} after {before:?}");
        }
        for seq in 0..60 {
            let ends = bench.words(seq).into_iter().filter(|&word| word != "retry").count();
            assert_eq!(ends, 1, "seed {seed}, event {seq}: {:?}", bench.words(seq));
        }
        bench.nothing_is_left_claimed();
    }
}
