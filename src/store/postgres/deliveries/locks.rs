//! Changes of deliveries begin with the locks of their targets, in the order of their ids. Claims take none of them and
//! never wait for a lock.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::row::{COLUMNS, DeliveryRow};
use crate::domain::time::{ClockReading, Time};
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::{Error, Lease};

/// By an array, so that the index is used whatever the planner knows about the tables.
const LOCK_TARGETS: &str = "
    SELECT id, last_at, watch FROM targets
    WHERE id = ANY (ARRAY(SELECT target FROM deliveries WHERE destination = $1 AND event = ANY ($2)))
    ORDER BY id FOR NO KEY UPDATE";
/// Read after the locks are taken: the server's clock, and the id of the transaction.
pub(super) const NOW: &str = "SELECT now_ns(), pg_current_xact_id()::text::bigint";
/// Targets that wait for what has changed are processed.
const RECHECK: &str = "
    UPDATE targets SET recheck = true, last_at = greatest(last_at, $2) WHERE id = ANY ($1)";

/// `targets.watch`: it tracks events.
const TRACKS_EVENTS: i16 = 1;
/// `targets.watch`: it awaits a delivery.
const AWAITS_DELIVERY: i16 = 2;

/// A locked target.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockedTarget {
    pub id: i64,
    last_at: i64,
    watch: i16,
}

impl LockedTarget {
    pub(super) fn read(row: &Row) -> Self {
        Self { id: row.get(0), last_at: row.get(1), watch: row.get(2) }
    }

    /// Whether it has to be processed when a delivery has arrived.
    pub(super) fn awaits_arrival(&self) -> bool {
        self.watch & AWAITS_DELIVERY != 0
    }

    /// Whether it has to be processed when a delivery has ended otherwise, or is tried again.
    pub(super) fn awaits_end(&self) -> bool {
        self.watch & (AWAITS_DELIVERY | TRACKS_EVENTS) != 0
    }
}

/// The moment of a change, given the server's clock after the locks of the targets: it is not before their last one.
pub(super) fn clock_after(server: Time, targets: &[LockedTarget]) -> ClockReading {
    let last = targets.iter().map(|target| Time::from_nanos(target.last_at)).max();
    ClockReading { now: last.map_or(server, |last| last.max(server)), wall: server }
}

/// Deliveries with their targets, all locked.
pub(super) struct Locked {
    pub targets: Vec<LockedTarget>,
    pub clock: ClockReading,
    /// The id of the transaction.
    pub xid: i64,
    /// What was read of each delivery: the columns of [`DeliveryRow`], and further ones.
    pub rows: Vec<Row>,
}

impl Locked {
    /// Locks the deliveries of these events to a destination. One round trip. `more` are further columns, of
    /// `deliveries d` and `events e`, with their parameters from `$3` on.
    pub(super) async fn read_with(
        transaction: &Transaction,
        destination: i32,
        events: &[i64],
        more: (&str, &[Param<'_>]),
    ) -> Result<Self, DbError> {
        let select = format!(
            "SELECT {COLUMNS}{} FROM deliveries d LEFT JOIN events e ON e.seq = d.event
             WHERE d.destination = $1 AND d.event = ANY ($2) ORDER BY d.event FOR NO KEY UPDATE OF d",
            more.0
        );
        let params: [Param<'_>; 2] = [(&destination, Type::INT4), (&events, Type::INT8_ARRAY)];
        let all: Vec<Param<'_>> = params.iter().chain(more.1).cloned().collect();
        let (targets, now, rows) = futures_util::future::try_join3(
            transaction.query(LOCK_TARGETS, &params),
            transaction.query_one(NOW, &[]),
            transaction.query(&select, &all),
        )
        .await?;
        let targets: Vec<LockedTarget> = targets.iter().map(LockedTarget::read).collect();
        let clock = clock_after(Time::from_nanos(now.get(0)), &targets);
        Ok(Self { targets, clock, xid: now.get(1), rows })
    }

    /// The same of what is leased by these leases.
    pub(super) async fn read_leased(
        transaction: &Transaction,
        destination: i32,
        leases: &[Lease],
        more: &str,
    ) -> Result<Self, DbError> {
        let mut events: Vec<i64> = leases.iter().map(|lease| lease.seq().0).collect();
        events.sort_unstable();
        events.dedup();
        Self::read_with(transaction, destination, &events, (more, &[])).await
    }

    pub(super) fn target(&self, id: i64) -> Option<&LockedTarget> {
        let at = self.targets.binary_search_by_key(&id, |target| target.id).ok()?;
        self.targets.get(at)
    }
}

/// The row's delivery, if it is leased by `lease`.
pub(super) fn holds(row: &DeliveryRow, lease: Lease) -> bool {
    row.event == lease.seq().0 && row.token == Some(lease.token().cast_signed())
}

/// These targets have to be processed.
pub(super) async fn recheck(transaction: &Transaction, targets: &[i64], now: Time) -> Result<(), DbError> {
    if targets.is_empty() {
        return Ok(());
    }
    let params: [Param<'_>; 2] = [(&targets, Type::INT8_ARRAY), (&now.as_nanos(), Type::INT8)];
    transaction.execute(RECHECK, &params).await.map(drop)
}

/// The maximum number of times that a transaction is run which lost against others.
const MAX_RUNS: u32 = 10;
const CONFLICT_DELAY: Duration = Duration::from_millis(5);

/// Runs of a transaction that can lose against others: it is run again.
#[derive(Default)]
pub(super) struct Runs(u32);

impl Runs {
    /// The result of the last run; `None` if it is run again.
    pub(super) async fn end<T>(&mut self, result: Result<T, DbError>) -> Option<Result<T, DbError>> {
        self.0 += 1;
        match result {
            Err(error) if error.is_conflict() && self.0 < MAX_RUNS => {
                tokio::time::sleep(CONFLICT_DELAY.mul_f64(f64::from(self.0) * fastrand::f64())).await;
                None
            }
            result => Some(result),
        }
    }
}

/// The error of a call.
pub(super) fn store_error(shared: &Shared, error: DbError) -> Error {
    if shared.pool.is_closed() { Error::Closed } else { error.into_store(Stage::Use) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(last_at: i64, watch: i16) -> LockedTarget {
        LockedTarget { id: 1, last_at, watch }
    }

    #[test]
    fn time_does_not_go_back_for_a_target_when_the_servers_clock_does() {
        let server = Time::from_nanos(10);
        assert_eq!(clock_after(server, &[]), ClockReading::equal(server));
        assert_eq!(clock_after(server, &[target(9, 0)]), ClockReading::equal(server));
        let ahead = clock_after(server, &[target(9, 0), target(12, 0)]);
        assert_eq!((ahead.now, ahead.wall), (Time::from_nanos(12), server));
    }

    #[test]
    fn a_target_that_tracks_events_is_processed_when_one_ends_and_one_that_awaits_a_delivery_also_when_it_arrives()
     {
        let awaits = |watch| (target(0, watch).awaits_arrival(), target(0, watch).awaits_end());
        assert_eq!([0, 1, 2, 3].map(awaits), [(false, false), (false, true), (true, true), (true, true)]);
    }
}
