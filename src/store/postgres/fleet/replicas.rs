//! The signs of life of this process, which show it the others too, and whether the database came back behind.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::configuration;
use super::open::{ALIVE_NANOS, host_name, is_other_database, read_controls, server};
use crate::domain::control::{GapCause, ReceptionGap};
use crate::domain::time::Time;
use crate::store::postgres::Shared;
use crate::store::postgres::clock::wall_clock;
use crate::store::postgres::error::{DbError, TABLE_RIGHTS_FIX};
use crate::store::postgres::schema;
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::{Replica, Replicas, Rewinds};

/// The interval of the signs of life.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rows of replicas that were not heard for a day are deleted.
const FORGOTTEN_NANOS: i64 = 86_400_000_000_000;
/// Replicas that were lost are listed for an hour.
const LISTED_NANOS: i64 = 3_600_000_000_000;

/// Returns also when a replica was heard last before, as far as this database knows; and since when a replica is missed that
/// accepted notifications, and whether it is this one. Others are not missed again before they are back.
const BEAT: &str = "
    WITH missed AS MATERIALIZED (
        SELECT min(seen) AS since, bool_or(id = $1) AS is_own FROM replicas
        WHERE is_ready AND NOT is_stopped AND seen < now_ns() - $6
    ), lost AS (
        UPDATE replicas SET is_ready = false WHERE id IN (
            SELECT o.id FROM replicas o
            WHERE o.is_ready AND NOT o.is_stopped AND o.id <> $1 AND o.seen < now_ns() - $6
            FOR NO KEY UPDATE SKIP LOCKED)
    )
    INSERT INTO replicas AS r
        (id, name, started, seen, beat, is_ready, ready_until, schema_step, version, clock_offset, configuration)
    VALUES ($1, $2, now_ns(), now_ns(), $3, $4, CASE WHEN $4 THEN now_ns() END, $5, $7, $8, $9)
    ON CONFLICT (id) DO UPDATE SET seen = now_ns(), beat = r.beat + 1, is_ready = $4, clock_offset = $8,
        ready_until = CASE WHEN $4 THEN now_ns() ELSE r.ready_until END
    RETURNING beat,
        EXISTS (SELECT 1 FROM replicas o WHERE o.id <> $1 AND o.is_ready AND o.seen > now_ns() - $6),
        now_ns(), (SELECT max(o.seen) FROM replicas o), (SELECT since FROM missed), (SELECT is_own FROM missed)";
const SELECT_REPLICAS: &str = "
    SELECT s.schema_step, s.min_step, r.id, r.name, r.version, r.schema_step, r.started, r.seen,
        r.seen > now_ns() - $1, r.is_ready, r.clock_offset, now_ns()
    FROM store s, replicas r WHERE NOT r.is_stopped AND r.seen > now_ns() - $2 ORDER BY r.name, r.started";
