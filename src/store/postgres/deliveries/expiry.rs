//! Deliveries whose age is over, whatever they wait for.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::claim::claimed;
use super::compensation::{self, Compensation};
use super::leases;
use super::locks::{Runs, store_error};
use super::row::{COLUMN_COUNT, COLUMNS, DeliveryRow};
use super::write::{Changed, CountChanges};
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::retry::AgeLimits;
use crate::domain::time::{ClockReading, Time};
use crate::store::clock::since_boot;
use crate::store::outbox::Expired;
use crate::store::postgres::Shared;
use crate::store::postgres::destinations::{Destination, HeldLease};
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::{Claimed, Error};

/// Unsettled deliveries that have expired, or of which that is unknown. What is suspended does not get older. `$2` and
/// `$3` are the times before which a decrease and another event are too old.
fn select() -> String {
    format!(
        "WITH old AS MATERIALIZED (
            SELECT {COLUMNS}, d.error, d.decreases IS NULL AS is_unexamined FROM deliveries d
            WHERE d.destination = $1 AND d.state = 0 AND NOT d.is_suspended AND (d.token IS NULL OR d.due <= $4)
            AND (d.decreases IS NULL OR coalesce(d.expiry, d.expirytime) < $4
                 OR d.age_from < CASE WHEN d.decreases THEN $2 ELSE $3 END)
            ORDER BY d.due, d.event LIMIT $5 FOR NO KEY UPDATE SKIP LOCKED
        )
        SELECT d.*, e.body, {} FROM old d LEFT JOIN events e ON e.seq = d.event",
        compensation::COLUMNS
    )
}
/// Up to so many deliveries that wait for a retry, or for one of their target.
const COUNT_WAITING: &str = "
    SELECT count(*) FROM (
        SELECT FROM deliveries WHERE destination = $1 AND state = 0 AND NOT is_suspended AND due > $2 AND token IS NULL
        LIMIT 1000) waiting";
/// What is known of events does not change.
const PUT_LIMITS: &str = "
    UPDATE deliveries d SET expirytime = n.expirytime, decreases = n.decreases
    FROM unnest($2::bigint[], $3::bigint[], $4::boolean[]) AS n (event, expirytime, decreases)
    WHERE d.destination = $1 AND d.event = n.event";

const ERROR: usize = COLUMN_COUNT;
const IS_UNEXAMINED: usize = COLUMN_COUNT + 1;
const EVENT_BODY: usize = COLUMN_COUNT + 2;
const COMPENSATION: usize = COLUMN_COUNT + 3;

/// What decides about the age of an event: its `expirytime`, and whether the age limit of decreases applies. One that
/// cannot be read has expired.
pub(in crate::store::postgres) fn limits_of(event: &EncodedEvent) -> (i64, bool) {
    event.header().map_or((0, true), |header| (header.expirytime.as_nanos(), header.decreases_capacity()))
}

/// Whether a delivery has expired: with this `expirytime`, and an age that counts from `age_from`.
fn has_expired(
    clock: ClockReading,
    limits: AgeLimits,
    (expirytime, decreases): (i64, bool),
    age_from: i64,
) -> bool {
    let max_age = if decreases { limits.scale_in_max_age.min(limits.max_age) } else { limits.max_age };
    clock.wall > Time::from_nanos(expirytime) || clock.now.since(Time::from_nanos(age_from)) > max_age
}

/// A check reads all unsettled deliveries of a destination. One that takes longer than this is not repeated at once.
const CHEAP: Duration = Duration::from_millis(50);
/// Checks that are not cheap take at most one part in so many of the time.
const CHECK_SHARE: u32 = 20;

/// How long after a check that took `took` there is no other one. One that has found as many as it may is repeated.
fn pause_after(took: Duration, found: usize, max: usize) -> Duration {
    if took < CHEAP || found >= max { Duration::ZERO } else { took * CHECK_SHARE }
}

/// Claims deliveries that have expired, at most `max`. They keep their place.
pub(super) async fn claim_expired(
    shared: &Shared,
    name: &Name,
    limits: AgeLimits,
    max: usize,
) -> Result<Expired, Error> {
    let destination = shared.destinations.require(name)?;
    leases::flush(shared, &destination).await?;
    let started = since_boot();
    if started < *destination.next_expiry_check.lock() {
        return Ok(Expired { waiting: 1, ..Expired::default() });
    }
    let mut runs = Runs::default();
    loop {
        let check = Check { shared, destination: &destination, limits, max, token: fastrand::i64(1..) };
        if let Some(done) = runs.end(check.run().await).await {
            let expired = done.map_err(|error| store_error(shared, error))?;
            let (now, found) = (since_boot(), expired.claimed.len() + expired.examined);
            *destination.next_expiry_check.lock() =
                now + pause_after(now.saturating_sub(started), found, max);
            return Ok(expired);
        }
    }
}

struct Check<'a> {
    shared: &'a Shared,
    destination: &'a Destination,
    limits: AgeLimits,
    max: usize,
    token: i64,
}

/// The deliveries that were examined.
#[derive(Default)]
struct Examined {
    events: Vec<i64>,
    expirytimes: Vec<i64>,
    decreases: Vec<bool>,
}

