//! The index in memory: the id of each target, the targets of each alert, due times, the recheck queue, and
//! recently used states.
//!
//! A batch writes to an [`IndexOverlay`], which is merged after the commit and dropped if it fails, so the
//! index never has more than the file.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};
use smallvec::SmallVec;

use super::compensation::FiringEvents;
use super::recheck_queue::{self, RecheckQueue};
use crate::domain::alert_key::AlertKey;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::fast_map;

/// A keyed hash of a target's key or an alert's identity. Its 128 bits and secret key exclude collisions in
/// practice, also deliberate ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Fingerprint(pub [u8; 16]);

/// Computes fingerprints with the secret key of the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fingerprints(pub [u8; 16]);

impl Fingerprints {
    pub(super) fn target(&self, key: &TargetKey) -> Fingerprint {
        self.hash_parts(&[b"t", key.as_str().as_bytes()])
    }

    pub(super) fn alert(&self, key: &AlertKey) -> Fingerprint {
        self.hash_parts(&[b"a", key.source.as_str().as_bytes(), key.fingerprint.as_bytes()])
    }

    /// The alerts of a state, sorted and without duplicates.
    pub(super) fn alerts(&self, state: &TargetState) -> Vec<Fingerprint> {
        let mut alerts: Vec<Fingerprint> = state.alerts().map(|alert| self.alert(alert)).collect();
        alerts.sort_unstable();
        alerts.dedup();
        alerts
    }

    fn hash_parts(&self, parts: &[&[u8]]) -> Fingerprint {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        for part in parts {
            hasher.write(part);
            hasher.write(&[0]);
        }
        Fingerprint(hasher.finish128().as_bytes())
    }
}

