//! Wiring: builds, starts and drains the parts of `serve`.
//!
//! Signals end in `main`; a token requests the stop here. Both listeners are bound first, so that a port
//! in use is an error at once. They reply 503 until the store is open.

mod reload;
mod watch;
mod workers;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use axum_server::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bridge::Bridge;
use crate::config::{self, Loaded, Settings};
use crate::dispatch::DestinationStatuses;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::http::{
    self, ConfigurationStatus, HttpState, Lifecycle, LifecyclePhase, Limits, MAX_STREAMS, ReloadError,
    ReloadRequest, Services,
};
use crate::store::{Sqlite, Store};
use crate::telemetry::Metrics;
use reload::Reloader;
use watch::FileStamps;
use workers::Workers;

/// The interval of pruning.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// The part of `drain_timeout` that is reserved for closing the store.
const STORE_CLOSE_RESERVE: Duration = Duration::from_secs(2);

/// A configured bridge that has not started.
pub(crate) struct App {
    loaded: Loaded,
    origin: Origin,
    metrics: Metrics,
    reloads: (mpsc::Sender<ReloadRequest>, mpsc::Receiver<ReloadRequest>),
}

/// The origin of a configuration, for reloads.
#[derive(Clone)]
pub(crate) struct Origin {
    pub path: PathBuf,
    /// The environment that overrides the file, as of the start of the process.
    pub environment: Vec<(String, String)>,
    /// All files that the current configuration was read from.
    pub files: FileStamps,
}

impl Origin {
    pub(crate) fn new(path: PathBuf, environment: Vec<(String, String)>) -> Self {
        Self { path, environment, files: FileStamps::default() }
    }
}

/// The time of the system clock.
pub fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl App {
    /// An app with a checked configuration, which reloads read from `origin`.
    pub(crate) fn new(loaded: Loaded, origin: Origin) -> Self {
        let metrics = Metrics::new();
        metrics.record_config_load(SystemTime::now().duration_since(UNIX_EPOCH).ok());
        *origin.files.lock() = loaded.files.clone();
        Self { loaded, origin, metrics, reloads: mpsc::channel(1) }
    }

    /// The channel for reload requests.
    pub(crate) fn reloads(&self) -> mpsc::Sender<ReloadRequest> {
        self.reloads.0.clone()
    }

    /// Runs until `stop` is cancelled, then drains: no new requests are accepted, requests in flight are
    /// answered, claimed deliveries are settled, and the rest stays in the store.
    ///
    /// # Errors
    /// A listener or the store cannot be opened, or a worker or the store has failed.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { loaded, origin, metrics, reloads: (reload_sender, mut reload_requests) } = self;
        let settings = Arc::new(loaded.settings);
        let (server, admin) = (settings.server.clone(), settings.admin.clone());
        let lifecycle = Arc::new(Lifecycle::default());
        let services = Arc::new(OnceLock::new());
        let state = HttpState {
            lifecycle: lifecycle.clone(),
            metrics: metrics.clone(),
            services: services.clone(),
            limits: Limits::new(&server),
            admin_on_loopback: admin.listen.ip().to_canonical().is_loopback(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            reloads: reload_sender.clone(),
        };
        let webhook = Listener::start(
            "server.listen",
            server.listen,
            http::server_routes(state.clone()),
            server.header_timeout,
        )?;
        let admin_api =
            Listener::start("admin.listen", admin.listen, http::admin_routes(state), server.header_timeout)?;

        let names: Vec<Name> = settings.destinations.keys().cloned().collect();
        let store = tokio::select! {
            opened = open_store(&settings.store, names) => opened?,
            // Nothing has been accepted yet.
            () = stop.cancelled() => return Ok(()),
        };
        for (name, destination) in &settings.destinations {
            store.set_max_backlog(name, destination.max_backlog)?;
        }
        let (rules, sources) = (settings.rules.clone(), settings.sources.clone());
        let bridge = Bridge::new(store.clone(), rules, sources, settings.policy(), metrics.clone());
        let statuses = DestinationStatuses::default();
        let mut workers = Workers::new(store.clone(), metrics.clone(), statuses.clone());
        tokio::select! {
            prepared = workers.prepare(&settings.destinations) => {
                prepared?.into_iter().for_each(|prepared| workers.start(prepared));
            }
            () = stop.cancelled() => {
                store.close().await;
                return Ok(());
            }
        };
        let background = CancellationToken::new();
        let mut due_task = tokio::spawn({
            let (bridge, background) = (bridge.clone(), background.clone());
            async move { bridge.run(&background).await }
        });
        let current = Arc::new(ArcSwap::new(settings));
        let loaded_at = wall_clock().to_millis_string();
        let configuration = ConfigurationStatus { loaded_at, last_error: None, needs_restart: Vec::new() };
        let configuration = Arc::new(ArcSwap::from_pointee(configuration));
        let pruning = tokio::spawn(prune(store.clone(), current.clone(), background.clone()));
        let mut reloader = Reloader {
            origin,
            settings: current.clone(),
            configuration: configuration.clone(),
            bridge: bridge.clone(),
            store: store.clone(),
            statuses: statuses.clone(),
            metrics,
            stop: background.clone(),
            removing: BTreeMap::new(),
        };
        for name in store.orphaned_destinations().await? {
            store.add_destination(&name).await?;
            reloader.remove_destination(name, None);
        }
        tokio::spawn(watch::watch(reloader.origin.files.clone(), background.clone(), async move || {
            let (reply, answer) = oneshot::channel();
            if reload_sender.send(reply).await.is_err() {
                return true;
            }
            // An invalid configuration stays invalid until the files change; other failures are retried.
            !matches!(answer.await, Ok(Err(ReloadError::Failed(_))))
        }));
        let parts = Services { bridge, store: store.clone(), statuses, settings: current, configuration };
        let set = services.set(parts);
        debug_assert!(set.is_ok(), "`run` is called once");
        lifecycle.enter(LifecyclePhase::Ready);
        tracing::info!(webhook = %webhook.address, admin = %admin_api.address, "scalebridge is ready");

        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                ended = webhook.ended() => break ended.context("server.listen"),
                ended = admin_api.ended() => break ended.context("admin.listen"),
                error = workers.wait_for_failure() => break Err(error),
                // It ends before the cancellation only if the store has failed.
                _ = &mut due_task => {
                    break Err(anyhow::anyhow!("the store's writer has stopped; see the previous log lines"));
                }
                Some(reply) = reload_requests.recv() => {
                    // The requester may have gone.
                    drop(reply.send(reloader.reload(&mut workers).await));
                }
            }
        };
        lifecycle.enter(LifecyclePhase::Stopping);
        reload_requests.close();
        let deadline = Instant::now() + server.drain_timeout;
        // A hanging sender or destination must not use up the time for closing the store.
        let listeners_deadline =
            deadline.checked_sub(STORE_CLOSE_RESERVE.min(server.drain_timeout / 4)).unwrap_or(deadline);
        tracing::info!(within = ?server.drain_timeout, "stopping, draining");
        background.cancel();
        // Concurrently: events of the last requests stay in the store.
        tokio::join!(webhook.stop(listeners_deadline), workers.stop(listeners_deadline));
        admin_api.stop(listeners_deadline).await;
        let background = async {
            if !due_task.is_finished() {
                drop(due_task.await);
            }
            drop(pruning.await);
        };
        if tokio::time::timeout_at(deadline.into(), background).await.is_err() {
            tracing::warn!("store did not drain in time");
        }
        if tokio::time::timeout_at(deadline.into(), store.close()).await.is_err() {
            tracing::warn!("store did not close in time");
        }
        tracing::info!("stopped");
        ended
    }
}

