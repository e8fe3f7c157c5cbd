//! The admin listener: metrics, the operator API and reloads.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::api;
use super::auth::Routes;
use super::{HttpState, healthy, problem, ready};
use crate::config::access::Scope;
use crate::telemetry;

/// The routes of `admin.listen`.
pub(crate) fn admin_routes(shared: HttpState) -> Router {
    let routes = Routes::new(shared)
        .probes(get(healthy), get(ready))
        .scoped(Scope::Read, "/metrics", get(metrics))
        .scoped(Scope::Read, "/openapi.json", get(|| async { Json(api::document()) }))
        .scoped(Scope::Operate, "/-/reload", api::reload::route());
    api::add_routes(routes).into_router(
        problem::not_found("not found; metrics are at /metrics, the API is described at /openapi.json"),
        problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method not allowed; see /openapi.json for the allowed methods",
        ),
    )
}

/// OpenMetrics if the client asks for it, as Prometheus does; else the older text format, which `promtool` reads.
async fn metrics(State(shared): State<HttpState>, headers: HeaderMap) -> Response {
    if let Some(services) = shared.services.get() {
        let now = services.store.now();
        let offset = services.store.clock_offset();
        shared.metrics.set_clock_gauges(now, offset, *services.store.next_due().borrow());
        let settings = services.settings.load();
        let rules = settings.rules.rules().iter().map(|rule| &rule.name);
        shared.metrics.set_store_up(services.store.outage().is_none());
        let snapshot = services.store.snapshot();
        shared.metrics.set_state_gauges(rules, &snapshot.tally, services.ops.pauses().active().len());
        shared.metrics.set_unreadable_rows(snapshot.unreadable_rows.len());
        let controls = services.bridge.controls();
        for source in settings.sources.keys() {
            let has_heartbeat = controls.heartbeat_of_source(source).open_since.is_some();
            shared.metrics.set_source_gauges(source, services.bridge.last_heard(source), has_heartbeat);
        }
        for destination in settings.destinations.keys() {
            let stats = services.store.stats(destination);
            let oldest = stats.oldest_unsettled.map_or(Duration::ZERO, |at| now.since(at));
            shared.metrics.set_backlog(destination, stats.backlog, oldest);
        }
    }
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (encoded, content_type) = match accepted.contains("application/openmetrics-text") {
        true => (shared.metrics.encode(), telemetry::OPENMETRICS),
        false => (shared.metrics.encode_plain(), telemetry::PLAIN_TEXT),
    };
    match encoded {
        Ok(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "encoding metrics failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
