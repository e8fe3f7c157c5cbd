//! Lane handles: the lane of each destination with its wake-up and backlog limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::lane::Lane;
use super::tracking::Successes;
use super::{DestinationStats, Error, Retries};
use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};

/// The longest sleep before the store's clock is read again: timers do not count the time in which the machine is
/// suspended, and the store's clock does.
pub(crate) const MAX_SLEEP: Duration = Duration::from_secs(5);

/// The lane of a destination, shared by its worker and the store.
#[derive(Debug)]
pub(super) struct LaneHandle {
    /// The destination's name.
    pub name: Name,
    /// The destination's id in the store.
    pub id: i64,
    /// The maximum number of undelivered events; `u64::MAX` for no limit.
    max_backlog: AtomicU64,
    lane: Mutex<Lane>,
    /// When a call has succeeded last, since the store was opened.
    last_success: Mutex<Option<ClockReading>>,
    wakeup: Notify,
}

/// All lane handles by destination. Cheap to clone; clones share the map.
#[derive(Debug, Clone, Default)]
pub(super) struct LaneHandles(Arc<RwLock<Arc<LanesByName>>>);

type LanesByName = BTreeMap<Name, Arc<LaneHandle>>;

impl LaneHandles {
    pub(super) fn new(lanes: LanesByName) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(lanes))))
    }

    /// A snapshot of the map.
    pub(super) fn all(&self) -> Arc<LanesByName> {
        self.0.read().clone()
    }

    pub(super) fn get(&self, destination: &Name) -> Option<Arc<LaneHandle>> {
        self.0.read().get(destination).cloned()
    }

    /// The handle of a destination.
    ///
    /// # Errors
    /// The store has no lane of this name.
    pub(super) fn require(&self, destination: &Name) -> Result<Arc<LaneHandle>, Error> {
        let unknown = || Error::Unusable(format!("unknown destination `{destination}`"));
        self.get(destination).ok_or_else(unknown)
    }

    /// The number of unsettled deliveries of all lanes.
    pub(super) fn undelivered(&self) -> u64 {
        self.all().values().map(|handle| handle.with_lane(|lane| lane.undelivered())).sum()
    }

    /// The deliveries of a lane; zeros if there is none.
    pub(super) fn stats(&self, destination: &Name) -> DestinationStats {
        let stats = |lane: &mut Lane| DestinationStats {
            backlog: lane.backlog(),
            undelivered: lane.undelivered(),
            oldest_unsettled: lane.oldest_unsettled(),
        };
        self.get(destination).map(|handle| handle.with_lane(stats)).unwrap_or_default()
    }

    /// Adds a handle, unless the destination has one.
    pub(super) fn add(&self, handle: Arc<LaneHandle>) {
        let mut all = self.0.write();
        Arc::make_mut(&mut all).entry(handle.name.clone()).or_insert(handle);
    }

    pub(super) fn remove(&self, destination: &Name) {
        let mut all = self.0.write();
        Arc::make_mut(&mut all).remove(destination);
    }
}

impl LaneHandle {
    /// A handle without a backlog limit.
    pub(super) fn new(name: Name, id: i64, lane: Lane) -> Self {
        let max_backlog = AtomicU64::new(u64::MAX);
        Self {
            name,
            id,
            max_backlog,
            lane: Mutex::new(lane),
            last_success: Mutex::default(),
            wakeup: Notify::new(),
        }
    }

    /// Sets the maximum number of undelivered events; `None` for no limit.
    pub(super) fn set_max_backlog(&self, max_backlog: Option<u64>) {
        self.max_backlog.store(max_backlog.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether the backlog limit is reached, counting `more` deliveries that are about to be committed.
    pub(super) fn is_full(&self, more: u64) -> bool {
        let max_backlog = self.max_backlog.load(Ordering::Relaxed);
        max_backlog != u64::MAX
            && self.with_lane(|lane| lane.undelivered()).saturating_add(more) >= max_backlog
    }

    /// Runs `f` with the lane locked. `f` must not do IO.
    pub(super) fn with_lane<R>(&self, f: impl FnOnce(&mut Lane) -> R) -> R {
        f(&mut self.lane.lock())
    }

    /// When a call has succeeded last, since the store was opened.
    pub(super) fn last_success(&self) -> Option<ClockReading> {
        *self.last_success.lock()
    }

    /// Calls have succeeded, the last of them then.
    pub(super) fn add_successes(&self, last: ClockReading) -> Successes {
        let mut last_success = self.last_success.lock();
        let before = last_success.map(|success| success.now);
        *last_success = ClockReading::later(*last_success, Some(last));
        Successes { before, last: last.now }
    }

    /// Ends all leases.
    pub(super) fn release_claims(&self, retries: Retries) {
        self.with_lane(|lane| lane.release_claims(retries == Retries::DueNow));
        if retries == Retries::Keep {
            self.wake();
        }
    }

    /// Wakes the worker, since deliveries may be claimable. A wake-up is stored if the worker is not waiting yet.
    pub(super) fn wake(&self) {
        self.wakeup.notify_one();
    }

    /// Completes when deliveries may be claimable: after [`LaneHandle::wake`], or when a retry is due, or some time
    /// before. `now` is the store's time.
    pub(super) async fn wait(&self, now: Time) {
        let notified = self.wakeup.notified();
        match self.with_lane(|lane| lane.next_due()) {
            None => notified.await,
            Some(due) => {
                // At least a millisecond, so that the worker does not spin if the clocks differ by less than a tick.
                let delay = due.since(now).clamp(Duration::from_millis(1), MAX_SLEEP);
                tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep(delay) => {}
                }
            }
        }
    }
}
