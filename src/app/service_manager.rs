//! Notifications to the service manager: systemd with `Type=notify`, or another that sets `NOTIFY_SOCKET`. Without that
//! variable nothing is sent.
//!
//! `READY=1` follows the start: the listeners are bound, the store is open, and notifications are accepted. It does not
//! wait for a backlog to shrink, since that needs this process. `STATUS=` is what `/-/ready` answers. `WATCHDOG=1` is sent
//! while the runtime ticks and the store's writer thread ends its batches. A database that is away does not count: a
//! restart would not bring it back.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::http::Services;
use crate::ops::{Lifecycle, LifecyclePhase};

/// The interval at which changes of the status are looked for.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Reports status and life until the process ends.
pub(super) fn start(lifecycle: &Arc<Lifecycle>, services: &Arc<OnceLock<Services>>) {
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        tokio::spawn(report_status(lifecycle.clone(), services.clone()));
        if let Some(timeout) = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()) {
            tokio::spawn(report_life(timeout, lifecycle.clone(), services.clone()));
        }
    }
}

/// Notifications are accepted; after a reload, with the new configuration or still with the old one.
pub(super) fn ready() {
    send(&[NotifyState::Ready]);
}

/// A reload begins.
pub(super) fn reloading() {
    // The time lets systemd tell this reload from an earlier one.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        send(&[NotifyState::Reloading, now]);
    }
}

/// The bridge drains.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Sends the status whenever it has changed.
async fn report_status(lifecycle: Arc<Lifecycle>, services: Arc<OnceLock<Services>>) {
    let (mut sent, mut ticks) = (String::new(), tokio::time::interval(STATUS_INTERVAL));
    while lifecycle.phase() != LifecyclePhase::Stopping {
        ticks.tick().await;
        let status = status(&lifecycle, services.get());
        if status != sent {
            send(&[NotifyState::Status(&status)]);
            sent = status;
        }
    }
}

fn status(lifecycle: &Lifecycle, services: Option<&Services>) -> String {
    let text = match (lifecycle.phase(), services) {
        (LifecyclePhase::Starting, _) => match lifecycle.waiting_for() {
            Some(what) => format!("starting: waiting for {what}, see the log"),
            None => "starting".to_owned(),
        },
        (LifecyclePhase::Stopping, _) => "stopping".to_owned(),
        (LifecyclePhase::Ready, services) => match services.and_then(|services| services.ops.not_ready()) {
            Some(cause) => format!("refusing notifications: {cause}"),
            None if services.is_some_and(|services| services.ops.is_reload_rejected()) => {
                "ready; the last reload was rejected, see the log".to_owned()
            }
            None => "ready".to_owned(),
        },
    };
    // A status is one line.
    text.replace('\n', " ")
}

/// Sends a keep-alive of the watchdog, twice within `timeout`.
async fn report_life(timeout: Duration, lifecycle: Arc<Lifecycle>, services: Arc<OnceLock<Services>>) {
    let mut ticks = tokio::time::interval(timeout / 2);
    loop {
        ticks.tick().await;
        let busy = services.get().map_or(Duration::ZERO, |services| services.store.writer_busy_for());
        if is_alive(busy, timeout, lifecycle.phase()) {
            send(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                busy_seconds = busy.as_secs(),
                "the writer of the store is stuck, the service manager will restart the bridge"
            );
        }
    }
}

/// Whether a writer that has been in its batch for this long lets the process count as alive.
fn is_alive(busy: Duration, timeout: Duration, phase: LifecyclePhase) -> bool {
    // The writer ends when the store is closed, and the service manager has another timeout for that.
    busy < timeout || phase == LifecyclePhase::Stopping
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be notified");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_is_stuck_ends_the_signs_of_life_but_not_while_the_store_is_closed() {
        let timeout = Duration::from_secs(60);
        let alive = |seconds, phase| is_alive(Duration::from_secs(seconds), timeout, phase);
        assert!(alive(59, LifecyclePhase::Ready));
        assert!(!alive(60, LifecyclePhase::Ready));
        assert!(!alive(60, LifecyclePhase::Starting));
        assert!(alive(600, LifecyclePhase::Stopping));
    }
}
