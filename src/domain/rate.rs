//! The process's own limits: so many events a minute that add capacity, so many that take it away.
//!
//! What is stopped gets a turn at which it is looked at again, each a later one, so that a thousand that
//! wait do not come back all at the same time to find room for sixty.

use std::collections::VecDeque;
use std::time::Duration;

use super::direction::Direction;
use super::rule::Change;
use super::time::Time;

/// The span that is counted in.
const WINDOW: Duration = Duration::from_secs(60);

/// Events a minute; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerMinute {
    /// That add capacity.
    pub scale_out: u32,
    /// That take it away.
    pub scale_in: u32,
}

impl PerMinute {
    /// The limit of a direction, if there is one.
    fn for_direction(self, direction: Direction) -> Option<usize> {
        let limit = match direction {
            Direction::ScaleOut => self.scale_out,
            Direction::ScaleIn => self.scale_in,
        };
        (limit > 0).then_some(limit as usize)
    }
}

/// What one process has emitted lately. Kept in memory: it is a limit of each process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rates {
    scale_out: Rate,
    scale_in: Rate,
    /// What was done since [`Rates::take_delta`].
    delta: RateDelta,
}

/// A place among those that wait for one direction's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The direction that has no room.
    pub direction: Direction,
    /// When what waits is looked at again.
    pub at: Time,
}

/// What a decision has done to the limits, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateDelta(Vec<(Direction, RateChange)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RateChange {
    /// An event was emitted at this time.
    Emitted(Time),
    /// This turn was given out.
    Reserved(Time),
    /// This turn was given back.
    Released(Time),
}

/// One direction's events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rate {
    /// When the events of the last minute were emitted.
    sent: VecDeque<Time>,
    /// The turns that were given out and have not come, in their order.
    slots: VecDeque<Time>,
}

impl Rates {
    /// Whether a change is stopped, and the place in a line that it gets. `place` is the one that it was
    /// given before, so that it keeps it.
    pub fn reserve_if_limited(
        &mut self,
        limits: PerMinute,
        change: &Change,
        now: Time,
        slot: Option<Slot>,
    ) -> Option<Slot> {
        // Whose turn has come in one line waits behind nobody in the other.
        let is_due = slot.is_some_and(|slot| slot.at <= now);
        applicable_limits(limits, change).find_map(|(direction, limit)| {
            let own = slot.filter(|slot| slot.direction == direction).map(|slot| slot.at);
            let slot_at = self.rate_mut(direction).reserve_if_limited(limit, now, own, is_due)?;
            if own != Some(slot_at) {
                self.record(direction, RateChange::Reserved(slot_at));
            }
            Some(Slot { direction, at: slot_at })
        })
    }

    /// Takes back a place at which nobody waits any more.
    pub fn release(&mut self, Slot { direction, at: slot_at }: Slot) {
        if self.rate_mut(direction).remove_slot(slot_at) {
            self.record(direction, RateChange::Released(slot_at));
        }
    }

    /// Notes an emission.
    pub fn record_emission(&mut self, limits: PerMinute, change: &Change, now: Time) {
        for (direction, _) in applicable_limits(limits, change) {
            self.rate_mut(direction).insert_sent(now);
            self.record(direction, RateChange::Emitted(now));
        }
    }

    /// What was done since this was asked for last: a decision, to be taken back if it is not written.
    pub fn take_delta(&mut self) -> RateDelta {
        std::mem::take(&mut self.delta)
    }

    /// Undoes a decision of which nothing was written. What it has stopped does not wait, so its turns are
    /// free: else each attempt would move the end of the line away from whoever comes next.
    pub fn rollback(&mut self, RateDelta(delta): RateDelta) {
        for (direction, note) in delta.into_iter().rev() {
            let rate = self.rate_mut(direction);
            match note {
                RateChange::Emitted(at) => rate.remove_sent(at),
                RateChange::Reserved(slot_at) => drop(rate.remove_slot(slot_at)),
                RateChange::Released(slot_at) => rate.insert_slot(slot_at),
            }
        }
    }

    fn record(&mut self, direction: Direction, note: RateChange) {
        self.delta.0.push((direction, note));
    }

