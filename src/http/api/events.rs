//! Events with their deliveries.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::extract::{Id, services};
use super::operation::{Operation, ResponseBody, schema_of};
use super::problem::Problem;
use crate::domain::time::Time;
use crate::http::HttpState;
use crate::store;

pub(super) fn operations() -> Vec<Operation> {
    vec![Operation::new(
        Method::GET,
        "/events/{id}",
        "getEvent",
        "Get an event with its deliveries",
        ResponseBody::Json(200, schema_of::<EventView>),
        get(event),
    )]
}

/// An event and its deliveries.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EventView {
    /// When it was emitted, RFC 3339.
    emitted_at: String,
    /// The event, in the form in which it is delivered.
    event: Value,
    /// One delivery per destination.
    deliveries: Vec<DeliveryView>,
}

/// The delivery of an event to a destination.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DeliveryView {
    /// The destination.
    destination: String,
    /// `pending`, `retrying`, `delivered`, `dead`, `superseded`, `withdrawn` or `discarded`.
    state: &'static str,
    /// The number of attempts, failed ones and the successful one.
    attempts: u32,
    /// The error of the last attempt, or why the event was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The destination's response, if it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    /// When the next attempt is due, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
}

impl From<store::Delivery> for DeliveryView {
    fn from(delivery: store::Delivery) -> Self {
        let store::Delivery { destination, state, failed_attempts, error, answer, due } = delivery;
        // A row with a response has already counted the successful attempt.
        let arrived = state == store::DeliveryState::Delivered && answer.is_none();
        Self {
            destination: destination.to_string(),
            state: state.as_str(),
            attempts: failed_attempts + u32::from(arrived),
            error,
            answer,
            next_attempt_at: due.map(Time::to_millis_string),
        }
    }
}

async fn event(State(shared): State<HttpState>, Id(id): Id) -> Result<Json<EventView>, Problem> {
    let services = services(&shared)?;
    let found = services.store.event(&id).await?;
    let found = found.ok_or_else(|| {
        Problem::not_found("no event with this id; events are retained for `retention.delivered`")
    })?;
    let unreadable = |_| Problem::conflict("the stored event is not valid JSON");
    Ok(Json(EventView {
        emitted_at: found.emitted_at.to_millis_string(),
        event: serde_json::from_str(&found.body).map_err(unreadable)?,
        deliveries: found.deliveries.into_iter().map(DeliveryView::from).collect(),
    }))
}
