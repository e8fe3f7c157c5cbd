//! Tests of the worker under paused time. One harness is outbox, destination and observer.

mod delivering;
mod ending;
mod expiring;
mod failing;

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::*;
use crate::dispatch::{Answer, DeliveryReport, Limits, Outcome, stub};
use crate::domain::delivery::GiveUp;
use crate::domain::header::{EncodedEvent, EventHeader};
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::store::{
    Claimed, DeliveryQueue, Error, EventSeq, Expired, Lease, RefusalReason, Refused, Settlement,
};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The state shared by the test, the outbox, the destination and the observer.
#[derive(Clone)]
struct WorkerHarness(Arc<Inner>);

struct Inner {
    start: Instant,
    deliveries: Mutex<BTreeMap<EventSeq, Delivery>>,
    changed: Notify,
    /// The errors of the next calls to the store.
    faults: Mutex<Faults>,
    sends: Mutex<Vec<Sent>>,
    /// Calls in flight, now and at most.
    concurrent: Mutex<(usize, usize)>,
    answer: Box<AnswerFn>,
    latency: Duration,
    limits: Limits,
    outcomes: Mutex<Vec<(Outcome, Option<String>)>>,
    health_changes: Mutex<Vec<Option<String>>>,
    /// The targets that a pause or hold covers.
    withheld: Mutex<BTreeSet<String>>,
    /// The targets whose decreases are taken back before they are called.
    taken_back: Mutex<BTreeSet<String>>,
    /// How long the recheck before a call takes, and the targets of all of them.
    recheck_time: Mutex<Duration>,
    rechecked: Mutex<Vec<String>>,
}

type AnswerFn = dyn Fn(&[OutgoingEvent], usize) -> Result<Vec<Answer>, Failure> + Send + Sync;

#[derive(Default)]
struct Faults {
    claims: Vec<Error>,
    settles: Vec<Error>,
    rechecks: Vec<Error>,
}

#[derive(Clone)]
struct Delivery {
    body: EncodedEvent,
    header: Option<Arc<EventHeader>>,
    subject: String,
    emitted_at: Time,
    attempts: u32,
    due: Instant,
    claimed: bool,
    nothing_to_compensate: bool,
    cancelled: bool,
    /// All settlements, in order.
    history: Vec<Settlement>,
}

impl Delivery {
    fn is_settled(&self) -> bool {
        use Settlement::{NotCalled, Retry};
        !matches!(self.history.last(), None | Some(Retry { .. } | NotCalled { .. }))
    }

    fn is_aside(&self) -> bool {
        let is_aside = matches!(self.history.last(), Some(Settlement::NotCalled { stands_aside: true, .. }));
        is_aside && self.due > Instant::now()
    }

    fn claim(&mut self, seq: EventSeq) -> Claimed {
        self.claimed = true;
        let last_error = self.history.iter().rev().find_map(|settlement| match settlement {
            Settlement::Retry { error, .. } => Some(error.as_str().into()),
            _ => None,
        });
        Claimed {
            lease: Lease::new(seq, self.attempts.into()),
            body: self.body.clone(),
            emitted_at: self.emitted_at,
            attempts: self.attempts,
            is_uncertain: false,
            redrives: 0,
            last_error,
            nothing_to_compensate: self.nothing_to_compensate,
        }
    }
}

#[derive(Debug, Clone)]
struct Sent {
    at: Duration,
    seqs: Vec<i64>,
}

