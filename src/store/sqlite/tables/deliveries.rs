//! Stored deliveries: rows for the exceptions, and the position of each destination.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::routes::Routes;
use super::states::StateTable;
use super::{history, receipts};
use crate::domain::delivery::GiveUp;
use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};
use crate::store::lane::{Outcome, Position, RowChange};
use crate::store::lanes::{LaneHandle, LaneHandles};
use crate::store::sqlite::codec::event_blocks::BodyReader;
use crate::store::sqlite::codec::receipts::Receipt;
use crate::store::sqlite::committed::lane_changes::{Effect, LaneChange};
use crate::store::sqlite::committed::staged::{StagedChanges, WriteBatch};
use crate::store::sqlite::file::delivery_state::{CALLED, DeliveryState, EXPIRED, SUSPENDED, UNCERTAIN};
use crate::store::{EventSeq, Lease, RefusalReason, Refused, Settlement, withdrawn};

/// Keeps `expiry` and `since` of a redriven delivery, and those of its flags that are in the last parameter.
pub(crate) const UPSERT_DELIVERY: &str = "
    INSERT INTO deliveries (destination, event, state, attempts, due, error, flags)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT DO UPDATE SET state = ?3, attempts = ?4, due = ?5, error = ?6, flags = (flags & ?8) | ?7";
/// Keeps the error of an earlier call, too.
const POSTPONE_DELIVERY: &str = "
    INSERT INTO deliveries (destination, event, state, attempts, due, error, flags)
    VALUES (?1, ?2, ?3, ?4, ?5, '', ?6)
    ON CONFLICT DO UPDATE SET state = ?3, attempts = ?4, due = ?5, flags = (flags & ?7) | ?6";
/// The last call of a cancelled delivery is over.
const END_CANCELLED: &str = "
    UPDATE deliveries SET flags = (flags & ?4) | ?3 WHERE destination = ?1 AND event = ?2";
const BEGIN_CALL: &str = "
    INSERT INTO deliveries (destination, event, state, attempts, due, error, flags)
    VALUES (?1, ?2, ?3, 0, 0, '', ?4) ON CONFLICT DO UPDATE SET flags = flags | ?4";
const DELETE_DELIVERY: &str = "DELETE FROM deliveries WHERE destination = ?1 AND event = ?2";

/// Events and their deliveries.
pub(crate) struct OutboxTable {
    pub lanes: LaneHandles,
    pub routes: Routes,
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

/// The settlement of a delivery with its lane.
struct Settling<'a> {
    connection: &'a Connection,
    clock: ClockReading,
    handle: &'a LaneHandle,
    seq: EventSeq,
    /// Whether decisions have cancelled it.
    is_cancelled: bool,
    /// Flags of an earlier call.
    earlier: i64,
}

/// Writes the outcomes of claimed deliveries.
pub(crate) fn settle(
    connection: &Connection,
    states: &StateTable,
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
        let (is_cancelled, is_uncertain, group) = handle.with_lane(|lane| {
            (lane.is_cancelled(seq), lane.is_uncertain(seq), lane.group_of(seq.0).unwrap_or_default())
        });
        let is_cancelled = is_cancelled || batch.effect(&handle.name, seq.0) == Some(Effect::Cancelled);
        let earlier = if is_uncertain { UNCERTAIN } else { 0 };
        let settling = Settling { connection, clock, handle, seq, is_cancelled, earlier };
        let (outcome, at) = settling.write(batch, settlement)?;
        batch.lane_mut(&handle.name).push(LaneChange::Settle(seq, outcome, at));
        if outcome == Outcome::Delivered {
            batch.lane_mut(&handle.name).last_success = Some(clock);
            states.delivery_arrived(batch, clock.now, group);
        } else if outcome.is_final() || is_cancelled {
            states.delivery_ended(connection, batch, clock.now, group)?;
        }
    }
    Ok(())
}

