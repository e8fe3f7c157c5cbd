//! Decision records.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::reader::Reader;
use super::{limit, target_hash, wide};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Place};
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::query::MAX_RECORD_PAGE_BYTES;
use crate::store::{Error, RecordCursor, RecordQuery, Records, StoredRecord};

/// A record to be inserted.
pub(in crate::store::postgres) struct NewRecord {
    /// The wall clock of the decision, in nanoseconds.
    pub at: i64,
    /// The time of the decision minus `at`.
    pub ahead: i64,
    /// `targets.id` of the targets of its decisions, without duplicates.
    pub targets: Vec<i64>,
    /// JSON.
    pub body: String,
}

/// Positions continue behind those that the transaction has used already.
const INSERT: &str = "
    WITH first AS MATERIALIZED (
        SELECT coalesce((SELECT max(id) FROM records WHERE id BETWEEN own.first AND own.first + 1048575),
                        own.first) AS position
        FROM (SELECT first_position() AS first) own
    ), put AS (
        INSERT INTO records (id, at, ahead, body)
        SELECT position + number, at, ahead, body
        FROM first, unnest($1::bigint[], $2::bigint[], $3::text[])
            WITH ORDINALITY AS new (at, ahead, body, number)
    )
    INSERT INTO record_targets (target, record)
    SELECT target, position + number FROM first, unnest($4::bigint[], $5::bigint[]) AS new (target, number)";

/// Inserts records in this order. One statement, whatever their number.
pub(in crate::store::postgres) async fn insert(
    transaction: &Transaction,
    records: &[NewRecord],
) -> Result<(), DbError> {
    if records.is_empty() {
        return Ok(());
    }
    let at: Vec<i64> = records.iter().map(|record| record.at).collect();
    let ahead: Vec<i64> = records.iter().map(|record| record.ahead).collect();
    let bodies: Vec<&str> = records.iter().map(|record| record.body.as_str()).collect();
    let (mut targets, mut numbers): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
    for (record, number) in records.iter().zip(1..) {
        targets.extend(&record.targets);
        numbers.resize(targets.len(), number);
    }
    let params: [Param<'_>; 5] = [
        (&at, Type::INT8_ARRAY),
        (&ahead, Type::INT8_ARRAY),
        (&bodies, Type::TEXT_ARRAY),
        (&targets, Type::INT8_ARRAY),
        (&numbers, Type::INT8_ARRAY),
    ];
    transaction.execute(INSERT, &params).await.map(drop)
}

/// Positions outside of a time do not count: without bounds of positions, the server would read all records before it.
const BOUNDS: &str = "
    SELECT (SELECT id FROM records WHERE $1 > $3 AND at < $1 ORDER BY at DESC LIMIT 1),
           (SELECT id FROM records WHERE $2 < $4 AND at > $2 ORDER BY at LIMIT 1),
           (SELECT id FROM targets WHERE hash = $5),
           final_position()";

/// What a query reads.
struct Range {
    /// Bounds of the positions, inclusive.
    ids: (i64, i64),
    /// Bounds of the time, inclusive.
    times: (i64, i64),
    /// Only records about a target; `None` inside if the target is unknown.
    target: Option<Option<i64>>,
}

impl Range {
    async fn read(reader: &Reader, query: &RecordQuery) -> Result<Self, DbError> {
        let (from, to) = wide(query.from, query.to);
        let hash = query.target.as_ref().map(target_hash);
        let hash = hash.as_ref().map(<[u8; 16]>::as_slice);
        let row = reader
            .query_one(
                BOUNDS,
                &[
                    (&from, Type::INT8),
                    (&to, Type::INT8),
                    (&i64::MIN, Type::INT8),
                    (&i64::MAX, Type::INT8),
                    (&hash, Type::BYTEA),
                ],
            )
            .await?;
        let (mut low, mut high) = query.id_range();
        low = low.max(row.get::<_, Option<i64>>(0).unwrap_or(i64::MIN));
        high = high.min(row.get::<_, Option<i64>>(1).unwrap_or(i64::MAX));
        if query.is_final {
            high = high.min(row.get::<_, i64>(3) - 1);
        }
        Ok(Self {
            ids: (low, high),
            times: (query.from.as_nanos(), query.to.as_nanos()),
            target: query.target.as_ref().map(|_| row.get(2)),
        })
    }
}

