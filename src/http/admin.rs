//! The routes of `admin.listen`.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::sync::oneshot;

use super::api::{self, Problem};
use super::{ReloadError, Reloaded, Shared};
use crate::telemetry;

/// The routes of `admin.listen`.
pub fn admin_routes(shared: Shared) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(|| async { Json(api::document()) }))
        .route("/-/reload", post(reload))
        .nest("/api/v1", api::routes())
        .fallback(|| async {
            Problem::missing(
                "there is nothing here; metrics are at /metrics, /openapi.json describes the rest",
            )
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "not with this method; /openapi.json says with which",
            )
        })
        .with_state(shared)
}

async fn metrics(State(shared): State<Shared>) -> Response {
    if let Some(running) = shared.running.get() {
        let now = running.store.now();
        shared.metrics.standing(&running.store.tally(), running.bridge.pauses().len());
        for destination in running.settings.load().destinations.keys() {
            let oldest = running.store.oldest(destination).map_or(Duration::ZERO, |at| now.since(at));
            shared.metrics.backlog(destination, running.store.backlog(destination), oldest);
        }
    }
    match shared.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, telemetry::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Reads the configuration again and says what came of it. What is refused changes nothing.
async fn reload(State(shared): State<Shared>) -> Result<Json<Reloaded>, Problem> {
    let (reply, answer) = oneshot::channel();
    let gone = || Problem::later("scalebridge is starting or stopping");
    shared.reloads.send(reply).await.map_err(|_| gone())?;
    match answer.await.map_err(|_| gone())? {
        Ok(reloaded) => Ok(Json(reloaded)),
        Err(ReloadError::Failed(why)) => Err(Problem::later(why)),
        Err(ReloadError::Faulty(errors)) => {
            let detail = "the configuration has faults, and the one before goes on";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with(errors))
        }
    }
}
