//! Queries of the API on the reading connection, in short steps so that other readers do not wait for long.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::event::{EventDocument, id_prefix};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::query::MAX_RECORD_PAGE_BYTES;
use crate::store::sqlite::codec::{compression, event_blocks};
use crate::store::sqlite::committed::index::Fingerprint;
use crate::store::sqlite::committed::quarantine::Quarantine;
use crate::store::sqlite::file::delivery_state::{DeliveryState as RowState, REPLACED, SUSPENDED, UNCERTAIN};
use crate::store::sqlite::tables::states::{is_damage, read_state};
use crate::store::sqlite::tables::{receipts, routes};
use crate::store::{
    Delivery, DeliveryPage, DeliveryQuery, DeliveryState, EventCursor, EventDeliveries, EventSeq,
    RecordCursor, RecordQuery, Records, StateCursor, StoredEvent, StoredRecord, StoredState,
};

/// Number of events that one step of a search by id scans.
pub(crate) const MAX_SCAN_EVENTS: i64 = 20_000;
/// Upper bound of the difference between the order of records and the order of their times.
const MAX_TIME_DISORDER: std::time::Duration = std::time::Duration::from_secs(2);

/// Lists records by id, ascending or descending.
pub(crate) fn records(
    reader: &Connection,
    query: &RecordQuery,
    target: Option<(Fingerprint, Option<i64>)>,
) -> rusqlite::Result<Records> {
    let (low, high) = query.id_range();
    let (from, to) = (query.from.as_nanos(), query.to.as_nanos());
    let order = if query.newest_first { "DESC" } else { "ASC" };
    // One more row shows whether there are more.
    let max = i64::try_from(query.max).unwrap_or(i64::MAX).saturating_add(1);
    let Some((hash, id)) = target else {
        let mut records = reader.prepare_cached(&format!(
            "SELECT id, body FROM records WHERE id BETWEEN ?1 AND ?2 AND at BETWEEN ?3 AND ?4
             ORDER BY id {order} LIMIT ?5"
        ))?;
        let mut ranges = id_ranges(reader, (low, high), (from, to))?;
        if query.newest_first {
            ranges.reverse();
        }
        let mut page =
            RecordPage { max: query.max, found: Records { records: Vec::new(), has_more: false }, bytes: 0 };
        for (low, high) in ranges {
            page.add(records.query(params![low, high, from, to, max])?)?;
            if page.found.has_more {
                break;
            }
        }
        return Ok(page.found);
    };
    let mut retired = reader.prepare_cached("SELECT id FROM retired_targets WHERE hash = ?1")?;
    let mut ids = retired.query_map([hash.0], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    ids.extend(id);
    let mut history = reader.prepare_cached(&format!(
        "SELECT record FROM history WHERE target = ?6 AND at BETWEEN ?3 AND ?4 AND record BETWEEN ?1 AND ?2
         ORDER BY record {order} LIMIT ?5"
    ))?;
    let mut found = Vec::new();
    for target in ids {
        let rows =
            history.query_map(params![low, high, from, to, max, target], |row| row.get::<_, i64>(0))?;
        found.extend(rows.collect::<Result<Vec<_>, _>>()?);
    }
    found.sort_by_key(|id| if query.newest_first { -id } else { *id });
    found.dedup();
    let mut record = reader.prepare_cached("SELECT body FROM records WHERE id = ?1")?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    for &id in &found {
        if records.len() == query.max || bytes > MAX_RECORD_PAGE_BYTES {
            return Ok(Records { records, has_more: true });
        }
        // A record may have been pruned meanwhile.
        let body = record.query_row([id], |row| Ok(record_text(id, row.get_ref(0)?))).optional()?;
        let Some(body) = body.flatten() else { continue };
        bytes += body.len();
        records.push(StoredRecord { cursor: RecordCursor::new(id), body });
    }
    Ok(Records { records, has_more: false })
}

/// The texts of the records about a target in `from..=to`, oldest first; the target has had this hash and this id.
pub(crate) fn history(
    reader: &Connection,
    (hash, id): (Fingerprint, Option<i64>),
    from: Time,
    to: Time,
) -> rusqlite::Result<Vec<String>> {
    let mut retired = reader.prepare_cached("SELECT id FROM retired_targets WHERE hash = ?1 ORDER BY id")?;
    let mut ids = retired.query_map([hash.0], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    ids.extend(id);
    let mut found = Vec::new();
    let mut history = reader.prepare_cached(
        "SELECT r.id, r.body FROM history h JOIN records r ON r.id = h.record
         WHERE h.target = ?1 AND h.at BETWEEN ?2 AND ?3 ORDER BY h.record",
    )?;
    for id in ids {
        let rows = history.query_map(params![id, from.as_nanos(), to.as_nanos()], |row| {
            Ok(record_text(row.get(0)?, row.get_ref(1)?))
        })?;
        found.extend(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten());
    }
    Ok(found)
}

/// A page of records that is being read.
struct RecordPage {
    max: usize,
    found: Records,
    bytes: usize,
}

impl RecordPage {
    fn add(&mut self, mut rows: rusqlite::Rows<'_>) -> rusqlite::Result<()> {
        while let Some(row) = rows.next()? {
            if self.found.records.len() == self.max || self.bytes > MAX_RECORD_PAGE_BYTES {
                self.found.has_more = true;
                return Ok(());
            }
            let id = row.get(0)?;
            let Some(body) = record_text(id, row.get_ref(1)?) else { continue };
            self.bytes += body.len();
            self.found.records.push(StoredRecord { cursor: RecordCursor::new(id), body });
        }
        Ok(())
    }
}

/// Decodes a record. A damaged one is logged and left out of the result.
pub(crate) fn record_text(id: i64, body: ValueRef<'_>) -> Option<String> {
    let log = |error| tracing::error!(%error, record = id, "decision record damaged");
    compression::decode(body).map_err(log).ok().map(Cow::into_owned)
}

/// Ranges of ids within `low..=high`, ascending, that include all records of `from..=to`. Between two steps of the wall
/// clock, ids and times increase together. There are as many ranges as steps, which are rare.
fn id_ranges(
    reader: &Connection,
    (low, high): (i64, i64),
    (from, to): (i64, i64),
) -> rusqlite::Result<Vec<(i64, i64)>> {
    if (from, to) == (i64::MIN, i64::MAX) {
        return Ok(vec![(low, high)]);
    }
    let disorder = i64::try_from(MAX_TIME_DISORDER.as_nanos()).unwrap_or(0);
    let mut steps = reader.prepare_cached(
        "SELECT record FROM wall_clock_steps WHERE record BETWEEN ?1 AND ?2 ORDER BY record",
    )?;
    let steps = steps.query_map([low, high], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    let starts = std::iter::once(low).chain(steps.iter().copied());
    let ends = steps.iter().map(|step| step - 1).chain([high]);
    let mut ranges = Vec::new();
    for (mut low, mut high) in starts.zip(ends) {
        let all = (low, high);
        if from != i64::MIN {
            low = first_at(reader, all, from.saturating_sub(disorder))?;
        }
        if to != i64::MAX {
            high = high.min(first_at(reader, all, to.saturating_add(disorder))?);
        }
        if low <= high {
            ranges.push((low, high));
        }
    }
    Ok(ranges)
}

/// The id of the first record in `low..=high` that is not before a time, by binary search: within these, ids and times
/// increase together. The id after `high` if there is none.
fn first_at(reader: &Connection, (low, high): (i64, i64), at: i64) -> rusqlite::Result<i64> {
    let (mut low, high) = {
        let mut bounds = reader.prepare_cached(
            "SELECT (SELECT min(id) FROM records WHERE id BETWEEN ?1 AND ?2),
                    (SELECT max(id) FROM records WHERE id BETWEEN ?1 AND ?2)",
        )?;
        let found: (Option<i64>, Option<i64>) =
            bounds.query_row([low, high], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (Some(first), Some(last)) = found else { return Ok(high.saturating_add(1)) };
        (first, last)
    };
    let mut high = high.saturating_add(1);
    let mut next = reader.prepare_cached("SELECT id, at FROM records WHERE id >= ?1 ORDER BY id LIMIT 1")?;
    while low < high {
        let middle = low + (high - low) / 2;
        let found = next.query_row([middle], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        match found.optional()? {
            Some((id, time)) if id < high && time < at => low = id + 1,
            // No row: the rest was pruned meanwhile, so the record is not above `middle`.
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The result of one step of a search by id.
pub(crate) enum ScanStep {
    /// The event.
    Found(Box<FoundEvent>),
    /// Not found yet; the search goes on below this event number.
    Below(i64),
    /// The event does not exist.
    NotFound,
}

/// An event with its deliveries.
pub(crate) struct FoundEvent {
    pub seq: EventSeq,
    pub event: StoredEvent,
}

/// Searches for an event by its id among the [`MAX_SCAN_EVENTS`] newest below an event number. Ids have no
/// index: it would cost time for every event, and nearly all requested events are new.
pub(crate) fn find_event(reader: &Connection, id: &str, below: i64) -> rusqlite::Result<ScanStep> {
    let mut newest =
        reader.prepare_cached("SELECT id FROM events WHERE id < ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2")?;
    let lowest: Option<i64> = newest.query_row([below, MAX_SCAN_EVENTS - 1], |row| row.get(0)).optional()?;
    let prefix = id_prefix(id);
    let from = lowest.unwrap_or(i64::MIN);
    let mut find = reader.prepare_cached(
        "SELECT id, body FROM events
         WHERE id >= ?1 AND id < ?2 AND substr(body, 1, ?3) = ?4 ORDER BY id DESC LIMIT 1",
    )?;
    let length = i64::try_from(prefix.len()).unwrap_or(0);
    let in_row = find.query_row(params![from, below, length, prefix], |row| Ok((row.get(0)?, row.get(1)?)));
    let in_block = event_blocks::find_by_prefix(reader, from, below, &prefix)?;
    let Some((seq, body)) = in_row.optional()?.into_iter().chain(in_block).max_by_key(|(seq, _)| *seq) else {
        return Ok(lowest.map_or(ScanStep::NotFound, ScanStep::Below));
    };
    let mut event = reader.prepare_cached("SELECT at, route FROM events WHERE id = ?1")?;
    let event = event.query_row([seq], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)));
    // It may have been pruned meanwhile.
    let Some((at, route)) = event.optional()? else { return Ok(ScanStep::NotFound) };
    let deliveries = deliveries_of(reader, route, seq)?;
    let event = StoredEvent { emitted_at: Time::from_nanos(at), body, deliveries };
    Ok(ScanStep::Found(Box::new(FoundEvent { seq: EventSeq(seq), event })))
}

/// A page of events with their deliveries, newest first. Times increase with ids.
pub(crate) fn deliveries(reader: &Connection, query: &DeliveryQuery) -> rusqlite::Result<DeliveryPage> {
    let below = query.below.map_or(i64::MAX, EventCursor::position);
    let mut events = reader.prepare_cached(
        "SELECT id, at, body, route FROM events WHERE id < ?1 AND at <= ?2 ORDER BY id DESC",
    )?;
    let mut rows = events.query(params![below, query.to.as_nanos()])?;
    let mut bodies = event_blocks::BodyReader::new(reader);
    let mut page = DeliveryPage { events: Vec::new(), next: None };
    while let Some(row) = rows.next()? {
        let (seq, at): (i64, i64) = (row.get(0)?, row.get(1)?);
        if at < query.from.as_nanos() {
            break;
        }
        if page.events.len() >= query.max {
            page.next = page.events.last().map(|last: &EventDeliveries| last.cursor);
            break;
        }
        let document = EventDocument::read(bodies.read(seq, row.get_ref(2)?)?).unwrap_or_default();
        let time = document.time();
        let deliveries = deliveries_of(reader, row.get(3)?, seq)?;
        let (cursor, emitted_at) = (EventCursor::new(seq), Time::from_nanos(at));
        page.events.push(EventDeliveries { cursor, emitted_at, time, deliveries });
    }
    Ok(page)
}

/// The deliveries of an event to the destinations of a route.
fn deliveries_of(reader: &Connection, route: i64, seq: i64) -> rusqlite::Result<Vec<Delivery>> {
    let mut names = reader.prepare_cached("SELECT destinations FROM routes WHERE id = ?1")?;
    let names: String = names.query_row([route], |row| row.get(0))?;
    let mut deliveries = Vec::new();
    for name in routes::parse(&names).iter().cloned() {
        deliveries.extend(find_delivery(reader, name, seq)?);
    }
    Ok(deliveries)
}

/// The delivery of an event to a destination; `None` if the destination was never known.
fn find_delivery(reader: &Connection, destination: Name, seq: i64) -> rusqlite::Result<Option<Delivery>> {
    let mut delivery = reader.prepare_cached(
        "SELECT n.id, n.cursor, d.state, d.attempts, d.due, d.error, d.flags, d.since FROM destinations n
         LEFT JOIN deliveries d ON d.destination = n.id AND d.event = ?2 WHERE n.name = ?1",
    )?;
    let row = delivery.query_row(params![destination.as_str(), seq], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get(2)?, DeliveryColumns::read(row)?))
    });
    let Some((id, cursor, state, columns)) = row.optional()? else { return Ok(None) };
    let mut found = columns.delivery(destination, state, cursor >= seq);
    if state.is_none()
        && let Some(receipt) = receipts::find(reader, id, seq)?
    {
        found.state = DeliveryState::Delivered;
        found.attempts = receipt.attempts;
        found.delivered_at = Some(receipt.at);
        found.answer = receipt.answer;
    }
    Ok(Some(found))
}

/// The columns of a row of `deliveries`; zeros without a row.
struct DeliveryColumns {
    attempts: u32,
    due: i64,
    text: Option<String>,
    flags: i64,
    is_redriven: bool,
}

impl DeliveryColumns {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            attempts: row.get::<_, Option<u32>>(3)?.unwrap_or(0),
            due: row.get::<_, Option<i64>>(4)?.unwrap_or(0),
            text: row.get::<_, Option<String>>(5)?.filter(|text| !text.is_empty()),
            flags: row.get::<_, Option<i64>>(6)?.unwrap_or(0),
            is_redriven: row.get::<_, Option<i64>>(7)?.is_some(),
        })
    }

    fn delivery(self, destination: Name, state: Option<RowState>, is_below_cursor: bool) -> Delivery {
        let Self { mut attempts, due, text, flags, is_redriven } = self;
        let due = Some(due).filter(|due| *due > 0).map(Time::from_nanos);
        let (mut delivered_at, mut answer, mut error) = (None, None, text);
        let state = match state {
            None if is_below_cursor => {
                // It arrived before schema 9, which has receipts.
                attempts = 1;
                DeliveryState::Delivered
            }
            None => DeliveryState::Pending,
            // Without a failed call, it waits for the delivery before it, or is called for the first time.
            Some(RowState::Retry) if attempts == 0 && !is_redriven => DeliveryState::Pending,
            Some(RowState::Retry) => DeliveryState::Retrying,
            Some(RowState::Dead) => DeliveryState::Dead,
            Some(RowState::Cancelled) => DeliveryState::Superseded,
            Some(RowState::Withdrawn) => DeliveryState::Withdrawn,
            Some(RowState::Discarded) if flags & REPLACED != 0 => DeliveryState::Replaced,
            Some(RowState::Discarded) => DeliveryState::Discarded,
            Some(RowState::Answered) => {
                (delivered_at, answer) = (due, error.take());
                DeliveryState::Delivered
            }
            Some(RowState::Arrived) => {
                delivered_at = due;
                DeliveryState::Delivered
            }
        };
        Delivery {
            destination,
            state,
            attempts,
            delivered_at,
            error,
            answer,
            is_suspended: state.is_unsettled() && flags & SUSPENDED != 0,
            is_uncertain: flags & UNCERTAIN != 0,
            blocked_by: None,
            due: due.filter(|_| state == DeliveryState::Retrying),
        }
    }
}

