//! Tests of retirements. One harness is the outbox: a store with faults.

mod restarting;
mod retiring;
mod transitions;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::dispatch::outbox::RetirementOutbox;
use crate::dispatch::stub;
use crate::dispatch::worker::WorkerGuard;
use crate::domain::alert_key::AlertKey;
use crate::domain::retry::AgeLimits;
use crate::domain::state::{LastResolve, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::store::{
    Changes, Claimed, DeadLetter, DeliveryQueue, EpisodePhase, Error, Expired, Keys, Lease, Memory, NewEvent,
    Refused, Settlement, Store, View, WallClock,
};

/// An operation that can fail or never complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Claim,
    Settle,
    Remove,
}

/// What an operation does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing: it does its work.
    None,
    Fail,
    Hang,
}

/// A store in which operations fail or hang.
#[derive(Clone)]
struct FaultyOutbox {
    store: Store,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The next faults; each applies to the first operation of its kind after those before it.
    faults: Mutex<VecDeque<(Operation, Fault)>>,
    /// Whether no delivery can be claimed.
    is_withheld: AtomicBool,
    released: Notify,
    /// The outcomes of each call of `settle`.
    settled: Mutex<Vec<Vec<Settlement>>>,
}

fn clock() -> WallClock {
    Arc::new(|| Time::from_millis(1_795_366_500_000))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn queue() -> Name {
    name("queue")
}

fn destinations() -> [Name; 2] {
    [queue(), name("journal")]
}

impl FaultyOutbox {
    fn new(store: Store) -> Self {
        Self { store, shared: Arc::default() }
    }

    fn memory() -> Self {
        Self::new(Store::Memory(Memory::new(&destinations(), clock())))
    }

    /// An outbox with the events that the tests expect: three about one target, and two about others.
    async fn with_events(self) -> Self {
        for (seq, target) in [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "a")] {
            emit(&self.store, seq, target).await;
        }
        self
    }

    fn fault(self, operation: Operation, fault: Fault) -> Self {
        self.shared.faults.lock().push_back((operation, fault));
        self
    }

    fn withhold(self) -> Self {
        self.shared.is_withheld.store(true, Ordering::Relaxed);
        self
    }

    fn release(&self) {
        self.shared.is_withheld.store(false, Ordering::Relaxed);
        self.shared.released.notify_one();
    }

    async fn perform(&self, operation: Operation) -> Result<(), Error> {
        let fault = {
            let mut faults = self.shared.faults.lock();
            faults.pop_front_if(|(next, _)| *next == operation)
        };
        match fault {
            None | Some((_, Fault::None)) => Ok(()),
            Some((_, Fault::Fail)) => Err(Error::Unavailable("disk full".to_owned())),
            Some((_, Fault::Hang)) => std::future::pending().await,
        }
    }

    async fn dead_letters(&self, destination: &str) -> Vec<DeadLetter> {
        self.store.dead_letters(Some(&name(destination)), None, 100).await.unwrap()
    }

    /// Expects dead letters of these events, each once and with the reason.
    async fn expect_dead(&self, expected: &[i64]) {
        let dead = self.dead_letters("queue").await;
        let ids: Vec<i64> = dead.iter().map(|dead_letter| dead_letter.id.parse().unwrap()).collect();
        assert_eq!(ids, expected);
        assert!(dead.iter().all(|dead_letter| dead_letter.error.starts_with("destination_removed: ")));
    }
}

/// Emits an event about a target, with a number as its id.
async fn emit(store: &Store, seq: i64, target: &str) {
    emit_phase(store, seq, target, None).await;
}

async fn emit_phase(store: &Store, seq: i64, target: &str, episode_phase: Option<EpisodePhase>) {
    let expirytime = store.now().after(Duration::from_secs(3600));
    let body = stub::event(seq, target, "scale_out", expirytime);
    let target = TargetKey::from_stored(target);
    let event = NewEvent {
        target: target.clone(),
        acting: destinations().into(),
        destinations: destinations().into(),
        may_decrease_capacity: false,
        reverts: Arc::default(),
        episode_phase,
        body: body.as_str().into(),
    };
    // A target without a state is deleted, and so has no order.
    let resolve = LastResolve {
        alert: AlertKey { source: name("prod"), fingerprint: target.as_str().into() },
        ends_at: store.now(),
        was_open: true,
        closed_at: None,
        until: Time::from_nanos(i64::MAX),
    };
    let state = TargetState { last_resolves: std::iter::once(resolve).collect(), ..TargetState::default() };
    let keys = Keys { targets: vec![target.clone()], ..Keys::default() };
    let decide = move |_: &View| {
        let (states, events) = (vec![(target.clone(), state.clone())], vec![event.clone()]);
        (Changes { states, events, ..Changes::default() }, ())
    };
    store.transact(keys, decide).await.unwrap();
}

