//! The one thread that writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLockReadGuard, RwLockWriteGuard};
use rusqlite::Connection;
use tokio::sync::watch;

use super::checkpoint::{self, HandOver};
use super::command::{Command, DropOnCaller, Reply};
use super::committed::CommittedView;
use super::dictionaries::Dictionaries;
use super::index::{CachedTarget, Fingerprint, Fingerprints, Index, IndexOverlay};
use super::optimistic::{SharedIndex, SpeculationGate};
use super::prune::PruneCursor;
use super::restore::read_lanes;
use super::schema::{self, Database};
use super::tally::Deltas;
use super::undelivered_decreases::DecreaseTracker;
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::state::AlertKey;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::clock::Clock;
use crate::store::fast_map::{Map, Set};
use crate::store::lane::{Lane, NewDelivery, Outcome, PendingRetry};
use crate::store::lanes::LaneHandles;
use crate::store::undelivered_decreases::UndeliveredDecreases;
use crate::store::{DeadLetterError, Error, EventSeq, Keys, WallClock};

/// A change of the outlets.
enum DestinationChange {
    Add(Name, Reply<()>),
    Remove(Name, Reply<()>),
}

/// Commits hold about as many keys and settlements.
const MAX_BATCH_WEIGHT: usize = 1000;
/// How long what nobody waits for stays uncommitted, so that it shares the commit of what comes in.
const SETTLE_DELAY: Duration = Duration::from_millis(5);
/// How long a commit waits for decisions that are being made: the pages that every commit writes are written
/// less often then.
const GROUP_COMMIT_DELAY: Duration = Duration::from_micros(500);

/// The store's clock and the number of the last event, read by many and set by the writer.
pub(super) struct SharedClock {
    wall: WallClock,
    started: Instant,
    clock: Mutex<Clock>,
    pub(super) last_event: AtomicI64,
}

impl SharedClock {
    pub(super) fn start(wall: WallClock, last_stored: Option<Time>) -> Self {
        let clock = Clock::start(wall(), last_stored, Duration::ZERO);
        Self { wall, started: Instant::now(), clock: Mutex::new(clock), last_event: AtomicI64::new(0) }
    }

    pub(super) fn now(&self) -> Time {
        let mut clock = self.clock.lock();
        clock.read((self.wall)(), self.started.elapsed())
    }

    pub(super) fn last_event(&self) -> i64 {
        self.last_event.load(Ordering::Acquire)
    }
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) created: Time,
    pub(super) index: SharedIndex,
    pub(super) gate: Arc<SpeculationGate>,
    pub(super) hashes: Fingerprints,
    pub(super) lanes: LaneHandles,
    pub(super) clock: Arc<SharedClock>,
    pub(super) committed: Arc<CommittedView>,
    due: watch::Sender<Option<Time>>,
    checkpoints: SyncSender<()>,
    hand_over: HandOver,
    pub(super) routes: Map<Arc<[Name]>, i64>,
    pub(super) decrease_tracker: DecreaseTracker,
    /// How far the present round of pruning has come.
    pub(super) prune_cursor: PruneCursor,
    next: NextIds,
    _lock: std::fs::File,
}

/// What the writer shares with others.
pub(super) struct WriterDeps {
    pub lanes: LaneHandles,
    pub clock: Arc<SharedClock>,
    pub committed: Arc<CommittedView>,
    /// When the next target is due.
    pub due: watch::Sender<Option<Time>>,
    /// Wakes the thread that folds the log.
    pub checkpoints: SyncSender<()>,
    pub hand_over: HandOver,
    pub index: SharedIndex,
    pub gate: Arc<SpeculationGate>,
}

/// The numbers that come next.
#[derive(Clone, Copy)]
pub(super) struct NextIds {
    pub(super) target: i64,
    pub(super) record: i64,
    pub(super) event: i64,
}

/// What a batch has done and not committed.
pub(super) struct WriteBatch {
    pub(super) overlay: IndexOverlay,
    pub(super) controls: Option<Arc<Controls>>,
    pub(super) dictionaries: Option<Arc<Dictionaries>>,
    pub(super) tally: Deltas,
    pub(super) next: NextIds,
    pub(super) events: Vec<CommittedEvent>,
    pub(super) lanes: Map<Name, LaneChanges>,
    pub(super) routes: Vec<(Arc<[Name]>, i64)>,
    /// Events that may make capacity less, written in this batch.
    pub(super) undelivered_decreases: UndeliveredDecreases<Fingerprint>,
    /// Events that this batch cancels.
    pub(super) cancelled: Set<i64>,
    /// It has pruned, and nothing was left to prune.
    pub(super) pruned_all: bool,
}

