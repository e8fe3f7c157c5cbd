//! A destination's deliveries in memory: what may be sent now, what is being sent, how far everything
//! is settled. No IO and no clock; both stores keep one lane for each destination.
//!
//! A lane never hands out two events about the same target at once, and none before an earlier one of
//! the same target is settled for good, so the order within a target is kept whatever fails.
//!
//! The *window* holds events above the cursor. It is bounded: what does not fit stays in the store and
//! is read when there is room again.

mod cancel;
mod progress;
mod redrive;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::EventSeq;
use super::numbers::{Map, Set};
use crate::domain::header::EncodedEvent;
use crate::domain::time::Time;

/// Events in the window at the most; few in tests, so that they often reach beyond it.
const WINDOW: usize = if cfg!(test) { 16 } else { 16_384 };
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
    /// Deliveries that the cursor does not wait for, whether they wait, are ready or being sent: tried
    /// before, parked behind one that was, or cancelled on their way.
    retries: Map<i64, Retry>,
    waiting: BTreeSet<(Time, i64)>,
    /// Unsettled events of each target in their order; only the first may be sent.
    groups: Map<Group, VecDeque<i64>>,
    ready: BTreeSet<i64>,
    /// What is known of deliveries that the window has not reached.
    ahead: BTreeMap<i64, Ahead>,
    /// How many deliveries that the window has not reached are settled, beside those in `ahead`: their rows
    /// say which. Below zero while one is read before its commit is made known.
    settled_ahead: i64,
    /// Deliveries that are neither settled nor given up.
    left: u64,
    /// Rows of what was cancelled or discarded: with the dead letters, all that never arrived.
    missed: u64,
    /// Targets of which nothing is handed out while a transaction looks at what was not sent yet.
    withheld: Set<Group>,
}

#[derive(Debug)]
struct Slot {
    group: Group,
    emitted_at: Time,
    undoes: bool,
    /// `None` when settled, until the cursor passes it.
    body: Option<EncodedEvent>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    group: Group,
    /// When it was emitted, or redriven.
    emitted_at: Time,
    undoes: bool,
    attempts: u32,
    /// Until when, if its time has not come.
    waits: Option<Time>,
    /// It was cancelled while it was on its way: its try is the last.
    cancelled: bool,
}

/// What rows tell of a delivery that the window has not reached. It gets its place in its target's order
/// when the window comes to it.
#[derive(Debug, Clone, Copy)]
enum Ahead {
    /// Cancelled.
    Settled,
    /// Tried, parked or redriven.
    Retry { emitted_at: Time, attempts: u32, due: Time },
}

/// An event for the window.
#[derive(Debug, Clone)]
pub struct Offered {
    pub seq: EventSeq,
    pub group: Group,
    pub emitted_at: Time,
    /// Whether it undoes what earlier events have done, so that it may find nothing to undo.
    pub undoes: bool,
    pub body: EncodedEvent,
}

/// A delivery with a row, that is to be tried.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub seq: EventSeq,
    pub group: Group,
    /// When it was emitted, or redriven.
    pub emitted_at: Time,
    pub undoes: bool,
    pub attempts: u32,
    pub due: Time,
}

/// How a delivery ends, as far as a lane cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It arrived.
    Arrived,
    /// It arrived, and its answer is kept.
    Answered,
    /// It is not to be sent.
    Withdrawn,
    /// It is tried again.
    Retry,
    /// It is given up.
    Dead,
}

/// What a lane hands out; a body that is not in memory has to be read.
#[derive(Debug)]
pub struct Handed {
    pub seq: EventSeq,
    pub body: Option<EncodedEvent>,
    pub emitted_at: Time,
    /// Whether it undoes something.
    pub undoes: bool,
    pub attempts: u32,
}

/// What a store has to write when deliveries were settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Nothing: the cursor tells it, or will.
    None,
    /// There was a row, and it is not needed any more.
    Delete,
    /// A row that tells how it ended, with this many attempts.
    Put { attempts: u32 },
    /// The row says that it was cancelled, but it arrived.
    Arrived { attempts: u32 },
}

impl Lane {
    /// A lane at `position`.
    pub fn new(position: Position) -> Self {
        Self {
            position,
            read_to: position.cursor,
            window: BTreeMap::new(),
            window_bytes: 0,
            retries: Map::default(),
            waiting: BTreeSet::new(),
            groups: Map::default(),
            ready: BTreeSet::new(),
            ahead: BTreeMap::new(),
            settled_ahead: 0,
            left: position.given - position.passed.min(position.given),
            missed: 0,
            withheld: Set::default(),
        }
    }

