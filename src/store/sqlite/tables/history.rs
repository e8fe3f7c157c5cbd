//! Decision records, and the history of each target.

use rusqlite::{Connection, ToSql, params};

use crate::domain::time::Time;
use crate::store::sqlite::committed::staged::WriteBatch;

/// Writes a record and its entries in the histories of the targets with these ids.
pub(crate) fn put_record(
    connection: &Connection,
    batch: &mut WriteBatch,
    now: Time,
    targets: &[i64],
    body: impl ToSql,
) -> rusqlite::Result<()> {
    let id = batch.next.record;
    batch.next.record += 1;
    for target in targets {
        let mut put = connection.prepare_cached("INSERT INTO history VALUES (?1, ?2, ?3)")?;
        put.execute(params![target, now.as_nanos(), id])?;
    }
    let targets: Vec<u8> = targets.iter().flat_map(|target| target.to_be_bytes()).collect();
    let mut put = connection.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4)")?;
    put.execute(params![id, now.as_nanos(), targets, body]).map(drop)
}
