//! Whether the queues of sources can be read, for the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::name::Name;

/// What is known of the queue of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QueueStatus {
    /// Whether everything was read that was in the queue when the bridge connected to it. Until then, the source has a
    /// reception gap.
    pub is_current: bool,
    /// Why the queue cannot be read, or its messages not be deleted.
    pub last_error: Option<String>,
}

/// The queues of all sources. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueueStatuses(Arc<Mutex<BTreeMap<Name, QueueStatus>>>);

impl QueueStatuses {
    pub(crate) fn get(&self, source: &Name) -> Option<QueueStatus> {
        self.0.lock().get(source).cloned()
    }

    pub(super) fn set(&self, source: &Name, status: QueueStatus) {
        self.0.lock().insert(source.clone(), status);
    }

    pub(super) fn remove(&self, source: &Name) {
        self.0.lock().remove(source);
    }
}
