//! One write batch: what its commands have changed and not committed yet.

use std::sync::Arc;

use super::dictionaries::Dictionaries;
use super::index::{Fingerprint, IndexOverlay};
use super::tally::Deltas;
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::EventSeq;
use crate::store::fast_map::{Map, Set};
use crate::store::lane::{Lane, NewDelivery, Outcome, PendingRetry};
use crate::store::undelivered_decreases::UndeliveredDecreases;

/// The next free ids.
#[derive(Clone, Copy)]
pub(super) struct NextIds {
    pub(super) target: i64,
    pub(super) record: i64,
    pub(super) event: i64,
}

/// The uncommitted changes of a batch.
pub(super) struct WriteBatch {
    pub(super) overlay: IndexOverlay,
    pub(super) controls: Option<Arc<Controls>>,
    pub(super) dictionaries: Option<Arc<Dictionaries>>,
    pub(super) tally: Deltas,
    pub(super) next: NextIds,
    pub(super) events: Vec<CommittedEvent>,
    pub(super) lanes: Map<Name, LaneChanges>,
    pub(super) routes: Vec<(Arc<[Name]>, i64)>,
    /// Undelivered decreases that this batch adds.
    pub(super) undelivered_decreases: UndeliveredDecreases<Fingerprint>,
    /// Events that this batch cancels.
    pub(super) cancelled: Set<i64>,
    /// A round of pruning has finished in this batch.
    pub(super) pruned_all: bool,
}

impl WriteBatch {
    pub(super) fn new(next: NextIds) -> Self {
        Self {
            overlay: IndexOverlay::default(),
            controls: None,
            dictionaries: None,
            tally: Deltas::default(),
            next,
            events: Vec::new(),
            lanes: Map::default(),
            routes: Vec::new(),
            undelivered_decreases: UndeliveredDecreases::default(),
            cancelled: Set::default(),
            pruned_all: false,
        }
    }
}

/// An event that is pushed to the lanes after the commit.
pub(super) struct CommittedEvent {
    pub(super) delivery: NewDelivery,
    pub(super) destinations: Arc<[Name]>,
}

/// The outcome of a delivery.
pub(super) struct SettledDelivery {
    pub(super) seq: EventSeq,
    pub(super) outcome: Outcome,
    /// When it is retried, for [`Outcome::Retry`].
    pub(super) due: Time,
}

/// The changes of one lane.
#[derive(Default)]
pub(super) struct LaneChanges {
    pub(super) settled: Set<i64>,
    /// Change of the number of dead letters.
    pub(super) dead_delta: i64,
    pub(super) enqueued: u64,
    /// Settled in the same commit that enqueues them, and the number of dead letters among them.
    pub(super) settled_on_insert: Set<i64>,
    pub(super) dead_on_insert: u64,
    pub(super) settlements: Vec<SettledDelivery>,
    /// Redriven dead letters, and the number of discarded ones.
    pub(super) redriven: Vec<PendingRetry>,
    pub(super) discarded: u64,
    /// Number of pruned rows of deliveries that never arrived.
    pub(super) pruned_rows: u64,
    /// Deliveries that get a row in this batch because an earlier one of their target waits for a retry.
    pub(super) blocked_by_retry: Vec<i64>,
    /// Deliveries that are not sent any more.
    pub(super) cancelled: Set<i64>,
}

impl LaneChanges {
    /// Whether the delivery has arrived, was withdrawn or is a dead letter, and was not redriven after that.
    pub(super) fn has_finished(&self, seq: i64) -> bool {
        self.settled.contains(&seq)
            && self.settlements.iter().any(|one| one.seq.0 == seq && one.outcome != Outcome::Retry)
            && !self.redriven.iter().any(|one| one.seq.0 == seq)
    }

    /// Whether the delivery has arrived.
    pub(super) fn has_arrived(&self, seq: i64) -> bool {
        let arrived = |one: &SettledDelivery| matches!(one.outcome, Outcome::Delivered | Outcome::Answered);
        self.settled.contains(&seq) && self.settlements.iter().any(|one| one.seq.0 == seq && arrived(one))
    }

    /// Applies the committed changes to the lane.
    pub(super) fn apply_to(&self, lane: &mut Lane) {
        lane.add_enqueued(self.enqueued, self.settled_on_insert.len() as u64, self.dead_on_insert);
        self.blocked_by_retry.iter().for_each(|&seq| lane.mark_parked(EventSeq(seq)));
        for &SettledDelivery { seq, outcome, due } in &self.settlements {
            match outcome {
                Outcome::Retry => lane.schedule_retry(seq, due),
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
