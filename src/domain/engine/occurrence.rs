//! Occurrences: what one firing or resolve does to what is open.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::episode::{self, Opened, RuleDelta};
use super::step::StepContext;
use super::{Input, control_episode, deferred};
use crate::domain::alert_key::AlertKey;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::name::Name;
use crate::domain::notification::Alert;
use crate::domain::state::{LastResolve, LateFiring, Occurrence, RuleState, TargetState};
use crate::domain::target::{KeyKind, TargetKey};
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

/// What one notification brings to one target.
#[derive(Default)]
pub(super) struct TargetInput<'a> {
    pub firing: Vec<FiringAlert<'a>>,
    /// Alerts that fire and are known here, whichever rule takes them now, and when they began.
    pub heard: Vec<(AlertKey, Time)>,
    /// Firings of a rule that have lost their meaning: a late one that fires anew at another target, one
    /// that was a heartbeat and is none any more.
    pub outdated: Vec<(Name, AlertKey)>,
    pub resolves: Vec<ResolvedAlert>,
}

/// A firing alert that a rule took.
pub(super) struct FiringAlert<'a> {
    pub key: AlertKey,
    pub alert: &'a Alert,
    pub rule: &'a Name,
    /// What the rule says that it is about, and the key of that.
    pub scope: &'a EpisodeScope,
    pub rule_target: &'a TargetKey,
    pub parameters: &'a BTreeMap<String, String>,
    pub metric: Option<f64>,
    pub last_end: Option<Time>,
}

/// The end of an alert that is open or late here.
pub(super) struct ResolvedAlert {
    pub key: AlertKey,
    pub ends_at: Time,
    pub last_end: Option<Time>,
}

/// What happened to each rule at one target; there are few, and most often one.
#[derive(Default)]
struct RuleDeltas(Vec<(Name, RuleDelta)>);

