//! What must survive: states of targets, decisions, and events with their deliveries.
//!
//! The heart is [`Store::transact`]: the states of the named targets go into a pure function, what
//! comes out is written together or not at all. State changes of one target are serial. When a call
//! returns `Ok`, what it wrote is on disk.
//!
//! Deliveries: every event has a list of destinations. For each destination the store keeps a
//! *cursor*, up to which everything is settled, and rows only for exceptions (waiting for another
//! try, given up). [`Store::claim`] hands out what may be sent now, and never two events about the
//! same target at once, so a destination receives the events of a target in their order.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::engine::States;
use crate::domain::name::Name;
use crate::domain::state::{AlertKey, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;

/// What a transaction has to see.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Targets whose state is wanted.
    pub targets: Vec<TargetKey>,
    /// Alerts; the targets that know one of them are wanted too.
    pub alerts: Vec<AlertKey>,
}

/// What a transaction sees.
#[derive(Debug)]
pub struct View {
    /// The store's time; it never goes back.
    pub now: Time,
    /// When this store was created.
    pub created: Time,
    /// The states of the wanted targets.
    pub states: States,
}

/// What a transaction writes, all or nothing.
#[derive(Debug, Default)]
pub struct Changes {
    /// New states. An empty one is forgotten.
    pub states: Vec<(TargetKey, TargetState)>,
    /// What was decided.
    pub record: Option<Record>,
    /// What is to be sent.
    pub events: Vec<NewEvent>,
}

/// The decisions of one transaction, kept together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The targets that they are about, each once.
    pub targets: Vec<TargetKey>,
    /// JSON.
    pub body: String,
}

/// An event to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its target: events about one target stay in order.
    pub target: TargetKey,
    /// Where it goes; not empty.
    pub destinations: Arc<[Name]>,
    /// The event, encoded once.
    pub body: String,
}

/// The store's number of an event; it rises in the order of the commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventSeq(pub i64);

/// A delivery that was handed out.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Which event.
    pub seq: EventSeq,
    /// The event, as it was encoded.
    pub body: Arc<str>,
    /// When it was emitted.
    pub emitted_at: Time,
    /// How often it was tried before.
    pub attempts: u32,
}

/// What became of a delivery that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It arrived.
    Delivered,
    /// It is tried again after `delay`.
    Retry {
        /// How long to wait.
        delay: Duration,
        /// What went wrong.
        error: String,
    },
    /// It was given up and is kept as a dead letter.
    Dead {
        /// Why.
        error: String,
    },
}

/// How many deliveries of a destination are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Not tried yet, or being sent.
    pub pending: u64,
    /// Waiting for another try.
    pub retrying: u64,
    /// Given up.
    pub dead: u64,
}

/// Why the store could not do it. Nothing of the call was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It may work later: disk full, locked, read-only, an IO error.
    #[error("the store cannot do it now: {0}")]
    Unavailable(String),
    /// It will not work without a person.
    #[error("{0}")]
    Unusable(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}