impl Settling<'_> {
    /// Writes the row of the delivery. Returns the outcome, and its time or when the delivery is due again.
    fn write(&self, batch: &mut WriteBatch, settlement: Settlement) -> rusqlite::Result<(Outcome, Time)> {
        let uncertain = |uncertain| if uncertain { UNCERTAIN } else { 0 };
        Ok(match settlement {
            Settlement::Delivered { answer } => (self.deliver(batch, answer)?, self.clock.now),
            Settlement::Retry { delay, error, uncertain: is_uncertain } => {
                let (outcome, due) = (Outcome::Retry { is_uncertain }, self.clock.now.after(delay));
                let flags = uncertain(is_uncertain);
                self.put(outcome, DeliveryState::Retry, due, &error, (flags, SUSPENDED | UNCERTAIN))?;
                (outcome, due)
            }
            Settlement::NotCalled { delay, stands_aside } => {
                let (outcome, due) = (Outcome::NotCalled { stands_aside }, self.clock.now.after(delay));
                let is_changed = batch.effect(&self.handle.name, self.seq.0).is_some();
                if !is_changed && self.handle.with_lane(|lane| lane.has_unchanged_row(self.seq)) {
                    batch.lane_mut(&self.handle.name).unwritten += 1;
                } else {
                    self.postpone(outcome, due)?;
                }
                (outcome, due)
            }
            Settlement::Withdrawn { reason } => {
                self.put(
                    Outcome::Withdrawn,
                    DeliveryState::Withdrawn,
                    self.clock.wall,
                    &reason,
                    (0, UNCERTAIN),
                )?;
                // A cancelled delivery has its record already.
                if !self.is_cancelled {
                    record_withdrawn(
                        self.connection,
                        batch,
                        self.clock,
                        self.seq,
                        &self.handle.name,
                        &reason,
                    )?;
                }
                (Outcome::Withdrawn, self.clock.now)
            }
            // It was superseded, so it is no dead letter that can be redriven.
            Settlement::Dead { uncertain: is_uncertain, .. } if self.is_cancelled => {
                self.end_cancelled(uncertain(is_uncertain))?;
                (Outcome::Withdrawn, self.clock.now)
            }
            Settlement::Dead { error, cause, called, uncertain: is_uncertain } => {
                let outcome = Outcome::Dead { was_called: called };
                let expired = if cause == GiveUp::Expired { EXPIRED } else { 0 };
                let flags = (expired | uncertain(is_uncertain), UNCERTAIN);
                self.put(outcome, DeliveryState::Dead, self.clock.wall, &error, flags)?;
                (outcome, self.clock.now)
            }
        })
    }

    fn deliver(&self, batch: &mut WriteBatch, answer: Option<String>) -> rusqlite::Result<Outcome> {
        let (attempts, row) = self
            .handle
            .with_lane(|lane| (lane.attempts(self.seq), lane.row_change(self.seq, Outcome::Delivered)));
        if row == RowChange::Delete || batch.effect(&self.handle.name, self.seq.0).is_some() {
            let mut delete = self.connection.prepare_cached(DELETE_DELIVERY)?;
            delete.execute(params![self.handle.id, self.seq.0])?;
        }
        let attempts = attempts.saturating_add(1);
        batch.lane_mut(&self.handle.name).receipts.push(Receipt {
            seq: self.seq,
            at: self.clock.now,
            attempts,
            answer,
        });
        Ok(Outcome::Delivered)
    }

    /// Writes a row with the flags, beside those of the row that are to be kept.
    fn put(
        &self,
        outcome: Outcome,
        state: DeliveryState,
        due: Time,
        text: &str,
        (flags, kept): (i64, i64),
    ) -> rusqlite::Result<()> {
        let Some(attempts) = self.attempts(outcome) else { return self.end_cancelled(flags) };
        let mut put = self.connection.prepare_cached(UPSERT_DELIVERY)?;
        let flags = flags | self.earlier;
        put.execute(params![self.handle.id, self.seq.0, state, attempts, due.as_nanos(), text, flags, kept])?;
        Ok(())
    }

    fn postpone(&self, outcome: Outcome, due: Time) -> rusqlite::Result<()> {
        let Some(attempts) = self.attempts(outcome) else { return self.end_cancelled(0) };
        let (state, kept) = (DeliveryState::Retry, SUSPENDED | UNCERTAIN);
        let mut put = self.connection.prepare_cached(POSTPONE_DELIVERY)?;
        let due = due.as_nanos();
        put.execute(params![self.handle.id, self.seq.0, state, attempts, due, self.earlier, kept])?;
        Ok(())
    }

    /// The attempts of the row; `None` if the row says that the delivery was cancelled, and goes on to say so.
    fn attempts(&self, outcome: Outcome) -> Option<u32> {
        if self.is_cancelled {
            return None;
        }
        match self.handle.with_lane(|lane| lane.row_change(self.seq, outcome)) {
            RowChange::Put { attempts } => Some(attempts),
            RowChange::None | RowChange::Delete => None,
        }
    }

    fn end_cancelled(&self, flags: i64) -> rusqlite::Result<()> {
        let mut end = self.connection.prepare_cached(END_CANCELLED)?;
        end.execute(params![self.handle.id, self.seq.0, flags | self.earlier, UNCERTAIN])?;
        Ok(())
    }
}

