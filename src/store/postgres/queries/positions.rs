//! Positions of records and kept notifications, which contain ids of transactions.

use crate::store::Error;
use crate::store::postgres::connect::Pool;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::postgres::transaction::Transaction;

/// The first statement of its transaction, so that all that it sees was added by earlier ones.
const RAISE: &str = "
    UPDATE store SET xid_offset = xid_offset + ((last.position - first_position()) >> 20) + 1
    FROM (SELECT greatest((SELECT max(id) FROM records), (SELECT max(id) FROM notifications), 0) AS position) last
    WHERE last.position >= first_position()";

/// Makes new positions larger than all that were used: a server counts its transactions anew after a dump was restored.
pub(in crate::store::postgres) async fn continue_after_used(pool: &Pool) -> Result<(), Error> {
    let raised = async {
        let transaction = Transaction::begin(pool).await?;
        let is_raised = transaction.execute(RAISE, &[]).await? > 0;
        transaction.commit().await?;
        Ok::<_, DbError>(is_raised)
    };
    if raised.await.map_err(|error| error.into_store(Stage::Open))? {
        tracing::info!("the server's transaction ids began anew, positions of records go on");
    }
    Ok(())
}
