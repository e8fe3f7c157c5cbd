//! The audit trail: written by the writer in the transaction of the act, listed by the reader.

use rusqlite::{Connection, params};

use crate::domain::time::{ClockReading, Time};
use crate::store::audit::{AuditEntry, AuditPage, AuditQuery, AuditWrite, StoredAuditEntry};

/// Few rows: a scan needs no index.
const SELECT_PAGE: &str = "
    SELECT id, at, actor, act, body FROM audit
    WHERE id < ?1 AND at BETWEEN ?2 AND ?3 AND (?4 IS NULL OR actor = ?4) AND (?5 IS NULL OR act = ?5)
    ORDER BY id DESC LIMIT ?6";
/// The newest entry stays, whatever its age: after a restart it is the source of the next id.
const DELETE_OLD: &str = "
    DELETE FROM audit WHERE id IN (
        SELECT id FROM (SELECT id, at + ahead AS store_time FROM audit WHERE id < (SELECT max(id) FROM audit) ORDER BY id LIMIT ?2)
        WHERE store_time < ?1)";

/// Lists entries, newest first.
pub(crate) fn list(reader: &Connection, query: &AuditQuery) -> rusqlite::Result<AuditPage> {
    // One more row shows whether there are more.
    let max = i64::try_from(query.max).unwrap_or(i64::MAX).saturating_add(1);
    let mut select = reader.prepare_cached(SELECT_PAGE)?;
    let rows = select.query_map(
        params![
            query.below.unwrap_or(i64::MAX),
            query.from.as_nanos(),
            query.to.as_nanos(),
            query.actor,
            query.act,
            max
        ],
        |row| {
            let entry = AuditEntry { actor: row.get(2)?, act: row.get(3)?, body: row.get(4)? };
            Ok(StoredAuditEntry { id: row.get(0)?, at: Time::from_nanos(row.get(1)?), entry })
        },
    )?;
    let mut entries = rows.collect::<Result<Vec<_>, _>>()?;
    let has_more = entries.len() > query.max;
    entries.truncate(query.max);
    Ok(AuditPage { entries, has_more })
}

/// Writes to the audit trail. Returns the id of the entry.
pub(crate) fn write(
    connection: &Connection,
    clock: ClockReading,
    write: &AuditWrite,
) -> rusqlite::Result<i64> {
    match write {
        AuditWrite::Add(AuditEntry { actor, act, body }) => {
            let mut insert = connection.prepare_cached(
                "INSERT INTO audit (at, actor, act, body, ahead) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            insert.insert(params![clock.wall.as_nanos(), actor, act, body, clock.ahead_nanos()])
        }
        AuditWrite::Update { id, body } => {
            let mut update = connection.prepare_cached("UPDATE audit SET body = ?2 WHERE id = ?1")?;
            update.execute(params![id, body])?;
            Ok(*id)
        }
    }
}

/// Writes to the audit trail if the act was performed in this transaction.
pub(crate) fn write_if_done<T, E>(
    connection: &Connection,
    clock: ClockReading,
    done: Result<T, E>,
    audit: &AuditWrite,
) -> rusqlite::Result<Result<T, E>> {
    if done.is_ok() {
        write(connection, clock, audit)?;
    }
    Ok(done)
}

/// Deletes at most `max` entries from before a time by the store's clock. Returns whether there may be more.
pub(crate) fn prune(connection: &Connection, before: i64, max: usize) -> rusqlite::Result<bool> {
    let mut delete = connection.prepare_cached(DELETE_OLD)?;
    Ok(delete.execute(params![before, i64::try_from(max).unwrap_or(i64::MAX)])? == max)
}
