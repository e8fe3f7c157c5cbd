//! A bridge over the in-memory store with a clock that the caller moves: the engine of `test` and `replay`. Events
//! are delivered at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::decision_view::{self, ExplainedDecision};
use super::{Bridge, Explanation};
use crate::domain::control::{Controls, GapCause, Pause, ReceptionGap};
use crate::domain::delivery::DestinationState;
use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::notification::Notification;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;
use crate::domain::time::Time;
use crate::store::{
    self, Changes, DeliveryQueue as _, Keys, Memory, RecordCursor, RecordQuery, Settlement, Store,
};
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
        let store = Store::Memory(Memory::new(&names, read_clock));
        let bridge = Bridge::new(store.clone(), rules, sources, policy, Metrics::new());
        Self {
            bridge,
            store,
            clock,
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

    /// Sets how a destination answers from now on.
    pub(crate) fn set_destination(&mut self, destination: Name, state: DestinationState) {
        self.destination_states.insert(destination, state);
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
                        if claimed.nothing_to_compensate { withdrawn() } else { Settlement::Delivered },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::duration;
    use crate::domain::rate::PerMinute;
    use crate::domain::template::Templates;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn simulator(start: Time) -> Simulator {
        let source = |source: &str| Source {
            name: name(source),
            labels: Arc::default(),
            late_window: Duration::from_mins(6),
            occurrence_ttl: Duration::from_hours(24),
            heartbeat: None,
            ignore_labels: Vec::new(),
        };
        let sources = ["prod", "test"].map(|it| (name(it), source(it))).into();
        let policy = Policy {
            last_resolve_retention: Duration::ZERO,
            expired_episode_retention: Duration::ZERO,
            owed_retention: Duration::ZERO,
            per_minute: PerMinute { scale_out: 0, scale_in: 0 },
        };
        Simulator::new(Arc::new(RuleTable::new(Vec::new(), Templates::new())), sources, policy, start)
    }

    #[tokio::test]
    async fn a_gap_is_recorded_for_its_sources_and_the_clock_is_at_its_end() {
        let start = Time::from_millis(0);
        let at = |text: &str| start.after(duration::parse(text).unwrap());
        let mut simulator = simulator(start);
        let last = |simulator: &Simulator, source: &str| {
            simulator.store.controls().reception_gaps(&name(source)).map(|gaps| gaps.last)
        };

        simulator.gap(Some(&name("prod")), Duration::from_mins(3)).await.unwrap();
        assert_eq!(simulator.now(), at("3m"));
        let refused = ReceptionGap { from: start, until: at("3m"), cause: GapCause::Refused };
        assert_eq!((last(&simulator, "prod"), last(&simulator, "test")), (Some(refused), None));

        simulator.advance_to(at("10m")).await.unwrap();
        simulator.restart(Duration::from_secs(10)).await.unwrap();
        let restarted = ReceptionGap { from: at("10m"), until: at("10m10s"), cause: GapCause::NotRunning };
        assert_eq!((last(&simulator, "prod"), last(&simulator, "test")), (Some(restarted), Some(restarted)));

        simulator.advance_to(at("20m")).await.unwrap();
        simulator.gap(None, Duration::from_mins(1)).await.unwrap();
        let all = ReceptionGap { from: at("20m"), until: at("21m"), cause: GapCause::Refused };
        assert_eq!((last(&simulator, "prod"), last(&simulator, "test")), (Some(all), Some(all)));
        assert!(simulator.gap(Some(&name("other")), Duration::from_mins(1)).await.is_err());
    }

    #[test]
    fn a_destination_keeps_its_state_until_it_is_set_again() {
        let mut simulator = simulator(Time::from_millis(0));
        for state in [DestinationState::Down, DestinationState::Unknown, DestinationState::Up] {
            simulator.set_destination(name("queue"), state);
            assert_eq!(simulator.destination_states.get(&name("queue")), Some(&state));
        }
    }
}
