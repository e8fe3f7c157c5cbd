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
    /// Deliveries with a row, whether they wait, are ready or being sent: tried before, or parked behind
    /// one that was.
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
            // One with a row may still be in the window, until the cursor passes it.
            let (body, emitted_at, attempts) = match (self.retries.get(&seq), self.window.get(&seq)) {
                (Some(retry), _) => (None, retry.emitted_at, retry.attempts),
                (None, Some(slot)) => (slot.body.clone(), slot.emitted_at, 0),
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
        self.position.dead += u64::from(self.is_open(seq));
        self.finish(seq.0);
    }

    /// The delivery waits until `due`; it has a row now and holds the cursor back no longer.
    pub fn retry(&mut self, seq: EventSeq, due: Time) {
        self.give_row(seq.0);
        let Some(retry) = self.retries.get_mut(&seq.0) else { return };
        retry.attempts = retry.attempts.saturating_add(1);
        retry.waits = true;
        self.waiting.insert((due, seq.0));
        self.advance();
    }

    /// A delivery that waits behind one with a row has a row of its own now, not tried yet.
    pub fn parked(&mut self, seq: EventSeq) {
        self.give_row(seq.0);
        self.advance();
    }

    /// What is unsettled in the window and has no row gets one in memory.
    fn give_row(&mut self, seq: i64) {
        if let Some(slot) = self.window.get_mut(&seq)
            && let Some(body) = slot.body.take()
        {
            self.window_bytes -= body.len();
            let retry = Retry { group: slot.group, emitted_at: slot.emitted_at, attempts: 0, waits: false };
            self.retries.insert(seq, retry);
        }
    }

    /// Deliveries that hold the cursor back and cannot be sent, since an earlier one of their target is
    /// tried again; `settled` are about to be settled. They want rows, or one target that fails would
    /// fill the window for all, and after a restart what was delivered behind them would be sent again.
    pub fn to_park(&self, settled: &HashSet<i64>) -> Vec<i64> {
        let mut found = Vec::new();
        for (seq, slot) in &self.window {
            if slot.body.is_none() || settled.contains(seq) {
                continue;
            }
            let first = self.groups.get(&slot.group).and_then(|queue| queue.front());
            if !first.is_some_and(|first| first != seq && self.retries.contains_key(first)) {
                break;
            }
            found.push(*seq);
        }
        let delivered = |(seq, slot): (&i64, &Slot)| {
            settled.contains(seq) || slot.body.is_none() && !self.retries.contains_key(seq)
        };
        if !found.is_empty() && self.has_room() && !self.window.iter().any(delivered) {
            found.clear();
        }
        found
    }

    /// Whether this delivery is not settled for good.
    pub fn is_open(&self, seq: EventSeq) -> bool {
        self.retries.contains_key(&seq.0) || self.window.get(&seq.0).is_some_and(|slot| slot.body.is_some())
    }

    fn finish(&mut self, seq: i64) {
        // What is settled twice would let the next of its target out twice.
        let Some(group) = self.group_of(seq).filter(|_| self.is_open(EventSeq(seq))) else { return };
        self.retries.remove(&seq);
        if let Some(slot) = self.window.get_mut(&seq) {
            self.window_bytes -= slot.body.take().map_or(0, |body| body.len());
        }
        if let Some(queue) = self.groups.get_mut(&group) {
            // Only the first is ever out.
            if queue.front() == Some(&seq) {
                queue.pop_front();
            } else {
                queue.retain(|&other| other != seq);
            }
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
        let parked = self.retries.values().filter(|retry| retry.attempts == 0).count() as u64;
        Backlog {
            pending: self.position.given.saturating_sub(self.position.passed + settled_above) + parked,
            retrying: self.retries.len() as u64 - parked,
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
    fn tries_are_counted_while_an_earlier_event_holds_the_cursor() {
        let mut lane = lane(&[7, 8]);
        claim(&mut lane, 0);
        for attempts in 1..4 {
            assert_eq!(lane.row(EventSeq(2), true, false), Row::Retry { attempts });
            lane.retry(EventSeq(2), at(0));
            let handed = lane.claim(10, at(0));
            assert_eq!((handed[0].seq.0, handed[0].attempts), (2, attempts));
        }
    }

    #[test]
    fn what_waits_behind_a_failed_delivery_does_not_hold_the_cursor() {
        let mut lane = lane(&[7, 7, 8, 7, 9]);
        claim(&mut lane, 0);
        lane.retry(EventSeq(1), at(5));
        assert_eq!(lane.to_park(&HashSet::new()), [0i64; 0], "nothing was delivered behind it");
        assert_eq!(lane.to_park(&HashSet::from([3])), [2, 4]);
        lane.parked(EventSeq(2));
        lane.parked(EventSeq(4));
        lane.delivered(EventSeq(3));
        assert_eq!(lane.position().cursor, 4);
        assert_eq!(lane.backlog(), Backlog { pending: 3, retrying: 1, dead: 0 });
        assert_eq!(claim(&mut lane, 5), [1]);
        lane.delivered(EventSeq(1));
        let handed = lane.claim(10, at(5));
        assert_eq!((handed[0].seq.0, handed[0].attempts, handed.len()), (2, 0, 1));
        assert_eq!(lane.row(EventSeq(2), false, false), Row::Delete);
        lane.delivered(EventSeq(2));
        assert_eq!(claim(&mut lane, 5), [4]);
    }

    #[test]
    fn a_target_that_fails_does_not_fill_the_window_for_others() {
        let mut lane = lane(&vec![7; WINDOW]);
        claim(&mut lane, 0);
        lane.retry(EventSeq(1), at(5));
        lane.offer(EventSeq(WINDOW as i64 + 1), 7, at(0), "{}".into());
        assert!(!lane.has_room());
        lane.to_park(&HashSet::new()).into_iter().for_each(|seq| lane.parked(EventSeq(seq)));
        assert!(lane.has_room());
    }

    #[test]
    fn what_is_settled_twice_counts_once() {
        let mut lane = lane(&[6, 7, 7, 7]);
        assert_eq!(claim(&mut lane, 0), [1, 2]);
        lane.delivered(EventSeq(2));
        assert_eq!(claim(&mut lane, 0), [3]);
        lane.delivered(EventSeq(2));
        lane.dead(EventSeq(2));
        assert_eq!(claim(&mut lane, 0), [0i64; 0], "3 is out");
        assert_eq!(lane.backlog(), Backlog { pending: 3, retrying: 0, dead: 0 });
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
