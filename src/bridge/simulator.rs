//! A bridge over the in-memory store with a clock that the caller moves: the engine of `test` and `replay`. Events
//! are delivered at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::decision_view::{self, ExplainedDecision};
use super::{Bridge, Explanation};
use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::notification::Notification;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;
use crate::domain::time::Time;
use crate::store::{self, DeliveryQueue as _, Memory, RecordCursor, RecordQuery, Settlement, Store};
use crate::telemetry::Metrics;

/// The maximum number of due times that one call processes. It bounds a rule that repeats with a short
/// cooldown.
const MAX_STEPS: usize = 200_000;
/// Deliveries per claim.
const MAX_CLAIMED: usize = 1000;

/// A bridge with its store and simulated clock.
pub(crate) struct Simulator {
    bridge: Bridge,
    store: Store,
    clock: Arc<AtomicI64>,
    destinations: BTreeSet<Name>,
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
        let destinations: BTreeSet<Name> =
            rules.rules().iter().flat_map(|rule| &rule.send_to).cloned().collect();
        let names: Vec<Name> = destinations.iter().cloned().collect();
        let simulated = clock.clone();
        let read_clock = Arc::new(move || Time::from_nanos(simulated.load(Ordering::Relaxed)));
        let store = Store::Memory(Memory::new(&names, read_clock));
        let bridge = Bridge::new(store.clone(), rules, sources, policy, Metrics::new());
        Self { bridge, store, clock, destinations, last_record: RecordCursor::BEFORE_ALL }
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
        for _ in 0..MAX_STEPS {
            let due = *self.store.next_due().borrow();
            let Some(due) = due.filter(|due| *due <= at) else {
                self.clock.fetch_max(at.as_nanos(), Ordering::Relaxed);
                return self.new_decisions().await;
            };
            self.clock.fetch_max(due.as_nanos(), Ordering::Relaxed);
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

    /// Delivers all events, at all destinations.
    async fn deliver(&self) -> Result<(), SimulatorError> {
        for destination in &self.destinations {
            loop {
                let claimed = self.store.claim(destination, MAX_CLAIMED).await?;
                if claimed.is_empty() {
                    break;
                }
                let settle = |claimed: store::Claimed| {
                    let withdrawn = || Settlement::Withdrawn {
                        reason: "the event that it would compensate was never delivered".to_owned(),
                    };
                    (
                        claimed.lease,
                        if claimed.nothing_to_compensate {
                            withdrawn()
                        } else {
                            Settlement::Delivered { answer: None }
                        },
                    )
                };
                self.store.settle(destination, claimed.into_iter().map(settle).collect()).await?;
            }
        }
        Ok(())
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
