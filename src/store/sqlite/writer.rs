//! The one thread that writes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{oneshot, watch};

use super::checkpoint::{self, Turn};
use super::index::{Fingerprint, Fingerprints, Index, Known, Staged};
use super::schema::{self, Opened};
use crate::domain::engine::States;
use crate::domain::name::Name;
use crate::domain::state::{AlertKey, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::clock::Clock;
use crate::store::outlets::{Outlet, Outlets};
use crate::store::{Changes, Decide, Error, EventSeq, Keys, NewEvent, Record, Settlement, View, WallClock};

/// What the writer is asked for. Every reply follows the commit.
pub enum Command {
    Transact { keys: Keys, decide: Decide, reply: Reply<()> },
    Settle { outlet: Arc<Outlet>, settled: Vec<(EventSeq, Settlement)>, reply: Reply<()> },
    Due { max: usize, reply: Reply<Vec<TargetKey>> },
    Locate { keys: Keys, reply: Reply<BTreeMap<AlertKey, Vec<TargetKey>>> },
    Number { hash: Fingerprint, reply: Reply<Option<i64>> },
    Prune { decisions: Duration, delivered: Duration, reply: Reply<bool> },
    Close,
}

pub type Reply<R> = oneshot::Sender<Result<R, Error>>;

/// Commits hold about as many keys and settlements.
const BATCH: usize = 1000;
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
    created: Time,
    index: Index,
    hashes: Fingerprints,
    pub(super) outlets: Outlets,
    pub(super) clock: Arc<SharedClock>,
    due: watch::Sender<Option<Time>>,
    checkpoints: SyncSender<()>,
    turn: Turn,
    routes: HashMap<Arc<[Name]>, i64>,
    next: Next,
    _lock: std::fs::File,
}

/// What the writer shares with others.
pub struct Links {
    pub outlets: Outlets,
    pub clock: Arc<SharedClock>,
    /// When the next target is due.
    pub due: watch::Sender<Option<Time>>,
    /// Wakes the thread that folds the log.
    pub checkpoints: SyncSender<()>,
    pub turn: Turn,
}

/// The numbers that come next.
#[derive(Clone, Copy)]
struct Next {
    target: i64,
    record: i64,
    event: i64,
}

/// What a batch has done and not committed.
pub(super) struct Batch {
    staged: Staged,
    next: Next,
    events: Vec<Committed>,
    pub(super) lanes: HashMap<Name, Staging>,
    routes: Vec<(Arc<[Name]>, i64)>,
}

/// An event to be offered to lanes once it is committed.
struct Committed {
    seq: EventSeq,
    target: i64,
    at: Time,
    destinations: Arc<[Name]>,
    body: Arc<str>,
}

#[derive(Default)]
pub(super) struct Staging {
    pub(super) settled: HashSet<i64>,
    pub(super) dead: u64,
    pub(super) given: u64,
    pub(super) apply: Vec<(EventSeq, Option<Time>, bool)>,
    /// Get a row in this batch, since an earlier one of their target has one.
    pub(super) parked: Vec<i64>,
}

/// A reply that waits for the commit.
type Answer = Box<dyn FnOnce(Result<(), Error>)>;

impl Writer {
    pub fn new(opened: Opened, index: Index, hashes: Fingerprints, links: Links) -> rusqlite::Result<Self> {
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
        let Links { outlets, clock, due, checkpoints, turn } = links;
        clock.last_event.store(last_event, Ordering::Release);
        Ok(Self {
            connection,
            created,
            index,
            hashes,
            outlets,
            clock,
            due,
            checkpoints,
            turn,
            routes: HashMap::new(),
            next,
            _lock: lock,
        })
    }

    /// Works until it is told to close or nobody can ask any more.
    pub fn run(mut self, queue: &Receiver<Command>) {
        while let Ok(first) = queue.recv() {
            let mut commands = vec![first];
            let mut weight = 0;
            while weight < BATCH {
                let Ok(command) = queue.try_recv() else { break };
                weight += command.weight();
                commands.push(command);
            }
            if !self.work(commands) {
                break;
            }
        }
        self.finish();
    }

