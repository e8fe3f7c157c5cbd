//! Types of read-only queries: decision records, events with their deliveries, and states.

use std::fmt;
use std::ops::Bound;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;

/// A query of decision records. Ids are in commit order.
#[derive(Debug, Clone)]
pub struct RecordQuery {
    /// Only records about this target.
    pub target: Option<TargetKey>,
    /// Inclusive lower bound of the time, by the wall clock.
    pub from: Time,
    /// Inclusive upper bound of the time, by the wall clock.
    pub to: Time,
    /// Lower bound of the position.
    pub above: Bound<RecordCursor>,
    /// Upper bound of the position.
    pub below: Bound<RecordCursor>,
    /// Only records before which no other one can appear any more: for readers that continue after the last one that
    /// they have seen.
    pub is_final: bool,
    /// Whether the order is descending.
    pub newest_first: bool,
    /// The maximum number of records; fewer are returned if they are large.
    pub max: usize,
}

impl Default for RecordQuery {
    fn default() -> Self {
        Self {
            target: None,
            from: Time::from_nanos(i64::MIN),
            to: Time::from_nanos(i64::MAX),
            above: Bound::Unbounded,
            below: Bound::Unbounded,
            is_final: false,
            newest_first: true,
            max: 100,
        }
    }
}

impl RecordQuery {
    /// The range of ids, both ends inclusive.
    pub(super) fn id_range(&self) -> (i64, i64) {
        let above = match self.above {
            Bound::Unbounded => i64::MIN,
            Bound::Included(cursor) => cursor.0,
            Bound::Excluded(cursor) => cursor.0.saturating_add(1),
        };
        let below = match self.below {
            Bound::Unbounded => i64::MAX,
            Bound::Included(cursor) => cursor.0,
            Bound::Excluded(cursor) => cursor.0.saturating_sub(1),
        };
        (above, below)
    }
}

/// A page of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// In the order of the query.
    pub records: Vec<StoredRecord>,
    /// Whether there may be a next page.
    pub has_more: bool,
}

/// The approximate size of a page; the record of a large notification has a megabyte.
pub(super) const MAX_RECORD_PAGE_BYTES: usize = 4 << 20;

/// The position of a record in commit order. Never reused, and opaque: only the store that has returned it can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordCursor(i64);

impl RecordCursor {
    /// Before all records.
    pub const BEFORE_ALL: Self = Self(0);

    pub(super) const fn new(position: i64) -> Self {
        Self(position)
    }
}

impl fmt::Display for RecordCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RecordCursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A stored decision record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its position.
    pub cursor: RecordCursor,
    /// JSON as it was written.
    pub body: String,
}

/// An event with its deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// When the event was emitted, by the store's clock.
    pub emitted_at: Time,
    /// The event as it was encoded.
    pub body: String,
    /// One for each destination of the event's route.
    pub deliveries: Vec<Delivery>,
}

/// A query of deliveries by the time at which their events were emitted.
#[derive(Debug, Clone)]
pub struct DeliveryQuery {
    /// Inclusive lower bound of the time, by the store's clock.
    pub from: Time,
    /// Inclusive upper bound of the time, by the store's clock.
    pub to: Time,
    /// Only events before this position.
    pub below: Option<EventCursor>,
    /// The maximum number of events.
    pub max: usize,
}

/// A page of events with their deliveries, without their bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPage {
    /// Newest first.
    pub events: Vec<EventDeliveries>,
    /// The position below which the next page begins; `None` if there is none.
    pub next: Option<EventCursor>,
}

/// The deliveries of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventDeliveries {
    /// The position of the event.
    pub cursor: EventCursor,
    /// When the event was emitted, by the store's clock.
    pub emitted_at: Time,
    /// The `time` of the event, by the wall clock; `None` if the event cannot be read.
    pub time: Option<Time>,
    /// One for each destination of the event's route.
    pub deliveries: Vec<Delivery>,
}

/// The position of an event in commit order. Opaque: only the store that has returned it can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventCursor(i64);

impl EventCursor {
    pub(super) const fn new(position: i64) -> Self {
        Self(position)
    }

    pub(super) const fn position(self) -> i64 {
        self.0
    }
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EventCursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The state of an event at one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The destination's name.
    pub destination: Name,
    /// The state of the delivery.
    pub state: DeliveryState,
    /// Calls that were made and settled.
    pub attempts: u32,
    /// When the destination accepted the event; `None` if unknown, for deliveries of earlier versions.
    pub delivered_at: Option<Time>,
    /// The error of the last attempt, or why the event was not sent.
    pub error: Option<String>,
    /// The destination's answer, if it gave one.
    pub answer: Option<String>,
    /// Whether it is not called until a decision resumes it.
    pub is_suspended: bool,
    /// Whether a call may have arrived although no answer said so.
    pub is_uncertain: bool,
    /// The id of the event for which it waits, if that is known.
    pub blocked_by: Option<String>,
    /// When the next attempt is due, by the store's clock.
    pub due: Option<Time>,
}

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Not called yet, or called for the first time.
    Pending,
    /// To be retried: failed or redriven; claimed or not.
    Retrying,
    /// Accepted by the destination.
    Delivered,
    /// A dead letter.
    Dead,
    /// Cancelled by a decision, for example to increase capacity.
    Superseded,
    /// Not sent, since the events that it would compensate never arrived.
    Withdrawn,
    /// A dead letter that an operator discarded.
    Discarded,
    /// A dead letter that a decision has replaced by a new event.
    Replaced,
}

impl DeliveryState {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Superseded => "superseded",
            Self::Withdrawn => "withdrawn",
            Self::Discarded => "discarded",
            Self::Replaced => "replaced",
        }
    }

    /// Whether the event can still be delivered.
    pub(super) const fn is_unsettled(self) -> bool {
        matches!(self, Self::Pending | Self::Retrying)
    }
}

/// The position of a state in the list of all states. Opaque: only the store that has returned it can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct StateCursor(i64);

impl StateCursor {
    pub(super) const fn new(position: i64) -> Self {
        Self(position)
    }

    pub(super) const fn position(self) -> i64 {
        self.0
    }
}

/// A target's state with its position.
#[derive(Debug, Clone)]
pub struct StoredState {
    /// Ascending.
    pub cursor: StateCursor,
    /// The target's key.
    pub key: TargetKey,
    /// Never empty: empty states are deleted.
    pub state: TargetState,
}

/// Whether a text can be an event's id: 32 hex digits.
pub(super) fn is_event_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())
}
