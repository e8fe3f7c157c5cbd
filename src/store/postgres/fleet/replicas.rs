//! The replicas of the fleet: each has a row that says that it is alive, and notices when the database came back behind.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::view::Opened;
use crate::domain::control::{Controls, GapCause, ReceptionGap};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::Error;
use crate::store::notifications::MAX_SCANNED_FOR_LAST;
use crate::store::postgres::Shared;
use crate::store::postgres::connect::Pool;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::postgres::schema;
use crate::store::postgres::transaction::Transaction;

/// The interval of the signs of life.
const INTERVAL: Duration = Duration::from_secs(1);
/// A replica that was heard within this time is alive.
const ALIVE_NANOS: i64 = 5_000_000_000;
/// Rows of replicas that were not heard for a day are deleted.
const FORGOTTEN_NANOS: i64 = 86_400_000_000_000;

const SELECT_STORE: &str = "
    SELECT now_ns(), s.created, s.incarnation, s.server, c.body,
           (SELECT max(ready_until) FROM replicas WHERE id <> $1),
           EXISTS (SELECT 1 FROM replicas WHERE id <> $1 AND is_ready AND seen > now_ns() - $2)
    FROM store s, controls c";
const SELECT_KEPT: &str = "
    SELECT source, max(at - ahead) FROM (SELECT source, at, ahead FROM notifications ORDER BY id DESC LIMIT $1) n GROUP BY source";
/// When the server was started, and its timeline: each failover has a new one.
const SELECT_SERVER: &str = "
    SELECT pg_postmaster_start_time()::text || ' ' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
const BEAT: &str = "
    INSERT INTO replicas AS r (id, name, started, seen, beat, is_ready, ready_until, schema_step)
    VALUES ($1, $2, now_ns(), now_ns(), $3, $4, CASE WHEN $4 THEN now_ns() END, $5)
    ON CONFLICT (id) DO UPDATE SET seen = now_ns(), beat = r.beat + 1, is_ready = $4,
        ready_until = CASE WHEN $4 THEN now_ns() ELSE r.ready_until END
    RETURNING beat,
        EXISTS (SELECT 1 FROM replicas o WHERE o.id <> $1 AND o.is_ready AND o.seen > now_ns() - $6)";
const COUNT_COMMITS: &str = "SELECT count(*) FROM commits WHERE replica = $1 AND number = ANY ($2)";

/// Reads what a store needs to know at its start.
pub(in crate::store::postgres) async fn open(pool: &Pool) -> Result<Opened, Error> {
    let read = async {
        let transaction = Transaction::begin(pool).await?;
        let params = [(&pool.replica() as _, Type::INT8), (&ALIVE_NANOS as _, Type::INT8)];
        let row = transaction.query_one(SELECT_STORE, &params).await?;
        let controls = read_controls(row.get(4))?;
        let others_are_ready: bool = row.get(6);
        let mut incarnation: i64 = row.get(2);
        let server = server(&transaction).await?;
        let known: &str = row.get(3);
        // Nobody was there to see what happened meanwhile.
        if !others_are_ready && !known.is_empty() && timeline(known) != timeline(&server) {
            incarnation = fastrand::i64(1..);
            tracing::warn!(
                "the database has another timeline than at the last stop: event ids are new from now on"
            );
        }
        let set = "UPDATE store SET server = $1, incarnation = $2";
        transaction.execute(set, &[(&server, Type::TEXT), (&incarnation, Type::INT8)]).await?;
        let mut last_kept = BTreeMap::new();
        for row in transaction.query(SELECT_KEPT, &[(&i64::from(MAX_SCANNED_FOR_LAST), Type::INT8)]).await? {
            if let Ok(source) = Name::new(row.get(0)) {
                last_kept.insert(source, Time::from_nanos(row.get(1)));
            }
        }
        let opened = Opened {
            now: Time::from_nanos(row.get(0)),
            created: Time::from_nanos(row.get(1)),
            incarnation,
            controls,
            last_stored: row.get::<_, Option<i64>>(5).filter(|_| !others_are_ready).map(Time::from_nanos),
            last_kept,
        };
        transaction.commit().await?;
        Ok::<_, DbError>(opened)
    };
    read.await.map_err(|error| error.into_store(Stage::Open))
}

