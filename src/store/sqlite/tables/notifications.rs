//! Kept notifications. A row has the number of compressed bytes before it, so the bytes of all rows are the difference
//! of two rows: nothing is summed at a start.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};
use crate::store::notifications::{
    CompressedBody, KeptNotification, MAX_REMOVED_BY_INSERT, MAX_SCANNED_FOR_LAST, NotificationCursor,
    NotificationLimits, NotificationPage, NotificationQuery, PageBuilder,
};
use crate::store::sqlite::committed::staged::{NextNotification, WriteBatch};

/// Reads where the next notification is written.
pub(crate) fn next(connection: &Connection) -> rusqlite::Result<NextNotification> {
    let newest = connection
        .query_row("SELECT at, start + length(body) FROM notifications ORDER BY at DESC LIMIT 1", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(newest.map_or(NextNotification { position: 0, start: 0 }, |(at, start)| NextNotification {
        position: at.saturating_add(1),
        start,
    }))
}

/// By the wall clock, when the last notification of each source was kept.
pub(crate) fn last_of_sources(connection: &Connection) -> rusqlite::Result<BTreeMap<Name, Time>> {
    let mut last = connection.prepare(
        "SELECT source, max(at), ahead FROM (SELECT source, at, ahead FROM notifications ORDER BY at DESC LIMIT ?1)
         GROUP BY source",
    )?;
    let mut rows = last.query([MAX_SCANNED_FOR_LAST])?;
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (at, ahead): (i64, i64) = (row.get(1)?, row.get(2)?);
        if let Ok(source) = Name::new(row.get_ref(0)?.as_str()?) {
            found.insert(source, Time::from_nanos(at.saturating_sub(ahead)));
        }
    }
    Ok(found)
}

/// Writes a notification, and deletes the oldest ones that exceed its limit.
pub(crate) fn put(
    connection: &Connection,
    batch: &mut WriteBatch,
    clock: ClockReading,
    notification: &KeptNotification,
) -> rusqlite::Result<()> {
    let KeptNotification { source, body, max_bytes } = notification;
    let next = &mut batch.next.notification;
    let at = next.position.max(clock.now.as_nanos());
    let mut put = connection.prepare_cached("INSERT INTO notifications VALUES (?1, ?2, ?3, ?4, ?5)")?;
    put.execute(params![at, clock.ahead_nanos(), next.start, source.as_str(), body.as_bytes()])?;
    let end = next.start.saturating_add(i64::try_from(body.len()).unwrap_or(i64::MAX));
    *next = NextNotification { position: at.saturating_add(1), start: end };
    prune_bytes(connection, end, *max_bytes, MAX_REMOVED_BY_INSERT).map(drop)
}

/// Deletes up to `max` of the notifications that exceed the limits, oldest first. Returns whether there may be more.
pub(crate) fn prune(
    connection: &Connection,
    batch: &WriteBatch,
    now: Time,
    limits: NotificationLimits,
    max: usize,
) -> rusqlite::Result<bool> {
    let NotificationLimits { max_age, max_bytes } = limits;
    if !limits.is_enabled() {
        return delete_oldest(connection, i64::MAX, max);
    }
    let age = i64::try_from(max_age.as_nanos()).unwrap_or(i64::MAX);
    let old = delete_oldest(connection, now.as_nanos().saturating_sub(age), max)?;
    Ok(prune_bytes(connection, batch.next.notification.start, max_bytes, max)? || old)
}

/// Deletes the oldest ones, up to `max` before a time. Returns whether there may be more.
fn delete_oldest(connection: &Connection, before: i64, max: usize) -> rusqlite::Result<bool> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM notifications WHERE at IN (SELECT at FROM notifications WHERE at < ?1 ORDER BY at LIMIT ?2)",
    )?;
    Ok(delete.execute(params![before, max as i64])? >= max)
}

/// Deletes the oldest ones, up to `max` while all have more than `max_bytes`. `end` is where the next one would start.
fn prune_bytes(connection: &Connection, end: i64, max_bytes: u64, max: usize) -> rusqlite::Result<bool> {
    let max_bytes = i64::try_from(max_bytes).unwrap_or(i64::MAX);
    let mut oldest = connection.prepare_cached("SELECT at, start FROM notifications ORDER BY at LIMIT 1")?;
    for _ in 0..max {
        let oldest = oldest.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        let Some((at, start)) = oldest.optional()? else { return Ok(false) };
        if end.saturating_sub(start) <= max_bytes {
            return Ok(false);
        }
        connection.prepare_cached("DELETE FROM notifications WHERE at = ?1")?.execute([at])?;
    }
    Ok(true)
}

/// A page of kept notifications.
pub(crate) fn page(reader: &Connection, query: &NotificationQuery) -> rusqlite::Result<NotificationPage> {
    let NotificationQuery { source, from, to, after, max } = query;
    let from = from.as_nanos().max(after.map_or(i64::MIN, |after| after.position().saturating_add(1)));
    let mut notifications = reader.prepare_cached(
        "SELECT at, ahead, source, body FROM notifications
         WHERE at BETWEEN ?1 AND ?2 AND (?3 IS NULL OR source = ?3) ORDER BY at",
    )?;
    let mut rows = notifications.query(params![from, to.as_nanos(), source.as_ref().map(Name::as_str)])?;
    let mut page = PageBuilder::new(*max);
    while let Some(row) = rows.next()? {
        let (at, ahead): (i64, i64) = (row.get(0)?, row.get(1)?);
        let now = Time::from_nanos(at);
        let clock = ClockReading { now, wall: Time::from_nanos(at.saturating_sub(ahead)) };
        let body = CompressedBody::from_stored(row.get_ref(3)?.as_blob()?);
        if !page.add(NotificationCursor::new(at), row.get_ref(2)?.as_str()?, clock, &body) {
            break;
        }
    }
    Ok(page.finish())
}
