//! Stops a running worker.

use tokio_util::sync::{CancellationToken, DropGuard};

/// Stops a worker and tells when it has ended.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    stop: CancellationToken,
    ended: CancellationToken,
}

/// The worker's side. Dropping it tells that the worker has ended.
#[derive(Debug)]
pub(crate) struct WorkerGuard {
    pub stop: CancellationToken,
    _ended: DropGuard,
}

impl WorkerHandle {
    /// A handle of a worker that also stops with `process_stop`.
    pub(crate) fn new(process_stop: &CancellationToken) -> (Self, WorkerGuard) {
        let (stop, ended) = (process_stop.child_token(), CancellationToken::new());
        let guard = WorkerGuard { stop: stop.clone(), _ended: ended.clone().drop_guard() };
        (Self { stop, ended }, guard)
    }

    /// Requests the end of the worker, and waits for it.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}
