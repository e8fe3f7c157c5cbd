//! The bridge's lifecycle: starting, ready, stopping.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Whether the bridge accepts notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LifecyclePhase {
    /// The store is not open yet, or the workers have not started.
    Starting = 0,
    /// Notifications are accepted.
    Ready = 1,
    /// Draining: requests in progress are answered, new notifications are rejected.
    Stopping = 2,
}

impl LifecyclePhase {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
        }
    }
}

/// The bridge's lifecycle phase, shared by the handlers and `app`.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    phase: AtomicU8,
    /// What the start waits for.
    waiting_for: Mutex<Option<&'static str>>,
    stopping: CancellationToken,
}

impl Lifecycle {
    pub(crate) fn enter(&self, phase: LifecyclePhase) {
        self.phase.store(phase as u8, Ordering::Release);
        if phase == LifecyclePhase::Stopping {
            self.stopping.cancel();
        }
    }

    /// Sets what the start waits for, for those who ask whether the bridge is ready.
    pub(crate) fn set_waiting_for(&self, what: Option<&'static str>) {
        *self.waiting_for.lock() = what;
    }

    /// What the start waits for, if it waits for something outside of the process.
    pub(crate) fn waiting_for(&self) -> Option<&'static str> {
        *self.waiting_for.lock()
    }

    /// Completes when the bridge starts to stop; responses that have no end of their own, such as streams, end then.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    pub(crate) fn phase(&self) -> LifecyclePhase {
        match self.phase.load(Ordering::Acquire) {
            0 => LifecyclePhase::Starting,
            1 => LifecyclePhase::Ready,
            _ => LifecyclePhase::Stopping,
        }
    }
}
