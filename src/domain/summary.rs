//! What came of a notification, in numbers.

use std::collections::BTreeMap;

use super::name::Name;
use super::verdict::{Decision, Verdict};

/// The numbers of one or more decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Alerts of the notification.
    pub alerts: usize,
    /// Events that were written.
    pub events: u64,
    /// Verdicts of the alerts of a notification, counted for each alert and rule that took it. What became
    /// of something that had waited is in `decisions` alone.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Decisions of each rule and verdict.
    pub decisions: BTreeMap<(Option<Name>, Verdict), u64>,
    /// Events of each rule and action.
    pub actions: BTreeMap<(Name, &'static str), u64>,
}

impl Summary {
    /// Counts decisions.
    pub fn from_decisions(decisions: &[Decision]) -> Self {
        let mut summary = Self::default();
        for decision in decisions {
            if decision.is_reply {
                *summary.verdicts.entry(decision.verdict).or_default() += decision.alerts.len() as u64;
            }
            *summary.decisions.entry((decision.rule.clone(), decision.verdict)).or_default() += 1;
            if let Some(event) = &decision.event {
                summary.events += 1;
                *summary.actions.entry((event.rule.clone(), event.action)).or_default() += 1;
            }
        }
        summary
    }

    /// Adds the numbers of another part of the same notification.
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
