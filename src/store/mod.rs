//! Durable state: states of targets, decisions, and events with their deliveries.
//!
//! [`Store::transact`] passes the states of the given targets to a pure function and commits its result
//! atomically. Transactions about one target are serial. When a call returns `Ok`, its changes are on disk.
//!
//! Deliveries: each event has a list of destinations. For each destination the store has a *cursor*, up to which
//! every delivery is settled or has a row, and rows only for exceptions: retries, dead letters, deliveries that
//! were cancelled, withdrawn or discarded, and stored answers. [`Store::claim`] returns the deliveries that can
//! be sent now, and never two events of the same target at once, so a destination receives the events of a target
//! in order.
//!
//! Compensation: an `on_resolved` event goes only to destinations at which an `on_firing` event of its episode
//! arrived. The lane's order makes it wait for them. With the state of each target, the store has the list of the
//! `on_firing` events of its open episodes and their routes: a route says to which destinations an event was sent,
//! and rows say where it was never delivered. The list moves to the compensating event, and rows of deliveries that
//! never arrived outlive their events as long as a compensation can refer to them. So a successful delivery writes
//! nothing, a destination without such rows costs no reads, and events that were pruned count as delivered. See
//! [`Claimed::nothing_to_compensate`].
//!
//! An event that can decrease capacity is an *undelivered decrease* as long as a destination has not settled it.
//! Transactions about its target see it, and an event that increases capacity cancels it.

mod audit;
mod clock;
mod dead_letters;
mod fast_map;
mod lane;
mod lanes;
mod memory;
mod query;
mod sqlite;
#[cfg(test)]
mod tests;
mod undelivered_decreases;
mod withdrawn;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::alert_key::AlertKey;
use crate::domain::control::Controls;
use crate::domain::engine::{States, UndeliveredDecrease};
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

pub(crate) use audit::{AuditEntry, AuditPage, AuditQuery, AuditWrite, StoredAuditEntry};
pub(crate) use dead_letters::{DeadLetter, DeadLetterError, DeliveryId, Redrive};
pub use lane::MAX_WINDOW_BYTES;
use lanes::LaneHandle;
pub use memory::Memory;
pub(crate) use query::{
    Delivery, DeliveryState, RecordQuery, Records, StoredEvent, StoredRecord, StoredState,
};
pub use sqlite::Sqlite;

/// Reads the wall clock. An argument, so that the store reads no clock of its own.
pub(crate) type WallClock = Arc<dyn Fn() -> Time + Send + Sync>;

/// The function that decides a transaction. It is pure and can run more than once.
pub(crate) type DecideFn = Box<dyn FnMut(&View) -> Changes + Send>;

/// A store. Cheap to clone.
#[derive(Clone)]
pub enum Store {
    /// A local SQLite file.
    Sqlite(Sqlite),
    /// In memory: for `test`, `explain` and `replay`, and the reference model of the property tests.
    Memory(Memory),
}

/// What a transaction reads.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Targets whose states are read.
    pub targets: Vec<TargetKey>,
    /// Alerts: the states of targets that know one of them are read too.
    pub alerts: Vec<AlertKey>,
}

/// The input of a transaction.
#[derive(Debug)]
pub struct View {
    /// The store's time, which never goes back.
    pub now: Time,
    /// When this store was created.
    pub created: Time,
    /// The states of the targets in [`Keys`]; new targets have none.
    pub states: States,
    /// Pauses, holds and heartbeats.
    pub controls: Arc<Controls>,
    /// For each of the targets, the events that can decrease its capacity and that some destination has not
    /// settled. Workers cannot claim them until the transaction is over.
    pub undelivered_decreases: BTreeMap<TargetKey, Vec<UndeliveredDecrease>>,
}

/// The changes of a transaction, committed atomically.
#[derive(Debug, Default)]
pub struct Changes {
    /// New states. An empty state is deleted.
    pub states: Vec<(TargetKey, TargetState)>,
    /// New controls. If [`Controls::generation`] has increased, every target whose state
    /// [depends on controls](TargetState::depends_on_controls) is due at once.
    pub controls: Option<Arc<Controls>>,
    /// Targets whose deferred actions were re-evaluated: they leave the recheck queue.
    pub rechecked: Vec<TargetKey>,
    /// The decision record.
    pub record: Option<Record>,
    /// The emitted events.
    pub events: Vec<NewEvent>,
    /// The audit entry, if an operator's act makes these changes.
    pub audit: Option<AuditEntry>,
}

