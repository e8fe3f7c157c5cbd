//! Wiring: builds, starts and drains the parts of `serve`.
//!
//! Signals are handled in `cli/serve.rs`; a token requests the stop here. Both listeners are bound first, so
//! that a port in use is an error at once. They reply 503 until the store is open.

mod access_in_force;
mod background;
mod certificates;
mod configuration_number;
mod credential_changes;
mod file_limit;
mod listener;
mod readiness;
mod reconciliation;
mod reload;
mod running;
mod service_manager;
mod store;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Server;
use crate::domain::time::Time;
use crate::http::transport::Options;
use crate::http::{self, Access, AdminLimits, HttpState, Limits, MAX_STREAMS};
use crate::kinds::Loaded;
use crate::ops::{ActiveCredentials, Lifecycle, LifecyclePhase, ReloadHandle, ReloadRequests};
use crate::telemetry::Metrics;
use listener::Listener;
use running::RunningBridge;
use watch::FileStamps;

/// How often it is looked for destinations that no replica serves any more.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(60);

/// A configured bridge that has not started.
pub(crate) struct App {
    loaded: Loaded,
    origin: Origin,
    metrics: Metrics,
    reloads: (ReloadHandle, ReloadRequests),
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

/// The time since the machine was started, including the time in which it was suspended.
fn boot_clock() -> Duration {
    let reading = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(reading).unwrap_or_default()
}

impl App {
    /// An app with a checked configuration, which reloads read from `origin`.
    pub(crate) fn new(loaded: Loaded, origin: Origin) -> Self {
        let metrics = Metrics::new();
        metrics.record_config_load(SystemTime::now().duration_since(UNIX_EPOCH).ok());
        *origin.files.lock() = loaded.files.clone();
        Self { loaded, origin, metrics, reloads: ReloadHandle::new() }
    }

    /// Requests reloads. They wait until the bridge is ready.
    pub(crate) fn reloads(&self) -> ReloadHandle {
        self.reloads.0.clone()
    }

    /// Runs until `stop` is cancelled, then drains: no new requests are accepted, requests in flight are
    /// answered, claimed deliveries are settled, and the rest stays in the store.
    ///
    /// # Errors
    /// A listener or the store cannot be opened, or a worker or the store has failed.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { loaded, origin, metrics, reloads: (reloads, mut reload_requests) } = self;
        let settings = Arc::new(loaded.settings);
        file_limit::raise();
        let max_connections = file_limit::max_connections(&settings);
        let server = Server { max_connections, ..settings.server.clone() };
        let admin = settings.admin.clone();
        let lifecycle = Arc::new(Lifecycle::default());
        let services = Arc::new(OnceLock::new());
        let credentials = Arc::new(ActiveCredentials::new(&settings));
        let access = Arc::new(Access::new(&settings, credentials.clone(), metrics.clone()));
        let state = HttpState {
            lifecycle: lifecycle.clone(),
            metrics: metrics.clone(),
            services: services.clone(),
            limits: Limits::new(&server),
            access: access.clone(),
            admin_limits: AdminLimits::new(&server),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        };
        let options =
            Options::new("server", &server, http::refuse_on_server(metrics.clone()), metrics.clone());
        let routes = http::server_routes(state.clone());
        let webhook = Listener::start(server.listen, &server.access, options, routes)?;
        let options = Options::new("admin", &server, http::refuse_on_admin(), metrics.clone());
        let admin_api = Listener::start(admin.listen, &admin.access, options, http::admin_routes(state))?;

        service_manager::start(&lifecycle, &services);
        let started = RunningBridge::start(settings, origin, metrics, access, &lifecycle, &stop);
        let Some(mut running) = started.await? else { return Ok(()) };
        running.watch_files(reloads.clone());
        let set = services.set(running.services(lifecycle.clone(), credentials, reloads));
        debug_assert!(set.is_ok(), "`run` is called once");
        lifecycle.enter(LifecyclePhase::Ready);
        running.begin_reception().await;
        service_manager::ready();
        tracing::info!(webhook = webhook.url(), admin = admin_api.url(), "scalebridge is ready");

        let (is_shared, mut orphans) = (running.is_shared(), tokio::time::interval(ORPHANS_INTERVAL));
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                ended = webhook.ended() => break ended.context("server.listen"),
                ended = admin_api.ended() => break ended.context("admin.listen"),
                error = running.workers.wait_for_failure() => break Err(error),
                error = running.pollers.wait_for_failure() => break Err(error),
                _ = &mut running.due_task => {
                    break Err(anyhow::anyhow!("the store's writer has stopped; see the previous log lines"));
                }
                _ = orphans.tick(), if is_shared => running.retire_orphans().await,
                Some(request) = reload_requests.next() => {
                    service_manager::reloading();
                    let result = running
                        .reloader
                        .reload(&request.by, &mut running.workers, &mut running.pollers, &stop)
                        .await;
                    service_manager::ready();
                    request.reply(result);
                }
            }
        };
        running.end_reception();
        lifecycle.enter(LifecyclePhase::Stopping);
        service_manager::stopping();
        reload_requests.close();
        tracing::info!(within = ?server.drain_timeout, "stopping, draining");
        running.drain(&webhook, &admin_api, server.drain_timeout).await;
        tracing::info!("stopped");
        ended
    }
}
