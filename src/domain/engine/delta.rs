//! What one step changes in the occurrences of a rule at a target.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::alert_map::{AlertMap, HasAlertKey};
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::state::{AlertKey, Occurrence, Trigger};
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

/// What happened to one rule at one target at one moment.
#[derive(Default)]
pub(super) struct RuleDelta {
    /// Occurrences that open now; they are not in the episode yet.
    pub opened: AlertMap<Opened>,
    /// Whether an open occurrence has ended unheard and another of the same alert has taken its place.
    pub renewed: bool,
    /// Occurrences that resolved; they are not in the episode any more.
    pub closed: Vec<Occurrence>,
    /// Occurrences that expired; they are not in the episode any more.
    pub expired: Vec<AlertKey>,
    /// Firings that wait, and until when.
    pub late: Vec<(AlertKey, Time)>,
    /// What changed nothing.
    pub unchanged: Vec<(AlertKey, Verdict)>,
    /// Firings that have lost their meaning.
    pub outdated: Vec<AlertKey>,
    /// The notification behind it; there is one whenever something opened or closed.
    pub trigger: Option<Arc<Trigger>>,
    /// Whether that notification left out alerts.
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
