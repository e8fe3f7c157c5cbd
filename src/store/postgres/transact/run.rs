//! Runs batches: locks and reads, decides, writes, commits, and makes the result known. A batch that loses against another
//! transaction is run again. One that the server refuses because of one command is run again one by one.

use std::time::Duration;

use super::command::Command;
use super::commit::{self, CommitOutcome};
use super::decide::{self, Decision, Outcome};
use super::emission::{self, Emission};
use super::queue::Batch;
use super::rows::{self, LockedRows};
use super::unreadable;
use super::view::{self, Locks, Obstacle, Read, Shown, Slot};
use super::write::{self, WriteResult};
use super::write_set::{Source, WriteSet, missing_targets};
use crate::store::Error;
use crate::store::fast_map::Set;
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::postgres::fleet::Changed;
use crate::store::postgres::transaction::{LockWait, Transaction};

/// The maximum number of times that a batch is run which loses against others.
const MAX_RUNS: u32 = 12;
/// From this run on, the controls and rates are locked before they are read.
const LOCKING_RUN: u32 = 4;
const MAX_CONFLICT_DELAY: Duration = Duration::from_millis(20);
/// The maximum number of commands of a batch that wait for a lock one after the other, if none succeeds.
const MAX_LOCK_WAITS: u32 = 4;
/// A connection that was lost while it was not used is replaced this often before the commands fail.
const MAX_RECONNECTS: u32 = 2;
/// How often, and how long after one another, it is looked whether a sign of life has come.
const MAX_BEAT_WAITS: u32 = 100;
const BEAT_WAIT: Duration = Duration::from_millis(20);
/// A larger batch is decided on a thread of its own, so that it does not delay other tasks.
const MAX_INLINE_WEIGHT: usize = 20;

/// How a run has ended.
enum Run {
    Finished,
    /// Another run can succeed: more targets are needed, or another transaction was faster.
    Again,
    /// The database is on a server with which no replica has worked yet, or has not heard this process for long: a sign of
    /// life comes first.
    Unheard,
}

/// Runs a batch and answers its commands.
pub(super) async fn run(shared: &Shared, batch: &mut Batch<'_>) {
    let wait = if batch.was_locked { LockWait::Short } else { LockWait::of(batch.commands.len()) };
    let result = run_until_committed(shared, batch, wait).await;
    let Err(error) = result else {
        if batch.was_locked {
            batch.remember_locked(false);
        }
        return answer(batch, &Ok(()));
    };
    if batch.commands.len() <= 1 || !(error.is_permanent() || error.is_locked()) {
        return fail(shared, batch, error);
    }
    tracing::debug!(%error, commands = batch.commands.len(), "batch refused, its commands are run one by one");
    run_apart(shared, batch, if error.is_locked() { LockWait::Short } else { LockWait::Long }).await;
}

/// Runs the commands of a batch one by one. So many locked ones without another one are waited for: then the whole table may
/// be locked.
async fn run_apart(shared: &Shared, batch: &mut Batch<'_>, wait: LockWait) {
    let (mut locked, mut others) = (0, 0);
    for command in std::mem::take(&mut batch.commands) {
        batch.commands = vec![command];
        let result = match locked >= MAX_LOCK_WAITS && others == 0 {
            true => Err(DbError::Locked),
            false => run_until_committed(shared, batch, wait).await,
        };
        match result {
            Ok(()) => {
                others += 1;
                answer(batch, &Ok(()));
            }
            Err(error) => {
                let counted = if error.is_locked() { &mut locked } else { &mut others };
                *counted += 1;
                fail(shared, batch, error);
            }
        }
    }
    if locked >= MAX_LOCK_WAITS && others == 0 {
        shared.health.failed(&DbError::Locked.to_string());
    }
}

fn answer(batch: &mut Batch<'_>, result: &Result<(), Error>) {
    batch.commands.drain(..).for_each(|mut command| command.answer(result.clone()));
}

fn fail(shared: &Shared, batch: &mut Batch<'_>, error: DbError) {
    let target = batch.commands.first().and_then(|command| command.keys.targets.first());
    let target = target.map(tracing::field::display);
    if error.is_permanent() {
        tracing::error!(%error, target, "command failed, rolled back");
    } else if error.is_locked() {
        batch.remember_locked(true);
        tracing::warn!(
            error = error.with_fix(),
            target,
            "a row is locked for long, what needs it is refused"
        );
    } else {
        // Logged once, with the change of the store's health.
        tracing::debug!(%error, target, "batch failed, rolled back");
        shared.health.failed(&error.with_fix());
    }
    answer(batch, &Err(error.into_store(Stage::Use)));
}