/// A hasher for fingerprints, which are hashes already.
#[derive(Default)]
pub(super) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn write(&mut self, bytes: &[u8]) {
        for (at, byte) in bytes.iter().take(8).enumerate() {
            self.0 ^= u64::from(*byte) << (8 * at);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Target ids; nearly always one.
pub(super) type Ids = SmallVec<[i64; 2]>;
pub(super) type Map<V> = HashMap<Fingerprint, V, BuildHasherDefault<IdentityHasher>>;

/// A target with its decoded state.
#[derive(Debug)]
pub(super) struct CachedTarget {
    pub key: TargetKey,
    pub state: Arc<TargetState>,
    pub firing: FiringEvents,
}

/// Maximum number of states in each of the two generations of the cache. It has states that were used more
/// than once.
const MAX_HOT_TARGETS: usize = 4096;

/// The index of what is committed.
#[derive(Default)]
pub(super) struct Index {
    targets: Map<i64>,
    /// The first target of each alert. The few alerts of more than one target are also in `shared`.
    alerts: Map<i64>,
    shared: Map<Ids>,
    due: BTreeSet<(Time, i64)>,
    recheck_queue: RecheckQueue,
    hot: fast_map::Map<i64, Arc<CachedTarget>>,
    cold: fast_map::Map<i64, Arc<CachedTarget>>,
}

/// The uncommitted changes of a batch.
#[derive(Default)]
pub(super) struct IndexOverlay {
    targets: Map<Option<i64>>,
    alerts: Map<Ids>,
    states: fast_map::Map<i64, Option<Arc<CachedTarget>>>,
    /// The committed due time, and the new one.
    due: fast_map::Map<i64, (Option<Time>, Option<Time>)>,
    recheck_changes: Vec<recheck_queue::RecheckChange>,
}

impl Index {
    /// Sets the targets that depend on the controls when the store is opened.
    pub(super) fn restore_recheck_queue(&mut self, all: BTreeSet<i64>, now: Time) {
        self.recheck_queue = RecheckQueue::restore(all, now);
    }

    /// Adds a stored target when the store is opened.
    pub(super) fn restore(&mut self, id: i64, hash: Fingerprint, due: Option<Time>, alerts: &[u8]) {
        self.targets.insert(hash, id);
        self.due.extend(due.map(|due| (due, id)));
        for alert in alerts.as_chunks::<16>().0 {
            let alert = Fingerprint(*alert);
            let mut ids = self.alert(alert);
            ids.push(id);
            self.set_alert(alert, ids);
        }
    }

    /// Reserves capacity for this number of targets.
    pub(super) fn reserve(&mut self, targets: usize) {
        self.targets.reserve(targets);
        self.alerts.reserve(targets);
    }

    pub(super) fn target(&self, hash: Fingerprint, overlay: &IndexOverlay) -> Option<i64> {
        match overlay.targets.get(&hash) {
            Some(id) => *id,
            None => self.targets.get(&hash).copied(),
        }
    }

    pub(super) fn alert_targets(&self, hash: Fingerprint, overlay: &IndexOverlay) -> Ids {
        overlay.alerts.get(&hash).cloned().unwrap_or_else(|| self.alert(hash))
    }

    fn alert(&self, hash: Fingerprint) -> Ids {
        match self.shared.get(&hash) {
            Some(ids) => ids.clone(),
            None => self.alerts.get(&hash).copied().into_iter().collect(),
        }
    }

    fn set_alert(&mut self, hash: Fingerprint, ids: Ids) {
        match ids[..] {
            [] | [_] => drop(self.shared.remove(&hash)),
            _ => drop(self.shared.insert(hash, ids.clone())),
        }
        match ids.first() {
            None => drop(self.alerts.remove(&hash)),
            Some(&id) => drop(self.alerts.insert(hash, id)),
        }
    }

    /// The state, if it is cached. `Some(None)` if the batch has deleted it.
    pub(super) fn state(&self, id: i64, overlay: &IndexOverlay) -> Option<Option<Arc<CachedTarget>>> {
        if let Some(state) = overlay.states.get(&id) {
            return Some(state.clone());
        }
        let known = self.hot.get(&id).or_else(|| self.cold.get(&id))?;
        Some(Some(known.clone()))
    }

    /// Caches a state.
    pub(super) fn cache(&mut self, id: i64, known: Arc<CachedTarget>) {
        if self.hot.len() >= MAX_HOT_TARGETS {
            self.cold = std::mem::take(&mut self.hot);
        }
        self.hot.insert(id, known);
    }

    /// Up to `max` targets to process: those that are due, then those that have to be rechecked.
    pub(super) fn due(&self, now: Time, max: usize) -> Vec<i64> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now);
        let mut found: Vec<i64> = due.take(max).map(|&(_, id)| id).collect();
        let timely: fast_map::Set<i64> = found.iter().copied().collect();
        let pending = self.recheck_queue.pending().filter(|id| !timely.contains(id));
        found.extend(pending.take(max - timely.len()));
        found
    }

    /// When the next target is due; in the past if a recheck is pending.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|&(due, _)| due).into_iter().chain(self.recheck_queue.since()).min()
    }

    /// Applies the changes of a committed batch. Returns the states that are not cached.
    pub(super) fn merge(&mut self, overlay: IndexOverlay) -> Vec<Arc<CachedTarget>> {
        let mut uncached = Vec::new();
        for (hash, id) in overlay.targets {
            match id {
                Some(id) => drop(self.targets.insert(hash, id)),
                None => drop(self.targets.remove(&hash)),
            }
        }
        for (hash, ids) in overlay.alerts {
            self.set_alert(hash, ids);
        }
        for (id, (before, after)) in overlay.due {
            if before != after {
                if let Some(before) = before {
                    self.due.remove(&(before, id));
                }
                self.due.extend(after.map(|after| (after, id)));
            }
        }
        for change in overlay.recheck_changes {
            self.recheck_queue.apply(change);
        }
        for (id, known) in overlay.states {
            // A new state is freed while it is still in the processor's cache: in a storm nearly all states
            // are new, and most are not used again for a while.
            let before = [self.cold.remove(&id), self.hot.remove(&id)];
            match known {
                Some(known) if before.iter().any(Option::is_some) => self.cache(id, known),
                known => uncached.extend(known),
            }
            uncached.extend(before.into_iter().flatten());
        }
        uncached
    }
}

impl IndexOverlay {
    /// Adds a change of the recheck queue.
    pub(super) fn push_recheck_change(&mut self, change: recheck_queue::RecheckChange) {
        self.recheck_changes.push(change);
    }

    /// Sets a target's new state with its alerts, sorted; `None` deletes the target. `before` is the state
    /// that is replaced.
    pub(super) fn put(
        &mut self,
        index: &Index,
        hashes: &Fingerprints,
        id: i64,
        hash: Fingerprint,
        before: &TargetState,
        after: Option<(Arc<CachedTarget>, Vec<Fingerprint>)>,
    ) {
        self.targets.insert(hash, after.as_ref().map(|_| id));
        let (after, alerts) = after.unzip();
        let alerts = alerts.unwrap_or_default();
        for gone in before.alerts().map(|alert| hashes.alert(alert)) {
            // A target can have as many alerts as a notification, hence the binary search.
            if alerts.binary_search(&gone).is_err() {
                let mut ids = index.alert_targets(gone, self);
                ids.retain(|other| *other != id);
                self.alerts.insert(gone, ids);
            }
        }
        for alert in alerts {
            let mut ids = index.alert_targets(alert, self);
            if !ids.contains(&id) {
                ids.push(id);
                self.alerts.insert(alert, ids);
            }
        }
        let due = after.as_ref().and_then(|known| known.state.due());
        self.due.entry(id).or_insert((before.due(), None)).1 = due;
        self.states.insert(id, after);
    }
}
