//! The embedded store: one SQLite file, one writer thread, no setup.
//!
//! All writes go through one thread, which commits queued commands together (group commit). It waits at most
//! half a millisecond for transactions that are being decided, and up to five milliseconds if it has only
//! settlements, since no caller waits for those. WAL with `synchronous=FULL`: a commit that has returned is
//! on disk. The index (target ids, targets of each alert, due times) is in memory, so a new target costs no
//! query.

mod audit;
mod batch;
mod checkpoint;
mod command;
mod committed;
mod compensation;
mod compression;
mod dead_letters;
mod decrease_tracker;
mod deliveries;
mod dictionaries;
mod event_blocks;
mod index;
mod optimistic;
mod prune;
mod query;
mod recheck_queue;
mod restore;
mod schema;
mod shared_clock;
mod tally;
#[cfg(test)]
mod tests;
mod transact;
mod undelivered_decreases;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{oneshot, watch};

use super::lane::{Claim, NewDelivery};
use super::lanes::{LaneHandle, LaneHandles};
use super::{
    AuditPage, AuditQuery, AuditWrite, Claimed, DeadLetter, DeadLetterError, DecideFn, DeliveryId,
    DeliveryState, Error, EventSeq, Keys, RecordQuery, Records, Redrive, Settlement, StoredEvent,
    StoredState, Tally, WallClock,
};
use crate::domain::control::Controls;
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use command::Command;
use committed::CommittedView;
use event_blocks::BodyReader;
use index::Fingerprints;
use optimistic::{SharedIndex, Snapshot, Speculation, SpeculationGate};
use restore::{last_time, read_index, read_lanes, read_recheck_queue};
use shared_clock::SharedClock;
use writer::{Writer, WriterDeps};

/// A decision about more alerts than this runs on a blocking thread.
const MAX_INLINE_ALERTS: usize = 200;

/// Maximum number of events that one refill of a lane's window reads.
const MAX_REFILL_EVENTS: usize = 1000;

/// A handle of an open SQLite store. Cheap to clone.
#[derive(Clone)]
pub struct Sqlite {
    commands: mpsc::Sender<Command>,
    reader: Arc<Mutex<Connection>>,
    lanes: LaneHandles,
    clock: Arc<SharedClock>,
    committed: Arc<CommittedView>,
    hashes: Fingerprints,
    created: Time,
    index: SharedIndex,
    gate: Arc<SpeculationGate>,
    due: watch::Receiver<Option<Time>>,
    /// Closed after the connections: see [`schema::Database`].
    _file: Arc<File>,
    threads: Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>,
}

