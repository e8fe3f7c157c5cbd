//! What can be seen of the engine's state.

use super::super::*;
use super::bridge::Bridge;
use super::model::RuleId;
use crate::domain::state::{Deferred, RuleState};

impl Bridge {
    fn rule_states(&self, rule: RuleId) -> impl Iterator<Item = &RuleState> {
        let name = &self.settings.rules.rules()[rule].name;
        let all = self.states.values().flat_map(|state| state.all_rules());
        all.filter(move |(known, _)| *known == name).map(|(_, state)| state)
    }

    pub(crate) fn is_open(&self, rule: RuleId) -> bool {
        self.rule_states(rule).any(|state| state.episode.is_some())
    }

    /// The phases of the deferred actions that something blocks.
    pub(crate) fn deferred(&self, rule: RuleId) -> Vec<Phase> {
        let mut found = Vec::new();
        for state in self.rule_states(rule) {
            let firing = state.episode.as_ref().and_then(|episode| episode.deferred.as_ref());
            let resolved = state.closed.as_ref().and_then(|closed| closed.deferred.as_ref());
            let is_blocked = |deferred: Option<&Deferred>| deferred.is_some_and(|it| it.blocked_by.is_some());
            // One that is not justified any more is withdrawn when it is rechecked.
            let is_justified = firing.is_some_and(|it| it.is_retry || it.is_repeat)
                || state.episode.as_deref().is_some_and(deferred::has_need);
            let has_evidence = state.episode.as_deref().is_none_or(|episode| !episode.expired);
            let is_justified = is_justified && (has_evidence || !firing.is_some_and(|it| it.decreases));
            found.extend((is_blocked(firing) && is_justified).then_some(Phase::Firing));
            found.extend(is_blocked(resolved).then_some(Phase::Resolved));
        }
        found
    }

    /// What the rule owes, as numbers of the ledger.
    pub(crate) fn owed(&self, rule: RuleId) -> Vec<usize> {
        let name = &self.settings.rules.rules()[rule].name;
        let states = self
            .states
            .values()
            .flat_map(|state| std::iter::once(&**state).chain(state.shadows.values().map(|it| &**it)));
        let owed = states.flat_map(|state| &state.emissions).filter(|it| it.is_owed && it.rule == *name);
        owed.filter_map(|emission| self.number(&emission.id)).collect()
    }
}
