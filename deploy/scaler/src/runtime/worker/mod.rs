//! The worker: receives events from a queue of SQS, applies them, and deletes those that are done.
//!
//! - Events of one message group (in a standard queue: of one target) are applied one after the other; up to
//!   `concurrency` at the same time.
//! - A message is deleted unless its event is to be tried again. Such a one becomes visible after a pause, together with
//!   those of its message group that were received behind it.
//! - The worker hides what it receives for [`Settings::visibility`], whatever the queue is configured to, and hides it
//!   again as long as it holds it. So it needs no right to read the queue's attributes.
//! - When it is to stop, it stops polling, finishes what has begun, and makes the rest visible at once.

mod backoff;
mod health;
mod http;
mod lanes;
mod queue;
pub mod region;

use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::health::Health;
use self::http::Routes;
use self::lanes::Lanes;
use self::queue::{Queue, Received};
use super::Events;
use super::log::{Level, log};
use super::order::Key;
use crate::metrics::Metrics;
use crate::outcome::Outcome;

/// Where probes and metrics are by default: beside the bridge's ports 9096 and 9097.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9098);
/// How long events that have begun may take after the worker is told to stop.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// As long as a change is held by a worker that may have died: before that, nobody else could go on with it anyway.
pub const DEFAULT_VISIBILITY: Duration = crate::plan::MAX_HOLD;
/// The longest that SQS waits for a first message.
const POLL_WAIT: Duration = Duration::from_secs(20);

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
}

/// Whether the ledger can be read; for the probe `/-/ready`.
pub trait LedgerProbe: Send + Sync + 'static {
    /// Reads it once. The error is one line for people.
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
    log(
        Level::Info,
        "the worker has started",
        &[
            ("queue", &settings.queue_url),
            ("listen", &settings.listen),
            ("concurrency", &settings.concurrency),
        ],
    );
    let health = Health::default();
    let routes = Routes::new(health.clone(), metrics.clone(), ledger);
    // Until the end, so that it is seen that the worker stops.
    let _server = AbortOnDropHandle::new(tokio::spawn(http::serve(listener, routes)));
    let queue = Queue::new(config, settings.queue_url, settings.visibility, metrics.clone());
    let renewal = settings.visibility / 3;
    let mut renewal = interval_at(Instant::now() + renewal, renewal);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let concurrency = settings.concurrency;
    let worker = Worker {
        queue,
        events,
        metrics,
        health,
        concurrency,
        lanes: Lanes::default(),
        handled: JoinSet::new(),
        calls: JoinSet::new(),
        renewal,
        failures: 0,
        queue_answers: false,
    };
    let stopped = worker.run(stop, settings.drain_timeout).await;
    log(Level::Info, "the worker has stopped", &[("abandoned", &stopped.abandoned)]);
    stopped
}

struct Worker<E> {
    queue: Queue,
    events: Arc<E>,
    metrics: Metrics,
    health: Health,
    concurrency: usize,
    lanes: Lanes,
    /// The first messages of the lanes.
    handled: JoinSet<Handled>,
    /// Changes of the visibility, which nobody waits for.
    calls: JoinSet<()>,
    renewal: Interval,
    /// Polls that have failed since the last success.
    failures: u32,
    /// Whether the last poll succeeded.
    queue_answers: bool,
}

/// A message that was handled.
struct Handled {
    key: Key,
    receipt: String,
    receives: u32,
    /// Otherwise it was deleted.
    is_retried: bool,
}

type Poll = Pin<Box<dyn Future<Output = Result<Vec<Received>, String>> + Send>>;

