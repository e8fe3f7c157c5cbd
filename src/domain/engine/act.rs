//! Actions: emits the event of an action that no guard blocks.

use std::sync::Arc;
use std::time::Duration;

use super::outcome::Outcome;
use super::owed::{self, Plan};
use super::step::StepContext;
use super::{delivery, emit};
use crate::domain::event::{Event, EventAlert};
use crate::domain::phase::Phase;
use crate::domain::rule::{Action, Change, FiringAction, Mode, Repeat, Rule};
use crate::domain::state::{
    Deferred, Emission, EmissionOutcome, EmittedDecrease, Episode, RuleState, TargetState,
};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;
use crate::domain::verdict::Verdict;

pub(super) const NO_EPISODE: &str = "the episode no longer exists";

/// An action that no guard blocks.
pub(super) struct Unblocked<'a> {
    pub key: &'a TargetKey,
    pub rule: &'a Rule,
    pub phase: Phase,
    pub action: &'a Action,
    pub request: &'a Deferred,
}

/// What an emission needs from the state.
struct Draft<'a> {
    episode: &'a Episode,
    emission: u32,
    alerts: Vec<EventAlert>,
    metrics: Vec<f64>,
    plan: Option<Plan>,
}

/// Emits an action. Its request has been removed from the state.
pub(super) fn emit(step: &mut StepContext<'_>, state: &mut TargetState, unblocked: Unblocked<'_>) -> Outcome {
    let Some(draft) = draft(state, &unblocked) else {
        return Outcome::with_detail(Verdict::Withdrawn, NO_EPISODE);
    };
    let (event, plan) = match event(step, state, &unblocked, draft) {
        Ok(drafted) => drafted,
        Err(outcome) => return outcome,
    };
    let Unblocked { rule, action, .. } = unblocked;
    if rule.mode == Mode::Active {
        state.sequence = event.sequence;
        step.rates.record_emission(&action.change);
        step.emitted.push(event.id.clone());
    }
    record(step, state, unblocked, &event, plan.as_ref());
    match rule.mode {
        Mode::Shadow => Outcome::shadowed(event),
        Mode::Active | Mode::Disabled => Outcome::emitted(event),
    }
}

fn draft<'a>(state: &'a TargetState, unblocked: &Unblocked<'_>) -> Option<Draft<'a>> {
    let Unblocked { rule, phase, action, .. } = unblocked;
    let rule_state = state.rules.get(&rule.name)?;
    Some(match phase {
        Phase::Firing => {
            let episode = rule_state.episode.as_deref()?;
            Draft {
                emission: episode.emissions.saturating_add(1),
                alerts: episode.open.iter().map(emit::event_alert).collect(),
                metrics: episode.open.iter().filter_map(|open| open.metric).collect(),
                plan: None,
                episode,
            }
        }
        Phase::Resolved => {
            let closed = rule_state.closed.as_deref()?;
            let plan = action.change.decreases_capacity();
            let plan = plan.then(|| owed::plan(state, rule, &action.change)).flatten();
            Draft {
                emission: closed.episode.resolved_emissions.saturating_add(1),
                alerts: closed.closed.iter().map(emit::event_alert).collect(),
                metrics: Vec::new(),
                plan,
                episode: &closed.episode,
            }
        }
    })
}

fn event(
    step: &StepContext<'_>,
    state: &TargetState,
    unblocked: &Unblocked<'_>,
    draft: Draft<'_>,
) -> Result<(Box<Event>, Option<Plan>), Outcome> {
    let (now, clock) = (step.context.now, step.context.clock());
    let Unblocked { key, rule, phase, action, request } = unblocked;
    let Draft { episode, emission, alerts, metrics, plan } = draft;
    let Some(target) = episode.scope.target().cloned() else {
        return Err(Outcome::with_detail(Verdict::NoAction, "the episode is not about a target"));
    };
    debug_assert_eq!(target.key(), **key);
    let value = plan.as_ref().map(|plan| plan.value);
    let adjustment = emit::adjustment(&action.change, &rule.limits, &metrics, value)
        .map_err(|error| Outcome::with_detail(Verdict::Invalid, &error))?;
    let incarnation = step.context.incarnation;
    let event = Event {
        id: emit::event_id(&rule.name, key, *phase, &episode.id, emission, incarnation),
        action: action.change.action(),
        time: clock.wall,
        sequence: now.as_micros().max(state.sequence.saturating_add(1)),
        expires_after: rule.expires_after,
        rule: rule.name.clone(),
        phase: *phase,
        adjustment,
        target,
        key: (*key).clone(),
        limits: rule.limits,
        reason: emit::reason(*phase, &alerts),
        episode: emit::episode_ref(episode, emission, clock),
        alerts,
        trigger: request.trigger.clone(),
        parameters: episode.parameters.clone(),
        reverts: plan.iter().flat_map(|plan| plan.reverts.iter().cloned()).collect(),
    };
    Ok((Box::new(event), plan))
}

