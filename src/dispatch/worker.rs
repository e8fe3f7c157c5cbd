//! One destination's loop: wake, look, wait.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::health::{Change, Health};
use super::job::{Job, Report, STORE_BACKOFF, Shared};
use super::{Destination, Failure, Observer, Outbox, Outgoing, batch};
use crate::config;
use crate::domain::name::Name;
use crate::domain::retry::{Backoff, BadLimits};
use crate::store;

#[cfg(test)]
mod tests;

/// How a worker goes about it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The destination's name.
    pub name: Name,
    /// Calls at the same time, at least 1.
    pub concurrency: usize,
    /// Between the tries of a delivery, and between the calls to a destination that fails.
    pub backoff: Backoff,
    /// A delivery older than this is given up.
    pub max_age: Duration,
    /// The same for what takes capacity away.
    pub scale_in_max_age: Duration,
    /// Where chance comes from.
    pub seed: u64,
}

impl Options {
    /// A destination's options. Checked settings have no bad limits.
    pub fn new(settings: &config::Destination, seed: u64) -> Result<Self, BadLimits> {
        let delivery = settings.delivery;
        Ok(Self {
            name: settings.name.clone(),
            concurrency: settings.concurrency.max(1),
            backoff: Backoff::new(delivery.initial_backoff, delivery.max_backoff)?,
            max_age: delivery.max_age,
            scale_in_max_age: delivery.scale_in_max_age,
            seed,
        })
    }
}

/// Delivers to one destination. Its work is [`Worker::run`].
#[derive(Debug)]
pub struct Worker<O, D, V> {
    shared: Arc<Shared<O, D, V>>,
    health: Health,
    rng: fastrand::Rng,
    /// Claimed, waiting for a free call.
    ready: VecDeque<Job>,
    running: JoinSet<Report>,
    /// Until when the store is left alone, and how often it failed in a row.
    store_pause: Option<Instant>,
    store_failures: u32,
}

impl<O: Outbox, D: Destination, V: Observer> Worker<O, D, V> {
    /// A worker that does nothing yet.
    pub fn new(options: Options, outbox: O, destination: D, observer: V) -> Self {
        Self {
            health: Health::new(options.backoff),
            rng: fastrand::Rng::with_seed(options.seed),
            shared: Arc::new(Shared { options, outbox, destination, observer }),
            ready: VecDeque::new(),
            running: JoinSet::new(),
            store_pause: None,
            store_failures: 0,
        }
    }

    /// Delivers until `stop`, then sends and settles what is claimed, and returns. Also returns when
    /// the store is closed. The caller bounds how long it waits for that; what a dropped worker had
    /// claimed is sent again after the next start of the store.
    ///
    /// # Panics
    ///
    /// If a call panicked: what it had claimed cannot be settled, so the process should start anew.
    pub async fn run(mut self, stop: CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let (outbox, name) = (&shared.outbox, &shared.options.name);
        let mut stopping = false;
        loop {
            stopping |= stop.is_cancelled();
            // Before the look, so that what comes between look and wait is not missed.
            let mut woken = pin!(outbox.wait(name));
            let mut listening = false;
            // Told once a round: a pause that ends meanwhile ends the wait below.
            let mut pause = self.pause().filter(|_| !stopping);
            if pause.is_none() {
                self.start_ready(stopping);
                let room = self.room(stopping);
                if !stopping && room > 0 {
                    let max = room.saturating_mul(shared.destination.limits().events);
                    match outbox.claim(name, max).await {
                        Ok(claimed) => {
                            self.store_works();
                            self.take(claimed);
                            self.start_ready(stopping);
                            listening = true;
                        }
                        Err(store::Error::Closed) => stopping = true,
                        Err(error) => pause = Some(self.store_failed(&error)),
                    }
                }
            }
            if stopping && self.ready.is_empty() && self.running.is_empty() {
                return;
            }
            tokio::select! {
                () = stop.cancelled(), if !stopping => {}
                Some(done) = self.running.join_next() => self.note(done),
                () = &mut woken, if listening => {}
                () = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => {}
            }
        }
    }

    /// Until when nothing is claimed or sent. One that drains does not wait for that.
    fn pause(&self) -> Option<Instant> {
        let now = Instant::now();
        self.health.paused(now).max(self.store_pause.filter(|&until| until > now))
    }

    /// Calls that may start now. While some are ready there is none after [`Self::start_ready`].
    fn room(&self, stopping: bool) -> usize {
        let concurrency = self.shared.options.concurrency;
        let width = if stopping { concurrency } else { self.health.width(concurrency) };
        width.saturating_sub(self.running.len())
    }

    fn start_ready(&mut self, stopping: bool) {
        for _ in 0..self.room(stopping) {
            let Some(job) = self.ready.pop_front() else { return };
            self.running.spawn(Arc::clone(&self.shared).run(job, self.rng.fork()));
        }
    }

    /// Makes calls of what was claimed.
    fn take(&mut self, claimed: Vec<store::Claimed>) {
        let (events, unreadable) = Outgoing::read(claimed);
        let destination = &self.shared.destination;
        let batches = batch::split(events, destination.limits(), |event| destination.weigh(event));
        self.ready.extend(batches.into_iter().map(Job::Send));
        if !unreadable.is_empty() {
            self.ready.push_back(Job::GiveUp(unreadable));
        }
    }

    fn note(&mut self, done: Result<Report, tokio::task::JoinError>) {
        let Report { started, reached } = match done {
            Ok(report) => report,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
        match reached {
            None => {}
            Some(Ok(())) => {
                let change = self.health.reached();
                self.tell(change, None);
            }
            Some(Err(failure)) => {
                let change = self.health.failed(started, Instant::now(), self.rng.f64());
                self.tell(change, Some(&failure));
            }
        }
    }

    fn tell(&self, change: Change, failure: Option<&Failure>) {
        let name = &self.shared.options.name;
        match change {
            Change::None => return,
            Change::Works => tracing::info!(destination = %name, "the destination works again"),
            Change::Fails => {
                let error = failure.map(tracing::field::display);
                tracing::warn!(destination = %name, error, "the destination fails; its deliveries wait");
            }
        }
        self.shared.observer.on_reachable(name, change == Change::Works);
    }

    fn store_works(&mut self) {
        if self.store_failures > 0 {
            tracing::info!(destination = %self.shared.options.name, "the store hands out deliveries again");
        }
        self.store_failures = 0;
        self.store_pause = None;
    }

    /// Until when the store is left alone.
    fn store_failed(&mut self, error: &store::Error) -> Instant {
        if self.store_failures == 0 {
            tracing::warn!(destination = %self.shared.options.name, %error, "the store hands out no deliveries");
        }
        self.store_failures = self.store_failures.saturating_add(1);
        let pause = STORE_BACKOFF.delay(self.store_failures, self.rng.f64());
        *self.store_pause.insert(Instant::now() + pause)
    }
}
