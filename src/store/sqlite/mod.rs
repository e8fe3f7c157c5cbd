//! The embedded store: one SQLite file, one writer, no setup.
//!
//! All writing goes through one thread, which commits together what has queued up. It waits no longer than
//! half a millisecond for decisions that are being made, and some milliseconds where it has nothing but
//! settlements, for which nobody waits. WAL with `synchronous=FULL`: when a commit returns, it is on disk.
//! The thread has the index in memory (which target has which number, which alert is known where), so that a
//! target never heard of costs no query.

mod bodies;
mod checkpoint;
mod command;
mod deliveries;
mod evidence;
mod foresee;
mod index;
mod letters;
mod look;
mod pack;
mod prune;
mod published;
mod restore;
mod samples;
mod schema;
mod supersede;
mod tally;
#[cfg(test)]
mod tests;
mod transact;
mod watching;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{oneshot, watch};

use super::lane::{Handed, Offered};
use super::outlets::{Outlet, Outlets};
use super::{
    Claimed, DeadLetter, Decide, DeliveryState, Error, EventSeq, Keys, LetterError, Place, Records, Redrive,
    Settlement, StoredEvent, StoredState, Tally, WallClock, Wanted,
};
use crate::domain::control::Controls;
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use bodies::Bodies;
use command::Command;
use foresee::{Foreseen, Foresight, Present, SharedIndex};
use index::Fingerprints;
use published::Published;
use restore::{last_time, read_index, read_outlets, read_watching};
use writer::{Links, SharedClock, Writer};

/// A decision about more alerts than this is made on a thread that may block.
const AT_ONCE: usize = 200;

/// Events that are read at once to fill a lane's window.
const REFILL: usize = 1000;

/// An opened SQLite store. Cheap to clone.
#[derive(Clone)]
pub struct Sqlite {
    commands: mpsc::Sender<Command>,
    reader: Arc<Mutex<Connection>>,
    outlets: Outlets,
    clock: Arc<SharedClock>,
    published: Arc<Published>,
    hashes: Fingerprints,
    created: Time,
    index: SharedIndex,
    foresight: Arc<Foresight>,
    due: watch::Receiver<Option<Time>>,
    /// Closed after the connections: see [`schema::Opened`].
    _file: Arc<File>,
    threads: Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>,
}

