//! Reads everything that another store takes over, in parts, while no bridge uses the file.

mod deliveries;
mod listed;
mod retired;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, params};

use super::codec::event_blocks::BodyReader;
use super::codec::firing_events;
use super::committed::controls::CommittedView;
use super::committed::index::Fingerprints;
use super::file::schema::{self, Database};
use super::reader::query::record_text;
use super::restore;
use super::tables::routes;
use super::tables::states::{is_damage, read_state};
use crate::domain::event::EventDocument;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::Error;
use crate::store::audit::AuditEntry;
use crate::store::fast_map::Map;
use crate::store::transfer::{
    Overview, TransferredAuditEntry, TransferredEvent, TransferredNotification, TransferredRecord,
    TransferredState, TransferredTarget,
};
use deliveries::Destinations;
use listed::Listed;
use retired::Retired;

/// The maximum number of rows that are read at once.
const MAX_ROWS: i64 = 500;
/// Notifications are larger.
const MAX_NOTIFICATIONS: i64 = 50;

/// A store that is read.
pub(in crate::store) struct Export {
    database: Database,
    hashes: Fingerprints,
    destinations: Destinations,
    /// The events that states list and that were not read yet.
    listed: Listed,
    /// Ids of targets that were used for a key before it got another one.
    aliases: Map<i64, i64>,
    /// Ids of keys without a state, by fingerprint; the keys are in records and events.
    retired: BTreeMap<[u8; 16], Retired>,
}

impl Export {
    /// Opens the file, which no bridge may use.
    ///
    /// # Errors
    /// It does not exist, is in use, or cannot be read.
    pub(in crate::store) fn open(path: &Path, now: Time) -> Result<Self, Error> {
        if !path.exists() {
            return Err(Error::Unusable(format!("the store {} does not exist", path.display())));
        }
        let broken = |error: rusqlite::Error| schema::unusable(path, &error);
        let database = schema::open(path, now)?;
        let destinations = Destinations::read(&database.writer).map_err(broken)?;
        let (aliases, retired) = retired::read(&database.writer).map_err(broken)?;
        let hashes = Fingerprints(database.hash_key);
        Ok(Self { database, hashes, destinations, listed: Listed::default(), aliases, retired })
    }

    fn connection(&self) -> &Connection {
        &self.database.writer
    }

    pub(in crate::store) fn overview(&self) -> Result<Overview, Error> {
        let read = || -> rusqlite::Result<Overview> {
            let connection = self.connection();
            Ok(Overview {
                created: self.database.created,
                last_stored: restore::last_time(connection)?.unwrap_or(self.database.created),
                last_event: restore::read_next_ids(connection)?.event - 1,
                controls: (*CommittedView::read(connection)?.controls()).clone(),
                destinations: self.destinations.names(),
            })
        };
        read().map_err(|error| unreadable(&error))
    }

    /// Targets with a state above an id, and the last id; `None` if there are no more. All have to be read before events.
    ///
    /// # Errors
    /// The file cannot be read, or an episode is too old to be transferred.
    pub(in crate::store) fn targets(
        &mut self,
        after: i64,
    ) -> Result<Option<(Vec<TransferredTarget>, i64)>, Error> {
        let mut ids = self.part("SELECT id FROM targets WHERE id > ?1 ORDER BY id LIMIT ?2", after)?;
        let Some(&last) = ids.last() else { return Ok(None) };
        let mut targets = Vec::new();
        for id in ids.drain(..) {
            let (target, events) = self.target(id)?;
            if let (Some(events), TransferredState::Readable(state)) = (events, &target.state) {
                if !events.legacy.is_empty()
                    || events.list.is_none() && state.open_episodes().next().is_some()
                {
                    return Err(Error::Unusable(format!(
                        "an episode of target {} was opened by an earlier version; start this version of the bridge \
                         with the SQLite store until the episode has ended",
                        target.key
                    )));
                }
                self.listed.add(id, state, events.list.as_deref().unwrap_or_default());
            }
            targets.push(target);
        }
        Ok(Some((targets, last)))
    }

