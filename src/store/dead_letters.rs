//! Dead letters: deliveries that were given up, stored until an operator redrives or discards them.

use std::time::Duration;

use super::{Error, EventSeq};
use crate::domain::event::{self, EventDocument};
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
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
    /// Required for events that decrease capacity.
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
    /// The capacity may be needed by now.
    #[error("the event decreases capacity; set force to redrive it")]
    DecreasesCapacity,
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

impl Redrive {
    /// Checks that the event can be redriven, and returns its new `expirytime`, if any. `wall` is the wall clock.
    pub fn check(&self, event: &str, wall: Time) -> Result<Option<Time>, DeadLetterError> {
        let unreadable = |error: event::Error| DeadLetterError::Unreadable(error.to_string());
        let document = EventDocument::read(event).map_err(unreadable)?;
        let header = document.header().map_err(unreadable)?;
        if header.decreases_capacity() && !self.force {
            return Err(DeadLetterError::DecreasesCapacity);
        }
        match self.valid_for {
            None if wall > header.expirytime => Err(DeadLetterError::Expired { at: header.expirytime }),
            None => Ok(None),
            // That it can be set is known: the header has an `expirytime`.
            Some(valid_for) => Ok(Some(wall.after(valid_for))),
        }
    }
}
