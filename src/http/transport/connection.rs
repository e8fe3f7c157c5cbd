//! One connection: hyper between the stream and the routes.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::exchange::{Exchange, Progress};
use super::request_body::RequestBody;
use super::stream::Stream;
use super::{Options, Peer, request_head};
use crate::credentials::tls::{PeerCertificate, PeerStatus};

/// The longest head of a request. A JSON Web Token with many claims has some kilobytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// The buffer of a connection for what it reads.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// The answer to a request on a listener that requires client certificates, on a connection from before that.
const CERTIFICATE_LAPSED: &str = "the client certificate of this connection has expired, or its CA is not accepted any more; connect again";

/// How often a client is looked at while the bridge stops.
const STALL_INTERVAL: Duration = Duration::from_millis(250);
/// A client that is waited for so many times in a row ...
const MAX_STALLED_INTERVALS: u32 = 6;
/// ... and reads fewer bytes of the response meanwhile does not hold up the stop ...
const MIN_READ_BYTES: u64 = 1536;
/// ... nor one that sends fewer bytes of its request: such a request is small and slow, and its sender repeats it.
const MIN_SENT_BYTES: u64 = 256 * 1024;

/// Serves the connections of a listener.
pub(super) struct Connections {
    http: http1::Builder,
    routes: Router,
    options: Options,
    /// Nearly as many connections are open as are allowed: each ends after its next response.
    is_crowded: AtomicBool,
}

impl Connections {
    pub(super) fn new(routes: Router, options: Options) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_BUFFER_BYTES);
        Self { http, routes, options, is_crowded: AtomicBool::new(false) }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn set_crowded(&self, is_crowded: bool) {
        self.is_crowded.store(is_crowded, Ordering::Relaxed);
    }

    /// Serves one connection until it ends. Once `stop` is cancelled, it ends after the request in flight, or when its
    /// client stalls. `certificate` is the client's, if it has a verified one; once that is not accepted any more, the
    /// connection ends after the request in flight, so that the client shows the one that it has by now.
    pub(super) async fn serve<S>(
        &self,
        stream: S,
        address: IpAddr,
        certificate: Option<PeerCertificate>,
        stop: &CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let exchange = Arc::new(Exchange::default());
        let stream = Stream::new(stream, exchange.clone(), self.options.write_timeout);
        let service = service_fn(|request: Request<Incoming>| {
            self.answer(request, address, certificate.as_ref(), exchange.clone())
        });
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let lapsed = async {
            match &certificate {
                Some(certificate) => certificate.lapsed().await,
                None => std::future::pending().await,
            }
        };
        let mut lapsed = pin!(lapsed);
        let mut has_lapsed = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return log_end(ended),
                () = stop.cancelled() => break,
                () = lapsed.as_mut(), if !has_lapsed => {
                    has_lapsed = true;
                    tracing::debug!("connection ends: its client certificate is not accepted any more");
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
        exchange.stop();
        connection.as_mut().graceful_shutdown();
        let mut stall = Stall::default();
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return log_end(ended),
                () = tokio::time::sleep(STALL_INTERVAL) => {}
            }
            if stall.is_over(exchange.progress()) {
                return tracing::debug!("connection of a stalled client closed");
            }
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        address: IpAddr,
        certificate: Option<&PeerCertificate>,
        exchange: Arc<Exchange>,
    ) -> Result<Response, Infallible> {
        let broken = exchange.begin();
        let (mut parts, body) = request.into_parts();
        let peer_status = certificate.map(|certificate| certificate.status(UnixTime::now()));
        let certificate = match &peer_status {
            Some(PeerStatus::Accepted(certificate)) => certificate.clone(),
            Some(PeerStatus::NoLongerAccepted { .. }) | None => None,
        };
        parts.extensions.insert(Peer { address, certificate });
        let checked = match (broken, &peer_status) {
            (Some(broken), _) => Err((StatusCode::BAD_REQUEST, broken.as_str())),
            // The client may have another certificate by now, so it may try again.
            (None, Some(PeerStatus::NoLongerAccepted { is_mandatory: true })) => {
                Err((StatusCode::SERVICE_UNAVAILABLE, CERTIFICATE_LAPSED))
            }
            (None, _) => request_head::check(&parts),
        };
        let mut response = match checked {
            Ok(()) => {
                let body = match body.is_end_stream() {
                    true => Body::empty(),
                    false => Body::new(RequestBody::new(body, exchange.clone(), self.options.body_timeout)),
                };
                let Ok(response) = self.routes.clone().call(Request::from_parts(parts, body)).await;
                response
            }
            Err((status, text)) => {
                tracing::debug!(code = status.as_u16(), reason = text, "request refused");
                let mut response = (self.options.refuse)(status, text);
                close(&mut response);
                response
            }
        };
        let has_lapsed = matches!(peer_status, Some(PeerStatus::NoLongerAccepted { .. }));
        if exchange.answer() || has_lapsed || self.is_crowded.load(Ordering::Relaxed) {
            close(&mut response);
        }
        Ok(response)
    }
}

fn close(response: &mut Response) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// Clients end connections as they like, so that is of interest to developers only.
fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(error = ?error, "connection ended with an error");
    }
}

/// Notices a client that holds up the stop.
#[derive(Debug, Default)]
struct Stall {
    intervals: u32,
    moved: Option<u64>,
}

impl Stall {
    /// Called after each interval: whether the client has stalled.
    fn is_over(&mut self, progress: Progress) -> bool {
        let since = *self.moved.get_or_insert(progress.moved);
        let moved = progress.moved.wrapping_sub(since);
        let enough = match progress {
            Progress { awaits_request: true, .. } => MIN_SENT_BYTES,
            Progress { awaits_reader: true, .. } => MIN_READ_BYTES,
            _ => 0,
        };
        if moved >= enough {
            *self = Self { intervals: 0, moved: Some(progress.moved) };
            return false;
        }
        self.intervals += 1;
        self.intervals >= MAX_STALLED_INTERVALS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of intervals after which a client with these steps has stalled.
    fn stalls_after(steps: impl IntoIterator<Item = Progress>) -> Option<usize> {
        let mut stall = Stall::default();
        steps.into_iter().position(|step| stall.is_over(step)).map(|before| before + 1)
    }

    #[test]
    fn a_client_that_moves_little_while_it_is_waited_for_stalls_within_two_seconds() {
        let reads = |moved| Progress { moved, awaits_request: false, awaits_reader: true };
        let sends = |moved| Progress { moved, awaits_request: true, awaits_reader: false };
        let stalls_at = |client: fn(u64) -> Progress, moved_per_interval: u64| {
            let after = stalls_after((0..100).map(|step| client(step * moved_per_interval)));
            after.map(|after| STALL_INTERVAL * u32::try_from(after).unwrap())
        };
        for (client, moved_per_interval) in [
            (reads as fn(u64) -> Progress, 0),
            (reads, 1),
            (reads, 100),
            (sends, 0),
            (sends, 400),
            (sends, 20_000),
        ] {
            assert!(stalls_at(client, moved_per_interval).unwrap() < Duration::from_secs(2));
        }
        assert_eq!(stalls_at(reads, 400), None);
        assert_eq!(stalls_at(sends, 60_000), None, "a large body arrives fast");
        let working = (0..100).map(|_| Progress { moved: 7, awaits_request: false, awaits_reader: false });
        assert_eq!(stalls_after(working), None, "the bridge is working, and the client waits");
    }
}
