//! From a notification to decisions in the store: evaluate, transact, wake.
//!
//! Rules are matched and templates rendered before the transaction; only the engine's step runs inside it.
//! Due targets are processed in the same way.

mod decision_log;
mod decision_query;
pub(crate) mod decision_view;
mod deferred_actions;
mod explain;
mod forgive;
mod rates;
mod reception;
mod reconciliation;
mod record;
mod simulator;
mod split;
#[cfg(test)]
mod tests;
pub(crate) mod withheld;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::control::{Controls, GapCause};
use crate::domain::engine::{self, Context, EvaluatedAlert, Input, Policy, States, Step};
use crate::domain::event::{Event, is_traceparent};
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::notification::{InvalidAlert, Notification};
use crate::domain::rate::Rates;
use crate::domain::size_limit::SizeLimit;
use crate::domain::source::Source;
use crate::domain::state::TargetState;
use crate::domain::summary::Summary;
use crate::domain::table::RuleTable;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;
use crate::domain::verdict::Decision;
use crate::store::{
    self, Changes, EpisodePhase, KeptNotification, Keys, NewEvent, Store, UnreadableStates, View,
};
use crate::telemetry::Metrics;
pub(crate) use decision_query::{Filter, Position};
pub(crate) use explain::{Explanation, MAX_ALERTS as MAX_EXPLAINED};
pub(crate) use forgive::Forgive;
use rates::{RateTransaction, SharedRates};
pub(crate) use reception::BootClock;
use reception::{Folded, GapTracker};
use reconciliation::Reconciliations;
pub(crate) use reconciliation::{PeerAnswers, Progress, Reconciled, Suppression};
pub(crate) use simulator::{Simulator, SimulatorError};

/// Due targets that are processed in one transaction.
const MAX_DUE_PER_TRANSACTION: usize = 100;
/// Delay before due targets are processed again after a store error.
const STORE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Processes notifications and due targets. Cheap to clone.
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    store: Store,
    /// The current rules. Each notification loads the snapshot once, so a reload never splits a notification.
    snapshot: ArcSwap<RuleSnapshot>,
    /// Recent emissions and reserved slots of this process, kept across reloads. Not used if the store has those of all
    /// processes.
    rates: Arc<SharedRates>,
    /// The reception gaps that are not committed yet.
    gaps: Arc<GapTracker>,
    /// What the Alertmanagers of sources have said last.
    reconciliations: Reconciliations,
    metrics: Metrics,
    /// When each source was last heard: the wall clock of its last accepted notification.
    heard: Mutex<BTreeMap<Name, Time>>,
    /// Notified after each commit of decisions.
    commits: watch::Sender<()>,
}

/// The configuration that decisions read, in addition to the store's view.
struct RuleSnapshot {
    rules: Arc<RuleTable>,
    sources: BTreeMap<Name, Arc<Source>>,
    routes: Routes,
    policy: Policy,
    /// Cancelled when the last user has dropped the snapshot.
    released: CancellationToken,
}

/// The routes by rule.
type Routes = HashMap<Name, Route, FixedState>;

/// Where a rule's events go.
struct Route {
    destinations: Arc<[Name]>,
    acting: Arc<[Name]>,
    /// The maximum size of an event.
    size_limit: SizeLimit,
}

impl Route {
    /// The destinations of an event, and the acting ones among them. A decrease goes to the acting destinations of the
    /// increases that it names in `reverts`, even if `send_to` has changed since. `states` are those after the step.
    fn of_event(&self, event: &Event, states: &[(TargetKey, TargetState)]) -> (Arc<[Name]>, Arc<[Name]>) {
        let state = states.iter().find(|(key, _)| *key == event.key).map(|(_, state)| state);
        let acting = state.and_then(|state| state.acting_destinations(&event.reverts));
        let is_same = |acting: &BTreeSet<&Name>| {
            acting.len() == self.acting.len() && self.acting.iter().all(|name| acting.contains(name))
        };
        let Some(acting) = acting.filter(|acting| !is_same(acting)) else {
            return (self.destinations.clone(), self.acting.clone());
        };
        let is_recorder = |name: &&Name| !self.acting.contains(name) && !acting.contains(name);
        let recorders = self.destinations.iter().filter(is_recorder);
        let destinations = acting.iter().copied().chain(recorders).cloned().collect();
        (destinations, acting.iter().copied().cloned().collect())
    }
}