    /// A delivery that waits for another try, read when the store is opened; to be called in the order
    /// of the events.
    pub fn restore(&mut self, waiting: Waiting) {
        let Waiting { seq, group, emitted_at, undoes, attempts, due } = waiting;
        if seq.0 > self.read_to {
            // Earlier ones of its target may have no row.
            self.ahead.insert(seq.0, Ahead::Retry { emitted_at, attempts, due });
        } else {
            self.left += 1;
            let waits = Some(due);
            self.wait_for(seq.0, Retry { group, emitted_at, undoes, attempts, waits, cancelled: false });
        }
    }

    /// A delivery that was cancelled, with a row above the cursor; read when the store is opened.
    pub fn restore_cancelled(&mut self, seq: EventSeq) {
        self.ahead.insert(seq.0, Ahead::Settled);
        self.left = self.left.saturating_sub(1);
    }

    /// So many deliveries above the cursor have rows that say that they are settled, and so many at all
    /// were cancelled or discarded; read when the store is opened.
    pub fn restore_counts(&mut self, settled: u64, missed: u64) {
        self.settled_ahead = i64::try_from(settled).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(settled);
        self.missed = missed;
    }

    /// Puts what waits for another try at the end of its target's order.
    fn wait_for(&mut self, seq: i64, retry: Retry) {
        self.groups.entry(retry.group).or_default().push_back(seq);
        self.waiting.extend(retry.waits.map(|due| (due, seq)));
        self.retries.insert(seq, retry);
    }

