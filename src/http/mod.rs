//! The two listeners: Alertmanager's side and the operators' side.

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
use crate::config::{Server, Settings};
use crate::dispatch::DestinationStatuses;
use crate::store::Store;
use crate::telemetry::Metrics;
pub(crate) use admin::admin_routes;
pub(crate) use api::ConfigurationStatus;
use error::Rejection;

/// Whether the bridge can take a notification now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LifecyclePhase {
    /// The store is not open yet, or workers do not run yet.
    Starting = 0,
    /// It can.
    Ready = 1,
    /// It finishes what it has.
    Stopping = 2,
}

/// Where the bridge is in its life; shared by handlers and `app`.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    phase: AtomicU8,
    stopping: CancellationToken,
}

impl Lifecycle {
    /// Enters a phase.
    pub(crate) fn enter(&self, phase: LifecyclePhase) {
        self.phase.store(phase as u8, Ordering::Release);
        if phase == LifecyclePhase::Stopping {
            self.stopping.cancel();
        }
    }

    /// Completes when the bridge stops: what would not end by itself ends then.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// The phase now.
    pub(crate) fn phase(&self) -> LifecyclePhase {
        match self.phase.load(Ordering::Acquire) {
            0 => LifecyclePhase::Starting,
            1 => LifecyclePhase::Ready,
            _ => LifecyclePhase::Stopping,
        }
    }
}

/// What the handlers of both listeners share.
#[derive(Clone)]
pub(crate) struct HttpState {
    /// Where the bridge is in its life.
    pub lifecycle: Arc<Lifecycle>,
    /// All metrics.
    pub metrics: Metrics,
    /// There once the store is open.
    pub services: Arc<std::sync::OnceLock<Services>>,
    /// Of the webhook.
    pub limits: Limits,
    /// Whether the operators' listener is on loopback.
    pub admin_on_loopback: bool,
    /// Streams of decisions at the same time.
    pub streams: Arc<Semaphore>,
    /// Asks for the configuration to be read again.
    pub reloads: mpsc::Sender<ReloadRequest>,
}

/// Somebody wants the configuration to be read again, and to know what came of it.
pub(crate) type ReloadRequest = oneshot::Sender<Result<ReloadReport, ReloadError>>;

/// Streams of decisions at the same time.
pub(crate) const MAX_STREAMS: usize = 64;

/// What a reload came to.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ReloadReport {
    /// What was taken over; empty if nothing had changed.
    pub changed: Vec<String>,
    /// What has changed in the files and needs a restart; what is in use is as before.
    pub needs_restart: Vec<String>,
    /// What is odd about the configuration, one finding each.
    pub warnings: Vec<String>,
}

/// Why the configuration that was in use is still in use.
#[derive(Debug, Clone)]
pub(crate) enum ReloadError {
    /// It has faults, one finding each.
    Invalid(Vec<String>),
    /// It could not be put into use now.
    Failed(String),
}

/// What is there once the bridge runs.
pub(crate) struct Services {
    /// Decides.
    pub bridge: Bridge,
    /// Keeps.
    pub store: Store,
    /// Which destinations fail.
    pub statuses: DestinationStatuses,
    /// What is configured, as it is now.
    pub settings: Arc<ArcSwap<Settings>>,
    /// How the configuration was read last.
    pub configuration: Arc<ArcSwap<ConfigurationStatus>>,
}

/// How much the webhook takes at the same time.
#[derive(Clone)]
pub(crate) struct Limits {
    server: Server,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Limits {
    /// The configured limits.
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

/// A wrong path in Alertmanager's configuration is a 404 like an unknown source: counted and logged.
async fn not_found(State(shared): State<HttpState>, method: axum::http::Method) -> Rejection {
    let code = StatusCode::NOT_FOUND;
    let rejection = Rejection::new(code, "there is nothing here; the webhook is POST /webhook/{source}");
    shared.metrics.record_notification("", code.as_u16());
    tracing::warn!(%method, code = code.as_u16(), "refused a request to a path that does not exist");
    rejection
}

/// A destination that fails makes the bridge no less ready: it takes notifications, and their events wait.
/// But whoever looks is told.
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

/// Serves `routes` until `handle` is told to stop. `header_timeout` is for the head of a request, so a
/// client that dribbles cannot hold a connection for long.
///
/// # Errors
/// The listener cannot be used.
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
