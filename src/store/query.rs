//! What people and programs look at: decisions, events with their deliveries, states. Reading only.

use std::ops::Bound;

use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;

/// Which records of decisions are wanted, the newest first or the oldest first.
#[derive(Debug, Clone)]
pub struct RecordQuery {
    /// About this target only.
    pub target: Option<TargetKey>,
    /// Not before this time.
    pub from: Time,
    /// Not after it.
    pub to: Time,
    /// Records are numbered in the order of their commits: only those above this one.
    pub above: Bound<i64>,
    /// Only those below this one.
    pub below: Bound<i64>,
    /// Whether the newest comes first.
    pub newest_first: bool,
    /// At most so many, and fewer where they are long.
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
            newest_first: true,
            max: 100,
        }
    }
}

impl RecordQuery {
    /// The numbers that are wanted, both ends included.
    pub(super) fn id_range(&self) -> (i64, i64) {
        let above = match self.above {
            Bound::Unbounded => i64::MIN,
            Bound::Included(number) => number,
            Bound::Excluded(number) => number.saturating_add(1),
        };
        let below = match self.below {
            Bound::Unbounded => i64::MAX,
            Bound::Included(number) => number,
            Bound::Excluded(number) => number.saturating_sub(1),
        };
        (above, below)
    }
}

/// Records, and whether others like them come behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// In the order that was asked for.
    pub records: Vec<StoredRecord>,
    /// Whether there may be more.
    pub has_more: bool,
}

/// Records are read up to about so many bytes at once: one of a large notification has a megabyte.
pub(super) const MAX_RECORD_PAGE_BYTES: usize = 4 << 20;

/// A record of decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its number. They rise, and none comes again.
    pub id: i64,
    /// JSON, as it was written.
    pub body: String,
}

/// An event and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// When it was emitted.
    pub emitted_at: Time,
    /// The event as it was encoded.
    pub body: String,
    /// One for each destination that it was meant for.
    pub deliveries: Vec<Delivery>,
}

/// What has become of an event at one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where.
    pub destination: Name,
    /// What has become of it.
    pub state: DeliveryState,
    /// Attempts that failed; what arrived was tried once more.
    pub failed_attempts: u32,
    /// What went wrong the last time, or why it was not sent.
    pub error: Option<String>,
    /// What the destination answered, where that is kept.
    pub answer: Option<String>,
    /// When it is tried again.
    pub due: Option<Time>,
}

/// Where a delivery is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Not tried yet, or on its way.
    Pending,
    /// Waits for another try.
    Retrying,
    /// It arrived.
    Delivered,
    /// Given up, and kept.
    Dead,
    /// Cancelled by an event that adds capacity.
    Superseded,
    /// Not sent: what it would undo never arrived.
    Withdrawn,
    /// Was a dead letter, and was thrown away.
    Discarded,
}

impl DeliveryState {
    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Superseded => "superseded",
            Self::Withdrawn => "withdrawn",
            Self::Discarded => "discarded",
        }
    }
}

/// The state of a target with the store's number of it.
#[derive(Debug, Clone)]
pub struct StoredState {
    /// States are listed in the order of these.
    pub id: i64,
    /// Which target.
    pub key: TargetKey,
    /// Its state.
    pub state: TargetState,
}

/// What every event begins with, up to the end of its id.
pub(super) fn id_prefix(id: &str) -> String {
    format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\"")
}

/// Whether a text may be an event's id: 32 hex digits.
pub(super) fn is_event_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())
}
