//! A bridge over the in-memory store with a clock that the caller moves: the engine of `test` and `replay`. Events
//! are delivered at once, unless the caller has said that calls to a destination fail.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::decision_view::{self, ExplainedDecision};
use super::{Bridge, Explanation};
use crate::domain::control::{Controls, GapCause, Pause, ReceptionGap};
use crate::domain::delivery::{DestinationState, GiveUp};
use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::notification::Notification;
use crate::domain::retry::Backoff;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;
use crate::domain::time::Time;
use crate::store::{
    self, Changes, DeliveryQueue as _, Keys, Memory, RecordCursor, RecordQuery, RefusalReason, Settlement,
    Store,
};
use crate::telemetry::Metrics;

/// The maximum number of due times that one call processes. It bounds a rule that repeats with a short
/// cooldown.
const MAX_STEPS: usize = 200_000;
/// The defaults of `delivery`.
const MAX_AGE: Duration = Duration::from_hours(1);
const SCALE_IN_MAX_AGE: Duration = Duration::from_mins(5);
const BACKOFF: Backoff = match Backoff::new(Duration::from_millis(500), Duration::from_mins(1)) {
    Ok(backoff) => backoff,
    Err(_) => panic!("the initial delay exceeds the maximum"),
};
/// Deliveries per claim.
const MAX_CLAIMED: usize = 1000;

/// A bridge with its store and simulated clock.
pub(crate) struct Simulator {
    bridge: Bridge,
    store: Store,
    clock: Arc<AtomicI64>,
    memory: Memory,
    sources: BTreeSet<Name>,
    destinations: BTreeSet<Name>,
    /// How each destination answers; those that are not here are up.
    destination_states: BTreeMap<Name, DestinationState>,
    /// The id of the last record that was returned.
    last_record: RecordCursor,
}

