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
//! Changes of deliveries: a transaction sees the delivery of the events that the states of its targets track, and its
//! changes cancel, suspend, resume, renew or replace them in the same commit ([`Changes::delivery_changes`]). A worker
//! that has claimed a decrease asks with [`Store::begin_calls`] right before it calls it, which is refused for a delivery
//! that was cancelled or suspended meanwhile. An event itself changes no delivery of another one.

mod audit;
mod clock;
mod copy;
mod dead_letters;
mod expiry;
mod fast_map;
mod health;
mod history;
mod lane;
mod lanes;
mod memory;
mod notifications;
mod outbox;
mod postgres;
mod query;
mod replicas;
mod sqlite;
mod states;
#[cfg(test)]
pub(crate) mod tests;
mod tracking;
mod transfer;
mod withdrawn;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::alert_key::AlertKey;
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::retry::AgeLimits;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};

pub(crate) use audit::{AuditEntry, AuditPage, AuditQuery, AuditWrite, StoredAuditEntry};
pub(crate) use clock::{ClockChange, ClockComparison};
pub(crate) use copy::{Copied, copy};
pub(crate) use dead_letters::{DeadLetter, DeadLetterError, DeliveryId, Redrive};
pub(crate) use health::Outage;
use history::History;
pub use lane::MAX_WINDOW_BYTES;
pub(crate) use lanes::MAX_SLEEP;
pub use memory::Memory;
pub(crate) use notifications::{KeptNotification, NotificationLimits, NotificationPage, NotificationQuery};
use outbox::Outbox;
pub(crate) use outbox::UnsettledEvent;
pub(crate) use outbox::{Backlog, Claimed, DestinationStats, EventSeq, Expired, Lease, Retries};
pub use outbox::{DeliveryQueue, RefusalReason, Refused, Settlement};
pub(crate) use postgres::{Connector, Postgres, Settings as PostgresSettings, rds_region};
pub(crate) use query::{
    Delivery, DeliveryPage, DeliveryQuery, DeliveryState, EventCursor, EventDeliveries, RecordCursor,
    RecordQuery, Records, StateCursor, StoredEvent, StoredRecord, StoredState,
};
pub(crate) use replicas::{Replica, Replicas, Rewinds};
pub use sqlite::Sqlite;
use states::StateStore;
pub use states::{Changes, Keys, NewEvent, Record};
pub(crate) use states::{DropError, EpisodePhase, Snapshot, Tally, UnreadableRow, UnreadableStates, View};

/// Reads a column of the store, whose form the first byte selects: for the fuzzer.
pub(crate) fn read_stored_form(bytes: &[u8]) {
    let Some((form, bytes)) = bytes.split_first() else { return };
    match form.checked_sub(sqlite::STORED_FORMS) {
        None => sqlite::read_stored_form(*form, bytes),
        Some(_) => notifications::read_stored_form(bytes),
    }
}

/// Reads the wall clock. An argument, so that the store reads no clock of its own.
pub(crate) type WallClock = Arc<dyn Fn() -> Time + Send + Sync>;

/// The function that decides a transaction. It is pure.
pub(crate) type DecideFn = Box<dyn FnMut(&View) -> Changes + Send>;

/// A store. Cheap to clone.
#[derive(Clone)]
pub enum Store {
    /// A local SQLite file.
    Sqlite(Sqlite),
    /// A PostgreSQL database, which several replicas share.
    Postgres(Postgres),
    /// In memory: for `test`, `explain` and `replay`, and the reference model of the property tests.
    Memory(Memory),
}

/// An error of the store. Except for [`Error::Locked`], nothing of the call was written.
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
    /// Another session of the database holds a lock of the targets of these deliveries. Those of the others are settled.
    #[error("another session of the database holds a lock of the targets of {} deliveries", .0.len())]
    Locked(Vec<Lease>),
    /// The store was closed, or its thread has ended.
    #[error("the store is closed")]
    Closed,
}

macro_rules! delegate {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            Store::Sqlite($inner) => $call,
            Store::Postgres($inner) => $call,
            Store::Memory($inner) => $call,
        }
    };
}