async fn open_store(settings: &config::Store, destinations: Vec<Name>) -> anyhow::Result<Store> {
    let config::Store::Sqlite { path } = settings;
    let path = path.clone();
    let (done, opened) = tokio::sync::oneshot::channel();
    // On a separate thread, so that the store's threads are not started from a thread of the runtime.
    let open = move || {
        let opened = Sqlite::open(&path, &destinations, Arc::new(wall_clock));
        // The receiver is gone if the process is stopping.
        drop(done.send(opened));
    };
    std::thread::Builder::new().name("store-open".to_owned()).spawn(open).context("cannot open the store")?;
    Ok(Store::Sqlite(opened.await.context("cannot open the store")??))
}

async fn prune(store: Store, settings: Arc<ArcSwap<Settings>>, stop: CancellationToken) {
    loop {
        let retention = settings.load().retention;
        let more = match store.prune(retention.decisions, retention.delivered).await {
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

/// A running HTTP listener.
struct Listener {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    task: parking_lot::Mutex<Option<JoinHandle<std::io::Result<()>>>>,
    done: CancellationToken,
}

impl Listener {
    fn start(
        key: &'static str,
        address: SocketAddr,
        routes: axum::Router,
        header_timeout: Duration,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address} ({key}); is another process using it?"))?;
        let address = listener.local_addr().with_context(|| key)?;
        let handle = Handle::new();
        let done = CancellationToken::new();
        let task = tokio::spawn({
            let (handle, done) = (handle.clone(), done.clone());
            async move {
                let ended = http::serve(listener, routes, handle, header_timeout).await;
                done.cancel();
                ended
            }
        });
        Ok(Self { address, handle, task: parking_lot::Mutex::new(Some(task)), done })
    }

    /// Completes when the listener has ended. Before [`Self::stop`], that is a failure.
    async fn ended(&self) -> anyhow::Result<()> {
        self.done.cancelled().await;
        let task = self.task.lock().take();
        match task {
            Some(task) => Ok(task.await??),
            None => Ok(()),
        }
    }

    /// Stops accepting connections, and waits for requests in flight until `deadline`.
    async fn stop(&self, deadline: Instant) {
        self.handle.graceful_shutdown(Some(deadline.saturating_duration_since(Instant::now())));
        self.done.cancelled().await;
    }
}
