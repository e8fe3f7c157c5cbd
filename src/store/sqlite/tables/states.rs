//! States of targets, with their ids, the index, and the rows that cannot be read.

use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OptionalExtension, ToSql, params};

use crate::domain::event::EventDocument;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::UnreadableRow;
use crate::store::sqlite::codec::event_blocks::BodyReader;
use crate::store::sqlite::codec::firing_events::{self, FiringEventRef};
use crate::store::sqlite::codec::states;
use crate::store::sqlite::codec::tracked_events::{TargetEvents, TrackedEvent};
use crate::store::sqlite::committed::controls::CommittedView;
use crate::store::sqlite::committed::index::{
    CachedTarget, Fingerprint, Fingerprints, Index, Layers, TargetChange,
};
use crate::store::sqlite::committed::quarantine::Quarantine;
use crate::store::sqlite::committed::recheck_queue::RecheckChange;
use crate::store::sqlite::committed::staged::WriteBatch;
use crate::store::sqlite::decide::read_set::LoadError;
use crate::store::sqlite::decide::write_set::{NewState, StateWrite};
use crate::store::sqlite::tally;
use crate::store::tracking::Watch;

const DELETE_RECHECK: &str = "DELETE FROM delivery_rechecks WHERE target = ?1";

/// The table of states.
pub(crate) struct StateTable {
    pub index: Index,
    pub hashes: Fingerprints,
    pub committed: Arc<CommittedView>,
    pub quarantine: Arc<Quarantine>,
}

impl StateTable {
    /// The state of a target; `None` if it does not exist. A row that cannot be read is put in quarantine.
    pub(crate) fn load(
        &mut self,
        connection: &Connection,
        layers: Layers<'_>,
        now: Time,
        id: i64,
    ) -> Result<Option<Arc<CachedTarget>>, LoadError<rusqlite::Error>> {
        let cached = self.index.state(id, layers);
        if let Some(known) = cached {
            return Ok(known);
        }
        if self.quarantine.contains(id) {
            return Err(LoadError::Unreadable(self.quarantine.target(id)));
        }
        match read_state(connection, id) {
            Ok(Some(known)) => {
                let known = Arc::new(known);
                self.index.cache(id, known.clone());
                Ok(Some(known))
            }
            Ok(None) => Ok(None),
            Err(error) if is_damage(&error) => {
                self.set_unreadable(connection, now, id, &error);
                Err(LoadError::Unreadable(self.quarantine.target(id)))
            }
            Err(error) => Err(LoadError::Failed(error)),
        }
    }

    fn set_unreadable(&mut self, connection: &Connection, now: Time, id: i64, error: &rusqlite::Error) {
        let column = |name: &str| format!("SELECT {name} FROM targets WHERE id = ?1");
        let key: Option<String> = connection.query_row(&column("key"), [id], |row| row.get(0)).ok();
        let hash: Option<[u8; 16]> = connection.query_row(&column("hash"), [id], |row| row.get(0)).ok();
        let target = key.as_deref().map(TargetKey::from_stored);
        // The hash is part of the index, and the key may be damaged.
        let hash = hash.map(Fingerprint).or_else(|| Some(self.hashes.target(target.as_ref()?)));
        let target = target.filter(|target| Some(self.hashes.target(target)) == hash);
        let row = UnreadableRow { id, target, since: now, error: error.to_string() };
        if self.quarantine.add(id, hash.unwrap_or(Fingerprint([0; 16])), row.clone()) {
            self.index.remove_due(id);
            let target = row.target.as_ref().map(tracing::field::display);
            tracing::error!(
                %error, row = id, target, "target state unreadable, its alerts are refused until it is dropped"
            );
        }
    }

