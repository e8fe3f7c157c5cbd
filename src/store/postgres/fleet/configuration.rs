//! Which rules and destinations the replicas have. While a change is rolled out, those that do not have it yet must not end
//! what they do not know, and those that have it end at once what was removed.
//!
//! The newest configuration is the one that a replica had first after all others. One that some replica has had within the last hour
//! is not new: a replica that is restarted before the change reaches it has an old one.

use std::sync::atomic::Ordering;

use tokio_postgres::types::Type;

use crate::store::Error;
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::postgres::transaction::{Param, Transaction};

/// So long after the last replica with the newest configuration was heard, the others take it for gone.
pub(in crate::store::postgres) const REMEMBERED_NANOS: i64 = 3_600_000_000_000;
/// Whether a configuration, `$2`, is older than one that replicas have: an SQL expression about `store s`.
pub(in crate::store::postgres) const IS_OUTDATED: &str =
    "s.configuration <> $2 AND s.configuration_seen > now_ns() - 3600000000000";

/// Before the row of the store, as signs of life write them.
const SET_OWN: &str = "UPDATE replicas SET configuration = $2 WHERE id = $1";
const ADOPT: &str = "
    WITH older AS MATERIALIZED (
        SELECT FROM replicas r, store s
        WHERE r.id <> $1 AND r.configuration = $2 AND r.seen > now_ns() - $3 AND s.configuration_seen > now_ns() - $3
    )
    UPDATE store SET configuration = $2, configuration_seen = now_ns()
    WHERE configuration = $2 OR NOT EXISTS (SELECT FROM older)";
/// How often it is written if that loses against others.
const MAX_RUNS: u32 = 5;
const SEE: &str = "
    UPDATE store SET configuration_seen = now_ns()
    WHERE configuration = $1 AND configuration_seen < now_ns() - 60000000000";

/// This process has the configuration with this number from now on.
pub(super) async fn adopt(shared: &Shared, configuration: i64) -> Result<(), Error> {
    let _row = shared.fleet.row.lock().await;
    let mut runs = 1;
    while let Err(error) = write(shared, configuration).await {
        if !error.is_conflict() || runs >= MAX_RUNS {
            return Err(error.into_store(Stage::Use));
        }
        runs += 1;
    }
    shared.fleet.configuration.store(configuration, Ordering::Relaxed);
    Ok(())
}

async fn write(shared: &Shared, configuration: i64) -> Result<(), DbError> {
    let transaction = Transaction::begin(&shared.pool).await?;
    let params: [Param<'_>; 3] =
        [(&shared.replica, Type::INT8), (&configuration, Type::INT8), (&REMEMBERED_NANOS, Type::INT8)];
    transaction.execute(SET_OWN, &params[..2]).await?;
    transaction.execute(ADOPT, &params).await?;
    transaction.commit().await
}

/// This process still has it.
pub(super) async fn see(transaction: &Transaction, shared: &Shared) -> Result<(), DbError> {
    let configuration = shared.fleet.configuration.load(Ordering::Relaxed);
    transaction.execute(SEE, &[(&configuration, Type::INT8)]).await.map(drop)
}