/// A configured source with the rules that are active when the handle is created.
#[derive(Clone)]
pub struct SourceHandle {
    source: Arc<Source>,
    snapshot: Arc<RuleSnapshot>,
}

impl SourceHandle {
    /// The configured source, without its rules.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }
}

/// The rules that a reload has replaced.
pub struct RetiredRules {
    released: CancellationToken,
}

impl RetiredRules {
    /// Completes when no notification and no transaction uses them any more.
    pub fn released(&self) -> impl Future<Output = ()> + Send + use<> {
        self.released.clone().cancelled_owned()
    }
}

impl Bridge {
    /// A bridge over an open store, in a process that is never stopped.
    pub fn new(
        store: Store,
        rules: Arc<RuleTable>,
        sources: BTreeMap<Name, Source>,
        policy: Policy,
        metrics: Metrics,
    ) -> Self {
        Self::with_boot_clock(store, rules, sources, policy, metrics, Arc::new(|| Duration::ZERO))
    }

    /// A bridge over an open store.
    pub(crate) fn with_boot_clock(
        store: Store,
        rules: Arc<RuleTable>,
        sources: BTreeMap<Name, Source>,
        policy: Policy,
        metrics: Metrics,
        boot_clock: BootClock,
    ) -> Self {
        metrics.add_rules(&rules, &sources);
        let gaps = GapTracker::new(boot_clock, sources.keys().cloned().collect(), metrics.clone());
        let snapshot = ArcSwap::from_pointee(RuleSnapshot::new(rules, sources, policy));
        let commits = watch::Sender::new(());
        let (rates, gaps) = (Arc::default(), Arc::new(gaps));
        let heard = Mutex::new(store.last_kept());
        let reconciliations = Reconciliations::default();
        Self(Arc::new(Inner { store, snapshot, rates, gaps, reconciliations, metrics, heard, commits }))
    }

    /// The source of this name with the current rules; `None` if it is not configured.
    pub fn source(&self, name: &str) -> Option<SourceHandle> {
        let snapshot = self.0.snapshot.load_full();
        let source = snapshot.sources.get(name)?.clone();
        Some(SourceHandle { source, snapshot })
    }

    /// Replaces the rules. Notifications in progress finish with the previous rules; deferred actions that depend
    /// on the controls are rechecked.
    ///
    /// # Errors
    /// The new rules are active, but the store could not queue the recheck.
    pub async fn reload(
        &self,
        rules: Arc<RuleTable>,
        sources: BTreeMap<Name, Source>,
        policy: Policy,
    ) -> (RetiredRules, Result<(), store::Error>) {
        self.0.metrics.add_rules(&rules, &sources);
        self.0.gaps.set_sources(sources.keys().cloned().collect());
        let snapshot = Arc::new(RuleSnapshot::new(rules, sources, policy));
        let before = self.0.snapshot.swap(snapshot.clone());
        let retired_rules = RetiredRules { released: before.released.clone() };
        drop(before);
        let gaps = self.0.gaps.clone();
        let rechecked = self.0.store.transact(Keys::default(), move |view| {
            let mut controls = (*view.controls).clone();
            controls.bump_generation();
            controls.forget_heartbeats(&snapshot.sources, view.now);
            gaps.set_receiving(&mut controls);
            (Changes { controls: Some(Arc::new(controls)), ..Changes::default() }, ())
        });
        (retired_rules, rechecked.await)
    }

    /// Notified after each commit of decisions; a slow receiver sees several commits as one.
    pub fn subscribe_commits(&self) -> watch::Receiver<()> {
        self.0.commits.subscribe()
    }

