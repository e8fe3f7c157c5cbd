//! Occurrences: applies firing and resolved alerts to the open occurrences of a target.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::deferred::AffectedRules;
use super::delta::{Opened, RuleDelta};
use super::step::StepContext;
use super::{Input, control_episode, deferred, episode};
use crate::domain::alert_key::AlertKey;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::name::Name;
use crate::domain::notification::Alert;
use crate::domain::state::{LastResolve, LateFiring, Occurrence, RuleState, TargetState};
use crate::domain::target::{KeyKind, TargetKey};
use crate::domain::time::{ClockReading, Time};
use crate::domain::verdict::{Decision, Verdict};

/// The part of a notification that concerns one target.
#[derive(Default)]
pub(super) struct TargetInput<'a> {
    pub firing: Vec<FiringAlert<'a>>,
    /// Firing alerts that are open or late at this target, whichever rule matches them now, and their starts.
    pub heard: Vec<(AlertKey, Time)>,
    /// Firings of a rule that are no longer valid: a late one that has a new occurrence at another target, or
    /// an alert that is not the heartbeat any more.
    pub outdated: Vec<(Name, AlertKey)>,
    pub resolves: Vec<ResolvedAlert>,
}

/// A firing alert that a rule matched.
pub(super) struct FiringAlert<'a> {
    pub key: AlertKey,
    pub alert: &'a Alert,
    pub rule: &'a Name,
    /// The scope that the rule renders from the alert; `rule_target` is its key.
    pub scope: &'a EpisodeScope,
    pub rule_target: &'a TargetKey,
    pub parameters: &'a BTreeMap<String, String>,
    pub metric: Option<f64>,
    pub last_end: Option<Time>,
}

/// The end of an alert that is open or late at this target.
pub(super) struct ResolvedAlert {
    pub key: AlertKey,
    pub ends_at: Time,
    pub last_end: Option<Time>,
}

/// The changes of each rule at one target. A list, since there is nearly always one.
#[derive(Default)]
struct RuleDeltas(Vec<(Name, RuleDelta)>);

