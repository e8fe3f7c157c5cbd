//! Reloads of the configuration: `POST /-/reload`, as in Prometheus and Alertmanager.

use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, post};

use super::extract::{self, Query, ops};
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::ops::api::{InitiatorParams, Problem, ReloadReport};

pub(in crate::http) fn route() -> MethodRouter<HttpState> {
    post(reload)
}

/// Reloads the configuration. An invalid one changes nothing.
async fn reload(
    State(shared): State<HttpState>,
    caller: Caller,
    Query(params): Query<InitiatorParams>,
) -> Result<Json<ReloadReport>, Problem> {
    let by = extract::initiator(&caller, &params)?;
    Ok(Json(ops(&shared)?.reload(by).await?))
}
