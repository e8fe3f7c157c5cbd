//! The writer thread. Reading order: batching ([`Writer::run`]), group commit (`process_batch`), one command
//! (`apply`), publication (`publish`).
//!
//! All commands of a batch share one SQLite transaction, with one sync of the disk. Each has a savepoint of its own:
//! a command that fails is rolled back alone, and the others are committed.

pub(crate) mod command;
mod publish;
pub(crate) mod supervision;
mod transact;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::committed::clock::SharedClock;
use super::committed::index::CachedTarget;
use super::committed::staged::{NextIds, WriteBatch};
use super::decide::read_set::{LoadError, ReadError};
use super::file::lock::StoreLock;
use super::file::{checkpoint, schema};
use super::restore;
use super::retention::{self, PruneCursor, Retention};
use super::tables::deliveries::OutboxTable;
use super::tables::states::StateTable;
use super::tables::{audit, dead_letters, deliveries};
use crate::domain::alert_key::AlertKey;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::store::lanes::LaneHandle;
use crate::store::{DropError, Error, Keys, Lease, Refused, UnreadableRow, UnreadableStates};
use command::{Command, DropOnCaller, Reply};
pub(crate) use publish::Publisher;
use supervision::{IDLE_CHECK_INTERVAL, Supervision};
use transact::Transaction;

/// A batch is closed when it has this many keys and settlements.
const MAX_BATCH_WEIGHT: usize = 1000;
/// How long settlements stay uncommitted, so that they share a commit with later commands.
const SETTLE_DELAY: Duration = Duration::from_millis(5);

/// The only owner of the writing connection.
pub(crate) struct Writer {
    pub connection: Connection,
    pub created: Time,
    pub states: StateTable,
    pub outbox: OutboxTable,
    pub clock: Arc<SharedClock>,
    /// Progress of the current round of pruning.
    pub prune_cursor: PruneCursor,
    pub next: NextIds,
    pub publisher: Publisher,
    pub supervision: Supervision,
    pub _lock: StoreLock,
}

/// Why a command was rolled back.
#[derive(Debug)]
pub(super) enum CommandError {
    /// SQLite could not read or write.
    Sql(rusqlite::Error),
    /// Rows that the command needs cannot be read.
    Unreadable(UnreadableStates),
    /// The decision has panicked; the panic is logged.
    Panicked,
}

impl From<rusqlite::Error> for CommandError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        Self::Sql(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }
}

impl From<ReadError<rusqlite::Error>> for CommandError {
    fn from(error: ReadError<rusqlite::Error>) -> Self {
        match error {
            ReadError::Unreadable(states) => Self::Unreadable(states),
            ReadError::Failed(error) => Self::Sql(error),
        }
    }
}

/// A reply that waits for the commit.
type PendingReply = Box<dyn FnOnce(Result<(), Error>, &mut Vec<Arc<CachedTarget>>)>;

/// A change of the set of lanes.
enum DestinationChange {
    Add(Vec<Name>, Reply<()>),
    Remove(Name, Reply<()>),
}

/// The execution of one batch.
struct BatchRun {
    batch: WriteBatch,
    /// The number of commands.
    commands: usize,
    has_begun: bool,
    /// Why the whole batch fails: its transaction could not begin, or SQLite has rolled it back.
    broken: Option<Error>,
    /// Why commands other than those about deliveries are refused.
    refusal: Option<Error>,
    /// The last error because of which the store counts as failing.
    failure: Option<String>,
    /// Replies of the commands that have succeeded.
    replies: Vec<PendingReply>,
    destination_changes: Vec<DestinationChange>,
    /// False after [`Command::Close`].
    is_open: bool,
}

impl BatchRun {
    fn new(next: NextIds, commands: usize, refusal: Option<Error>) -> Self {
        Self {
            batch: WriteBatch::new(next),
            commands,
            has_begun: false,
            broken: None,
            refusal,
            failure: None,
            replies: Vec::new(),
            destination_changes: Vec::new(),
            is_open: true,
        }
    }

    /// Replies with the value once the batch is committed, or with the error at once.
    fn reply<R: 'static>(&mut self, applied: Result<R, Error>, reply: Reply<R>) {
        match applied {
            Ok(value) => self.replies.push(Box::new(move |committed, _| {
                drop(reply.send(committed.map(|()| value)));
            })),
            Err(error) => drop(reply.send(Err(error))),
        }
    }
}