/// Writes that claimed deliveries are about to be called. Returns those that must not be.
pub(crate) fn begin_calls(
    connection: &Connection,
    batch: &mut WriteBatch,
    handle: &LaneHandle,
    leases: Vec<Lease>,
) -> rusqlite::Result<Vec<Refused>> {
    let mut refused = Vec::new();
    for lease in leases {
        let seq = lease.seq();
        let known = handle.with_lane(|lane| lane.refusal_reason(lease));
        let reason = match batch.effect(&handle.name, seq.0) {
            _ if known == Some(RefusalReason::LeaseEnded) => known,
            Some(Effect::Cancelled) => Some(RefusalReason::Superseded),
            Some(Effect::Suspended) => Some(RefusalReason::Suspended),
            Some(Effect::Arrived(_) | Effect::NotDelivered) => Some(RefusalReason::LeaseEnded),
            // It was resumed.
            Some(Effect::Unsettled) => known.filter(|reason| *reason != RefusalReason::Suspended),
            None => known,
        };
        if let Some(reason) = reason {
            refused.push(Refused { lease, reason });
            continue;
        }
        let mut begin = connection.prepare_cached(BEGIN_CALL)?;
        begin.execute(params![handle.id, seq.0, DeliveryState::Retry, CALLED])?;
        batch.lane_mut(&handle.name).push(LaneChange::Called(seq));
    }
    Ok(refused)
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
        let Some(handle) = lanes.get(name).filter(|_| !lane_changes.is_unwritten()) else { continue };
        let mut passed = lane_changes.passed();
        lane_changes.blocked_by_retry = handle.with_lane(|lane| lane.blocked_by_retry(&passed));
        for seq in &lane_changes.blocked_by_retry {
            park(connection, &handle, *seq)?;
        }
        passed.extend(&lane_changes.blocked_by_retry);
        let (dead, enqueued) = (lane_changes.dead_delta, lane_changes.enqueued);
        let after = handle.with_lane(|lane| lane.position_after(&passed, dead, enqueued));
        write_position(connection, &handle, after)?;
        receipts::write(connection, handle.id, std::mem::take(&mut lane_changes.receipts))?;
    }
    Ok(())
}

/// Writes a row for a delivery that has none, so that the cursor can pass it. It is due at once.
fn park(connection: &Connection, handle: &LaneHandle, seq: i64) -> rusqlite::Result<()> {
    let mut put = connection.prepare_cached(UPSERT_DELIVERY)?;
    put.execute(params![handle.id, seq, DeliveryState::Retry, 0, 0, "", 0, 0]).map(drop)
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
        park(connection, handle, *seq)?;
    }
    write_position(connection, handle, handle.with_lane(|lane| lane.position_after(&unsettled, 0, 0)))
}
