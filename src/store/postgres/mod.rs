//! The shared store: PostgreSQL, for any number of replicas without a leader.
//!
//! Decisions are made under the row locks of their targets, deliveries and due work are claimed with `SKIP LOCKED` and a
//! lease. Time is the server's. Statements are unnamed and sessions have no state, so that poolers can share connections.
//!
//! In reading order, each knows only those before it:
//!
//! 1. `error`, `commits`, `connect`, `transaction`: the way to the server. `supervise`: tasks that go on after a panic.
//! 2. `schema`: its steps and checks.
//! 3. `clock`, `destinations`, `schedule`, `fleet`: what this process knows between two questions.
//! 4. `queries`: reading and adding records, notifications, audit entries, states and events.
//! 5. `deliveries`: from emission to settlement.
//! 6. `transact`: decisions.
//! 7. `retention`: deleting old rows.
//! 8. This file: the handle, which implements the contracts of [`crate::store`].

mod clock;
mod commits;
mod connect;
mod deliveries;
mod destinations;
mod error;
mod fleet;
pub(super) mod import;
mod queries;
mod retention;
mod schedule;
mod schema;
mod supervise;
mod transact;
mod transaction;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::health::{Health, Outage};
use super::history::History;
use super::outbox::{DeliveryQueue, Expired, Outbox, UnsettledEvent};
use super::states::StateStore;
use super::{
    AuditPage, AuditQuery, AuditWrite, Claimed, DeadLetter, DeadLetterError, DecideFn, DeliveryId,
    DeliveryPage, DeliveryQuery, DestinationStats, DropError, Error, Keys, Lease, NotificationLimits,
    NotificationPage, NotificationQuery, RecordQuery, Records, Redrive, Refused, Replicas, Retries, Rewinds,
    Settlement, Snapshot, StateCursor, StoredEvent, StoredState, UnreadableRow,
};
use crate::domain::alert_key::AlertKey;
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::retry::AgeLimits;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use clock::ServerClock;
use connect::Pool;
pub(crate) use connect::{Connector, rds_region};
use destinations::Destinations;
use fleet::FleetView;

/// A handle of an open PostgreSQL store. Cheap to clone.
#[derive(Clone)]
pub struct Postgres(Arc<Shared>);

/// How to reach the database.
#[derive(Clone)]
pub struct Settings {
    /// Opens connections.
    pub connector: Connector,
    /// The maximum number of pooled connections.
    pub max_connections: usize,
    /// Whether changes are announced to other replicas with `NOTIFY`.
    pub notify: bool,
}

/// What all parts of the store use.
struct Shared {
    pool: Pool,
    /// A random number that names this process in the database.
    replica: i64,
    clock: ServerClock,
    destinations: Destinations,
    fleet: FleetView,
    health: Arc<Health>,
    kept_bytes: queries::notifications::KeptBytes,
    pruning: retention::Progress,
    transactions: transact::Queue,
    notifier: fleet::Notifier,
}

impl Postgres {
    /// Connects, brings the schema to this program's step, and starts the tasks of the store.
    ///
    /// # Errors
    /// `Error::Unusable` with the cause and the fix; `Error::Unavailable` if the server cannot be reached now.
    pub async fn open(settings: Settings, destinations: &[Name]) -> Result<Self, Error> {
        schema::migrate(&Pool::unlimited(settings.connector.clone())?).await?;
        let pool = Pool::new(settings.connector, settings.max_connections, fastrand::i64(1..))?;
        queries::positions::continue_after_used(&pool).await?;
        let opened = fleet::open(&pool).await?;
        let shared = Arc::new(Shared {
            replica: pool.replica(),
            pool,
            clock: ServerClock::new(opened.now),
            destinations: Destinations::default(),
            fleet: FleetView::new(opened),
            health: Arc::default(),
            kept_bytes: queries::notifications::KeptBytes::default(),
            pruning: retention::Progress::default(),
            transactions: transact::Queue::default(),
            notifier: fleet::Notifier::default(),
        });
        deliveries::add_destinations(&shared, destinations.to_vec()).await?;
        schedule::recheck_dependents(&shared.pool)
            .await
            .map_err(|error| error.into_store(error::Stage::Open))?;
        fleet::refresh(&shared).await?;
        transact::start(&shared, settings.max_connections);
        deliveries::start(&shared);
        fleet::start(&shared, settings.notify);
        Ok(Self(shared))
    }

