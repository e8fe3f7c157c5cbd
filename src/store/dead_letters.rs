//! Dead letters: deliveries that were given up, stored until an operator redrives or discards them.

use std::fmt;
use std::time::Duration;

use super::{Error, EventSeq, expiry};
use crate::domain::event::{self, EventDocument};
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::state::{Occurrence, TargetState};
use crate::domain::time::Time;

/// The error of an event that becomes a dead letter at once, since the destination has reached `max_backlog`.
pub(super) const BACKLOG_FULL: &str = "backlog_full: the destination had max_backlog undelivered events";

/// Identifies a delivery. Dead letters are listed in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The event's number.
    pub seq: EventSeq,
    /// The destination's name.
    pub destination: Name,
}

/// A delivery that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// The event's id; like the next three fields, empty if the event is unreadable.
    pub id: String,
    /// The name of the event's rule.
    pub rule: String,
    /// The key of the event's target.
    pub target: String,
    /// `scale_out`, `scale_in`, `set_capacity` or `notify`.
    pub action: String,
    /// When the event was emitted, by the wall clock.
    pub emitted_at: Time,
    /// The number of attempts.
    pub attempts: u32,
    /// Why it was given up, for example the error of the last attempt.
    pub error: String,
    /// When it became a dead letter, by the wall clock.
    pub given_up_at: Time,
    /// The event as it would be sent, with its current `expirytime`.
    pub event: EncodedEvent,
}

/// Options of a redrive.
#[derive(Debug, Clone, Copy, Default)]
pub struct Redrive {
    /// Sets the event's `expirytime` to this long from now. Nothing else of the event changes.
    pub valid_for: Option<Duration>,
    /// Redrives the event although it may not be needed any more: an increase whose episode is over, or a decrease
    /// while something fires on its target.
    pub force: bool,
}

/// Why a dead letter was not redriven or discarded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeadLetterError {
    /// The store could not read or write.
    #[error(transparent)]
    Store(#[from] Error),
    /// The destination has no worker.
    #[error("destination `{0}` is not configured")]
    NotConfigured(Name),
    /// The delivery is not a dead letter: it was redriven, discarded or delivered, or never existed.
    #[error("there is no such dead letter; it may have been redriven or discarded already")]
    NotDead,
    /// Consumers would ignore the event.
    #[error("the event expired at {at}; set valid_for to redrive it")]
    Expired {
        /// The event's `expirytime`.
        at: Time,
    },
    /// The capacity is needed by now.
    #[error("the event decreases capacity, but {0}; use force (`--force`) to redrive it")]
    Firing(Firing),
    /// The capacity is not needed any more.
    #[error(
        "the event increases capacity, but the episode of rule `{rule}` that it belongs to is over; use force (`--force`) to redrive it"
    )]
    EpisodeOver {
        /// The event's rule.
        rule: String,
    },
    /// What fires on the target is not known.
    #[error(
        "the state of the target cannot be read, so it is not known what fires there; use force (`--force`) to redrive the event"
    )]
    UnreadableState,
    /// The event is unreadable and would become a dead letter again.
    #[error("{0}")]
    Unreadable(String),
}

/// The event as it is sent: with the `expirytime` of its redrive, if that changed it.
pub(super) fn as_sent(body: &str, expirytime: Option<Time>) -> EncodedEvent {
    let with_expirytime =
        |at| EventDocument::read(body).and_then(|document| document.with_expirytime(at)).ok();
    expirytime.and_then(with_expirytime).map_or_else(|| body.into(), Into::into)
}

/// A dead letter as it is stored.
#[derive(Debug, Clone)]
pub struct DeadLetterRow {
    pub delivery_id: DeliveryId,
    pub emitted_at: Time,
    pub attempts: u32,
    pub error: String,
    pub given_up_at: Time,
    pub event: EncodedEvent,
}

