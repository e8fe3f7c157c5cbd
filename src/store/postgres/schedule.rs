//! Which targets have to be processed, and when the next one has to be: they are due by time, or a delivery, the controls or
//! a destination for which they wait have changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connect::{Pool, Session};
use super::error::DbError;
use super::transaction::{Param, Transaction};
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::time::Time;

/// How long a replica has for targets that it processes, before others do. A due target of a replica that dies waits so
/// much longer.
const CLAIM_NANOS: i64 = 10_000_000_000;

/// The column `targets.waits`: waits for a call to a destination that succeeds.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DestinationWaits {
    /// When they have begun: only a success then or later counts.
    since: Vec<Time>,
    /// The last successes that the last decision has known.
    before: BTreeMap<Name, Time>,
}

impl DestinationWaits {
    /// What a state waits for after a decision that has known these successes; `None` if it waits for nothing.
    pub(super) fn of(state: &TargetState, known: &BTreeMap<Name, Time>) -> Option<String> {
        let mut since: Vec<Time> = state.destination_waits().collect();
        since.sort_unstable();
        since.dedup();
        if since.is_empty() {
            return None;
        }
        serde_json::to_string(&Self { since, before: known.clone() }).ok()
    }
}

/// The last decision about a target that has to be processed now: not later than now, and known to all.
const PENDING_SINCE: &str = "least(t.last_at, now_ns())";
/// Whether another replica processes a target. `$1` is this replica, `$2` are targets that cannot be read.
const IS_FREE: &str = "(t.claimed_by = $1 OR t.claimed_until <= (SELECT at FROM now)) AND t.id <> ALL ($2)";
/// Its deferred actions were decided under earlier controls.
const CONTROLS_CHANGED: &str = "t.depends_on_controls AND t.generation < (SELECT generation FROM controls)";
/// A destination for which it waits has had its first success since then.
const DESTINATION_SUCCEEDED: &str = "
    t.waits IS NOT NULL AND EXISTS (
        SELECT 1 FROM destinations d, jsonb_array_elements_text(t.waits::jsonb -> 'since') AS wait (since)
        WHERE d.last_success >= wait.since::bigint
        AND coalesce((t.waits::jsonb -> 'before' ->> d.name)::bigint < wait.since::bigint, true))";

// Each part of the statements below has the order of its partial index, so that it is read from there, whatever the planner
// knows about the table: without an order it takes a scan of all targets for cheap, since it ends after the first ones.

/// Claims up to `$3` targets: first those that are due, then the others.
fn claim_statement() -> String {
    let part = |condition: &str, order: &str, rank: u8| {
        format!(
            "(SELECT {rank} AS rank, f.* FROM (
                SELECT t.id, t.due FROM targets t WHERE {condition} AND {IS_FREE}
                ORDER BY {order} LIMIT $3) f)"
        )
    };
    let found = [
        part("t.due <= (SELECT at FROM now)", "t.due", 1),
        part("t.recheck", "t.last_at", 2),
        part(CONTROLS_CHANGED, "t.generation", 2),
        part(DESTINATION_SUCCEEDED, "t.last_at", 2),
    ]
    .join(" UNION ALL ");
    format!(
        "WITH now AS MATERIALIZED (SELECT now_ns() AS at), found AS MATERIALIZED (
            SELECT id, min(rank) AS rank, min(due) AS due FROM ({found}) AS found
            GROUP BY id ORDER BY min(rank), CASE WHEN min(rank) = 1 THEN min(due) END, id LIMIT $3
        ), locked AS MATERIALIZED (
            SELECT t.id FROM targets t WHERE t.id = ANY (ARRAY (SELECT id FROM found)) AND {IS_FREE}
            FOR NO KEY UPDATE SKIP LOCKED
        ), claimed AS (
            UPDATE targets t SET claimed_by = $1, claimed_until = (SELECT at FROM now) + {CLAIM_NANOS}
            WHERE t.id = ANY (ARRAY (SELECT id FROM locked)) RETURNING t.id, t.key, t.state
        )
        SELECT c.id, c.key, c.state FROM claimed c JOIN found f ON f.id = c.id
        ORDER BY f.rank, CASE WHEN f.rank = 1 THEN f.due END, c.id"
    )
}

