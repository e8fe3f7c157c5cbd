//! Deletes rows past their retention, in small steps. Several replicas can do so at the same time: each skips the rows that
//! another one has locked.

use std::time::Duration;

use parking_lot::Mutex;
use tokio_postgres::types::Type;

use super::Shared;
use super::error::{DbError, Stage};
use super::transaction::Transaction;
use crate::store::clock::since_boot;
use crate::store::{Error, NotificationLimits};

/// The maximum number of rows that each statement of one step deletes.
const MAX_ROWS: i64 = 500;
/// The maximum number of events that one step examines: most of them can stay, if many episodes are open.
const MAX_EVENTS: i64 = 2000;

/// The newest record stays, whatever its age: at a start it tells when the bridge was up last.
const DELETE_RECORDS: &str = "
    WITH old AS MATERIALIZED (
        SELECT id FROM records
        WHERE at >= $3 AND at < $1 AND at + ahead < $1 AND id < (SELECT max(id) FROM records)
        ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
    ), of_targets AS (
        DELETE FROM record_targets USING old WHERE record_targets.record = old.id
    )
    DELETE FROM records USING old WHERE records.id = old.id";
const DELETE_CLOCK_STEPS: &str = "DELETE FROM clock_steps WHERE record <= (SELECT min(id) FROM records)";
/// The newest entry stays, as the newest record does.
const DELETE_AUDIT: &str = "
    DELETE FROM audit WHERE id IN (
        SELECT id FROM audit WHERE id < (SELECT max(id) FROM audit) AND at + ahead < $1
        ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)";
/// Events that were pruned count as delivered. So one that may not have arrived stays as long as there is an event that
/// compensates it.
const DELETE_EVENTS: &str = "
    WITH examined AS MATERIALIZED (
        SELECT seq, at FROM events WHERE NOT tracked AND at >= $2 AND (at, seq) > ($2, $3) AND at < $1
        ORDER BY at, seq LIMIT $4
    ), old AS MATERIALIZED (
        SELECT e.seq FROM examined JOIN events e USING (seq)
        WHERE NOT e.tracked
        AND NOT EXISTS (
            SELECT FROM deliveries d WHERE d.event = e.seq
            AND (d.state IN (0, 2) OR d.token IS NOT NULL AND d.due > now_ns()))
        AND NOT EXISTS (
            SELECT FROM events c
            WHERE c.target = e.target AND c.compensates IS NOT NULL AND e.seq = ANY (c.compensates))
        FOR UPDATE OF e SKIP LOCKED
    ), settled AS (
        DELETE FROM deliveries USING old WHERE deliveries.event = old.seq
    ), deleted AS (
        DELETE FROM events USING old WHERE events.seq = old.seq
    )
    SELECT at, seq, count(*) OVER () FROM examined ORDER BY at DESC, seq DESC LIMIT 1";
/// That nothing is left of what happened to target `t`. Each is looked up in an index for one target, whatever the planner
/// knows about the tables: in this form, it joins them with no other one.
macro_rules! nothing_is_left {
    () => {
        "t.state IS NULL
    AND (SELECT 1 FROM record_targets r WHERE r.target = t.id LIMIT 1) IS NULL
    AND (SELECT 1 FROM destinations n CROSS JOIN LATERAL (
        SELECT FROM deliveries d WHERE d.destination = n.id AND d.target = t.id AND d.state + 0 = 0 LIMIT 1) open
        LIMIT 1) IS NULL
    AND (SELECT 1 FROM destinations n CROSS JOIN LATERAL (
        SELECT FROM deliveries d WHERE d.destination = n.id AND d.target = t.id AND d.token IS NOT NULL LIMIT 1) leased
        LIMIT 1) IS NULL
    AND t.id <> ALL (ARRAY(SELECT d.target FROM deliveries d WHERE d.state = 2))"
    };
}
/// Targets of which nothing is known any more. All that happened to a target is older than its last decision.
const LOCK_EMPTY: &str = concat!(
    "SELECT t.id FROM targets t WHERE t.last_at >= $3 AND t.last_at < $1 AND ",
    nothing_is_left!(),
    " LIMIT $2 FOR UPDATE OF t SKIP LOCKED"
);
/// A statement of its own, which sees what was committed before the locks were taken: a record about a target is written
/// without a change of the target's row.
const DELETE_EMPTY: &str = concat!("DELETE FROM targets t WHERE t.id = ANY ($1) AND ", nothing_is_left!());
/// All are summed, so that the limit holds also after many replicas have added and removed some.
const DELETE_NOTIFICATIONS: &str = "
    WITH total AS MATERIALIZED (
        SELECT coalesce(sum(bytes), 0)::bigint AS bytes FROM notifications
    ), oldest AS MATERIALIZED (
        SELECT id, at, sum(bytes) OVER (ORDER BY id) - bytes AS before
        FROM (SELECT id, at, bytes FROM notifications ORDER BY id LIMIT $3) first_ones
    ), old AS MATERIALIZED (
        SELECT id FROM notifications WHERE id = ANY (ARRAY(
            SELECT id FROM oldest, total WHERE oldest.at < $1 OR total.bytes - oldest.before > $2))
        FOR UPDATE SKIP LOCKED
    ), removed AS (
        DELETE FROM notifications WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING bytes
    )
    SELECT total.bytes - coalesce((SELECT sum(bytes) FROM removed), 0)::bigint, (SELECT count(*) FROM removed)
    FROM total";

