//! Transactions. One that is neither committed nor rolled back closes its connection: nobody knows its state.

use std::sync::Arc;
use std::time::Instant;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::commits::Commits;
use super::connect::Pool;
use super::error::DbError;

/// A statement's parameter with its type, since statements are unnamed.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// Durable when it is committed, whatever the role's settings say.
const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit = on";
const BEGIN_READING: &str = "BEGIN READ ONLY";

/// An open transaction.
pub(super) struct Transaction {
    connection: Option<Object>,
    /// Of a transaction that writes.
    writer: Option<Writer>,
}

struct Writer {
    replica: i64,
    commits: Arc<Commits>,
}

impl Transaction {
    /// Begins a transaction on a connection of the pool.
    pub(super) async fn begin(pool: &Pool) -> Result<Self, DbError> {
        let writer = Writer { replica: pool.replica(), commits: pool.commits().clone() };
        let transaction = Self { connection: Some(pool.get().await?), writer: Some(writer) };
        transaction.batch(BEGIN).await?;
        Ok(transaction)
    }

    /// Begins a transaction that only reads.
    pub(super) async fn begin_reading(pool: &Pool) -> Result<Self, DbError> {
        let transaction = Self { connection: Some(pool.get().await?), writer: None };
        transaction.batch(BEGIN_READING).await?;
        Ok(transaction)
    }

    /// Several statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), DbError> {
        Ok(self.client()?.batch_execute(sql).await?)
    }

    /// All rows. Futures of several statements that are polled together are one round trip.
    pub(super) async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, DbError> {
        Ok(self.client()?.query_typed(sql, params).await?)
    }

    /// The only row.
    pub(super) async fn query_one(&self, sql: &str, params: &[Param<'_>]) -> Result<Row, DbError> {
        let rows = self.query(sql, params).await?;
        rows.into_iter().next().ok_or_else(|| DbError::Damaged(format!("a row is missing: {sql}")))
    }

    /// The number of changed rows.
    pub(super) async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, DbError> {
        Ok(self.client()?.execute_typed(sql, params).await?)
    }

    /// Commits. After an error it is unknown whether it was committed, unless the server says that it was not.
    pub(super) async fn commit(mut self) -> Result<(), DbError> {
        match self.writer.take() {
            None => self.batch("COMMIT").await?,
            Some(Writer { replica, commits }) => {
                let number = commits.next();
                self.batch(&format!("INSERT INTO commits VALUES ({replica}, {number}); COMMIT")).await?;
                commits.confirm(number, Instant::now());
            }
        }
        // Back to the pool.
        drop(self.connection.take());
        Ok(())
    }

    /// Gives the transaction up, and keeps its connection.
    pub(super) async fn rollback(mut self) -> Result<(), DbError> {
        self.batch("ROLLBACK").await?;
        drop(self.connection.take());
        Ok(())
    }

    fn client(&self) -> Result<&Object, DbError> {
        // It is there until the transaction is finished, which consumes it.
        self.connection.as_ref().ok_or_else(|| DbError::Pool("the transaction is over".to_owned()))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}
