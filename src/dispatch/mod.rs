//! Claim → send → settle: how events leave the store.
//!
//! Each destination has one [`Worker`] and knows nothing of the others. It claims deliveries from the
//! [`Outbox`], sends them in batches and settles every delivery by its own answer.
//!
//! - A delivery that was claimed is settled, by an answer or because it is too old. It is settled as
//!   delivered only after the destination has said that it has it.
//! - An event is not sent when it is older than its limits allow, however it got that old.
//! - A failure's class is decided in one place, `aws.rs` for what AWS answers. What is not certain
//!   never to pass is tried again until it is too old.
//! - A destination that fails as a whole gets one real delivery at a time, with growing pauses, and no
//!   message that is only a test.
//! - Nothing here reads a random source or a wall clock of its own: chance comes from a seed, the age
//!   of an event is told by the outbox, and pauses are tokio's.

mod aws;
mod batch;
mod breaker;
mod concurrency;
mod connect;
pub(crate) mod file;
mod health;
pub(crate) mod lambda;
mod outbox;
mod send;
pub(crate) mod sqs;
mod status;
#[cfg(test)]
mod stub;
pub(crate) mod worker;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::header::{EncodedEvent, EventHeader};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{self, Claimed, EventSeq, Settlement};

pub(crate) use connect::Clients;
pub(crate) use status::DestinationStatuses;
pub(crate) use worker::{Options, Worker};

/// What a worker needs of the store.
pub(crate) trait Outbox: Clone + Send + Sync + 'static {
    /// Up to `max` deliveries that may be sent now, at most one for each target. They stay claimed
    /// until they are settled.
    fn claim(
        &self,
        destination: &Name,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Claimed>, store::Error>> + Send;

    /// Writes what became of deliveries. Durable when it returns.
    fn settle(
        &self,
        destination: &Name,
        settled: Vec<(EventSeq, Settlement)>,
    ) -> impl Future<Output = Result<(), store::Error>> + Send;

    /// Whether a delivery that is claimed is not to be sent any more, since capacity is added meanwhile.
    fn is_cancelled(&self, destination: &Name, seq: EventSeq) -> bool;

    /// Completes when something may have become claimable since the call (not since the first poll),
    /// and now and then without a reason.
    fn wait(&self, destination: &Name) -> impl Future<Output = ()> + Send;

    /// The store's now.
    fn now(&self) -> Time;
}

/// Where events go.
pub(crate) trait Destination: Send + Sync + 'static {
    /// How much one call takes.
    fn limits(&self) -> Limits;

    /// The bytes of an event as [`Limits::bytes`] counts them.
    fn event_bytes(&self, event: &OutgoingEvent) -> usize;

    /// Sends a batch within [`Destination::limits`], never empty, no two events about one target.
    /// One answer for each event, in their order; or the failure of the whole call, which then is
    /// every event's.
    fn send(&self, batch: &[OutgoingEvent]) -> impl Future<Output = Result<Vec<Answer>, Failure>> + Send;
}

/// What became of one event of a call: it arrived, perhaps with something that the destination said of
/// it and that is kept, or it did not.
pub(crate) type Answer = Result<Option<String>, Failure>;

/// How much one call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Events, at least 1.
    pub events: usize,
    /// Bytes of all its events. A larger event travels alone.
    pub bytes: usize,
    /// Bytes of one event. A larger one is given up without a call: it was cut to a limit that has
    /// been lowered since.
    pub max_event_bytes: usize,
}

/// An event on its way.
#[derive(Debug, Clone)]
pub(crate) struct OutgoingEvent {
    /// The store's number of it.
    pub seq: EventSeq,
    /// The event as it was encoded.
    pub body: EncodedEvent,
    /// What delivery has to know of it.
    pub header: Arc<EventHeader>,
    /// When it was emitted.
    pub emitted_at: Time,
    /// How often it was tried before.
    pub attempts: u32,
    /// What went wrong the last time.
    pub last_error: Option<Arc<str>>,
}