    fn target(
        &self,
        id: i64,
    ) -> Result<(TransferredTarget, Option<super::codec::tracked_events::TargetEvents>), Error> {
        let connection = self.connection();
        let columns = "SELECT key, awaits IS NOT NULL OR id IN (SELECT target FROM delivery_rechecks)
                       FROM targets WHERE id = ?1";
        let row = connection.query_row(columns, [id], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)));
        let (key, recheck) = row.map_err(|error| match is_damage(&error) {
            true => Error::Unusable(format!(
                "the key of row #{id} of the targets cannot be read; start the bridge with the SQLite store, and give the \
                 row up: scalebridge store drop '#{id}'"
            )),
            false => unreadable(&error),
        })?;
        let key = TargetKey::from_stored(&key);
        let (state, events) = match read_state(connection, id) {
            Ok(Some(known)) => (TransferredState::Readable(known.state), Some(known.events)),
            Ok(None) => (TransferredState::Empty, None),
            Err(error) if is_damage(&error) => {
                tracing::error!(%error, row = id, target = %key, "target state unreadable, copied as such");
                (TransferredState::Unreadable, None)
            }
            Err(error) => return Err(unreadable(&error)),
        };
        Ok((TransferredTarget { id, key, recheck, state }, events))
    }

    /// Events above a number, and the last number; `None` if there are no more.
    pub(in crate::store) fn events(
        &mut self,
        after: i64,
    ) -> Result<Option<(Vec<TransferredEvent>, i64)>, Error> {
        let ids = self.part("SELECT id FROM events WHERE id > ?1 ORDER BY id LIMIT ?2", after)?;
        let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else { return Ok(None) };
        let events = self.read_events(first, last).map_err(|error| unreadable(&error))?;
        Ok(Some((events, last)))
    }

    fn read_events(&mut self, first: i64, last: i64) -> rusqlite::Result<Vec<TransferredEvent>> {
        let Self { database, destinations, listed, aliases, retired, hashes, .. } = self;
        let connection = &database.writer;
        destinations.read_receipts(connection, first, last)?;
        let mut bodies = BodyReader::new(connection);
        let mut select = connection.prepare_cached(
            "SELECT id, target, route, at, decreases, compensates, body FROM events WHERE id BETWEEN ?1 AND ?2
             ORDER BY id",
        )?;
        let mut rows = select.query([first, last])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            let (seq, target, route): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let body = bodies.read(seq, row.get_ref(6)?)?.to_owned();
            let document = EventDocument::read(&body).unwrap_or_default();
            if let Some(key) = document.subject() {
                retired::note(retired, *hashes, &TargetKey::from_stored(key));
            }
            let compensates = row.get_ref(5)?.as_blob_or_null()?.map(firing_events::decode);
            for firing in compensates.iter().flatten() {
                listed.require(target, firing);
            }
            let at = row.get(3)?;
            let known = listed.take(seq);
            let names = read_route(connection, route)?;
            let acting =
                known.as_ref().map_or(Ok(names.clone()), |known| read_route(connection, known.acting))?;
            events.push(TransferredEvent {
                seq,
                id: document.id().unwrap_or_default().to_owned(),
                target: aliases.get(&target).copied().unwrap_or(target),
                at: Time::from_nanos(at),
                deliveries: destinations.deliveries(connection, &names, seq, at)?,
                destinations: names,
                acting,
                may_decrease: row.get(4)?,
                episode: document.episode().map(str::to_owned),
                is_firing: document.is_firing_phase(),
                compensates: compensates.map(|all| all.iter().map(|firing| firing.seq.0).collect()),
                tracked: known.is_some(),
                body,
            });
        }
        Ok(events)
    }

    /// Events that were deleted and on which decisions or deliveries still depend; after all others were read.
    pub(in crate::store) fn deleted_events(&mut self) -> Result<Vec<TransferredEvent>, Error> {
        let Self { database, destinations, listed, aliases, .. } = self;
        let connection = &database.writer;
        let mut read = || -> rusqlite::Result<Vec<TransferredEvent>> {
            let mut events = Vec::new();
            for (seq, known) in listed.rest() {
                if connection.query_row(
                    "SELECT EXISTS (SELECT 1 FROM events WHERE id = ?1)",
                    [seq],
                    |row| row.get(0),
                )? {
                    continue;
                }
                let names = read_route(connection, known.route)?;
                destinations.read_receipts(connection, seq, seq)?;
                events.push(TransferredEvent {
                    seq,
                    id: known.id.as_deref().unwrap_or_default().to_owned(),
                    target: aliases.get(&known.target).copied().unwrap_or(known.target),
                    at: database.created,
                    deliveries: destinations.deliveries(
                        connection,
                        &names,
                        seq,
                        database.created.as_nanos(),
                    )?,
                    destinations: names,
                    acting: read_route(connection, known.acting)?,
                    may_decrease: false,
                    episode: known.episode.as_deref().map(str::to_owned),
                    is_firing: known.is_firing,
                    compensates: None,
                    tracked: known.is_listed,
                    body: String::new(),
                });
            }
            Ok(events)
        };
        read().map_err(|error| unreadable(&error))
    }

    /// Records above an id, and the last id; `None` if there are no more.
    pub(in crate::store) fn records(
        &mut self,
        after: i64,
    ) -> Result<Option<(Vec<TransferredRecord>, i64)>, Error> {
        let Self { database, aliases, retired, hashes, .. } = self;
        let mut read = || -> rusqlite::Result<Option<(Vec<TransferredRecord>, i64)>> {
            let mut select = database.writer.prepare_cached(
                "SELECT id, at, ahead, targets, body FROM records WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?;
            let mut rows = select.query([after, MAX_ROWS])?;
            let (mut records, mut last) = (Vec::new(), None);
            while let Some(row) = rows.next()? {
                let id = row.get(0)?;
                last = Some(id);
                let Some(body) = record_text(id, row.get_ref(4)?) else { continue };
                let ids =
                    row.get_ref(3)?.as_blob()?.as_chunks::<8>().0.iter().map(|id| i64::from_be_bytes(*id));
                let mut targets: Vec<i64> = ids.map(|id| aliases.get(&id).copied().unwrap_or(id)).collect();
                targets.sort_unstable();
                targets.dedup();
                if retired.values().any(|one| one.key.is_none() && targets.binary_search(&one.id).is_ok()) {
                    retired::note_record(retired, *hashes, &body);
                }
                records.push(TransferredRecord { id, at: row.get(1)?, ahead: row.get(2)?, targets, body });
            }
            Ok(last.map(|last| (records, last)))
        };
        read().map_err(|error| unreadable(&error))
    }

    /// Targets without a state; after all events and records were read.
    pub(in crate::store) fn retired_targets(&mut self) -> Vec<TransferredTarget> {
        let retired = std::mem::take(&mut self.retired).into_values();
        let target = |Retired { id, key }: Retired| TransferredTarget {
            id,
            // No target has this key: what was decided about it has no key either.
            key: key.unwrap_or_else(|| TargetKey::from_stored(&format!("#{id}"))),
            recheck: false,
            state: TransferredState::Empty,
        };
        retired.map(target).collect()
    }

    /// The steps of the wall clock between records.
    pub(in crate::store) fn clock_steps(&self) -> Result<Vec<i64>, Error> {
        let read = || -> rusqlite::Result<Vec<i64>> {
            let mut steps = self.connection().prepare("SELECT record FROM wall_clock_steps")?;
            steps.query_map([], |row| row.get(0))?.collect()
        };
        read().map_err(|error| unreadable(&error))
    }

    /// Audit entries above an id, and the last id; `None` if there are no more.
    pub(in crate::store) fn audit(
        &self,
        after: i64,
    ) -> Result<Option<(Vec<TransferredAuditEntry>, i64)>, Error> {
        let read = || -> rusqlite::Result<Vec<TransferredAuditEntry>> {
            let mut select = self.connection().prepare_cached(
                "SELECT id, at, ahead, actor, act, body FROM audit WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?;
            let rows = select.query_map([after, MAX_ROWS], |row| {
                let entry = AuditEntry { actor: row.get(3)?, act: row.get(4)?, body: row.get(5)? };
                Ok(TransferredAuditEntry { id: row.get(0)?, at: row.get(1)?, ahead: row.get(2)?, entry })
            });
            rows?.collect()
        };
        let entries = read().map_err(|error| unreadable(&error))?;
        Ok(entries.last().map(|last| last.id).map(|last| (entries, last)))
    }

    /// Kept notifications above a time, and the last time; `None` if there are no more.
    pub(in crate::store) fn notifications(
        &self,
        after: i64,
    ) -> Result<Option<(Vec<TransferredNotification>, i64)>, Error> {
        let read = || -> rusqlite::Result<Vec<TransferredNotification>> {
            let mut select = self.connection().prepare_cached(
                "SELECT at, ahead, source, body FROM notifications WHERE at > ?1 ORDER BY at LIMIT ?2",
            )?;
            let rows = select.query_map([after, MAX_NOTIFICATIONS], |row| {
                let (source, body) = (row.get(2)?, row.get(3)?);
                Ok(TransferredNotification { at: row.get(0)?, ahead: row.get(1)?, source, body })
            });
            rows?.collect()
        };
        let kept = read().map_err(|error| unreadable(&error))?;
        Ok(kept.last().map(|last| last.at).map(|last| (kept, last)))
    }

    fn part(&self, select: &str, after: i64) -> Result<Vec<i64>, Error> {
        let read = || -> rusqlite::Result<Vec<i64>> {
            let mut ids = self.connection().prepare_cached(select)?;
            ids.query_map(params![after, MAX_ROWS], |row| row.get(0))?.collect()
        };
        read().map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &rusqlite::Error) -> Error {
    Error::Unusable(format!("cannot read the SQLite store: {error}"))
}

fn read_route(connection: &Connection, route: i64) -> rusqlite::Result<Vec<Name>> {
    Ok(routes::read(connection, route)?.map(|names| names.to_vec()).unwrap_or_default())
}
