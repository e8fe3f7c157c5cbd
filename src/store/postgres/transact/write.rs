//! Writes a write set: one statement for each table, whatever the number of commands, in one round trip, or two if
//! deliveries of earlier events change.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::future::{try_join, try_join_all};
use tokio_postgres::types::Type;

use super::command::Hash;
use super::emission::{self, Emission};
use super::write_set::{RecheckedTarget, TargetWrite, WriteSet};
use crate::domain::control::Controls;
use crate::domain::delivery::DeliveryChangeKind;
use crate::domain::rate::Rate;
use crate::domain::time::{ClockReading, Time};
use crate::store::fast_map::Map;
use crate::store::postgres::Shared;
use crate::store::postgres::deliveries::{CountChanges, changes};
use crate::store::postgres::error::DbError;
use crate::store::postgres::queries::{audit, notifications, records};
use crate::store::postgres::schedule;
use crate::store::postgres::transaction::{Param, Transaction};

/// `event` is the first new event of a target.
const UPDATE_TARGETS: &str = "
    UPDATE targets t SET last_at = n.last_at, due = n.due, recheck = n.recheck,
        depends_on_controls = n.depends_on_controls, generation = n.generation, watch = n.watch, waits = n.waits,
        tally = n.tally, state = n.state, claimed_by = 0, claimed_until = 0,
        open_from = CASE WHEN n.event IS NULL THEN t.open_from ELSE coalesce((
            SELECT min(first.event) FROM destinations d CROSS JOIN LATERAL (
                SELECT o.event FROM deliveries o
                WHERE o.destination = d.id AND o.target BETWEEN t.id AND t.id AND o.event >= t.open_from AND o.state + 0 = 0
                ORDER BY o.target, o.event LIMIT 1
            ) AS first), n.event) END
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bool[], $5::bool[], $6::bigint[], $7::smallint[],
                $8::text[], $9::text[], $10::text[], $11::bigint[])
        AS n (id, last_at, due, recheck, depends_on_controls, generation, watch, waits, tally, state, event)
    WHERE t.id = n.id";
const UPDATE_RECHECKED: &str = "
    UPDATE targets t SET recheck = false, generation = n.generation, waits = n.waits, claimed_by = 0, claimed_until = 0
    FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS n (id, generation, waits) WHERE t.id = n.id";
/// After the targets were written.
const SET_RECHECK: &str = "UPDATE targets SET recheck = true WHERE id = ANY ($1) AND watch <> 0";
const DELETE_ALERTS: &str = "
    DELETE FROM target_alerts a USING unnest($1::bytea[], $2::bigint[]) AS n (alert, target)
    WHERE a.alert = n.alert AND a.target = n.target";
const INSERT_ALERTS: &str = "
    INSERT INTO target_alerts (alert, target) SELECT alert, target FROM unnest($1::bytea[], $2::bigint[])
        AS n (alert, target) ON CONFLICT DO NOTHING";
const UNTRACK: &str = "UPDATE events SET tracked = false WHERE seq = ANY ($1)";
const UPDATE_CONTROLS: &str = "UPDATE controls SET version = $1, generation = $2, body = $3";
const UPDATE_RATE: &str = "UPDATE rates SET version = version + 1, body = $2 WHERE direction = $1";

/// What a commit makes known to this process.
#[derive(Default)]
pub(super) struct WriteResult {
    pub counts: CountChanges,
    /// When the next target is due, if it was read.
    pub next_due: Option<(u64, Option<Time>)>,
}

type Statement<'a> = Pin<Box<dyn Future<Output = Result<(), DbError>> + Send + 'a>>;

