//! The index in memory: the id of each target, the targets of each alert, due times, the recheck queue, what targets
//! wait for, and recently used states.
//!
//! A command writes to an [`IndexOverlay`], which is merged after the commit and dropped if the command or the
//! commit fails, so the index never has more than the file.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};
use smallvec::SmallVec;

use super::recheck_queue::{RecheckChange, RecheckQueue};
use crate::domain::alert_key::AlertKey;
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::fast_map;
use crate::store::sqlite::codec::tracked_events::TargetEvents;
use crate::store::tracking::{Successes, Watch};

/// A keyed hash of a target's key or an alert's identity. Its 128 bits and secret key exclude collisions in
/// practice, also deliberate ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint(pub [u8; 16]);

/// Computes fingerprints with the secret key of the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fingerprints(pub [u8; 16]);

impl Fingerprints {
    pub(crate) fn target(&self, key: &TargetKey) -> Fingerprint {
        self.hash_parts(&[b"t", key.as_str().as_bytes()])
    }

    pub(crate) fn alert(&self, key: &AlertKey) -> Fingerprint {
        self.hash_parts(&[b"a", key.source.as_str().as_bytes(), key.fingerprint.as_bytes()])
    }

    /// The alerts of a state, sorted and without duplicates.
    pub(crate) fn alerts(&self, state: &TargetState) -> Vec<Fingerprint> {
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
pub(crate) struct IdentityHasher(u64);

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
pub(crate) type Ids = SmallVec<[i64; 2]>;
pub(crate) type Map<V> = HashMap<Fingerprint, V, BuildHasherDefault<IdentityHasher>>;

/// A target with its decoded state.
#[derive(Debug)]
pub(crate) struct CachedTarget {
    pub key: TargetKey,
    pub state: Arc<TargetState>,
    pub events: TargetEvents,
}

/// Maximum number of states in each of the two generations of the cache. It has states that were used more
/// than once.
const MAX_HOT_TARGETS: usize = 4096;

/// The index of what is committed.
#[derive(Default)]
pub(crate) struct Index {
    targets: Map<i64>,
    /// The first target of each alert. The few alerts of more than one target are also in `shared`.
    alerts: Map<i64>,
    shared: Map<Ids>,
    due: BTreeSet<(Time, i64)>,
    recheck_queue: RecheckQueue,
    /// The changes of deliveries for which targets wait; only those that wait for some.
    watches: fast_map::Map<i64, Watch>,
    /// Those of them that wait for a destination: few, and asked for after each success.
    awaiting_destination: fast_map::Set<i64>,
    hot: fast_map::Map<i64, Arc<CachedTarget>>,
    cold: fast_map::Map<i64, Arc<CachedTarget>>,
}

/// A change of a target in the index.
#[derive(Debug)]
pub(crate) struct TargetChange<'a> {
    pub id: i64,
    pub hash: Fingerprint,
    /// The new state; `None` deletes the target.
    pub state: Option<Arc<CachedTarget>>,
    /// Alerts of the state before that the new one does not have.
    pub removed_alerts: &'a [Fingerprint],
    /// Alerts of the new state that the one before does not have.
    pub added_alerts: &'a [Fingerprint],
    /// The due time before and after.
    pub due: (Option<Time>, Option<Time>),
}

/// The overlays on top of the index, the newest first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layers<'a>([Option<&'a IndexOverlay>; 2]);

impl<'a> Layers<'a> {
    /// What is committed.
    pub(crate) const NONE: Layers<'static> = Layers([None, None]);

    pub(crate) const fn two(newer: &'a IndexOverlay, older: &'a IndexOverlay) -> Self {
        Self([Some(newer), Some(older)])
    }

    fn find<T: ?Sized>(self, get: impl FnMut(&'a IndexOverlay) -> Option<&'a T>) -> Option<&'a T> {
        self.0.into_iter().flatten().find_map(get)
    }
}

/// Uncommitted changes of the index.
#[derive(Debug, Default)]
pub(crate) struct IndexOverlay {
    targets: Map<Option<i64>>,
    alerts: Map<Ids>,
    states: fast_map::Map<i64, Option<Arc<CachedTarget>>>,
    /// The committed due time, and the new one.
    due: fast_map::Map<i64, (Option<Time>, Option<Time>)>,
    recheck_changes: Vec<RecheckChange>,
    watches: fast_map::Map<i64, Watch>,
}

impl Index {
    /// Sets the targets that depend on the controls when the store is opened.
    pub(crate) fn restore_recheck_queue(&mut self, all: BTreeSet<i64>, now: Time) {
        self.recheck_queue.restore(all, now);
    }

    /// Sets what a target waits for when the store is opened. It is processed, because changes while the store was
    /// closed are unknown.
    pub(crate) fn restore_watch(&mut self, id: i64, watch: Watch, now: Time) {
        if watch.awaits_delivery || watch.awaits_destination() {
            self.restore_recheck(id, now);
        }
        self.put_watch(id, watch);
    }

    fn put_watch(&mut self, id: i64, watch: Watch) {
        match watch.awaits_destination() {
            true => drop(self.awaiting_destination.insert(id)),
            false => drop(self.awaiting_destination.remove(&id)),
        }
        match watch.is_empty() {
            true => drop(self.watches.remove(&id)),
            false => drop(self.watches.insert(id, watch)),
        }
    }

    /// Adds a target for which a delivery has changed when the store is opened.
    pub(crate) fn restore_recheck(&mut self, id: i64, now: Time) {
        self.recheck_queue.apply(RecheckChange::DeliveryChanged(id, now));
    }

