//! Which events that may make capacity less are not settled at which destinations, by their targets.
//!
//! Most targets have none, so a store that has none at all finds that out at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use super::fast_map::Map;
use super::lane::Group;
use crate::domain::name::Name;

/// The unsettled events that may make capacity less. `T` is what a store knows a target by.
#[derive(Debug)]
pub(super) struct UndeliveredDecreases<T> {
    events: Map<i64, TrackedDecrease<T>>,
    by_target: HashMap<T, Vec<i64>>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct TrackedDecrease<T> {
    /// Its target.
    pub target: T,
    /// The store's number of the target when the event was written.
    pub group: Group,
    /// Destinations that have not settled it.
    pub pending_destinations: Vec<Name>,
}

impl<T> Default for UndeliveredDecreases<T> {
    fn default() -> Self {
        Self { events: Map::default(), by_target: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> UndeliveredDecreases<T> {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds an event, or destinations of one that is known.
    pub(super) fn add(&mut self, seq: i64, decrease: TrackedDecrease<T>) {
        // Those of a target come in their order, but for what is redriven.
        let seqs = self.by_target.entry(decrease.target.clone()).or_default();
        if let Err(at) = seqs.binary_search(&seq) {
            seqs.insert(at, seq);
        }
        match self.events.entry(seq) {
            Entry::Vacant(entry) => drop(entry.insert(decrease)),
            Entry::Occupied(mut entry) => {
                entry.get_mut().pending_destinations.extend(decrease.pending_destinations);
            }
        }
    }

    /// Those of a target, in their order.
    pub(super) fn for_target(&self, target: &T) -> impl Iterator<Item = (i64, &TrackedDecrease<T>)> {
        let seqs = self.by_target.get(target).into_iter().flatten();
        seqs.filter_map(|seq| self.events.get(seq).map(|decrease| (*seq, decrease)))
    }

    /// One of them by its number.
    pub(super) fn get(&self, seq: i64) -> Option<&TrackedDecrease<T>> {
        self.events.get(&seq)
    }

    /// A destination has settled the event, if it is one of these.
    pub(super) fn mark_settled(&mut self, seq: i64, destination: &Name) {
        let Some(decrease) = self.events.get_mut(&seq) else { return };
        decrease.pending_destinations.retain(|name| name != destination);
        if decrease.pending_destinations.is_empty() {
            self.remove(seq);
        }
    }

    /// Nobody is to send the event any more.
    pub(super) fn remove(&mut self, seq: i64) {
        let Some(decrease) = self.events.remove(&seq) else { return };
        if let Some(seqs) = self.by_target.get_mut(&decrease.target) {
            seqs.retain(|other| *other != seq);
            if seqs.is_empty() {
                self.by_target.remove(&decrease.target);
            }
        }
    }

    /// Takes over what a batch has added.
    pub(super) fn merge(&mut self, added: Self) {
        added.events.into_iter().for_each(|(seq, decrease)| self.add(seq, decrease));
    }
}
