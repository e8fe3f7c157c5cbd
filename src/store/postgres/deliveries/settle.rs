//! Outcomes of claimed deliveries, and the calls that are about to begin.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::leases;
use super::locks::{Locked, LockedTarget, Runs, holds, recheck, store_error};
use super::row::{COLUMN_COUNT, DeliveryRow, Settled, State};
use super::write::{Changed, CountChanges};
use crate::domain::name::Name;
use crate::domain::time::ClockReading;
use crate::store::postgres::Shared;
use crate::store::postgres::destinations::Destination;
use crate::store::postgres::error::DbError;
use crate::store::postgres::queries::records::{self, NewRecord};
use crate::store::postgres::transaction::{LockWait, Param, Transaction};
use crate::store::{Error, Lease, RefusalReason, Refused, Settlement, withdrawn};

/// The last successful call is written once a second, and at once while a target waits for one. That is looked up in the
/// order of the index of waiting targets; without an order, the planner may take a scan of all targets for cheap.
pub(super) const PUT_SUCCESS: &str = "
    WITH waiting AS MATERIALIZED (SELECT 1 FROM targets WHERE waits IS NOT NULL ORDER BY last_at LIMIT 1)
    UPDATE destinations SET last_success = greatest(last_success, $2) WHERE id = $1
    AND (last_success IS NULL OR last_success < $2 - 1000000000
         OR last_success < $2 AND EXISTS (SELECT FROM waiting))
    RETURNING EXISTS (SELECT FROM waiting)";
/// Of `events e`, for the records of withdrawn deliveries.
const BODY_OF_WITHDRAWN: &str = ", CASE WHEN d.event = ANY ($3) THEN e.body END";

/// Stores the outcomes of claimed deliveries.
pub(super) async fn settle(
    shared: &Shared,
    name: &Name,
    settled: Vec<(Lease, Settlement)>,
) -> Result<(), Error> {
    let destination = shared.destinations.require(name)?;
    leases::flush(shared, &destination).await?;
    let locked = match settle_together(shared, &destination, &settled, LockWait::of(settled.len())).await {
        Ok(()) => Vec::new(),
        Err(error) if error.is_locked() => {
            settle_apart(shared, &destination, &settled).await.map_err(|error| store_error(shared, error))?
        }
        Err(error) => return Err(store_error(shared, error)),
    };
    let mut leases = destination.leases.lock();
    for (lease, _) in settled.iter().filter(|(lease, _)| !locked.contains(lease)) {
        if leases.get(&lease.seq()).is_some_and(|held| held.token == lease.token()) {
            leases.remove(&lease.seq());
        }
    }
    drop(leases);
    destination.wakeup.notify_one();
    if locked.is_empty() { Ok(()) } else { Err(Error::Locked(locked)) }
}

async fn settle_together(
    shared: &Shared,
    destination: &Destination,
    settled: &[(Lease, Settlement)],
    wait: LockWait,
) -> Result<(), DbError> {
    let mut runs = Runs::default();
    let settlements = Settlements::new(settled);
    loop {
        if let Some(done) = runs.end(settlements.run(shared, destination, wait).await).await {
            return done;
        }
    }
}

/// One after the other, since another session holds the lock of some target. Returns the leases of what was not settled
/// because of that.
async fn settle_apart(
    shared: &Shared,
    destination: &Destination,
    settled: &[(Lease, Settlement)],
) -> Result<Vec<Lease>, DbError> {
    let mut locked = Locks::default();
    for one in settled {
        if locked.are_all_held(settled.len()) {
            locked.held.push(one.0);
            continue;
        }
        let done = match settled.len() {
            // It was waited for.
            1 => return Ok(vec![one.0]),
            _ => settle_together(shared, destination, std::slice::from_ref(one), LockWait::Short).await,
        };
        locked.add(one.0, done)?;
    }
    tracing::warn!(
        destination = %destination.name,
        count = locked.held.len(),
        fix = "find it in `pg_stat_activity` with `pg_blocking_pids`, and end its transaction",
        "another session of the database holds the lock of targets, their deliveries are settled later"
    );
    Ok(locked.held)
}

/// What was found locked, one piece after the other.
#[derive(Default)]
struct Locks {
    held: Vec<Lease>,
    has_succeeded: bool,
}

