//! The schema: its steps, and the checks before a store is used.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio_postgres::types::Type;

use super::connect::Pool;
use super::error::{DbError, STATEMENT_TIMEOUT_FIX, Stage};
use super::transaction::Transaction;
use crate::store::Error;

/// The steps, in order. A step is never changed after a release.
const MIGRATIONS: [&str; 1] = [include_str!("step_1.sql")];
/// The schema step of this program.
pub(super) const SCHEMA_STEP: i32 = MIGRATIONS.len() as i32;
/// The lock of migrations: `scalebri` in ASCII.
const LOCK: i64 = 0x7363_616c_6562_7269;
/// A statement waits up to 15 s for the lock of another one.
const MIN_STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The oldest version of the server, as `server_version_num`.
const MIN_VERSION: i32 = 150_000;

/// Checks the server, and brings the schema to the step of this program.
pub(super) async fn migrate(pool: &Pool) -> Result<(), Error> {
    migrate_to(pool, &MIGRATIONS).await
}

/// As a program with these steps does.
async fn migrate_to(pool: &Pool, steps: &[&str]) -> Result<(), Error> {
    // A standby allows nothing else.
    let reading = Transaction::begin_reading(pool).await.map_err(|error| error.into_store(Stage::Open))?;
    check_server(&reading).await?;
    reading.commit().await.map_err(|error| error.into_store(Stage::Open))?;
    let transaction = Transaction::begin(pool).await.map_err(|error| error.into_store(Stage::Open))?;
    migrate_in(&transaction, steps).await?;
    transaction.commit().await.map_err(|error| error.into_store(Stage::Open))
}

/// Checks that the server can be used.
async fn check_server(transaction: &Transaction) -> Result<(), Error> {
    let settings = "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                           current_setting('fsync'), pg_is_in_recovery(), current_setting('server_encoding'),
                           current_setting('default_transaction_read_only'),
                           (SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout')";
    let row =
        transaction.query_one(settings, &[]).await.map_err(|error: DbError| error.into_store(Stage::Open))?;
    let (version, version_text): (i32, String) = (row.get(0), row.get(1));
    if version < MIN_VERSION {
        return Err(unusable(&format!(
            "the server is PostgreSQL {version_text}; upgrade it: 15 is the oldest version that scalebridge supports"
        )));
    }
    if row.get::<_, String>(2) == "off" {
        return Err(unusable(
            "the server has `fsync = off`, so it loses what it has confirmed; set `fsync = on` and restart it",
        ));
    }
    if row.get::<_, bool>(3) {
        return Err(unusable(
            "the server is a standby, which is read-only; connect to the primary, or add \
             `target_session_attrs=read-write` to the URL",
        ));
    }
    check_role(row.get(5), row.get(6))?;
    let encoding: &str = row.get(4);
    if encoding != "UTF8" {
        return Err(unusable(&format!(
            "the database has the encoding {encoding}, in which some labels cannot be stored; create it with \
             `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`"
        )));
    }
    Ok(())
}

/// Checks the settings that the role has, or its database or server. `statement_timeout` is in milliseconds, 0 for none.
fn check_role(read_only: &str, statement_timeout: i64) -> Result<(), Error> {
    if read_only == "on" {
        return Err(unusable(
            "the role, its database or the server has `default_transaction_read_only = on`, so nothing can be written; \
             `ALTER ROLE … SET default_transaction_read_only = off`",
        ));
    }
    if (1..MIN_STATEMENT_TIMEOUT.as_millis() as i64).contains(&statement_timeout) {
        return Err(unusable(&format!(
            "statements of the role are ended after {statement_timeout} ms (`statement_timeout`), but one may have to wait for \
             others; {STATEMENT_TIMEOUT_FIX}"
        )));
    }
    Ok(())
}

async fn migrate_in(transaction: &Transaction, steps: &[&str]) -> Result<(), Error> {
    let at_open = |error: DbError| error.into_store(Stage::Open);
    let target = i32::try_from(steps.len()).unwrap_or(i32::MAX);
    transaction.query("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await.map_err(at_open)?;
    let exists =
        transaction.query_one("SELECT to_regclass('store') IS NOT NULL", &[]).await.map_err(at_open)?;
    let step = if exists.get(0) { stored_step(transaction).await.map_err(at_open)? } else { 0 };
    // The next step only adds what this program does not need.
    if step > target + 1 {
        return Err(unusable(&format!(
            "the database has schema step {step}, of a newer scalebridge; this one can use up to step {}: start the \
             newer version",
            target + 1
        )));
    }
    let Ok(done) = usize::try_from(step) else {
        return Err(unusable(&format!("the database has the invalid schema step {step}")));
    };
    for sql in steps.iter().skip(done) {
        transaction.batch(sql).await.map_err(at_open)?;
    }
    if step == 0 {
        let store = "INSERT INTO store (id, created, schema_step) VALUES (1, now_ns(), $1)";
        transaction.execute(store, &[(&target, Type::INT4)]).await.map_err(at_open)?;
        let controls = "INSERT INTO controls VALUES (1, 0, 0, '')";
        transaction.execute(controls, &[]).await.map_err(at_open)?;
        let rates = "INSERT INTO rates VALUES (1, 0, ''), (2, 0, '')";
        transaction.execute(rates, &[]).await.map_err(at_open)?;
    } else if step < target {
        let set = "UPDATE store SET schema_step = $1";
        transaction.execute(set, &[(&target, Type::INT4)]).await.map_err(at_open)?;
        tracing::info!(from = step, to = target, "the schema of the database was brought to a newer step");
    }
    Ok(())
}

async fn stored_step(transaction: &Transaction) -> Result<i32, DbError> {
    Ok(transaction.query_one("SELECT schema_step FROM store", &[]).await?.get(0))
}

/// Checks that this program can read what was written. Until the transaction ends, no newer one can begin to write what it
/// cannot read: that takes the lock of migrations, and sees the row of this process in `replicas`.
pub(super) async fn join(transaction: &Transaction) -> Result<(), DbError> {
    transaction.query("SELECT pg_advisory_xact_lock_shared($1)", &[(&LOCK, Type::INT8)]).await?;
    let row = transaction.query_one("SELECT min_step FROM store", &[]).await?;
    check_readable(row.get(0)).map_err(DbError::Damaged)
}

/// Whether this program can read what bridges of `min_step` and later steps have written.
pub(super) fn check_readable(min_step: i32) -> Result<(), String> {
    if min_step <= SCHEMA_STEP {
        return Ok(());
    }
    Err(format!(
        "a newer scalebridge has written to the database what this version cannot read, which knows schema step {SCHEMA_STEP}: \
         start a version that knows step {min_step}"
    ))
}

fn unusable(text: &str) -> Error {
    Error::Unusable(format!("store.postgres: {text}"))
}