impl WriteBatch {
    fn new(next: NextIds) -> Self {
        Self {
            overlay: IndexOverlay::default(),
            controls: None,
            dictionaries: None,
            tally: Deltas::default(),
            next,
            events: Vec::new(),
            lanes: Map::default(),
            routes: Vec::new(),
            undelivered_decreases: UndeliveredDecreases::default(),
            cancelled: Set::default(),
            pruned_all: false,
        }
    }
}

/// An event to be offered to lanes once it is committed.
pub(super) struct CommittedEvent {
    pub(super) delivery: NewDelivery,
    pub(super) destinations: Arc<[Name]>,
}

/// A delivery that was settled.
pub(super) struct SettledDelivery {
    pub(super) seq: EventSeq,
    pub(super) outcome: Outcome,
    /// When it is tried again, if it is.
    pub(super) due: Time,
}

#[derive(Default)]
pub(super) struct LaneChanges {
    pub(super) settled: Set<i64>,
    /// By how much dead letters become more.
    pub(super) dead_delta: i64,
    pub(super) enqueued: u64,
    /// Settled in the commit that gives them, and how many of them are dead letters.
    pub(super) settled_on_insert: Set<i64>,
    pub(super) dead_on_insert: u64,
    pub(super) settlements: Vec<SettledDelivery>,
    /// Dead letters that are sent once more, and how many are thrown away.
    pub(super) redriven: Vec<PendingRetry>,
    pub(super) discarded: u64,
    /// How many rows of what never arrived nobody asks for any more.
    pub(super) pruned_rows: u64,
    /// Get a row in this batch, since an earlier one of their target has one.
    pub(super) blocked_by_retry: Vec<i64>,
    /// Are not to be sent any more.
    pub(super) cancelled: Set<i64>,
}

impl LaneChanges {
    /// Whether the delivery has arrived or was given up.
    pub(super) fn has_finished(&self, seq: i64) -> bool {
        self.settled.contains(&seq)
            && self.settlements.iter().any(|one| one.seq.0 == seq && one.outcome != Outcome::Retry)
            && !self.redriven.iter().any(|one| one.seq.0 == seq)
    }

    /// Whether the delivery has arrived.
    pub(super) fn has_arrived(&self, seq: i64) -> bool {
        let arrived = |one: &SettledDelivery| matches!(one.outcome, Outcome::Delivered | Outcome::Answered);
        self.settled.contains(&seq) && self.settlements.iter().any(|one| one.seq.0 == seq && arrived(one))
    }
}

impl LaneChanges {
    /// Tells a lane what is committed.
    fn apply_to(&self, lane: &mut Lane) {
        lane.add_enqueued(self.enqueued, self.settled_on_insert.len() as u64, self.dead_on_insert);
        self.blocked_by_retry.iter().for_each(|&seq| lane.mark_parked(EventSeq(seq)));
        for &SettledDelivery { seq, outcome, due } in &self.settlements {
            match outcome {
                Outcome::Retry => lane.schedule_retry(seq, due),
                Outcome::Dead => lane.mark_dead(seq),
                Outcome::Delivered | Outcome::Answered | Outcome::Withdrawn => lane.mark_delivered(seq),
            }
        }
        self.redriven.iter().for_each(|&waiting| lane.redrive(waiting));
        lane.mark_discarded(self.discarded);
        self.cancelled.iter().for_each(|&seq| lane.cancel(EventSeq(seq)));
        lane.forget_never_delivered(self.pruned_rows);
    }
}

/// A reply that waits for the commit.
type PendingReply = Box<dyn FnOnce(Result<(), Error>, &mut Vec<Arc<CachedTarget>>)>;