/// Writes everything. `numbers` are those of the events. The statements are executed in their order.
pub(super) async fn write(
    shared: &Shared,
    transaction: &Transaction,
    set: &WriteSet,
    (emission, numbers): (&Emission, &[i64]),
) -> Result<WriteResult, DbError> {
    let mut statements: Vec<Statement<'_>> = Vec::new();
    if !set.targets.is_empty() {
        statements.push(Box::pin(update_targets(transaction, set, numbers)));
    }
    if !set.rechecked.is_empty() {
        statements.push(Box::pin(update_rechecked(transaction, &set.rechecked)));
    }
    for (sql, alerts) in [(DELETE_ALERTS, &set.removed_alerts), (INSERT_ALERTS, &set.added_alerts)] {
        if !alerts.is_empty() {
            statements.push(Box::pin(change_alerts(transaction, sql, alerts)));
        }
    }
    if !set.untracked.is_empty() {
        statements.push(Box::pin(change_rows(transaction, UNTRACK, &set.untracked)));
    }
    if let Some(controls) = &set.controls {
        statements.push(Box::pin(update_controls(transaction, controls)));
    }
    for (direction, rate) in [1, 2].into_iter().zip(&set.rates) {
        if let Some(rate) = rate {
            statements.push(Box::pin(update_rate(transaction, direction, rate)));
        }
    }
    if !set.events.is_empty() {
        statements.push(Box::pin(emission::insert_events(transaction, &set.events, numbers)));
        let deliveries = &emission.deliveries;
        statements.push(Box::pin(emission::insert_deliveries(transaction, deliveries, &set.events, numbers)));
    }
    if !emission.ended.is_empty() {
        statements.push(Box::pin(change_rows(transaction, SET_RECHECK, &emission.ended)));
    }
    push_history(shared, transaction, set, emission, &mut statements);
    // As what is written before it has left it.
    let mark = shared.fleet.due_mark();
    let unreadable: Vec<i64> = shared.fleet.unreadable.lock().keys().copied().collect();
    let next_due = async {
        match set.may_postpone {
            true => Ok(Some((mark, schedule::next_in(transaction, shared.replica, &unreadable).await?))),
            false => Ok(None),
        }
    };
    let changed = change_deliveries(shared, transaction, &set.delivery_changes);
    let (mut counts, (_, next_due)) = try_join(changed, try_join(try_join_all(statements), next_due)).await?;
    counts.extend(emission.counts(&shared.destinations, &set.events, numbers));
    Ok(WriteResult { counts, next_due })
}

/// Records, kept notifications and audit entries.
fn push_history<'a>(
    shared: &'a Shared,
    transaction: &'a Transaction,
    set: &'a WriteSet,
    emission: &'a Emission,
    statements: &mut Vec<Statement<'a>>,
) {
    for new in [&set.records, &emission.records] {
        if !new.is_empty() {
            statements.push(Box::pin(records::insert(transaction, new)));
        }
    }
    if !set.notifications.is_empty() {
        statements.push(Box::pin(notifications::insert(transaction, &shared.kept_bytes, &set.notifications)));
    }
    for (clock, entry) in &set.audit {
        statements.push(Box::pin(async move {
            audit::insert(transaction, *clock, std::slice::from_ref(entry)).await.map(drop)
        }));
    }
}

async fn update_targets(transaction: &Transaction, set: &WriteSet, numbers: &[i64]) -> Result<(), DbError> {
    fn column<'a, T>(targets: &'a [TargetWrite], read: impl Fn(&'a TargetWrite) -> T) -> Vec<T> {
        targets.iter().map(read).collect()
    }
    let targets = &set.targets;
    let mut first_events: Map<i64, i64> = Map::default();
    // In the order of their numbers.
    for (event, number) in set.events.iter().zip(numbers) {
        first_events.entry(event.target).or_insert(*number);
    }
    let params: [Param<'_>; 11] = [
        (&column(targets, |target| target.id), Type::INT8_ARRAY),
        (&column(targets, |target| target.at.as_nanos()), Type::INT8_ARRAY),
        (&column(targets, |target| target.due.map(Time::as_nanos)), Type::INT8_ARRAY),
        (&column(targets, |target| target.recheck), Type::BOOL_ARRAY),
        (&column(targets, |target| target.depends_on_controls), Type::BOOL_ARRAY),
        (&column(targets, |target| target.generation.cast_signed()), Type::INT8_ARRAY),
        (&column(targets, |target| target.watch), Type::INT2_ARRAY),
        (&column(targets, |target| target.waits.as_deref()), Type::TEXT_ARRAY),
        (&column(targets, |target| target.tally.as_deref()), Type::TEXT_ARRAY),
        (&column(targets, |target| target.state.as_deref()), Type::TEXT_ARRAY),
        (&column(targets, |target| first_events.get(&target.id).copied()), Type::INT8_ARRAY),
    ];
    transaction.execute(UPDATE_TARGETS, &params).await.map(drop)
}

