//! Stored receipts, see `codec/receipts.rs`.

use rusqlite::{Connection, params};

use crate::domain::time::Time;
use crate::store::fast_map::Map;
use crate::store::sqlite::codec::receipts::{self, EncodedReceipts, MAX_BLOCK_SPAN, Receipt};

const SELECT_NEAR: &str = "
    SELECT first, block FROM receipts
    WHERE destination = ?1 AND first > ?2 AND first <= ?3 AND last >= ?3 ORDER BY first DESC";
const SELECT_ABOVE: &str = "
    SELECT first, block FROM receipts WHERE destination = ?1 AND first > ?2 AND last > ?3 ORDER BY first";
const SELECT_BETWEEN: &str = "
    SELECT first, block FROM receipts
    WHERE destination = ?1 AND first > ?2 AND first <= ?3 AND last >= ?4 ORDER BY first";
/// Blocks whose events were all deleted.
const DELETE_OLD: &str = "
    DELETE FROM receipts WHERE destination = ?1 AND first > ?2 AND first <= ?3
    AND NOT EXISTS (SELECT 1 FROM events WHERE id >= receipts.first AND id <= receipts.last)";

/// Writes the receipts of a commit.
pub(crate) fn write(
    connection: &Connection,
    destination_id: i64,
    receipts: Vec<Receipt>,
) -> rusqlite::Result<()> {
    for EncodedReceipts { first, last, block } in receipts::encode(receipts) {
        // A delivery arrives once, so no other block begins with this event.
        let mut put = connection.prepare_cached("INSERT OR REPLACE INTO receipts VALUES (?1, ?2, ?3, ?4)")?;
        put.execute(params![destination_id, first, last, block])?;
    }
    Ok(())
}

/// Reads the receipt of a delivery; `None` if there is none.
pub(crate) fn find(
    connection: &Connection,
    destination_id: i64,
    seq: i64,
) -> rusqlite::Result<Option<Receipt>> {
    let mut near = connection.prepare_cached(SELECT_NEAR)?;
    let mut rows = near.query([destination_id, seq.saturating_sub(MAX_BLOCK_SPAN), seq])?;
    while let Some(row) = rows.next()? {
        if let Some(found) = read(row)?.into_iter().find(|receipt| receipt.seq.0 == seq) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The blocks with receipts of these events, or near them. The list is JSON.
pub(crate) const SELECT_ALL: &str = "
    SELECT first, block FROM receipts WHERE destination = ?1 AND first IN (
        SELECT r.first FROM json_each(?2) wanted JOIN receipts r
        ON r.destination = ?1 AND r.first > wanted.value - ?3 AND r.first <= wanted.value
        AND r.last >= wanted.value)";

/// Reads when deliveries arrived that have receipts. `events` is a JSON list of `count` numbers.
pub(crate) fn find_all(
    connection: &Connection,
    destination_id: i64,
    events: &str,
    count: usize,
) -> rusqlite::Result<Map<i64, Time>> {
    let mut found = Map::default();
    if count == 0 {
        return Ok(found);
    }
    let mut blocks = connection.prepare_cached(SELECT_ALL)?;
    let mut rows = blocks.query(params![destination_id, events, MAX_BLOCK_SPAN])?;
    while let Some(row) = rows.next()? {
        found.extend(read(row)?.into_iter().map(|receipt| (receipt.seq.0, receipt.at)));
    }
    Ok(found)
}

/// Reads the receipts of events above this one.
pub(crate) fn above(
    connection: &Connection,
    destination_id: i64,
    seq: i64,
) -> rusqlite::Result<Vec<Receipt>> {
    let mut blocks = connection.prepare_cached(SELECT_ABOVE)?;
    let mut rows = blocks.query([destination_id, seq.saturating_sub(MAX_BLOCK_SPAN), seq])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(read(row)?.into_iter().filter(|receipt| receipt.seq.0 > seq));
    }
    Ok(found)
}

/// Reads the receipts of the events with these numbers.
pub(crate) fn between(
    connection: &Connection,
    destination_id: i64,
    first: i64,
    last: i64,
) -> rusqlite::Result<Vec<Receipt>> {
    let mut blocks = connection.prepare_cached(SELECT_BETWEEN)?;
    let mut rows = blocks.query([destination_id, first.saturating_sub(MAX_BLOCK_SPAN), last, first])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(read(row)?.into_iter().filter(|receipt| (first..=last).contains(&receipt.seq.0)));
    }
    Ok(found)
}

/// A damaged block is logged, and has no receipts: its deliveries have arrived, as without a row.
fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Vec<Receipt>> {
    let first = row.get(0)?;
    Ok(receipts::decode(first, row.get_ref(1)?).unwrap_or_else(|error| {
        tracing::error!(%error, event = first, "receipts damaged");
        Vec::new()
    }))
}

/// Deletes blocks without events, after events above `from` and up to `upto` were deleted.
pub(crate) fn prune(connection: &Connection, from: i64, upto: i64) -> rusqlite::Result<()> {
    let mut ids = connection.prepare_cached("SELECT id FROM destinations")?;
    let ids = ids.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    for id in ids {
        connection.prepare_cached(DELETE_OLD)?.execute([id, from.saturating_sub(MAX_BLOCK_SPAN), upto])?;
    }
    Ok(())
}
