//! The changes of one rule at one target within a step.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::alert_key::AlertKey;
use crate::domain::alert_map::{AlertMap, HasAlertKey};
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::state::Occurrence;
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;
use crate::domain::verdict::Verdict;

/// The changes of one rule at one target; the input of its episode.
#[derive(Default)]
pub(super) struct RuleDelta {
    /// Occurrences that open; they are not in the episode yet.
    pub opened: AlertMap<Opened>,
    /// Whether a new occurrence of the same alert has replaced an open one whose resolve was not received.
    pub renewed: bool,
    /// Resolved occurrences; they have been removed from the episode.
    pub closed: Vec<Occurrence>,
    /// Expired occurrences; they have been removed from the episode.
    pub expired: Vec<AlertKey>,
    /// New late firings, and when they open.
    pub late: Vec<(AlertKey, Time)>,
    /// Alerts that changed nothing, with their verdicts.
    pub unchanged: Vec<(AlertKey, Verdict)>,
    /// Firings that are no longer valid; they are withdrawn.
    pub outdated: Vec<AlertKey>,
    /// The notification that caused the changes; set whenever an occurrence opened or closed.
    pub trigger: Option<Arc<Trigger>>,
    /// Whether that notification is truncated.
    pub truncated: bool,
}

/// An occurrence that opens.
pub(super) struct Opened {
    pub occurrence: Occurrence,
    pub scope: EpisodeScope,
    pub parameters: BTreeMap<String, String>,
    pub previous_end: Option<Time>,
}

impl HasAlertKey for Opened {
    fn alert(&self) -> &AlertKey {
        &self.occurrence.alert
    }
}
