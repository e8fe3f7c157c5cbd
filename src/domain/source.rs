//! What is known of a sender of notifications.

use std::sync::Arc;
use std::time::Duration;

use super::labels::Labels;
use super::name::Name;

/// A configured sender: one Alertmanager cluster.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name, the last part of its webhook's path.
    pub name: Name,
    /// Laid over every alert's labels: a source cannot speak for another cluster.
    pub labels: Arc<Labels>,
    /// How long a firing that might be a twin's late copy waits for its resolve. Longer than
    /// Alertmanager's `group_interval`.
    pub late_window: Duration,
    /// How long an occurrence lives that nobody speaks of. Longer than Alertmanager's
    /// `repeat_interval`.
    pub occurrence_ttl: Duration,
}