    /// Processes a notification. When this returns `Ok`, all its decisions and deliveries are on disk.
    ///
    /// `traceparent` is the request's header; an invalid one is ignored.
    ///
    /// # Errors
    /// The store could not read or write. A notification of more than 1,000 alerts, or one about a target whose
    /// state cannot be read, may be processed in part; when it is sent again, that part yields duplicates.
    pub async fn ingest(
        &self,
        handle: &SourceHandle,
        notification: Notification,
        traceparent: Option<&str>,
    ) -> Result<Summary, store::Error> {
        self.ingest_and_keep(handle, notification, traceparent, None).await
    }

    /// Processes a notification, see [`Self::ingest`], and keeps its body in the first transaction of its decisions.
    ///
    /// # Errors
    /// See [`Self::ingest`].
    pub(crate) async fn ingest_and_keep(
        &self,
        handle: &SourceHandle,
        notification: Notification,
        traceparent: Option<&str>,
        mut kept: Option<KeptNotification>,
    ) -> Result<Summary, store::Error> {
        let SourceHandle { source, snapshot } = handle;
        let Notification { envelope, truncated_alerts, alerts, sent_at } = notification;
        self.0.reconciliations.learn_receiver(&source.name, &envelope.receiver);
        let traceparent = traceparent.filter(|text| is_traceparent(text)).map(str::to_owned);
        let count = alerts.len();
        let is_unknown = |alert: &Result<_, InvalidAlert>| {
            alert.as_ref().is_err_and(|invalid| invalid.fingerprint.is_none())
        };
        let has_unknown_alert = alerts.iter().any(is_unknown);
        let evaluate = {
            let (snapshot, source) = (snapshot.clone(), source.clone());
            let evaluate = move |alert| EvaluatedAlert::new(&snapshot.rules, &source, alert);
            move || alerts.into_iter().map(evaluate).collect::<Vec<_>>()
        };
        let evaluated = if count > split::MAX_ALERTS_PER_TRANSACTION {
            tokio::task::spawn_blocking(evaluate).await.map_err(|_| store::Error::Closed)?
        } else {
            evaluate()
        };
        self.0.metrics.record_alerts(&source.name, &evaluated);
        if has_unknown_alert {
            self.0.gaps.record(&source.name, GapCause::NoFingerprint, self.0.store.now());
        }
        let whole = Input {
            source: source.clone(),
            trigger: Arc::new(Trigger::new(&source.name, &envelope, traceparent)),
            truncated: truncated_alerts > 0,
            sent_at,
            alerts: evaluated,
        };
        let mut summary = Summary { alerts: count, ..Summary::default() };
        let mut refused = None;
        for input in split::split(&self.0.store, whole).await? {
            summary.add(self.decide_readable(snapshot, input, &mut kept, &mut refused).await?);
        }
        // Everything else is committed: when Alertmanager sends the notification again, that part yields duplicates.
        refused.map_or(Ok(summary), |unreadable| Err(store::Error::Unreadable(unreadable)))
    }

    /// Decides all alerts but those about targets whose states cannot be read, which are added to `refused`. The first
    /// transaction that succeeds takes `kept`.
    async fn decide_readable(
        &self,
        snapshot: &Arc<RuleSnapshot>,
        input: Input,
        kept: &mut Option<KeptNotification>,
        refused: &mut Option<UnreadableStates>,
    ) -> Result<Summary, store::Error> {
        let mut input = Arc::new(input);
        loop {
            let keys = Keys { targets: input.target_keys(), alerts: input.alert_keys() };
            let work = Work::Notification(input.clone(), kept.clone());
            let unreadable = match self.transact(snapshot.clone(), keys, work).await {
                Err(store::Error::Unreadable(unreadable)) => unreadable,
                decided => {
                    if decided.is_ok() {
                        *kept = None;
                    }
                    return decided;
                }
            };
            let rest = input.without(&unreadable.targets, &unreadable.alerts);
            if rest.alerts.len() == input.alerts.len() {
                return Err(store::Error::Unreadable(unreadable));
            }
            refused.get_or_insert_default().extend(unreadable);
            if rest.alerts.is_empty() {
                return Ok(Summary::default());
            }
            input = Arc::new(rest);
        }
    }