impl Sqlite {
    /// Opens the file, creates it if it does not exist, and starts the threads. Blocks.
    ///
    /// # Errors
    /// `Error::Unusable`, with the cause and the fix.
    pub fn open(path: &Path, destinations: &[Name], wall: WallClock) -> Result<Self, Error> {
        let opened = schema::open(path, wall())?;
        let broken = |error: rusqlite::Error| schema::unusable(path, &error);
        let hashes = Fingerprints(opened.hash_key);
        let mut index = read_index(&opened.writer).map_err(broken)?;
        let lanes = LaneHandles::new(read_lanes(&opened.writer, destinations).map_err(broken)?);
        let clock = SharedClock::start(wall, last_time(&opened.writer).map_err(broken)?);
        let clock = Arc::new(clock);
        index.restore_recheck_queue(read_recheck_queue(&opened.writer).map_err(broken)?, clock.now());
        let committed = Arc::new(CommittedView::read(&opened.writer).map_err(broken)?);
        let (due_sender, due) = watch::channel(index.next_due());
        let (commands, queue) = mpsc::channel();
        let (checkpoints, wanted) = mpsc::sync_channel(1);
        let checkpointer = schema::connect(path).map_err(broken)?;
        let reader = schema::connect(path).map_err(broken)?;
        let (file, hand_over) = (opened.file.clone(), checkpoint::HandOver::default());
        let checkpoint_files = (file.clone(), hand_over.clone());
        let (index, gate) = (Arc::new(RwLock::new(index)), Arc::<SpeculationGate>::default());
        let deps = WriterDeps {
            lanes: lanes.clone(),
            clock: clock.clone(),
            committed: committed.clone(),
            due: due_sender,
            checkpoints,
            hand_over,
            index: index.clone(),
            gate: gate.clone(),
        };
        let created = opened.created;
        let writer = Writer::new(opened, hashes, deps).map_err(broken)?;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(|error| Error::Unusable(format!("cannot start the thread {name}: {error}")))
        };
        let threads = vec![
            spawn("store-writer", Box::new(move || writer.run(&queue)))?,
            spawn(
                "store-checkpoint",
                Box::new(move || {
                    checkpoint::run(&checkpointer, &checkpoint_files.0, &wanted, &checkpoint_files.1);
                }),
            )?,
        ];
        Ok(Self {
            commands,
            reader: Arc::new(Mutex::new(reader)),
            lanes,
            clock,
            committed,
            hashes,
            created,
            index,
            gate,
            due,
            _file: file,
            threads: Arc::new(Mutex::new(threads)),
        })
    }

    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    pub(super) fn lanes(&self) -> &LaneHandles {
        &self.lanes
    }

    async fn ask<R>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<R, Error>>) -> Command,
    ) -> Result<R, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Decides on this thread if all states are cached; otherwise the writer decides.
    async fn decide_optimistically(
        &self,
        keys: Keys,
        mut decide: DecideFn,
    ) -> Result<(Keys, DecideFn, Option<Box<Speculation>>), Error> {
        let (index, gate, hashes) = (self.index.clone(), self.gate.clone(), self.hashes);
        let snapshot = Snapshot {
            clock: self.clock.clone(),
            created: self.created,
            controls: self.controls(),
            dictionaries: self.committed.dictionaries(),
        };
        let is_large = keys.alerts.len() > MAX_INLINE_ALERTS;
        let decide_here = move || {
            let _in_flight = gate.begin();
            let speculation =
                optimistic::decide_optimistically(&gate, &index, hashes, snapshot, &keys, &mut decide);
            (keys, decide, speculation.map(Box::new))
        };
        if is_large {
            return tokio::task::spawn_blocking(decide_here).await.map_err(|_| Error::Closed);
        }
        Ok(decide_here())
    }

    pub(super) async fn transact(&self, keys: Keys, decide: DecideFn) -> Result<(), Error> {
        let (keys, decide, speculation) = self.decide_optimistically(keys, decide).await?;
        self.ask(|reply| Command::Transact { keys, decide, speculation, reply }).await.map(drop)
    }

    pub(super) async fn settle(
        &self,
        handle: &Arc<LaneHandle>,
        settled: Vec<(EventSeq, Settlement)>,
    ) -> Result<(), Error> {
        let handle = handle.clone();
        self.ask(|reply| Command::Settle { handle, settled, reply }).await
    }

    pub(super) async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        self.ask(|reply| Command::Due { max, reply }).await
    }

    pub(super) async fn locate(
        &self,
        keys: Keys,
    ) -> Result<BTreeMap<crate::domain::alert_key::AlertKey, Vec<TargetKey>>, Error> {
        self.ask(|reply| Command::Locate { keys, reply }).await
    }

    pub(super) fn controls(&self) -> Arc<Controls> {
        self.committed.controls()
    }

    pub(super) fn tally(&self) -> Tally {
        self.committed.tally(Tally::clone)
    }

    pub(super) fn next_due(&self) -> watch::Receiver<Option<Time>> {
        self.due.clone()
    }

    pub(super) async fn add_destinations(&self, destinations: Vec<Name>) -> Result<(), Error> {
        self.ask(|reply| Command::AddDestinations { destinations, reply }).await
    }

    pub(super) async fn remove_destination(&self, destination: Name) -> Result<(), Error> {
        self.ask(|reply| Command::RemoveDestination { destination, reply }).await
    }

    pub(super) async fn orphaned_destinations(&self) -> Result<Vec<Name>, Error> {
        let names = self.read(|reader| {
            let mut names = reader.prepare_cached(
                "SELECT name FROM destinations n WHERE enqueued > settled_below_cursor
                 OR EXISTS (SELECT 1 FROM deliveries d WHERE d.destination = n.id AND d.state = 1)",
            )?;
            names.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
        });
        let names = names.await?;
        let known = self.lanes.all();
        let names = names.iter().filter_map(|name| Name::new(name).ok());
        Ok(names.filter(|name| !known.contains_key(name)).collect())
    }

    pub(super) async fn prune(&self, decisions: Duration, delivered: Duration) -> Result<bool, Error> {
        self.ask(|reply| Command::Prune { decisions, delivered, reply }).await
    }

    /// Runs `read` with the reading connection, on a blocking thread.
    async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, Error> {
        let reader = self.reader.clone();
        let task = tokio::task::spawn_blocking(move || read(&reader.lock()));
        task.await.map_err(|_| Error::Closed)?.map_err(|error| schema::unavailable(&error))
    }

    pub(super) async fn claim(&self, handle: &Arc<LaneHandle>, max: usize) -> Result<Vec<Claimed>, Error> {
        let now = self.now();
        let mut claims = handle.with_lane(|lane| lane.claim(max, now));
        if claims.len() < max && handle.with_lane(|lane| lane.has_room()) {
            if let Err(error) = self.refill(handle).await {
                handle.with_lane(|lane| claims.iter().for_each(|one| lane.unclaim(one.seq)));
                return Err(error);
            }
            claims.extend(handle.with_lane(|lane| lane.claim(max - claims.len(), now)));
        }
        let may_have_missed = handle.with_lane(|lane| lane.has_never_delivered());
        let lookups: Vec<ClaimLookup> = claims
            .iter()
            .map(|one| ClaimLookup {
                seq: one.seq.0,
                has_row: one.body.is_none(),
                check_compensation: one.compensates && may_have_missed,
            })
            .filter(|lookup| lookup.has_row || lookup.check_compensation)
            .collect();
        let mut details = BTreeMap::new();
        if !lookups.is_empty() {
            let (name, destination_id) = (handle.name.clone(), handle.id);
            match self.read(move |reader| read_claims(reader, &name, destination_id, &lookups)).await {
                Ok(found) => details = found,
                Err(error) => {
                    handle.with_lane(|lane| claims.iter().for_each(|one| lane.unclaim(one.seq)));
                    return Err(error);
                }
            }
        }
        let claimed = claims.into_iter().filter_map(|Claim { seq, body, emitted_at, attempts, .. }| {
            let ClaimDetails { body: stored, last_error, nothing_to_compensate } =
                details.remove(&seq.0).unwrap_or_default();
            let body = body.or(stored);
            if body.is_none() {
                tracing::error!(event = seq.0, destination = %handle.name, "event missing from the store");
            }
            Some(Claimed { seq, body: body?, emitted_at, attempts, last_error, nothing_to_compensate })
        });
        Ok(claimed.collect())
    }

    /// Reads the events above the high watermark into the window. The writer pushes newly committed events
    /// only to lanes that have caught up, and a lane ignores events that it has.
    async fn refill(&self, handle: &Arc<LaneHandle>) -> Result<(), Error> {
        let after = handle.with_lane(|lane| lane.high_watermark());
        if after >= self.clock.last_event() {
            return Ok(());
        }
        let (name, destination_id) = (handle.name.clone(), handle.id);
        let events = self.read(move |reader| read_events(reader, &name, destination_id, after)).await?;
        let more = events.len() == MAX_REFILL_EVENTS;
        handle.with_lane(|lane| {
            for RefillEvent { delivery, is_wanted, has_row } in events {
                if !lane.has_room() {
                    return;
                }
                match (is_wanted, has_row) {
                    (false, _) => lane.skip_to(delivery.seq),
                    (true, true) => lane.push_known(&delivery),
                    (true, false) => lane.push(delivery),
                }
            }
        });
        if more {
            handle.wake();
        }
        Ok(())
    }

    pub(super) async fn dead_letters(
        &self,
        destination: Option<Name>,
        after: Option<DeliveryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        let rows =
            self.read(move |reader| dead_letters::list(reader, destination.as_ref(), after.as_ref(), max));
        Ok(rows.await?.into_iter().map(DeadLetter::from).collect())
    }

    pub(super) async fn redrive(
        &self,
        handle: &Arc<LaneHandle>,
        seq: EventSeq,
        redrive: Redrive,
        audit: AuditWrite,
    ) -> Result<(), DeadLetterError> {
        let handle = handle.clone();
        self.ask(|reply| Command::Redrive { handle, seq, redrive, audit, reply }).await?
    }

    pub(super) async fn discard(
        &self,
        delivery_id: &DeliveryId,
        audit: AuditWrite,
    ) -> Result<(), DeadLetterError> {
        let delivery_id = delivery_id.clone();
        self.ask(|reply| Command::Discard { delivery_id, audit, reply }).await?
    }

    pub(super) async fn audit(&self, write: AuditWrite) -> Result<i64, Error> {
        self.ask(|reply| Command::Audit { write, reply }).await
    }

    pub(super) async fn audit_trail(&self, query: AuditQuery) -> Result<AuditPage, Error> {
        self.read(move |reader| audit::list(reader, &query)).await
    }

    pub(super) async fn history(
        &self,
        target: &TargetKey,
        from: Time,
        to: Time,
    ) -> Result<Vec<String>, Error> {
        let hash = self.hashes.target(target);
        let id = self.ask(|reply| Command::TargetId { hash, reply }).await?;
        self.read(move |reader| {
            let mut retired =
                reader.prepare_cached("SELECT id FROM retired_targets WHERE hash = ?1 ORDER BY id")?;
            let mut ids = retired.query_map([hash.0], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
            ids.extend(id);
            let mut found = Vec::new();
            let mut history = reader.prepare_cached(
                "SELECT r.id, r.body FROM history h JOIN records r ON r.id = h.record
                 WHERE h.target = ?1 AND h.at BETWEEN ?2 AND ?3 ORDER BY h.at, h.record",
            )?;
            for id in ids {
                let rows = history.query_map(params![id, from.as_nanos(), to.as_nanos()], |row| {
                    Ok(query::record_text(row.get(0)?, row.get_ref(1)?))
                })?;
                found.extend(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten());
            }
            Ok(found)
        })
        .await
    }

    pub(super) async fn records(&self, query: RecordQuery) -> Result<Records, Error> {
        let target = match &query.target {
            Some(target) => {
                let hash = self.hashes.target(target);
                Some((hash, self.ask(|reply| Command::TargetId { hash, reply }).await?))
            }
            None => None,
        };
        self.read(move |reader| query::records(reader, &query, target)).await
    }

    pub(super) async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        let mut below = i64::MAX;
        loop {
            let id = id.to_owned();
            match self.read(move |reader| query::find_event(reader, &id, below)).await? {
                query::ScanStep::NotFound => return Ok(None),
                query::ScanStep::Below(seq) => below = seq,
                query::ScanStep::Found(found) => {
                    let query::FoundEvent { seq, mut event, below_cursor } = *found;
                    let deliveries = event.deliveries.iter_mut().zip(below_cursor);
                    for (delivery, _) in deliveries.filter(|(_, is_below_cursor)| !is_below_cursor) {
                        let handle = self.lanes.get(&delivery.destination);
                        let settled =
                            handle.is_some_and(|handle| handle.with_lane(|lane| lane.is_settled(seq)));
                        // The stored cursor lags behind the lane.
                        if settled && delivery.state == DeliveryState::Pending {
                            delivery.state = DeliveryState::Delivered;
                        }
                    }
                    return Ok(Some(event));
                }
            }
        }
    }

    pub(super) async fn states(&self, after: i64, max: usize) -> Result<Vec<StoredState>, Error> {
        self.read(move |reader| query::states(reader, after, max)).await
    }

    /// Executes the queued commands, checkpoints the WAL and stops the threads.
    pub(super) async fn close(&self) {
        if self.commands.send(Command::Close).is_err() {
            return;
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("store thread panicked");
                }
            }
        });
        if joined.await.is_err() {
            tracing::error!("store did not close");
        }
    }
}

