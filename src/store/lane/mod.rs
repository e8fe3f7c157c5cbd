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
mod expiry;
mod progress;
mod redrive;
#[cfg(test)]
mod tests;
mod unsettled;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arrivals::Arrivals;
pub(super) use arrivals::Lookup;

use super::fast_map::Map;
use super::{EventSeq, Lease};
use crate::domain::header::EncodedEvent;
use crate::domain::time::Time;

pub(super) use expiry::ExpiredClaims;

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
    /// When the event was emitted or redriven.
    emitted_at: Time,
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
    Retry { emitted_at: Time, attempts: u32, marks: Marks, due: Time },
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
    /// When the event was emitted or redriven.
    pub emitted_at: Time,
    pub compensates: bool,
    pub attempts: u32,
    pub marks: Marks,
    pub due: Time,
}

/// The outcome of a claimed delivery: a [`Settlement`](super::Settlement) without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Accepted by the destination.
    Delivered,
    /// Not sent.
    Withdrawn,
    /// To be retried.
    Retry { is_uncertain: bool },
    /// Released without a call.
    NotCalled { stands_aside: bool },
    /// Given up, with or without a last call.
    Dead { was_called: bool },
}

impl Retry {
    fn new(pending: PendingRetry) -> Self {
        let PendingRetry { group, emitted_at, compensates, attempts, marks, due, .. } = pending;
        Self {
            group,
            emitted_at,
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
        let PendingRetry { emitted_at, attempts, marks, due, .. } = pending;
        Self::Retry { emitted_at, attempts, marks, due }
    }
}

impl Outcome {
    /// Whether the delivery is settled by it.
    pub(super) const fn is_final(self) -> bool {
        !matches!(self, Self::Retry { .. } | Self::NotCalled { .. })
    }
}

/// A claimed delivery.
#[derive(Debug)]
pub(super) struct Claim {
    pub lease: Lease,
    /// `None` if the event is not in memory and has to be read.
    pub body: Option<EncodedEvent>,
    pub emitted_at: Time,
    /// Whether the event compensates earlier ones.
    pub compensates: bool,
    pub attempts: u32,
}

/// The change of a delivery's row when it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowChange {
    /// No change: the cursor passes the delivery, or its row already says that it was cancelled.
    None,
    /// The row is not needed any more.
    Delete,
    /// A row with the outcome and this number of attempts.
    Put { attempts: u32 },
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

    /// Restores an unsettled delivery with a row when the store is opened. Must be called in the order of the
    /// events.
    pub(super) fn restore(&mut self, pending: PendingRetry) {
        if pending.seq.0 > self.high_watermark {
            // Earlier events of its target may have no row and are not read yet.
            self.beyond_window.insert(pending.seq.0, BeyondWindow::retry(pending));
        } else {
            self.undelivered += 1;
            self.push_retry(pending.seq.0, Retry::new(pending));
        }
    }

    /// Restores a cancelled delivery with a row above the cursor when the store is opened.
    pub(super) fn restore_settled(&mut self, seq: EventSeq) {
        self.beyond_window.insert(seq.0, BeyondWindow::Settled);
        self.undelivered = self.undelivered.saturating_sub(1);
    }

    /// Restores a delivery above the cursor that has arrived when the store is opened.
    pub(super) fn restore_arrived(&mut self, seq: EventSeq, at: Time) {
        self.arrivals.add(seq.0, at);
        self.restore_settled(seq);
    }

    /// Restores counts when the store is opened: `settled` deliveries above the cursor have rows that say so, and
    /// `never_delivered` deliveries in all were cancelled or discarded.
    pub(super) fn restore_counts(&mut self, settled: u64, never_delivered: u64) {
        self.settled_beyond_window = i64::try_from(settled).unwrap_or(i64::MAX);
        self.undelivered = self.undelivered.saturating_sub(settled);
        self.never_delivered = never_delivered;
    }

    /// Appends a retry to the queue of its target, unless it is suspended.
    fn push_retry(&mut self, seq: i64, mut retry: Retry) {
        if retry.marks.is_suspended {
            (retry.due, retry.is_aside) = (None, true);
            self.retries.insert(seq, retry);
            return;
        }
        self.groups.entry(retry.group).or_default().push_back(seq);
        self.retry_schedule.extend(retry.due.map(|due| (due, seq)));
        self.expiry.add_unexamined(seq);
        self.retries.insert(seq, retry);
    }

    /// Counts `count` committed deliveries; `settled` of them have rows that say so, and `dead` of these are dead
    /// letters.
    pub(super) fn add_enqueued(&mut self, count: u64, settled: u64, dead: u64) {
        self.position.enqueued += count;
        self.position.dead += dead;
        self.undelivered += count.saturating_sub(settled);
        self.settled_beyond_window = self.settled_beyond_window.saturating_add_unsigned(settled);
    }

