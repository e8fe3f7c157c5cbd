//! What decisions know about the delivery of events.

use rusqlite::{Connection, OptionalExtension};

use super::deliveries::OutboxTable;
use super::receipts;
use crate::domain::delivery::{EventDelivery, GiveUp};
use crate::domain::engine::DeliveryFeedback;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::EventSeq;
use crate::store::lane::Lookup;
use crate::store::sqlite::codec::tracked_events::TrackedEvent;
use crate::store::sqlite::committed::index::CachedTarget;
use crate::store::sqlite::committed::lane_changes::Effect;
use crate::store::sqlite::committed::staged::WriteBatch;
use crate::store::sqlite::file::delivery_state::{CALLED, DeliveryState, EXPIRED, UNCERTAIN};
use crate::store::tracking::{self, Status};

const SELECT_ROW: &str = "SELECT state, flags, due FROM deliveries WHERE destination = ?1 AND event = ?2";

/// The delivery of the events that these targets track, including the changes of the batch so far.
pub(crate) fn read<'a>(
    connection: &Connection,
    outbox: &mut OutboxTable,
    batch: &WriteBatch,
    targets: impl Iterator<Item = &'a CachedTarget>,
) -> rusqlite::Result<DeliveryFeedback> {
    let mut deliveries = DeliveryFeedback::default();
    let mut awaits_destination = false;
    for target in targets {
        awaits_destination |= outbox.lanes.all().keys().any(|name| target.state.awaits_destination(name));
        if !target.events.legacy.is_empty() {
            deliveries.legacy.insert(target.key.clone(), target.events.legacy.to_vec());
        }
        let legacy = target.events.legacy.iter().map(|event| &event.id);
        for id in target.state.tracked_events().chain(legacy) {
            let Some(event) = target.events.find(id) else { continue };
            if let Some(delivery) = of_event(connection, outbox, batch, event)? {
                deliveries.events.entry(target.key.clone()).or_default().insert(id.clone(), delivery);
            }
        }
    }
    if awaits_destination || !deliveries.events.is_empty() {
        let lanes = outbox.lanes.all();
        let succeeded = |(name, handle): (&Name, &std::sync::Arc<crate::store::lanes::LaneHandle>)| {
            Some((name.clone(), handle.last_success()?))
        };
        deliveries.last_success = lanes.iter().filter_map(succeeded).collect();
    }
    Ok(deliveries)
}

/// The delivery of an event to its acting destinations; `None` if nothing is known about it any more.
fn of_event(
    connection: &Connection,
    outbox: &mut OutboxTable,
    batch: &WriteBatch,
    event: &TrackedEvent,
) -> rusqlite::Result<Option<EventDelivery>> {
    let destinations = outbox.routes.destinations(connection, batch, event.acting)?;
    let mut all = Vec::with_capacity(destinations.len());
    for name in destinations.iter() {
        all.extend(status(connection, outbox, batch, name, event.seq)?);
    }
    Ok(Some(all).filter(|all| !all.is_empty()).map(tracking::combine))
}

/// The delivery of an event to a destination; `None` if nothing is known about it.
pub(crate) fn status(
    connection: &Connection,
    outbox: &OutboxTable,
    batch: &WriteBatch,
    destination: &Name,
    seq: EventSeq,
) -> rusqlite::Result<Option<Status>> {
    let effect = batch.effect(destination, seq.0);
    if let Some(Effect::Arrived(at)) = effect {
        return Ok(Some(Status::Arrived(at)));
    }
    let lane = outbox.lanes.get(destination);
    let found = lane.as_ref().map(|handle| handle.with_lane(|lane| lane.look_up(seq)));
    match found.filter(|_| effect.is_none()) {
        Some(Lookup::Unsettled { is_uncertain }) => return Ok(Some(Status::Pending { is_uncertain })),
        Some(Lookup::Arrived(at)) => return Ok(Some(Status::Arrived(at))),
        _ => {}
    }
    let position = match &lane {
        Some(handle) => Some((handle.id, 0)),
        None => destination_row(connection, destination)?,
    };
    let Some((id, cursor)) = position else { return Ok(None) };
    let mut row = connection.prepare_cached(SELECT_ROW)?;
    let row = row.query_row([id, seq.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    if let Some((state, flags, due)) = row.optional()? {
        return of_row(connection, state, flags, due, seq);
    }
    let is_pending = match found {
        _ if effect.is_some() => true,
        Some(Lookup::Settled) => false,
        Some(_) => true,
        None => seq.0 > cursor,
    };
    if let Some(receipt) = receipts::find(connection, id, seq.0)? {
        return Ok(Some(Status::Arrived(receipt.at)));
    }
    if is_pending {
        return Ok(Some(Status::Pending { is_uncertain: false }));
    }
    Ok(emitted_at(connection, seq)?.map(Status::Arrived))
}

fn of_row(
    connection: &Connection,
    state: DeliveryState,
    flags: i64,
    due: i64,
    seq: EventSeq,
) -> rusqlite::Result<Option<Status>> {
    let is_uncertain = flags & (UNCERTAIN | CALLED) != 0;
    Ok(match state {
        DeliveryState::Retry => Some(Status::Pending { is_uncertain }),
        DeliveryState::Dead => {
            let cause = if flags & EXPIRED == 0 { GiveUp::Rejected } else { GiveUp::Expired };
            Some(Status::Dead { cause, is_uncertain })
        }
        DeliveryState::Cancelled | DeliveryState::Withdrawn | DeliveryState::Discarded => {
            Some(Status::NotDelivered { is_uncertain })
        }
        DeliveryState::Answered | DeliveryState::Arrived if due > 0 => {
            Some(Status::Arrived(Time::from_nanos(due)))
        }
        DeliveryState::Answered | DeliveryState::Arrived => emitted_at(connection, seq)?.map(Status::Arrived),
    })
}

/// The id and the cursor of a destination without a lane.
fn destination_row(connection: &Connection, destination: &Name) -> rusqlite::Result<Option<(i64, i64)>> {
    let mut row = connection.prepare_cached("SELECT id, cursor FROM destinations WHERE name = ?1")?;
    row.query_row([destination.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// When the event was emitted: the time of an arrival before schema 9, which had no receipts.
fn emitted_at(connection: &Connection, seq: EventSeq) -> rusqlite::Result<Option<Time>> {
    let mut at = connection.prepare_cached("SELECT at FROM events WHERE id = ?1")?;
    at.query_row([seq.0], |row| row.get(0).map(Time::from_nanos)).optional()
}
