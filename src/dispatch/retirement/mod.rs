//! The end of a destination or of its worker.
//!
//! ```text
//! Active ─┬─ Removed ──▶ Quiescing ──▶ Stopping ──┐
//!         ├─ Orphaned ────────────────────────────┴▶ Draining ──▶ ClosingLane ──▶ Retired
//!         └─ Replaced ─▶ Stopping ──▶ HandedOver
//!
//! Draining ◀──▶ Withheld ──▶ ClosingLane
//! Draining, ClosingLane ──▶ BackingOff ──▶ Draining
//! ```
//!
//! | state | what happens |
//! | --- | --- |
//! | Quiescing | transactions that use the old rules can still enqueue events; the worker delivers them |
//! | Stopping | the worker claims nothing and settles what it has claimed |
//! | Draining | undelivered events become dead letters, or are withdrawn if there is nothing to compensate |
//! | Withheld | a transaction withholds the remaining deliveries for a moment |
//! | BackingOff | the store has failed |
//! | ClosingLane | the store closes the lane |
//!
//! [`state`] has the transitions; the task of a [`Retirement`] does what its state requires and reports the result
//! as the next event. Two things concern every state:
//!
//! - The process stops: *Interrupted*. Each dead letter is committed before the next step, so whatever is still
//!   undelivered belongs to an orphan at the next start, which continues with *Draining*.
//! - The destination is configured again: a retirement is not reversed. The reload waits for its end, see
//!   [`RetirementHandle::wait_retired`], and is rejected if that takes too long.

use std::pin::Pin;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::outbox::RetirementOutbox;
use super::worker::WorkerHandle;
use crate::domain::name::Name;

mod drain;
mod state;
#[cfg(test)]
mod tests;

use drain::Drain;
use state::{Event, State};

/// Completes when no transaction uses the old rules any more.
pub(crate) type RulesReleased = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Retires a destination, or ends a worker for its successor, in [`Retirement::run`].
pub(super) struct Retirement<O> {
    drain: Drain<O>,
    worker: Option<WorkerHandle>,
    rules_released: RulesReleased,
    /// Cancelled when the process stops.
    process_stop: CancellationToken,
    on_retired: Box<dyn FnOnce() + Send>,
    state: watch::Sender<State>,
}

/// A handle to wait for the end of a retirement.
#[derive(Debug)]
pub(super) struct RetirementHandle(watch::Receiver<State>);

/// A destination that is configured again is not retired yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("destination {0} is still being removed, retry later")]
pub(crate) struct StillRetiring(pub Name);

impl RetirementHandle {
    /// Whether the retirement is over.
    pub(super) fn is_over(&self) -> bool {
        self.0.borrow().is_final() || self.0.has_changed().is_err()
    }

    /// Waits until the retirement is over; false if it is not at `deadline`.
    pub(super) async fn wait_retired(&mut self, deadline: Instant) -> bool {
        let is_over = self.0.wait_for(|state| state.is_final());
        // An error means that the task has ended, too.
        tokio::time::timeout_at(deadline, is_over).await.is_ok()
    }
}

impl<O: RetirementOutbox> Retirement<O> {
    /// Of a destination that a reload has removed. Its worker continues until the rules are released.
    pub(super) fn of_removed(
        destination: Name,
        outbox: O,
        worker: WorkerHandle,
        rules_released: RulesReleased,
        process_stop: CancellationToken,
    ) -> Self {
        let retirement = Self::begin(destination, outbox, Event::Removed, process_stop);
        Self { worker: Some(worker), rules_released, ..retirement }
    }

    /// Of a destination that has undelivered events and is not configured. The store has a lane for it.
    pub(super) fn of_orphan(destination: Name, outbox: O, process_stop: CancellationToken) -> Self {
        Self::begin(destination, outbox, Event::Orphaned, process_stop)
    }

    /// Of a worker that another one replaces.
    pub(super) fn of_replaced(
        destination: Name,
        outbox: O,
        worker: WorkerHandle,
        process_stop: CancellationToken,
    ) -> Self {
        let retirement = Self::begin(destination, outbox, Event::Replaced, process_stop);
        Self { worker: Some(worker), ..retirement }
    }

    fn begin(destination: Name, outbox: O, event: Event, process_stop: CancellationToken) -> Self {
        Self {
            drain: Drain { destination, outbox },
            worker: None,
            rules_released: Box::pin(std::future::ready(())),
            process_stop,
            on_retired: Box::new(|| {}),
            state: watch::Sender::new(State::Active.after(event, Instant::now())),
        }
    }

    /// Runs `on_retired` when the destination is retired, before its handle reports it.
    pub(super) fn then(self, on_retired: impl FnOnce() + Send + 'static) -> Self {
        Self { on_retired: Box::new(on_retired), ..self }
    }

    pub(super) fn handle(&self) -> RetirementHandle {
        RetirementHandle(self.state.subscribe())
    }

    /// Runs until the state is final.
    pub(super) async fn run(mut self) {
        let process_stop = self.process_stop.clone();
        let mut state = *self.state.borrow();
        while !state.is_final() {
            let event = tokio::select! {
                biased;
                () = process_stop.cancelled() => Event::ProcessStops,
                event = self.next_event(state) => event,
            };
            state = state.after(event, Instant::now());
            match state {
                State::Retired { drained } => {
                    tracing::info!(destination = %self.drain.destination, deliveries = drained, "destination removed");
                    std::mem::replace(&mut self.on_retired, Box::new(|| {}))();
                }
                State::HandedOver => self.drain.release_claims(),
                _ => {}
            }
            self.state.send_replace(state);
        }
    }

    /// Does what the state requires, and returns the result.
    async fn next_event(&mut self, state: State) -> Event {
        match state {
            State::Quiescing { deadline } => tokio::select! {
                () = &mut self.rules_released => Event::RulesReleased,
                () = tokio::time::sleep_until(deadline) => Event::TimedOut,
            },
            State::Stopping(_) => {
                if let Some(worker) = &self.worker {
                    worker.stop().await;
                }
                Event::WorkerEnded
            }
            State::Draining(_) => self.drain.drain_batch().await,
            State::Withheld { deadline, .. } => tokio::select! {
                () = self.drain.wait() => Event::Woken,
                () = tokio::time::sleep_until(deadline) => Event::TimedOut,
            },
            State::BackingOff { retry_at, .. } => {
                tokio::time::sleep_until(retry_at).await;
                Event::TimedOut
            }
            State::ClosingLane(_) => self.drain.close_lane().await,
            State::Active | State::Retired { .. } | State::HandedOver | State::Interrupted => {
                std::future::pending().await
            }
        }
    }
}
