//! The undelivered decreases of all targets, read when the store is opened and kept up to date with each
//! commit.

use std::collections::BTreeSet;

use super::index::Fingerprint;
use super::lane_changes::LaneChanges;
use crate::domain::name::Name;
use crate::store::fast_map::{Map, Set};
use crate::store::undelivered_decreases::UndeliveredDecreases;

/// The undelivered decreases of the last commit. Targets are identified by the hash of their key, because a
/// target whose state was deleted gets another id when it returns.
#[derive(Debug, Default)]
pub(crate) struct DecreaseTracker {
    pub undelivered: UndeliveredDecreases<Fingerprint>,
    /// Destinations whose lanes withhold deliveries until the batch is over.
    pub withholding: BTreeSet<Name>,
}

impl DecreaseTracker {
    /// Applies a committed batch.
    pub(crate) fn merge(
        &mut self,
        added: UndeliveredDecreases<Fingerprint>,
        lanes: &Map<Name, LaneChanges>,
        cancelled: &Set<i64>,
    ) {
        let none = self.undelivered.is_empty();
        for (name, lane_changes) in lanes.iter().filter(|_| !none) {
            lane_changes.finished().for_each(|seq| self.undelivered.mark_settled(seq, name));
        }
        // Added last: a dead letter that is redriven in the same batch is in both.
        self.undelivered.merge(added);
        cancelled.iter().for_each(|seq| self.undelivered.remove(*seq));
    }
}
