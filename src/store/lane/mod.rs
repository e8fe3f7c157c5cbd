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
use super::fast_map::{Map, Set};
use crate::domain::header::EncodedEvent;
use crate::domain::time::Time;

/// Events in the window at the most; few in tests, so that they often reach beyond it.
const MAX_WINDOW_EVENTS: usize = if cfg!(test) { 16 } else { 16_384 };
/// Bytes of events in the window at the most, beside one event.
const MAX_WINDOW_BYTES: usize = 16 << 20;

/// The store's number of a target.
pub(super) type Group = i64;

/// Where a lane stands when a store is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    /// Everything up to here is settled or has a row.
    pub cursor: i64,
    /// Deliveries that this destination was ever given.
    pub enqueued: u64,
    /// How many of them lie at or below the cursor.
    pub settled_below_cursor: u64,
    /// Dead letters.
    pub dead: u64,
}

/// A destination's deliveries.
#[derive(Debug)]
pub(super) struct Lane {
    position: Position,
    /// Everything in the store up to here that concerns this destination is in the window.
    high_watermark: i64,
    window: BTreeMap<i64, Slot>,
    window_bytes: usize,
    /// Deliveries that the cursor does not wait for, whether they wait, are ready or being sent: tried
    /// before, parked behind one that was, or cancelled on their way.
    retries: Map<i64, Retry>,
    retry_schedule: BTreeSet<(Time, i64)>,
    /// Unsettled events of each target in their order; only the first may be sent.
    groups: Map<Group, VecDeque<i64>>,
    ready: BTreeSet<i64>,
    /// What is known of deliveries that the window has not reached.
    beyond_window: BTreeMap<i64, BeyondWindow>,
    /// How many deliveries that the window has not reached are settled, beside those in `ahead`: their rows
    /// say which. Below zero while one is read before its commit is made known.
    settled_beyond_window: i64,
    /// Deliveries that are neither settled nor given up.
    undelivered: u64,
    /// Rows of what was cancelled or discarded: with the dead letters, all that never arrived.
    never_delivered: u64,
    /// Targets of which nothing is handed out while a transaction looks at what was not sent yet.
    withheld: Set<Group>,
}

#[derive(Debug)]
struct Slot {
    group: Group,
    emitted_at: Time,
    compensates: bool,
    /// `None` when settled, until the cursor passes it.
    body: Option<EncodedEvent>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    group: Group,
    /// When it was emitted, or redriven.
    emitted_at: Time,
    compensates: bool,
    attempts: u32,
    /// Until when, if its time has not come.
    due: Option<Time>,
    /// It was cancelled while it was on its way: its try is the last.
    cancelled: bool,
}

/// What rows tell of a delivery that the window has not reached. It gets its place in its target's order
/// when the window comes to it.
#[derive(Debug, Clone, Copy)]
enum BeyondWindow {
    /// Cancelled.
    Settled,
    /// Tried, parked or redriven.
    Retry { emitted_at: Time, attempts: u32, due: Time },
}

/// An event for the window.
#[derive(Debug, Clone)]
pub(super) struct NewDelivery {
    pub seq: EventSeq,
    pub group: Group,
    pub emitted_at: Time,
    /// Whether it undoes what earlier events have done, so that it may find nothing to undo.
    pub compensates: bool,
    pub body: EncodedEvent,
}

/// A delivery with a row, that is to be tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingRetry {
    pub seq: EventSeq,
    pub group: Group,
    /// When it was emitted, or redriven.
    pub emitted_at: Time,
    pub compensates: bool,
    pub attempts: u32,
    pub due: Time,
}

/// How a delivery ends, as far as a lane cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It arrived.
    Delivered,
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
pub(super) struct Claim {
    pub seq: EventSeq,
    pub body: Option<EncodedEvent>,
    pub emitted_at: Time,
    /// Whether it undoes something.
    pub compensates: bool,
    pub attempts: u32,
}

