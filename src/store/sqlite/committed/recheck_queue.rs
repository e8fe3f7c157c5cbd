//! Targets that are processed for another reason than a time: those with deferred actions that depend on pauses, holds
//! or heartbeats, when the generation of the controls rises; and those that wait for a change of a delivery.

use std::collections::BTreeSet;

use crate::domain::time::Time;

/// The queue as of the last commit.
#[derive(Debug, Default)]
pub(crate) struct RecheckQueue {
    /// Targets that depend on the controls.
    all: BTreeSet<i64>,
    /// Those of them that were not rechecked since the generation rose last.
    pending: BTreeSet<i64>,
    /// When the generation rose last.
    since: Option<Time>,
    /// Targets for which a delivery has changed since they were rechecked.
    changed: BTreeSet<i64>,
    /// When the last one was added.
    changed_at: Option<Time>,
}

/// A change of the queue. A batch applies its changes in order: a target that was rechecked before the
/// generation rose becomes pending, a target that was added after that does not.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RecheckChange {
    /// A target has an action that depends on the controls.
    Add(i64),
    /// A target depends on the controls no longer.
    Remove(i64),
    /// The generation of the controls has risen; all targets become pending.
    ControlsChanged(Time),
    /// A delivery that the target waits for has changed.
    DeliveryChanged(i64, Time),
    /// A target has been rechecked.
    Rechecked(i64),
    /// A target has no state any more, or one that cannot be read.
    Forget(i64),
}

impl RecheckQueue {
    /// All targets that depend on the controls are pending when the store is opened, because changes while the store
    /// was closed are unknown.
    pub(crate) fn restore(&mut self, all: BTreeSet<i64>, now: Time) {
        self.pending.clone_from(&all);
        (self.all, self.since) = (all, Some(now));
    }

    /// Applies a committed change.
    pub(crate) fn apply(&mut self, change: RecheckChange) {
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
            RecheckChange::DeliveryChanged(target, now) => {
                self.changed.insert(target);
                self.changed_at = Some(now);
            }
            RecheckChange::Rechecked(target) => {
                self.pending.remove(&target);
                self.changed.remove(&target);
            }
            RecheckChange::Forget(target) => {
                self.apply(RecheckChange::Remove(target));
                self.changed.remove(&target);
            }
        }
    }

    /// The targets that have to be rechecked.
    pub(crate) fn pending(&self) -> impl Iterator<Item = i64> {
        self.pending.union(&self.changed).copied()
    }

    /// Whether a delivery has changed for the target.
    pub(crate) fn has_changed_delivery(&self, target: i64) -> bool {
        self.changed.contains(&target)
    }

    /// The time since which targets are pending; `None` if no target is.
    pub(crate) fn since(&self) -> Option<Time> {
        let since = self.since.filter(|_| !self.pending.is_empty());
        since.into_iter().chain(self.changed_at.filter(|_| !self.changed.is_empty())).min()
    }
}
