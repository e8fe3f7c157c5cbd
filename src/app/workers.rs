//! The delivery workers, one per destination, and their observer.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::dispatch::{
    Clients, ConnectedDestination, DeliveryReport, DestinationStatuses, Failure, Observer, Options, Outcome,
    Worker as DeliveryWorker,
};
use crate::domain::name::Name;
use crate::kinds::Destination;
use crate::store::Store;
use crate::telemetry::{DeliveryMetrics, Metrics};

type Worker = DeliveryWorker<Store, ConnectedDestination, WorkerObserver>;

/// The workers of all destinations.
pub(super) struct Workers {
    tasks: JoinSet<(Name, bool)>,
    running: BTreeMap<Name, RunningWorker>,
    stop: CancellationToken,
    store: Store,
    metrics: Metrics,
    statuses: DestinationStatuses,
}

struct RunningWorker {
    settings: Destination,
    stop: CancellationToken,
    /// Cancelled when the worker has ended.
    done: CancellationToken,
}

/// A worker with a connected destination, not started.
pub(super) struct PreparedWorker {
    settings: Destination,
    worker: Worker,
}

impl Workers {
    pub(super) fn new(store: Store, metrics: Metrics, statuses: DestinationStatuses) -> Self {
        let (tasks, running, stop) = (JoinSet::new(), BTreeMap::new(), CancellationToken::new());
        Self { tasks, running, stop, store, metrics, statuses }
    }

    /// Connects the destinations that are new or have changed. Does not start or stop any worker.
    ///
    /// # Errors
    /// A destination cannot be connected. Missing or unreachable queues and functions are not detected here.
    pub(super) async fn prepare(
        &self,
        destinations: &BTreeMap<Name, Destination>,
    ) -> anyhow::Result<Vec<PreparedWorker>> {
        let mut clients = Clients::default();
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
            prepared.push(PreparedWorker { settings: settings.clone(), worker });
        }
        Ok(prepared)
    }

    /// Starts a worker. The previous worker of the destination settles its claimed deliveries first, which
    /// preserves the order of events of a target.
    pub(super) fn start(&mut self, prepared: PreparedWorker) {
        let PreparedWorker { settings, worker } = prepared;
        let name = settings.name.clone();
        let previous = self.running.remove(&name).map(|previous| {
            previous.stop.cancel();
            previous.done
        });
        let (stop, done) = (self.stop.child_token(), CancellationToken::new());
        self.running.insert(name.clone(), RunningWorker { settings, stop: stop.clone(), done: done.clone() });
        self.metrics.set_destination_up(&name, true);
        self.statuses.remove(&name);
        let store = self.store.clone();
        self.tasks.spawn(async move {
            let _done = done.drop_guard();
            if let Some(previous) = previous {
                previous.cancelled().await;
                if let Err(error) = store.release_claims(&name) {
                    tracing::error!(%error, destination = %name, "releasing claimed deliveries failed");
                }
            }
            worker.run(stop.clone()).await;
            (name, stop.is_cancelled())
        });
    }

    /// The destinations with a worker.
    pub(super) fn names(&self) -> Vec<Name> {
        self.running.keys().cloned().collect()
    }

    /// Removes the worker of a destination. Cancelling the first token stops it; the second is cancelled
    /// when it has ended.
    pub(super) fn remove(&mut self, destination: &Name) -> Option<(CancellationToken, CancellationToken)> {
        self.running.remove(destination).map(|running| (running.stop, running.done))
    }

    /// Completes when a worker has ended without a request: a bug, after which the process exits instead of
    /// delivering to some destinations only.
    pub(super) async fn wait_for_failure(&mut self) -> anyhow::Error {
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

    /// Stops claiming, and waits for deliveries in flight until `deadline`. Unfinished ones are sent again
    /// after the next start.
    pub(super) async fn stop(mut self, deadline: Instant) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline.into(), all).await.is_err() {
            tracing::warn!("deliveries still in progress at shutdown");
        }
    }
}

/// Passes the results of workers to the metrics and the status.
pub(super) struct WorkerObserver {
    deliveries: DeliveryMetrics,
    metrics: Metrics,
    statuses: DestinationStatuses,
}

impl Observer for WorkerObserver {
    fn on_delivery(&self, _: &Name, delivery: &DeliveryReport<'_>) {
        match delivery.outcome {
            Outcome::Delivered => self.deliveries.record_delivered(),
            outcome => self.deliveries.record_undelivered(outcome.as_str()),
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