impl Locks {
    /// So many without a success are waited for; then the whole table may be locked.
    const MAX_WAITS: usize = 4;

    fn are_all_held(&self, all: usize) -> bool {
        !self.has_succeeded && all > Self::MAX_WAITS && self.held.len() >= Self::MAX_WAITS
    }

    /// Adds the result for a lease. `None` if it is locked.
    fn add<T>(&mut self, lease: Lease, done: Result<T, DbError>) -> Result<Option<T>, DbError> {
        match done {
            Ok(done) => {
                self.has_succeeded = true;
                Ok(Some(done))
            }
            Err(error) if error.is_locked() => {
                self.held.push(lease);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The settlements of a batch. Of several by one lease, the first counts.
struct Settlements<'a> {
    by_event: BTreeMap<i64, Vec<&'a (Lease, Settlement)>>,
    /// The events that are withdrawn.
    withdrawn: Vec<i64>,
}

/// What a batch changes.
#[derive(Default)]
struct Batch {
    changed: Changed,
    rechecked: Vec<i64>,
    records: Vec<NewRecord>,
    has_success: bool,
}

impl<'a> Settlements<'a> {
    fn new(settled: &'a [(Lease, Settlement)]) -> Self {
        let mut by_event: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        for one in settled {
            by_event.entry(one.0.seq().0).or_default().push(one);
        }
        let is_withdrawn = |one: &&(Lease, Settlement)| matches!(one.1, Settlement::Withdrawn { .. });
        let withdrawn = settled.iter().filter(is_withdrawn).map(|one| one.0.seq().0).collect();
        Self { by_event, withdrawn }
    }

    async fn run(&self, shared: &Shared, destination: &Destination, wait: LockWait) -> Result<(), DbError> {
        let transaction = Transaction::begin_with(&shared.pool, wait).await?;
        let events: Vec<i64> = self.by_event.keys().copied().collect();
        let more: &[Param<'_>] = &[(&self.withdrawn, Type::INT8_ARRAY)];
        let locked =
            Locked::read_with(&transaction, destination.id, &events, (BODY_OF_WITHDRAWN, more)).await?;
        let batch = self.decide(&destination.name, &locked)?;
        if batch.changed.is_empty() {
            return transaction.rollback().await;
        }
        let clock = locked.clock;
        let (counts, (), (), awaited) = futures_util::future::try_join4(
            batch.changed.write(&transaction, clock.wall, true),
            recheck(&transaction, &batch.rechecked, clock.now),
            records::insert(&transaction, &batch.records),
            put_success(&transaction, destination.id, clock, batch.has_success),
        )
        .await?;
        transaction.commit().await?;
        counts.apply(shared, locked.xid);
        if awaited || !batch.rechecked.is_empty() {
            shared.fleet.add_due(clock.now);
        }
        Ok(())
    }

    fn decide(&self, destination: &Name, locked: &Locked) -> Result<Batch, DbError> {
        let mut batch = Batch::default();
        for row in &locked.rows {
            let before = DeliveryRow::read(row)?;
            let settlements = self.by_event.get(&before.event).into_iter().flatten();
            let Some((_, settlement)) = settlements.copied().find(|(lease, _)| holds(&before, *lease)) else {
                continue;
            };
            let mut after = before.clone();
            let settled = after.settle(locked.clock, settlement.clone());
            let target = locked.target(before.target);
            let needs_recheck = match settled {
                Settled::Arrived => target.is_some_and(LockedTarget::awaits_arrival),
                Settled::NotDelivered => target.is_some_and(LockedTarget::awaits_end),
                Settled::Postponed => false,
            };
            batch.rechecked.extend(target.filter(|_| needs_recheck).map(|target| target.id));
            batch.has_success |= settled == Settled::Arrived;
            // A cancelled delivery has its record already.
            if let (Settlement::Withdrawn { reason }, State::Withdrawn) = (settlement, after.state) {
                let body: Option<&str> = row.get(COLUMN_COUNT);
                let ClockReading { wall, .. } = locked.clock;
                batch.records.push(NewRecord {
                    at: wall.as_nanos(),
                    ahead: locked.clock.ahead_nanos(),
                    targets: vec![before.target],
                    body: withdrawn::withdrawal_record(wall, body.unwrap_or_default(), destination, reason),
                });
            }
            batch.changed.add(&before, after, 0, locked.clock.wall);
        }
        batch.rechecked.sort_unstable();
        batch.rechecked.dedup();
        Ok(batch)
    }
}

/// Returns whether a target may have waited for it.
async fn put_success(
    transaction: &Transaction,
    destination: i32,
    clock: ClockReading,
    has_success: bool,
) -> Result<bool, DbError> {
    if !has_success {
        return Ok(false);
    }
    let params: [Param<'_>; 2] = [(&destination, Type::INT4), (&clock.now.as_nanos(), Type::INT8)];
    let rows = transaction.query(PUT_SUCCESS, &params).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Stores that claimed deliveries are about to be called. Returns those that must not be.
pub(super) async fn begin_calls(
    shared: &Shared,
    name: &Name,
    leases: Vec<Lease>,
) -> Result<Vec<Refused>, Error> {
    let destination = shared.destinations.require(name)?;
    leases::flush(shared, &destination).await?;
    let begun = match begin_together(shared, &destination, &leases, LockWait::of(leases.len())).await {
        Err(error) if error.is_locked() && leases.len() > 1 => {
            begin_apart(shared, &destination, &leases).await
        }
        begun => begun,
    };
    begun.map_err(|error| store_error(shared, error))
}

async fn begin_together(
    shared: &Shared,
    destination: &Destination,
    leases: &[Lease],
    wait: LockWait,
) -> Result<Vec<Refused>, DbError> {
    let mut runs = Runs::default();
    loop {
        let run = try_begin_calls(shared, destination, leases, wait).await;
        if let Some(done) = runs.end(run).await {
            return done;
        }
    }
}

/// One after the other, since another session holds the lock of some target: those are not called.
async fn begin_apart(
    shared: &Shared,
    destination: &Destination,
    leases: &[Lease],
) -> Result<Vec<Refused>, DbError> {
    let (mut refused, mut locked) = (Vec::new(), Locks::default());
    for &lease in leases {
        if locked.are_all_held(leases.len()) {
            locked.held.push(lease);
            continue;
        }
        let begun = begin_together(shared, destination, &[lease], LockWait::Short).await;
        refused.extend(locked.add(lease, begun)?.unwrap_or_default());
    }
    let held = locked.held.into_iter();
    refused.extend(held.map(|lease| Refused { lease, reason: RefusalReason::Locked }));
    Ok(refused)
}

async fn try_begin_calls(
    shared: &Shared,
    destination: &Destination,
    leases: &[Lease],
    wait: LockWait,
) -> Result<Vec<Refused>, DbError> {
    let transaction = Transaction::begin_with(&shared.pool, wait).await?;
    let locked = Locked::read_leased(&transaction, destination.id, leases, "").await?;
    let rows = locked.rows.iter().map(DeliveryRow::read);
    let rows = rows.map(|row| row.map(|row| (row.event, row))).collect::<Result<BTreeMap<_, _>, _>>()?;
    let (mut changed, mut refused) = (Changed::default(), Vec::new());
    for &lease in leases {
        let row = rows.get(&lease.seq().0).filter(|row| holds(row, lease));
        match row.map_or(Some(RefusalReason::LeaseEnded), refusal_reason) {
            Some(reason) => refused.push(Refused { lease, reason }),
            None => {
                let before = &rows[&lease.seq().0];
                let mut after = before.clone();
                after.begin_call(locked.clock.wall);
                changed.add(before, after, 0, locked.clock.wall);
            }
        }
    }
    if changed.is_empty() {
        transaction.rollback().await?;
        return Ok(refused);
    }
    let _no_changes: CountChanges = changed.write(&transaction, locked.clock.wall, true).await?;
    transaction.commit().await?;
    Ok(refused)
}

/// Why a leased delivery must not be called; `None` if it can be.
fn refusal_reason(row: &DeliveryRow) -> Option<RefusalReason> {
    match row.state {
        State::Open if row.is_suspended => Some(RefusalReason::Suspended),
        State::Open => None,
        State::Superseded => Some(RefusalReason::Superseded),
        _ => Some(RefusalReason::LeaseEnded),
    }
}
