//! The delivery loop of one destination: claim, send, settle, wait.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::health::{Health, HealthChange, Ticket};
use super::send::{CompletedCall, STORE_BACKOFF, Shared, TaskResult};
use super::{Class, Destination, Failure, Observer, OutgoingEvent, Withholding, batch};
use crate::config;
use crate::domain::name::Name;
use crate::domain::retry::{AgeLimits, Backoff, BackoffError};
use crate::store::{self, DeliveryQueue};

mod expiry;
mod handle;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use handle::WorkerGuard;
pub(crate) use handle::WorkerHandle;

/// The minimum time between two claims while calls are in flight and the last claim returned fewer
/// deliveries than its limit, so that events that arrive within it share a call. An idle worker claims at
/// once, and so does one whose last claim reached its limit.
const LINGER: Duration = Duration::from_millis(5);

/// The number of deliveries waiting for a settlement from which on nothing is claimed, in rounds of full
/// concurrency.
const MAX_UNSETTLED_ROUNDS: usize = 4;

/// The configuration of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub name: Name,
    /// The maximum number of concurrent calls, at least 1.
    pub concurrency: usize,
    /// The backoff between attempts of a delivery, and between probes of an unavailable destination.
    pub backoff: Backoff,
    /// The ages at which deliveries are given up.
    pub age_limits: AgeLimits,
    /// The seed of the jitter.
    pub seed: u64,
}

impl Options {
    /// The options of a destination.
    ///
    /// # Errors
    /// The backoff is invalid, which checked settings exclude.
    pub(crate) fn new<D>(settings: &config::Destination<D>, seed: u64) -> Result<Self, BackoffError> {
        let delivery = settings.delivery;
        Ok(Self {
            name: settings.name.clone(),
            concurrency: settings.concurrency.max(1),
            backoff: Backoff::new(delivery.initial_backoff, delivery.max_backoff)?,
            age_limits: AgeLimits { max_age: delivery.max_age, scale_in_max_age: delivery.scale_in_max_age },
            seed,
        })
    }
}

/// Delivers to one destination, in [`Worker::run`].
#[derive(Debug)]
pub(crate) struct Worker<O, D, V> {
    shared: Arc<Shared<O, D, V>>,
    health: Health,
    rng: fastrand::Rng,
    /// Claimed batches that wait for a call.
    ready: VecDeque<Vec<OutgoingEvent>>,
    /// The tasks: calls, at most one settlement, and those of what was locked.
    running: JoinSet<TaskResult>,
    calls_in_flight: usize,
    is_settling: bool,
    /// Completed calls that wait for the running settlement.
    completed: Vec<CompletedCall>,
    /// The end of the backoff after a failure of the store, and the number of consecutive failures.
    store_paused_until: Option<Instant>,
    store_failures: u32,
    /// The time of the last claim, if it returned fewer deliveries than its limit.
    found_all_at: Option<Instant>,
    /// The class that was last logged of an unavailable destination.
    reported_class: Option<Class>,
    call_failure_log: LogThrottle,
    throttle_log: LogThrottle,
    expiry: expiry::ExpiryTimer,
}

/// Limits a log line that every call could write to one per interval.
#[derive(Debug, Default)]
struct LogThrottle(Option<Instant>);

impl LogThrottle {
    const INTERVAL: Duration = Duration::from_secs(60);

    fn should_log(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.0.is_none_or(|last| now.duration_since(last) >= Self::INTERVAL);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

async fn sleep_until(until: Option<Instant>) {
    tokio::time::sleep_until(until.unwrap_or_else(Instant::now)).await;
}

impl<O: DeliveryQueue, D: Destination, V: Observer> Worker<O, D, V> {
    pub(crate) fn new(options: Options, outbox: O, destination: D, observer: V) -> Self {
        Self {
            health: Health::new(options.backoff, options.concurrency),
            rng: fastrand::Rng::with_seed(options.seed),
            shared: Arc::new(Shared {
                options,
                outbox,
                destination,
                observer,
                withholding: Withholding::default(),
            }),
            ready: VecDeque::new(),
            running: JoinSet::new(),
            calls_in_flight: 0,
            is_settling: false,
            completed: Vec::new(),
            store_paused_until: None,
            store_failures: 0,
            found_all_at: None,
            reported_class: None,
            call_failure_log: LogThrottle::default(),
            throttle_log: LogThrottle::default(),
            expiry: expiry::ExpiryTimer::default(),
        }
    }

    /// The same worker, which sends no event while it is withheld.
    pub(crate) fn withholding(mut self, withholding: Withholding) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.withholding = withholding;
        }
        self
    }

