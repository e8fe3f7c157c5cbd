//! Kept notifications.

use parking_lot::Mutex;
use tokio_postgres::types::Type;

use super::reader::Reader;
use super::{limit, wide};
use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};
use crate::store::notifications::{
    CompressedBody, MAX_PAGE_BYTES, MAX_REMOVED_BY_INSERT, NotificationCursor, PageBuilder,
};
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::postgres::transaction::Transaction;
use crate::store::{Error, KeptNotification, NotificationPage, NotificationQuery};

/// The number of bytes of all kept notifications: as of the last time that they were summed, with what this process has
/// added and removed since. Other replicas keep to the limit in the same way, and all are summed when old ones are deleted.
#[derive(Default)]
pub(in crate::store::postgres) struct KeptBytes(Mutex<Option<i64>>);

impl KeptBytes {
    pub(in crate::store::postgres) fn set(&self, bytes: i64) {
        *self.0.lock() = Some(bytes);
    }

    fn get(&self) -> Option<i64> {
        *self.0.lock()
    }

    /// Changes the number; if it was not known, it is `bytes`.
    fn change(&self, change: i64, bytes: i64) {
        let mut known = self.0.lock();
        *known = Some(known.map_or(bytes, |known| known.saturating_add(change)));
    }
}

/// All are summed only if their number of bytes is not known ($5). Where it exceeds the limit ($6), up to $7 of the oldest
/// ones go.
const INSERT: &str = "
    WITH first AS MATERIALIZED (
        SELECT coalesce((SELECT max(id) FROM notifications WHERE id BETWEEN own.first AND own.first + 1048575),
                        own.first) AS position
        FROM (SELECT first_position() AS first) own
    ), put AS (
        INSERT INTO notifications (id, at, ahead, source, bytes, body)
        SELECT position + number, at, ahead, source, octet_length(body), body
        FROM first, unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[])
            WITH ORDINALITY AS new (at, ahead, source, body, number)
        RETURNING bytes
    ), total AS MATERIALIZED (
        SELECT coalesce($5::bigint, (SELECT sum(bytes) FROM notifications), 0)::bigint + (SELECT sum(bytes) FROM put)
            AS bytes
    ), oldest AS MATERIALIZED (
        SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM (
            SELECT id, bytes FROM notifications WHERE (SELECT bytes > $6 FROM total) ORDER BY id LIMIT $7
        ) first_ones
    ), excess AS MATERIALIZED (
        SELECT id FROM notifications
        WHERE id = ANY (ARRAY(SELECT id FROM oldest, total WHERE total.bytes - oldest.before > $6))
        FOR UPDATE SKIP LOCKED
    ), removed AS (
        DELETE FROM notifications WHERE id = ANY (ARRAY(SELECT id FROM excess)) RETURNING bytes
    )
    SELECT total.bytes, coalesce((SELECT sum(bytes) FROM removed), 0)::bigint FROM total";

/// Inserts notifications in this order, and deletes the oldest ones that exceed their limit. One statement, whatever their
/// number. If the transaction is not committed, the number of bytes is wrong until they are summed again.
pub(in crate::store::postgres) async fn insert(
    transaction: &Transaction,
    kept: &KeptBytes,
    notifications: &[(ClockReading, KeptNotification)],
) -> Result<(), DbError> {
    let Some((_, KeptNotification { max_bytes, .. })) = notifications.last() else { return Ok(()) };
    let max_bytes = i64::try_from(*max_bytes).unwrap_or(i64::MAX);
    let at: Vec<i64> = notifications.iter().map(|(clock, _)| clock.now.as_nanos()).collect();
    let ahead: Vec<i64> = notifications.iter().map(|(clock, _)| clock.ahead_nanos()).collect();
    let sources: Vec<&str> = notifications.iter().map(|(_, kept)| kept.source.as_str()).collect();
    let bodies: Vec<&[u8]> = notifications.iter().map(|(_, kept)| kept.body.as_bytes()).collect();
    let removed =
        i64::try_from(notifications.len().saturating_mul(MAX_REMOVED_BY_INSERT)).unwrap_or(i64::MAX);
    let row = transaction
        .query_one(
            INSERT,
            &[
                (&at, Type::INT8_ARRAY),
                (&ahead, Type::INT8_ARRAY),
                (&sources, Type::TEXT_ARRAY),
                (&bodies, Type::BYTEA_ARRAY),
                (&kept.get(), Type::INT8),
                (&max_bytes, Type::INT8),
                (&removed, Type::INT8),
            ],
        )
        .await?;
    let (total, removed): (i64, i64) = (row.get(0), row.get(1));
    let added: i64 = bodies.iter().map(|body| i64::try_from(body.len()).unwrap_or(0)).sum();
    kept.change(added - removed, total - removed);
    Ok(())
}

