//! The destinations to which this process delivers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::fast_map::Map;
use crate::store::{DestinationStats, Error, EventSeq, Lease};

mod counts;
mod read;
mod scan_floor;
mod snapshot;

pub(super) use counts::{Class, CountChange, Counted, Counts};
pub(super) use read::count;
pub(super) use scan_floor::ScanFloor;
pub(super) use snapshot::Snapshot;

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
    pub counts: Mutex<Counts>,
    /// The deliveries that the worker of this process has claimed.
    pub leases: Mutex<Map<EventSeq, HeldLease>>,
    /// What was released and is still in the database.
    pub pending_release: Mutex<PendingRelease>,
    /// Where claims begin to look.
    pub scan_floor: Mutex<ScanFloor>,
    /// When the next delivery becomes claimable, as of the last claim.
    pub next_due: Mutex<Option<Time>>,
    /// Before this time, by [`since_boot`](crate::store::clock::since_boot), the ages of deliveries are not checked.
    pub next_expiry_check: Mutex<Duration>,
    /// It is not configured any more: its deliveries are given up.
    pub is_retiring: AtomicBool,
    /// While it is retiring: another replica delivers to it.
    pub is_served_elsewhere: AtomicBool,
    /// A delivery may have become claimable.
    pub wakeup: Notify,
}

/// A lease of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldLease {
    pub token: u64,
    /// Whether it is renewed until the delivery is settled.
    pub is_renewed: bool,
}

/// Leases of a worker that has ended.
#[derive(Debug, Default)]
pub(super) struct PendingRelease {
    pub leases: Vec<Lease>,
    /// All other deliveries are due at once, too.
    pub all_due: bool,
}

impl PendingRelease {
    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty() && !self.all_due
    }
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
                counts: Mutex::default(),
                leases: Mutex::default(),
                pending_release: Mutex::default(),
                scan_floor: Mutex::default(),
                next_due: Mutex::default(),
                next_expiry_check: Mutex::default(),
                is_retiring: AtomicBool::default(),
                is_served_elsewhere: AtomicBool::default(),
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
        self.stats().undelivered.saturating_add(added) >= self.max_backlog.load(Ordering::Relaxed)
    }

    pub(super) fn stats(&self) -> DestinationStats {
        self.counts.lock().stats()
    }

    /// The number of unsettled deliveries for which this process is responsible.
    pub(super) fn undelivered(&self) -> u64 {
        let is_elsewhere = self.is_served_elsewhere.load(Ordering::Relaxed);
        if is_elsewhere { 0 } else { self.stats().undelivered }
    }
}
