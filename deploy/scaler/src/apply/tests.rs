//! Workers beside each other, on a ledger and a platform in memory that can fail at any call.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use scalebridge::domain::time::Time;

use super::*;
use crate::ledger::{AppliedItem, Freeze, conformance};
use crate::outcome::Outcome;
use crate::plan::MAX_HOLD;
use crate::plan::test_support::{NOW, event, id, size};

const START: u32 = 50;
/// Shorter than [`plan::CALL_WINDOW`] by what a worker needs between its last look at the clock and its call.
const TIMEOUT: Duration = Duration::from_secs(10);

struct World {
    targets: BTreeMap<String, TargetItem>,
    applied: BTreeMap<String, AppliedItem>,
    freeze: Freeze,
    capacity: u32,
    now: Time,
    calls: Vec<String>,
    /// For each coming call of the ledger or the platform how it fails.
    faults: Vec<Fault>,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It is not carried out.
    Before,
    /// It is carried out, and the answer is lost.
    After,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<World>>);

/// Lets other workers go on first.
async fn turn() {
    struct Once(bool);
    impl Future for Once {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
        }
    }
    Once(false).await;
}

impl Shared {
    fn new(faults: Vec<Fault>) -> Self {
        let (targets, applied, freeze, calls) = Default::default();
        let (capacity, now) = (START, NOW);
        Self(Arc::new(Mutex::new(World { targets, applied, freeze, capacity, now, calls, faults })))
    }

    fn now(&self) -> Time {
        self.0.lock().unwrap().now
    }

    fn pass(&self, time: Duration) {
        let mut world = self.0.lock().unwrap();
        world.now = world.now.after(time);
    }

    async fn call<T>(&self, run: impl FnOnce(&mut World) -> T) -> Result<T, String> {
        let began = self.now();
        turn().await;
        let mut world = self.0.lock().unwrap();
        // The client's timeout. The platform executes nothing later.
        if world.now >= began.after(TIMEOUT) {
            return Err("no answer in time".to_owned());
        }
        let fault = world.faults.pop().unwrap_or(Fault::None);
        if fault == Fault::Before {
            return Err("not reached".to_owned());
        }
        let done = run(&mut world);
        if fault == Fault::After { Err("no answer".to_owned()) } else { Ok(done) }
    }
}

impl Ledger for Shared {
    async fn read(&self, event: &ScalingEvent) -> Result<Entries, LedgerError> {
        let read = self.call(|world| {
            let target = world.targets.get(&event.subject).cloned().unwrap_or_default();
            Entries { target, applied: world.applied.clone(), freeze: world.freeze.clone() }
        });
        read.await.map_err(LedgerError)
    }

    async fn write_target(
        &self,
        subject: &str,
        version: u64,
        item: &TargetItem,
    ) -> Result<Written, LedgerError> {
        let written = self.call(|world| {
            let known = world.targets.get(subject).map_or(0, |item| item.version);
            if known != version {
                return Written::Changed;
            }
            world.targets.insert(subject.to_owned(), item.clone());
            Written::Yes
        });
        written.await.map_err(LedgerError)
    }

    async fn replace_applied(
        &self,
        _: &str,
        old: &AppliedItem,
        new: &AppliedItem,
    ) -> Result<Written, LedgerError> {
        let written = self.call(|world| match world.applied.get_mut(&new.id) {
            Some(item) if *item == *old || *item == *new => {
                *item = new.clone();
                Written::Yes
            }
            _ => Written::Changed,
        });
        written.await.map_err(LedgerError)
    }

    async fn write_applied(&self, _: &str, item: &AppliedItem) -> Result<(), LedgerError> {
        let written = self.call(|world| {
            world.applied.entry(item.id.clone()).or_insert_with(|| item.clone());
        });
        written.await.map_err(LedgerError)
    }

    async fn read_freeze(&self) -> Result<Freeze, LedgerError> {
        self.call(|world| world.freeze.clone()).await.map_err(LedgerError)
    }

    async fn write_freeze(&self, version: u64, freeze: &Freeze) -> Result<Written, LedgerError> {
        let written = self.call(|world| {
            if world.freeze.version != version {
                return Written::Changed;
            }
            world.freeze = freeze.clone();
            Written::Yes
        });
        written.await.map_err(LedgerError)
    }
}

impl Capacity for Shared {
    async fn read(&self) -> Result<Present, PlatformError> {
        self.call(|world| size(world.capacity)).await.map_err(PlatformError::Unknown)
    }

    /// Without preconditions and without tokens: the hardest platform.
    async fn set(&self, _: &Present, to: u32, token: &str) -> Result<(), PlatformError> {
        let set = self.call(|world| {
            world.capacity = to;
            world.calls.push(token.to_owned());
        });
        set.await.map_err(PlatformError::Unknown)
    }
}