/// What a store has to write when deliveries were settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowChange {
    /// Nothing: the cursor tells it, or will.
    None,
    /// There was a row, and it is not needed any more.
    Delete,
    /// A row that tells how it ended, with this many attempts.
    Put { attempts: u32 },
    /// The row says that it was cancelled, but it arrived.
    Delivered { attempts: u32 },
}

impl Lane {
    /// A lane at `position`.
    pub(super) fn new(position: Position) -> Self {
        Self {
            position,
            high_watermark: position.cursor,
            window: BTreeMap::new(),
            window_bytes: 0,
            retries: Map::default(),
            retry_schedule: BTreeSet::new(),
            groups: Map::default(),
            ready: BTreeSet::new(),
            beyond_window: BTreeMap::new(),
            settled_beyond_window: 0,
            undelivered: position.enqueued - position.settled_below_cursor.min(position.enqueued),
            never_delivered: 0,
            withheld: Set::default(),
        }
    }

    /// A delivery that waits for another try, read when the store is opened; to be called in the order
    /// of the events.
    pub(super) fn restore(&mut self, pending: PendingRetry) {
        let PendingRetry { seq, group, emitted_at, compensates, attempts, due } = pending;
        if seq.0 > self.high_watermark {
            // Earlier ones of its target may have no row.
            self.beyond_window.insert(seq.0, BeyondWindow::Retry { emitted_at, attempts, due });
        } else {
            self.undelivered += 1;
            self.push_retry(
                seq.0,
                Retry { group, emitted_at, compensates, attempts, due: Some(due), cancelled: false },
            );
        }
    }

    /// A delivery that was cancelled, with a row above the cursor; read when the store is opened.
    pub(super) fn restore_cancelled(&mut self, seq: EventSeq) {
        self.beyond_window.insert(seq.0, BeyondWindow::Settled);
        self.undelivered = self.undelivered.saturating_sub(1);
    }

    /// So many deliveries above the cursor have rows that say that they are settled, and so many at all
    /// were cancelled or discarded; read when the store is opened.
    pub(super) fn restore_counts(&mut self, settled: u64, never_delivered: u64) {
        self.settled_beyond_window = i64::try_from(settled).unwrap_or(i64::MAX);
        self.undelivered = self.undelivered.saturating_sub(settled);
        self.never_delivered = never_delivered;
    }

    /// Puts what waits for another try at the end of its target's order.
    fn push_retry(&mut self, seq: i64, retry: Retry) {
        self.groups.entry(retry.group).or_default().push_back(seq);
        self.retry_schedule.extend(retry.due.map(|due| (due, seq)));
        self.retries.insert(seq, retry);
    }

    /// Counts deliveries that were committed; so many of them have rows that say that they are settled, and
    /// so many of these are dead letters.
    pub(super) fn add_enqueued(&mut self, count: u64, settled: u64, dead: u64) {
        self.position.enqueued += count;
        self.position.dead += dead;
        self.undelivered += count.saturating_sub(settled);
        self.settled_beyond_window = self.settled_beyond_window.saturating_add_unsigned(settled);
    }

    /// How far the window reaches.
    pub(super) fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Whether there is room in the window.
    pub(super) fn has_room(&self) -> bool {
        self.window.len() < MAX_WINDOW_EVENTS && self.window_bytes < MAX_WINDOW_BYTES
    }

    /// Says that up to `seq` there is nothing else for this destination.
    pub(super) fn skip_to(&mut self, seq: EventSeq) {
        self.high_watermark = self.high_watermark.max(seq.0);
        self.advance();
    }

    /// Puts an event into the window. Events come in their order, each once.
    pub(super) fn push(&mut self, delivery: NewDelivery) {
        let NewDelivery { seq, group, emitted_at, compensates, body } = delivery;
        if seq.0 <= self.high_watermark {
            return;
        }
        self.high_watermark = seq.0;
        if let Some(known) = self.beyond_window.remove(&seq.0) {
            return self.put_known(seq.0, Slot { group, emitted_at, compensates, body: None }, known);
        }
        self.window_bytes += body.len();
        self.window.insert(seq.0, Slot { group, emitted_at, compensates, body: Some(body) });
        let queue = self.groups.entry(group).or_default();
        queue.push_back(seq.0);
        if queue.len() == 1 {
            self.ready.insert(seq.0);
        }
    }

