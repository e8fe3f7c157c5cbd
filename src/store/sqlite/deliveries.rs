//! What the writer keeps of deliveries: rows for the exceptions, and how far each destination is.

use rusqlite::{OptionalExtension, params};

use super::bodies::Bodies;
use super::writer::{Batch, Settled, Writer};
use super::{checkpoint, schema};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::lane::{End, Position, Row};
use crate::store::numbers::Set;
use crate::store::outlets::Outlet;
use crate::store::{EventSeq, Settlement, withdrawn};

/// What a redriven delivery has beside stays with it.
pub(super) const PUT: &str = "
    INSERT INTO deliveries (destination, event, state, attempts, due, error) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT DO UPDATE SET state = ?3, attempts = ?4, due = ?5, error = ?6";
const DELETE: &str = "DELETE FROM deliveries WHERE destination = ?1 AND event = ?2";

impl Writer {
    pub(super) fn settle(
        &mut self,
        batch: &mut Batch,
        outlet: &Outlet,
        settled: Vec<(EventSeq, Settlement)>,
    ) -> rusqlite::Result<()> {
        let now = self.clock.now();
        for (seq, settlement) in settled {
            let staging = batch.lanes.entry(outlet.name.clone()).or_default();
            // Settled once is settled: a row of what was delivered would bring it back after a restart.
            if staging.settled.contains(&seq.0) || !outlet.lane(|lane| lane.is_open(seq)) {
                continue;
            }
            let mut due = now;
            let (end, state, text) = match settlement {
                Settlement::Delivered => (End::Arrived, schema::ARRIVED, String::new()),
                Settlement::Answered { answer } => (End::Answered, schema::ANSWERED, answer),
                Settlement::Withdrawn { reason } => (End::Withdrawn, schema::WITHDRAWN, reason),
                Settlement::Retry { delay, error } => {
                    due = now.after(delay);
                    (End::Retry, schema::RETRY, error)
                }
                Settlement::Dead { error } => (End::Dead, schema::DEAD, error),
            };
            if end == End::Dead {
                // The row of a dead letter tells enough.
                staging.cancelled.remove(&seq.0);
                staging.dead += 1;
            }
            staging.settled.insert(seq.0);
            staging.apply.push(Settled { seq, end, due });
            let row = outlet.lane(|lane| lane.row(seq, end));
            match row {
                Row::None => {}
                Row::Put { attempts } | Row::Arrived { attempts } => {
                    let mut put = self.connection.prepare_cached(PUT)?;
                    put.execute(params![outlet.number, seq.0, state, attempts, due.as_nanos(), text])?;
                }
                Row::Delete => {
                    self.connection.prepare_cached(DELETE)?.execute(params![outlet.number, seq.0])?;
                }
            }
            // What was cancelled has its line already.
            if end == End::Withdrawn && row != Row::None {
                self.record_withdrawn(batch, now, seq, &outlet.name, &text)?;
            }
        }
        Ok(())
    }

    /// Why the target did not scale here: a line in its history.
    fn record_withdrawn(
        &self,
        batch: &mut Batch,
        now: Time,
        seq: EventSeq,
        destination: &Name,
        reason: &str,
    ) -> rusqlite::Result<()> {
        let mut event = self.connection.prepare_cached("SELECT target, body FROM events WHERE id = ?1")?;
        let found = event.query_row([seq.0], |row| {
            let record = withdrawn::record(
                now,
                Bodies::new(&self.connection).read(seq.0, row.get_ref(1)?)?,
                destination,
                reason,
            );
            Ok((row.get(0)?, record))
        });
        let Some((target, record)) = found.optional()? else { return Ok(()) };
        self.put_record_about(batch, now, &[target], record)
    }

    /// Where the lanes will stand when this batch is committed.
    pub(super) fn write_positions(&self, batch: &mut Batch) -> rusqlite::Result<()> {
        for (name, staging) in &mut batch.lanes {
            let Some(outlet) = self.outlets.get(name) else {
                self.cancel_dormant(name, &staging.cancelled)?;
                continue;
            };
            staging.settled.extend(&staging.cancelled);
            staging.parked = outlet.lane(|lane| lane.to_park(&staging.settled));
            // Nothing but the one before them keeps them waiting.
            for seq in &staging.parked {
                let mut put = self.connection.prepare_cached(PUT)?;
                put.execute(params![outlet.number, seq, schema::RETRY, 0, 0, ""])?;
            }
            staging.settled.extend(&staging.parked);
            let after =
                outlet.lane(|lane| lane.position_after(&staging.settled, staging.dead, staging.given));
            self.write_position(&outlet, after)?;
            // Evidence that it never arrived, also where the cursor tells that it is over.
            for &seq in &staging.cancelled {
                let state = if staging.has_arrived(seq) { schema::ARRIVED } else { schema::CANCELLED };
                let mut put = self.connection.prepare_cached(PUT)?;
                put.execute(params![outlet.number, seq, state, 0, 0, ""])?;
            }
        }
        Ok(())
    }

    /// Cancels deliveries of a destination that is configured no more, in case it comes back.
    fn cancel_dormant(&self, destination: &Name, cancelled: &Set<i64>) -> rusqlite::Result<()> {
        for seq in cancelled {
            let mut put = self.connection.prepare_cached(
                "INSERT OR REPLACE INTO deliveries (destination, event, state, attempts, due, error)
                 SELECT id, ?2, ?3, 0, 0, '' FROM destinations WHERE name = ?1",
            )?;
            put.execute(params![destination.as_str(), seq, schema::CANCELLED])?;
        }
        Ok(())
    }

    fn write_position(&self, outlet: &Outlet, position: Position) -> rusqlite::Result<()> {
        let mut update = self.connection.prepare_cached(
            "UPDATE destinations SET cursor = ?2, given = ?3, passed = ?4, dead = ?5 WHERE id = ?1",
        )?;
        let (given, passed, dead) = (position.given as i64, position.passed as i64, position.dead as i64);
        update.execute(params![outlet.number, position.cursor, given, passed, dead])?;
        Ok(())
    }

    /// Writes where the lanes stand, when nothing else is to be written any more.
    pub(super) fn finish(&self) {
        if let Err(error) = self.leave_all() {
            tracing::warn!(%error, "cannot write how far the destinations are; what they have got may come again");
        }
        checkpoint::fold_all(&self.connection);
    }

    fn leave_all(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let left = self.outlets.all().values().try_for_each(|outlet| self.leave(outlet));
        self.connection.execute_batch(if left.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        left
    }

    /// Writes where a lane stands.
    pub(super) fn leave(&self, outlet: &Outlet) -> rusqlite::Result<()> {
        // What holds the cursor back gets a row, or all that was delivered behind it would be sent again.
        let left = outlet.lane(|lane| lane.to_leave());
        for seq in &left {
            let mut put = self.connection.prepare_cached(PUT)?;
            put.execute(params![outlet.number, seq, schema::RETRY, 0, 0, ""])?;
        }
        self.write_position(outlet, outlet.lane(|lane| lane.position_after(&left, 0, 0)))
    }
}
