//! What one store hands over to another: rows in a form that belongs to neither of them.

use std::sync::Arc;

use super::{AuditEntry, DeliveryState};
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;

/// What a store has besides its rows.
pub(super) struct Overview {
    pub created: Time,
    /// The last time that was stored, by the store's clock.
    pub last_stored: Time,
    /// The largest event number that was ever used.
    pub last_event: i64,
    pub controls: Controls,
    pub destinations: Vec<Name>,
}

/// A target.
pub(super) struct TransferredTarget {
    pub id: i64,
    pub key: TargetKey,
    /// Whether it has to be processed because of what may have happened to deliveries.
    pub recheck: bool,
    pub state: TransferredState,
}

pub(super) enum TransferredState {
    /// Nothing is known.
    Empty,
    Readable(Arc<TargetState>),
    /// It cannot be read. It stays so, until it is given up.
    Unreadable,
}

/// An event with its deliveries.
pub(super) struct TransferredEvent {
    pub seq: i64,
    pub id: String,
    /// The target's id.
    pub target: i64,
    pub at: Time,
    pub destinations: Vec<Name>,
    pub acting: Vec<Name>,
    pub may_decrease: bool,
    pub episode: Option<String>,
    /// Whether it is about the firing end of the episode.
    pub is_firing: bool,
    /// The numbers of the events that it takes back.
    pub compensates: Option<Vec<i64>>,
    /// Whether the state of its target refers to it.
    pub tracked: bool,
    pub body: String,
    pub deliveries: Vec<TransferredDelivery>,
}

/// A delivery. The times of open ones are by the store's clock, the end of others is by the wall clock.
#[derive(Clone)]
pub(super) struct TransferredDelivery {
    pub destination: Name,
    /// `Pending` for all that are not settled.
    pub state: DeliveryState,
    pub attempts: i32,
    pub due: i64,
    pub age_from: i64,
    pub expiry: Option<i64>,
    pub ended_at: Option<i64>,
    pub is_suspended: bool,
    pub is_uncertain: bool,
    pub is_expired: bool,
    pub error: Option<String>,
    pub answer: Option<String>,
}

/// A decision record.
pub(super) struct TransferredRecord {
    pub id: i64,
    pub at: i64,
    pub ahead: i64,
    /// Ids of targets.
    pub targets: Vec<i64>,
    pub body: String,
}

/// An audit entry.
pub(super) struct TransferredAuditEntry {
    pub id: i64,
    pub at: i64,
    pub ahead: i64,
    pub entry: AuditEntry,
}

/// A kept notification.
pub(super) struct TransferredNotification {
    /// By the store's clock. They are in this order.
    pub at: i64,
    /// `at` minus the wall clock.
    pub ahead: i64,
    pub source: String,
    /// Compressed.
    pub body: Vec<u8>,
}
