//! The one thread that writes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;

use super::checkpoint::{self, Turn};
use super::command::{Command, Reply, Rest};
use super::foresee::{Foresight, SharedIndex};
use super::index::{Fingerprint, Fingerprints, Index, Known, Staged};
use super::prune::Sweep;
use super::published::Published;
use super::restore::read_outlets;
use super::samples::Samples;
use super::schema::{self, Opened};
use super::supersede::Superseding;
use super::tally::Deltas;
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::state::AlertKey;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::clock::Clock;
use crate::store::lane::{End, Lane, Offered, Waiting};
use crate::store::numbers::{Map, Set};
use crate::store::outlets::Outlets;
use crate::store::shrinking::Shrinking;
use crate::store::{Error, EventSeq, Keys, LetterError, WallClock};

/// A change of the outlets.
enum Move {
    Attach(Name, Reply<()>),
    Detach(Name, Reply<()>),
}

/// Commits hold about as many keys and settlements.
const BATCH: usize = 1000;
/// How long what nobody waits for stays uncommitted, so that it shares the commit of what comes in.
const LINGER: Duration = Duration::from_millis(5);
/// How long a commit waits for decisions that are being made: the pages that every commit writes are written
/// less often then.
const MOMENT: Duration = Duration::from_micros(500);

/// The store's clock and the number of the last event, read by many and set by the writer.
pub struct SharedClock {
    wall: WallClock,
    started: Instant,
    clock: Mutex<Clock>,
    pub(super) last_event: AtomicI64,
}

impl SharedClock {
    pub fn start(wall: WallClock, last_stored: Option<Time>) -> Self {
        let clock = Clock::start(wall(), last_stored, Duration::ZERO);
        Self { wall, started: Instant::now(), clock: Mutex::new(clock), last_event: AtomicI64::new(0) }
    }

    pub fn now(&self) -> Time {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.read((self.wall)(), self.started.elapsed())
    }

    pub fn last_event(&self) -> i64 {
        self.last_event.load(Ordering::Acquire)
    }
}

pub struct Writer {
    pub(super) connection: Connection,
    pub(super) created: Time,
    pub(super) index: SharedIndex,
    pub(super) foresight: Arc<Foresight>,
    pub(super) hashes: Fingerprints,
    pub(super) outlets: Outlets,
    pub(super) clock: Arc<SharedClock>,
    pub(super) published: Arc<Published>,
    due: watch::Sender<Option<Time>>,
    checkpoints: SyncSender<()>,
    turn: Turn,
    pub(super) routes: Map<Arc<[Name]>, i64>,
    pub(super) superseding: Superseding,
    /// How far the present round of pruning has come.
    pub(super) sweep: Sweep,
    next: Next,
    _lock: std::fs::File,
}

/// What the writer shares with others.
pub struct Links {
    pub outlets: Outlets,
    pub clock: Arc<SharedClock>,
    pub published: Arc<Published>,
    /// When the next target is due.
    pub due: watch::Sender<Option<Time>>,
    /// Wakes the thread that folds the log.
    pub checkpoints: SyncSender<()>,
    pub turn: Turn,
    pub index: SharedIndex,
    pub foresight: Arc<Foresight>,
}

/// The numbers that come next.
#[derive(Clone, Copy)]
pub(super) struct Next {
    pub(super) target: i64,
    pub(super) record: i64,
    pub(super) event: i64,
}

/// What a batch has done and not committed.
pub(super) struct Batch {
    pub(super) staged: Staged,
    pub(super) controls: Option<Arc<Controls>>,
    pub(super) samples: Option<Arc<Samples>>,
    pub(super) tally: Deltas,
    pub(super) next: Next,
    pub(super) events: Vec<Committed>,
    pub(super) lanes: Map<Name, Staging>,
    pub(super) routes: Vec<(Arc<[Name]>, i64)>,
    /// Events that may make capacity less, written in this batch.
    pub(super) shrinking: Shrinking<Fingerprint>,
    /// Events that this batch cancels.
    pub(super) cancelled: Set<i64>,
    /// It has pruned, and nothing was left to prune.
    pub(super) pruned_all: bool,
}

