//! The running bridge without its listeners: store, workers, reloads and background tasks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::background::when_receiving;
use super::configuration_number::configuration_number;
use super::listener::Listener;
use super::reconciliation::Reconcilers;
use super::reload::Reloader;
use super::{Origin, boot_clock, readiness, store as open, wall_clock, watch};
use crate::bridge::Bridge;
use crate::config::OwnFiles;
use crate::dispatch::{DestinationStatuses, PreparedWorker, Withholding, Workers};
use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};
use crate::http::{Access, Services};
use crate::intake::{Intake, Pollers, PreparedPoller};
use crate::kinds::Settings;
use crate::ops::api::ConfigurationStatus;
use crate::ops::{ActiveCredentials, Actor, Deps, Lifecycle, Ops, ReloadError, ReloadHandle, ReloadTrail};
use crate::store::{self, ClockChange, ClockComparison, NotificationLimits, Store};
use crate::telemetry::Metrics;

/// The interval of pruning.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// The interval at which the clocks are compared.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// The part of `drain_timeout` that is reserved for closing the store, but at most a quarter of it.
const STORE_CLOSE_RESERVE: Duration = Duration::from_secs(2);

/// The running bridge without its listeners.
pub(super) struct RunningBridge {
    pub(super) workers: Workers,
    pub(super) reloader: Reloader,
    statuses: DestinationStatuses,
    /// The workers until notifications are accepted.
    prepared: Vec<PreparedWorker>,
    /// The pollers of queues.
    pub(super) pollers: Pollers,
    /// The pollers until notifications are accepted.
    prepared_pollers: Vec<PreparedPoller>,
    /// Cancelled when notifications are accepted.
    receiving: CancellationToken,
    /// Stops the background tasks.
    background: CancellationToken,
    /// Processes due targets. It ends before the drain only if the store has failed.
    pub(super) due_task: JoinHandle<()>,
    /// Watches for reception gaps.
    reception_task: JoinHandle<()>,
    prune_task: JoinHandle<()>,
    clock_task: JoinHandle<()>,
}

impl RunningBridge {
    /// Opens the store, connects the destinations and starts background tasks. None if `stop` was cancelled meanwhile.
    ///
    /// # Errors
    /// The store cannot be opened, or a destination cannot be connected.
    pub(super) async fn start(
        settings: Arc<Settings>,
        origin: Origin,
        metrics: Metrics,
        access: Arc<Access>,
        lifecycle: &Lifecycle,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let names: Vec<Name> = settings.destinations.keys().cloned().collect();
        let store = tokio::select! {
            opened = open::open(&settings.store, names, lifecycle) => opened?,
            // Nothing has been accepted yet.
            () = stop.cancelled() => return Ok(None),
        };
        configure(&store, &settings).await?;
        let (rules, sources) = (settings.rules.clone(), settings.sources.clone());
        let (policy, boot_clock) = (settings.policy(), Arc::new(boot_clock));
        let bridge =
            Bridge::with_boot_clock(store.clone(), rules, sources, policy, metrics.clone(), boot_clock);
        bridge.begin_downtime();
        let (statuses, withholding) = (DestinationStatuses::default(), withholding(bridge.clone()));
        let mut workers = Workers::new(store.clone(), metrics.clone(), statuses.clone(), withholding);
        workers.protect(OwnFiles::new(&settings, &origin.files.lock()));
        let prepared = tokio::select! {
            prepared = workers.prepare(&settings.destinations) => prepared?,
            () = stop.cancelled() => {
                store.close().await;
                return Ok(None);
            }
        };
        let active = Arc::new(ArcSwap::new(settings.clone()));
        let intake = Intake { bridge: bridge.clone(), store: store.clone(), settings: active.clone() };
        let pollers = Pollers::new(intake, metrics.clone());
        let prepared_pollers = pollers.prepare(&settings).await?;
        let background = CancellationToken::new();
        let receiving = CancellationToken::new();
        let (deciding, watching) = (bridge.clone(), bridge.clone());
        let due_task =
            when_receiving(&receiving, &background, move |stop| async move { deciding.run(&stop).await });
        let reception_task = when_receiving(&receiving, &background, move |stop| async move {
            watching.watch_reception(&stop).await;
        });
        let mut reconcilers =
            Reconcilers::new(bridge.clone(), metrics.clone(), receiving.clone(), background.clone());
        reconcilers.apply(&settings);
        let settings = active;
        let loaded_at = wall_clock().to_millis_string();
        let configuration = ConfigurationStatus { loaded_at, last_error: None, needs_restart: Vec::new() };
        let prune_task = tokio::spawn(prune(store.clone(), settings.clone(), background.clone()));
        let clock_task = tokio::spawn(compare_clocks(store.clone(), background.clone()));
        tokio::spawn(readiness::watch(bridge.clone(), store.clone(), settings.clone(), background.clone()));
        let reloader = Reloader {
            origin,
            settings,
            configuration: Arc::new(ArcSwap::from_pointee(configuration)),
            bridge,
            trail: ReloadTrail::new(store.clone()),
            store,
            metrics,
            access,
            reconcilers,
        };
        workers.retire_orphans().await?;
        Ok(Some(Self {
            workers,
            reloader,
            statuses,
            prepared,
            pollers,
            prepared_pollers,
            receiving,
            background,
            due_task,
            reception_task,
            prune_task,
            clock_task,
        }))
    }

