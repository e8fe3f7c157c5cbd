//! Commands to the writer thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::alert_key::AlertKey;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::store::lanes::LaneHandle;
use crate::store::sqlite::committed::index::{CachedTarget, Fingerprint};
use crate::store::sqlite::retention::Retention;
use crate::store::{
    AuditWrite, DeadLetterError, DecideFn, DeliveryId, DropError, Error, EventSeq, Keys, Lease,
    NotificationLimits, Redrive, Refused, Settlement, UnreadableRow,
};

/// A command to the writer. Replies of commands that write follow the commit.
pub(crate) enum Command {
    Transact {
        keys: Keys,
        decide: DecideFn,
        reply: Reply<DropOnCaller>,
    },
    Settle {
        handle: Arc<LaneHandle>,
        settled: Vec<(Lease, Settlement)>,
        reply: Reply<()>,
    },
    /// Replies with the deliveries that must not be called.
    BeginCalls {
        handle: Arc<LaneHandle>,
        leases: Vec<Lease>,
        reply: Reply<Vec<Refused>>,
    },
    Due {
        max: usize,
        reply: Reply<Vec<TargetKey>>,
    },
    Locate {
        keys: Keys,
        reply: Reply<BTreeMap<AlertKey, Vec<TargetKey>>>,
    },
    TargetId {
        hash: Fingerprint,
        reply: Reply<Option<i64>>,
    },
    Redrive {
        handle: Arc<LaneHandle>,
        seq: EventSeq,
        redrive: Redrive,
        audit: AuditWrite,
        reply: Reply<Result<(), DeadLetterError>>,
    },
    Discard {
        delivery_id: DeliveryId,
        audit: AuditWrite,
        reply: Reply<Result<(), DeadLetterError>>,
    },
    /// Replies with the id of the entry.
    Audit {
        write: AuditWrite,
        reply: Reply<i64>,
    },
    /// Opens lanes for those destinations that have none: for all of them or, after an error, for none.
    AddDestinations {
        destinations: Vec<Name>,
        reply: Reply<()>,
    },
    /// Closes the lane of a destination; no more deliveries are claimed for it.
    RemoveDestination {
        destination: Name,
        reply: Reply<()>,
    },
    Prune {
        retention: Retention,
        reply: Reply<bool>,
    },
    PruneNotifications {
        limits: NotificationLimits,
        reply: Reply<bool>,
    },
    /// Deletes the state of a target that cannot be read.
    DropState {
        row: i64,
        audit: AuditWrite,
        reply: Reply<Result<UnreadableRow, DropError>>,
    },
    #[cfg(test)]
    Pragma {
        name: &'static str,
        value: i64,
        reply: Reply<()>,
    },
    Close,
}

impl Command {
    /// Whether its commit can be delayed: no caller waits for a settlement, and a settlement that is lost in
    /// a crash only repeats the delivery.
    pub(crate) const fn can_linger(&self) -> bool {
        matches!(self, Self::Settle { .. })
    }

    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Transact { keys, .. } => keys.targets.len() + keys.alerts.len(),
            Self::Settle { settled, .. } => settled.len(),
            Self::BeginCalls { leases, .. } => leases.len(),
            _ => 1,
        }
    }
}

pub(crate) type Reply<R> = oneshot::Sender<Result<R, Error>>;

/// What remains of a transaction: thousands of small allocations. The caller's thread frees them, because the
/// writer is the bottleneck.
pub(crate) struct DropOnCaller {
    _keys: Keys,
    _decide: DecideFn,
    _states: Vec<Arc<CachedTarget>>,
}

impl DropOnCaller {
    pub(crate) fn new(keys: Keys, decide: DecideFn, states: Vec<Arc<CachedTarget>>) -> Self {
        Self { _keys: keys, _decide: decide, _states: states }
    }
}