impl Batch {
    fn new(next: Next) -> Self {
        Self {
            staged: Staged::default(),
            controls: None,
            samples: None,
            tally: Deltas::default(),
            next,
            events: Vec::new(),
            lanes: Map::default(),
            routes: Vec::new(),
            shrinking: Shrinking::default(),
            cancelled: Set::default(),
            pruned_all: false,
        }
    }
}

/// An event to be offered to lanes once it is committed.
pub(super) struct Committed {
    pub(super) offered: Offered,
    pub(super) destinations: Arc<[Name]>,
}

/// A delivery that was settled.
pub(super) struct Settled {
    pub(super) seq: EventSeq,
    pub(super) end: End,
    /// When it is tried again, if it is.
    pub(super) due: Time,
}

#[derive(Default)]
pub(super) struct Staging {
    pub(super) settled: Set<i64>,
    /// By how much dead letters become more.
    pub(super) dead: i64,
    pub(super) given: u64,
    /// Settled in the commit that gives them, and how many of them are dead letters.
    pub(super) refused: Set<i64>,
    pub(super) refused_dead: u64,
    pub(super) apply: Vec<Settled>,
    /// Dead letters that are sent once more, and how many are thrown away.
    pub(super) redriven: Vec<Waiting>,
    pub(super) discarded: u64,
    /// How many rows of what never arrived nobody asks for any more.
    pub(super) forgotten: u64,
    /// Get a row in this batch, since an earlier one of their target has one.
    pub(super) parked: Vec<i64>,
    /// Are not to be sent any more.
    pub(super) cancelled: Set<i64>,
}

impl Staging {
    /// Whether the delivery has arrived or was given up.
    pub(super) fn has_finished(&self, seq: i64) -> bool {
        self.settled.contains(&seq)
            && self.apply.iter().any(|one| one.seq.0 == seq && one.end != End::Retry)
            && !self.redriven.iter().any(|one| one.seq.0 == seq)
    }

    /// Whether the delivery has arrived.
    pub(super) fn has_arrived(&self, seq: i64) -> bool {
        let arrived = |one: &Settled| matches!(one.end, End::Arrived | End::Answered);
        self.settled.contains(&seq) && self.apply.iter().any(|one| one.seq.0 == seq && arrived(one))
    }
}

impl Staging {
    /// Tells a lane what is committed.
    fn apply_to(&self, lane: &mut Lane) {
        lane.given(self.given, self.refused.len() as u64, self.refused_dead);
        self.parked.iter().for_each(|&seq| lane.parked(EventSeq(seq)));
        for &Settled { seq, end, due } in &self.apply {
            match end {
                End::Retry => lane.retry(seq, due),
                End::Dead => lane.dead(seq),
                End::Arrived | End::Answered | End::Withdrawn => lane.delivered(seq),
            }
        }
        self.redriven.iter().for_each(|&waiting| lane.redrive(waiting));
        lane.discarded(self.discarded);
        self.cancelled.iter().for_each(|&seq| lane.cancel(EventSeq(seq)));
        lane.forgot(self.forgotten);
    }
}

/// A reply that waits for the commit.
type Answer = Box<dyn FnOnce(Result<(), Error>, &mut Vec<Arc<Known>>)>;

