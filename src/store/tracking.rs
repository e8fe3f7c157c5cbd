//! What states have to know about the delivery of their events, and which changes of it they wait for.

use crate::domain::delivery::{EventDelivery, GiveUp};
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::time::{ClockReading, Time};

/// The changes of deliveries after which a target has to be processed. Small, since most targets have one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Watch {
    /// It tracks events: it is processed when one of them ends without having arrived.
    pub tracks_events: bool,
    /// It is processed when one of them arrives.
    pub awaits_delivery: bool,
    /// It waits for destinations that are not known since the store was opened.
    pub awaits_unknown_destination: bool,
    /// It is processed when a call to one of these destinations has succeeded.
    pub destinations: Option<Box<AwaitedDestinations>>,
}

/// The destinations that a target waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AwaitedDestinations {
    names: Vec<Name>,
    /// When its waits for them have begun: only a success then or later counts.
    waiting_since: Vec<Time>,
}

impl Watch {
    /// What a state waits for.
    pub(super) fn of<'a>(state: &TargetState, destinations: impl IntoIterator<Item = &'a Name>) -> Self {
        let awaited = destinations.into_iter().filter(|name| state.awaits_destination(name));
        let names: Vec<Name> = awaited.cloned().collect();
        let waiting_since = || state.destination_waits().collect();
        Self {
            tracks_events: state.tracked_events().next().is_some(),
            awaits_delivery: state.awaits_delivery(),
            awaits_unknown_destination: false,
            destinations: (!names.is_empty())
                .then(|| Box::new(AwaitedDestinations { names, waiting_since: waiting_since() })),
        }
    }

    /// Whether it waits for nothing.
    pub(super) fn is_empty(&self) -> bool {
        !self.tracks_events && !self.awaits_delivery && !self.awaits_destination()
    }

    /// Whether it waits for a destination.
    pub(super) fn awaits_destination(&self) -> bool {
        self.awaits_unknown_destination || self.destinations.is_some()
    }

    /// Whether these calls to this destination are the first ones that succeed since one of its waits has begun.
    pub(super) fn awaits(&self, destination: &Name, successes: Successes) -> bool {
        let is_first = |awaited: &AwaitedDestinations| {
            awaited.waiting_since.iter().any(|&since| successes.are_first_since(since))
        };
        self.destinations.as_deref().is_some_and(|it| it.names.contains(destination) && is_first(it))
            || self.awaits_unknown_destination && successes.before.is_none()
    }
}

/// Calls to a destination that have succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Successes {
    /// The last success before them, since the store was opened.
    pub before: Option<Time>,
    /// The last of them.
    pub last: Time,
}

impl Successes {
    fn are_first_since(self, since: Time) -> bool {
        since <= self.last && self.before.is_none_or(|before| before < since)
    }
}

/// The store's time of the last successful call of a destination, unless it was before the give-up. Of both, the wall
/// clock is known; what one batch has settled has the same time.
pub(super) fn later_success(last_success: Option<ClockReading>, given_up_at_wall: Time) -> Option<Time> {
    last_success.filter(|success| success.wall >= given_up_at_wall).map(|success| success.now)
}

/// The delivery of an event to one destination, as far as decisions need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Not settled.
    Pending { is_uncertain: bool },
    /// Arrived.
    Arrived(Time),
    /// A dead letter.
    Dead {
        cause: GiveUp,
        is_uncertain: bool,
        /// The last successful call of the destination, if it was not before the give-up.
        later_success: Option<Time>,
    },
    /// Settled without having arrived, and not a dead letter.
    NotDelivered { is_uncertain: bool },
}

/// The delivery of an event to all of its acting destinations.
pub(super) fn combine(all: impl IntoIterator<Item = Status>) -> EventDelivery {
    let mut combined = EventDelivery::default();
    for status in all {
        match status {
            Status::Pending { is_uncertain } => {
                combined.is_pending = true;
                combined.is_uncertain |= is_uncertain;
            }
            Status::Arrived(at) => {
                combined.delivered_at = combined.delivered_at.into_iter().chain([at]).min();
            }
            Status::Dead { cause, is_uncertain, later_success } => {
                combined.given_up = combined.given_up.max(Some(cause));
                combined.is_uncertain |= is_uncertain;
                combined.later_success = combined.later_success.max(later_success);
            }
            Status::NotDelivered { is_uncertain } => combined.is_uncertain |= is_uncertain,
        }
    }
    combined
}