    /// Brings the schema to this program's step, and nothing else.
    #[cfg(test)]
    pub(super) async fn create_schema(settings: Settings) -> Result<(), Error> {
        schema::migrate(&Pool::unlimited(settings.connector)?).await
    }

    /// Nothing is decided or delivered by a version that cannot read what newer ones have written.
    fn require_current(&self) -> Result<(), Error> {
        self.0.health.too_old().map_or(Ok(()), |cause| Err(Error::Unavailable(cause)))
    }

    pub(super) fn outage(&self) -> Option<Outage> {
        self.0.health.outage()
    }

    pub(super) async fn announce_ready(&self) {
        fleet::announce_ready(&self.0).await;
    }

    pub(super) async fn adopt_configuration(&self, configuration: i64) -> Result<(), Error> {
        fleet::adopt_configuration(&self.0, configuration).await
    }

    pub(super) fn set_ready(&self, is_ready: bool) {
        fleet::set_ready(&self.0, is_ready);
    }

    pub(super) fn others_are_ready(&self) -> bool {
        self.0.fleet.others_are_ready.load(Ordering::Relaxed)
    }

    pub(super) fn rewinds(&self) -> Rewinds {
        *self.0.fleet.rewinds.lock()
    }

    pub(super) fn replicas(&self) -> Option<Replicas> {
        self.0.fleet.replicas.lock().clone()
    }

    pub(super) fn clock_offset(&self) -> i64 {
        self.0.fleet.clock_offset.load(Ordering::Relaxed)
    }

    pub(super) fn controls(&self) -> Arc<Controls> {
        self.0.fleet.controls()
    }
}

impl StateStore for Postgres {
    async fn transact(&self, keys: Keys, decide: DecideFn) -> Result<(), Error> {
        self.require_current()?;
        transact::run(&self.0, keys, decide).await
    }

    async fn locate(&self, alerts: Vec<AlertKey>) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error> {
        transact::locate(&self.0, alerts).await
    }

    async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        transact::due(&self.0, max).await
    }

    fn next_due(&self) -> watch::Receiver<Option<Time>> {
        self.0.fleet.next_due()
    }

    fn last_stored(&self) -> Option<Time> {
        self.0.fleet.last_stored()
    }

    fn last_kept(&self) -> BTreeMap<Name, Time> {
        self.0.fleet.last_kept()
    }

    fn snapshot(&self) -> Snapshot {
        self.0.fleet.snapshot()
    }

    async fn drop_unreadable(&self, row: i64, audit: AuditWrite) -> Result<UnreadableRow, DropError> {
        transact::drop_unreadable(&self.0, row, audit).await
    }

    async fn audit(&self, write: AuditWrite) -> Result<i64, Error> {
        queries::audit::write(&self.0, write).await
    }

    async fn prune(&self, decisions: Duration, delivered: Duration) -> Result<bool, Error> {
        retention::prune(&self.0, decisions, delivered).await
    }

    async fn prune_notifications(&self, limits: NotificationLimits) -> Result<bool, Error> {
        retention::prune_notifications(&self.0, limits).await
    }

    async fn close(&self) {
        transact::close(&self.0).await;
        deliveries::close(&self.0).await;
        fleet::close(&self.0).await;
        self.0.pool.close();
    }
}

impl DeliveryQueue for Postgres {
    async fn claim(&self, destination: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        self.require_current()?;
        deliveries::claim(&self.0, destination, max).await
    }

