//! Stored deliveries: rows for the exceptions, and the position of each destination.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::history;
use super::routes::Routes;
use crate::domain::name::Name;
use crate::domain::time::ClockReading;
use crate::store::fast_map::Set;
use crate::store::lane::{Outcome, Position, RowChange};
use crate::store::lanes::{LaneHandle, LaneHandles};
use crate::store::sqlite::codec::event_blocks::BodyReader;
use crate::store::sqlite::committed::decreases::DecreaseTracker;
use crate::store::sqlite::committed::index::Fingerprints;
use crate::store::sqlite::committed::lane_changes::SettledDelivery;
use crate::store::sqlite::committed::staged::{StagedChanges, WriteBatch};
use crate::store::sqlite::file::delivery_state::DeliveryState;
use crate::store::{EventSeq, Lease, Settlement, withdrawn};

/// Keeps `expiry` and `since` of a redriven delivery.
pub(crate) const UPSERT_DELIVERY: &str = "
    INSERT INTO deliveries (destination, event, state, attempts, due, error) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT DO UPDATE SET state = ?3, attempts = ?4, due = ?5, error = ?6";
const DELETE_DELIVERY: &str = "DELETE FROM deliveries WHERE destination = ?1 AND event = ?2";

/// Events and their deliveries.
pub(crate) struct OutboxTable {
    pub hashes: Fingerprints,
    pub lanes: LaneHandles,
    pub routes: Routes,
    pub decreases: DecreaseTracker,
}

impl OutboxTable {
    /// Whether the destination has reached `max_backlog`; the delivery that is being enqueued does not count.
    pub(crate) fn is_full(&self, batch: &WriteBatch, name: &Name) -> bool {
        let added = |lane: &crate::store::sqlite::committed::lane_changes::LaneChanges| {
            lane.enqueued.saturating_sub(lane.settled_on_insert.len() as u64)
        };
        let more: u64 = batch.lane(name).map(added).sum();
        self.lanes.get(name).is_some_and(|handle| handle.is_full(more.saturating_sub(1)))
    }
}

/// Writes the outcomes of claimed deliveries.
pub(crate) fn settle(
    connection: &Connection,
    batch: &mut WriteBatch,
    clock: ClockReading,
    handle: &LaneHandle,
    settled: Vec<(Lease, Settlement)>,
) -> rusqlite::Result<()> {
    for (lease, settlement) in settled {
        let seq = lease.seq();
        // Only the first settlement counts: a row written for a delivered one would restore it after a restart.
        if batch.lane(&handle.name).any(|lane| lane.settled.contains(&seq.0))
            || !handle.with_lane(|lane| lane.holds(lease))
        {
            continue;
        }
        // The end of the delivery, or when it is retried by the store's clock.
        let mut due = clock.wall;
        let (outcome, state, text) = match settlement {
            Settlement::Delivered => (Outcome::Delivered, DeliveryState::Arrived, String::new()),
            Settlement::Answered { answer } => (Outcome::Answered, DeliveryState::Answered, answer),
            Settlement::Withdrawn { reason } => (Outcome::Withdrawn, DeliveryState::Withdrawn, reason),
            Settlement::Retry { delay, error } => {
                due = clock.now.after(delay);
                (Outcome::Retry, DeliveryState::Retry, error)
            }
            Settlement::Dead { error } => (Outcome::Dead, DeliveryState::Dead, error),
        };
        batch.lane_mut(&handle.name).settle(SettledDelivery { seq, outcome, due });
        let row = handle.with_lane(|lane| lane.row_change(seq, outcome));
        match row {
            RowChange::None => {}
            RowChange::Put { attempts } | RowChange::Delivered { attempts } => {
                let mut put = connection.prepare_cached(UPSERT_DELIVERY)?;
                put.execute(params![handle.id, seq.0, state, attempts, due.as_nanos(), text])?;
            }
            RowChange::Delete => {
                connection.prepare_cached(DELETE_DELIVERY)?.execute(params![handle.id, seq.0])?;
            }
        }
        // A cancelled delivery has its record already.
        if outcome == Outcome::Withdrawn && row != RowChange::None {
            record_withdrawn(connection, batch, clock, seq, &handle.name, &text)?;
        }
    }
    Ok(())
}

