//! Rate limits: the number of increases and decreases per minute.
//!
//! Each blocked action reserves a slot at which it is rechecked, each later than the one before, so that a
//! thousand deferred actions do not return at once to compete for sixty places.
//!
//! A step of the engine does not change the rates that all decisions share. It reads a snapshot of them, makes
//! its changes to a copy ([`StepRates`]) and returns them as a [`RateDelta`]. The caller of the step applies the
//! delta, unless another decision was faster ([`Rates::try_apply`]); the step is then executed again.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::direction::Direction;
use super::rule::Change;
use super::time::Time;

/// The length of the sliding window.
const WINDOW: Duration = Duration::from_secs(60);
/// How long after an emission or slot is over it is retained. Concurrent decisions have times that differ a
/// little, so what is over for one may count for another. If they differ by more, the earlier one is blocked.
const RETENTION: Duration = Duration::from_secs(60);

/// Events per minute; 0 is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerMinute {
    /// Events that increase capacity.
    pub scale_out: u32,
    /// Events that decrease capacity.
    pub scale_in: u32,
}

impl PerMinute {
    /// The limit of a direction; `None` if unlimited.
    fn for_direction(self, direction: Direction) -> Option<usize> {
        let limit = match direction {
            Direction::ScaleOut => self.scale_out,
            Direction::ScaleIn => self.scale_in,
        };
        (limit > 0).then_some(limit as usize)
    }
}

/// The recent emissions and reserved slots, of this process or of all that share a store. Cheap to clone: a copy shares each
/// direction until one of both changes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rates {
    scale_out: Arc<Rate>,
    scale_in: Arc<Rate>,
}

/// A reserved slot of a deferred action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The direction whose limit was reached.
    pub direction: Direction,
    /// The time at which the action is rechecked.
    pub at: Time,
}

/// The changes that a step made to its copy of the rates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateDelta {
    /// In order; empty for most steps.
    changes: Vec<(Direction, RateChange)>,
    /// The rates after the changes; of unchanged directions, those that the step has read.
    rates: Rates,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RateChange {
    /// An event was emitted at this time.
    Emitted(Time),
    /// The slot at this time was reserved.
    Reserved(Time),
    /// The slot at this time was released.
    Released(Time),
}

/// Emissions and slots of one direction. A store that several processes share stores it as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rate {
    /// The times of the recent emissions, sorted.
    sent: VecDeque<Time>,
    /// The time of the last emission that is not retained.
    last_pruned: Option<Time>,
    /// The reserved slots, sorted. A slot that is due does not count any more.
    slots: VecDeque<Time>,
}

impl RateDelta {
    /// Whether the step has changed nothing: no limit applied, or an action kept its slot.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The directions that have changed.
    pub fn directions(&self) -> impl Iterator<Item = Direction> + use<'_> {
        let is_changed = |direction: &Direction| self.changes.iter().any(|(changed, _)| changed == direction);
        Direction::ALL.into_iter().filter(is_changed)
    }
}

impl Rates {
    /// Applies the changes of a step that has read `snapshot`, and returns `true`. Changes nothing and returns
    /// `false` if another decision has changed one of the step's directions since: the step may have emitted
    /// an event for which there is no capacity any more.
    #[must_use]
    pub fn try_apply(&mut self, snapshot: &Self, delta: &RateDelta) -> bool {
        // The snapshot keeps its rates alive, so the same address is the same version.
        let is_unchanged = |direction| Arc::ptr_eq(self.rate(direction), snapshot.rate(direction));
        if !delta.directions().all(is_unchanged) {
            return false;
        }
        for direction in delta.directions() {
            self.rate_mut(direction).clone_from(delta.rates.rate(direction));
        }
        true
    }

    /// Reverts the changes of a decision that was not committed, including its slots: the decision will be
    /// repeated, and otherwise each attempt would reserve further slots.
    pub fn rollback(&mut self, delta: RateDelta) {
        for (direction, change) in delta.changes.into_iter().rev() {
            let rate = Arc::make_mut(self.rate_mut(direction));
            match change {
                RateChange::Emitted(at) => rate.remove_sent(at),
                RateChange::Reserved(slot_at) => rate.remove_slot(slot_at),
                RateChange::Released(slot_at) => rate.insert_slot(slot_at),
            }
        }
    }

    /// The emissions and slots of a direction.
    pub const fn rate(&self, direction: Direction) -> &Arc<Rate> {
        match direction {
            Direction::ScaleOut => &self.scale_out,
            Direction::ScaleIn => &self.scale_in,
        }
    }