impl Writer {
    pub(super) fn new(opened: Database, hashes: Fingerprints, deps: WriterDeps) -> rusqlite::Result<Self> {
        let Database { writer: connection, created, lock, .. } = opened;
        let number = |query: &str| connection.query_row(query, [], |row| row.get::<_, i64>(0));
        let newest = "SELECT max(coalesce((SELECT max(id) FROM events), 0), coalesce((SELECT max(cursor) FROM destinations), 0))";
        let targets = "SELECT max(coalesce((SELECT max(id) FROM targets), 0), coalesce((SELECT max(id) FROM retired_targets), 0))";
        let last_event = number(newest)?;
        let next = NextIds {
            target: number(targets)? + 1,
            record: number("SELECT coalesce(max(id), 0) FROM records")? + 1,
            event: last_event + 1,
        };
        let WriterDeps { lanes, clock, committed, due, checkpoints, hand_over, index, gate } = deps;
        let decrease_tracker = DecreaseTracker::read(&connection)?;
        clock.last_event.store(last_event, Ordering::Release);
        Ok(Self {
            connection,
            created,
            index,
            gate,
            hashes,
            lanes,
            clock,
            committed,
            due,
            checkpoints,
            hand_over,
            routes: Map::default(),
            decrease_tracker,
            prune_cursor: PruneCursor::default(),
            next,
            _lock: lock,
        })
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write()
    }

    /// Works until it is told to close or nobody can ask any more.
    pub(super) fn run(mut self, queue: &Receiver<Command>) {
        while let Ok(first) = queue.recv() {
            let commands = self.collect_batch(first, queue);
            if !self.process_batch(commands) {
                break;
            }
        }
        self.finish();
    }

    /// What is written in one commit: what has queued up, and what comes in a moment.
    fn collect_batch(&self, first: Command, queue: &Receiver<Command>) -> Vec<Command> {
        let begun = Instant::now();
        let mut weight = first.weight();
        let mut commands = vec![first];
        let mut is_urgent = !commands[0].can_linger();
        while weight < MAX_BATCH_WEIGHT {
            let patience = match is_urgent {
                false => SETTLE_DELAY,
                true if self.gate.any_in_flight() => GROUP_COMMIT_DELAY,
                true => Duration::ZERO,
            };
            let next = queue.try_recv().or_else(|_| {
                let rest = patience.saturating_sub(begun.elapsed());
                if rest.is_zero() { Err(RecvTimeoutError::Timeout) } else { queue.recv_timeout(rest) }
            });
            let Ok(command) = next else { break };
            is_urgent |= !command.can_linger();
            weight += command.weight();
            commands.push(command);
        }
        commands
    }

