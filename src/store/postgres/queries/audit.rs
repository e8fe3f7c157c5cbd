//! The audit trail.

use tokio_postgres::types::Type;

use super::limit;
use super::reader::Reader;
use crate::domain::time::{ClockReading, Time};
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::postgres::transaction::Transaction;
use crate::store::{AuditEntry, AuditPage, AuditQuery, AuditWrite, Error, StoredAuditEntry};

const INSERT: &str = "
    INSERT INTO audit (at, ahead, actor, act, body)
    SELECT $1, $2, actor, act, body FROM unnest($3::text[], $4::text[], $5::text[])
        WITH ORDINALITY AS new (actor, act, body, number) ORDER BY number
    RETURNING id";
const UPDATE: &str = "UPDATE audit SET body = $2 WHERE id = $1";
/// Few rows: they need no index but that of the order.
const PAGE: &str = "
    SELECT id, at, actor, act, body FROM audit
    WHERE id < $1 AND at BETWEEN $2 AND $3 AND ($4::text IS NULL OR actor = $4) AND ($5::text IS NULL OR act = $5)
    ORDER BY id DESC LIMIT $6";

/// Inserts entries in this order. Returns their ids, ascending. One statement, whatever their number.
pub(in crate::store::postgres) async fn insert(
    transaction: &Transaction,
    clock: ClockReading,
    entries: &[AuditEntry],
) -> Result<Vec<i64>, DbError> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let column = |read: fn(&AuditEntry) -> &str| entries.iter().map(read).collect::<Vec<&str>>();
    let (actors, acts) = (column(|entry| &entry.actor), column(|entry| &entry.act));
    let rows = transaction
        .query(
            INSERT,
            &[
                (&clock.wall.as_nanos(), Type::INT8),
                (&clock.ahead_nanos(), Type::INT8),
                (&actors, Type::TEXT_ARRAY),
                (&acts, Type::TEXT_ARRAY),
                (&column(|entry| &entry.body), Type::TEXT_ARRAY),
            ],
        )
        .await?;
    let mut ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Writes to the audit trail in the transaction of the act. Returns the id of the entry.
pub(in crate::store::postgres) async fn write_in(
    transaction: &Transaction,
    clock: ClockReading,
    write: &AuditWrite,
) -> Result<i64, DbError> {
    match write {
        AuditWrite::Add(entry) => {
            let ids = insert(transaction, clock, std::slice::from_ref(entry)).await?;
            ids.first().copied().ok_or_else(|| DbError::Damaged("an audit entry got no id".to_owned()))
        }
        AuditWrite::Update { id, body } => {
            transaction.execute(UPDATE, &[(id, Type::INT8), (body, Type::TEXT)]).await?;
            Ok(*id)
        }
    }
}

/// Writes to the audit trail. Returns the id of the entry.
pub(in crate::store::postgres) async fn write(shared: &Shared, write: AuditWrite) -> Result<i64, Error> {
    let written = async {
        let transaction = Transaction::begin(&shared.pool).await?;
        let now = transaction.query_one("SELECT now_ns()", &[]).await?.get(0);
        let id = write_in(&transaction, ClockReading::equal(Time::from_nanos(now)), &write).await?;
        transaction.commit().await?;
        Ok(id)
    };
    written.await.map_err(|error: DbError| error.into_store(Stage::Use))
}

pub(in crate::store::postgres) async fn page(shared: &Shared, query: AuditQuery) -> Result<AuditPage, Error> {
    let AuditQuery { actor, act, from, to, below, max } = query;
    let read = async {
        let reader = Reader::new(&shared.pool).await?;
        reader
            .query(
                PAGE,
                &[
                    (&below.unwrap_or(i64::MAX), Type::INT8),
                    (&from.as_nanos(), Type::INT8),
                    (&to.as_nanos(), Type::INT8),
                    (&actor, Type::TEXT),
                    (&act, Type::TEXT),
                    (&limit(max), Type::INT8),
                ],
            )
            .await
    };
    let rows = read.await.map_err(|error: DbError| error.into_store(Stage::Use))?;
    let has_more = rows.len() > max;
    let stored = rows.iter().take(max).map(|row| {
        let entry = AuditEntry { actor: row.get(2), act: row.get(3), body: row.get(4) };
        StoredAuditEntry { id: row.get(0), at: Time::from_nanos(row.get(1)), entry }
    });
    Ok(AuditPage { entries: stored.collect(), has_more })
}
