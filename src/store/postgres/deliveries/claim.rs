//! Claims: the first delivery of each target that can be sent now.
//!
//! A claim examines the deliveries that are due, in that order. It locks them with `SKIP LOCKED`, and then their queues
//! (a destination and a target) with advisory locks, so that two claims never judge one queue at the same time: with
//! different clocks, or beside a redrive, each could take another delivery of it for the first. What it sees under these
//! locks is current. A delivery behind another one is parked, so that it is not examined again until that one ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::compensation::{self, Compensation};
use super::leases;
use super::locks::{Runs, store_error};
use super::row::{COLUMN_COUNT, COLUMNS, DeliveryRow};
use super::write::{self, Changed, CountChanges};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::clock::since_boot;
use crate::store::dead_letters::as_sent;
use crate::store::expiry::redrives;
use crate::store::outbox::COMPENSATION_DELAY;
use crate::store::postgres::Shared;
use crate::store::postgres::destinations::{Destination, HeldLease};
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::{Claimed, Error, EventSeq, Lease};

/// The maximum number of deliveries that one transaction examines: each queue takes an entry of the server's lock table.
const MAX_EXAMINED: usize = 128;
/// The minimum, so that those behind others do not take a transaction each.
const MIN_EXAMINED: usize = 32;
/// The maximum number of transactions of a claim that finds only deliveries behind others.
const MAX_FRUITLESS_STEPS: usize = 100;

/// How long a claim waits whose deliveries others are claiming.
const CONTENTION_DELAY: Duration = Duration::from_millis(50);

/// The server's time, and when the first delivery is due, if that is before the next poll: a claim leaves an entry of the
/// index at the end of its lease, and those of settled deliveries stay until vacuum removes them.
const PEEK: &str = "
    SELECT now_ns(), (SELECT due FROM deliveries
        WHERE destination = $1 AND state = 0 AND NOT is_suspended
        AND due >= $2 AND due <= (SELECT now_ns()) + $3 ORDER BY due LIMIT 1)";
/// The deliveries that are due, locked; false for those whose queue another claim judges.
const EXAMINE: &str = "
    WITH clock AS MATERIALIZED (SELECT now_ns() AS now),
    due AS MATERIALIZED (
        SELECT d.event, d.target, d.due FROM deliveries d
        WHERE d.destination = $1 AND d.state = 0 AND NOT d.is_suspended AND d.due >= $2
        AND d.due <= (SELECT now FROM clock)
        ORDER BY d.due, d.event LIMIT $3
        FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT due.event, due.due, clock.now, pg_try_advisory_xact_lock($1, hashint8(due.target)) FROM due, clock";
/// When the next delivery is due, if that is before the next poll, as of [`PEEK`].
const NEXT_DUE: &str = "
    SELECT min(due) FROM (
        SELECT due FROM deliveries
        WHERE destination = $1 AND state = 0 AND NOT is_suspended AND due > $2 AND due <= $2 + $3
        ORDER BY due LIMIT 1) next";

/// The examined deliveries, with the bodies of those that are claimed. `$3` is the server's time, `$4` how many are
/// claimed at most.
pub(super) fn judge() -> String {
    format!(
        "WITH judged AS MATERIALIZED (
            SELECT {COLUMNS}, d.error,
                EXISTS (
                    SELECT FROM deliveries o
                    WHERE o.destination = $1 AND o.target = d.target AND o.state + 0 = 0
                    AND o.event >= d.open_from AND o.event < d.event
                    AND NOT o.is_suspended AND NOT (o.is_aside AND o.due > $3)
                ) OR EXISTS (
                    SELECT FROM deliveries o
                    WHERE o.destination = $1 AND o.target = d.target AND o.token IS NOT NULL AND o.due > $3
                    AND o.event <> d.event
                ) AS is_behind
            FROM deliveries d WHERE d.destination = $1 AND d.event = ANY ($2)
        ), ranked AS (
            SELECT d.*, NOT is_behind AND row_number() OVER (PARTITION BY is_behind ORDER BY due, event) <= $4
                AS is_taken
            FROM judged d
        )
        SELECT d.*, CASE WHEN is_taken THEN e.body END, {}
        FROM ranked d LEFT JOIN events e ON e.seq = d.event AND (d.is_taken) ORDER BY d.event",
        compensation::COLUMNS
    )
}

/// The columns after those of the delivery.
const ERROR: usize = COLUMN_COUNT;
const IS_BEHIND: usize = COLUMN_COUNT + 1;
const IS_TAKEN: usize = COLUMN_COUNT + 2;
const EVENT_BODY: usize = COLUMN_COUNT + 3;
const COMPENSATION: usize = COLUMN_COUNT + 4;

