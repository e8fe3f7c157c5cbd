//! Reads what is kept in memory when the store is opened: the index, the recheck queue, the lanes, and the last store
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::committed::index::{Fingerprint, Index};
use super::committed::staged::NextIds;
use super::file::delivery_state::{CALLED, SUSPENDED, UNCERTAIN};
use super::tables::states::watch_of_bits;
use super::tables::{notifications, receipts};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::EventSeq;
use crate::store::lane::{Lane, Marks, PendingRetry, Position};
use crate::store::lanes::LaneHandle;

/// Reads the index: target ids, targets of each alert, due times, and what targets wait for.
pub(super) fn read_index(writer: &Connection, now: Time) -> rusqlite::Result<Index> {
    let mut index = Index::default();
    let count: i64 =
        writer.query_row("SELECT coalesce(max(id) - min(id) + 1, 0) FROM targets", [], |row| row.get(0))?;
    let mut targets = writer.prepare("SELECT id, hash, due, alerts, awaits FROM targets")?;
    let mut rows = targets.query([])?;
    // Ids have gaps, so this is an upper bound.
    index.reserve(usize::try_from(count).unwrap_or(0).min(1 << 20));
    while let Some(row) = rows.next()? {
        let due: Option<i64> = row.get(2)?;
        index.restore(
            row.get(0)?,
            Fingerprint(row.get(1)?),
            due.map(Time::from_nanos),
            row.get_ref(3)?.as_blob()?,
        );
        if let Some(awaits) = row.get(4)? {
            index.restore_watch(row.get(0)?, watch_of_bits(awaits), now);
        }
    }
    let mut changed =
        writer.prepare("SELECT target FROM delivery_rechecks WHERE target IN (SELECT id FROM targets)")?;
    let changed = changed.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    changed.into_iter().for_each(|id| index.restore_recheck(id, now));
    Ok(index)
}

/// Reads the targets with actions that depend on the controls.
pub(super) fn read_recheck_queue(writer: &Connection) -> rusqlite::Result<BTreeSet<i64>> {
    let mut targets =
        writer.prepare("SELECT target FROM recheck_queue WHERE target IN (SELECT id FROM targets)")?;
    targets.query_map([], |row| row.get(0))?.collect()
}

/// The last stored time by the store's clock.
pub(super) fn last_time(writer: &Connection) -> rusqlite::Result<Option<Time>> {
    let last = |at: &str, table: &str| {
        let query = format!("SELECT {at} FROM {table} ORDER BY id DESC LIMIT 1");
        writer.query_row(&query, [], |row| row.get::<_, i64>(0)).optional()
    };
    let last = last("at + ahead", "records")?.max(last("at", "events")?).max(last("at", "controls")?);
    Ok(last.map(Time::from_nanos))
}

/// The id of the newest event, also of a deleted one.
const NEWEST_EVENT: &str = "
    SELECT max(coalesce((SELECT max(id) FROM events), 0), coalesce((SELECT max(cursor) FROM destinations), 0))";
/// Deliveries that wait for a retry.
const PENDING_RETRIES: &str = "
    SELECT d.event, e.target, coalesce(d.since, e.at), e.at, e.compensates IS NOT NULL, d.attempts, d.due, d.flags
    FROM deliveries d INDEXED BY exceptions JOIN events e ON e.id = d.event
    WHERE d.state = 1 AND d.state IN (1, 2, 3, 6) AND d.destination = ?1 ORDER BY d.event";
/// Cancelled deliveries above the cursor.
const CANCELLED_DELIVERIES: &str = "
    SELECT event FROM deliveries INDEXED BY exceptions
    WHERE state = 3 AND state IN (1, 2, 3, 6) AND destination = ?1 AND event > ?2 ORDER BY event";
/// Number of other settled deliveries above the cursor.
const COUNT_SETTLED: &str =
    "SELECT count(*) FROM deliveries WHERE destination = ?1 AND event > ?2 AND state NOT IN (1, 3)";
/// Number of cancelled and discarded deliveries.
const COUNT_NEVER_DELIVERED: &str = "
    SELECT count(*) FROM deliveries INDEXED BY exceptions
    WHERE state IN (3, 6) AND state IN (1, 2, 3, 6) AND destination = ?1 AND ?2 IS NOT NULL";