/// A decision record to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The targets of its decisions, without duplicates.
    pub targets: Vec<TargetKey>,
    /// JSON.
    pub body: String,
}

/// An event to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The target; its events are delivered in order.
    pub target: TargetKey,
    /// The destinations; not empty.
    pub destinations: Arc<[Name]>,
    /// Whether the event increases capacity. Such an event cancels the `View::undelivered_decreases` of its
    /// target at all destinations that have not settled them; claimed ones are not retried.
    pub increases_capacity: bool,
    /// Whether the event can decrease capacity.
    pub may_decrease_capacity: bool,
    /// The end of an episode that the event is about, so that `on_resolved` can compensate `on_firing`.
    pub episode_phase: Option<EpisodePhase>,
    /// The event, encoded once.
    pub body: EncodedEvent,
}

/// The firing or resolved end of an episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpisodePhase {
    /// `Firing` or `Resolved`.
    pub phase: Phase,
    /// The episode's id.
    pub episode: Arc<str>,
}

/// The number of an event in the store, ascending in commit order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventSeq(pub i64);

/// A claimed delivery.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The event's number.
    pub seq: EventSeq,
    /// The event as it is sent: as it was encoded, or with the `expirytime` that its redrive has set.
    pub body: EncodedEvent,
    /// When the event was emitted, or redriven if it was a dead letter.
    pub emitted_at: Time,
    /// Failed attempts so far.
    pub attempts: u32,
    /// The error of the last attempt.
    pub last_error: Option<Arc<str>>,
    /// Whether the event would compensate events that never arrived at this destination: it must be withdrawn
    /// instead of sent.
    pub nothing_to_compensate: bool,
}

/// The outcome of a claimed delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The destination accepted the event.
    Delivered,
    /// The destination accepted the event and answered; the answer is stored with the delivery.
    Answered {
        /// At most a few KiB of text.
        answer: String,
    },
    /// Not sent, since the events that it would compensate never arrived, or since an increase superseded it.
    /// Not a dead letter.
    Withdrawn {
        /// For the decision record.
        reason: String,
    },
    /// To be retried after `delay`, unless it was cancelled while it was claimed.
    Retry {
        /// The backoff.
        delay: Duration,
        /// The error of the attempt.
        error: String,
    },
    /// Given up and stored as a dead letter.
    Dead {
        /// Why it was given up.
        error: String,
    },
}

/// The deliveries of a destination, counted by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Without a failed attempt, claimed or not.
    pub pending: u64,
    /// With a failed attempt, claimed or not.
    pub retrying: u64,
    /// Dead letters.
    pub dead: u64,
}

/// Counts of open episodes and deferred actions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Open episodes by rule.
    pub open_episodes: BTreeMap<Name, u64>,
    /// Deferred actions by blocking verdict.
    pub deferred: BTreeMap<Verdict, u64>,
}

/// An error of the store. Nothing of the call was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Possibly transient: disk full, locked, read-only, an IO error.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// Needs an operator.
    #[error("{0}")]
    Unusable(String),
    /// Some rows cannot be read; everything that does not need them goes on.
    #[error("{0}")]
    Unreadable(UnreadableStates),
    /// The store was closed, or its thread has ended.
    #[error("the store is closed")]
    Closed,
}

/// The keys of a transaction that refer to states which cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnreadableStates {
    /// Targets.
    pub targets: BTreeSet<TargetKey>,
    /// Alerts that are known at such a target.
    pub alerts: BTreeSet<AlertKey>,
}

impl UnreadableStates {
    /// Adds others.
    pub fn extend(&mut self, others: Self) {
        self.targets.extend(others.targets);
        self.alerts.extend(others.alerts);
    }
}

