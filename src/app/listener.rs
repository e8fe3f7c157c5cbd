//! HTTP listeners: bind, serve, stop.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum_server::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http;

/// A running HTTP listener.
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    handle: Handle<SocketAddr>,
    task: parking_lot::Mutex<Option<JoinHandle<std::io::Result<()>>>>,
    done: CancellationToken,
}

impl Listener {
    /// Binds `address`, which the configuration sets by `key`, and serves `routes`.
    pub(super) fn start(
        key: &'static str,
        address: SocketAddr,
        routes: axum::Router,
        header_timeout: Duration,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address} ({key}); is another process using it?"))?;
        let address = listener.local_addr().with_context(|| key)?;
        let handle = Handle::new();
        let done = CancellationToken::new();
        let task = tokio::spawn({
            let (handle, done) = (handle.clone(), done.clone());
            async move {
                let ended = http::serve(listener, routes, handle, header_timeout).await;
                done.cancel();
                ended
            }
        });
        Ok(Self { address, handle, task: parking_lot::Mutex::new(Some(task)), done })
    }

    /// Completes when the listener has ended. Before [`Self::stop`], that is a failure.
    pub(super) async fn ended(&self) -> anyhow::Result<()> {
        self.done.cancelled().await;
        let task = self.task.lock().take();
        match task {
            Some(task) => Ok(task.await??),
            None => Ok(()),
        }
    }

    /// Stops accepting connections, and waits for requests in flight until `deadline`.
    pub(super) async fn stop(&self, deadline: Instant) {
        self.handle.graceful_shutdown(Some(deadline.saturating_duration_since(Instant::now())));
        self.done.cancelled().await;
    }
}
