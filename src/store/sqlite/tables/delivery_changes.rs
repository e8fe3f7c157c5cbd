//! Changes of the delivery of events by decisions: cancelled, suspended, resumed, renewed, not renewed any more, and replaced.

use rusqlite::{Connection, OptionalExtension, params};

use super::deliveries::OutboxTable;
use super::delivery_status::status;
use crate::domain::delivery::{DeliveryChangeKind, GiveUp};
use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};
use crate::store::EventSeq;
use crate::store::expiry::after_renewal;
use crate::store::lane::{Marks, PendingRetry};
use crate::store::sqlite::committed::lane_changes::LaneChange;
use crate::store::sqlite::committed::staged::WriteBatch;
use crate::store::sqlite::decide::write_set::DeliveryWrite;
use crate::store::sqlite::file::delivery_state::{
    CALLED, DeliveryState, EXPIRED, REPLACED, SUSPENDED, UNCERTAIN,
};
use crate::store::tracking::Status;

/// Keeps what is known about calls.
const CANCEL: &str = "
    INSERT INTO deliveries (destination, event, state, attempts, due, error) VALUES (?1, ?2, ?3, 0, 0, '')
    ON CONFLICT DO UPDATE SET state = ?3, due = 0, flags = flags & ?4";
const SUSPEND: &str = "
    INSERT INTO deliveries (destination, event, state, attempts, due, error, flags)
    VALUES (?1, ?2, ?3, 0, 0, '', ?4) ON CONFLICT DO UPDATE SET flags = flags | ?4";
const RESUME: &str = "
    UPDATE deliveries SET due = 0, since = ?3, flags = flags & ~?4
    WHERE destination = ?1 AND event = ?2 AND state = ?5 AND flags & ?4 <> 0";
const RENEW: &str = "
    UPDATE deliveries SET state = ?3, due = 0, since = ?4, expiry = ?5, flags = flags & ?6
    WHERE destination = ?1 AND event = ?2";
const END_RENEWAL: &str = "
    UPDATE deliveries SET since = NULL, expiry = NULL
    WHERE destination = ?1 AND event = ?2 AND state = ?3 AND since IS NOT NULL";
/// `due` as for a discarded dead letter.
const REPLACE: &str = "
    UPDATE deliveries SET state = ?3, due = 0, flags = flags & ?4 | ?5 WHERE destination = ?1 AND event = ?2";
const SELECT_EVENT: &str = "
    SELECT target, at, compensates IS NOT NULL,
           (SELECT attempts FROM deliveries WHERE destination = ?2 AND event = ?1),
           (SELECT expiry FROM deliveries WHERE destination = ?2 AND event = ?1)
    FROM events WHERE id = ?1";

/// An event, and the attempts to deliver it to a destination.
struct Event {
    group: i64,
    at: Time,
    compensates: bool,
    attempts: u32,
    /// The `expirytime` that a redrive or a renewal has set.
    expiry: Option<Time>,
}

/// Applies a change to the deliveries of an event.
pub(crate) fn apply(
    connection: &Connection,
    outbox: &mut OutboxTable,
    batch: &mut WriteBatch,
    clock: ClockReading,
    change: &DeliveryWrite,
) -> rusqlite::Result<()> {
    let destinations = outbox.routes.destinations(connection, batch, change.route)?;
    if change.kind == DeliveryChangeKind::Cancel {
        return cancel(connection, outbox, batch, change.seq, &destinations);
    }
    for name in destinations.iter() {
        // A destination that was removed gives up its deliveries, so that nothing of it is called.
        let Some(id) = outbox.lanes.get(name).map(|handle| handle.id) else { continue };
        let Some(status) = status(connection, outbox, batch, name, change.seq)? else { continue };
        let delivery = Delivery { connection, clock, destination_id: id, name, seq: change.seq };
        delivery.change(batch, change.kind, status)?;
    }
    Ok(())
}

/// Cancels the deliveries of an event that are not settled.
fn cancel(
    connection: &Connection,
    outbox: &OutboxTable,
    batch: &mut WriteBatch,
    seq: EventSeq,
    destinations: &[Name],
) -> rusqlite::Result<()> {
    for name in destinations {
        if !matches!(status(connection, outbox, batch, name, seq)?, Some(Status::Pending { .. })) {
            continue;
        }
        let mut id = connection.prepare_cached("SELECT id FROM destinations WHERE name = ?1")?;
        let id: Option<i64> = id.query_row([name.as_str()], |row| row.get(0)).optional()?;
        // Also without a lane, in case the destination is added again.
        let mut cancel = connection.prepare_cached(CANCEL)?;
        cancel.execute(params![id, seq.0, DeliveryState::Cancelled, UNCERTAIN | CALLED])?;
        if outbox.lanes.get(name).is_some() {
            batch.lane_mut(name).push(LaneChange::Cancel(seq));
        }
    }
    Ok(())
}