    /// What a target waits for.
    pub(crate) fn watch<'a>(&'a self, id: i64, layers: Layers<'a>) -> Option<&'a Watch> {
        layers.find(|overlay| overlay.watches.get(&id)).or_else(|| self.watches.get(&id))
    }

    /// Whether a delivery has changed for the target.
    pub(crate) fn has_changed_delivery(&self, id: i64, layers: Layers<'_>) -> bool {
        let is_staged = |overlay: &'_ IndexOverlay| {
            let changed = |change: &RecheckChange| matches!(change, RecheckChange::DeliveryChanged(other, _) if *other == id);
            overlay.recheck_changes.iter().any(changed)
        };
        self.recheck_queue.has_changed_delivery(id) || layers.0.into_iter().flatten().any(is_staged)
    }

    /// Calls to a destination have succeeded: the targets that wait for that have to be processed.
    pub(crate) fn destination_succeeded(&mut self, destination: &Name, successes: Successes, now: Time) {
        let awaits =
            |id: &&i64| self.watches.get(id).is_some_and(|watch| watch.awaits(destination, successes));
        let waiting: Vec<i64> = self.awaiting_destination.iter().filter(awaits).copied().collect();
        for id in waiting {
            self.recheck_queue.apply(RecheckChange::DeliveryChanged(id, now));
        }
    }

    /// Adds a stored target when the store is opened.
    pub(crate) fn restore(&mut self, id: i64, hash: Fingerprint, due: Option<Time>, alerts: &[u8]) {
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
    pub(crate) fn reserve(&mut self, targets: usize) {
        self.targets.reserve(targets);
        self.alerts.reserve(targets);
    }

    pub(crate) fn target(&self, hash: Fingerprint, layers: Layers<'_>) -> Option<i64> {
        match layers.find(|overlay| overlay.targets.get(&hash)) {
            Some(id) => *id,
            None => self.targets.get(&hash).copied(),
        }
    }

    pub(crate) fn alert_targets(&self, hash: Fingerprint, layers: Layers<'_>) -> Ids {
        layers.find(|overlay| overlay.alerts.get(&hash)).cloned().unwrap_or_else(|| self.alert(hash))
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

    /// The state, if it is cached. `Some(None)` if an uncommitted change has deleted it.
    pub(crate) fn state(&self, id: i64, layers: Layers<'_>) -> Option<Option<Arc<CachedTarget>>> {
        if let Some(state) = layers.find(|overlay| overlay.states.get(&id)) {
            return Some(state.clone());
        }
        let known = self.hot.get(&id).or_else(|| self.cold.get(&id))?;
        Some(Some(known.clone()))
    }

    /// Caches a state.
    pub(crate) fn cache(&mut self, id: i64, known: Arc<CachedTarget>) {
        if self.hot.len() >= MAX_HOT_TARGETS {
            self.cold = std::mem::take(&mut self.hot);
        }
        self.hot.insert(id, known);
    }

    /// Takes a target whose row cannot be read out of the due work, also of that which a change of the controls causes.
    pub(crate) fn remove_due(&mut self, id: i64) {
        self.due.retain(|(_, other)| *other != id);
        self.recheck_queue.apply(RecheckChange::Forget(id));
    }

    /// Up to `max` targets to process: those that are due, then those that have to be rechecked.
    pub(crate) fn due(&self, now: Time, max: usize) -> Vec<i64> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now);
        let mut found: Vec<i64> = due.take(max).map(|&(_, id)| id).collect();
        let timely: fast_map::Set<i64> = found.iter().copied().collect();
        let pending = self.recheck_queue.pending().filter(|id| !timely.contains(id));
        found.extend(pending.take(max - timely.len()));
        found
    }

    /// When the next target is due; in the past if a recheck is pending.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|&(due, _)| due).into_iter().chain(self.recheck_queue.since()).min()
    }

    /// Applies the changes of a committed batch. Returns the states that are not cached.
    pub(crate) fn merge(&mut self, overlay: IndexOverlay) -> Vec<Arc<CachedTarget>> {
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
        for (id, watch) in overlay.watches {
            self.put_watch(id, watch);
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
    pub(crate) fn push_recheck_change(&mut self, change: RecheckChange) {
        self.recheck_changes.push(change);
    }

    /// Sets what a target waits for.
    pub(crate) fn set_watch(&mut self, index: &Index, below: &Self, id: i64, watch: Watch) {
        if !watch.is_empty() || index.watch(id, Layers::two(self, below)).is_some() {
            self.watches.insert(id, watch);
        }
    }

    /// Puts a changed target. `below` has the changes that this overlay is on top of.
    pub(crate) fn put(&mut self, index: &Index, below: &Self, change: TargetChange<'_>) {
        let TargetChange { id, hash, state, removed_alerts, added_alerts, due } = change;
        self.targets.insert(hash, state.as_ref().map(|_| id));
        for (alerts, is_added) in [(removed_alerts, false), (added_alerts, true)] {
            for &alert in alerts {
                let mut ids = index.alert_targets(alert, Layers::two(self, below));
                ids.retain(|other| *other != id);
                if is_added {
                    ids.push(id);
                }
                self.alerts.insert(alert, ids);
            }
        }
        self.due.entry(id).or_insert((due.0, None)).1 = due.1;
        self.states.insert(id, state);
    }

    /// Adds changes that are on top of these.
    pub(crate) fn absorb(&mut self, newer: Self) {
        self.targets.extend(newer.targets);
        self.alerts.extend(newer.alerts);
        self.states.extend(newer.states);
        for (id, (before, after)) in newer.due {
            self.due.entry(id).or_insert((before, None)).1 = after;
        }
        self.recheck_changes.extend(newer.recheck_changes);
        self.watches.extend(newer.watches);
    }
}
