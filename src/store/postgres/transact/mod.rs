//! Decisions: states are read under their locks, the engine's step runs, and everything is written in one transaction.
//!
//! Queued commands that share no target and no alert are one batch, which is one transaction of a few round trips,
//! whatever its size. In reading order:
//!
//! 1. `command`, `queue`: what waits, and which of it is run together.
//! 2. `rows`: targets are inserted, locked and read. `caches`, `view`: what decisions read besides.
//! 3. `decide`, `tracked`, `write_set`, `emission`: decisions, and what they write, as data.
//! 4. `write`, `commit`: how it is written.
//! 5. `run`: all of this, and what becomes of batches that fail.
//! 6. `due`, `unreadable`: due work, and states that cannot be read.

mod caches;
mod command;
mod commit;
mod decide;
mod due;
mod emission;
mod queue;
mod rows;
mod run;
#[cfg(test)]
mod tests;
mod tracked;
mod unreadable;
mod view;
mod write;
mod write_set;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use futures_util::FutureExt as _;

use super::Shared;
use super::error::Stage;
use crate::domain::alert_key::AlertKey;
use crate::domain::target::TargetKey;
use crate::store::{AuditWrite, DecideFn, DropError, Error, Keys, UnreadableRow};
use command::Command;
pub(super) use command::alert_hash;
use queue::Line;
pub(super) use queue::Queue;

/// The maximum number of batches that are run at the same time.
const MAX_WORKERS: usize = 8;

/// Starts the workers. They leave connections for claims and queries.
pub(super) fn start(shared: &Arc<Shared>, max_connections: usize) {
    let workers = (max_connections / 2).clamp(1, MAX_WORKERS);
    let work = |_| tokio::spawn(work(shared.transactions.line.clone(), Arc::downgrade(shared)));
    shared.transactions.workers.lock().extend((0..workers).map(work));
}

/// Runs batches until the queue is closed and empty.
async fn work(line: Arc<Line>, shared: Weak<Shared>) {
    while let Some(mut batch) = line.next().await {
        let Some(shared) = shared.upgrade() else { return };
        // A worker that ends is missing until the next start. The commands of this batch fail.
        if AssertUnwindSafe(run::run(&shared, &mut batch)).catch_unwind().await.is_err() {
            tracing::error!(commands = batch.commands.len(), "a batch has panicked, rolled back");
        }
    }
}

pub(super) async fn run(shared: &Shared, keys: Keys, decide: DecideFn) -> Result<(), Error> {
    let (command, answer) = Command::new(keys, decide);
    shared.transactions.line.push(command)?;
    answer.await.unwrap_or_else(|_| match shared.pool.is_closed() {
        true => Err(Error::Closed),
        false => {
            Err(Error::Unavailable("the transaction has panicked; it may have been committed".to_owned()))
        }
    })
}

pub(super) async fn locate(
    shared: &Shared,
    alerts: Vec<AlertKey>,
) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error> {
    due::locate(shared, alerts).await.map_err(|error| error.into_store(Stage::Use))
}

pub(super) async fn due(shared: &Shared, max: usize) -> Result<Vec<TargetKey>, Error> {
    due::due(shared, max).await.map_err(|error| error.into_store(Stage::Use))
}

pub(super) async fn drop_unreadable(
    shared: &Shared,
    row: i64,
    audit: AuditWrite,
) -> Result<UnreadableRow, DropError> {
    unreadable::drop(shared, row, audit).await
}

/// Runs what is queued, and ends the workers.
pub(super) async fn close(shared: &Shared) {
    shared.transactions.close();
    let workers = std::mem::take(&mut *shared.transactions.workers.lock());
    for worker in workers {
        if worker.await.is_err() {
            tracing::error!("a worker of the store panicked");
        }
    }
    shared.transactions.totals.log();
}
