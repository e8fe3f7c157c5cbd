//! What must survive: states of targets, decisions, and events with their deliveries.
//!
//! The heart is [`Store::transact`]: the states of the named targets go into a pure function, what
//! comes out is written together or not at all. State changes of one target are serial. When a call
//! returns `Ok`, what it wrote is on disk.
//!
//! Deliveries: every event has a list of destinations. For each destination the store keeps a
//! *cursor*, up to which everything is settled, and rows only for exceptions (waiting for another
//! try, given up, cancelled before the cursor came to it). [`Store::claim`] hands out what may be sent
//! now, and never two events about the same target at once, so a destination receives the events of a
//! target in their order.
//!
//! What undoes follows what was done: an `on_resolved` event goes only to destinations at which an
//! `on_firing` event of its episode arrived. The lane's order lets it wait for them. Evidence is, beside
//! the state of each target, the list of the `on_firing` events of its open episodes, each with its route:
//! routes tell who was given them, and rows who never got them. The list goes over to the event that
//! undoes, and rows that say *never arrived* outlive their events until nobody can ask for them. So
//! nothing is written when an event arrives, nothing is read where a destination has no such row, and
//! what was pruned counts as arrived. See [`Claimed::nothing_to_compensate`].
//!
//! What may make capacity less is *unsent* as long as a destination has not settled it. A transaction
//! about its target is told of it, and cancels it with an event that adds capacity.

mod clock;
mod dead_letters;
mod expiry;
mod fast_map;
mod lane;
mod lanes;
mod memory;
mod query;
mod sqlite;
#[cfg(test)]
mod tests;
mod undelivered_decreases;
mod withdrawn;

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::alert_key::AlertKey;
use crate::domain::control::Controls;
use crate::domain::engine::{States, UndeliveredDecrease};
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

pub(crate) use dead_letters::{DeadLetter, DeadLetterError, DeliveryId, Redrive};
use lanes::LaneHandle;
pub use memory::Memory;
pub(crate) use query::{
    Delivery, DeliveryState, RecordQuery, Records, StoredEvent, StoredRecord, StoredState,
};
pub use sqlite::Sqlite;

/// Reads the wall clock. Handed in, so that nothing below reads one by itself.
pub(crate) type WallClock = Arc<dyn Fn() -> Time + Send + Sync>;

/// The decision of a transaction. Pure, and able to run again.
pub(crate) type DecideFn = Box<dyn FnMut(&View) -> Changes + Send>;

/// A store; cheap to clone.
#[derive(Clone)]
pub enum Store {
    /// One file on this machine.
    Sqlite(Sqlite),
    /// Nothing on disk: for tests.
    Memory(Memory),
}

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
    /// What holds for all targets.
    pub controls: Arc<Controls>,
    /// For each wanted target, the events that may make its capacity less and that some destination has
    /// not been sent yet. Until the transaction is over no worker takes them.
    pub undelivered_decreases: BTreeMap<TargetKey, Vec<UndeliveredDecrease>>,
}

/// What a transaction writes, all or nothing.
#[derive(Debug, Default)]
pub struct Changes {
    /// New states. An empty one is forgotten.
    pub states: Vec<(TargetKey, TargetState)>,
    /// New controls. Where [`Controls::generation`] has risen, every target that [`TargetState::depends_on_controls`] is
    /// due at once.
    pub controls: Option<Arc<Controls>>,
    /// Targets at which all that waits has been looked at, so that they are not due for the sake of the
    /// controls any more.
    pub rechecked: Vec<TargetKey>,
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
    /// Whether it adds capacity. Such an event cancels what [`View::undelivered_decreases`] names of its target, wherever
    /// it was not sent yet; what is on its way is not tried again.
    pub increases_capacity: bool,
    /// Whether it may make capacity less.
    pub may_decrease_capacity: bool,
    /// Which end of which episode it is about, where what undoes has to follow what was done.
    pub episode_phase: Option<EpisodePhase>,
    /// The event, encoded once.
    pub body: EncodedEvent,
}

