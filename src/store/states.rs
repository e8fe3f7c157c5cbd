//! The contract about states: transactions on targets, due work, and what every decision reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::audit::{AuditEntry, AuditWrite};
use super::{DecideFn, Error, KeptNotification, NotificationLimits};
use crate::domain::alert_key::AlertKey;
use crate::domain::control::Controls;
use crate::domain::delivery::DeliveryChange;
use crate::domain::engine::{DeliveryFeedback, States};
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rate::{RateDelta, Rates};
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::domain::verdict::Verdict;

/// Transactions on the states of targets.
pub(super) trait StateStore {
    /// Runs `decide` on the states of the given targets and of those that know a given alert, and commits its changes
    /// atomically. Transactions about one target are serial. `decide` can run more than once. When this returns `Ok`,
    /// the changes are on disk.
    fn transact(&self, keys: Keys, decide: DecideFn) -> impl Future<Output = Result<(), Error>> + Send;

    /// The targets at which alerts are known. Only a hint: it can be outdated when it is returned.
    fn locate(
        &self,
        alerts: Vec<AlertKey>,
    ) -> impl Future<Output = Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error>> + Send;

    /// Up to `max` targets that have to be processed: they are due by time, or in the recheck queue. Targets whose
    /// rows cannot be read are left out.
    fn due(&self, max: usize) -> impl Future<Output = Result<Vec<TargetKey>, Error>> + Send;

    /// The time at which the next target is due; the receiver is notified when it changes. Only a hint.
    fn next_due(&self) -> watch::Receiver<Option<Time>>;

    /// The last time that an earlier process has stored, see [`Store::last_stored`](super::Store).
    fn last_stored(&self) -> Option<Time>;

    /// When an earlier process has kept the last notification of each source, see [`Store::last_kept`](super::Store).
    fn last_kept(&self) -> BTreeMap<Name, Time>;

    /// What this process knows without asking the store. For its age see
    /// [`Snapshot`].
    fn snapshot(&self) -> Snapshot;

    /// Gives up the state of a target that cannot be read, see [`Store::drop_unreadable`](super::Store).
    fn drop_unreadable(
        &self,
        row: i64,
        audit: AuditWrite,
    ) -> impl Future<Output = Result<UnreadableRow, DropError>> + Send;

    /// Writes to the audit trail. Returns the id of the entry.
    fn audit(&self, write: AuditWrite) -> impl Future<Output = Result<i64, Error>> + Send;

    /// Deletes some of the rows past their retention. Returns whether there may be more.
    fn prune(
        &self,
        decisions: Duration,
        delivered: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Deletes some of the kept notifications that exceed the limits. Returns whether there may be more.
    fn prune_notifications(
        &self,
        limits: NotificationLimits,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Commits queued commands and closes the store.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// What a process knows about the store without asking it: as of its own last commit. A store that several processes
/// share refreshes it at least every five seconds. Decisions never use it: they read the [`View`] of their transaction.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Pauses, holds and heartbeats.
    pub controls: Arc<Controls>,
    /// Counts of open episodes and deferred actions.
    pub tally: Tally,
    /// The rows that cannot be read, as far as they were found: each is found when it is needed.
    pub unreadable_rows: Vec<UnreadableRow>,
}

/// What a transaction reads.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Targets whose states are read.
    pub targets: Vec<TargetKey>,
    /// Alerts: the states of targets that know one of them are read too.
    pub alerts: Vec<AlertKey>,
}

/// The input of a transaction.
#[derive(Debug)]
pub struct View {
    /// The store's time, which never goes back.
    pub now: Time,
    /// The wall clock at `now`.
    pub wall: Time,
    /// When this store was created.
    pub created: Time,
    /// The states of the targets in [`Keys`]; new targets have none.
    pub states: States,
    /// Pauses, holds and heartbeats.
    pub controls: Arc<Controls>,
    /// The delivery of the events that the states of the targets [track](TargetState::tracked_events).
    pub deliveries: DeliveryFeedback,
    /// The recent emissions and reserved slots of all processes that share the store; `None` if only one uses it, which
    /// remembers them itself.
    pub rates: Option<Rates>,
    /// Changes when the store comes back behind what was committed. Unless it is 0, it is part of the ids of events, so that
    /// no id has two contents.
    pub incarnation: u64,
    /// Whether another process that uses the store has a newer configuration, or had one within the last hour: what this
    /// one does not know may be part of it.
    pub has_newer_configuration: bool,
}

impl View {
    /// The moment of the transaction.
    pub fn clock(&self) -> ClockReading {
        ClockReading { now: self.now, wall: self.wall }
    }
}

/// The changes of a transaction, committed atomically.
#[derive(Debug, Default)]
pub struct Changes {
    /// New states. An empty state is deleted.
    pub states: Vec<(TargetKey, TargetState)>,
    /// New controls. If [`Controls::generation`] has increased, every target whose state
    /// [depends on controls](TargetState::depends_on_controls) is due at once.
    pub controls: Option<Arc<Controls>>,
    /// Targets whose deferred actions were re-evaluated: they leave the recheck queue.
    pub rechecked: Vec<TargetKey>,
    /// The decision record.
    pub record: Option<Record>,
    /// The notification that has caused the decisions, if it is kept.
    pub notification: Option<KeptNotification>,
    /// The emitted events.
    pub events: Vec<NewEvent>,
    /// Changes of the delivery of events that a state tracks.
    pub delivery_changes: Vec<DeliveryChange>,
    /// Changes of the rates of the view, if it has any.
    pub rates: RateDelta,
    /// The audit entry, if an operator's act makes these changes.
    pub audit: Option<AuditEntry>,
}

/// A decision record to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The targets of its decisions, without duplicates.
    pub targets: Vec<TargetKey>,
    /// JSON.
    pub body: String,
}

