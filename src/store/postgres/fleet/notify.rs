//! `NOTIFY` shortens the polling of the other replicas. It is sent outside transactions, and never awaited by one: the lock
//! that a transaction with a notification takes at its commit is one for the whole server.

use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_postgres::types::Type;

use crate::store::postgres::Shared;
use crate::store::postgres::connect::Pool;

/// The channel.
pub(super) const CHANNEL: &str = "scalebridge";
/// Notifications within this time are one.
const INTERVAL: Duration = Duration::from_millis(20);

/// The pause before another connection is opened to listen.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(5);

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

/// Listens to the other replicas until the store is gone. Without a connection nothing is missed: all of it is polled too.
pub(super) async fn listen(shared: Weak<Shared>) {
    loop {
        let Some(pool) = open_pool(&shared) else { return };
        if let Ok((_connection, mut notices)) = pool.listen(CHANNEL).await {
            loop {
                // The store can go while nothing is announced.
                match tokio::time::timeout(RECONNECT_INTERVAL, notices.recv()).await {
                    Ok(Some(payload)) => shared.upgrade().iter().for_each(|shared| hear(shared, &payload)),
                    Ok(None) => break,
                    Err(_) => {}
                }
                if open_pool(&shared).is_none() {
                    return;
                }
            }
        }
        tokio::time::sleep(RECONNECT_INTERVAL).await;
    }
}

fn open_pool(shared: &Weak<Shared>) -> Option<Pool> {
    shared.upgrade().map(|shared| shared.pool.clone()).filter(|pool| !pool.is_closed())
}

fn hear(shared: &Shared, payload: &str) {
    let Some((replica, what)) = payload.split_once(' ') else { return };
    if replica == shared.replica.to_string() {
        return;
    }
    // An announcement of the controls can stand for deliveries too.
    shared.destinations.all().values().for_each(|destination| destination.wakeup.notify_one());
    if what == "controls" {
        shared.fleet.refresh_now.notify_one();
    }
}
