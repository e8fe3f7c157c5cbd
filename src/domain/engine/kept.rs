//! Rules that this process does not know, while another one that uses the same store has a newer configuration: what they
//! owe, defer and have emitted is kept for those that know them, which are asked again and again.

use std::time::Duration;

use super::outcome::Outcome;
use super::step::StepContext;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::{RuleState, TargetState};
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

/// How long what is due is left to others, before it is looked at again.
const DELAY: Duration = Duration::from_secs(5);
const DETAIL: &str =
    "the rule is not part of this configuration but of a newer one; a replica that has it decides";

/// The outcome of what is left to others.
pub(super) fn outcome() -> Outcome {
    Outcome::with_detail(Verdict::NoAction, DETAIL)
}

/// Leaves what is due of such rules to others.
pub(super) fn postpone(step: &mut StepContext<'_>, state: &mut TargetState) {
    if !step.context.keeps_unknown_rules {
        return;
    }
    let names: Vec<Name> = state.rules.iter().map(|(name, _)| name.clone()).collect();
    for name in names.iter().filter(|name| step.is_kept(name)).collect::<Vec<_>>() {
        if let Some(rule_state) = state.rules.get_mut(name) {
            postpone_rule(step, rule_state);
        }
    }
}

fn postpone_rule(step: &mut StepContext<'_>, rule_state: &mut RuleState) {
    let now = step.context.now;
    let later = now.after(DELAY);
    let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
    for phase in [Phase::Firing, Phase::Resolved] {
        let Some(mut deferred) = rule_state.take_deferred(phase) else { continue };
        if is_due(deferred.recheck_at) {
            step.release_slot(&deferred);
            (deferred.recheck_at, deferred.limited_direction) = (Some(later), None);
        }
        rule_state.defer(phase, deferred);
    }
    for mut late in rule_state.late.extract_if(|late| late.opens_at <= now) {
        late.opens_at = later;
        rule_state.late.insert(late);
    }
    if let Some(emitted) = rule_state.emitted_decrease_mut().filter(|emitted| is_due(emitted.recheck_at)) {
        emitted.recheck_at = Some(later);
    }
}
