//! Stored deliveries: rows for the exceptions, and the position of each destination.

use rusqlite::{OptionalExtension, params};

use super::batch::{SettledDelivery, WriteBatch};
use super::event_blocks::BodyReader;
use super::writer::Writer;
use super::{checkpoint, schema};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::fast_map::Set;
use crate::store::lane::{Outcome, Position, RowChange};
use crate::store::lanes::LaneHandle;
use crate::store::{EventSeq, Settlement, withdrawn};

/// Keeps `expiry` and `since` of a redriven delivery.
pub(super) const UPSERT_DELIVERY: &str = "
    INSERT INTO deliveries (destination, event, state, attempts, due, error) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT DO UPDATE SET state = ?3, attempts = ?4, due = ?5, error = ?6";
const DELETE_DELIVERY: &str = "DELETE FROM deliveries WHERE destination = ?1 AND event = ?2";

impl Writer {
    pub(super) fn settle(
        &mut self,
        batch: &mut WriteBatch,
        handle: &LaneHandle,
        settled: Vec<(EventSeq, Settlement)>,
    ) -> rusqlite::Result<()> {
        let now = self.clock.now();
        for (seq, settlement) in settled {
            let lane_changes = batch.lanes.entry(handle.name.clone()).or_default();
            // Only the first settlement counts: a row written for a delivered one would restore it after a
            // restart.
            if lane_changes.settled.contains(&seq.0) || !handle.with_lane(|lane| lane.is_unsettled(seq)) {
                continue;
            }
            let mut due = now;
            let (outcome, state, text) = match settlement {
                Settlement::Delivered => (Outcome::Delivered, schema::ARRIVED, String::new()),
                Settlement::Answered { answer } => (Outcome::Answered, schema::ANSWERED, answer),
                Settlement::Withdrawn { reason } => (Outcome::Withdrawn, schema::WITHDRAWN, reason),
                Settlement::Retry { delay, error } => {
                    due = now.after(delay);
                    (Outcome::Retry, schema::RETRY, error)
                }
                Settlement::Dead { error } => (Outcome::Dead, schema::DEAD, error),
            };
            if outcome == Outcome::Dead {
                // The row of a dead letter takes precedence over a cancellation.
                lane_changes.cancelled.remove(&seq.0);
                lane_changes.dead_delta += 1;
            }
            lane_changes.settled.insert(seq.0);
            lane_changes.settlements.push(SettledDelivery { seq, outcome, due });
            let row = handle.with_lane(|lane| lane.row_change(seq, outcome));
            match row {
                RowChange::None => {}
                RowChange::Put { attempts } | RowChange::Delivered { attempts } => {
                    let mut put = self.connection.prepare_cached(UPSERT_DELIVERY)?;
                    put.execute(params![handle.id, seq.0, state, attempts, due.as_nanos(), text])?;
                }
                RowChange::Delete => {
                    self.connection.prepare_cached(DELETE_DELIVERY)?.execute(params![handle.id, seq.0])?;
                }
            }
            // A cancelled delivery has its record already.
            if outcome == Outcome::Withdrawn && row != RowChange::None {
                self.record_withdrawn(batch, now, seq, &handle.name, &text)?;
            }
        }
        Ok(())
    }

    /// Writes a record of the withdrawal to the history of the target.
    fn record_withdrawn(
        &self,
        batch: &mut WriteBatch,
        now: Time,
        seq: EventSeq,
        destination: &Name,
        reason: &str,
    ) -> rusqlite::Result<()> {
        let mut event = self.connection.prepare_cached("SELECT target, body FROM events WHERE id = ?1")?;
        let found = event.query_row([seq.0], |row| {
            let record = withdrawn::withdrawal_record(
                now,
                BodyReader::new(&self.connection).read(seq.0, row.get_ref(1)?)?,
                destination,
                reason,
            );
            Ok((row.get(0)?, record))
        });
        let Some((target, record)) = found.optional()? else { return Ok(()) };
        self.put_record_about(batch, now, &[target], record)
    }

