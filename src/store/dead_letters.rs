//! Dead letters: deliveries that were given up, kept until someone redrives or discards them.

use std::time::Duration;

use serde::Deserialize;

use super::{Error, EventSeq, expiry};
use crate::domain::header::EncodedEvent;
use crate::domain::header::EventHeader;
use crate::domain::name::Name;
use crate::domain::time::Time;

/// Why what a destination is given beyond its bound is a dead letter at once.
pub(super) const BACKLOG_FULL: &str =
    "backlog_full: as many deliveries as its max_backlog were undelivered here";

/// Which delivery. Dead letters are listed in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The event.
    pub seq: EventSeq,
    /// Where it was to go.
    pub destination: Name,
}

/// A delivery that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which one.
    pub delivery_id: DeliveryId,
    /// The event's id; empty where the event cannot be read, as are the next three.
    pub id: String,
    /// Its rule.
    pub rule: String,
    /// Its target's key.
    pub target: String,
    /// Its action.
    pub action: String,
    /// When it was emitted.
    pub emitted_at: Time,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was given up: what went wrong the last time.
    pub error: String,
    /// When.
    pub given_up_at: Time,
    /// The event as it would be sent.
    pub event: EncodedEvent,
}

/// How a dead letter is sent once more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Redrive {
    /// Consumers may act on it for so long from now: `expirytime` is rewritten, and nothing else.
    pub valid_for: Option<Duration>,
    /// Also if it takes capacity away.
    pub force: bool,
}

/// Why a dead letter stays what it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeadLetterError {
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] Error),
    /// Nobody delivers there.
    #[error("the destination {0} is not configured")]
    NotConfigured(Name),
    /// It was redriven or discarded, has arrived, or never was.
    #[error("there is no such dead letter; it may have been redriven or discarded already")]
    NotDead,
    /// Consumers would not act on it.
    #[error("its expirytime {at} has passed; say for how long it is to be valid")]
    Expired {
        /// It.
        at: Time,
    },
    /// What it would take away may be needed by now.
    #[error("it takes capacity away, and is only redriven when that is forced")]
    DecreasesCapacity,
    /// It was given up for that, and would be again.
    #[error("{0}")]
    Unreadable(String),
}

/// The parts of an event that a list shows; of what is no event they are empty.
#[derive(Debug, Default, Deserialize)]
struct EventSummary {
    #[serde(default)]
    id: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    data: EventSummaryData,
}

#[derive(Debug, Default, Deserialize)]
struct EventSummaryData {
    #[serde(default)]
    rule: String,
    #[serde(default)]
    action: String,
}

/// A row of a dead letter.
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
        let EventSummary { id, subject, data } = serde_json::from_str(&event).unwrap_or_default();
        let EventSummaryData { rule, action } = data;
        Self {
            delivery_id,
            id,
            rule,
            target: subject,
            action,
            emitted_at,
            attempts,
            error,
            given_up_at,
            event,
        }
    }
}

impl Redrive {
    /// Checks that an event may be sent once more, and gives its `expirytime` if it gets another one.
    pub fn check(&self, event: &str, now: Time) -> Result<Option<Time>, DeadLetterError> {
        let header =
            EventHeader::read(event).map_err(|error| DeadLetterError::Unreadable(error.to_string()))?;
        if header.decreases_capacity() && !self.force {
            return Err(DeadLetterError::DecreasesCapacity);
        }
        match self.valid_for {
            None if now > header.expirytime => Err(DeadLetterError::Expired { at: header.expirytime }),
            None => Ok(None),
            Some(valid_for) => {
                let until = now.after(valid_for);
                let unreadable = |error: serde_json::Error| DeadLetterError::Unreadable(error.to_string());
                expiry::rewrite(event, until).map_err(unreadable)?;
                Ok(Some(until))
            }
        }
    }
}
