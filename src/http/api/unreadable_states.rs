//! States of targets that cannot be read: operators give them up. The status lists them.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::post;

use super::extract::{self, ops};
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::ops::api::{DropUnreadableState, Problem, UnreadableRowView};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::operate(
            Method::POST,
            "/unreadable-states/drop",
            "dropUnreadableState",
            "Give up the state of a target that cannot be read",
            ResponseBody::Json(200, schema_of::<UnreadableRowView>),
            post(drop_one),
        )
        .body::<DropUnreadableState>(),
    ]
}

async fn drop_one(
    State(shared): State<HttpState>,
    caller: Caller,
    extract::Json(request): extract::Json<DropUnreadableState>,
) -> Result<Json<UnreadableRowView>, Problem> {
    let by = caller.initiator_with_reason(request.author.as_deref(), &request.reason)?;
    Ok(Json(ops(&shared)?.drop_unreadable(&by, &request).await?))
}
