//! One worker for each destination, and what it tells the metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Destination;
use crate::dispatch::{Clients, Failure, Observed, Observer, Options, Outcome, Standing, Worker};
use crate::domain::name::Name;
use crate::store::Store;
use crate::telemetry::Metrics;

/// The workers of all destinations.
pub struct Workers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Workers {
    /// Connects and starts them.
    ///
    /// # Errors
    /// A destination cannot be used at all. One that is missing or out of reach is not found out here.
    pub async fn start(
        destinations: &BTreeMap<Name, Destination>,
        store: &Store,
        metrics: &Metrics,
        standing: &Standing,
    ) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let mut clients = Clients::default();
        let mut workers = Vec::new();
        for (name, settings) in destinations {
            let connected = clients.connect(settings).await?;
            let options =
                Options::new(settings, fastrand::u64(..)).with_context(|| format!("destination {name}"))?;
            metrics.destination_up(name, true);
            let watch = Watch { metrics: metrics.clone(), standing: standing.clone() };
            workers.push(Worker::new(options, store.clone(), connected, watch));
        }
        let mut tasks = JoinSet::new();
        for worker in workers {
            tasks.spawn(worker.run(stop.clone()));
        }
        Ok(Self { tasks, stop })
    }

    /// Completes when a worker ended without having been told so: a defect, after which the process
    /// had better start anew than deliver to some destinations only.
    pub async fn broken(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Err(error)) => anyhow::Error::new(error).context("a delivery worker failed"),
            Some(Ok(())) => anyhow::anyhow!("a delivery worker ended by itself"),
            None => std::future::pending().await,
        }
    }

    /// Stops claiming and waits for what is on its way. What is not back by then is sent again after
    /// the next start.
    pub async fn stop(mut self, deadline: Instant) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline.into(), all).await.is_err() {
            tracing::warn!(
                "some deliveries did not come back in time; they are tried again after the next start"
            );
        }
    }
}

/// Tells what workers do to those who are asked for it.
#[derive(Clone)]
struct Watch {
    metrics: Metrics,
    standing: Standing,
}

impl Observer for Watch {
    fn on_delivery(&self, destination: &Name, delivery: &Observed<'_>) {
        self.metrics.delivery(destination, delivery.outcome.as_str());
        if let Some(took) = delivery.took {
            self.metrics.call(destination, took);
        }
        let began = delivery.header.and_then(|header| header.oldest_starts_at);
        if let (Outcome::Delivered, Some(began)) = (delivery.outcome, began) {
            self.metrics.alert_to_delivery(destination, delivery.at.since(began));
        }
    }

    fn on_reachable(&self, destination: &Name, failing: Option<&Failure>) {
        self.metrics.destination_up(destination, failing.is_none());
        self.standing.tell(destination, failing);
    }
}
