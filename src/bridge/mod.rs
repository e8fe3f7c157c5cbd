//! From a notification to decisions in the store: evaluate, transact, wake.
//!
//! Rules are matched and templates rendered before the transaction; only the engine's step is inside
//! it. What comes due by the store's clock goes the same way.

mod decision_query;
pub(crate) mod decision_view;
mod explain;
mod pauses;
mod record;
mod simulator;
mod split;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::engine::{self, Context, EvaluatedAlert, Input, Policy, States, Step};
use crate::domain::event::is_traceparent;
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::notification::Notification;
use crate::domain::rate::{RateDelta, Rates};
use crate::domain::source::Source;
use crate::domain::summary::Summary;
use crate::domain::table::RuleTable;
use crate::domain::target::TargetKey;
use crate::domain::trigger::Trigger;
use crate::store::{self, Changes, EpisodePhase, Keys, NewEvent, Store, View};
use crate::telemetry::Metrics;
pub(crate) use decision_query::{Filter, Position};
pub(crate) use explain::{Explanation, MAX_ALERTS as MAX_EXPLAINED};
pub use pauses::PauseRequest;
pub(crate) use simulator::{Simulator, SimulatorError};

/// Targets that come due and are decided in one transaction.
const MAX_DUE_PER_TRANSACTION: usize = 100;
/// Pause after a store that could not do it.
const STORE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Decides what arrives and what comes due. Cheap to clone.
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    store: Store,
    /// As it is now. Who decides takes hold of it once, so that a reload never splits a notification.
    snapshot: ArcSwap<RuleSnapshot>,
    metrics: Metrics,
    /// Changes with each commit of decisions.
    commits: watch::Sender<()>,
}

/// What every decision reads, beside the store's view.
struct RuleSnapshot {
    rules: Arc<RuleTable>,
    sources: BTreeMap<Name, Arc<Source>>,
    routes: Routes,
    policy: Policy,
    with_heartbeat: BTreeSet<Name>,
    /// What this process has emitted lately, whatever the rules were. Locked for the time of one decision,
    /// never across IO.
    rates: Arc<Mutex<Rates>>,
}

/// Where a rule's events go, and how large they may be.
type Routes = HashMap<Name, (Arc<[Name]>, usize), FixedState>;

/// A configured source, with the rules as they are when it speaks.
#[derive(Clone)]
pub struct SourceHandle {
    source: Arc<Source>,
    snapshot: Arc<RuleSnapshot>,
}

impl SourceHandle {
    /// The source.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }
}

/// The rules that were before a reload.
pub struct RetiredRules(Weak<RuleSnapshot>);

