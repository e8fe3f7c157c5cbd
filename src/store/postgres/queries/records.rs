//! Decision records.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::reader::Reader;
use super::{limit, target_hash, wide};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Stage};
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

/// Positions continue behind those that the transaction has used already, and behind the last one of each of the targets: a
/// transaction with a smaller id can have got the lock of a target later. That a position is larger than the transaction's own hides
/// nothing from who reads up to the final one. A gap, since another transaction can go on behind the same one: if both take
/// one position, one of them is run again.
///
/// The range of one target has the order of the primary key, whatever the planner knows about the table.
const INSERT: &str = "
    WITH last AS MATERIALIZED (
        SELECT max(found.record) AS record FROM (SELECT DISTINCT target FROM unnest($4::bigint[]) AS t (target)) of_records
        CROSS JOIN LATERAL (
            SELECT h.record FROM record_targets h WHERE h.target BETWEEN of_records.target AND of_records.target
            ORDER BY h.target DESC, h.record DESC LIMIT 1
        ) AS found
    ), first AS MATERIALIZED (
        SELECT greatest(
            coalesce((SELECT max(id) FROM records WHERE id BETWEEN own.first AND own.first + 1048575), own.first),
            CASE WHEN last.record > own.first + 1048575 THEN
                (SELECT max(id) FROM records WHERE id BETWEEN last.record AND last.record | 1048575)
                + (random() * 255)::bigint
            END) AS position
        FROM (SELECT first_position() AS first) own, last
    ), put AS (
        INSERT INTO records (id, at, ahead, body)
        SELECT position + number, at, ahead, body
        FROM first, unnest($1::bigint[], $2::bigint[], $3::text[])
            WITH ORDINALITY AS new (at, ahead, body, number)
    ), step AS (
        INSERT INTO clock_steps (record)
        SELECT position + 1 FROM first
        WHERE ($1::bigint[])[1] < (SELECT at FROM records ORDER BY id DESC LIMIT 1) - 300000000000
        ON CONFLICT DO NOTHING
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
    SELECT (SELECT id FROM records WHERE $1 > $3 AND at < $1 AND id BETWEEN $5 AND $6 ORDER BY at DESC LIMIT 1),
           (SELECT id FROM records WHERE $2 < $4 AND at > $2 AND id BETWEEN $5 AND $6 ORDER BY at LIMIT 1)";
const RANGE: &str = "
    SELECT (SELECT id FROM targets WHERE hash = $1), final_position(),
           ARRAY(SELECT record FROM clock_steps WHERE record BETWEEN $2 AND $3 ORDER BY record)";

/// What a query reads.
struct Range {
    /// Bounds of the positions, inclusive: ranges in the order of the query.
    ids: Vec<(i64, i64)>,
    /// Bounds of the time, inclusive.
    times: (i64, i64),
    /// Only records about a target.
    target: Option<i64>,
}

impl Range {
    /// `None` if nothing is known about the target.
    async fn read(reader: &Reader, query: &RecordQuery) -> Result<Option<Self>, DbError> {
        let hash = query.target.as_ref().map(target_hash);
        let hash = hash.as_ref().map(<[u8; 16]>::as_slice);
        let (low, mut high) = query.id_range();
        let params: [Param<'_>; 3] = [(&hash, Type::BYTEA), (&low, Type::INT8), (&high, Type::INT8)];
        let row = reader.query_one(RANGE, &params).await?;
        let target: Option<i64> = row.get(0);
        if query.target.is_some() && target.is_none() {
            return Ok(None);
        }
        if query.is_final {
            high = high.min(row.get::<_, i64>(1) - 1);
        }
        let steps: Vec<i64> = row.get(2);
        let starts = std::iter::once(low).chain(steps.iter().copied());
        let ends = steps.iter().map(|step| step - 1).chain([high]);
        let mut ids = Vec::new();
        for range in starts.zip(ends) {
            ids.push(Self::bounds(reader, query, range).await?);
        }
        if query.newest_first {
            ids.reverse();
        }
        Ok(Some(Self { ids, times: (query.from.as_nanos(), query.to.as_nanos()), target }))
    }

    /// The part of a range of positions that can have records of the time of a query. Within the range, positions and
    /// times increase together.
    async fn bounds(
        reader: &Reader,
        query: &RecordQuery,
        (low, high): (i64, i64),
    ) -> Result<(i64, i64), DbError> {
        let (from, to) = wide(query.from, query.to);
        if (from, to) == (i64::MIN, i64::MAX) {
            return Ok((low, high));
        }
        let params: [Param<'_>; 6] = [
            (&from, Type::INT8),
            (&to, Type::INT8),
            (&i64::MIN, Type::INT8),
            (&i64::MAX, Type::INT8),
            (&low, Type::INT8),
            (&high, Type::INT8),
        ];
        let row = reader.query_one(BOUNDS, &params).await?;
        let (first, last): (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
        Ok((low.max(first.unwrap_or(low)), high.min(last.unwrap_or(high))))
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

/// The rows of one of the ranges of positions.
async fn rows(
    reader: &Reader,
    range: &Range,
    ids: (i64, i64),
    newest_first: bool,
    max: i64,
    max_bytes: i64,
) -> Result<Vec<Row>, DbError> {
    let params: [Param<'_>; 7] = [
        (&ids.0, Type::INT8),
        (&ids.1, Type::INT8),
        (&range.times.0, Type::INT8),
        (&range.times.1, Type::INT8),
        (&max, Type::INT8),
        (&max_bytes, Type::INT8),
        (&range.target, Type::INT8),
    ];
    reader.query(&page_statement(range.target.is_some(), newest_first), &params).await
}

pub(in crate::store::postgres) async fn of_target(
    shared: &Shared,
    target: &TargetKey,
    from: Time,
    to: Time,
) -> Result<Vec<String>, Error> {
    let all = RecordQuery {
        target: Some(target.clone()),
        from,
        to,
        newest_first: false,
        max: usize::MAX,
        ..RecordQuery::default()
    };
    let found = read(shared, &all, i64::MAX).await.map_err(|error| error.into_store(Stage::Use))?;
    Ok(found.records.into_iter().map(|record| record.body).collect())
}

pub(in crate::store::postgres) async fn page(shared: &Shared, query: RecordQuery) -> Result<Records, Error> {
    let max_bytes = i64::try_from(MAX_RECORD_PAGE_BYTES).unwrap_or(i64::MAX);
    read(shared, &query, max_bytes).await.map_err(|error| error.into_store(Stage::Use))
}

async fn read(shared: &Shared, query: &RecordQuery, max_bytes: i64) -> Result<Records, DbError> {
    let mut page = Records { records: Vec::new(), has_more: false };
    let reader = Reader::new(&shared.pool).await?;
    // Before the rows are read, so that they are all those up to the final position.
    let Some(range) = Range::read(&reader, query).await? else { return Ok(page) };
    let mut room = max_bytes;
    for &ids in &range.ids {
        let max = limit(query.max - page.records.len());
        for row in rows(&reader, &range, ids, query.newest_first, max, room).await? {
            let Some(body) = row.get::<_, Option<String>>(1).filter(|_| page.records.len() < query.max)
            else {
                page.has_more = true;
                return Ok(page);
            };
            room = room.saturating_sub(i64::try_from(body.len()).unwrap_or(i64::MAX));
            page.records.push(StoredRecord { cursor: RecordCursor::new(row.get(0)), body });
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::postgres::Postgres;
    use crate::store::tests::postgres::Database;

    #[tokio::test]
    async fn records_of_a_target_are_in_the_order_of_its_locks_whatever_the_ids_of_their_transactions() {
        let database = Database::new();
        let Store::Postgres(Postgres(shared)) = database.open(&[]).await else { panic!("another store") };
        database.execute("INSERT INTO targets (hash, key) VALUES (decode(md5('a'), 'hex'), 'a'), ('b', 'b')");
        let ids = database.execute("SELECT string_agg(id::text, ' ' ORDER BY key) FROM targets").unwrap();
        let targets: Vec<i64> = ids.split(' ').map(|id| id.parse().unwrap()).collect();
        let record = |body: &str| NewRecord {
            at: 5,
            ahead: 0,
            targets: targets.clone(),
            body: format!("{{\"n\":\"{body}\"}}"),
        };
        // Its id is the smallest, and it is the last one that gets the locks.
        let first = Transaction::begin(&shared.pool).await.unwrap();
        first.query("SELECT pg_current_xact_id()", &[]).await.unwrap();
        let second = Transaction::begin(&shared.pool).await.unwrap();
        second.query("SELECT pg_current_xact_id()", &[]).await.unwrap();
        for (transaction, names) in
            [(None, ["1", "2"]), (Some(second), ["3", "4"]), (Some(first), ["5", "6"])]
        {
            let transaction = match transaction {
                Some(transaction) => transaction,
                None => Transaction::begin(&shared.pool).await.unwrap(),
            };
            for name in names {
                insert(&transaction, &[record(name)]).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
        let order = "SELECT string_agg(body::json ->> 'n', '' ORDER BY record)
            FROM record_targets h JOIN records r ON r.id = h.record GROUP BY target";
        assert_eq!(database.execute(order).unwrap(), "123456");
        // Transactions of other tests on the same server hold it up until they end.
        let final_ones = "SELECT count(*) FROM records WHERE id < final_position()";
        let all_are_final = async {
            while database.execute(final_ones).unwrap() != "6" {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let minute = std::time::Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, all_are_final).await.is_ok(), "they do not become final");
    }
}
