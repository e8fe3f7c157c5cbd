//! Dead letters: listed by the reader, redriven and discarded by the writer.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::states::{StateTable, is_damage, read_state};
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};
use crate::store::dead_letters::{self, DeadLetterRow};
use crate::store::lane::{Marks, PendingRetry};
use crate::store::lanes::{LaneHandle, LaneHandles};
use crate::store::sqlite::codec::event_blocks::BodyReader;
use crate::store::sqlite::committed::lane_changes::LaneChange;
use crate::store::sqlite::committed::staged::WriteBatch;
use crate::store::sqlite::file::delivery_state::{DeliveryState, UNCERTAIN};
use crate::store::{DeadLetterError, DeliveryId, EventSeq, Redrive};

const SELECT_PAGE: &str = "
    SELECT d.event, d.attempts, d.error, d.due, d.expiry, e.at, e.body
    FROM deliveries d INDEXED BY exceptions JOIN events e ON e.id = d.event
    WHERE d.state = 2 AND d.state IN (1, 2, 3, 6) AND d.destination = ?1 AND d.event > ?2
    ORDER BY d.event LIMIT ?3";
const SELECT_ONE: &str = "
    SELECT d.attempts, d.expiry, e.target, e.decreases, e.compensates IS NOT NULL, e.body, d.flags, e.at
    FROM deliveries d JOIN events e ON e.id = d.event
    WHERE d.destination = ?1 AND d.event = ?2 AND d.state = 2";

/// Lists up to `max` dead letters after a delivery, by event and destination.
pub(crate) fn list(
    reader: &Connection,
    destination: Option<&Name>,
    after: Option<&DeliveryId>,
    max: usize,
) -> rusqlite::Result<Vec<DeadLetterRow>> {
    let mut destinations = reader.prepare_cached("SELECT id, name FROM destinations")?;
    let rows = destinations.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    let mut found = Vec::new();
    for row in rows {
        let (destination_id, name) = row?;
        let Ok(name) = Name::new(&name) else { continue };
        if destination.is_some_and(|destination| *destination != name) {
            continue;
        }
        let after_seq = after.map_or(i64::MIN, |after| {
            // The same event may follow for a later destination.
            if name > after.destination { after.seq.0.saturating_sub(1) } else { after.seq.0 }
        });
        let mut list = reader.prepare_cached(SELECT_PAGE)?;
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let mut bodies = BodyReader::new(reader);
        let rows = list.query_map(params![destination_id, after_seq, limit], |row| {
            let seq = row.get(0)?;
            Ok(DeadLetterRow {
                delivery_id: DeliveryId { seq: EventSeq(seq), destination: name.clone() },
                attempts: row.get(1)?,
                error: row.get(2)?,
                given_up_at: Time::from_nanos(row.get(3)?),
                emitted_at: Time::from_nanos(row.get(5)?),
                event: as_sent(bodies.read(seq, row.get_ref(6)?)?, row.get(4)?),
            })
        })?;
        found.extend(rows.collect::<Result<Vec<_>, _>>()?);
    }
    found.sort_by(|one, other| one.delivery_id.cmp(&other.delivery_id));
    found.truncate(max);
    Ok(found)
}

/// The event as it is sent, see [`dead_letters::as_sent`].
pub(crate) fn as_sent(body: &str, expiry: Option<i64>) -> EncodedEvent {
    dead_letters::as_sent(body, expiry.map(Time::from_nanos))
}

/// A dead letter that is redriven.
struct RedriveRow {
    attempts: u32,
    expiry: Option<i64>,
    target: i64,
    may_decrease_capacity: bool,
    compensates: bool,
    event: EncodedEvent,
    flags: i64,
    emitted_at: Time,
}

