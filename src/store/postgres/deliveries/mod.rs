//! Deliveries, from the emission of an event to the settlement of each of its deliveries.

use std::sync::Arc;

use super::Shared;
use crate::domain::name::Name;
use crate::domain::retry::AgeLimits;
use crate::store::outbox::{Expired, UnsettledEvent};
use crate::store::{
    AuditWrite, Claimed, DeadLetter, DeadLetterError, DeliveryId, Error, Lease, Redrive, Refused, Retries,
    Settlement,
};

pub(super) fn start(_shared: &Arc<Shared>) {}

pub(super) async fn add_destinations(_shared: &Shared, destinations: Vec<Name>) -> Result<(), Error> {
    if destinations.is_empty() {
        return Ok(());
    }
    Err(Error::Unavailable("not built yet".to_owned()))
}
pub(super) async fn remove_destination(_shared: &Shared, _destination: Name) -> Result<(), Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
pub(super) async fn orphaned_destinations(_shared: &Shared) -> Result<Vec<Name>, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
pub(super) async fn claim(_shared: &Shared, _destination: &Name, _max: usize) -> Result<Vec<Claimed>, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
pub(super) async fn claim_expired(
    _shared: &Shared,
    _destination: &Name,
    _limits: AgeLimits,
    _max: usize,
) -> Result<Expired, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
pub(super) async fn begin_calls(
    _shared: &Shared,
    _destination: &Name,
    _leases: Vec<Lease>,
) -> Result<Vec<Refused>, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
pub(super) async fn settle(
    _shared: &Shared,
    _destination: &Name,
    _settled: Vec<(Lease, Settlement)>,
) -> Result<(), Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
pub(super) async fn wait(_shared: &Shared, _destination: &Name) {}
pub(super) fn release(_shared: &Arc<Shared>, _destination: &Name, _retries: Retries) -> Result<(), Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
pub(super) async fn unsettled_events(
    _shared: &Shared,
    _destination: &Name,
    _max: usize,
) -> Result<Vec<UnsettledEvent>, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
pub(super) async fn dead_letters(
    _shared: &Shared,
    _destination: Option<Name>,
    _after: Option<DeliveryId>,
    _max: usize,
) -> Result<Vec<DeadLetter>, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
pub(super) async fn redrive(
    _shared: &Shared,
    _delivery_id: &DeliveryId,
    _redrive: Redrive,
    _audit: AuditWrite,
) -> Result<(), DeadLetterError> {
    Err(DeadLetterError::NotDead)
}
pub(super) async fn discard(
    _shared: &Shared,
    _delivery_id: &DeliveryId,
    _audit: AuditWrite,
) -> Result<(), DeadLetterError> {
    Err(DeadLetterError::NotDead)
}
