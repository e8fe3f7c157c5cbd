//! The changes of one rule at one target within a step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::end::ResolvedAlert;
use crate::domain::alert_key::AlertKey;
use crate::domain::alert_map::{AlertMap, HasAlertKey};
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::name::Name;
use crate::domain::state::{Occurrence, RuleState, TargetState};
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;
use crate::domain::verdict::Verdict;

/// A rule at a target. Its state is apart from the others in `mode: shadow`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleId {
    pub is_shadow: bool,
    pub name: Name,
}

impl RuleId {
    pub(super) fn state<'a>(&self, target: &'a TargetState) -> Option<&'a RuleState> {
        let part = if self.is_shadow { target.shadows.get(&self.name)? } else { target };
        part.rules.get(&self.name)
    }

    pub(super) fn state_mut<'a>(&self, target: &'a mut TargetState) -> &'a mut RuleState {
        let part = if self.is_shadow { target.shadows.get_or_default(&self.name) } else { target };
        part.rules.get_or_default(&self.name)
    }

    /// All rules that have a state at a target.
    pub(super) fn all(target: &TargetState) -> Vec<Self> {
        let active = target.rules.iter().map(|(name, _)| Self { is_shadow: false, name: name.clone() });
        let shadows = target.shadows.iter().map(|(name, _)| Self { is_shadow: true, name: name.clone() });
        active.chain(shadows).collect()
    }
}

/// The changes of one rule at one target; the input of its episode.
#[derive(Default)]
pub(super) struct RuleDelta {
    /// Occurrences that open; they are not in the episode yet.
    pub opened: AlertMap<Opened>,
    /// Whether a new occurrence of the same alert has replaced an open one whose resolve was not received.
    pub renewed: bool,
    /// Resolved occurrences; they have been removed from the episode.
    pub closed: Vec<Occurrence>,
    /// Occurrences that ended without evidence that their condition is over; they have been removed from the episode.
    pub expired: Vec<Expired>,
    /// New late firings, and when they open.
    pub late: Vec<(AlertKey, Time)>,
    /// Alerts that changed nothing.
    pub unchanged: Vec<Unchanged>,
    /// Firings that are no longer valid; they are withdrawn.
    pub outdated: Vec<AlertKey>,
    /// The notification that caused the changes; set whenever an occurrence opened or closed.
    pub trigger: Option<Arc<Trigger>>,
    /// Whether that notification is truncated.
    pub truncated: bool,
}

/// An occurrence that ended without evidence that its condition is over.
pub(super) struct Expired {
    pub alert: AlertKey,
    /// Why the sender has ended it; `None` if it was not heard of for `occurrence_ttl`.
    pub absence: Option<Arc<str>>,
}

/// An alert that changed nothing.
pub(super) struct Unchanged {
    pub alert: AlertKey,
    pub verdict: Verdict,
    /// The reason, where the verdict alone does not give it.
    pub detail: Option<String>,
}

impl RuleDelta {
    /// Answers an alert that changes nothing.
    pub(super) fn answer(&mut self, alert: AlertKey, verdict: Verdict) {
        self.unchanged.push(Unchanged { alert, verdict, detail: None });
    }

    /// Answers an end that changes nothing, with its reason if it is an absence.
    pub(super) fn answer_end(&mut self, resolve: &ResolvedAlert, verdict: Verdict) {
        self.unchanged.push(Unchanged { alert: resolve.key.clone(), verdict, detail: resolve.detail() });
    }
}

/// An occurrence that opens.
pub(super) struct Opened {
    pub occurrence: Occurrence,
    pub scope: EpisodeScope,
    pub parameters: BTreeMap<String, String>,
    pub previous_end: Option<Time>,
    /// Whether it was late, so that it may belong to the episode that closed last.
    pub was_late: bool,
}

impl HasAlertKey for Opened {
    fn alert(&self) -> &AlertKey {
        &self.occurrence.alert
    }
}

/// The changes of each rule at one target. A list, since there is nearly always one.
#[derive(Default)]
pub(super) struct RuleDeltas(pub Vec<(RuleId, RuleDelta)>);

impl RuleDeltas {
    pub(super) fn delta_mut(&mut self, rule: &RuleId) -> &mut RuleDelta {
        let known = self.0.iter().position(|(known, _)| known == rule);
        let at = known.unwrap_or_else(|| {
            self.0.push((rule.clone(), RuleDelta::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut RuleDelta> {
        self.0.iter_mut().map(|(_, delta)| delta)
    }
}

/// An alert that a hold matches, but that cannot be read.
pub(super) struct UnreadableHold {
    pub alert: AlertKey,
    pub starts_at: Option<Time>,
    pub rule: Name,
}

/// What a notification says about a hold besides its occurrences.
#[derive(Default)]
pub(super) struct ControlInput {
    /// Alerts that fire and cannot be read.
    pub unreadable: Vec<UnreadableHold>,
    /// Alerts that can be read again, or have resolved.
    pub readable: Vec<AlertKey>,
    /// The source's `occurrence_ttl`.
    pub ttl: Duration,
}
