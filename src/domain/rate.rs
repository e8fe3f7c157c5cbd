//! Rate limits of the process: the number of increases and decreases per minute.
//!
//! Each blocked action reserves a slot at which it is rechecked, each later than the one before, so that a
//! thousand deferred actions do not return at once to compete for sixty places.

use std::collections::VecDeque;
use std::time::Duration;

use super::direction::Direction;
use super::rule::Change;
use super::time::Time;

/// The length of the sliding window.
const WINDOW: Duration = Duration::from_secs(60);

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

/// The recent emissions and reserved slots of this process. Kept in memory, since the limits are per process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rates {
    scale_out: Rate,
    scale_in: Rate,
    /// The changes since the last [`Rates::take_delta`].
    delta: RateDelta,
}

/// A reserved slot of a deferred action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The direction whose limit was reached.
    pub direction: Direction,
    /// The time at which the action is rechecked.
    pub at: Time,
}

/// The changes that a decision made to the rate limits, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateDelta(Vec<(Direction, RateChange)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RateChange {
    /// An event was emitted at this time.
    Emitted(Time),
    /// The slot at this time was reserved.
    Reserved(Time),
    /// The slot at this time was released.
    Released(Time),
}

/// Emissions and slots of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rate {
    /// The times of the emissions in the last minute, sorted.
    sent: VecDeque<Time>,
    /// The reserved slots that are not due yet, sorted.
    slots: VecDeque<Time>,
}

impl Rates {
    /// Checks a change against the limits. If it is blocked, reserves and returns a slot; `None` means that
    /// it can be emitted. `slot` is the one that the action has already reserved; it is reused until it is
    /// due.
    pub fn reserve_if_limited(
        &mut self,
        limits: PerMinute,
        change: &Change,
        now: Time,
        slot: Option<Slot>,
    ) -> Option<Slot> {
        // An action whose slot is due takes precedence in both directions.
        let is_due = slot.is_some_and(|slot| slot.at <= now);
        applicable_limits(limits, change).find_map(|(direction, limit)| {
            let reserved = slot.filter(|slot| slot.direction == direction).map(|slot| slot.at);
            let slot_at = self.rate_mut(direction).reserve_if_limited(limit, now, reserved, is_due)?;
            if reserved != Some(slot_at) {
                self.record(direction, RateChange::Reserved(slot_at));
            }
            Some(Slot { direction, at: slot_at })
        })
    }

    /// Releases a slot that is no longer needed.
    pub fn release(&mut self, Slot { direction, at: slot_at }: Slot) {
        if self.rate_mut(direction).remove_slot(slot_at) {
            self.record(direction, RateChange::Released(slot_at));
        }
    }

    /// Records an emission.
    pub fn record_emission(&mut self, limits: PerMinute, change: &Change, now: Time) {
        for (direction, _) in applicable_limits(limits, change) {
            self.rate_mut(direction).insert_sent(now);
            self.record(direction, RateChange::Emitted(now));
        }
    }

    /// Returns and clears the changes since the last call: those of one decision, for [`Rates::rollback`] if
    /// it is not committed.
    pub fn take_delta(&mut self) -> RateDelta {
        std::mem::take(&mut self.delta)
    }

    /// Reverts the changes of a decision that was not committed, including its slots: the decision will be
    /// repeated, and otherwise each attempt would reserve further slots.
    pub fn rollback(&mut self, RateDelta(delta): RateDelta) {
        for (direction, change) in delta.into_iter().rev() {
            let rate = self.rate_mut(direction);
            match change {
                RateChange::Emitted(at) => rate.remove_sent(at),
                RateChange::Reserved(slot_at) => drop(rate.remove_slot(slot_at)),
                RateChange::Released(slot_at) => rate.insert_slot(slot_at),
            }
        }
    }

    fn record(&mut self, direction: Direction, change: RateChange) {
        self.delta.0.push((direction, change));
    }

    const fn rate_mut(&mut self, direction: Direction) -> &mut Rate {
        match direction {
            Direction::ScaleOut => &mut self.scale_out,
            Direction::ScaleIn => &mut self.scale_in,
        }
    }
}

/// The limits that apply to a change.
fn applicable_limits(limits: PerMinute, change: &Change) -> impl Iterator<Item = (Direction, usize)> {
    let directions = Direction::ALL.into_iter().filter(|direction| change.has_direction(*direction));
    directions.filter_map(move |direction| Some((direction, limits.for_direction(direction)?)))
}

