//! Asks the Alertmanagers of sources what fires, one task for each source that has any.
//!
//! They are asked at the start, after a reception gap, and each minute besides: silences and inhibitions are shown as they
//! were said last, and open alerts of which nothing was heard for long do not expire while they fire. What is done with the
//! answers is decided in `bridge/reconciliation.rs`. Nothing waits for a task, and one that fails goes on later.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::background::when_receiving;
use crate::bridge::{Bridge, PeerAnswers, Progress, Reconciled};
use crate::config::AlertmanagerApi;
use crate::domain::name::Name;
use crate::domain::retry::Backoff;
use crate::kinds::Settings;
use crate::telemetry::{Metrics, ReconciliationResult};
use client::Peers;

/// The interval at which an Alertmanager is asked while nothing is missing. A tenth of it more or less is chosen at random.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// An Alertmanager that needs long to answer is asked less often: the rest after an answer is this many times as long.
const MAX_LOAD: u32 = 20;
/// But no longer than this.
const MAX_REST: Duration = Duration::from_mins(10);
/// The interval after which a reception gap is noticed.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest interval between two questions because of new reception gaps.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// While something is missing or no Alertmanager answers.
const BACKOFF: Backoff = match Backoff::new(Duration::from_secs(4), REFRESH_INTERVAL) {
    Ok(backoff) => backoff,
    Err(_) => panic!("the initial delay exceeds the maximum"),
};
/// Sources whose Alertmanagers are asked at the same time. It bounds the memory for answers.
const MAX_CONCURRENT: usize = 4;

/// The tasks.
pub(super) struct Reconcilers {
    bridge: Bridge,
    metrics: Metrics,
    /// Cancelled when notifications are accepted.
    receiving: CancellationToken,
    /// Stops the tasks.
    background: CancellationToken,
    turns: Arc<Semaphore>,
    running: BTreeMap<Name, (AlertmanagerApi, CancellationToken)>,
}

impl Reconcilers {
    pub(super) fn new(
        bridge: Bridge,
        metrics: Metrics,
        receiving: CancellationToken,
        background: CancellationToken,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(MAX_CONCURRENT));
        Self { bridge, metrics, receiving, background, turns, running: BTreeMap::new() }
    }

    /// Starts and stops tasks, so that there is one for each source with Alertmanagers. Those with the same settings go on.
    pub(super) fn apply(&mut self, settings: &Settings) {
        self.running.retain(|name, (api, stop)| {
            let stays = settings.alertmanagers.get(name) == Some(api);
            if !stays {
                stop.cancel();
            }
            stays
        });
        let names: BTreeSet<Name> = settings.alertmanagers.keys().cloned().collect();
        self.bridge.set_reconciled_sources(&names);
        for (name, api) in &settings.alertmanagers {
            if self.running.contains_key(name) {
                continue;
            }
            let stop = self.background.child_token();
            self.running.insert(name.clone(), (api.clone(), stop.clone()));
            let task = Reconciler {
                bridge: self.bridge.clone(),
                metrics: self.metrics.clone(),
                source: name.clone(),
                receivers: api.receivers.clone(),
                peers: Peers::new(name.clone(), api),
                turns: self.turns.clone(),
                progress: Progress::default(),
                failures: 0,
                took: Duration::ZERO,
            };
            drop(when_receiving(&self.receiving, &stop, move |stop| async move {
                stop.run_until_cancelled(task.run()).await;
            }));
        }
    }
}

/// The task of one source.
struct Reconciler {
    bridge: Bridge,
    metrics: Metrics,
    source: Name,
    receivers: BTreeSet<String>,
    peers: Peers,
    turns: Arc<Semaphore>,
    progress: Progress,
    /// How often in a row it has failed, or something was missing.
    failures: u32,
    /// How long the last answers took.
    took: Duration,
}

impl Reconciler {
    async fn run(mut self) {
        loop {
            let result = self.reconcile().await;
            if let Some(result) = result {
                self.metrics.record_reconciliation(&self.source, result);
            }
            let is_missing = self.bridge.may_have_missed(&self.source, &self.progress);
            let is_settled = !is_missing && !matches!(result, Some(ReconciliationResult::Failed));
            self.failures = if is_settled { 0 } else { self.failures.saturating_add(1) };
            let delay = match is_settled {
                true => REFRESH_INTERVAL.mul_f64(0.9 + 0.2 * fastrand::f64()),
                // Not less than half: what is missing may need a moment.
                false => BACKOFF.delay(self.failures, 0.5 + 0.5 * fastrand::f64()),
            };
            let rest = (self.took * MAX_LOAD).min(MAX_REST);
            self.wait(delay.max(rest), is_missing).await;
        }
    }

    /// Waits for `delay`, or until there is a new reception gap.
    async fn wait(&self, delay: Duration, was_missing: bool) {
        let started = Instant::now();
        loop {
            let rest = delay.saturating_sub(started.elapsed());
            if rest.is_zero() {
                return;
            }
            tokio::time::sleep(rest.min(TICK_INTERVAL)).await;
            let is_new = !was_missing && self.bridge.may_have_missed(&self.source, &self.progress);
            if is_new && started.elapsed() >= MIN_INTERVAL {
                return;
            }
        }
    }

    /// Asks once. `None` if there is nothing to ask for, or the source is not configured any more.
    async fn reconcile(&mut self) -> Option<ReconciliationResult> {
        let receivers = match self.receivers.is_empty() {
            true => self.bridge.known_receivers(&self.source),
            false => self.receivers.clone(),
        };
        if receivers.is_empty() {
            return None;
        }
        let _turn = self.turns.acquire().await.ok()?;
        let started = Instant::now();
        let at = self.bridge.clock();
        let with_status = self.bridge.may_have_missed(&self.source, &self.progress);
        let answers = self.peers.ask(&receivers, with_status).await;
        // One that does not answer has no work with it.
        self.took = if answers.reports.is_empty() { Duration::ZERO } else { started.elapsed() };
        if answers.reports.is_empty() {
            self.bridge.record_reconciliation_error(&self.source, answers.error);
            return Some(ReconciliationResult::Failed);
        }
        let asked = PeerAnswers { at, receivers, reports: answers.reports };
        let reconciled = self.bridge.reconcile(&self.source, asked, &mut self.progress).await;
        let failed = reconciled.as_ref().err().map(|error| format!("processing the answer failed: {error}"));
        let errors: Vec<String> = answers.error.into_iter().chain(failed).collect();
        let error = (!errors.is_empty()).then(|| errors.join("; "));
        self.bridge.record_reconciliation_error(&self.source, error);
        match reconciled {
            Ok(reconciled) => {
                let reconciled = reconciled?;
                self.log(&reconciled);
                Some(match reconciled {
                    Reconciled { opened: 1.., .. } => ReconciliationResult::Opened,
                    Reconciled { agrees: true, .. } => ReconciliationResult::Agreed,
                    Reconciled { .. } => ReconciliationResult::Differed,
                })
            }
            Err(error) => {
                tracing::debug!(source = %self.source, %error, "reconciliation failed in the store");
                Some(ReconciliationResult::Failed)
            }
        }
    }

    fn log(&self, reconciled: &Reconciled) {
        let source = &self.source;
        if reconciled.opened > 0 {
            tracing::info!(%source, count = reconciled.opened, "alerts fire of which no notification was received");
        }
        if let Some(gap) = reconciled.ended_gap {
            let (from, until) = (gap.from.millis(), gap.until.millis());
            tracing::info!(
                %source, cause = %gap.cause, %from, %until,
                "nothing of a reception gap is missing, decreases do not wait for it"
            );
        }
    }
}
