//! The worker under paused time, between an outbox and a destination of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use tokio::sync::Notify;

use super::*;
use crate::dispatch::{Answer, Limits, Observed, Outcome, stub};
use crate::domain::header::Encoded;
use crate::domain::time::Time;
use crate::store::{Claimed, Error, EventSeq, Settlement};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What the test and the parts share.
#[derive(Clone)]
struct Bench(Arc<Inner>);

struct Inner {
    start: Instant,
    deliveries: Mutex<BTreeMap<EventSeq, Delivery>>,
    changed: Notify,
    /// The next calls to the store that fail.
    faults: Mutex<Faults>,
    sends: Mutex<Vec<Sent>>,
    concurrent: Mutex<(usize, usize)>,
    answer: Box<Answering>,
    latency: Duration,
    limits: Limits,
    outcomes: Mutex<Vec<(Outcome, Option<String>)>>,
    reachable: Mutex<Vec<Option<String>>>,
}

type Answering = dyn Fn(&[Outgoing], usize) -> Result<Vec<Answer>, Failure> + Send + Sync;

#[derive(Default)]
struct Faults {
    claims: Vec<Error>,
    settles: Vec<Error>,
}

#[derive(Clone)]
struct Delivery {
    body: Encoded,
    subject: String,
    emitted_at: Time,
    attempts: u32,
    due: Instant,
    claimed: bool,
    undoes_nothing: bool,
    /// What it was settled by, one after the other.
    history: Vec<Settlement>,
}

#[derive(Debug, Clone)]
struct Sent {
    at: Duration,
    seqs: Vec<i64>,
}

impl Bench {
    fn new(
        answer: impl Fn(&[Outgoing], usize) -> Result<Vec<Answer>, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            start: Instant::now(),
            deliveries: Mutex::default(),
            changed: Notify::new(),
            faults: Mutex::default(),
            sends: Mutex::default(),
            concurrent: Mutex::default(),
            answer: Box::new(answer),
            latency: Duration::from_millis(10),
            limits: Limits { events: 10, bytes: 100_000, of_one: usize::MAX },
            outcomes: Mutex::default(),
            reachable: Mutex::default(),
        }))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::get_mut(&mut self.0).unwrap());
        self
    }

    /// Accepts an event that expires in an hour.
    fn emit(&self, seq: i64, subject: &str, action: &str) {
        let now = self.now();
        self.accept(seq, subject, &stub::event(seq, subject, action, now.after(seconds(3600))));
    }

    fn accept(&self, seq: i64, subject: &str, body: &str) {
        let delivery = Delivery {
            body: body.into(),
            subject: subject.into(),
            emitted_at: self.now(),
            attempts: 0,
            due: Instant::now(),
            claimed: false,
            undoes_nothing: false,
            history: vec![],
        };
        self.0.deliveries.lock().unwrap().insert(EventSeq(seq), delivery);
        self.0.changed.notify_waiters();
    }

    /// A scale-out about a target of its own.
    fn scale_out(&self, seq: i64) {
        self.emit(seq, &format!("target-{seq}"), "scale_out");
    }

    fn options(&self, concurrency: usize) -> Options {
        Options {
            name: Name::new("queue").unwrap(),
            concurrency,
            backoff: Backoff::new(seconds(1), seconds(60)).unwrap(),
            max_age: seconds(1800),
            scale_in_max_age: seconds(300),
            seed: 7,
        }
    }

    fn start(&self, concurrency: usize) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let options = self.options(concurrency);
        let stop = CancellationToken::new();
        let worker = Worker::new(options, self.clone(), self.clone(), self.clone());
        (stop.clone(), tokio::spawn(worker.run(stop)))
    }

    /// Runs a worker for a while of virtual time.
    async fn run(&self, concurrency: usize, time: Duration) {
        let (stop, worker) = self.start(concurrency);
        tokio::time::sleep(time).await;
        stop.cancel();
        worker.await.unwrap();
    }

    fn history(&self, seq: i64) -> Vec<Settlement> {
        self.0.deliveries.lock().unwrap()[&EventSeq(seq)].history.clone()
    }

    fn words(&self, seq: i64) -> Vec<&'static str> {
        self.history(seq).iter().map(|settlement| Outcome::from(settlement).as_str()).collect()
    }

    fn sends(&self) -> Vec<Sent> {
        self.0.sends.lock().unwrap().clone()
    }

    fn nothing_is_left_claimed(&self) {
        assert!(self.0.deliveries.lock().unwrap().values().all(|delivery| !delivery.claimed));
    }
}

