//! The contract about deliveries: they are claimed with a lease, sent, and settled by that lease.

use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::audit::AuditWrite;
use super::dead_letters::{DeadLetter, DeadLetterError, DeliveryId, Redrive};
use crate::domain::delivery::GiveUp;
use crate::domain::header::{EncodedEvent, EventHeader};
use crate::domain::name::Name;
use crate::domain::retry::AgeLimits;
use crate::domain::time::{ClockReading, Time};

/// How long an event waits if those that it compensates stand aside, before it looks again.
pub(super) const COMPENSATION_DELAY: Duration = Duration::from_secs(5);

/// The operations of a delivery worker.
pub trait DeliveryQueue: Clone + Send + Sync + 'static {
    /// Claims up to `max` deliveries that can be sent now, at most one per target. They stay claimed until they are
    /// settled, or until their lease ends.
    ///
    /// # Errors
    /// If the store cannot be read; nothing stays claimed then.
    fn claim(
        &self,
        destination: &Name,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send;

    /// Claims deliveries whose age is over, whatever they wait for: a retry, or a delivery of the same target that
    /// does. At most `max` are returned or examined.
    ///
    /// # Errors
    /// If the store cannot be read; nothing stays claimed then.
    fn claim_expired(
        &self,
        destination: &Name,
        limits: AgeLimits,
        max: usize,
    ) -> impl Future<Output = Result<Expired, Error>> + Send;

    /// The number of unsettled deliveries. Cheap.
    fn undelivered_at(&self, destination: &Name) -> u64;

    /// Stores that claimed deliveries are about to be called. When this returns `Ok`, that is on disk: if the process
    /// ends during the call, its outcome is unknown. Returns those that must not be called, about which nothing was
    /// stored.
    ///
    /// # Errors
    /// Nothing was written; none of them must be called.
    fn begin_calls(
        &self,
        destination: &Name,
        leases: Vec<Lease>,
    ) -> impl Future<Output = Result<Vec<Refused>, Error>> + Send;

    /// Stores the outcomes of claimed deliveries. When this returns `Ok`, they are on disk.
    ///
    /// # Errors
    /// Nothing was written, or with `Error::Locked` nothing about some. Unless the call is repeated, the deliveries are sent
    /// again after a restart.
    fn settle(
        &self,
        destination: &Name,
        settled: Vec<(Lease, Settlement)>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Completes when a delivery may have become claimable since the call (not since the first poll). Spurious
    /// wake-ups are possible.
    fn wait(&self, destination: &Name) -> impl Future<Output = ()> + Send;

    /// The current moment by the store's clock and by the wall clock.
    fn clock(&self) -> ClockReading;

    /// The store's time.
    fn now(&self) -> Time {
        self.clock().now
    }
}

/// Destinations with their deliveries and dead letters.
pub(super) trait Outbox: DeliveryQueue {
    /// Adds destinations: all of them or, after an error, none. One that the store knows continues where it was.
    fn add_destinations(&self, destinations: Vec<Name>) -> impl Future<Output = Result<(), Error>> + Send;

    /// Removes a destination whose worker has ended. Its unsettled deliveries stay in the store.
    fn remove_destination(&self, destination: Name) -> impl Future<Output = Result<(), Error>> + Send;

    /// Destinations that have unsettled deliveries and that were not added to the open store.
    fn orphaned_destinations(&self) -> impl Future<Output = Result<Vec<Name>, Error>> + Send;

    /// Up to `max` unsettled events of a destination, see [`Store::unsettled_events`](super::Store::unsettled_events).
    fn unsettled_events(
        &self,
        destination: &Name,
        max: usize,
    ) -> impl Future<Output = Result<Vec<UnsettledEvent>, Error>> + Send;

    /// Sets the maximum number of undelivered events of a destination; further events become dead letters at once.
    fn set_max_backlog(&self, destination: &Name, max_backlog: Option<u64>) -> Result<(), Error>;

    /// Ends the leases of a destination's deliveries, which makes them claimable.
    fn release(&self, destination: &Name, retries: Retries) -> Result<(), Error>;

    /// The number of unsettled deliveries of all destinations. Cheap: nothing is counted or read. As old as
    /// a [`Snapshot`](super::Snapshot).
    fn undelivered(&self) -> u64;

    /// The deliveries of a destination; zeros for an unknown one. As old as a [`Snapshot`](super::Snapshot).
    fn stats(&self, destination: &Name) -> DestinationStats;

    /// Dead letters, see [`Store::dead_letters`](super::Store::dead_letters).
    fn dead_letters(
        &self,
        destination: Option<Name>,
        after: Option<DeliveryId>,
        max: usize,
    ) -> impl Future<Output = Result<Vec<DeadLetter>, Error>> + Send;

    /// Redrives a dead letter, see [`Store::redrive`](super::Store::redrive).
    fn redrive(
        &self,
        delivery_id: &DeliveryId,
        redrive: Redrive,
        audit: AuditWrite,
    ) -> impl Future<Output = Result<(), DeadLetterError>> + Send;

    /// Discards a dead letter, see [`Store::discard`](super::Store::discard).
    fn discard(
        &self,
        delivery_id: &DeliveryId,
        audit: AuditWrite,
    ) -> impl Future<Output = Result<(), DeadLetterError>> + Send;
}

/// What becomes of deliveries that wait for a retry when the leases of a destination end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retries {
    /// They stay scheduled. The worker of the destination is woken.
    Keep,
    /// They are due at once. Nobody is woken: the caller is the one that claims.
    DueNow,
}

