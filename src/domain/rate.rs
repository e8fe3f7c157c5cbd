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

/// What one process has emitted lately. Kept in memory: it is a limit of each process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rates {
    scale_out: Rate,
    scale_in: Rate,
}

/// One direction's events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rate {
    /// Events a minute; 0 is no limit.
    most: u32,
    /// When the events of the last minute were emitted.
    sent: VecDeque<Time>,
    /// The turns that were given out and have not come, in their order.
    turns: VecDeque<Time>,
}

impl Rates {
    /// At most so many events a minute in each direction; 0 is no limit.
    pub fn new(scale_out_per_minute: u32, scale_in_per_minute: u32) -> Self {
        let rate = |most| Rate { most, ..Rate::default() };
        Self { scale_out: rate(scale_out_per_minute), scale_in: rate(scale_in_per_minute) }
    }

    /// Whether a change is stopped: which direction has no room, and at which turn it is looked at again.
    /// `has_turn` says that the turn of this one has come, so that it does not wait for others' again.
    pub fn stop(&mut self, change: &Change, now: Time, has_turn: bool) -> Option<(Direction, Time)> {
        let mut directions = Direction::ALL.into_iter().filter(|direction| direction.is_of(change));
        directions.find_map(|direction| Some((direction, self.of(direction).stop(now, has_turn)?)))
    }

    /// Notes an emission.
    pub fn emitted(&mut self, change: &Change, now: Time) {
        for direction in Direction::ALL.into_iter().filter(|direction| direction.is_of(change)) {
            let rate = self.of(direction);
            if rate.most > 0 {
                rate.sent.push_back(now);
            }
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

impl Rate {
    fn stop(&mut self, now: Time, has_turn: bool) -> Option<Time> {
        let most = self.most as usize;
        if most == 0 {
            return None;
        }
        while self.sent.front().is_some_and(|sent| sent.after(MINUTE) <= now) {
            self.sent.pop_front();
        }
        while self.turns.front().is_some_and(|turn| *turn <= now) {
            self.turns.pop_front();
        }
        let ahead = if has_turn { 0 } else { self.turns.len() };
        if self.sent.len() + ahead < most {
            return None;
        }
        // A minute after the one that is `most` places before it.
        let place = self.sent.len() + self.turns.len() - most;
        let before = self.sent.iter().chain(&self.turns).nth(place).copied().unwrap_or(now);
        let turn = before.after(MINUTE);
        self.turns.push_back(turn);
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
        let mut rates = Rates::new(0, 2);
        let change = scale_in();
        for second in 0..2 {
            assert_eq!(rates.stop(&change, at(second), false), None);
            rates.emitted(&change, at(second));
        }
        let turns: Vec<i64> =
            (0..5).map(|_| rates.stop(&change, at(2), false).unwrap().1.as_millis() / 1000).collect();
        assert_eq!(turns, [60, 61, 120, 121, 180]);
        // At its turn there is room for it, and none for one that has just arrived.
        assert_eq!(rates.stop(&change, at(60), false), Some((Direction::ScaleIn, at(181))));
        assert_eq!(rates.stop(&change, at(60), true), None);
    }

    #[test]
    fn no_limit_is_no_limit_and_each_direction_has_its_own() {
        let mut rates = Rates::new(1, 0);
        let to = Change::SetCapacity { to: 3, allow_decrease: true };
        rates.emitted(&scale_in(), at(0));
        assert_eq!(rates.stop(&scale_in(), at(0), false), None);
        rates.emitted(&to, at(0));
        assert_eq!(rates.stop(&to, at(1), false), Some((Direction::ScaleOut, at(60))));
        rates.take_back(at(0));
        assert_eq!(rates.stop(&to, at(1), true), None, "nothing of it was written");
    }
}
