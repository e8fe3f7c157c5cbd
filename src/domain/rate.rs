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
    /// What was done since [`Rates::noted`].
    noted: Noted,
}

/// A place among those that wait for one direction's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The direction that has no room.
    pub line: Direction,
    /// When what waits is looked at again.
    pub turn: Time,
}

/// What a decision has done to the limits, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Noted(Vec<(Direction, Note)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    /// An event was emitted at this time.
    Sent(Time),
    /// This turn was given out.
    Given(Time),
    /// This turn was given back.
    Returned(Time),
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
    /// Whether a change is stopped, and the place in a line that it gets. `place` is the one that it was
    /// given before, so that it keeps it.
    pub fn stop(
        &mut self,
        limits: PerMinute,
        change: &Change,
        now: Time,
        place: Option<Place>,
    ) -> Option<Place> {
        // Whose turn has come in one line waits behind nobody in the other.
        let has_come = place.is_some_and(|place| place.turn <= now);
        limited(limits, change).find_map(|(line, most)| {
            let own = place.filter(|place| place.line == line).map(|place| place.turn);
            let turn = self.of(line).stop(most, now, own, has_come)?;
            if own != Some(turn) {
                self.note(line, Note::Given(turn));
            }
            Some(Place { line, turn })
        })
    }

    /// Takes back a place at which nobody waits any more.
    pub fn give_back(&mut self, Place { line, turn }: Place) {
        if self.of(line).remove_turn(turn) {
            self.note(line, Note::Returned(turn));
        }
    }

    /// Notes an emission.
    pub fn emitted(&mut self, limits: PerMinute, change: &Change, now: Time) {
        for (direction, _) in limited(limits, change) {
            self.of(direction).insert_sent(now);
            self.note(direction, Note::Sent(now));
        }
    }

    /// What was done since this was asked for last: a decision, to be taken back if it is not written.
    pub fn noted(&mut self) -> Noted {
        std::mem::take(&mut self.noted)
    }

    /// Undoes a decision of which nothing was written. What it has stopped does not wait, so its turns are
    /// free: else each attempt would move the end of the line away from whoever comes next.
    pub fn take_back(&mut self, Noted(noted): Noted) {
        for (direction, note) in noted.into_iter().rev() {
            let rate = self.of(direction);
            match note {
                Note::Sent(at) => rate.remove_sent(at),
                Note::Given(turn) => drop(rate.remove_turn(turn)),
                Note::Returned(turn) => rate.insert_turn(turn),
            }
        }
    }

    fn note(&mut self, direction: Direction, note: Note) {
        self.noted.0.push((direction, note));
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
    /// The turn at which it is looked at again, if there is no room for it: its `own` if that is still to
    /// come.
    fn stop(&mut self, most: usize, now: Time, own: Option<Time>, has_come: bool) -> Option<Time> {
        while self.sent.front().is_some_and(|sent| sent.after(MINUTE) <= now) {
            self.sent.pop_front();
        }
        while self.turns.front().is_some_and(|turn| *turn <= now) {
            self.turns.pop_front();
        }
        if let Some(turn) = own.filter(|turn| self.turns.binary_search(turn).is_ok()) {
            return Some(turn);
        }
        let ahead = if has_come { 0 } else { self.turns.len() };
        if self.sent.len() + ahead < most {
            return None;
        }
        // A minute after the one that is `most` places before it.
        let place = self.sent.len() + self.turns.len() - most;
        let before = self.sent.iter().chain(&self.turns).nth(place).copied().unwrap_or(now);
        let turn = before.after(MINUTE);
        self.insert_turn(turn);
        Some(turn)
    }

    /// In order, also where decisions that were made beside each other come a little out of it.
    fn insert_sent(&mut self, at: Time) {
        let place = self.sent.partition_point(|known| *known <= at);
        self.sent.insert(place, at);
    }

    /// Nearly always as the last; not so where turns before it were given back.
    fn insert_turn(&mut self, turn: Time) {
        let at = self.turns.partition_point(|known| *known <= turn);
        self.turns.insert(at, turn);
    }

    /// Whether it was there.
    fn remove_turn(&mut self, turn: Time) -> bool {
        let at = self.turns.binary_search(&turn);
        at.is_ok_and(|at| self.turns.remove(at).is_some())
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

    fn inwards(turn: i64) -> Option<Place> {
        Some(Place { line: Direction::ScaleIn, turn: at(turn) })
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
        let turns: Vec<i64> = (0..5)
            .map(|_| rates.stop(limits, &change, at(2), None).unwrap().turn.as_millis() / 1000)
            .collect();
        assert_eq!(turns, [60, 61, 120, 121, 180]);
        // Who asks again keeps the place.
        assert_eq!(rates.stop(limits, &change, at(3), inwards(61)), inwards(61));
        // At its turn there is room for it, and none for one that has just arrived.
        assert_eq!(rates.stop(limits, &change, at(60), None), inwards(181));
        assert_eq!(rates.stop(limits, &change, at(60), inwards(60)), None);
    }

    #[test]
    fn what_was_not_written_leaves_neither_an_event_nor_a_turn() {
        let (mut rates, limits) = (Rates::default(), PerMinute { scale_out: 0, scale_in: 1 });
        let change = scale_in();
        rates.emitted(limits, &change, at(0));
        assert_eq!(rates.stop(limits, &change, at(1), None), inwards(60));
        rates.noted();
        let before = rates.clone();
        // A disk that is full for a while: who sent it comes again and again.
        for second in 2..50 {
            rates.give_back(inwards(60).unwrap());
            for turn in [60, 120, 180] {
                let stop = rates.stop(limits, &change, at(second), None);
                assert_eq!(stop, inwards(turn));
            }
            rates.emitted(limits, &change, at(second));
            let noted = rates.noted();
            rates.take_back(noted);
        }
        assert_eq!(rates, before);
    }

    #[test]
    fn no_limit_is_no_limit_and_each_direction_has_its_own() {
        let (mut rates, limits) = (Rates::default(), PerMinute { scale_out: 1, scale_in: 0 });
        let to = Change::SetCapacity { to: 3, allow_decrease: true };
        rates.emitted(limits, &scale_in(), at(0));
        assert_eq!(rates.stop(limits, &scale_in(), at(0), None), None);
        rates.noted();
        rates.emitted(limits, &to, at(0));
        let emitted = rates.noted();
        assert_eq!(
            rates.stop(limits, &to, at(1), None),
            Some(Place { line: Direction::ScaleOut, turn: at(60) })
        );
        rates.give_back(Place { line: Direction::ScaleOut, turn: at(60) });
        rates.take_back(emitted);
        assert_eq!(rates.stop(limits, &to, at(1), None), None, "nothing of it was written, and nobody waits");
    }
}
