//! The destinations to which this process delivers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::domain::name::Name;
use crate::domain::time::Time;
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
    /// Changes of `stats` since the current refresh has begun, which it may not have seen.
    since_refresh: Mutex<StatsChange>,
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
                since_refresh: Mutex::default(),
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

/// How a commit changes the statistics of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct StatsChange {
    pub pending: i64,
    pub retrying: i64,
    pub dead: i64,
}

impl StatsChange {
    fn add(&mut self, other: Self) {
        self.pending += other.pending;
        self.retrying += other.retrying;
        self.dead += other.dead;
    }

    fn apply(self, stats: &mut DestinationStats) {
        let backlog = &mut stats.backlog;
        backlog.pending = backlog.pending.saturating_add_signed(self.pending);
        backlog.retrying = backlog.retrying.saturating_add_signed(self.retrying);
        backlog.dead = backlog.dead.saturating_add_signed(self.dead);
        stats.undelivered = backlog.pending.saturating_add(backlog.retrying);
        if stats.undelivered == 0 {
            stats.oldest_unsettled = None;
        }
    }
}

impl Destination {
    /// A commit of this process has changed deliveries. `emitted_at` is that of new ones.
    pub(super) fn change_stats(&self, change: StatsChange, emitted_at: Option<Time>) {
        self.since_refresh.lock().add(change);
        let mut stats = self.stats.lock();
        change.apply(&mut stats);
        if stats.undelivered > 0 && stats.oldest_unsettled.is_none() {
            stats.oldest_unsettled = emitted_at;
        }
    }

    /// The deliveries are about to be counted.
    pub(super) fn begin_counting(&self) {
        *self.since_refresh.lock() = StatsChange::default();
    }

    /// The deliveries were counted. Changes since [`Self::begin_counting`] may count twice until the next time.
    pub(super) fn set_stats(&self, mut counted: DestinationStats) {
        self.since_refresh.lock().apply(&mut counted);
        *self.stats.lock() = counted;
    }

    pub(super) fn set_max_backlog(&self, max_backlog: Option<u64>) {
        self.max_backlog.store(max_backlog.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether it has reached `max_backlog`, with `added` more than its statistics say.
    pub(super) fn is_full(&self, added: u64) -> bool {
        self.stats.lock().undelivered.saturating_add(added) >= self.max_backlog.load(Ordering::Relaxed)
    }
}
