//! The events that states list: what only the row of their target knows of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::phase::Phase;
use crate::domain::state::TargetState;
use crate::store::sqlite::codec::firing_events::{FiringEventRef, hash};
use crate::store::sqlite::codec::tracked_events::TrackedEvent;

/// An event that something refers to.
#[derive(Debug, Clone)]
pub(super) struct ListedEvent {
    pub target: i64,
    /// All destinations.
    pub route: i64,
    /// The acting ones.
    pub acting: i64,
    /// `None` if unknown.
    pub id: Option<Arc<str>>,
    pub episode: Option<Arc<str>>,
    pub is_firing: bool,
    /// Whether a state refers to it; otherwise, an event that takes it back does.
    pub is_listed: bool,
}

/// The listed events by their numbers.
#[derive(Default)]
pub(super) struct Listed(BTreeMap<i64, ListedEvent>);

impl Listed {
    /// Adds the events of a target.
    pub(super) fn add(&mut self, target: i64, state: &TargetState, list: &[TrackedEvent]) {
        let with_hash = |text: &Arc<str>| (hash(text), text.clone());
        let ids: BTreeMap<u64, Arc<str>> = state.tracked_events().map(with_hash).collect();
        let rules = state.rules.values();
        let open = rules
            .flat_map(|rule| rule.episode.iter().chain(rule.closed.iter().map(|closed| &closed.episode)));
        let episodes: BTreeMap<u64, Arc<str>> = open.map(|episode| with_hash(&episode.id)).collect();
        for event in list {
            let listed = ListedEvent {
                target,
                route: event.route,
                acting: event.acting,
                id: ids.get(&event.id).cloned(),
                episode: episodes.get(&event.episode).cloned(),
                is_firing: event.phase == Phase::Firing,
                is_listed: true,
            };
            self.0.insert(event.seq.0, listed);
        }
    }

    /// An event takes another one back, of which something must be known also if it was deleted.
    pub(super) fn require(&mut self, target: i64, firing: &FiringEventRef) {
        self.0.entry(firing.seq.0).or_insert_with(|| ListedEvent {
            target,
            route: firing.route,
            acting: firing.route,
            id: None,
            episode: None,
            is_firing: true,
            is_listed: false,
        });
    }

    /// What states know of an event.
    pub(super) fn take(&mut self, seq: i64) -> Option<ListedEvent> {
        self.0.remove(&seq).filter(|listed| listed.is_listed)
    }

    /// Those that were not taken.
    pub(super) fn rest(&mut self) -> BTreeMap<i64, ListedEvent> {
        std::mem::take(&mut self.0)
    }
}
