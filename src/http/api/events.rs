//! Events with their deliveries.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;

use super::extract::{Id, ops};
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::ops::api::{EventView, Problem};

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

async fn event(State(shared): State<HttpState>, Id(id): Id) -> Result<Json<EventView>, Problem> {
    Ok(Json(ops(&shared)?.event(&id).await?))
}