impl Outbox for Bench {
    async fn claim(&self, _: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        if let Some(fault) = self.0.faults.lock().unwrap().claims.pop() {
            return Err(fault);
        }
        let mut deliveries = self.0.deliveries.lock().unwrap();
        let mut seen = BTreeSet::new();
        let mut claimed = vec![];
        for (&seq, delivery) in deliveries.iter_mut() {
            let over = !matches!(delivery.history.last(), None | Some(Settlement::Retry { .. }));
            // The first of a target that is not over holds the others back, claimed or not.
            let first = !over && seen.insert(delivery.subject.clone());
            if first && !delivery.claimed && delivery.due <= Instant::now() && claimed.len() < max {
                delivery.claimed = true;
                let (body, emitted_at) = (delivery.body.clone(), delivery.emitted_at);
                let attempts = delivery.attempts;
                claimed.push(Claimed {
                    seq,
                    body,
                    emitted_at,
                    attempts,
                    last_error: match delivery.history.last() {
                        Some(Settlement::Retry { error, .. }) => Some(error.as_str().into()),
                        _ => None,
                    },
                    undoes_nothing: delivery.undoes_nothing,
                });
            }
        }
        Ok(claimed)
    }

    async fn settle(&self, _: &Name, settled: Vec<(EventSeq, Settlement)>) -> Result<(), Error> {
        if let Some(fault) = self.0.faults.lock().unwrap().settles.pop() {
            return Err(fault);
        }
        let mut deliveries = self.0.deliveries.lock().unwrap();
        for (seq, settlement) in settled {
            let delivery = deliveries.get_mut(&seq).unwrap();
            assert!(std::mem::take(&mut delivery.claimed), "{seq:?} was not claimed");
            if let Settlement::Retry { delay, .. } = settlement {
                delivery.attempts += 1;
                delivery.due = Instant::now() + delay;
            }
            delivery.history.push(settlement);
        }
        self.0.changed.notify_waiters();
        Ok(())
    }

