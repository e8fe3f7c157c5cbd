//! The destinations to which this process delivers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::domain::name::Name;
use crate::store::fast_map::Map;
use crate::store::{DestinationStats, Error, EventSeq, Lease};

/// All of them by name.
#[derive(Default)]
pub(super) struct Destinations(RwLock<Arc<BTreeMap<Name, Arc<Destination>>>>);

/// A destination with its worker in this process.
pub(super) struct Destination {
    pub name: Name,
    /// `destinations.id`.
    pub id: i32,
    /// The maximum number of undelivered events; `u64::MAX` for no limit.
    max_backlog: AtomicU64,
    /// As of the last refresh, with what this process has committed since.
    pub stats: Mutex<DestinationStats>,
    /// The tokens of the deliveries that the worker of this process has claimed.
    pub leases: Mutex<Map<EventSeq, u64>>,
    /// Leases that were released and are still in the database.
    pub released: Mutex<Vec<Lease>>,
    /// A delivery may have become claimable.
    pub wakeup: Notify,
}

impl Destinations {
    pub(super) fn all(&self) -> Arc<BTreeMap<Name, Arc<Destination>>> {
        self.0.read().clone()
    }

    pub(super) fn get(&self, name: &Name) -> Option<Arc<Destination>> {
        self.0.read().get(name).cloned()
    }

    /// # Errors
    /// The destination was not added.
    pub(super) fn require(&self, name: &Name) -> Result<Arc<Destination>, Error> {
        self.get(name).ok_or_else(|| Error::Unusable(format!("destination `{name}` is unknown to the store")))
    }

    pub(super) fn add(&self, name: Name, id: i32) {
        let mut all = self.0.write();
        if !all.contains_key(&name) {
            let destination = Destination {
                name: name.clone(),
                id,
                max_backlog: AtomicU64::new(u64::MAX),
                stats: Mutex::default(),
                leases: Mutex::default(),
                released: Mutex::default(),
                wakeup: Notify::new(),
            };
            Arc::make_mut(&mut all).insert(name, Arc::new(destination));
        }
    }

    pub(super) fn remove(&self, name: &Name) -> Option<Arc<Destination>> {
        Arc::make_mut(&mut self.0.write()).remove(name)
    }
}

impl Destination {
    pub(super) fn set_max_backlog(&self, max_backlog: Option<u64>) {
        self.max_backlog.store(max_backlog.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether it has reached `max_backlog`, with `added` more than its statistics say.
    pub(super) fn is_full(&self, added: u64) -> bool {
        self.stats.lock().undelivered.saturating_add(added) >= self.max_backlog.load(Ordering::Relaxed)
    }
}
