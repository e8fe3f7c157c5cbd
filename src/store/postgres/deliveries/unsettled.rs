//! Unsettled events, for operators.

use tokio_postgres::types::Type;

use super::claim::claimed;
use super::locks::store_error;
use super::row::{COLUMN_COUNT, COLUMNS, DeliveryRow};
use crate::domain::name::Name;
use crate::store::outbox::UnsettledEvent;
use crate::store::postgres::Shared;
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::Param;
use crate::store::{Error, EventSeq};

/// Up to `max` events that a destination has not settled. Nothing is leased.
pub(super) async fn list(shared: &Shared, name: &Name, max: usize) -> Result<Vec<UnsettledEvent>, Error> {
    let destination = shared.destinations.require(name)?;
    let select = format!(
        "SELECT {COLUMNS}, e.body, d.token IS NOT NULL AND d.due > now_ns()
         FROM deliveries d JOIN events e ON e.seq = d.event WHERE d.destination = $1 AND d.state + 0 = 0 LIMIT $2"
    );
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let read = async {
        let client = shared.pool.get().await?;
        let params: [Param<'_>; 2] = [(&destination.id, Type::INT4), (&max, Type::INT8)];
        let (mut all, mut leased) = (Vec::new(), Vec::new());
        for row in client.query_typed(&select, &params).await? {
            let delivery = DeliveryRow::read(&row)?;
            if row.get(COLUMN_COUNT + 1) {
                leased.push(EventSeq(delivery.event));
            }
            all.push(claimed(&delivery, row.get(COLUMN_COUNT), None, false));
        }
        all.sort_unstable_by_key(|one| one.lease.seq());
        Ok(UnsettledEvent::from_claimed(all, &leased))
    };
    read.await.map_err(|error: DbError| store_error(shared, error))
}