    /// One batch. False when it was told to close.
    pub(super) fn work(&mut self, commands: Vec<Command>) -> bool {
        let mut batch = Batch {
            staged: Staged::default(),
            next: self.next,
            events: Vec::new(),
            lanes: HashMap::new(),
            routes: Vec::new(),
        };
        let mut answers: Vec<Answer> = Vec::new();
        let mut open = true;
        // After an error SQLite may have rolled back by itself: what came then would be committed alone.
        let mut failed: Option<rusqlite::Error> = None;
        let mut begun = false;
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
                Command::Number { hash, reply } => {
                    drop(reply.send(Ok(self.index.target(hash, &batch.staged))));
                    continue;
                }
                Command::Transact { keys, mut decide, reply } => {
                    answers.push(Box::new(move |result| drop(reply.send(result))));
                    if failed.is_some() {
                        continue;
                    }
                    self.begin(&mut begun).and_then(|()| self.transact(&mut batch, &keys, &mut decide))
                }
                Command::Settle { outlet, settled, reply } => {
                    answers.push(Box::new(move |result| drop(reply.send(result))));
                    if failed.is_some() {
                        continue;
                    }
                    self.begin(&mut begun).and_then(|()| self.settle(&mut batch, &outlet, settled))
                }
                Command::Prune { decisions, delivered, reply } => {
                    if failed.is_some() {
                        answers.push(Box::new(move |result| drop(reply.send(result.map(|()| false)))));
                        continue;
                    }
                    let pruned =
                        self.begin(&mut begun).and_then(|()| self.prune(&mut batch, decisions, delivered));
                    let more = *pruned.as_ref().unwrap_or(&false);
                    answers.push(Box::new(move |result| drop(reply.send(result.map(|()| more)))));
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
            (false, None) => Ok(()),
        };
        answers.into_iter().for_each(|answer| answer(outcome.clone()));
        open
    }

    fn commit(&mut self, mut batch: Batch) -> Result<(), Error> {
        let committed =
            self.write_positions(&mut batch).and_then(|()| self.connection.execute_batch("COMMIT"));
        match committed {
            Ok(()) => {
                self.publish(batch);
                Ok(())
            }
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

    fn transact(&mut self, batch: &mut Batch, keys: &Keys, decide: &mut Decide) -> rusqlite::Result<()> {
        let now = self.clock.now();
        let view = View {
            now,
            created: self.created,
            states: self.states(keys, batch)?,
            controls: Arc::default(),
            unsent: BTreeMap::new(),
        };
        let changes: Changes = decide(&view);
        for (key, state) in changes.states {
            self.put_state(batch, now, key, state, &view.states)?;
        }
        if let Some(record) = &changes.record {
            self.put_record(batch, now, record)?;
        }
        for event in changes.events {
            self.put_event(batch, now, event)?;
        }
        Ok(())
    }

    fn states(&mut self, keys: &Keys, batch: &Batch) -> rusqlite::Result<States> {
        let mut states = States::default();
        for alert in &keys.alerts {
            let ids = self.index.alert_targets(self.hashes.alert(alert), &batch.staged);
            for id in ids {
                if let Some(known) = self.load(id, batch)? {
                    states.alerts.entry(alert.clone()).or_default().push(known.key.clone());
                    states.targets.insert(known.key.clone(), known.state.clone());
                }
            }
        }
        for key in &keys.targets {
            let id = self.index.target(self.hashes.target(key), &batch.staged);
            if let Some(id) = id
                && !states.targets.contains_key(key)
                && let Some(known) = self.load(id, batch)?
            {
                states.targets.insert(key.clone(), known.state.clone());
            }
        }
        // The engine takes the first of an alert's targets where any would do.
        states.alerts.values_mut().for_each(|targets| targets.sort_unstable());
        Ok(states)
    }

    fn load(&mut self, id: i64, batch: &Batch) -> rusqlite::Result<Option<Arc<Known>>> {
        if let Some(known) = self.index.state(id, &batch.staged) {
            return Ok(known);
        }
        let mut read = self.connection.prepare_cached("SELECT key, state FROM targets WHERE id = ?1")?;
        let found = read.query_row([id], |row| {
            let key = TargetKey::from_stored(row.get_ref(0)?.as_str()?);
            let state: TargetState = serde_json::from_str(row.get_ref(1)?.as_str()?).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
            })?;
            Ok(Arc::new(Known { key, state: Arc::new(state) }))
        });
        let found = found.optional()?;
        if let Some(known) = &found {
            self.index.keep(id, known.clone());
        }
        Ok(found)
    }