    /// Runs one step of the engine in a transaction. The step reads the controls with all reception gaps; they are
    /// committed with it if it changes the controls, or if that is due.
    async fn transact(
        &self,
        snapshot: Arc<RuleSnapshot>,
        keys: Keys,
        work: Work,
    ) -> Result<Summary, store::Error> {
        let rates = RateTransaction::new(self.0.rates.clone());
        let (step_rates, gaps) = (rates.clone(), self.0.gaps.clone());
        let result = self.0.store.transact(keys, move |view| {
            let folded = gaps.fold(&view.controls, view.now);
            let controls = folded.as_ref().map_or(&*view.controls, |folded| &folded.controls);
            let mut step = step_rates.run(view.rates.as_ref(), |rates| {
                work.step(&snapshot.context(view, controls, rates), &view.states)
            });
            let writes = |_: &Folded| step.controls.is_some() || gaps.claim_write(view.now);
            let folded = folded.filter(writes).map(|Folded { controls, gaps }| {
                step.controls.get_or_insert(controls);
                (gaps, view.now)
            });
            let record = work.record(view, &step.decisions);
            let summary = Summary::from_decisions(&step.decisions);
            let lines = decision_log::lines(&step, view.clock());
            let mut changes = changes(&snapshot.routes, step, record, work.rechecked());
            changes.notification = work.kept();
            (changes, (summary, lines, folded))
        });
        match result.await {
            Ok((summary, lines, folded)) => {
                lines.log();
                if let Some((folded, now)) = folded {
                    self.0.gaps.committed(folded, now);
                }
                self.0.metrics.record_decisions(&summary);
                self.0.commits.send_replace(());
                Ok(summary)
            }
            Err(error) => {
                rates.rollback();
                Err(error)
            }
        }
    }

    /// Processes targets when they are due, until `stop` is cancelled.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut next = self.0.store.next_due();
        let mut is_failing = false;
        while !stop.is_cancelled() {
            let due = *next.borrow_and_update();
            let delay = due.map(|due| due.since(self.0.store.now()));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = next.changed() => if changed.is_err() { return },
                is_due = sleep(delay) => {
                    if !is_due {
                        continue;
                    }
                    let processed = self.process_due_targets().await;
                    let was_failing = std::mem::replace(&mut is_failing, processed.is_err());
                    if let Err((target, error)) = processed {
                        let target = target.as_ref().map(TargetKey::as_str);
                        if !was_failing {
                            tracing::error!(target, %error, "processing due targets failed, retrying");
                        }
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = tokio::time::sleep(STORE_RETRY_DELAY) => {}
                        }
                    }
                }
            }
        }
    }

    /// Processes the targets of decreases that are about to be called, if a reception gap is not committed yet: their last
    /// decisions may not have considered it. Decreases that the gap blocks are cancelled.
    ///
    /// # Errors
    /// The store could not read or write.
    pub(crate) async fn recheck_before_call(&self, targets: Vec<TargetKey>) -> Result<(), store::Error> {
        if !self.0.gaps.has_pending(self.0.store.now()) {
            return Ok(());
        }
        let keys = Keys { targets: targets.clone(), alerts: Vec::new() };
        self.transact(self.0.snapshot.load_full(), keys, Work::Due(targets)).await.map(drop)
    }

    /// Processes all targets that are due now.
    ///
    /// # Errors
    /// The store could not read or write.
    pub async fn process_due(&self) -> Result<(), store::Error> {
        self.process_due_targets().await.map_err(|(_, error)| error)
    }

    /// An error comes with the first target of its transaction.
    async fn process_due_targets(&self) -> Result<(), (Option<TargetKey>, store::Error)> {
        loop {
            let due = self.0.store.due(MAX_DUE_PER_TRANSACTION).await;
            let keys = due.map_err(|error| (None, error))?;
            let last = keys.len() < MAX_DUE_PER_TRANSACTION;
            if keys.is_empty() {
                return Ok(());
            }
            let first = keys.first().cloned();
            let read = Keys { targets: keys.clone(), alerts: Vec::new() };
            let done = self.transact(self.0.snapshot.load_full(), read, Work::Due(keys)).await;
            done.map_err(|error| (first, error))?;
            if last {
                return Ok(());
            }
        }
    }
}

