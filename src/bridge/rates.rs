//! The rate limits of this process, shared by all decisions: optimistic concurrency without a lock over the step. A store
//! that several processes share has the rates of all of them, and applies the changes of a step itself.
//!
//! A step reads a snapshot of the rates. Its changes are applied under a short lock; if another decision has changed
//! the same rates since, the step runs again on a new snapshot. So the limits are strict, and a step to which no
//! limit applies takes no lock at all.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::domain::engine::Step;
use crate::domain::rate::{RateDelta, Rates};

/// The number of conflicts after which a step runs under the lock, so that it terminates.
const MAX_CONFLICTS: u32 = 3;

/// The current rates.
#[derive(Default)]
pub(super) struct SharedRates {
    current: ArcSwap<Rates>,
    /// Held while `current` is replaced. Readers do not take it.
    write: Mutex<()>,
}

impl SharedRates {
    /// A snapshot of the rates.
    pub(super) fn load(&self) -> Arc<Rates> {
        self.current.load_full()
    }

    fn try_apply(&self, snapshot: &Rates, delta: &RateDelta) -> bool {
        delta.is_empty() || {
            let _lock = self.write.lock();
            self.try_apply_locked(snapshot, delta)
        }
    }

    /// The caller holds the lock.
    fn try_apply_locked(&self, snapshot: &Rates, delta: &RateDelta) -> bool {
        let mut rates = Rates::clone(&self.current.load());
        let is_applied = rates.try_apply(snapshot, delta);
        if is_applied {
            self.current.store(Arc::new(rates));
        }
        is_applied
    }

    fn rollback(&self, delta: RateDelta) {
        if !delta.is_empty() {
            let _lock = self.write.lock();
            let mut rates = Rates::clone(&self.current.load());
            rates.rollback(delta);
            self.current.store(Arc::new(rates));
        }
    }
}

/// The changes of one transaction to the rates. Only committed emissions count against the limits: what the step
/// has changed is reverted when it runs again, and when the commit fails.
#[derive(Clone)]
pub(super) struct RateTransaction {
    shared: Arc<SharedRates>,
    /// What the last run of the step has changed.
    applied: Arc<Mutex<RateDelta>>,
}

impl RateTransaction {
    pub(super) fn new(shared: Arc<SharedRates>) -> Self {
        Self { shared, applied: Arc::default() }
    }

    /// Runs a step, and applies its changes to the rates of this process. The step can run more than once. With the rates
    /// of a store, which applies the changes, it runs once, and keeps them.
    pub(super) fn run(&self, stored: Option<&Rates>, step: impl Fn(&Rates) -> Step) -> Step {
        if let Some(rates) = stored {
            return step(rates);
        }
        self.rollback();
        for _ in 0..MAX_CONFLICTS {
            let snapshot = self.shared.load();
            let mut step = step(&snapshot);
            if self.shared.try_apply(&snapshot, &step.rates) {
                *self.applied.lock() = std::mem::take(&mut step.rates);
                return step;
            }
        }
        let _lock = self.shared.write.lock();
        let snapshot = self.shared.load();
        let mut step = step(&snapshot);
        let is_applied = self.shared.try_apply_locked(&snapshot, &step.rates);
        debug_assert!(is_applied, "the lock is held, so the rates have not changed");
        *self.applied.lock() = std::mem::take(&mut step.rates);
        step
    }

    /// Reverts what the step has changed.
    pub(super) fn rollback(&self) {
        let applied = std::mem::take(&mut *self.applied.lock());
        self.shared.rollback(applied);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::domain::direction::Direction;
    use crate::domain::rate::{PerMinute, Slot, StepRates};
    use crate::domain::rule::{Amount, Change};
    use crate::domain::time::Time;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(millis: i64) -> Time {
        Time::from_millis(millis)
    }

    fn scale_in() -> Change {
        Change::ScaleIn(Amount::By(NonZeroU32::MIN))
    }

    const fn limits(scale_out: u32, scale_in: u32) -> PerMinute {
        PerMinute { scale_out, scale_in }
    }

    /// A step that does this with its rates.
    fn step(snapshot: &Rates, limits: PerMinute, now: Time, act: impl FnOnce(&mut StepRates<'_>)) -> Step {
        let mut rates = StepRates::new(snapshot, limits, now);
        act(&mut rates);
        Step { rates: rates.into_delta(), ..Step::default() }
    }

    fn emit(shared: &Arc<SharedRates>, now: Time) -> RateTransaction {
        let transaction = RateTransaction::new(shared.clone());
        transaction
            .run(None, |rates| step(rates, limits(0, 100), now, |rates| rates.record_emission(&scale_in())));
        transaction
    }

    fn sent(shared: &SharedRates) -> Vec<Time> {
        shared.load().contents(Direction::ScaleIn).0
    }

    #[test]
    fn other_decisions_are_made_while_a_step_runs_and_it_runs_again_if_they_change_the_same_rates() {
        let (shared, runs) = (Arc::new(SharedRates::default()), AtomicU32::new(0));
        let transaction = RateTransaction::new(shared.clone());
        transaction.run(None, |rates| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            // Another thread reads and changes the rates, and this step waits for it.
            if run == 0 {
                let other = shared.clone();
                std::thread::spawn(move || emit(&other, at(0))).join().unwrap();
                assert_eq!((sent(&shared), rates.contents(Direction::ScaleIn).0), (vec![at(0)], vec![]));
            } else {
                assert_eq!(rates.contents(Direction::ScaleIn).0, [at(0)], "a new snapshot");
            }
            step(rates, limits(0, 100), at(1), |rates| rates.record_emission(&scale_in()))
        });
        assert_eq!((runs.into_inner(), sent(&shared)), (2, vec![at(0), at(1)]));
        transaction.rollback();
        assert_eq!(sent(&shared), [at(0)]);
        transaction.rollback();
        assert_eq!(sent(&shared), [at(0)], "once");
    }

    #[test]
    fn a_step_to_which_no_limit_applies_has_no_conflict_and_takes_no_lock() {
        let (shared, runs) = (Arc::new(SharedRates::default()), AtomicU32::new(0));
        let _lock = shared.write.lock();
        RateTransaction::new(shared.clone()).run(None, |rates| {
            runs.fetch_add(1, Ordering::Relaxed);
            step(rates, limits(5, 0), at(1), |rates| rates.record_emission(&scale_in()))
        });
        assert_eq!((runs.into_inner(), sent(&shared)), (1, vec![]));
    }

    #[test]
    fn after_some_conflicts_the_step_runs_under_the_lock() {
        let (shared, runs) = (Arc::new(SharedRates::default()), AtomicU32::new(0));
        RateTransaction::new(shared.clone()).run(None, |rates| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            if run < MAX_CONFLICTS {
                emit(&shared, at(i64::from(run)));
            } else {
                assert!(shared.write.try_lock().is_none());
            }
            step(rates, limits(0, 100), at(9), |rates| rates.record_emission(&scale_in()))
        });
        assert_eq!(runs.into_inner(), MAX_CONFLICTS + 1);
        assert_eq!(sent(&shared), [at(0), at(1), at(2), at(9)]);
    }

