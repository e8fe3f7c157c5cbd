//! The two HTTP listeners: the webhook (`server.listen`) and the admin API (`admin.listen`).

mod admin;
pub(crate) mod api;
mod body;
mod error;
mod ingest;

use std::net::TcpListener;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_server::Handle;
use tokio::sync::Semaphore;

use crate::bridge::Bridge;
use crate::config::Server;
use crate::dispatch::DestinationStatuses;
use crate::kinds::Settings;
use crate::ops::{Lifecycle, LifecyclePhase, Ops};
use crate::store::DeliveryQueue as _;
use crate::store::Store;
use crate::telemetry::Metrics;
pub(crate) use admin::admin_routes;
use error::Rejection;

/// State shared by the handlers of both listeners.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub lifecycle: Arc<Lifecycle>,
    pub metrics: Metrics,
    /// Set once the store is open.
    pub services: Arc<std::sync::OnceLock<Services>>,
    /// Limits of the webhook.
    pub limits: Limits,
    /// Whether `admin.listen` is a loopback address.
    pub admin_on_loopback: bool,
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
    pub statuses: DestinationStatuses,
    /// The active settings.
    pub settings: Arc<ArcSwap<Settings>>,
}

/// Limits on concurrent webhook requests and their bytes in flight.
#[derive(Clone)]
pub(crate) struct Limits {
    server: Server,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Limits {
    pub(crate) fn new(server: &Server) -> Self {
        Self {
            server: server.clone(),
            requests: Arc::new(Semaphore::new(server.max_in_flight.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(server.max_in_flight_bytes.min(Semaphore::MAX_PERMITS))),
        }
    }
}

/// The routes of `server.listen`.
pub(crate) fn server_routes(shared: HttpState) -> Router {
    Router::new()
        .route("/webhook/{source}", axum::routing::post(ingest::webhook))
        .route("/webhook/{source}/", axum::routing::post(ingest::webhook))
        .route("/-/healthy", get(|| async { "scalebridge is alive\n" }))
        .route("/-/ready", get(ready))
        .fallback(not_found)
        .with_state(shared)
}

/// Answers 404 to an unknown path, counted and logged like an unknown source: usually the webhook's URL in
/// Alertmanager's configuration is wrong.
async fn not_found(State(shared): State<HttpState>, method: axum::http::Method) -> Rejection {
    let code = StatusCode::NOT_FOUND;
    let rejection = Rejection::new(code, "not found; the webhook is POST /webhook/{source}");
    shared.metrics.record_notification("", 1, code.as_u16());
    tracing::warn!(%method, code = code.as_u16(), "unknown path");
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
        LifecyclePhase::Starting => Rejection::unavailable("scalebridge is starting").into_response(),
        LifecyclePhase::Stopping => Rejection::unavailable("scalebridge is stopping").into_response(),
    }
}

/// Serves `routes` until `handle` is shut down. `header_timeout` limits the time to receive a request's headers, so a
/// slow client cannot hold a connection open.
///
/// # Errors
/// The listening socket cannot be used.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    handle: Handle<std::net::SocketAddr>,
    header_timeout: std::time::Duration,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut server = axum_server::from_tcp(listener)?.handle(handle).http1_only();
    server
        .http_builder()
        .http1()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(header_timeout);
    server.serve(routes.into_make_service()).await
}