impl Check<'_> {
    async fn run(&self) -> Result<Expired, DbError> {
        let transaction = Transaction::begin(&self.shared.pool).await?;
        let now: i64 = transaction.query_one("SELECT now_ns()", &[]).await?.get(0);
        let clock = ClockReading::equal(Time::from_nanos(now));
        let before = |age: Duration| now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
        let AgeLimits { max_age, scale_in_max_age } = self.limits;
        let max = i64::try_from(self.max).unwrap_or(i64::MAX);
        let params: [Param<'_>; 5] = [
            (&self.destination.id, Type::INT4),
            (&before(scale_in_max_age.min(max_age)), Type::INT8),
            (&before(max_age), Type::INT8),
            (&now, Type::INT8),
            (&max, Type::INT8),
        ];
        let sql = select();
        let waiting: [Param<'_>; 2] = [(&self.destination.id, Type::INT4), (&now, Type::INT8)];
        let (rows, waiting) = futures_util::future::try_join(
            transaction.query(&sql, &params),
            transaction.query_one(COUNT_WAITING, &waiting),
        )
        .await?;
        let waiting = usize::try_from(waiting.get::<_, i64>(0)).unwrap_or(0);
        let mut expired = Expired { waiting, ..Expired::default() };
        let (mut changed, mut examined) = (Changed::default(), Examined::default());
        for row in &rows {
            let before = DeliveryRow::read(row)?;
            let body: EncodedEvent = row.get::<_, Option<&str>>(EVENT_BODY).unwrap_or_default().into();
            let (expirytime, decreases) = limits_of(&body);
            if row.get(IS_UNEXAMINED) {
                examined.add(before.event, expirytime, decreases);
            }
            let limits = (before.expiry.unwrap_or(expirytime), decreases);
            if !has_expired(clock, self.limits, limits, before.age_from) {
                expired.examined += 1;
                continue;
            }
            let mut after = before.clone();
            after.lease(clock.wall, self.token);
            let is_nothing = compensation::read(row, COMPENSATION) == Compensation::Nothing;
            expired.claimed.push(claimed(&after, &body, row.get(ERROR), is_nothing));
            changed.add(&before, after, 0, clock.wall);
        }
        self.write(transaction, changed, examined, clock).await?;
        self.hold(&expired.claimed);
        Ok(expired)
    }

    async fn write(
        &self,
        transaction: Transaction,
        changed: Changed,
        examined: Examined,
        clock: ClockReading,
    ) -> Result<(), DbError> {
        if changed.is_empty() && examined.events.is_empty() {
            return transaction.rollback().await;
        }
        let (_, ()): (CountChanges, ()) = futures_util::future::try_join(
            changed.write(&transaction, clock.wall, true),
            examined.write(&transaction, self.destination.id),
        )
        .await?;
        transaction.commit().await?;
        // What has expired by the server's clock has by this one.
        self.shared.clock.advance(clock.wall);
        Ok(())
    }

    fn hold(&self, claimed: &[Claimed]) {
        let mut leases = self.destination.leases.lock();
        for one in claimed {
            leases.insert(one.lease.seq(), HeldLease { token: one.lease.token(), is_renewed: false });
        }
    }
}

impl Examined {
    fn add(&mut self, event: i64, expirytime: i64, decreases: bool) {
        self.events.push(event);
        self.expirytimes.push(expirytime);
        self.decreases.push(decreases);
    }

    async fn write(&self, transaction: &Transaction, destination: i32) -> Result<(), DbError> {
        if self.events.is_empty() {
            return Ok(());
        }
        let params: [Param<'_>; 4] = [
            (&destination, Type::INT4),
            (&self.events, Type::INT8_ARRAY),
            (&self.expirytimes, Type::INT8_ARRAY),
            (&self.decreases, Type::BOOL_ARRAY),
        ];
        transaction.execute(PUT_LIMITS, &params).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_takes_long_is_repeated_the_less_often_unless_it_has_found_as_many_as_it_may() {
        let millis = Duration::from_millis;
        assert_eq!(pause_after(millis(49), 0, 10), Duration::ZERO);
        assert_eq!(pause_after(millis(100), 9, 10), millis(2000));
        assert_eq!(pause_after(millis(100), 10, 10), Duration::ZERO);
    }

    #[test]
    fn a_delivery_expires_with_its_event_or_by_its_age_and_a_decrease_by_the_shorter_limit() {
        let limits =
            AgeLimits { max_age: Duration::from_secs(3600), scale_in_max_age: Duration::from_secs(300) };
        let at = |seconds: i64| seconds * 1_000_000_000;
        let expired = |now: i64, expirytime: i64, decreases: bool| {
            let clock = ClockReading::equal(Time::from_nanos(at(now)));
            has_expired(clock, limits, (at(expirytime), decreases), at(0))
        };
        assert_eq!([300, 301].map(|now| expired(now, 9000, true)), [false, true]);
        assert_eq!([3600, 3601].map(|now| expired(now, 9000, false)), [false, true]);
        assert_eq!([100, 101].map(|now| expired(now, 100, false)), [false, true]);
    }

    #[test]
    fn an_unreadable_event_has_expired() {
        assert_eq!(limits_of(&"{}".into()), (0, true));
    }
}