    /// Whether other processes can use the store.
    pub(super) fn is_shared(&self) -> bool {
        self.reloader.store.is_shared()
    }

    /// Retires the destinations of replicas that have not come back.
    pub(super) async fn retire_orphans(&mut self) {
        if let Err(error) = self.workers.retire_orphans().await {
            tracing::debug!(%error, "destinations that nobody serves are looked for later");
        }
    }

    /// Notifications are accepted from now on; ends the reception gap since the last process. Decreases that were not
    /// delivered before it are taken back before the workers start.
    pub(super) async fn begin_reception(&mut self) {
        let bridge = &self.reloader.bridge;
        // Before the other one ends.
        self.pollers.begin_gaps(&self.prepared_pollers);
        bridge.begin_reception().await;
        if let Err(error) = bridge.process_due().await {
            tracing::error!(%error, "processing due targets failed, retrying");
        }
        self.receiving.cancel();
        std::mem::take(&mut self.prepared).into_iter().for_each(|prepared| self.workers.start(prepared));
        let prepared = std::mem::take(&mut self.prepared_pollers);
        prepared.into_iter().for_each(|prepared| self.pollers.start(prepared));
    }

    /// No notifications are accepted from now on.
    pub(super) fn end_reception(&self) {
        self.reloader.bridge.end_reception();
    }

    /// Requests a reload after each change of the configuration's files.
    pub(super) fn watch_files(&self, reloads: ReloadHandle) {
        let (files, stop) = (self.reloader.origin.files.clone(), self.background.clone());
        tokio::spawn(watch::watch(files, stop, async move || {
            let reloaded = reloads.reload(Actor::file_watcher().into()).await;
            // An invalid configuration stays invalid until the files change; other failures are retried, also if the files
            // could not be read for lack of resources.
            !matches!(reloaded, Err(ReloadError::Failed(_)))
        }));
    }

    /// The parts that HTTP handlers use.
    pub(super) fn services(
        &self,
        lifecycle: Arc<Lifecycle>,
        credentials: Arc<ActiveCredentials>,
        reloads: ReloadHandle,
    ) -> Services {
        let Reloader { bridge, store, settings, configuration, .. } = &self.reloader;
        let ops = Ops::new(Deps {
            lifecycle,
            bridge: bridge.clone(),
            store: store.clone(),
            statuses: self.statuses.clone(),
            queues: self.pollers.statuses(),
            settings: settings.clone(),
            configuration: configuration.clone(),
            credentials,
            reloads,
            running: Default::default(),
        });
        let (bridge, store) = (bridge.clone(), store.clone());
        let intake = Intake { bridge: bridge.clone(), store: store.clone(), settings: settings.clone() };
        Services { ops, bridge, store, intake, statuses: self.statuses.clone(), settings: settings.clone() }
    }