    /// Writes a new state, or deletes a target. `new` are the events that the transaction emits for it.
    pub(crate) fn put(
        &self,
        connection: &Connection,
        batch: &mut WriteBatch,
        now: Time,
        write: StateWrite,
        new: &[TrackedEvent],
    ) -> rusqlite::Result<()> {
        let StateWrite { hash, before, after, removed_alerts, added_alerts, due, depends_on_controls, watch } =
            write;
        let id = before.as_ref().map(|(id, _)| *id);
        let (id, state) = match (id, after) {
            (None, None) => return Ok(()),
            (Some(id), None) => {
                delete_target(connection, hash, id, now)?;
                batch.current.index.push_recheck_change(RecheckChange::Forget(id));
                (id, None)
            }
            (id, Some(after)) => {
                let none = TargetEvents::none();
                let known = before.as_ref().map_or(&none, |(_, known)| &known.events);
                let NewState { had_open_episode, open_episodes, known_events, .. } = &after;
                let events = known.after(new, *had_open_episode, open_episodes, known_events);
                let row = TargetRow { hash, due: due.1, state: &after, events: &events, watch: &watch };
                let id = put_row(connection, batch, id, &row)?;
                (id, Some(Arc::new(CachedTarget { key: after.key, state: after.state, events })))
            }
        };
        update_recheck_queue(connection, batch, id, depends_on_controls)?;
        let (overlay, below) = batch.index_mut();
        overlay.set_watch(&self.index, below, id, watch);
        let change = TargetChange {
            id,
            hash,
            state,
            removed_alerts: &removed_alerts,
            added_alerts: &added_alerts,
            due,
        };
        overlay.put(&self.index, below, change);
        Ok(())
    }

    /// The id of a target, also of one whose state this transaction deletes. A target without a state gets an id
    /// too, so that its history is found.
    pub(crate) fn target_id(
        &self,
        connection: &Connection,
        batch: &mut WriteBatch,
        now: Time,
        hash: Fingerprint,
    ) -> rusqlite::Result<i64> {
        let staged = self.index.target(hash, batch.layers());
        if let Some(id) = staged.or_else(|| self.index.target(hash, Layers::NONE)) {
            return Ok(id);
        }
        let mut last = connection.prepare_cached("SELECT max(id) FROM retired_targets WHERE hash = ?1")?;
        let last: Option<i64> = last.query_row([hash.0], |row| row.get(0))?;
        let id = last.unwrap_or_else(|| {
            batch.next.target += 1;
            batch.next.target - 1
        });
        // The id is retained for as long as the decisions that are made now.
        connection
            .prepare_cached("INSERT OR REPLACE INTO retired_targets VALUES (?1, ?2, ?3)")?
            .execute(params![hash.0, id, now.as_nanos()])?;
        Ok(id)
    }

    /// Replaces the state of a target in quarantine by one that only says since when something is known. Without a
    /// readable key, there is no target to know something about, and the row is deleted. The counts of open episodes
    /// and deferred actions are counted anew, because it is unknown what the row added to them.
    pub(crate) fn drop_unreadable(
        &self,
        connection: &Connection,
        batch: &mut WriteBatch,
        now: Time,
        row: UnreadableRow,
    ) -> rusqlite::Result<()> {
        let id = row.id;
        let hash = self.quarantine.hash(id).unwrap_or(Fingerprint([0; 16]));
        let mut alerts = connection.prepare_cached("SELECT alerts FROM targets WHERE id = ?1")?;
        // They may be damaged, too. An alert that the index still has at a deleted target is at no target.
        let alerts: Vec<u8> = match alerts.query_row([id], |row| row.get(0)) {
            Err(error) if !is_damage(&error) => return Err(error),
            alerts => alerts.unwrap_or_default(),
        };
        let alerts: Vec<Fingerprint> =
            alerts.as_chunks::<16>().0.iter().map(|alert| Fingerprint(*alert)).collect();
        let state = row.target.map(|key| NewState::known_since(key, now)).transpose();
        let state = state.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let state = match state {
            Some(state) => {
                let (events, watch) = (TargetEvents::none(), Watch::default());
                let row = TargetRow { hash, due: None, state: &state, events: &events, watch: &watch };
                put_row(connection, batch, Some(id), &row)?;
                let NewState { key, state, .. } = state;
                Some(Arc::new(CachedTarget { key, state, events }))
            }
            None => {
                delete_target(connection, hash, id, now)?;
                None
            }
        };
        update_recheck_queue(connection, batch, id, (true, false))?;
        batch.current.index.push_recheck_change(RecheckChange::Forget(id));
        let (overlay, below) = batch.index_mut();
        overlay.set_watch(&self.index, below, id, Watch::default());
        let change =
            TargetChange { id, hash, state, removed_alerts: &alerts, added_alerts: &[], due: (None, None) };
        overlay.put(&self.index, below, change);
        batch.current.recounted = Some(self.count_states(connection)?);
        Ok(())
    }

