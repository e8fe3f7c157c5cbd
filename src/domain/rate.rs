//! The process's own limits: so many events a minute that add capacity, so many that take it away.
//!
//! What is stopped gets a turn at which it is looked at again, each a later one, so that a thousand that
//! wait do not come back all at the same time to find room for sixty.

use std::collections::VecDeque;
use std::time::Duration;

use super::control::Direction;
use super::rule::Change;
use super::time::Time;

/// The span that is counted in.
const MINUTE: Duration = Duration::from_secs(60);

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
    fn of(self, direction: Direction) -> Option<usize> {
        let most = match direction {
            Direction::ScaleOut => self.scale_out,
            Direction::ScaleIn => self.scale_in,
        };
        (most > 0).then_some(most as usize)
    }
}

/// What one process has emitted lately. Kept in memory: it is a limit of each process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rates {
    scale_out: Rate,
    scale_in: Rate,
}

/// One direction's events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rate {
    /// When the events of the last minute were emitted.
    sent: VecDeque<Time>,
    /// The turns that were given out and have not come, in their order.
    turns: VecDeque<Time>,
}

impl Rates {
    /// Whether a change is stopped: which direction has no room, and at which turn it is looked at again.
    /// `turn` is the one that this change was given before, so that it keeps its place among those that
    /// wait.
    pub fn stop(
        &mut self,
        limits: PerMinute,
        change: &Change,
        now: Time,
        turn: Option<Time>,
    ) -> Option<(Direction, Time)> {
        limited(limits, change).find_map(|(direction, most)| {
            let due = self.of(direction).stop(most, now, turn)?;
            Some((direction, due))
        })
    }

    /// Takes back a turn that nobody waits for any more.
    pub fn give_back(&mut self, turn: Time) {
        for direction in Direction::ALL {
            let turns = &mut self.of(direction).turns;
            if let Ok(at) = turns.binary_search(&turn) {
                turns.remove(at);
                return;
            }
        }
    }

    /// Notes an emission.
    pub fn emitted(&mut self, limits: PerMinute, change: &Change, now: Time) {
        for (direction, _) in limited(limits, change) {
            self.of(direction).sent.push_back(now);
        }
    }

    /// Takes back what was noted for this moment: nothing of it was written.
    pub fn take_back(&mut self, at: Time) {
        for direction in Direction::ALL {
            self.of(direction).sent.retain(|sent| *sent != at);
        }
    }

    const fn of(&mut self, direction: Direction) -> &mut Rate {
        match direction {
            Direction::ScaleOut => &mut self.scale_out,
            Direction::ScaleIn => &mut self.scale_in,
        }
    }
}

/// The limits that a change has to keep to.
fn limited(limits: PerMinute, change: &Change) -> impl Iterator<Item = (Direction, usize)> {
    let directions = Direction::ALL.into_iter().filter(|direction| direction.is_of(change));
    directions.filter_map(move |direction| Some((direction, limits.of(direction)?)))
}

impl Rate {
    fn stop(&mut self, most: usize, now: Time, turn: Option<Time>) -> Option<Time> {
        while self.sent.front().is_some_and(|sent| sent.after(MINUTE) <= now) {
            self.sent.pop_front();
        }
        while self.turns.front().is_some_and(|turn| *turn <= now) {
            self.turns.pop_front();
        }
        if let Some(turn) = turn.filter(|turn| self.turns.binary_search(turn).is_ok()) {
            return Some(turn);
        }
        let ahead = if turn.is_some_and(|turn| turn <= now) { 0 } else { self.turns.len() };
        if self.sent.len() + ahead < most {
            return None;
        }
        // A minute after the one that is `most` places before it.
        let place = self.sent.len() + self.turns.len() - most;
        let before = self.sent.iter().chain(&self.turns).nth(place).copied().unwrap_or(now);
        let turn = before.after(MINUTE);
        // Nearly always the last; not so where turns before it were given back.
        let at = self.turns.partition_point(|known| *known <= turn);
        self.turns.insert(at, turn);
        Some(turn)
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

    fn scale_in() -> Change {
        Change::ScaleIn(Amount::By(NonZeroU32::MIN))
    }

    #[test]
    fn what_is_stopped_gets_turns_one_after_the_other() {
        let (mut rates, limits) = (Rates::default(), PerMinute { scale_out: 0, scale_in: 2 });
        let change = scale_in();
        for second in 0..2 {
            assert_eq!(rates.stop(limits, &change, at(second), None), None);
            rates.emitted(limits, &change, at(second));
        }
        let turns: Vec<i64> =
            (0..5).map(|_| rates.stop(limits, &change, at(2), None).unwrap().1.as_millis() / 1000).collect();
        assert_eq!(turns, [60, 61, 120, 121, 180]);
        // Who asks again keeps the place.
        assert_eq!(rates.stop(limits, &change, at(3), Some(at(61))), Some((Direction::ScaleIn, at(61))));
        // At its turn there is room for it, and none for one that has just arrived.
        assert_eq!(rates.stop(limits, &change, at(60), None), Some((Direction::ScaleIn, at(181))));
        assert_eq!(rates.stop(limits, &change, at(60), Some(at(60))), None);
    }

    #[test]
    fn no_limit_is_no_limit_and_each_direction_has_its_own() {
        let (mut rates, limits) = (Rates::default(), PerMinute { scale_out: 1, scale_in: 0 });
        let to = Change::SetCapacity { to: 3, allow_decrease: true };
        rates.emitted(limits, &scale_in(), at(0));
        assert_eq!(rates.stop(limits, &scale_in(), at(0), None), None);
        rates.emitted(limits, &to, at(0));
        assert_eq!(rates.stop(limits, &to, at(1), None), Some((Direction::ScaleOut, at(60))));
        rates.give_back(at(60));
        rates.take_back(at(0));
        assert_eq!(rates.stop(limits, &to, at(1), None), None, "nothing of it was written, and nobody waits");
    }
}
