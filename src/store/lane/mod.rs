//! In-memory delivery queue of one destination: a bounded window above the cursor, per-target FIFO, retries, and
//! cancellation. No IO and no clock; both stores have one lane per destination.
//!
//! At most one delivery per target is claimed, always the oldest unsettled one, so the order of a target's events
//! is preserved whatever fails.
//!
//! The *window* holds events above the cursor. It is bounded in number and bytes; further events stay in the store
//! and are read when there is room.

mod arrivals;
mod aside;
mod cancel;
mod claims;
mod expiry;
mod progress;
mod redrive;
mod settling;
#[cfg(test)]
mod tests;
mod unsettled;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arrivals::Arrivals;

use super::EventSeq;
use super::fast_map::Map;
use crate::domain::header::EncodedEvent;
use crate::domain::time::Time;

pub(super) use arrivals::Lookup;
pub(super) use claims::Claim;
pub(super) use expiry::ExpiredClaims;
pub(super) use settling::{Outcome, RowChange};

/// The maximum number of events in the window; small in tests, so that they exceed it often.
pub(super) const MAX_WINDOW_EVENTS: usize = if cfg!(test) { 16 } else { 16_384 };
/// The maximum size of the events in the window; one event can exceed it.
pub const MAX_WINDOW_BYTES: usize = 16 << 20;

/// The id of a target in the store; in memory, negative for an event whose target never had a state.
pub(super) type Group = i64;

/// The persisted position of a lane.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    /// Every delivery up to this event is settled or has a row.
    pub cursor: i64,
    /// All deliveries that were ever committed for this destination.
    pub enqueued: u64,
    /// The number of those at or below the cursor.
    pub settled_below_cursor: u64,
    /// Dead letters.
    pub dead: u64,
}

/// The deliveries of a destination.
#[derive(Debug)]
pub(super) struct Lane {
    position: Position,
    /// The event number up to which the store has been read into the window.
    high_watermark: i64,
    window: BTreeMap<i64, Slot>,
    window_bytes: usize,
    /// Unsettled deliveries that do not hold back the cursor, since they have rows: failed before, parked behind a
    /// failed one, redriven, or cancelled while claimed.
    retries: Map<i64, Retry>,
    retry_schedule: BTreeSet<(Time, i64)>,
    /// Unsettled events of each target in order; only the first can be claimed.
    groups: Map<Group, VecDeque<i64>>,
    ready: BTreeSet<i64>,
    /// The tokens of claimed deliveries.
    leases: Map<i64, u64>,
    last_token: u64,
    /// Known deliveries above the high watermark.
    beyond_window: BTreeMap<i64, BeyondWindow>,
    /// Settled deliveries above the high watermark that are not in `beyond_window`; their rows say which.
    /// Temporarily negative if an event is read before its commit is counted.
    settled_beyond_window: i64,
    /// Unsettled deliveries, including those that the window has not reached.
    undelivered: u64,
    /// Rows of cancelled or discarded deliveries; together with dead letters, all that never arrived.
    never_delivered: u64,
    arrivals: Arrivals,
    expiry: expiry::ExpiryIndex,
}

#[derive(Debug)]
struct Slot {
    group: Group,
    emitted_at: Time,
    compensates: bool,
    /// `None` if the delivery is settled or has moved to `retries`. The slot stays until the cursor passes
    /// it.
    body: Option<EncodedEvent>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    group: Group,
    emitted_at: Time,
    /// When the event was emitted, redriven, renewed or resumed: its limits of age count from then.
    age_from: Time,
    compensates: bool,
    attempts: u32,
    marks: Marks,
    /// The end of the backoff; `None` once it is over.
    due: Option<Time>,
    /// A call has begun that is not settled.
    is_called: bool,
    /// Cancelled while it was claimed: it is not retried.
    cancelled: bool,
    /// Stands aside: it is not in the queue of its target, so that it blocks no later delivery.
    is_aside: bool,
}