    /// A delivery of a target has arrived: the target has to be processed if it waits for that. After a restart it is
    /// processed without a row, see [`Index::restore_watch`].
    pub(crate) fn delivery_arrived(&self, batch: &mut WriteBatch, now: Time, target: i64) {
        let watch = self.index.watch(target, batch.layers());
        if watch.is_some_and(|watch| watch.awaits_delivery) {
            batch.current.index.push_recheck_change(RecheckChange::DeliveryChanged(target, now));
        }
    }

    /// A delivery of a target has ended without arriving, or is tried again: the target has to be processed if it
    /// tracks events.
    pub(crate) fn delivery_ended(
        &self,
        connection: &Connection,
        batch: &mut WriteBatch,
        now: Time,
        target: i64,
    ) -> rusqlite::Result<()> {
        if self.index.watch(target, batch.layers()).is_some_and(|watch| !watch.is_empty()) {
            let mut put = connection.prepare_cached("INSERT OR IGNORE INTO delivery_rechecks VALUES (?1)")?;
            put.execute([target])?;
            batch.current.index.push_recheck_change(RecheckChange::DeliveryChanged(target, now));
        }
        Ok(())
    }

    /// The target has been rechecked.
    pub(crate) fn rechecked(
        &self,
        connection: &Connection,
        batch: &mut WriteBatch,
        target: i64,
    ) -> rusqlite::Result<()> {
        if self.index.has_changed_delivery(target, batch.layers()) {
            connection.prepare_cached(DELETE_RECHECK)?.execute([target])?;
        }
        batch.current.index.push_recheck_change(RecheckChange::Rechecked(target));
        Ok(())
    }

    /// Counts all states that can be read.
    fn count_states(&self, connection: &Connection) -> rusqlite::Result<tally::Deltas> {
        let mut counts = tally::Deltas::default();
        let mut ids = connection.prepare("SELECT id FROM targets")?;
        let ids = ids.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        for id in ids.into_iter().filter(|id| !self.quarantine.contains(*id)) {
            match read_state(connection, id) {
                Ok(known) => {
                    known.iter().for_each(|known| counts.put(&TargetState::default(), &known.state));
                }
                // Found when it is needed.
                Err(error) if is_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(counts)
    }
}

/// Whether the error is about what is stored in a row, and not about reading at this time.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => failure.code == ErrorCode::DatabaseCorrupt,
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..) => true,
        _ => false,
    }
}

/// Reads the state of a target; `None` if it does not exist.
pub(crate) fn read_state(connection: &Connection, id: i64) -> rusqlite::Result<Option<CachedTarget>> {
    let mut read = connection
        .prepare_cached("SELECT key, state, firing_events, dictionary, tracked FROM targets WHERE id = ?1")?;
    let found = read.query_row([id], |row| {
        let text = states::decode(row.get_ref(1)?, row.get(3)?)?;
        let unreadable = |error: serde_json::Error| {
            rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error))
        };
        let events = match (row.get_ref(4)?.as_blob_or_null()?, row.get_ref(2)?.as_blob_or_null()?) {
            (Some(tracked), _) => TargetEvents::decode(tracked),
            (None, Some(firing)) => read_legacy(connection, &firing_events::decode(firing))?,
            (None, None) => TargetEvents::default(),
        };
        Ok(CachedTarget {
            key: TargetKey::from_stored(row.get_ref(0)?.as_str()?),
            state: Arc::new(serde_json::from_str(&text).map_err(unreadable)?),
            events,
        })
    });
    found.optional()
}