impl Sqlite {
    /// Opens the file, creates it if there is none, and starts the writer. Blocks.
    ///
    /// # Errors
    /// [`Error::Unusable`], with what to do about it.
    pub fn open(path: &Path, destinations: &[Name], wall: WallClock) -> Result<Self, Error> {
        let opened = schema::open(path, wall())?;
        let broken = |error: rusqlite::Error| schema::unusable(path, &error);
        let hashes = Fingerprints(opened.hash_key);
        let mut index = read_index(&opened.writer).map_err(broken)?;
        let outlets = Outlets::new(read_outlets(&opened.writer, destinations).map_err(broken)?);
        let clock = SharedClock::start(wall, last_time(&opened.writer).map_err(broken)?);
        let clock = Arc::new(clock);
        index.restore_watching(read_watching(&opened.writer).map_err(broken)?, clock.now());
        let published = Arc::new(Published::read(&opened.writer).map_err(broken)?);
        let (due_sender, due) = watch::channel(index.next_due());
        let (commands, queue) = mpsc::channel();
        let (checkpoints, wanted) = mpsc::sync_channel(1);
        let checkpointer = schema::connect(path).map_err(broken)?;
        let reader = schema::connect(path).map_err(broken)?;
        let (file, turn) = (opened.file.clone(), checkpoint::Turn::default());
        let folding = (file.clone(), turn.clone());
        let (index, foresight) = (Arc::new(RwLock::new(index)), Arc::<Foresight>::default());
        let links = Links {
            outlets: outlets.clone(),
            clock: clock.clone(),
            published: published.clone(),
            due: due_sender,
            checkpoints,
            turn,
            index: index.clone(),
            foresight: foresight.clone(),
        };
        let created = opened.created;
        let writer = Writer::new(opened, hashes, links).map_err(broken)?;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(|error| Error::Unusable(format!("cannot start the thread {name}: {error}")))
        };
        let threads = vec![
            spawn("store-writer", Box::new(move || writer.run(&queue)))?,
            spawn(
                "store-checkpoint",
                Box::new(move || checkpoint::run(&checkpointer, &folding.0, &wanted, &folding.1)),
            )?,
        ];
        Ok(Self {
            commands,
            reader: Arc::new(Mutex::new(reader)),
            outlets,
            clock,
            published,
            hashes,
            created,
            index,
            foresight,
            due,
            _file: file,
            threads: Arc::new(Mutex::new(threads)),
        })
    }

    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    pub(super) fn outlets(&self) -> &Outlets {
        &self.outlets
    }

    async fn ask<R>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<R, Error>>) -> Command,
    ) -> Result<R, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Decides here what the writer would decide, if it can be done.
    async fn foresee(
        &self,
        keys: Keys,
        mut decide: Decide,
    ) -> Result<(Keys, Decide, Option<Box<Foreseen>>), Error> {
        let (index, foresight, hashes) = (self.index.clone(), self.foresight.clone(), self.hashes);
        let present = Present {
            clock: self.clock.clone(),
            created: self.created,
            controls: self.controls(),
            samples: self.published.samples(),
        };
        let is_large = keys.alerts.len() > AT_ONCE;
        let foresee = move || {
            let _under_way = foresight.begin();
            let foreseen = foresee::foresee(&foresight, &index, hashes, present, &keys, &mut decide);
            (keys, decide, foreseen.map(Box::new))
        };
        if is_large {
            return tokio::task::spawn_blocking(foresee).await.map_err(|_| Error::Closed);
        }
        Ok(foresee())
    }

    pub(super) async fn transact(&self, keys: Keys, decide: Decide) -> Result<(), Error> {
        let (keys, decide, foreseen) = self.foresee(keys, decide).await?;
        self.ask(|reply| Command::Transact { keys, decide, foreseen, reply }).await.map(drop)
    }

    pub(super) async fn settle(
        &self,
        outlet: &Arc<Outlet>,
        settled: Vec<(EventSeq, Settlement)>,
    ) -> Result<(), Error> {
        let outlet = outlet.clone();
        self.ask(|reply| Command::Settle { outlet, settled, reply }).await
    }

    pub(super) async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        self.ask(|reply| Command::Due { max, reply }).await
    }

    pub(super) async fn locate(
        &self,
        keys: Keys,
    ) -> Result<BTreeMap<crate::domain::state::AlertKey, Vec<TargetKey>>, Error> {
        self.ask(|reply| Command::Locate { keys, reply }).await
    }

    pub(super) fn controls(&self) -> Arc<Controls> {
        self.published.controls()
    }

    pub(super) fn tally(&self) -> Tally {
        self.published.tally(Tally::clone)
    }

    pub(super) fn next_due(&self) -> watch::Receiver<Option<Time>> {
        self.due.clone()
    }

    pub(super) async fn attach(&self, destination: Name) -> Result<(), Error> {
        self.ask(|reply| Command::Attach { destination, reply }).await
    }

    pub(super) async fn detach(&self, destination: Name) -> Result<(), Error> {
        self.ask(|reply| Command::Detach { destination, reply }).await
    }

    pub(super) async fn abandoned(&self) -> Result<Vec<Name>, Error> {
        let names = self.read(|reader| {
            let mut names = reader.prepare_cached(
                "SELECT name FROM destinations n WHERE given > passed
                 OR EXISTS (SELECT 1 FROM deliveries d WHERE d.destination = n.id AND d.state = 1)",
            )?;
            names.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
        });
        let names = names.await?;
        let known = self.outlets.all();
        let names = names.iter().filter_map(|name| Name::new(name).ok());
        Ok(names.filter(|name| !known.contains_key(name)).collect())
    }

    pub(super) async fn prune(&self, decisions: Duration, delivered: Duration) -> Result<bool, Error> {
        self.ask(|reply| Command::Prune { decisions, delivered, reply }).await
    }

    /// Runs `read` on the reading connection, on a thread that may block.
    async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, Error> {
        let reader = self.reader.clone();
        let task =
            tokio::task::spawn_blocking(move || read(&reader.lock().unwrap_or_else(PoisonError::into_inner)));
        task.await.map_err(|_| Error::Closed)?.map_err(|error| schema::unavailable(&error))
    }

    pub(super) async fn claim(&self, outlet: &Arc<Outlet>, max: usize) -> Result<Vec<Claimed>, Error> {
        let now = self.now();
        let mut handed = outlet.lane(|lane| lane.claim(max, now));
        if handed.len() < max && outlet.lane(|lane| lane.has_room()) {
            if let Err(error) = self.refill(outlet).await {
                outlet.lane(|lane| handed.iter().for_each(|one| lane.unclaim(one.seq)));
                return Err(error);
            }
            handed.extend(outlet.lane(|lane| lane.claim(max - handed.len(), now)));
        }
        let may_have_missed = outlet.lane(|lane| lane.has_missed());
        let asked: Vec<Asked> = handed
            .iter()
            .map(|one| Asked {
                seq: one.seq.0,
                has_row: one.body.is_none(),
                judge: one.undoes && may_have_missed,
            })
            .filter(|asked| asked.has_row || asked.judge)
            .collect();
        let mut told = BTreeMap::new();
        if !asked.is_empty() {
            let (name, number) = (outlet.name.clone(), outlet.number);
            match self.read(move |reader| read_handed(reader, &name, number, &asked)).await {
                Ok(found) => told = found,
                Err(error) => {
                    outlet.lane(|lane| handed.iter().for_each(|one| lane.unclaim(one.seq)));
                    return Err(error);
                }
            }
        }
        let claimed = handed.into_iter().filter_map(|Handed { seq, body, emitted_at, attempts, .. }| {
            let Told { body: stored, last_error, undoes_nothing } = told.remove(&seq.0).unwrap_or_default();
            let body = body.or(stored);
            if body.is_none() {
                tracing::error!(event = seq.0, destination = %outlet.name, "an event to be delivered is missing from the store");
            }
            Some(Claimed { seq, body: body?, emitted_at, attempts, last_error, undoes_nothing })
        });
        Ok(claimed.collect())
    }

    /// Reads events behind the window into it. What is committed meanwhile is offered by the writer
    /// only to a lane that has caught up, and a lane takes no event twice.
    async fn refill(&self, outlet: &Arc<Outlet>) -> Result<(), Error> {
        let after = outlet.lane(|lane| lane.read_to());
        if after >= self.clock.last_event() {
            return Ok(());
        }
        let (name, number) = (outlet.name.clone(), outlet.number);
        let events = self.read(move |reader| read_events(reader, &name, number, after)).await?;
        let more = events.len() == REFILL;
        outlet.lane(|lane| {
            for Read { offered, wanted, has_row } in events {
                if !lane.has_room() {
                    return;
                }
                match (wanted, has_row) {
                    (false, _) => lane.skip_to(offered.seq),
                    (true, true) => lane.offer_with_row(&offered),
                    (true, false) => lane.offer(offered),
                }
            }
        });
        if more {
            outlet.wake();
        }
        Ok(())
    }

    pub(super) async fn dead_letters(
        &self,
        destination: Option<Name>,
        after: Option<Place>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        let rows = self.read(move |reader| letters::list(reader, destination.as_ref(), after.as_ref(), max));
        Ok(rows.await?.into_iter().map(DeadLetter::from).collect())
    }

    pub(super) async fn redrive(
        &self,
        outlet: &Arc<Outlet>,
        seq: EventSeq,
        redrive: Redrive,
    ) -> Result<(), LetterError> {
        let outlet = outlet.clone();
        self.ask(|reply| Command::Redrive { outlet, seq, redrive, reply }).await?
    }

    pub(super) async fn discard(&self, place: &Place) -> Result<(), LetterError> {
        let place = place.clone();
        self.ask(|reply| Command::Discard { place, reply }).await?
    }

    pub(super) async fn history(
        &self,
        target: &TargetKey,
        from: Time,
        to: Time,
    ) -> Result<Vec<String>, Error> {
        let hash = self.hashes.target(target);
        let id = self.ask(|reply| Command::Number { hash, reply }).await?;
        self.read(move |reader| {
            let mut former =
                reader.prepare_cached("SELECT id FROM former_targets WHERE hash = ?1 ORDER BY id")?;
            let mut ids = former.query_map([hash.0], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
            ids.extend(id);
            let mut found = Vec::new();
            let mut history = reader.prepare_cached(
                "SELECT r.id, r.body FROM history h JOIN records r ON r.id = h.record
                 WHERE h.target = ?1 AND h.at BETWEEN ?2 AND ?3 ORDER BY h.at, h.record",
            )?;
            for id in ids {
                let rows = history.query_map(params![id, from.as_nanos(), to.as_nanos()], |row| {
                    Ok(look::record_text(row.get(0)?, row.get_ref(1)?))
                })?;
                found.extend(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten());
            }
            Ok(found)
        })
        .await
    }

    pub(super) async fn records(&self, wanted: Wanted) -> Result<Records, Error> {
        let target = match &wanted.target {
            Some(target) => {
                let hash = self.hashes.target(target);
                Some((hash, self.ask(|reply| Command::Number { hash, reply }).await?))
            }
            None => None,
        };
        self.read(move |reader| look::records(reader, &wanted, target)).await
    }

    pub(super) async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        let mut below = i64::MAX;
        loop {
            let id = id.to_owned();
            let step = self.read(move |reader| look::find_event(reader, &id, below)).await?;
            match step {
                look::Step::Nowhere => return Ok(None),
                look::Step::Below(number) => below = number,
                look::Step::Found(found) => {
                    let look::Found { seq, mut event, passed } = *found;
                    for (delivery, _) in event.deliveries.iter_mut().zip(passed).filter(|(_, passed)| !passed)
                    {
                        let outlet = self.outlets.get(&delivery.destination);
                        let settled = outlet.is_some_and(|outlet| outlet.lane(|lane| lane.is_settled(seq)));
                        // The cursor comes after.
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
        self.read(move |reader| look::states(reader, after, max)).await
    }

    /// Finishes what is queued, folds the log into the file and ends the threads.
    pub(super) async fn close(&self) {
        if self.commands.send(Command::Close).is_err() {
            return;
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the store ended with a panic");
                }
            }
        });
        if joined.await.is_err() {
            tracing::error!("the store did not close");
        }
    }
}

