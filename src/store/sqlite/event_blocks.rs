//! The texts of events. Those of one transaction are packed together, since they are much alike: the row of
//! such an event has an empty text, and the text itself is in `texts`, with those beside it.

use std::ops::Range;

use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};

use super::compression;
use crate::store::NewEvent;

/// So many texts are packed together at most: who reads one unpacks them all.
pub(super) const MAX_BLOCK_EVENTS: usize = 64;
/// And no more once they have so many bytes.
const MAX_BLOCK_BYTES: usize = 64 << 10;
/// Bytes of a text's length in front of it, little-endian.
const LENGTH_PREFIX_BYTES: usize = size_of::<u64>();

/// Events that follow each other and are kept together.
pub(super) struct EncodedBlock {
    pub event_count: usize,
    /// Their texts; `None` if each is kept in its own row.
    pub compressed: Option<Vec<u8>>,
}

/// Groups the events of a transaction, in their order.
pub(super) fn encode_blocks(events: &[NewEvent]) -> Vec<EncodedBlock> {
    let mut groups = Vec::new();
    let mut begin = 0;
    let mut texts = Vec::new();
    for (index, event) in events.iter().enumerate() {
        texts.extend((event.body.len() as u64).to_le_bytes());
        texts.extend(event.body.as_bytes());
        let count = index + 1 - begin;
        if count == MAX_BLOCK_EVENTS || texts.len() >= MAX_BLOCK_BYTES {
            groups.push(finish_block(count, &mut texts));
            begin = index + 1;
        }
    }
    groups.push(finish_block(events.len() - begin, &mut texts));
    groups
}

fn finish_block(events: usize, texts: &mut Vec<u8>) -> EncodedBlock {
    let compressed = compression::compress(texts);
    texts.clear();
    EncodedBlock { event_count: events, compressed }
}

/// Keeps the texts of events that have these numbers in a row.
pub(super) fn write(
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

/// Removes texts of which no event is left, where events from behind one number up to another were removed.
pub(super) fn prune(connection: &Connection, from: i64, upto: i64) -> rusqlite::Result<()> {
    let max_events = i64::try_from(MAX_BLOCK_EVENTS).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "DELETE FROM event_blocks WHERE first > ?1 AND first <= ?2
             AND NOT EXISTS (SELECT 1 FROM events WHERE id >= first AND id <= last)",
        )?
        .execute([from.saturating_sub(max_events), upto])?;
    Ok(())
}

/// Reads texts of events; fast where they follow each other.
pub(super) struct BodyReader<'c> {
    connection: &'c Connection,
    block: EventBlock,
}

impl<'c> BodyReader<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, block: EventBlock::default() }
    }

    /// An event's text, from its number and what its row has of it. Empty if it is lost: then it is no event,
    /// and whoever delivers says so, instead of holding up those behind it.
    pub(super) fn read<'a>(&'a mut self, seq: i64, body: ValueRef<'a>) -> rusqlite::Result<&'a str> {
        let body = body.as_str()?;
        if !body.is_empty() {
            return Ok(body);
        }
        if !self.block.contains(seq) {
            let mut around = self.connection.prepare_cached(
                "SELECT first, compressed FROM event_blocks WHERE first <= ?1 ORDER BY first DESC LIMIT 1",
            )?;
            let read = |row: &rusqlite::Row<'_>| Ok(EventBlock::read(row.get(0)?, row.get_ref(1)?));
            let read = around.query_row([seq], read).optional()?.unwrap_or_else(|| Ok(EventBlock::default()));
            self.block = read.unwrap_or_else(|error| {
                tracing::error!(%error, event = seq, "the text of an event is damaged");
                EventBlock::default()
            });
        }
        Ok(self.block.get(seq))
    }
}

/// Looks among texts that are kept together for the last one that begins so, of an event that is still there
/// and has a number from the first up to, and not with, the second.
pub(super) fn find_by_prefix(
    connection: &Connection,
    from: i64,
    below: i64,
    begin: &str,
) -> rusqlite::Result<Option<(i64, String)>> {
    let max_events = i64::try_from(MAX_BLOCK_EVENTS).unwrap_or(i64::MAX);
    let mut groups = connection.prepare_cached(
        "SELECT first, compressed FROM event_blocks WHERE first > ?1 AND first < ?2 ORDER BY first DESC",
    )?;
    let mut event = connection.prepare_cached("SELECT 1 FROM events WHERE id = ?1 AND body = ''")?;
    let mut groups = groups.query(params![from.saturating_sub(max_events), below])?;
    while let Some(row) = groups.next()? {
        // One that is damaged is told of when it is delivered.
        let Ok(texts) = EventBlock::read(row.get(0)?, row.get_ref(1)?) else { continue };
        for (seq, text) in texts.starting_with(begin) {
            if (from..below).contains(&seq) && event.exists([seq])? {
                return Ok(Some((seq, text.to_owned())));
            }
        }
    }
    Ok(None)
}

/// EventBlock that were packed together.
#[derive(Default)]
struct EventBlock {
    first: i64,
    ranges: Vec<Range<usize>>,
    text: String,
}

impl EventBlock {
    /// From a row of `event_blocks`.
    fn read(first: i64, compressed: ValueRef<'_>) -> rusqlite::Result<Self> {
        let damaged = || FromSqlError::Other(format!("the texts from event {first} on are damaged").into());
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
        let place = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.ranges.get(place).cloned()
    }

    fn contains(&self, seq: i64) -> bool {
        self.range(seq).is_some()
    }

    /// An event's text; empty if it is not among them.
    fn get(&self, seq: i64) -> &str {
        self.range(seq).and_then(|place| self.text.get(place)).unwrap_or_default()
    }

    /// Numbers and texts of those that begin so, the last one first.
    fn starting_with<'a>(&'a self, begin: &'a str) -> impl Iterator<Item = (i64, &'a str)> {
        let text = |place: usize| self.text.get(self.ranges.get(place)?.clone());
        let number = |place: usize| self.first.checked_add(i64::try_from(place).ok()?);
        let known =
            (0..self.ranges.len()).rev().filter_map(move |place| Some((number(place)?, text(place)?)));
        known.filter(move |(_, text)| text.starts_with(begin))
    }
}
