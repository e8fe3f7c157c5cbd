//! What the lanes read: events above the window, and the rows of claimed deliveries.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::EventSeq;
use crate::store::expiry::redrives;
use crate::store::lane::NewDelivery;
use crate::store::sqlite::codec::event_blocks::BodyReader;
use crate::store::sqlite::codec::firing_events;
use crate::store::sqlite::file::delivery_state::DeliveryState;
use crate::store::sqlite::tables::compensation::{self, Compensation};
use crate::store::sqlite::tables::dead_letters::as_sent;
use crate::store::sqlite::tables::routes;

/// Maximum number of events that one refill of a lane's window reads.
pub(crate) const MAX_REFILL_EVENTS: usize = 1000;

/// An event above the high watermark of a lane.
pub(crate) struct RefillEvent {
    pub delivery: NewDelivery,
    /// Whether the event is sent to the destination.
    pub is_wanted: bool,
    /// Whether a row of `deliveries` has details that the lane does not have. A delivery that is cancelled
    /// during this read is cancelled in the lane when that commit is published.
    pub has_row: bool,
}

/// Reads the events after an event number, at most [`MAX_REFILL_EVENTS`].
pub(crate) fn read_events(
    reader: &Connection,
    destination: &Name,
    destination_id: i64,
    after: i64,
) -> rusqlite::Result<Vec<RefillEvent>> {
    let mut routes = reader.prepare_cached("SELECT id, destinations FROM routes")?;
    let mut routes = routes.query([])?;
    let mut wanted: Vec<i64> = Vec::new();
    while let Some(route) = routes.next()? {
        if routes::parse(route.get_ref(1)?.as_str()?).contains(destination) {
            wanted.push(route.get(0)?);
        }
    }
    let mut events = reader.prepare_cached(
        "SELECT e.id, e.target, e.route, e.at, e.compensates IS NOT NULL, e.body, coalesce(d.state, ?4) <> ?4
         FROM events e LEFT JOIN deliveries d ON d.destination = ?3 AND d.event = e.id
         WHERE e.id > ?1 ORDER BY e.id LIMIT ?2",
    )?;
    let mut bodies = BodyReader::new(reader);
    let rows = events.query_map(
        params![after, MAX_REFILL_EVENTS as i64, destination_id, DeliveryState::Cancelled],
        |row| {
            let seq = row.get(0)?;
            Ok(RefillEvent {
                is_wanted: wanted.contains(&row.get(2)?),
                has_row: row.get(6)?,
                delivery: NewDelivery {
                    seq: EventSeq(seq),
                    group: row.get(1)?,
                    emitted_at: Time::from_nanos(row.get(3)?),
                    compensates: row.get(4)?,
                    body: bodies.read(seq, row.get_ref(5)?)?.into(),
                },
            })
        },
    )?;
    rows.collect()
}

/// What has to be read for a claimed delivery.
pub(crate) struct ClaimLookup {
    pub seq: i64,
    /// Its body is not in memory, and it may have a row.
    pub has_row: bool,
    /// Whether it may have nothing to compensate.
    pub check_compensation: bool,
}

/// What the row of a claimed delivery says.
#[derive(Default)]
pub(crate) struct ClaimDetails {
    pub body: Option<EncodedEvent>,
    /// The number of redrives that have set another `expirytime`.
    pub redrives: u32,
    pub last_error: Option<Arc<str>>,
    /// If that was asked for.
    pub compensation: Option<Compensation>,
}

pub(crate) fn read_claims(
    reader: &Connection,
    destination: &Name,
    destination_id: i64,
    lookups: &[ClaimLookup],
) -> rusqlite::Result<BTreeMap<i64, ClaimDetails>> {
    let mut event = reader.prepare_cached(
        "SELECT e.body, d.state, d.error, d.expiry, e.compensates
         FROM events e LEFT JOIN deliveries d ON d.destination = ?1 AND d.event = e.id WHERE e.id = ?2",
    )?;
    let mut found = BTreeMap::new();
    let mut bodies = BodyReader::new(reader);
    for &ClaimLookup { seq, has_row, check_compensation } in lookups {
        let details = event.query_row([destination_id, seq], |row| {
            let mut details = ClaimDetails::default();
            if has_row {
                let expiry: Option<i64> = row.get(3)?;
                details.body = Some(as_sent(bodies.read(seq, row.get_ref(0)?)?, expiry));
                details.redrives = redrives(expiry.map(Time::from_nanos));
                let error = row.get_ref(2)?.as_str_or_null()?.unwrap_or_default();
                details.last_error = Some(error).filter(|error| !error.is_empty()).map(Into::into);
            }
            let firing =
                row.get_ref(4)?.as_blob_or_null()?.filter(|_| check_compensation).map(firing_events::decode);
            Ok((details, firing))
        });
        let Some((mut details, firing)) = details.optional()? else { continue };
        if let Some(firing) = firing {
            let found = compensation::at_destination(reader, destination, destination_id, &firing)?;
            details.compensation = Some(found);
        }
        found.insert(seq, details);
    }
    Ok(found)
}