fn read_controls(body: &str) -> Result<Controls, DbError> {
    if body.is_empty() {
        return Ok(Controls::default());
    }
    serde_json::from_str(body)
        .map_err(|error| DbError::Damaged(format!("the controls in the database cannot be read: {error}")))
}

/// Empty if the server does not say.
async fn server(transaction: &Transaction) -> Result<String, DbError> {
    // A function that is missing or forbidden must not end the transaction.
    transaction.batch("SAVEPOINT server").await?;
    match transaction.query_one(SELECT_SERVER, &[]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error) if error.is_permanent() || error.is_unsupported() => {
            transaction.batch("ROLLBACK TO SAVEPOINT server").await?;
            Ok(String::new())
        }
        Err(error) => Err(error),
    }
}

fn timeline(server: &str) -> &str {
    server.rsplit(' ').next().unwrap_or_default()
}

/// Shows that this process is alive until the store is gone.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut replica = Replica { name: host_name(), beat: 0, server: String::new() };
    loop {
        {
            let Some(shared) = shared.upgrade().filter(|shared| !shared.pool.is_closed()) else { return };
            if let Err(error) = replica.beat(&shared).await {
                tracing::debug!(%error, "no sign of life in the database");
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What this process knows about its row.
#[derive(Default)]
pub(super) struct Replica {
    name: String,
    /// The last one that the server has confirmed.
    beat: i64,
    server: String,
}

impl Replica {
    pub(super) async fn beat(&mut self, shared: &Shared) -> Result<(), DbError> {
        let transaction = Transaction::begin(&shared.pool).await?;
        let is_ready = shared.fleet.is_ready.load(Ordering::Relaxed);
        let next = self.beat + 1;
        let params = [
            (&shared.replica as _, Type::INT8),
            (&self.name as _, Type::TEXT),
            (&next as _, Type::INT8),
            (&is_ready as _, Type::BOOL),
            (&schema::SCHEMA_STEP as _, Type::INT4),
            (&ALIVE_NANOS as _, Type::INT8),
        ];
        let row = transaction.query_one(BEAT, &params).await?;
        let (beat, others_are_ready): (i64, bool) = (row.get(0), row.get(1));
        let server = server(&transaction).await?;
        let is_other_server = !self.server.is_empty() && self.server != server;
        let is_behind = beat < next || is_other_server && has_lost_commits(&transaction, shared).await?;
        let oldest = shared.pool.commits().oldest().unwrap_or(0);
        let forget = "DELETE FROM commits WHERE replica = $1 AND number < $2";
        transaction.execute(forget, &[(&shared.replica, Type::INT8), (&oldest, Type::INT8)]).await?;
        if beat % 60 == 1 {
            forget_others(&transaction).await?;
        }
        if is_behind || is_other_server {
            adopt(&transaction, shared, &server, is_behind).await?;
        }
        transaction.commit().await?;
        (self.beat, self.server) = (beat, server);
        shared.fleet.others_are_ready.store(others_are_ready, Ordering::Relaxed);
        if is_behind {
            shared.pool.commits().clear();
        }
        Ok(())
    }
}

#[cfg(test)]
impl Replica {
    /// Begins where the task of the store is.
    pub(super) async fn adopt_row(&mut self, shared: &Shared) {
        let transaction = Transaction::begin_reading(&shared.pool).await.unwrap();
        let beat = "SELECT coalesce(max(beat), 0) FROM replicas WHERE id = $1";
        let row = transaction.query_one(beat, &[(&shared.replica, Type::INT8)]).await.unwrap();
        self.beat = row.get(0);
        transaction.commit().await.unwrap();
    }

    pub(super) fn set_server(&mut self, server: &str) {
        server.clone_into(&mut self.server);
    }
}

/// Whether a transaction that was confirmed to this process is missing.
async fn has_lost_commits(transaction: &Transaction, shared: &Shared) -> Result<bool, DbError> {
    let confirmed = shared.pool.commits().confirmed();
    let params = [(&shared.replica as _, Type::INT8), (&confirmed as _, Type::INT8_ARRAY)];
    let found: i64 = transaction.query_one(COUNT_COMMITS, &params).await?.get(0);
    Ok(found < confirmed.len() as i64)
}

/// Deletes the rows of replicas that are gone.
async fn forget_others(transaction: &Transaction) -> Result<(), DbError> {
    let params = [(&FORGOTTEN_NANOS as _, Type::INT8)];
    transaction.execute("DELETE FROM replicas WHERE seen < now_ns() - $1", &params).await?;
    let commits = "DELETE FROM commits c WHERE NOT EXISTS (SELECT 1 FROM replicas r WHERE r.id = c.replica)";
    transaction.execute(commits, &[]).await?;
    Ok(())
}

/// Goes on with the server as it is. If it is behind what this process has seen, what was decided meanwhile is unknown:
/// ids of events are new from now on, and all sources have a reception gap.
async fn adopt(
    transaction: &Transaction,
    shared: &Shared,
    server: &str,
    is_behind: bool,
) -> Result<(), DbError> {
    let row =
        transaction.query_one("SELECT incarnation, server, now_ns() FROM store FOR UPDATE", &[]).await?;
    let (incarnation, known): (i64, String) = (row.get(0), row.get(1));
    let now = Time::from_nanos(row.get(2));
    let is_seen = known == server && incarnation != shared.fleet.incarnation();
    if !is_behind || is_seen {
        let set = "UPDATE store SET server = $1 WHERE server <> $1";
        transaction.execute(set, &[(&server, Type::TEXT)]).await?;
        shared.fleet.set_incarnation(incarnation);
        return Ok(());
    }
    let incarnation = fastrand::i64(1..);
    let set = "UPDATE store SET server = $1, incarnation = $2";
    transaction.execute(set, &[(&server, Type::TEXT), (&incarnation, Type::INT8)]).await?;
    let row = transaction.query_one("SELECT body FROM controls FOR UPDATE", &[]).await?;
    let mut controls = read_controls(row.get(0))?;
    let last_seen = shared.clock.last_set();
    for source in shared.fleet.controls().receiving() {
        let gap = ReceptionGap { from: last_seen, until: now, cause: GapCause::Store };
        controls.record_gap(source, gap);
    }
    // Above what this process has seen, so that nobody takes it for older.
    controls.version = controls.version.max(shared.fleet.controls().version) + 1;
    let (version, generation) = (controls.version as i64, controls.generation as i64);
    let body = serde_json::to_string(&controls).map_err(|error| DbError::Damaged(error.to_string()))?;
    let set = "UPDATE controls SET version = $1, generation = $2, body = $3";
    let params = [(&version as _, Type::INT8), (&generation as _, Type::INT8), (&body as _, Type::TEXT)];
    transaction.execute(set, &params).await?;
    shared.fleet.set_incarnation(incarnation);
    tracing::error!(
        from = %last_seen.millis(),
        until = %now.millis(),
        "the database came back behind what was confirmed: what happened in between is lost, nothing is decreased \
         until the sources were heard again, and event ids are new from now on"
    );
    shared.fleet.rewinds.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Deletes the row of this process.
pub(super) async fn remove(shared: &Shared) -> Result<(), DbError> {
    let transaction = Transaction::begin(&shared.pool).await?;
    let set = "UPDATE replicas SET is_ready = false WHERE id = $1";
    transaction.execute(set, &[(&shared.replica, Type::INT8)]).await?;
    transaction.commit().await
}
