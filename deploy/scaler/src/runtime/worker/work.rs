//! The loop of the worker: what is received, begun, ended, hidden and given back.

use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::health::Health;
use super::lanes::Lanes;
use super::queue::{Queue, Received};
use super::{Settings, Stopped, backoff};
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::runtime::log::{Level, log};
use crate::runtime::order::Key;
use crate::runtime::{Events, now};

/// What the answer of the last poll may take beyond the time for which it waits.
const POLL_MARGIN: Duration = Duration::from_secs(1);

pub(super) struct Worker<E> {
    queue: Queue,
    events: Arc<E>,
    metrics: Metrics,
    health: Health,
    concurrency: usize,
    poll_wait: Duration,
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
    pub(super) fn new(
        settings: &Settings,
        queue: Queue,
        events: Arc<E>,
        metrics: Metrics,
        health: Health,
    ) -> Self {
        // A timer has no period of zero.
        let renewal = settings.visibility.max(Duration::from_secs(1)) / 3;
        let mut renewal = interval_at(Instant::now() + renewal, renewal);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            queue,
            events,
            metrics,
            health,
            concurrency: settings.concurrency.max(1),
            poll_wait: settings.poll_wait,
            lanes: Lanes::default(),
            handled: JoinSet::new(),
            calls: JoinSet::new(),
            renewal,
            failures: 0,
            queue_answers: false,
        }
    }

    /// Works until `stop` is cancelled, and then until what has begun is done, or the time for that is over.
    pub(super) async fn run(mut self, stop: CancellationToken, drain_timeout: Duration) -> Stopped {
        // `None`: there is no room for more messages.
        let mut poll = self.poll(&stop);
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
                poll = self.poll(&stop);
            }
        }
        self.drain(poll, drain_timeout).await
    }

    fn poll(&self, stop: &CancellationToken) -> Option<Poll> {
        let room = self.lanes.room(self.concurrency);
        if room == 0 {
            return None;
        }
        let (queue, failures, stop) = (self.queue.clone(), self.failures, stop.clone());
        // It is not waited for messages until the queue is known to answer: readiness depends on that.
        let wait = if self.queue_answers { self.poll_wait } else { Duration::ZERO };
        Some(Box::pin(async move {
            if failures > 0 {
                tokio::select! {
                    () = tokio::time::sleep(backoff::of_poll(failures, chance())) => {}
                    () = stop.cancelled() => return Ok(Vec::new()),
                }
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
                self.metrics.polled(now());
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
            let behind = self.lanes.give_back_behind(&key);
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

    async fn drain(mut self, mut poll: Option<Poll>, timeout: Duration) -> Stopped {
        let waiting = self.lanes.give_back_waiting();
        self.health.stop();
        log(
            Level::Info,
            "the worker stops",
            &[("applying", &self.handled.len()), ("given_back", &waiting.len())],
        );
        self.release(waiting, Duration::ZERO);
        let deadline = Instant::now() + timeout;
        let poll_deadline = deadline.min(Instant::now() + self.poll_wait + POLL_MARGIN);
        while !(self.handled.is_empty() && self.calls.is_empty() && poll.is_none()) {
            tokio::select! {
                biased;
                Some(handled) = self.handled.join_next() => self.end(handled),
                Some(_) = self.calls.join_next() => {}
                _ = self.renewal.tick() => self.renew(),
                received = poll_of(&mut poll) => {
                    poll = None;
                    let late = received.unwrap_or_default().into_iter().map(|message| message.receipt);
                    self.release(late.collect(), Duration::ZERO);
                }
                () = sleep_until(poll_deadline), if poll.is_some() => poll = None,
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
