//! Events with their deliveries.

use super::Ops;
use super::api::{DeliveryPage, DeliveryView, EventDeliveriesView, EventView, ListDeliveriesParams};
use super::error::Error;
use super::parse;
use crate::domain::event::EventDocument;
use crate::domain::time::{ClockReading, Time};
use crate::store::{self, DeliveryQuery};

impl Ops {
    /// An event with its deliveries.
    ///
    /// # Errors
    /// There is no such event, or the store cannot be read.
    pub(crate) async fn event(&self, id: &str) -> Result<EventView, Error> {
        let found = self.0.store.event(id).await?;
        let found = found.ok_or_else(|| {
            let text = "no event with this id; events are retained for `retention.delivered`";
            Error::NotFound(text.to_owned())
        })?;
        let unreadable = |_| Error::Conflict("the stored event is not valid JSON".to_owned());
        let clock = self.0.store.clock();
        let time = EventDocument::read(&found.body).ok().and_then(|event| event.time());
        Ok(EventView {
            emitted_at: time.unwrap_or_else(|| clock.on_wall(found.emitted_at)).to_millis_string(),
            event: serde_json::from_str(&found.body).map_err(unreadable)?,
            deliveries: found.deliveries.into_iter().map(|delivery| delivery_view(clock, delivery)).collect(),
        })
    }

    /// Lists the deliveries of events, newest first.
    ///
    /// # Errors
    /// A parameter is invalid, or the store cannot be read.
    pub(crate) async fn deliveries(&self, params: &ListDeliveriesParams) -> Result<DeliveryPage, Error> {
        let clock = self.0.store.clock();
        let since = parse::time("since", params.since.as_deref(), clock.wall)?;
        let until = parse::time("until", params.until.as_deref(), clock.wall)?;
        let cursor = |text: &str| {
            text.parse().map_err(|_| Error::Invalid("cursor: invalid; use the `next` of a page".to_owned()))
        };
        let query = DeliveryQuery {
            // The store orders events by its own clock.
            from: since.map_or(Time::from_nanos(i64::MIN), |since| clock.on_store(since)),
            to: until.map_or(Time::from_nanos(i64::MAX), |until| clock.on_store(until)),
            below: params.cursor.as_deref().map(cursor).transpose()?,
            max: parse::page_size(params.limit)?,
        };
        let page = self.0.store.deliveries(query).await?;
        let events = page.events.into_iter().map(|event| EventDeliveriesView {
            emitted_at: event.time.unwrap_or_else(|| clock.on_wall(event.emitted_at)).to_millis_string(),
            deliveries: event.deliveries.into_iter().map(|delivery| delivery_view(clock, delivery)).collect(),
        });
        Ok(DeliveryPage { events: events.collect(), next: page.next.map(|next| next.to_string()) })
    }
}

fn delivery_view(clock: ClockReading, delivery: store::Delivery) -> DeliveryView {
    let store::Delivery {
        destination,
        state,
        attempts,
        delivered_at,
        error,
        answer,
        is_suspended,
        is_uncertain,
        blocked_by,
        due,
    } = delivery;
    DeliveryView {
        destination: destination.to_string(),
        state: state.as_str().into(),
        attempts,
        delivered_at: delivered_at.map(|at| clock.show(at)),
        error,
        answer,
        suspended: is_suspended,
        uncertain: is_uncertain,
        blocked_by,
        next_attempt_at: due.map(|due| clock.show(due)),
    }
}
