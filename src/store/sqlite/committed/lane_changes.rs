//! The uncommitted changes of one lane.

use crate::domain::time::Time;
use crate::store::EventSeq;
use crate::store::fast_map::Set;
use crate::store::lane::{Lane, Outcome, PendingRetry};

/// The outcome of a delivery.
pub(crate) struct SettledDelivery {
    pub(crate) seq: EventSeq,
    pub(crate) outcome: Outcome,
    /// When it is retried, for [`Outcome::Retry`] and [`Outcome::NotCalled`].
    pub(crate) due: Time,
}

/// The changes of one lane.
#[derive(Default)]
pub(crate) struct LaneChanges {
    pub(crate) settled: Set<i64>,
    /// Change of the number of dead letters.
    pub(crate) dead_delta: i64,
    pub(crate) enqueued: u64,
    /// Settled in the same commit that enqueues them, and the number of dead letters among them.
    pub(crate) settled_on_insert: Set<i64>,
    pub(crate) dead_on_insert: u64,
    pub(crate) settlements: Vec<SettledDelivery>,
    /// Redriven dead letters, and the number of discarded ones.
    pub(crate) redriven: Vec<PendingRetry>,
    pub(crate) discarded: u64,
    /// Number of pruned rows of deliveries that never arrived.
    pub(crate) pruned_rows: u64,
    /// Deliveries that get a row in this batch because an earlier one of their target waits for a retry.
    pub(crate) blocked_by_retry: Vec<i64>,
    /// Deliveries that are not sent any more.
    pub(crate) cancelled: Set<i64>,
    /// Deliveries that an earlier command of the batch has cancelled, and that became dead letters after all.
    pub(crate) uncancelled: Set<i64>,
}

impl LaneChanges {
    /// Whether the delivery has arrived, was withdrawn or is a dead letter.
    pub(crate) fn has_finished(&self, seq: i64) -> bool {
        self.settled.contains(&seq)
            && self.settlements.iter().any(|one| one.seq.0 == seq && one.outcome.is_final())
    }

    /// Whether the delivery has arrived.
    pub(crate) fn has_arrived(&self, seq: i64) -> bool {
        let arrived = |one: &SettledDelivery| matches!(one.outcome, Outcome::Delivered | Outcome::Answered);
        self.settled.contains(&seq) && self.settlements.iter().any(|one| one.seq.0 == seq && arrived(one))
    }

    /// Records the outcome of a delivery.
    pub(crate) fn settle(&mut self, delivery: SettledDelivery) {
        let seq = delivery.seq.0;
        if delivery.outcome == Outcome::Dead {
            // The row of a dead letter takes precedence over a cancellation.
            self.cancelled.remove(&seq);
            self.uncancelled.insert(seq);
            self.dead_delta += 1;
        }
        self.settled.insert(seq);
        self.settlements.push(delivery);
    }

    /// Adds the changes of a later command.
    pub(crate) fn absorb(&mut self, later: Self) {
        self.settled.extend(later.settled);
        self.dead_delta += later.dead_delta;
        self.enqueued += later.enqueued;
        self.settled_on_insert.extend(later.settled_on_insert);
        self.dead_on_insert += later.dead_on_insert;
        self.settlements.extend(later.settlements);
        self.redriven.extend(later.redriven);
        self.discarded += later.discarded;
        self.pruned_rows += later.pruned_rows;
        self.blocked_by_retry.extend(later.blocked_by_retry);
        self.cancelled.retain(|seq| !later.uncancelled.contains(seq));
        self.cancelled.extend(later.cancelled);
    }

    /// Applies the committed changes to the lane.
    pub(crate) fn apply_to(&self, lane: &mut Lane) {
        lane.add_enqueued(self.enqueued, self.settled_on_insert.len() as u64, self.dead_on_insert);
        self.blocked_by_retry.iter().for_each(|&seq| lane.mark_parked(EventSeq(seq)));
        for &SettledDelivery { seq, outcome, due } in &self.settlements {
            match outcome {
                Outcome::Retry => lane.schedule_retry(seq, due),
                Outcome::NotCalled { stands_aside } => lane.postpone(seq, due, stands_aside),
                Outcome::Dead => lane.mark_dead(seq),
                Outcome::Delivered | Outcome::Answered | Outcome::Withdrawn => lane.mark_delivered(seq),
            }
        }
        self.redriven.iter().for_each(|&retry| lane.redrive(retry));
        lane.mark_discarded(self.discarded);
        self.cancelled.iter().for_each(|&seq| lane.cancel(EventSeq(seq)));
        lane.forget_never_delivered(self.pruned_rows);
    }
}