    /// One batch. False when it was told to close.
    pub(super) fn process_batch(&mut self, commands: Vec<Command>) -> bool {
        let mut batch = WriteBatch::new(self.next);
        let mut pending_replies: Vec<PendingReply> = Vec::new();
        let mut open = true;
        // After an error SQLite may have rolled back by itself: what came then would be committed alone.
        let mut failed: Option<rusqlite::Error> = None;
        let mut begun = false;
        let mut destination_changes = Vec::new();
        for command in commands {
            let result = match command {
                Command::Close => {
                    open = false;
                    continue;
                }
                Command::Due { max, reply } => {
                    let due = self.keys_due(max, &batch);
                    drop(reply.send(due.map_err(|error| schema::unavailable(&error))));
                    continue;
                }
                Command::Locate { keys, reply } => {
                    let found = self.locate(&keys, &batch);
                    drop(reply.send(found.map_err(|error| schema::unavailable(&error))));
                    continue;
                }
                #[cfg(test)]
                Command::Pragma { name, value, reply } => {
                    let set = self.connection.pragma_update_and_check(None, name, value, |_| Ok(()));
                    let set = set.or_else(|_| self.connection.pragma_update(None, name, value));
                    drop(reply.send(set.map_err(|error| schema::unavailable(&error))));
                    continue;
                }
                Command::TargetId { hash, reply } => {
                    drop(reply.send(Ok(self.index().target(hash, &batch.overlay))));
                    continue;
                }
                Command::AddDestination { destination, reply } => {
                    destination_changes.push(DestinationChange::Add(destination, reply));
                    continue;
                }
                Command::RemoveDestination { destination, reply } => {
                    destination_changes.push(DestinationChange::Remove(destination, reply));
                    continue;
                }
                Command::Transact { keys, mut decide, speculation, reply } => {
                    let done = if failed.is_none() {
                        self.begin(&mut begun)
                            .and_then(|()| self.transact(&mut batch, &keys, &mut decide, speculation))
                    } else {
                        Ok(())
                    };
                    pending_replies.push(Box::new(move |result, states| {
                        let rest = DropOnCaller::new(keys, decide, std::mem::take(states));
                        drop(reply.send(result.map(|()| rest)));
                    }));
                    done
                }
                Command::Settle { handle, settled, reply } => {
                    pending_replies.push(Box::new(move |result, _| drop(reply.send(result))));
                    if failed.is_some() {
                        continue;
                    }
                    self.begin(&mut begun).and_then(|()| self.settle(&mut batch, &handle, settled))
                }
                Command::Redrive { handle, seq, redrive, reply } => {
                    let done = if failed.is_none() {
                        self.begin(&mut begun).and_then(|()| self.redrive(&mut batch, &handle, seq, redrive))
                    } else {
                        Ok(Ok(()))
                    };
                    let (done, result) = split(done);
                    pending_replies.push(Box::new(move |result, _| drop(reply.send(result.map(|()| done)))));
                    result
                }
                Command::Discard { delivery_id, reply } => {
                    let done = if failed.is_none() {
                        self.begin(&mut begun).and_then(|()| self.discard(&mut batch, &delivery_id))
                    } else {
                        Ok(Ok(()))
                    };
                    let (done, result) = split(done);
                    pending_replies.push(Box::new(move |result, _| drop(reply.send(result.map(|()| done)))));
                    result
                }
                Command::Prune { decisions, delivered, reply } => {
                    if failed.is_some() {
                        pending_replies
                            .push(Box::new(move |result, _| drop(reply.send(result.map(|()| false)))));
                        continue;
                    }
                    let pruned =
                        self.begin(&mut begun).and_then(|()| self.prune(&mut batch, decisions, delivered));
                    let more = *pruned.as_ref().unwrap_or(&false);
                    pending_replies.push(Box::new(move |result, _| drop(reply.send(result.map(|()| more)))));
                    pruned.map(drop)
                }
            };
            if let Err(error) = result {
                failed.get_or_insert(error);
            }
        }
        let outcome = match (begun, failed) {
            (true, None) => self.commit(batch),
            (true, Some(error)) => Err(self.roll_back(&error)),
            (false, Some(error)) => {
                tracing::error!(%error, "the store cannot write");
                Err(schema::unavailable(&error))
            }
            (false, None) => Ok(Vec::new()),
        };
        self.release();
        let (outcome, mut states) = match outcome {
            Ok(states) => (Ok(()), states),
            Err(error) => (Err(error), Vec::new()),
        };
        pending_replies.into_iter().for_each(|answer| answer(outcome.clone(), &mut states));
        destination_changes.into_iter().for_each(|one| self.change_destination(one));
        open
    }

    /// Between two batches, so that all of a batch sees the same outlets.
    fn change_destination(&self, one: DestinationChange) {
        let (done, reply) = match one {
            DestinationChange::Add(destination, reply) => (self.add_destination(&destination), reply),
            DestinationChange::Remove(destination, reply) => (self.remove_destination(&destination), reply),
        };
        drop(reply.send(done.map_err(|error| schema::unavailable(&error))));
    }

    fn add_destination(&self, destination: &Name) -> rusqlite::Result<()> {
        if self.lanes.get(destination).is_none() {
            let opened = read_lanes(&self.connection, std::slice::from_ref(destination))?;
            opened.into_values().for_each(|handle| self.lanes.add(handle));
        }
        Ok(())
    }

    fn remove_destination(&self, destination: &Name) -> rusqlite::Result<()> {
        let Some(handle) = self.lanes.get(destination) else { return Ok(()) };
        self.persist_position(&handle)?;
        self.lanes.remove(destination);
        Ok(())
    }

    /// Gives the states that need not be kept at hand.
    fn commit(&mut self, mut batch: WriteBatch) -> Result<Vec<Arc<CachedTarget>>, Error> {
        let written = self
            .write_positions(&mut batch)
            .and_then(|()| self.committed.tally(|tally| batch.tally.write(&self.connection, tally)));
        match written.and_then(|()| self.connection.execute_batch("COMMIT")) {
            Ok(()) => Ok(self.publish(batch)),
            Err(error) => Err(self.roll_back(&error)),
        }
    }