struct Read {
    offered: Offered,
    wanted: bool,
    /// Whether a row says more of the delivery than the lane may know. What is cancelled at this moment is
    /// cancelled in the lane when that is made known.
    has_row: bool,
}

fn read_events(
    reader: &Connection,
    destination: &Name,
    number: i64,
    after: i64,
) -> rusqlite::Result<Vec<Read>> {
    let mut routes = reader.prepare_cached("SELECT id, destinations FROM routes")?;
    let mut routes = routes.query([])?;
    let mut wanted: Vec<i64> = Vec::new();
    while let Some(route) = routes.next()? {
        if evidence::names(route.get_ref(1)?.as_str()?).contains(destination) {
            wanted.push(route.get(0)?);
        }
    }
    let mut events = reader.prepare_cached(
        "SELECT e.id, e.target, e.route, e.at, e.undoes IS NOT NULL, e.body, coalesce(d.state, ?4) <> ?4
         FROM events e LEFT JOIN deliveries d ON d.destination = ?3 AND d.event = e.id
         WHERE e.id > ?1 ORDER BY e.id LIMIT ?2",
    )?;
    let mut bodies = Bodies::new(reader);
    let rows = events.query_map(params![after, REFILL as i64, number, schema::CANCELLED], |row| {
        let seq = row.get(0)?;
        Ok(Read {
            wanted: wanted.contains(&row.get(2)?),
            has_row: row.get(6)?,
            offered: Offered {
                seq: EventSeq(seq),
                group: row.get(1)?,
                emitted_at: Time::from_nanos(row.get(3)?),
                undoes: row.get(4)?,
                body: bodies.read(seq, row.get_ref(5)?)?.into(),
            },
        })
    })?;
    rows.collect()
}

