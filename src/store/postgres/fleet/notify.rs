//! `NOTIFY` shortens the polling of the other replicas. It is sent outside transactions, and never awaited by one: the lock
//! that a transaction with a notification takes at its commit is one for the whole server.

use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_postgres::types::Type;

use crate::store::postgres::Shared;

/// The channel.
pub(super) const CHANNEL: &str = "scalebridge";
/// Notifications within this time are one.
const INTERVAL: Duration = Duration::from_millis(20);

/// What the other replicas should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store::postgres) struct Changed {
    /// There are deliveries to claim.
    pub deliveries: bool,
    /// The controls have changed, or targets are due.
    pub controls: bool,
}

/// Collects what is to be sent.
#[derive(Default)]
pub(in crate::store::postgres) struct Notifier {
    changed: Mutex<Changed>,
    wakeup: Notify,
}

impl Notifier {
    /// To be sent soon.
    pub(in crate::store::postgres) fn send(&self, changed: Changed) {
        let mut known = self.changed.lock();
        known.deliveries |= changed.deliveries;
        known.controls |= changed.controls;
        drop(known);
        self.wakeup.notify_one();
    }
}

/// Sends until the store is gone.
pub(super) async fn run(shared: Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade().filter(|shared| !shared.pool.is_closed()) else { return };
        // The store can go while nothing is to be sent.
        drop(tokio::time::timeout(Duration::from_secs(1), shared.notifier.wakeup.notified()).await);
        let changed = std::mem::take(&mut *shared.notifier.changed.lock());
        let Changed { deliveries, controls } = changed;
        if !(deliveries || controls) {
            continue;
        }
        if let Ok(connection) = shared.pool.get().await {
            let payload = format!("{} {}", shared.replica, if controls { "controls" } else { "deliveries" });
            let params = [(&CHANNEL as _, Type::TEXT), (&payload as _, Type::TEXT)];
            // It only shortens polling.
            drop(connection.query_typed("SELECT pg_notify($1, $2)", &params).await);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
