//! `worker`, and the Lambda function: the scaler with everything that it needs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{Exit, Io, load};
use crate::config::{Config, LedgerSettings};
use crate::ledger::open::AnyLedger;
use crate::metrics::Metrics;
use crate::runtime::{self, lambda, worker};
use crate::scaler::{Connections, Observer, Parts, Refusals, Scaler};

/// In seconds. A message of SQS cannot be held for longer.
const MAX_DRAIN_TIMEOUT: u64 = 12 * 60 * 60;
const SQLITE_IN_FUNCTION: &str = "the ledger of a function cannot be a file of SQLite: its instances share no disk, so that \
                                  each would apply the same event; set `ledger: { dynamodb: { table: … } }`";

/// The arguments of `worker`.
#[derive(Args)]
pub(super) struct WorkerArguments {
    /// The address of /-/healthy, /-/ready and /metrics.
    #[arg(long, value_name = "ADDRESS", default_value_t = worker::DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// How many seconds events that are being applied may take after SIGTERM; at most 12 hours.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = worker::DEFAULT_DRAIN_TIMEOUT.as_secs(),
        value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN_TIMEOUT)
    )]
    drain_timeout: u64,
}

pub(super) fn worker(arguments: &WorkerArguments, file: Option<&Path>, io: &mut Io<'_>) -> Exit {
    let config = match load(file, io) {
        Ok((_, config)) => config,
        Err(_) => return Exit::Unusable,
    };
    let Some(queue) = config.queue.clone() else {
        return unusable(io, "`queue` is missing: a worker needs `queue: { queue_url: … }`");
    };
    let settings = worker::Settings {
        queue_url: queue.queue_url,
        concurrency: queue.concurrency,
        listen: arguments.listen,
        drain_timeout: Duration::from_secs(arguments.drain_timeout),
        visibility: worker::DEFAULT_VISIBILITY,
        poll_wait: worker::DEFAULT_POLL_WAIT,
    };
    match block_on(run_worker(config, settings)) {
        // What was abandoned is in the log, and comes again.
        Ok(worker::Stopped { .. }) => Exit::Success,
        Err(error) => unusable(io, &error),
    }
}

pub(super) fn function(file: Option<&Path>, io: &mut Io<'_>) -> Exit {
    let config = match load(file, io) {
        Ok((_, config)) => config,
        Err(_) => return Exit::Unusable,
    };
    if matches!(config.ledger, LedgerSettings::Sqlite { .. }) {
        return unusable(io, SQLITE_IN_FUNCTION);
    }
    match block_on(run_function(config)) {
        Ok(()) => Exit::Success,
        Err(error) => unusable(io, &error),
    }
}

fn unusable(io: &mut Io<'_>, error: &str) -> Exit {
    drop(writeln!(io.err, "error: {error}"));
    Exit::Unusable
}

fn block_on<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    // Taken already only if this is called twice.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| format!("the threads cannot be started: {error}"))?.block_on(future)
}

async fn run_worker(config: Config, settings: worker::Settings) -> Result<worker::Stopped, String> {
    let metrics = Metrics::new();
    let queue = worker::config(&settings.queue_url).await?;
    let (scaler, ledger) = scaler(config, metrics.clone(), false).await?;
    let stop = worker::stop_signal().map_err(|error| format!("signals cannot be received: {error}"))?;
    worker::run(settings, &queue, scaler, metrics, Probe(ledger), stop).await
}

async fn run_function(config: Config) -> Result<(), String> {
    let (scaler, _) = scaler(config, Metrics::new(), true).await?;
    lambda::run(scaler).await.map_err(|error| error.to_string())
}

async fn scaler(
    config: Config,
    metrics: Metrics,
    is_function: bool,
) -> Result<(Arc<Scaler<AnyLedger>>, AnyLedger), String> {
    let ledger = AnyLedger::open(&config.ledger).await.map_err(|error| error.to_string())?;
    let refusals = match &config.refusals {
        Some(url) => Some(Refusals::new(&worker::config(url).await?, url.clone())),
        None => None,
    };
    let config = Arc::new(config);
    let scaler = Scaler::new(Parts {
        connections: Connections::new(Arc::clone(&config)).await,
        config,
        ledger: ledger.clone(),
        observer: Observer::new(Box::new(std::io::stdout()), metrics, is_function),
        refusals,
        clock: runtime::now,
        random: || fastrand::u64(1..),
    });
    Ok((Arc::new(scaler), ledger))
}

/// Whether the ledger can be read, and could be written.
struct Probe(AnyLedger);

impl worker::LedgerProbe for Probe {
    async fn check(&self) -> Result<(), String> {
        self.0.check().await.map_err(|error| error.to_string())
    }
}
