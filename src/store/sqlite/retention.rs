//! Deletes rows past their retention, in small steps so that other commands do not wait.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::tracked_events::TargetEvents;
use super::codec::{event_blocks, firing_events};
use super::committed::staged::WriteBatch;
use super::tables::{audit, notifications, receipts};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::NotificationLimits;
use crate::store::lanes::LaneHandles;

/// Maximum number of rows that each query of one step reads.
const MAX_PRUNE_ROWS: usize = 500;
/// Maximum number of free pages that one step releases to the file system.
const MAX_VACUUM_PAGES: usize = 500;
/// Free pages are reused; those above this fraction of the file (one in four) are released.
const FREE_PAGES_DIVISOR: i64 = 4;

/// Events above an id and at or below the cursor of every destination. A destination that is not configured
/// any more retains its undelivered events.
const EVENTS_BELOW_CURSORS: &str = "
    SELECT id, at FROM events WHERE id > ?1
    AND id <= (SELECT min(cursor) FROM destinations
        WHERE enqueued > settled_below_cursor OR name IN (SELECT value FROM json_each(?2)))
    ORDER BY id LIMIT ?3";
/// Deletes those of them without pending rows. Dead letters stay; so do events that never arrived, until it
/// is known when their rows can be deleted (`due`).
const DELETE_DELIVERED_EVENTS: &str = "
    DELETE FROM events WHERE id > ?1 AND id <= ?2 AND NOT EXISTS (
        SELECT 1 FROM destinations d CROSS JOIN deliveries x ON x.destination = d.id AND x.event = events.id
        WHERE x.state IN (1, 2) OR x.state IN (3, 6) AND x.due = 0)";
/// Deletes the rows of the deleted events, except those of deliveries that never arrived.
const SETTLED_ROWS: &str = "
    DELETE FROM deliveries WHERE (destination, event) IN (
        SELECT x.destination, x.event FROM destinations d CROSS JOIN deliveries x ON x.destination = d.id
        WHERE x.event > ?1 AND x.event <= ?2 AND x.state IN (4, 5, 7)
        AND NOT EXISTS (SELECT 1 FROM events WHERE id = x.event))";
/// Rows of deliveries that never arrived, above a key.
const NEVER_DELIVERED: &str = "
    SELECT x.state, x.destination, x.event, x.due, d.cursor
    FROM deliveries x INDEXED BY exceptions JOIN destinations d ON d.id = x.destination
    WHERE x.state IN (3, 6) AND x.state IN (1, 2, 3, 6) AND (x.state, x.destination, x.event) > (?1, ?2, ?3)
    ORDER BY x.state, x.destination, x.event LIMIT ?4";
/// Ids of targets without a state. The largest one stays, so that no id is used twice: the newest record and
/// undelivered events may refer to it.
const RETIRED_TARGET_IDS: &str = "
    DELETE FROM retired_targets WHERE (hash, id) IN
        (SELECT hash, id FROM retired_targets
         WHERE retired_at < ?1 AND id < (SELECT max(id) FROM retired_targets) LIMIT ?2)";
/// The newest record stays, whatever its age: after a restart it is the source of the next id and of the
/// store time.
const OLD_RECORDS: &str = "
    SELECT id, at, at + ahead, targets FROM records WHERE id < (SELECT max(id) FROM records) ORDER BY id LIMIT ?1";

/// Progress of a round of pruning. Rows that have to stay are skipped once per round, not in each step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PruneCursor {
    event: i64,
    never_delivered: (i64, i64, i64),
}

/// How long rows are retained.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    /// Decision records.
    pub decisions: Duration,
    /// Events that every destination has settled.
    pub delivered: Duration,
}

/// Runs one step. Returns whether there may be more to prune.
pub(super) fn prune(
    connection: &Connection,
    lanes: &LaneHandles,
    cursor: &mut PruneCursor,
    batch: &mut WriteBatch,
    now: Time,
    retention: Retention,
) -> rusqlite::Result<bool> {
    Step { connection, lanes, cursor }.run(batch, now, retention)
}

/// Deletes some of the kept notifications that exceed the limits. Returns whether there may be more.
pub(super) fn prune_notifications(
    connection: &Connection,
    batch: &WriteBatch,
    now: Time,
    limits: NotificationLimits,
) -> rusqlite::Result<bool> {
    notifications::prune(connection, batch, now, limits, MAX_PRUNE_ROWS)
}

/// One step of a round.
struct Step<'a> {
    connection: &'a Connection,
    lanes: &'a LaneHandles,
    cursor: &'a mut PruneCursor,
}