/// What has to be read of a delivery that is handed out.
struct Asked {
    seq: i64,
    /// Its body is not in memory, and its row may tell more.
    has_row: bool,
    /// Whether it may have nothing to undo.
    judge: bool,
}

#[derive(Default)]
struct Told {
    body: Option<EncodedEvent>,
    last_error: Option<Arc<str>>,
    undoes_nothing: bool,
}

fn read_handed(
    reader: &Connection,
    destination: &Name,
    number: i64,
    asked: &[Asked],
) -> rusqlite::Result<BTreeMap<i64, Told>> {
    let mut event = reader.prepare_cached(
        "SELECT e.body, d.state, d.error, d.expiry, e.undoes
         FROM events e LEFT JOIN deliveries d ON d.destination = ?1 AND d.event = e.id WHERE e.id = ?2",
    )?;
    let mut found = BTreeMap::new();
    let mut bodies = Bodies::new(reader);
    for &Asked { seq, has_row, judge } in asked {
        let told = event.query_row([number, seq], |row| {
            let mut told = Told::default();
            if has_row {
                told.body = Some(letters::as_sent(bodies.read(seq, row.get_ref(0)?)?, row.get(3)?));
                let error = row.get_ref(2)?.as_str_or_null()?.unwrap_or_default();
                told.last_error = Some(error).filter(|error| !error.is_empty()).map(Into::into);
            }
            let fired = row.get_ref(4)?.as_blob_or_null()?.filter(|_| judge).map(evidence::read);
            Ok((told, fired))
        });
        let Some((mut told, fired)) = told.optional()? else { continue };
        if let Some(fired) = fired {
            told.undoes_nothing = !evidence::has_arrived(reader, destination, number, &fired)?;
        }
        found.insert(seq, told);
    }
    Ok(found)
}