/// The bodies of a page, as far as it has room for them: the lengths of long texts are known without reading them.
fn page_statement(of_target: bool, newest_first: bool) -> String {
    let order = if newest_first { "DESC" } else { "ASC" };
    let (key, from) = match of_target {
        true => ("h.record", "record_targets h JOIN records r ON r.id = h.record WHERE h.target = $7 AND"),
        false => ("r.id", "records r WHERE $7::bigint IS NULL AND"),
    };
    format!(
        "WITH page AS MATERIALIZED (
            SELECT r.id, octet_length(r.body) AS bytes FROM {from}
            {key} BETWEEN $1 AND $2 AND r.at BETWEEN $3 AND $4 ORDER BY {key} {order} LIMIT $5
        ), sized AS (
            SELECT id, sum(bytes) OVER (ORDER BY id {order}) - bytes AS before FROM page
        )
        SELECT s.id, CASE WHEN s.before <= $6 THEN r.body END FROM sized s JOIN records r ON r.id = s.id
        ORDER BY s.id {order}"
    )
}

async fn rows(
    reader: &Reader,
    range: &Range,
    newest_first: bool,
    max: i64,
    max_bytes: i64,
) -> Result<Vec<Row>, DbError> {
    let target = match range.target {
        // Nothing is known about it.
        Some(None) => return Ok(Vec::new()),
        Some(Some(id)) => Some(id),
        None => None,
    };
    reader
        .query(
            &page_statement(target.is_some(), newest_first),
            &[
                (&range.ids.0, Type::INT8),
                (&range.ids.1, Type::INT8),
                (&range.times.0, Type::INT8),
                (&range.times.1, Type::INT8),
                (&max, Type::INT8),
                (&max_bytes, Type::INT8),
                (&target, Type::INT8),
            ],
        )
        .await
}

pub(in crate::store::postgres) async fn of_target(
    shared: &Shared,
    target: &TargetKey,
    from: Time,
    to: Time,
) -> Result<Vec<String>, Error> {
    let query =
        RecordQuery { target: Some(target.clone()), from, to, newest_first: false, ..RecordQuery::default() };
    let read = async {
        let reader = Reader::new(&shared.pool).await?;
        let range = Range::read(&reader, &query).await?;
        rows(&reader, &range, false, i64::MAX, i64::MAX).await
    };
    let found = read.await.map_err(|error: DbError| error.into_store(Place::Use))?;
    Ok(found.into_iter().filter_map(|row| row.get(1)).collect())
}

pub(in crate::store::postgres) async fn page(shared: &Shared, query: RecordQuery) -> Result<Records, Error> {
    let read = async {
        let reader = Reader::new(&shared.pool).await?;
        // Before the rows are read, so that they are all those up to the final position.
        let range = Range::read(&reader, &query).await?;
        let max_bytes = i64::try_from(MAX_RECORD_PAGE_BYTES).unwrap_or(i64::MAX);
        rows(&reader, &range, query.newest_first, limit(query.max), max_bytes).await
    };
    let found = read.await.map_err(|error: DbError| error.into_store(Place::Use))?;
    let count = found.len();
    let fitting = found.into_iter().map_while(|row| {
        let body: Option<String> = row.get(1);
        Some(StoredRecord { cursor: RecordCursor::new(row.get(0)), body: body? })
    });
    let records: Vec<StoredRecord> = fitting.take(query.max).collect();
    Ok(Records { has_more: records.len() < count, records })
}
