//! A bridge that nothing depends on: the same engine over a store in memory, with a clock that whoever
//! rehearses moves. What it emits arrives at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::Value;

use super::{Bridge, Explanation, decision_view};
use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::notification::Notification;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;
use crate::domain::time::Time;
use crate::store::{self, Memory, RecordQuery, Settlement, Store};
use crate::telemetry::Metrics;

/// Moments that are looked at on the way to a later one, at most: a rule acts once a second at the most often.
const MAX_STEPS: usize = 200_000;
/// What is delivered at once.
const MAX_CLAIMED: usize = 1000;

/// A rehearsal.
pub(crate) struct Simulator {
    bridge: Bridge,
    store: Store,
    clock: Arc<AtomicI64>,
    destinations: BTreeSet<Name>,
    /// The number of the last record that was told.
    last_record: i64,
}

/// Why a rehearsal cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SimulatorError {
    /// The store in memory could not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is no such source.
    #[error("there is no source `{0}`")]
    UnknownSource(String),
    /// More moments than anybody waits for.
    #[error("more comes due on the way to that time than is looked at; take smaller steps")]
    TooManySteps,
    /// A record that was just written cannot be read.
    #[error("a decision cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl Simulator {
    /// A bridge of these rules and sources that starts at a time, and never heard of anything.
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
        let reading = clock.clone();
        let read = Arc::new(move || Time::from_nanos(reading.load(Ordering::Relaxed)));
        let store = Store::Memory(Memory::new(&names, read));
        let bridge = Bridge::new(store.clone(), rules, sources, policy, Metrics::new());
        Self { bridge, store, clock, destinations, last_record: 0 }
    }

    /// The time that it is.
    pub(crate) fn now(&self) -> Time {
        self.store.now()
    }

    /// Lets time pass up to `at`, and decides what comes due on the way. Each decision has its whole event.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub(crate) async fn advance_to(&mut self, at: Time) -> Result<Vec<Value>, SimulatorError> {
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

    /// Takes a notification now, and decides what comes due by it. Gives what was decided, each decision with its whole event.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub(crate) async fn notify(
        &mut self,
        source: &str,
        notification: Notification,
    ) -> Result<Vec<Value>, SimulatorError> {
        let handle =
            self.bridge.source(source).ok_or_else(|| SimulatorError::UnknownSource(source.to_owned()))?;
        self.bridge.ingest(&handle, notification, None).await?;
        self.deliver().await?;
        // What it has freed is due at once.
        self.advance_to(self.now()).await
    }

    /// What would be decided now. Nothing changes.
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

    /// Everything arrives.
    async fn deliver(&self) -> Result<(), SimulatorError> {
        for destination in &self.destinations {
            loop {
                let claimed = self.store.claim(destination, MAX_CLAIMED).await?;
                if claimed.is_empty() {
                    break;
                }
                let settle = |claimed: store::Claimed| {
                    let withdrawn =
                        || Settlement::Withdrawn { reason: "what it would undo never arrived".to_owned() };
                    (
                        claimed.seq,
                        if claimed.nothing_to_compensate { withdrawn() } else { Settlement::Delivered },
                    )
                };
                self.store.settle(destination, claimed.into_iter().map(settle).collect()).await?;
            }
        }
        Ok(())
    }

    /// What was decided since this was asked last.
    async fn new_decisions(&mut self) -> Result<Vec<Value>, SimulatorError> {
        let above = Bound::Excluded(self.last_record);
        let wanted = RecordQuery { above, newest_first: false, max: usize::MAX, ..RecordQuery::default() };
        let mut decisions = Vec::new();
        for record in self.store.records(wanted).await?.records {
            self.last_record = record.id;
            for decision in decision_view::read(record.id, &record.body)? {
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
