//! The writer thread: group commit of queued commands, and publication of committed batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use parking_lot::{RwLockReadGuard, RwLockWriteGuard};
use rusqlite::Connection;
use tokio::sync::watch;

use super::batch::{CommittedEvent, NextIds, WriteBatch};
use super::checkpoint::{self, HandOver};
use super::command::{Command, DropOnCaller, Reply};
use super::committed::CommittedView;
use super::decrease_tracker::DecreaseTracker;
use super::index::{CachedTarget, Fingerprints, Index};
use super::optimistic::{SharedIndex, SpeculationGate};
use super::restore::read_lanes;
use super::schema::{self, Database};
use super::shared_clock::SharedClock;
use crate::domain::alert_key::AlertKey;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::fast_map::Map;
use crate::store::lanes::LaneHandles;
use crate::store::{Error, Keys};

/// A change of the set of lanes.
enum DestinationChange {
    Add(Vec<Name>, Reply<()>),
    Remove(Name, Reply<()>),
}

/// A batch is closed when it has this many keys and settlements.
const MAX_BATCH_WEIGHT: usize = 1000;
/// How long settlements stay uncommitted, so that they share a commit with later commands.
const SETTLE_DELAY: Duration = Duration::from_millis(5);
/// How long a commit waits for transactions that are being decided: fewer commits write the pages that every
/// commit writes.
const GROUP_COMMIT_DELAY: Duration = Duration::from_micros(500);

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
    /// Progress of the current round of pruning.
    pub(super) prune_cursor: PruneCursor,
    next: NextIds,
    _lock: std::fs::File,
}

/// Progress of a round of pruning. Rows that have to stay are skipped once per round, not in each step.
#[derive(Debug, Default)]
pub(super) struct PruneCursor {
    pub(super) event: i64,
    pub(super) never_delivered: (i64, i64, i64),
}

/// What the writer shares with other threads.
pub(super) struct WriterDeps {
    pub lanes: LaneHandles,
    pub clock: Arc<SharedClock>,
    pub committed: Arc<CommittedView>,
    /// When the next target is due.
    pub due: watch::Sender<Option<Time>>,
    /// Wakes the checkpoint thread.
    pub checkpoints: SyncSender<()>,
    pub hand_over: HandOver,
    pub index: SharedIndex,
    pub gate: Arc<SpeculationGate>,
}

/// A reply that waits for the commit.
type PendingReply = Box<dyn FnOnce(Result<(), Error>, &mut Vec<Arc<CachedTarget>>)>;

/// A write that failed.
struct Failure {
    error: rusqlite::Error,
    /// The first target of the transaction, if the command was a transaction.
    target: Option<TargetKey>,
}

/// The execution of one batch.
struct BatchRun {
    batch: WriteBatch,
    /// The number of commands.
    commands: usize,
    has_begun: bool,
    failed: Option<Failure>,
    replies: Vec<PendingReply>,
    destination_changes: Vec<DestinationChange>,
    /// False after [`Command::Close`].
    is_open: bool,
}

impl BatchRun {
    fn new(next: NextIds, commands: usize) -> Self {
        Self {
            batch: WriteBatch::new(next),
            commands,
            has_begun: false,
            failed: None,
            replies: Vec::new(),
            destination_changes: Vec::new(),
            is_open: true,
        }
    }