/// How far pruning is.
#[derive(Default)]
pub(super) struct Progress {
    /// The time and the number of the last event that this round has examined. What has to stay is skipped once a round, not
    /// in each step.
    examined: Mutex<Option<(i64, i64)>>,
    records: Mutex<Scan>,
    events: Mutex<Scan>,
    targets: Mutex<Scan>,
}

/// Where to look for old rows. Index entries of deleted rows stay until vacuum removes them, which a long transaction prevents:
/// who begins with the oldest ones visits all of them, which takes ever longer, and then longer than a statement may. What was
/// examined and had to stay is looked at again from the beginning, the less often the longer that takes.
#[derive(Debug, Default)]
struct Scan {
    /// What is older was examined.
    floor: Option<i64>,
    /// When the next scan from the beginning is due, by [`since_boot`].
    next_full: Duration,
}

/// A scan from the beginning that takes longer than this is repeated after so many times its duration: what claims wait for
/// meanwhile is a small part of the time.
const CHEAP: Duration = Duration::from_millis(5);
const FULL_SCAN_SHARE: u32 = 1000;
/// The pause after one that has failed, such as after the longest time that an answer may take.
const FAILED_PAUSE: Duration = Duration::from_secs(600);

impl Scan {
    /// Returns the time from which on rows are looked for.
    fn start(&mut self, now: Duration) -> i64 {
        match self.floor {
            Some(floor) if now < self.next_full => floor,
            _ => {
                self.next_full = now + FAILED_PAUSE;
                i64::MIN
            }
        }
    }

    /// The scan that has started at `from` has succeeded. What is older than `floor` was examined.
    fn end(&mut self, from: i64, took: Duration, now: Duration, floor: i64) {
        if from == i64::MIN {
            self.next_full = now + if took < CHEAP { Duration::ZERO } else { took * FULL_SCAN_SHARE };
        }
        self.floor = Some(floor);
    }
}

/// Runs one step. Returns whether there may be more to delete.
pub(super) async fn prune(shared: &Shared, decisions: Duration, delivered: Duration) -> Result<bool, Error> {
    let step = Step { shared, decisions, delivered };
    step.run().await.map_err(|error| error.into_store(Stage::Use))
}

struct Step<'a> {
    shared: &'a Shared,
    decisions: Duration,
    delivered: Duration,
}

impl Step<'_> {
    async fn run(self) -> Result<bool, DbError> {
        let transaction = Transaction::begin(&self.shared.pool).await?;
        let now: i64 = transaction.query_one("SELECT now_ns()", &[]).await?.get(0);
        let decisions = before(now, self.decisions);
        let mut more = self.prune_records(&transaction, decisions).await?;
        let params = [(&decisions as _, Type::INT8), (&MAX_ROWS as _, Type::INT8)];
        more |= reached(transaction.execute(DELETE_AUDIT, &params).await?);
        transaction.execute(DELETE_CLOCK_STEPS, &[]).await?;
        let (examined, position) = self.prune_events(&transaction, now).await?;
        more |= examined >= MAX_EVENTS;
        if !more {
            more = self.prune_targets(&transaction, decisions.min(before(now, self.delivered))).await?;
        }
        transaction.commit().await?;
        *self.shared.pruning.examined.lock() = position.filter(|_| examined >= MAX_EVENTS);
        Ok(more)
    }

    /// Returns whether there may be more of them.
    async fn prune_records(&self, transaction: &Transaction, before: i64) -> Result<bool, DbError> {
        let (scan, started) = (&self.shared.pruning.records, since_boot());
        let from = scan.lock().start(started);
        let params = [(&before as _, Type::INT8), (&MAX_ROWS as _, Type::INT8), (&from as _, Type::INT8)];
        let more = reached(transaction.execute(DELETE_RECORDS, &params).await?);
        let now = since_boot();
        scan.lock().end(from, now.saturating_sub(started), now, if more { from } else { before });
        Ok(more)
    }

    /// Returns the number of examined events, and the position of the last one.
    async fn prune_events(
        &self,
        transaction: &Transaction,
        now: i64,
    ) -> Result<(i64, Option<(i64, i64)>), DbError> {
        let progress = &self.shared.pruning;
        let (known, started) = (*progress.examined.lock(), since_boot());
        let (at, seq) = known.unwrap_or_else(|| (progress.events.lock().start(started), i64::MIN));
        let oldest = before(now, self.delivered);
        let rows = transaction
            .query(
                DELETE_EVENTS,
                &[(&oldest, Type::INT8), (&at, Type::INT8), (&seq, Type::INT8), (&MAX_EVENTS, Type::INT8)],
            )
            .await?;
        let last = rows.first().map_or((0, None), |row| (row.get(2), Some((row.get(0), row.get(1)))));
        let ended = since_boot();
        if known.is_none() {
            // A later step of the round goes on from there.
            progress.events.lock().end(at, ended.saturating_sub(started), ended, at);
        }
        if last.0 < MAX_EVENTS {
            progress.events.lock().floor = Some(oldest);
        }
        Ok(last)
    }

    /// Returns whether there may be more of them.
    async fn prune_targets(&self, transaction: &Transaction, before: i64) -> Result<bool, DbError> {
        let (scan, started) = (&self.shared.pruning.targets, since_boot());
        let from = scan.lock().start(started);
        let empty = lock_empty_targets(transaction, from, before).await?;
        let (now, more) = (since_boot(), reached(empty.len() as u64));
        scan.lock().end(from, now.saturating_sub(started), now, if more { from } else { before });
        delete_targets(transaction, &empty).await?;
        Ok(more)
    }
}