impl Writer {
    pub fn new(opened: Opened, hashes: Fingerprints, links: Links) -> rusqlite::Result<Self> {
        let Opened { writer: connection, created, lock, .. } = opened;
        let number = |query: &str| connection.query_row(query, [], |row| row.get::<_, i64>(0));
        let newest = "SELECT max(coalesce((SELECT max(id) FROM events), 0), coalesce((SELECT max(cursor) FROM destinations), 0))";
        let targets = "SELECT max(coalesce((SELECT max(id) FROM targets), 0), coalesce((SELECT max(id) FROM former_targets), 0))";
        let last_event = number(newest)?;
        let next = Next {
            target: number(targets)? + 1,
            record: number("SELECT coalesce(max(id), 0) FROM records")? + 1,
            event: last_event + 1,
        };
        let Links { outlets, clock, published, due, checkpoints, turn, index, foresight } = links;
        let superseding = Superseding::read(&connection)?;
        clock.last_event.store(last_event, Ordering::Release);
        Ok(Self {
            connection,
            created,
            index,
            foresight,
            hashes,
            outlets,
            clock,
            published,
            due,
            checkpoints,
            turn,
            routes: Map::default(),
            superseding,
            sweep: Sweep::default(),
            next,
            _lock: lock,
        })
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until it is told to close or nobody can ask any more.
    pub fn run(mut self, queue: &Receiver<Command>) {
        while let Ok(first) = queue.recv() {
            let commands = self.gather(first, queue);
            if !self.work(commands) {
                break;
            }
        }
        self.finish();
    }

    /// What is written in one commit: what has queued up, and what comes in a moment.
    fn gather(&self, first: Command, queue: &Receiver<Command>) -> Vec<Command> {
        let begun = Instant::now();
        let mut weight = first.weight();
        let mut commands = vec![first];
        let mut is_urgent = !commands[0].can_linger();
        while weight < BATCH {
            let patience = match is_urgent {
                false => LINGER,
                true if self.foresight.is_busy() => MOMENT,
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
    pub(super) fn work(&mut self, commands: Vec<Command>) -> bool {
        let mut batch = Batch::new(self.next);
        let mut answers: Vec<Answer> = Vec::new();
        let mut open = true;
        // After an error SQLite may have rolled back by itself: what came then would be committed alone.
        let mut failed: Option<rusqlite::Error> = None;
        let mut begun = false;
        let mut moves = Vec::new();
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
                Command::Number { hash, reply } => {
                    drop(reply.send(Ok(self.index().target(hash, &batch.staged))));
                    continue;
                }
                Command::Attach { destination, reply } => {
                    moves.push(Move::Attach(destination, reply));
                    continue;
                }
                Command::Detach { destination, reply } => {
                    moves.push(Move::Detach(destination, reply));
                    continue;
                }
                Command::Transact { keys, mut decide, foreseen, reply } => {
                    let done = if failed.is_none() {
                        self.begin(&mut begun)
                            .and_then(|()| self.transact(&mut batch, &keys, &mut decide, foreseen))
                    } else {
                        Ok(())
                    };
                    answers.push(Box::new(move |result, states| {
                        let rest = Rest::new(keys, decide, std::mem::take(states));
                        drop(reply.send(result.map(|()| rest)));
                    }));
                    done
                }
                Command::Settle { outlet, settled, reply } => {
                    answers.push(Box::new(move |result, _| drop(reply.send(result))));
                    if failed.is_some() {
                        continue;
                    }
                    self.begin(&mut begun).and_then(|()| self.settle(&mut batch, &outlet, settled))
                }
                Command::Redrive { outlet, seq, redrive, reply } => {
                    let done = if failed.is_none() {
                        self.begin(&mut begun).and_then(|()| self.redrive(&mut batch, &outlet, seq, redrive))
                    } else {
                        Ok(Ok(()))
                    };
                    let (done, result) = split(done);
                    answers.push(Box::new(move |result, _| drop(reply.send(result.map(|()| done)))));
                    result
                }
                Command::Discard { place, reply } => {
                    let done = if failed.is_none() {
                        self.begin(&mut begun).and_then(|()| self.discard(&mut batch, &place))
                    } else {
                        Ok(Ok(()))
                    };
                    let (done, result) = split(done);
                    answers.push(Box::new(move |result, _| drop(reply.send(result.map(|()| done)))));
                    result
                }
                Command::Prune { decisions, delivered, reply } => {
                    if failed.is_some() {
                        answers.push(Box::new(move |result, _| drop(reply.send(result.map(|()| false)))));
                        continue;
                    }
                    let pruned =
                        self.begin(&mut begun).and_then(|()| self.prune(&mut batch, decisions, delivered));
                    let more = *pruned.as_ref().unwrap_or(&false);
                    answers.push(Box::new(move |result, _| drop(reply.send(result.map(|()| more)))));
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
        answers.into_iter().for_each(|answer| answer(outcome.clone(), &mut states));
        moves.into_iter().for_each(|one| self.move_outlet(one));
        open
    }

    /// Between two batches, so that all of a batch sees the same outlets.
    fn move_outlet(&self, one: Move) {
        let (done, reply) = match one {
            Move::Attach(destination, reply) => (self.attach(&destination), reply),
            Move::Detach(destination, reply) => (self.detach(&destination), reply),
        };
        drop(reply.send(done.map_err(|error| schema::unavailable(&error))));
    }

    fn attach(&self, destination: &Name) -> rusqlite::Result<()> {
        if self.outlets.get(destination).is_none() {
            let opened = read_outlets(&self.connection, std::slice::from_ref(destination))?;
            opened.into_values().for_each(|outlet| self.outlets.attach(outlet));
        }
        Ok(())
    }

    fn detach(&self, destination: &Name) -> rusqlite::Result<()> {
        let Some(outlet) = self.outlets.get(destination) else { return Ok(()) };
        self.leave(&outlet)?;
        self.outlets.detach(destination);
        Ok(())
    }

    /// Gives the states that need not be kept at hand.
    fn commit(&mut self, mut batch: Batch) -> Result<Vec<Arc<Known>>, Error> {
        let written = self
            .write_positions(&mut batch)
            .and_then(|()| self.published.tally(|tally| batch.tally.write(&self.connection, tally)));
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
    fn publish(&mut self, batch: Batch) -> Vec<Arc<Known>> {
        let last_before = self.next.event - 1;
        self.next = batch.next;
        self.routes.extend(batch.routes);
        let rest = self.index_mut().merge(batch.staged);
        if let Some(controls) = batch.controls {
            self.published.set_controls(controls);
        }
        if let Some(samples) = batch.samples {
            self.published.set_samples(samples);
        }
        self.published.change_tally(|tally| batch.tally.apply(tally));
        self.superseding.merge(batch.shrinking, &batch.lanes, &batch.cancelled);
        self.clock.last_event.store(self.next.event - 1, Ordering::Release);
        for outlet in self.outlets.all().values() {
            let staging = batch.lanes.get(&outlet.name);
            let wake = outlet.lane(|lane| {
                if let Some(staging) = staging {
                    staging.apply_to(lane);
                }
                if lane.read_to() < last_before {
                    return staging.is_some();
                }
                for Committed { offered, destinations } in &batch.events {
                    if !lane.has_room() {
                        return true;
                    }
                    if !destinations.contains(&outlet.name) {
                        lane.skip_to(offered.seq);
                    } else if staging.is_some_and(|staging| staging.refused.contains(&offered.seq.0)) {
                        lane.offer_with_row(offered);
                    } else {
                        lane.offer(offered.clone());
                    }
                }
                staging.is_some()
            });
            if wake {
                outlet.wake();
            }
        }
        let next_due = self.index().next_due();
        self.due.send_if_modified(|due| std::mem::replace(due, next_due) != next_due);
        self.mind_the_log();
        if batch.pruned_all && !checkpoint::give_back(&self.connection) {
            // The next round finds a short rest.
            self.wake_the_folder();
        }
        rest
    }

    /// Whoever holds the token is at it.
    fn wake_the_folder(&self) {
        let _held = self.checkpoints.try_send(());
    }

    fn mind_the_log(&self) {
        checkpoint::fold_rest(&self.connection, &self.turn);
        match checkpoint::waiting(&self.connection) {
            Ok(waiting) if checkpoint::is_long(waiting) => self.wake_the_folder(),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot tell how long the store's log is"),
        }
    }

    fn keys_due(&mut self, max: usize, batch: &Batch) -> rusqlite::Result<Vec<TargetKey>> {
        let mut keys = Vec::new();
        let due = self.index().due(self.clock.now(), max);
        for id in due {
            keys.extend(self.load(id, batch)?.map(|known| known.key.clone()));
        }
        Ok(keys)
    }

    fn locate(&mut self, keys: &Keys, batch: &Batch) -> rusqlite::Result<BTreeMap<AlertKey, Vec<TargetKey>>> {
        let mut found: BTreeMap<AlertKey, Vec<TargetKey>> = BTreeMap::new();
        for alert in &keys.alerts {
            let ids = self.index().alert_targets(self.hashes.alert(alert), &batch.staged);
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
fn split(done: rusqlite::Result<Result<(), LetterError>>) -> (Result<(), LetterError>, rusqlite::Result<()>) {
    match done {
        Ok(done) => (done, Ok(())),
        Err(error) => (Ok(()), Err(error)),
    }
}
