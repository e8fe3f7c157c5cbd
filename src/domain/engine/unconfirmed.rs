//! Takes back decreases that are emitted and that no answer has confirmed: an increase supersedes them, and what would
//! block their emission blocks their delivery too.

use super::deferred::{Acting, RULE_REMOVED};
use super::guard::{ActionRequest, Blocked};
use super::outcome::{DecisionLog, Outcome, requested_action};
use super::step::StepContext;
use super::visible_state::VisibleState;
use super::{calm, delivery, guard};
use crate::domain::blocker::Blocker;
use crate::domain::delivery::DeliveryChangeKind;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::{Emission, EmittedDecrease, RuleState, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::verdict::{Decision, Verdict};

/// The unconfirmed decreases of a target, without dead letters.
fn unconfirmed(state: &TargetState) -> Vec<(Name, Emission, EmittedDecrease)> {
    let of_rules = state.rules.iter().filter_map(|(name, rule_state)| {
        let emitted = rule_state.emitted_decrease().filter(|emitted| !emitted.is_rejected)?;
        let emission = state.emission(&emitted.event).filter(|emission| emission.delivered_at().is_none())?;
        Some((name.clone(), emission.clone(), emitted.clone()))
    });
    of_rules.collect()
}

/// Supersedes the unconfirmed decreases of all other rules, because rule `by` has opened and increases capacity.
pub(super) fn supersede(step: &mut StepContext<'_>, acting: &mut Acting<'_>, by: &Name) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for (name, emission, emitted) in unconfirmed(acting.own) {
        // What this step emits knows of the opening.
        if name == *by || step.emitted.contains(&emission.id) {
            continue;
        }
        let detail =
            format!("an increase of rule {by} supersedes event {}, which is not confirmed", emission.id);
        decisions.extend(take_back(step, acting, &emission, emitted, true, &detail));
    }
    decisions
}

/// Takes back the unconfirmed decreases that a control, a late or invalid firing, or a reception gap blocks now, and
/// resumes those whose calls were suspended because of that.
pub(super) fn recheck(step: &mut StepContext<'_>, acting: &mut Acting<'_>) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for (name, emission, emitted) in unconfirmed(acting.own) {
        if step.emitted.contains(&emission.id) {
            continue;
        }
        let action = step.active_rule(&name).and_then(|rule| requested_action(rule, emission.phase));
        if !step.is_kept(&name) && action.is_none_or(|action| !action.change.decreases_capacity()) {
            decisions.extend(end(step, acting, &emission, &emitted));
            continue;
        }
        if emission.is_suspended {
            continue;
        }
        if let Some(reason) = blocker(step, acting.key, acting.visible(), &name, emission.phase) {
            let detail = format!("event {} is not confirmed and is taken back: {reason}", emission.id);
            decisions.extend(take_back(step, acting, &emission, emitted, false, &detail));
        }
    }
    resume(step, acting);
    decisions
}

/// Ends a decrease whose rule no longer exists, or no longer has its action. If the outcome of a call is unknown, it counts
/// as delivered.
fn end(
    step: &mut StepContext<'_>,
    acting: &mut Acting<'_>,
    emission: &Emission,
    emitted: &EmittedDecrease,
) -> Vec<Decision> {
    let mut log = DecisionLog::new(Some(&emission.rule), acting.key);
    if let Some(episode) = acting.own.rules.get(&emission.rule).and_then(|rule| rule.last_episode()) {
        let outcome = Outcome::with_detail(Verdict::Withdrawn, RULE_REMOVED);
        log.record(outcome.for_episode(emission.phase, episode, None), emitted.request.alerts.clone());
    }
    step.change_delivery(acting.key, &emission.id, DeliveryChangeKind::Cancel);
    if step.delivery(acting.key, emission).is_uncertain {
        delivery::count_as_delivered(step, acting.own, emission);
        return log.decisions;
    }
    acting.own.emissions.retain(|known| known.id != emission.id);
    let rule_state = acting.own.rules.get_mut(&emission.rule);
    drop(rule_state.and_then(RuleState::take_emitted_decrease));
    log.decisions
}