struct RefillEvent {
    delivery: NewDelivery,
    is_wanted: bool,
    /// Whether a row of `deliveries` has details that the lane does not have. A delivery that is cancelled
    /// during this read is cancelled in the lane when that commit is published.
    has_row: bool,
}

fn read_events(
    reader: &Connection,
    destination: &Name,
    destination_id: i64,
    after: i64,
) -> rusqlite::Result<Vec<RefillEvent>> {
    let mut routes = reader.prepare_cached("SELECT id, destinations FROM routes")?;
    let mut routes = routes.query([])?;
    let mut wanted: Vec<i64> = Vec::new();
    while let Some(route) = routes.next()? {
        if compensation::parse_destinations(route.get_ref(1)?.as_str()?).contains(destination) {
            wanted.push(route.get(0)?);
        }
    }
    let mut events = reader.prepare_cached(
        "SELECT e.id, e.target, e.route, e.at, e.compensates IS NOT NULL, e.body, coalesce(d.state, ?4) <> ?4
         FROM events e LEFT JOIN deliveries d ON d.destination = ?3 AND d.event = e.id
         WHERE e.id > ?1 ORDER BY e.id LIMIT ?2",
    )?;
    let mut bodies = BodyReader::new(reader);
    let rows = events.query_map(
        params![after, MAX_REFILL_EVENTS as i64, destination_id, schema::CANCELLED],
        |row| {
            let seq = row.get(0)?;
            Ok(RefillEvent {
                is_wanted: wanted.contains(&row.get(2)?),
                has_row: row.get(6)?,
                delivery: NewDelivery {
                    seq: EventSeq(seq),
                    group: row.get(1)?,
                    emitted_at: Time::from_nanos(row.get(3)?),
                    compensates: row.get(4)?,
                    body: bodies.read(seq, row.get_ref(5)?)?.into(),
                },
            })
        },
    )?;
    rows.collect()
}