/// The tables of the bridge that the role cannot read and write.
const LACKING_RIGHTS: &str = "
    SELECT current_user::text, string_agg(c.relname, ', ' ORDER BY c.relname) FILTER (WHERE NOT (
        has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')))
    FROM unnest('{audit,clock_steps,commits,controls,deliveries,destinations,events,notifications,rates,record_targets,records,
        replica_destinations,replicas,store,target_alerts,targets}'::regclass[]) AS own (id) JOIN pg_class c ON c.oid = own.id";
const LOCK_STORE: &str = "SELECT incarnation, server, rewound, now_ns() FROM store FOR UPDATE";
/// From those on that were not deleted yet: index entries of deleted rows stay until vacuum removes them, which a long
/// transaction prevents.
pub(super) const FORGET_COMMITS: &str = "
    DELETE FROM commits WHERE replica = $1 AND number >= $2 AND number < $3";
/// With their commits: nothing else has to be looked for among those of all replicas.
const FORGET_REPLICAS: &str = "
    WITH gone AS (DELETE FROM replicas WHERE seen < now_ns() - $1 RETURNING id)
    DELETE FROM commits USING gone WHERE commits.replica = gone.id";
const COUNT_COMMITS: &str = "SELECT count(*) FROM commits WHERE replica = $1 AND number = ANY ($2)";

/// Shows that this process is alive until the store is gone.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut replica = Heartbeat { name: host_name(), ..Heartbeat::default() };
    let Some(beat_now) = shared.upgrade().map(|shared| shared.fleet.beat_now.clone()) else { return };
    loop {
        {
            let Some(shared) = shared.upgrade().filter(|shared| !shared.pool.is_closed()) else { return };
            if let Err(error) = replica.beat(&shared).await {
                tracing::debug!(%error, "no sign of life in the database");
                if !error.is_conflict() {
                    shared.health.failed(&error.with_fix());
                }
            }
        }
        drop(tokio::time::timeout(INTERVAL, beat_now.notified()).await);
    }
}

/// What this process knows about its row.
#[derive(Default)]
pub(super) struct Heartbeat {
    name: String,
    /// The last one that the server has confirmed.
    beat: i64,
    server: String,
    /// The wall clock of this process minus the server's.
    clock_offset: Option<i64>,
    /// The rows of `commits` below this number are deleted.
    oldest_commit: i64,
}

impl Heartbeat {
    pub(super) async fn beat(&mut self, shared: &Shared) -> Result<(), DbError> {
        let _row = shared.fleet.row.lock().await;
        let transaction = Transaction::begin(&shared.pool).await?;
        let is_ready = shared.fleet.is_ready.load(Ordering::Relaxed) && shared.health.too_old().is_none();
        let next = self.beat + 1;
        let configuration = shared.fleet.configuration.load(Ordering::Relaxed);
        let params: [Param<'_>; 9] = [
            (&shared.replica, Type::INT8),
            (&self.name, Type::TEXT),
            (&next, Type::INT8),
            (&is_ready, Type::BOOL),
            (&schema::SCHEMA_STEP, Type::INT4),
            (&ALIVE_NANOS, Type::INT8),
            (&env!("CARGO_PKG_VERSION"), Type::TEXT),
            (&self.clock_offset, Type::INT8),
            (&configuration, Type::INT8),
        ];
        let asked = wall_clock();
        let row = transaction.query_one(BEAT, &params).await?;
        let answered = wall_clock();
        let (beat, others_are_ready): (i64, bool) = (row.get(0), row.get(1));
        let clock_offset = offset(asked, Time::from_nanos(row.get(2)), answered);
        check_rights(&transaction).await?;
        configuration::see(&transaction, shared).await?;
        list(&transaction, shared).await?;
        let (server, known) = server(&transaction, shared.fleet.server).await?;
        let is_other_server = known != server || !self.server.is_empty() && self.server != server;
        let is_behind = beat < next || is_other_server && has_lost_commits(&transaction, shared).await?;
        let oldest = shared.pool.commits().oldest().unwrap_or(0);
        let params: [Param<'_>; 3] =
            [(&shared.replica, Type::INT8), (&self.oldest_commit, Type::INT8), (&oldest, Type::INT8)];
        transaction.execute(FORGET_COMMITS, &params).await?;
        if beat % 60 == 1 {
            forget_others(&transaction).await?;
        }
        let adopted = match is_behind || is_other_server {
            true => {
                let seen = row.get::<_, Option<i64>>(3).map(Time::from_nanos);
                let last_set = shared.clock.last_set();
                let lost_since = seen.map_or(last_set, |seen| seen.min(last_set));
                Some(adopt(&transaction, shared, &server, is_behind.then_some(lost_since)).await?)
            }
            false => None,
        };
        let missed = missed_gap(&row);
        if let Some(gap) = missed {
            record_gap(&transaction, shared, gap).await?;
        }
        transaction.commit().await?;
        shared.fleet.beat_confirmed();
        // It is written to, every second.
        shared.health.committed();
        adopted.into_iter().for_each(|adopted| adopted.publish(shared));
        if let Some(ReceptionGap { from, until, cause }) = missed {
            tracing::warn!(%cause, from = %from.millis(), until = %until.millis(), "a ready replica was not heard");
        }
        (self.beat, self.server, self.clock_offset) = (beat, server, Some(clock_offset));
        self.oldest_commit = oldest;
        shared.fleet.clock_offset.store(clock_offset, Ordering::Relaxed);
        shared.fleet.others_are_ready.store(others_are_ready, Ordering::Relaxed);
        if is_behind {
            shared.pool.commits().clear();
        }
        Ok(())
    }
}

#[cfg(test)]
impl Heartbeat {
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

/// The wall clock of this process minus the server's, which was read between two readings of the wall clock.
fn offset(asked: Time, server: Time, answered: Time) -> i64 {
    let trip = answered.as_nanos().saturating_sub(asked.as_nanos());
    asked.as_nanos().saturating_add(trip / 2).saturating_sub(server.as_nanos())
}

/// The rights can be lost while the bridge runs, such as by a dump that was restored as another role.
async fn check_rights(transaction: &Transaction) -> Result<(), DbError> {
    let row = transaction.query_one(LACKING_RIGHTS, &[]).await?;
    let Some(tables) = row.get::<_, Option<&str>>(1) else { return Ok(()) };
    let role: &str = row.get(0);
    Err(DbError::Damaged(format!("the role {role} lacks rights on the tables {tables}: {TABLE_RIGHTS_FIX}")))
}

/// Reads the replicas, and whether this one is too old for what was written.
async fn list(transaction: &Transaction, shared: &Shared) -> Result<(), DbError> {
    let params: [Param<'_>; 2] = [(&ALIVE_NANOS, Type::INT8), (&LISTED_NANOS, Type::INT8)];
    let rows = transaction.query(SELECT_REPLICAS, &params).await?;
    let Some(first) = rows.first() else { return Ok(()) };
    if let Err(cause) = schema::check_readable(first.get(1)) {
        shared.health.outdated(&cause);
    }
    let replica = |row: &Row| Replica {
        id: row.get(2),
        name: row.get(3),
        version: row.get(4),
        schema_step: row.get(5),
        started: Time::from_nanos(row.get(6)),
        seen: Time::from_nanos(row.get(7)),
        is_alive: row.get(8),
        is_ready: row.get(9),
        is_own: row.get::<_, i64>(2) == shared.replica,
        clock_offset: row.get(10),
    };
    let replicas = Replicas {
        read_at: Time::from_nanos(first.get(11)),
        schema_step: first.get(0),
        all: rows.iter().map(replica).collect(),
    };
    *shared.fleet.replicas.lock() = Some(replicas);
    Ok(())
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
    transaction.execute(FORGET_REPLICAS, &[(&FORGOTTEN_NANOS, Type::INT8)]).await.map(drop)
}

/// What is published after the commit of [`adopt`].
struct Adopted {
    incarnation: i64,
    /// What was lost, if this process is the first to notice.
    lost: Option<ReceptionGap>,
}

impl Adopted {
    fn publish(self, shared: &Shared) {
        shared.fleet.set_incarnation(self.incarnation);
        let Some(gap) = self.lost else { return };
        tracing::error!(
            cause = %gap.cause,
            from = %gap.from.millis(),
            until = %gap.until.millis(),
            fix = "check what was scaled in this time, see docs/postgres.md",
            "the database came back behind what was confirmed"
        );
        let mut rewinds = shared.fleet.rewinds.lock();
        *rewinds = Rewinds { count: rewinds.count + 1, last: Some(gap) };
    }
}

/// Goes on with the server as it is. A server with another history may lack what was decided: ids of events are new from now
/// on. If this process knows that it does, and since when, all sources have a reception gap. Of several processes that know
/// it, the first acts.
async fn adopt(
    transaction: &Transaction,
    shared: &Shared,
    server: &str,
    lost_since: Option<Time>,
) -> Result<Adopted, DbError> {
    let row = transaction.query_one(LOCK_STORE, &[]).await?;
    let (mut incarnation, known, rewound): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
    let now = Time::from_nanos(row.get(3));
    let lost_since = lost_since.filter(|_| rewound != server);
    let is_noticed = lost_since.is_some();
    // Another process may have changed it, when it has adopted the server.
    let is_new_here = incarnation == shared.fleet.incarnation();
    let is_other_database = is_other_database(&known, server);
    if is_other_database || is_noticed && is_new_here {
        incarnation = fastrand::i64(1..);
    }
    let set =
        "UPDATE store SET server = $1, incarnation = $2, rewound = CASE WHEN $3 THEN $1 ELSE rewound END";
    let params: [Param<'_>; 3] =
        [(&server, Type::TEXT), (&incarnation, Type::INT8), (&is_noticed, Type::BOOL)];
    transaction.execute(set, &params).await?;
    let Some(from) = lost_since else {
        if is_other_database {
            tracing::warn!("another server has taken over, event ids are new from now on");
        }
        return Ok(Adopted { incarnation, lost: None });
    };
    let gap = ReceptionGap { from, until: now, cause: GapCause::DataLoss };
    record_gap(transaction, shared, gap).await?;
    Ok(Adopted { incarnation, lost: Some(gap) })
}

/// The reception gap of all sources because a replica that accepted notifications is missed: it has refused them, or did
/// not run.
fn missed_gap(row: &Row) -> Option<ReceptionGap> {
    let (until, since): (i64, Option<i64>) = (row.get(2), row.get(4));
    let cause =
        if row.get::<_, Option<bool>>(5) == Some(true) { GapCause::Store } else { GapCause::NotRunning };
    Some(ReceptionGap { from: Time::from_nanos(since?), until: Time::from_nanos(until), cause })
}

/// Records a gap of all sources.
async fn record_gap(transaction: &Transaction, shared: &Shared, gap: ReceptionGap) -> Result<(), DbError> {
    let row = transaction.query_one("SELECT body FROM controls FOR UPDATE", &[]).await?;
    let mut controls = read_controls(row.get(0))?;
    for source in shared.fleet.controls().receiving() {
        controls.record_gap(source, gap);
    }
    // Above what this process has seen, so that no replica takes it for older.
    controls.version = controls.version.max(shared.fleet.controls().version) + 1;
    let (version, generation) = (controls.version as i64, controls.generation as i64);
    let body = serde_json::to_string(&controls).map_err(|error| DbError::Damaged(error.to_string()))?;
    let set = "UPDATE controls SET version = $1, generation = $2, body = $3";
    let params = [(&version as _, Type::INT8), (&generation as _, Type::INT8), (&body as _, Type::TEXT)];
    transaction.execute(set, &params).await?;
    Ok(())
}

/// This process accepts notifications: it is missed if it dies.
pub(super) async fn set_ready(shared: &Shared) -> Result<(), DbError> {
    let _row = shared.fleet.row.lock().await;
    let transaction = Transaction::begin(&shared.pool).await?;
    let set = "UPDATE replicas SET is_ready = true, seen = now_ns(), ready_until = now_ns() WHERE id = $1";
    transaction.execute(set, &[(&shared.replica, Type::INT8)]).await?;
    transaction.commit().await
}

/// This process was stopped: it is not missed.
pub(super) async fn set_stopped(shared: &Shared) -> Result<(), DbError> {
    let _row = shared.fleet.row.lock().await;
    let transaction = Transaction::begin(&shared.pool).await?;
    let set = "UPDATE replicas SET is_ready = false, is_stopped = true WHERE id = $1";
    transaction.execute(set, &[(&shared.replica, Type::INT8)]).await?;
    transaction.commit().await
}
