//! Events of one transaction are compressed together, at most 64 per block, because they are much alike. The
//! row of such an event has an empty body; the body is in `event_blocks`.

use std::ops::Range;

use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};

use super::compression;
use crate::store::NewEvent;

/// Maximum number of events in a block: reading one decompresses all of them.
pub(crate) const MAX_BLOCK_EVENTS: usize = 64;
/// A block is closed once it has this many uncompressed bytes.
const MAX_BLOCK_BYTES: usize = 64 << 10;
/// Bytes of the little-endian length before each body.
const LENGTH_PREFIX_BYTES: usize = size_of::<u64>();

/// Consecutive events that may share a block.
pub(crate) struct EncodedBlock {
    pub event_count: usize,
    /// Their bodies; `None` if each is stored in its own row.
    pub compressed: Option<Vec<u8>>,
}

/// Splits the events of a transaction into blocks, in their order.
pub(crate) fn encode_blocks(events: &[NewEvent]) -> Vec<EncodedBlock> {
    let mut blocks = Vec::new();
    let mut begin = 0;
    let bytes: usize = events.iter().map(|event| LENGTH_PREFIX_BYTES + event.body.len()).sum();
    let mut bodies = Vec::with_capacity(bytes.min(2 * MAX_BLOCK_BYTES));
    for (index, event) in events.iter().enumerate() {
        bodies.extend((event.body.len() as u64).to_le_bytes());
        bodies.extend(event.body.as_bytes());
        let count = index + 1 - begin;
        if count == MAX_BLOCK_EVENTS || bodies.len() >= MAX_BLOCK_BYTES {
            blocks.push(finish_block(count, &mut bodies));
            begin = index + 1;
        }
    }
    blocks.push(finish_block(events.len() - begin, &mut bodies));
    blocks
}

fn finish_block(event_count: usize, bodies: &mut Vec<u8>) -> EncodedBlock {
    let compressed = compression::compress(bodies);
    bodies.clear();
    EncodedBlock { event_count, compressed }
}

/// Stores the block of the events with these consecutive ids.
pub(crate) fn write(
    connection: &Connection,
    first: i64,
    last: i64,
    compressed: &[u8],
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO event_blocks VALUES (?1, ?2, ?3)")?
        .execute(params![first, last, compressed])?;
    Ok(())
}

/// Deletes blocks without events, after events above `from` and up to `upto` were deleted.
pub(crate) fn prune(connection: &Connection, from: i64, upto: i64) -> rusqlite::Result<()> {
    let max_events = i64::try_from(MAX_BLOCK_EVENTS).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "DELETE FROM event_blocks WHERE first > ?1 AND first <= ?2
             AND NOT EXISTS (SELECT 1 FROM events WHERE id >= first AND id <= last)",
        )?
        .execute([from.saturating_sub(max_events), upto])?;
    Ok(())
}

/// Reads bodies of events. Caches the last block, so consecutive reads are fast.
pub(crate) struct BodyReader<'c> {
    connection: &'c Connection,
    block: EventBlock,
}

impl<'c> BodyReader<'c> {
    pub(crate) fn new(connection: &'c Connection) -> Self {
        Self { connection, block: EventBlock::default() }
    }

    /// Returns the body of an event, from its id and the body in its row. Empty if it is lost: the delivery
    /// then becomes a dead letter instead of blocking later ones.
    pub(crate) fn read<'a>(&'a mut self, seq: i64, body: ValueRef<'a>) -> rusqlite::Result<&'a str> {
        let body = match body.as_str() {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, event = seq, "event damaged");
                return Ok("");
            }
        };
        if !body.is_empty() {
            return Ok(body);
        }
        if !self.block.contains(seq) {
            let mut block = self.connection.prepare_cached(
                "SELECT first, compressed FROM event_blocks WHERE first <= ?1 ORDER BY first DESC LIMIT 1",
            )?;
            let read = |row: &rusqlite::Row<'_>| Ok(EventBlock::read(row.get(0)?, row.get_ref(1)?));
            let read = block.query_row([seq], read).optional()?.unwrap_or_else(|| Ok(EventBlock::default()));
            self.block = read.unwrap_or_else(|error| {
                tracing::error!(%error, event = seq, "event block damaged");
                EventBlock::default()
            });
        }
        Ok(self.block.get(seq))
    }
}

