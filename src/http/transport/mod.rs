//! What is below the routes of both listeners: connections, their limits and time-outs, and the framing of requests.
//!
//! No client can hold a connection, a request or memory longer than it takes part: a head must arrive within
//! `header_timeout`; a body and a response must move at a lowest rate (`pace`); a request that is answered before its
//! body has arrived is read on only to let the sender see the response (`stream`).

mod accept;
mod budget;
mod connection;
mod exchange;
mod head;
mod pace;
mod request_body;
mod request_head;
mod stream;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Server;
use crate::credentials::tls::ServerTls;
use crate::credentials::{ClientCertificate, Presented};
use crate::telemetry::Metrics;
use accept::Accepting;
pub(crate) use budget::{Budget, HeldBytes};
use connection::Connections;
pub(crate) use request_body::BodyError;

/// The response to a request that is refused before it is routed.
pub(crate) type Refuse = Arc<dyn Fn(StatusCode, &'static str) -> Response + Send + Sync>;

/// The limits of a listener.
pub(crate) struct Options {
    /// `server` or `admin`.
    pub listener: &'static str,
    max_connections: usize,
    /// For the TLS handshake, and for the head of each request, its first byte included.
    header_timeout: Duration,
    body_timeout: Duration,
    write_timeout: Duration,
    refuse: Refuse,
    metrics: Metrics,
}

/// The label `reason` of `scalebridge_auth_failures_total` for a TLS handshake that fails or takes too long.
const HANDSHAKE_FAILURE: &str = "tls_handshake";

impl Options {
    /// The limits of both listeners are set in `server`.
    pub(crate) fn new(listener: &'static str, server: &Server, refuse: Refuse, metrics: Metrics) -> Self {
        metrics.record_auth_failures(listener, HANDSHAKE_FAILURE, 0);
        Self {
            listener,
            max_connections: server.max_connections,
            header_timeout: server.header_timeout,
            body_timeout: server.body_timeout,
            write_timeout: server.write_timeout,
            refuse,
            metrics,
        }
    }
}

/// What is known of the other end of a connection: an extension of its requests.
#[derive(Debug, Clone)]
struct Peer {
    address: IpAddr,
    /// The client certificate, if a verified one was presented.
    certificate: Option<Arc<ClientCertificate>>,
}

/// What a request presents as credentials: its headers and what is known of its connection.
pub(crate) fn presented(request: &Parts) -> Presented<'_> {
    let peer = request.extensions.get::<Peer>();
    Presented {
        headers: &request.headers,
        client_certificate: peer.and_then(|peer| peer.certificate.as_deref()),
        // Requests that did not come by a connection share an address.
        peer: peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.address),
    }
}

/// Accepts and serves connections until `stop` is cancelled and the requests in flight are answered. Without `tls`, they
/// are plain HTTP.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    routes: Router,
    options: Options,
    stop: CancellationToken,
) {
    let name = options.listener;
    let mut accepting = Accepting::new(options.max_connections);
    let served = Arc::new(Connections::new(routes, options));
    let mut open = JoinSet::new();
    let mut pause_until: Option<Instant> = None;
    loop {
        let paused = async {
            match pause_until {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let change = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_ended) = open.join_next() => accepting.ended(open.len()),
            () = paused => {
                pause_until = None;
                continue;
            }
            accepted = listener.accept(), if pause_until.is_none() => match accepted {
                Ok((stream, address)) => {
                    let (is_served, change) = accepting.accepted(open.len(), Instant::now());
                    if is_served {
                        let (tls, served, stop) = (tls.clone(), served.clone(), stop.child_token());
                        open.spawn(serve_connection(stream, address.ip(), tls, served, stop));
                    }
                    change
                }
                Err(error) => {
                    let now = Instant::now();
                    let (pause, change) = accepting.failed(&error, now);
                    pause_until = pause.map(|pause| now + pause);
                    change
                }
            },
        };
        served.set_crowded(accepting.is_crowded(open.len()));
        if let Some(change) = change {
            change.log(name);
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn serve_connection(
    stream: TcpStream,
    address: IpAddr,
    tls: Option<Arc<ServerTls>>,
    served: Arc<Connections>,
    stop: CancellationToken,
) {
    // A response is written at once, so that waiting for more only delays it. If it fails, it is just slower.
    let _ignored = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return served.serve(stream, address, None, &stop).await;
    };
    let Options { listener, header_timeout, ref metrics, .. } = *served.options();
    match stop.run_until_cancelled(tokio::time::timeout(header_timeout, tls.accept(stream))).await {
        Some(Ok(Ok((stream, certificate)))) => {
            return served.serve(stream, address, certificate, &stop).await;
        }
        Some(Ok(Err(error))) => tracing::debug!(listener, %error, "TLS handshake failed"),
        Some(Err(_)) => tracing::debug!(listener, "TLS handshake timed out"),
        None => return,
    }
    metrics.record_auth_failures(listener, HANDSHAKE_FAILURE, 1);
}
