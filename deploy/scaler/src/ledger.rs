//! The ledger: one item for each target, changed only if its version is the one that was read, and one item for each
//! applied event.
//!
//! A change is written down as pending before it is made. So a process that dies leaves either nothing, or a pending
//! change that the next event of the target finishes with the same token, before anything else is planned there.

#[cfg(test)]
pub(crate) mod conformance;
pub mod dynamodb;
pub mod open;
pub mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use scalebridge::domain::time::Time;
use serde::{Deserialize, Serialize};

use crate::capacity::Request;
use crate::event::ScalingEvent;

/// How long what was applied is kept after the `expirytime` of its event, so that no copy of it is applied again.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The same of an increase: an alert can be open for months, and the decrease after it takes back what is known.
const INCREASE_KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// A ledger.
pub trait Ledger: Send + Sync {
    /// What is known for an event: the item of its target, and the applied items of the event, of the target's pending
    /// change, and of the increases that these two take back. The read is consistent: it has all writes that ended before.
    /// The target is read before the applied items, or all at one moment: otherwise an event that another worker ends
    /// between the two would look like one that was never applied, beside a version that is up to date.
    fn read(&self, event: &ScalingEvent) -> impl Future<Output = Result<Entries, LedgerError>> + Send;

    /// Writes the item of a target if its version is still `version`; 0 if it did not exist.
    fn write_target(
        &self,
        subject: &str,
        version: u64,
        item: &TargetItem,
    ) -> impl Future<Output = Result<Written, LedgerError>> + Send;

    /// Replaces what is written for an event if it is still `old`. `Yes` also if it is `new` already.
    fn replace_applied(
        &self,
        subject: &str,
        old: &AppliedItem,
        new: &AppliedItem,
    ) -> impl Future<Output = Result<Written, LedgerError>> + Send;

    /// Writes what was applied for an event, unless it is written.
    fn write_applied(
        &self,
        subject: &str,
        item: &AppliedItem,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// The directions that are stopped.
    fn read_freeze(&self) -> impl Future<Output = Result<Freeze, LedgerError>> + Send;

    /// Replaces the directions that are stopped if their version is still `version`; 0 if they were never written.
    fn write_freeze(
        &self,
        version: u64,
        freeze: &Freeze,
    ) -> impl Future<Output = Result<Written, LedgerError>> + Send;
}

/// Whether an item was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Yes,
    /// Another worker, or operator, has changed it.
    Changed,
}

/// The ledger cannot be read or written. It is not known whether a write was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LedgerError(pub String);

/// What is known about a target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TargetItem {
    /// Rises with each change; a change is written only if it is still the one that was read. 0: not written yet.
    pub version: u64,
    /// The highest `sequence` of the events that were applied.
    pub sequence: u64,
    /// The floor before it was first raised; `None` if it is not raised.
    pub baseline: Option<u32>,
    pub pending: Option<Pending>,
}

/// A change that is about to be made, or was made without its end being written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// Of the event.
    pub id: String,
    /// Of the call: the same change has the same one.
    pub token: String,
    /// Whether the call may have been made.
    pub called: bool,
    /// The increases that it takes back, each once.
    pub reverts: Vec<String>,
    pub sequence: u64,
    pub expirytime: Time,
    /// Whether `from` and `to` are of the floor, and not of the size.
    pub is_floor: bool,
    pub from: u32,
    pub to: u32,
    /// Why the change is smaller than what was asked for; empty if it is not.
    pub cut_by: String,
    /// What else people should know about it; empty if nothing.
    pub note: String,
    /// To plan it anew, if the capacity turns out to be another one.
    pub request: Request,
    /// The worker that makes it; 0: none. Others wait for it, but not for ever.
    pub worker: u64,
    pub held_since: Time,
}

/// What became of an event. Kept until [`AppliedItem::kept_until`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedItem {
    pub id: String,
    /// The target, as the ledger names it.
    pub subject: String,
    pub from: u32,
    pub to: u32,
    pub expirytime: Time,
    /// What decreases have taken back of it, by their ids.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub taken_back: BTreeMap<String, u32>,
    /// The decrease that has taken it back before it arrived: it is not applied any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back_before: Option<String>,
}

impl AppliedItem {
    pub fn new(id: &str, subject: &str, (from, to): (u32, u32), expirytime: Time) -> Self {
        let (id, subject) = (id.to_owned(), subject.to_owned());
        Self { id, subject, from, to, expirytime, taken_back: BTreeMap::new(), taken_back_before: None }
    }

    /// What the event has added; 0 for a decrease.
    pub fn added(&self) -> u32 {
        self.to.saturating_sub(self.from)
    }

    /// What the decrease `by` can take back.
    pub fn left_for(&self, by: &str) -> u32 {
        let others = self.taken_back.iter().filter(|(id, _)| *id != by);
        self.added().saturating_sub(others.fold(0, |sum, (_, units)| sum.saturating_add(*units)))
    }

    /// A week after `expirytime`; more than a year for what an increase has added.
    pub fn kept_until(&self) -> Time {
        let kept = if self.added() > 0 { INCREASE_KEPT_AFTER_EXPIRY } else { KEPT_AFTER_EXPIRY };
        self.expirytime.after(kept)
    }
}

/// What was read of the ledger for one event.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Entries {
    pub target: TargetItem,
    /// Of the event, of the pending change, and of the increases that these two take back; by id.
    pub applied: BTreeMap<String, AppliedItem>,
    pub freeze: Freeze,
}

impl Entries {
    /// What was really added to the target for the increases that an event takes back, and was not taken back by others.
    /// One that is not known has added nothing.
    pub fn left_for(&self, event: &ScalingEvent) -> u32 {
        let ids: BTreeSet<&String> = event.reverts.iter().collect();
        let known = ids.into_iter().filter_map(|id| self.applied.get(id));
        let known = known.filter(|item| item.subject == event.subject);
        known.fold(0, |sum, item| sum.saturating_add(item.left_for(&event.id)))
    }
}

/// The directions that an operator has stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Freeze {
    /// Rises with each change, so that of two operators none undoes what the other does at the same moment.
    pub version: u64,
    pub increases: Option<Frozen>,
    pub decreases: Option<Frozen>,
}

/// Who has stopped a direction and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    pub by: String,
    pub reason: String,
    pub since: Time,
}

impl TargetItem {
    /// The item after `pending` was begun.
    pub fn begin(&self, pending: Pending) -> Self {
        Self { version: self.version + 1, pending: Some(pending), ..self.clone() }
    }

    /// The item after an event was applied with this change of the lever.
    pub fn end(&self, sequence: u64, is_floor: bool, (from, to): (u32, u32)) -> Self {
        let baseline = match (is_floor, self.baseline) {
            (true, None) if to > from => Some(from),
            (true, Some(baseline)) if to > from => Some(baseline.min(from)),
            (true, Some(baseline)) if to <= baseline => None,
            (_, baseline) => baseline,
        };
        Self { version: self.version + 1, sequence: self.sequence.max(sequence), baseline, pending: None }
    }

    /// The item after a pending change was given up.
    pub fn give_up(&self) -> Self {
        Self { version: self.version + 1, pending: None, ..self.clone() }
    }
}
