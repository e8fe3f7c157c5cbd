//! Events with their deliveries.

use super::Ops;
use super::api::{DeliveryView, EventView};
use super::error::Error;
use crate::domain::event::EventDocument;
use crate::domain::time::ClockReading;
use crate::store;

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
