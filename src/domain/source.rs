//! The configuration of a source.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::heartbeat_key::HeartbeatKey;
use super::labels::Labels;
use super::matcher::Matcher;
use super::name::Name;
use super::target::{PartialTarget, TargetKey};
use super::target_pattern::TargetPattern;

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
    /// The heartbeat; `None` if none is configured.
    pub heartbeat: Option<HeartbeatSettings>,
    /// Labels in which the copies of one alert differ, for example the `replica` of a pair of Prometheus servers.
    pub ignore_labels: Vec<String>,
    /// What its alerts may reach.
    pub permissions: SourcePermissions,
}

/// The rules that see the alerts of a source, and the targets that these alerts may be about. The default allows all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourcePermissions {
    /// The rules; `None` allows all.
    pub rules: Option<BTreeSet<Name>>,
    /// The targets; `None` allows all.
    pub targets: Option<Vec<TargetPattern>>,
}

impl SourcePermissions {
    /// Whether the rule sees the alerts of the source.
    pub fn allow_rule(&self, rule: &Name) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.contains(rule))
    }

    /// Whether an alert of the source may be about this target.
    pub fn allow_target(&self, target: &TargetKey) -> bool {
        self.targets.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.covers(target)))
    }

    /// Whether an alert of the source may hold these targets: one pattern matches all that the hold could cover.
    pub fn allow_hold(&self, covers: &PartialTarget) -> bool {
        self.targets.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.covers_all(covers)))
    }
}

/// The heartbeat of a source: the alert that always fires while its Prometheus runs. While it is not open, the source
/// decreases nothing.
#[derive(Debug, Clone)]
pub struct HeartbeatSettings {
    /// The matchers of the alert; not empty.
    pub matchers: Vec<Matcher>,
    /// Labels whose values tell heartbeats apart: each combination of values is a heartbeat of its own, for the alerts
    /// with the same values. Empty if the source has one heartbeat.
    pub equal: Vec<String>,
    /// How long the heartbeat stays open without a notification that contains it, if it is limited.
    pub timeout: Option<Duration>,
    /// How long nothing is decreased after the heartbeat has opened.
    pub grace: Duration,
}

impl HeartbeatSettings {
    /// One heartbeat with the default grace and no timeout.
    pub const fn new(matchers: Vec<Matcher>) -> Self {
        Self { matchers, equal: Vec::new(), timeout: None, grace: Self::DEFAULT_GRACE }
    }

    /// The default of [`grace`](Self::grace).
    pub const DEFAULT_GRACE: Duration = Duration::from_mins(15);
}

impl Source {
    /// Whether an alert with these labels is the heartbeat of this source.
    pub fn is_heartbeat(&self, labels: &Labels) -> bool {
        self.heartbeat
            .as_ref()
            .is_some_and(|heartbeat| heartbeat.matchers.iter().all(|matcher| matcher.matches(labels)))
    }
    /// The heartbeat to which an alert with these labels belongs.
    pub fn heartbeat_key(&self, labels: &Labels) -> HeartbeatKey {
        let equal = self.heartbeat.iter().flat_map(|heartbeat| &heartbeat.equal);
        HeartbeatKey::with_values(&self.name, equal.map(|label| labels.get(label)))
    }
}
