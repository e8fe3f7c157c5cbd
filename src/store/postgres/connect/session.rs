//! A connection that waits a limited time for each answer: a server, a pooler or a network can hang without closing it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::store::postgres::error::DbError;

/// A statement's parameter with its type, since statements are unnamed.
pub(in crate::store::postgres) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// How long an answer may take. Longer than the server lets a statement wait for a lock, see `transaction`.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A connection of the pool.
pub(in crate::store::postgres) struct Session {
    client: Client,
    /// None for the schema and for imports, whose statements can take any time.
    limit: Option<Duration>,
    /// An answer did not come in time: what the connection does is unknown.
    is_silent: AtomicBool,
}

impl Session {
    pub(super) fn new(client: Client, is_limited: bool) -> Self {
        Self { client, limit: is_limited.then_some(ANSWER_LIMIT), is_silent: AtomicBool::new(false) }
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.is_silent.load(Ordering::Relaxed)
    }

    pub(in crate::store::postgres) async fn query_typed(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, DbError> {
        self.answered(self.client.query_typed(sql, params)).await
    }

    pub(in crate::store::postgres) async fn execute_typed(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<u64, DbError> {
        self.answered(self.client.execute_typed(sql, params)).await
    }

    pub(in crate::store::postgres) async fn batch_execute(&self, sql: &str) -> Result<(), DbError> {
        self.answered(self.client.batch_execute(sql)).await
    }

    async fn answered<R>(
        &self,
        answer: impl Future<Output = Result<R, tokio_postgres::Error>>,
    ) -> Result<R, DbError> {
        let Some(limit) = self.limit else { return Ok(answer.await?) };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                self.is_silent.store(true, Ordering::Relaxed);
                Err(DbError::NoAnswer(limit))
            }
        }
    }
}
