//! Counts the deliveries in the database.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::counts::MAX_KNOWN_EVENTS;
use super::{Counted, Destinations};
use crate::store::Backlog;
use crate::store::postgres::connect::Pool;
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::Param;

/// Of one moment, by kind: what the statement has seen, unsettled deliveries by state, dead letters, and the oldest
/// unsettled events. A cancelled delivery counts until its call is over. What is unsettled is read once, by its index:
/// in the order of the events, the server could read all deliveries.
const COUNT: &str = "
    WITH unsettled AS MATERIALIZED (
        SELECT destination, event, attempts FROM deliveries WHERE state + 0 = 0 AND destination = ANY ($1)
        UNION ALL
        SELECT destination, event, attempts FROM deliveries
        WHERE state = 3 AND token IS NOT NULL AND destination = ANY ($1)
    )
    SELECT 0 AS kind, 0 AS destination, 0::bigint, 0::bigint, pg_current_snapshot()::text
    UNION ALL
    SELECT 1, destination, count(*) FILTER (WHERE attempts = 0), count(*) FILTER (WHERE attempts > 0), NULL
    FROM unsettled GROUP BY destination
    UNION ALL
    SELECT 2, destination, count(*), 0, NULL FROM deliveries
    WHERE state = 2 AND destination = ANY ($1) GROUP BY destination
    UNION ALL
    SELECT 3, n.id, oldest.event, e.at, NULL
    FROM unnest($1::int[]) AS n (id)
    CROSS JOIN LATERAL (
        SELECT event FROM unsettled u WHERE u.destination = n.id ORDER BY event LIMIT $2) oldest
    JOIN events e ON e.seq = oldest.event";

/// Counts the deliveries of these destinations. One statement.
pub(in crate::store::postgres) async fn count(
    pool: &Pool,
    ids: &[i32],
) -> Result<BTreeMap<i32, Counted>, DbError> {
    let params: [Param<'_>; 2] = [(&ids, Type::INT4_ARRAY), (&(MAX_KNOWN_EVENTS as i64), Type::INT8)];
    let rows = pool.get().await?.query_typed(COUNT, &params).await?;
    let mut counted: BTreeMap<i32, Counted> = ids.iter().map(|id| (*id, Counted::default())).collect();
    for row in &rows {
        let (kind, destination, a, b): (i32, i32, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        if kind == 0 {
            let snapshot: &str = row.get(4);
            let unreadable = |_| DbError::Damaged(format!("the snapshot `{snapshot}` cannot be read"));
            let snapshot: super::Snapshot = snapshot.parse().map_err(unreadable)?;
            counted.values_mut().for_each(|one| one.snapshot = snapshot.clone());
            continue;
        }
        let Some(one) = counted.get_mut(&destination) else { continue };
        let Backlog { pending, retrying, dead } = &mut one.backlog;
        match kind {
            1 => (*pending, *retrying) = (a.unsigned_abs(), b.unsigned_abs()),
            2 => *dead = a.unsigned_abs(),
            _ => drop(one.oldest.insert(a, b)),
        }
    }
    Ok(counted)
}

impl Destinations {
    /// Counts the deliveries anew.
    pub(in crate::store::postgres) async fn refresh(&self, pool: &Pool) -> Result<(), DbError> {
        let all = self.all();
        let ids: Vec<i32> = all.values().map(|destination| destination.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut counted = count(pool, &ids).await?;
        for destination in all.values() {
            if let Some(counted) = counted.remove(&destination.id) {
                destination.counts.lock().replace(counted);
            }
        }
        Ok(())
    }
}
