//! The status of the bridge.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;

use super::extract::ops;
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::ops::api::{Problem, Status};

pub(super) fn operations() -> Vec<Operation> {
    vec![Operation::read(
        Method::GET,
        "/status",
        "getStatus",
        "Show the status of the bridge",
        ResponseBody::Json(200, schema_of::<Status>),
        get(status),
    )]
}

async fn status(State(shared): State<HttpState>) -> Result<Json<Status>, Problem> {
    Ok(Json(ops(&shared)?.status()))
}