/// Records an emission in the state.
fn record(
    step: &StepContext<'_>,
    state: &mut TargetState,
    unblocked: Unblocked<'_>,
    event: &Event,
    plan: Option<&Plan>,
) {
    let now = step.context.now;
    let Unblocked { rule, phase, action, request, .. } = unblocked;
    let change = &action.change;
    let is_shadow = rule.mode == Mode::Shadow;
    let takes_back = rule.on_resolved.as_ref().is_some_and(|it| it.action.change.decreases_capacity());
    let is_owed = phase == Phase::Firing && change.increases_capacity() && takes_back;
    let emission = Emission {
        id: event.id.clone(),
        rule: rule.name.clone(),
        phase,
        emitted_at: now,
        increases: change.increases_capacity(),
        decreases: change.decreases_capacity(),
        cooldown_ms: u64::try_from(action.cooldown.as_millis()).unwrap_or(u64::MAX),
        value: event.change_in_capacity(),
        is_owed,
        acting: if is_owed && !is_shadow { rule.acting.clone() } else { Vec::new() },
        takes_back_until: plan.map(|plan| plan.until),
        takes_back: match (change, plan) {
            (Change::Revert, Some(plan)) => plan.reverts.clone(),
            _ => Vec::new(),
        },
        // Nothing is sent in `mode: shadow`.
        outcome: if is_shadow { EmissionOutcome::Delivered(now) } else { EmissionOutcome::Pending },
        recheck_at: None,
        is_pending_elsewhere: false,
        is_suspended: false,
        is_withheld: false,
    };
    // In `mode: shadow` it is delivered at once.
    let delivered = (is_shadow && change.decreases_capacity()).then(|| emission.clone());
    state.emissions.push(emission);
    let emitted = (change.decreases_capacity() && !is_shadow).then(|| EmittedDecrease {
        event: event.id.clone(),
        request: request.clone(),
        is_rejected: false,
        recheck_at: None,
    });
    let rule_state = state.rules.get_or_default(&rule.name);
    if let Some(budget) = rule.budget {
        rule_state.budget_expiries.retain(|free| *free > now);
        rule_state.budget_expiries.push(now.after(budget.per));
    }
    match phase {
        Phase::Firing => record_firing(rule, rule_state, request, emitted, step),
        Phase::Resolved => {
            let Some(closed) = &mut rule_state.closed else { return };
            closed.episode.resolved_emissions = closed.episode.resolved_emissions.saturating_add(1);
            closed.emitted = emitted;
            if let Some(emission) = delivered {
                delivery::end_delivered_decrease(state, &emission, now, request.clone());
            }
        }
    }
}

fn record_firing(
    rule: &Rule,
    rule_state: &mut RuleState,
    request: &Deferred,
    emitted: Option<EmittedDecrease>,
    step: &StepContext<'_>,
) {
    let (Some(firing), Some(episode)) = (&rule.on_firing, &mut rule_state.episode) else { return };
    episode.record_emission();
    if emitted.is_some() {
        episode.emitted = emitted;
    }
    episode.deferred = schedule_repeat(firing, episode.emissions, &request.trigger, step);
}

/// Schedules the next repetition of `repeat: while_firing`, after the cooldown.
pub(super) fn schedule_repeat(
    firing: &FiringAction,
    emissions: u32,
    trigger: &Arc<Trigger>,
    step: &StepContext<'_>,
) -> Option<Deferred> {
    let Repeat::WhileFiring { max_emissions } = firing.repeat else { return None };
    let next = step.context.now.after(firing.action.cooldown);
    let repeats = emissions < max_emissions.get() && firing.action.cooldown > Duration::ZERO;
    repeats.then(|| Deferred {
        is_repeat: true,
        stable_since: Some(step.context.now),
        alerts: Vec::new(),
        ..new_request(firing.action.change.decreases_capacity(), next, Arc::clone(trigger))
    })
}

/// A request that no guard has blocked yet.
pub(super) fn new_request(decreases: bool, requested_at: Time, trigger: Arc<Trigger>) -> Deferred {
    Deferred {
        requested_at,
        stable_since: None,
        recheck_at: Some(requested_at),
        limited_direction: None,
        decreases,
        is_repeat: false,
        is_retry: false,
        wait: None,
        blocked_by: None,
        alerts: Vec::new(),
        trigger,
    }
}
