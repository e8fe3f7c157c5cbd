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

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use accept::Accepting;
pub(crate) use budget::{Budget, Taken};
use connection::Connections;
pub(crate) use request_body::BodyError;

/// The response to a request that is refused before it is routed.
pub(crate) type Refuse = Arc<dyn Fn(StatusCode, &'static str) -> Response + Send + Sync>;

/// The limits of a listener.
#[derive(Clone)]
pub(crate) struct Options {
    /// The key of the listener in the configuration.
    pub key: &'static str,
    pub max_connections: usize,
    /// For the TLS handshake, and for the head of each request, its first byte included.
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    pub refuse: Refuse,
}

/// Accepts and serves connections until `stop` is cancelled and the requests in flight are answered.
pub(crate) async fn serve(listener: TcpListener, routes: Router, options: Options, stop: CancellationToken) {
    let key = options.key;
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
                Ok((stream, _)) => {
                    let (is_served, change) = accepting.accepted(open.len());
                    if is_served {
                        open.spawn(serve_connection(stream, served.clone(), stop.child_token()));
                    }
                    change
                }
                Err(error) => {
                    let (pause, change) = accepting.failed(&error);
                    pause_until = pause.map(|pause| Instant::now() + pause);
                    change
                }
            },
        };
        served.set_crowded(accepting.is_crowded(open.len()));
        if let Some(change) = change {
            change.log(key);
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn serve_connection(stream: TcpStream, served: Arc<Connections>, stop: CancellationToken) {
    // A response is written at once, so that waiting for more only delays it. If it fails, it is just slower.
    let _ignored = stream.set_nodelay(true);
    served.serve(stream, &stop).await;
}