/// Reads the lane of each destination. New destinations are added.
pub(super) fn read_lanes(
    writer: &Connection,
    destinations: &[Name],
) -> rusqlite::Result<BTreeMap<Name, Arc<LaneHandle>>> {
    let newest: i64 = writer.query_row(NEWEST_EVENT, [], |row| row.get(0))?;
    let mut lanes = BTreeMap::new();
    for name in destinations {
        // A new destination starts after the newest event.
        writer.execute(
            "INSERT OR IGNORE INTO destinations (name, cursor, enqueued, settled_below_cursor, dead) VALUES (?1, ?2, 0, 0, 0)",
            params![name.as_str(), newest],
        )?;
        let (destination_id, position) = writer.query_row(
            "SELECT id, cursor, enqueued, settled_below_cursor, dead FROM destinations WHERE name = ?1",
            [name.as_str()],
            |row| {
                let position = Position {
                    cursor: row.get(1)?,
                    enqueued: row.get(2)?,
                    settled_below_cursor: row.get(3)?,
                    dead: row.get(4)?,
                };
                Ok((row.get(0)?, position))
            },
        )?;
        let mut lane = Lane::new(position);
        let mut rows = writer.prepare(PENDING_RETRIES)?;
        let mut rows = rows.query([destination_id])?;
        while let Some(row) = rows.next()? {
            lane.restore(PendingRetry {
                seq: EventSeq(row.get(0)?),
                group: row.get(1)?,
                age_from: Time::from_nanos(row.get(2)?),
                emitted_at: Time::from_nanos(row.get(3)?),
                compensates: row.get(4)?,
                attempts: row.get(5)?,
                marks: marks(row.get(7)?),
                due: Time::from_nanos(row.get(6)?),
            });
        }
        let mut rows = writer.prepare(CANCELLED_DELIVERIES)?;
        let mut rows = rows.query([destination_id, position.cursor])?;
        while let Some(row) = rows.next()? {
            lane.restore_settled(EventSeq(row.get(0)?));
        }
        // They arrived after a delivery that has not, and the cursor is before that.
        for receipt in receipts::above(writer, destination_id, position.cursor)? {
            lane.restore_arrived(receipt.seq, receipt.at);
        }
        let count =
            |query: &str| writer.query_row(query, [destination_id, position.cursor], |row| row.get(0));
        lane.restore_counts(count(COUNT_SETTLED)?, count(COUNT_NEVER_DELIVERED)?);
        let handle = LaneHandle::new(name.clone(), destination_id, lane);
        handle.wake();
        lanes.insert(name.clone(), Arc::new(handle));
    }
    Ok(lanes)
}

/// Calls that had begun when the process ended: their outcome is unknown.
const CALLS_IN_PROGRESS: &str = "
    UPDATE deliveries SET flags = (flags & ~?1) | ?2
    WHERE (destination, event) IN (
        SELECT destination, event FROM deliveries INDEXED BY exceptions
        WHERE state IN (1, 3) AND state IN (1, 2, 3, 6) AND flags & ?1 <> 0)";

/// Marks deliveries whose outcome is unknown, since the process ended while they were called. Before all lanes are read.
pub(super) fn mark_interrupted_calls(writer: &Connection) -> rusqlite::Result<()> {
    writer.execute(CALLS_IN_PROGRESS, [CALLED, UNCERTAIN]).map(drop)
}

fn marks(flags: i64) -> Marks {
    Marks { is_suspended: flags & SUSPENDED != 0, is_uncertain: flags & UNCERTAIN != 0 }
}

/// The next free ids. Ids are never used twice, so those of deleted rows count too.
pub(super) fn read_next_ids(connection: &Connection) -> rusqlite::Result<NextIds> {
    let number = |query: &str| connection.query_row(query, [], |row| row.get::<_, i64>(0));
    Ok(NextIds {
        target: number(
            "SELECT max(coalesce((SELECT max(id) FROM targets), 0),
                        coalesce((SELECT max(id) FROM retired_targets), 0)) + 1",
        )?,
        record: number("SELECT coalesce(max(id), 0) + 1 FROM records")?,
        event: number(NEWEST_EVENT)? + 1,
        notification: notifications::next(connection)?,
        newest_stamp: connection
            .query_row("SELECT at FROM records ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
            .optional()?,
    })
}
