//! Transactions. One that is neither committed nor rolled back closes its connection: its state is unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use deadpool::managed::Object;
use futures_util::future::try_join;
use tokio_postgres::Row;

use super::commits::Commits;
pub(super) use super::connect::Param;
use super::connect::{Connection, Pool, Session};
use super::error::DbError;

/// Durable when it is committed, whatever the role's settings say. Each statement sees what was committed before it, as
/// the statements after a lock need. Not `READ WRITE`, which a standby refuses before it can be asked what it is. Statements are
/// short: to compile them takes longer.
///
/// A replica that is cut off or stopped in the middle of a transaction would keep its locks until TCP notices that, which takes
/// two hours by default. The server ends the transaction instead, before others give up waiting for these locks.
macro_rules! begin {
    ($lock_timeout:literal) => {
        concat!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on; SET LOCAL jit = off;
    SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL lock_timeout = '",
            $lock_timeout,
            "'"
        )
    };
}
const BEGIN_READING: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL idle_in_transaction_session_timeout = '10s'";
/// For the schema and for imports.
const BEGIN_UNLIMITED: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on; SET LOCAL jit = off;
    SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0";

/// How long a transaction waits for a lock that another one holds. All of the store are short: one that holds a lock for long
/// belongs to somebody else, such as an operator's session that was left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum LockWait {
    /// For as long as a failover or a migration can take.
    #[default]
    Long,
    /// Several pieces of work share the transaction: those that can do without the lock are run apart then. Longer than the
    /// server lets a transaction be idle, so that one of a replica that was cut off ends before.
    Shared,
    /// The lock was waited for in vain already.
    Short,
}

impl LockWait {
    /// For a transaction of so many pieces of work.
    pub(super) fn of(pieces: usize) -> Self {
        if pieces > 1 { Self::Shared } else { Self::Long }
    }

    const fn begin(self) -> &'static str {
        match self {
            Self::Long => begin!("15s"),
            Self::Shared => begin!("11s"),
            Self::Short => begin!("1s"),
        }
    }
}

/// An open transaction.
pub(super) struct Transaction {
    connection: Option<Connection>,
    /// Of a transaction that writes.
    writer: Option<Writer>,
    /// How it is begun: with its first statement, in the same round trip.
    begin: &'static str,
    has_begun: AtomicBool,
    round_trips: AtomicU32,
}

struct Writer {
    replica: i64,
    commits: Arc<Commits>,
}

/// A commit that has failed.
pub(super) struct FailedCommit {
    /// The row that it has added to `commits`.
    pub number: i64,
    pub error: DbError,
}

impl Transaction {
    /// Begins a transaction on a connection of the pool.
    pub(super) async fn begin(pool: &Pool) -> Result<Self, DbError> {
        Self::begin_with(pool, LockWait::Long).await
    }

    /// The same, which waits so long for locks.
    pub(super) async fn begin_with(pool: &Pool, wait: LockWait) -> Result<Self, DbError> {
        let writer = Writer { replica: pool.replica(), commits: pool.commits().clone() };
        let begin = if pool.is_limited() { wait.begin() } else { BEGIN_UNLIMITED };
        Ok(Self::new(pool.get().await?, begin, Some(writer)))
    }

    /// Begins a transaction that only reads.
    pub(super) async fn begin_reading(pool: &Pool) -> Result<Self, DbError> {
        Ok(Self::new(pool.get().await?, BEGIN_READING, None))
    }

    fn new(connection: Connection, begin: &'static str, writer: Option<Writer>) -> Self {
        let (has_begun, round_trips) = Default::default();
        Self { connection: Some(connection), writer, begin, has_begun, round_trips }
    }

    /// Several statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), DbError> {
        self.send(async { self.client()?.batch_execute(sql).await }).await
    }

    /// All rows. Futures of several statements that are polled together are one round trip, and are executed in their
    /// order.
    pub(super) async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, DbError> {
        self.send(async { self.client()?.query_typed(sql, params).await }).await
    }

    /// The only row.
    pub(super) async fn query_one(&self, sql: &str, params: &[Param<'_>]) -> Result<Row, DbError> {
        let rows = self.query(sql, params).await?;
        rows.into_iter().next().ok_or_else(|| DbError::Damaged(format!("a row is missing: {sql}")))
    }

    /// The number of changed rows.
    pub(super) async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, DbError> {
        self.send(async { self.client()?.execute_typed(sql, params).await }).await
    }

    /// Commits. After an error it is unknown whether it was committed, unless the server says that it was not.
    pub(super) async fn commit(self) -> Result<(), DbError> {
        self.commit_numbered().await.map_err(|failed| failed.error)
    }

    /// Commits, as [`commit`](Self::commit). With the number, the caller can find out whether it was committed.
    pub(super) async fn commit_numbered(mut self) -> Result<(), FailedCommit> {
        let Some(Writer { replica, commits }) = self.writer.take() else {
            return self.end("COMMIT").await.map_err(|error| FailedCommit { number: 0, error });
        };
        let number = commits.next();
        let committed = self.end(&format!("INSERT INTO commits VALUES ({replica}, {number}); COMMIT")).await;
        committed.map_err(|error| FailedCommit { number, error })?;
        commits.confirm(number, Instant::now());
        Ok(())
    }

    /// Gives the transaction up, and keeps its connection.
    pub(super) async fn rollback(self) -> Result<(), DbError> {
        self.end("ROLLBACK").await
    }

    /// How often the server was waited for since the beginning.
    pub(super) fn round_trips(&self) -> u32 {
        self.round_trips.load(Ordering::Relaxed)
    }

    async fn end(mut self, sql: &str) -> Result<(), DbError> {
        if *self.has_begun.get_mut() {
            self.client()?.batch_execute(sql).await?;
        }
        // Back to the pool.
        drop(self.connection.take());
        Ok(())
    }

    /// Runs a statement, and begins the transaction before the first one.
    async fn send<R>(&self, statement: impl Future<Output = Result<R, DbError>>) -> Result<R, DbError> {
        // It waits for the results that have arrived by now, and for no others.
        let round_trip = self.round_trips() + 1;
        let result = if self.has_begun.swap(true, Ordering::Relaxed) {
            statement.await?
        } else {
            let begin = async { self.client()?.batch_execute(self.begin).await };
            try_join(begin, statement).await?.1
        };
        self.round_trips.fetch_max(round_trip, Ordering::Relaxed);
        Ok(result)
    }

    fn client(&self) -> Result<&Session, DbError> {
        // It is there until the transaction is finished, which consumes it.
        self.connection.as_deref().ok_or_else(|| DbError::Pool("the transaction is over".to_owned()))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let is_open = *self.has_begun.get_mut();
        if let Some(connection) = self.connection.take().filter(|_| is_open) {
            drop(Object::take(connection));
        }
    }
}