    /// The emissions and slots of a direction, to be replaced.
    pub const fn rate_mut(&mut self, direction: Direction) -> &mut Arc<Rate> {
        match direction {
            Direction::ScaleOut => &mut self.scale_out,
            Direction::ScaleIn => &mut self.scale_in,
        }
    }

    /// The emissions and the slots of a direction that are retained.
    #[cfg(test)]
    pub(crate) fn contents(&self, direction: Direction) -> (Vec<Time>, Vec<Time>) {
        let Rate { sent, slots, .. } = &**self.rate(direction);
        (sent.iter().copied().collect(), slots.iter().copied().collect())
    }
}

/// The rates within one step: a snapshot, of which a direction is copied when the step changes it first.
#[derive(Debug)]
pub struct StepRates<'a> {
    rates: Cow<'a, Rates>,
    limits: PerMinute,
    now: Time,
    changes: Vec<(Direction, RateChange)>,
}

impl<'a> StepRates<'a> {
    /// The rates of a step at the time `now`.
    pub const fn new(snapshot: &'a Rates, limits: PerMinute, now: Time) -> Self {
        Self { rates: Cow::Borrowed(snapshot), limits, now, changes: Vec::new() }
    }

    /// Checks a change against the limits. If it is blocked, reserves and returns a slot; `None` means that
    /// it can be emitted. `slot` is the one that the action has already reserved; it is reused until it is
    /// due.
    pub fn reserve_if_limited(&mut self, change: &Change, slot: Option<Slot>) -> Option<Slot> {
        // An action whose slot is due takes precedence in both directions.
        let is_due = slot.is_some_and(|slot| slot.at <= self.now);
        for (direction, limit) in applicable_limits(self.limits, change) {
            let reserved = slot.filter(|slot| slot.direction == direction).map(|slot| slot.at);
            match self.rates.rate(direction).check(limit, self.now, reserved, is_due) {
                Check::Free => {}
                Check::KeepsSlot(at) => return Some(Slot { direction, at }),
                Check::NeedsSlot(at) => {
                    self.change(direction, RateChange::Reserved(at)).insert_slot(at);
                    return Some(Slot { direction, at });
                }
            }
        }
        None
    }

    /// Releases a slot that is no longer needed.
    pub fn release(&mut self, Slot { direction, at }: Slot) {
        if self.rates.rate(direction).is_reserved(at, self.now) {
            self.change(direction, RateChange::Released(at)).remove_slot(at);
        }
    }

    /// Records an emission.
    pub fn record_emission(&mut self, change: &Change) {
        for (direction, _) in applicable_limits(self.limits, change) {
            let now = self.now;
            self.change(direction, RateChange::Emitted(now)).insert_sent(now);
        }
    }

    /// The changes of the step.
    pub fn into_delta(self) -> RateDelta {
        let Self { rates, changes, .. } = self;
        if changes.is_empty() {
            RateDelta::default()
        } else {
            RateDelta { changes, rates: rates.into_owned() }
        }
    }

    fn change(&mut self, direction: Direction, change: RateChange) -> &mut Rate {
        self.changes.push((direction, change));
        let rate = Arc::make_mut(self.rates.to_mut().rate_mut(direction));
        rate.prune(self.now);
        rate
    }
}

/// The limits that apply to a change.
fn applicable_limits(limits: PerMinute, change: &Change) -> impl Iterator<Item = (Direction, usize)> + use<> {
    let directions = Direction::ALL.map(|direction| change.has_direction(direction).then_some(direction));
    let directions = directions.into_iter().flatten();
    directions.filter_map(move |direction| Some((direction, limits.for_direction(direction)?)))
}

/// Whether an action can be emitted within a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// There is capacity for it now.
    Free,
    /// Its reserved slot is not due yet.
    KeepsSlot(Time),
    /// This is the next free slot.
    NeedsSlot(Time),
}

