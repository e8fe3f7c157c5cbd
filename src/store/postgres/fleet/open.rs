//! What a process reads about the fleet when it opens the store, and how it joins it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::view::{MAX_SILENCE, Opened};
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::Error;
use crate::store::notifications::MAX_SCANNED_FOR_LAST;
use crate::store::postgres::connect::Pool;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::postgres::schema;
use crate::store::postgres::transaction::{Param, Transaction};

/// A replica that was heard within this time is alive.
pub(super) const ALIVE_NANOS: i64 = MAX_SILENCE.as_nanos() as i64;

const SELECT_STORE: &str = "
    SELECT now_ns(), s.created, s.incarnation, c.body,
           (SELECT max(ready_until) FROM replicas WHERE id <> $1)
    FROM store s, controls c FOR UPDATE OF s";
const SELECT_READY: &str = "
    SELECT id, beat FROM replicas WHERE id <> $1 AND is_ready AND NOT is_stopped AND seen > now_ns() - $2";
/// How long after one another it is looked for signs of life.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const SELECT_KEPT: &str = "
    SELECT source, max(at - ahead) FROM (SELECT source, at, ahead FROM notifications ORDER BY id DESC LIMIT $1) n GROUP BY source";
/// The row of this process, before it is ready.
const JOIN: &str = "
    INSERT INTO replicas (id, name, started, seen, beat, is_ready, schema_step, version)
    VALUES ($1, $2, now_ns(), now_ns(), 0, false, $3, $4)";
/// An SQL expression: when the server was started, and after the last space which database it has: a restored dump is another
/// database or has new tables, and each failover has a new timeline.
const SERVER: &str = "
    concat(extract(epoch FROM pg_postmaster_start_time()), ' ',
        (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()), '/', 'store'::regclass::oid, '/',
        substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))";
/// Without the parts for which some services have no function, or no right to call it.
const TABLE: &str = "
    concat((SELECT d.oid FROM pg_database d WHERE d.datname = current_database()), '/', 'store'::regclass::oid)";

/// Reads what a store needs to know at its start.
pub(in crate::store::postgres) async fn open(pool: &Pool) -> Result<Opened, Error> {
    let read = async {
        let others_are_ready = are_others_ready(pool).await?;
        let transaction = Transaction::begin(pool).await?;
        schema::join(&transaction).await?;
        let params: [Param<'_>; 1] = [(&pool.replica(), Type::INT8)];
        let row = transaction.query_one(SELECT_STORE, &params).await?;
        let controls = read_controls(row.get(3))?;
        let mut incarnation: i64 = row.get(2);
        let expression = server_expression(&transaction).await?;
        let (server, known) = server(&transaction, expression).await?;
        if is_other_database(&known, &server) {
            incarnation = fastrand::i64(1..);
            tracing::warn!("another database than at the last stop, event ids are new from now on");
        }
        let set = "UPDATE store SET server = $1, incarnation = $2";
        transaction.execute(set, &[(&server, Type::TEXT), (&incarnation, Type::INT8)]).await?;
        let params: [Param<'_>; 4] = [
            (&pool.replica(), Type::INT8),
            (&host_name(), Type::TEXT),
            (&schema::SCHEMA_STEP, Type::INT4),
            (&env!("CARGO_PKG_VERSION"), Type::TEXT),
        ];
        transaction.execute(JOIN, &params).await?;
        let last_kept = last_kept(&transaction).await?;
        let opened = Opened {
            now: Time::from_nanos(row.get(0)),
            created: Time::from_nanos(row.get(1)),
            incarnation,
            controls,
            last_stored: row.get::<_, Option<i64>>(4).filter(|_| !others_are_ready).map(Time::from_nanos),
            last_kept,
            server: expression,
        };
        transaction.commit().await?;
        Ok::<_, DbError>(opened)
    };
    read.await.map_err(|error| error.into_store(Stage::Open))
}

/// Whether another replica accepts notifications. The row of one that was killed looks for some seconds as if it did: it
/// counts if it gives a sign of life meanwhile.
async fn are_others_ready(pool: &Pool) -> Result<bool, DbError> {
    let mut first: Option<BTreeMap<i64, i64>> = None;
    loop {
        let transaction = Transaction::begin_reading(pool).await?;
        let params: [Param<'_>; 2] = [(&pool.replica(), Type::INT8), (&ALIVE_NANOS, Type::INT8)];
        let rows = transaction.query(SELECT_READY, &params).await?;
        transaction.commit().await?;
        let beats: BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        if beats.is_empty() {
            return Ok(false);
        }
        let known = first.get_or_insert_with(|| beats.clone());
        if beats.iter().any(|(id, beat)| known.get(id).is_none_or(|before| beat > before)) {
            return Ok(true);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// When the last notification of each source was kept that is among the newest ones.
pub(super) async fn last_kept(transaction: &Transaction) -> Result<BTreeMap<Name, Time>, DbError> {
    let rows = transaction.query(SELECT_KEPT, &[(&i64::from(MAX_SCANNED_FOR_LAST), Type::INT8)]).await?;
    let kept = rows
        .iter()
        .filter_map(|row| Some((Name::new(row.get::<_, &str>(0)).ok()?, Time::from_nanos(row.get(1)))));
    Ok(kept.collect())
}

pub(super) fn read_controls(body: &str) -> Result<Controls, DbError> {
    if body.is_empty() {
        return Ok(Controls::default());
    }
    serde_json::from_str(body)
        .map_err(|error| DbError::Damaged(format!("the controls in the database cannot be read: {error}")))
}

/// The expression by which this process knows which server and database it uses.
async fn server_expression(transaction: &Transaction) -> Result<&'static str, DbError> {
    // A function that is missing or forbidden must not end the transaction.
    transaction.batch("SAVEPOINT server").await?;
    match transaction.query_one(&format!("SELECT {SERVER}"), &[]).await {
        Ok(_) => Ok(SERVER),
        Err(error) if error.is_permanent() || error.is_unsupported() => {
            transaction.batch("ROLLBACK TO SAVEPOINT server").await?;
            Ok(TABLE)
        }
        Err(error) => Err(error),
    }
}

/// Which server and database this is, and the one with which the replicas have worked last.
pub(super) async fn server(transaction: &Transaction, expression: &str) -> Result<(String, String), DbError> {
    let row = transaction.query_one(&format!("SELECT {expression}, server FROM store"), &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// Whether a server has another history than the one that was known: what was committed on one may be missing on the other.
pub(super) fn is_other_database(known: &str, server: &str) -> bool {
    let database = |server: &str| server.rsplit(' ').next().unwrap_or_default().to_owned();
    !known.is_empty() && database(known) != database(server)
}
