//! Counts of the decisions on a notification.

use std::collections::BTreeMap;

use super::name::Name;
use super::verdict::{Decision, Verdict};

/// Counts over one or more decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Alerts in the notification.
    pub alerts: usize,
    /// Events that were emitted.
    pub events: u64,
    /// Alerts per verdict, counted once for each rule that matched. Decisions on deferred actions are counted
    /// in `decisions` only.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Decisions per rule and verdict.
    pub decisions: BTreeMap<(Option<Name>, Verdict), u64>,
    /// Events per source, rule and action.
    pub actions: BTreeMap<(Name, Name, &'static str), u64>,
}

impl Summary {
    /// Counts `decisions`. The number of alerts is left at 0.
    pub fn from_decisions(decisions: &[Decision]) -> Self {
        let mut summary = Self::default();
        for decision in decisions {
            if decision.is_reply {
                *summary.verdicts.entry(decision.verdict).or_default() += decision.alerts.len() as u64;
            }
            *summary.decisions.entry((decision.rule.clone(), decision.verdict)).or_default() += 1;
            if let Some(event) = &decision.event {
                summary.events += 1;
                *summary
                    .actions
                    .entry((event.trigger.source.clone(), event.rule.clone(), event.action))
                    .or_default() += 1;
            }
        }
        summary
    }

    /// Adds the counts of another part of the same notification. The number of alerts does not change.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        for (verdict, count) in other.verdicts {
            *self.verdicts.entry(verdict).or_default() += count;
        }
        for (key, count) in other.decisions {
            *self.decisions.entry(key).or_default() += count;
        }
        for (key, count) in other.actions {
            *self.actions.entry(key).or_default() += count;
        }
    }
}
