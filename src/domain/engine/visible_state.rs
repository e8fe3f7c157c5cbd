//! What a rule sees of a target's state: its own part, and for a rule in `mode: shadow` also that of the active rules.

use std::collections::BTreeSet;

use crate::domain::name::Name;
use crate::domain::state::{Calm, InvalidFiring, LateFiring, Occurrence, RuleState, TargetState};
use crate::domain::time::Time;

/// All active rules of a target share a part. A rule in `mode: shadow` has one of its own and sees that of the active
/// rules, which does not see it.
#[derive(Clone, Copy)]
pub(super) struct VisibleState<'a> {
    pub own: &'a TargetState,
    /// That of the active rules, for a rule in `mode: shadow`.
    pub active: Option<&'a TargetState>,
}

impl<'a> VisibleState<'a> {
    fn states(self) -> impl Iterator<Item = &'a TargetState> {
        std::iter::once(self.own).chain(self.active)
    }

    /// The rules whose episodes can outrank decreases: the active ones.
    pub(super) fn outranking_rules(self) -> impl Iterator<Item = (&'a Name, &'a RuleState)> {
        self.active.unwrap_or(self.own).rules.iter()
    }

    /// When the calm was disturbed last.
    pub(super) fn disturbed_at(self) -> Option<Time> {
        self.calm().filter_map(|calm| calm.disturbed_at).max()
    }

    /// When the last episode, late firing or invalid firing ended.
    pub(super) fn closed_at(self) -> Option<Time> {
        self.calm().filter_map(|calm| calm.closed_at).max()
    }

    fn calm(self) -> impl Iterator<Item = &'a Calm> {
        self.states().filter_map(|state| state.calm.as_ref())
    }

    /// The late firing that opens last.
    pub(super) fn last_late(self) -> Option<&'a LateFiring> {
        let rules = self.states().flat_map(|state| state.rules.values());
        rules.flat_map(|rule| rule.late.iter()).max_by_key(|late| late.opens_at)
    }

    /// The alert that is absent and expires last.
    pub(super) fn last_absent(self, now: Time) -> Option<&'a Occurrence> {
        let rules = self.states().flat_map(|state| state.rules.values());
        let absent = rules.flat_map(RuleState::occurrences).filter(|open| open.is_absent(now));
        absent.max_by_key(|open| open.expires_at)
    }

    /// The firing that cannot be read and expires last.
    pub(super) fn last_invalid(self) -> Option<&'a InvalidFiring> {
        self.states().flat_map(|state| state.invalid.iter()).max_by_key(|invalid| invalid.expires_at)
    }

    /// The sources of all episodes that are open, or that closed and are still known.
    pub(super) fn sources(self) -> BTreeSet<&'a Name> {
        let rules = self.states().flat_map(|state| state.rules.values());
        let episodes = rules.flat_map(|rule| {
            rule.episode.as_deref().into_iter().chain(rule.closed.iter().map(|closed| &*closed.episode))
        });
        let late = self.states().flat_map(|state| state.rules.values()).flat_map(|rule| rule.late.iter());
        let of_late = late.map(|late| &late.occurrence.alert.source);
        let ended = self.states().flat_map(|state| state.last_resolves.iter());
        let of_ended = ended.filter(|ended| ended.was_open).map(|ended| &ended.alert.source);
        episodes.flat_map(|episode| &episode.sources).chain(of_late).chain(of_ended).collect()
    }
}