/// Positions outside of a time do not count, as for records.
const BOUNDS: &str = "
    SELECT (SELECT id FROM notifications WHERE $1 > $3 AND at < $1 ORDER BY at DESC LIMIT 1),
           (SELECT id FROM notifications WHERE $2 < $4 AND at > $2 ORDER BY at LIMIT 1)";
/// The bodies of a page, as far as it has room for them.
const PAGE: &str = "
    WITH page AS MATERIALIZED (
        SELECT id, at, ahead, source, bytes FROM notifications
        WHERE id BETWEEN $1 AND $2 AND at BETWEEN $3 AND $4 AND ($5::text IS NULL OR source = $5)
        ORDER BY id LIMIT $6
    ), sized AS (
        SELECT *, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM page
    )
    SELECT s.id, s.at, s.ahead, s.source, CASE WHEN s.before <= $7 THEN n.body ELSE '' END
    FROM sized s JOIN notifications n ON n.id = s.id ORDER BY s.id";

pub(in crate::store::postgres) async fn page(
    shared: &Shared,
    query: NotificationQuery,
) -> Result<NotificationPage, Error> {
    let rows = rows(shared, &query).await.map_err(|error| error.into_store(Stage::Use))?;
    let mut page = PageBuilder::new(query.max);
    for row in rows {
        let (now, ahead): (Time, i64) = (Time::from_nanos(row.get(1)), row.get(2));
        let clock = ClockReading { now, wall: Time::from_nanos(now.as_nanos().saturating_sub(ahead)) };
        let body = CompressedBody::from_stored(row.get(4));
        if !page.add(NotificationCursor::new(row.get(0)), row.get(3), clock, &body) {
            break;
        }
    }
    Ok(page.finish())
}

async fn rows(shared: &Shared, query: &NotificationQuery) -> Result<Vec<tokio_postgres::Row>, DbError> {
    let NotificationQuery { source, from, to, after, max } = query;
    let (wide_from, wide_to) = wide(*from, *to);
    let reader = Reader::new(&shared.pool).await?;
    let bounds = reader
        .query_one(
            BOUNDS,
            &[
                (&wide_from, Type::INT8),
                (&wide_to, Type::INT8),
                (&i64::MIN, Type::INT8),
                (&i64::MAX, Type::INT8),
            ],
        )
        .await?;
    let low = after.map_or(i64::MIN, |after| after.position().saturating_add(1));
    let low = low.max(bounds.get::<_, Option<i64>>(0).unwrap_or(i64::MIN));
    let high = bounds.get::<_, Option<i64>>(1).unwrap_or(i64::MAX);
    // Stored bodies have at most one byte more than the bodies of the page, whose bytes end it.
    let max_bytes = i64::try_from(MAX_PAGE_BYTES.saturating_mul(2)).unwrap_or(i64::MAX);
    reader
        .query(
            PAGE,
            &[
                (&low, Type::INT8),
                (&high, Type::INT8),
                (&from.as_nanos(), Type::INT8),
                (&to.as_nanos(), Type::INT8),
                (&source.as_ref().map(Name::as_str), Type::TEXT),
                (&limit(*max), Type::INT8),
                (&max_bytes, Type::INT8),
            ],
        )
        .await
}