    fn begin(&self, begun: &mut bool) -> rusqlite::Result<()> {
        if !*begun {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            *begun = true;
        }
        Ok(())
    }

    /// Undoes a batch, and says what its senders are told.
    fn roll_back(&self, error: &rusqlite::Error) -> Error {
        tracing::error!(%error, "the store cannot write; what was asked for is refused and nothing of it is kept");
        // SQLite rolls back by itself after some errors, and says so when asked again.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the store cannot roll back");
        }
        schema::unavailable(error)
    }

    /// Makes a committed batch known. Gives the states that need not be kept at hand.
    fn publish(&mut self, batch: WriteBatch) -> Vec<Arc<CachedTarget>> {
        let last_before = self.next.event - 1;
        self.next = batch.next;
        self.routes.extend(batch.routes);
        let rest = self.index_mut().merge(batch.overlay);
        if let Some(controls) = batch.controls {
            self.committed.set_controls(controls);
        }
        if let Some(dictionaries) = batch.dictionaries {
            self.committed.set_dictionaries(dictionaries);
        }
        self.committed.change_tally(|tally| batch.tally.apply(tally));
        self.decrease_tracker.merge(batch.undelivered_decreases, &batch.lanes, &batch.cancelled);
        self.clock.last_event.store(self.next.event - 1, Ordering::Release);
        for handle in self.lanes.all().values() {
            let lane_changes = batch.lanes.get(&handle.name);
            let wake = handle.with_lane(|lane| {
                if let Some(lane_changes) = lane_changes {
                    lane_changes.apply_to(lane);
                }
                if lane.high_watermark() < last_before {
                    return lane_changes.is_some();
                }
                for CommittedEvent { delivery, destinations } in &batch.events {
                    if !lane.has_room() {
                        return true;
                    }
                    if !destinations.contains(&handle.name) {
                        lane.skip_to(delivery.seq);
                    } else if lane_changes
                        .is_some_and(|lane_changes| lane_changes.settled_on_insert.contains(&delivery.seq.0))
                    {
                        lane.push_known(delivery);
                    } else {
                        lane.push(delivery.clone());
                    }
                }
                lane_changes.is_some()
            });
            if wake {
                handle.wake();
            }
        }
        let next_due = self.index().next_due();
        self.due.send_if_modified(|due| std::mem::replace(due, next_due) != next_due);
        self.checkpoint_if_needed();
        if batch.pruned_all && !checkpoint::truncate_wal(&self.connection) {
            // The next round finds a short rest.
            self.request_checkpoint();
        }
        rest
    }

    /// Whoever holds the token is at it.
    fn request_checkpoint(&self) {
        let _held = self.checkpoints.try_send(());
    }

    fn checkpoint_if_needed(&self) {
        checkpoint::checkpoint_remainder(&self.connection, &self.hand_over);
        match checkpoint::uncheckpointed_pages(&self.connection) {
            Ok(waiting) if checkpoint::is_needed(waiting) => self.request_checkpoint(),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot tell how long the store's log is"),
        }
    }

    fn keys_due(&mut self, max: usize, batch: &WriteBatch) -> rusqlite::Result<Vec<TargetKey>> {
        let mut keys = Vec::new();
        let due = self.index().due(self.clock.now(), max);
        for id in due {
            keys.extend(self.load(id, batch)?.map(|known| known.key.clone()));
        }
        Ok(keys)
    }

    fn locate(
        &mut self,
        keys: &Keys,
        batch: &WriteBatch,
    ) -> rusqlite::Result<BTreeMap<AlertKey, Vec<TargetKey>>> {
        let mut found: BTreeMap<AlertKey, Vec<TargetKey>> = BTreeMap::new();
        for alert in &keys.alerts {
            let ids = self.index().alert_targets(self.hashes.alert(alert), &batch.overlay);
            for id in ids {
                if let Some(known) = self.load(id, batch)? {
                    found.entry(alert.clone()).or_default().push(known.key.clone());
                }
            }
        }
        Ok(found)
    }
}

/// What is answered if the batch is committed, and whether SQLite failed.
fn split(
    done: rusqlite::Result<Result<(), DeadLetterError>>,
) -> (Result<(), DeadLetterError>, rusqlite::Result<()>) {
    match done {
        Ok(done) => (done, Ok(())),
        Err(error) => (Ok(()), Err(error)),
    }
}
