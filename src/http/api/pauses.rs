//! Pauses: operators block actions and resume them.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::routing::{delete, get, post};

use super::extract::{self, Id, Query, ops};
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::ops::api::{InitiatorParams, ListPausesParams, NewPause, PauseView, Problem};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read(
            Method::GET,
            "/pauses",
            "listPauses",
            "List active pauses, or with `ended` those that have ended too",
            ResponseBody::Json(200, schema_of::<Vec<PauseView>>),
            get(list),
        )
        .query::<ListPausesParams>(),
        Operation::operate(
            Method::POST,
            "/pauses",
            "createPause",
            "Pause actions",
            ResponseBody::Json(201, schema_of::<PauseView>),
            post(create),
        )
        .body::<NewPause>(),
        Operation::operate(
            Method::DELETE,
            "/pauses/{id}",
            "endPause",
            "End a pause; deferred actions are re-evaluated at once",
            ResponseBody::Json(200, schema_of::<PauseView>),
            delete(end),
        )
        .query::<InitiatorParams>(),
    ]
}

async fn list(
    State(shared): State<HttpState>,
    Query(params): Query<ListPausesParams>,
) -> Result<Json<Vec<PauseView>>, Problem> {
    Ok(Json(ops(&shared)?.list_pauses(&params).await?))
}

async fn create(
    State(shared): State<HttpState>,
    caller: Caller,
    extract::Json(new): extract::Json<NewPause>,
) -> Result<(StatusCode, Json<PauseView>), Problem> {
    let by = caller.named_initiator(new.author.as_deref(), &new.reason)?;
    Ok((StatusCode::CREATED, Json(ops(&shared)?.pause(by, &new).await?)))
}

async fn end(
    State(shared): State<HttpState>,
    caller: Caller,
    Id(id): Id,
    Query(params): Query<InitiatorParams>,
) -> Result<Json<PauseView>, Problem> {
    let by = extract::initiator(&caller, &params)?;
    Ok(Json(ops(&shared)?.resume(by, &id).await?))
}
