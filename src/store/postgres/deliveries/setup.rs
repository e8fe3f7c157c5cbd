//! The destinations of this process, and what is known about their deliveries.

use std::sync::atomic::Ordering;

use tokio_postgres::types::Type;

use super::leases;
use super::locks::store_error;
use crate::domain::name::Name;
use crate::store::postgres::Shared;
use crate::store::postgres::destinations::count;
use crate::store::postgres::error::DbError;
use crate::store::postgres::fleet::IS_OUTDATED;
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::{Error, Retries};

const INSERT: &str = "
    INSERT INTO destinations (name) SELECT name FROM unnest($1::text[]) AS new (name)
    WHERE NOT EXISTS (SELECT FROM destinations d WHERE d.name = new.name)
    ORDER BY name ON CONFLICT DO NOTHING";
const SELECT: &str = "SELECT id, name FROM destinations WHERE name = ANY ($1)";
/// Destinations to which no live replica delivers, if no replica with a newer configuration may come back that does.
fn orphaned() -> String {
    format!(
        "SELECT name FROM destinations n
    WHERE EXISTS (SELECT FROM deliveries d WHERE d.destination = n.id AND d.state + 0 = 0)
    AND NOT EXISTS (SELECT FROM replica_destinations r
        WHERE r.destination = n.id AND r.replica <> $1 AND r.until > now_ns())
    AND NOT EXISTS (SELECT FROM store s WHERE {IS_OUTDATED})"
    )
}
/// Adds destinations: all of them or, after an error, none.
pub(super) async fn add_destinations(shared: &Shared, names: Vec<Name>) -> Result<(), Error> {
    let known = shared.destinations.all();
    let mut new: Vec<String> = Vec::new();
    for name in names {
        match known.get(&name) {
            // One that is being retired is configured again.
            Some(destination) => {
                destination.is_retiring.store(false, Ordering::Relaxed);
                destination.is_served_elsewhere.store(false, Ordering::Relaxed);
            }
            None => new.push(name.as_str().to_owned()),
        }
    }
    if new.is_empty() {
        return Ok(());
    }
    try_add(shared, &new).await.map_err(|error| store_error(shared, error))
}

async fn try_add(shared: &Shared, names: &[String]) -> Result<(), DbError> {
    let transaction = Transaction::begin(&shared.pool).await?;
    let params: [Param<'_>; 1] = [(&names, Type::TEXT_ARRAY)];
    transaction.execute(INSERT, &params).await?;
    let rows = transaction.query(SELECT, &params).await?;
    transaction.commit().await?;
    let ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    let mut counts = count(&shared.pool, &ids).await?;
    leases::serve(shared, &ids).await?;
    for row in &rows {
        let (id, name): (i32, &str) = (row.get(0), row.get(1));
        let Ok(name) = Name::new(name) else { continue };
        shared.destinations.add(name.clone(), id);
        if let Some((destination, counts)) = shared.destinations.get(&name).zip(counts.remove(&id)) {
            destination.counts.lock().replace(counts);
        }
    }
    Ok(())
}

/// Removes a destination whose worker has ended.
pub(super) async fn remove_destination(shared: &Shared, name: &Name) -> Result<(), Error> {
    let Some(destination) = shared.destinations.get(name) else { return Ok(()) };
    leases::release(&destination, Retries::Keep);
    leases::flush(shared, &destination).await?;
    leases::serve_no_more(shared, &[destination.id]).await.map_err(|error| store_error(shared, error))?;
    shared.destinations.remove(name);
    Ok(())
}

/// Destinations that have unsettled deliveries and to which no replica delivers.
pub(super) async fn orphaned_destinations(shared: &Shared) -> Result<Vec<Name>, Error> {
    let read = async {
        let client = shared.pool.get().await?;
        let configuration = shared.fleet.configuration.load(Ordering::Relaxed);
        let params: [Param<'_>; 2] = [(&shared.replica, Type::INT8), (&configuration, Type::INT8)];
        client.query_typed(&orphaned(), &params).await
    };
    let rows = read.await.map_err(|error: DbError| store_error(shared, error))?;
    let known = shared.destinations.all();
    let names = rows.iter().filter_map(|row| Name::new(row.get::<_, &str>(0)).ok());
    Ok(names.filter(|name| !known.contains_key(name)).collect())
}
