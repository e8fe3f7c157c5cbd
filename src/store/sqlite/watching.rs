//! Targets that watch the controls, and those of them that have to be looked at since the controls
//! changed.

use std::collections::BTreeSet;

use crate::domain::time::Time;

/// What is committed.
#[derive(Debug, Default)]
pub struct Watching {
    all: BTreeSet<i64>,
    woken: BTreeSet<i64>,
    /// When they were woken last.
    since: Option<Time>,
}

/// What a transaction does to them. A batch keeps these in their order, so that a target that was looked
/// at before the controls changed is woken, and one that began to watch after it is not.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// A target begins to watch.
    Begins(i64),
    /// A target does not watch any more.
    Ends(i64),
    /// The controls have changed.
    Wake(Time),
    /// A target has been looked at.
    LookedAt(i64),
}

impl Watching {
    /// All that watch are woken when the store is opened: nobody knows what has changed meanwhile.
    pub fn restore(all: BTreeSet<i64>, now: Time) -> Self {
        Self { woken: all.clone(), all, since: Some(now) }
    }

    /// Takes over what a transaction has done.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Begins(target) => drop(self.all.insert(target)),
            Change::Ends(target) => {
                self.all.remove(&target);
                self.woken.remove(&target);
            }
            Change::Wake(now) => {
                self.woken.clone_from(&self.all);
                self.since = Some(now);
            }
            Change::LookedAt(target) => drop(self.woken.remove(&target)),
        }
    }

    /// The targets that were woken and not looked at since.
    pub fn woken(&self) -> impl Iterator<Item = i64> {
        self.woken.iter().copied()
    }

    /// Since when one is woken, if one is.
    pub fn since(&self) -> Option<Time> {
        self.since.filter(|_| !self.woken.is_empty())
    }
}
