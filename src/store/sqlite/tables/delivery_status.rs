//! What decisions know about the delivery of events.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::deliveries::OutboxTable;
use super::receipts;
use crate::domain::delivery::GiveUp;
use crate::domain::engine::DeliveryFeedback;
use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};
use crate::store::EventSeq;
use crate::store::fast_map::Map;
use crate::store::lane::Lookup;
use crate::store::sqlite::committed::index::CachedTarget;
use crate::store::sqlite::committed::lane_changes::Effect;
use crate::store::sqlite::committed::staged::WriteBatch;
use crate::store::sqlite::file::delivery_state::{CALLED, DeliveryState, EXPIRED, UNCERTAIN};
use crate::store::tracking::{self, Status};

/// The rows of these events. The list is JSON.
pub(crate) const SELECT_ROWS: &str = "
    SELECT event, state, flags, due FROM deliveries
    WHERE destination = ?1 AND event IN (SELECT value FROM json_each(?2))";
/// When these events were emitted.
pub(crate) const SELECT_EMISSIONS: &str =
    "SELECT id, at FROM events WHERE id IN (SELECT value FROM json_each(?1))";

/// The delivery of the events that these targets track, including the changes of the batch so far. The number of
/// statements does not depend on the number of events.
pub(crate) fn read<'a>(
    connection: &Connection,
    outbox: &mut OutboxTable,
    batch: &WriteBatch,
    targets: impl Iterator<Item = &'a CachedTarget>,
) -> rusqlite::Result<DeliveryFeedback> {
    let mut deliveries = DeliveryFeedback::default();
    let mut awaits_destination = false;
    let (mut asked, mut wanted) = (Vec::new(), Vec::new());
    for target in targets {
        awaits_destination |= outbox.lanes.all().keys().any(|name| target.state.awaits_destination(name));
        if !target.events.legacy.is_empty() {
            deliveries.legacy.insert(target.key.clone(), target.events.legacy.to_vec());
        }
        let legacy = target.events.legacy.iter().map(|event| &event.id);
        for (id, event) in target.events.find_all(target.state.tracked_events().chain(legacy)) {
            let destinations = outbox.routes.destinations(connection, batch, event.acting)?;
            wanted.extend(destinations.iter().map(|name| (name.clone(), event.seq)));
            asked.push((&target.key, id, destinations.len()));
        }
    }
    let mut found = statuses(connection, outbox, batch, &wanted)?.into_iter();
    for (key, id, count) in asked {
        let of_event: Vec<Status> = found.by_ref().take(count).flatten().collect();
        // Without any, nothing is known about the event any more.
        if !of_event.is_empty() {
            let events = deliveries.events.entry(key.clone()).or_default();
            events.insert(id.clone(), tracking::combine(of_event));
        }
    }
    if awaits_destination || !deliveries.events.is_empty() {
        let lanes = outbox.lanes.all();
        let succeeded = |name: &Name| Some((name.clone(), last_success(outbox, batch, name)?.now));
        deliveries.last_success = lanes.keys().filter_map(succeeded).collect();
    }
    Ok(deliveries)
}

/// The last successful call of a destination, including the changes of the batch so far.
fn last_success(outbox: &OutboxTable, batch: &WriteBatch, destination: &Name) -> Option<ClockReading> {
    let committed = outbox.lanes.get(destination).and_then(|handle| handle.last_success());
    batch.lane(destination).fold(committed, |last, lane| ClockReading::later(last, lane.last_success))
}

/// The delivery of an event to a destination; `None` if nothing is known about it.
pub(crate) fn status(
    connection: &Connection,
    outbox: &OutboxTable,
    batch: &WriteBatch,
    destination: &Name,
    seq: EventSeq,
) -> rusqlite::Result<Option<Status>> {
    Ok(statuses(connection, outbox, batch, &[(destination.clone(), seq)])?.pop().flatten())
}

