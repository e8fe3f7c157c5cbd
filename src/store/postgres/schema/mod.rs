//! The schema: its steps, and the checks before a store is used.

use tokio_postgres::types::Type;

use super::connect::Pool;
use super::error::{DbError, Stage};
use super::transaction::Transaction;
use crate::store::Error;

/// The steps, in order. A step is never changed after a release.
const MIGRATIONS: [&str; 1] = [include_str!("step_1.sql")];
/// The schema step of this program.
pub(super) const SCHEMA_STEP: i32 = MIGRATIONS.len() as i32;
/// The lock of migrations: `scalebri` in ASCII.
const LOCK: i64 = 0x7363_616c_6562_7269;
/// The oldest version of the server, as `server_version_num`.
const MIN_VERSION: i32 = 150_000;

/// Checks the server, and brings the schema to the step of this program.
pub(super) async fn migrate(pool: &Pool) -> Result<(), Error> {
    let transaction = Transaction::begin(pool).await.map_err(|error| error.into_store(Stage::Open))?;
    let migrated = migrate_in(&transaction).await;
    match migrated {
        Ok(()) => transaction.commit().await.map_err(|error| error.into_store(Stage::Open)),
        Err(error) => Err(error),
    }
}

async fn migrate_in(transaction: &Transaction) -> Result<(), Error> {
    let at_open = |error: DbError| error.into_store(Stage::Open);
    let settings = "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                           current_setting('fsync'), pg_is_in_recovery()";
    let row = transaction.query_one(settings, &[]).await.map_err(at_open)?;
    let (version, version_text): (i32, String) = (row.get(0), row.get(1));
    if version < MIN_VERSION {
        return Err(Error::Unusable(format!(
            "the server is PostgreSQL {version_text}; upgrade it: 15 is the oldest version that scalebridge supports"
        )));
    }
    if row.get::<_, String>(2) == "off" {
        return Err(Error::Unusable(
            "the server has `fsync = off`, so it loses what it has confirmed; set `fsync = on` and restart it".to_owned(),
        ));
    }
    if row.get::<_, bool>(3) {
        return Err(Error::Unusable(
            "the server is a standby, which is read-only; connect to the primary, or add \
             `target_session_attrs=read-write` to the URL"
                .to_owned(),
        ));
    }
    transaction.query("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await.map_err(at_open)?;
    let exists =
        transaction.query_one("SELECT to_regclass('store') IS NOT NULL", &[]).await.map_err(at_open)?;
    let step: i32 = if exists.get(0) {
        let row = transaction.query_one("SELECT schema_step FROM store", &[]).await.map_err(at_open)?;
        row.get(0)
    } else {
        0
    };
    // The next step only adds what this program does not need.
    if step > SCHEMA_STEP + 1 {
        return Err(Error::Unusable(format!(
            "the database has schema step {step}, of a newer scalebridge; this one can use up to step {}: start the \
             newer version",
            SCHEMA_STEP + 1
        )));
    }
    let Ok(done) = usize::try_from(step) else {
        return Err(Error::Unusable(format!("the database has the invalid schema step {step}")));
    };
    for sql in MIGRATIONS.iter().skip(done) {
        transaction.batch(sql).await.map_err(at_open)?;
    }
    if step == 0 {
        let store = "INSERT INTO store (id, created, schema_step) VALUES (1, now_ns(), $1)";
        transaction.execute(store, &[(&SCHEMA_STEP, Type::INT4)]).await.map_err(at_open)?;
        let controls = "INSERT INTO controls VALUES (1, 0, 0, '')";
        transaction.execute(controls, &[]).await.map_err(at_open)?;
        let rates = "INSERT INTO rates VALUES (1, 0, ''), (2, 0, '')";
        transaction.execute(rates, &[]).await.map_err(at_open)?;
    } else if step < SCHEMA_STEP {
        let set = "UPDATE store SET schema_step = $1";
        transaction.execute(set, &[(&SCHEMA_STEP, Type::INT4)]).await.map_err(at_open)?;
    }
    Ok(())
}
