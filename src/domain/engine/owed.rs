//! Owed decreases: what a rule has added to a target and not yet taken back.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ForgivenEvent;
use super::outcome::{DecisionLog, Outcome};
use super::step::StepContext;
use crate::domain::delivery::DeliveryChangeKind;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::{Change, Rule};
use crate::domain::state::{Deferred, Emission, EmissionOutcome, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

/// The maximum number of events that a decrease names. What is beyond stays owed.
const MAX_REVERTS: usize = 1000;
/// Bytes of the destinations' limit for each of them, so that they never fill an event.
const LIMIT_BYTES_PER_REVERT: usize = 256;

/// What a decrease takes back.
pub(super) struct Plan {
    /// The ids of the events that it answers, oldest first.
    pub reverts: Vec<Arc<str>>,
    /// The last emission that it takes back.
    pub until: Time,
    /// For `revert`: the value of the adjustment.
    pub value: i64,
}

fn owed_by<'a>(state: &'a TargetState, rule: &Name) -> impl Iterator<Item = &'a Emission> {
    state.emissions.iter().filter(move |emission| emission.is_owed && emission.rule == *rule)
}

/// Whether a rule owes a decrease on a target.
pub(super) fn owes(state: &TargetState, rule: &Name) -> bool {
    owed_by(state, rule).next().is_some()
}

/// What a decrease of the rule takes back now: events that an answer says were delivered, oldest first. `None` if
/// there are none that it can take back.
pub(super) fn plan(state: &TargetState, rule: &Rule, change: &Change) -> Option<Plan> {
    let limits = rule.limits;
    let max_reverts = (rule.size_limit.bytes / LIMIT_BYTES_PER_REVERT).clamp(1, MAX_REVERTS);
    let delivered = owed_by(state, &rule.name).filter(|emission| emission.delivered_at().is_some());
    let max_value = match (change, limits.max_capacity.zip(limits.min_capacity)) {
        (Change::Revert, Some((max, min))) => i64::from(max.saturating_sub(min)),
        _ => i64::MAX,
    };
    let mut plan = Plan { reverts: Vec::new(), until: Time::from_nanos(0), value: 0 };
    for emission in delivered.take(max_reverts) {
        let total = plan.value.saturating_add(emission.value.unwrap_or(0));
        // The oldest one is always taken back, even if its value is cut.
        if total > max_value && !plan.reverts.is_empty() {
            break;
        }
        plan.value = total.min(max_value);
        plan.reverts.push(emission.id.clone());
        plan.until = emission.emitted_at;
    }
    plan.value = -plan.value;
    let is_empty = plan.reverts.is_empty() || (matches!(change, Change::Revert) && plan.value == 0);
    (!is_empty).then_some(plan)
}

/// Whether a decrease takes back what was added by another event of its rule.
fn takes_back(decrease: &Emission, emission: &Emission) -> bool {
    emission.rule == decrease.rule
        && decrease.takes_back_until.is_some_and(|until| emission.emitted_at <= until)
        && (decrease.takes_back.is_empty() || decrease.takes_back.contains(&emission.id))
}

/// Marks what a delivered decrease has taken back.
pub(super) fn settle(state: &mut TargetState, decrease: &Emission) {
    for emission in &mut state.emissions {
        emission.is_owed &= !takes_back(decrease, emission);
    }
    clear_end(state, &decrease.rule);
}

/// Closes the dead letters of `on_resolved` decreases for which nothing is owed any more.
pub(super) fn replace_paid(step: &mut StepContext<'_>, key: &TargetKey, state: &mut TargetState) {
    let is_paid = |decrease: &Emission| {
        decrease.takes_back_until.is_some()
            && decrease.outcome == EmissionOutcome::DeadLetter
            && !state.emissions.iter().any(|emission| emission.is_owed && takes_back(decrease, emission))
    };
    let paid: Vec<Emission> = state.emissions.iter().filter(|emission| is_paid(emission)).cloned().collect();
    for Emission { id, rule, .. } in paid {
        step.change_delivery(key, &id, DeliveryChangeKind::Replace);
        state.emissions.retain(|emission| emission.id != id);
        let Some(rule_state) = state.rules.get_mut(&rule) else { continue };
        if rule_state.emitted_decrease().is_some_and(|emitted| emitted.event == id) {
            drop(rule_state.take_emitted_decrease());
        }
    }
}