/// Why the simulation cannot continue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SimulatorError {
    /// The in-memory store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The source is not configured.
    #[error("unknown source `{0}`")]
    UnknownSource(String),
    /// More than [`MAX_STEPS`] due times in one call.
    #[error("more than {MAX_STEPS} due times before that time; advance in smaller steps")]
    TooManySteps,
    /// A record that was just written is unreadable.
    #[error("decision record unreadable: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl Simulator {
    /// A bridge with these rules and sources and an empty store, created at `start`.
    pub(crate) fn new(
        rules: Arc<RuleTable>,
        sources: BTreeMap<Name, Source>,
        policy: Policy,
        start: Time,
    ) -> Self {
        let clock = Arc::new(AtomicI64::new(start.as_nanos()));
        let known_sources = sources.keys().cloned().collect();
        let destinations: BTreeSet<Name> =
            rules.rules().iter().flat_map(|rule| &rule.send_to).cloned().collect();
        let names: Vec<Name> = destinations.iter().cloned().collect();
        let simulated = clock.clone();
        let read_clock = Arc::new(move || Time::from_nanos(simulated.load(Ordering::Relaxed)));
        let memory = Memory::new(&names, read_clock);
        let store = Store::Memory(memory.clone());
        let policy = Policy { probes_destinations: false, ..policy };
        let bridge = Bridge::new(store.clone(), rules, sources, policy, Metrics::new());
        Self {
            bridge,
            store,
            clock,
            memory,
            sources: known_sources,
            destinations,
            destination_states: BTreeMap::new(),
            last_record: RecordCursor::BEFORE_ALL,
        }
    }

    /// The simulated time.
    pub(crate) fn now(&self) -> Time {
        self.store.now()
    }

    /// Advances the clock to `at` and processes what is due until then. Returns the decisions, each with its whole
    /// event.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub(crate) async fn advance_to(&mut self, at: Time) -> Result<Vec<ExplainedDecision>, SimulatorError> {
        // What became deliverable since the last call.
        self.deliver().await?;
        for _ in 0..MAX_STEPS {
            let due = *self.store.next_due().borrow();
            let next = due.into_iter().chain(self.memory.next_retry()).min();
            let Some(next) = next.filter(|next| *next <= at) else {
                self.clock.fetch_max(at.as_nanos(), Ordering::Relaxed);
                return self.new_decisions().await;
            };
            self.clock.fetch_max(next.as_nanos(), Ordering::Relaxed);
            // Decisions know what is delivered at their time.
            self.deliver().await?;
            self.bridge.process_due().await?;
            self.deliver().await?;
        }
        Err(SimulatorError::TooManySteps)
    }

    /// Processes a notification now, and what is due after it. Returns the decisions, each with its whole event.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub(crate) async fn notify(
        &mut self,
        source: &str,
        notification: Notification,
    ) -> Result<Vec<ExplainedDecision>, SimulatorError> {
        let handle =
            self.bridge.source(source).ok_or_else(|| SimulatorError::UnknownSource(source.to_owned()))?;
        self.bridge.ingest(&handle, notification, None).await?;
        self.deliver().await?;
        // Actions that it has unblocked are due at once.
        self.advance_to(self.now()).await
    }

    /// Refuses the notifications of a source, or of all, for this long. Nothing is decided until the clock has reached
    /// the end of the gap.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub(crate) async fn gap(
        &mut self,
        source: Option<&Name>,
        length: Duration,
    ) -> Result<(), SimulatorError> {
        if let Some(unknown) = source.filter(|source| !self.sources.contains(*source)) {
            return Err(SimulatorError::UnknownSource(unknown.to_string()));
        }
        let sources = source.map_or_else(|| self.sources.clone(), |source| BTreeSet::from([source.clone()]));
        self.record_gap(sources, length, GapCause::Refused).await
    }

    /// Does not run for this long. Nothing is decided until the clock has reached the end of the restart.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub(crate) async fn restart(&mut self, length: Duration) -> Result<(), SimulatorError> {
        self.record_gap(self.sources.clone(), length, GapCause::NotRunning).await
    }

    async fn record_gap(
        &mut self,
        sources: BTreeSet<Name>,
        length: Duration,
        cause: GapCause,
    ) -> Result<(), SimulatorError> {
        let from = self.now();
        let until = from.after(length);
        let gap = ReceptionGap { from, until, cause };
        self.change_controls(move |controls| {
            for source in &sources {
                controls.record_gap(source, gap);
            }
        })
        .await?;
        self.clock.fetch_max(until.as_nanos(), Ordering::Relaxed);
        Ok(())
    }

    /// Sets a pause, as an operator does.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub(crate) async fn pause(&mut self, pause: Pause) -> Result<(), SimulatorError> {
        self.change_controls(move |controls| {
            controls.pause(pause.clone());
        })
        .await
    }

    /// Ends all pauses. What they have blocked is due at once.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub(crate) async fn resume(&mut self) -> Result<(), SimulatorError> {
        let now = self.now();
        self.change_controls(move |controls| {
            let active: Vec<u64> = controls.pauses(now).map(|pause| pause.id).collect();
            for id in active {
                controls.resume(id);
            }
        })
        .await
    }

    async fn change_controls(
        &self,
        change: impl Fn(&mut Controls) + Send + 'static,
    ) -> Result<(), SimulatorError> {
        let changed = self.store.transact(Keys::default(), move |view| {
            let mut controls = (*view.controls).clone();
            change(&mut controls);
            (Changes { controls: Some(Arc::new(controls)), ..Changes::default() }, ())
        });
        Ok(changed.await?)
    }

    /// Explains how a notification would be processed now. Nothing changes.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub(crate) async fn explain(
        &self,
        source: &str,
        notification: Notification,
    ) -> Result<Explanation, SimulatorError> {
        let handle =
            self.bridge.source(source).ok_or_else(|| SimulatorError::UnknownSource(source.to_owned()))?;
        Ok(self.bridge.explain(&handle, notification).await?)
    }

    /// Sets how a destination answers from now on. When calls succeed again, what waits for the destination is delivered
    /// and decided when the clock is advanced.
    pub(crate) fn set_destination(&mut self, destination: Name, state: DestinationState) {
        let before = self.destination_states.insert(destination.clone(), state);
        let was_up = before.is_none_or(|before| before == DestinationState::Up);
        if state == DestinationState::Up && !was_up {
            self.memory.set_reachable(&destination);
        }
    }

    /// Sends all events that can be sent now, at all destinations.
    async fn deliver(&self) -> Result<(), SimulatorError> {
        for destination in &self.destinations {
            loop {
                let claimed = self.store.claim(destination, MAX_CLAIMED).await?;
                if claimed.is_empty() {
                    break;
                }
                let leases = claimed.iter().map(|claimed| claimed.lease).collect();
                let refused = self.store.begin_calls(destination, leases).await?;
                let settled = claimed.into_iter().map(|claimed| {
                    let refused = refused.iter().find(|refused| refused.lease == claimed.lease);
                    (claimed.lease, self.outcome(destination, &claimed, refused.map(|it| it.reason)))
                });
                self.store.settle(destination, settled.collect()).await?;
            }
        }
        Ok(())
    }

    /// The outcome of a delivery, as the worker of a destination with the default settings would settle it.
    fn outcome(
        &self,
        destination: &Name,
        claimed: &store::Claimed,
        reason: Option<RefusalReason>,
    ) -> Settlement {
        let withdrawn = |reason: &str| Settlement::Withdrawn { reason: reason.to_owned() };
        match reason {
            Some(RefusalReason::Suspended) => {
                return Settlement::NotCalled { delay: Duration::ZERO, stands_aside: true };
            }
            Some(_) => return withdrawn("superseded by an increase before it was sent"),
            None if claimed.nothing_to_compensate => {
                return withdrawn("the event that it would compensate was never delivered");
            }
            None => {}
        }
        let state = self.destination_states.get(destination).copied().unwrap_or(DestinationState::Up);
        if state == DestinationState::Up {
            return Settlement::Delivered { answer: None };
        }
        let now = self.now();
        let given_up_at = give_up_at(claimed);
        if given_up_at.is_none_or(|at| now >= at) {
            return Settlement::Dead {
                error: "expired: not delivered in time".to_owned(),
                cause: GiveUp::Expired,
                called: false,
                uncertain: false,
            };
        }
        let backoff = BACKOFF.ceiling(claimed.attempts.saturating_add(1));
        let rest = given_up_at.map_or(backoff, |at| at.since(now));
        Settlement::Retry {
            delay: backoff.min(rest),
            error: "calls to this destination fail".to_owned(),
            uncertain: state == DestinationState::Unknown,
        }
    }

    /// The decisions since the last call.
    async fn new_decisions(&mut self) -> Result<Vec<ExplainedDecision>, SimulatorError> {
        let above = Bound::Excluded(self.last_record);
        let query = RecordQuery { above, newest_first: false, max: usize::MAX, ..RecordQuery::default() };
        let mut decisions = Vec::new();
        for record in self.store.records(query).await?.records {
            self.last_record = record.cursor;
            for decision in decision_view::read(record.cursor, &record.body)? {
                let event = match &decision.event {
                    Some(id) => self.store.event(id).await?,
                    None => None,
                };
                let event = event.and_then(|event| serde_json::from_str(&event.body).ok());
                decisions.push(decision.with_event(event));
            }
        }
        Ok(decisions)
    }
}

/// When a delivery is given up; `None` if its event cannot be read.
fn give_up_at(claimed: &store::Claimed) -> Option<Time> {
    let header = claimed.body.header().ok()?;
    let max_age = if header.decreases_capacity() { SCALE_IN_MAX_AGE } else { MAX_AGE };
    Some(claimed.emitted_at.after(max_age).min(header.expirytime))
}

#[cfg(test)]
mod tests;
