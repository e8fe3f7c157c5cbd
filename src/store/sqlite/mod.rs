//! The embedded store: one SQLite file, one writer thread, no setup.
//!
//! All writes go through one thread, which decides transactions and commits queued commands together (group
//! commit). It waits up to five milliseconds if it has only settlements, since no caller waits for those. WAL with
//! `synchronous=FULL`: a commit that has returned is on disk. The index (target ids, targets of each alert, due
//! times) is in memory, so a new target costs no query.
//!
//! In reading order, each knows only those before it:
//!
//! 1. `codec`: the stored forms of states, events and records.
//! 2. `tally`: counts of open episodes and deferred actions.
//! 3. `file`: the schema with its migrations, opening and locking, checkpoints.
//! 4. `committed`: what is kept in memory as of the last commit, and what a batch has staged on top of it.
//! 5. `decide`: the read set and the write set of a decision.
//! 6. `tables`: writing rows: states, events, deliveries, dead letters, records.
//! 7. `retention`: deleting old rows. `restore`: filling `committed` when the store is opened.
//! 8. `writer`: the thread: batching, group commit with a savepoint for each command, publication.
//! 9. `reader`: queries beside the writer.
//! 10. `export`: reading everything, for another store.
//! 11. This file: the handle, which implements the contracts of [`crate::store`].

mod codec;
mod committed;
mod decide;
pub(super) mod export;
mod file;
mod reader;
mod restore;
mod retention;
mod tables;
mod tally;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::health::{Health, Outage};
use super::history::History;
use super::lane::{Claim, ExpiredClaims};
use super::lanes::{LaneHandle, LaneHandles};
use super::outbox::{COMPENSATION_DELAY, DeliveryQueue, Expired, Outbox, UnsettledEvent};
use super::states::StateStore;
use super::{
    AuditPage, AuditQuery, AuditWrite, Claimed, DeadLetter, DeadLetterError, DecideFn, Delivery, DeliveryId,
    DeliveryPage, DeliveryQuery, DeliveryState, DestinationStats, DropError, Error, EventSeq, Keys, Lease,
    NotificationLimits, NotificationPage, NotificationQuery, RecordQuery, Records, Redrive, Refused, Retries,
    Settlement, Snapshot, StateCursor, StoredEvent, StoredState, Tally, UnreadableRow, WallClock,
};
use crate::domain::alert_key::AlertKey;
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::retry::AgeLimits;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
pub(super) use codec::any::{STORED_FORMS, read_stored_form};
use committed::clock::SharedClock;
use committed::controls::CommittedView;
use committed::index::Fingerprints;
use committed::quarantine::Quarantine;
use file::{checkpoint, schema};
use reader::{claims, query};
use retention::{PruneCursor, Retention};
use tables::compensation::Compensation;
use tables::deliveries::OutboxTable;
use tables::routes::Routes;
use tables::states::StateTable;
use tables::{dead_letters, notifications};
use writer::command::Command;
use writer::supervision::Supervision;
use writer::{Publisher, Writer};