async fn run_until_committed(shared: &Shared, batch: &mut Batch<'_>, wait: LockWait) -> Result<(), DbError> {
    let (mut runs, mut reconnects, mut waits) = (0, 0, 0);
    loop {
        runs += 1;
        let locks = if runs >= LOCKING_RUN { Locks::ALL } else { Locks::default() };
        let error = match run_once(shared, batch, locks, wait).await {
            Ok(Run::Finished) => return Ok(()),
            Ok(Run::Unheard) if waits < MAX_BEAT_WAITS => {
                waits += 1;
                runs -= 1;
                shared.fleet.beat_now.notify_one();
                tokio::time::sleep(BEAT_WAIT).await;
                continue;
            }
            Ok(Run::Unheard) => return Err(DbError::Unheard),
            Ok(Run::Again) => DbError::Contended,
            Err(error) => error,
        };
        let is_silent = matches!(error, DbError::NoAnswer(_));
        if error.is_disconnect() && !is_silent && reconnects < MAX_RECONNECTS {
            reconnects += 1;
            continue;
        }
        if !error.is_conflict() || runs >= MAX_RUNS {
            return Err(error);
        }
        let delay = MAX_CONFLICT_DELAY.min(Duration::from_millis(u64::from(runs)));
        tokio::time::sleep(delay.mul_f64(fastrand::f64())).await;
    }
}

/// Runs the commands once. Those that fail alone are answered, and those that share a target with another one are
/// postponed.
async fn run_once(
    shared: &Shared,
    batch: &mut Batch<'_>,
    locks: Locks,
    wait: LockWait,
) -> Result<Run, DbError> {
    if batch.commands.is_empty() {
        return Ok(Run::Finished);
    }
    // This process may have refused notifications: the next sign of life records that as a reception gap.
    if shared.fleet.is_missed() {
        return Ok(Run::Unheard);
    }
    let transaction = Transaction::begin_with(&shared.pool, wait).await?;
    let locked = rows::lock(&transaction, &batch.commands).await?;
    let is_large = batch.commands.iter().map(Command::weight).sum::<usize>() > MAX_INLINE_WEIGHT;
    let rows = compute(is_large, move || LockedRows::read(&locked)).await??;
    let mut read = view::read(shared, &transaction, &batch.commands, &rows, locks).await?;
    if !read.shown.is_known_server {
        transaction.rollback().await?;
        return Ok(Run::Unheard);
    }
    if !read.is_complete(&batch.commands, &rows) {
        transaction.rollback().await?;
        return Ok(Run::Again);
    }
    unreadable::set(shared, &rows, read.shown.wall);
    let mut slots = assign(batch, &mut read, &rows, shared);
    let mut decided = decide(batch, &mut slots, &read.shown, is_large).await?;
    if !locks.contain(decided.outcome.changed) {
        // The decisions are made again if what they change is not as they have read it.
        let changed = decided.outcome.changed;
        if read.shown.lock(&transaction, &shared.transactions.caches, changed).await? {
            decided = decide(batch, &mut slots, &read.shown, is_large).await?;
            if !changed.contain(decided.outcome.changed) {
                return Err(DbError::Contended);
            }
        }
    }
    if add_missing_targets(batch, &decided.decisions, &slots, &rows) {
        transaction.rollback().await?;
        return Ok(Run::Again);
    }
    commit_decisions(shared, transaction, batch, (decided, slots), (rows, read)).await
}

/// Assigns the targets to the commands. Those that cannot be run with the others leave the batch.
fn assign(batch: &mut Batch<'_>, read: &mut Read, rows: &LockedRows, shared: &Shared) -> Vec<Slot> {
    let mut taken = Set::default();
    let mut slots = Vec::with_capacity(batch.commands.len());
    for mut command in std::mem::take(&mut batch.commands) {
        match read.slot(&command, rows, shared.fleet.created, &mut taken) {
            Ok(slot) => {
                slots.push(slot);
                batch.commands.push(command);
            }
            Err(Obstacle::Unreadable(states)) => command.answer(Err(Error::Unreadable(states))),
            Err(Obstacle::Shared) => {
                command.located = read.located_hashes(&command, rows);
                batch.postponed.push(command);
            }
        }
    }
    slots
}

struct BatchDecisions {
    decisions: Vec<Decision>,
    outcome: Outcome,
}

async fn decide(
    batch: &mut Batch<'_>,
    slots: &mut Vec<Slot>,
    shown: &Shown,
    is_large: bool,
) -> Result<BatchDecisions, DbError> {
    let (mut commands, mut own) = (std::mem::take(&mut batch.commands), std::mem::take(slots));
    let shown = shown.clone();
    let decided;
    (commands, own, decided) = compute(is_large, move || {
        let (decisions, outcome) = decide::decide(&mut commands, &mut own, &shown);
        (commands, own, BatchDecisions { decisions, outcome })
    })
    .await?;
    (batch.commands, *slots) = (commands, own);
    Ok(decided)
}