/// An event to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The target; its events are delivered in order.
    pub target: TargetKey,
    /// The destinations; not empty.
    pub destinations: Arc<[Name]>,
    /// Those of the destinations whose consumers change capacity; all of them if none does.
    pub acting: Arc<[Name]>,
    /// Whether the event can decrease capacity.
    pub may_decrease_capacity: bool,
    /// The ids of the events that the event takes back: it goes only to destinations at which one of them arrived. Empty
    /// if it compensates the `on_firing` events of its episode.
    pub reverts: Arc<[Arc<str>]>,
    /// The end of an episode that the event is about, so that `on_resolved` can compensate `on_firing`.
    pub episode_phase: Option<EpisodePhase>,
    /// The event, encoded once.
    pub body: EncodedEvent,
}

/// The firing or resolved end of an episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpisodePhase {
    /// `Firing` or `Resolved`.
    pub phase: Phase,
    /// The episode's id.
    pub episode: Arc<str>,
}

/// Counts of open episodes and deferred actions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Open episodes by rule.
    pub open_episodes: BTreeMap<Name, u64>,
    /// Deferred actions by blocking verdict.
    pub deferred: BTreeMap<Verdict, u64>,
    /// By rule: emitted increases for which a decrease is owed.
    pub owed: BTreeMap<Name, u64>,
}

/// The keys of a transaction that refer to states which cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnreadableStates {
    /// Targets.
    pub targets: BTreeSet<TargetKey>,
    /// Alerts that are known at such a target.
    pub alerts: BTreeSet<AlertKey>,
}

impl UnreadableStates {
    /// Adds others.
    pub fn extend(&mut self, others: Self) {
        self.targets.extend(others.targets);
        self.alerts.extend(others.alerts);
    }
}

impl fmt::Display for UnreadableStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.targets.first() {
            Some(first) => write!(f, "the state of target {first} cannot be read")?,
            None => write!(f, "the state of a target of these alerts cannot be read")?,
        }
        write!(f, "; `scalebridge status` lists such targets, `scalebridge store drop` gives one up")
    }
}

/// A row of the store that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRow {
    /// The target's id in the store.
    pub id: i64,
    /// The target; `None` if its key cannot be read either.
    pub target: Option<TargetKey>,
    /// When it was found.
    pub since: Time,
    /// Why it cannot be read.
    pub error: String,
}

/// Why a row was not dropped.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DropError {
    /// The store could not read or write.
    #[error(transparent)]
    Store(#[from] Error),
    /// The row can be read, or does not exist.
    #[error("the store has no such unreadable row")]
    NotUnreadable,
}
