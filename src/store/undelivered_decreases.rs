//! Undelivered decreases per target: events that can decrease capacity and that some destination has not settled.
//!
//! Most stores have none most of the time, so [`UndeliveredDecreases::is_empty`] is the fast path.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use super::fast_map::Map;
use super::lane::Group;
use crate::domain::name::Name;

/// The undelivered decreases of all targets. `T` identifies a target in the store.
#[derive(Debug)]
pub(super) struct UndeliveredDecreases<T> {
    events: Map<i64, TrackedDecrease<T>>,
    by_target: HashMap<T, Vec<i64>>,
}

/// An undelivered decrease.
#[derive(Debug, Clone)]
pub(super) struct TrackedDecrease<T> {
    /// The event's target.
    pub target: T,
    /// The target's id in the store when the event was written.
    pub group: Group,
    /// Destinations that have not settled the event.
    pub pending_destinations: Vec<Name>,
}

impl<T> Default for UndeliveredDecreases<T> {
    fn default() -> Self {
        Self { events: Map::default(), by_target: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> UndeliveredDecreases<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds an event, or further destinations of a known event.
    pub(super) fn add(&mut self, seq: i64, decrease: TrackedDecrease<T>) {
        // Events of a target are added in order, except for redriven ones.
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

    /// The events of a target in ascending order.
    pub(super) fn for_target(&self, target: &T) -> impl Iterator<Item = (i64, &TrackedDecrease<T>)> {
        let seqs = self.by_target.get(target).into_iter().flatten();
        seqs.filter_map(|seq| self.events.get(seq).map(|decrease| (*seq, decrease)))
    }

    pub(super) fn get(&self, seq: i64) -> Option<&TrackedDecrease<T>> {
        self.events.get(&seq)
    }

    /// Removes the destination from the event; an event without pending destinations is removed.
    pub(super) fn mark_settled(&mut self, seq: i64, destination: &Name) {
        let Some(decrease) = self.events.get_mut(&seq) else { return };
        decrease.pending_destinations.retain(|name| name != destination);
        if decrease.pending_destinations.is_empty() {
            self.remove(seq);
        }
    }

    /// Removes the event for all destinations.
    pub(super) fn remove(&mut self, seq: i64) {
        let Some(decrease) = self.events.remove(&seq) else { return };
        if let Some(seqs) = self.by_target.get_mut(&decrease.target) {
            seqs.retain(|other| *other != seq);
            if seqs.is_empty() {
                self.by_target.remove(&decrease.target);
            }
        }
    }

    /// Merges the events that a committed batch has added.
    pub(super) fn merge(&mut self, added: Self) {
        added.events.into_iter().for_each(|(seq, decrease)| self.add(seq, decrease));
    }
}
