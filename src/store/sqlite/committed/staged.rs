//! What the commands of a batch have changed and not committed yet.
//!
//! Each command stages its changes apart: if it fails, only they are dropped, as its savepoint is rolled back in the
//! file. The changes of the commands before it stay.

use std::sync::Arc;

use super::controls::CommittedView;
use super::index::{IndexOverlay, Layers};
use super::lane_changes::{Effect, LaneChanges};
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::store::fast_map::Map;
use crate::store::lane::NewDelivery;
use crate::store::sqlite::tally::Deltas;

/// The next free ids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NextIds {
    pub target: i64,
    pub record: i64,
    pub event: i64,
    pub notification: NextNotification,
    /// The wall clock of the newest record, in nanoseconds.
    pub newest_stamp: Option<i64>,
}

/// Where the next kept notification is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NextNotification {
    /// The first free position: later than all that were used.
    pub position: i64,
    /// The number of bytes of all bodies before it.
    pub start: i64,
}

/// An event that is pushed to the lanes after the commit.
pub(crate) struct CommittedEvent {
    pub delivery: NewDelivery,
    pub destinations: Arc<[Name]>,
}

/// Uncommitted changes.
#[derive(Default)]
pub(crate) struct StagedChanges {
    pub index: IndexOverlay,
    pub controls: Option<Arc<Controls>>,
    pub tally: Deltas,
    /// The counts of all states, counted anew.
    pub recounted: Option<Deltas>,
    pub events: Vec<CommittedEvent>,
    pub lanes: Map<Name, LaneChanges>,
    pub routes: Vec<(Arc<[Name]>, i64)>,
    /// Rows of targets in quarantine that are deleted.
    pub dropped: Vec<i64>,
    /// A round of pruning has finished.
    pub pruned_all: bool,
    is_used: bool,
}

impl StagedChanges {
    fn absorb(&mut self, later: Self) {
        if !std::mem::replace(&mut self.is_used, true) {
            *self = Self { is_used: true, ..later };
            return;
        }
        self.index.absorb(later.index);
        self.controls = later.controls.or(self.controls.take());
        if later.recounted.is_some() {
            // Counted with the changes before it.
            self.recounted = later.recounted;
            self.tally = later.tally;
        } else {
            self.tally.absorb(later.tally);
        }
        self.events.extend(later.events);
        for (name, changes) in later.lanes {
            self.lanes.entry(name).or_default().absorb(changes);
        }
        self.routes.extend(later.routes);
        self.dropped.extend(later.dropped);
        self.pruned_all |= later.pruned_all;
    }
}

/// The changes of a batch: those of the commands that have succeeded, and those of the command that is running.
pub(crate) struct WriteBatch {
    /// Of the commands that have succeeded.
    released: StagedChanges,
    /// Of the command that is running.
    pub current: StagedChanges,
    /// Ids that the running command has not taken.
    pub next: NextIds,
    /// `next` when the running command began.
    next_before: NextIds,
}

impl WriteBatch {
    pub(crate) fn new(next: NextIds) -> Self {
        Self {
            released: StagedChanges::default(),
            current: StagedChanges::default(),
            next,
            next_before: next,
        }
    }

    /// Keeps the changes of the command that has run.
    pub(crate) fn release(&mut self) {
        self.released.absorb(std::mem::take(&mut self.current));
        self.next_before = self.next;
    }

    /// Drops the changes of the command that has failed.
    pub(crate) fn roll_back(&mut self) {
        self.current = StagedChanges::default();
        self.next = self.next_before;
    }

    /// The changes of all commands that have succeeded, and the ids that are free after them.
    pub(crate) fn into_parts(self) -> (StagedChanges, NextIds) {
        (self.released, self.next_before)
    }

    /// The same, to be completed before the commit.
    pub(crate) fn released_mut(&mut self) -> &mut StagedChanges {
        &mut self.released
    }

    pub(crate) fn layers(&self) -> Layers<'_> {
        Layers::two(&self.current.index, &self.released.index)
    }

    /// The index changes of the running command, to be written, and those before it.
    pub(crate) fn index_mut(&mut self) -> (&mut IndexOverlay, &IndexOverlay) {
        (&mut self.current.index, &self.released.index)
    }

    pub(crate) fn controls(&self, committed: &CommittedView) -> Arc<Controls> {
        let staged = self.current.controls.as_ref().or(self.released.controls.as_ref());
        staged.cloned().unwrap_or_else(|| committed.controls())
    }

    /// The changes of the destination's lane by the running command, to be changed.
    pub(crate) fn lane_mut(&mut self, destination: &Name) -> &mut LaneChanges {
        self.current.lanes.entry(destination.clone()).or_default()
    }

    /// The changes of the destination's lane, by the commands before the running one and by itself.
    pub(crate) fn lane(&self, destination: &Name) -> impl Iterator<Item = &LaneChanges> {
        [&self.released, &self.current].into_iter().filter_map(|staged| staged.lanes.get(destination))
    }

    /// What the last change of a delivery has made of it; `None` if this batch does not change it.
    pub(crate) fn effect(&self, destination: &Name, seq: i64) -> Option<Effect> {
        let staged = [&self.current, &self.released].into_iter();
        staged.filter_map(|staged| staged.lanes.get(destination)).find_map(|lane| lane.effect(seq))
    }

    /// New routes with their ids.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &(Arc<[Name]>, i64)> {
        self.released.routes.iter().chain(&self.current.routes)
    }
}