/// Claims up to `max` deliveries.
pub(super) async fn claim(shared: &Shared, name: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
    let destination = shared.destinations.require(name)?;
    leases::flush(shared, &destination).await?;
    if destination.is_retiring.load(Ordering::Relaxed)
        && leases::yield_to_others(shared, &destination).await?
    {
        return Ok(Vec::new());
    }
    let (mut claimed, mut is_complete) = (Vec::new(), true);
    for _ in 0..MAX_FRUITLESS_STEPS {
        let step = match claim_step(shared, &destination, max - claimed.len()).await {
            Ok(step) => step,
            // What was claimed is sent; the next claim reports the error.
            Err(_) if !claimed.is_empty() => break,
            Err(error) => return Err(store_error(shared, error)),
        };
        let Some(step) = step else {
            is_complete = true;
            break;
        };
        is_complete = claimed.len() + step.claimed.len() >= max || !step.has_more || !step.has_changed;
        claimed.extend(step.claimed);
        if is_complete {
            break;
        }
    }
    if !is_complete {
        destination.wakeup.notify_one();
    }
    claimed.sort_unstable_by_key(|one| one.lease.seq());
    Ok(claimed)
}

/// What a transaction has claimed.
struct Step {
    claimed: Vec<Claimed>,
    /// Whether more deliveries may be due.
    has_more: bool,
    /// Whether it has changed anything, so that another one examines others.
    has_changed: bool,
}

/// In nanoseconds.
fn max_poll() -> i64 {
    i64::try_from(leases::MAX_POLL.as_nanos()).unwrap_or(i64::MAX)
}

/// `None` if nothing is due.
async fn claim_step(shared: &Shared, destination: &Destination, max: usize) -> Result<Option<Step>, DbError> {
    let scan = destination.scan_floor.lock().start(since_boot());
    let client = shared.pool.get().await?;
    let params: [Param<'_>; 3] =
        [(&destination.id, Type::INT4), (&scan.from, Type::INT8), (&max_poll(), Type::INT8)];
    let rows = client.query_typed(PEEK, &params).await?;
    drop(client);
    let (now, first): (i64, Option<i64>) = rows.first().map_or((0, None), |row| (row.get(0), row.get(1)));
    if first.is_none_or(|first| first > now) {
        destination.scan_floor.lock().end(scan, since_boot(), now, first.unwrap_or(i64::MAX));
        *destination.next_due.lock() = first.map(Time::from_nanos);
        return Ok(None);
    }
    let mut runs = Runs::default();
    loop {
        let step = ClaimStep { shared, destination, max, from: scan.from, token: fastrand::i64(1..) };
        if let Some(done) = runs.end(step.run().await).await {
            let (step, left) = done?;
            match left {
                Some((server, rest)) => destination.scan_floor.lock().end(scan, since_boot(), server, rest),
                // Others are claiming them.
                None => *destination.next_due.lock() = Some(Time::from_nanos(now).after(CONTENTION_DELAY)),
            }
            return Ok(Some(step));
        }
    }
}

struct ClaimStep<'a> {
    shared: &'a Shared,
    destination: &'a Destination,
    max: usize,
    /// The lowest due time.
    from: i64,
    token: i64,
}

/// The examined deliveries.
struct Examined {
    /// Those whose queue is locked.
    events: Vec<i64>,
    /// The server's time.
    now: i64,
    /// The lowest due time that was not examined.
    rest: i64,
    has_more: bool,
}

impl Examined {
    fn read(rows: &[Row], limit: usize) -> Self {
        let mut examined = Self { events: Vec::new(), now: 0, rest: i64::MAX, has_more: rows.len() >= limit };
        for row in rows {
            let (event, due, is_locked): (i64, i64, bool) = (row.get(0), row.get(1), row.get(3));
            examined.now = row.get(2);
            match is_locked {
                true => examined.events.push(event),
                false => examined.rest = examined.rest.min(due),
            }
        }
        if examined.has_more {
            let last: Option<i64> = rows.iter().map(|row| row.get(1)).max();
            examined.rest = examined.rest.min(last.unwrap_or(i64::MAX));
        }
        examined
    }
}