/// The id of an event; `None` if it cannot be read.
pub(crate) fn event_id(reader: &Connection, seq: i64) -> rusqlite::Result<Option<String>> {
    let mut event = reader.prepare_cached("SELECT body FROM events WHERE id = ?1")?;
    let found = event.query_row([seq], |row| {
        let mut bodies = event_blocks::BodyReader::new(reader);
        let document = EventDocument::read(bodies.read(seq, row.get_ref(0)?)?).unwrap_or_default();
        Ok(document.id().map(str::to_owned))
    });
    Ok(found.optional()?.flatten())
}

/// Lists the states of targets above an id, by id: `max`, unless there are no more. States that cannot be read are left
/// out. Each row is read by itself, so that a damaged one does not fail the others.
pub(crate) fn states(
    reader: &Connection,
    quarantine: &Quarantine,
    mut after: i64,
    max: usize,
) -> rusqlite::Result<Vec<StoredState>> {
    let mut ids = reader.prepare_cached("SELECT id FROM targets WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let mut found = Vec::new();
    while found.len() < max {
        let room = i64::try_from(max - found.len()).unwrap_or(i64::MAX);
        let ids = ids.query_map([after, room], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        let Some(last) = ids.last() else { break };
        after = *last;
        for id in ids {
            match read_state(reader, id) {
                Ok(known) => found.extend(known.map(|known| StoredState {
                    cursor: StateCursor::new(id),
                    key: known.key,
                    state: Arc::unwrap_or_clone(known.state),
                })),
                // What is in quarantine has been logged.
                Err(_) if quarantine.contains(id) => {}
                Err(error) if is_damage(&error) => {
                    tracing::error!(%error, row = id, "target state unreadable, left out of a list");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}