/// Writes a record of the withdrawal to the history of the target.
fn record_withdrawn(
    connection: &Connection,
    batch: &mut WriteBatch,
    clock: ClockReading,
    seq: EventSeq,
    destination: &Name,
    reason: &str,
) -> rusqlite::Result<()> {
    let mut event = connection.prepare_cached("SELECT target, body FROM events WHERE id = ?1")?;
    let found = event.query_row([seq.0], |row| {
        let record = withdrawn::withdrawal_record(
            clock.wall,
            BodyReader::new(connection).read(seq.0, row.get_ref(1)?)?,
            destination,
            reason,
        );
        Ok((row.get(0)?, record))
    });
    let Some((target, record)) = found.optional()? else { return Ok(()) };
    history::put_record(connection, batch, clock, &[target], record)
}

/// Writes the positions that the lanes will have when this batch is committed.
pub(crate) fn write_positions(
    connection: &Connection,
    lanes: &LaneHandles,
    staged: &mut StagedChanges,
) -> rusqlite::Result<()> {
    for (name, lane_changes) in &mut staged.lanes {
        let Some(handle) = lanes.get(name) else {
            cancel_for_removed_destination(connection, name, &lane_changes.cancelled)?;
            continue;
        };
        lane_changes.settled.extend(&lane_changes.cancelled);
        lane_changes.blocked_by_retry = handle.with_lane(|lane| lane.blocked_by_retry(&lane_changes.settled));
        // Due at once: they wait only for the earlier delivery of their target.
        for seq in &lane_changes.blocked_by_retry {
            let mut put = connection.prepare_cached(UPSERT_DELIVERY)?;
            put.execute(params![handle.id, seq, DeliveryState::Retry, 0, 0, ""])?;
        }
        lane_changes.settled.extend(&lane_changes.blocked_by_retry);
        let after = handle.with_lane(|lane| {
            lane.position_after(&lane_changes.settled, lane_changes.dead_delta, lane_changes.enqueued)
        });
        write_position(connection, &handle, after)?;
        // Cancelled deliveries have rows also at or below the cursor, which show that they never arrived.
        for &seq in &lane_changes.cancelled {
            let has_arrived = lane_changes.has_arrived(seq);
            let state = if has_arrived { DeliveryState::Arrived } else { DeliveryState::Cancelled };
            let mut put = connection.prepare_cached(UPSERT_DELIVERY)?;
            put.execute(params![handle.id, seq, state, 0, 0, ""])?;
        }
    }
    Ok(())
}

/// Cancels deliveries of a destination that is not configured any more, in case it is added again.
fn cancel_for_removed_destination(
    connection: &Connection,
    destination: &Name,
    cancelled: &Set<i64>,
) -> rusqlite::Result<()> {
    for seq in cancelled {
        let mut put = connection.prepare_cached(
            "INSERT OR REPLACE INTO deliveries (destination, event, state, attempts, due, error)
             SELECT id, ?2, ?3, 0, 0, '' FROM destinations WHERE name = ?1",
        )?;
        put.execute(params![destination.as_str(), seq, DeliveryState::Cancelled])?;
    }
    Ok(())
}

fn write_position(connection: &Connection, handle: &LaneHandle, position: Position) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached(
        "UPDATE destinations SET cursor = ?2, enqueued = ?3, settled_below_cursor = ?4, dead = ?5 WHERE id = ?1",
    )?;
    let (enqueued, settled_below_cursor, dead) =
        (position.enqueued as i64, position.settled_below_cursor as i64, position.dead as i64);
    update.execute(params![handle.id, position.cursor, enqueued, settled_below_cursor, dead])?;
    Ok(())
}

/// Writes the positions of all lanes at shutdown, after the last command.
pub(crate) fn persist_positions(connection: &Connection, lanes: &LaneHandles) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let written = lanes.all().values().try_for_each(|handle| persist_position(connection, handle));
    connection.execute_batch(if written.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    written
}

/// Writes the position of a lane.
pub(crate) fn persist_position(connection: &Connection, handle: &Arc<LaneHandle>) -> rusqlite::Result<()> {
    // Unsettled deliveries get rows, so that the cursor can pass them: otherwise everything that was delivered above
    // them would be sent again.
    let unsettled = handle.with_lane(|lane| lane.unsettled());
    for seq in &unsettled {
        let mut put = connection.prepare_cached(UPSERT_DELIVERY)?;
        put.execute(params![handle.id, seq, DeliveryState::Retry, 0, 0, ""])?;
    }
    write_position(connection, handle, handle.with_lane(|lane| lane.position_after(&unsettled, 0, 0)))
}
