//! Decision records, and the history of each target.

use rusqlite::{Connection, ToSql, params};

use crate::domain::time::ClockReading;
use crate::store::sqlite::committed::staged::WriteBatch;

/// Writes a record and its entries in the histories of the targets with these ids.
pub(crate) fn put_record(
    connection: &Connection,
    batch: &mut WriteBatch,
    clock: ClockReading,
    targets: &[i64],
    body: impl ToSql,
) -> rusqlite::Result<()> {
    let id = batch.next.record;
    batch.next.record += 1;
    let stamp = clock.wall.as_nanos();
    if batch.next.newest_stamp.replace(stamp).is_some_and(|newest| stamp < newest) {
        connection.prepare_cached("INSERT INTO wall_clock_steps VALUES (?1)")?.execute([id])?;
    }
    let mut put = connection.prepare_cached("INSERT INTO history VALUES (?1, ?2, ?3)")?;
    for target in targets {
        put.execute(params![target, stamp, id])?;
    }
    let targets: Vec<u8> = targets.iter().flat_map(|target| target.to_be_bytes()).collect();
    let mut put = connection.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5)")?;
    put.execute(params![id, stamp, targets, body, clock.ahead_nanos()]).map(drop)
}
