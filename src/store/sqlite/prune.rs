//! Removing what is past its retention, a little at a time, so that nothing else has to wait for it.

use std::time::Duration;

use rusqlite::params;

use super::writer::{Batch, Writer};
use crate::domain::name::Name;

/// Rows that one pruning removes, so that it never keeps others waiting.
const PRUNE: usize = 500;
/// Free pages that one pruning gives back to the file system.
const GIVE_BACK: usize = 500;
/// Freed pages are used again; what exceeds this part of the file is given back.
const KEEP_FREE: i64 = 4;

/// Times rise with the numbers, so the first row that is young enough ends the look: without that each
/// pruning would read all that is kept, in the writer's turn.
const OLD_EVENTS: &str = "
    DELETE FROM events WHERE id IN (
        SELECT id FROM events
        WHERE id < coalesce((SELECT id FROM events WHERE at >= ?1 ORDER BY id LIMIT 1), 9223372036854775807)
        AND id <= (SELECT min(cursor) FROM destinations
            WHERE given > passed OR name IN (SELECT value FROM json_each(?3)))
        AND id NOT IN (SELECT event FROM deliveries)
        ORDER BY id LIMIT ?2)";
/// Rows of cancelled deliveries that the cursor tells by now.
const TOLD: &str = "
    DELETE FROM deliveries WHERE (destination, event) IN (
        SELECT x.destination, x.event FROM deliveries x
        WHERE x.state = 3 AND x.event <= (SELECT cursor FROM destinations WHERE id = x.destination)
        LIMIT ?1)";
const OLD_RECORDS: &str = "
    SELECT id, at, targets FROM records
    WHERE id < coalesce((SELECT id FROM records WHERE at >= ?1 ORDER BY id LIMIT 1), 9223372036854775807)
    ORDER BY id LIMIT ?2";

impl Writer {
    /// Removes some of what is past its retention. Says whether there may be more.
    pub(super) fn prune(
        &mut self,
        batch: &mut Batch,
        decisions: Duration,
        delivered: Duration,
    ) -> rusqlite::Result<bool> {
        let now = self.clock.now();
        let before = |kept: Duration| {
            now.as_nanos().saturating_sub(i64::try_from(kept.as_nanos()).unwrap_or(i64::MAX))
        };
        // Positions of destinations that get no events move in memory only.
        for outlet in self.outlets.values() {
            batch.lanes.entry(outlet.name.clone()).or_default();
        }
        let records = self.prune_records(before(decisions))?;
        let former = self.connection.execute(
            "DELETE FROM former_targets WHERE (hash, id) IN
             (SELECT hash, id FROM former_targets WHERE gone < ?1 LIMIT ?2)",
            params![before(decisions), PRUNE as i64],
        )?;
        let told = self.connection.execute(TOLD, [PRUNE as i64])?;
        // A destination that is configured no more keeps what it was not given.
        let events = self
            .connection
            .execute(OLD_EVENTS, params![before(delivered), PRUNE as i64, self.destination_names()])?;
        self.give_back()?;
        Ok(records == PRUNE || former == PRUNE || told == PRUNE || events == PRUNE)
    }

    fn give_back(&self) -> rusqlite::Result<()> {
        let number =
            |pragma: &str| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        if number("freelist_count")? * KEEP_FREE <= number("page_count")? {
            return Ok(());
        }
        let mut vacuum =
            self.connection.prepare_cached(&format!("PRAGMA incremental_vacuum({GIVE_BACK})"))?;
        let mut pages = vacuum.query([])?;
        while pages.next()?.is_some() {}
        Ok(())
    }

    fn destination_names(&self) -> String {
        let names: Vec<&str> = self.outlets.keys().map(Name::as_str).collect();
        serde_json::to_string(&names).unwrap_or_else(|_| "[]".to_owned())
    }

    fn prune_records(&self, before: i64) -> rusqlite::Result<usize> {
        let mut old = self.connection.prepare_cached(OLD_RECORDS)?;
        let mut rows = old.query(params![before, PRUNE as i64])?;
        let mut count = 0;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let (id, at): (i64, i64) = (row.get(0)?, row.get(1)?);
            for target in row.get_ref(2)?.as_blob()?.as_chunks::<8>().0 {
                self.connection
                    .prepare_cached("DELETE FROM history WHERE target = ?1 AND at = ?2 AND record = ?3")?
                    .execute(params![i64::from_be_bytes(*target), at, id])?;
            }
            count += 1;
            last = Some(id);
        }
        if let Some(last) = last {
            self.connection.execute("DELETE FROM records WHERE id <= ?1", [last])?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::{Connection, StatementStatus};

    #[test]
    fn what_is_young_is_not_read_to_find_what_is_old() {
        let database = Connection::open_in_memory().unwrap();
        let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)";
        database
            .execute_batch(&format!(
                "CREATE TABLE events (id INTEGER PRIMARY KEY, at INTEGER);
                 CREATE TABLE records (id INTEGER PRIMARY KEY, at INTEGER, targets BLOB);
                 CREATE TABLE destinations (name TEXT, cursor INTEGER, given INTEGER, passed INTEGER);
                 CREATE TABLE deliveries (event INTEGER);
                 INSERT INTO destinations VALUES ('queue', 9000, 1, 0);
                 {many} INSERT INTO events SELECT i, i FROM n;
                 {many} INSERT INTO records SELECT i, i, x'' FROM n;"
            ))
            .unwrap();
        let mut old = database.prepare(OLD_RECORDS).unwrap();
        let found: Vec<i64> =
            old.query_map([10, 500], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, (1..10).collect::<Vec<_>>());
        assert!(old.get_status(StatementStatus::VmStep) < 1000);
        let mut delete = database.prepare(OLD_EVENTS).unwrap();
        assert_eq!(delete.execute(params![10, 500, "[]"]).unwrap(), 9);
        assert!(delete.get_status(StatementStatus::VmStep) < 1000);
        assert_eq!(delete.execute(params![i64::MAX, 500, "[]"]).unwrap(), 500, "all are old");
    }
}