/// The delivery of events to destinations, in their order; `None` for those about which nothing is known.
fn statuses(
    connection: &Connection,
    outbox: &OutboxTable,
    batch: &WriteBatch,
    wanted: &[(Name, EventSeq)],
) -> rusqlite::Result<Vec<Option<Status>>> {
    let mut found = vec![None; wanted.len()];
    let mut stored: BTreeMap<&Name, Vec<Stored>> = BTreeMap::new();
    for (index, (name, seq)) in wanted.iter().enumerate() {
        let effect = batch.effect(name, seq.0);
        if let Some(Effect::Arrived(at)) = effect {
            found[index] = Some(Status::Arrived(at));
            continue;
        }
        let lane = outbox.lanes.get(name);
        let in_lane = lane.as_ref().map(|handle| handle.with_lane(|lane| lane.look_up(*seq)));
        match in_lane.filter(|_| effect.is_none()) {
            Some(Lookup::Unsettled { is_uncertain }) => {
                found[index] = Some(Status::Pending { is_uncertain });
            }
            Some(Lookup::Arrived(at)) => found[index] = Some(Status::Arrived(at)),
            _ => {
                let is_settled = effect.is_none() && in_lane == Some(Lookup::Settled);
                stored.entry(name).or_default().push(Stored { index, seq: seq.0, is_settled });
            }
        }
    }
    for (name, mut asked) in stored {
        let id = match outbox.lanes.get(name) {
            Some(handle) => handle.id,
            None => {
                let Some((id, cursor)) = destination_row(connection, name)? else { continue };
                asked.iter_mut().for_each(|one| one.is_settled = one.seq <= cursor);
                id
            }
        };
        read_stored(connection, id, last_success(outbox, batch, name), &asked, &mut found)?;
    }
    Ok(found)
}

/// A delivery of which the lane does not know enough.
struct Stored {
    /// Its place in the result.
    index: usize,
    seq: i64,
    /// Whether it is known to be settled.
    is_settled: bool,
}

/// Reads what is stored about deliveries of a destination.
fn read_stored(
    connection: &Connection,
    destination_id: i64,
    last_success: Option<ClockReading>,
    asked: &[Stored],
    found: &mut [Option<Status>],
) -> rusqlite::Result<()> {
    let mut rows = connection.prepare_cached(SELECT_ROWS)?;
    let rows = rows.query_map(params![destination_id, list(asked)], |row| {
        Ok((row.get::<_, i64>(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)))
    })?;
    let rows: Map<i64, (DeliveryState, i64, i64)> = rows.collect::<Result<_, _>>()?;
    let (with_row, without): (Vec<&Stored>, Vec<&Stored>) =
        asked.iter().partition(|one| rows.contains_key(&one.seq));
    let (ids, count) = (list(without.iter().copied()), without.len());
    let receipts = receipts::find_all(connection, destination_id, &ids, count)?;
    // The events whose time of arrival is that of their emission.
    let mut emitted = Vec::new();
    for one in with_row {
        match rows.get(&one.seq).map(|row| of_row(*row, last_success)) {
            Some(None) => emitted.push(one),
            status => found[one.index] = status.flatten(),
        }
    }
    for one in without {
        match receipts.get(&one.seq) {
            Some(at) => found[one.index] = Some(Status::Arrived(*at)),
            None if !one.is_settled => found[one.index] = Some(Status::Pending { is_uncertain: false }),
            None => emitted.push(one),
        }
    }
    if emitted.is_empty() {
        return Ok(());
    }
    let mut times = connection.prepare_cached(SELECT_EMISSIONS)?;
    let times = times.query_map([list(emitted.iter().copied())], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let times: Map<i64, i64> = times.collect::<Result<_, _>>()?;
    for one in emitted {
        found[one.index] = times.get(&one.seq).map(|at| Status::Arrived(Time::from_nanos(*at)));
    }
    Ok(())
}

/// Event numbers as JSON.
fn list<'a>(all: impl IntoIterator<Item = &'a Stored>) -> String {
    let mut list = String::from("[");
    for one in all {
        if list.len() > 1 {
            list.push(',');
        }
        list.push_str(&one.seq.to_string());
    }
    list.push(']');
    list
}

/// What a row says; `None` for an arrival before schema 9, which had no receipts: its time is that of the emission.
fn of_row(
    (state, flags, due): (DeliveryState, i64, i64),
    last_success: Option<ClockReading>,
) -> Option<Status> {
    let is_uncertain = flags & (UNCERTAIN | CALLED) != 0;
    Some(match state {
        DeliveryState::Retry => Status::Pending { is_uncertain },
        DeliveryState::Dead => {
            let cause = if flags & EXPIRED == 0 { GiveUp::Rejected } else { GiveUp::Expired };
            let later_success = tracking::later_success(last_success, Time::from_nanos(due));
            Status::Dead { cause, is_uncertain, later_success }
        }
        DeliveryState::Cancelled | DeliveryState::Withdrawn | DeliveryState::Discarded => {
            Status::NotDelivered { is_uncertain }
        }
        DeliveryState::Answered | DeliveryState::Arrived if due > 0 => Status::Arrived(Time::from_nanos(due)),
        DeliveryState::Answered | DeliveryState::Arrived => return None,
    })
}

/// The id and the cursor of a destination without a lane.
fn destination_row(connection: &Connection, destination: &Name) -> rusqlite::Result<Option<(i64, i64)>> {
    let mut row = connection.prepare_cached("SELECT id, cursor FROM destinations WHERE name = ?1")?;
    row.query_row([destination.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}