/// The events of a state that was written before schema 9: their ids and what they did are read from the events, as
/// far as those exist.
fn read_legacy(connection: &Connection, firing: &[FiringEventRef]) -> rusqlite::Result<TargetEvents> {
    let mut event = connection.prepare_cached("SELECT at, body FROM events WHERE id = ?1")?;
    let mut bodies = BodyReader::new(connection);
    let (mut list, mut legacy) = (Vec::new(), Vec::new());
    for &firing in firing {
        let mut listed = TrackedEvent::from(firing);
        let read = event.query_row([firing.seq.0], |row| {
            let body = bodies.read(firing.seq.0, row.get_ref(1)?)?;
            let document = EventDocument::read(body).unwrap_or_default();
            Ok(document.legacy(Time::from_nanos(row.get(0)?)))
        });
        if let Some(event) = read.optional()?.flatten() {
            (listed.id, listed.phase) = (firing_events::hash(&event.id), event.phase);
            legacy.push(event);
        }
        list.push(listed);
    }
    Ok(TargetEvents { list: Some(list), legacy: legacy.into() })
}

/// The columns of a target that change.
struct TargetRow<'a> {
    hash: Fingerprint,
    due: Option<Time>,
    state: &'a NewState,
    events: &'a TargetEvents,
    watch: &'a Watch,
}

/// Writes the row of a target. Returns its id.
fn put_row(
    connection: &Connection,
    batch: &mut WriteBatch,
    id: Option<i64>,
    row: &TargetRow<'_>,
) -> rusqlite::Result<i64> {
    let TargetRow { hash, due, state, events, watch } = row;
    let due = due.map(Time::as_nanos);
    let (tracked, awaits) = (events.encode(), watch_bits(watch));
    let columns: [&dyn ToSql; 6] =
        [&due, &state.alerts, &state.encoded.text, &state.encoded.dictionary, &tracked, &awaits];
    let [due, alerts, text, dictionary, tracked, awaits] = columns;
    if let Some(id) = id {
        let mut update = connection.prepare_cached(
            "UPDATE targets SET due = ?2, alerts = ?3, state = ?4, firing_events = NULL, dictionary = ?5,
             tracked = ?6, awaits = ?7 WHERE id = ?1",
        )?;
        update.execute(params![id, due, alerts, text, dictionary, tracked, awaits])?;
        return Ok(id);
    }
    let id = batch.next.target;
    batch.next.target += 1;
    let mut insert = connection.prepare_cached(
        "INSERT INTO targets (id, hash, due, alerts, key, state, dictionary, tracked, awaits)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    insert.execute(params![
        id,
        hash.0,
        due,
        alerts,
        state.key.as_str(),
        text,
        dictionary,
        tracked,
        awaits
    ])?;
    Ok(id)
}

/// `targets.awaits`.
fn watch_bits(watch: &Watch) -> Option<i64> {
    let bits = i64::from(watch.tracks_events)
        | i64::from(watch.awaits_delivery) << 1
        | i64::from(watch.awaits_destination()) << 2;
    Some(bits).filter(|bits| *bits != 0)
}

/// What a target waits for, by `targets.awaits`. For which destinations is unknown.
pub(crate) fn watch_of_bits(bits: i64) -> Watch {
    Watch {
        tracks_events: bits & 1 != 0,
        awaits_delivery: bits & 2 != 0,
        awaits_unknown_destination: bits & 4 != 0,
        destinations: None,
    }
}

/// Deletes a target; its id stays reserved.
fn delete_target(connection: &Connection, hash: Fingerprint, id: i64, now: Time) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM targets WHERE id = ?1")?.execute([id])?;
    connection.prepare_cached(DELETE_RECHECK)?.execute([id])?;
    let mut retire =
        connection.prepare_cached("INSERT OR REPLACE INTO retired_targets VALUES (?1, ?2, ?3)")?;
    retire.execute(params![hash.0, id, now.as_nanos()]).map(drop)
}

fn update_recheck_queue(
    connection: &Connection,
    batch: &mut WriteBatch,
    id: i64,
    (before, after): (bool, bool),
) -> rusqlite::Result<()> {
    let (change, statement) = match (before, after) {
        (false, true) => (RecheckChange::Add(id), "INSERT INTO recheck_queue VALUES (?1)"),
        (true, false) => (RecheckChange::Remove(id), "DELETE FROM recheck_queue WHERE target = ?1"),
        _ => return Ok(()),
    };
    connection.prepare_cached(statement)?.execute([id])?;
    batch.current.index.push_recheck_change(change);
    Ok(())
}