/// Adds the targets that decisions write without having asked for them. Returns whether there are any.
fn add_missing_targets(
    batch: &mut Batch<'_>,
    decisions: &[Decision],
    slots: &[Slot],
    rows: &LockedRows,
) -> bool {
    let mut is_missing = false;
    for ((command, decision), slot) in batch.commands.iter_mut().zip(decisions).zip(slots) {
        let missing = decision.iter().flat_map(|changes| missing_targets(changes, slot, rows));
        let before = command.more.len();
        command.more.extend(missing);
        is_missing |= command.more.len() > before;
    }
    is_missing
}

/// Writes what was decided, and commits.
async fn commit_decisions(
    shared: &Shared,
    transaction: Transaction,
    batch: &mut Batch<'_>,
    (BatchDecisions { decisions, outcome }, slots): (BatchDecisions, Vec<Slot>),
    (rows, read): (LockedRows, Read),
) -> Result<Run, DbError> {
    let mut decided = Vec::with_capacity(slots.len());
    let mut commands = Vec::with_capacity(slots.len());
    for ((mut command, decision), slot) in batch.commands.drain(..).zip(decisions).zip(slots) {
        match decision {
            Some(changes) => {
                decided.push((slot, changes));
                commands.push(command);
            }
            None => command.answer(Err(Error::Unavailable("the decision has panicked".to_owned()))),
        }
    }
    batch.commands = commands;
    let Read { shown, feedback, .. } = read;
    let next_due = *shared.fleet.next_due().borrow();
    let is_large = decided.len() > MAX_INLINE_WEIGHT;
    let set = compute(is_large, move || {
        let source = Source { rows: &rows, tracked: &feedback.tracked, next_due };
        WriteSet::new(decided, &outcome, &source)
    })
    .await??;
    if set.is_empty() {
        transaction.rollback().await?;
        return Ok(Run::Finished);
    }
    let numbers = numbers(&transaction, set.events.len()).await?;
    let emission = Emission::new(&set.events, Emission::is_full(&shared.destinations));
    let written = write::write(shared, &transaction, &set, (&emission, &numbers)).await?;
    tracing::trace!(
        commands = batch.commands.len(),
        round_trips = transaction.round_trips(),
        "batch written"
    );
    shared.transactions.totals.add(batch.commands.len(), transaction.round_trips());
    match commit::commit(shared, transaction, shown.xid).await? {
        CommitOutcome::Yes => {}
        CommitOutcome::No(error) => return Err(error),
    }
    publish(shared, &shown, &set, &emission, written);
    shared.health.committed();
    Ok(Run::Finished)
}

/// The numbers of new events. One round trip, or none.
async fn numbers(transaction: &Transaction, count: usize) -> Result<Vec<i64>, DbError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let params = [(&count as _, tokio_postgres::types::Type::INT8)];
    let rows = transaction.query(emission::NUMBERS, &params).await?;
    let mut numbers: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes a commit known to this process, and its existence to others.
fn publish(shared: &Shared, shown: &Shown, set: &WriteSet, emission: &Emission, written: WriteResult) {
    shared.clock.advance(shown.wall);
    written.counts.apply(shared, shown.xid);
    for (before, after) in &set.tally {
        shared.fleet.change_tally(before.as_deref(), after.as_deref());
    }
    if let Some(controls) = &set.controls {
        shared.fleet.set_controls(controls.clone());
    }
    if let Some((mark, next)) = written.next_due {
        shared.fleet.set_next_due(mark, next);
    }
    set.next_due.into_iter().for_each(|due| shared.fleet.add_due(due));
    let is_raised =
        set.controls.as_ref().is_some_and(|controls| controls.generation > shown.controls.generation);
    if !emission.ended.is_empty() || is_raised {
        shared.fleet.add_due(shown.wall);
    }
    for destination in emission.open_destinations() {
        if let Some(destination) = shared.destinations.get(destination) {
            destination.wakeup.notify_one();
        }
    }
    let deliveries = !emission.deliveries.is_empty() || !set.delivery_changes.is_empty();
    if !set.delivery_changes.is_empty() {
        shared.destinations.all().values().for_each(|destination| destination.wakeup.notify_one());
    }
    let controls = set.controls.is_some();
    if deliveries || controls {
        shared.notifier.send(Changed { deliveries, controls });
    }
}

/// Runs a computation, on a thread of its own if it is large.
async fn compute<R: Send + 'static>(
    is_large: bool,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, DbError> {
    if !is_large {
        return Ok(work());
    }
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| DbError::Damaged(format!("a batch was not decided: {error}")))
}