impl<E: Events> Worker<E> {
    async fn run(mut self, stop: CancellationToken, drain_timeout: Duration) -> Stopped {
        // `None`: there is no room for more messages.
        let mut poll = self.poll();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(handled) = self.handled.join_next() => self.end(handled),
                Some(_) = self.calls.join_next() => {}
                _ = self.renewal.tick() => self.renew(),
                received = poll_of(&mut poll) => {
                    poll = None;
                    self.receive(received);
                }
            }
            if poll.is_none() {
                poll = self.poll();
            }
        }
        // Ends the connection: what the queue would still answer is not received.
        drop(poll);
        self.drain(drain_timeout).await
    }

    fn poll(&self) -> Option<Poll> {
        let room = self.lanes.room(self.concurrency);
        if room == 0 {
            return None;
        }
        let (queue, failures) = (self.queue.clone(), self.failures);
        // It is not waited for messages until the queue is known to answer: readiness depends on that.
        let wait = if self.queue_answers { POLL_WAIT } else { Duration::ZERO };
        Some(Box::pin(async move {
            if failures > 0 {
                tokio::time::sleep(backoff::of_poll(failures, chance())).await;
            }
            queue.receive(room, wait).await
        }))
    }

    fn receive(&mut self, received: Result<Vec<Received>, String>) {
        match received {
            Ok(messages) => {
                if self.failures > 0 {
                    log(Level::Info, "the queue is polled again", &[("failures", &self.failures)]);
                }
                (self.failures, self.queue_answers) = (0, true);
                self.health.poll_succeeded();
                self.metrics.polled(super::now());
                for message in messages {
                    if let Some(first) = self.lanes.add(message) {
                        self.begin(first);
                    }
                }
            }
            Err(error) => {
                (self.failures, self.queue_answers) = (self.failures.saturating_add(1), false);
                let fields: [(&str, &dyn std::fmt::Display); 2] =
                    [("error", &error), ("failures", &self.failures)];
                log(Level::Error, "the queue could not be polled", &fields);
                self.health.poll_failed(Instant::now(), error);
            }
        }
    }

    fn begin(&mut self, message: Received) {
        let (queue, events) = (self.queue.clone(), Arc::clone(&self.events));
        let in_progress = self.metrics.begin_event();
        self.handled.spawn(async move {
            let Received { receipt, body, key, receives } = message;
            // A task of its own: a panic is that of this event only.
            let answer = tokio::spawn(async move { events.handle(&body).await });
            let is_retried = match AbortOnDropHandle::new(answer).await {
                Ok(answer) => answer.outcome == Outcome::Retry,
                Err(error) => {
                    log(Level::Error, "an event was not handled and is tried again", &[("error", &error)]);
                    true
                }
            };
            drop(in_progress);
            if !is_retried {
                queue.delete(&receipt).await;
            }
            Handled { key, receipt, receives, is_retried }
        });
    }

    fn end(&mut self, handled: Result<Handled, JoinError>) {
        // Only an aborted task has no result, and none is.
        let Ok(Handled { key, receipt, receives, is_retried }) = handled else { return };
        if is_retried {
            let delay = backoff::of_event(receives, self.queue.is_fifo(), chance());
            let behind = if key.is_group() { self.lanes.give_back_behind(&key) } else { Vec::new() };
            self.release(std::iter::once(receipt).chain(behind).collect(), delay);
        }
        if let Some(next) = self.lanes.end(&key) {
            self.begin(next);
        }
    }

    fn release(&mut self, receipts: Vec<String>, delay: Duration) {
        let queue = self.queue.clone();
        self.calls.spawn(async move { queue.release(&receipts, delay).await });
    }

    /// Hides all messages that are held for another while.
    fn renew(&mut self) {
        let (queue, receipts) = (self.queue.clone(), self.lanes.receipts());
        self.calls.spawn(async move { queue.extend(&receipts).await });
    }

    async fn drain(mut self, timeout: Duration) -> Stopped {
        let waiting = self.lanes.give_back_waiting();
        self.health.stop();
        log(
            Level::Info,
            "the worker stops",
            &[("applying", &self.handled.len()), ("given_back", &waiting.len())],
        );
        self.release(waiting, Duration::ZERO);
        let deadline = Instant::now() + timeout;
        while !(self.handled.is_empty() && self.calls.is_empty()) {
            tokio::select! {
                biased;
                Some(handled) = self.handled.join_next() => self.end(handled),
                Some(_) = self.calls.join_next() => {}
                _ = self.renewal.tick() => self.renew(),
                () = sleep_until(deadline) => break,
            }
        }
        Stopped { abandoned: self.handled.len() }
    }
}

/// Never, without a poll.
async fn poll_of(poll: &mut Option<Poll>) -> Result<Vec<Received>, String> {
    match poll {
        Some(poll) => poll.await,
        None => std::future::pending().await,
    }
}

/// A number from 0 to 1 by chance; nothing secret.
fn chance() -> f64 {
    f64::from(RandomState::new().hash_one(()) as u32) / f64::from(u32::MAX)
}
