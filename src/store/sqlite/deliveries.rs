//! What the writer keeps of deliveries: rows for the exceptions, and how far each destination is.

use std::collections::HashSet;

use rusqlite::params;

use super::writer::{Batch, Writer};
use super::{checkpoint, schema};
use crate::domain::name::Name;
use crate::store::lane::{Position, Row};
use crate::store::outlets::Outlet;
use crate::store::{EventSeq, Settlement};

const PUT: &str = "INSERT OR REPLACE INTO deliveries VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const DELETE: &str = "DELETE FROM deliveries WHERE destination = ?1 AND event = ?2";

impl Writer {
    pub(super) fn settle(
        &mut self,
        batch: &mut Batch,
        outlet: &Outlet,
        settled: Vec<(EventSeq, Settlement)>,
    ) -> rusqlite::Result<()> {
        let now = self.clock.now();
        let staging = batch.lanes.entry(outlet.name.clone()).or_default();
        for (seq, settlement) in settled {
            // Settled once is settled: a row of what was delivered would bring it back after a restart.
            if staging.settled.contains(&seq.0) || !outlet.lane(|lane| lane.is_open(seq)) {
                continue;
            }
            let (due, dead, error) = match settlement {
                Settlement::Delivered | Settlement::Answered { .. } | Settlement::Withdrawn { .. } => {
                    (None, false, String::new())
                }
                Settlement::Retry { delay, error } => (Some(now.after(delay)), false, error),
                Settlement::Dead { error } => (None, true, error),
            };
            let row = outlet.lane(|lane| lane.row(seq, due.is_some(), dead));
            let put = |state: i64, attempts: u32| {
                let due = due.unwrap_or(now).as_nanos();
                let mut put = self.connection.prepare_cached(PUT)?;
                put.execute(params![outlet.number, seq.0, state, attempts, due, error]).map(drop)
            };
            match row {
                Row::None => {}
                Row::Retry { attempts } => put(schema::RETRY, attempts)?,
                Row::Dead { attempts } => put(schema::DEAD, attempts)?,
                Row::Delete => {
                    self.connection.prepare_cached(DELETE)?.execute(params![outlet.number, seq.0])?;
                }
            }
            if dead {
                // The row of a dead letter tells enough.
                staging.cancelled.remove(&seq.0);
            }
            staging.settled.insert(seq.0);
            staging.dead += u64::from(dead);
            staging.apply.push((seq, due, dead));
        }
        Ok(())
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
            self.write_position(outlet, after)?;
            for &seq in &staging.cancelled {
                self.write_cancelled(outlet, seq, after.cursor)?;
            }
        }
        Ok(())
    }

    /// A row for what is cancelled, unless the cursor tells it.
    fn write_cancelled(&self, outlet: &Outlet, seq: i64, cursor: i64) -> rusqlite::Result<()> {
        if seq > cursor {
            let mut put = self.connection.prepare_cached(PUT)?;
            put.execute(params![outlet.number, seq, schema::CANCELLED, 0, 0, ""])?;
        } else {
            self.connection.prepare_cached(DELETE)?.execute(params![outlet.number, seq])?;
        }
        Ok(())
    }

    /// Cancels deliveries of a destination that is configured no more, in case it comes back.
    fn cancel_dormant(&self, destination: &Name, cancelled: &HashSet<i64>) -> rusqlite::Result<()> {
        for seq in cancelled {
            let mut put = self.connection.prepare_cached(
                "INSERT OR REPLACE INTO deliveries SELECT id, ?2, ?3, 0, 0, '' FROM destinations WHERE name = ?1",
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
        for outlet in self.outlets.values() {
            if let Err(error) = self.write_position(outlet, outlet.lane(|lane| lane.position())) {
                tracing::warn!(%error, destination = %outlet.name, "cannot write how far a destination is");
            }
        }
        checkpoint::fold_all(&self.connection);
    }
}