async fn update_rechecked(transaction: &Transaction, targets: &[RecheckedTarget]) -> Result<(), DbError> {
    let ids: Vec<i64> = targets.iter().map(|target| target.id).collect();
    let generations: Vec<i64> = targets.iter().map(|target| target.generation.cast_signed()).collect();
    let waits: Vec<Option<&str>> = targets.iter().map(|target| target.waits.as_deref()).collect();
    let params: [Param<'_>; 3] =
        [(&ids, Type::INT8_ARRAY), (&generations, Type::INT8_ARRAY), (&waits, Type::TEXT_ARRAY)];
    transaction.execute(UPDATE_RECHECKED, &params).await.map(drop)
}

async fn change_alerts(
    transaction: &Transaction,
    sql: &'static str,
    alerts: &[(Hash, i64)],
) -> Result<(), DbError> {
    let hashes: Vec<&[u8]> = alerts.iter().map(|(alert, _)| alert.as_slice()).collect();
    let targets: Vec<i64> = alerts.iter().map(|(_, target)| *target).collect();
    let params: [Param<'_>; 2] = [(&hashes, Type::BYTEA_ARRAY), (&targets, Type::INT8_ARRAY)];
    transaction.execute(sql, &params).await.map(drop)
}

async fn change_rows(transaction: &Transaction, sql: &'static str, ids: &[i64]) -> Result<(), DbError> {
    transaction.execute(sql, &[(&ids, Type::INT8_ARRAY)]).await.map(drop)
}

async fn update_controls(transaction: &Transaction, controls: &Controls) -> Result<(), DbError> {
    let body = serde_json::to_string(controls)
        .map_err(|error| DbError::Damaged(format!("the controls cannot be written: {error}")))?;
    let (version, generation) = (controls.version.cast_signed(), controls.generation.cast_signed());
    let params: [Param<'_>; 3] = [(&version, Type::INT8), (&generation, Type::INT8), (&body, Type::TEXT)];
    transaction.execute(UPDATE_CONTROLS, &params).await.map(drop)
}

async fn update_rate(transaction: &Transaction, direction: i16, rate: &Rate) -> Result<(), DbError> {
    let body = serde_json::to_string(rate)
        .map_err(|error| DbError::Damaged(format!("the rates cannot be written: {error}")))?;
    transaction.execute(UPDATE_RATE, &[(&direction, Type::INT2), (&body, Type::TEXT)]).await.map(drop)
}

/// Changes the deliveries of earlier events. Commands nearly always have the same clock.
async fn change_deliveries(
    shared: &Shared,
    transaction: &Transaction,
    all: &[(ClockReading, i64, DeliveryChangeKind)],
) -> Result<CountChanges, DbError> {
    let mut by_clock: BTreeMap<Time, (ClockReading, Vec<(i64, DeliveryChangeKind)>)> = BTreeMap::new();
    for &(clock, seq, kind) in all {
        by_clock.entry(clock.now).or_insert((clock, Vec::new())).1.push((seq, kind));
    }
    let applied =
        by_clock.into_values().map(|(clock, changes)| changes::apply(shared, transaction, clock, changes));
    let mut counts = CountChanges::default();
    try_join_all(applied).await?.into_iter().for_each(|changed| counts.extend(changed));
    Ok(counts)
}
