//! Notifications to the service manager: systemd with `Type=notify`, or another that sets `NOTIFY_SOCKET`. Without that
//! variable nothing is sent.
//!
//! `READY=1` is sent when `/-/ready` is positive for the first time: the queue was polled, and the ledger can be used.
//! `STATUS=` says why it is not. `WATCHDOG=1` is sent while the runtime ticks: a queue or ledger that is away is not
//! repaired by a restart.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::LedgerProbe;
use super::health::Health;
use super::http::Routes;
use crate::runtime::log::{Level, log};

const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Reports the worker until the process ends.
pub(super) fn start<P: LedgerProbe>(routes: Arc<Routes<P>>, health: Health, stop: CancellationToken) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    tokio::spawn(async move {
        stop.run_until_cancelled(report_status(routes, health)).await;
        send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    });
    if let Some(timeout) = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()) {
        tokio::spawn(report_life(timeout));
    }
}

async fn report_status<P: LedgerProbe>(routes: Arc<Routes<P>>, health: Health) {
    let (mut sent, mut is_ready, mut ticks) = (String::new(), false, interval(STATUS_INTERVAL));
    loop {
        ticks.tick().await;
        // After that, the ledger is not read for the status: in DynamoDB each read costs.
        let problem = if is_ready { health.problem(Instant::now()) } else { routes.problem().await };
        if problem.is_none() && !is_ready {
            is_ready = true;
            send(&[NotifyState::Ready]);
        }
        // A status is one line.
        let status = problem.map_or("ready".to_owned(), |problem| format!("not ready: {problem}"));
        let status = status.replace('\n', " ");
        if status != sent {
            send(&[NotifyState::Status(&status)]);
            sent = status;
        }
    }
}

/// Sends a keep-alive of the watchdog, twice within `timeout`.
async fn report_life(timeout: Duration) {
    let mut ticks = interval(timeout / 2);
    loop {
        ticks.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log(Level::Warn, "the service manager cannot be notified", &[("error", &error)]);
    }
}