    /// The same of an event whose delivery has a row.
    pub(super) fn push_known(&mut self, delivery: &NewDelivery) {
        let &NewDelivery { seq, group, emitted_at, compensates, .. } = delivery;
        if seq.0 <= self.high_watermark {
            return;
        }
        self.high_watermark = seq.0;
        let known = self.beyond_window.remove(&seq.0);
        // One that is redriven at this moment is put in its place when that is made known.
        self.settled_beyond_window -= i64::from(known.is_none());
        let known = known.unwrap_or(BeyondWindow::Settled);
        self.put_known(seq.0, Slot { group, emitted_at, compensates, body: None }, known);
    }

    fn put_known(&mut self, seq: i64, slot: Slot, known: BeyondWindow) {
        let Slot { group, compensates, .. } = slot;
        self.window.insert(seq, slot);
        if let BeyondWindow::Retry { emitted_at, attempts, due } = known {
            self.push_retry(
                seq,
                Retry { group, emitted_at, compensates, attempts, due: Some(due), cancelled: false },
            );
        }
        self.advance();
    }

    /// Hands out up to `max` deliveries.
    pub(super) fn claim(&mut self, max: usize, now: Time) -> Vec<Claim> {
        while let Some(&(due, seq)) = self.retry_schedule.first()
            && due <= now
        {
            self.retry_schedule.pop_first();
            if let Some(retry) = self.retries.get_mut(&seq) {
                retry.due = None;
            }
            self.mark_ready_if_first(seq);
        }
        let mut claims = Vec::new();
        let mut withheld = Vec::new();
        while claims.len() < max
            && let Some(seq) = self.ready.pop_first()
        {
            if self.is_withheld(seq) {
                withheld.push(seq);
                continue;
            }
            // One with a row may still be in the window, until the cursor passes it.
            let seq = EventSeq(seq);
            claims.push(match (self.retries.get(&seq.0), self.window.get(&seq.0)) {
                (Some(&Retry { emitted_at, compensates, attempts, .. }), _) => {
                    Claim { seq, body: None, emitted_at, compensates, attempts }
                }
                (None, Some(Slot { emitted_at, compensates, body: body @ Some(_), .. })) => Claim {
                    seq,
                    body: body.clone(),
                    emitted_at: *emitted_at,
                    compensates: *compensates,
                    attempts: 0,
                },
                (None, _) => continue,
            });
        }
        self.ready.extend(withheld);
        claims
    }

    /// Gives back a delivery that was handed out and not tried.
    pub(super) fn unclaim(&mut self, seq: EventSeq) {
        if self.is_cancelled(seq) {
            self.finish(seq.0);
        } else {
            self.mark_ready_if_first(seq.0);
        }
    }

    /// Nobody is on the way with anything any more: what was handed out and not settled may be handed out
    /// again. With `at_once` nothing waits for its time either.
    pub(super) fn release_claims(&mut self, skip_delays: bool) {
        if skip_delays {
            self.retry_schedule.clear();
            self.retries.values_mut().for_each(|retry| retry.due = None);
        }
        let firsts = self.groups.values().filter_map(|queue| queue.front().copied());
        let is_backing_off = |seq: &i64| self.retries.get(seq).is_some_and(|retry| retry.due.is_some());
        let claimed: Vec<i64> = firsts.filter(|seq| !is_backing_off(seq)).collect();
        claimed.into_iter().for_each(|seq| self.unclaim(EventSeq(seq)));
    }

    fn group_of(&self, seq: i64) -> Option<Group> {
        let slot = self.window.get(&seq).map(|slot| slot.group);
        slot.or_else(|| self.retries.get(&seq).map(|retry| retry.group))
    }