    /// Answers the requests in flight, settles claimed deliveries and closes the store, within `timeout`.
    pub(super) async fn drain(self, webhook: &Listener, admin_api: &Listener, timeout: Duration) {
        let Self {
            workers,
            pollers,
            reloader,
            background,
            due_task,
            reception_task,
            prune_task,
            clock_task,
            ..
        } = self;
        let deadline = Instant::now() + timeout;
        // A hanging sender or destination must not use up the time for closing the store.
        let listeners_deadline =
            deadline.checked_sub(STORE_CLOSE_RESERVE.min(timeout / 4)).unwrap_or(deadline);
        background.cancel();
        // Concurrently: events of the last requests stay in the store.
        tokio::join!(
            webhook.stop(listeners_deadline),
            admin_api.stop(listeners_deadline),
            pollers.stop(listeners_deadline),
            workers.stop(listeners_deadline)
        );
        let background_tasks = async {
            if !due_task.is_finished() {
                drop(due_task.await);
            }
            drop(tokio::join!(reception_task, prune_task, clock_task));
            // The last write before the store is closed: it tells the next process when this one has stopped.
            reloader.bridge.commit_gaps().await;
        };
        if tokio::time::timeout_at(deadline.into(), background_tasks).await.is_err() {
            tracing::warn!("store did not drain in time");
        }
        if tokio::time::timeout_at(deadline.into(), reloader.store.close()).await.is_err() {
            tracing::warn!("store did not close in time");
        }
    }
}

/// Asks the bridge right before a call whether a pause or hold withholds an increase, or a decision cancels a decrease.
fn withholding(bridge: Bridge) -> Withholding {
    let rechecking = bridge.clone();
    Withholding::new(move |event, now| bridge.is_withheld(event, now)).with_recheck(move |targets| {
        let bridge = rechecking.clone();
        async move { bridge.recheck_before_call(targets).await }
    })
}

/// Tells the store what it depends on in the configuration.
async fn configure(store: &Store, settings: &Settings) -> anyhow::Result<()> {
    store.adopt_configuration(configuration_number(settings)).await?;
    for (name, destination) in &settings.destinations {
        store.set_max_backlog(name, destination.max_backlog)?;
    }
    Ok(())
}

async fn prune(store: Store, settings: Arc<ArcSwap<Settings>>, stop: CancellationToken) {
    loop {
        let retention = settings.load().retention;
        let kept =
            NotificationLimits { max_age: retention.notifications, max_bytes: retention.notifications_bytes };
        let pruned = async {
            let more = store.prune(retention.decisions, retention.delivered).await?;
            Ok::<_, store::Error>(store.prune_notifications(kept).await? || more)
        };
        let more = match pruned.await {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "pruning failed, retrying");
                false
            }
        };
        // A short pause lets other commands run.
        let pause = if more { Duration::from_millis(20) } else { PRUNE_INTERVAL };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Logs when the store's clock and the wall clock begin to differ, and when they agree again.
async fn compare_clocks(store: Store, stop: CancellationToken) {
    let mut comparison = ClockComparison::default();
    loop {
        let ClockReading { now, .. } = store.clock();
        let wall = Time::from_nanos(now.as_nanos().saturating_add(store.clock_offset()));
        let reading = ClockReading { now, wall };
        let (store_clock, wall_clock) = (reading.now.to_millis_string(), reading.wall.to_millis_string());
        match comparison.compare(reading) {
            Some(ClockChange::Differ) => {
                tracing::warn!(store_clock, wall_clock, "the wall clock differs from the store's clock");
            }
            Some(ClockChange::Agree) => {
                tracing::info!(store_clock, wall_clock, "the wall clock agrees with the store's clock");
            }
            None => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CLOCK_INTERVAL) => {}
        }
    }
}
