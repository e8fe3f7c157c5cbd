//! Events of a transaction: their ids, routes and compensations, and their deliveries.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::deliveries::{self, OutboxTable};
use super::history;
use super::states::StateTable;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::time::{ClockReading, Time};
use crate::store::dead_letters::BACKLOG_FULL;
use crate::store::lane::NewDelivery;
use crate::store::sqlite::codec::event_blocks::{self, EncodedBlock};
use crate::store::sqlite::codec::firing_events::{self, FiringEventRef};
use crate::store::sqlite::codec::tracked_events::{TargetEvents, TrackedEvent};
use crate::store::sqlite::committed::index;
use crate::store::sqlite::committed::staged::{CommittedEvent, WriteBatch};
use crate::store::sqlite::decide::write_set::EventWrite;
use crate::store::sqlite::file::delivery_state::DeliveryState;
use crate::store::{EventSeq, NewEvent, withdrawn};

/// The ids, routes and compensations of the events of a transaction.
#[derive(Default)]
pub(crate) struct Plan {
    pub events: Vec<PlannedEvent>,
    /// New events by target, for its list.
    pub listed: index::Map<Vec<TrackedEvent>>,
}

pub(crate) struct PlannedEvent {
    seq: i64,
    route: i64,
    /// The `on_firing` events that it compensates; `None` for an `on_firing` event, or if they are unknown.
    compensates: Option<Vec<FiringEventRef>>,
    /// Whether its body is in an event block.
    is_in_block: bool,
}

impl Plan {
    /// Assigns ids to the events. Runs before the states are written, because the row of a target lists its events.
    /// `before` is the list of each target before the transaction.
    pub(crate) fn new(
        connection: &Connection,
        outbox: &OutboxTable,
        batch: &mut WriteBatch,
        events: &[EventWrite],
        before: &index::Map<TargetEvents>,
    ) -> rusqlite::Result<Self> {
        let mut plan = Self::default();
        for EventWrite { target, episode, id, event } in events {
            let seq = batch.next.event;
            batch.next.event += 1;
            let route = outbox.routes.id(connection, batch, &event.destinations)?;
            let acting = match event.acting == event.destinations {
                true => route,
                false => outbox.routes.id(connection, batch, &event.acting)?,
            };
            let new = plan.listed.entry(*target).or_default();
            let mut compensates = None;
            if let Some((Phase::Resolved, episode)) = *episode {
                // A target without a state has no open episode, so there is nothing to compensate.
                let none = TargetEvents::none();
                let before = before.get(target).unwrap_or(&none);
                compensates = match event.reverts.is_empty() {
                    true => before.firing(episode).map(|mut firing| {
                        let of_episode = new.iter().filter(|event| event.is_firing(episode));
                        firing.extend(of_episode.map(TrackedEvent::firing));
                        firing
                    }),
                    false => before.reverted(&event.reverts),
                };
            }
            let (phase, episode) = episode.unwrap_or((Phase::Resolved, 0));
            new.push(TrackedEvent { id: *id, episode, phase, seq: EventSeq(seq), route, acting });
            plan.events.push(PlannedEvent { seq, route, compensates, is_in_block: false });
        }
        Ok(plan)
    }

    /// Writes the compressed event blocks.
    pub(crate) fn put_blocks(
        &mut self,
        connection: &Connection,
        blocks: &[EncodedBlock],
    ) -> rusqlite::Result<()> {
        let mut events = self.events.iter_mut();
        for EncodedBlock { event_count, compressed } in blocks {
            let mut block: Vec<_> = events.by_ref().take(*event_count).collect();
            if let (Some(compressed), [first, ..], [.., last]) = (compressed, &*block, &*block) {
                event_blocks::write(connection, first.seq, last.seq, compressed)?;
                block.iter_mut().for_each(|event| event.is_in_block = true);
            }
        }
        Ok(())
    }
}

/// Writes an event, and its deliveries that are settled at once.
pub(crate) fn put_event(
    connection: &Connection,
    states: &StateTable,
    outbox: &mut OutboxTable,
    batch: &mut WriteBatch,
    clock: ClockReading,
    (write, planned): (EventWrite, PlannedEvent),
) -> rusqlite::Result<()> {
    let EventWrite { target: hash, event, .. } = write;
    let now = clock.now;
    let PlannedEvent { seq, route, compensates, is_in_block } = planned;
    let target = states.target_id(connection, batch, now, hash)?;
    let compensates_bytes = compensates.as_ref().map(firing_events::encode);
    let body = if is_in_block { "" } else { &event.body };
    connection
        .prepare_cached(
            "INSERT INTO events (id, target, route, at, body, decreases, compensates)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            seq,
            target,
            route,
            now.as_nanos(),
            body,
            event.may_decrease_capacity,
            compensates_bytes
        ])?;
    for name in event.destinations.iter() {
        batch.lane_mut(name).enqueued += 1;
        let never_routed = match &compensates {
            Some(compensates) => was_never_routed_to(connection, outbox, batch, name, compensates)?,
            None => false,
        };
        let reason = if never_routed {
            let record = withdrawn::withdrawal_record(clock.wall, &event.body, name, withdrawn::NEVER_ROUTED);
            history::put_record(connection, batch, clock, &[target], record)?;
            Some((DeliveryState::Withdrawn, withdrawn::NEVER_ROUTED))
        } else {
            outbox.is_full(batch, name).then_some((DeliveryState::Dead, BACKLOG_FULL))
        };
        let settled = match reason {
            Some((state, reason)) => {
                settle_on_insert(connection, outbox, batch, clock.wall, (seq, name), state, reason)?
            }
            None => false,
        };
        if settled {
            // The decision does not know it.
            states.delivery_ended(connection, batch, now, target)?;
        }
    }
    let NewEvent { destinations, body, .. } = event;
    let delivery = NewDelivery {
        seq: EventSeq(seq),
        group: target,
        emitted_at: now,
        compensates: compensates.is_some(),
        body,
    };
    batch.current.events.push(CommittedEvent { delivery, destinations });
    Ok(())
}

/// Whether no route of these events has the destination.
fn was_never_routed_to(
    connection: &Connection,
    outbox: &mut OutboxTable,
    batch: &WriteBatch,
    name: &Name,
    compensates: &[FiringEventRef],
) -> rusqlite::Result<bool> {
    for firing in compensates {
        let destinations: Arc<[Name]> = outbox.routes.destinations(connection, batch, firing.route)?;
        if destinations.contains(name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Settles a delivery in the commit that enqueues it. Returns false if the destination has no lane.
fn settle_on_insert(
    connection: &Connection,
    outbox: &OutboxTable,
    batch: &mut WriteBatch,
    wall: Time,
    (seq, name): (i64, &Name),
    state: DeliveryState,
    reason: &str,
) -> rusqlite::Result<bool> {
    let Some(handle) = outbox.lanes.get(name) else { return Ok(false) };
    let mut put = connection.prepare_cached(deliveries::UPSERT_DELIVERY)?;
    put.execute(params![handle.id, seq, state, 0, wall.as_nanos(), reason, 0, 0])?;
    let lane_changes = batch.lane_mut(name);
    lane_changes.settled_on_insert.insert(seq);
    if state == DeliveryState::Dead {
        lane_changes.dead_on_insert += 1;
        lane_changes.dead_delta += 1;
    }
    Ok(true)
}