/// Returns a dead letter to the queue of its destination.
pub(crate) fn redrive(
    connection: &Connection,
    states: &StateTable,
    batch: &mut WriteBatch,
    ClockReading { now, wall }: ClockReading,
    (handle, seq): (&LaneHandle, EventSeq),
    redrive: Redrive,
) -> rusqlite::Result<Result<(), DeadLetterError>> {
    let mut one = connection.prepare_cached(SELECT_ONE)?;
    let row = one.query_row([handle.id, seq.0], |row| {
        let expiry = row.get(1)?;
        Ok(RedriveRow {
            attempts: row.get(0)?,
            expiry,
            target: row.get(2)?,
            may_decrease_capacity: row.get(3)?,
            compensates: row.get(4)?,
            event: as_sent(BodyReader::new(connection).read(seq.0, row.get_ref(5)?)?, expiry),
            flags: row.get(6)?,
            emitted_at: Time::from_nanos(row.get(7)?),
        })
    });
    let Some(row) = row.optional()? else { return Ok(Err(DeadLetterError::NotDead)) };
    let state = match read_state(connection, row.target) {
        _ if redrive.force => Arc::default(),
        Ok(found) => found.map(|found| found.state).unwrap_or_default(),
        Err(error) if is_damage(&error) => return Ok(Err(DeadLetterError::UnreadableState)),
        Err(error) => return Err(error),
    };
    let before = row.expiry.map(Time::from_nanos);
    let expiry = match redrive.check(&row.event, before, row.may_decrease_capacity, &state, wall) {
        Ok(expiry) => expiry.map(Time::as_nanos).or(row.expiry),
        Err(error) => return Ok(Err(error)),
    };
    let mut update = connection.prepare_cached(
        "UPDATE deliveries SET state = ?3, due = 0, since = ?4, expiry = ?5, flags = flags & ?6
         WHERE destination = ?1 AND event = ?2",
    )?;
    update.execute(params![handle.id, seq.0, DeliveryState::Retry, now.as_nanos(), expiry, UNCERTAIN])?;
    let RedriveRow { attempts, target: group, compensates, emitted_at, .. } = row;
    let lane_changes = batch.lane_mut(&handle.name);
    lane_changes.dead_delta -= 1;
    // Due at once, also if the clock is behind after a restart.
    let due = Time::from_nanos(0);
    let marks = Marks { is_suspended: false, is_uncertain: row.flags & UNCERTAIN != 0 };
    let pending = PendingRetry { seq, group, emitted_at, age_from: now, compensates, attempts, marks, due };
    lane_changes.push(LaneChange::Redrive(pending));
    states.delivery_ended(connection, batch, now, group)?;
    Ok(Ok(()))
}

/// Discards a dead letter.
pub(crate) fn discard(
    connection: &Connection,
    (states, lanes): (&StateTable, &LaneHandles),
    batch: &mut WriteBatch,
    now: Time,
    delivery_id: &DeliveryId,
) -> rusqlite::Result<Result<(), DeadLetterError>> {
    let name = delivery_id.destination.as_str();
    // 0: it is not known yet up to which event the row has to be retained.
    let mut discard = connection.prepare_cached(
        "UPDATE deliveries SET state = ?3, due = 0 WHERE event = ?2 AND state = ?4
         AND destination = (SELECT id FROM destinations WHERE name = ?1)",
    )?;
    if discard.execute(params![name, delivery_id.seq.0, DeliveryState::Discarded, DeliveryState::Dead])? == 0
    {
        return Ok(Err(DeadLetterError::NotDead));
    }
    if lanes.get(&delivery_id.destination).is_some() {
        let lane_changes = batch.lane_mut(&delivery_id.destination);
        lane_changes.dead_delta -= 1;
        lane_changes.discarded += 1;
    } else {
        // The destination has no lane, so no position is written for it.
        let mut count =
            connection.prepare_cached("UPDATE destinations SET dead = dead - 1 WHERE name = ?1")?;
        count.execute([name])?;
    }
    let mut target = connection.prepare_cached("SELECT target FROM events WHERE id = ?1")?;
    if let Some(target) = target.query_row([delivery_id.seq.0], |row| row.get(0)).optional()? {
        states.delivery_ended(connection, batch, now, target)?;
    }
    Ok(Ok(()))
}
