//! The lanes of all destinations, and how their workers are woken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::Backlog;
use super::lane::Lane;
use crate::domain::name::Name;
use crate::domain::time::Time;

/// One destination's lane, shared between its worker and the store.
#[derive(Debug)]
pub(super) struct LaneHandle {
    /// The destination.
    pub name: Name,
    /// The store's number of it.
    pub id: i64,
    /// The most deliveries that it may have undelivered.
    max_backlog: AtomicU64,
    lane: Mutex<Lane>,
    wakeup: Notify,
}

/// The outlets by their names, as they are at the moment. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct LaneHandles(Arc<RwLock<Arc<LanesByName>>>);

type LanesByName = BTreeMap<Name, Arc<LaneHandle>>;

impl LaneHandles {
    /// These outlets.
    pub(super) fn new(lanes: LanesByName) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(lanes))))
    }

    /// All of them.
    pub(super) fn all(&self) -> Arc<LanesByName> {
        self.0.read().clone()
    }

    /// The one of a destination.
    pub(super) fn get(&self, destination: &Name) -> Option<Arc<LaneHandle>> {
        self.0.read().get(destination).cloned()
    }

    /// Adds one; the one that was there stays.
    pub(super) fn add(&self, handle: Arc<LaneHandle>) {
        let mut all = self.0.write();
        Arc::make_mut(&mut all).entry(handle.name.clone()).or_insert(handle);
    }

    /// Takes one away.
    pub(super) fn remove(&self, destination: &Name) {
        let mut all = self.0.write();
        Arc::make_mut(&mut all).remove(destination);
    }
}

impl LaneHandle {
    /// An outlet with a lane.
    pub(super) fn new(name: Name, id: i64, lane: Lane) -> Self {
        let max_backlog = AtomicU64::new(u64::MAX);
        Self { name, id, max_backlog, lane: Mutex::new(lane), wakeup: Notify::new() }
    }

    /// Sets how many deliveries may be undelivered here.
    pub(super) fn set_max_backlog(&self, max_backlog: Option<u64>) {
        self.max_backlog.store(max_backlog.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether there is no room for one more, with so many more that are about to be committed.
    pub(super) fn is_full(&self, more: u64) -> bool {
        let max_backlog = self.max_backlog.load(Ordering::Relaxed);
        max_backlog != u64::MAX
            && self.with_lane(|lane| lane.undelivered()).saturating_add(more) >= max_backlog
    }

    /// Looks at the lane. Never held across IO.
    pub(super) fn with_lane<R>(&self, f: impl FnOnce(&mut Lane) -> R) -> R {
        f(&mut self.lane.lock())
    }

    /// Says that something may be claimable. Kept for a worker that is not waiting yet.
    pub(super) fn wake(&self) {
        self.wakeup.notify_one();
    }

    /// Completes when something may be claimable: after [`LaneHandle::wake`], or when a delivery that waits
    /// is due. `now` is the store's time.
    pub(super) async fn wait(&self, now: Time) {
        let notified = self.wakeup.notified();
        match self.with_lane(|lane| lane.next_due()) {
            None => notified.await,
            Some(due) => {
                // A lapse of nothing would spin where the clocks differ by less than a tick.
                let delay = due.since(now).max(std::time::Duration::from_millis(1));
                tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep(delay) => {}
                }
            }
        }
    }

    /// Counts by state.
    pub(super) fn backlog(&self) -> Backlog {
        self.with_lane(|lane| lane.backlog())
    }
}
