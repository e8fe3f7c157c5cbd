//! The two listeners: Alertmanager's side and the operators' side.

mod admin;
mod body;
mod error;
mod ingest;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_server::Handle;
use tokio::sync::Semaphore;

use crate::bridge::Bridge;
use crate::config::Server;
use crate::dispatch::Standing;
use crate::store::Store;
use crate::telemetry::Metrics;
pub use admin::admin_routes;
use error::Refusal;

/// Whether the bridge can take a notification now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The store is not open yet, or workers do not run yet.
    Starting = 0,
    /// It can.
    Ready = 1,
    /// It finishes what it has.
    Stopping = 2,
}

/// Where the bridge is in its life; shared by handlers and `app`.
#[derive(Debug, Default)]
pub struct Life(AtomicU8);

impl Life {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }
}

/// What the handlers of both listeners share.
#[derive(Clone)]
pub struct Shared {
    /// Where the bridge is in its life.
    pub life: Arc<Life>,
    /// All metrics.
    pub metrics: Metrics,
    /// There once the store is open.
    pub running: Arc<std::sync::OnceLock<Running>>,
    /// Of the webhook.
    pub limits: Limits,
}

/// What is there once the bridge runs.
pub struct Running {
    /// Decides.
    pub bridge: Bridge,
    /// Keeps.
    pub store: Store,
    /// The destinations, for the numbers of their outboxes.
    pub destinations: Vec<crate::domain::name::Name>,
    /// Which of them fail.
    pub standing: Standing,
    /// With as many deliveries undelivered nothing is taken in.
    pub max_backlog: u64,
}

/// How much the webhook takes at the same time.
#[derive(Clone)]
pub struct Limits {
    server: Server,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Limits {
    /// The configured limits.
    pub fn new(server: &Server) -> Self {
        Self {
            server: server.clone(),
            requests: Arc::new(Semaphore::new(server.max_in_flight.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(server.max_in_flight_bytes.min(Semaphore::MAX_PERMITS))),
        }
    }
}

/// The routes of `server.listen`.
pub fn server_routes(shared: Shared) -> Router {
    Router::new()
        .route("/webhook/{source}", axum::routing::post(ingest::webhook))
        .route("/-/healthy", get(|| async { "scalebridge is alive\n" }))
        .route("/-/ready", get(ready))
        .fallback(nothing_here)
        .with_state(shared)
}

/// A wrong path in Alertmanager's configuration is a 404 like an unknown source: counted and logged.
async fn nothing_here(State(shared): State<Shared>, method: axum::http::Method) -> Refusal {
    let code = StatusCode::NOT_FOUND;
    let refusal = Refusal::new(code, "there is nothing here; the webhook is POST /webhook/{source}");
    shared.metrics.notification("", code.as_u16());
    tracing::warn!(%method, code = code.as_u16(), "refused a request to a path that does not exist");
    refusal
}

/// A destination that fails makes the bridge no less ready: it takes notifications, and their events wait.
/// But whoever looks is told.
async fn ready(State(shared): State<Shared>) -> Response {
    match shared.life.phase() {
        Phase::Ready => {
            let failing = shared.running.get().map(|running| running.standing.lines()).unwrap_or_default();
            let lines = failing.iter().map(|line| format!("{line}\n"));
            std::iter::once("scalebridge is ready\n".to_owned())
                .chain(lines)
                .collect::<String>()
                .into_response()
        }
        Phase::Starting => Refusal::later("scalebridge is starting").into_response(),
        Phase::Stopping => Refusal::later("scalebridge is stopping").into_response(),
    }
}

/// Serves `routes` until `handle` is told to stop. `header_timeout` is for the head of a request, so a
/// client that dribbles cannot hold a connection for long.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
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
