//! The probes and metrics of the worker.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::LedgerProbe;
use super::health::Health;
use crate::metrics::{Metrics, OPENMETRICS, PLAIN_TEXT};
use crate::runtime::log::{Level, log};

/// More are accepted, in place of those that have been idle for the longest time: a probe is answered whoever else is
/// connected.
const MAX_CONNECTIONS: usize = 64;
/// A connection without a whole request for this long is closed, also behind an earlier request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
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
    pub(super) async fn problem(&self) -> Option<String> {
        match self.health.problem(Instant::now()) {
            Some(problem) => Some(problem),
            None => self.ledger().await.err().map(|error| format!("the ledger cannot be used: {error}")),
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
pub(super) async fn serve<P: LedgerProbe>(listener: TcpListener, routes: Arc<Routes<P>>) {
    serve_within(HEADER_TIMEOUT, listener, routes).await;
}

/// A connection that is served.
struct Connection {
    task: AbortOnDropHandle<()>,
    /// Whether a request of it is being answered.
    is_busy: Arc<AtomicBool>,
}

async fn serve_within<P: LedgerProbe>(
    header_timeout: Duration,
    listener: TcpListener,
    routes: Arc<Routes<P>>,
) {
    // In the order in which they were accepted.
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.task.is_finished());
                if connections.len() >= MAX_CONNECTIONS {
                    let is_idle = |connection: &Connection| !connection.is_busy.load(Ordering::Relaxed);
                    let Some(oldest) = connections.iter().position(is_idle) else { continue };
                    drop(connections.remove(oldest));
                }
                let is_busy = Arc::<AtomicBool>::default();
                let served = connection(stream, header_timeout, Arc::clone(&routes), Arc::clone(&is_busy));
                let task = AbortOnDropHandle::new(tokio::spawn(served));
                connections.push(Connection { task, is_busy });
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

async fn connection<P: LedgerProbe>(
    stream: TcpStream,
    header_timeout: Duration,
    routes: Arc<Routes<P>>,
    is_busy: Arc<AtomicBool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (routes, is_busy) = (Arc::clone(&routes), Arc::clone(&is_busy));
        async move {
            is_busy.store(true, Ordering::Relaxed);
            let answer = routes.answer(&request).await;
            is_busy.store(false, Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    let server = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), service);
    // The client has gone away; nobody is left to be told.
    drop(server.await);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::runtime::script::HANG;

    struct Readable;

    impl LedgerProbe for Readable {
        async fn check(&self) -> Result<(), String> {
            Ok(())
        }
    }

    async fn served(header_timeout: Duration) -> (SocketAddr, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Arc::new(Routes::new(Health::default(), Metrics::new(), Readable));
        (address, AbortOnDropHandle::new(tokio::spawn(serve_within(header_timeout, listener, routes))))
    }

    async fn end_of(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        // One that is closed with an error is closed as well.
        let end = tokio::time::timeout(HANG, stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "it was not closed");
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn idle_connections_keep_no_probe_waiting() {
        // None is closed because of its age within this test.
        let (address, _server) = served(HANG * 10).await;
        let mut idle = Vec::new();
        for number in 0..300 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost:").await.unwrap();
            }
            idle.push(stream);
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let answer = end_of(probe).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("healthy\n"), "{answer}");
        assert_eq!(end_of(idle.swap_remove(0)).await, "", "the oldest one gave way");
    }

    #[tokio::test]
    async fn a_connection_without_a_request_is_closed() {
        let (address, _server) = served(Duration::from_millis(10)).await;
        let silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(end_of(silent).await, "");
        let mut asked = TcpStream::connect(address).await.unwrap();
        asked.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(end_of(asked).await.ends_with("healthy\n"), "and then it is closed");
    }
}