/// Forgets all that a rule owes.
pub(super) fn forget(state: &mut TargetState, rule: &Name) {
    state.emissions.iter_mut().filter(|emission| emission.rule == *rule).for_each(|emission| {
        emission.is_owed = false;
    });
    clear_end(state, rule);
}

/// Forgives what one rule, or each rule, owes, and ends its decrease.
pub(super) fn forgive(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    rule: Option<&Name>,
    detail: &str,
) -> (Vec<ForgivenEvent>, Vec<Decision>) {
    let is_meant = |emission: &&Emission| emission.is_owed && rule.is_none_or(|rule| *rule == emission.rule);
    let owed = state.emissions.iter().filter(is_meant);
    let forgiven: Vec<ForgivenEvent> = owed
        .map(|emission| ForgivenEvent { rule: emission.rule.clone(), event: emission.id.clone() })
        .collect();
    let rules: BTreeSet<&Name> = forgiven.iter().map(|event| &event.rule).collect();
    let mut decisions = Vec::new();
    for rule in rules {
        forget(state, rule);
        decisions.extend(end_decrease(step, key, state, rule, Verdict::Withdrawn, detail));
    }
    (forgiven, decisions)
}

/// Keeps the request of a decrease for which nothing is owed any more, while an increase that was given up can be redriven:
/// if that is delivered, it is owed.
pub(super) fn set_aside(state: &mut TargetState, rule: &Name, request: Deferred) -> bool {
    let can_be_redriven = |emission: &Emission| {
        emission.rule == *rule && emission.increases && emission.outcome == EmissionOutcome::DeadLetter
    };
    if !state.emissions.iter().any(can_be_redriven) {
        return false;
    }
    let closed = state.rules.get_mut(rule).and_then(|rule_state| rule_state.closed.as_mut());
    let request = Deferred { limited_direction: None, blocked_by: None, wait: None, ..request };
    closed.map(|closed| closed.unneeded = Some(request)).is_some()
}

fn clear_end(state: &mut TargetState, rule: &Name) {
    if !owes(state, rule)
        && let Some(rule_state) = state.rules.get_mut(rule)
    {
        rule_state.owed_until = None;
    }
}

/// Forgets what was owed for longer than `retention.owed` after the last close, or by a rule that no longer exists.
pub(super) fn expire(step: &mut StepContext<'_>, key: &TargetKey, state: &mut TargetState) -> Vec<Decision> {
    let now = step.context.now;
    let mut decisions = Vec::new();
    let is_over = |name: &Name, until: Time| until <= now || step.rule(name).is_none() && !step.is_kept(name);
    let over: Vec<Name> = state
        .rules
        .iter()
        .filter(|(name, rule)| rule.owed_until.is_some_and(|until| is_over(name, until)))
        .map(|(name, _)| name.clone())
        .collect();
    for name in over {
        forget(state, &name);
        if let Some(rule_state) = state.rules.get_mut(&name) {
            rule_state.owed_until = None;
        }
        let (verdict, detail) = match step.rule(&name) {
            Some(_) => (Verdict::Expired, "what the rule owes was not taken back within retention.owed"),
            None => (Verdict::Withdrawn, "the rule that owes a decrease no longer exists"),
        };
        decisions.extend(end_decrease(step, key, state, &name, verdict, detail));
    }
    decisions
}

/// Ends the `on_resolved` decrease of a rule, deferred or emitted and not confirmed.
pub(super) fn end_decrease(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    verdict: Verdict,
    detail: &str,
) -> Vec<Decision> {
    let closed = state.rules.get_mut(name).and_then(|rule_state| rule_state.closed.as_mut());
    let Some(closed) = closed else { return Vec::new() };
    let emitted = closed.emitted.take();
    let deferred = closed.deferred.take();
    let request = deferred.as_ref().or(emitted.as_ref().map(|emitted| &emitted.request)).cloned();
    let alerts = request.as_ref().map(|request| request.alerts.clone()).unwrap_or_default();
    let mut log = DecisionLog::new(Some(name), key);
    let outcome = Outcome::with_detail(verdict, detail);
    log.record_if_any(outcome.for_episode(Phase::Resolved, &closed.episode, step.rule(name)), alerts);
    if let Some(deferred) = deferred {
        step.release_slot(&deferred);
    }
    if let Some(emitted) = emitted.filter(|emitted| !emitted.is_rejected) {
        step.change_delivery(key, &emitted.event, DeliveryChangeKind::Cancel);
        state.emissions.retain(|emission| emission.id != emitted.event);
    }
    if let Some(request) = request {
        set_aside(state, name, request);
    }
    log.decisions
}
