//! What a decision has read: the index entries of its keys, and the states of their targets.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::engine::States;
use crate::domain::target::TargetKey;
use crate::store::fast_map;
use crate::store::sqlite::committed::index::{
    CachedTarget, Fingerprint, Fingerprints, Ids, Index, Layers, Map,
};
use crate::store::{Keys, UnreadableStates};

/// The entries are in the order of the keys.
pub(crate) struct ReadSet {
    targets: Vec<(Fingerprint, Option<i64>)>,
    alerts: Vec<(Fingerprint, Ids)>,
    states: fast_map::Map<i64, Arc<CachedTarget>>,
}

/// Why a state was not loaded.
pub(crate) enum LoadError<E> {
    /// The row of this target cannot be read. `None` if its key cannot be read either.
    Unreadable(Option<TargetKey>),
    /// Nothing can be read now.
    Failed(E),
}

/// Why the states of the keys were not loaded.
pub(crate) enum ReadError<E> {
    /// Some rows cannot be read.
    Unreadable(UnreadableStates),
    /// Nothing can be read now.
    Failed(E),
}

impl ReadSet {
    /// Looks up the keys, without the states.
    pub(crate) fn look_up(keys: &Keys, hashes: Fingerprints, index: &Index, layers: Layers<'_>) -> Self {
        let target = |key| {
            let hash = hashes.target(key);
            (hash, index.target(hash, layers))
        };
        let alert = |key| {
            let hash = hashes.alert(key);
            (hash, index.alert_targets(hash, layers))
        };
        Self {
            targets: keys.targets.iter().map(target).collect(),
            alerts: keys.alerts.iter().map(alert).collect(),
            states: fast_map::Map::default(),
        }
    }

    /// Loads the states of the targets that exist. Names all keys that refer to a row that cannot be read.
    pub(crate) fn load<E>(
        mut self,
        keys: &Keys,
        mut load: impl FnMut(i64) -> Result<Option<Arc<CachedTarget>>, LoadError<E>>,
    ) -> Result<Self, ReadError<E>> {
        let mut unreadable = BTreeSet::new();
        let mut named = BTreeSet::new();
        let ids = self.alerts.iter().flat_map(|(_, ids)| ids.iter().copied());
        for id in ids.chain(self.targets.iter().filter_map(|(_, id)| *id)) {
            if self.states.contains_key(&id) || unreadable.contains(&id) {
                continue;
            }
            match load(id) {
                Ok(known) => drop(known.map(|known| self.states.insert(id, known))),
                Err(LoadError::Unreadable(target)) => {
                    unreadable.insert(id);
                    named.extend(target);
                }
                Err(LoadError::Failed(error)) => return Err(ReadError::Failed(error)),
            }
        }
        if unreadable.is_empty() {
            return Ok(self);
        }
        let targets = keys.targets.iter().zip(&self.targets);
        let targets = targets.filter(|(_, (_, id))| id.is_some_and(|id| unreadable.contains(&id)));
        let alerts = keys.alerts.iter().zip(&self.alerts);
        let alerts = alerts.filter(|(_, (_, ids))| ids.iter().any(|id| unreadable.contains(id)));
        Err(ReadError::Unreadable(UnreadableStates {
            targets: targets.map(|(key, _)| key.clone()).chain(named).collect(),
            alerts: alerts.map(|(alert, _)| alert.clone()).collect(),
        }))
    }

    /// The states for the engine.
    pub(crate) fn states(&self, keys: &Keys) -> States {
        let mut states = States::default();
        for (alert, (_, ids)) in keys.alerts.iter().zip(&self.alerts) {
            for known in ids.iter().filter_map(|id| self.states.get(id)) {
                states.alerts.entry(alert.clone()).or_default().push(known.key.clone());
                states.targets.insert(known.key.clone(), known.state.clone());
            }
        }
        for (key, (_, id)) in keys.targets.iter().zip(&self.targets) {
            if let Some(known) = id.as_ref().and_then(|id| self.states.get(id)) {
                states.targets.entry(key.clone()).or_insert_with(|| known.state.clone());
            }
        }
        // The engine takes the first of an alert's targets where any would do.
        states.alerts.values_mut().for_each(|targets| targets.sort_unstable());
        states
    }

    /// The targets that exist, with their states.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Arc<CachedTarget>> {
        self.states.values()
    }

    /// What was read, by the hash of the target's key; `None` for a target that does not exist.
    pub(crate) fn by_hash(&self, hashes: Fingerprints) -> Map<Option<(i64, Arc<CachedTarget>)>> {
        let known =
            |(id, known): (&i64, &Arc<CachedTarget>)| (hashes.target(&known.key), Some((*id, known.clone())));
        let mut read: Map<_> = self.targets.iter().map(|(hash, _)| (*hash, None)).collect();
        read.extend(self.states.iter().map(known));
        read
    }
}
