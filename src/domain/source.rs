//! The configuration of a source.

use std::sync::Arc;
use std::time::Duration;

use super::labels::Labels;
use super::matcher::Matcher;
use super::name::Name;

/// A configured sender of notifications: one Alertmanager cluster.
#[derive(Debug, Clone)]
pub struct Source {
    /// The name, the last part of the webhook's path.
    pub name: Name,
    /// Labels that override those of every alert, so that a source cannot send alerts for another cluster.
    pub labels: Arc<Labels>,
    /// How long a late firing (possibly the delayed copy of a second Alertmanager) is deferred for its
    /// resolve to arrive. Longer than Alertmanager's `group_interval`.
    pub late_window: Duration,
    /// How long an occurrence stays open when no notification mentions it. Longer than Alertmanager's
    /// `repeat_interval`.
    pub occurrence_ttl: Duration,
    /// Matchers of the heartbeat: the alert that always fires while this source's Prometheus runs. Empty if
    /// none is configured.
    pub heartbeat: Vec<Matcher>,
}

impl Source {
    /// Whether an alert with these labels is the heartbeat of this source.
    pub fn is_heartbeat(&self, labels: &Labels) -> bool {
        !self.heartbeat.is_empty() && self.heartbeat.iter().all(|matcher| matcher.matches(labels))
    }
}