impl RuleDeltas {
    fn delta_mut(&mut self, rule: &Name) -> &mut RuleDelta {
        let known = self.0.iter().position(|(name, _)| name == rule);
        let at = known.unwrap_or_else(|| {
            self.0.push((rule.clone(), RuleDelta::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut RuleDelta> {
        self.0.iter_mut().map(|(_, delta)| delta)
    }
}

/// Applies a notification to one target. All its alerts are applied before any episode is evaluated, so a pod
/// that replaces another one in the same notification neither closes nor opens an episode.
pub(super) fn apply(
    step: &mut StepContext<'_>,
    input: &Input,
    key: &TargetKey,
    state: &mut TargetState,
    target_input: TargetInput<'_>,
) -> Vec<Decision> {
    let clock = step.context.clock();
    let mut deltas = RuleDeltas::default();
    for firing in target_input.firing {
        let delta = deltas.delta_mut(firing.rule);
        let rule_state = state.rules.get_or_default(firing.rule);
        apply_firing(clock, input, rule_state, delta, firing);
    }
    for (key, starts_at) in &target_input.heard {
        for (name, rule_state) in state.rules.iter_mut() {
            if refresh(clock, input, rule_state, key, *starts_at) {
                deltas.delta_mut(name).renewed = true;
            }
        }
    }
    for (rule, alert) in target_input.outdated {
        if let Some(rule_state) = state.rules.get_mut(&rule) {
            rule_state.late.remove(&alert);
            rule_state.episode.as_mut().and_then(|episode| episode.open.remove(&alert));
        }
        deltas.delta_mut(&rule).outdated.push(alert);
    }
    let mut decisions = Vec::new();
    for resolve in target_input.resolves {
        let mut applied = false;
        let mut was_open = false;
        for delta in deltas.iter_mut() {
            if let Some(counts) = cancel_opened(delta, &resolve) {
                was_open = true;
                applied |= counts;
            }
        }
        for (name, rule_state) in state.rules.iter_mut() {
            if rule_state.is_tracked(&resolve.key) {
                was_open = true;
                let delta = deltas.delta_mut(name);
                applied |= apply_resolve(rule_state, delta, &resolve);
            }
        }
        if !was_open {
            // An earlier alert of the same notification has resolved it.
            let duplicate = Decision::new(Verdict::Duplicate, vec![resolve.key.clone()]);
            decisions.push(Decision { target: Some(key.clone()), ..duplicate });
        }
        // An end that is not the latest one is recorded too, so that a target whose only alert it was has a
        // history.
        if applied {
            let until = clock.now.after(step.context.policy.last_resolve_retention);
            let (alert, ends_at) = (resolve.key, resolve.ends_at);
            record_last_resolve(state, LastResolve { alert, ends_at, was_open, until });
        }
    }
    for delta in deltas.iter_mut() {
        delta.trigger = Some(input.trigger.clone());
        delta.truncated = input.truncated;
    }
    decisions.extend(evaluate_all(step, key, state, deltas));
    decisions
}

/// Evaluates the episodes of all changed rules. Rules with opened occurrences come first: increases are known
/// before decreases are evaluated, and an opening withdraws every pending close of the target.
fn evaluate_all(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    deltas: RuleDeltas,
) -> Vec<Decision> {
    let mut deltas = deltas.0;
    deltas.sort_by(|(a, _), (b, _)| a.cmp(b));
    if key.kind() != KeyKind::Target {
        let decisions = deltas
            .into_iter()
            .map(|(name, delta)| control_episode::evaluate_episode(step, key, state, &name, delta));
        return decisions.collect::<Vec<_>>().concat();
    }
    let affected_by_openings =
        affected_rules(step, &deltas, |delta| delta.renewed || !delta.opened.is_empty());
    let affected_by_expiry = affected_rules(step, &deltas, |delta| !delta.expired.is_empty());
    // Among the rules with openings, those that decrease capacity come last.
    deltas.sort_by_key(|(name, delta)| {
        let firing = step.rule(name).and_then(|rule| rule.on_firing.as_ref());
        (delta.opened.is_empty(), firing.is_some_and(|firing| firing.action.change.decreases_capacity()))
    });
    let mut decisions = Vec::new();
    for (name, delta) in deltas {
        decisions.extend(episode::evaluate_episode(step, key, state, &name, delta));
    }
    let detail = "an alert opened on the target";
    decisions.extend(deferred::withdraw_pending_closes(step, key, state, &affected_by_openings, detail));
    // The alert may still fire: a missing notification is not evidence of its end.
    let detail = "an alert about the target has expired";
    decisions.extend(deferred::withdraw_pending_closes(step, key, state, &affected_by_expiry, detail));
    // Deferred actions that are due, or that only an episode that has just closed was blocking.
    decisions.extend(deferred::recheck_deferred(step, key, state));
    decisions
}

fn affected_rules(
    step: &StepContext<'_>,
    deltas: &[(Name, RuleDelta)],
    is_affected: impl Fn(&RuleDelta) -> bool,
) -> AffectedRules {
    let (shadow, others): (Vec<&Name>, Vec<&Name>) = deltas
        .iter()
        .filter(|(_, delta)| is_affected(delta))
        .map(|(name, _)| name)
        .partition(|name| step.is_shadow(name));
    if others.is_empty() {
        AffectedRules::Only(shadow.into_iter().cloned().collect())
    } else {
        AffectedRules::All
    }
}

fn apply_firing(
    clock: ClockReading,
    input: &Input,
    state: &mut RuleState,
    delta: &mut RuleDelta,
    firing: FiringAlert<'_>,
) {
    let FiringAlert { key, alert, scope, parameters, metric, last_end, .. } = firing;
    let now = clock.now;
    let fresh = Occurrence {
        alert: key.clone(),
        starts_at: alert.starts_at,
        heard_at: now,
        expires_at: now.after(input.source.occurrence_ttl),
        metric,
        labels: Arc::clone(&alert.labels),
        annotations: Arc::clone(&alert.annotations),
        generator_url: alert.generator_url.clone(),
    };
    if let Some(open) = state.episode.as_mut().and_then(|episode| episode.open.get_mut(&key)) {
        if !open.is_replaced_by(fresh.starts_at, clock) {
            // The first start is retained: copies and restarts of Prometheus move it back and forth.
            let (starts_at, labels) = (open.starts_at, Arc::clone(&open.labels));
            *open = Occurrence { starts_at, labels, ..fresh };
            delta.unchanged.push((key, Verdict::Duplicate));
        } else {
            // The resolve of the old occurrence was not received. The number of open alerts is unchanged.
            *open = fresh;
            delta.renewed = true;
            delta.unchanged.push((key, Verdict::NoAction));
        }
        return;
    }
    if delta.opened.contains(&key) {
        delta.unchanged.push((key, Verdict::Duplicate));
        return;
    }
    match last_end.filter(|end| fresh.starts_at <= *end) {
        Some(previous_end) => {
            if let Some(late) = state.late.get_mut(&key) {
                late.truncated &= input.truncated;
                delta.unchanged.push((key, Verdict::Duplicate));
                return;
            }
            let opens_at = now.after(input.source.late_window);
            state.late.insert(LateFiring {
                occurrence: fresh,
                scope: scope.clone(),
                parameters: parameters.clone(),
                trigger: input.trigger.clone(),
                truncated: input.truncated,
                previous_end,
                opens_at,
            });
            delta.late.push((key, opens_at));
        }
        None => {
            // It started after the last known end, so it is not a copy of the late firing.
            state.late.remove(&key);
            delta.opened.insert(Opened {
                occurrence: fresh,
                scope: scope.clone(),
                parameters: parameters.clone(),
                previous_end: last_end,
            });
        }
    }
}

/// Extends the expiry of a firing alert. Returns whether a new occurrence has replaced the open one.
fn refresh(
    clock: ClockReading,
    input: &Input,
    state: &mut RuleState,
    key: &AlertKey,
    starts_at: Time,
) -> bool {
    let now = clock.now;
    let open = state.episode.as_mut().and_then(|episode| episode.open.get_mut(key));
    let Some(open) = open.filter(|open| open.heard_at < now) else { return false };
    let renewed = open.is_replaced_by(starts_at, clock);
    if renewed {
        open.starts_at = starts_at;
    }
    open.heard_at = now;
    open.expires_at = now.after(input.source.occurrence_ttl);
    renewed
}

/// Cancels the opening of an alert that fires and resolves in the same notification. Returns whether the end
/// is applied; `None` if the alert does not open here.
fn cancel_opened(delta: &mut RuleDelta, resolve: &ResolvedAlert) -> Option<bool> {
    if resolve.ends_at < delta.opened.get(&resolve.key)?.occurrence.starts_at {
        delta.unchanged.push((resolve.key.clone(), Verdict::Stale));
        return Some(false);
    }
    delta.opened.remove(&resolve.key);
    // One reply for the firing and one for the resolve.
    delta
        .unchanged
        .extend([(resolve.key.clone(), Verdict::Withdrawn), (resolve.key.clone(), Verdict::Withdrawn)]);
    Some(true)
}

/// Applies a resolve to the late firing or the open occurrence. Returns whether the end is applied.
fn apply_resolve(state: &mut RuleState, delta: &mut RuleDelta, resolve: &ResolvedAlert) -> bool {
    if state.late.remove(&resolve.key).is_some() {
        delta.unchanged.push((resolve.key.clone(), Verdict::Withdrawn));
        return true;
    }
    let Some(episode) = &mut state.episode else { return false };
    let Some(open) = episode.open.get(&resolve.key) else { return false };
    if resolve.ends_at < open.starts_at {
        delta.unchanged.push((resolve.key.clone(), Verdict::Stale));
        return false;
    }
    if resolve.last_end.is_some_and(|last| resolve.ends_at <= last) {
        delta.unchanged.push((resolve.key.clone(), Verdict::Duplicate));
        return false;
    }
    delta.closed.extend(episode.open.remove(&resolve.key));
    true
}

/// Records the latest end of an alert.
pub(super) fn record_last_resolve(state: &mut TargetState, last_resolve: LastResolve) {
    match state.last_resolves.get_mut(&last_resolve.alert) {
        Some(known) => {
            known.ends_at = known.ends_at.max(last_resolve.ends_at);
            known.was_open |= last_resolve.was_open;
            known.until = known.until.max(last_resolve.until);
        }
        None => state.last_resolves.insert(last_resolve),
    }
}

/// Expires occurrences that no notification has mentioned for `occurrence_ttl`, opens late firings whose
/// window is over, and rechecks deferred actions.
pub(super) fn expire(step: &mut StepContext<'_>, key: &TargetKey, state: &mut TargetState) -> Vec<Decision> {
    let now = step.context.now;
    let mut deltas = RuleDeltas::default();
    for (name, rule_state) in state.rules.iter_mut() {
        let mut delta = RuleDelta::default();
        if let Some(episode) = &mut rule_state.episode {
            let expired = episode.open.extract_if(|open| open.expires_at <= now);
            delta.expired.extend(expired.into_iter().map(|open| open.alert));
        }
        for late in rule_state.late.extract_if(|late| late.opens_at <= now) {
            let LateFiring { occurrence, scope, parameters, trigger, truncated, previous_end, .. } = late;
            delta.opened.insert(Opened { occurrence, scope, parameters, previous_end: Some(previous_end) });
            delta.trigger = Some(trigger);
            delta.truncated |= truncated;
        }
        if !delta.opened.is_empty() || !delta.expired.is_empty() {
            *deltas.delta_mut(name) = delta;
        }
    }
    evaluate_all(step, key, state, deltas)
}
