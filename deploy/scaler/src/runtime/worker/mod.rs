//! The worker: receives events from a queue of SQS, applies them, and deletes those that are done.
//!
//! - Events of one message group (in a standard queue: of one target) are applied one after the other; up to
//!   `concurrency` at the same time.
//! - A message is deleted unless its event is to be tried again. Such a one becomes visible after a pause, together with
//!   those of its message group (or target) that were received behind it.
//! - The worker hides what it receives for [`Settings::visibility`], whatever the queue is configured to, and hides it
//!   again as long as it holds it. So it needs no right to read the queue's attributes.
//! - When it is to stop, it begins no other poll, finishes what has begun, and makes the rest visible at once. It awaits
//!   the poll that is on its way: SQS hides what it answers to a connection that is gone, too.

mod backoff;
mod health;
mod http;
mod lanes;
mod queue;
pub mod region;
mod service_manager;
#[cfg(test)]
mod tests;
mod work;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::health::Health;
use self::http::Routes;
use self::queue::Queue;
use self::work::Worker;
use super::Events;
use super::log::{Level, log};
use crate::metrics::Metrics;

/// Where probes and metrics are by default: beside the bridge's ports 9096 and 9097.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9098);
/// How long events that have begun may take after the worker is told to stop.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// As long as a change is held by a worker that may have died: before that, nobody else could go on with it anyway.
pub const DEFAULT_VISIBILITY: Duration = crate::plan::MAX_HOLD;

/// How long a poll waits for a first message. SQS allows 20 s; a worker that is to stop awaits its last poll, and some
/// supervisors kill it after 10 s.
pub const DEFAULT_POLL_WAIT: Duration = Duration::from_secs(5);

/// How the worker works.
#[derive(Debug, Clone)]
pub struct Settings {
    pub queue_url: String,
    /// The maximum number of events that are applied at the same time.
    pub concurrency: usize,
    /// Of probes and metrics.
    pub listen: SocketAddr,
    pub drain_timeout: Duration,
    /// For which a received message is not received by others, in whole seconds; at least 2. While the worker holds it,
    /// that is renewed after a third of the time.
    pub visibility: Duration,
    /// For which a poll waits for a first message, in whole seconds; at most 20.
    pub poll_wait: Duration,
}

/// Whether the ledger can be used; for the probe `/-/ready`.
pub trait LedgerProbe: Send + Sync + 'static {
    /// Looks once. The error is one line for people.
    fn check(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// How the worker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Events that were still being applied after [`Settings::drain_timeout`]. They are received again.
    pub abandoned: usize,
}

/// The configuration of the client for a queue, of the SDK's default sources. The region is the one that the queue's URL
/// names; if it names none, for example that of an emulator, the one of the environment or profile.
///
/// # Errors
/// There is no region.
pub async fn config(queue_url: &str) -> Result<SdkConfig, String> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = region::region_of(queue_url) {
        loader = loader.region(Region::new(region.to_owned()));
    }
    let config = loader.load().await;
    match config.region() {
        Some(_) => Ok(config),
        None => Err(format!("no region is known for the queue {queue_url}: set AWS_REGION")),
    }
}

/// Cancelled by SIGTERM or SIGINT.
///
/// # Errors
/// The process cannot handle signals.
pub fn stop_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}

/// Works until `stop` is cancelled, and then until what has begun is done. A queue that cannot be polled is polled again
/// and again.
///
/// # Errors
/// The address for probes and metrics is not available.
pub async fn run<E: Events>(
    settings: Settings,
    config: &SdkConfig,
    events: Arc<E>,
    metrics: Metrics,
    ledger: impl LedgerProbe,
    stop: CancellationToken,
) -> Result<Stopped, String> {
    let listener = http::bind(settings.listen).await?;
    // Port 0 stands for any.
    let listen = listener.local_addr().unwrap_or(settings.listen);
    let settings = Settings { listen, ..settings };
    Ok(run_at(listener, settings, config, events, metrics, ledger, stop).await)
}

/// The same with a listener that exists.
async fn run_at<E: Events>(
    listener: TcpListener,
    settings: Settings,
    config: &SdkConfig,
    events: Arc<E>,
    metrics: Metrics,
    ledger: impl LedgerProbe,
    stop: CancellationToken,
) -> Stopped {
    let listen = listener.local_addr().unwrap_or(settings.listen);
    log(
        Level::Info,
        "the worker has started",
        &[("queue", &settings.queue_url), ("listen", &listen), ("concurrency", &settings.concurrency)],
    );
    let health = Health::default();
    let routes = Arc::new(Routes::new(health.clone(), metrics.clone(), ledger));
    service_manager::start(Arc::clone(&routes), health.clone(), stop.clone());
    // Until the end, so that it is seen that the worker stops.
    let _server = AbortOnDropHandle::new(tokio::spawn(http::serve(listener, routes)));
    let queue = Queue::new(config, settings.queue_url.clone(), settings.visibility, metrics.clone());
    let worker = Worker::new(&settings, queue, events, metrics, health);
    let stopped = worker.run(stop, settings.drain_timeout).await;
    log(Level::Info, "the worker has stopped", &[("abandoned", &stopped.abandoned)]);
    stopped
}
