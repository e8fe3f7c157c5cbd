//! The lanes of all destinations, and how their workers are woken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::Notify;

use super::Backlog;
use super::lane::Lane;
use crate::domain::name::Name;
use crate::domain::time::Time;

/// One destination's lane, shared between its worker and the store.
#[derive(Debug)]
pub struct Outlet {
    /// The destination.
    pub name: Name,
    /// The store's number of it.
    pub number: i64,
    /// The most deliveries that it may have undelivered.
    most: AtomicU64,
    lane: Mutex<Lane>,
    woken: Notify,
}

/// The outlets by their names, as they are at the moment. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Outlets(Arc<RwLock<Arc<ByName>>>);

type ByName = BTreeMap<Name, Arc<Outlet>>;

impl Outlets {
    /// These outlets.
    pub fn new(outlets: ByName) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(outlets))))
    }

    /// All of them.
    pub fn all(&self) -> Arc<ByName> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one of a destination.
    pub fn get(&self, destination: &Name) -> Option<Arc<Outlet>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(destination).cloned()
    }

    /// Adds one; the one that was there stays.
    pub fn attach(&self, outlet: Arc<Outlet>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut all).entry(outlet.name.clone()).or_insert(outlet);
    }

    /// Takes one away.
    pub fn detach(&self, destination: &Name) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut all).remove(destination);
    }
}

impl Outlet {
    /// An outlet with a lane.
    pub fn new(name: Name, number: i64, lane: Lane) -> Self {
        let most = AtomicU64::new(u64::MAX);
        Self { name, number, most, lane: Mutex::new(lane), woken: Notify::new() }
    }

    /// Sets how many deliveries may be undelivered here.
    pub fn bound(&self, most: Option<u64>) {
        self.most.store(most.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether there is no room for one more, with so many more that are about to be committed.
    pub fn is_full(&self, more: u64) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        most != u64::MAX && self.lane(|lane| lane.left()).saturating_add(more) >= most
    }

    /// Looks at the lane. Never held across IO.
    pub fn lane<R>(&self, look: impl FnOnce(&mut Lane) -> R) -> R {
        look(&mut self.lane.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that something may be claimable. Kept for a worker that is not waiting yet.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Completes when something may be claimable: after [`Outlet::wake`], or when a delivery that waits
    /// is due. `now` is the store's time.
    pub async fn wait(&self, now: Time) {
        let woken = self.woken.notified();
        match self.lane(|lane| lane.next_due()) {
            None => woken.await,
            Some(due) => {
                // A lapse of nothing would spin where the clocks differ by less than a tick.
                let lapse = due.since(now).max(std::time::Duration::from_millis(1));
                tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep(lapse) => {}
                }
            }
        }
    }

    /// Counts by state.
    pub fn backlog(&self) -> Backlog {
        self.lane(|lane| lane.backlog())
    }
}
