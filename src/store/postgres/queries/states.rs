//! States of targets.

use tokio_postgres::types::Type;

use super::reader::Reader;
use crate::domain::target::TargetKey;
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::{Error, StateCursor, StoredState};

const PAGE: &str =
    "SELECT id, key, state FROM targets WHERE id > $1 AND state IS NOT NULL ORDER BY id LIMIT $2";

/// Up to `max` states: fewer only if there are no more. Those that cannot be read are left out.
pub(in crate::store::postgres) async fn page(
    shared: &Shared,
    after: Option<StateCursor>,
    max: usize,
) -> Result<Vec<StoredState>, Error> {
    read(shared, after, max).await.map_err(|error| error.into_store(Stage::Use))
}

async fn read(shared: &Shared, after: Option<StateCursor>, max: usize) -> Result<Vec<StoredState>, DbError> {
    let mut after = after.map_or(i64::MIN, StateCursor::position);
    let mut found = Vec::new();
    let reader = Reader::new(&shared.pool).await?;
    while found.len() < max {
        let room = i64::try_from(max - found.len()).unwrap_or(i64::MAX);
        let rows = reader.query(PAGE, &[(&after, Type::INT8), (&room, Type::INT8)]).await?;
        let Some(last) = rows.last() else { break };
        after = last.get(0);
        for row in &rows {
            let (id, key): (i64, &str) = (row.get(0), row.get(1));
            match serde_json::from_str(row.get(2)) {
                Ok(state) => {
                    let key = TargetKey::from_stored(key);
                    found.push(StoredState { cursor: StateCursor::new(id), key, state });
                }
                // Those that were found have been logged.
                Err(_) if shared.fleet.unreadable.lock().contains_key(&id) => {}
                Err(error) => {
                    tracing::error!(%error, row = id, "target state unreadable, left out of a list");
                }
            }
        }
    }
    Ok(found)
}
