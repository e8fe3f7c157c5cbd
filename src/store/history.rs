//! The contract about what has happened: records, events and states to look at.

use super::Error;
use super::audit::{AuditPage, AuditQuery};
use super::notifications::{NotificationPage, NotificationQuery};
use super::query::{
    DeliveryPage, DeliveryQuery, RecordQuery, Records, StateCursor, StoredEvent, StoredState,
};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;

/// Queries. Their cursors are opaque: only the store that has returned one can order and read it.
pub(super) trait History {
    /// The JSON of the decision records about a target in `from..=to`, oldest first.
    fn history(
        &self,
        target: &TargetKey,
        from: Time,
        to: Time,
    ) -> impl Future<Output = Result<Vec<String>, Error>> + Send;

    /// A page of decision records.
    fn records(&self, query: RecordQuery) -> impl Future<Output = Result<Records, Error>> + Send;

    /// An event by its id, with the state of its deliveries; the newest one if several events have this id.
    fn event(&self, id: &str) -> impl Future<Output = Result<Option<StoredEvent>, Error>> + Send;

    /// A page of events with their deliveries and without their bodies, newest first.
    fn deliveries(&self, query: DeliveryQuery) -> impl Future<Output = Result<DeliveryPage, Error>> + Send;

    /// Up to `max` states of targets after a cursor, in the order of their cursors.
    fn states(
        &self,
        after: Option<StateCursor>,
        max: usize,
    ) -> impl Future<Output = Result<Vec<StoredState>, Error>> + Send;

    /// A page of kept notifications, oldest first.
    fn notifications(
        &self,
        query: NotificationQuery,
    ) -> impl Future<Output = Result<NotificationPage, Error>> + Send;

    /// A page of the audit trail, newest first.
    fn audit_trail(&self, query: AuditQuery) -> impl Future<Output = Result<AuditPage, Error>> + Send;
}