impl Rate {
    /// The slot at which the action is rechecked, or `None` if there is capacity for it now. Returns its
    /// `reserved` slot if that is not due yet.
    fn reserve_if_limited(
        &mut self,
        limit: usize,
        now: Time,
        reserved: Option<Time>,
        is_due: bool,
    ) -> Option<Time> {
        while self.sent.front().is_some_and(|sent| sent.after(WINDOW) <= now) {
            self.sent.pop_front();
        }
        while self.slots.front().is_some_and(|slot_at| *slot_at <= now) {
            self.slots.pop_front();
        }
        if let Some(slot_at) = reserved.filter(|slot_at| self.slots.binary_search(slot_at).is_ok()) {
            return Some(slot_at);
        }
        let slots_ahead = if is_due { 0 } else { self.slots.len() };
        if self.sent.len() + slots_ahead < limit {
            return None;
        }
        // One minute after the emission or slot that is `limit` places before the new one.
        let index = self.sent.len() + self.slots.len() - limit;
        let before = self.sent.iter().chain(&self.slots).nth(index).copied().unwrap_or(now);
        let slot_at = before.after(WINDOW);
        self.insert_slot(slot_at);
        Some(slot_at)
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

    /// Returns whether the slot was reserved.
    fn remove_slot(&mut self, slot_at: Time) -> bool {
        let at = self.slots.binary_search(&slot_at);
        at.is_ok_and(|at| self.slots.remove(at).is_some())
    }

    fn remove_sent(&mut self, at: Time) {
        if let Some(at) = self.sent.iter().rposition(|sent| *sent == at) {
            self.sent.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rule::Amount;
    use std::num::NonZeroU32;

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn scale_in_slot(slot_at: i64) -> Option<Slot> {
        Some(Slot { direction: Direction::ScaleIn, at: at(slot_at) })
    }

    fn scale_in() -> Change {
        Change::ScaleIn(Amount::By(NonZeroU32::MIN))
    }

    #[test]
    fn blocked_actions_get_consecutive_slots() {
        let (mut rates, limits) = (Rates::default(), PerMinute { scale_out: 0, scale_in: 2 });
        let change = scale_in();
        for second in 0..2 {
            assert_eq!(rates.reserve_if_limited(limits, &change, at(second), None), None);
            rates.record_emission(limits, &change, at(second));
        }
        let slots: Vec<i64> = (0..5)
            .map(|_| rates.reserve_if_limited(limits, &change, at(2), None).unwrap().at.as_millis() / 1000)
            .collect();
        assert_eq!(slots, [60, 61, 120, 121, 180]);
        // A repeated check keeps its slot.
        assert_eq!(rates.reserve_if_limited(limits, &change, at(3), scale_in_slot(61)), scale_in_slot(61));
        // When its slot is due it can be emitted, but not an action that has just arrived.
        assert_eq!(rates.reserve_if_limited(limits, &change, at(60), None), scale_in_slot(181));
        assert_eq!(rates.reserve_if_limited(limits, &change, at(60), scale_in_slot(60)), None);
    }

    #[test]
    fn a_rollback_leaves_neither_an_emission_nor_a_slot() {
        let (mut rates, limits) = (Rates::default(), PerMinute { scale_out: 0, scale_in: 1 });
        let change = scale_in();
        rates.record_emission(limits, &change, at(0));
        assert_eq!(rates.reserve_if_limited(limits, &change, at(1), None), scale_in_slot(60));
        rates.take_delta();
        let before = rates.clone();
        // While the disk is full, the sender retries repeatedly.
        for second in 2..50 {
            rates.release(scale_in_slot(60).unwrap());
            for slot_at in [60, 120, 180] {
                let slot = rates.reserve_if_limited(limits, &change, at(second), None);
                assert_eq!(slot, scale_in_slot(slot_at));
            }
            rates.record_emission(limits, &change, at(second));
            let delta = rates.take_delta();
            rates.rollback(delta);
        }
        assert_eq!(rates, before);
    }

    #[test]
    fn zero_is_unlimited_and_each_direction_has_its_own_limit() {
        let (mut rates, limits) = (Rates::default(), PerMinute { scale_out: 1, scale_in: 0 });
        let to = Change::SetCapacity { to: 3, allow_decrease: true };
        rates.record_emission(limits, &scale_in(), at(0));
        assert_eq!(rates.reserve_if_limited(limits, &scale_in(), at(0), None), None);
        rates.take_delta();
        rates.record_emission(limits, &to, at(0));
        let emitted = rates.take_delta();
        assert_eq!(
            rates.reserve_if_limited(limits, &to, at(1), None),
            Some(Slot { direction: Direction::ScaleOut, at: at(60) })
        );
        rates.release(Slot { direction: Direction::ScaleOut, at: at(60) });
        rates.rollback(emitted);
        assert_eq!(
            rates.reserve_if_limited(limits, &to, at(1), None),
            None,
            "neither the emission nor the slot remains"
        );
    }
}
