//! A destination's deliveries in memory: what may be sent now, what is being sent, how far everything
//! is settled. No IO and no clock; both stores keep one lane for each destination.
//!
//! A lane never hands out two events about the same target at once, and none before an earlier one of
//! the same target is settled for good, so the order within a target is kept whatever fails.
//!
//! The *window* holds events above the cursor. It is bounded: what does not fit stays in the store and
//! is read when there is room again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::{Backlog, EventSeq};
use crate::domain::time::Time;

/// Events in the window at the most.
const WINDOW: usize = 4096;
/// Bytes of events in the window at the most, beside one event.
const WINDOW_BYTES: usize = 16 << 20;

/// The store's number of a target.
pub type Group = i64;

/// Where a lane stands when a store is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Position {
    /// Everything up to here is settled or has a row.
    pub cursor: i64,
    /// Deliveries that this destination was ever given.
    pub given: u64,
    /// How many of them lie at or below the cursor.
    pub passed: u64,
    /// Dead letters.
    pub dead: u64,
}

/// A destination's deliveries.
#[derive(Debug)]
pub struct Lane {
    position: Position,
    /// Everything in the store up to here that concerns this destination is in the window.
    read_to: i64,
    window: BTreeMap<i64, Slot>,
    window_bytes: usize,
    /// Deliveries with a row, tried before, whether they wait, are ready or being sent.
    retries: HashMap<i64, Retry>,
    waiting: BTreeSet<(Time, i64)>,
    /// Unsettled events of each target in their order; only the first may be sent.
    groups: HashMap<Group, VecDeque<i64>>,
    ready: BTreeSet<i64>,
}

#[derive(Debug)]
struct Slot {
    group: Group,
    emitted_at: Time,
    /// `None` when settled, until the cursor passes it.
    body: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    group: Group,
    emitted_at: Time,
    attempts: u32,
    /// Its time has not come.
    waits: bool,
}

/// What a lane hands out; a body that is not in memory has to be read.
#[derive(Debug)]
pub struct Handed {
    pub seq: EventSeq,
    pub body: Option<Arc<str>>,
    pub emitted_at: Time,
    pub attempts: u32,
}

/// What a store has to write when deliveries were settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Nothing: the cursor tells it, or will.
    None,
    /// There was a row, and it is not needed any more.
    Delete,
    /// A row with this many attempts.
    Retry { attempts: u32 },
    /// A row of a dead letter with this many attempts.
    Dead { attempts: u32 },
}

impl Lane {
    /// A lane at `position`.
    pub fn new(position: Position) -> Self {
        Self {
            position,
            read_to: position.cursor,
            window: BTreeMap::new(),
            window_bytes: 0,
            retries: HashMap::new(),
            waiting: BTreeSet::new(),
            groups: HashMap::new(),
            ready: BTreeSet::new(),
        }
    }

    /// A delivery with a row, read when the store is opened; to be called in the order of the events.
    pub fn restore(&mut self, seq: EventSeq, group: Group, emitted_at: Time, attempts: u32, due: Time) {
        self.retries.insert(seq.0, Retry { group, emitted_at, attempts, waits: true });
        self.groups.entry(group).or_default().push_back(seq.0);
        self.waiting.insert((due, seq.0));
    }

    /// Counts deliveries that were committed.
    pub fn given(&mut self, count: u64) {
        self.position.given += count;
    }

    /// How far the window reaches.
    pub fn read_to(&self) -> i64 {
        self.read_to
    }

    /// Whether there is room in the window.
    pub fn has_room(&self) -> bool {
        self.window.len() < WINDOW && self.window_bytes < WINDOW_BYTES
    }

    /// Says that up to `seq` there is nothing else for this destination.
    pub fn skip_to(&mut self, seq: EventSeq) {
        self.read_to = self.read_to.max(seq.0);
        self.advance();
    }

    /// Puts an event into the window. Events come in their order, each once.
    pub fn offer(&mut self, seq: EventSeq, group: Group, emitted_at: Time, body: Arc<str>) {
        if seq.0 <= self.read_to {
            return;
        }
        self.read_to = seq.0;
        self.window_bytes += body.len();
        self.window.insert(seq.0, Slot { group, emitted_at, body: Some(body) });
        let queue = self.groups.entry(group).or_default();
        queue.push_back(seq.0);
        if queue.len() == 1 {
            self.ready.insert(seq.0);
        }
    }