/// The deliveries of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DestinationStats {
    /// Counted by state.
    pub backlog: Backlog,
    /// Unsettled ones.
    pub undelivered: u64,
    /// The emission time of the oldest event that is not settled.
    pub oldest_unsettled: Option<Time>,
}

/// The number of an event in the store, ascending in commit order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventSeq(pub i64);

/// The right to send and settle a claimed delivery: the event's number, and a token that is new for each claim. It ends
/// with the settlement, or when the claim is released, for example because its worker has ended. A settlement by a
/// lease that has ended changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    seq: EventSeq,
    token: u64,
}

impl Lease {
    pub(crate) const fn new(seq: EventSeq, token: u64) -> Self {
        Self { seq, token }
    }

    /// The event's number.
    pub const fn seq(self) -> EventSeq {
        self.seq
    }

    pub(super) const fn token(self) -> u64 {
        self.token
    }
}

/// A claimed delivery that must not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Its lease.
    pub lease: Lease,
    /// Why.
    pub reason: RefusalReason,
}

/// Why a claimed delivery must not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// It was cancelled.
    Superseded,
    /// It is suspended. Settled as [`Settlement::NotCalled`], it waits until it is resumed.
    Suspended,
    /// Its target is locked for long. Settled as [`Settlement::NotCalled`], it is tried again.
    Locked,
    /// Another claim of it may be in use.
    LeaseEnded,
}

/// A claimed delivery.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The right to send and settle it.
    pub lease: Lease,
    /// The event as it is sent: as it was encoded, or with the `expirytime` that its redrive has set.
    pub body: EncodedEvent,
    /// When the event was emitted, redriven, renewed or resumed: the limits of its age count from then.
    pub emitted_at: Time,
    /// Failed calls so far.
    pub attempts: u32,
    /// Whether an earlier call may have arrived: no answer said that it did not, or the process ended during it.
    pub is_uncertain: bool,
    /// The number of redrives that have set another `expirytime`.
    pub redrives: u32,
    /// The error of the last attempt.
    pub last_error: Option<Arc<str>>,
    /// Whether the event would compensate events that never arrived at this destination: it must be withdrawn
    /// instead of sent.
    pub nothing_to_compensate: bool,
}

/// An event that a destination has not settled.
#[derive(Debug, Clone)]
pub struct UnsettledEvent {
    /// Its fields.
    pub header: Arc<EventHeader>,
    /// Whether its delivery is claimed, so that a call may be under way.
    pub is_claimed: bool,
}

impl UnsettledEvent {
    /// The readable ones of claimed deliveries.
    pub(super) fn from_claimed(read: Vec<Claimed>, claimed: &[EventSeq]) -> Vec<Self> {
        let event = |one: Claimed| {
            let is_claimed = claimed.contains(&one.lease.seq());
            Some(Self { header: one.body.header().ok()?, is_claimed })
        };
        read.into_iter().filter_map(event).collect()
    }
}

/// The result of [`DeliveryQueue::claim_expired`].
#[derive(Debug, Default)]
pub struct Expired {
    /// The deliveries to be given up.
    pub claimed: Vec<Claimed>,
    /// The number of deliveries that were read to find out when they expire, and have not expired.
    pub examined: usize,
    /// The number of deliveries that wait for a retry, or for one of their target.
    pub waiting: usize,
}

/// The outcome of a claimed delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The destination accepted the event.
    Delivered {
        /// What it answered, at most a few KiB of text; it is stored with the delivery.
        answer: Option<String>,
    },
    /// Not sent, since the events that it would compensate never arrived, or since an increase superseded it.
    /// Not a dead letter.
    Withdrawn {
        /// For the decision record.
        reason: String,
    },
    /// To be retried after `delay`, unless it was cancelled while it was claimed.
    Retry {
        /// The backoff.
        delay: Duration,
        /// The error of the attempt.
        error: String,
        /// Whether the event may have arrived: no answer said that it did not.
        uncertain: bool,
    },
    /// Released without a call: no attempt is counted, and an earlier error stays.
    NotCalled {
        /// How long it cannot be claimed.
        delay: Duration,
        /// Whether later events of its target can be sent meanwhile.
        stands_aside: bool,
    },
    /// Given up and stored as a dead letter.
    Dead {
        /// Why it was given up.
        error: String,
        /// The kind of reason.
        cause: GiveUp,
        /// Whether this is the outcome of a call; otherwise no attempt is counted.
        called: bool,
        /// Whether that call may have arrived: no answer said that it did not.
        uncertain: bool,
    },
}

/// The deliveries of a destination, counted by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Without a failed attempt, claimed or not.
    pub pending: u64,
    /// With a failed attempt, claimed or not.
    pub retrying: u64,
    /// Dead letters.
    pub dead: u64,
}