    pub(super) fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    pub(super) fn has_room(&self) -> bool {
        self.window.len() < MAX_WINDOW_EVENTS && self.window_bytes < MAX_WINDOW_BYTES
    }

    /// Advances the high watermark to `seq`; there are no further deliveries up to it.
    pub(super) fn skip_to(&mut self, seq: EventSeq) {
        self.high_watermark = self.high_watermark.max(seq.0);
        self.advance();
    }

    /// Adds an event to the window. Events must be added in order; those up to the high watermark are ignored.
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

    /// Adds an event whose delivery has a row.
    pub(super) fn push_known(&mut self, delivery: &NewDelivery) {
        let &NewDelivery { seq, group, emitted_at, compensates, .. } = delivery;
        if seq.0 <= self.high_watermark {
            return;
        }
        self.high_watermark = seq.0;
        let known = self.beyond_window.remove(&seq.0);
        // A delivery that is being redriven is inserted by `redrive` after the commit.
        self.settled_beyond_window -= i64::from(known.is_none());
        let known = known.unwrap_or(BeyondWindow::Settled);
        self.put_known(seq.0, Slot { group, emitted_at, compensates, body: None }, known);
    }

    fn put_known(&mut self, seq: i64, slot: Slot, known: BeyondWindow) {
        let Slot { group, compensates, .. } = slot;
        self.window.insert(seq, slot);
        if let BeyondWindow::Retry { emitted_at, attempts, marks, due } = known {
            let seq = EventSeq(seq);
            let pending = PendingRetry { seq, group, emitted_at, compensates, attempts, marks, due };
            self.push_retry(seq.0, Retry::new(pending));
        }
        self.advance();
    }

    /// Claims up to `max` deliveries.
    pub(super) fn claim(&mut self, max: usize, now: Time) -> Vec<Claim> {
        while let Some(&(due, seq)) = self.retry_schedule.first()
            && due <= now
        {
            self.retry_schedule.pop_first();
            if let Some(retry) = self.retries.get_mut(&seq) {
                retry.due = None;
            }
            self.rejoin(seq);
            self.mark_ready_if_first(seq);
        }
        let mut claims = Vec::new();
        while claims.len() < max
            && let Some(seq) = self.ready.pop_first()
        {
            // A delivery with a row can still be in the window, until the cursor passes it.
            let lease = Lease::new(EventSeq(seq), self.last_token + 1);
            claims.push(match (self.retries.get(&seq), self.window.get(&seq)) {
                (Some(&Retry { emitted_at, compensates, attempts, .. }), _) => {
                    Claim { lease, body: None, emitted_at, compensates, attempts }
                }
                (None, Some(Slot { emitted_at, compensates, body: body @ Some(_), .. })) => Claim {
                    lease,
                    body: body.clone(),
                    emitted_at: *emitted_at,
                    compensates: *compensates,
                    attempts: 0,
                },
                (None, _) => continue,
            });
            self.last_token = lease.token();
            self.leases.insert(seq, lease.token());
        }
        claims
    }

    /// Whether the lease is the current one of its delivery.
    pub(super) fn holds(&self, lease: Lease) -> bool {
        self.leases.get(&lease.seq().0) == Some(&lease.token())
    }

    /// Ends a lease whose delivery was not attempted, unless it has ended already.
    pub(super) fn end_lease(&mut self, lease: Lease) {
        if self.holds(lease) {
            self.unclaim(lease.seq());
        }
    }

    /// Releases a claimed delivery that was not attempted.
    pub(super) fn unclaim(&mut self, seq: EventSeq) {
        self.leases.remove(&seq.0);
        if let Some(retry) = self.retries.get_mut(&seq.0) {
            retry.marks.is_uncertain |= std::mem::take(&mut retry.is_called);
        }
        if self.is_cancelled(seq) {
            self.finish(seq.0);
        } else if self.is_suspended(seq) {
            self.stand_aside(seq.0);
        } else {
            self.mark_ready_if_first(seq.0);
        }
    }