    /// Counts deliveries that were committed; so many of them have rows that say that they are settled, and
    /// so many of these are dead letters.
    pub fn given(&mut self, count: u64, settled: u64, dead: u64) {
        self.position.given += count;
        self.position.dead += dead;
        self.left += count.saturating_sub(settled);
        self.settled_ahead = self.settled_ahead.saturating_add_unsigned(settled);
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
    pub fn offer(&mut self, offered: Offered) {
        let Offered { seq, group, emitted_at, undoes, body } = offered;
        if seq.0 <= self.read_to {
            return;
        }
        self.read_to = seq.0;
        if let Some(known) = self.ahead.remove(&seq.0) {
            return self.put_known(seq.0, Slot { group, emitted_at, undoes, body: None }, known);
        }
        self.window_bytes += body.len();
        self.window.insert(seq.0, Slot { group, emitted_at, undoes, body: Some(body) });
        let queue = self.groups.entry(group).or_default();
        queue.push_back(seq.0);
        if queue.len() == 1 {
            self.ready.insert(seq.0);
        }
    }

    /// The same of an event whose delivery has a row.
    pub fn offer_with_row(&mut self, offered: &Offered) {
        let &Offered { seq, group, emitted_at, undoes, .. } = offered;
        if seq.0 <= self.read_to {
            return;
        }
        self.read_to = seq.0;
        let known = self.ahead.remove(&seq.0);
        // One that is redriven at this moment is put in its place when that is made known.
        self.settled_ahead -= i64::from(known.is_none());
        let known = known.unwrap_or(Ahead::Settled);
        self.put_known(seq.0, Slot { group, emitted_at, undoes, body: None }, known);
    }

    fn put_known(&mut self, seq: i64, slot: Slot, known: Ahead) {
        let Slot { group, undoes, .. } = slot;
        self.window.insert(seq, slot);
        if let Ahead::Retry { emitted_at, attempts, due } = known {
            let waits = Some(due);
            self.wait_for(seq, Retry { group, emitted_at, undoes, attempts, waits, cancelled: false });
        }
        self.advance();
    }

    /// Hands out up to `max` deliveries.
    pub fn claim(&mut self, max: usize, now: Time) -> Vec<Handed> {
        while let Some(&(due, seq)) = self.waiting.first()
            && due <= now
        {
            self.waiting.pop_first();
            if let Some(retry) = self.retries.get_mut(&seq) {
                retry.waits = None;
            }
            self.ready_if_first(seq);
        }
        let mut handed = Vec::new();
        let mut withheld = Vec::new();
        while handed.len() < max
            && let Some(seq) = self.ready.pop_first()
        {
            if self.is_withheld(seq) {
                withheld.push(seq);
                continue;
            }
            // One with a row may still be in the window, until the cursor passes it.
            let seq = EventSeq(seq);
            handed.push(match (self.retries.get(&seq.0), self.window.get(&seq.0)) {
                (Some(&Retry { emitted_at, undoes, attempts, .. }), _) => {
                    Handed { seq, body: None, emitted_at, undoes, attempts }
                }
                (None, Some(Slot { emitted_at, undoes, body: body @ Some(_), .. })) => {
                    Handed { seq, body: body.clone(), emitted_at: *emitted_at, undoes: *undoes, attempts: 0 }
                }
                (None, _) => continue,
            });
        }
        self.ready.extend(withheld);
        handed
    }

    /// Gives back a delivery that was handed out and not tried.
    pub fn unclaim(&mut self, seq: EventSeq) {
        if self.is_cancelled(seq) {
            self.finish(seq.0);
        } else {
            self.ready_if_first(seq.0);
        }
    }

    /// Nobody is on the way with anything any more: what was handed out and not settled may be handed out
    /// again. With `at_once` nothing waits for its time either.
    pub fn take_back(&mut self, at_once: bool) {
        if at_once {
            self.waiting.clear();
            self.retries.values_mut().for_each(|retry| retry.waits = None);
        }
        let firsts = self.groups.values().filter_map(|queue| queue.front().copied());
        let waits = |seq: &i64| self.retries.get(seq).is_some_and(|retry| retry.waits.is_some());
        let out: Vec<i64> = firsts.filter(|seq| !waits(seq)).collect();
        out.into_iter().for_each(|seq| self.unclaim(EventSeq(seq)));
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

    /// What the store has to write for a delivery that ends so. Changes nothing: [`Lane::delivered`] and
    /// its sisters follow the commit.
    pub fn row(&self, seq: EventSeq, end: End) -> Row {
        let known = self.retries.get(&seq.0);
        let attempts = known.map_or(0, |retry| retry.attempts).saturating_add(1);
        match end {
            End::Dead | End::Answered => Row::Put { attempts },
            End::Arrived if self.is_cancelled(seq) => Row::Arrived { attempts },
            // The row that tells it stays.
            _ if self.is_cancelled(seq) => Row::None,
            End::Retry => Row::Put { attempts },
            End::Withdrawn => Row::Put { attempts: attempts - 1 },
            End::Arrived if known.is_some() => Row::Delete,
            End::Arrived => Row::None,
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

    /// The delivery waits until `due`; it has a row now and holds the cursor back no longer. One that was
    /// cancelled on its way is over.
    pub fn retry(&mut self, seq: EventSeq, due: Time) {
        if self.is_cancelled(seq) {
            return self.finish(seq.0);
        }
        self.give_row(seq.0);
        let Some(retry) = self.retries.get_mut(&seq.0) else { return };
        retry.attempts = retry.attempts.saturating_add(1);
        retry.waits = Some(due);
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
            let Slot { group, emitted_at, undoes, .. } = *slot;
            let retry = Retry { group, emitted_at, undoes, attempts: 0, waits: None, cancelled: false };
            self.retries.insert(seq, retry);
        }
    }

    /// Whether this delivery is not settled for good.
    pub fn is_open(&self, seq: EventSeq) -> bool {
        self.retries.contains_key(&seq.0) || self.window.get(&seq.0).is_some_and(|slot| slot.body.is_some())
    }

    /// Whether this delivery is known to be settled for good.
    pub fn is_settled(&self, seq: EventSeq) -> bool {
        seq.0 <= self.read_to() && !self.is_open(seq)
    }

    fn finish(&mut self, seq: i64) {
        // What is settled twice would let the next of its target out twice.
        let Some(group) = self.group_of(seq).filter(|_| self.is_open(EventSeq(seq))) else { return };
        self.left = self.left.saturating_sub(1);
        self.retries.remove(&seq);
        if let Some(slot) = self.window.get_mut(&seq) {
            self.window_bytes -= slot.body.take().map_or(0, |body| body.len());
        }
        if let Some(queue) = self.groups.get_mut(&group) {
            // Only the first is ever out, but others may be cancelled.
            let was_first = queue.front() == Some(&seq);
            if was_first {
                queue.pop_front();
            } else {
                queue.retain(|&other| other != seq);
            }
            match queue.front().copied() {
                None => drop(self.groups.remove(&group)),
                Some(_) if !was_first => {}
                Some(next) if self.retries.get(&next).is_some_and(|retry| retry.waits.is_some()) => {}
                Some(next) => drop(self.ready.insert(next)),
            }
        }
        self.advance();
    }

    /// When the next delivery that waits is due.
    pub fn next_due(&self) -> Option<Time> {
        self.waiting.first().map(|&(due, _)| due)
    }
}