/// A delivery above the high watermark, as its row describes it. It takes its place in its target's order when
/// the window reaches it.
#[derive(Debug, Clone, Copy)]
enum BeyondWindow {
    /// Cancelled, or otherwise settled.
    Settled,
    /// Failed, parked, redriven or suspended.
    Retry { age_from: Time, attempts: u32, marks: Marks, due: Time },
}

/// What the row of an unsettled delivery says besides its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Marks {
    /// It is not called until it is resumed, and stands aside.
    pub is_suspended: bool,
    /// A call may have arrived although no answer said so.
    pub is_uncertain: bool,
}

/// An event to be added to the window.
#[derive(Debug, Clone)]
pub(super) struct NewDelivery {
    pub seq: EventSeq,
    pub group: Group,
    pub emitted_at: Time,
    /// Whether the event compensates earlier ones, so that there may be nothing to compensate.
    pub compensates: bool,
    pub body: EncodedEvent,
}

/// An unsettled delivery with a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingRetry {
    pub seq: EventSeq,
    pub group: Group,
    pub emitted_at: Time,
    /// When the event was emitted, redriven, renewed or resumed: its limits of age count from then.
    pub age_from: Time,
    pub compensates: bool,
    pub attempts: u32,
    pub marks: Marks,
    pub due: Time,
}

impl Retry {
    fn new(pending: PendingRetry) -> Self {
        let PendingRetry { group, emitted_at, age_from, compensates, attempts, marks, due, .. } = pending;
        Self {
            group,
            emitted_at,
            age_from,
            compensates,
            attempts,
            marks,
            due: Some(due),
            is_called: false,
            cancelled: false,
            is_aside: false,
        }
    }
}

impl BeyondWindow {
    fn retry(pending: PendingRetry) -> Self {
        let PendingRetry { age_from, attempts, marks, due, .. } = pending;
        Self::Retry { age_from, attempts, marks, due }
    }
}

impl Lane {
    /// An empty lane at `position`.
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
            leases: Map::default(),
            last_token: 0,
            beyond_window: BTreeMap::new(),
            settled_beyond_window: 0,
            undelivered: position.enqueued - position.settled_below_cursor.min(position.enqueued),
            never_delivered: 0,
            arrivals: Arrivals::default(),
            expiry: expiry::ExpiryIndex::default(),
        }
    }

    /// The target of a delivery in the window or with a row.
    pub(super) fn group_of(&self, seq: i64) -> Option<Group> {
        let slot = self.window.get(&seq).map(|slot| slot.group);
        slot.or_else(|| self.retries.get(&seq).map(|retry| retry.group))
    }

    fn mark_ready_if_first(&mut self, seq: i64) {
        let first = self.group_of(seq).and_then(|group| self.groups.get(&group)?.front().copied());
        if first == Some(seq) {
            self.ready.insert(seq);
        }
    }

    /// Whether the delivery is known and not settled.
    pub(super) fn is_unsettled(&self, seq: EventSeq) -> bool {
        self.retries.contains_key(&seq.0) || self.window.get(&seq.0).is_some_and(|slot| slot.body.is_some())
    }

    /// Whether the delivery is known to be settled.
    pub(super) fn is_settled(&self, seq: EventSeq) -> bool {
        seq.0 <= self.high_watermark() && !self.is_unsettled(seq)
    }

    /// Takes a delivery out of the queue of its target. The next one can be claimed if it was the first.
    fn leave_queue(&mut self, group: Group, seq: i64) {
        let Some(queue) = self.groups.get_mut(&group) else { return };
        // Only the first can be claimed, but others can be cancelled.
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

    /// Puts a delivery into the queue of its target: in its order, but after one that is claimed.
    fn join_queue(&mut self, group: Group, seq: i64) {
        let first = self.groups.get(&group).and_then(|queue| queue.front().copied());
        let first_is_claimed = first.is_some_and(|first| self.is_claimed(first));
        let queue = self.groups.entry(group).or_default();
        let at = queue.partition_point(|&other| other < seq).max(usize::from(first_is_claimed));
        queue.insert(at, seq);
        if let Some(first) = first.filter(|_| at == 0) {
            self.ready.remove(&first);
        }
    }

    /// When the next retry is due.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.retry_schedule.first().map(|&(due, _)| due)
    }
}