/// A handle of an open SQLite store. Cheap to clone.
#[derive(Clone)]
pub struct Sqlite {
    commands: mpsc::Sender<Command>,
    reader: Arc<Mutex<Connection>>,
    lanes: LaneHandles,
    clock: Arc<SharedClock>,
    committed: Arc<CommittedView>,
    hashes: Fingerprints,
    quarantine: Arc<Quarantine>,
    health: Arc<Health>,
    due: watch::Receiver<Option<Time>>,
    last_stored: Option<Time>,
    last_kept: BTreeMap<Name, Time>,
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
        let broken = |error: rusqlite::Error| schema::unusable(path, &error);
        let opened = schema::open(path, wall())?;
        let reader = schema::connect(path).map_err(broken)?;
        let checkpointer = schema::connect(path).map_err(broken)?;
        let file = opened.file.clone();
        let (checkpoints, wanted) = mpsc::sync_channel(1);
        let health = Arc::new(Health::default());
        let Parts { writer, due, last_stored, last_kept } =
            prepare(opened, destinations, wall, checkpoints, health.clone()).map_err(broken)?;
        let (commands, queue) = mpsc::channel();
        let store = Self {
            commands,
            reader: Arc::new(Mutex::new(reader)),
            lanes: writer.outbox.lanes.clone(),
            clock: writer.clock.clone(),
            committed: writer.states.committed.clone(),
            hashes: writer.states.hashes,
            quarantine: writer.states.quarantine.clone(),
            health,
            due,
            last_stored,
            last_kept,
            _file: file.clone(),
            threads: Arc::default(),
        };
        let hand_over = writer.publisher.hand_over.clone();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(|error| Error::Unusable(format!("cannot start the thread {name}: {error}")))
        };
        let threads = [
            spawn("store-writer", Box::new(move || writer.run(&queue)))?,
            spawn(
                "store-checkpoint",
                Box::new(move || checkpoint::run(&checkpointer, &file, &wanted, &hand_over)),
            )?,
        ];
        store.threads.lock().extend(threads);
        Ok(store)
    }

    /// From now on the clock is the wall clock that the test sets, so that time passes only then.
    #[cfg(test)]
    pub(crate) fn follow_wall_clock(&self) {
        self.clock.is_wall_clock.store(true, Ordering::Relaxed);
    }

    #[cfg(test)]
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

    /// Runs `read` with the reading connection, on a blocking thread.
    async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, Error> {
        let reader = self.reader.clone();
        let task = tokio::task::spawn_blocking(move || read(&reader.lock()));
        task.await.map_err(|_| Error::Closed)?.map_err(|error| schema::unavailable(&error))
    }

    /// Returns claimed deliveries that have to wait for events that they compensate.
    async fn postpone(&self, handle: &Arc<LaneHandle>, claimed: Vec<Claim>) -> Result<(), Error> {
        if claimed.is_empty() {
            return Ok(());
        }
        let wait = Settlement::NotCalled { delay: COMPENSATION_DELAY, stands_aside: true };
        let settled = claimed.iter().map(|one| (one.lease, wait.clone())).collect();
        let handle = handle.clone();
        self.ask(|reply| Command::Settle { handle, settled, reply }).await
    }

    /// Completes deliveries by what only the lanes know: the stored cursor lags behind them, and a delivery that waits
    /// for an earlier one of its target needs no row.
    async fn complete_deliveries(&self, seq: EventSeq, deliveries: &mut [Delivery]) -> Result<(), Error> {
        for delivery in deliveries.iter_mut().filter(|delivery| delivery.state == DeliveryState::Pending) {
            let Some(handle) = self.lanes.get(&delivery.destination) else { continue };
            let (settled, blocked_by) = handle.with_lane(|lane| (lane.is_settled(seq), lane.blocked_by(seq)));
            if settled {
                delivery.state = DeliveryState::Delivered;
                delivery.attempts = 1;
            }
            if let Some(EventSeq(seq)) = blocked_by {
                delivery.blocked_by = self.read(move |reader| query::event_id(reader, seq)).await?;
            }
        }
        Ok(())
    }

    /// Reads the events above the high watermark into the window. The writer pushes newly committed events
    /// only to lanes that have caught up, and a lane ignores events that it has.
    async fn refill(&self, handle: &Arc<LaneHandle>) -> Result<(), Error> {
        let after = handle.with_lane(|lane| lane.high_watermark());
        if after >= self.clock.last_event() {
            return Ok(());
        }
        let (name, destination_id) = (handle.name.clone(), handle.id);
        let events =
            self.read(move |reader| claims::read_events(reader, &name, destination_id, after)).await?;
        let more = events.len() == claims::MAX_REFILL_EVENTS;
        handle.with_lane(|lane| {
            for claims::RefillEvent { delivery, is_wanted, has_row } in events {
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
}

impl StateStore for Sqlite {
    async fn transact(&self, keys: Keys, decide: DecideFn) -> Result<(), Error> {
        self.ask(|reply| Command::Transact { keys, decide, reply }).await.map(drop)
    }

    async fn locate(&self, alerts: Vec<AlertKey>) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error> {
        let keys = Keys { alerts, targets: Vec::new() };
        self.ask(|reply| Command::Locate { keys, reply }).await
    }

    async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        self.ask(|reply| Command::Due { max, reply }).await
    }

    fn next_due(&self) -> watch::Receiver<Option<Time>> {
        self.due.clone()
    }

    fn last_stored(&self) -> Option<Time> {
        self.last_stored
    }

    fn last_kept(&self) -> BTreeMap<Name, Time> {
        self.last_kept.clone()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            controls: self.committed.controls(),
            tally: self.committed.tally(Tally::clone),
            unreadable_rows: self.quarantine.rows(),
        }
    }

    async fn drop_unreadable(&self, row: i64, audit: AuditWrite) -> Result<UnreadableRow, DropError> {
        self.ask(|reply| Command::DropState { row, audit, reply }).await?
    }

    async fn audit(&self, write: AuditWrite) -> Result<i64, Error> {
        self.ask(|reply| Command::Audit { write, reply }).await
    }

    async fn prune(&self, decisions: Duration, delivered: Duration) -> Result<bool, Error> {
        let retention = Retention { decisions, delivered };
        self.ask(|reply| Command::Prune { retention, reply }).await
    }

    async fn prune_notifications(&self, limits: NotificationLimits) -> Result<bool, Error> {
        self.ask(|reply| Command::PruneNotifications { limits, reply }).await
    }

    /// Executes the queued commands, checkpoints the WAL and stops the threads.
    async fn close(&self) {
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

/// What becomes of claimed events of which it is not known whether there is something to compensate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undecided {
    /// They look again later.
    Postpone,
    /// They are returned, since they are not to be called.
    Keep,
}

impl Sqlite {
    pub(super) fn outage(&self) -> Option<Outage> {
        self.health.outage()
    }

    pub(super) fn writer_busy_for(&self) -> Duration {
        self.health.writer_busy_for()
    }

    pub(super) fn controls(&self) -> Arc<Controls> {
        self.committed.controls()
    }

    /// Reads what the lane does not have of claimed deliveries.
    async fn read_claimed(
        &self,
        handle: &Arc<LaneHandle>,
        claimed: Vec<Claim>,
        undecided: Undecided,
    ) -> Result<Vec<Claimed>, Error> {
        let may_have_missed = handle.with_lane(|lane| lane.has_never_delivered());
        let lookups: Vec<claims::ClaimLookup> = claimed
            .iter()
            .map(|one| claims::ClaimLookup {
                seq: one.lease.seq().0,
                has_row: one.body.is_none(),
                check_compensation: one.compensates && may_have_missed,
            })
            .filter(|lookup| lookup.has_row || lookup.check_compensation)
            .collect();
        let mut details = BTreeMap::new();
        if !lookups.is_empty() {
            let (name, destination_id) = (handle.name.clone(), handle.id);
            details =
                self.read(move |reader| claims::read_claims(reader, &name, destination_id, &lookups)).await?;
        }
        let is_undecided = |one: &Claim| {
            let details = details.get(&one.lease.seq().0);
            details.and_then(|details| details.compensation) == Some(Compensation::Undecided)
        };
        let postpones = undecided == Undecided::Postpone;
        let (undecided, claimed): (Vec<_>, Vec<_>) =
            claimed.into_iter().partition(|one| postpones && is_undecided(one));
        self.postpone(handle, undecided).await?;
        let claimed = claimed.into_iter().filter_map(|claim| {
            let Claim { lease, body, age_from, attempts, is_uncertain, .. } = claim;
            let claims::ClaimDetails { body: stored, redrives, last_error, compensation } =
                details.remove(&lease.seq().0).unwrap_or_default();
            let nothing_to_compensate = compensation == Some(Compensation::Nothing);
            let body = body.or(stored);
            if body.is_none() {
                tracing::error!(event = lease.seq().0, destination = %handle.name, "event missing from the store");
            }
            let emitted_at = age_from;
            Some(Claimed {
                lease,
                body: body?,
                emitted_at,
                attempts,
                is_uncertain,
                redrives,
                last_error,
                nothing_to_compensate,
            })
        });
        Ok(claimed.collect())
    }
}

impl DeliveryQueue for Sqlite {
    async fn claim(&self, destination: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        let handle = &self.lanes.require(destination)?;
        let now = self.now();
        let mut claimed = handle.with_lane(|lane| lane.claim(max, now));
        if claimed.len() < max && handle.with_lane(|lane| lane.has_room()) {
            if let Err(error) = self.refill(handle).await {
                handle.with_lane(|lane| claimed.iter().for_each(|one| lane.end_lease(one.lease)));
                return Err(error);
            }
            claimed.extend(handle.with_lane(|lane| lane.claim(max - claimed.len(), now)));
        }
        let leases: Vec<Lease> = claimed.iter().map(|one| one.lease).collect();
        let read = self.read_claimed(handle, claimed, Undecided::Postpone).await;
        if read.is_err() {
            handle.with_lane(|lane| leases.iter().for_each(|lease| lane.end_lease(*lease)));
        }
        read
    }

    async fn claim_expired(
        &self,
        destination: &Name,
        limits: AgeLimits,
        max: usize,
    ) -> Result<Expired, Error> {
        let handle = &self.lanes.require(destination)?;
        let clock = self.clock();
        if handle.with_lane(|lane| lane.has_room()) {
            self.refill(handle).await?;
        }
        let ExpiredClaims { expired, unexamined, waiting } =
            handle.with_lane(|lane| lane.claim_expired(limits, clock, max));
        let claims: Vec<Claim> = expired.into_iter().chain(unexamined).collect();
        let leases: Vec<Lease> = claims.iter().map(|one| one.lease).collect();
        let read = self.read_claimed(handle, claims, Undecided::Keep).await;
        handle.with_lane(|lane| match read {
            Ok(read) => Ok(lane.keep_expired(read, limits, clock, waiting)),
            Err(error) => {
                leases.iter().for_each(|lease| lane.end_expiry_lease(*lease));
                Err(error)
            }
        })
    }

    fn undelivered_at(&self, destination: &Name) -> u64 {
        self.lanes.get(destination).map_or(0, |handle| handle.with_lane(|lane| lane.undelivered()))
    }

    async fn begin_calls(&self, destination: &Name, leases: Vec<Lease>) -> Result<Vec<Refused>, Error> {
        let handle = self.lanes.require(destination)?;
        self.ask(|reply| Command::BeginCalls { handle, leases, reply }).await
    }

    async fn settle(&self, destination: &Name, settled: Vec<(Lease, Settlement)>) -> Result<(), Error> {
        let handle = self.lanes.require(destination)?;
        self.ask(|reply| Command::Settle { handle, settled, reply }).await
    }

    async fn wait(&self, destination: &Name) {
        match self.lanes.require(destination) {
            Ok(handle) => handle.wait(self.now()).await,
            Err(_) => std::future::pending().await,
        }
    }

    fn clock(&self) -> ClockReading {
        self.clock.read()
    }
}

impl Outbox for Sqlite {
    async fn add_destinations(&self, destinations: Vec<Name>) -> Result<(), Error> {
        self.ask(|reply| Command::AddDestinations { destinations, reply }).await
    }

    async fn remove_destination(&self, destination: Name) -> Result<(), Error> {
        self.ask(|reply| Command::RemoveDestination { destination, reply }).await
    }

    async fn orphaned_destinations(&self) -> Result<Vec<Name>, Error> {
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

    fn set_max_backlog(&self, destination: &Name, max_backlog: Option<u64>) -> Result<(), Error> {
        self.lanes.require(destination)?.set_max_backlog(max_backlog);
        Ok(())
    }

    fn release(&self, destination: &Name, retries: Retries) -> Result<(), Error> {
        self.lanes.require(destination)?.release_claims(retries);
        Ok(())
    }

    fn undelivered(&self) -> u64 {
        self.lanes.undelivered()
    }

    fn stats(&self, destination: &Name) -> DestinationStats {
        self.lanes.stats(destination)
    }

    async fn dead_letters(
        &self,
        destination: Option<Name>,
        after: Option<DeliveryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        let rows =
            self.read(move |reader| dead_letters::list(reader, destination.as_ref(), after.as_ref(), max));
        Ok(rows.await?.into_iter().map(DeadLetter::from).collect())
    }

    async fn unsettled_events(&self, destination: &Name, max: usize) -> Result<Vec<UnsettledEvent>, Error> {
        let handle = &self.lanes.require(destination)?;
        let found = handle.with_lane(|lane| lane.unsettled_deliveries(max));
        let (claims, is_claimed): (Vec<Claim>, Vec<bool>) = found.into_iter().unzip();
        let claimed = claims.iter().zip(is_claimed).filter(|(_, is_claimed)| *is_claimed);
        let claimed: Vec<EventSeq> = claimed.map(|(claim, _)| claim.lease.seq()).collect();
        Ok(UnsettledEvent::from_claimed(self.read_claimed(handle, claims, Undecided::Keep).await?, &claimed))
    }

    async fn redrive(
        &self,
        delivery_id: &DeliveryId,
        redrive: Redrive,
        audit: AuditWrite,
    ) -> Result<(), DeadLetterError> {
        let DeliveryId { seq, destination } = delivery_id.clone();
        let handle = self.lanes.get(&destination).ok_or(DeadLetterError::NotConfigured(destination))?;
        self.ask(|reply| Command::Redrive { handle, seq, redrive, audit, reply }).await?
    }

    async fn discard(&self, delivery_id: &DeliveryId, audit: AuditWrite) -> Result<(), DeadLetterError> {
        let delivery_id = delivery_id.clone();
        self.ask(|reply| Command::Discard { delivery_id, audit, reply }).await?
    }
}

impl History for Sqlite {
    async fn history(&self, target: &TargetKey, from: Time, to: Time) -> Result<Vec<String>, Error> {
        let hash = self.hashes.target(target);
        let id = self.ask(|reply| Command::TargetId { hash, reply }).await?;
        self.read(move |reader| query::history(reader, (hash, id), from, to)).await
    }

    async fn records(&self, query: RecordQuery) -> Result<Records, Error> {
        let target = match &query.target {
            Some(target) => {
                let hash = self.hashes.target(target);
                Some((hash, self.ask(|reply| Command::TargetId { hash, reply }).await?))
            }
            None => None,
        };
        self.read(move |reader| query::records(reader, &query, target)).await
    }

    async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        let mut below = i64::MAX;
        loop {
            let id = id.to_owned();
            match self.read(move |reader| query::find_event(reader, &id, below)).await? {
                query::ScanStep::NotFound => return Ok(None),
                query::ScanStep::Below(seq) => below = seq,
                query::ScanStep::Found(found) => {
                    let query::FoundEvent { seq, mut event } = *found;
                    self.complete_deliveries(seq, &mut event.deliveries).await?;
                    return Ok(Some(event));
                }
            }
        }
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, Error> {
        let mut page = self.read(move |reader| query::deliveries(reader, &query)).await?;
        for event in &mut page.events {
            self.complete_deliveries(EventSeq(event.cursor.position()), &mut event.deliveries).await?;
        }
        Ok(page)
    }

    async fn states(&self, after: Option<StateCursor>, max: usize) -> Result<Vec<StoredState>, Error> {
        let after = after.map_or(i64::MIN, StateCursor::position);
        let quarantine = self.quarantine.clone();
        self.read(move |reader| query::states(reader, &quarantine, after, max)).await
    }

    async fn notifications(&self, query: NotificationQuery) -> Result<NotificationPage, Error> {
        self.read(move |reader| tables::notifications::page(reader, &query)).await
    }

    async fn audit_trail(&self, query: AuditQuery) -> Result<AuditPage, Error> {
        self.read(move |reader| tables::audit::list(reader, &query)).await
    }
}

/// A writer that has not started.
struct Parts {
    writer: Writer,
    due: watch::Receiver<Option<Time>>,
    last_stored: Option<Time>,
    last_kept: BTreeMap<Name, Time>,
}

/// Fills what is kept in memory, and builds the writer.
fn prepare(
    opened: schema::Database,
    destinations: &[Name],
    wall: WallClock,
    checkpoints: mpsc::SyncSender<()>,
    health: Arc<Health>,
) -> rusqlite::Result<Parts> {
    let schema::Database { writer: connection, is_new, created, hash_key, lock, attachment, .. } = opened;
    let hashes = Fingerprints(hash_key);
    let last_time = restore::last_time(&connection)?;
    let last_stored = last_time.or_else(|| (!is_new).then_some(created));
    let last_kept = notifications::last_of_sources(&connection)?;
    let clock = SharedClock::start(wall, last_time);
    let mut index = restore::read_index(&connection, clock.now())?;
    restore::mark_interrupted_calls(&connection)?;
    let lanes = LaneHandles::new(restore::read_lanes(&connection, destinations)?);
    index.restore_recheck_queue(restore::read_recheck_queue(&connection)?, clock.now());
    let next = restore::read_next_ids(&connection)?;
    clock.last_event.store(next.event - 1, Ordering::Release);
    let (due_sender, due) = watch::channel(index.next_due());
    let writer = Writer {
        created,
        states: StateTable {
            index,
            hashes,
            committed: Arc::new(CommittedView::read(&connection)?),
            quarantine: Arc::default(),
        },
        outbox: OutboxTable { lanes, routes: Routes::default() },
        clock: Arc::new(clock),
        prune_cursor: PruneCursor::default(),
        next,
        publisher: Publisher { due: due_sender, checkpoints, hand_over: checkpoint::HandOver::default() },
        supervision: Supervision::new(health, attachment),
        _lock: lock,
        connection,
    };
    Ok(Parts { writer, due, last_stored, last_kept })
}