/// When the next target can be processed by this replica. What is claimed by another one can be when its claim ends.
pub(super) fn next_statement() -> String {
    let part = |since: &str, condition: &str, order: &str| {
        format!(
            "(SELECT {since} AS since, t.claimed_by, t.claimed_until FROM targets t
              WHERE {condition} AND t.id <> ALL ($2) ORDER BY {order} LIMIT 200)"
        )
    };
    let found = [
        part("t.due", "t.due IS NOT NULL", "t.due"),
        part(PENDING_SINCE, "t.recheck", "t.last_at"),
        part(PENDING_SINCE, CONTROLS_CHANGED, "t.generation"),
        part(PENDING_SINCE, DESTINATION_SUCCEEDED, "t.last_at"),
    ]
    .join(" UNION ALL ");
    format!(
        "SELECT min(greatest(since, CASE WHEN claimed_by = $1 THEN 0 ELSE claimed_until END)) FROM ({found}) AS found"
    )
}

/// Claims targets that have to be processed, and when the next one has to be, without these claims. One round trip.
/// The rows are ids, keys and states.
pub(super) async fn claim(
    client: &Session,
    replica: i64,
    unreadable: &[i64],
    max: i64,
) -> Result<(Vec<Row>, Option<Time>), DbError> {
    let claim = claim_statement();
    let params: [Param<'_>; 3] =
        [(&replica, Type::INT8), (&unreadable, Type::INT8_ARRAY), (&max, Type::INT8)];
    let claim = async { client.query_typed(&claim, &params).await };
    futures_util::future::try_join(claim, next(client, replica, unreadable)).await
}

/// When the next target has to be processed.
pub(super) async fn next(
    client: &Session,
    replica: i64,
    unreadable: &[i64],
) -> Result<Option<Time>, DbError> {
    let params: [Param<'_>; 2] = [(&replica, Type::INT8), (&unreadable, Type::INT8_ARRAY)];
    let rows = client.query_typed(&next_statement(), &params).await?;
    Ok(read_next(&rows))
}

/// The same as a transaction sees it.
pub(super) async fn next_in(
    transaction: &Transaction,
    replica: i64,
    unreadable: &[i64],
) -> Result<Option<Time>, DbError> {
    let params: [Param<'_>; 2] = [(&replica, Type::INT8), (&unreadable, Type::INT8_ARRAY)];
    Ok(read_next(&transaction.query(&next_statement(), &params).await?))
}

/// Targets that depend on the controls are locked in the order of all transactions.
const RECHECK: &str = "
    UPDATE targets SET recheck = true WHERE id = ANY (ARRAY (
        SELECT t.id FROM targets t WHERE t.id > $1 AND t.depends_on_controls AND NOT t.recheck
        ORDER BY t.id LIMIT $2 FOR NO KEY UPDATE
    ))
    RETURNING id";
/// The number of targets that one transaction changes.
const RECHECK_CHUNK: i64 = 1000;

/// All targets that depend on the controls have to be processed: a process that starts can have other rules than those by
/// which they were decided.
pub(super) async fn recheck_dependents(pool: &Pool) -> Result<(), DbError> {
    let mut after = i64::MIN;
    loop {
        let transaction = Transaction::begin(pool).await?;
        let params: [Param<'_>; 2] = [(&after, Type::INT8), (&RECHECK_CHUNK, Type::INT8)];
        let rows = transaction.query(RECHECK, &params).await?;
        transaction.commit().await?;
        match rows.iter().map(|row| row.get(0)).max() {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}

fn read_next(rows: &[Row]) -> Option<Time> {
    rows.first()?.get::<_, Option<i64>>(0).map(Time::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_without_waits_has_none_stored() {
        assert_eq!(DestinationWaits::of(&TargetState::default(), &BTreeMap::new()), None);
    }
}