    /// Writes the positions that the lanes will have when this batch is committed.
    pub(super) fn write_positions(&self, batch: &mut WriteBatch) -> rusqlite::Result<()> {
        for (name, lane_changes) in &mut batch.lanes {
            let Some(handle) = self.lanes.get(name) else {
                self.cancel_for_removed_destination(name, &lane_changes.cancelled)?;
                continue;
            };
            lane_changes.settled.extend(&lane_changes.cancelled);
            lane_changes.blocked_by_retry =
                handle.with_lane(|lane| lane.blocked_by_retry(&lane_changes.settled));
            // Due at once: they wait only for the earlier delivery of their target.
            for seq in &lane_changes.blocked_by_retry {
                let mut put = self.connection.prepare_cached(UPSERT_DELIVERY)?;
                put.execute(params![handle.id, seq, schema::RETRY, 0, 0, ""])?;
            }
            lane_changes.settled.extend(&lane_changes.blocked_by_retry);
            let after = handle.with_lane(|lane| {
                lane.position_after(&lane_changes.settled, lane_changes.dead_delta, lane_changes.enqueued)
            });
            self.write_position(&handle, after)?;
            // Cancelled deliveries have rows also at or below the cursor, which show that they never arrived.
            for &seq in &lane_changes.cancelled {
                let state = if lane_changes.has_arrived(seq) { schema::ARRIVED } else { schema::CANCELLED };
                let mut put = self.connection.prepare_cached(UPSERT_DELIVERY)?;
                put.execute(params![handle.id, seq, state, 0, 0, ""])?;
            }
        }
        Ok(())
    }

    /// Cancels deliveries of a destination that is not configured any more, in case it is added again.
    fn cancel_for_removed_destination(
        &self,
        destination: &Name,
        cancelled: &Set<i64>,
    ) -> rusqlite::Result<()> {
        for seq in cancelled {
            let mut put = self.connection.prepare_cached(
                "INSERT OR REPLACE INTO deliveries (destination, event, state, attempts, due, error)
                 SELECT id, ?2, ?3, 0, 0, '' FROM destinations WHERE name = ?1",
            )?;
            put.execute(params![destination.as_str(), seq, schema::CANCELLED])?;
        }
        Ok(())
    }

    fn write_position(&self, handle: &LaneHandle, position: Position) -> rusqlite::Result<()> {
        let mut update = self.connection.prepare_cached(
            "UPDATE destinations SET cursor = ?2, enqueued = ?3, settled_below_cursor = ?4, dead = ?5 WHERE id = ?1",
        )?;
        let (enqueued, settled_below_cursor, dead) =
            (position.enqueued as i64, position.settled_below_cursor as i64, position.dead as i64);
        update.execute(params![handle.id, position.cursor, enqueued, settled_below_cursor, dead])?;
        Ok(())
    }

    /// Writes the positions of all lanes at shutdown, after the last command.
    pub(super) fn finish(&self) {
        if let Err(error) = self.persist_positions() {
            tracing::warn!(%error, "saving cursors failed, deliveries may be repeated");
        }
        checkpoint::checkpoint_all(&self.connection);
    }

    fn persist_positions(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let written = self.lanes.all().values().try_for_each(|handle| self.persist_position(handle));
        self.connection.execute_batch(if written.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        written
    }

    /// Writes the position of a lane.
    pub(super) fn persist_position(&self, handle: &LaneHandle) -> rusqlite::Result<()> {
        // Unsettled deliveries get rows, so that the cursor can pass them: otherwise everything that was
        // delivered above them would be sent again.
        let unsettled = handle.with_lane(|lane| lane.unsettled());
        for seq in &unsettled {
            let mut put = self.connection.prepare_cached(UPSERT_DELIVERY)?;
            put.execute(params![handle.id, seq, schema::RETRY, 0, 0, ""])?;
        }
        self.write_position(handle, handle.with_lane(|lane| lane.position_after(&unsettled, 0, 0)))
    }
}