    /// Delivers until `stop` is cancelled, then sends and settles the claimed deliveries, and returns.
    /// Also returns when the store is closed. The caller bounds the time of the drain; the claimed
    /// deliveries of a dropped worker are sent again after the next start of the store.
    ///
    /// # Panics
    ///
    /// If a call panicked: its deliveries cannot be settled, so the process should restart.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let (outbox, name) = (&shared.outbox, &shared.options.name);
        let mut stopping = false;
        loop {
            stopping |= stop.is_cancelled();
            // Registered before the claim, so that no wake-up between claim and wait is lost.
            let mut woken = pin!(outbox.wait(name));
            let mut wait_for_wakeup = false;
            if !stopping {
                stopping = self.give_up_expired().await.is_err();
            }
            // Read once per round: if the pause ends during the round, the wait below returns at once.
            let mut pause = self.paused_until().filter(|_| !stopping);
            if pause.is_none() {
                self.start_ready(stopping);
                let max = if stopping { 0 } else { self.claim_limit() };
                pause = self.linger_until(max);
                if max > 0 && pause.is_none() {
                    match outbox.claim(name, max).await {
                        Ok(claimed) => {
                            self.store_recovered();
                            self.found_all_at = (claimed.len() < max).then(Instant::now);
                            self.enqueue(claimed);
                            self.start_ready(stopping);
                            wait_for_wakeup = true;
                        }
                        Err(store::Error::Closed) => stopping = true,
                        Err(error) => pause = Some(self.store_failed(&error)),
                    }
                }
            }
            let expiry_check = self.next_expiry_check(Instant::now()).filter(|_| !stopping);
            self.settle();
            if stopping && self.ready.is_empty() && self.running.is_empty() {
                return;
            }
            tokio::select! {
                () = stop.cancelled(), if !stopping => {}
                Some(done) = self.running.join_next() => self.on_task_done(done),
                () = &mut woken, if wait_for_wakeup => {}
                () = sleep_until(pause), if pause.is_some() => {}
                () = sleep_until(expiry_check), if expiry_check.is_some() => {}
            }
        }
    }

    /// The time before which nothing is claimed or sent. Ignored during a drain.
    fn paused_until(&self) -> Option<Instant> {
        let now = Instant::now();
        self.health.paused_until(now).max(self.store_paused_until.filter(|&until| until > now))
    }

    /// The number of deliveries for which calls may start now: 1 for a probe, and 0 while batches wait for a
    /// call or too many deliveries wait for a settlement.
    fn claim_limit(&self) -> usize {
        let now = Instant::now();
        let events = self.shared.destination.limits().events;
        let max_unsettled =
            self.shared.options.concurrency.saturating_mul(events).saturating_mul(MAX_UNSETTLED_ROUNDS);
        if !self.ready.is_empty()
            || self.completed.iter().map(CompletedCall::len).sum::<usize>() >= max_unsettled
        {
            0
        } else if self.health.is_probe_next(now) {
            self.health.available_calls(self.calls_in_flight, now)
        } else {
            self.health.available_calls(self.calls_in_flight, now).saturating_mul(events)
        }
    }

    /// The time until which the next claim is postponed, so that events share a call.
    fn linger_until(&self, max: usize) -> Option<Instant> {
        let until = self.found_all_at? + LINGER;
        let can_share_call = self.shared.destination.limits().events > 1 && self.calls_in_flight > 0;
        (max > 0 && can_share_call && until > Instant::now()).then_some(until)
    }

    fn start_ready(&mut self, stopping: bool) {
        while let Some(events) = self.ready.pop_front() {
            match self.try_start(events, stopping) {
                Ok((events, ticket)) => {
                    self.calls_in_flight += 1;
                    self.running.spawn(Arc::clone(&self.shared).call_with(events, ticket, self.rng.fork()));
                }
                Err(events) => return self.ready.push_front(events),
            }
        }
    }

    /// Settles the completed calls unless a settlement is running.
    fn settle(&mut self) {
        if !self.is_settling && !self.completed.is_empty() {
            self.is_settling = true;
            let completed = std::mem::take(&mut self.completed);
            self.running.spawn(Arc::clone(&self.shared).settle_all(completed, self.rng.fork()));
        }
    }

    /// What is locked in the store does not hold up the settlement of others.
    fn settle_later(&mut self, locked: Vec<CompletedCall>) {
        if !locked.is_empty() {
            self.running.spawn(Arc::clone(&self.shared).settle_locked(locked, self.rng.fork()));
        }
    }

    /// Starts a call with these events, or with the first of them if it is the probe. Returns the events
    /// as an error if no call may start. A drain bypasses the breaker, since claimed deliveries have to
    /// be settled.
    fn try_start(
        &mut self,
        mut events: Vec<OutgoingEvent>,
        stopping: bool,
    ) -> Result<(Vec<OutgoingEvent>, Ticket), Vec<OutgoingEvent>> {
        let (now, running) = (Instant::now(), self.calls_in_flight);
        if stopping && running < self.shared.options.concurrency {
            return Ok((events, self.health.start_forced()));
        }
        let is_probe = self.health.is_probe_next(now);
        let Some(ticket) = self.health.start(running, now) else { return Err(events) };
        if is_probe && events.len() > 1 {
            let rest = events.split_off(1);
            self.ready.push_front(rest);
        }
        Ok((events, ticket))
    }

    /// Splits claimed deliveries into the batches of calls.
    fn enqueue(&mut self, claimed: Vec<store::Claimed>) {
        let (events, settled) = OutgoingEvent::from_claimed(claimed);
        let destination = &self.shared.destination;
        let batches = batch::split(events, destination.limits(), |event| destination.event_bytes(event));
        self.ready.extend(batches);
        if !settled.is_empty() {
            self.completed.push(CompletedCall::skipped(settled, self.shared.outbox.clock().wall));
        }
    }

    fn on_task_done(&mut self, done: Result<TaskResult, tokio::task::JoinError>) {
        let (ticket, call_outcome, completed) = match done {
            Ok(TaskResult::Sent { ticket, call_outcome, completed }) => (ticket, call_outcome, completed),
            Ok(TaskResult::Settled { locked }) => {
                self.is_settling = false;
                return self.settle_later(locked);
            }
            Ok(TaskResult::SettledLate) => return,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
        self.calls_in_flight -= 1;
        if completed.has_postponed() {
            self.expiry.watch();
        }
        self.completed.push(completed);
        let change = self.health.record(ticket, &call_outcome, Instant::now(), self.rng.f64());
        self.report(change, call_outcome.failure());
    }

    fn report(&mut self, change: HealthChange, failure: Option<&Failure>) {
        let (name, observer) = (&self.shared.options.name, &self.shared.observer);
        let error = failure.map(tracing::field::display);
        match (change, failure) {
            (HealthChange::Down | HealthChange::StillDown, Some(failure)) => {
                // Logged once, until the destination is available or the class changes.
                if self.reported_class.replace(failure.class) != Some(failure.class) {
                    if failure.class == Class::Misconfigured {
                        tracing::error!(destination = %name, error, "destination unavailable, operator action required");
                    } else {
                        tracing::warn!(destination = %name, error, "destination unavailable");
                    }
                }
                observer.on_health_change(name, Some(failure));
            }
            (HealthChange::Up, _) => {
                self.reported_class = None;
                tracing::info!(destination = %name, "destination available");
                observer.on_health_change(name, None);
            }
            (HealthChange::CallFailed, _) if self.call_failure_log.should_log() => {
                tracing::warn!(destination = %name, error, "call failed, retrying");
            }
            (HealthChange::Throttled, _) if self.throttle_log.should_log() => {
                tracing::warn!(destination = %name, error, "destination throttles, reducing concurrency");
            }
            (HealthChange::Unthrottled, _) => {
                tracing::debug!(destination = %name, "destination back to full concurrency");
            }
            _ => {}
        }
    }

    fn store_recovered(&mut self) {
        if self.store_failures > 0 {
            tracing::info!(destination = %self.shared.options.name, "claiming deliveries works again");
        }
        self.store_failures = 0;
        self.store_paused_until = None;
    }

    /// Returns the end of the backoff.
    fn store_failed(&mut self, error: &store::Error) -> Instant {
        if self.store_failures == 0 {
            tracing::warn!(destination = %self.shared.options.name, %error, "claiming deliveries failed, retrying");
        }
        self.store_failures = self.store_failures.saturating_add(1);
        let pause = STORE_BACKOFF.delay(self.store_failures, self.rng.f64());
        *self.store_paused_until.insert(Instant::now() + pause)
    }
}
