//! Which events that may make capacity less are not settled at which destinations, by their targets.
//!
//! Most targets have none, so a store that has none at all finds that out at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use super::lane::Group;
use super::numbers::Map;
use crate::domain::name::Name;

/// The unsettled events that may make capacity less. `T` is what a store knows a target by.
#[derive(Debug)]
pub struct Shrinking<T> {
    events: Map<i64, Open<T>>,
    of_target: HashMap<T, Vec<i64>>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Open<T> {
    /// Its target.
    pub target: T,
    /// The store's number of the target when the event was written.
    pub group: Group,
    /// Destinations that have not settled it.
    pub left: Vec<Name>,
}

impl<T> Default for Shrinking<T> {
    fn default() -> Self {
        Self { events: Map::default(), of_target: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Shrinking<T> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds an event, or destinations of one that is known.
    pub fn add(&mut self, seq: i64, open: Open<T>) {
        // Those of a target come in their order, but for what is redriven.
        let seqs = self.of_target.entry(open.target.clone()).or_default();
        if let Err(at) = seqs.binary_search(&seq) {
            seqs.insert(at, seq);
        }
        match self.events.entry(seq) {
            Entry::Vacant(entry) => drop(entry.insert(open)),
            Entry::Occupied(mut entry) => entry.get_mut().left.extend(open.left),
        }
    }

    /// Those of a target, in their order.
    pub fn of(&self, target: &T) -> impl Iterator<Item = (i64, &Open<T>)> {
        let seqs = self.of_target.get(target).into_iter().flatten();
        seqs.filter_map(|seq| self.events.get(seq).map(|open| (*seq, open)))
    }

    /// One of them by its number.
    pub fn get(&self, seq: i64) -> Option<&Open<T>> {
        self.events.get(&seq)
    }

    /// A destination has settled the event, if it is one of these.
    pub fn settled(&mut self, seq: i64, destination: &Name) {
        let Some(open) = self.events.get_mut(&seq) else { return };
        open.left.retain(|name| name != destination);
        if open.left.is_empty() {
            self.remove(seq);
        }
    }

    /// Nobody is to send the event any more.
    pub fn remove(&mut self, seq: i64) {
        let Some(open) = self.events.remove(&seq) else { return };
        if let Some(seqs) = self.of_target.get_mut(&open.target) {
            seqs.retain(|other| *other != seq);
            if seqs.is_empty() {
                self.of_target.remove(&open.target);
            }
        }
    }

    /// Takes over what a batch has added.
    pub fn merge(&mut self, added: Self) {
        added.events.into_iter().for_each(|(seq, open)| self.add(seq, open));
    }
}
