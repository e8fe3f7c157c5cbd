//! Targets that watch the controls, and those of them that have to be looked at since the controls
//! changed.

use std::collections::BTreeSet;

use crate::domain::time::Time;

/// What is committed.
#[derive(Debug, Default)]
pub(super) struct RecheckQueue {
    all: BTreeSet<i64>,
    pending: BTreeSet<i64>,
    /// When they were woken last.
    since: Option<Time>,
}

/// What a transaction does to them. A batch keeps these in their order, so that a target that was looked
/// at before the controls changed is woken, and one that began to watch after it is not.
#[derive(Debug, Clone, Copy)]
pub(super) enum RecheckChange {
    /// A target begins to watch.
    Add(i64),
    /// A target does not watch any more.
    Remove(i64),
    /// The controls have changed.
    ControlsChanged(Time),
    /// A target has been looked at.
    Rechecked(i64),
}

impl RecheckQueue {
    /// All that watch are woken when the store is opened: nobody knows what has changed meanwhile.
    pub(super) fn restore(all: BTreeSet<i64>, now: Time) -> Self {
        Self { pending: all.clone(), all, since: Some(now) }
    }

    /// Takes over what a transaction has done.
    pub(super) fn apply(&mut self, change: RecheckChange) {
        match change {
            RecheckChange::Add(target) => drop(self.all.insert(target)),
            RecheckChange::Remove(target) => {
                self.all.remove(&target);
                self.pending.remove(&target);
            }
            RecheckChange::ControlsChanged(now) => {
                self.pending.clone_from(&self.all);
                self.since = Some(now);
            }
            RecheckChange::Rechecked(target) => drop(self.pending.remove(&target)),
        }
    }

    /// The targets that were woken and not looked at since.
    pub(super) fn pending(&self) -> impl Iterator<Item = i64> {
        self.pending.iter().copied()
    }

    /// Since when one is woken, if one is.
    pub(super) fn since(&self) -> Option<Time> {
        self.since.filter(|_| !self.pending.is_empty())
    }
}
