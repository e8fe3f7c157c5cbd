//! Statements outside of a transaction.

use tokio_postgres::Row;

use crate::store::postgres::connect::{Connection, Pool};
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::Param;

/// A connection for statements that change nothing. Each sees what is committed when it starts.
pub(super) struct Reader(Connection);

impl Reader {
    pub(super) async fn new(pool: &Pool) -> Result<Self, DbError> {
        pool.get().await.map(Self)
    }

    /// All rows.
    pub(super) async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, DbError> {
        self.0.query_typed(sql, params).await
    }

    /// The only row.
    pub(super) async fn query_one(&self, sql: &str, params: &[Param<'_>]) -> Result<Row, DbError> {
        let rows = self.query(sql, params).await?;
        rows.into_iter().next().ok_or_else(|| DbError::Damaged(format!("a row is missing: {sql}")))
    }
}