impl Writer {
    /// Runs until [`Command::Close`] or until all senders are gone.
    pub(crate) fn run(mut self, queue: &Receiver<Command>) {
        loop {
            let first = queue.recv_timeout(IDLE_CHECK_INTERVAL);
            self.supervise();
            let is_open = match first {
                Ok(first) => self.process_batch(Self::collect_batch(first, queue)),
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            if !is_open {
                break;
            }
        }
        if let Err(error) = deliveries::persist_positions(&self.connection, &self.outbox.lanes) {
            tracing::warn!(%error, "saving cursors failed, deliveries may be repeated");
        }
        checkpoint::checkpoint_all(&self.connection);
    }

    /// Collects the commands of one commit: the queued ones, and those that arrive soon if no caller waits.
    fn collect_batch(first: Command, queue: &Receiver<Command>) -> Vec<Command> {
        let begun = Instant::now();
        let mut weight = first.weight();
        let mut commands = vec![first];
        let mut is_urgent = !commands[0].can_linger();
        while weight < MAX_BATCH_WEIGHT {
            let delay = if is_urgent { Duration::ZERO } else { SETTLE_DELAY };
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
    pub(crate) fn process_batch(&mut self, commands: Vec<Command>) -> bool {
        let changes_before = self.connection.total_changes();
        let mut run = BatchRun::new(self.next, commands.len(), self.supervision.refusal());
        for command in commands {
            self.execute(&mut run, command);
        }
        let BatchRun {
            batch,
            commands,
            has_begun,
            broken,
            mut failure,
            replies,
            destination_changes,
            is_open,
            ..
        } = run;
        let committed = match broken {
            Some(error) => Err(error),
            None if has_begun => self.commit(batch, commands, &mut failure),
            None => Ok(Vec::new()),
        };
        // A commit without a change succeeds on a full disk too.
        self.supervision.record(failure.as_deref(), self.connection.total_changes() > changes_before);
        let (committed, mut states) = match committed {
            Ok(states) => (Ok(()), states),
            Err(error) => (Err(error), Vec::new()),
        };
        replies.into_iter().for_each(|reply| reply(committed.clone(), &mut states));
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
                // A target that was put in quarantine is not due any more; otherwise the caller would ask at once again.
                self.publish_due();
                drop(reply.send(due.map_err(|error| schema::unavailable(&error))));
            }
            Command::Locate { keys, reply } => {
                let found = self.locate(&keys, &run.batch);
                drop(reply.send(found.map_err(|error| schema::unavailable(&error))));
            }
            Command::TargetId { hash, reply } => {
                drop(reply.send(Ok(self.states.index.target(hash, run.batch.layers()))));
            }
            #[cfg(test)]
            Command::Pragma { name, value, reply } => {
                let set = self.connection.pragma_update_and_check(None, name, value, |_| Ok(()));
                let set = set.or_else(|_| self.connection.pragma_update(None, name, value));
                drop(reply.send(set.map_err(|error| schema::unavailable(&error))));
            }
            command => self.execute_write(run, command),
        }
    }

    /// Executes a command that writes, in a savepoint.
    fn execute_write(&mut self, run: &mut BatchRun, command: Command) {
        let clock = self.clock.read();
        let now = clock.now;
        match command {
            Command::Transact { keys, mut decide, reply } => {
                let applied = self.apply(run, keys.targets.first(), |writer, batch| {
                    writer.transaction(clock).run(batch, &keys, &mut decide)
                });
                match applied {
                    Ok(()) => run.replies.push(Box::new(move |committed, states| {
                        let rest = DropOnCaller::new(keys, decide, std::mem::take(states));
                        drop(reply.send(committed.map(|()| rest)));
                    })),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Settle { handle, settled, reply } => {
                let settled = self.apply_always(run, None, |writer, batch| {
                    let Self { connection, states, .. } = writer;
                    Ok(deliveries::settle(connection, states, batch, clock, &handle, settled)?)
                });
                run.reply(settled, reply);
            }
            Command::BeginCalls { handle, leases, reply } => {
                let begun = self.begin_calls(run, &handle, leases);
                run.reply(begun, reply);
            }
            Command::Redrive { handle, seq, redrive, audit, reply } => {
                let redriven = self.apply(run, None, |writer, batch| {
                    let Self { connection, states, .. } = writer;
                    let delivery = (&*handle, seq);
                    let redriven =
                        dead_letters::redrive(connection, states, batch, clock, delivery, redrive)?;
                    Ok(audit::write_if_done(connection, clock, redriven, &audit)?)
                });
                run.reply(redriven, reply);
            }
            Command::Discard { delivery_id, audit, reply } => {
                let discarded = self.apply(run, None, |writer, batch| {
                    let Self { connection, states, outbox, .. } = writer;
                    let tables = (&*states, &outbox.lanes);
                    let discarded =
                        dead_letters::discard(connection, tables, batch, clock.now, &delivery_id)?;
                    Ok(audit::write_if_done(connection, clock, discarded, &audit)?)
                });
                run.reply(discarded, reply);
            }
            Command::Audit { write, reply } => {
                let id =
                    self.apply(run, None, |writer, _| Ok(audit::write(&writer.connection, clock, &write)?));
                run.reply(id, reply);
            }
            Command::Prune { retention, reply } => {
                let more = self.prune(run, now, retention);
                run.reply(more, reply);
            }
            Command::PruneNotifications { limits, reply } => {
                let more = self.apply(run, None, |writer, batch| {
                    Ok(retention::prune_notifications(&writer.connection, batch, now, limits)?)
                });
                run.reply(more, reply);
            }
            Command::DropState { row, audit, reply } => {
                let dropped = self.apply(run, None, |writer, batch| {
                    let dropped = writer.drop_state(batch, now, row)?;
                    Ok(audit::write_if_done(&writer.connection, clock, dropped, &audit)?)
                });
                run.reply(dropped, reply);
            }
            _ => {}
        }
    }

    fn prune(&mut self, run: &mut BatchRun, now: Time, retention: Retention) -> Result<bool, Error> {
        self.apply(run, None, |writer, batch| {
            let mut cursor = writer.prune_cursor;
            let (connection, lanes) = (&writer.connection, &writer.outbox.lanes);
            let more = retention::prune(connection, lanes, &mut cursor, batch, now, retention)?;
            writer.prune_cursor = cursor;
            Ok(more)
        })
    }

    fn begin_calls(
        &mut self,
        run: &mut BatchRun,
        handle: &LaneHandle,
        leases: Vec<Lease>,
    ) -> Result<Vec<Refused>, Error> {
        self.apply_always(run, None, |writer, batch| {
            Ok(deliveries::begin_calls(&writer.connection, batch, handle, leases)?)
        })
    }

    fn transaction(&mut self, clock: ClockReading) -> Transaction<'_> {
        let Self { connection, states, outbox, created, .. } = self;
        Transaction { connection, states, outbox, created: *created, clock }
    }

    /// Applies one command, unless the store refuses changes. Deliveries go on all the same.
    fn apply<R>(
        &mut self,
        run: &mut BatchRun,
        target: Option<&TargetKey>,
        apply: impl FnOnce(&mut Self, &mut WriteBatch) -> Result<R, CommandError>,
    ) -> Result<R, Error> {
        match &run.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => self.apply_always(run, target, apply),
        }
    }

    /// Applies one command in a savepoint of the batch's transaction, which the first one begins. If it fails, it is
    /// rolled back alone, unless SQLite has rolled back the whole transaction, as it does when the disk is full.
    fn apply_always<R>(
        &mut self,
        run: &mut BatchRun,
        target: Option<&TargetKey>,
        apply: impl FnOnce(&mut Self, &mut WriteBatch) -> Result<R, CommandError>,
    ) -> Result<R, Error> {
        if let Some(error) = &run.broken {
            return Err(error.clone());
        }
        if !std::mem::replace(&mut run.has_begun, true) {
            self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| {
                tracing::debug!(%error, "cannot begin a transaction");
                run.failure = Some(self.supervision.report(&error));
                let error = schema::unavailable(&error);
                run.broken = Some(error.clone());
                error
            })?;
        }
        let applied = self.savepoint("SAVEPOINT command").map_err(CommandError::from);
        let applied = applied.and_then(|()| apply(self, &mut run.batch));
        let applied = applied.and_then(|value| Ok(self.savepoint("RELEASE command").map(|()| value)?));
        match applied {
            Ok(value) => {
                run.batch.release();
                Ok(value)
            }
            Err(error) => Err(self.roll_back_command(run, error, target)),
        }
    }

