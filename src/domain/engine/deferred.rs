//! Re-evaluates deferred actions when they are due or their blocker is gone.

use std::collections::BTreeSet;

use super::act::NO_LONGER_GROWN;
use super::attempt::{ActionAttempt, ActionRequest, EmissionState};
use super::episode::{RULE_REMOVED, remove_if_empty, supersede};
use super::guard::{invalidated_by, is_ready_to_recheck, outranked_by};
use super::outcome::{DecisionLog, Outcome};
use super::step::StepContext;
use crate::domain::alert_key::AlertKey;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::Mode;
use crate::domain::state::{Deferred, Episode, PendingClose, RuleState, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::verdict::{Decision, Verdict};

const DEFERRED_TOO_LONG: &str = "the action was deferred for longer than engine.max_deferral";

/// The rules whose pending closes are withdrawn.
pub(super) enum AffectedRules {
    All,
    /// Only these rules: they are in `mode: shadow` and do not affect others.
    Only(Vec<Name>),
}

/// Withdraws the pending closes of the affected rules, for the reason `detail`: an alert opened on the
/// target, so that it is not stable any more, or an alert expired, so that its end is unknown.
pub(super) fn withdraw_pending_closes(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    affected: &AffectedRules,
    detail: &str,
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
            let outcome = Outcome::with_detail(Verdict::Withdrawn, detail);
            let outcome = outcome.for_episode(Phase::Resolved, &pending_close.episode, step.rule(name));
            log.record(outcome, pending_close.deferred.alerts);
            decisions.extend(log.decisions);
        }
    }
    state.rules.retain(|_, rule_state| !rule_state.is_empty());
    decisions
}

/// Rechecks the deferred actions that are due or whose blocker has changed. Each is emitted, withdrawn if it
/// is not justified any more, or deferred again by another guard. Increases come first.
pub(super) fn recheck_deferred(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
) -> Vec<Decision> {
    let mut rechecked: BTreeSet<Name> = BTreeSet::new();
    let mut decisions = Vec::new();
    // One at a time and each once: the outcome of one can unblock another.
    loop {
        let remaining = state.rules.iter().filter(|(name, _)| !rechecked.contains(*name));
        let ready = remaining.filter(|(name, _)| is_ready_to_recheck(step, key, state, name));
        let order = ready.filter_map(|(name, rule)| Some((rule.deferred()?.deadline.is_some(), name)));
        let Some((_, name)) = order.min() else { return decisions };
        let name = name.clone();
        let decided = recheck(step, key, state, &name);
        let superseded = supersede(step, key, &decided);
        decisions.extend(decided.into_iter().chain(superseded));
        remove_if_empty(state, &name);
        rechecked.insert(name);
    }
}

/// Rechecks the deferred action of a rule.
fn recheck(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
) -> Vec<Decision> {
    let rule = step.rule(name);
    let is_firing = state.rules.get(name).is_some_and(|rule_state| rule_state.episode.is_some());
    let outranked = outranked_by(step, state, name, is_firing);
    let TargetState { sequence, rules, cooldowns, .. } = state;
    let Some(rule_state) = rules.get_mut(name) else { return Vec::new() };
    let Some(deferred) = take_deferred(rule_state) else { return Vec::new() };
    let RuleState { episode, pending_close, budget_expiries, shadow, .. } = rule_state;
    let closing = pending_close.take();
    let invalidated = withdrawal_reason(step, name, episode.as_deref(), closing.as_deref(), &deferred);
    let mut attempt = rule.map(|rule| {
        let trigger = deferred.trigger.clone();
        let emission_state = EmissionState::for_mode(
            rule.mode,
            EmissionState { sequence, cooldowns, budget_expiries },
            shadow,
        );
        ActionAttempt { step: &mut *step, key, rule, trigger, truncated: false, outranked, emission_state }
    });
    let withdrawn = |detail: &str| Outcome::with_detail(Verdict::Withdrawn, detail);
    let mut log = DecisionLog::new(Some(name), key);
    // A repetition is about all alerts that are open now.
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
    let outcome = match (episode, closing, &mut attempt, &invalidated) {
        (_, _, None, _) => withdrawn(RULE_REMOVED),
        (_, _, _, Some(detail)) => withdrawn(detail),
        (Some(episode), ..) if !deferred.is_repeat && !episode.has_grown(mode) => withdrawn(NO_LONGER_GROWN),
        (Some(episode), _, Some(attempt), _)
            if deferred.is_repeat && !attempt.has_repeats_left(episode.emission_stats(mode).emissions) =>
        {
            withdrawn("the rule no longer repeats the action")
        }
        (Some(episode), _, Some(attempt), _) => {
            attempt.emit_or_defer(episode, &request).for_episode(Phase::Firing, episode, rule)
        }
        (None, Some(closing), Some(attempt), _) => {
            let PendingClose { episode, closed, .. } = *closing;
            let outcome;
            (outcome, *pending_close) = attempt.close_episode(episode, closed, &request);
            outcome
        }
        (None, None, ..) => return Vec::new(),
    };
    let still_deferred = rule_state.deferred();
    if still_deferred.and_then(Deferred::slot) != deferred.slot() {
        step.release_slot(&deferred);
    }
    // An unchanged block is not recorded again.
    if !outcome.is_unchanged_from(&deferred) {
        log.record(outcome, alerts);
    }
    log.decisions
}

/// Why a deferred action is withdrawn before its guards are evaluated; `None` if it still is justified.
fn withdrawal_reason(
    step: &StepContext<'_>,
    name: &Name,
    episode: Option<&Episode>,
    pending_close: Option<&PendingClose>,
    deferred: &Deferred,
) -> Option<String> {
    let (phase, episode) = match (episode, pending_close) {
        (Some(episode), _) => (Phase::Firing, episode),
        (None, Some(pending_close)) => (Phase::Resolved, &*pending_close.episode),
        (None, None) => return None,
    };
    invalidated_by(step, name, phase, episode, deferred).or_else(|| {
        let too_long = deferred.deadline.is_some_and(|deadline| deadline <= step.context.now);
        too_long.then(|| DEFERRED_TOO_LONG.to_owned())
    })
}

/// Removes the deferred action of an open episode. That of a pending close is copied; the caller removes the
/// pending close.
fn take_deferred(rule_state: &mut RuleState) -> Option<Deferred> {
    match (&mut rule_state.episode, &rule_state.pending_close) {
        (Some(episode), _) => episode.deferred.take(),
        (None, Some(pending_close)) => Some(pending_close.deferred.clone()),
        (None, None) => None,
    }
}