type Worker<'a> = Pin<Box<dyn Future<Output = Answer> + 'a>>;

/// Runs workers in turns that `order` chooses, with the seconds that pass before each; those that have no turn left die.
fn run(world: &Shared, mut workers: Vec<Worker<'_>>, order: &[(usize, u64)]) {
    let mut context = Context::from_waker(Waker::noop());
    for (turn, seconds) in order {
        world.pass(Duration::from_secs(*seconds));
        if workers.is_empty() {
            return;
        }
        let at = turn % workers.len();
        if workers[at].as_mut().poll(&mut context).is_ready() {
            drop(workers.swap_remove(at));
        }
    }
}

/// One worker to its end.
fn finish<T>(mut worker: Pin<Box<dyn Future<Output = T> + '_>>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(answer) = worker.as_mut().poll(&mut context) {
            return answer;
        }
    }
}

fn events(changes: &[i64]) -> Vec<ScalingEvent> {
    (1..)
        .zip(changes)
        .map(|(number, change)| event(number, u64::from(number), &format!("{change:+}")))
        .collect()
}

#[test]
fn the_ledger_of_these_tests_conforms() {
    finish(Box::pin(conformance::check(&Shared::new(Vec::new()))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is lost or dies, and however workers interleave, each event changes the capacity at most once, and in the
    /// end each was applied but decreases that were overtaken.
    #[test]
    fn each_event_acts_once_beside_other_workers(
        changes in prop::collection::vec(prop_oneof![1_i64..=5, -5_i64..=-1], 1..5),
        copies in prop::collection::vec(0_usize..5, 1..8),
        order in prop::collection::vec(
            (0_usize..8, prop_oneof![9 => Just(0_u64), 1 => 0_u64..30, 1 => 30_u64..90]), 0..120),
        faults in prop::collection::vec(
            prop_oneof![6 => Just(Fault::None), 1 => Just(Fault::Before), 1 => Just(Fault::After)], 0..60),
    ) {
        let events = events(&changes);
        let world = Shared::new(faults);
        let policy = Policy::default();
        let mut number = 0;
        let mut worker = |event| -> Worker<'_> {
            number += 1;
            Box::pin(apply(number, event, &world, &world, &policy, || world.now(), |_| ()))
        };
        run(&world, copies.iter().map(|at| worker(&events[at % events.len()])).collect(), &order);
        world.0.lock().unwrap().faults.clear();
        world.pass(MAX_HOLD);
        let mut expected = i64::from(START);
        for (event, change) in events.iter().zip(&changes) {
            let answer = finish(worker(event));
            match answer.outcome {
                Outcome::Applied | Outcome::AlreadyApplied => expected += change,
                Outcome::Overtaken => prop_assert!(*change < 0, "{answer:?}"),
                _ => prop_assert!(false, "{answer:?}"),
            }
        }
        let world = world.0.lock().unwrap();
        prop_assert_eq!(i64::from(world.capacity), expected, "{:?}", world.calls);
        for number in 1..=events.len() {
            let calls = world.calls.iter().filter(|of| **of == id(number as u32)).count();
            prop_assert!(calls <= 1, "event {number} was called {calls} times");
        }
    }
}

#[test]
fn a_change_that_another_event_has_begun_is_reported_once() {
    let world = Shared::new(Vec::new());
    let (first, second) = (event(1, 1, "+2"), event(2, 2, "+3"));
    let policy = Policy::default();
    // It dies after it has written down that it calls.
    let mut dying = Box::pin(apply(1, &first, &world, &world, &policy, || world.now(), |_| ()));
    let mut context = Context::from_waker(Waker::noop());
    while world.0.lock().unwrap().targets.values().all(|item| item.version < 2) {
        assert!(dying.as_mut().poll(&mut context).is_pending());
    }
    drop(dying);
    world.pass(MAX_HOLD);
    let reported = Mutex::new(Vec::new());
    let on_other =
        |pending: &Pending| reported.lock().unwrap().push((pending.id.clone(), pending.from, pending.to));
    let answer = finish(Box::pin(apply(2, &second, &world, &world, &policy, || world.now(), on_other)));
    assert_eq!((answer.outcome, answer.from.zip(answer.to)), (Outcome::Applied, Some((52, 55))));
    let answer = finish(Box::pin(apply(3, &first, &world, &world, &policy, || world.now(), on_other)));
    assert_eq!((answer.outcome, answer.from.zip(answer.to)), (Outcome::AlreadyApplied, Some((50, 52))));
    assert_eq!(*reported.lock().unwrap(), [(id(1), 50, 52)]);
}