/// A delivery to a destination with a lane.
struct Delivery<'a> {
    connection: &'a Connection,
    clock: ClockReading,
    destination_id: i64,
    name: &'a Name,
    seq: EventSeq,
}

impl Delivery<'_> {
    fn change(
        &self,
        batch: &mut WriteBatch,
        kind: DeliveryChangeKind,
        status: Status,
    ) -> rusqlite::Result<()> {
        match (kind, status) {
            (DeliveryChangeKind::Suspend, Status::Pending { .. }) => self.suspend(batch),
            (DeliveryChangeKind::Resume, Status::Pending { .. }) => self.resume(batch),
            (
                DeliveryChangeKind::Renew { expires_after },
                Status::Dead { cause: GiveUp::Expired, is_uncertain, .. },
            ) => self.renew(batch, self.clock.wall.after(expires_after), is_uncertain),
            (DeliveryChangeKind::EndRenewal, Status::Pending { .. }) => self.end_renewal(batch),
            (DeliveryChangeKind::Replace, Status::Dead { .. }) => self.replace(batch),
            _ => Ok(()),
        }
    }

    fn suspend(&self, batch: &mut WriteBatch) -> rusqlite::Result<()> {
        let Some(event) = self.event()? else { return Ok(()) };
        let mut suspend = self.connection.prepare_cached(SUSPEND)?;
        suspend.execute(params![self.destination_id, self.seq.0, DeliveryState::Retry, SUSPENDED])?;
        let marks = Marks { is_suspended: true, is_uncertain: false };
        let pending = self.pending(&event, event.at, marks);
        batch.lane_mut(self.name).push(LaneChange::Suspend(pending));
        Ok(())
    }

    fn resume(&self, batch: &mut WriteBatch) -> rusqlite::Result<()> {
        let mut resume = self.connection.prepare_cached(RESUME)?;
        let resumed = resume.execute(params![
            self.destination_id,
            self.seq.0,
            self.clock.now.as_nanos(),
            SUSPENDED,
            DeliveryState::Retry
        ])?;
        if resumed > 0 {
            batch.lane_mut(self.name).push(LaneChange::Resume(self.seq, self.clock.now));
        }
        Ok(())
    }

    fn renew(&self, batch: &mut WriteBatch, expiry: Time, is_uncertain: bool) -> rusqlite::Result<()> {
        let Some(event) = self.event()? else { return Ok(()) };
        let mut renew = self.connection.prepare_cached(RENEW)?;
        renew.execute(params![
            self.destination_id,
            self.seq.0,
            DeliveryState::Retry,
            self.clock.now.as_nanos(),
            after_renewal(expiry, event.expiry).as_nanos(),
            UNCERTAIN
        ])?;
        let pending = self.pending(&event, self.clock.now, Marks { is_suspended: false, is_uncertain });
        let lane_changes = batch.lane_mut(self.name);
        lane_changes.dead_delta -= 1;
        lane_changes.push(LaneChange::Redrive(pending));
        Ok(())
    }

    fn end_renewal(&self, batch: &mut WriteBatch) -> rusqlite::Result<()> {
        let Some(event) = self.event()? else { return Ok(()) };
        let mut end = self.connection.prepare_cached(END_RENEWAL)?;
        let ended = end.execute(params![self.destination_id, self.seq.0, DeliveryState::Retry])?;
        if ended > 0 {
            batch.lane_mut(self.name).push(LaneChange::EndRenewal(self.seq, event.at));
        }
        Ok(())
    }

    fn replace(&self, batch: &mut WriteBatch) -> rusqlite::Result<()> {
        let mut replace = self.connection.prepare_cached(REPLACE)?;
        let state = DeliveryState::Discarded;
        replace.execute(params![self.destination_id, self.seq.0, state, UNCERTAIN | EXPIRED, REPLACED])?;
        let lane_changes = batch.lane_mut(self.name);
        lane_changes.dead_delta -= 1;
        lane_changes.discarded += 1;
        Ok(())
    }

    fn event(&self) -> rusqlite::Result<Option<Event>> {
        let mut event = self.connection.prepare_cached(SELECT_EVENT)?;
        let event = event.query_row([self.seq.0, self.destination_id], |row| {
            Ok(Event {
                group: row.get(0)?,
                at: Time::from_nanos(row.get(1)?),
                compensates: row.get(2)?,
                attempts: row.get::<_, Option<u32>>(3)?.unwrap_or(0),
                expiry: row.get::<_, Option<i64>>(4)?.map(Time::from_nanos),
            })
        });
        event.optional()
    }

    fn pending(&self, event: &Event, age_from: Time, marks: Marks) -> PendingRetry {
        let Event { group, at: emitted_at, compensates, attempts, .. } = *event;
        // Due at once, also if the clock is behind after a restart.
        let due = Time::from_nanos(0);
        PendingRetry { seq: self.seq, group, emitted_at, age_from, compensates, attempts, marks, due }
    }
}
