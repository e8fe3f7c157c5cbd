//! Checks of the promises after each run.

use std::io;
use std::path::Path;

use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Connection, OpenFlags};

/// Counts the alerts that have a decision, by the query that `decisions --target` uses: `history` by target id.
/// `fingerprints` maps the number in a target's name to the fingerprints of its alerts.
pub(crate) fn count_decisions(store: &Path, fingerprints: impl Fn(u64) -> Vec<String>) -> io::Result<u64> {
    let found = || -> rusqlite::Result<u64> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let store = Connection::open_with_flags(store, flags)?;
        let mut targets = store.prepare("SELECT id, key FROM targets")?;
        let mut history = store
            .prepare("SELECT r.body FROM history h JOIN records r ON r.id = h.record WHERE h.target = ?1")?;
        let mut found = 0;
        let mut rows = targets.query([])?;
        while let Some(row) = rows.next()? {
            let (id, key): (i64, String) = (row.get(0)?, row.get(1)?);
            let Some(target) = key.rsplit('-').next().and_then(|number| number.parse().ok()) else {
                continue;
            };
            let records = history.query_map([id], |row| text(row.get_ref(0)?))?;
            let records = records.collect::<Result<Vec<_>, _>>()?;
            let is_recorded =
                |fingerprint: &String| records.iter().any(|record| record.contains(fingerprint));
            found += fingerprints(target).iter().filter(|one| is_recorded(one)).count() as u64;
        }
        Ok(found)
    };
    found().map_err(io::Error::other)
}

/// The text of a record; long ones are compressed.
fn text(value: ValueRef<'_>) -> rusqlite::Result<String> {
    let ValueRef::Blob(packed) = value else { return Ok(value.as_str()?.to_owned()) };
    let text = lz4_flex::block::decompress_size_prepended(packed)
        .map_err(|error| FromSqlError::Other(error.into()))?;
    String::from_utf8(text).map_err(|error| FromSqlError::Other(error.into()).into())
}