impl RetiredRules {
    /// Whether somebody still decides by them.
    pub fn is_in_use(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Bridge {
    /// A bridge over a store.
    pub fn new(
        store: Store,
        rules: Arc<RuleTable>,
        sources: BTreeMap<Name, Source>,
        policy: Policy,
        metrics: Metrics,
    ) -> Self {
        let snapshot = RuleSnapshot::new(rules, sources, policy, Arc::default());
        let commits = watch::Sender::new(());
        Self(Arc::new(Inner { store, snapshot: ArcSwap::from_pointee(snapshot), metrics, commits }))
    }

    /// A configured source.
    pub fn source(&self, name: &str) -> Option<SourceHandle> {
        let snapshot = self.0.snapshot.load_full();
        let source = snapshot.sources.get(name)?.clone();
        Some(SourceHandle { source, snapshot })
    }

    /// Decides by these rules from now on. What is being decided goes on by the rules that were; all that
    /// waits is looked at again.
    ///
    /// # Errors
    /// The new rules hold, and the store could not write that what waits has to be looked at again.
    pub async fn reload(
        &self,
        rules: Arc<RuleTable>,
        sources: BTreeMap<Name, Source>,
        policy: Policy,
    ) -> (RetiredRules, Result<(), store::Error>) {
        let rates = self.0.snapshot.load().rates.clone();
        let retired_rules = self.0.snapshot.swap(Arc::new(RuleSnapshot::new(rules, sources, policy, rates)));
        let rechecked = self.0.store.transact(Keys::default(), |view| {
            let mut controls = (*view.controls).clone();
            controls.bump_generation();
            (Changes { controls: Some(Arc::new(controls)), ..Changes::default() }, ())
        });
        (RetiredRules(Arc::downgrade(&retired_rules)), rechecked.await)
    }

    /// Completes each time when decisions were committed; who is late is told once.
    pub fn subscribe_commits(&self) -> watch::Receiver<()> {
        self.0.commits.subscribe()
    }

    /// Decides a notification. When this returns `Ok`, every decision and every delivery that it
    /// causes is on disk.
    ///
    /// `traceparent` is the request's; what is none is passed over.
    ///
    /// # Errors
    /// The store could not write. Of a notification of more than 1,000 alerts a part may have
    /// been decided; when it is sent again, that part is a duplicate.
    pub async fn ingest(
        &self,
        handle: &SourceHandle,
        notification: Notification,
        traceparent: Option<&str>,
    ) -> Result<Summary, store::Error> {
        let SourceHandle { source, snapshot } = handle;
        let Notification { envelope, truncated_alerts, alerts } = notification;
        let traceparent = traceparent.filter(|text| is_traceparent(text)).map(str::to_owned);
        let count = alerts.len();
        let judge = {
            let (snapshot, source) = (snapshot.clone(), source.clone());
            let judge = move |alert| EvaluatedAlert::new(&snapshot.rules, &source, alert);
            move || alerts.into_iter().map(judge).collect::<Vec<_>>()
        };
        let evaluated = if count > split::MAX_ALERTS_PER_TRANSACTION {
            tokio::task::spawn_blocking(judge).await.map_err(|_| store::Error::Closed)?
        } else {
            judge()
        };
        self.0.metrics.record_alerts(&source.name, &evaluated);
        let whole = Input {
            source: source.clone(),
            trigger: Arc::new(Trigger::new(&source.name, &envelope, traceparent)),
            truncated: truncated_alerts > 0,
            alerts: evaluated,
        };
        let mut summary = Summary { alerts: count, ..Summary::default() };
        for input in split::split(&self.0.store, whole).await? {
            summary.add(self.decide(snapshot, input).await?);
        }
        Ok(summary)
    }

    async fn decide(&self, snapshot: &Arc<RuleSnapshot>, input: Input) -> Result<Summary, store::Error> {
        let keys = Keys { targets: input.target_keys(), alerts: input.alert_keys() };
        let step = move |context: &Context<'_>, states: &States, rates: &mut Rates| {
            let step = engine::process_notification(context, &input, states, rates);
            let record = record::for_notification(context.now, &input, states, &step.decisions);
            (step, record)
        };
        self.transact(snapshot.clone(), keys, Vec::new(), step).await
    }

    /// One transaction of the engine. `looked_at` are the targets at which it looks at all that waits.
    async fn transact(
        &self,
        snapshot: Arc<RuleSnapshot>,
        keys: Keys,
        rechecked: Vec<TargetKey>,
        step: impl Fn(&Context<'_>, &States, &mut Rates) -> (Step, Option<store::Record>) + Send + 'static,
    ) -> Result<Summary, store::Error> {
        let rates = snapshot.rates.clone();
        // So that what was not written does not count against the limits.
        let delta: Arc<Mutex<Option<RateDelta>>> = Arc::default();
        let slot = delta.clone();
        let result = self.0.store.transact(keys, move |view| {
            let mut rates = snapshot.rates.lock();
            if let Some(before) = slot.lock().take() {
                rates.rollback(before);
            }
            let (step, record) = step(&snapshot.context(view), &view.states, &mut rates);
            *slot.lock() = Some(rates.take_delta());
            let summary = Summary::from_decisions(&step.decisions);
            (changes(&snapshot.routes, step, record, rechecked.clone()), summary)
        });
        match result.await {
            Ok(summary) => {
                self.0.metrics.record_decisions(&summary);
                self.0.commits.send_replace(());
                Ok(summary)
            }
            Err(error) => {
                if let Some(delta) = delta.lock().take() {
                    rates.lock().rollback(delta);
                }
                Err(error)
            }
        }
    }

    /// Decides what comes due, when it does, until it is stopped.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut next = self.0.store.next_due();
        while !stop.is_cancelled() {
            let due = *next.borrow_and_update();
            let delay = due.map(|due| due.since(self.0.store.now()));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = next.changed() => if changed.is_err() { return },
                () = sleep(delay) => {
                    if let Err(error) = self.process_due().await {
                        tracing::error!(%error, "cannot decide what has come due; it is tried again");
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = tokio::time::sleep(STORE_RETRY_DELAY) => {}
                        }
                    }
                }
            }
        }
    }

    /// Decides all that is due by now.
    ///
    /// # Errors
    /// The store could not read or write.
    pub async fn process_due(&self) -> Result<(), store::Error> {
        loop {
            let keys = self.0.store.due(MAX_DUE_PER_TRANSACTION).await?;
            let last = keys.len() < MAX_DUE_PER_TRANSACTION;
            if keys.is_empty() {
                return Ok(());
            }
            let targets = keys.clone();
            let step = move |context: &Context<'_>, states: &States, rates: &mut Rates| {
                let step = engine::process_due(context, &targets, states, rates);
                let record = record::for_due(context.now, states, &step.decisions);
                (step, record)
            };
            let wanted = Keys { targets: keys.clone(), alerts: Vec::new() };
            self.transact(self.0.snapshot.load_full(), wanted, keys, step).await?;
            if last {
                return Ok(());
            }
        }
    }
}

