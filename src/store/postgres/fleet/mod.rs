//! What this process knows about the fleet between two questions, and what the fleet knows about this process.
//!
//! 1. `tally`, `view`: the cache.
//! 2. `open`: what is read at the start.
//! 3. `refresh`: reads the cache anew.
//! 4. `configuration`: which of the rules and destinations of replicas are the newest.
//! 5. `replicas`: signs of life, the list of replicas, and a database that came back behind.
//! 6. `notify`: what shortens polling.

mod configuration;
mod notify;
mod open;
mod refresh;
mod replicas;
pub(super) mod tally;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Shared, supervise};
use crate::store::Error;
pub(super) use configuration::IS_OUTDATED;
pub(super) use notify::{Changed, Notifier};
pub(super) use open::open;
pub(super) use view::FleetView;

/// Reads the cache anew, whatever it costs.
pub(super) async fn refresh(shared: &Shared) -> Result<(), Error> {
    refresh::all(shared).await
}

/// Starts the tasks; with `notify`, replicas announce changes to each other. They end when the store is dropped or
/// closed.
pub(super) fn start(shared: &Arc<Shared>, notify: bool) {
    let weak = Arc::downgrade(shared);
    let of_store = move || weak.clone();
    let (signs, cache, sender, listener) = (of_store.clone(), of_store.clone(), of_store.clone(), of_store);
    supervise::spawn("signs of life", move || replicas::run(signs()));
    supervise::spawn("refresh", move || refresh::run(cache()));
    if notify {
        supervise::spawn("notify", move || notify::run(sender()));
        supervise::spawn("listen", move || notify::listen(listener()));
    }
}

/// This process has the configuration with this number from now on.
pub(super) async fn adopt_configuration(shared: &Shared, configuration: i64) -> Result<(), Error> {
    configuration::adopt(shared, configuration).await
}

/// This process accepts notifications, or does not any more.
pub(super) fn set_ready(shared: &Shared, is_ready: bool) {
    shared.fleet.is_ready.store(is_ready, Ordering::Relaxed);
}

/// Says that this process accepts notifications from now on.
pub(super) async fn announce_ready(shared: &Shared) {
    if let Err(error) = replicas::set_ready(shared).await {
        tracing::debug!(%error, "other replicas hear later that this one is ready");
    }
}

/// Says that this process does not accept notifications any more.
pub(super) async fn close(shared: &Shared) {
    set_ready(shared, false);
    if let Err(error) = replicas::set_stopped(shared).await {
        tracing::debug!(%error, "other replicas show this one as lost");
    }
}
