//! The routes of `admin.listen`.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Shared;
use super::error::Refusal;
use crate::telemetry;

/// The routes of `admin.listen`.
pub fn admin_routes(shared: Shared) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(|| async {
            Refusal::new(StatusCode::NOT_FOUND, "there is nothing here; metrics are at /metrics")
        })
        .with_state(shared)
}

async fn metrics(State(shared): State<Shared>) -> Response {
    if let Some(running) = shared.running.get() {
        let now = running.store.now();
        shared.metrics.standing(&running.store.tally(), running.bridge.pauses().len());
        for destination in &running.destinations {
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
