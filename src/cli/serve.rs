//! `scalebridge serve`: runs the bridge.

use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::check::render_diagnostics;
use super::output::{ConfigArgs, EXIT_USAGE, environment};
use crate::app::{App, Origin};
use crate::credentials::tls::TlsError;
use crate::kinds;
use crate::ops::{Actor, ReloadError, ReloadHandle};
use crate::store;
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Serve {
    pub(super) fn run(&self) -> ExitCode {
        let environment: Vec<_> = environment().collect();
        let origin = Origin::new(self.config.config.clone(), environment.clone());
        let loaded = match kinds::load(&self.config.config, environment) {
            Ok(loaded) => loaded,
            Err(diagnostics) => {
                telemetry::print_to_stderr(render_diagnostics(&diagnostics).trim_end());
                return ExitCode::from(EXIT_USAGE);
            }
        };
        if let Err(error) = telemetry::start_logging(&loaded.settings.log) {
            telemetry::print_to_stderr(format_args!("scalebridge: {error:#}"));
            return ExitCode::FAILURE;
        }
        for warning in loaded.warnings.iter() {
            tracing::warn!(%warning, "configuration warning");
        }
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = match runtime.enable_all().on_thread_start(lower_thread_priority).build() {
            Ok(runtime) => runtime,
            Err(error) => {
                telemetry::print_to_stderr(format_args!("scalebridge: cannot start: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let ended = runtime.block_on(async {
            survive_file_size_limit()?;
            let stop = stop_on_signal()?;
            let app = App::new(loaded, origin);
            reload_on_signal(app.reloads())?;
            app.run(stop).await
        });
        // A task blocked in a call to a destination must not keep the process alive.
        runtime.shutdown_background();
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                telemetry::print_to_stderr(format_args!("scalebridge: {error:#}"));
                let unusable =
                    matches!(error.downcast_ref(), Some(store::Error::Unusable(_))) || error.is::<TlsError>();
                if unusable { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
            }
        }
    }
}

/// Nice value of the runtime's threads. If CPU time is scarce, the store's writer must run first, since all requests
/// wait for its commits; it is started by the main thread, whose priority is not lowered.
const NICE: i32 = 5;

fn lower_thread_priority() {
    // On Linux, the priority is per thread. If it cannot be set, all threads have the same priority.
    let _ignored = rustix::process::setpriority_process(None, NICE);
}

/// Makes a write beyond the limit of file sizes (`ulimit -f`) an error, which is handled like a full disk. By default,
/// SIGXFSZ ends the process.
fn survive_file_size_limit() -> std::io::Result<()> {
    // The handler of tokio stays installed; nothing has to receive the signal.
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// Reloads the configuration on SIGHUP; `app` logs the result.
fn reload_on_signal(reloads: ReloadHandle) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if reloads.reload(Actor::signal().into()).await == Err(ReloadError::Unavailable) {
                return;
            }
        }
    });
    Ok(())
}

/// Returns a token that SIGTERM or SIGINT cancels. A second signal exits the process at once.
fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn({
        let stop = stop.clone();
        async move {
            for _ in 0..2 {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if stop.is_cancelled() {
                    tracing::warn!("second signal, exiting at once");
                    std::process::exit(1);
                }
                stop.cancel();
            }
        }
    });
    Ok(stop)
}