    /// What one thread has committed.
    #[derive(Default)]
    struct CommittedActions {
        emissions: Vec<(Direction, Time)>,
        /// Of actions that are still deferred.
        slots: Vec<Slot>,
    }

    /// A deferred action takes part again when it is due; some transactions run twice, some fail.
    fn decide_at_random(
        shared: &Arc<SharedRates>,
        clock: &AtomicI64,
        limits: PerMinute,
        seed: u64,
    ) -> CommittedActions {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut committed = CommittedActions::default();
        for _ in 0..600 {
            let now = at(clock.fetch_add(random.i64(0..400), Ordering::Relaxed));
            let due = committed.slots.iter().position(|slot| slot.at <= now || random.u8(..) < 16);
            let slot = due.map(|index| committed.slots.swap_remove(index));
            let change = match (slot.map(|slot| slot.direction), random.u8(0..3)) {
                (_, 0) => Change::SetCapacity { to: 3, allow_decrease: true },
                (Some(Direction::ScaleIn), _) | (None, 1) => scale_in(),
                (Some(Direction::ScaleOut), _) | (None, _) => Change::ScaleOut(Amount::By(NonZeroU32::MIN)),
            };
            let transaction = RateTransaction::new(shared.clone());
            let outcome = Mutex::new(None);
            for _ in 0..random.u8(1..3) {
                transaction.run(None, |rates| {
                    step(rates, limits, now, |rates| {
                        let reserved = rates.reserve_if_limited(&change, slot);
                        std::thread::yield_now();
                        if reserved.is_none() {
                            rates.record_emission(&change);
                        }
                        if let Some(slot) = slot.filter(|slot| reserved != Some(*slot)) {
                            rates.release(slot);
                        }
                        *outcome.lock() = Some(reserved);
                    })
                });
            }
            if random.u8(0..4) == 0 {
                transaction.rollback();
                committed.slots.extend(slot);
                continue;
            }
            match outcome.into_inner().unwrap() {
                Some(reserved) => committed.slots.push(reserved),
                None => {
                    let directions = Direction::ALL.into_iter().filter(|it| change.has_direction(*it));
                    committed.emissions.extend(directions.map(|direction| (direction, now)));
                }
            }
        }
        committed
    }

    #[test]
    fn concurrent_decisions_never_exceed_the_limits_and_failed_ones_leave_nothing() {
        for seed in 0..5 {
            let (shared, clock, limits) = (Arc::new(SharedRates::default()), AtomicI64::new(0), limits(7, 4));
            let committed: Vec<CommittedActions> = std::thread::scope(|scope| {
                let run = |thread: u64| {
                    let (shared, clock) = (&shared, &clock);
                    scope.spawn(move || decide_at_random(shared, clock, limits, seed * 100 + thread))
                };
                let threads: Vec<_> = (0..8).map(run).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let now = at(clock.into_inner());
            for (direction, limit) in [(Direction::ScaleOut, 7), (Direction::ScaleIn, 4)] {
                let emissions = committed.iter().flat_map(|thread| &thread.emissions);
                let mut times: Vec<Time> =
                    emissions.filter(|(other, _)| *other == direction).map(|(_, at)| *at).collect();
                times.sort_unstable();
                // How many there are depends on how the threads take turns; more than one window is needed.
                assert!(times.len() > 2 * limit, "{direction}: {}", times.len());
                for window in times.windows(limit + 1) {
                    assert!(window[0].after(MINUTE) <= window[limit], "{direction}: {window:?}");
                }
                let slots = committed.iter().flat_map(|thread| &thread.slots);
                let mut slots: Vec<Time> =
                    slots.filter(|slot| slot.direction == direction).map(|slot| slot.at).collect();
                slots.sort_unstable();
                let (counted, reserved) = shared.load().contents(direction);
                let recent = |list: Vec<Time>| list.into_iter().filter(|at| at.after(MINUTE) > now).collect();
                let pending = |list: Vec<Time>| list.into_iter().filter(|at| *at > now).collect();
                let both: [Vec<Time>; 4] =
                    [recent(counted), recent(times), pending(reserved), pending(slots)];
                assert_eq!(both[0], both[1], "{direction}: emissions");
                assert_eq!(both[2], both[3], "{direction}: slots");
            }
        }
    }
}
