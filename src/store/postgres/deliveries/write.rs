//! Writing deliveries that were read under their locks, a set at a time.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::row::{DeliveryRow, State};
use crate::domain::time::{ClockReading, Time};
use crate::store::postgres::Shared;
use crate::store::postgres::destinations::{Class, CountChange};
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::{Param, Transaction};

/// All of a delivery that can change.
const UPDATE: &str = "
    UPDATE deliveries d SET state = n.state, attempts = n.attempts, due = n.due, token = n.token, age_from = n.age_from,
        expiry = n.expiry, ended_at = n.ended_at, is_suspended = n.flags & 1 <> 0, is_aside = n.flags & 2 <> 0,
        is_called = n.flags & 4 <> 0, is_uncertain = n.flags & 8 <> 0, is_expired = n.flags & 16 <> 0,
        is_parked = n.flags & 32 <> 0, error = CASE WHEN n.flags & 64 <> 0 THEN n.error ELSE d.error END,
        answer = coalesce(n.answer, d.answer)
    FROM unnest($1::int[], $2::bigint[], $3::smallint[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::bigint[], $9::bigint[], $10::int[], $11::text[], $12::text[])
        AS n (destination, event, state, attempts, due, token, age_from, expiry, ended_at, flags, error, answer)
    WHERE d.destination = n.destination AND d.event = n.event";

/// The first delivery of each queue that can be claimed is looked at again. With `$4`, also one that a claim may be about
/// to park: the update waits for its end.
///
/// The plan must not depend on what the planner knows about the tables. The heads are found first, since a join of the
/// queues with all open deliveries can look cheaper. The range of one target has the order of the index of queues; with an
/// equality, the order is that of the primary key too, in which the server could read all deliveries. The updated rows are
/// found by the primary key, since no partial index has the difference.
pub(super) const UNPARK: &str = "
    WITH head AS MATERIALIZED (
        SELECT queue.destination, first.event FROM unnest($1::int[], $2::bigint[]) AS queue (destination, target)
        CROSS JOIN LATERAL (
            SELECT o.event FROM deliveries o
            WHERE o.destination = queue.destination AND o.target BETWEEN queue.target AND queue.target
            AND o.state + 0 = 0 AND NOT o.is_suspended AND NOT (o.is_aside AND o.due > $3)
            AND o.event >= (SELECT t.open_from FROM targets t WHERE t.id = queue.target)
            ORDER BY o.target, o.event LIMIT 1
        ) AS first
    )
    UPDATE deliveries d SET due = CASE WHEN d.is_parked THEN $3 ELSE d.due END, is_parked = false
    FROM head
    WHERE d.destination = head.destination AND d.event = head.event AND d.state - 0 = 0
    AND (d.is_parked OR $4 AND d.token IS NULL AND d.due <= $3)";

/// What was settled is open again: no later delivery can be sent before it. One that is being claimed is waited for.
const REOPEN: &str = "
    WITH again AS MATERIALIZED (
        SELECT destination, target, min(event) AS event
        FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS n (destination, target, event) GROUP BY 1, 2
    ), of_targets AS (
        UPDATE targets t SET open_from = least(t.open_from, first.event)
        FROM (SELECT target, min(event) AS event FROM again GROUP BY 1) AS first WHERE t.id = first.target
    )
    UPDATE deliveries d SET open_from = least(d.open_from, again.event) FROM again
    WHERE d.destination = again.destination AND d.target = again.target AND d.state + 0 = 0";

/// Changed deliveries with what has to follow.
#[derive(Default)]
pub(super) struct Changed {
    rows: Vec<DeliveryRow>,
    /// Destinations and targets of which another delivery can be sent now.
    freed: Vec<(i32, i64)>,
    /// Destinations, targets and events of what was settled and is open again.
    reopened: Vec<(i32, i64, i64)>,
    published: CountChanges,
}

/// What a transaction changes about destinations as this process knows them, to be applied when it is committed.
#[derive(Debug, Default)]
#[must_use]
pub(in crate::store::postgres) struct CountChanges {
    counts: BTreeMap<i32, CountChange>,
    /// The lowest due time among the open deliveries that were written.
    due: BTreeMap<i32, i64>,
}

impl Changed {
    /// Adds a delivery that was `before`. The time of emission is needed if it was settled and is not any more.
    pub(super) fn add(&mut self, before: &DeliveryRow, after: DeliveryRow, emitted_at: i64, wall: Time) {
        if *before == after {
            return;
        }
        if after.frees_queue_of(before, wall) {
            self.freed.push((after.destination, after.target));
        }
        if before.state != State::Open && after.state == State::Open {
            self.reopened.push((after.destination, after.target, after.event));
        }
        let counts = self.published.counts.entry(after.destination).or_default();
        counts.add(after.event, emitted_at, before.class(), after.class());
        if after.state == State::Open {
            self.published.add_due(after.destination, after.due);
        }
        self.rows.push(after);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the rows, and lets the next deliveries of their targets be claimed. Up to three statements, whatever the
    /// number of deliveries; each sees what those before it have written.
    /// `with_concurrent_claims` as of [`UNPARK`].
    pub(super) async fn write(
        self,
        transaction: &Transaction,
        wall: Time,
        with_concurrent_claims: bool,
    ) -> Result<CountChanges, DbError> {
        let Self { rows, freed, reopened, mut published } = self;
        for (destination, _) in &freed {
            published.add_due(*destination, wall.as_nanos());
        }
        let reopened = async {
            match reopened.is_empty() {
                true => Ok(()),
                false => reopen(transaction, &reopened).await,
            }
        };
        let freed = async {
            match freed.is_empty() {
                true => Ok(()),
                false => unpark(transaction, &freed, wall, with_concurrent_claims).await,
            }
        };
        if !rows.is_empty() {
            futures_util::future::try_join3(update(transaction, &rows), reopened, freed).await?;
        }
        Ok(published)
    }
}

/// See [`REOPEN`]. The targets are locked.
async fn reopen(transaction: &Transaction, events: &[(i32, i64, i64)]) -> Result<(), DbError> {
    let destinations: Vec<i32> = events.iter().map(|(destination, ..)| *destination).collect();
    let targets: Vec<i64> = events.iter().map(|(_, target, _)| *target).collect();
    let numbers: Vec<i64> = events.iter().map(|(.., event)| *event).collect();
    let params: [Param<'_>; 3] =
        [(&destinations, Type::INT4_ARRAY), (&targets, Type::INT8_ARRAY), (&numbers, Type::INT8_ARRAY)];
    transaction.execute(REOPEN, &params).await.map(drop)
}

/// See [`UNPARK`].
pub(super) async fn unpark(
    transaction: &Transaction,
    queues: &[(i32, i64)],
    wall: Time,
    with_concurrent_claims: bool,
) -> Result<(), DbError> {
    let mut queues = queues.to_vec();
    queues.sort_unstable();
    queues.dedup();
    let (destinations, targets): (Vec<i32>, Vec<i64>) = queues.into_iter().unzip();
    let params: [Param<'_>; 4] = [
        (&destinations, Type::INT4_ARRAY),
        (&targets, Type::INT8_ARRAY),
        (&wall.as_nanos(), Type::INT8),
        (&with_concurrent_claims, Type::BOOL),
    ];
    transaction.execute(UNPARK, &params).await.map(drop)
}

pub(super) async fn update(transaction: &Transaction, rows: &[DeliveryRow]) -> Result<(), DbError> {
    fn column<'a, T>(rows: &'a [DeliveryRow], read: impl Fn(&'a DeliveryRow) -> T) -> Vec<T> {
        rows.iter().map(read).collect()
    }
    let params: [Param<'_>; 12] = [
        (&column(rows, |row| row.destination), Type::INT4_ARRAY),
        (&column(rows, |row| row.event), Type::INT8_ARRAY),
        (&column(rows, |row| row.state as i16), Type::INT2_ARRAY),
        (&column(rows, |row| row.attempts), Type::INT4_ARRAY),
        (&column(rows, |row| row.due), Type::INT8_ARRAY),
        (&column(rows, |row| row.token), Type::INT8_ARRAY),
        (&column(rows, |row| row.age_from), Type::INT8_ARRAY),
        (&column(rows, |row| row.expiry), Type::INT8_ARRAY),
        (&column(rows, |row| row.ended_at), Type::INT8_ARRAY),
        (&column(rows, flags), Type::INT4_ARRAY),
        (&column(rows, |row| row.error.as_ref().and_then(Option::as_deref)), Type::TEXT_ARRAY),
        (&column(rows, |row| row.answer.as_deref()), Type::TEXT_ARRAY),
    ];
    transaction.execute(UPDATE, &params).await.map(drop)
}

fn flags(row: &DeliveryRow) -> i32 {
    let flags = [
        row.is_suspended,
        row.is_aside,
        row.is_called,
        row.is_uncertain,
        row.is_expired,
        row.is_parked,
        row.error.is_some(),
    ];
    flags.iter().rev().fold(0, |bits, &flag| bits << 1 | i32::from(flag))
}

impl CountChanges {
    /// A delivery was inserted, which is due when it is emitted.
    pub(in crate::store::postgres) fn insert(
        &mut self,
        destination: i32,
        seq: i64,
        emitted: ClockReading,
        class: Class,
    ) {
        let counts = self.counts.entry(destination).or_default();
        counts.add(seq, emitted.now.as_nanos(), Class::Other, class);
        if matches!(class, Class::Unsettled { .. }) {
            self.add_due(destination, emitted.wall.as_nanos());
        }
    }

    fn add_due(&mut self, destination: i32, due: i64) {
        self.due.entry(destination).and_modify(|lowest| *lowest = due.min(*lowest)).or_insert(due);
    }

    /// Adds the changes of the same transaction.
    pub(in crate::store::postgres) fn extend(&mut self, others: Self) {
        for (destination, change) in others.counts {
            self.counts.entry(destination).or_default().extend(change);
        }
        for (destination, due) in others.due {
            self.add_due(destination, due);
        }
    }

    /// Applies them. `xid` is the id of the transaction.
    pub(in crate::store::postgres) fn apply(&self, shared: &Shared, xid: i64) {
        for destination in shared.destinations.all().values() {
            if let Some(change) = self.counts.get(&destination.id) {
                destination.counts.lock().apply(xid, change);
            }
            if let Some(due) = self.due.get(&destination.id) {
                destination.scan_floor.lock().lower(*due);
            }
        }
    }
}
