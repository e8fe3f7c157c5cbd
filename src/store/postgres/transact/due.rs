//! Targets that have to be processed, and the targets of alerts.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio_postgres::types::Type;

use super::command::{Hash, alert_hash};
use super::rows::read_state;
use super::unreadable;
use crate::domain::alert_key::AlertKey;
use crate::domain::target::TargetKey;
use crate::store::postgres::Shared;
use crate::store::postgres::error::DbError;
use crate::store::postgres::schedule;

/// In this form each is found by an index, whatever the planner knows about the tables.
const LOCATE: &str = "
    SELECT n.alert, found.id, found.key FROM unnest($1::bytea[]) AS n (alert)
    CROSS JOIN LATERAL (
        SELECT t.id, t.key FROM target_alerts a JOIN targets t ON t.id = a.target WHERE a.alert = n.alert OFFSET 0
    ) AS found
    ORDER BY found.key";

/// How long a process with an older configuration leaves what is due to those with the newer one. Otherwise it could be
/// faster each time, and what it does not know would never be processed.
const PRECEDENCE: Duration = Duration::from_secs(2);

/// Claims up to `max` targets that have to be processed. One round trip, unless a state cannot be read.
pub(super) async fn due(shared: &Shared, max: usize) -> Result<Vec<TargetKey>, DbError> {
    if shared.fleet.has_newer_configuration.load(Ordering::Relaxed) {
        tokio::time::sleep(PRECEDENCE).await;
    }
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let mark = shared.fleet.due_mark();
    let unreadable: Vec<i64> = shared.fleet.unreadable.lock().keys().copied().collect();
    let connection = shared.pool.get().await?;
    let (rows, next) = schedule::claim(&connection, shared.replica, &unreadable, max).await?;
    drop(connection);
    shared.fleet.set_next_due(mark, next);
    let mut keys = Vec::with_capacity(rows.len());
    let mut is_unreadable = false;
    for row in &rows {
        let key = TargetKey::from_stored(row.get(1));
        match read_state(row.get(2)) {
            Ok(_) => keys.push(key),
            Err(error) => {
                unreadable::add(shared, row.get(0), &key, &error, shared.clock.read().now);
                is_unreadable = true;
            }
        }
    }
    if is_unreadable {
        // They are not due any more; otherwise the caller would ask at once again.
        unreadable::refresh_due(shared).await?;
    }
    Ok(keys)
}

/// The targets at which alerts are known.
pub(super) async fn locate(
    shared: &Shared,
    alerts: Vec<AlertKey>,
) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, DbError> {
    let mut found = BTreeMap::new();
    if alerts.is_empty() {
        return Ok(found);
    }
    let by_hash: HashMap<Hash, AlertKey, FixedState> =
        alerts.into_iter().map(|alert| (alert_hash(&alert), alert)).collect();
    let hashes: Vec<&[u8]> = by_hash.keys().map(Hash::as_slice).collect();
    let connection = shared.pool.get().await?;
    let rows = connection.query_typed(LOCATE, &[(&hashes, Type::BYTEA_ARRAY)]).await?;
    let unreadable = shared.fleet.unreadable.lock();
    for row in rows {
        let alert = Hash::try_from(row.get::<_, &[u8]>(0)).ok().and_then(|hash| by_hash.get(&hash));
        if let Some(alert) = alert.filter(|_| !unreadable.contains_key(&row.get::<_, i64>(1))) {
            let targets: &mut Vec<TargetKey> = found.entry(alert.clone()).or_default();
            targets.push(TargetKey::from_stored(row.get(2)));
        }
    }
    Ok(found)
}
