//! The workers of all destinations: started, replaced, and retired. See [`retirement`](super::retirement).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::aws::CredentialsReload;
use super::file::ProtectedFiles;
use super::retirement::{Retirement, RetirementHandle, RulesReleased, StillRetiring};
use super::worker::WorkerHandle;
use super::{
    Clients, ConnectedDestination, DeliveryReport, DestinationSettings, DestinationStatuses, Failure,
    Observer, Options, Outcome, Withholding, Worker as DeliveryWorker,
};
use crate::config::{self, OwnFiles};
use crate::domain::name::Name;
use crate::store::{self, Store};
use crate::telemetry::{DeliveryMetrics, Metrics};

/// The maximum time to wait for the retirement of destinations that are configured again, in total.
const RETIREMENT_TIMEOUT: Duration = Duration::from_secs(10);

type Settings = config::Destination<DestinationSettings>;
type Worker = DeliveryWorker<Store, ConnectedDestination, WorkerObserver>;

/// The workers of all destinations.
pub(crate) struct Workers {
    tasks: JoinSet<(Name, bool)>,
    running: BTreeMap<Name, RunningWorker>,
    retiring: BTreeMap<Name, RetirementHandle>,
    stop: CancellationToken,
    store: Store,
    metrics: Metrics,
    statuses: DestinationStatuses,
    withholding: Withholding,
    credentials: CredentialsReload,
    own_files: ProtectedFiles,
}

struct RunningWorker {
    settings: Settings,
    handle: WorkerHandle,
}

/// A worker with a connected destination, not started.
pub(crate) struct PreparedWorker {
    settings: Settings,
    worker: Worker,
}

impl Workers {
    /// Events that `withholding` covers are not sent meanwhile.
    pub(crate) fn new(
        store: Store,
        metrics: Metrics,
        statuses: DestinationStatuses,
        withholding: Withholding,
    ) -> Self {
        Self {
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            retiring: BTreeMap::new(),
            stop: CancellationToken::new(),
            store,
            metrics,
            statuses,
            withholding,
            credentials: CredentialsReload::default(),
            own_files: ProtectedFiles::default(),
        }
    }

    /// No destination writes to these files, from now on.
    pub(crate) fn protect(&self, own_files: OwnFiles) {
        self.own_files.store(Arc::new(own_files));
    }

    /// Connects the destinations that are new or have changed. Does not start or stop any worker. All credentials are
    /// loaded anew.
    ///
    /// # Errors
    /// A destination cannot be connected. Missing or unreachable queues and functions are not detected here.
    pub(crate) async fn prepare(
        &self,
        destinations: &BTreeMap<Name, Settings>,
    ) -> anyhow::Result<Vec<PreparedWorker>> {
        self.credentials.renew();
        let mut clients = Clients::new(self.credentials.clone(), self.own_files.clone());
        let mut prepared = Vec::new();
        for (name, settings) in destinations {
            if self.running.get(name).is_some_and(|running| running.settings == *settings) {
                continue;
            }
            let connected = clients.connect(settings).await?;
            let options =
                Options::new(settings, fastrand::u64(..)).with_context(|| format!("destination {name}"))?;
            let (metrics, statuses) = (self.metrics.clone(), self.statuses.clone());
            let observer = WorkerObserver { deliveries: metrics.delivery_metrics(name), metrics, statuses };
            let worker = Worker::new(options, self.store.clone(), connected, observer);
            let worker = worker.withholding(self.withholding.clone());
            prepared.push(PreparedWorker { settings: settings.clone(), worker });
        }
        Ok(prepared)
    }

    /// Starts a worker. The previous worker of the destination settles its claimed deliveries first, which
    /// preserves the order of events of a target.
    pub(crate) fn start(&mut self, prepared: PreparedWorker) {
        let PreparedWorker { settings, worker } = prepared;
        let name = settings.name.clone();
        let (handle, guard) = WorkerHandle::new(&self.stop);
        let previous = self.running.insert(name.clone(), RunningWorker { settings, handle });
        let replacement = previous.map(|previous| {
            Retirement::of_replaced(name.clone(), self.store.clone(), previous.handle, self.stop.clone())
        });
        self.metrics.set_destination_up(&name, true);
        self.statuses.remove(&name);
        self.tasks.spawn(async move {
            if let Some(replacement) = replacement {
                replacement.run().await;
            }
            worker.run(guard.stop().clone()).await;
            (name, guard.stop().is_cancelled())
        });
    }

