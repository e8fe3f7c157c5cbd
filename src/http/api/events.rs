//! Events with their deliveries.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;

use super::extract::{Id, Query, ops};
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::ops::api::{DeliveryPage, EventView, ListDeliveriesParams, Problem};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read(
            Method::GET,
            "/events/{id}",
            "getEvent",
            "Get an event with its deliveries",
            ResponseBody::Json(200, schema_of::<EventView>),
            get(event),
        ),
        Operation::read(
            Method::GET,
            "/deliveries",
            "listDeliveries",
            "List the deliveries of events, newest first, without the events",
            ResponseBody::Json(200, schema_of::<DeliveryPage>),
            get(deliveries),
        )
        .query::<ListDeliveriesParams>(),
    ]
}

async fn event(State(shared): State<HttpState>, Id(id): Id) -> Result<Json<EventView>, Problem> {
    Ok(Json(ops(&shared)?.event(&id).await?))
}

async fn deliveries(
    State(shared): State<HttpState>,
    Query(params): Query<ListDeliveriesParams>,
) -> Result<Json<DeliveryPage>, Problem> {
    Ok(Json(ops(&shared)?.deliveries(&params).await?))
}