/// Searches event blocks for the last body with this prefix, among the existing events with ids in
/// `from..below`.
pub(crate) fn find_by_prefix(
    connection: &Connection,
    from: i64,
    below: i64,
    prefix: &str,
) -> rusqlite::Result<Option<(i64, String)>> {
    let max_events = i64::try_from(MAX_BLOCK_EVENTS).unwrap_or(i64::MAX);
    let mut blocks = connection.prepare_cached(
        "SELECT first, compressed FROM event_blocks WHERE first > ?1 AND first < ?2 ORDER BY first DESC",
    )?;
    let mut event = connection.prepare_cached("SELECT 1 FROM events WHERE id = ?1 AND body = ''")?;
    let mut rows = blocks.query(params![from.saturating_sub(max_events), below])?;
    while let Some(row) = rows.next()? {
        // A damaged block is logged when one of its events is delivered.
        let Ok(block) = EventBlock::read(row.get(0)?, row.get_ref(1)?) else { continue };
        for (seq, text) in block.starting_with(prefix) {
            if (from..below).contains(&seq) && event.exists([seq])? {
                return Ok(Some((seq, text.to_owned())));
            }
        }
    }
    Ok(None)
}

/// Reads any bytes as a block.
pub(crate) fn read_stored_form(bytes: &[u8]) {
    let first = 7;
    if let Ok(block) = EventBlock::read(first, ValueRef::Blob(bytes)) {
        let text: usize = (first..).map_while(|seq| block.range(seq)).map(|range| range.len()).sum();
        assert_eq!(text, block.text.len());
        let _matching = block.starting_with("{").count();
    }
}

/// A decompressed block.
#[derive(Default)]
struct EventBlock {
    first: i64,
    ranges: Vec<Range<usize>>,
    text: String,
}

impl EventBlock {
    fn read(first: i64, compressed: ValueRef<'_>) -> rusqlite::Result<Self> {
        let damaged = || FromSqlError::Other(format!("the event block of event {first} is damaged").into());
        let bytes = compression::decompress(compressed.as_blob()?, b"")?;
        let (mut all, mut ranges) = (String::with_capacity(bytes.len()), Vec::new());
        let mut rest = bytes.as_slice();
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_PREFIX_BYTES>() {
            let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
            let (text, behind) = behind.split_at_checked(length).ok_or_else(damaged)?;
            let begin = all.len();
            all.push_str(std::str::from_utf8(text).map_err(|_| damaged())?);
            ranges.push(begin..all.len());
            rest = behind;
        }
        if rest.is_empty() { Ok(Self { first, ranges, text: all }) } else { Err(damaged().into()) }
    }

    fn range(&self, seq: i64) -> Option<Range<usize>> {
        let index = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.ranges.get(index).cloned()
    }

    fn contains(&self, seq: i64) -> bool {
        self.range(seq).is_some()
    }

    /// The body of an event; empty if the block does not have it.
    fn get(&self, seq: i64) -> &str {
        self.range(seq).and_then(|range| self.text.get(range)).unwrap_or_default()
    }

    /// Ids and bodies of the events with this prefix, the last one first.
    fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (i64, &'a str)> {
        let body = |index: usize| self.text.get(self.ranges.get(index)?.clone());
        let seq = |index: usize| self.first.checked_add(i64::try_from(index).ok()?);
        let events = (0..self.ranges.len()).rev().filter_map(move |index| Some((seq(index)?, body(index)?)));
        events.filter(move |(_, body)| body.starts_with(prefix))
    }
}