impl WorkerHarness {
    fn new(
        answer: impl Fn(&[OutgoingEvent], usize) -> Result<Vec<Answer>, Failure> + Send + Sync + 'static,
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
            limits: Limits { events: 10, bytes: 100_000, max_event_bytes: usize::MAX },
            outcomes: Mutex::default(),
            health_changes: Mutex::default(),
            withheld: Mutex::default(),
            taken_back: Mutex::default(),
            recheck_time: Mutex::default(),
            rechecked: Mutex::default(),
        }))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::get_mut(&mut self.0).unwrap());
        self
    }

    /// Adds an event that expires in an hour.
    fn emit(&self, seq: i64, subject: &str, action: &str) {
        let now = self.now();
        self.insert(seq, subject, &stub::event(seq, subject, action, now.after(seconds(3600))));
    }

    fn insert(&self, seq: i64, subject: &str, body: &str) {
        let body = EncodedEvent::from(body);
        let delivery = Delivery {
            header: body.header().ok(),
            body,
            subject: subject.into(),
            emitted_at: self.now(),
            attempts: 0,
            due: Instant::now(),
            claimed: false,
            nothing_to_compensate: false,
            cancelled: false,
            history: vec![],
        };
        self.0.deliveries.lock().insert(EventSeq(seq), delivery);
        self.0.changed.notify_waiters();
    }

    /// Adds a scale-out about a separate target.
    fn scale_out(&self, seq: i64) {
        self.emit(seq, &format!("target-{seq}"), "scale_out");
    }

    fn options(&self, concurrency: usize) -> Options {
        Options {
            name: Name::new("queue").unwrap(),
            concurrency,
            backoff: Backoff::new(seconds(1), seconds(60)).unwrap(),
            age_limits: AgeLimits { max_age: seconds(1800), scale_in_max_age: seconds(300) },
            seed: 7,
        }
    }

    fn start(&self, concurrency: usize) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let options = self.options(concurrency);
        let stop = CancellationToken::new();
        let withheld = self.clone();
        let withholding =
            Withholding::new(move |event, _| withheld.0.withheld.lock().contains(&*event.subject));
        let harness = self.clone();
        let withholding = withholding.with_recheck(move |targets| {
            let harness = harness.clone();
            async move { harness.recheck(&targets).await }
        });
        let worker = Worker::new(options, self.clone(), self.clone(), self.clone()).withholding(withholding);
        (stop.clone(), tokio::spawn(worker.run(stop)))
    }

    /// Takes back the decreases of the targets that are to be taken back.
    async fn recheck(&self, targets: &[TargetKey]) -> Result<(), Error> {
        if let Some(fault) = self.0.faults.lock().rechecks.pop() {
            return Err(fault);
        }
        let time = *self.0.recheck_time.lock();
        tokio::time::sleep(time).await;
        let subjects = targets.iter().map(|target| target.as_str().to_owned());
        self.0.rechecked.lock().extend(subjects);
        let taken_back = self.0.taken_back.lock();
        let mut deliveries = self.0.deliveries.lock();
        let cancelled = deliveries.values_mut().filter(|delivery| taken_back.contains(&delivery.subject));
        cancelled.for_each(|delivery| delivery.cancelled = true);
        Ok(())
    }

    /// Runs a worker for `time` of virtual time.
    async fn run(&self, concurrency: usize, time: Duration) {
        let (stop, worker) = self.start(concurrency);
        tokio::time::sleep(time).await;
        stop.cancel();
        worker.await.unwrap();
    }

    fn history(&self, seq: i64) -> Vec<Settlement> {
        self.0.deliveries.lock()[&EventSeq(seq)].history.clone()
    }

    fn outcomes(&self, seq: i64) -> Vec<&'static str> {
        self.history(seq).iter().map(|settlement| Outcome::from(settlement).as_str()).collect()
    }

    fn sends(&self) -> Vec<Sent> {
        self.0.sends.lock().clone()
    }

    fn assert_none_claimed(&self) {
        assert!(self.0.deliveries.lock().values().all(|delivery| !delivery.claimed));
    }
}

impl DeliveryQueue for WorkerHarness {
    async fn claim(&self, _: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        if let Some(fault) = self.0.faults.lock().claims.pop() {
            return Err(fault);
        }
        let mut deliveries = self.0.deliveries.lock();
        let mut seen = BTreeSet::new();
        let mut claimed = vec![];
        for (&seq, delivery) in deliveries.iter_mut() {
            // The first unsettled delivery of a target blocks the later ones, claimed or not.
            let is_first =
                !delivery.is_settled() && !delivery.is_aside() && seen.insert(delivery.subject.clone());
            if is_first && !delivery.claimed && delivery.due <= Instant::now() && claimed.len() < max {
                claimed.push(delivery.claim(seq));
            }
        }
        Ok(claimed)
    }

