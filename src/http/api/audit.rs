//! The audit trail.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;

use super::extract::{Query, ops};
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::ops::api::{AuditPage, ListAuditParams, Problem};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read(
            Method::GET,
            "/audit",
            "listAudit",
            "List acts of operators, newest first",
            ResponseBody::Json(200, schema_of::<AuditPage>),
            get(list),
        )
        .query::<ListAuditParams>(),
    ]
}

async fn list(
    State(shared): State<HttpState>,
    Query(params): Query<ListAuditParams>,
) -> Result<Json<AuditPage>, Problem> {
    Ok(Json(ops(&shared)?.audit_trail(&params).await?))
}