impl Step<'_> {
    fn run(&mut self, batch: &mut WriteBatch, now: Time, retention: Retention) -> rusqlite::Result<bool> {
        let before = |period: Duration| {
            now.as_nanos().saturating_sub(i64::try_from(period.as_nanos()).unwrap_or(i64::MAX))
        };
        // Cursors of destinations without new events move in memory only; this entry writes them with the
        // batch.
        for handle in self.lanes.all().values() {
            batch.lane_mut(&handle.name);
        }
        let mut more = self.prune_records(before(retention.decisions))?;
        more |= audit::prune(self.connection, before(retention.decisions), MAX_PRUNE_ROWS)?;
        more |= self.prune_events(before(retention.delivered))?;
        more |= self.prune_never_delivered(batch)?;
        if !more {
            // Not ordered by time, so this scans all of them: once per round.
            let retired = self
                .connection
                .execute(RETIRED_TARGET_IDS, params![before(retention.decisions), MAX_PRUNE_ROWS as i64])?;
            more = retired == MAX_PRUNE_ROWS;
        }
        more |= self.release_pages()?;
        batch.current.pruned_all = !more;
        Ok(more)
    }

    /// Prunes events that all destinations have settled, with their rows.
    fn prune_events(&mut self, before: i64) -> rusqlite::Result<bool> {
        let from = self.cursor.event;
        let mut upto = None;
        let mut count = 0;
        {
            let mut below_cursors = self.connection.prepare_cached(EVENTS_BELOW_CURSORS)?;
            let mut rows =
                below_cursors.query(params![from, self.destination_names(), MAX_PRUNE_ROWS as i64])?;
            while let Some(row) = rows.next()? {
                // Times increase with ids.
                if row.get::<_, i64>(1)? >= before {
                    break;
                }
                upto = Some(row.get::<_, i64>(0)?);
                count += 1;
            }
        }
        if let Some(upto) = upto {
            self.connection.prepare_cached(DELETE_DELIVERED_EVENTS)?.execute([from, upto])?;
            event_blocks::prune(self.connection, from, upto)?;
            receipts::prune(self.connection, from, upto)?;
            self.connection.prepare_cached(SETTLED_ROWS)?.execute([from, upto])?;
        }
        let more = count == MAX_PRUNE_ROWS;
        self.cursor.event = upto.filter(|_| more).unwrap_or_default();
        Ok(more)
    }

    /// Prunes rows of deliveries that never arrived. They are read while the event's episode is open, and by
    /// the events that compensate it. So after the end of the episode `due` becomes the last event id of that
    /// time, and the row is deleted when all events up to it are gone.
    fn prune_never_delivered(&mut self, batch: &mut WriteBatch) -> rusqlite::Result<bool> {
        let oldest: Option<i64> =
            self.connection.query_row("SELECT min(id) FROM events", [], |row| row.get(0))?;
        let (state, destination, event) = self.cursor.never_delivered;
        let mut never_delivered = self.connection.prepare_cached(NEVER_DELIVERED)?;
        let mut rows = never_delivered.query(params![state, destination, event, MAX_PRUNE_ROWS as i64])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            let (state, destination, event) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (last, cursor): (i64, i64) = (row.get(3)?, row.get(4)?);
            self.cursor.never_delivered = (state, destination, event);
            count += 1;
            if last == 0 {
                if !self.is_referenced(event)? {
                    let mut mark = self.connection.prepare_cached(
                        "UPDATE deliveries SET due = ?3 WHERE destination = ?1 AND event = ?2",
                    )?;
                    mark.execute([destination, event, batch.next.event - 1])?;
                }
            } else if event <= cursor && oldest.is_none_or(|oldest| oldest > last) {
                let mut delete = self
                    .connection
                    .prepare_cached("DELETE FROM deliveries WHERE destination = ?1 AND event = ?2")?;
                delete.execute([destination, event])?;
                if let Some(handle) = self.lanes.all().values().find(|handle| handle.id == destination) {
                    batch.lane_mut(&handle.name).pruned_rows += 1;
                }
            }
        }
        let more = count == MAX_PRUNE_ROWS;
        if !more {
            self.cursor.never_delivered = Default::default();
        }
        Ok(more)
    }

    /// Whether an event belongs to an open episode, or is tracked.
    fn is_referenced(&self, event: i64) -> rusqlite::Result<bool> {
        let mut lists = self.connection.prepare_cached(
            "SELECT t.firing_events, t.tracked FROM events e JOIN targets t ON t.id = e.target WHERE e.id = ?1",
        )?;
        let is_listed = lists.query_row([event], |row| {
            let firing = row.get_ref(0)?.as_blob_or_null()?.unwrap_or_default();
            let tracked = TargetEvents::decode(row.get_ref(1)?.as_blob_or_null()?.unwrap_or_default());
            let mut tracked = tracked.list.into_iter().flatten().map(|tracked| tracked.seq);
            Ok(firing_events::decode(firing).iter().any(|firing| firing.seq.0 == event)
                || tracked.any(|seq| seq.0 == event))
        });
        Ok(is_listed.optional()?.unwrap_or(false))
    }

    /// Releases free pages to the file system. Returns whether there are still too many.
    fn release_pages(&self) -> rusqlite::Result<bool> {
        let number =
            |pragma: &str| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let too_many = || Ok(number("freelist_count")? * FREE_PAGES_DIVISOR > number("page_count")?);
        if !too_many()? {
            return Ok(false);
        }
        let mut vacuum =
            self.connection.prepare_cached(&format!("PRAGMA incremental_vacuum({MAX_VACUUM_PAGES})"))?;
        let mut pages = vacuum.query([])?;
        while pages.next()?.is_some() {}
        too_many()
    }

    fn destination_names(&self) -> String {
        let all = self.lanes.all();
        let names: Vec<&str> = all.keys().map(Name::as_str).collect();
        serde_json::to_string(&names).unwrap_or_else(|_| "[]".to_owned())
    }

    /// Prunes records with their entries in the histories of their targets, which may be many per record.
    fn prune_records(&self, before: i64) -> rusqlite::Result<bool> {
        let mut old = self.connection.prepare_cached(OLD_RECORDS)?;
        let mut rows = old.query([MAX_PRUNE_ROWS as i64])?;
        let mut count = 0;
        let mut last = None;
        while count < MAX_PRUNE_ROWS
            && let Some(row) = rows.next()?
        {
            let (id, at, store_time): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            // The store's times increase with ids.
            if store_time >= before {
                break;
            }
            for target in row.get_ref(3)?.as_blob()?.as_chunks::<8>().0 {
                count += 1;
                self.connection
                    .prepare_cached("DELETE FROM history WHERE target = ?1 AND at = ?2 AND record = ?3")?
                    .execute(params![i64::from_be_bytes(*target), at, id])?;
            }
            count += 1;
            last = Some(id);
        }
        drop(rows);
        if let Some(last) = last {
            self.connection.execute("DELETE FROM records WHERE id <= ?1", [last])?;
            self.connection.execute("DELETE FROM wall_clock_steps WHERE record <= ?1", [last])?;
        }
        Ok(count >= MAX_PRUNE_ROWS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::{Connection, StatementStatus};

    #[test]
    fn a_step_reads_what_it_removes_and_not_all_that_is_stored() {
        let database = Connection::open_in_memory().unwrap();
        let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)";
        database
            .execute_batch(&format!(
                "CREATE TABLE events (id INTEGER PRIMARY KEY, at INTEGER);
                 CREATE TABLE destinations (id INTEGER PRIMARY KEY, name TEXT, cursor INTEGER,
                                            enqueued INTEGER, settled_below_cursor INTEGER);
                 CREATE TABLE deliveries (destination INTEGER, event INTEGER, state INTEGER, due INTEGER,
                                          PRIMARY KEY (destination, event)) WITHOUT ROWID;
                 INSERT INTO destinations VALUES (1, 'queue', 9000, 1, 0);
                 {many} INSERT INTO events SELECT i, i FROM n;
                 {many} INSERT INTO deliveries SELECT 1, i, CASE i % 2 WHEN 0 THEN 4 ELSE 2 END, 0 FROM n;"
            ))
            .unwrap();
        let steps = |statement: &rusqlite::Statement<'_>| statement.get_status(StatementStatus::VmStep);
        let mut below_cursors = database.prepare(EVENTS_BELOW_CURSORS).unwrap();
        let found = below_cursors.query_map(params![100, "[]", 500], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(found.map(Result::unwrap).collect::<Vec<_>>(), (101..=600).collect::<Vec<_>>());
        assert!(steps(&below_cursors) < 10_000, "{}", steps(&below_cursors));
        let mut delivered = database.prepare(DELETE_DELIVERED_EVENTS).unwrap();
        assert_eq!(delivered.execute([100, 600]).unwrap(), 250, "every other one is a dead letter");
        assert!(steps(&delivered) < 30_000, "{}", steps(&delivered));
        let mut settled_rows = database.prepare(SETTLED_ROWS).unwrap();
        assert_eq!(settled_rows.execute([100, 600]).unwrap(), 250);
        assert!(steps(&settled_rows) < 30_000, "{}", steps(&settled_rows));
    }
}