    fn mark_ready_if_first(&mut self, seq: i64) {
        let first = self.group_of(seq).and_then(|group| self.groups.get(&group)?.front().copied());
        if first == Some(seq) {
            self.ready.insert(seq);
        }
    }

    /// What the store has to write for a delivery that ends so. Changes nothing: [`Lane::mark_delivered`] and
    /// its sisters follow the commit.
    pub(super) fn row_change(&self, seq: EventSeq, outcome: Outcome) -> RowChange {
        let known = self.retries.get(&seq.0);
        let attempts = known.map_or(0, |retry| retry.attempts).saturating_add(1);
        match outcome {
            Outcome::Dead | Outcome::Answered => RowChange::Put { attempts },
            Outcome::Delivered if self.is_cancelled(seq) => RowChange::Delivered { attempts },
            // The row that tells it stays.
            _ if self.is_cancelled(seq) => RowChange::None,
            Outcome::Retry => RowChange::Put { attempts },
            Outcome::Withdrawn => RowChange::Put { attempts: attempts - 1 },
            Outcome::Delivered if known.is_some() => RowChange::Delete,
            Outcome::Delivered => RowChange::None,
        }
    }

    /// The delivery arrived.
    pub(super) fn mark_delivered(&mut self, seq: EventSeq) {
        self.finish(seq.0);
    }

    /// The delivery was given up.
    pub(super) fn mark_dead(&mut self, seq: EventSeq) {
        self.position.dead += u64::from(self.is_unsettled(seq));
        self.finish(seq.0);
    }

    /// The delivery waits until `due`; it has a row now and holds the cursor back no longer. One that was
    /// cancelled on its way is over.
    pub(super) fn schedule_retry(&mut self, seq: EventSeq, due: Time) {
        if self.is_cancelled(seq) {
            return self.finish(seq.0);
        }
        self.move_to_retries(seq.0);
        let Some(retry) = self.retries.get_mut(&seq.0) else { return };
        retry.attempts = retry.attempts.saturating_add(1);
        retry.due = Some(due);
        self.retry_schedule.insert((due, seq.0));
        self.advance();
    }

    /// A delivery that waits behind one with a row has a row of its own now, not tried yet.
    pub(super) fn mark_parked(&mut self, seq: EventSeq) {
        self.move_to_retries(seq.0);
        self.advance();
    }

    /// What is unsettled in the window and has no row gets one in memory.
    fn move_to_retries(&mut self, seq: i64) {
        if let Some(slot) = self.window.get_mut(&seq)
            && let Some(body) = slot.body.take()
        {
            self.window_bytes -= body.len();
            let Slot { group, emitted_at, compensates, .. } = *slot;
            let retry = Retry { group, emitted_at, compensates, attempts: 0, due: None, cancelled: false };
            self.retries.insert(seq, retry);
        }
    }

    /// Whether this delivery is not settled for good.
    pub(super) fn is_unsettled(&self, seq: EventSeq) -> bool {
        self.retries.contains_key(&seq.0) || self.window.get(&seq.0).is_some_and(|slot| slot.body.is_some())
    }

    /// Whether this delivery is known to be settled for good.
    pub(super) fn is_settled(&self, seq: EventSeq) -> bool {
        seq.0 <= self.high_watermark() && !self.is_unsettled(seq)
    }

    fn finish(&mut self, seq: i64) {
        // What is settled twice would let the next of its target out twice.
        let Some(group) = self.group_of(seq).filter(|_| self.is_unsettled(EventSeq(seq))) else { return };
        self.undelivered = self.undelivered.saturating_sub(1);
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
                Some(next) if self.retries.get(&next).is_some_and(|retry| retry.due.is_some()) => {}
                Some(next) => drop(self.ready.insert(next)),
            }
        }
        self.advance();
    }

    /// When the next delivery that waits is due.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.retry_schedule.first().map(|&(due, _)| due)
    }
}