/// Why an event, or a call, did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// What follows from it.
    pub class: Class,
    /// For people and the log: no body, no secret, at most [`Failure::MAX_CHARS`] characters.
    pub message: String,
    /// The beginning of what a function answered, as long at most. It may say anything, so it is kept
    /// with the delivery and not logged.
    pub answer: Option<String>,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// It may pass by itself: it is tried again until it is too old.
    Transient,
    /// Fewer calls at the same time would pass: the same, and fewer are made for a while.
    Throttled,
    /// Nothing passes until a person has mended something: the same, and the destination is left alone
    /// between single tries.
    Misconfigured,
    /// The same event can never pass: it becomes a dead letter at once.
    Permanent,
}

impl Failure {
    /// The longest message, and the longest answer.
    pub(crate) const MAX_CHARS: usize = 500;

    /// A failure that may pass.
    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, message)
    }

    /// A failure of an event that no try can change.
    #[cfg(test)]
    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        Self::new(Class::Permanent, message)
    }

    /// A failure of this class.
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(Self::MAX_CHARS) {
            message.truncate(end);
        }
        Self { class, message, answer: None }
    }

    /// What is kept with the delivery.
    fn stored_error(&self) -> String {
        match &self.answer {
            Some(answer) => format!("{}: {answer}", self.message),
            None => self.message.clone(),
        }
    }
}

/// A destination of the configuration, connected.
#[derive(Debug)]
pub(crate) enum ConnectedDestination {
    /// An SQS queue.
    Sqs(sqs::Sqs),
    /// A Lambda function.
    Lambda(lambda::Lambda),
    /// A file or stdout.
    File(file::File),
}

impl Destination for ConnectedDestination {
    fn limits(&self) -> Limits {
        match self {
            Self::Sqs(sqs) => sqs.limits(),
            Self::Lambda(lambda) => lambda.limits(),
            Self::File(file) => file.limits(),
        }
    }

    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        match self {
            Self::Sqs(sqs) => sqs.event_bytes(event),
            Self::Lambda(lambda) => lambda.event_bytes(event),
            Self::File(file) => file.event_bytes(event),
        }
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        match self {
            Self::Sqs(sqs) => sqs.send(batch).await,
            Self::Lambda(lambda) => lambda.send(batch).await,
            Self::File(file) => file.send(batch).await,
        }
    }
}

/// Hears what workers do, for metrics. Its methods return at once.
pub(crate) trait Observer: Send + Sync + 'static {
    /// A delivery was settled.
    fn on_delivery(&self, destination: &Name, delivery: &DeliveryReport<'_>);

    /// A destination fails as a whole, for this reason, or works again. Not called before the first
    /// failure; until then it counts as working.
    fn on_health_change(&self, destination: &Name, failing: Option<&Failure>);
}

/// A delivery that was settled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeliveryReport<'a> {
    /// How.
    pub outcome: Outcome,
    /// How long the call took. None if it was given up without one.
    pub call_duration: Option<Duration>,
    /// When the answer came, by the store's time.
    pub completed_at: Time,
    /// The event. None if it could not be read.
    pub header: Option<&'a EventHeader>,
}

/// How a delivery was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It arrived.
    Delivered,
    /// It will be tried again.
    Retry,
    /// It was given up.
    Dead,
    /// It was not sent, since what it would undo never arrived, or since capacity is added meanwhile.
    Withdrawn,
}

impl Outcome {
    /// The word in metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl From<&Settlement> for Outcome {
    fn from(settlement: &Settlement) -> Self {
        match settlement {
            Settlement::Delivered | Settlement::Answered { .. } => Self::Delivered,
            Settlement::Withdrawn { .. } => Self::Withdrawn,
            Settlement::Retry { .. } => Self::Retry,
            Settlement::Dead { .. } => Self::Dead,
        }
    }
}
