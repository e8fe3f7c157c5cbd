//! The routes of `admin.listen`.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::sync::oneshot;

use super::api::{self, Problem};
use super::{HttpState, ReloadError, ReloadReport};
use crate::telemetry;

/// The routes of `admin.listen`.
pub(crate) fn admin_routes(shared: HttpState) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(|| async { Json(api::document()) }))
        .route("/-/reload", post(reload))
        .nest("/api/v1", api::routes())
        .fallback(|| async {
            Problem::not_found(
                "there is nothing here; metrics are at /metrics, /openapi.json describes the rest",
            )
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "not with this method; /openapi.json says with which",
            )
        })
        .layer(axum::middleware::from_fn_with_state(shared.clone(), require_loopback_host))
        .with_state(shared)
}

/// Whoever can have a browser believe that a name of his is 127.0.0.1 can have it ask this listener in the name of
/// whoever sits before it. On loopback nobody else is called by a name than `localhost`.
async fn require_loopback_host(State(shared): State<HttpState>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if shared.admin_on_loopback && host.is_some_and(|host| !is_ip_or_localhost(host)) {
        let why = "this listener is on loopback, and is asked by its address or as localhost";
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, why).into_response();
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

async fn metrics(State(shared): State<HttpState>) -> Response {
    if let Some(services) = shared.services.get() {
        let now = services.store.now();
        let settings = services.settings.load();
        let rules = settings.rules.rules().iter().map(|rule| &rule.name);
        let tally = services.store.tally();
        shared.metrics.set_state_gauges(rules, &tally, services.bridge.pauses().len());
        for destination in settings.destinations.keys() {
            let oldest =
                services.store.oldest_unsettled(destination).map_or(Duration::ZERO, |at| now.since(at));
            shared.metrics.set_backlog(destination, services.store.backlog(destination), oldest);
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
async fn reload(State(shared): State<HttpState>) -> Result<Json<ReloadReport>, Problem> {
    let (reply, answer) = oneshot::channel();
    let gone = || Problem::unavailable("scalebridge is starting or stopping");
    shared.reloads.send(reply).await.map_err(|_| gone())?;
    match answer.await.map_err(|_| gone())? {
        Ok(reloaded) => Ok(Json(reloaded)),
        Err(ReloadError::Failed(why)) => Err(Problem::unavailable(why)),
        Err(ReloadError::Invalid(errors)) => {
            let detail = "the configuration has faults, and the one before goes on";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with_errors(errors))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_ip_or_localhost;

    #[test]
    fn a_host_name_that_somebody_else_could_own_is_not_accepted() {
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