    /// The destinations with a worker.
    pub(crate) fn names(&self) -> Vec<Name> {
        self.running.keys().cloned().collect()
    }

    /// Retires a destination that was removed from the configuration, in the background, and continues after a restart
    /// if the process stops meanwhile. Events that are enqueued until `rules_released` completes are part of it.
    pub(crate) fn retire(&mut self, destination: &Name, rules_released: RulesReleased) {
        let Some(RunningWorker { handle, .. }) = self.running.remove(destination) else { return };
        let (name, store, stop) = (destination.clone(), self.store.clone(), self.stop.clone());
        self.run_retirement(destination, Retirement::of_removed(name, store, handle, rules_released, stop));
    }

    /// Retires the destinations that have undelivered events and are not configured.
    ///
    /// # Errors
    /// The store could not read or write.
    pub(crate) async fn retire_orphans(&mut self) -> Result<(), store::Error> {
        for name in self.store.orphaned_destinations().await? {
            self.store.add_destinations(std::slice::from_ref(&name)).await?;
            let (store, stop) = (self.store.clone(), self.stop.clone());
            self.run_retirement(&name, Retirement::of_orphan(name.clone(), store, stop));
        }
        Ok(())
    }

    fn run_retirement(&mut self, destination: &Name, retirement: Retirement<Store>) {
        let (name, statuses, metrics) = (destination.clone(), self.statuses.clone(), self.metrics.clone());
        let retirement = retirement.then(move || {
            statuses.remove(&name);
            metrics.remove_destination(&name);
        });
        self.retiring.insert(destination.clone(), retirement.handle());
        tokio::spawn(retirement.run());
    }

    /// Waits until none of these destinations is being retired, so that they can be added again.
    ///
    /// # Errors
    /// One of them still is, after a bounded time.
    pub(crate) async fn wait_retired(
        &mut self,
        destinations: impl IntoIterator<Item = &Name>,
    ) -> Result<(), StillRetiring> {
        self.retiring.retain(|_, retirement| !retirement.is_over());
        let deadline = tokio::time::Instant::now() + RETIREMENT_TIMEOUT;
        for name in destinations {
            if let Some(retirement) = self.retiring.get_mut(name)
                && !retirement.wait_retired(deadline).await
            {
                return Err(StillRetiring(name.clone()));
            }
        }
        Ok(())
    }

    /// Completes when a worker has ended without a request: a bug, after which the process exits instead of
    /// delivering to some destinations only.
    pub(crate) async fn wait_for_failure(&mut self) -> anyhow::Error {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((_, true))) => {}
                Some(Ok((name, false))) => {
                    return anyhow::anyhow!("the delivery worker of {name} stopped unexpectedly");
                }
                Some(Err(error)) => return anyhow::Error::new(error).context("a delivery worker panicked"),
                None => std::future::pending().await,
            }
        }
    }

    /// Stops claiming and retiring, and waits for deliveries in flight until `deadline`. Unfinished ones are sent
    /// again after the next start.
    pub(crate) async fn stop(mut self, deadline: Instant) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline.into(), all).await.is_err() {
            tracing::warn!("deliveries still in progress at shutdown");
        }
    }
}

/// Passes the results of workers to the metrics and the status.
struct WorkerObserver {
    deliveries: DeliveryMetrics,
    metrics: Metrics,
    statuses: DestinationStatuses,
}

impl Observer for WorkerObserver {
    fn on_delivery(&self, destination: &Name, delivery: &DeliveryReport<'_>) {
        match delivery.outcome {
            Outcome::Delivered => self.deliveries.record_delivered(),
            outcome => {
                self.deliveries.record_undelivered(outcome.as_str());
                self.statuses.on_undelivered(destination, delivery.completed_at);
            }
        }
        if let Some(duration) = delivery.call_duration {
            self.deliveries.observe_call(duration);
        }
        let started = delivery.header.and_then(|header| header.oldest_starts_at);
        if let (Outcome::Delivered, Some(started)) = (delivery.outcome, started) {
            self.deliveries.observe_alert_to_delivery(delivery.completed_at.since(started));
        }
    }

    fn on_health_change(&self, destination: &Name, failing: Option<&Failure>) {
        self.metrics.set_destination_up(destination, failing.is_none());
        self.statuses.set(destination, failing);
    }
}
