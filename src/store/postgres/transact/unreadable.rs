//! Targets whose states cannot be read. Each concerns itself only: it is left out of due work, transactions on it fail, and
//! everything else goes on. An operator gives it up with `store drop`.

use tokio_postgres::types::Type;

use super::rows::{LockedRows, read_state};
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::postgres::fleet::tally;
use crate::store::postgres::queries::audit;
use crate::store::postgres::schedule;
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::{AuditWrite, DropError, UnreadableRow};

const LOCK: &str = "SELECT state, tally, last_at, now_ns() FROM targets WHERE id = $1 FOR NO KEY UPDATE";
const DROP: &str = "
    UPDATE targets SET last_at = $2, due = NULL, recheck = false, depends_on_controls = false, watch = 0, waits = NULL,
        claimed_by = 0, claimed_until = 0, tally = $4, state = $3
    WHERE id = $1";
const DELETE_ALERTS: &str = "DELETE FROM target_alerts WHERE target = $1";
const UNTRACK: &str = "UPDATE events SET tracked = false WHERE target = $1 AND tracked";

/// Notes the rows that cannot be read, and those that can be read again.
pub(super) fn set(shared: &Shared, rows: &LockedRows, now: Time) {
    for (id, row) in &rows.damaged {
        add(shared, *id, &row.key, &row.error, now);
    }
    let mut known = shared.fleet.unreadable.lock();
    if !known.is_empty() {
        known.retain(|id, _| !rows.targets.contains_key(id));
    }
}

/// Notes a row that cannot be read. Returns whether it is new.
pub(super) fn add(shared: &Shared, id: i64, key: &TargetKey, error: &str, now: Time) -> bool {
    let mut known = shared.fleet.unreadable.lock();
    let is_new = !known.contains_key(&id);
    if is_new {
        let row = UnreadableRow { id, target: Some(key.clone()), since: now, error: error.to_owned() };
        known.insert(id, row);
        tracing::error!(
            error, row = id, target = %key, "target state unreadable, its alerts are refused until it is dropped"
        );
    }
    is_new
}

/// Replaces the state of a target that cannot be read by one that only says since when something is known.
pub(super) async fn drop(shared: &Shared, id: i64, audit: AuditWrite) -> Result<UnreadableRow, DropError> {
    let found = shared.fleet.unreadable.lock().get(&id).cloned();
    let Some(row) = found else { return Err(DropError::NotUnreadable) };
    let dropped = drop_row(shared, id, &audit).await;
    let Some((before, after)) = dropped.map_err(|error| DropError::Store(error.into_store(Stage::Use)))?
    else {
        shared.fleet.unreadable.lock().remove(&id);
        return Err(DropError::NotUnreadable);
    };
    shared.fleet.unreadable.lock().remove(&id);
    shared.fleet.change_tally(before.as_deref(), after.as_deref());
    Ok(row)
}

/// Returns what the target has added to the counts and what it adds now; `None` if it can be read, or does not exist.
async fn drop_row(
    shared: &Shared,
    id: i64,
    entry: &AuditWrite,
) -> Result<Option<(Option<String>, Option<String>)>, DbError> {
    let transaction = Transaction::begin(&shared.pool).await?;
    let target: [Param<'_>; 1] = [(&id, Type::INT8)];
    let rows = transaction.query(LOCK, &target).await?;
    let Some(row) = rows.first().filter(|row| read_state(row.get(0)).is_err()) else {
        transaction.rollback().await?;
        return Ok(None);
    };
    let before: Option<String> = row.get(1);
    let wall = Time::from_nanos(row.get(3));
    let clock = ClockReading { now: wall.max(Time::from_nanos(row.get(2))), wall };
    let state = TargetState { known_since: Some(clock.now), ..TargetState::default() };
    let after = tally::encode(&state);
    let text = serde_json::to_string(&state)
        .map_err(|error| DbError::Damaged(format!("the new state cannot be written: {error}")))?;
    let params: [Param<'_>; 4] =
        [(&id, Type::INT8), (&clock.now.as_nanos(), Type::INT8), (&text, Type::TEXT), (&after, Type::TEXT)];
    futures_util::future::try_join4(
        transaction.execute(DROP, &params),
        transaction.execute(DELETE_ALERTS, &target),
        transaction.execute(UNTRACK, &target),
        audit::write_in(&transaction, clock, entry),
    )
    .await?;
    transaction.commit().await?;
    Ok(Some((before, after)))
}

/// Reads when the next target is due.
pub(super) async fn refresh_due(shared: &Shared) -> Result<(), DbError> {
    let mark = shared.fleet.due_mark();
    let unreadable: Vec<i64> = shared.fleet.unreadable.lock().keys().copied().collect();
    let connection = shared.pool.get().await?;
    let next = schedule::next(&connection, shared.replica, &unreadable).await?;
    shared.fleet.set_next_due(mark, next);
    Ok(())
}
