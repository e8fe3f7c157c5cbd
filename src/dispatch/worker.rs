//! One destination's loop: wake, look, wait.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::health::{Change, Health, Heard, Ticket};
use super::job::{Back, Done, STORE_BACKOFF, Shared};
use super::{Class, Destination, Failure, Observer, Outbox, Outgoing, batch};
use crate::config;
use crate::domain::name::Name;
use crate::domain::retry::{Backoff, BackoffError};
use crate::store;

#[cfg(test)]
mod tests;

/// The least time between two looks for work while calls are on their way and the last look found all
/// there was: what is written meanwhile shares a call. An idle worker looks at once, and so does one
/// that had to leave something.
const LINGER: Duration = Duration::from_millis(5);

/// Nothing is claimed while the store has not settled so many times what all calls take at once.
const BACK: usize = 4;

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
    pub fn new(settings: &config::Destination, seed: u64) -> Result<Self, BackoffError> {
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
    /// Claimed, waiting for a free call: each is one.
    ready: VecDeque<Vec<Outgoing>>,
    /// Calls, and at most one settlement.
    running: JoinSet<Done>,
    calls: usize,
    settles: bool,
    /// Came back, waiting for the settlement before it.
    back: Vec<Back>,
    /// Until when the store is left alone, and how often it failed in a row.
    store_pause: Option<Instant>,
    store_failures: u32,
    /// When the last look for work was, if it found all there was.
    found_all: Option<Instant>,
    /// What was told last of a destination that fails.
    told: Option<Class>,
    stumbles: Seldom,
    throttles: Seldom,
}

/// For what may happen at every call and is told once in a while.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    const EVERY: Duration = Duration::from_secs(60);

    fn now(&mut self) -> bool {
        let now = Instant::now();
        let again = self.0.is_none_or(|last| now.duration_since(last) >= Self::EVERY);
        if again {
            self.0 = Some(now);
        }
        again
    }
}

