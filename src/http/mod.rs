//! The two HTTP listeners: the webhook (`server.listen`) and the admin API (`admin.listen`).

mod admin;
pub(crate) mod api;
mod auth;
mod body;
mod error;
mod ingest;
mod problem;
mod response_budget;
pub(crate) mod transport;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use crate::bridge::Bridge;
use crate::config::Server;
use crate::dispatch::DestinationStatuses;
use crate::intake::{Intake, LogLimit};
use crate::kinds::Settings;
use crate::ops::{Lifecycle, LifecyclePhase, Ops};
use crate::store::DeliveryQueue as _;
use crate::store::Store;
use crate::telemetry::Metrics;
pub(crate) use admin::admin_routes;
pub(crate) use auth::Access;
use error::Rejection;
use transport::{Budget, Refuse};

/// State shared by the handlers of both listeners.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub lifecycle: Arc<Lifecycle>,
    pub metrics: Metrics,
    /// Set once the store is open.
    pub services: Arc<std::sync::OnceLock<Services>>,
    /// Limits of the webhook.
    pub limits: Limits,
    /// Limits of the admin listener.
    pub admin_limits: AdminLimits,
    /// Who may use the listeners.
    pub access: Arc<Access>,
    /// Permits for concurrent decision streams.
    pub streams: Arc<Semaphore>,
}

/// Maximum number of concurrent decision streams.
pub(crate) const MAX_STREAMS: usize = 64;

/// The services that exist once the store is open.
pub(crate) struct Services {
    pub ops: Ops,
    pub bridge: Bridge,
    pub store: Store,
    pub intake: Intake,
    pub statuses: DestinationStatuses,
    /// The active settings.
    pub settings: Arc<ArcSwap<Settings>>,
}

/// Limits on concurrent webhook requests, their bytes in flight, and lines about refused ones.
#[derive(Clone)]
pub(crate) struct Limits {
    server: Server,
    requests: Arc<Semaphore>,
    bytes: Arc<Budget>,
    /// The part of `bytes` for bodies that are read before it is known who sends them.
    unverified_bytes: Arc<Budget>,
    lines: Arc<Lines>,
}

/// The lines about refused requests of the webhook.
#[derive(Default)]
struct Lines {
    unknown_paths: LogLimit<()>,
    /// By source (`?` if it is unknown), code and cause.
    rejections: LogLimit<(String, u16, &'static str)>,
}

/// Limits on the bytes of requests and responses of the admin listener.
#[derive(Clone)]
pub(crate) struct AdminLimits {
    /// Of request bodies.
    bodies: Arc<Budget>,
    /// Of responses that are not sent yet.
    responses: Arc<Budget>,
}

impl AdminLimits {
    pub(crate) fn new(server: &Server) -> Self {
        let new = || Budget::new(server.max_in_flight_bytes);
        Self { bodies: new(), responses: new() }
    }
}

impl Limits {
    pub(crate) fn new(server: &Server) -> Self {
        let bytes = Budget::new(server.max_in_flight_bytes);
        // A stranger cannot keep out senders that are known by their headers; and the largest body fits.
        let unverified_bytes = server.max_body_bytes.max(server.max_in_flight_bytes / 4);
        Self {
            server: server.clone(),
            requests: Arc::new(Semaphore::new(server.max_in_flight.min(Semaphore::MAX_PERMITS))),
            unverified_bytes: Budget::part_of(&bytes, unverified_bytes),
            bytes,
            lines: Arc::default(),
        }
    }
}

/// The routes of `server.listen`.
pub(crate) fn server_routes(shared: HttpState) -> Router {
    Router::new()
        .route("/webhook/{source}", axum::routing::post(ingest::webhook))
        .route("/webhook/{source}/", axum::routing::post(ingest::webhook))
        .route("/prometheus/{source}/api/v2/alerts", axum::routing::post(ingest::prometheus))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready))
        .fallback(not_found)
        .layer(axum::middleware::from_fn_with_state(shared.access.clone(), auth::server_headers))
        .with_state(shared)
}

/// Whether the process answers.
async fn healthy() -> &'static str {
    "scalebridge is alive\n"
}

/// Answers 404 to an unknown path, counted and logged like an unknown source: usually the webhook's URL in
/// Alertmanager's configuration is wrong.
async fn not_found(State(shared): State<HttpState>, method: axum::http::Method) -> Rejection {
    let code = StatusCode::NOT_FOUND;
    let text = "not found; the webhook is POST /webhook/{source}, and Prometheus sends to \
                POST /prometheus/{source}/api/v2/alerts";
    let rejection = Rejection::new(code, text);
    shared.metrics.record_notification("", 1, code.as_u16());
    if let Some(count) = shared.limits.lines.unknown_paths.count_to_log((), Instant::now()) {
        tracing::warn!(%method, code = code.as_u16(), count, "unknown path");
    }
    rejection
}

/// Ready means that notifications are accepted, so it depends on the store and on the limit of the backlog. It does not
/// depend on destinations: while one fails, notifications are accepted and their events are stored. The response lists
/// the failing destinations.
async fn ready(State(shared): State<HttpState>) -> Response {
    match shared.lifecycle.phase() {
        LifecyclePhase::Ready => {
            if let Some(cause) = shared.services.get().and_then(|services| services.ops.not_ready()) {
                return Rejection::unavailable(cause.to_string()).into_response();
            }
            let failing = shared
                .services
                .get()
                .map(|services| services.statuses.failure_lines(|name| services.store.undelivered_at(name)));
            let failing = failing.unwrap_or_default();
            let lines = failing.iter().map(|line| format!("{line}\n"));
            std::iter::once("scalebridge is ready\n".to_owned())
                .chain(lines)
                .collect::<String>()
                .into_response()
        }
        LifecyclePhase::Starting => match shared.lifecycle.waiting_for() {
            Some(what) => {
                Rejection::unavailable(format!("scalebridge is starting: waiting for {what}, see the log"))
            }
            None => Rejection::unavailable("scalebridge is starting"),
        }
        .into_response(),
        LifecyclePhase::Stopping => Rejection::unavailable("scalebridge is stopping").into_response(),
    }
}

/// The response of the webhook's listener to a request that is refused before it is routed.
pub(crate) fn refuse_on_server(metrics: Metrics) -> Refuse {
    Arc::new(move |status, text| {
        metrics.record_notification("", 1, status.as_u16());
        Rejection::new(status, text).into_response()
    })
}

/// The same, of the admin listener.
pub(crate) fn refuse_on_admin() -> Refuse {
    Arc::new(|status, text| problem::new(status, text).into_response())
}
