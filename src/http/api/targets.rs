//! Targets that a pattern covers.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;

use super::extract::{Query, ops};
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::ops::api::{CoveredTargets, CoveredTargetsParams, Problem};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read(
            Method::GET,
            "/targets/covered",
            "countCoveredTargets",
            "Count the targets that a pattern covers",
            ResponseBody::Json(200, schema_of::<CoveredTargets>),
            get(count),
        )
        .query::<CoveredTargetsParams>(),
    ]
}

async fn count(
    State(shared): State<HttpState>,
    Query(params): Query<CoveredTargetsParams>,
) -> Result<Json<CoveredTargets>, Problem> {
    Ok(Json(ops(&shared)?.covered_targets(&params).await?))
}
