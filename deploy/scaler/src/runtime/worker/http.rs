//! The probes and metrics of the worker.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::LedgerProbe;
use super::health::Health;
use crate::metrics::{Metrics, OPENMETRICS, PLAIN_TEXT};
use crate::runtime::log::{Level, log};

const MAX_CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for the ledger to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a probe has found is valid for this long, so that nobody makes the worker read the ledger all the time.
const PROBE_AGE: Duration = Duration::from_secs(5);

/// What the routes answer from.
pub(super) struct Routes<P> {
    health: Health,
    metrics: Metrics,
    ledger: P,
    /// What was found about the ledger, and when.
    found: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl<P: LedgerProbe> Routes<P> {
    pub(super) fn new(health: Health, metrics: Metrics, ledger: P) -> Self {
        Self { health, metrics, ledger, found: Mutex::default() }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is supported");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/-/healthy" => text(StatusCode::OK, "healthy"),
            "/-/ready" => match self.problem().await {
                None => text(StatusCode::OK, "ready"),
                Some(problem) => text(StatusCode::SERVICE_UNAVAILABLE, &problem),
            },
            "/metrics" => self.metrics(request),
            _ => text(StatusCode::NOT_FOUND, "not found: there are /-/healthy, /-/ready and /metrics"),
        }
    }

    /// Why the worker is not ready.
    async fn problem(&self) -> Option<String> {
        match self.health.problem(Instant::now()) {
            Some(problem) => Some(problem),
            None => self.ledger().await.err().map(|error| format!("the ledger cannot be read: {error}")),
        }
    }

    async fn ledger(&self) -> Result<(), String> {
        // Held during the read: those who ask meanwhile get the same answer.
        let mut found = self.found.lock().await;
        if let Some((at, result)) = found.as_ref()
            && at.elapsed() < PROBE_AGE
        {
            return result.clone();
        }
        let result = tokio::time::timeout(PROBE_TIMEOUT, self.ledger.check()).await;
        let result = result.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        *found = Some((Instant::now(), result.clone()));
        result
    }

    fn metrics(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let (content, kind) =
            match accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
                true => (self.metrics.openmetrics(), OPENMETRICS),
                false => (self.metrics.plain_text(), PLAIN_TEXT),
            };
        match content {
            Ok(content) => respond(StatusCode::OK, kind, content),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// Listens at an address.
///
/// # Errors
/// The text says which address, and why not.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        format!(
            "cannot listen at {address} for probes and metrics: {error}; choose another address with --listen"
        )
    })
}

/// Answers requests until it is dropped.
pub(super) async fn serve<P: LedgerProbe>(listener: TcpListener, routes: Routes<P>) {
    let (routes, slots) = (Arc::new(routes), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        // It is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let routes = Arc::clone(&routes);
                tokio::spawn(async move {
                    connection(stream, routes).await;
                    drop(slot);
                });
            }
            Err(error) => {
                log(
                    Level::Warn,
                    "a connection for probes and metrics was not accepted",
                    &[("error", &error)],
                );
                // For example too many open files: it does not go away at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection<P: LedgerProbe>(stream: TcpStream, routes: Arc<Routes<P>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let routes = Arc::clone(&routes);
        async move { Ok::<_, Infallible>(routes.answer(&request).await) }
    });
    let server = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // The client has gone away; nobody is left to be told.
    drop(server.await);
}