    async fn claim_expired(
        &self,
        destination: &Name,
        limits: AgeLimits,
        max: usize,
    ) -> Result<Expired, Error> {
        deliveries::claim_expired(&self.0, destination, limits, max).await
    }

    fn undelivered_at(&self, destination: &Name) -> u64 {
        self.0.destinations.get(destination).map_or(0, |destination| destination.undelivered())
    }

    async fn begin_calls(&self, destination: &Name, leases: Vec<Lease>) -> Result<Vec<Refused>, Error> {
        deliveries::begin_calls(&self.0, destination, leases).await
    }

    async fn settle(&self, destination: &Name, settled: Vec<(Lease, Settlement)>) -> Result<(), Error> {
        deliveries::settle(&self.0, destination, settled).await
    }

    async fn wait(&self, destination: &Name) {
        deliveries::wait(&self.0, destination).await;
    }

    fn clock(&self) -> ClockReading {
        self.0.clock.read()
    }
}

impl Outbox for Postgres {
    async fn add_destinations(&self, destinations: Vec<Name>) -> Result<(), Error> {
        deliveries::add_destinations(&self.0, destinations).await
    }

    async fn remove_destination(&self, destination: Name) -> Result<(), Error> {
        deliveries::remove_destination(&self.0, destination).await
    }

    async fn orphaned_destinations(&self) -> Result<Vec<Name>, Error> {
        deliveries::orphaned_destinations(&self.0).await
    }

    async fn unsettled_events(&self, destination: &Name, max: usize) -> Result<Vec<UnsettledEvent>, Error> {
        deliveries::unsettled_events(&self.0, destination, max).await
    }

    fn set_max_backlog(&self, destination: &Name, max_backlog: Option<u64>) -> Result<(), Error> {
        self.0.destinations.require(destination)?.set_max_backlog(max_backlog);
        Ok(())
    }

    fn release(&self, destination: &Name, retries: Retries) -> Result<(), Error> {
        deliveries::release(&self.0, destination, retries)
    }

    fn undelivered(&self) -> u64 {
        self.0.destinations.all().values().map(|destination| destination.undelivered()).sum()
    }

    fn stats(&self, destination: &Name) -> DestinationStats {
        let found = self.0.destinations.get(destination);
        found.map(|destination| destination.stats()).unwrap_or_default()
    }

    async fn dead_letters(
        &self,
        destination: Option<Name>,
        after: Option<DeliveryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        deliveries::dead_letters(&self.0, destination, after, max).await
    }

    async fn redrive(
        &self,
        delivery_id: &DeliveryId,
        redrive: Redrive,
        audit: AuditWrite,
    ) -> Result<(), DeadLetterError> {
        deliveries::redrive(&self.0, delivery_id, redrive, audit).await
    }

    async fn discard(&self, delivery_id: &DeliveryId, audit: AuditWrite) -> Result<(), DeadLetterError> {
        deliveries::discard(&self.0, delivery_id, audit).await
    }
}

impl History for Postgres {
    async fn history(&self, target: &TargetKey, from: Time, to: Time) -> Result<Vec<String>, Error> {
        queries::records::of_target(&self.0, target, from, to).await
    }

    async fn records(&self, query: RecordQuery) -> Result<Records, Error> {
        queries::records::page(&self.0, query).await
    }

    async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        queries::events::find(&self.0, id).await
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, Error> {
        queries::events::page(&self.0, query).await
    }

    async fn states(&self, after: Option<StateCursor>, max: usize) -> Result<Vec<StoredState>, Error> {
        queries::states::page(&self.0, after, max).await
    }

    async fn notifications(&self, query: NotificationQuery) -> Result<NotificationPage, Error> {
        queries::notifications::page(&self.0, query).await
    }

    async fn audit_trail(&self, query: AuditQuery) -> Result<AuditPage, Error> {
        queries::audit::page(&self.0, query).await
    }
}