/// What has to be read for a claimed delivery.
struct ClaimLookup {
    seq: i64,
    /// Its body is not in memory, and it may have a row.
    has_row: bool,
    /// Whether it may have nothing to compensate.
    check_compensation: bool,
}

#[derive(Default)]
struct ClaimDetails {
    body: Option<EncodedEvent>,
    last_error: Option<Arc<str>>,
    nothing_to_compensate: bool,
}

fn read_claims(
    reader: &Connection,
    destination: &Name,
    destination_id: i64,
    lookups: &[ClaimLookup],
) -> rusqlite::Result<BTreeMap<i64, ClaimDetails>> {
    let mut event = reader.prepare_cached(
        "SELECT e.body, d.state, d.error, d.expiry, e.compensates
         FROM events e LEFT JOIN deliveries d ON d.destination = ?1 AND d.event = e.id WHERE e.id = ?2",
    )?;
    let mut found = BTreeMap::new();
    let mut bodies = BodyReader::new(reader);
    for &ClaimLookup { seq, has_row, check_compensation } in lookups {
        let details = event.query_row([destination_id, seq], |row| {
            let mut details = ClaimDetails::default();
            if has_row {
                details.body = Some(dead_letters::as_sent(bodies.read(seq, row.get_ref(0)?)?, row.get(3)?));
                let error = row.get_ref(2)?.as_str_or_null()?.unwrap_or_default();
                details.last_error = Some(error).filter(|error| !error.is_empty()).map(Into::into);
            }
            let firing =
                row.get_ref(4)?.as_blob_or_null()?.filter(|_| check_compensation).map(compensation::decode);
            Ok((details, firing))
        });
        let Some((mut details, firing)) = details.optional()? else { continue };
        if let Some(firing) = firing {
            details.nothing_to_compensate =
                !compensation::has_arrived(reader, destination, destination_id, &firing)?;
        }
        found.insert(seq, details);
    }
    Ok(found)
}
