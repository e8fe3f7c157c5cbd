//! From a notification to decisions in the store: evaluate, transact, wake.
//!
//! Rules are matched and templates rendered before the transaction; only the engine's step is inside
//! it. What comes due by the store's clock goes the same way.

mod chunks;
mod explain;
mod journal;
mod operate;
mod record;
mod rehearsal;
pub mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::engine::{self, Context, EvaluatedAlert, Input, Policy, States, Step};
use crate::domain::event::is_traceparent;
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::notification::Notification;
use crate::domain::rate::{RateDelta, Rates};
use crate::domain::source::Source;
use crate::domain::state::Trigger;
use crate::domain::summary::Summary;
use crate::domain::table::RuleTable;
use crate::domain::target::TargetKey;
use crate::store::{self, Changes, EpisodePhase, Keys, NewEvent, Store, View};
use crate::telemetry::Metrics;
pub use explain::{Explanation, MAX_ALERTS as MAX_EXPLAINED};
pub use journal::{Filter, Page, Position};
pub use operate::PauseRequest;
pub use rehearsal::{Rehearsal, RehearsalError};

/// Targets that come due and are decided in one transaction.
const DUE_AT_ONCE: usize = 100;
/// Pause after a store that could not do it.
const PAUSE: Duration = Duration::from_secs(1);

/// Decides what arrives and what comes due. Cheap to clone.
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    store: Store,
    /// As it is now. Who decides takes hold of it once, so that a reload never splits a notification.
    deciding: ArcSwap<Deciding>,
    metrics: Metrics,
    /// Changes with each commit of decisions.
    decided: watch::Sender<()>,
}

/// What every decision reads, beside the store's view.
struct Deciding {
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
pub struct Speaker {
    source: Arc<Source>,
    deciding: Arc<Deciding>,
}

impl Speaker {
    /// The source.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }
}

/// The rules that were before a reload.
pub struct Former(Weak<Deciding>);

impl Former {
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
        let deciding = Deciding::new(rules, sources, policy, Arc::default());
        let decided = watch::Sender::new(());
        Self(Arc::new(Inner { store, deciding: ArcSwap::from_pointee(deciding), metrics, decided }))
    }

    /// A configured source.
    pub fn source(&self, name: &str) -> Option<Speaker> {
        let deciding = self.0.deciding.load_full();
        let source = deciding.sources.get(name)?.clone();
        Some(Speaker { source, deciding })
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
    ) -> (Former, Result<(), store::Error>) {
        let rates = self.0.deciding.load().rates.clone();
        let former = self.0.deciding.swap(Arc::new(Deciding::new(rules, sources, policy, rates)));
        let looked_at = self.0.store.transact(Keys::default(), |view| {
            let mut controls = (*view.controls).clone();
            controls.bump_generation();
            (Changes { controls: Some(Arc::new(controls)), ..Changes::default() }, ())
        });
        (Former(Arc::downgrade(&former)), looked_at.await)
    }

    /// Completes each time when decisions were committed; who is late is told once.
    pub fn decided(&self) -> watch::Receiver<()> {
        self.0.decided.subscribe()
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
        speaker: &Speaker,
        notification: Notification,
        traceparent: Option<&str>,
    ) -> Result<Summary, store::Error> {
        let Speaker { source, deciding } = speaker;
        let Notification { envelope, truncated_alerts, alerts } = notification;
        let traceparent = traceparent.filter(|text| is_traceparent(text)).map(str::to_owned);
        let count = alerts.len();
        let judge = {
            let (deciding, source) = (deciding.clone(), source.clone());
            let judge = move |alert| EvaluatedAlert::new(&deciding.rules, &source, alert);
            move || alerts.into_iter().map(judge).collect::<Vec<_>>()
        };
        let judged = if count > chunks::AT_ONCE {
            tokio::task::spawn_blocking(judge).await.map_err(|_| store::Error::Closed)?
        } else {
            judge()
        };
        self.0.metrics.record_alerts(&source.name, &judged);
        let whole = Input {
            source: source.clone(),
            trigger: Arc::new(Trigger::new(&source.name, &envelope, traceparent)),
            truncated: truncated_alerts > 0,
            alerts: judged,
        };
        let mut summary = Summary { alerts: count, ..Summary::default() };
        for input in chunks::split(&self.0.store, whole).await? {
            summary.add(self.decide(deciding, input).await?);
        }
        Ok(summary)
    }

