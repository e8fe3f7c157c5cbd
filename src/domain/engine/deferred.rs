//! What guards have stopped, taken up again.

use std::collections::BTreeSet;

use super::act::{ActionAttempt, ActionRequest, DecisionLog, EmissionState, NO_LONGER_GROWN, Outcome};
use super::episode::{RULE_GONE, remove_if_empty, supersede};
use super::guard::{invalidated_by, is_ready_to_recheck, outranked_by};
use super::occurrence::AffectedRules;
use super::step::StepContext;
use crate::domain::alert_key::AlertKey;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::Mode;
use crate::domain::state::{Deferred, PendingClose, RuleState, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::verdict::{Decision, Verdict};

const DEFERRED_TOO_LONG: &str = "it was kept for longer than engine.max_deferral";

/// Withdraws what was to be done about episodes that have closed, and says `why`: something opened on the
/// target, so the calm that they were waiting for is over, or nobody knows what became of an alert there.
pub(super) fn withdraw_pending_closes(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    affected: &AffectedRules,
    why: &str,
) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for (name, rule_state) in state.rules.iter_mut() {
        let is_affected = match affected {
            AffectedRules::All => true,
            AffectedRules::Only(names) => names.contains(name),
        };
        if let Some(pending_close) = rule_state.pending_close.take_if(|_| is_affected) {
            step.release_slot(&pending_close.deferred);
            let mut log = DecisionLog::new(Some(name), key);
            let outcome = Outcome::with_detail(Verdict::Withdrawn, why);
            let outcome = outcome.for_episode(Phase::Resolved, &pending_close.episode, step.rule(name));
            log.record(outcome, pending_close.deferred.alerts);
            decisions.extend(log.decisions);
        }
    }
    state.rules.retain(|_, rule_state| !rule_state.is_empty());
    decisions
}

/// Looks again at what guards have stopped and whose time has come, or whose obstacle has gone: emitted
/// if it is still supported, else withdrawn, or stopped by the next guard. What adds capacity comes
/// first.
pub(super) fn recheck_deferred(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
) -> Vec<Decision> {
    let mut seen: BTreeSet<Name> = BTreeSet::new();
    let mut decisions = Vec::new();
    // One after the other, each once: what becomes of one may free another.
    loop {
        let waiting = state.rules.iter().filter(|(name, _)| !seen.contains(*name));
        let ready = waiting.filter(|(name, _)| is_ready_to_recheck(step, key, state, name));
        let order = ready.filter_map(|(name, rule)| Some((rule.deferred()?.deadline.is_some(), name)));
        let Some((_, name)) = order.min() else { return decisions };
        let name = name.clone();
        let taken_up = recheck(step, key, state, &name);
        let superseded = supersede(step, key, &taken_up);
        decisions.extend(taken_up.into_iter().chain(superseded));
        remove_if_empty(state, &name);
        seen.insert(name);
    }
}

/// The action that a rule has kept.
fn recheck(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
) -> Vec<Decision> {
    let rule = step.rule(name);
    let fires = state.rules.get(name).is_some_and(|rule_state| rule_state.episode.is_some());
    let outranked = outranked_by(step, state, name, fires);
    let TargetState { sequence, rules, cooldowns, .. } = state;
    let Some(rule_state) = rules.get_mut(name) else { return Vec::new() };
    let Some(deferred) = take_deferred(rule_state) else { return Vec::new() };
    let RuleState { episode, pending_close, budget_expiries, shadow, .. } = rule_state;
    let taken = pending_close.take();
    let lost = match (&*episode, &taken) {
        (Some(episode), _) => invalidated_by(step, name, Phase::Firing, episode, &deferred),
        (None, Some(pending_close)) => {
            invalidated_by(step, name, Phase::Resolved, &pending_close.episode, &deferred)
        }
        (None, None) => None,
    };
    let too_long = deferred.deadline.is_some_and(|give_up| give_up <= step.context.now);
    let lost = lost.or_else(|| too_long.then(|| DEFERRED_TOO_LONG.to_owned()));
    let mut attempt = rule.map(|rule| {
        let trigger = deferred.trigger.clone();
        let emission_state = EmissionState::for_mode(
            rule.mode,
            EmissionState { sequence, cooldowns, budget_expiries },
            shadow,
        );
        ActionAttempt { step: &mut *step, key, rule, trigger, truncated: false, outranked, emission_state }
    });
    let withdrawn = |why: &str| Outcome::with_detail(Verdict::Withdrawn, why);
    let mut log = DecisionLog::new(Some(name), key);
    // A repetition is about whatever is open by now.
    let alerts: Vec<AlertKey> = match &*episode {
        Some(episode) if deferred.is_repeat => episode.open.iter().map(|open| open.alert.clone()).collect(),
        _ => deferred.alerts.clone(),
    };
    let request = ActionRequest {
        requested_at: deferred.requested_at,
        slot: deferred.slot(),
        is_repeat: deferred.is_repeat,
        alerts: &alerts,
    };
    let mode = rule.map_or(Mode::Active, |rule| rule.mode);
    let outcome = match (episode, taken, &mut attempt, &lost) {
        (_, _, None, _) => withdrawn(RULE_GONE),
        (_, _, _, Some(why)) => withdrawn(why),
        (Some(episode), ..) if !deferred.is_repeat && !episode.has_grown(mode) => withdrawn(NO_LONGER_GROWN),
        (Some(episode), _, Some(attempt), _)
            if deferred.is_repeat && !attempt.has_repeats_left(episode.emission_stats(mode).emissions) =>
        {
            withdrawn("the rule repeats no more")
        }
        (Some(episode), _, Some(attempt), _) => {
            attempt.emit_or_defer(episode, &request).for_episode(Phase::Firing, episode, rule)
        }
        (None, Some(taken), Some(attempt), _) => {
            let PendingClose { episode, closed, .. } = *taken;
            let (outcome, again) = attempt.on_resolved(&episode, &closed, &request);
            let outcome = outcome.for_episode(Phase::Resolved, &episode, rule);
            *pending_close = again.map(|deferred| Box::new(PendingClose { episode, closed, deferred }));
            outcome
        }
        (None, None, ..) => return Vec::new(),
    };
    let still_waits = rule_state.deferred();
    if still_waits.and_then(Deferred::slot) != deferred.slot() {
        step.release_slot(&deferred);
    }
    // Of what is stopped as before nobody has to be told again.
    if !outcome.is_unchanged_from(&deferred) {
        log.record(outcome, alerts);
    }
    log.decisions
}

/// Takes out what an open episode has kept; what a closed one has kept is copied, and goes with its closing.
fn take_deferred(rule_state: &mut RuleState) -> Option<Deferred> {
    match (&mut rule_state.episode, &rule_state.pending_close) {
        (Some(episode), _) => episode.deferred.take(),
        (None, Some(pending_close)) => Some(pending_close.deferred.clone()),
        (None, None) => None,
    }
}
