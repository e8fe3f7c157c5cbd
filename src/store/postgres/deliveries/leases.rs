//! Leases of claimed deliveries: they are renewed while the worker works, end when it is released, and end by themselves
//! when their replica does not renew them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_postgres::types::Type;

use super::locks::{Locked, LockedTarget, Runs, holds, recheck, store_error};
use super::row::{DeliveryRow, LEASE, State};
use super::write::Changed;
use crate::domain::time::Time;
use crate::store::postgres::destinations::{Destination, HeldLease, PendingRelease};
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::postgres::{Shared, supervise};
use crate::store::{Error, EventSeq, Lease, Retries};

/// How often leases are renewed.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(15);
/// The maximum number of leases that one transaction ends.
const MAX_ENDED: i64 = 500;

/// Those that are being changed are left out: they are renewed the next time.
const RENEW: &str = "
    WITH held AS (
        SELECT d.event FROM deliveries d JOIN unnest($2::bigint[], $3::bigint[]) AS l (event, token)
        ON d.event = l.event AND d.token = l.token
        WHERE d.destination = $1 FOR NO KEY UPDATE OF d SKIP LOCKED)
    UPDATE deliveries d SET due = now_ns() + $4 FROM held WHERE d.destination = $1 AND d.event = held.event";
/// Unsettled deliveries are due at once, and none is suspended. One behind another one follows when that one ends.
const ALL_DUE: &str = "
    WITH waiting AS (
        SELECT event FROM deliveries
        WHERE destination = $1 AND state + 0 = 0 AND NOT is_parked AND (token IS NULL OR due <= $2)
        AND (due > $2 OR is_suspended OR is_aside) FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE deliveries d SET due = $2, is_suspended = false, is_aside = false
    FROM waiting WHERE d.destination = $1 AND d.event = waiting.event";
/// Cancelled deliveries whose replica has ended during the call.
const OVERDUE: &str = "
    SELECT destination, event, token FROM deliveries
    WHERE token IS NOT NULL AND state <> 0 AND due < now_ns() ORDER BY destination, event LIMIT $1";
const SERVE: &str = "
    INSERT INTO replica_destinations (destination, replica, until)
    SELECT destination, $2, now_ns() + $3 FROM unnest($1::int[]) AS served (destination) ORDER BY destination
    ON CONFLICT (destination, replica) DO UPDATE SET until = excluded.until";
const SERVE_NO_MORE: &str = "DELETE FROM replica_destinations WHERE replica = $1 AND destination = ANY ($2)";
/// Those of replicas that were killed.
const FORGET: &str = "DELETE FROM replica_destinations WHERE until < now_ns() - $1";
const IS_SERVED_ELSEWHERE: &str = "
    SELECT EXISTS (SELECT FROM replica_destinations WHERE destination = $1 AND replica <> $2 AND until > now_ns())";

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Ends the leases of a destination. That is written by the next call about it.
pub(super) fn release(destination: &Destination, retries: Retries) {
    let held = std::mem::take(&mut *destination.leases.lock());
    let is_retiring = retries == Retries::DueNow;
    {
        let mut pending = destination.pending_release.lock();
        pending.leases.extend(held.into_iter().map(|(seq, HeldLease { token, .. })| Lease::new(seq, token)));
        pending.all_due |= is_retiring;
    }
    destination.is_retiring.store(is_retiring, Ordering::Relaxed);
    if !is_retiring {
        destination.is_served_elsewhere.store(false, Ordering::Relaxed);
        destination.wakeup.notify_one();
    }
}

/// Writes what was released.
pub(super) async fn flush(shared: &Shared, destination: &Destination) -> Result<(), Error> {
    let pending = std::mem::take(&mut *destination.pending_release.lock());
    if pending.is_empty() {
        return Ok(());
    }
    let PendingRelease { leases, all_due } = &pending;
    let written = async {
        if !leases.is_empty() {
            end(shared, destination.id, leases).await?;
        }
        if *all_due {
            let transaction = Transaction::begin(&shared.pool).await?;
            let now: i64 = transaction.query_one("SELECT now_ns()", &[]).await?.get(0);
            let params: [Param<'_>; 2] = [(&destination.id, Type::INT4), (&now, Type::INT8)];
            transaction.execute(ALL_DUE, &params).await?;
            transaction.commit().await?;
        }
        Ok(())
    };
    let result = written.await;
    if result.is_err() {
        let mut again = destination.pending_release.lock();
        again.leases.extend(pending.leases);
        again.all_due |= pending.all_due;
    }
    result.map_err(|error| store_error(shared, error))
}

/// Ends leases without an outcome. Nothing happens to those that have ended.
async fn end(shared: &Shared, destination: i32, leases: &[Lease]) -> Result<(), DbError> {
    let mut runs = Runs::default();
    loop {
        if let Some(done) = runs.end(try_end(shared, destination, leases).await).await {
            return done;
        }
    }
}

async fn try_end(shared: &Shared, destination: i32, leases: &[Lease]) -> Result<(), DbError> {
    let transaction = Transaction::begin(&shared.pool).await?;
    let locked = Locked::read_leased(&transaction, destination, leases, "").await?;
    let (mut changed, mut ended) = (Changed::default(), Vec::new());
    for row in &locked.rows {
        let before = DeliveryRow::read(row)?;
        if !leases.iter().any(|lease| holds(&before, *lease)) {
            continue;
        }
        let mut after = before.clone();
        after.release(locked.clock.wall);
        if after.state == State::Superseded
            && locked.target(after.target).is_some_and(LockedTarget::awaits_end)
        {
            ended.push(after.target);
        }
        changed.add(&before, after, 0, locked.clock.wall);
    }
    let counts = changed.write(&transaction, locked.clock.wall, true).await?;
    recheck(&transaction, &ended, locked.clock.now).await?;
    transaction.commit().await?;
    counts.apply(shared, locked.xid);
    if !ended.is_empty() {
        shared.fleet.add_due(locked.clock.now);
    }
    Ok(())
}

/// Renews the leases of the workers of this process.
pub(super) async fn renew(shared: &Shared) -> Result<(), DbError> {
    for destination in shared.destinations.all().values() {
        let held: Vec<(i64, i64)> = destination
            .leases
            .lock()
            .iter()
            .filter(|(_, held)| held.is_renewed)
            .map(|(seq, held)| (seq.0, held.token.cast_signed()))
            .collect();
        if held.is_empty() {
            continue;
        }
        let (events, tokens): (Vec<i64>, Vec<i64>) = held.into_iter().unzip();
        let transaction = Transaction::begin(&shared.pool).await?;
        let params: [Param<'_>; 4] = [
            (&destination.id, Type::INT4),
            (&events, Type::INT8_ARRAY),
            (&tokens, Type::INT8_ARRAY),
            (&nanos(LEASE), Type::INT8),
        ];
        transaction.execute(RENEW, &params).await?;
        transaction.commit().await?;
    }
    Ok(())
}

/// Ends the leases of cancelled deliveries whose replica has not renewed them: nothing claims these again.
pub(super) async fn end_overdue(shared: &Shared) -> Result<(), DbError> {
    let client = shared.pool.get().await?;
    let rows = client.query_typed(OVERDUE, &[(&MAX_ENDED, Type::INT8)]).await?;
    drop(client);
    let mut by_destination: std::collections::BTreeMap<i32, Vec<Lease>> = std::collections::BTreeMap::new();
    for row in &rows {
        let (event, token): (i64, i64) = (row.get(1), row.get(2));
        let lease = Lease::new(EventSeq(event), token.cast_unsigned());
        by_destination.entry(row.get(0)).or_default().push(lease);
    }
    for (destination, leases) in by_destination {
        end(shared, destination, &leases).await?;
    }
    Ok(())
}

/// Makes known that this replica delivers to these destinations.
pub(super) async fn serve(shared: &Shared, destinations: &[i32]) -> Result<(), DbError> {
    if destinations.is_empty() {
        return Ok(());
    }
    let client = shared.pool.get().await?;
    let params: [Param<'_>; 3] =
        [(&destinations, Type::INT4_ARRAY), (&shared.replica, Type::INT8), (&nanos(LEASE), Type::INT8)];
    client.execute_typed(SERVE, &params).await?;
    Ok(())
}

/// This replica does not deliver to these destinations any more.
pub(super) async fn serve_no_more(shared: &Shared, destinations: &[i32]) -> Result<(), DbError> {
    let client = shared.pool.get().await?;
    let params: [Param<'_>; 2] = [(&shared.replica, Type::INT8), (&destinations, Type::INT4_ARRAY)];
    client.execute_typed(SERVE_NO_MORE, &params).await?;
    Ok(())
}

/// Whether another replica delivers to a destination that this one retires: it leaves the deliveries to that one.
pub(super) async fn yield_to_others(shared: &Shared, destination: &Destination) -> Result<bool, Error> {
    let asked = async {
        let client = shared.pool.get().await?;
        let params: [Param<'_>; 2] = [(&destination.id, Type::INT4), (&shared.replica, Type::INT8)];
        let rows = client.query_typed(IS_SERVED_ELSEWHERE, &params).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    };
    let is_elsewhere = asked.await.map_err(|error: DbError| store_error(shared, error))?;
    destination.is_served_elsewhere.store(is_elsewhere, Ordering::Relaxed);
    Ok(is_elsewhere)
}

/// Starts the task that renews leases. It ends with the store.
pub(super) fn start(shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    supervise::spawn("leases", move || maintain(shared.clone()));
}

async fn maintain(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(RENEWAL_INTERVAL).await;
        let Some(shared) = shared.upgrade().filter(|shared| !shared.pool.is_closed()) else { return };
        if let Err(error) = maintain_once(&shared).await {
            tracing::warn!(%error, "renewing the leases of claimed deliveries failed, retrying");
        }
    }
}

async fn maintain_once(shared: &Shared) -> Result<(), DbError> {
    renew(shared).await?;
    let destinations = shared.destinations.all();
    let ids: Vec<i32> = destinations.values().map(|destination| destination.id).collect();
    serve(shared, &ids).await?;
    end_overdue(shared).await?;
    let client = shared.pool.get().await?;
    client.execute_typed(FORGET, &[(&nanos(LEASE), Type::INT8)]).await?;
    Ok(())
}

/// Ends all leases of this process: its workers have ended.
pub(super) async fn close(shared: &Shared) {
    let destinations = shared.destinations.all();
    for destination in destinations.values() {
        release(destination, Retries::Keep);
        if let Err(error) = flush(shared, destination).await {
            tracing::warn!(%error, destination = %destination.name, "releasing claimed deliveries failed; their leases end by themselves");
        }
    }
    let ids: Vec<i32> = destinations.values().map(|destination| destination.id).collect();
    if let Err(error) = serve_no_more(shared, &ids).await {
        tracing::warn!(%error, "the destinations of this replica are released later");
    }
}

/// The maximum time between two claims.
pub(super) const MAX_POLL: Duration = Duration::from_secs(1);

/// The time until the next claim, given when the next delivery becomes claimable.
pub(super) fn poll_delay(next_due: Option<Time>, now: Time) -> Duration {
    // At least a millisecond, so that the worker does not spin if the clocks differ by less than a tick.
    next_due.map_or(MAX_POLL, |due| due.since(now)).clamp(Duration::from_millis(1), MAX_POLL)
}