    /// Hands out up to `max` deliveries.
    pub fn claim(&mut self, max: usize, now: Time) -> Vec<Handed> {
        while let Some(&(due, seq)) = self.waiting.first()
            && due <= now
        {
            self.waiting.pop_first();
            if let Some(retry) = self.retries.get_mut(&seq) {
                retry.waits = false;
            }
            self.ready_if_first(seq);
        }
        let mut handed = Vec::new();
        while handed.len() < max
            && let Some(seq) = self.ready.pop_first()
        {
            let (body, emitted_at, attempts) = match (self.window.get(&seq), self.retries.get(&seq)) {
                (Some(slot), _) => (slot.body.clone(), slot.emitted_at, 0),
                (None, Some(retry)) => (None, retry.emitted_at, retry.attempts),
                (None, None) => continue,
            };
            handed.push(Handed { seq: EventSeq(seq), body, emitted_at, attempts });
        }
        handed
    }

    /// Gives back a delivery that was handed out and not tried.
    pub fn unclaim(&mut self, seq: EventSeq) {
        self.ready_if_first(seq.0);
    }

    fn group_of(&self, seq: i64) -> Option<Group> {
        let slot = self.window.get(&seq).map(|slot| slot.group);
        slot.or_else(|| self.retries.get(&seq).map(|retry| retry.group))
    }

    fn ready_if_first(&mut self, seq: i64) {
        let first = self.group_of(seq).and_then(|group| self.groups.get(&group)?.front().copied());
        if first == Some(seq) {
            self.ready.insert(seq);
        }
    }

    /// What the store has to write for a delivery that arrived, is to be tried again (`retry`), or was
    /// given up (`dead`). Changes nothing: [`Lane::delivered`] and its sisters follow the commit.
    pub fn row(&self, seq: EventSeq, retry: bool, dead: bool) -> Row {
        let known = self.retries.get(&seq.0);
        let attempts = known.map_or(0, |retry| retry.attempts).saturating_add(1);
        match (retry, dead) {
            (true, _) => Row::Retry { attempts },
            (false, true) => Row::Dead { attempts },
            (false, false) if known.is_some() => Row::Delete,
            (false, false) => Row::None,
        }
    }

    /// The delivery arrived.
    pub fn delivered(&mut self, seq: EventSeq) {
        self.finish(seq.0);
    }

    /// The delivery was given up.
    pub fn dead(&mut self, seq: EventSeq) {
        self.position.dead += 1;
        self.finish(seq.0);
    }

    /// The delivery waits until `due`; it has a row now and holds the cursor back no longer.
    pub fn retry(&mut self, seq: EventSeq, due: Time) {
        match (self.window.get_mut(&seq.0), self.retries.get_mut(&seq.0)) {
            (Some(slot), _) => {
                self.window_bytes -= slot.body.take().map_or(0, |body| body.len());
                let (group, emitted_at) = (slot.group, slot.emitted_at);
                let retry = Retry { group, emitted_at, attempts: 1, waits: true };
                self.retries.insert(seq.0, retry);
            }
            (None, Some(retry)) => {
                retry.attempts = retry.attempts.saturating_add(1);
                retry.waits = true;
            }
            (None, None) => return,
        }
        self.waiting.insert((due, seq.0));
        self.advance();
    }

    fn finish(&mut self, seq: i64) {
        let Some(group) = self.group_of(seq) else { return };
        self.retries.remove(&seq);
        if let Some(slot) = self.window.get_mut(&seq) {
            self.window_bytes -= slot.body.take().map_or(0, |body| body.len());
        }
        if let Some(queue) = self.groups.get_mut(&group) {
            queue.retain(|&other| other != seq);
            match queue.front().copied() {
                None => drop(self.groups.remove(&group)),
                Some(next) if self.retries.get(&next).is_some_and(|retry| retry.waits) => {}
                Some(next) => drop(self.ready.insert(next)),
            }
        }
        self.advance();
    }

    /// Moves the cursor over everything that is settled or has a row.
    fn advance(&mut self) {
        while let Some(entry) = self.window.first_entry()
            && entry.get().body.is_none()
        {
            self.position.cursor = *entry.key();
            self.position.passed += 1;
            entry.remove();
        }
        if self.window.is_empty() {
            self.position.cursor = self.read_to;
        }
    }

    /// Where the lane stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Where the lane will stand when `settled` have been settled or got a row, `dead` of them given
    /// up, and `given` more deliveries have been committed: what is written in the same transaction.
    pub fn position_after(&self, settled: &HashSet<i64>, dead: u64, given: u64) -> Position {
        let mut after = self.position;
        after.dead += dead;
        after.given += given;
        for (seq, slot) in &self.window {
            if slot.body.is_some() && !settled.contains(seq) {
                return after;
            }
            after.cursor = *seq;
            after.passed += 1;
        }
        after.cursor = after.cursor.max(self.read_to);
        after
    }