impl DeliveryQueue for FaultyOutbox {
    async fn claim(&self, destination: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        self.perform(Operation::Claim).await?;
        if self.shared.is_withheld.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        self.store.claim(destination, max).await
    }

    async fn settle(&self, destination: &Name, settled: Vec<(Lease, Settlement)>) -> Result<(), Error> {
        self.perform(Operation::Settle).await?;
        let outcomes = settled.iter().map(|(_, settlement)| settlement.clone()).collect();
        self.store.settle(destination, settled).await?;
        self.shared.settled.lock().push(outcomes);
        Ok(())
    }

    async fn claim_expired(
        &self,
        destination: &Name,
        limits: AgeLimits,
        max: usize,
    ) -> Result<Expired, Error> {
        self.store.claim_expired(destination, limits, max).await
    }

    fn undelivered_at(&self, destination: &Name) -> u64 {
        self.store.undelivered_at(destination)
    }

    async fn begin_calls(&self, destination: &Name, leases: Vec<Lease>) -> Result<Vec<Refused>, Error> {
        self.store.begin_calls(destination, leases).await
    }

    async fn wait(&self, _: &Name) {
        self.shared.released.notified().await;
    }

    fn clock(&self) -> ClockReading {
        self.store.clock()
    }
}

impl RetirementOutbox for FaultyOutbox {
    fn release_claims(&self, destination: &Name) -> Result<(), Error> {
        self.store.release_claims(destination)
    }

    fn release_all(&self, destination: &Name) -> Result<(), Error> {
        self.store.release_all(destination)
    }

    async fn remove_destination(&self, destination: &Name) -> Result<(), Error> {
        self.perform(Operation::Remove).await?;
        self.store.remove_destination(destination).await
    }
}

/// A running retirement, and what it waits for.
struct Running {
    handle: RetirementHandle,
    task: JoinHandle<()>,
    process_stop: CancellationToken,
    /// Cancelled to release the old rules.
    rules_released: CancellationToken,
    /// The worker, until it ends.
    worker: Option<WorkerGuard>,
    /// Whether `on_retired` was called.
    is_reported: Arc<AtomicBool>,
}

impl Running {
    fn of_removed(outbox: &FaultyOutbox) -> Self {
        let (process_stop, rules_released) = (CancellationToken::new(), CancellationToken::new());
        let (worker, guard) = WorkerHandle::new(&process_stop);
        let released = Box::pin(rules_released.clone().cancelled_owned());
        let retirement =
            Retirement::of_removed(queue(), outbox.clone(), worker, released, process_stop.clone());
        Self { rules_released, worker: Some(guard), ..Self::start(retirement, process_stop) }
    }

    fn of_orphan(outbox: &FaultyOutbox) -> Self {
        let process_stop = CancellationToken::new();
        let retirement = Retirement::of_orphan(queue(), outbox.clone(), process_stop.clone());
        Self::start(retirement, process_stop)
    }

    fn of_replaced(outbox: &FaultyOutbox) -> Self {
        let process_stop = CancellationToken::new();
        let (worker, guard) = WorkerHandle::new(&process_stop);
        let retirement = Retirement::of_replaced(queue(), outbox.clone(), worker, process_stop.clone());
        Self { worker: Some(guard), ..Self::start(retirement, process_stop) }
    }

    fn start(retirement: Retirement<FaultyOutbox>, process_stop: CancellationToken) -> Self {
        let is_reported: Arc<AtomicBool> = Arc::default();
        let report = is_reported.clone();
        let retirement = retirement.then(move || report.store(true, Ordering::Relaxed));
        let handle = retirement.handle();
        let (task, rules_released) = (tokio::spawn(retirement.run()), CancellationToken::new());
        Self { handle, task, process_stop, rules_released, worker: None, is_reported }
    }

    fn state(&self) -> State {
        *self.handle.0.borrow()
    }

    async fn reach(&mut self, is_reached: impl FnMut(&State) -> bool) -> State {
        *self.handle.0.wait_for(is_reached).await.unwrap()
    }

    /// Lets the old rules and the worker go.
    fn proceed(&mut self) {
        self.rules_released.cancel();
        self.worker = None;
    }

    /// The final state.
    async fn end(self) -> State {
        self.task.await.unwrap();
        let state = *self.handle.0.borrow();
        assert_eq!(self.is_reported.load(Ordering::Relaxed), matches!(state, State::Retired { .. }));
        state
    }
}
