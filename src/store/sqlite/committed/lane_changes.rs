//! The uncommitted changes of one lane.

use crate::domain::time::{ClockReading, Time};
use crate::store::EventSeq;
use crate::store::fast_map::{Map, Set};
use crate::store::lane::{Lane, Outcome, PendingRetry};
use crate::store::sqlite::codec::receipts::Receipt;

/// A change of a delivery. Its row, if it has one, is written already.
pub(crate) enum LaneChange {
    /// A claimed delivery was settled. The time is that of the outcome, or when the delivery is due again.
    Settle(EventSeq, Outcome, Time),
    /// A dead letter is delivered again.
    Redrive(PendingRetry),
    Cancel(EventSeq),
    Suspend(PendingRetry),
    /// From this time on.
    Resume(EventSeq, Time),
    /// The age counts from this time, that of the emission.
    EndRenewal(EventSeq, Time),
    /// A call is about to begin.
    Called(EventSeq),
}

/// What the last change of a delivery has made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Arrived(Time),
    /// A dead letter, or withdrawn.
    NotDelivered,
    Cancelled,
    Suspended,
    Unsettled,
}

/// The changes of one lane.
#[derive(Default)]
pub(crate) struct LaneChanges {
    /// Deliveries with a settlement.
    pub(crate) settled: Set<i64>,
    /// Change of the number of dead letters.
    pub(crate) dead_delta: i64,
    pub(crate) enqueued: u64,
    /// Settled in the same commit that enqueues them, and the number of dead letters among them.
    pub(crate) settled_on_insert: Set<i64>,
    pub(crate) dead_on_insert: u64,
    /// The last call that has succeeded.
    pub(crate) last_success: Option<ClockReading>,
    changes: Vec<LaneChange>,
    /// The number of changes about which nothing is written.
    pub(crate) unwritten: usize,
    effects: Map<i64, Effect>,
    /// Of the deliveries that have arrived.
    pub(crate) receipts: Vec<Receipt>,
    /// The number of dead letters that were discarded or replaced.
    pub(crate) discarded: u64,
    /// Number of pruned rows of deliveries that never arrived.
    pub(crate) pruned_rows: u64,
    /// Deliveries that get a row in this batch because an earlier one of their target waits for a retry.
    pub(crate) blocked_by_retry: Vec<i64>,
}

impl LaneChange {
    fn effect(&self) -> (EventSeq, Effect) {
        match *self {
            Self::Settle(seq, Outcome::Delivered, at) => (seq, Effect::Arrived(at)),
            Self::Settle(seq, outcome, _) if outcome.is_final() => (seq, Effect::NotDelivered),
            Self::Settle(seq, ..) | Self::Resume(seq, _) | Self::EndRenewal(seq, _) | Self::Called(seq) => {
                (seq, Effect::Unsettled)
            }
            Self::Redrive(PendingRetry { seq, .. }) => (seq, Effect::Unsettled),
            Self::Cancel(seq) => (seq, Effect::Cancelled),
            Self::Suspend(PendingRetry { seq, .. }) => (seq, Effect::Suspended),
        }
    }
}

impl LaneChanges {
    /// What the last change of a delivery has made of it; `None` if there is none.
    pub(crate) fn effect(&self, seq: i64) -> Option<Effect> {
        self.effects.get(&seq).copied()
    }

    pub(crate) fn push(&mut self, change: LaneChange) {
        let (seq, effect) = change.effect();
        if let LaneChange::Settle(..) = change {
            self.settled.insert(seq.0);
        }
        if let LaneChange::Settle(_, Outcome::Dead { .. }, _) = change {
            self.dead_delta += 1;
        }
        self.effects.insert(seq.0, effect);
        self.changes.push(change);
    }

    /// Whether nothing is written about the lane.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.unwritten > 0
            && self.unwritten == self.changes.len()
            && self.enqueued == 0
            && self.dead_delta == 0
            && self.receipts.is_empty()
            && self.discarded == 0
    }

    /// The deliveries that are settled now or have a row: they do not hold back the cursor.
    pub(crate) fn passed(&self) -> Set<i64> {
        self.effects.keys().chain(&self.blocked_by_retry).copied().collect()
    }

    /// Adds the changes of a later command.
    pub(crate) fn absorb(&mut self, later: Self) {
        self.last_success = ClockReading::later(self.last_success, later.last_success);
        self.settled.extend(later.settled);
        self.dead_delta += later.dead_delta;
        self.enqueued += later.enqueued;
        self.settled_on_insert.extend(later.settled_on_insert);
        self.dead_on_insert += later.dead_on_insert;
        self.changes.extend(later.changes);
        self.unwritten += later.unwritten;
        self.effects.extend(later.effects);
        self.receipts.extend(later.receipts);
        self.discarded += later.discarded;
        self.pruned_rows += later.pruned_rows;
        self.blocked_by_retry.extend(later.blocked_by_retry);
    }

    /// Applies the committed changes to the lane.
    pub(crate) fn apply_to(&self, lane: &mut Lane) {
        lane.add_enqueued(self.enqueued, self.settled_on_insert.len() as u64, self.dead_on_insert);
        self.blocked_by_retry.iter().for_each(|&seq| lane.mark_parked(EventSeq(seq)));
        for change in &self.changes {
            match *change {
                LaneChange::Settle(seq, outcome, at) => match outcome {
                    Outcome::Retry { is_uncertain } => lane.schedule_retry(seq, at, is_uncertain),
                    Outcome::NotCalled { stands_aside } => lane.postpone(seq, at, stands_aside),
                    Outcome::Dead { .. } => lane.mark_dead(seq),
                    Outcome::Delivered => lane.mark_arrived(seq, at),
                    Outcome::Withdrawn => lane.mark_withdrawn(seq),
                },
                LaneChange::Redrive(pending) => lane.redrive(pending),
                LaneChange::Cancel(seq) => lane.cancel(seq),
                LaneChange::Suspend(pending) => lane.suspend(pending),
                LaneChange::Resume(seq, now) => lane.resume(seq, now),
                LaneChange::EndRenewal(seq, emitted_at) => lane.end_renewal(seq, emitted_at),
                LaneChange::Called(seq) => lane.mark_called(seq),
            }
        }
        lane.mark_discarded(self.discarded);
        lane.forget_never_delivered(self.pruned_rows);
    }
}
