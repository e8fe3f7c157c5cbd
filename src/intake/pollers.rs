//! The pollers of all queues: started, replaced and stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::poller::Poller;
use super::{Intake, QueueStatuses};
use crate::aws::CredentialsReload;
use crate::domain::name::Name;
use crate::kinds::Settings;
use crate::sources::sqs::{self, Clients};
use crate::telemetry::Metrics;

/// The pollers of all sources with a queue.
pub(crate) struct Pollers {
    intake: Intake,
    metrics: Metrics,
    statuses: QueueStatuses,
    credentials: CredentialsReload,
    running: BTreeMap<Name, Running>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

struct Running {
    settings: sqs::Settings,
    stop: CancellationToken,
    /// Cancelled when the poller has ended.
    ended: CancellationToken,
    /// Whether the source has no queue any more.
    is_removed: Arc<AtomicBool>,
}

/// A poller with a connected queue, not started.
pub(crate) struct PreparedPoller {
    settings: sqs::Settings,
    poller: Poller,
}

impl Pollers {
    pub(crate) fn new(intake: Intake, metrics: Metrics) -> Self {
        Self {
            intake,
            metrics,
            statuses: QueueStatuses::default(),
            credentials: CredentialsReload::default(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// What is known of the queues.
    pub(crate) fn statuses(&self) -> QueueStatuses {
        self.statuses.clone()
    }

    /// Connects the queues that are new or have changed. Does not start or stop any poller. All credentials are loaded
    /// anew.
    ///
    /// # Errors
    /// A queue has no region. Missing and unreachable queues are not detected here.
    pub(crate) async fn prepare(&self, settings: &Settings) -> anyhow::Result<Vec<PreparedPoller>> {
        self.credentials.renew();
        let mut clients = Clients::new(self.credentials.clone());
        let mut prepared = Vec::new();
        for (source, kind) in &settings.source_kinds {
            let Some(settings) = kind.queue() else { continue };
            let is_running = |running: &Running| {
                running.settings == *settings && !running.is_removed.load(Ordering::Acquire)
            };
            if self.running.get(source).is_some_and(is_running) {
                continue;
            }
            let queue = clients.connect(source, settings).await?;
            let (intake, statuses) = (self.intake.clone(), self.statuses.clone());
            let poller =
                Poller::new(source.clone(), settings.clone(), queue, intake, self.metrics.clone(), statuses);
            prepared.push(PreparedPoller { settings: settings.clone(), poller });
        }
        Ok(prepared)
    }

    /// Begins the reception gap of the sources of these pollers, which lasts until their queues were read.
    pub(crate) fn begin_gaps(&self, prepared: &[PreparedPoller]) {
        for PreparedPoller { poller, .. } in prepared {
            poller.begin_gap();
        }
    }

    /// Starts a poller, after the previous one of its source has finished its messages.
    pub(crate) fn start(&mut self, prepared: PreparedPoller) {
        let PreparedPoller { settings, poller } = prepared;
        let (stop, ended, is_removed) =
            (self.stop.child_token(), CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let running =
            Running { settings, stop: stop.clone(), ended: ended.clone(), is_removed: is_removed.clone() };
        let (bridge, statuses, source) =
            (self.intake.bridge.clone(), self.statuses.clone(), poller.source().clone());
        let previous = self.running.insert(poller.source().clone(), running);
        if let Some(previous) = &previous {
            previous.stop.cancel();
            // What it would end is the gap of this one.
            previous.is_removed.store(false, Ordering::Release);
        }
        self.tasks.spawn(async move {
            let _ended = ended.drop_guard();
            if let Some(previous) = previous {
                previous.ended.cancelled().await;
            }
            Arc::new(poller).run(stop).await;
            if is_removed.load(Ordering::Acquire) {
                statuses.remove(&source);
                bridge.end_unread_queue(&source);
            }
        });
    }

    /// Stops the pollers of sources that have no queue any more. They are known until they have ended: if a reload adds
    /// the source again meanwhile, its new poller waits for that.
    pub(crate) fn stop_removed(&mut self, settings: &Settings) {
        let has_queue =
            |source: &Name| settings.source_kinds.get(source).is_some_and(|kind| kind.queue().is_some());
        self.running.retain(|source, running| {
            if has_queue(source) {
                return true;
            }
            running.is_removed.store(true, Ordering::Release);
            running.stop.cancel();
            !running.ended.is_cancelled()
        });
    }

    /// Completes when a poller has panicked: a bug, after which the process exits instead of polling some queues only.
    pub(crate) async fn wait_for_failure(&mut self) -> anyhow::Error {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(())) => {}
                Some(Err(error)) => return anyhow::Error::new(error).context("a poller of a queue panicked"),
                None => std::future::pending().await,
            }
        }
    }

    /// Stops receiving, and waits until `deadline` for the messages that are being processed. The others are visible in
    /// their queues again.
    pub(crate) async fn stop(mut self, deadline: Instant) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline.into(), all).await.is_err() {
            tracing::warn!("messages of queues still in progress at shutdown");
        }
    }
}
