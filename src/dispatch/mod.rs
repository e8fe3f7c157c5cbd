//! Claim → send → settle: delivery of events from the store to the destinations.
//!
//! Each destination has one [`Worker`], independent of all others. It claims deliveries from the
//! [`DeliveryQueue`](crate::store::DeliveryQueue), sends them in batches and settles each delivery by its own answer.
//!
//! - Every claimed delivery is settled: by an answer, or without a call if it has expired, is superseded, is
//!   unreadable or too large, or has nothing to compensate. It is settled as delivered only after the
//!   destination has confirmed it.
//! - An event that is older than its limits is never sent, whatever delayed it.
//! - The class of a failure is decided in one place: `crate::aws` for errors of AWS. A delivery whose
//!   failure may be temporary is retried until it expires.
//! - A destination that fails as a whole gets one real delivery at a time, with exponential backoff.
//!   No test messages are sent.
//! - A destination that is not configured any more is retired: its undelivered events become dead letters
//!   ([`retirement`]).
//! - This module reads neither a source of randomness nor the wall clock: randomness comes from a
//!   seed, the time from the outbox, and delays are tokio's.

mod batch;
mod breaker;
mod concurrency;
mod eventbridge;
mod file;
mod health;
mod http;
mod kinds;
mod lambda;
mod message;
mod outbox;
mod retirement;
mod send;
mod sns;
mod sqs;
mod status;
mod step_functions;
#[cfg(test)]
pub(crate) mod stub;
mod withholding;
pub(crate) mod worker;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::header::{EncodedEvent, EventHeader};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{Lease, Settlement};

use crate::aws;
pub(crate) use crate::aws::{ArnDefaults, Permission, partition};
pub(crate) use crate::domain::failure::{Class, Failure};
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

    /// Whether every call is stored before it is made, not only those of decreases: the destination remembers names, and
    /// the bridge has to know after a kill which ones it has tried.
    fn stores_calls(&self) -> bool {
        false
    }

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
    /// Whether an earlier call may have arrived: no answer said that it did not, or the process ended during it.
    pub is_uncertain: bool,
    /// The number of redrives that have set another `expirytime`.
    pub redrives: u32,
    /// The error of the last attempt.
    pub last_error: Option<Arc<str>>,
}

impl OutgoingEvent {
    /// The name of the execution that the event starts: its id, and after redrives that have set another `expirytime`
    /// `-` and their number, since a name starts one execution.
    pub(crate) fn execution_name(&self) -> String {
        match self.redrives {
            0 => self.header.id.to_string(),
            redrives => format!("{}-{redrives}", self.header.id),
        }
    }

    /// The answer if the name of the execution has been taken: delivered if that may have been an earlier call for this
    /// event. `code` is the error's.
    fn answer_for_taken_name(&self, code: &str, name: &str) -> Answer {
        // It was found taken by the first call already.
        let was_taken_before = self.last_error.as_ref().is_some_and(|error| error.starts_with(code));
        if (self.attempts > 0 || self.is_uncertain) && !was_taken_before {
            return Ok(Some(format!("{code} {name}")));
        }
        let message = format!(
            "{code}: the name {name} was taken before this event was sent; redrive it with `--valid-for` to use another name"
        );
        Err(Failure::new(Class::Permanent, message))
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
