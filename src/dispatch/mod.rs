//! Claim → send → settle: delivery of events from the store to the destinations.
//!
//! Each destination has one [`Worker`], independent of all others. It claims deliveries from the
//! [`DeliveryQueue`](crate::store::DeliveryQueue), sends them in batches and settles each delivery by its own answer.
//!
//! - Every claimed delivery is settled: by an answer, or without a call if it has expired, is superseded, is
//!   unreadable or too large, or has nothing to compensate. It is settled as delivered only after the
//!   destination has confirmed it.
//! - An event that is older than its limits is never sent, whatever delayed it.
//! - The class of a failure is decided in one place: `aws/errors.rs` for errors of AWS. A delivery whose
//!   failure may be temporary is retried until it expires.
//! - A destination that fails as a whole gets one real delivery at a time, with exponential backoff.
//!   No test messages are sent.
//! - A destination that is not configured any more is retired: its undelivered events become dead letters
//!   ([`retirement`]).
//! - This module reads neither a source of randomness nor the wall clock: randomness comes from a
//!   seed, the time from the outbox, and delays are tokio's.

mod aws;
mod batch;
mod breaker;
mod concurrency;
mod file;
mod health;
mod kinds;
mod lambda;
mod outbox;
mod retirement;
mod send;
mod sqs;
mod status;
#[cfg(test)]
mod stub;
mod withholding;
pub(crate) mod worker;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::header::{EncodedEvent, EventHeader};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{Lease, Settlement};

pub(crate) use aws::{ArnDefaults, Permission, partition};
pub(crate) use kinds::{Clients, ConnectedDestination, DestinationSettings};
pub(crate) use status::DestinationStatuses;
pub(crate) use withholding::Withholding;
pub(crate) use worker::{Options, Worker};
pub(crate) use workers::{PreparedWorker, Workers};

/// A receiver of events.
pub(crate) trait Destination: Send + Sync + 'static {
    /// The limits of one call.
    fn limits(&self) -> Limits;

    /// The size of an event as [`Limits::bytes`] counts it.
    fn event_bytes(&self, event: &OutgoingEvent) -> usize;

    /// Sends a batch within [`Destination::limits`], which is not empty and has at most one event per
    /// target. Returns one answer per event, in their order.
    ///
    /// # Errors
    /// The call failed as a whole; the failure applies to every event.
    fn send(&self, batch: &[OutgoingEvent]) -> impl Future<Output = Result<Vec<Answer>, Failure>> + Send;
}

/// The result of one event of a call: delivered, with the response of the destination if it is to be
/// stored, or failed.
pub(crate) type Answer = Result<Option<String>, Failure>;

/// The limits of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The number of events, at least 1.
    pub events: usize,
    /// The size of all events together. A larger event is sent alone.
    pub bytes: usize,
    /// The size of one event. A larger one is given up without a call: the limit was lowered after the
    /// event was cut to it.
    pub max_event_bytes: usize,
}

/// A claimed event, to be sent.
#[derive(Debug, Clone)]
pub(crate) struct OutgoingEvent {
    /// Its number in the store.
    pub lease: Lease,
    /// The encoded event.
    pub body: EncodedEvent,
    /// The parts of the event that delivery uses.
    pub header: Arc<EventHeader>,
    /// The store time of its emission or redrive.
    pub emitted_at: Time,
    /// The number of earlier attempts.
    pub attempts: u32,
    /// The error of the last attempt.
    pub last_error: Option<Arc<str>>,
}

/// The failure of an event or of a whole call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// Determines how the delivery and the destination are treated.
    pub class: Class,
    /// Shown to operators and logged: no body, no secret, at most [`Failure::MAX_CHARS`] characters.
    pub message: String,
    /// The start of a function's response, at most [`Failure::MAX_CHARS`] characters. Its content is
    /// arbitrary, so it is stored with the delivery and not logged.
    pub answer: Option<String>,
    /// Whether the event may have arrived: no answer said that it did not.
    pub uncertain: bool,
}

/// The class of a failure, which determines the reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Possibly temporary: the delivery is retried until it expires.
    Transient,
    /// Too many concurrent calls: retried as well, and the concurrency is reduced.
    Throttled,
    /// Every call fails until an operator acts: retried as well, and the circuit breaker opens at once.
    Misconfigured,
    /// This event can never be delivered: it becomes a dead letter at once.
    Permanent,
    /// The consumer answered that this event came too late: it becomes a dead letter at once, as one that expired.
    NotApplied,
}

impl Failure {
    /// The maximum length of `message` and of `answer`.
    pub(crate) const MAX_CHARS: usize = 500;

    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, message)
    }

    #[cfg(test)]
    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        Self::new(Class::Permanent, message)
    }

    /// A failure with `message`, cut to [`Failure::MAX_CHARS`].
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(Self::MAX_CHARS) {
            message.truncate(end);
        }
        Self { class, message, answer: None, uncertain: false }
    }

    /// The same failure, after which the event may have arrived if `uncertain`.
    pub(crate) fn with_uncertainty(self, uncertain: bool) -> Self {
        Self { uncertain, ..self }
    }

    /// The error that is stored with the delivery.
    fn stored_error(&self) -> String {
        match &self.answer {
            Some(answer) => format!("{}: {answer}", self.message),
            None => self.message.clone(),
        }
    }
}

/// Receives the results of workers, for metrics and status. Its methods must not block.
pub(crate) trait Observer: Send + Sync + 'static {
    fn on_delivery(&self, destination: &Name, delivery: &DeliveryReport<'_>);

    /// A destination became unavailable for the reason `failing`, or available again (`None`). Not
    /// called before the first failure; a destination is initially available.
    fn on_health_change(&self, destination: &Name, failing: Option<&Failure>);
}

/// A settled delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeliveryReport<'a> {
    pub outcome: Outcome,
    /// Duration of the call. None if it was settled without one.
    pub call_duration: Option<Duration>,
    /// The wall clock at the answer.
    pub completed_at: Time,
    /// None if the event is unreadable.
    pub header: Option<&'a EventHeader>,
}

/// The outcome of an attempt to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    Retry,
    /// Given up: it is a dead letter now.
    Dead,
    /// Not sent: the event that it compensates never arrived, or an increase superseded it.
    Withdrawn,
    /// Released without a call, and tried later. Not counted.
    NotCalled,
}

impl Outcome {
    /// The value in metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Withdrawn => "withdrawn",
            Self::NotCalled => "not_called",
        }
    }
}

impl From<&Settlement> for Outcome {
    fn from(settlement: &Settlement) -> Self {
        match settlement {
            Settlement::Delivered { .. } => Self::Delivered,
            Settlement::Withdrawn { .. } => Self::Withdrawn,
            Settlement::Retry { .. } => Self::Retry,
            Settlement::NotCalled { .. } => Self::NotCalled,
            Settlement::Dead { .. } => Self::Dead,
        }
    }
}
