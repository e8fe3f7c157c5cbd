//! HTTP listeners: bind, serve, stop.

use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::certificates;
use crate::config::access::ListenerAccess;
use crate::http::transport::{self, Options};

/// A running HTTP listener.
pub(super) struct Listener {
    address: SocketAddr,
    scheme: &'static str,
    stop: CancellationToken,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
    /// Cancelled when the task has ended, even by a panic.
    done: CancellationToken,
}

impl Listener {
    /// Binds `address` and serves `routes`, with the TLS of `access`.
    ///
    /// # Errors
    /// A file of TLS cannot be used, or another process uses the address.
    pub(super) fn start(
        address: SocketAddr,
        access: &ListenerAccess,
        options: Options,
        routes: axum::Router,
    ) -> anyhow::Result<Self> {
        let section = options.listener;
        let tls = certificates::load(section, access)?;
        let context =
            || format!("cannot listen on {address} ({section}.listen); is another process using it?");
        let listener = TcpListener::bind(address).with_context(context)?;
        let address = listener.local_addr().with_context(context)?;
        listener.set_nonblocking(true).with_context(context)?;
        let listener = tokio::net::TcpListener::from_std(listener).with_context(context)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (stop, done) = (CancellationToken::new(), CancellationToken::new());
        if let Some(tls) = &tls {
            tokio::spawn(certificates::watch(section, tls.clone(), stop.clone()));
        }
        let task = tokio::spawn({
            let (stop, done) = (stop.clone(), done.clone().drop_guard());
            async move {
                transport::serve(listener, tls, routes, options, stop).await;
                drop(done);
            }
        });
        Ok(Self { address, scheme, stop, task: parking_lot::Mutex::new(Some(task)), done })
    }

    /// The URL of the listener.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
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