/// Returns whether the delay is over: a long one is interrupted, to be calculated anew. Never completes without a delay.
async fn sleep(delay: Option<Duration>) -> bool {
    match delay {
        // At least a millisecond, so that the loop does not spin if the clocks differ by less than a tick.
        Some(delay) => {
            tokio::time::sleep(delay.clamp(Duration::from_millis(1), store::MAX_SLEEP)).await;
            delay <= store::MAX_SLEEP
        }
        None => std::future::pending().await,
    }
}

impl Drop for RuleSnapshot {
    fn drop(&mut self) {
        self.released.cancel();
    }
}

impl RuleSnapshot {
    fn new(rules: Arc<RuleTable>, sources: BTreeMap<Name, Source>, policy: Policy) -> Self {
        let route = |rule: &crate::domain::rule::Rule| {
            let route = Route {
                destinations: Arc::from(rule.send_to.as_slice()),
                acting: Arc::from(rule.acting.as_slice()),
                size_limit: rule.size_limit,
            };
            (rule.name.clone(), route)
        };
        let routes = rules.rules().iter().map(route).collect();
        let sources = sources.into_iter().map(|(name, source)| (name, Arc::new(source))).collect();
        let released = CancellationToken::new();
        Self { rules, sources, routes, policy, released }
    }

    fn context<'a>(&'a self, view: &'a View, controls: &'a Controls, rates: &'a Rates) -> Context<'a> {
        Context {
            rules: &self.rules,
            now: view.now,
            wall: view.wall,
            created: view.created,
            policy: self.policy,
            controls,
            rates,
            sources: &self.sources,
            deliveries: &view.deliveries,
            incarnation: view.incarnation,
            keeps_unknown_rules: view.has_newer_configuration,
        }
    }
}

/// What a step of the engine processes.
enum Work {
    /// The alerts of a notification, or of a chunk of a large one, and the body to keep.
    Notification(Arc<Input>, Option<KeptNotification>),
    /// Targets that are due, whose deferred actions the step re-evaluates.
    Due(Vec<TargetKey>),
}

impl Work {
    fn step(&self, context: &Context<'_>, states: &States) -> Step {
        match self {
            Self::Notification(input, _) => engine::process_notification(context, input, states),
            Self::Due(targets) => engine::process_due(context, targets, states),
        }
    }

    fn record(&self, view: &View, decisions: &[Decision]) -> Option<store::Record> {
        match self {
            Self::Notification(input, _) => {
                record::for_notification(view.clock(), input, &view.states, decisions)
            }
            Self::Due(_) => record::for_due(view.clock(), &view.states, decisions),
        }
    }

    fn kept(&self) -> Option<KeptNotification> {
        match self {
            Self::Notification(_, kept) => kept.clone(),
            Self::Due(_) => None,
        }
    }

    /// The targets that leave the recheck queue.
    fn rechecked(&self) -> Vec<TargetKey> {
        match self {
            Self::Notification(..) => Vec::new(),
            Self::Due(targets) => targets.clone(),
        }
    }
}

/// Converts the result of an engine step to changes of the store.
fn changes(routes: &Routes, step: Step, record: Option<store::Record>, rechecked: Vec<TargetKey>) -> Changes {
    let mut events = Vec::new();
    for event in step.decisions.iter().filter_map(|decision| decision.event.as_deref()) {
        // The engine only emits for rules of the table.
        let Some(route) = routes.get(&event.rule) else { continue };
        let (destinations, acting) = route.of_event(event, &step.states);
        events.push(NewEvent {
            target: event.key.clone(),
            destinations,
            acting,
            may_decrease_capacity: event.may_decrease_capacity(),
            reverts: event.reverts.as_slice().into(),
            episode_phase: Some(EpisodePhase { phase: event.phase, episode: event.episode.id.clone() }),
            body: EncodedEvent::new(event.encode(route.size_limit), event.header()),
        });
    }
    let controls = step.controls.map(Arc::new);
    Changes {
        states: step.states,
        controls,
        rechecked,
        record,
        notification: None,
        events,
        delivery_changes: step.delivery_changes,
        rates: step.rates,
        audit: None,
    }
}