/// Locks targets of which nothing is known, and whose last decision was in this time.
async fn lock_empty_targets(transaction: &Transaction, from: i64, before: i64) -> Result<Vec<i64>, DbError> {
    let params = [(&before as _, Type::INT8), (&MAX_ROWS as _, Type::INT8), (&from as _, Type::INT8)];
    Ok(transaction.query(LOCK_EMPTY, &params).await?.iter().map(|row| row.get(0)).collect())
}

/// Deletes locked targets, except those about which something was written before they were locked.
async fn delete_targets(transaction: &Transaction, targets: &[i64]) -> Result<(), DbError> {
    if targets.is_empty() {
        return Ok(());
    }
    transaction.execute(DELETE_EMPTY, &[(&targets, Type::INT8_ARRAY)]).await.map(drop)
}

/// Runs one step. Returns whether there may be more to delete.
pub(super) async fn prune_notifications(shared: &Shared, limits: NotificationLimits) -> Result<bool, Error> {
    let step = async {
        let transaction = Transaction::begin(&shared.pool).await?;
        let now: i64 = transaction.query_one("SELECT now_ns()", &[]).await?.get(0);
        let oldest = if limits.is_enabled() { before(now, limits.max_age) } else { i64::MAX };
        let max_bytes = i64::try_from(limits.max_bytes).unwrap_or(i64::MAX);
        let params =
            [(&oldest as _, Type::INT8), (&max_bytes as _, Type::INT8), (&MAX_ROWS as _, Type::INT8)];
        let row = transaction.query_one(DELETE_NOTIFICATIONS, &params).await?;
        transaction.commit().await?;
        shared.kept_bytes.set(row.get(0));
        Ok(row.get::<_, i64>(1) >= MAX_ROWS)
    };
    step.await.map_err(|error: DbError| error.into_store(Stage::Use))
}

/// The time before which rows are past a period.
fn before(now: i64, period: Duration) -> i64 {
    now.saturating_sub(i64::try_from(period.as_nanos()).unwrap_or(i64::MAX))
}

/// Whether a statement has deleted as many rows as it may.
fn reached(deleted: u64) -> bool {
    deleted >= MAX_ROWS.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::postgres::Postgres;
    use crate::store::tests::postgres::Database;

    #[test]
    fn old_rows_are_looked_for_from_the_beginning_the_less_often_the_longer_that_takes() {
        let seconds = Duration::from_secs;
        let mut scan = Scan::default();
        assert_eq!(scan.start(seconds(1)), i64::MIN);
        scan.end(i64::MIN, Duration::from_millis(4), seconds(1), 7);
        assert_eq!(scan.start(seconds(1)), i64::MIN, "it is cheap");
        scan.end(i64::MIN, Duration::from_millis(40), seconds(3), 8);
        assert_eq!(scan.start(seconds(42)), 8);
        scan.end(8, seconds(1), seconds(42), 9);
        assert_eq!(scan.start(seconds(42)), 9);
        assert_eq!(scan.start(seconds(43)), i64::MIN);
        // It has failed.
        assert_eq!([44, 642].map(|at| scan.start(seconds(at))), [9, 9]);
        assert_eq!(scan.start(seconds(643)), i64::MIN);
    }

    #[tokio::test]
    async fn a_target_about_which_a_record_was_committed_before_it_was_locked_stays_with_its_history() {
        let database = Database::new();
        let Store::Postgres(Postgres(shared)) = database.open(&[]).await else { panic!("another store") };
        database.execute("INSERT INTO targets (hash, key) VALUES ('a', 'a'), ('b', 'b')");
        let transaction = Transaction::begin(&shared.pool).await.unwrap();
        let empty = lock_empty_targets(&transaction, i64::MIN, 1).await.unwrap();
        assert_eq!(empty.len(), 2);
        // As by a transaction that has ended after the targets were read and before they were locked.
        database.execute("INSERT INTO record_targets SELECT id, 1 FROM targets WHERE key = 'b'");
        delete_targets(&transaction, &empty).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(database.execute("SELECT string_agg(key, ' ') FROM targets").unwrap(), "b");
    }
}
