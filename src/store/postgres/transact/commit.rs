//! Commits. If the connection is lost meanwhile, the database is asked whether the transaction was committed, before anybody
//! is answered.

use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use crate::store::postgres::Shared;
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::{FailedCommit, Param, Transaction};

/// How often the database is asked, and how long after one another.
const MAX_QUESTIONS: u32 = 50;
const QUESTION_INTERVAL: Duration = Duration::from_millis(100);
/// Questions that are not answered take long.
const MAX_ASKING: Duration = Duration::from_secs(15);

/// The server may still execute what it has received. The number of a transaction that a promoted standby does not have can
/// be one that it never had.
const IS_RUNNING: &str = "
    SELECT CASE WHEN $1::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())
           THEN coalesce(pg_xact_status($1::text::xid8) = 'in progress', false) ELSE false END";
const IS_COMMITTED: &str = "SELECT EXISTS (SELECT 1 FROM commits WHERE replica = $1 AND number = $2)";
/// Its commit is as durable as that of all transactions before it.
const BARRIER: &str = "SELECT pg_logical_emit_message(true, 'scalebridge', '')";

/// What has become of a transaction.
pub(super) enum CommitOutcome {
    Yes,
    /// Nothing of it was written.
    No(DbError),
}

/// Commits a transaction with this id.
///
/// # Errors
/// It is not known whether it was committed.
pub(super) async fn commit(
    shared: &Shared,
    transaction: Transaction,
    xid: i64,
) -> Result<CommitOutcome, DbError> {
    let Err(FailedCommit { number, error }) = transaction.commit_numbered().await else {
        return Ok(CommitOutcome::Yes);
    };
    if !error.is_disconnect() {
        return Ok(CommitOutcome::No(error));
    }
    tracing::warn!(%error, "connection lost during a commit, asking the database whether it was committed");
    let began = Instant::now();
    for question in 0..MAX_QUESTIONS {
        if question > 0 {
            tokio::time::sleep(QUESTION_INTERVAL).await;
        }
        match ask(shared, xid, number).await {
            Ok(Some(true)) => return Ok(CommitOutcome::Yes),
            Ok(Some(false)) => return Ok(CommitOutcome::No(error)),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "whether a transaction was committed is not known yet"),
        }
        if began.elapsed() > MAX_ASKING {
            break;
        }
    }
    Err(DbError::Pool(format!("{error}; whether the transaction was committed is not known")))
}

/// Whether it was committed; `None` if it is still being executed.
async fn ask(shared: &Shared, xid: i64, number: i64) -> Result<Option<bool>, DbError> {
    let connection = shared.pool.get().await?;
    let xid = xid.to_string();
    let running = connection.query_typed(IS_RUNNING, &[(&xid, Type::TEXT)]).await?;
    if running.first().is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let params: [Param<'_>; 2] = [(&shared.replica, Type::INT8), (&number, Type::INT8)];
    let committed = connection.query_typed(IS_COMMITTED, &params).await?;
    drop(connection);
    if !committed.first().is_some_and(|row| row.get(0)) {
        return Ok(Some(false));
    }
    // A standby may not have confirmed it: the wait for that can have ended with the connection.
    let barrier = Transaction::begin(&shared.pool).await?;
    barrier.query(BARRIER, &[]).await?;
    barrier.commit().await?;
    Ok(Some(true))
}