    fn savepoint(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([]).map(drop)
    }

    /// Rolls back the command that has failed. Returns the error for its caller.
    fn roll_back_command(
        &self,
        run: &mut BatchRun,
        error: CommandError,
        target: Option<&TargetKey>,
    ) -> Error {
        run.batch.roll_back();
        let reply = match error {
            // Logged when they were found.
            CommandError::Unreadable(states) => Error::Unreadable(states),
            CommandError::Panicked => Error::Unavailable("the decision has panicked".to_owned()),
            CommandError::Sql(error) => {
                let target = target.map(tracing::field::display);
                if supervision::is_outage(&error) {
                    // Logged once, with the change of the store's health.
                    tracing::debug!(%error, target, "command failed, rolled back");
                    run.failure = Some(self.supervision.report(&error));
                } else {
                    tracing::error!(%error, target, "command failed, rolled back");
                }
                schema::unavailable(&error)
            }
        };
        let undone = match self.connection.is_autocommit() {
            true => Err(reply.clone()),
            false => self
                .savepoint("ROLLBACK TO command")
                .and_then(|()| self.savepoint("RELEASE command"))
                .map_err(|error| schema::unavailable(&error)),
        };
        if let Err(error) = undone {
            tracing::debug!(%error, batch.commands = run.commands, "batch rolled back");
            self.roll_back();
            run.failure.get_or_insert_with(|| error.to_string());
            run.broken = Some(error);
        }
        reply
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
        destinations.retain(|destination| self.outbox.lanes.get(destination).is_none());
        let opened = restore::read_lanes(&self.connection, &destinations)?;
        opened.into_values().for_each(|handle| self.outbox.lanes.add(handle));
        Ok(())
    }