    async fn settle(&self, _: &Name, settled: Vec<(Lease, Settlement)>) -> Result<(), Error> {
        let fault = self.0.faults.lock().settles.pop();
        let locked = match fault {
            Some(Error::Locked(locked)) => locked,
            Some(fault) => return Err(fault),
            None => Vec::new(),
        };
        let mut deliveries = self.0.deliveries.lock();
        for (lease, settlement) in settled {
            let seq = lease.seq();
            if locked.iter().any(|locked| locked.seq() == seq) {
                continue;
            }
            let delivery = deliveries.get_mut(&seq).unwrap();
            assert!(std::mem::take(&mut delivery.claimed), "{seq:?} was not claimed");
            match settlement {
                Settlement::Retry { delay, .. } => {
                    delivery.attempts += 1;
                    delivery.due = Instant::now() + delay;
                }
                Settlement::NotCalled { delay, .. } => delivery.due = Instant::now() + delay,
                _ => {}
            }
            delivery.history.push(settlement);
        }
        self.0.changed.notify_waiters();
        if locked.is_empty() { Ok(()) } else { Err(Error::Locked(locked)) }
    }

    async fn claim_expired(&self, _: &Name, limits: AgeLimits, max: usize) -> Result<Expired, Error> {
        let mut deliveries = self.0.deliveries.lock();
        let (mut expired, clock) = (Expired::default(), self.clock());
        for (&seq, delivery) in deliveries.iter_mut().filter(|(_, delivery)| !delivery.is_settled()) {
            expired.waiting += usize::from(!delivery.history.is_empty());
            let header = delivery.header.as_ref();
            let is_over = header
                .is_some_and(|header| limits.expires_at(clock, delivery.emitted_at, header) < clock.now);
            if is_over && !delivery.claimed && expired.claimed.len() < max {
                expired.claimed.push(delivery.claim(seq));
            }
        }
        Ok(expired)
    }

    fn undelivered_at(&self, _: &Name) -> u64 {
        self.0.deliveries.lock().values().filter(|delivery| !delivery.is_settled()).count() as u64
    }

    async fn begin_calls(&self, _: &Name, leases: Vec<Lease>) -> Result<Vec<Refused>, Error> {
        let deliveries = self.0.deliveries.lock();
        let cancelled = leases.into_iter().filter(|lease| deliveries[&lease.seq()].cancelled);
        Ok(cancelled.map(|lease| Refused { lease, reason: RefusalReason::Superseded }).collect())
    }

    fn wait(&self, _: &Name) -> impl Future<Output = ()> + Send {
        let changed = self.0.changed.notified();
        let now = Instant::now();
        let deliveries = self.0.deliveries.lock();
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

    fn clock(&self) -> ClockReading {
        ClockReading::equal(Time::from_millis(1_800_000_000_000).after(self.0.start.elapsed()))
    }
}

impl Destination for WorkerHarness {
    fn limits(&self) -> Limits {
        self.0.limits
    }

    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        event.body.len()
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        let subjects: BTreeSet<_> = batch.iter().map(|event| &event.header.subject).collect();
        assert_eq!(subjects.len(), batch.len(), "a target twice in one batch");
        let call = {
            let mut sends = self.0.sends.lock();
            let seqs = batch.iter().map(|event| event.lease.seq().0).collect();
            sends.push(Sent { at: self.0.start.elapsed(), seqs });
            sends.len()
        };
        {
            let mut concurrent = self.0.concurrent.lock();
            concurrent.0 += 1;
            concurrent.1 = concurrent.1.max(concurrent.0);
        }
        tokio::time::sleep(self.0.latency).await;
        self.0.concurrent.lock().0 -= 1;
        (self.0.answer)(batch, call)
    }
}

impl Observer for WorkerHarness {
    fn on_delivery(&self, _: &Name, delivery: &DeliveryReport<'_>) {
        let id = delivery.header.map(|header| header.id.to_string());
        self.0.outcomes.lock().push((delivery.outcome, id));
    }

    fn on_health_change(&self, _: &Name, failing: Option<&Failure>) {
        self.0.health_changes.lock().push(failing.map(|failure| failure.message.clone()));
    }
}

fn deliver_all(batch: &[OutgoingEvent], _: usize) -> Result<Vec<Answer>, Failure> {
    Ok(vec![Ok(None); batch.len()])
}

fn has_seq_1(event: &OutgoingEvent) -> bool {
    event.lease.seq() == EventSeq(1)
}