    fn wait(&self, _: &Name) -> impl Future<Output = ()> + Send {
        let changed = self.0.changed.notified();
        let now = Instant::now();
        let deliveries = self.0.deliveries.lock().unwrap();
        let due = deliveries.values().map(|delivery| delivery.due).filter(|&due| due > now).min();
        async move {
            match due {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }

    fn now(&self) -> Time {
        Time::from_millis(1_800_000_000_000).after(self.0.start.elapsed())
    }
}

impl Destination for Bench {
    fn limits(&self) -> Limits {
        self.0.limits
    }

    fn weigh(&self, event: &Outgoing) -> usize {
        event.body.len()
    }

    async fn send(&self, batch: &[Outgoing]) -> Result<Vec<Answer>, Failure> {
        let subjects: BTreeSet<_> = batch.iter().map(|event| &event.header.subject).collect();
        assert_eq!(subjects.len(), batch.len(), "a target twice in one batch");
        let call = {
            let mut sends = self.0.sends.lock().unwrap();
            let seqs = batch.iter().map(|event| event.seq.0).collect();
            sends.push(Sent { at: self.0.start.elapsed(), seqs });
            sends.len()
        };
        {
            let mut concurrent = self.0.concurrent.lock().unwrap();
            concurrent.0 += 1;
            concurrent.1 = concurrent.1.max(concurrent.0);
        }
        tokio::time::sleep(self.0.latency).await;
        self.0.concurrent.lock().unwrap().0 -= 1;
        (self.0.answer)(batch, call)
    }
}

impl Observer for Bench {
    fn on_delivery(&self, _: &Name, delivery: &Observed<'_>) {
        let id = delivery.header.map(|header| header.id.clone());
        self.0.outcomes.lock().unwrap().push((delivery.outcome, id));
    }

    fn on_reachable(&self, _: &Name, failing: Option<&Failure>) {
        self.0.reachable.lock().unwrap().push(failing.map(|failure| failure.message.clone()));
    }
}

fn all_arrive(batch: &[Outgoing], _: usize) -> Result<Vec<Answer>, Failure> {
    Ok(vec![Ok(None); batch.len()])
}

fn is_one(event: &Outgoing) -> bool {
    event.seq == EventSeq(1)
}

#[tokio::test(start_paused = true)]
async fn what_waits_and_what_comes_later_is_delivered_in_batches() {
    let bench = Bench::new(all_arrive);
    (0..25).for_each(|seq| bench.scale_out(seq));
    let (stop, worker) = bench.start(2);
    tokio::time::sleep(seconds(1)).await;
    bench.scale_out(25);
    tokio::time::sleep(seconds(1)).await;
    stop.cancel();
    worker.await.unwrap();
    let sizes: Vec<_> = bench.sends().iter().map(|sent| sent.seqs.len()).collect();
    assert_eq!(sizes, [10, 10, 5, 1]);
    assert!((0..=25).all(|seq| bench.history(seq) == [Settlement::Delivered]));
    assert_eq!(bench.0.concurrent.lock().unwrap().1, 2, "as many calls at once as allowed");
    assert_eq!(bench.0.outcomes.lock().unwrap().len(), 26);
    assert!(bench.0.reachable.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn events_about_one_target_go_one_after_the_other() {
    let bench = Bench::new(|batch, call| {
        if call == 1 { Ok(vec![Err(Failure::transient("busy"))]) } else { all_arrive(batch, call) }
    });
    (0..5).for_each(|seq| bench.emit(seq, "workers", "scale_out"));
    bench.run(8, seconds(60)).await;
    let order: Vec<i64> = bench.sends().into_iter().flat_map(|sent| sent.seqs).collect();
    assert_eq!(order, [0, 0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn batches_that_are_too_heavy_for_the_free_calls_wait_for_one() {
    let bench = Bench::new(all_arrive).with(|inner| inner.limits.bytes = 1000);
    (0..9).for_each(|seq| bench.scale_out(seq));
    bench.run(2, seconds(5)).await;
    assert!(bench.sends().iter().all(|sent| sent.seqs.len() <= 2));
    assert!((0..9).all(|seq| bench.history(seq) == [Settlement::Delivered]));
    assert_eq!(bench.0.concurrent.lock().unwrap().1, 2);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_fails_is_tried_again_with_growing_pauses_and_does_not_stop_the_others() {
    let bench = Bench::new(|batch, call| {
        Ok(batch
            .iter()
            .map(|event| if is_one(event) && call < 6 { Err(Failure::transient("busy")) } else { Ok(None) })
            .collect())
    });
    (0..3).for_each(|seq| bench.scale_out(seq));
    bench.run(1, seconds(120)).await;
    assert_eq!((bench.words(0), bench.words(2)), (vec!["delivered"], vec!["delivered"]));
    assert_eq!(bench.words(1), ["retry", "retry", "retry", "retry", "retry", "delivered"]);
    let delays: Vec<_> = bench
        .history(1)
        .iter()
        .filter_map(|settlement| match settlement {
            Settlement::Retry { delay, error } => Some((*delay, error.clone())),
            _ => None,
        })
        .collect();
    for (attempt, (delay, error)) in delays.iter().enumerate() {
        assert!(*delay <= seconds(1 << attempt), "{delays:?}");
        assert_eq!(error, "busy");
    }
    assert!(bench.0.reachable.lock().unwrap().is_empty(), "the destination as a whole works");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_missing_is_a_retry() {
    let bench = Bench::new(|batch, call| Ok(vec![Ok(None); if call == 1 { 1 } else { batch.len() }]));
    (0..2).for_each(|seq| bench.scale_out(seq));
    bench.run(1, seconds(10)).await;
    assert_eq!((bench.words(0), bench.words(1)), (vec!["delivered"], vec!["retry", "delivered"]));
}

#[tokio::test(start_paused = true)]
async fn what_can_never_pass_is_a_dead_letter_at_once() {
    let bench = Bench::new(|batch, call| match call {
        1 => Ok(batch
            .iter()
            .map(|event| if is_one(event) { Err(Failure::permanent("no such letter")) } else { Ok(None) })
            .collect()),
        _ => Err(Failure::permanent("too large")),
    });
    (0..2).for_each(|seq| bench.scale_out(seq));
    let (stop, worker) = bench.start(1);
    tokio::time::sleep(seconds(1)).await;
    bench.scale_out(2);
    tokio::time::sleep(seconds(1)).await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(bench.history(0), [Settlement::Delivered]);
    assert_eq!(bench.history(1), [Settlement::Dead { error: "no such letter".into() }]);
    assert_eq!(bench.history(2), [Settlement::Dead { error: "too large".into() }]);
    assert!(bench.0.reachable.lock().unwrap().is_empty(), "it answered");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_fails_as_a_whole_is_left_alone_and_comes_back() {
    let bench = Bench::new(|batch, call| {
        if call <= 10 { Err(Failure::transient("connection refused")) } else { all_arrive(batch, call) }
    });
    (0..1000).for_each(|seq| bench.scale_out(seq));
    let (stop, worker) = bench.start(4);
    tokio::time::sleep(seconds(900)).await;
    let first: Vec<_> = bench.sends().iter().map(|sent| sent.at).collect();
    assert_eq!(first[..4], [Duration::ZERO; 4], "they ran together");
    assert_eq!(
        first[4..6],
        [Duration::from_millis(10); 2],
        "after the first and second failure, not the third"
    );
    // What follows is one call after the second, third... pause.
    for (failures, pair) in (2..).zip(first[6..11].windows(2)) {
        let pause = pair[1] - pair[0];
        let ceiling = seconds(1 << (failures - 1)) + Duration::from_millis(20);
        assert!(pause >= Duration::from_millis(10) && pause <= ceiling, "{pause:?} after {failures}");
    }
    stop.cancel();
    worker.await.unwrap();
    let touched = (0..1000).filter(|&seq| bench.words(seq).contains(&"retry")).count();
    assert!(touched <= 80, "{touched}: one dead destination does not churn its backlog");
    assert!((0..1000).all(|seq| bench.words(seq).last() == Some(&"delivered")));
    let told = bench.0.reachable.lock().unwrap().clone();
    let refused = Some("connection refused".to_owned());
    assert_eq!(told, [vec![refused; 5], vec![None]].concat(), "the opening, four probes, the end");
}

#[tokio::test(start_paused = true)]
async fn a_dead_destination_is_called_ever_more_rarely_however_much_waits_for_it() {
    let bench = Bench::new(|_, _| Err(Failure::transient("connection refused")));
    (0..10_000).for_each(|seq| bench.scale_out(seq));
    bench.run(8, seconds(1200)).await;
    let calls = bench.sends().len();
    assert!(
        (30..90).contains(&calls),
        "{calls} calls, with a pause of half a minute between them on average"
    );
    assert!(bench.0.reachable.lock().unwrap().iter().all(Option::is_some));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_given_up_and_never_sent() {
    let bench = Bench::new(|_, _| Err(Failure::transient("connection refused")));
    bench.emit(1, "a", "scale_in");
    bench.emit(2, "b", "scale_out");
    bench.emit(3, "c", "set_capacity");
    let soon = bench.now().after(seconds(60));
    bench.accept(4, "d", &stub::event(4, "d", "notify", soon));
    bench.run(1, seconds(2400)).await;
    let given_up = |seq| match bench.history(seq).pop() {
        Some(Settlement::Dead { error }) => error,
        other => panic!("{other:?}"),
    };
    let last = "; the last error: connection refused";
    assert_eq!(given_up(1), format!("expired: not delivered within 5m{last}"));
    assert_eq!(given_up(2), format!("expired: not delivered within 30m{last}"));
    assert_eq!(given_up(3), format!("expired: not delivered within 5m{last}"));
    assert_eq!(given_up(4), format!("expired: its expirytime 2027-01-15T08:01:00Z has passed{last}"));
    let last = |seq| bench.sends().iter().filter(|sent| sent.seqs.contains(&seq)).map(|sent| sent.at).max();
    assert!(last(1) <= Some(seconds(300)) && last(3) <= Some(seconds(300)));
    assert!(last(2) <= Some(seconds(1800)) && last(2) > Some(seconds(300)));
    assert!(last(4) <= Some(seconds(60)));
}

/// The store was down for hours: what it hands out then is old and was never tried.
#[tokio::test(start_paused = true)]
async fn what_got_too_old_elsewhere_is_a_dead_letter_without_a_call() {
    let bench = Bench::new(all_arrive);
    (0..3).for_each(|seq| bench.scale_out(seq));
    tokio::time::sleep(seconds(1801)).await;
    bench.scale_out(3);
    bench.run(2, seconds(1)).await;
    let expired = Settlement::Dead { error: "expired: not delivered within 30m".into() };
    assert!((0..3).all(|seq| bench.history(seq) == [expired.clone()]));
    assert_eq!(bench.history(3), [Settlement::Delivered]);
    assert_eq!(bench.sends().into_iter().map(|sent| sent.seqs).collect::<Vec<_>>(), [[3]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_the_destination_takes_is_given_up_without_a_call() {
    let bench = Bench::new(all_arrive).with(|inner| inner.limits.of_one = 500);
    (0..3).for_each(|seq| bench.scale_out(seq));
    bench.emit(3, &"t".repeat(500), "scale_out");
    bench.run(1, seconds(1)).await;
    let Some(Settlement::Dead { error }) = bench.history(3).pop() else { panic!("{:?}", bench.history(3)) };
    assert!(error.starts_with("too large: it has ") && error.ends_with(" bytes of 500"), "{error}");
    assert!((0..3).all(|seq| bench.history(seq) == [Settlement::Delivered]));
    assert_eq!(bench.sends().into_iter().map(|sent| sent.seqs).collect::<Vec<_>>(), [[0, 1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn what_would_undo_nothing_is_withdrawn_and_never_sent() {
    let bench = Bench::new(all_arrive);
    bench.emit(1, "a", "scale_in");
    bench.emit(2, "b", "scale_out");
    bench.accept(3, "c", "{}");
    for seq in [1, 3] {
        bench.0.deliveries.lock().unwrap().get_mut(&EventSeq(seq)).unwrap().undoes_nothing = true;
    }
    bench.run(1, seconds(1)).await;
    let withdrawn = Settlement::Withdrawn { reason: "what it would undo never arrived here".into() };
    assert_eq!((bench.history(1), bench.history(3)), (vec![withdrawn.clone()], vec![withdrawn]));
    assert_eq!(bench.sends().into_iter().map(|sent| sent.seqs).collect::<Vec<_>>(), [[2]]);
    let outcomes = bench.0.outcomes.lock().unwrap();
    let withdrawn = outcomes.iter().filter(|(outcome, _)| outcome.as_str() == "withdrawn").count();
    assert_eq!(withdrawn, 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_destination_says_is_kept() {
    let bench = Bench::new(|batch, _| {
        Ok(batch.iter().map(|event| Ok(Some(format!("did {}", event.seq.0)))).collect())
    });
    bench.scale_out(7);
    bench.run(1, seconds(1)).await;
    assert_eq!(bench.history(7), [Settlement::Answered { answer: "did 7".into() }]);
    assert_eq!(bench.0.outcomes.lock().unwrap()[0].0, Outcome::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_one_delivery_and_what_is_too_old_for_one_makes_room_for_the_next() {
    let bench = Bench::new(|batch, call| {
        if call <= 3 {
            Err(Failure::new(Class::Misconfigured, "AccessDenied"))
        } else {
            all_arrive(batch, call)
        }
    });
    (0..40).for_each(|seq| bench.scale_out(seq));
    let soon = bench.now().after(Duration::from_millis(5));
    (40..60).for_each(|seq| bench.accept(seq, &format!("t{seq}"), &stub::event(seq, "t", "notify", soon)));
    bench.run(2, seconds(120)).await;
    let sizes: Vec<_> = bench.sends().iter().map(|sent| sent.seqs.len()).collect();
    assert_eq!(sizes[..4], [10, 10, 1, 1], "two ran together, two probes");
    assert!((0..40).all(|seq| bench.words(seq).last() == Some(&"delivered")));
    assert!((40..60).all(|seq| bench.words(seq) == ["dead"]));
    assert_eq!(bench.0.reachable.lock().unwrap().len(), 3, "the opening, one probe, the end");
}

#[tokio::test(start_paused = true)]
async fn entries_that_a_person_has_to_mend_open_it_when_none_passes() {
    let denied = || Err(Failure::new(Class::Misconfigured, "KMS.DisabledException"));
    let bench = Bench::new(move |batch, _| Ok(batch.iter().map(|_| denied()).collect()));
    (0..1000).for_each(|seq| bench.scale_out(seq));
    bench.run(4, seconds(600)).await;
    assert!(bench.sends().len() < 50, "{} calls", bench.sends().len());
    assert!(bench.sends()[4..].iter().all(|sent| sent.seqs.len() == 1));
    assert_eq!(bench.0.reachable.lock().unwrap()[0].as_deref(), Some("KMS.DisabledException"));

    let bench = Bench::new(move |batch, _| {
        Ok(batch.iter().map(|event| if is_one(event) { denied() } else { Ok(None) }).collect())
    });
    (0..10).for_each(|seq| bench.scale_out(seq));
    bench.run(1, Duration::from_millis(100)).await;
    assert!(bench.0.reachable.lock().unwrap().is_empty(), "others passed");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_throttles_gets_what_it_takes_and_is_not_called_dead() {
    // It takes two calls at the same time.
    let running = Arc::new(Mutex::new(0usize));
    let bench = Bench::new({
        let running = Arc::clone(&running);
        move |batch, call| {
            let mut running = running.lock().unwrap();
            *running += 1;
            // Every call of more than two in the same instant is throttled.
            let throttled = *running > 2;
            if throttled { Err(Failure::new(Class::Throttled, "SlowDown")) } else { all_arrive(batch, call) }
        }
    });
    let reset = {
        let running = Arc::clone(&running);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                *running.lock().unwrap() = 0;
            }
        })
    };
    (0..2000).for_each(|seq| bench.scale_out(seq));
    bench.run(8, seconds(120)).await;
    reset.abort();
    assert!((0..2000).all(|seq| bench.words(seq).last() == Some(&"delivered")));
    assert!(bench.0.reachable.lock().unwrap().is_empty(), "a throttle is no failure");
    let sends = bench.sends();
    let retried: usize = (0..2000).map(|seq| bench.words(seq).len() - 1).sum();
    assert!(retried < 1000, "{retried} deliveries were throttled, in {} calls", sends.len());
}

#[tokio::test(start_paused = true)]
async fn one_event_that_spoils_a_call_is_found_out_and_the_others_pass() {
    let bench = Bench::new(|batch, call| {
        if batch.iter().any(is_one) { Err(Failure::permanent("too large")) } else { all_arrive(batch, call) }
    });
    (0..10).for_each(|seq| bench.scale_out(seq));
    bench.run(1, seconds(1)).await;
    assert!((0..10).filter(|&seq| seq != 1).all(|seq| bench.history(seq) == [Settlement::Delivered]));
    assert_eq!(bench.history(1), [Settlement::Dead { error: "too large".into() }]);
    let sizes: Vec<_> = bench.sends().iter().map(|sent| sent.seqs.len()).collect();
    assert_eq!(sizes, [10, 5, 2, 1, 1, 3, 5], "by halves");

    let bench = Bench::new(|_, call| match call {
        1 => Err(Failure::permanent("too large")),
        _ => Err(Failure::transient("reset by peer")),
    });
    (0..4).for_each(|seq| bench.scale_out(seq));
    bench.run(1, Duration::from_millis(15)).await;
    assert_eq!(bench.sends().len(), 2, "what is left is not tried on a connection that is gone");
    assert!((0..4).all(|seq| bench.words(seq) == ["retry"]));
}

/// The measure of the linger: calls for the same events, and what a lone one waits.
#[tokio::test(start_paused = true)]
async fn events_that_come_one_by_one_share_calls_while_others_are_on_their_way() {
    let bench = Bench::new(all_arrive);
    let (stop, worker) = bench.start(8);
    for seq in 0..1000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        bench.scale_out(seq);
    }
    tokio::time::sleep(seconds(1)).await;
    let calls = bench.sends().len();
    assert!(calls < 300, "{calls} calls for 1000 events; without the linger there are 800");
    let took: Vec<_> = bench
        .sends()
        .iter()
        .flat_map(|sent| sent.seqs.iter().map(|seq| sent.at - Duration::from_millis(*seq as u64 + 1)))
        .collect();
    assert!(took.iter().all(|took| *took <= LINGER + Duration::from_millis(2)), "{:?}", took.iter().max());

    let before = tokio::time::Instant::now() - bench.0.start;
    bench.scale_out(1000);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(bench.sends().last().unwrap().at, before, "alone, it goes at once");
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_is_a_dead_letter_that_says_why() {
    let bench = Bench::new(all_arrive);
    bench.accept(1, "a", "{}");
    bench.scale_out(2);
    bench.run(1, seconds(1)).await;
    let expected = "the event cannot be read: missing field `id` at line 1 column 2";
    assert_eq!(bench.history(1), [Settlement::Dead { error: expected.into() }]);
    assert_eq!(bench.history(2), [Settlement::Delivered]);
    let outcomes = bench.0.outcomes.lock().unwrap();
    assert!(outcomes.contains(&(Outcome::Dead, None)), "{outcomes:?}");
}

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
