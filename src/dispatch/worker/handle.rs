//! Stops a running worker.

use tokio_util::sync::CancellationToken;

/// Stops a worker and reports its end.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    stop: CancellationToken,
    ended: CancellationToken,
}

/// The worker's side. Dropping it signals the end of the worker.
#[derive(Debug)]
pub(crate) struct WorkerGuard {
    stop: CancellationToken,
    ended: CancellationToken,
}

impl WorkerHandle {
    /// A handle of a worker that also stops with `process_stop`.
    pub(crate) fn new(process_stop: &CancellationToken) -> (Self, WorkerGuard) {
        let (stop, ended) = (process_stop.child_token(), CancellationToken::new());
        let guard = WorkerGuard { stop: stop.clone(), ended: ended.clone() };
        (Self { stop, ended }, guard)
    }

    /// Requests the end of the worker, and waits for it.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

impl WorkerGuard {
    /// Cancelled when the worker has to end.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

// Not a `DropGuard` in a field: a closure that uses another field would capture that one alone, and the guard would be
// dropped at once.
impl Drop for WorkerGuard {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_has_ended_when_its_task_has() {
        let process_stop = CancellationToken::new();
        let (handle, guard) = WorkerHandle::new(&process_stop);
        let task = tokio::spawn(async move { guard.stop().cancelled().await });
        tokio::task::yield_now().await;
        assert!(!handle.ended.is_cancelled());
        handle.stop().await;
        task.await.unwrap();
        assert!(!process_stop.is_cancelled());
    }
}
