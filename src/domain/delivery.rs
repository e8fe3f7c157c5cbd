//! What decisions know about the delivery of events, and what they change about it.

use std::sync::Arc;
use std::time::Duration;

use super::target::TargetKey;
use super::time::Time;

/// The delivery of an event to its acting destinations, taken together. Destinations that only record events do not
/// count, unless the event has no others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventDelivery {
    /// When the first answer said that the event was delivered.
    pub delivered_at: Option<Time>,
    /// Whether the event can still be delivered: it waits for its first call or for a retry, or is being called, at
    /// some acting destination.
    pub is_pending: bool,
    /// Whether the outcome of a call is unknown: no answer arrived in time, the connection was lost after the request
    /// was sent, or the process ended during the call.
    pub is_uncertain: bool,
    /// Why the event was given up; `None` if it is not a dead letter. [`GiveUp::Rejected`] takes precedence.
    pub given_up: Option<GiveUp>,
    /// The last successful call of a destination that had given the event up by then, as far as this process knows.
    pub later_success: Option<Time>,
}

/// Why a delivery was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GiveUp {
    /// It was older than `max_age`, or past its `expirytime`.
    Expired,
    /// Another cause, which needs an operator: the destination rejected the event, or its backlog was full.
    Rejected,
}

impl EventDelivery {
    /// A delivered event.
    pub fn delivered(at: Time) -> Self {
        Self { delivered_at: Some(at), ..Self::default() }
    }

    /// An event that is being delivered.
    pub fn pending() -> Self {
        Self { is_pending: true, ..Self::default() }
    }
}

/// A change of the delivery of an event at all destinations that have not settled it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryChange {
    /// The event's target.
    pub target: TargetKey,
    /// The event's id.
    pub event: Arc<str>,
    /// What changes.
    pub kind: DeliveryChangeKind,
}

/// What changes about the delivery of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryChangeKind {
    /// The event is not called (again). Its deliveries end as superseded.
    Cancel,
    /// The event is not called until it is resumed, and delays no other event of its target.
    Suspend,
    /// The event can be called again. Its `scale_in_max_age` counts from now.
    Resume,
    /// The event was given up because of its age. It is pending again, with a new `expirytime` that is this long after
    /// now; nothing else of it changes.
    Renew {
        /// The rule's `expires_after`.
        expires_after: Duration,
    },
    /// The episode of an event that may have been renewed has closed: its age counts from its emission again, with its
    /// first `expirytime`. If that is over, it is given up like any other that is too old.
    EndRenewal,
    /// The dead letters of the event are closed as replaced.
    Replace,
}

/// How a destination answers in a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DestinationState {
    /// Calls succeed.
    #[default]
    Up,
    /// Calls fail.
    Down,
    /// Calls have an unknown outcome: the answer is lost.
    Unknown,
}

impl DestinationState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Unknown];

    /// The word in test files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}