impl ClaimStep<'_> {
    /// Returns the step, and the server's time with the lowest due time of what was left; `None` if nothing was examined.
    async fn run(self) -> Result<(Step, Option<(i64, i64)>), DbError> {
        let transaction = Transaction::begin(&self.shared.pool).await?;
        let limit = self.max.clamp(MIN_EXAMINED, MAX_EXAMINED);
        let sql_limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let id = self.destination.id;
        let params: [Param<'_>; 3] = [(&id, Type::INT4), (&self.from, Type::INT8), (&sql_limit, Type::INT8)];
        let mut examined = Examined::read(&transaction.query(EXAMINE, &params).await?, limit);
        if examined.events.is_empty() {
            transaction.rollback().await?;
            return Ok((Step { claimed: Vec::new(), has_more: false, has_changed: false }, None));
        }
        let max = i64::try_from(self.max).unwrap_or(i64::MAX);
        let params: [Param<'_>; 4] = [
            (&id, Type::INT4),
            (&examined.events, Type::INT8_ARRAY),
            (&examined.now, Type::INT8),
            (&max, Type::INT8),
        ];
        let sql = judge();
        let (rows, next) = futures_util::future::try_join(
            transaction.query(&sql, &params),
            transaction.query(
                NEXT_DUE,
                &[(&id, Type::INT4), (&examined.now, Type::INT8), (&max_poll(), Type::INT8)],
            ),
        )
        .await?;
        let next: Option<i64> = next.first().and_then(|row| row.get(0));
        let judged = self.judge(&rows, &mut examined)?;
        let has_changed = !judged.changed.is_empty();
        if has_changed {
            self.write(transaction, judged.changed, judged.parked, examined.now).await?;
        } else {
            transaction.rollback().await?;
        }
        *self.destination.next_due.lock() = next.map(Time::from_nanos);
        let step = Step { claimed: self.hold(judged.claimed), has_more: examined.has_more, has_changed };
        Ok((step, Some((examined.now, examined.rest))))
    }

    fn judge(&self, rows: &[Row], examined: &mut Examined) -> Result<JudgedDeliveries, DbError> {
        let now = Time::from_nanos(examined.now);
        let mut judged = JudgedDeliveries::default();
        for row in rows {
            let before = DeliveryRow::read(row)?;
            let mut after = before.clone();
            let (is_behind, is_taken): (bool, bool) = (row.get(IS_BEHIND), row.get(IS_TAKEN));
            let body: Option<&str> = row.get(EVENT_BODY);
            match (is_behind, is_taken, body) {
                (false, true, Some(body)) => match compensation::read(row, COMPENSATION) {
                    Compensation::Undecided => after.stand_aside(now.after(COMPENSATION_DELAY)),
                    compensation => {
                        after.claim(now, self.token);
                        let is_nothing = compensation == Compensation::Nothing;
                        judged.claimed.push(claimed(&after, body, row.get(ERROR), is_nothing));
                    }
                },
                (false, false, _) => {
                    examined.rest = examined.rest.min(before.due);
                    continue;
                }
                (false, true, None) => {
                    let destination = &self.destination.name;
                    tracing::error!(event = before.event, %destination, "event missing from the store");
                    after.park(now);
                }
                (true, ..) => {
                    judged.parked.push((before.destination, before.target));
                    after.park(now);
                }
            }
            judged.changed.add(&before, after, 0, now);
        }
        Ok(judged)
    }

    /// A queue whose first delivery was parked is looked at again: that happens if a lease has ended by itself.
    async fn write(
        &self,
        transaction: Transaction,
        changed: Changed,
        parked: Vec<(i32, i64)>,
        now: i64,
    ) -> Result<(), DbError> {
        let now = Time::from_nanos(now);
        let _no_changes: CountChanges = changed.write(&transaction, now, false).await?;
        if !parked.is_empty() {
            write::unpark(&transaction, &parked, now, false).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    fn hold(&self, claimed: Vec<Claimed>) -> Vec<Claimed> {
        let mut leases = self.destination.leases.lock();
        for one in &claimed {
            leases.insert(one.lease.seq(), HeldLease { token: one.lease.token(), is_renewed: true });
        }
        claimed
    }
}

#[derive(Default)]
struct JudgedDeliveries {
    changed: Changed,
    claimed: Vec<Claimed>,
    /// The queues of what was parked.
    parked: Vec<(i32, i64)>,
}

/// What the worker gets of a leased delivery.
pub(super) fn claimed(
    row: &DeliveryRow,
    body: &str,
    error: Option<&str>,
    nothing_to_compensate: bool,
) -> Claimed {
    Claimed {
        lease: Lease::new(EventSeq(row.event), row.token.unwrap_or_default().cast_unsigned()),
        body: as_sent(body, row.expiry.map(Time::from_nanos)),
        emitted_at: Time::from_nanos(row.age_from),
        attempts: u32::try_from(row.attempts).unwrap_or(0),
        is_uncertain: row.is_uncertain,
        redrives: redrives(row.expiry.map(Time::from_nanos)),
        last_error: error.filter(|error| !error.is_empty()).map(Into::into),
        nothing_to_compensate,
    }
}
