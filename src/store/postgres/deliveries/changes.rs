//! Changes of deliveries by decisions: cancelled, suspended, resumed, renewed, not renewed any more, and replaced.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::Type;

use super::row::{COLUMN_COUNT, COLUMNS, DeliveryRow};
use super::write::{Changed, CountChanges};
use crate::domain::delivery::DeliveryChangeKind;
use crate::domain::time::ClockReading;
use crate::store::postgres::Shared;
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::{Param, Transaction};

/// Applies changes to all deliveries of these events, in this order. Their targets are locked. Three statements in two
/// round trips, whatever the number of changes. The result has to be applied when the transaction is committed.
pub(in crate::store::postgres) async fn apply(
    shared: &Shared,
    transaction: &Transaction,
    clock: ClockReading,
    changes: Vec<(i64, DeliveryChangeKind)>,
) -> Result<CountChanges, DbError> {
    if changes.is_empty() {
        return Ok(CountChanges::default());
    }
    let mut by_event: BTreeMap<i64, Vec<DeliveryChangeKind>> = BTreeMap::new();
    changes.into_iter().for_each(|(seq, kind)| by_event.entry(seq).or_default().push(kind));
    let events: Vec<i64> = by_event.keys().copied().collect();
    let known: BTreeSet<i32> = shared.destinations.all().values().map(|destination| destination.id).collect();
    let select = format!(
        "SELECT {COLUMNS}, e.at FROM deliveries d JOIN events e ON e.seq = d.event
         WHERE d.event = ANY ($1) ORDER BY d.event, d.destination FOR NO KEY UPDATE OF d"
    );
    let params: [Param<'_>; 1] = [(&events, Type::INT8_ARRAY)];
    let mut changed = Changed::default();
    for row in transaction.query(&select, &params).await? {
        let before = DeliveryRow::read(&row)?;
        let emitted_at: i64 = row.get(COLUMN_COUNT);
        let mut after = before.clone();
        for kind in by_event.get(&before.event).into_iter().flatten() {
            after.change(clock, *kind, emitted_at, known.contains(&before.destination));
        }
        changed.add(&before, after, emitted_at, clock.wall);
    }
    changed.write(transaction, clock.wall, true).await
}
