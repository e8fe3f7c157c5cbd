//! The admin listener: metrics, the operator API and reloads.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::HttpState;
use super::api::{self, problem};
use crate::telemetry;

/// The routes of `admin.listen`.
pub(crate) fn admin_routes(shared: HttpState) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(|| async { Json(api::document()) }))
        .route("/-/reload", api::reload::route())
        .nest("/api/v1", api::routes())
        .fallback(|| async {
            problem::not_found("not found; metrics are at /metrics, the API is described at /openapi.json")
        })
        .method_not_allowed_fallback(|| async {
            problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed; see /openapi.json for the allowed methods",
            )
        })
        .layer(axum::middleware::from_fn_with_state(shared.clone(), require_loopback_host))
        .with_state(shared)
}

/// Protects a loopback listener from DNS rebinding: a web page whose host name resolves to 127.0.0.1 could otherwise
/// make the operator's browser send requests to this listener. On loopback, only IP addresses and `localhost` are
/// accepted in `Host`.
async fn require_loopback_host(State(shared): State<HttpState>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if shared.admin_on_loopback && host.is_some_and(|host| !is_ip_or_localhost(host)) {
        let why = "invalid Host: this listener is on loopback, use its IP address or localhost";
        return problem::new(StatusCode::MISDIRECTED_REQUEST, why).into_response();
    }
    next.run(request).await
}

/// `127.0.0.1:9097`, `[::1]`, `localhost:9097`.
fn is_ip_or_localhost(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || inner.parse::<std::net::IpAddr>().is_ok()
}

/// OpenMetrics if the client asks for it, as Prometheus does; else the older text format, which `promtool` reads.
async fn metrics(State(shared): State<HttpState>, headers: HeaderMap) -> Response {
    if let Some(services) = shared.services.get() {
        let clock = services.store.clock();
        let now = clock.now;
        shared.metrics.set_clock_gauges(clock, *services.store.next_due().borrow());
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

#[cfg(test)]
mod tests {
    use super::is_ip_or_localhost;

    #[test]
    fn a_host_name_that_an_attacker_could_own_is_rejected() {
        for host in ["127.0.0.1:9097", "127.0.0.1", "[::1]:9097", "[::1]", "localhost", "LOCALHOST:1"] {
            assert!(is_ip_or_localhost(host), "{host}");
        }
        for host in
            ["evil.example:9097", "localhost.evil.example", "127.0.0.1.evil.example", "", "scalebridge:9097"]
        {
            assert!(!is_ip_or_localhost(host), "{host}");
        }
    }
}
