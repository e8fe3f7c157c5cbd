//! The two HTTP listeners: the webhook (`server.listen`) and the admin API (`admin.listen`).

mod admin;
pub(crate) mod api;
mod body;
mod error;
mod ingest;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_server::Handle;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bridge::Bridge;
use crate::config::Server;
use crate::dispatch::DestinationStatuses;
use crate::kinds::Settings;
use crate::store::Store;
use crate::telemetry::Metrics;
pub(crate) use admin::admin_routes;
pub(crate) use api::ConfigurationStatus;
use error::Rejection;

/// Whether the bridge accepts notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LifecyclePhase {
    /// The store is not open yet, or the workers have not started.
    Starting = 0,
    /// Notifications are accepted.
    Ready = 1,
    /// Draining: requests in progress are answered, new notifications are rejected.
    Stopping = 2,
}

/// The bridge's lifecycle phase, shared by the handlers and `app`.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    phase: AtomicU8,
    stopping: CancellationToken,
}

impl Lifecycle {
    pub(crate) fn enter(&self, phase: LifecyclePhase) {
        self.phase.store(phase as u8, Ordering::Release);
        if phase == LifecyclePhase::Stopping {
            self.stopping.cancel();
        }
    }

    /// Completes when the bridge starts to stop; responses that have no end of their own, such as streams, end then.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    pub(crate) fn phase(&self) -> LifecyclePhase {
        match self.phase.load(Ordering::Acquire) {
            0 => LifecyclePhase::Starting,
            1 => LifecyclePhase::Ready,
            _ => LifecyclePhase::Stopping,
        }
    }
}

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
    /// Requests to reload the configuration.
    pub reloads: mpsc::Sender<ReloadRequest>,
}

/// A request to reload the configuration; carries the channel for the result.
pub(crate) type ReloadRequest = oneshot::Sender<Result<ReloadReport, ReloadError>>;

/// Maximum number of concurrent decision streams.
pub(crate) const MAX_STREAMS: usize = 64;

/// The result of a reload.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ReloadReport {
    /// Changes that were applied; empty if nothing has changed.
    pub changed: Vec<String>,
    /// Sections that have changed in the files and need a restart to take effect.
    pub needs_restart: Vec<String>,
    /// Warnings about the configuration, one diagnostic each.
    pub warnings: Vec<String>,
}

/// Why a reload failed; the running configuration stays active.
#[derive(Debug, Clone)]
pub(crate) enum ReloadError {
    /// The configuration has errors, one diagnostic each.
    Invalid(Vec<String>),
    /// The configuration is valid but could not be applied.
    Failed(String),
}

/// The services that exist once the store is open.
pub(crate) struct Services {
    pub bridge: Bridge,
    pub store: Store,
    pub statuses: DestinationStatuses,
    /// The active settings.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The result of the last reload.
    pub configuration: Arc<ArcSwap<ConfigurationStatus>>,
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
    shared.metrics.record_notification("", code.as_u16());
    tracing::warn!(%method, code = code.as_u16(), "unknown path");
    rejection
}

/// Readiness does not depend on destinations: while one fails, notifications are accepted and their events are stored.
/// The response lists the failing destinations.
async fn ready(State(shared): State<HttpState>) -> Response {
    match shared.lifecycle.phase() {
        LifecyclePhase::Ready => {
            let failing =
                shared.services.get().map(|services| services.statuses.failure_lines()).unwrap_or_default();
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
