//! Whether an `on_resolved` event has anything to compensate at a destination.
//!
//! An `on_firing` event of an episode has arrived at a destination of its route unless `deliveries` has a row that
//! says otherwise; those rows are retained longer than their events (`retention.rs`).

use rusqlite::{Connection, OptionalExtension, params};

use super::routes;
use crate::domain::name::Name;
use crate::store::sqlite::codec::firing_events::FiringEventRef;
use crate::store::sqlite::file::delivery_state::DeliveryState;

/// What an event has to compensate at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compensation {
    /// One of the events that it compensates has arrived.
    Something,
    /// None of them has, and one can still be delivered: it stands aside.
    Undecided,
    /// None of them ever will.
    Nothing,
}

/// What these events are to be compensated for at a destination. A delivery that waits for a retry has not arrived.
pub(crate) fn at_destination(
    reader: &Connection,
    destination: &Name,
    destination_id: i64,
    firing: &[FiringEventRef],
) -> rusqlite::Result<Compensation> {
    let mut exception = reader.prepare_cached(
        "SELECT state FROM deliveries WHERE destination = ?1 AND event = ?2 AND state IN (?3, ?4, ?5, ?6)",
    )?;
    let mut found = Compensation::Nothing;
    // All events nearly always have the same route.
    let mut known: Option<(i64, bool)> = None;
    for firing in firing {
        let is_routed = match known {
            Some((id, is_routed)) if id == firing.route => is_routed,
            _ => routes::read(reader, firing.route)?.is_some_and(|names| names.contains(destination)),
        };
        known = Some((firing.route, is_routed));
        if !is_routed {
            continue;
        }
        use DeliveryState::{Cancelled, Dead, Discarded, Retry};
        let states = params![destination_id, firing.seq.0, Retry, Dead, Cancelled, Discarded];
        match exception.query_row(states, |row| row.get(0)).optional()? {
            None => return Ok(Compensation::Something),
            Some(Retry) => found = Compensation::Undecided,
            Some(_) => {}
        }
    }
    Ok(found)
}