impl Rate {
    fn check(&self, limit: usize, now: Time, reserved: Option<Time>, is_due: bool) -> Check {
        if let Some(slot_at) = reserved.filter(|slot_at| self.is_reserved(*slot_at, now)) {
            return Check::KeepsSlot(slot_at);
        }
        let sent = self.sent.range(self.sent.partition_point(|sent| sent.after(WINDOW) <= now)..);
        let slots = self.slots.range(self.slots.partition_point(|slot_at| *slot_at <= now)..);
        let slots_ahead = if is_due { 0 } else { slots.len() };
        // After a suspension of this thread, emissions that count for it may have been dropped.
        let is_complete = self.last_pruned.is_none_or(|pruned| pruned.after(WINDOW) <= now);
        if is_complete && sent.len() + slots_ahead < limit {
            return Check::Free;
        }
        // One minute after the emission or slot that is `limit` places before the new one.
        let index = (sent.len() + slots.len()).saturating_sub(limit);
        let before = sent.chain(slots).nth(index).copied().unwrap_or(now);
        Check::NeedsSlot(before.after(WINDOW))
    }

    /// Whether a slot is reserved and not due.
    fn is_reserved(&self, slot_at: Time, now: Time) -> bool {
        slot_at > now && self.slots.binary_search(&slot_at).is_ok()
    }

    fn prune(&mut self, now: Time) {
        while self.sent.front().is_some_and(|sent| sent.after(WINDOW + RETENTION) <= now) {
            self.last_pruned = self.sent.pop_front();
        }
        while self.slots.front().is_some_and(|slot_at| slot_at.after(RETENTION) <= now) {
            self.slots.pop_front();
        }
    }

    /// Keeps the order even if concurrent decisions commit slightly out of order.
    fn insert_sent(&mut self, at: Time) {
        let index = self.sent.partition_point(|known| *known <= at);
        self.sent.insert(index, at);
    }

    /// Keeps the order. A new slot is usually the last, except after the release of an earlier one.
    fn insert_slot(&mut self, slot_at: Time) {
        let at = self.slots.partition_point(|known| *known <= slot_at);
        self.slots.insert(at, slot_at);
    }

    fn remove_slot(&mut self, slot_at: Time) {
        if let Ok(at) = self.slots.binary_search(&slot_at) {
            self.slots.remove(at);
        }
    }