/// One end of an episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpisodePhase {
    /// Which end.
    pub phase: Phase,
    /// The episode's id.
    pub episode: Arc<str>,
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
    pub body: EncodedEvent,
    /// When it was emitted; when it was redriven, if it was a dead letter since.
    pub emitted_at: Time,
    /// How often it was tried before.
    pub attempts: u32,
    /// What went wrong the last time, where it was tried before.
    pub last_error: Option<Arc<str>>,
    /// Whether it would undo what this destination never got: it is not to be sent, but withdrawn.
    pub nothing_to_compensate: bool,
}

/// What became of a delivery that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It arrived.
    Delivered,
    /// It arrived, and this is what the destination answered, to be kept with the delivery.
    Answered {
        /// At most a few KiB of text.
        answer: String,
    },
    /// It is not sent: what it would undo never arrived here. No dead letter.
    Withdrawn {
        /// Why.
        reason: String,
    },
    /// It is tried again after `delay`, unless it was cancelled on its way.
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

/// What is open and what waits, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Open episodes by their rules.
    pub open_episodes: BTreeMap<Name, u64>,
    /// What waits, by what stops it.
    pub deferred: BTreeMap<Verdict, u64>,
}

/// Deliveries of a destination that is no more are given up so many at once.
const MAX_DRAIN_BATCH_SIZE: usize = 1000;

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

macro_rules! delegate {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            Store::Sqlite($inner) => $call,
            Store::Memory($inner) => $call,
        }
    };
}