impl RuleDeltas {
    fn delta(&mut self, rule: &Name) -> &mut RuleDelta {
        let known = self.0.iter().position(|(name, _)| name == rule);
        let at = known.unwrap_or_else(|| {
            self.0.push((rule.clone(), RuleDelta::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn deltas(&mut self) -> impl Iterator<Item = &mut RuleDelta> {
        self.0.iter_mut().map(|(_, delta)| delta)
    }
}

/// Applies what a notification brings. All of it is seen before any episode is judged: a pod that
/// takes the place of another in the same notification neither closes nor opens anything.
pub(super) fn apply(
    step: &mut StepContext<'_>,
    input: &Input,
    key: &TargetKey,
    state: &mut TargetState,
    changes: TargetInput<'_>,
) -> Vec<Decision> {
    let now = step.context.now;
    let mut by_rule = RuleDeltas::default();
    for firing in changes.firing {
        let delta = by_rule.delta(firing.rule);
        let rule_state = state.rules.get_or_default(firing.rule);
        apply_firing(now, input, rule_state, delta, firing);
    }
    for (key, starts_at) in &changes.heard {
        for (name, rule_state) in state.rules.iter_mut() {
            if refresh(now, input, rule_state, key, *starts_at) {
                by_rule.delta(name).renewed = true;
            }
        }
    }
    for (rule, alert) in changes.outdated {
        if let Some(rule_state) = state.rules.get_mut(&rule) {
            rule_state.late.remove(&alert);
            rule_state.episode.as_mut().and_then(|episode| episode.open.remove(&alert));
        }
        by_rule.delta(&rule).outdated.push(alert);
    }
    let mut decisions = Vec::new();
    for resolve in changes.resolves {
        let mut applied = false;
        let mut was_open = false;
        for delta in by_rule.deltas() {
            if let Some(fresh) = cancel_opened(delta, &resolve) {
                was_open = true;
                applied |= fresh;
            }
        }
        for (name, rule_state) in state.rules.iter_mut() {
            if rule_state.is_tracked(&resolve.key) {
                was_open = true;
                let delta = by_rule.delta(name);
                applied |= apply_resolve(rule_state, delta, &resolve);
            }
        }
        if !was_open {
            // The same notification has resolved it already.
            let duplicate = Decision::new(Verdict::Duplicate, vec![resolve.key.clone()]);
            decisions.push(Decision { target: Some(key.clone()), ..duplicate });
        }
        // Also one that is not the last, so that a target that only this was about has a history.
        if applied {
            let until = now.after(step.context.policy.last_resolve_retention);
            let (alert, ends_at) = (resolve.key, resolve.ends_at);
            remember_end(state, LastResolve { alert, ends_at, was_open, until });
        }
    }
    for delta in by_rule.deltas() {
        delta.trigger = Some(input.trigger.clone());
        delta.truncated = input.truncated;
    }
    decisions.extend(evaluate_all(step, key, state, by_rule));
    decisions
}

/// Settles all turns of a moment. Rules in which something opens come first, so that what they add is
/// known to those that would take away; and what they open ends every wait for a calm.
fn evaluate_all(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    changes: RuleDeltas,
) -> Vec<Decision> {
    let mut changes = changes.0;
    changes.sort_by(|(a, _), (b, _)| a.cmp(b));
    if key.kind() != KeyKind::Target {
        let settled = changes
            .into_iter()
            .map(|(name, delta)| control_episode::evaluate_episode(step, key, state, &name, delta));
        return settled.collect::<Vec<_>>().concat();
    }
    let opens = affected_rules(step, &changes, |delta| delta.renewed || !delta.opened.is_empty());
    let expires = affected_rules(step, &changes, |delta| !delta.expired.is_empty());
    // Of those in which something opens, those that could take away come last.
    changes.sort_by_key(|(name, delta)| {
        let firing = step.rule(name).and_then(|rule| rule.on_firing.as_ref());
        (delta.opened.is_empty(), firing.is_some_and(|firing| firing.action.change.decreases_capacity()))
    });
    let mut decisions = Vec::new();
    for (name, delta) in changes {
        decisions.extend(episode::evaluate_episode(step, key, state, &name, delta));
    }
    let why = "something opened on the target";
    decisions.extend(deferred::withdraw_pending_closes(step, key, state, &opens, why));
    // What stood in the way may still do so: absence is no evidence.
    let why = "an alert about the target was not heard of any more";
    decisions.extend(deferred::withdraw_pending_closes(step, key, state, &expires, why));
    // What has come due, and what only an episode that has closed now stood in the way of.
    decisions.extend(deferred::recheck_deferred(step, key, state));
    decisions
}

/// Whose closings something touches.
pub(super) enum AffectedRules {
    /// Those of all rules.
    All,
    /// Those of these rules, which are in `mode: shadow` and stop nobody else.
    Only(Vec<Name>),
}

fn affected_rules(
    step: &StepContext<'_>,
    changes: &[(Name, RuleDelta)],
    by: impl Fn(&RuleDelta) -> bool,
) -> AffectedRules {
    let (shadow, others): (Vec<&Name>, Vec<&Name>) = changes
        .iter()
        .filter(|(_, delta)| by(delta))
        .map(|(name, _)| name)
        .partition(|name| step.is_shadow(name));
    if others.is_empty() {
        AffectedRules::Only(shadow.into_iter().cloned().collect())
    } else {
        AffectedRules::All
    }
}

fn apply_firing(
    now: Time,
    input: &Input,
    state: &mut RuleState,
    delta: &mut RuleDelta,
    firing: FiringAlert<'_>,
) {
    let FiringAlert { key, alert, scope, parameters, metric, last_end, .. } = firing;
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
        if !open.is_replaced_by(fresh.starts_at) {
            // The first start stays: copies and restarts move it back and forth.
            let (starts_at, labels) = (open.starts_at, Arc::clone(&open.labels));
            *open = Occurrence { starts_at, labels, ..fresh };
            delta.unchanged.push((key, Verdict::Duplicate));
        } else {
            // Its resolve never reached us. As many alerts are open as before.
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
            let due = now.after(input.source.late_window);
            state.late.insert(LateFiring {
                occurrence: fresh,
                scope: scope.clone(),
                parameters: parameters.clone(),
                trigger: input.trigger.clone(),
                truncated: input.truncated,
                previous_end,
                opens_at: due,
            });
            delta.late.push((key, due));
        }
        None => {
            // It began after that end, so it is no copy of what waits.
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

/// It fires, so it does not expire. Whether it has begun anew.
fn refresh(now: Time, input: &Input, state: &mut RuleState, key: &AlertKey, starts_at: Time) -> bool {
    let open = state.episode.as_mut().and_then(|episode| episode.open.get_mut(key));
    let Some(open) = open.filter(|open| open.heard_at < now) else { return false };
    let renewed = open.is_replaced_by(starts_at);
    if renewed {
        open.starts_at = starts_at;
    }
    open.heard_at = now;
    open.expires_at = now.after(input.source.occurrence_ttl);
    renewed
}

/// An alert that opens and resolves in one notification does not open. Whether the end counts; `None`
/// if it does not open here.
fn cancel_opened(delta: &mut RuleDelta, resolve: &ResolvedAlert) -> Option<bool> {
    if resolve.ends_at < delta.opened.get(&resolve.key)?.occurrence.starts_at {
        delta.unchanged.push((resolve.key.clone(), Verdict::Stale));
        return Some(false);
    }
    delta.opened.remove(&resolve.key);
    // One answer for the firing, one for the resolve.
    delta
        .unchanged
        .extend([(resolve.key.clone(), Verdict::Withdrawn), (resolve.key.clone(), Verdict::Withdrawn)]);
    Some(true)
}

/// Whether the end counts.
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

/// Remembers the latest end of an alert.
pub(super) fn remember_end(state: &mut TargetState, ended: LastResolve) {
    match state.last_resolves.get_mut(&ended.alert) {
        Some(known) => {
            known.ends_at = known.ends_at.max(ended.ends_at);
            known.was_open |= ended.was_open;
            known.until = known.until.max(ended.until);
        }
        None => state.last_resolves.insert(ended),
    }
}

/// Ends occurrences that nobody speaks of any more, opens late ones whose window is over, and looks again
/// at what guards have stopped.
pub(super) fn expire(step: &mut StepContext<'_>, key: &TargetKey, state: &mut TargetState) -> Vec<Decision> {
    let now = step.context.now;
    let mut by_rule = RuleDeltas::default();
    for (name, rule_state) in state.rules.iter_mut() {
        let mut delta = RuleDelta::default();
        if let Some(episode) = &mut rule_state.episode {
            let expired = episode.open.extract_if(|open| open.expires_at <= now);
            delta.expired.extend(expired.into_iter().map(|open| open.alert));
        }
        for late in rule_state.late.extract_if(|late| late.opens_at <= now) {
            let LateFiring {
                occurrence,
                scope: target,
                parameters,
                trigger: cause,
                truncated,
                previous_end,
                ..
            } = late;
            delta.opened.insert(Opened {
                occurrence,
                scope: target,
                parameters,
                previous_end: Some(previous_end),
            });
            delta.trigger = Some(cause);
            delta.truncated |= truncated;
        }
        if !delta.opened.is_empty() || !delta.expired.is_empty() {
            *by_rule.delta(name) = delta;
        }
    }
    evaluate_all(step, key, state, by_rule)
}
