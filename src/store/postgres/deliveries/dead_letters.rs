//! Dead letters: listed, redriven and discarded.

use tokio_postgres::types::Type;

use super::locks::{LockedTarget, NOW, Runs, clock_after, recheck, store_error};
use super::row::{COLUMN_COUNT, COLUMNS, DeliveryRow, State};
use super::write::Changed;
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::time::Time;
use crate::store::dead_letters::{DeadLetterRow, as_sent};
use crate::store::postgres::Shared;
use crate::store::postgres::error::DbError;
use crate::store::postgres::queries::audit;
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::{AuditWrite, DeadLetter, DeadLetterError, DeliveryId, Error, EventSeq, Redrive};

/// Names are ordered by their bytes, as in [`DeliveryId`].
const PAGE: &str = "
    SELECT d.event, n.name, d.attempts, d.error, d.ended_at, d.expiry, e.at, e.body
    FROM deliveries d JOIN destinations n ON n.id = d.destination JOIN events e ON e.seq = d.event
    WHERE d.state = 2 AND d.event >= $1 AND (d.event > $1 OR n.name COLLATE \"C\" > $2)
    AND ($3::text IS NULL OR n.name = $3)
    ORDER BY d.event, n.name COLLATE \"C\" LIMIT $4";
const LOCK_TARGET: &str = "
    SELECT id, last_at, watch, state FROM targets WHERE id = (
        SELECT d.target FROM deliveries d JOIN destinations n ON n.id = d.destination
        WHERE d.event = $1 AND n.name = $2)
    FOR NO KEY UPDATE";
/// The columns after those of the delivery.
const EVENT_BODY: usize = COLUMN_COUNT;
const MAY_DECREASE: usize = COLUMN_COUNT + 1;
const EMITTED_AT: usize = COLUMN_COUNT + 2;

/// Up to `max` dead letters after a delivery.
pub(super) async fn list(
    shared: &Shared,
    destination: Option<Name>,
    after: Option<DeliveryId>,
    max: usize,
) -> Result<Vec<DeadLetter>, Error> {
    let (seq, name) =
        after.map_or((i64::MIN, String::new()), |after| (after.seq.0, after.destination.as_str().to_owned()));
    let destination = destination.map(|destination| destination.as_str().to_owned());
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let read = async {
        let client = shared.pool.get().await?;
        let params: [Param<'_>; 4] =
            [(&seq, Type::INT8), (&name, Type::TEXT), (&destination, Type::TEXT), (&max, Type::INT8)];
        client.query_typed(PAGE, &params).await
    };
    let rows = read.await.map_err(|error: DbError| store_error(shared, error))?;
    let letters = rows.iter().filter_map(|row| {
        let time = |nanos: Option<i64>| nanos.map(Time::from_nanos);
        let row = DeadLetterRow {
            delivery_id: DeliveryId {
                seq: EventSeq(row.get(0)),
                destination: Name::new(row.get::<_, &str>(1)).ok()?,
            },
            emitted_at: Time::from_nanos(row.get(6)),
            attempts: u32::try_from(row.get::<_, i32>(2)).unwrap_or(0),
            error: row.get::<_, Option<String>>(3).unwrap_or_default(),
            given_up_at: time(row.get(4)).unwrap_or(Time::from_nanos(0)),
            event: as_sent(row.get(7), time(row.get(5))),
        };
        Some(row.into())
    });
    Ok(letters.collect())
}

/// What an operator does with a dead letter.
#[derive(Debug, Clone, Copy)]
pub(super) enum OperatorAct {
    Redrive(Redrive),
    Discard,
}

/// Redrives or discards a dead letter.
pub(super) async fn act(
    shared: &Shared,
    delivery_id: &DeliveryId,
    act: OperatorAct,
    audit: AuditWrite,
) -> Result<(), DeadLetterError> {
    let known = shared.destinations.get(&delivery_id.destination);
    if known.is_none() && matches!(act, OperatorAct::Redrive(_)) {
        return Err(DeadLetterError::NotConfigured(delivery_id.destination.clone()));
    }
    let mut runs = Runs::default();
    loop {
        if let Some(done) = runs.end(try_act(shared, delivery_id, act, &audit).await).await {
            done.map_err(|error| store_error(shared, error))??;
            known.iter().for_each(|destination| destination.wakeup.notify_one());
            return Ok(());
        }
    }
}

async fn try_act(
    shared: &Shared,
    delivery_id: &DeliveryId,
    act: OperatorAct,
    audit: &AuditWrite,
) -> Result<Result<(), DeadLetterError>, DbError> {
    let select = format!(
        "SELECT {COLUMNS}, e.body, e.may_decrease, e.at
         FROM deliveries d JOIN destinations n ON n.id = d.destination JOIN events e ON e.seq = d.event
         WHERE d.event = $1 AND n.name = $2 AND d.state = 2 FOR NO KEY UPDATE OF d"
    );
    let destination = delivery_id.destination.as_str();
    let params: [Param<'_>; 2] = [(&delivery_id.seq.0, Type::INT8), (&destination, Type::TEXT)];
    let transaction = Transaction::begin(&shared.pool).await?;
    let (targets, now, rows) = futures_util::future::try_join3(
        transaction.query(LOCK_TARGET, &params),
        transaction.query_one(NOW, &[]),
        transaction.query(&select, &params),
    )
    .await?;
    let Some(row) = rows.first() else {
        transaction.rollback().await?;
        return Ok(Err(DeadLetterError::NotDead));
    };
    let locked: Vec<LockedTarget> = targets.iter().map(LockedTarget::read).collect();
    let clock = clock_after(Time::from_nanos(now.get(0)), &locked);
    let before = DeliveryRow::read(row)?;
    let mut after = before.clone();
    match act {
        OperatorAct::Discard => after.state = State::Discarded,
        OperatorAct::Redrive(redrive) => {
            let state = targets.first().map(|target| target.get(3));
            let event = as_sent(row.get(EVENT_BODY), before.expiry.map(Time::from_nanos));
            let expiry = before.expiry.map(Time::from_nanos);
            match check(redrive, (&event, expiry), row.get(MAY_DECREASE), state.flatten(), clock.wall) {
                Ok(expirytime) => after.deliver_again(clock, expirytime),
                Err(error) => {
                    transaction.rollback().await?;
                    return Ok(Err(error));
                }
            }
        }
    }
    let rechecked: Vec<i64> = locked.iter().filter(|one| one.awaits_end()).map(|one| one.id).collect();
    let mut changed = Changed::default();
    changed.add(&before, after, row.get(EMITTED_AT), clock.wall);
    let (counts, (), _) = futures_util::future::try_join3(
        changed.write(&transaction, clock.wall, true),
        recheck(&transaction, &rechecked, clock.now),
        audit::write_in(&transaction, clock, audit),
    )
    .await?;
    transaction.commit().await?;
    counts.apply(shared, now.get(1));
    if !rechecked.is_empty() {
        shared.fleet.add_due(clock.now);
    }
    Ok(Ok(()))
}

/// Checks a redrive, see [`Redrive::check`]. `state` is that of the target.
fn check(
    redrive: Redrive,
    (event, before): (&str, Option<Time>),
    may_decrease: bool,
    state: Option<&str>,
    wall: Time,
) -> Result<Option<Time>, DeadLetterError> {
    let state = match state.filter(|_| !redrive.force) {
        None => TargetState::default(),
        Some(state) => serde_json::from_str(state).map_err(|_| DeadLetterError::UnreadableState)?,
    };
    redrive.check(event, before, may_decrease, &state, wall)
}
