//! What the deferred actions of a target wait for now. The state has the verdict and the time of their last recheck; what
//! blocks them can have grown since.

use super::Context;
use super::deferred::pending;
use super::guard::{self, ActionRequest};
use super::outcome::requested_action;
use super::step::StepContext;
use super::visible_state::VisibleState;
use crate::domain::blocker::Blocker;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::Change;
use crate::domain::state::{Deferred, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

/// A deferred action, and what blocks it now.
#[derive(Debug, Clone, PartialEq)]
pub struct DeferredAction {
    /// The rule.
    pub rule: Name,
    /// The phase of the episode.
    pub phase: Phase,
    /// The requested action; `None` if the rule has none any more, so that the next recheck withdraws it.
    pub action: Option<&'static str>,
    /// The verdict; `None` for a repetition that is not due, and for what nothing blocks any more.
    pub verdict: Option<Verdict>,
    /// When it is rechecked at the latest; `None` if the end of the blocker is unknown.
    pub until: Option<Time>,
    /// What blocks it.
    pub blocked_by: Option<Blocker>,
}

/// The deferred actions of a target, with what blocks them now. Nothing is changed.
pub fn deferred_actions(context: &Context<'_>, key: &TargetKey, state: &TargetState) -> Vec<DeferredAction> {
    let mut step = StepContext::new(context);
    let shadows = state.shadows.values().map(|shadow| (&**shadow, Some(state)));
    let parts = std::iter::once((state, None)).chain(shadows);
    let visible = parts.map(|(own, active)| VisibleState { own, active });
    visible.flat_map(|visible| deferred_of(&mut step, key, visible)).collect()
}

fn deferred_of(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    visible: VisibleState<'_>,
) -> Vec<DeferredAction> {
    let mut found = Vec::new();
    for (name, rule_state) in visible.own.rules.iter() {
        let Some((phase, episode, deferred)) = pending(rule_state) else { continue };
        let rule = step.rule(name);
        let action = rule.and_then(|rule| requested_action(rule, phase));
        let blocked =
            rule.zip(action).filter(|_| !is_repeat_to_come(step, deferred)).and_then(|(rule, action)| {
                let request = ActionRequest { key, visible, rule, phase, action, episode, deferred };
                guard::blocked(step, &request)
            });
        let action = DeferredAction {
            rule: name.clone(),
            phase,
            action: action.map(|action| Change::action(&action.change)),
            verdict: blocked.as_ref().map(|blocked| blocked.verdict),
            until: blocked.as_ref().map_or(deferred.recheck_at, |blocked| blocked.recheck_at),
            blocked_by: blocked.and_then(|blocked| blocked.by),
        };
        found.push(action);
    }
    found
}

/// Whether no guard has seen the action yet: it is a repetition that comes later.
fn is_repeat_to_come(step: &StepContext<'_>, deferred: &Deferred) -> bool {
    deferred.is_repeat && deferred.blocked_by.is_none() && !deferred.is_due(step.context.now)
}