    fn remove_sent(&mut self, at: Time) {
        if let Some(at) = self.sent.iter().rposition(|sent| *sent == at) {
            self.sent.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::domain::rule::Amount;

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn scale_in_slot(slot_at: i64) -> Option<Slot> {
        Some(Slot { direction: Direction::ScaleIn, at: at(slot_at) })
    }

    fn scale_in() -> Change {
        Change::ScaleIn(Amount::By(NonZeroU32::MIN))
    }

    const fn limits(scale_out: u32, scale_in: u32) -> PerMinute {
        PerMinute { scale_out, scale_in }
    }

    /// Executes a step and applies its changes.
    fn step<T>(
        rates: &mut Rates,
        limits: PerMinute,
        seconds: i64,
        step: impl FnOnce(&mut StepRates<'_>) -> T,
    ) -> (T, RateDelta) {
        let snapshot = rates.clone();
        let mut step_rates = StepRates::new(&snapshot, limits, at(seconds));
        let result = step(&mut step_rates);
        let delta = step_rates.into_delta();
        assert!(rates.try_apply(&snapshot, &delta));
        (result, delta)
    }

    #[test]
    fn blocked_actions_get_consecutive_slots() {
        let (mut rates, limits, change) = (Rates::default(), limits(0, 2), scale_in());
        let mut reserve = |seconds, slot| {
            step(&mut rates, limits, seconds, |rates| {
                let slot = rates.reserve_if_limited(&change, slot);
                if slot.is_none() && seconds < 2 {
                    rates.record_emission(&change);
                }
                slot
            })
            .0
        };
        assert_eq!((reserve(0, None), reserve(1, None)), (None, None));
        let slots: Vec<i64> = (0..5).map(|_| reserve(2, None).unwrap().at.as_millis() / 1000).collect();
        assert_eq!(slots, [60, 61, 120, 121, 180]);
        // A repeated check keeps its slot.
        assert_eq!(reserve(3, scale_in_slot(61)), scale_in_slot(61));
        // When its slot is due it can be emitted, but not an action that has just arrived.
        assert_eq!(reserve(60, None), scale_in_slot(181));
        assert_eq!(reserve(60, scale_in_slot(60)), None);
    }

    #[test]
    fn a_rollback_leaves_neither_an_emission_nor_a_slot() {
        let (mut rates, limits, change) = (Rates::default(), limits(0, 1), scale_in());
        step(&mut rates, limits, 0, |rates| rates.record_emission(&change));
        let (slot, _) = step(&mut rates, limits, 1, |rates| rates.reserve_if_limited(&change, None));
        assert_eq!(slot, scale_in_slot(60));
        let before = rates.clone();
        // While the disk is full, the sender retries repeatedly.
        for second in 2..50 {
            let ((), delta) = step(&mut rates, limits, second, |rates| {
                rates.release(scale_in_slot(60).unwrap());
                for slot_at in [60, 120, 180] {
                    assert_eq!(rates.reserve_if_limited(&change, None), scale_in_slot(slot_at));
                }
                rates.record_emission(&change);
            });
            rates.rollback(delta);
        }
        assert_eq!(rates, before);
    }

    #[test]
    fn zero_is_unlimited_and_each_direction_has_its_own_limit() {
        let (mut rates, limits) = (Rates::default(), limits(1, 0));
        let to = Change::SetCapacity { to: 3, allow_decrease: true };
        let (slot, delta) = step(&mut rates, limits, 0, |rates| {
            rates.record_emission(&scale_in());
            rates.reserve_if_limited(&scale_in(), None)
        });
        assert!(slot.is_none() && delta.is_empty(), "no limit applies");
        let ((), emitted) = step(&mut rates, limits, 0, |rates| rates.record_emission(&to));
        let reserve = |rates: &mut StepRates<'_>| rates.reserve_if_limited(&to, None);
        let slot = Slot { direction: Direction::ScaleOut, at: at(60) };
        assert_eq!(step(&mut rates, limits, 1, reserve).0, Some(slot));
        step(&mut rates, limits, 1, |rates| rates.release(slot));
        rates.rollback(emitted);
        assert_eq!(step(&mut rates, limits, 1, reserve).0, None, "neither the emission nor the slot remains");
    }

    #[test]
    fn a_step_on_an_outdated_snapshot_is_not_applied() {
        let (mut rates, limits, change) = (Rates::default(), limits(5, 5), scale_in());
        let snapshot = rates.clone();
        let delta_of = |change: &Change| {
            let mut step = StepRates::new(&snapshot, limits, at(0));
            step.record_emission(change);
            step.into_delta()
        };
        let (inwards, out) = (delta_of(&change), delta_of(&Change::ScaleOut(Amount::By(NonZeroU32::MIN))));
        let both = delta_of(&Change::SetCapacity { to: 3, allow_decrease: true });
        let nothing = StepRates::new(&snapshot, limits, at(0)).into_delta();
        assert!(rates.try_apply(&snapshot, &inwards));
        assert!(!rates.try_apply(&snapshot, &inwards), "the direction has changed");
        assert!(!rates.try_apply(&snapshot, &both), "one of both directions has changed");
        assert!(rates.try_apply(&snapshot, &nothing) && rates.try_apply(&snapshot, &out));
        assert_eq!(rates.contents(Direction::ScaleIn).0, [at(0)]);
        assert_eq!(rates.contents(Direction::ScaleOut).0, [at(0)]);
        // A rollback is a change too, although the contents are those of the snapshot again.
        rates.rollback(inwards.clone());
        assert!(!rates.try_apply(&snapshot, &inwards));
    }

    #[test]
    fn what_another_decision_may_count_is_retained_for_a_minute() {
        let (mut rates, limits, change) = (Rates::default(), limits(0, 1), scale_in());
        let emit = |rates: &mut StepRates<'_>| {
            assert_eq!(rates.reserve_if_limited(&change, None), None);
            rates.record_emission(&change);
        };
        step(&mut rates, limits, 0, emit);
        let ((), delta) = step(&mut rates, limits, 60, emit);
        rates.rollback(delta);
        // Its time is earlier than that of the decision that has counted the first emission as over.
        let (slot, _) = step(&mut rates, limits, 59, |rates| rates.reserve_if_limited(&change, None));
        assert_eq!(slot, scale_in_slot(60));
        step(&mut rates, limits, 130, emit);
        let (sent, slots) = rates.contents(Direction::ScaleIn);
        assert_eq!((sent, slots), (vec![at(130)], vec![]), "what is outside the window is dropped");
        // A thread that was suspended for more than a minute is blocked, since it cannot know.
        let limits = PerMinute { scale_out: 0, scale_in: 9 };
        let reserve = |rates: &mut StepRates<'_>| rates.reserve_if_limited(&change, None);
        assert!(step(&mut rates, limits, 59, reserve).0.is_some());
        assert_eq!(step(&mut rates, limits, 60, reserve).0, None);
    }
}
