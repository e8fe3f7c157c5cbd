//! Applies what is known about the delivery of earlier events: cooldowns count from the delivery, a delivered decrease
//! takes back what was owed, a decrease that was given up because of its age is deferred again, and the event of an open
//! episode is renewed.

use std::sync::Arc;
use std::time::Duration;

use super::outcome::{DecisionLog, Outcome, requested_action};
use super::step::StepContext;
use super::{guard, legacy, owed};
use crate::domain::delivery::{DeliveryChangeKind, EventDelivery, GiveUp};
use crate::domain::duration::MAX_DURATION;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::Rule;
use crate::domain::state::{Deferred, DestinationWait, Emission, EmissionOutcome, Episode, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

const DISCARDED: &str = "its dead letter was discarded";
const NOT_DELIVERED: &str =
    "no destination gets its event, since none got what it takes back; what is owed stays";
const REPLACED: &str = "replaced by another request of the action";

/// Applies the deliveries of the tracked events of a target.
pub(super) fn apply(step: &mut StepContext<'_>, key: &TargetKey, state: &mut TargetState) -> Vec<Decision> {
    legacy::adopt(step, key, state);
    let tracked: Vec<Arc<str>> = state.tracked_events().cloned().collect();
    let mut decisions = Vec::new();
    for id in tracked {
        let Some(emission) = state.emission(&id).cloned() else { continue };
        let delivery = step.delivery(key, &emission);
        if emission.outcome == EmissionOutcome::DeadLetter
            && (delivery.is_pending || delivery.delivered_at.is_some())
        {
            revive(step, state, &emission);
        }
        if let Some(at) = delivery.delivered_at {
            let is_new = emission.delivered_at().is_none();
            set_outcome(state, &id, EmissionOutcome::Delivered(at));
            let known = state.emissions.iter_mut().find(|known| known.id == id);
            known.into_iter().for_each(|known| {
                known.is_pending_elsewhere = delivery.is_pending;
                known.is_suspended = false;
            });
            if emission.is_suspended {
                // A call that was under way has arrived, so it is not taken back: the other destinations get it too.
                step.change_delivery(key, &id, DeliveryChangeKind::Resume);
            }
            if is_new {
                on_delivered(step, state, &emission);
                request_unneeded(step, state, &emission.rule);
            }
        } else if delivery.is_pending {
            set_outcome(state, &id, EmissionOutcome::Pending);
        } else if emission.decreases {
            decisions.extend(on_decrease_ended(step, key, state, &emission, &delivery));
        } else {
            on_other_ended(step, key, state, &emission, delivery.given_up);
        }
    }
    owed::replace_paid(step, key, state);
    decisions
}

/// An increase that was given up has been redriven and delivered after its episode closed: the decrease that the close
/// has requested is needed now. What is owed ends in any case.
fn request_unneeded(step: &StepContext<'_>, state: &mut TargetState, rule: &Name) {
    let now = step.context.now;
    if !owed::owes(state, rule) {
        return;
    }
    let rule_state = state.rules.get_or_default(rule);
    if rule_state.episode.is_some() {
        return;
    }
    let until = now.after(step.context.policy.owed_retention);
    rule_state.owed_until.get_or_insert(until);
    let Some(closed) = rule_state.closed.as_deref_mut() else { return };
    if let Some(request) = closed.unneeded.take() {
        closed.deferred = Some(Deferred { recheck_at: Some(now), ..request });
        rule_state.owed_until = Some(until);
    }
}

fn set_outcome(state: &mut TargetState, id: &str, outcome: EmissionOutcome) {
    if let Some(emission) = state.emissions.iter_mut().find(|emission| *emission.id == *id) {
        emission.outcome = outcome;
        emission.recheck_at = None;
    }
}

/// An event that was given up is tried again: an operator has redriven it, or it is renewed.
fn revive(step: &StepContext<'_>, state: &mut TargetState, emission: &Emission) {
    let Emission { id, rule, .. } = emission;
    let takes_back = step.rule(rule).and_then(|rule| requested_action(rule, Phase::Resolved));
    let is_owed = emission.phase == Phase::Firing
        && emission.increases
        && takes_back.is_some_and(|action| action.change.decreases_capacity());
    let known = state.emissions.iter_mut().find(|known| known.id == *id);
    known.into_iter().for_each(|known| {
        known.is_owed |= is_owed;
        known.is_withheld = false;
    });
    let Some(rule_state) = state.rules.get_mut(rule) else { return };
    let emitted = rule_state.emitted_decrease_mut().filter(|emitted| emitted.event == *id);
    emitted.into_iter().for_each(|emitted| emitted.is_rejected = false);
    let episode = rule_state.last_episode_mut().filter(|episode| belongs_to(emission, episode));
    if let Some(episode) = episode.filter(|_| !emission.is_withheld) {
        episode.undelivered_emissions = episode.undelivered_emissions.saturating_sub(1);
    }
}

/// The outcome of a call of the decrease is unknown: what it may have taken is not taken again.
pub(super) fn count_as_delivered(step: &StepContext<'_>, state: &mut TargetState, emission: &Emission) {
    set_outcome(state, &emission.id, EmissionOutcome::Delivered(step.context.now));
    on_delivered(step, state, emission);
}

fn on_delivered(step: &StepContext<'_>, state: &mut TargetState, emission: &Emission) {
    let Emission { rule, .. } = emission;
    if !emission.decreases {
        return;
    }
    let rule_state = state.rules.get_mut(rule);
    let emitted = rule_state.and_then(|rule_state| {
        let is_known = rule_state.emitted_decrease().is_some_and(|emitted| emitted.event == emission.id);
        is_known.then(|| rule_state.take_emitted_decrease()).flatten()
    });
    match emitted {
        Some(emitted) if emission.phase == Phase::Resolved => {
            end_delivered_decrease(state, emission, step.context.now, emitted.request);
        }
        Some(_) => {}
        // An operator has redriven it after its rule opened again.
        None => owed::settle(state, emission),
    }
}

/// An `on_resolved` decrease was delivered. What it could not take back is requested again, with the same evidence.
pub(super) fn end_delivered_decrease(
    state: &mut TargetState,
    emission: &Emission,
    now: Time,
    request: Deferred,
) {
    owed::settle(state, emission);
    let rule = &emission.rule;
    let still_owes = owed::owes(state, rule);
    let Some(rule_state) = state.rules.get_mut(rule) else { return };
    match &mut rule_state.closed {
        Some(closed) if still_owes => {
            closed.deferred = Some(Deferred {
                recheck_at: Some(now),
                limited_direction: None,
                blocked_by: None,
                wait: None,
                ..request
            });
        }
        Some(closed) => {
            closed.is_answered = true;
            if !owed::set_aside(state, rule, request) {
                drop_closed(state, rule);
            }
        }
        None => {}
    }
}

fn drop_closed(state: &mut TargetState, rule: &Name) {
    state.rules.get_mut(rule).into_iter().for_each(|rule_state| rule_state.closed = None);
}

/// A decrease that was not delivered and is not tried any more.
fn on_decrease_ended(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    emission: &Emission,
    delivery: &EventDelivery,
) -> Vec<Decision> {
    let Emission { id, rule, phase, .. } = emission;
    let emitted = state.rules.get(rule).and_then(|rule_state| rule_state.emitted_decrease());
    let Some(emitted) = emitted.filter(|emitted| emitted.event == *id).cloned() else {
        match delivery.given_up.filter(|_| *phase == Phase::Resolved) {
            // Its rule has opened again. The dead letter is closed when nothing is owed for it any more.
            Some(_) => set_outcome(state, id, EmissionOutcome::DeadLetter),
            None => state.emissions.retain(|known| known.id != *id),
        }
        return Vec::new();
    };
    if delivery.is_uncertain {
        count_as_delivered(step, state, emission);
        return Vec::new();
    }
    let mut log = DecisionLog::new(Some(rule), key);
    match delivery.given_up {
        Some(GiveUp::Expired) => {
            step.change_delivery(key, id, DeliveryChangeKind::Replace);
            let since = delivery.later_success.unwrap_or(step.context.now);
            let wait = next_wait(step, rule, *phase, &emitted.request, since);
            let request = Deferred { wait: Some(wait), ..emitted.request };
            defer_again(step, state, emission, request, &mut log);
        }
        Some(GiveUp::Rejected) => {
            set_outcome(state, id, EmissionOutcome::DeadLetter);
            let known = state.rules.get_mut(rule).and_then(|rule_state| rule_state.emitted_decrease_mut());
            known.into_iter().for_each(|known| known.is_rejected = true);
        }
        None => {
            let episode = state.rules.get(rule).and_then(|rule_state| rule_state.last_episode()).cloned();
            // Otherwise no operator has ended it, and what is owed stays.
            let is_discarded = emitted.is_rejected;
            let detail = if is_discarded { DISCARDED } else { NOT_DELIVERED };
            let outcome = Outcome::with_detail(Verdict::Withdrawn, detail);
            if let Some(episode) = episode {
                let outcome = outcome.for_episode(*phase, &episode, step.rule(rule));
                log.record_if_any(outcome, emitted.request.alerts.clone());
            }
            state.emissions.retain(|known| known.id != *id);
            drop(state.rules.get_mut(rule).and_then(super::super::state::RuleState::take_emitted_decrease));
            if *phase == Phase::Resolved && is_discarded {
                owed::forget(state, rule);
                owed::set_aside(state, rule, emitted.request);
            }
        }
    }
    log.decisions
}

/// How long a decrease waits after it was given up: each time twice as long.
fn next_wait(
    step: &StepContext<'_>,
    rule: &Name,
    phase: Phase,
    request: &Deferred,
    since: Time,
) -> DestinationWait {
    let rule = step.rule(rule);
    let window =
        rule.and_then(|rule| requested_action(rule, phase)).map(|action| action.stabilization_window);
    let first = rule.map_or(Duration::ZERO, |rule| rule.max_age).max(window.unwrap_or_default());
    let length = request.wait.map_or(first, |wait| wait.until.since(wait.since).saturating_mul(2));
    let length = match step.context.policy.probes_destinations {
        true => length.min(DestinationWait::MAX),
        false => MAX_DURATION,
    };
    DestinationWait { since, until: since.after(length), is_over: false }
}

/// Defers an emitted decrease again, with the evidence that it had. It gets a new id when it is emitted. A newer request
/// of the same action replaces it, and takes over its time, since the need never ended.
pub(super) fn defer_again(
    step: &mut StepContext<'_>,
    state: &mut TargetState,
    emission: &Emission,
    request: Deferred,
    log: &mut DecisionLog<'_>,
) {
    let (rule, phase) = (&emission.rule, emission.phase);
    state.emissions.retain(|known| known.id != emission.id);
    let is_retry = phase == Phase::Firing;
    let request = Deferred {
        is_retry,
        is_repeat: false,
        recheck_at: Some(step.context.now),
        limited_direction: None,
        blocked_by: None,
        ..request
    };
    let Some(rule_state) = state.rules.get_mut(rule) else { return };
    drop(rule_state.take_emitted_decrease());
    if let Some(episode) = rule_state.episode.as_mut().filter(|_| is_retry) {
        episode.undelivered_emissions = episode.undelivered_emissions.saturating_add(1);
    }
    let (next, replaced) = match rule_state.take_deferred(phase) {
        None => (request, None),
        // A repetition is scheduled anew by the next emission.
        Some(newer) if newer.is_repeat => {
            step.release_slot(&newer);
            (request, Some(newer))
        }
        Some(newer) => {
            let requested_at = newer.requested_at.min(request.requested_at);
            let wait = request.wait.or(newer.wait);
            (Deferred { requested_at, is_retry, wait, ..newer }, Some(request))
        }
    };
    rule_state.defer(phase, next);
    if let Some((episode, replaced)) = rule_state.last_episode().zip(replaced) {
        let outcome = Outcome::with_detail(Verdict::Withdrawn, REPLACED);
        log.record_if_any(outcome.for_episode(phase, episode, step.rule(rule)), replaced.alerts);
    }
}

/// An event that does not decrease capacity, was not delivered, and is not tried any more.
fn on_other_ended(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    emission: &Emission,
    given_up: Option<GiveUp>,
) {
    if given_up == Some(GiveUp::Expired)
        && let Some((rule, episode)) = unanswered(step, state, emission)
    {
        let action = requested_action(rule, Phase::Firing);
        let blocked =
            action.and_then(|action| guard::blocked_by_control(step, rule, key, &action.change, episode));
        let Some(blocked) = blocked else {
            let expires_after = rule.expires_after;
            step.change_delivery(key, &emission.id, DeliveryChangeKind::Renew { expires_after });
            if emission.outcome == EmissionOutcome::DeadLetter {
                revive(step, state, emission);
            }
            set_outcome(state, &emission.id, EmissionOutcome::Pending);
            return;
        };
        if let Some(known) = state.emissions.iter_mut().find(|known| known.id == emission.id) {
            known.outcome = EmissionOutcome::DeadLetter;
            (known.is_owed, known.is_withheld) = (false, true);
            known.recheck_at = blocked.recheck_at;
        }
        return;
    }
    // A withheld one counts as being tried.
    let was_tried = emission.outcome == EmissionOutcome::Pending || emission.is_withheld;
    match given_up {
        Some(_) => {
            let known = state.emissions.iter_mut().find(|known| known.id == emission.id);
            known.into_iter().for_each(|known| {
                known.outcome = EmissionOutcome::DeadLetter;
                (known.is_owed, known.is_withheld) = (false, false);
                known.recheck_at = None;
            });
        }
        None => state.emissions.retain(|known| known.id != emission.id),
    }
    let Some(rule_state) = state.rules.get_mut(&emission.rule).filter(|_| was_tried) else { return };
    if let Some(episode) = rule_state.last_episode_mut().filter(|episode| belongs_to(emission, episode)) {
        episode.undelivered_emissions = episode.undelivered_emissions.saturating_add(1);
    }
}

/// An episode has closed: what of it is older than its limits at all acting destinations, and was renewed or withheld
/// because the episode was open, is given up.
pub(super) fn end_renewals(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    rule: &Name,
    episode: &mut Episode,
) {
    let is_withheld = |known: &&mut Emission| known.is_withheld && known.rule == *rule;
    for emission in state.emissions.iter_mut().filter(is_withheld) {
        emission.is_withheld = false;
        episode.undelivered_emissions = episode.undelivered_emissions.saturating_add(1);
    }
    let episode = &*episode;
    let now = step.context.now;
    let limit = step.rule(rule).map(|rule| rule.max_age.min(rule.expires_after));
    let is_renewed = |emission: &&Emission| {
        let is_over = limit.is_none_or(|limit| emission.emitted_at.after(limit) <= now);
        let is_pending = emission.outcome == EmissionOutcome::Pending && !emission.decreases;
        is_over && is_pending && emission.rule == *rule && belongs_to(emission, episode)
    };
    for emission in state.emissions.iter().filter(is_renewed) {
        step.change_delivery(key, &emission.id, DeliveryChangeKind::EndRenewal);
    }
}

/// The open episode whose `on_firing` event this is.
fn unanswered<'a>(
    step: &StepContext<'a>,
    state: &'a TargetState,
    emission: &Emission,
) -> Option<(&'a Rule, &'a Episode)> {
    let rule = step.active_rule(&emission.rule)?;
    let episode = state.rules.get(&emission.rule)?.episode.as_deref()?;
    // What was given up when its episode closed stays so: an episode that goes on after that emits again instead.
    let is_tried = emission.outcome == EmissionOutcome::Pending || emission.is_withheld;
    (belongs_to(emission, episode) && is_tried).then_some((rule, episode))
}

fn belongs_to(emission: &Emission, episode: &Episode) -> bool {
    emission.phase == Phase::Firing && emission.emitted_at >= episode.opened_at
}