impl From<DeadLetterRow> for DeadLetter {
    fn from(row: DeadLetterRow) -> Self {
        let DeadLetterRow { delivery_id, emitted_at, attempts, error, given_up_at, event } = row;
        let document = EventDocument::read(&event).unwrap_or_default();
        let owned = |field: Option<&str>| field.unwrap_or_default().to_owned();
        let (id, rule) = (owned(document.id()), owned(document.rule()));
        let (target, action) = (owned(document.subject()), owned(document.action()));
        let emitted_at = document.time().unwrap_or(emitted_at);
        Self { delivery_id, id, rule, target, action, emitted_at, attempts, error, given_up_at, event }
    }
}

/// What fires on a target: an open episode, or a late firing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The rule.
    pub rule: Name,
    /// The alerts by name, or by fingerprint if they have no name.
    pub alerts: Vec<String>,
}

/// The maximum number of alerts that an error names.
const MAX_NAMED_ALERTS: usize = 5;

impl fmt::Display for Firing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = &self.alerts[..self.alerts.len().min(MAX_NAMED_ALERTS)];
        write!(f, "rule `{}` fires on its target", self.rule)?;
        match self.alerts.len() - named.len() {
            _ if named.is_empty() => Ok(()),
            0 => write!(f, ": {}", named.join(", ")),
            more => write!(f, ": {} and {more} more", named.join(", ")),
        }
    }
}

impl Firing {
    /// The first rule that fires on a target.
    fn find(state: &TargetState) -> Option<Self> {
        state.rules.iter().find_map(|(rule, state)| {
            let open = state.episode.iter().flat_map(|episode| episode.open.iter());
            let late = state.late.iter().map(|late| &late.occurrence);
            let name = |occurrence: &Occurrence| match occurrence.labels.get("alertname") {
                "" => occurrence.alert.fingerprint.to_string(),
                name => name.to_owned(),
            };
            let alerts: Vec<String> = open.chain(late).map(name).collect();
            (state.episode.is_some() || !alerts.is_empty()).then(|| Self { rule: rule.clone(), alerts })
        })
    }
}

impl Redrive {
    /// Checks that the event can be redriven, and returns its new `expirytime`, if any, as it is stored. `before` is what is
    /// stored now. `state` is that of its target, which `may_decrease` it; it is not needed with `force`. `wall` is the
    /// wall clock.
    pub(super) fn check(
        &self,
        event: &str,
        before: Option<Time>,
        may_decrease: bool,
        state: &TargetState,
        wall: Time,
    ) -> Result<Option<Time>, DeadLetterError> {
        let unreadable = |error: event::Error| DeadLetterError::Unreadable(error.to_string());
        let document = EventDocument::read(event).map_err(unreadable)?;
        let header = document.header().map_err(unreadable)?;
        if !self.force {
            check_need(&document, &header.action, may_decrease, state)?;
        }
        match self.valid_for {
            None if wall > header.expirytime => Err(DeadLetterError::Expired { at: header.expirytime }),
            None => Ok(None),
            // That it can be set is known: the header has an `expirytime`.
            Some(valid_for) => Ok(Some(expiry::after_redrive(wall.after(valid_for), before))),
        }
    }
}

/// Checks that an increase is still needed, and that nothing speaks against a decrease.
fn check_need(
    event: &EventDocument<'_>,
    action: &str,
    may_decrease: bool,
    state: &TargetState,
) -> Result<(), DeadLetterError> {
    let is_open = |id: &str| {
        let mut open = state.rules.iter().filter_map(|(_, rule)| rule.episode.as_ref());
        open.any(|episode| *episode.id == *id)
    };
    let is_increase = matches!(action, "scale_out" | "set_capacity");
    if is_increase && event.is_firing_phase() && event.episode().is_some_and(|id| !is_open(id)) {
        let rule = event.rule().unwrap_or_default().to_owned();
        return Err(DeadLetterError::EpisodeOver { rule });
    }
    if !may_decrease {
        return Ok(());
    }
    Firing::find(state).map_or(Ok(()), |firing| Err(DeadLetterError::Firing(firing)))
}