    const fn rate_mut(&mut self, direction: Direction) -> &mut Rate {
        match direction {
            Direction::ScaleOut => &mut self.scale_out,
            Direction::ScaleIn => &mut self.scale_in,
        }
    }
}

/// The limits that a change has to keep to.
fn applicable_limits(limits: PerMinute, change: &Change) -> impl Iterator<Item = (Direction, usize)> {
    let directions = Direction::ALL.into_iter().filter(|direction| change.has_direction(*direction));
    directions.filter_map(move |direction| Some((direction, limits.for_direction(direction)?)))
}

impl Rate {
    /// The turn at which it is looked at again, if there is no room for it: its `own` if that is still to
    /// come.
    fn reserve_if_limited(
        &mut self,
        limit: usize,
        now: Time,
        own: Option<Time>,
        is_due: bool,
    ) -> Option<Time> {
        while self.sent.front().is_some_and(|sent| sent.after(WINDOW) <= now) {
            self.sent.pop_front();
        }
        while self.slots.front().is_some_and(|slot_at| *slot_at <= now) {
            self.slots.pop_front();
        }
        if let Some(slot_at) = own.filter(|slot_at| self.slots.binary_search(slot_at).is_ok()) {
            return Some(slot_at);
        }
        let ahead = if is_due { 0 } else { self.slots.len() };
        if self.sent.len() + ahead < limit {
            return None;
        }
        // A minute after the one that is `most` places before it.
        let slot = self.sent.len() + self.slots.len() - limit;
        let before = self.sent.iter().chain(&self.slots).nth(slot).copied().unwrap_or(now);
        let slot_at = before.after(WINDOW);
        self.insert_slot(slot_at);
        Some(slot_at)
    }

    /// In order, also where decisions that were made beside each other come a little out of it.
    fn insert_sent(&mut self, at: Time) {
        let slot = self.sent.partition_point(|known| *known <= at);
        self.sent.insert(slot, at);
    }

    /// Nearly always as the last; not so where turns before it were given back.
    fn insert_slot(&mut self, slot_at: Time) {
        let at = self.slots.partition_point(|known| *known <= slot_at);
        self.slots.insert(at, slot_at);
    }

    /// Whether it was there.
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

    fn inwards(slot_at: i64) -> Option<Slot> {
        Some(Slot { direction: Direction::ScaleIn, at: at(slot_at) })
    }

    fn scale_in() -> Change {
        Change::ScaleIn(Amount::By(NonZeroU32::MIN))
    }

    #[test]
    fn what_is_limited_gets_slots_one_after_the_other() {
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
        // Who asks again keeps the place.
        assert_eq!(rates.reserve_if_limited(limits, &change, at(3), inwards(61)), inwards(61));
        // At its turn there is room for it, and none for one that has just arrived.
        assert_eq!(rates.reserve_if_limited(limits, &change, at(60), None), inwards(181));
        assert_eq!(rates.reserve_if_limited(limits, &change, at(60), inwards(60)), None);
    }

    #[test]
    fn what_was_not_written_leaves_neither_an_event_nor_a_slot() {
        let (mut rates, limits) = (Rates::default(), PerMinute { scale_out: 0, scale_in: 1 });
        let change = scale_in();
        rates.record_emission(limits, &change, at(0));
        assert_eq!(rates.reserve_if_limited(limits, &change, at(1), None), inwards(60));
        rates.take_delta();
        let before = rates.clone();
        // A disk that is full for a while: who sent it comes again and again.
        for second in 2..50 {
            rates.release(inwards(60).unwrap());
            for slot_at in [60, 120, 180] {
                let stop = rates.reserve_if_limited(limits, &change, at(second), None);
                assert_eq!(stop, inwards(slot_at));
            }
            rates.record_emission(limits, &change, at(second));
            let delta = rates.take_delta();
            rates.rollback(delta);
        }
        assert_eq!(rates, before);
    }

    #[test]
    fn no_limit_is_no_limit_and_each_direction_has_its_own() {
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
            "nothing of it was written, and nobody waits"
        );
    }
}
