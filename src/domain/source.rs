//! What is known of a sender of notifications.

use std::sync::Arc;
use std::time::Duration;

use super::labels::Labels;
use super::matcher::Matcher;
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
    /// All hold for the alert that always fires while this source's Prometheus lives. Empty where there
    /// is none.
    pub heartbeat: Vec<Matcher>,
}

impl Source {
    /// Whether an alert is this source's heartbeat.
    pub fn is_heartbeat(&self, labels: &Labels) -> bool {
        !self.heartbeat.is_empty() && self.heartbeat.iter().all(|matcher| matcher.matches(labels))
    }
}