/// The futures of PostgreSQL are boxed: otherwise every future that awaits a store, also with SQLite, has their size.
macro_rules! delegate_async {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            Store::Sqlite($inner) => $call.await,
            Store::Postgres($inner) => Box::pin($call).await,
            Store::Memory($inner) => $call.await,
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
        delegate_async!(self, store => store.transact(keys, decide))?;
        let decided = result.lock().take();
        decided.ok_or(Error::Closed)
    }

    /// The targets at which alerts are known. Only a hint: it can be outdated when it is returned.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn locate(&self, alerts: Vec<AlertKey>) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error> {
        delegate_async!(self, store => store.locate(alerts))
    }

    /// Up to `max` targets that have to be processed: they are due by time, or in the recheck queue.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        delegate_async!(self, store => store.due(max))
    }

    /// The time at which the next target is due; the receiver is notified when it changes.
    pub fn next_due(&self) -> watch::Receiver<Option<Time>> {
        delegate!(self, store => store.next_due())
    }

    /// The current moment by the store's clock and by the wall clock.
    pub fn clock(&self) -> ClockReading {
        delegate!(self, store => store.clock())
    }

    /// The store's time.
    pub fn now(&self) -> Time {
        self.clock().now
    }

    /// The last time that was stored when this process opened the store; `None` if the store is new.
    pub fn last_stored(&self) -> Option<Time> {
        delegate!(self, store => store.last_stored())
    }

    /// By the wall clock, when the last notification of each source was kept that was among the newest ones when this
    /// process opened the store.
    pub fn last_kept(&self) -> BTreeMap<Name, Time> {
        delegate!(self, store => store.last_kept())
    }

    /// What this process knows without asking the store.
    pub fn snapshot(&self) -> Snapshot {
        delegate!(self, store => store.snapshot())
    }

    /// The controls of the [snapshot](Store::snapshot).
    pub fn controls(&self) -> Arc<Controls> {
        delegate!(self, store => store.controls())
    }

    /// The counts of open episodes and deferred actions of the [snapshot](Store::snapshot).
    pub fn tally(&self) -> Tally {
        self.snapshot().tally
    }

    /// Whether other processes can use the store at the same time.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Lets other replicas know by a number which rules and destinations this process has from now on.
    ///
    /// # Errors
    /// The store is not available.
    pub(crate) async fn adopt_configuration(&self, configuration: i64) -> Result<(), Error> {
        match self {
            Self::Postgres(store) => Box::pin(store.adopt_configuration(configuration)).await,
            Self::Sqlite(_) | Self::Memory(_) => Ok(()),
        }
    }

    /// Whether this process accepts notifications. Other replicas want to know.
    pub(crate) fn set_ready(&self, is_ready: bool) {
        if let Self::Postgres(store) = self {
            store.set_ready(is_ready);
        }
    }

    /// Lets other replicas know that this process accepts notifications, before it accepts the first: they would not miss it if
    /// it died. Nothing happens if the store is not available.
    pub(crate) async fn announce_ready(&self) {
        if let Self::Postgres(store) = self {
            Box::pin(store.announce_ready()).await;
        }
    }

    /// Whether another replica on this store accepts notifications, as of some seconds ago.
    pub(crate) fn others_are_ready(&self) -> bool {
        matches!(self, Self::Postgres(store) if store.others_are_ready())
    }

    /// How often the store came back behind what this process has seen, as far as this process was the first to notice.
    pub(crate) fn rewinds(&self) -> Rewinds {
        match self {
            Self::Postgres(store) => store.rewinds(),
            Self::Sqlite(_) | Self::Memory(_) => Rewinds::default(),
        }
    }

    /// The processes that share the store; `None` if only one can use it.
    pub(crate) fn replicas(&self) -> Option<Replicas> {
        match self {
            Self::Postgres(store) => store.replicas(),
            Self::Sqlite(_) | Self::Memory(_) => None,
        }
    }

    /// The wall clock of this process minus the store's clock, in nanoseconds. If several processes share the store, its
    /// clock is the server's.
    pub(crate) fn clock_offset(&self) -> i64 {
        match self {
            Self::Postgres(store) => store.clock_offset(),
            Self::Sqlite(_) | Self::Memory(_) => self.clock().ahead_nanos().saturating_neg(),
        }
    }

    /// Why the store refuses changes; `None` if it accepts them. Cheap: nothing is read.
    pub(crate) fn outage(&self) -> Option<Outage> {
        delegate!(self, store => store.outage())
    }

    /// How long the thread that changes the store has been in one batch. A store without such a thread, whose server may be
    /// away for any time, is never busy.
    pub(crate) fn writer_busy_for(&self) -> Duration {
        match self {
            Self::Sqlite(store) => store.writer_busy_for(),
            Self::Postgres(_) | Self::Memory(_) => Duration::ZERO,
        }
    }

    /// Sets the maximum number of undelivered events of a destination; further events become dead letters at once.
    /// `None` removes the limit.
    ///
    /// # Errors
    /// The destination is unknown to the store.
    pub fn set_max_backlog(&self, destination: &Name, max_backlog: Option<u64>) -> Result<(), Error> {
        delegate!(self, store => store.set_max_backlog(destination, max_backlog))
    }

    /// The number of unsettled deliveries of all destinations. Cheap: nothing is counted or read.
    pub fn undelivered(&self) -> u64 {
        delegate!(self, store => store.undelivered())
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
        delegate_async!(self, store => store.dead_letters(destination.cloned(), after.cloned(), max))
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
        delegate_async!(self, store => store.redrive(delivery_id, redrive, audit))
    }

    /// Deletes a dead letter: it cannot be redriven, and its compensation is withdrawn. When this returns `Ok`, the
    /// deletion is on disk, with `audit`.
    ///
    /// # Errors
    /// Nothing has changed; see `DeadLetterError`.
    pub async fn discard(&self, delivery_id: &DeliveryId, audit: AuditWrite) -> Result<(), DeadLetterError> {
        delegate_async!(self, store => store.discard(delivery_id, audit))
    }

    /// Writes to the audit trail about an act that changes nothing in the store. Returns the id of the entry. When this
    /// returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// The store could not write; nothing was written.
    pub async fn audit(&self, write: AuditWrite) -> Result<i64, Error> {
        delegate_async!(self, store => store.audit(write))
    }

    /// A page of the audit trail, newest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn audit_trail(&self, query: AuditQuery) -> Result<AuditPage, Error> {
        delegate_async!(self, store => store.audit_trail(query))
    }

    /// Adds destinations. A destination that the store knows continues at its cursor.
    ///
    /// # Errors
    /// The store could not write; none of them was added.
    pub async fn add_destinations(&self, destinations: &[Name]) -> Result<(), Error> {
        delegate_async!(self, store => store.add_destinations(destinations.to_vec()))
    }

    /// Makes the claimed deliveries of a worker that has ended claimable.
    ///
    /// # Errors
    /// The destination is unknown to the store.
    pub fn release_claims(&self, destination: &Name) -> Result<(), Error> {
        delegate!(self, store => store.release(destination, Retries::Keep))
    }

    /// Up to `max` events that a destination has not settled, as far as this process has read them.
    ///
    /// # Errors
    /// The destination is unknown, or the store cannot be read.
    pub async fn unsettled_events(
        &self,
        destination: &Name,
        max: usize,
    ) -> Result<Vec<UnsettledEvent>, Error> {
        delegate_async!(self, store => store.unsettled_events(destination, max))
    }

    /// Destinations that have unsettled deliveries and that were not added to the open store.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn orphaned_destinations(&self) -> Result<Vec<Name>, Error> {
        delegate_async!(self, store => store.orphaned_destinations())
    }

    /// Makes all unsettled deliveries claimable, also those that wait for a retry. For a destination whose worker has
    /// ended.
    ///
    /// # Errors
    /// The destination is unknown to the store.
    pub fn release_all(&self, destination: &Name) -> Result<(), Error> {
        delegate!(self, store => store.release(destination, Retries::DueNow))
    }

    /// Stores the position of a destination and closes its lane. Its dead letters stay, and so do unsettled deliveries:
    /// with these it is one of the [orphaned destinations](Store::orphaned_destinations).
    ///
    /// # Errors
    /// The store could not write; the lane stays open.
    pub async fn remove_destination(&self, destination: &Name) -> Result<(), Error> {
        delegate_async!(self, store => store.remove_destination(destination.clone()))
    }

    /// The deliveries of a destination; zeros for an unknown destination.
    pub fn stats(&self, destination: &Name) -> DestinationStats {
        delegate!(self, store => store.stats(destination))
    }

    /// The deliveries of a destination, counted by state; zeros for an unknown destination.
    pub fn backlog(&self, destination: &Name) -> Backlog {
        self.stats(destination).backlog
    }

    /// The JSON of the decision records about a target in `from..=to`, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn history(&self, target: &TargetKey, from: Time, to: Time) -> Result<Vec<String>, Error> {
        delegate_async!(self, store => store.history(target, from, to))
    }

    /// A page of decision records.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn records(&self, query: RecordQuery) -> Result<Records, Error> {
        delegate_async!(self, store => store.records(query))
    }

    /// An event by its id, with the state of its deliveries; the newest one if several events have this id.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        if !query::is_event_id(id) {
            return Ok(None);
        }
        delegate_async!(self, store => store.event(id))
    }

    /// Up to `max` states of targets after a cursor, in the order of their cursors.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn states(&self, after: Option<StateCursor>, max: usize) -> Result<Vec<StoredState>, Error> {
        delegate_async!(self, store => store.states(after, max))
    }

    /// A page of events with their deliveries and without their bodies, newest first. Events that were pruned are left
    /// out: all their destinations have settled them.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, Error> {
        delegate_async!(self, store => store.deliveries(query))
    }

    /// A page of kept notifications, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn notifications(&self, query: NotificationQuery) -> Result<NotificationPage, Error> {
        delegate_async!(self, store => store.notifications(query))
    }

    /// Deletes some of the records and audit entries older than `decisions`, except the newest ones, from which ids and
    /// the store's time continue; and some of the events older than `delivered` that every destination has settled.
    /// Returns whether there may be more to delete.
    ///
    /// # Errors
    /// The store could not write; nothing was deleted.
    pub async fn prune(&self, decisions: Duration, delivered: Duration) -> Result<bool, Error> {
        delegate_async!(self, store => store.prune(decisions, delivered))
    }

    /// Deletes some of the kept notifications that exceed the limits, oldest first. Returns whether there may be more to
    /// delete.
    ///
    /// # Errors
    /// The store could not write; nothing was deleted.
    pub async fn prune_notifications(&self, limits: NotificationLimits) -> Result<bool, Error> {
        delegate_async!(self, store => store.prune_notifications(limits))
    }

    /// The rows that cannot be read, of the [snapshot](Store::snapshot).
    pub fn unreadable_rows(&self) -> Vec<UnreadableRow> {
        self.snapshot().unreadable_rows
    }

    /// Gives up the state of a target that cannot be read. Of the new one, only
    /// [`known_since`](crate::domain::state::TargetState::known_since) is set; if the target's key cannot be read
    /// either, there is none. When this returns `Ok`, that is on disk, with `audit`.
    ///
    /// # Errors
    /// Nothing has changed; see `DropError`.
    pub async fn drop_unreadable(&self, row: i64, audit: AuditWrite) -> Result<UnreadableRow, DropError> {
        delegate_async!(self, store => store.drop_unreadable(row, audit))
    }

    /// Commits queued commands and closes the store.
    pub async fn close(&self) {
        delegate_async!(self, store => store.close());
    }
}

impl DeliveryQueue for Store {
    async fn claim(&self, destination: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        delegate_async!(self, store => store.claim(destination, max))
    }

    async fn claim_expired(
        &self,
        destination: &Name,
        limits: AgeLimits,
        max: usize,
    ) -> Result<Expired, Error> {
        delegate_async!(self, store => store.claim_expired(destination, limits, max))
    }

    fn undelivered_at(&self, destination: &Name) -> u64 {
        delegate!(self, store => store.undelivered_at(destination))
    }

    async fn begin_calls(&self, destination: &Name, leases: Vec<Lease>) -> Result<Vec<Refused>, Error> {
        delegate_async!(self, store => store.begin_calls(destination, leases))
    }

    async fn settle(&self, destination: &Name, settled: Vec<(Lease, Settlement)>) -> Result<(), Error> {
        delegate_async!(self, store => store.settle(destination, settled))
    }

    async fn wait(&self, destination: &Name) {
        delegate_async!(self, store => store.wait(destination));
    }

    fn clock(&self) -> ClockReading {
        Self::clock(self)
    }
}
