//! The new events of a batch, the events to which states refer, and those that an `on_resolved` event takes back.

use std::sync::Arc;

use crate::domain::event::EventDocument;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::TargetState;
use crate::domain::time::ClockReading;
use crate::store::NewEvent;
use crate::store::fast_map::Set;
use crate::store::postgres::deliveries::feedback::TrackedEvent;

/// An event without its number.
pub(super) struct EventWrite {
    pub target: i64,
    pub clock: ClockReading,
    /// Empty if it cannot be read.
    pub id: Arc<str>,
    pub event: NewEvent,
    /// Whether the state of its target refers to it.
    pub is_tracked: bool,
    /// `None` if it takes nothing back, or if nothing is known about what it takes back.
    pub compensates: Option<Vec<Compensated>>,
}

/// An event that an event takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compensated {
    /// An earlier one, with its number and destinations.
    Stored(i64, Vec<Name>),
    /// One of the same batch: its index among the events.
    New(usize),
}

/// The events that a new event takes back, if it is an `on_resolved` event: of the stored ones that its target tracks, and of
/// the new ones of the same command, which begin at `first`.
pub(super) fn compensated(
    event: &NewEvent,
    target: i64,
    stored: Option<&Vec<TrackedEvent>>,
    (new, first): (&[EventWrite], usize),
) -> Option<Vec<Compensated>> {
    let phase = event.episode_phase.as_ref().filter(|phase| phase.phase == Phase::Resolved)?;
    let stored = stored.into_iter().flatten();
    let reference = |event: &TrackedEvent| Compensated::Stored(event.seq.0, event.destinations.clone());
    if !event.reverts.is_empty() {
        let reverted = stored.filter(|stored| event.reverts.contains(&stored.id));
        return Some(reverted.map(reference).collect()).filter(|found: &Vec<_>| !found.is_empty());
    }
    let is_firing = |stored: &&TrackedEvent| {
        stored
            .episode
            .as_ref()
            .is_some_and(|(episode, end)| *end == Phase::Firing && **episode == *phase.episode)
    };
    let is_new = |(_, new): &(usize, &EventWrite)| {
        let other = new.event.episode_phase.as_ref();
        new.target == target
            && other.is_some_and(|other| other.phase == Phase::Firing && other.episode == phase.episode)
    };
    let new = new.iter().enumerate().skip(first).filter(is_new);
    Some(
        stored
            .filter(is_firing)
            .map(reference)
            .chain(new.map(|(index, _)| Compensated::New(index)))
            .collect(),
    )
}

/// The id of an event, also if others of its fields cannot be read.
pub(super) fn event_id(event: &NewEvent) -> Arc<str> {
    if let Ok(header) = event.body.header() {
        return header.id.clone();
    }
    EventDocument::read(&event.body)
        .ok()
        .and_then(|document| document.id().map(Into::into))
        .unwrap_or_default()
}

/// The events to which a state refers: those that it knows, and the `on_firing` events of its open episodes, and of those
/// that are being closed.
pub(super) struct References<'a> {
    open: Vec<&'a str>,
    known: Set<&'a str>,
}

impl<'a> References<'a> {
    pub(super) fn new(state: &'a TargetState) -> Self {
        let rules = state.rules.values();
        let open = rules.flat_map(|rule| {
            rule.episode
                .iter()
                .chain(rule.closed.iter().map(|closed| &closed.episode))
                .map(|episode| &*episode.id)
        });
        Self { open: open.collect(), known: state.emissions.iter().map(|emission| &*emission.id).collect() }
    }

    pub(super) fn has(&self, episode: Option<(&str, Phase)>, id: &str) -> bool {
        let is_open = |(episode, phase)| phase == Phase::Firing && self.open.contains(&episode);
        episode.is_some_and(is_open) || self.known.contains(id)
    }
}