/// Resumes the suspended decreases that no guard blocks any more. The others are rechecked when their wait is over.
fn resume(step: &mut StepContext<'_>, acting: &mut Acting<'_>) {
    for (name, emission, emitted) in unconfirmed(acting.own) {
        if !emission.is_suspended || step.is_kept(&name) {
            continue;
        }
        let blocked = blocked_again(step, acting, &name, &emission, &emitted);
        if blocked.is_none() {
            step.change_delivery(acting.key, &emission.id, DeliveryChangeKind::Resume);
            set_suspended(acting.own, &emission, false);
        }
        let known = acting.own.rules.get_mut(&name).and_then(|rule_state| rule_state.emitted_decrease_mut());
        let recheck_at = blocked.and_then(|blocked| blocked.recheck_at);
        known.into_iter().for_each(|known| known.recheck_at = recheck_at);
    }
}

/// Which guard blocks a further call of an emitted decrease.
fn blocked_again(
    step: &StepContext<'_>,
    acting: &Acting<'_>,
    name: &Name,
    emission: &Emission,
    emitted: &EmittedDecrease,
) -> Option<Blocked> {
    let rule = step.rule(name)?;
    let action = requested_action(rule, emission.phase)?;
    let episode = acting.own.rules.get(name)?.last_episode()?;
    let (phase, deferred) = (emission.phase, &emitted.request);
    let visible = acting.visible();
    let request = ActionRequest { key: acting.key, visible, rule, phase, action, episode, deferred };
    guard::blocked_again(step, &request, &emission.id)
}

/// Why the decrease would not be emitted now, apart from its window and cooldowns.
fn blocker(
    step: &StepContext<'_>,
    key: &TargetKey,
    visible: VisibleState<'_>,
    name: &Name,
    phase: Phase,
) -> Option<String> {
    let episode = visible.own.rules.get(name)?.last_episode()?;
    let text = |by: Option<Blocker>| by.map(|by| by.to_string()).unwrap_or_default();
    let by_control = match step.rule(name) {
        Some(rule) => {
            guard::blocked_by_control(step, rule, key, &requested_action(rule, phase)?.change, episode)
        }
        // It is kept for others. The call is withheld by what covers its event.
        None => None,
    };
    let by_control = by_control.map(|blocked| text(blocked.by));
    let now = step.context.now;
    by_control.or_else(|| {
        let wait = calm::disturbances(step, visible).find(|wait| wait.until > now)?;
        Some(wait.by.to_string())
    })
}

/// Takes a decrease back. If the outcome of a call is unknown it keeps its id and waits, unless an increase supersedes
/// it; otherwise it is deferred again.
fn take_back(
    step: &mut StepContext<'_>,
    acting: &mut Acting<'_>,
    emission: &Emission,
    emitted: EmittedDecrease,
    by_increase: bool,
    detail: &str,
) -> Vec<Decision> {
    let key = acting.key;
    let is_uncertain = step.delivery(key, emission).is_uncertain;
    let mut log = DecisionLog::new(Some(&emission.rule), key);
    if let Some(episode) = acting.own.rules.get(&emission.rule).and_then(|rule| rule.last_episode()) {
        let outcome = Outcome::with_detail(Verdict::Superseded, detail);
        let outcome = outcome.for_episode(emission.phase, episode, step.rule(&emission.rule));
        log.record(outcome, emitted.request.alerts.clone());
    }
    if is_uncertain && by_increase {
        // It counts as delivered: what it may have taken is not taken again.
        step.change_delivery(key, &emission.id, DeliveryChangeKind::Cancel);
        delivery::count_as_delivered(step, acting.own, emission);
    } else if is_uncertain {
        step.change_delivery(key, &emission.id, DeliveryChangeKind::Suspend);
        set_suspended(acting.own, emission, true);
    } else {
        step.change_delivery(key, &emission.id, DeliveryChangeKind::Cancel);
        delivery::defer_again(step, acting.own, emission, emitted.request, &mut log);
    }
    log.decisions
}

fn set_suspended(state: &mut TargetState, emission: &Emission, is_suspended: bool) {
    let known = state.emissions.iter_mut().find(|known| known.id == emission.id);
    known.into_iter().for_each(|known| known.is_suspended = is_suspended);
}