    fn put_state(
        &mut self,
        batch: &mut Batch,
        now: Time,
        key: TargetKey,
        state: TargetState,
        seen: &States,
    ) -> rusqlite::Result<()> {
        let hash = self.hashes.target(&key);
        let id = self.index.target(hash, &batch.staged);
        let unknown = TargetState::default();
        let before = seen.targets.get(&key).map_or(&unknown, |state| state);
        if state.is_empty() {
            let Some(id) = id else { return Ok(()) };
            self.connection.prepare_cached("DELETE FROM targets WHERE id = ?1")?.execute([id])?;
            self.connection
                .prepare_cached("INSERT INTO former_targets VALUES (?1, ?2, ?3)")?
                .execute(params![hash.0, id, now.as_nanos()])?;
            batch.staged.put(&self.index, &self.hashes, id, before, None, &key);
            return Ok(());
        }
        let text = serde_json::to_string(&state)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let mut alerts: Vec<u8> = Vec::with_capacity(16);
        let mut listed = HashSet::new();
        for alert in state.alerts().map(|alert| self.hashes.alert(alert)) {
            if listed.insert(alert) {
                alerts.extend(alert.0);
            }
        }
        let due = state.due().map(Time::as_nanos);
        let id = match id {
            Some(id) => {
                self.connection
                    .prepare_cached("UPDATE targets SET due = ?2, alerts = ?3, state = ?4 WHERE id = ?1")?
                    .execute(params![id, due, alerts, text])?;
                id
            }
            None => {
                let id = batch.next.target;
                batch.next.target += 1;
                self.connection
                    .prepare_cached(
                        "INSERT INTO targets (id, hash, due, alerts, key, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    )?
                    .execute(params![id, hash.0, due, alerts, key.as_str(), text])?;
                id
            }
        };
        let known = Arc::new(Known { key: key.clone(), state: Arc::new(state) });
        batch.staged.put(&self.index, &self.hashes, id, before, Some(known), &key);
        Ok(())
    }

    fn put_record(&mut self, batch: &mut Batch, now: Time, record: &Record) -> rusqlite::Result<()> {
        let id = batch.next.record;
        batch.next.record += 1;
        let mut targets = Vec::with_capacity(record.targets.len() * 8);
        for key in &record.targets {
            // A target whose only trace is a decision without a state is not in the history.
            let Some(target) = self.number(key, batch) else { continue };
            targets.extend(target.to_be_bytes());
            self.connection.prepare_cached("INSERT INTO history VALUES (?1, ?2, ?3)")?.execute(params![
                target,
                now.as_nanos(),
                id
            ])?;
        }
        self.connection.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            id,
            now.as_nanos(),
            targets,
            record.body
        ])?;
        Ok(())
    }

    fn put_event(&mut self, batch: &mut Batch, now: Time, event: NewEvent) -> rusqlite::Result<()> {
        let seq = batch.next.event;
        batch.next.event += 1;
        let route = self.route(batch, &event.destinations)?;
        // An event always comes with its target's state; without one its order would be its own.
        let target = self.number(&event.target, batch).unwrap_or(-seq);
        self.connection
            .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![seq, target, route, now.as_nanos(), event.body])?;
        for destination in event.destinations.iter() {
            batch.lanes.entry(destination.clone()).or_default().given += 1;
        }
        let NewEvent { destinations, body, .. } = event;
        batch.events.push(Committed { seq: EventSeq(seq), target, at: now, destinations, body: body.into() });
        Ok(())
    }

    /// A target's number, also of one that this transaction forgets.
    fn number(&self, key: &TargetKey, batch: &Batch) -> Option<i64> {
        let hash = self.hashes.target(key);
        let staged = self.index.target(hash, &batch.staged);
        staged.or_else(|| self.index.target(hash, &Staged::default()))
    }

    fn route(&mut self, batch: &mut Batch, destinations: &Arc<[Name]>) -> rusqlite::Result<i64> {
        let staged = batch.routes.iter().find(|(known, _)| known == destinations);
        if let Some(&id) = self.routes.get(destinations).or(staged.map(|(_, id)| id)) {
            return Ok(id);
        }
        let names: Vec<&str> = destinations.iter().map(Name::as_str).collect();
        let list = serde_json::to_string(&names)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        self.connection.execute("INSERT OR IGNORE INTO routes (destinations) VALUES (?1)", [&list])?;
        let id =
            self.connection
                .query_row("SELECT id FROM routes WHERE destinations = ?1", [&list], |row| row.get(0))?;
        batch.routes.push((destinations.clone(), id));
        Ok(id)
    }

    /// Makes a committed batch known.
    fn publish(&mut self, batch: Batch) {
        let last_before = self.next.event - 1;
        self.next = batch.next;
        self.routes.extend(batch.routes);
        self.index.merge(batch.staged);
        self.clock.last_event.store(self.next.event - 1, Ordering::Release);
        for outlet in self.outlets.values() {
            let staging = batch.lanes.get(&outlet.name);
            let wake = outlet.lane(|lane| {
                lane.given(staging.map_or(0, |staging| staging.given));
                staging
                    .into_iter()
                    .flat_map(|staging| &staging.parked)
                    .for_each(|&seq| lane.parked(EventSeq(seq)));
                for (seq, due, dead) in staging.into_iter().flat_map(|staging| &staging.apply) {
                    match due {
                        Some(due) => lane.retry(*seq, *due),
                        None if *dead => lane.dead(*seq),
                        None => lane.delivered(*seq),
                    }
                }
                if lane.read_to() < last_before {
                    return staging.is_some();
                }
                for Committed { seq, target, at, destinations, body } in &batch.events {
                    if !lane.has_room() {
                        return true;
                    }
                    if destinations.contains(&outlet.name) {
                        lane.offer(*seq, *target, *at, body.clone());
                    } else {
                        lane.skip_to(*seq);
                    }
                }
                staging.is_some()
            });
            if wake {
                outlet.wake();
            }
        }
        let next_due = self.index.next_due();
        self.due.send_if_modified(|due| std::mem::replace(due, next_due) != next_due);
        self.mind_the_log();
    }

    fn mind_the_log(&self) {
        checkpoint::fold_rest(&self.connection, &self.turn);
        match checkpoint::waiting(&self.connection) {
            // Whoever holds the token is at it.
            Ok(waiting) if checkpoint::is_long(waiting) => drop(self.checkpoints.try_send(()).ok()),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot tell how long the store's log is"),
        }
    }

    fn keys_due(&mut self, max: usize, batch: &Batch) -> rusqlite::Result<Vec<TargetKey>> {
        let mut keys = Vec::new();
        for id in self.index.due(self.clock.now(), max) {
            keys.extend(self.load(id, batch)?.map(|known| known.key.clone()));
        }
        Ok(keys)
    }

    fn locate(&mut self, keys: &Keys, batch: &Batch) -> rusqlite::Result<BTreeMap<AlertKey, Vec<TargetKey>>> {
        let mut found: BTreeMap<AlertKey, Vec<TargetKey>> = BTreeMap::new();
        for alert in &keys.alerts {
            for id in self.index.alert_targets(self.hashes.alert(alert), &batch.staged) {
                if let Some(known) = self.load(id, batch)? {
                    found.entry(alert.clone()).or_default().push(known.key.clone());
                }
            }
        }
        Ok(found)
    }
}

impl Command {
    fn weight(&self) -> usize {
        match self {
            Self::Transact { keys, .. } => keys.targets.len() + keys.alerts.len(),
            Self::Settle { settled, .. } => settled.len(),
            _ => 1,
        }
    }
}