impl Store {
    /// Runs `decide` on the states of the named targets and of those that know a named alert, and
    /// writes what it gives. When this returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn transact<R: Send + 'static>(
        &self,
        keys: Keys,
        mut decide: impl FnMut(&View) -> (Changes, R) + Send + 'static,
    ) -> Result<R, Error> {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        let decide: DecideFn = Box::new(move |view| {
            let (changes, result) = decide(view);
            *slot.lock() = Some(result);
            changes
        });
        delegate!(self, store => store.transact(keys, decide).await)?;
        let decided = result.lock().take();
        decided.ok_or(Error::Closed)
    }

    /// Where alerts are known by now; only a hint, since it may have changed when it is read.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn locate(&self, alerts: Vec<AlertKey>) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error> {
        let keys = Keys { alerts, targets: Vec::new() };
        delegate!(self, store => store.locate(keys).await)
    }

    /// Up to `max` targets that have to be looked at: their time has come, or the controls have changed.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        delegate!(self, store => store.due(max).await)
    }

    /// When the next target has to be looked at, as it changes.
    pub fn next_due(&self) -> watch::Receiver<Option<Time>> {
        delegate!(self, store => store.next_due())
    }

    /// The store's time.
    pub fn now(&self) -> Time {
        delegate!(self, store => store.now())
    }

    /// The controls as they are on disk.
    pub fn controls(&self) -> Arc<Controls> {
        delegate!(self, store => store.controls())
    }

    /// What is open and what waits.
    pub fn tally(&self) -> Tally {
        delegate!(self, store => store.tally())
    }

    fn lane_handle(&self, destination: &Name) -> Result<Arc<LaneHandle>, Error> {
        let lanes = delegate!(self, store => store.lanes());
        let unknown =
            || Error::Unusable(format!("the store was not opened for the destination {destination}"));
        lanes.get(destination).ok_or_else(unknown)
    }

    /// Hands out up to `max` deliveries that may be sent now, at most one for each target, and none of a
    /// target about which a transaction has just been told that something is unsent. They stay handed
    /// out until they are settled.
    ///
    /// # Errors
    /// If the store cannot be read; nothing stays handed out then.
    pub async fn claim(&self, destination: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        let handle = self.lane_handle(destination)?;
        delegate!(self, store => store.claim(&handle, max).await)
    }

    /// Whether a delivery that is handed out was cancelled meanwhile: it need not be sent any more.
    pub fn is_cancelled(&self, destination: &Name, seq: EventSeq) -> bool {
        self.lane_handle(destination).is_ok_and(|handle| handle.with_lane(|lane| lane.is_cancelled(seq)))
    }

    /// Bounds what a destination may have undelivered: with as many, what it is given is a dead letter at
    /// once, and nobody else has to wait for it. `None` is no bound.
    ///
    /// # Errors
    /// The store was not opened for the destination.
    pub fn set_max_backlog(&self, destination: &Name, max_backlog: Option<u64>) -> Result<(), Error> {
        self.lane_handle(destination)?.set_max_backlog(max_backlog);
        Ok(())
    }

    /// Deliveries of all destinations that are neither settled nor given up. Costs nearly nothing.
    pub fn undelivered(&self) -> u64 {
        delegate!(self, store => store.lanes())
            .all()
            .values()
            .map(|handle| handle.with_lane(|lane| lane.undelivered()))
            .sum()
    }

    /// Up to `max` dead letters, of one destination or of all, also of those that are configured no more:
    /// the oldest first, from behind `after` on. A page that is full may have others behind it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn dead_letters(
        &self,
        destination: Option<&Name>,
        after: Option<&DeliveryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        delegate!(self, store => store.dead_letters(destination.cloned(), after.cloned(), max).await)
    }

    /// One dead letter, if it is one.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn dead_letter(&self, delivery_id: &DeliveryId) -> Result<Option<DeadLetter>, Error> {
        let before = DeliveryId { seq: EventSeq(delivery_id.seq.0.saturating_sub(1)), ..delivery_id.clone() };
        let found = self.dead_letters(Some(&delivery_id.destination), Some(&before), 1).await?;
        Ok(found.into_iter().find(|dead_letter| dead_letter.delivery_id == *delivery_id))
    }

    /// Sends a dead letter once more: the same event with its id and `sequence`. It takes its place by the
    /// order of its target's events among those that this destination has not settled; what came later
    /// and is settled by now stays before it, so consumers that look at `sequence` may ignore it. Its age
    /// counts from now. When this returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// Nothing has changed; [`DeadLetterError`] says why.
    pub async fn redrive(&self, delivery_id: &DeliveryId, redrive: Redrive) -> Result<(), DeadLetterError> {
        let handle = self
            .lane_handle(&delivery_id.destination)
            .map_err(|_| DeadLetterError::NotConfigured(delivery_id.destination.clone()))?;
        delegate!(self, store => store.redrive(&handle, delivery_id.seq, redrive).await)
    }

    /// Throws a dead letter away: it is not sent any more, and what would undo it is withdrawn. When this
    /// returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// Nothing has changed; [`DeadLetterError`] says why.
    pub async fn discard(&self, delivery_id: &DeliveryId) -> Result<(), DeadLetterError> {
        delegate!(self, store => store.discard(delivery_id).await)
    }

    /// Says what became of deliveries. When this returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// Nothing was written; to be called again, or they are sent again after a restart.
    pub async fn settle(
        &self,
        destination: &Name,
        settled: Vec<(EventSeq, Settlement)>,
    ) -> Result<(), Error> {
        let handle = self.lane_handle(destination)?;
        delegate!(self, store => store.settle(&handle, settled).await)
    }

    /// Completes when something may be claimable; also when nothing is.
    pub async fn wait(&self, destination: &Name) {
        match self.lane_handle(destination) {
            Ok(handle) => handle.wait(self.now()).await,
            Err(_) => std::future::pending().await,
        }
    }

    /// Opens the store for one more destination. One that was there before goes on where it stood.
    ///
    /// # Errors
    /// The store could not write.
    pub async fn add_destination(&self, destination: &Name) -> Result<(), Error> {
        delegate!(self, store => store.add_destination(destination.clone()).await)
    }

    /// What the destination's worker, which is no more, had claimed and not settled may be claimed again.
    ///
    /// # Errors
    /// The store was not opened for the destination.
    pub fn release_claims(&self, destination: &Name) -> Result<(), Error> {
        let handle = self.lane_handle(destination)?;
        handle.with_lane(|lane| lane.release_claims(false));
        handle.wake();
        Ok(())
    }

    /// Destinations that the store was not opened for, and that have not got all that they were given.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn orphaned_destinations(&self) -> Result<Vec<Name>, Error> {
        delegate!(self, store => store.orphaned_destinations().await)
    }

    /// Ends a destination that nobody delivers to any more: what it has not got becomes dead letters that say
    /// why, and how many. Its worker has ended before.
    ///
    /// # Errors
    /// The store could not do it; a part may be done, and it can be called again.
    pub async fn drain_to_dead_letters(&self, destination: &Name, reason: &str) -> Result<u64, Error> {
        let handle = self.lane_handle(destination)?;
        let mut drained = 0;
        let mut polls_left = 100_u32;
        loop {
            handle.with_lane(|lane| lane.release_claims(true));
            let claimed = self.claim(destination, MAX_DRAIN_BATCH_SIZE).await?;
            if claimed.is_empty() {
                // A transaction may be looking at what is left.
                polls_left = polls_left.saturating_sub(1);
                if polls_left == 0 || handle.with_lane(|lane| lane.undelivered()) == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            drained += claimed.len() as u64;
            let dead = |claimed: Claimed| match claimed.nothing_to_compensate {
                true => (claimed.seq, Settlement::Withdrawn { reason: reason.to_owned() }),
                false => (claimed.seq, Settlement::Dead { error: reason.to_owned() }),
            };
            self.settle(destination, claimed.into_iter().map(dead).collect()).await?;
        }
        let undelivered = handle.with_lane(|lane| lane.undelivered());
        if undelivered > 0 {
            tracing::warn!(%destination, undelivered, "deliveries of a destination that is no more cannot be found");
        }
        delegate!(self, store => store.remove_destination(destination.clone()).await)?;
        Ok(drained)
    }

    /// How many deliveries of a destination are in which state.
    pub fn backlog(&self, destination: &Name) -> Backlog {
        self.lane_handle(destination).map(|handle| handle.backlog()).unwrap_or_default()
    }

    /// When the oldest event was emitted that this destination has not settled.
    pub fn oldest_unsettled(&self, destination: &Name) -> Option<Time> {
        self.lane_handle(destination).ok().and_then(|handle| handle.with_lane(|lane| lane.oldest_unsettled()))
    }

    /// What was decided about a target in `from..=to`, oldest first: the records' JSON.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn history(&self, target: &TargetKey, from: Time, to: Time) -> Result<Vec<String>, Error> {
        delegate!(self, store => store.history(target, from, to).await)
    }

    /// Records of decisions, as many as can be read at once.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn records(&self, query: RecordQuery) -> Result<Records, Error> {
        delegate!(self, store => store.records(query).await)
    }

    /// An event by its id, with what has become of it at each destination. Of several with the same id it is
    /// the newest.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        if !query::is_event_id(id) {
            return Ok(None);
        }
        delegate!(self, store => store.event(id).await)
    }

    /// Up to `max` states of targets behind the one of this number, in the order of their numbers.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn states(&self, after: i64, max: usize) -> Result<Vec<StoredState>, Error> {
        delegate!(self, store => store.states(after, max).await)
    }

    /// Removes some of the records that are older than `decisions`, but never the newest one, which knows how
    /// far numbers and time have come; and of the events that are older than `delivered` and settled everywhere.
    /// Says whether there may be more.
    ///
    /// # Errors
    /// Nothing was removed.
    pub async fn prune(&self, decisions: Duration, delivered: Duration) -> Result<bool, Error> {
        delegate!(self, store => store.prune(decisions, delivered).await)
    }

    /// Writes what is queued and closes.
    pub async fn close(&self) {
        delegate!(self, store => store.close().await);
    }
}