    async fn decide(&self, deciding: &Arc<Deciding>, input: Input) -> Result<Summary, store::Error> {
        let keys = Keys { targets: input.target_keys(), alerts: input.alert_keys() };
        let step = move |context: &Context<'_>, states: &States, rates: &mut Rates| {
            let step = engine::process_notification(context, &input, states, rates);
            let record = record::of_notification(context.now, &input, states, &step.decisions);
            (step, record)
        };
        self.transact(deciding.clone(), keys, Vec::new(), step).await
    }

    /// One transaction of the engine. `looked_at` are the targets at which it looks at all that waits.
    async fn transact(
        &self,
        deciding: Arc<Deciding>,
        keys: Keys,
        looked_at: Vec<TargetKey>,
        step: impl Fn(&Context<'_>, &States, &mut Rates) -> (Step, Option<store::Record>) + Send + 'static,
    ) -> Result<Summary, store::Error> {
        let rates = deciding.rates.clone();
        // So that what was not written does not count against the limits.
        let noted: Arc<Mutex<Option<RateDelta>>> = Arc::default();
        let slot = noted.clone();
        let result = self.0.store.transact(keys, move |view| {
            let mut rates = lock(&deciding.rates);
            if let Some(before) = lock(&slot).take() {
                rates.rollback(before);
            }
            let (step, record) = step(&deciding.context(view), &view.states, &mut rates);
            *lock(&slot) = Some(rates.take_delta());
            let summary = Summary::from_decisions(&step.decisions);
            (changes(&deciding.routes, step, record, looked_at.clone()), summary)
        });
        match result.await {
            Ok(summary) => {
                self.0.metrics.record_decisions(&summary);
                self.0.decided.send_replace(());
                Ok(summary)
            }
            Err(error) => {
                if let Some(noted) = lock(&noted).take() {
                    lock(&rates).rollback(noted);
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
            let lapse = due.map(|due| due.since(self.0.store.now()));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = next.changed() => if changed.is_err() { return },
                () = sleep(lapse) => {
                    if let Err(error) = self.come_due().await {
                        tracing::error!(%error, "cannot decide what has come due; it is tried again");
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = tokio::time::sleep(PAUSE) => {}
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
    pub async fn come_due(&self) -> Result<(), store::Error> {
        loop {
            let keys = self.0.store.due(DUE_AT_ONCE).await?;
            let last = keys.len() < DUE_AT_ONCE;
            if keys.is_empty() {
                return Ok(());
            }
            let targets = keys.clone();
            let step = move |context: &Context<'_>, states: &States, rates: &mut Rates| {
                let step = engine::process_due(context, &targets, states, rates);
                let record = record::of_what_came_due(context.now, states, &step.decisions);
                (step, record)
            };
            let wanted = Keys { targets: keys.clone(), alerts: Vec::new() };
            self.transact(self.0.deciding.load_full(), wanted, keys, step).await?;
            if last {
                return Ok(());
            }
        }
    }
}

/// Never, if there is nothing to wait for.
async fn sleep(lapse: Option<Duration>) {
    match lapse {
        // A little more than nothing, so that clocks that differ by less than a tick do not spin.
        Some(lapse) => tokio::time::sleep(lapse.max(Duration::from_millis(1))).await,
        None => std::future::pending().await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deciding {
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
fn changes(routes: &Routes, step: Step, record: Option<store::Record>, looked_at: Vec<TargetKey>) -> Changes {
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
    Changes {
        states: step.states,
        controls: step.controls.map(Arc::new),
        rechecked: looked_at,
        record,
        events,
    }
}