    /// When the next delivery that waits is due.
    pub fn next_due(&self) -> Option<Time> {
        self.waiting.first().map(|&(due, _)| due)
    }

    /// When the oldest event was emitted that is not settled.
    pub fn oldest(&self) -> Option<Time> {
        let unsettled = self.window.values().find(|slot| slot.body.is_some());
        let retried = self.retries.values().map(|retry| retry.emitted_at).min();
        unsettled.map(|slot| slot.emitted_at).into_iter().chain(retried).min()
    }

    /// Counts by state.
    pub fn backlog(&self) -> Backlog {
        let settled_above = self.window.values().filter(|slot| slot.body.is_none()).count() as u64;
        Backlog {
            pending: self.position.given.saturating_sub(self.position.passed + settled_above),
            retrying: self.retries.len() as u64,
            dead: self.position.dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn lane(groups: &[Group]) -> Lane {
        let mut lane = Lane::new(Position::default());
        for (index, group) in groups.iter().enumerate() {
            lane.offer(EventSeq(index as i64 + 1), *group, at(0), "{}".into());
            lane.given(1);
        }
        lane
    }

    fn claim(lane: &mut Lane, now: i64) -> Vec<i64> {
        lane.claim(10, at(now)).into_iter().map(|handed| handed.seq.0).collect()
    }

    #[test]
    fn one_event_a_target_is_out_at_a_time_and_in_order() {
        let mut lane = lane(&[7, 7, 8]);
        assert_eq!(claim(&mut lane, 0), [1, 3]);
        assert_eq!(claim(&mut lane, 0), [0i64; 0]);
        lane.delivered(EventSeq(1));
        assert_eq!(claim(&mut lane, 0), [2]);
    }

    #[test]
    fn a_failed_delivery_holds_its_target_back_and_no_other() {
        let mut lane = lane(&[7, 7, 8]);
        claim(&mut lane, 0);
        lane.retry(EventSeq(1), at(5));
        lane.delivered(EventSeq(3));
        assert_eq!(claim(&mut lane, 4), [0i64; 0]);
        assert_eq!(lane.next_due(), Some(at(5)));
        assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 1, dead: 0 });
        assert_eq!(claim(&mut lane, 5), [1]);
        assert_eq!(lane.row(EventSeq(1), false, false), Row::Delete);
        lane.delivered(EventSeq(1));
        assert_eq!(claim(&mut lane, 5), [2]);
    }

    #[test]
    fn a_dead_letter_releases_its_target() {
        let mut lane = lane(&[7, 7]);
        claim(&mut lane, 0);
        lane.dead(EventSeq(1));
        assert_eq!(claim(&mut lane, 0), [2]);
        assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 1 });
    }

    #[test]
    fn the_cursor_stops_before_the_first_that_is_neither_settled_nor_a_row() {
        let mut lane = lane(&[1, 2, 3, 4]);
        claim(&mut lane, 0);
        let foreseen = lane.position_after(&HashSet::from([1, 3]), 0, 0);
        lane.delivered(EventSeq(3));
        assert_eq!(lane.position().cursor, 0);
        lane.delivered(EventSeq(1));
        assert_eq!((lane.position().cursor, lane.position().passed), (1, 1));
        assert_eq!((foreseen.cursor, foreseen.passed), (1, 1));
        lane.retry(EventSeq(2), at(9));
        assert_eq!((lane.position().cursor, lane.position().passed), (3, 3));
        lane.delivered(EventSeq(4));
        assert_eq!(lane.position().cursor, 4);
        assert_eq!(lane.backlog(), Backlog { pending: 0, retrying: 1, dead: 0 });
    }

    #[test]
    fn what_is_restored_comes_before_what_is_newer() {
        let mut lane = Lane::new(Position { cursor: 5, given: 6, passed: 5, dead: 0 });
        lane.restore(EventSeq(3), 7, at(0), 2, at(10));
        lane.offer(EventSeq(6), 7, at(0), "{}".into());
        assert_eq!(claim(&mut lane, 9), [0i64; 0]);
        assert_eq!(claim(&mut lane, 10), [3]);
        assert_eq!(lane.row(EventSeq(3), true, false), Row::Retry { attempts: 3 });
        lane.delivered(EventSeq(3));
        assert_eq!(claim(&mut lane, 10), [6]);
    }
}