    /// Releases all claims, since no worker holds any. With `skip_delays`, retries are due at once as well.
    pub(super) fn release_claims(&mut self, skip_delays: bool) {
        if skip_delays {
            self.retry_schedule.clear();
            self.retries.values_mut().for_each(|retry| retry.due = None);
            self.rejoin_all();
        }
        let firsts = self.groups.values().filter_map(|queue| queue.front().copied());
        let is_backing_off = |seq: &i64| self.retries.get(seq).is_some_and(|retry| retry.due.is_some());
        let claimed: Vec<i64> = firsts.filter(|seq| !is_backing_off(seq)).collect();
        self.leases.clear();
        claimed.into_iter().for_each(|seq| self.unclaim(EventSeq(seq)));
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

    /// The row change for this outcome. Does not change the lane: [`Lane::mark_arrived`], [`Lane::mark_dead`] or
    /// [`Lane::schedule_retry`] must be called after the commit.
    pub(super) fn row_change(&self, seq: EventSeq, outcome: Outcome) -> RowChange {
        let known = self.retries.get(&seq.0);
        let before = known.map_or(0, |retry| retry.attempts);
        let after = before.saturating_add(1);
        match outcome {
            Outcome::Dead { was_called } => {
                RowChange::Put { attempts: if was_called { after } else { before } }
            }
            Outcome::Delivered if known.is_some() => RowChange::Delete,
            Outcome::Delivered => RowChange::None,
            // The row that says so is not changed.
            _ if self.is_cancelled(seq) => RowChange::None,
            Outcome::Retry { .. } => RowChange::Put { attempts: after },
            Outcome::Withdrawn | Outcome::NotCalled { .. } => RowChange::Put { attempts: before },
        }
    }

    /// The number of failed calls of an unsettled delivery.
    pub(super) fn attempts(&self, seq: EventSeq) -> u32 {
        self.retries.get(&seq.0).map_or(0, |retry| retry.attempts)
    }

    /// Settles a delivery that arrived.
    pub(super) fn mark_arrived(&mut self, seq: EventSeq, at: Time) {
        if self.is_cancelled(seq) {
            self.never_delivered = self.never_delivered.saturating_sub(1);
        }
        self.arrivals.add(seq.0, at);
        self.finish(seq.0);
    }

    /// Settles a delivery that was withdrawn.
    pub(super) fn mark_withdrawn(&mut self, seq: EventSeq) {
        self.finish(seq.0);
    }

    /// Settles a delivery that is a dead letter.
    pub(super) fn mark_dead(&mut self, seq: EventSeq) {
        self.position.dead += u64::from(self.is_unsettled(seq));
        if self.is_cancelled(seq) {
            self.never_delivered = self.never_delivered.saturating_sub(1);
        }
        self.finish(seq.0);
    }

    /// Schedules a retry at `due`. The delivery has a row now and does not hold back the cursor any more. A delivery
    /// that was cancelled while it was claimed is settled instead, and a suspended one stands aside.
    pub(super) fn schedule_retry(&mut self, seq: EventSeq, due: Time, is_uncertain: bool) {
        if self.is_cancelled(seq) {
            return self.finish(seq.0);
        }
        self.leases.remove(&seq.0);
        self.move_to_retries(seq.0);
        let Some(retry) = self.retries.get_mut(&seq.0) else { return };
        retry.attempts = retry.attempts.saturating_add(1);
        retry.is_called = false;
        retry.marks.is_uncertain |= is_uncertain;
        if retry.marks.is_suspended {
            self.stand_aside(seq.0);
        } else {
            retry.due = Some(due);
            self.retry_schedule.insert((due, seq.0));
        }
        self.advance();
    }

    /// Marks a delivery behind a retry of its target as parked: it has a row now, without attempts.
    pub(super) fn mark_parked(&mut self, seq: EventSeq) {
        self.move_to_retries(seq.0);
        self.advance();
    }

    /// Moves an unsettled delivery without a row from the window to `retries`.
    fn move_to_retries(&mut self, seq: i64) {
        if let Some(slot) = self.window.get_mut(&seq)
            && let Some(body) = slot.body.take()
        {
            self.window_bytes -= body.len();
            let Slot { group, emitted_at, compensates, .. } = *slot;
            let (attempts, marks) = (0, Marks::default());
            let retry = Retry {
                group,
                emitted_at,
                compensates,
                attempts,
                marks,
                due: None,
                is_called: false,
                cancelled: false,
                is_aside: false,
            };
            self.retries.insert(seq, retry);
            self.expiry.leave_window(seq);
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

    fn finish(&mut self, seq: i64) {
        // Settling a delivery twice must not make the next one of its target claimable twice.
        let Some(group) = self.group_of(seq).filter(|_| self.is_unsettled(EventSeq(seq))) else { return };
        self.undelivered = self.undelivered.saturating_sub(1);
        self.leases.remove(&seq);
        self.retries.remove(&seq);
        self.expiry.remove(seq);
        if let Some(slot) = self.window.get_mut(&seq) {
            self.window_bytes -= slot.body.take().map_or(0, |body| body.len());
        }
        self.leave_queue(group, seq);
        self.advance();
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
