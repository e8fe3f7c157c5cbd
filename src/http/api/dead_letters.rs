//! Dead letters: list, redrive and discard deliveries that were given up.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::routing::{delete, get, post};

use super::extract::{self, Id, Query, ops};
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::ops::Initiator;
use crate::ops::api::{
    BulkDiscard, BulkRedrive, BulkResult, DeadLetterPage, DeadLetterView, InitiatorParams,
    ListDeadLettersParams, Problem, RedriveOptions,
};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read(
            Method::GET,
            "/dead-letters",
            "listDeadLetters",
            "List dead letters, oldest first",
            ResponseBody::Json(200, schema_of::<DeadLetterPage>),
            get(list),
        )
        .query::<ListDeadLettersParams>(),
        Operation::operate(
            Method::POST,
            "/dead-letters/redrive",
            "redriveDeadLetters",
            "Redrive dead letters in bulk",
            ResponseBody::Json(200, schema_of::<BulkResult>),
            post(redrive_selected),
        )
        .body::<BulkRedrive>(),
        Operation::operate(
            Method::POST,
            "/dead-letters/discard",
            "discardDeadLetters",
            "Discard dead letters in bulk",
            ResponseBody::Json(200, schema_of::<BulkResult>),
            post(discard_selected),
        )
        .body::<BulkDiscard>(),
        Operation::read(
            Method::GET,
            "/dead-letters/{id}",
            "getDeadLetter",
            "Get a dead letter with its event",
            ResponseBody::Json(200, schema_of::<DeadLetterView>),
            get(show),
        ),
        Operation::operate(
            Method::DELETE,
            "/dead-letters/{id}",
            "discardDeadLetter",
            "Discard a dead letter",
            ResponseBody::Empty,
            delete(discard),
        )
        .query::<InitiatorParams>(),
        Operation::operate(
            Method::POST,
            "/dead-letters/{id}/redrive",
            "redriveDeadLetter",
            "Redrive a dead letter",
            ResponseBody::Empty,
            post(redrive),
        )
        .body::<RedriveOptions>(),
    ]
}

async fn list(
    State(shared): State<HttpState>,
    Query(params): Query<ListDeadLettersParams>,
) -> Result<Json<DeadLetterPage>, Problem> {
    Ok(Json(ops(&shared)?.dead_letters(&params).await?))
}

async fn show(State(shared): State<HttpState>, Id(id): Id) -> Result<Json<DeadLetterView>, Problem> {
    Ok(Json(ops(&shared)?.dead_letter(&id).await?))
}

async fn redrive(
    State(shared): State<HttpState>,
    caller: Caller,
    Id(id): Id,
    extract::Json(options): extract::Json<RedriveOptions>,
) -> Result<StatusCode, Problem> {
    ops(&shared)?.redrive(&redriver(&caller, &options)?, &id, &options).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn discard(
    State(shared): State<HttpState>,
    caller: Caller,
    Id(id): Id,
    Query(params): Query<InitiatorParams>,
) -> Result<StatusCode, Problem> {
    ops(&shared)?.discard(&extract::initiator(&caller, &params)?, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn redrive_selected(
    State(shared): State<HttpState>,
    caller: Caller,
    extract::Json(params): extract::Json<BulkRedrive>,
) -> Result<Json<BulkResult>, Problem> {
    Ok(Json(ops(&shared)?.bulk_redrive(&redriver(&caller, &params.options)?, &params).await?))
}

async fn discard_selected(
    State(shared): State<HttpState>,
    caller: Caller,
    extract::Json(params): extract::Json<BulkDiscard>,
) -> Result<Json<BulkResult>, Problem> {
    let by = caller.initiator(params.author.as_deref(), params.reason.as_deref())?;
    Ok(Json(ops(&shared)?.bulk_discard(&by, &params).await?))
}

fn redriver(caller: &Caller, options: &RedriveOptions) -> Result<Initiator, Problem> {
    caller.initiator(options.author.as_deref(), options.reason.as_deref())
}