    /// Replies with a value once the batch is committed.
    fn reply_with<R: 'static>(&mut self, value: R, reply: Reply<R>) {
        self.replies.push(Box::new(move |result, _| drop(reply.send(result.map(|()| value)))));
    }
}

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

    /// Runs until [`Command::Close`] or until all senders are gone.
    pub(super) fn run(mut self, queue: &Receiver<Command>) {
        while let Ok(first) = queue.recv() {
            let commands = self.collect_batch(first, queue);
            if !self.process_batch(commands) {
                break;
            }
        }
        self.finish();
    }

    /// Collects the commands of one commit: the queued ones and those that arrive within a short delay.
    fn collect_batch(&self, first: Command, queue: &Receiver<Command>) -> Vec<Command> {
        let begun = Instant::now();
        let mut weight = first.weight();
        let mut commands = vec![first];
        let mut is_urgent = !commands[0].can_linger();
        while weight < MAX_BATCH_WEIGHT {
            let delay = match is_urgent {
                false => SETTLE_DELAY,
                true if self.gate.any_in_flight() => GROUP_COMMIT_DELAY,
                true => Duration::ZERO,
            };
            let next = queue.try_recv().or_else(|_| {
                let rest = delay.saturating_sub(begun.elapsed());
                if rest.is_zero() { Err(RecvTimeoutError::Timeout) } else { queue.recv_timeout(rest) }
            });
            let Ok(command) = next else { break };
            is_urgent |= !command.can_linger();
            weight += command.weight();
            commands.push(command);
        }
        commands
    }

    /// Executes the commands of one batch in one SQLite transaction. False when one of them was
    /// [`Command::Close`].
    pub(super) fn process_batch(&mut self, commands: Vec<Command>) -> bool {
        let mut run = BatchRun::new(self.next, commands.len());
        for command in commands {
            self.execute(&mut run, command);
        }
        let BatchRun { batch, commands, has_begun, failed, replies, destination_changes, is_open } = run;
        let outcome = match (has_begun, failed) {
            (true, None) => self.commit(batch, commands),
            (true, Some(Failure { error, target })) => Err(self.roll_back(&error, commands, target.as_ref())),
            (false, Some(Failure { error, .. })) => {
                tracing::error!(%error, "cannot begin a transaction");
                Err(schema::unavailable(&error))
            }
            (false, None) => Ok(Vec::new()),
        };
        self.release();
        let (outcome, mut states) = match outcome {
            Ok(states) => (Ok(()), states),
            Err(error) => (Err(error), Vec::new()),
        };
        replies.into_iter().for_each(|reply| reply(outcome.clone(), &mut states));
        destination_changes.into_iter().for_each(|change| self.change_destination(change));
        is_open
    }

    /// Executes a command; its reply follows the commit if it writes.
    fn execute(&mut self, run: &mut BatchRun, command: Command) {
        match command {
            Command::Close => run.is_open = false,
            Command::AddDestinations { destinations, reply } => {
                run.destination_changes.push(DestinationChange::Add(destinations, reply));
            }
            Command::RemoveDestination { destination, reply } => {
                run.destination_changes.push(DestinationChange::Remove(destination, reply));
            }
            Command::Due { max, reply } => {
                let due = self.keys_due(max, &run.batch);
                drop(reply.send(due.map_err(|error| schema::unavailable(&error))));
            }
            Command::Locate { keys, reply } => {
                let found = self.locate(&keys, &run.batch);
                drop(reply.send(found.map_err(|error| schema::unavailable(&error))));
            }
            Command::TargetId { hash, reply } => {
                drop(reply.send(Ok(self.index().target(hash, &run.batch.overlay))));
            }
            #[cfg(test)]
            Command::Pragma { name, value, reply } => {
                let set = self.connection.pragma_update_and_check(None, name, value, |_| Ok(()));
                let set = set.or_else(|_| self.connection.pragma_update(None, name, value));
                drop(reply.send(set.map_err(|error| schema::unavailable(&error))));
            }
            Command::Transact { keys, mut decide, speculation, reply } => {
                self.write(run, keys.targets.first(), |writer, batch| {
                    writer.transact(batch, &keys, &mut decide, speculation)
                });
                run.replies.push(Box::new(move |result, states| {
                    let rest = DropOnCaller::new(keys, decide, std::mem::take(states));
                    drop(reply.send(result.map(|()| rest)));
                }));
            }
            Command::Settle { handle, settled, reply } => {
                self.write(run, None, |writer, batch| writer.settle(batch, &handle, settled));
                run.reply_with((), reply);
            }
            Command::Redrive { handle, seq, redrive, audit, reply } => {
                let redriven = self.write(run, None, |writer, batch| {
                    let redriven = writer.redrive(batch, &handle, seq, redrive)?;
                    writer.audit_if_done(redriven, &audit)
                });
                run.reply_with(redriven.unwrap_or(Ok(())), reply);
            }
            Command::Discard { delivery_id, audit, reply } => {
                let discarded = self.write(run, None, |writer, batch| {
                    let discarded = writer.discard(batch, &delivery_id)?;
                    writer.audit_if_done(discarded, &audit)
                });
                run.reply_with(discarded.unwrap_or(Ok(())), reply);
            }
            Command::Audit { write, reply } => {
                let id = self.write(run, None, |writer, _| writer.write_audit(writer.clock.now(), &write));
                run.reply_with(id.unwrap_or_default(), reply);
            }
            Command::Prune { decisions, delivered, reply } => {
                let more = self.write(run, None, |writer, batch| writer.prune(batch, decisions, delivered));
                run.reply_with(more.unwrap_or(false), reply);
            }
        }
    }

    /// Executes a write in the transaction of the batch, which the first one begins. `None` if it fails, and
    /// after any write of the batch has failed: SQLite may have rolled back by itself then, and this one
    /// would be committed alone.
    fn write<R>(
        &mut self,
        run: &mut BatchRun,
        target: Option<&TargetKey>,
        write: impl FnOnce(&mut Self, &mut WriteBatch) -> rusqlite::Result<R>,
    ) -> Option<R> {
        if run.failed.is_some() {
            return None;
        }
        let written = self.begin(&mut run.has_begun).and_then(|()| write(self, &mut run.batch));
        written.map_err(|error| run.failed = Some(Failure { error, target: target.cloned() })).ok()
    }

    /// Runs between two batches, so that all commands of a batch see the same lanes.
    fn change_destination(&self, change: DestinationChange) {
        let (result, reply) = match change {
            DestinationChange::Add(destinations, reply) => (self.add_destinations(destinations), reply),
            DestinationChange::Remove(destination, reply) => (self.remove_destination(&destination), reply),
        };
        drop(reply.send(result.map_err(|error| schema::unavailable(&error))));
    }

    fn add_destinations(&self, mut destinations: Vec<Name>) -> rusqlite::Result<()> {
        destinations.retain(|destination| self.lanes.get(destination).is_none());
        let opened = read_lanes(&self.connection, &destinations)?;
        opened.into_values().for_each(|handle| self.lanes.add(handle));
        Ok(())
    }

    fn remove_destination(&self, destination: &Name) -> rusqlite::Result<()> {
        let Some(handle) = self.lanes.get(destination) else { return Ok(()) };
        self.persist_position(&handle)?;
        self.lanes.remove(destination);
        Ok(())
    }

    /// Returns the states that are not cached.
    fn commit(&mut self, mut batch: WriteBatch, commands: usize) -> Result<Vec<Arc<CachedTarget>>, Error> {
        let written = self
            .write_positions(&mut batch)
            .and_then(|()| self.committed.tally(|tally| batch.tally.write(&self.connection, tally)));
        match written.and_then(|()| self.connection.execute_batch("COMMIT")) {
            Ok(()) => Ok(self.publish(batch)),
            Err(error) => Err(self.roll_back(&error, commands, None)),
        }
    }

    fn begin(&self, begun: &mut bool) -> rusqlite::Result<()> {
        if !*begun {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            *begun = true;
        }
        Ok(())
    }

    /// Rolls a batch back. Returns the error for its callers.
    fn roll_back(&self, error: &rusqlite::Error, commands: usize, target: Option<&TargetKey>) -> Error {
        let target = target.map(tracing::field::display);
        tracing::error!(%error, batch.commands = commands, target, "commit failed, batch rolled back");
        // After some errors SQLite has rolled back by itself; another ROLLBACK would be an error.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "rollback failed");
        }
        schema::unavailable(error)
    }

    /// Publishes a committed batch to the index, the lanes and the committed view. Returns the states that
    /// are not cached.
    fn publish(&mut self, batch: WriteBatch) -> Vec<Arc<CachedTarget>> {
        let last_before = self.next.event - 1;
        self.next = batch.next;
        self.routes.extend(batch.routes);
        let uncached = self.index_mut().merge(batch.overlay);
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
            // After a checkpoint the remainder is short enough for the next round of pruning.
            self.request_checkpoint();
        }
        uncached
    }

    fn request_checkpoint(&self) {
        // If the channel is full, a checkpoint is requested already.
        let _requested = self.checkpoints.try_send(());
    }

    fn checkpoint_if_needed(&self) {
        checkpoint::checkpoint_remainder(&self.connection, &self.hand_over);
        match checkpoint::uncheckpointed_pages(&self.connection) {
            Ok(pages) if checkpoint::is_needed(pages) => self.request_checkpoint(),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "reading the WAL size failed"),
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
