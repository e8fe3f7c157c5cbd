//! What operators do and read: pauses, dead letters, reloads, unreadable states and their audit trail, and the queries of
//! the admin API.
//!
//! [`Ops`] is the only door: HTTP handlers extract parameters, call it and convert errors. Nothing here knows HTTP.
//! The types of requests and responses are in [`api`]; the command line reads the same types that the bridge writes.
//!
//! Every act is recorded in the audit trail with its [`Initiator`]. An act that changes the store commits its entry in
//! the same transaction; see [`audit`] for the others.

mod act;
pub(crate) mod api;
mod audit;
mod bulk;
mod credentials;
mod dead_letters;
mod decisions;
mod episodes;
mod error;
mod events;
mod forgive;
mod inventory;
mod lifecycle;
mod notifications;
mod parse;
mod pauses;
mod readiness;
mod reload;
mod status;
mod targets;
mod unreadable_states;

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::bridge::Bridge;
use crate::dispatch::DestinationStatuses;
use crate::intake::QueueStatuses;
use crate::kinds::Settings;
use crate::store::Store;
pub use act::Initiator;
pub(crate) use act::{Actor, Requester};
use api::ConfigurationStatus;
pub(crate) use credentials::ActiveCredentials;
pub use error::Error;
pub(crate) use lifecycle::{Lifecycle, LifecyclePhase};
pub(crate) use parse::is_hidden;
pub use pauses::{PauseRequest, Pauses};
pub(crate) use readiness::NotReady;
pub(crate) use reload::{ReloadError, ReloadHandle, ReloadRequests, ReloadTrail};

/// The operations of the admin API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ops(Arc<Deps>);

/// The parts of the bridge that operators use.
pub(crate) struct Deps {
    pub lifecycle: Arc<Lifecycle>,
    pub bridge: Bridge,
    pub store: Store,
    pub statuses: DestinationStatuses,
    pub queues: QueueStatuses,
    /// The active settings.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The result of the last reload.
    pub configuration: Arc<ArcSwap<ConfigurationStatus>>,
    pub credentials: Arc<ActiveCredentials>,
    pub reloads: ReloadHandle,
    /// The audit entries of bulk operations in progress.
    pub running: Mutex<BTreeSet<i64>>,
}

impl Ops {
    pub(crate) fn new(deps: Deps) -> Self {
        Self(Arc::new(deps))
    }

    pub(crate) fn pauses(&self) -> Pauses {
        Pauses::new(self.0.store.clone())
    }
}