impl fmt::Display for UnreadableStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.targets.first() {
            Some(first) => write!(f, "the state of target {first} cannot be read")?,
            None => write!(f, "the state of a target of these alerts cannot be read")?,
        }
        write!(f, "; `scalebridge status` lists such targets, `scalebridge store drop` gives one up")
    }
}

/// A row of the store that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRow {
    /// The target's id in the store.
    pub id: i64,
    /// The target; `None` if its key cannot be read either.
    pub target: Option<TargetKey>,
    /// When it was found.
    pub since: Time,
    /// Why it cannot be read.
    pub error: String,
}

/// Why a row was not dropped.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DropError {
    /// The store could not read or write.
    #[error(transparent)]
    Store(#[from] Error),
    /// The row can be read, or does not exist.
    #[error("the store has no such unreadable row")]
    NotUnreadable,
}

macro_rules! delegate {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            Store::Sqlite($inner) => $call,
            Store::Memory($inner) => $call,
        }
    };
}

impl Store {
    /// Runs `decide` on the states of the given targets and of those that know a given alert, and commits its
    /// changes. When this returns `Ok`, they are on disk. `decide` can run more than once.
    ///
    /// # Errors
    /// The store could not read or write; nothing was written.
    pub async fn transact<R: Send + 'static>(
        &self,
        keys: Keys,
        mut decide: impl FnMut(&View) -> (Changes, R) + Send + 'static,
    ) -> Result<R, Error> {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        let decide: DecideFn = Box::new(move |view| {
            let (changes, result) = decide(view);
            *slot.lock() = Some(result);
            changes
        });
        delegate!(self, store => store.transact(keys, decide).await)?;
        let decided = result.lock().take();
        decided.ok_or(Error::Closed)
    }

    /// The targets at which alerts are known. Only a hint: it can be outdated when it is returned.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn locate(&self, alerts: Vec<AlertKey>) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error> {
        let keys = Keys { alerts, targets: Vec::new() };
        delegate!(self, store => store.locate(keys).await)
    }

    /// Up to `max` targets that have to be processed: they are due by time, or in the recheck queue.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        delegate!(self, store => store.due(max).await)
    }

    /// The time at which the next target is due; the receiver is notified when it changes.
    pub fn next_due(&self) -> watch::Receiver<Option<Time>> {
        delegate!(self, store => store.next_due())
    }

    /// The store's time.
    pub fn now(&self) -> Time {
        delegate!(self, store => store.now())
    }

    /// The controls as of the last commit.
    pub fn controls(&self) -> Arc<Controls> {
        delegate!(self, store => store.controls())
    }

    /// Counts of open episodes and deferred actions as of the last commit.
    pub fn tally(&self) -> Tally {
        delegate!(self, store => store.tally())
    }

    fn lane_handle(&self, destination: &Name) -> Result<Arc<LaneHandle>, Error> {
        let lanes = delegate!(self, store => store.lanes());
        let unknown = || Error::Unusable(format!("unknown destination `{destination}`"));
        lanes.get(destination).ok_or_else(unknown)
    }

    /// Claims up to `max` deliveries that can be sent now: at most one per target, and none of a target whose
    /// undelivered decreases a transaction currently sees. They stay claimed until they are settled.
    ///
    /// # Errors
    /// If the store cannot be read; nothing stays claimed then.
    pub async fn claim(&self, destination: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        let handle = self.lane_handle(destination)?;
        delegate!(self, store => store.claim(&handle, max).await)
    }

    /// Whether a claimed delivery was cancelled meanwhile, so that it need not be sent.
    pub fn is_cancelled(&self, destination: &Name, seq: EventSeq) -> bool {
        self.lane_handle(destination).is_ok_and(|handle| handle.with_lane(|lane| lane.is_cancelled(seq)))
    }

    /// Sets the maximum number of undelivered events of a destination; further events become dead letters at once.
    /// `None` removes the limit.
    ///
    /// # Errors
    /// The destination is unknown to the store.
    pub fn set_max_backlog(&self, destination: &Name, max_backlog: Option<u64>) -> Result<(), Error> {
        self.lane_handle(destination)?.set_max_backlog(max_backlog);
        Ok(())
    }

    /// The number of unsettled deliveries of all destinations. Cheap: nothing is counted or read.
    pub fn undelivered(&self) -> u64 {
        delegate!(self, store => store.lanes())
            .all()
            .values()
            .map(|handle| handle.with_lane(|lane| lane.undelivered()))
            .sum()
    }

    /// Up to `max` dead letters after `after`, oldest first, of one destination or of all, including destinations
    /// that are not configured any more. A full page can have a next one.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn dead_letters(
        &self,
        destination: Option<&Name>,
        after: Option<&DeliveryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        delegate!(self, store => store.dead_letters(destination.cloned(), after.cloned(), max).await)
    }

    /// A dead letter; `None` if the delivery is not a dead letter.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn dead_letter(&self, delivery_id: &DeliveryId) -> Result<Option<DeadLetter>, Error> {
        let before = DeliveryId { seq: EventSeq(delivery_id.seq.0.saturating_sub(1)), ..delivery_id.clone() };
        let found = self.dead_letters(Some(&delivery_id.destination), Some(&before), 1).await?;
        Ok(found.into_iter().find(|dead_letter| dead_letter.delivery_id == *delivery_id))
    }

    /// Redrives a dead letter: the same event with its id and `sequence` is delivered again. It is ordered among the
    /// unsettled events of its target; later events may have been delivered before it, so consumers that check
    /// `sequence` may ignore it. Its age counts from now. When this returns `Ok`, the redrive is on disk, with `audit`.
    ///
    /// # Errors
    /// Nothing has changed; see `DeadLetterError`.
    pub async fn redrive(
        &self,
        delivery_id: &DeliveryId,
        redrive: Redrive,
        audit: AuditWrite,
    ) -> Result<(), DeadLetterError> {
        let handle = self
            .lane_handle(&delivery_id.destination)
            .map_err(|_| DeadLetterError::NotConfigured(delivery_id.destination.clone()))?;
        delegate!(self, store => store.redrive(&handle, delivery_id.seq, redrive, audit).await)
    }

    /// Deletes a dead letter: it cannot be redriven, and its compensation is withdrawn. When this returns `Ok`, the
    /// deletion is on disk, with `audit`.
    ///
    /// # Errors
    /// Nothing has changed; see `DeadLetterError`.
    pub async fn discard(&self, delivery_id: &DeliveryId, audit: AuditWrite) -> Result<(), DeadLetterError> {
        delegate!(self, store => store.discard(delivery_id, audit).await)
    }

    /// Writes to the audit trail about an act that changes nothing in the store. Returns the id of the entry. When this
    /// returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// The store could not write; nothing was written.
    pub async fn audit(&self, write: AuditWrite) -> Result<i64, Error> {
        delegate!(self, store => store.audit(write).await)
    }

    /// A page of the audit trail, newest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn audit_trail(&self, query: AuditQuery) -> Result<AuditPage, Error> {
        delegate!(self, store => store.audit_trail(query).await)
    }

    /// Records the outcome of claimed deliveries. When this returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// Nothing was written. Unless the call is repeated, the deliveries are sent again after a restart.
    pub async fn settle(
        &self,
        destination: &Name,
        settled: Vec<(EventSeq, Settlement)>,
    ) -> Result<(), Error> {
        let handle = self.lane_handle(destination)?;
        delegate!(self, store => store.settle(&handle, settled).await)
    }

    /// Completes when deliveries may be claimable. Spurious wake-ups are possible.
    pub async fn wait(&self, destination: &Name) {
        match self.lane_handle(destination) {
            Ok(handle) => handle.wait(self.now()).await,
            Err(_) => std::future::pending().await,
        }
    }

    /// Adds destinations. A destination that the store knows continues at its cursor.
    ///
    /// # Errors
    /// The store could not write; none of them was added.
    pub async fn add_destinations(&self, destinations: &[Name]) -> Result<(), Error> {
        delegate!(self, store => store.add_destinations(destinations.to_vec()).await)
    }

    /// Makes the claimed deliveries of a worker that has ended claimable.
    ///
    /// # Errors
    /// The destination is unknown to the store.
    pub fn release_claims(&self, destination: &Name) -> Result<(), Error> {
        let handle = self.lane_handle(destination)?;
        handle.with_lane(|lane| lane.release_claims(false));
        handle.wake();
        Ok(())
    }

    /// Destinations that have unsettled deliveries and that were not added to the open store.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn orphaned_destinations(&self) -> Result<Vec<Name>, Error> {
        delegate!(self, store => store.orphaned_destinations().await)
    }

    /// Makes all unsettled deliveries claimable, also those that wait for a retry. For a destination whose worker has
    /// ended.
    ///
    /// # Errors
    /// The destination is unknown to the store.
    pub fn release_all(&self, destination: &Name) -> Result<(), Error> {
        self.lane_handle(destination)?.with_lane(|lane| lane.release_claims(true));
        Ok(())
    }

    /// The number of unsettled deliveries of a destination; 0 for an unknown one. Cheap: nothing is counted or read.
    pub fn undelivered_at(&self, destination: &Name) -> u64 {
        self.lane_handle(destination).map_or(0, |handle| handle.with_lane(|lane| lane.undelivered()))
    }

    /// Stores the position of a destination and closes its lane. Its dead letters stay, and so do unsettled deliveries:
    /// with these it is one of the [orphaned destinations](Store::orphaned_destinations).
    ///
    /// # Errors
    /// The store could not write; the lane stays open.
    pub async fn remove_destination(&self, destination: &Name) -> Result<(), Error> {
        delegate!(self, store => store.remove_destination(destination.clone()).await)
    }

    /// The deliveries of a destination, counted by state; zeros for an unknown destination.
    pub fn backlog(&self, destination: &Name) -> Backlog {
        self.lane_handle(destination).map(|handle| handle.backlog()).unwrap_or_default()
    }

    /// The emission time of the oldest event that the destination has not settled.
    pub fn oldest_unsettled(&self, destination: &Name) -> Option<Time> {
        self.lane_handle(destination).ok().and_then(|handle| handle.with_lane(|lane| lane.oldest_unsettled()))
    }

    /// The JSON of the decision records about a target in `from..=to`, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn history(&self, target: &TargetKey, from: Time, to: Time) -> Result<Vec<String>, Error> {
        delegate!(self, store => store.history(target, from, to).await)
    }

    /// A page of decision records.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn records(&self, query: RecordQuery) -> Result<Records, Error> {
        delegate!(self, store => store.records(query).await)
    }

    /// An event by its id, with the state of its deliveries; the newest one if several events have this id.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        if !query::is_event_id(id) {
            return Ok(None);
        }
        delegate!(self, store => store.event(id).await)
    }

    /// Up to `max` states of targets with ids above `after`, in ascending order.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn states(&self, after: i64, max: usize) -> Result<Vec<StoredState>, Error> {
        delegate!(self, store => store.states(after, max).await)
    }

    /// Deletes some of the records and audit entries older than `decisions`, except the newest ones, from which ids and
    /// the store's time continue; and some of the events older than `delivered` that every destination has settled.
    /// Returns whether there may be more to delete.
    ///
    /// # Errors
    /// The store could not write; nothing was deleted.
    pub async fn prune(&self, decisions: Duration, delivered: Duration) -> Result<bool, Error> {
        delegate!(self, store => store.prune(decisions, delivered).await)
    }

    /// The rows that cannot be read, as far as they were found: each is found when it is needed.
    pub fn unreadable_rows(&self) -> Vec<UnreadableRow> {
        delegate!(self, store => store.unreadable_rows())
    }

    /// Gives up the state of a target that cannot be read: it is deleted, as if the target had never had one. When
    /// this returns `Ok`, that is on disk, with `audit`.
    ///
    /// # Errors
    /// Nothing has changed; see `DropError`.
    pub async fn drop_unreadable(&self, row: i64, audit: AuditWrite) -> Result<UnreadableRow, DropError> {
        delegate!(self, store => store.drop_unreadable(row, audit).await)
    }

    /// Commits queued commands and closes the store.
    pub async fn close(&self) {
        delegate!(self, store => store.close().await);
    }
}