impl<O: Outbox, D: Destination, V: Observer> Worker<O, D, V> {
    /// A worker that does nothing yet.
    pub fn new(options: Options, outbox: O, destination: D, observer: V) -> Self {
        Self {
            health: Health::new(options.backoff, options.concurrency),
            rng: fastrand::Rng::with_seed(options.seed),
            shared: Arc::new(Shared { options, outbox, destination, observer }),
            ready: VecDeque::new(),
            running: JoinSet::new(),
            calls: 0,
            settles: false,
            back: Vec::new(),
            store_pause: None,
            store_failures: 0,
            found_all: None,
            told: None,
            stumbles: Seldom::default(),
            throttles: Seldom::default(),
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
                let max = if stopping { 0 } else { self.wanted() };
                pause = self.lingers(max);
                if max > 0 && pause.is_none() {
                    match outbox.claim(name, max).await {
                        Ok(claimed) => {
                            self.store_works();
                            self.found_all = (claimed.len() < max).then(Instant::now);
                            self.take(claimed);
                            self.start_ready(stopping);
                            listening = true;
                        }
                        Err(store::Error::Closed) => stopping = true,
                        Err(error) => pause = Some(self.store_failed(&error)),
                    }
                }
            }
            self.settle();
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

    /// Deliveries for which calls may start now: one for a probe. None while some wait for a call.
    fn wanted(&self) -> usize {
        let now = Instant::now();
        let events = self.shared.destination.limits().events;
        let most_back = self.shared.options.concurrency.saturating_mul(events).saturating_mul(BACK);
        if !self.ready.is_empty() || self.back.iter().map(Back::len).sum::<usize>() >= most_back {
            0
        } else if self.health.probes(now) {
            self.health.room(self.calls, now)
        } else {
            self.health.room(self.calls, now).saturating_mul(events)
        }
    }

    /// Until when the next look waits for company.
    fn lingers(&self, max: usize) -> Option<Instant> {
        let until = self.found_all? + LINGER;
        let shares = self.shared.destination.limits().events > 1 && self.calls > 0;
        (max > 0 && shares && until > Instant::now()).then_some(until)
    }

    fn start_ready(&mut self, stopping: bool) {
        while let Some(events) = self.ready.pop_front() {
            match self.let_through(events, stopping) {
                Ok((events, ticket)) => {
                    self.calls += 1;
                    self.running.spawn(Arc::clone(&self.shared).call_with(events, ticket, self.rng.fork()));
                }
                Err(events) => return self.ready.push_front(events),
            }
        }
    }

    /// Settles what has come back, one settlement after the other.
    fn settle(&mut self) {
        if !self.settles && !self.back.is_empty() {
            self.settles = true;
            let back = std::mem::take(&mut self.back);
            self.running.spawn(Arc::clone(&self.shared).settle_all(back, self.rng.fork()));
        }
    }

    /// A call that may start now, with these events or, if it is the probe, with the first of them.
    /// One that drains does not ask: what was claimed has to be settled.
    fn let_through(
        &mut self,
        mut events: Vec<Outgoing>,
        stopping: bool,
    ) -> Result<(Vec<Outgoing>, Ticket), Vec<Outgoing>> {
        let (now, running) = (Instant::now(), self.calls);
        if stopping && running < self.shared.options.concurrency {
            return Ok((events, self.health.start_regardless()));
        }
        let probes = self.health.probes(now);
        let Some(ticket) = self.health.start(running, now) else { return Err(events) };
        if probes && events.len() > 1 {
            let rest = events.split_off(1);
            self.ready.push_front(rest);
        }
        Ok((events, ticket))
    }

    /// Makes calls of what was claimed.
    fn take(&mut self, claimed: Vec<store::Claimed>) {
        let (events, settled) = Outgoing::read(claimed);
        let destination = &self.shared.destination;
        let batches = batch::split(events, destination.limits(), |event| destination.weigh(event));
        self.ready.extend(batches);
        if !settled.is_empty() {
            self.back.push(Back::without_a_call(settled, self.shared.outbox.now()));
        }
    }

    fn note(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let (ticket, heard, back) = match done {
            Ok(Done::Sent { ticket, heard, back }) => (ticket, heard, back),
            Ok(Done::Settled) => return self.settles = false,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
        self.calls -= 1;
        self.back.push(back);
        let change = self.health.heard(ticket, &heard, Instant::now(), self.rng.f64());
        let failure = match &heard {
            Heard::Failed(failure) => Some(failure),
            Heard::Nothing | Heard::Reached => None,
        };
        self.tell(change, failure);
    }

    fn tell(&mut self, change: Change, failure: Option<&Failure>) {
        let (name, observer) = (&self.shared.options.name, &self.shared.observer);
        let error = failure.map(tracing::field::display);
        match (change, failure) {
            (Change::Fails | Change::StillFails, Some(failure)) => {
                // Once, until it works again or turns out to be something else.
                if self.told.replace(failure.class) != Some(failure.class) {
                    if failure.class == Class::Misconfigured {
                        tracing::error!(destination = %name, error, "the destination fails until somebody mends this; its deliveries wait");
                    } else {
                        tracing::warn!(destination = %name, error, "the destination fails; its deliveries wait");
                    }
                }
                observer.on_reachable(name, Some(failure));
            }
            (Change::Works, _) => {
                self.told = None;
                tracing::info!(destination = %name, "the destination works again");
                observer.on_reachable(name, None);
            }
            (Change::Stumbles, _) if self.stumbles.now() => {
                tracing::warn!(destination = %name, error, "a call failed; its deliveries are tried again");
            }
            (Change::Throttles, _) if self.throttles.now() => {
                tracing::warn!(destination = %name, error, "the destination throttles; it gets fewer calls at the same time");
            }
            (Change::Recovered, _) => {
                tracing::debug!(destination = %name, "the destination takes as many calls as are configured again");
            }
            _ => {}
        }
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
