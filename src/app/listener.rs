//! HTTP listeners: bind, serve, stop.

use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http::transport::{self, Options};

/// A running HTTP listener.
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
    /// Cancelled when the task has ended, even by a panic.
    done: CancellationToken,
}

impl Listener {
    /// Binds `address`, and serves `routes`.
    pub(super) fn start(address: SocketAddr, routes: axum::Router, options: Options) -> anyhow::Result<Self> {
        let key = options.key;
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address} ({key}); is another process using it?"))?;
        let address = listener.local_addr().with_context(|| key)?;
        listener.set_nonblocking(true).with_context(|| key)?;
        let listener = tokio::net::TcpListener::from_std(listener).with_context(|| key)?;
        let (stop, done) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn({
            let (stop, done) = (stop.clone(), done.clone().drop_guard());
            async move {
                transport::serve(listener, routes, options, stop).await;
                drop(done);
            }
        });
        Ok(Self { address, stop, task: parking_lot::Mutex::new(Some(task)), done })
    }

    /// Completes when the listener has ended. Before [`Self::stop`], that is a failure.
    pub(super) async fn ended(&self) -> anyhow::Result<()> {
        self.done.cancelled().await;
        let task = self.task.lock().take();
        match task {
            Some(task) => Ok(task.await?),
            None => Ok(()),
        }
    }

    /// Stops accepting connections, and waits for requests in flight until `deadline`. Then their connections are
    /// closed.
    pub(super) async fn stop(&self, deadline: Instant) {
        self.stop.cancel();
        if tokio::time::timeout_at(deadline.into(), self.done.cancelled()).await.is_err()
            && let Some(task) = self.task.lock().take()
        {
            task.abort();
        }
    }
}