/// Never, if there is nothing to wait for.
async fn sleep(delay: Option<Duration>) {
    match delay {
        // A little more than nothing, so that clocks that differ by less than a tick do not spin.
        Some(delay) => tokio::time::sleep(delay.max(Duration::from_millis(1))).await,
        None => std::future::pending().await,
    }
}

impl RuleSnapshot {
    fn new(
        rules: Arc<RuleTable>,
        sources: BTreeMap<Name, Source>,
        policy: Policy,
        rates: Arc<Mutex<Rates>>,
    ) -> Self {
        let route = |rule: &crate::domain::rule::Rule| {
            (rule.name.clone(), (Arc::from(rule.send_to.as_slice()), rule.max_event_bytes))
        };
        let routes = rules.rules().iter().map(route).collect();
        let beating = sources.values().filter(|source| !source.heartbeat.is_empty());
        let with_heartbeat = beating.map(|source| source.name.clone()).collect();
        let sources = sources.into_iter().map(|(name, source)| (name, Arc::new(source))).collect();
        Self { rules, sources, routes, policy, with_heartbeat, rates }
    }

    fn context<'a>(&'a self, view: &'a View) -> Context<'a> {
        Context {
            rules: &self.rules,
            now: view.now,
            created: view.created,
            policy: self.policy,
            controls: &view.controls,
            with_heartbeat: &self.with_heartbeat,
            undelivered_decreases: &view.undelivered_decreases,
        }
    }
}

/// What a step means for the store.
fn changes(routes: &Routes, step: Step, record: Option<store::Record>, rechecked: Vec<TargetKey>) -> Changes {
    let mut events = Vec::new();
    for event in step.decisions.iter().filter_map(|decision| decision.event.as_deref()) {
        // The engine only emits for rules of the table.
        let Some((destinations, max_bytes)) = routes.get(&event.rule) else { continue };
        events.push(NewEvent {
            target: event.key.clone(),
            destinations: destinations.clone(),
            increases_capacity: event.increases_capacity(),
            may_decrease_capacity: event.may_decrease_capacity(),
            episode_phase: Some(EpisodePhase { phase: event.phase, episode: event.episode.id.clone() }),
            body: EncodedEvent::new(event.encode(*max_bytes), event.header()),
        });
    }
    Changes { states: step.states, controls: step.controls.map(Arc::new), rechecked, record, events }
}
