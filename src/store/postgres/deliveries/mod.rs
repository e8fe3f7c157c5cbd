//! Deliveries, from the emission of an event to the settlement of each of its deliveries.
//!
//! A row of `deliveries` for each event and destination is in a *queue*: that of its destination and target, in the order
//! of the events. `due` says when an unsettled delivery can be claimed: when it is emitted, at the end of a backoff, or
//! when the lease of its claim ends. Rows are locked and read, changed by [`row`], and written as a set by [`mod@write`].
//!
//! A transaction that changes the outcome of a delivery, or begins its call, holds the lock of its target. Claims hold only locks of
//! deliveries and queues, and skip what others hold, see [`mod@claim`].

pub(super) mod changes;
mod claim;
mod compensation;
mod dead_letters;
mod expiry;
pub(super) mod feedback;
mod leases;
mod locks;
mod row;
mod settle;
mod setup;
#[cfg(test)]
mod tests;
mod unsettled;
mod write;

use std::sync::Arc;

use super::Shared;
use crate::domain::name::Name;
use crate::domain::retry::AgeLimits;
use crate::store::outbox::{Expired, UnsettledEvent};
use crate::store::{
    AuditWrite, Claimed, DeadLetter, DeadLetterError, DeliveryId, Error, Lease, Redrive, Refused, Retries,
    Settlement,
};
use dead_letters::OperatorAct;
pub(super) use expiry::limits_of;
pub(super) use write::CountChanges;

/// Starts the task that renews leases.
pub(super) fn start(shared: &Arc<Shared>) {
    leases::start(shared);
}

/// Ends the leases of this process.
pub(super) async fn close(shared: &Shared) {
    leases::close(shared).await;
}

pub(super) async fn add_destinations(shared: &Shared, destinations: Vec<Name>) -> Result<(), Error> {
    setup::add_destinations(shared, destinations).await
}

pub(super) async fn remove_destination(shared: &Shared, destination: Name) -> Result<(), Error> {
    setup::remove_destination(shared, &destination).await
}

pub(super) async fn orphaned_destinations(shared: &Shared) -> Result<Vec<Name>, Error> {
    setup::orphaned_destinations(shared).await
}

pub(super) async fn claim(shared: &Shared, destination: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
    claim::claim(shared, destination, max).await
}

pub(super) async fn claim_expired(
    shared: &Shared,
    destination: &Name,
    limits: AgeLimits,
    max: usize,
) -> Result<Expired, Error> {
    expiry::claim_expired(shared, destination, limits, max).await
}

pub(super) async fn begin_calls(
    shared: &Shared,
    destination: &Name,
    leases: Vec<Lease>,
) -> Result<Vec<Refused>, Error> {
    settle::begin_calls(shared, destination, leases).await
}

pub(super) async fn settle(
    shared: &Shared,
    destination: &Name,
    settled: Vec<(Lease, Settlement)>,
) -> Result<(), Error> {
    settle::settle(shared, destination, settled).await
}

/// Completes when a delivery may have become claimable: other replicas are not heard, so that is asked once a second.
pub(super) async fn wait(shared: &Shared, destination: &Name) {
    let Some(destination) = shared.destinations.get(destination) else { return std::future::pending().await };
    let delay = leases::poll_delay(*destination.next_due.lock(), shared.clock.read().wall);
    tokio::select! {
        () = destination.wakeup.notified() => {}
        () = tokio::time::sleep(delay) => {}
    }
}

pub(super) fn release(shared: &Shared, destination: &Name, retries: Retries) -> Result<(), Error> {
    leases::release(&*shared.destinations.require(destination)?, retries);
    Ok(())
}

pub(super) async fn unsettled_events(
    shared: &Shared,
    destination: &Name,
    max: usize,
) -> Result<Vec<UnsettledEvent>, Error> {
    unsettled::list(shared, destination, max).await
}

pub(super) async fn dead_letters(
    shared: &Shared,
    destination: Option<Name>,
    after: Option<DeliveryId>,
    max: usize,
) -> Result<Vec<DeadLetter>, Error> {
    dead_letters::list(shared, destination, after, max).await
}

pub(super) async fn redrive(
    shared: &Shared,
    delivery_id: &DeliveryId,
    redrive: Redrive,
    audit: AuditWrite,
) -> Result<(), DeadLetterError> {
    dead_letters::act(shared, delivery_id, OperatorAct::Redrive(redrive), audit).await
}

pub(super) async fn discard(
    shared: &Shared,
    delivery_id: &DeliveryId,
    audit: AuditWrite,
) -> Result<(), DeadLetterError> {
    dead_letters::act(shared, delivery_id, OperatorAct::Discard, audit).await
}
