//! The list of a target's events whose delivery is still asked for: those that its state knows, since it tracks them or
//! they have to be taken back, and the `on_firing` events of its open episodes. An `on_resolved` event goes only to
//! destinations that received one of those that it compensates.
//!
//! The list is in the row of the target, which is written with every event anyway.

use std::sync::Arc;

use super::firing_events::{FiringEventRef, hash};
use super::varint;
use crate::domain::event::LegacyEvent;
use crate::domain::phase::Phase;
use crate::store::EventSeq;
use crate::store::fast_map::Map;

/// A list of more events is not searched from its beginning for each of them.
const MAX_LINEAR_SEARCH: usize = 8;

/// A listed event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrackedEvent {
    /// A hash of the event's id; 0 if that is unknown.
    pub id: u64,
    /// A hash of the episode's id; 0 if the event is about none.
    pub episode: u64,
    pub phase: Phase,
    pub seq: EventSeq,
    /// All destinations.
    pub route: i64,
    /// The acting ones.
    pub acting: i64,
}

/// The events of a target.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct TargetEvents {
    /// `None` if unknown, because its episodes are older than schema 3.
    pub list: Option<Vec<TrackedEvent>>,
    /// What the listed events did, if the state was written before schema 9.
    pub legacy: Arc<[LegacyEvent]>,
}

impl TargetEvents {
    /// No events.
    pub(crate) fn none() -> Self {
        Self { list: Some(Vec::new()), legacy: Arc::default() }
    }

    /// The listed event with this id.
    pub(crate) fn find(&self, id: &str) -> Option<&TrackedEvent> {
        let id = hash(id);
        self.list.iter().flatten().find(|event| event.id == id)
    }

    /// The listed events with these ids.
    pub(crate) fn find_all<'i>(
        &self,
        ids: impl Iterator<Item = &'i Arc<str>>,
    ) -> Vec<(&'i Arc<str>, TrackedEvent)> {
        let list = self.list.as_deref().unwrap_or_default();
        // The first event with an id counts.
        let by_id: Option<Map<u64, &TrackedEvent>> = (list.len() > MAX_LINEAR_SEARCH)
            .then(|| list.iter().rev().map(|event| (event.id, event)).collect());
        let find = |id: &str| match &by_id {
            Some(by_id) => by_id.get(&hash(id)).copied(),
            None => self.find(id),
        };
        ids.filter_map(|id| Some((id, *find(id)?))).collect()
    }

    /// The `on_firing` events of an episode; `None` if unknown.
    pub(crate) fn firing(&self, episode: u64) -> Option<Vec<FiringEventRef>> {
        let list = self.list.as_ref()?.iter().filter(|event| event.is_firing(episode));
        Some(list.map(TrackedEvent::firing).collect())
    }

    /// Those of the events with these ids that are listed; `None` if none is, so that nothing is known about them.
    pub(crate) fn reverted(&self, ids: &[Arc<str>]) -> Option<Vec<FiringEventRef>> {
        let found: Vec<_> = ids.iter().filter_map(|id| self.find(id)).map(TrackedEvent::firing).collect();
        Some(found).filter(|found| !found.is_empty())
    }

    /// The list for the target's new state, which has these open episodes and asks for the events with these hashes,
    /// which are sorted: known and new events, without those that nothing asks for any more. `had_open` says whether the
    /// state before had an open episode.
    pub(crate) fn after(&self, new: &[TrackedEvent], had_open: bool, open: &[u64], known: &[u64]) -> Self {
        if self.list.is_none() && had_open && !open.is_empty() {
            return Self::default();
        }
        let is_wanted = |event: &&TrackedEvent| {
            event.phase == Phase::Firing && open.contains(&event.episode)
                || known.binary_search(&event.id).is_ok()
        };
        let all = self.list.iter().flatten().chain(new);
        Self { list: Some(all.filter(is_wanted).copied().collect()), legacy: Arc::default() }
    }

    /// The list in its stored form; `None` if unknown.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let list = self.list.as_ref()?;
        // Two hashes, and short numbers.
        let mut bytes = Vec::with_capacity(24 * list.len());
        for TrackedEvent { id, episode, phase, seq, route, acting } in list {
            bytes.extend(id.to_be_bytes());
            bytes.extend(episode.to_be_bytes());
            varint::put(&mut bytes, seq.0.cast_unsigned());
            // The lowest bit is the phase, the next one says whether all destinations are acting.
            let bits = u64::from(*phase == Phase::Resolved) | u64::from(acting == route) << 1;
            varint::put(&mut bytes, route.cast_unsigned() << 2 | bits);
            if acting != route {
                varint::put(&mut bytes, acting.cast_unsigned());
            }
        }
        Some(bytes)
    }

    /// Decodes a list. What is damaged is left out: its events count as delivered.
    pub(crate) fn decode(mut bytes: &[u8]) -> Self {
        let mut list = Vec::new();
        while let Some(event) = take(&mut bytes) {
            list.push(event);
        }
        Self { list: Some(list), legacy: Arc::default() }
    }
}

fn take(bytes: &mut &[u8]) -> Option<TrackedEvent> {
    let (id, rest) = bytes.split_first_chunk::<8>()?;
    let (episode, rest) = rest.split_first_chunk::<8>()?;
    *bytes = rest;
    let seq = EventSeq(varint::take(bytes)?.cast_signed());
    let bits = varint::take(bytes)?;
    let route = (bits >> 2).cast_signed();
    let acting = if bits & 2 == 0 { varint::take(bytes)?.cast_signed() } else { route };
    let phase = if bits & 1 == 0 { Phase::Firing } else { Phase::Resolved };
    let (id, episode) = (u64::from_be_bytes(*id), u64::from_be_bytes(*episode));
    Some(TrackedEvent { id, episode, phase, seq, route, acting })
}

impl TrackedEvent {
    /// Whether this is an `on_firing` event of the episode.
    pub(crate) fn is_firing(&self, episode: u64) -> bool {
        self.phase == Phase::Firing && self.episode == episode
    }

    pub(crate) fn firing(&self) -> FiringEventRef {
        FiringEventRef { episode: self.episode, seq: self.seq, route: self.route }
    }
}

impl From<FiringEventRef> for TrackedEvent {
    /// An event of a list that was written before schema 9. Which of its destinations are acting is unknown.
    fn from(firing: FiringEventRef) -> Self {
        let FiringEventRef { episode, seq, route } = firing;
        Self { id: 0, episode, phase: Phase::Firing, seq, route, acting: route }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let event = |id, seq, phase, route, acting| TrackedEvent {
            id,
            episode: hash("e"),
            phase,
            seq: EventSeq(seq),
            route,
            acting,
        };
        let list = vec![
            event(u64::MAX, 1, Phase::Firing, 1, 1),
            event(0, 1 << 40, Phase::Resolved, 7, 300),
            event(7, 2, Phase::Firing, 1 << 33, 2),
        ];
        let events = TargetEvents { list: Some(list), legacy: Arc::default() };
        assert_eq!(TargetEvents::decode(&events.encode().unwrap()), events);
        assert_eq!(TargetEvents::decode(&TargetEvents::none().encode().unwrap()), TargetEvents::none());
        assert_eq!(TargetEvents::default().encode(), None);
    }
}
