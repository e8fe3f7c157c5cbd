//! Operators forgive what rules owe.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::post;

use super::extract::{self, ops};
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::ops::api::{ForgiveRequest, Forgiven, Problem};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::operate(
            Method::POST,
            "/forgive",
            "forgive",
            "Forgive what rules owe on a target: nothing is taken back for it any more",
            ResponseBody::Json(200, schema_of::<Forgiven>),
            post(forgive),
        )
        .body::<ForgiveRequest>(),
    ]
}

async fn forgive(
    State(shared): State<HttpState>,
    caller: Caller,
    extract::Json(request): extract::Json<ForgiveRequest>,
) -> Result<Json<Forgiven>, Problem> {
    let by = caller.initiator_with_reason(request.author.as_deref(), &request.reason)?;
    Ok(Json(ops(&shared)?.forgive(by, &request).await?))
}