    fn remove_destination(&self, destination: &Name) -> rusqlite::Result<()> {
        let Some(handle) = self.outbox.lanes.get(destination) else { return Ok(()) };
        deliveries::persist_position(&self.connection, &handle)?;
        self.outbox.lanes.remove(destination);
        Ok(())
    }

    /// Commits the commands that have succeeded. Returns the states that are not cached.
    fn commit(
        &mut self,
        mut batch: WriteBatch,
        commands: usize,
        failure: &mut Option<String>,
    ) -> Result<Vec<Arc<CachedTarget>>, Error> {
        let staged = batch.released_mut();
        let written = deliveries::write_positions(&self.connection, &self.outbox.lanes, staged)
            .and_then(|()| publish::write_tally(&self.connection, &self.states.committed, staged));
        match written.and_then(|()| self.connection.execute_batch("COMMIT")) {
            Ok(()) => Ok(self.publish(batch)),
            Err(error) => {
                tracing::debug!(%error, batch.commands = commands, "commit failed, batch rolled back");
                *failure = Some(error.to_string());
                self.roll_back();
                Err(schema::unavailable(&error))
            }
        }
    }

    /// Ends the transaction of a batch that has failed.
    fn roll_back(&self) {
        // After some errors SQLite has rolled back by itself; another ROLLBACK would be an error.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "rollback failed");
        }
    }

    fn keys_due(&mut self, max: usize, batch: &WriteBatch) -> rusqlite::Result<Vec<TargetKey>> {
        let now = self.clock.now();
        let due = self.states.index.due(now, max);
        let mut keys = Vec::new();
        for id in due {
            match self.states.load(&self.connection, batch.layers(), now, id) {
                Ok(known) => keys.extend(known.map(|known| known.key.clone())),
                Err(LoadError::Unreadable(_)) => {}
                Err(LoadError::Failed(error)) => return Err(error),
            }
        }
        Ok(keys)
    }

    /// Targets whose rows cannot be read are left out.
    fn locate(
        &mut self,
        keys: &Keys,
        batch: &WriteBatch,
    ) -> rusqlite::Result<BTreeMap<AlertKey, Vec<TargetKey>>> {
        let now = self.clock.now();
        let mut found: BTreeMap<AlertKey, Vec<TargetKey>> = BTreeMap::new();
        for alert in &keys.alerts {
            let hash = self.states.hashes.alert(alert);
            let ids = self.states.index.alert_targets(hash, batch.layers());
            for id in ids {
                match self.states.load(&self.connection, batch.layers(), now, id) {
                    Ok(Some(known)) => found.entry(alert.clone()).or_default().push(known.key.clone()),
                    Ok(None) | Err(LoadError::Unreadable(_)) => {}
                    Err(LoadError::Failed(error)) => return Err(error),
                }
            }
        }
        Ok(found)
    }

    fn drop_state(
        &mut self,
        batch: &mut WriteBatch,
        now: Time,
        row: i64,
    ) -> Result<Result<UnreadableRow, DropError>, CommandError> {
        let Some(found) = self.states.quarantine.rows().into_iter().find(|found| found.id == row) else {
            return Ok(Err(DropError::NotUnreadable));
        };
        self.states.drop_unreadable(&self.connection, batch, now, found.clone())?;
        batch.current.dropped.push(row);
        Ok(Ok(found))
    }
}
