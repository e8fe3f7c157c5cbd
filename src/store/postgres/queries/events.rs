//! Events with their deliveries.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::reader::Reader;
use super::wide;
use crate::domain::event::EventDocument;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::{
    Delivery, DeliveryPage, DeliveryQuery, DeliveryState, Error, EventCursor, EventDeliveries, StoredEvent,
};

/// The maximum number of events whose bodies are in memory at once: only the time of each is needed for a page.
const MAX_BODIES: usize = 100;

/// Events of tests and of earlier versions can have the same id.
const FIND: &str = "SELECT seq, at, body, destinations FROM events WHERE id = $1 ORDER BY seq DESC LIMIT 1";
/// Numbers outside of a time do not count: without bounds of numbers, the server would read all events before it.
const BOUNDS: &str = "
    SELECT (SELECT seq FROM events WHERE NOT tracked AND $1 > $3 AND at < $1 ORDER BY at DESC LIMIT 1),
           (SELECT seq FROM events WHERE NOT tracked AND $2 < $4 AND at > $2 ORDER BY at LIMIT 1)";
const PAGE: &str = "
    SELECT seq, at, body, destinations FROM events
    WHERE seq BETWEEN $1 AND $2 AND at BETWEEN $3 AND $4 ORDER BY seq DESC LIMIT $5";
/// A delivery that was never called waits for the first one of its target, if that is another one.
const DELIVERIES: &str = "
    SELECT d.event, n.name, d.state, d.attempts, CASE WHEN d.token IS NULL AND NOT d.is_parked THEN d.due END, d.ended_at, d.is_suspended,
           d.is_uncertain, d.error, d.answer,
           CASE WHEN d.state = 0 AND d.attempts = 0 AND d.error IS NULL AND NOT d.is_aside THEN (
               SELECT e.id FROM deliveries b JOIN events e ON e.seq = b.event
               WHERE b.destination = d.destination AND b.target BETWEEN d.target AND d.target AND b.event < d.event
               AND b.state + 0 = 0 AND NOT b.is_aside AND NOT b.is_suspended
               ORDER BY b.target, b.event LIMIT 1
           ) END
    FROM deliveries d JOIN destinations n ON n.id = d.destination WHERE d.event = ANY ($1)";

pub(in crate::store::postgres) async fn find(
    shared: &Shared,
    id: &str,
) -> Result<Option<StoredEvent>, Error> {
    read_event(shared, id).await.map_err(|error| error.into_store(Stage::Use))
}

async fn read_event(shared: &Shared, id: &str) -> Result<Option<StoredEvent>, DbError> {
    let reader = Reader::new(&shared.pool).await?;
    let found = reader.query(FIND, &[(&id, Type::TEXT)]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let mut deliveries = DeliveriesByEvent::read(&reader, std::slice::from_ref(row)).await?;
    Ok(Some(StoredEvent {
        emitted_at: Time::from_nanos(row.get(1)),
        body: row.get(2),
        deliveries: deliveries.of(row),
    }))
}

pub(in crate::store::postgres) async fn page(
    shared: &Shared,
    query: DeliveryQuery,
) -> Result<DeliveryPage, Error> {
    read_page(shared, &query).await.map_err(|error| error.into_store(Stage::Use))
}

async fn read_page(shared: &Shared, query: &DeliveryQuery) -> Result<DeliveryPage, DbError> {
    let (wide_from, wide_to) = wide(query.from, query.to);
    let reader = Reader::new(&shared.pool).await?;
    let bounds = reader
        .query_one(
            BOUNDS,
            &[
                (&wide_from, Type::INT8),
                (&wide_to, Type::INT8),
                (&i64::MIN, Type::INT8),
                (&i64::MAX, Type::INT8),
            ],
        )
        .await?;
    let low: i64 = bounds.get::<_, Option<i64>>(0).unwrap_or(i64::MIN);
    let below = query.below.map_or(i64::MAX, |below| below.position().saturating_sub(1));
    let mut high = below.min(bounds.get::<_, Option<i64>>(1).unwrap_or(i64::MAX));
    let mut page = DeliveryPage { events: Vec::new(), next: None };
    loop {
        let room = (query.max - page.events.len()).min(MAX_BODIES);
        let rows = reader
            .query(
                PAGE,
                &[
                    (&low, Type::INT8),
                    (&high, Type::INT8),
                    (&query.from.as_nanos(), Type::INT8),
                    (&query.to.as_nanos(), Type::INT8),
                    (&super::limit(room), Type::INT8),
                ],
            )
            .await?;
        let (has_more, rows) = (rows.len() > room, &rows[..rows.len().min(room)]);
        let mut deliveries = DeliveriesByEvent::read(&reader, rows).await?;
        for row in rows {
            page.events.push(EventDeliveries {
                cursor: EventCursor::new(row.get(0)),
                emitted_at: Time::from_nanos(row.get(1)),
                time: EventDocument::read(row.get(2)).ok().and_then(|event| event.time()),
                deliveries: deliveries.of(row),
            });
        }
        if !has_more {
            return Ok(page);
        }
        if page.events.len() >= query.max {
            page.next = page.events.last().map(|last| last.cursor);
            return Ok(page);
        }
        high = page.events.last().map_or(high, |last| last.cursor.position().saturating_sub(1));
    }
}

/// The deliveries of some events, by the event's number and the destination's name.
struct DeliveriesByEvent(BTreeMap<(i64, String), Delivery>);

impl DeliveriesByEvent {
    async fn read(reader: &Reader, events: &[Row]) -> Result<Self, DbError> {
        let numbers: Vec<i64> = events.iter().map(|row| row.get(0)).collect();
        let rows = reader.query(DELIVERIES, &[(&numbers, Type::INT8_ARRAY)]).await?;
        let found = rows.iter().filter_map(|row| {
            let destination: &str = row.get(1);
            Some(((row.get(0), destination.to_owned()), delivery(Name::new(destination).ok()?, row)?))
        });
        Ok(Self(found.collect()))
    }

    /// The deliveries of an event in the order of its destinations.
    fn of(&mut self, event: &Row) -> Vec<Delivery> {
        let (seq, destinations): (i64, Vec<String>) = (event.get(0), event.get(3));
        destinations.into_iter().filter_map(|destination| self.0.remove(&(seq, destination))).collect()
    }
}

/// `None` for a state that this version does not know.
fn delivery(destination: Name, row: &Row) -> Option<Delivery> {
    let (attempts, ended_at): (i32, Option<i64>) = (row.get(3), row.get(5));
    let error: Option<String> = row.get(8);
    let state = match row.get::<_, i16>(2) {
        0 if attempts == 0 && error.is_none() => DeliveryState::Pending,
        0 => DeliveryState::Retrying,
        1 => DeliveryState::Delivered,
        2 => DeliveryState::Dead,
        3 => DeliveryState::Superseded,
        4 => DeliveryState::Withdrawn,
        5 => DeliveryState::Discarded,
        6 => DeliveryState::Replaced,
        _ => return None,
    };
    let is_delivered = state == DeliveryState::Delivered;
    let due: Option<i64> = row.get(4);
    Some(Delivery {
        destination,
        state,
        attempts: u32::try_from(attempts).unwrap_or(0),
        delivered_at: ended_at.filter(|_| is_delivered).map(Time::from_nanos),
        error: error.filter(|_| !is_delivered),
        answer: row.get(9),
        is_suspended: state.is_unsettled() && row.get(6),
        is_uncertain: row.get(7),
        blocked_by: row.get(10),
        due: due.filter(|_| state == DeliveryState::Retrying).map(Time::from_nanos),
    })
}
