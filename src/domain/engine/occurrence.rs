//! Occurrences: applies firing and resolved alerts to the open occurrences of a target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::control_episode;
use super::delta::{ControlInput, Expired, Opened, RuleDelta, RuleDeltas, RuleId, Unchanged, UnreadableHold};
use super::end::ResolvedAlert;
use super::step::StepContext;
use super::{Input, delivery, episode, kept, owed};
use crate::domain::alert_key::AlertKey;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::fingerprint;
use crate::domain::name::Name;
use crate::domain::notification::Alert;
use crate::domain::rule::Mode;
use crate::domain::state::{
    InvalidFiring, LastResolve, LateFiring, Occurrence, RuleState, TargetState, Validity,
};
use crate::domain::target::{KeyKind, TargetKey};
use crate::domain::time::{ClockReading, Time};
use crate::domain::verdict::{Decision, Verdict};

/// The part of a notification that concerns one target.
#[derive(Default)]
pub(super) struct TargetInput<'a> {
    pub firing: Vec<FiringAlert<'a>>,
    /// Firing alerts that are open or late at this target, whichever rule matches them now.
    pub heard: Vec<HeardAlert>,
    /// Firings of a rule that are no longer valid: a late one that has a new occurrence at another target, or
    /// an alert that is not the heartbeat any more.
    pub outdated: Vec<(RuleId, AlertKey)>,
    pub resolves: Vec<ResolvedAlert>,
    /// Alerts about this target that fire and cannot be read, and their starts.
    pub unreadable: Vec<(AlertKey, Option<Time>)>,
    /// Alerts that could not be read before, and can be read again, or have resolved.
    pub readable: Vec<AlertKey>,
    /// Alerts that could not be read before, and that their sender has ended without evidence.
    pub gone: Vec<AlertKey>,
    /// Alerts of holds that fire and cannot be read.
    pub unreadable_holds: Vec<UnreadableHold>,
}

/// A firing alert that a rule matched.
pub(super) struct FiringAlert<'a> {
    pub key: AlertKey,
    pub alert: &'a Alert,
    pub rule: RuleId,
    /// The scope that the rule renders from the alert; `rule_target` is its key.
    pub scope: &'a EpisodeScope,
    pub rule_target: &'a TargetKey,
    pub parameters: &'a BTreeMap<String, String>,
    pub metric: Option<f64>,
    pub last_end: Option<Time>,
}

/// An alert that fires and is open or late at this target.
pub(super) struct HeardAlert {
    pub key: AlertKey,
    pub starts_at: Time,
    /// Until when its sender vouches for it; not known of an alert that cannot be read.
    pub validity: HeardValidity,
}

/// What a firing says about its validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeardValidity {
    Until(Option<Time>),
    Unreadable,
}

const DOUBTED_END: &str = "its endsAt has passed and is none that was known: the end of the alert, if it is sent again, or a late firing";

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
    let mut decisions = delivery::apply(step, key, state);
    forget_former_shadows(step, state);
    kept::postpone(step, state);
    let mut deltas = RuleDeltas::default();
    let were_late = late_firings(state);
    let were_absent = absent_alerts(clock.now, state);
    for firing in target_input.firing {
        let delta = deltas.delta_mut(&firing.rule);
        apply_firing(clock, input, firing.rule.state_mut(state), delta, firing);
    }
    let rules = RuleId::all(state);
    for heard in &target_input.heard {
        for rule in &rules {
            if refresh(clock, input, rule.state_mut(state), heard) {
                deltas.delta_mut(rule).renewed = true;
            }
        }
    }
    for (rule, alert) in target_input.outdated {
        let rule_state = rule.state_mut(state);
        rule_state.late.remove(&alert);
        rule_state.episode.as_mut().and_then(|episode| episode.open.remove(&alert));
        deltas.delta_mut(&rule).outdated.push(alert);
    }
    for resolve in target_input.resolves {
        decisions.extend(resolve_at(step, key, state, &rules, &mut deltas, resolve));
    }
    for delta in deltas.iter_mut() {
        delta.trigger = Some(input.trigger.clone());
        delta.truncated = input.truncated;
    }
    // What is due and not processed yet counts before any decrease does.
    let overdue = open_overdue(clock.now, state, &were_late, &mut deltas);
    if key.kind() == KeyKind::Target {
        record_late_ends(step, state, &were_late, &deltas);
        record_absence_ends(step, state, &were_absent);
    }
    expire_unreadable(clock.now, state, &target_input.gone);
    apply_unreadable(step, input, state, target_input.unreadable, &target_input.readable);
    end_expired_invalid(step, key, state);
    let controls = ControlInput {
        unreadable: target_input.unreadable_holds,
        readable: target_input.readable,
        ttl: input.source.occurrence_ttl,
    };
    let mut evaluated = evaluate(step, key, state, deltas, controls);
    if !overdue.is_empty() {
        // They are no reply to an alert of the notification.
        let is_reply = |decision: &Decision| decision.alerts.iter().any(|alert| !overdue.contains(alert));
        evaluated.iter_mut().for_each(|decision| decision.is_reply &= is_reply(decision));
    }
    decisions.extend(evaluated);
    decisions
}

/// Expires occurrences that no notification has mentioned for `occurrence_ttl`, opens late firings whose
/// window is over, and rechecks deferred actions.
pub(super) fn expire(step: &mut StepContext<'_>, key: &TargetKey, state: &mut TargetState) -> Vec<Decision> {
    let mut decisions = delivery::apply(step, key, state);
    forget_former_shadows(step, state);
    kept::postpone(step, state);
    decisions.extend(owed::expire(step, key, state));
    for (_, shadow) in state.shadows.iter_mut() {
        decisions.extend(owed::expire(step, key, shadow));
    }
    let now = step.context.now;
    let mut deltas = RuleDeltas::default();
    end_expired_invalid(step, key, state);
    let were_absent = absent_alerts(now, state);
    for rule in RuleId::all(state) {
        let rule_state = rule.state_mut(state);
        if key.kind() == KeyKind::Heartbeat {
            control_episode::extend_by_gaps(step, rule_state);
        }
        let mut delta = RuleDelta::default();
        if let Some(episode) = &mut rule_state.episode {
            let expired = episode.open.extract_if(|open| open.expires_at <= now);
            delta
                .expired
                .extend(expired.into_iter().map(|open| Expired { alert: open.alert, absence: None }));
        }
        for late in rule_state.late.extract_if(|late| late.opens_at <= now) {
            open_late(&mut delta, late);
        }
        if !delta.opened.is_empty() || !delta.expired.is_empty() {
            *deltas.delta_mut(&rule) = delta;
        }
    }
    if key.kind() == KeyKind::Target {
        record_absence_ends(step, state, &were_absent);
    }
    decisions.extend(evaluate(step, key, state, deltas, ControlInput::default()));
    decisions
}

fn open_late(delta: &mut RuleDelta, late: LateFiring) {
    let LateFiring { occurrence, scope, parameters, trigger, truncated, previous_end, .. } = late;
    let previous_end = Some(previous_end);
    delta.opened.insert(Opened { occurrence, scope, parameters, previous_end, was_late: true });
    delta.trigger.get_or_insert(trigger);
    delta.truncated |= truncated;
}

/// Opens the late firings whose window is over and that the notification has not ended. Returns their alerts.
fn open_overdue(
    now: Time,
    state: &mut TargetState,
    were_late: &[(RuleId, AlertKey, Time)],
    deltas: &mut RuleDeltas,
) -> BTreeSet<AlertKey> {
    let mut opened = BTreeSet::new();
    for (rule, alert, _) in were_late.iter().filter(|(.., opens_at)| *opens_at <= now) {
        if let Some(late) = rule.state_mut(state).late.remove(alert) {
            open_late(deltas.delta_mut(rule), late);
            opened.insert(alert.clone());
        }
    }
    opened
}

/// Evaluates the episodes of a target, of the active rules first, or those of a hold or heartbeat.
fn evaluate(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    deltas: RuleDeltas,
    controls: ControlInput,
) -> Vec<Decision> {
    let mut deltas = deltas.0;
    deltas.sort_by(|(a, _), (b, _)| a.cmp(b));
    if key.kind() != KeyKind::Target {
        let deltas = deltas.into_iter().map(|(rule, delta)| (rule.name, delta)).collect();
        return control_episode::evaluate(step, key, state, deltas, controls);
    }
    let first_shadow = deltas.partition_point(|(rule, _)| !rule.is_shadow);
    let of_shadows = deltas.split_off(first_shadow);
    let active = deltas.into_iter().map(|(rule, delta)| (rule.name, delta)).collect();
    let mut decisions = episode::evaluate_all(step, key, state, None, active);
    let mut of_shadows: BTreeMap<Name, RuleDelta> =
        of_shadows.into_iter().map(|(rule, delta)| (rule.name, delta)).collect();
    let mut shadows = std::mem::take(&mut state.shadows);
    for (name, shadow) in shadows.iter_mut() {
        shadow.known_since = state.known_since;
        let delta = of_shadows.remove(name).map(|delta| (name.clone(), delta));
        let delta = delta.into_iter().collect();
        decisions.extend(episode::evaluate_all(step, key, shadow, Some(state), delta));
        shadow.known_since = None;
    }
    shadows.retain(|_, shadow| !shadow.is_empty());
    state.shadows = shadows;
    decisions
}

/// Switching a rule to another mode forgets what it did in `mode: shadow`.
fn forget_former_shadows(step: &StepContext<'_>, state: &mut TargetState) {
    let is_shadow = |name: &Name| step.rule(name).is_some_and(|rule| rule.mode == Mode::Shadow);
    state.shadows.retain(|name, _| is_shadow(name));
}

fn growth_key(input: &Input, alert: &Alert) -> Option<Arc<str>> {
    let ignored = &input.source.ignore_labels;
    let is_ignored = |name: &str| ignored.iter().any(|ignored| ignored == name);
    alert
        .labels
        .iter()
        .any(|(name, _)| is_ignored(name))
        .then(|| fingerprint::from_labels(alert.labels.iter().filter(|(name, _)| !is_ignored(name))).into())
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
        heard_at: input.said_at(clock),
        expires_at: now.after(time_to_live(input, scope)),
        metric,
        labels: Arc::clone(&alert.labels),
        annotations: Arc::clone(&alert.annotations),
        generator_url: alert.generator_url.clone(),
        growth_key: growth_key(input, alert),
        validity: Validity::after_firing(None, alert.valid_until, clock),
    };
    if let Some(open) = state.episode.as_mut().and_then(|episode| episode.open.get_mut(&key)) {
        let is_heartbeat = matches!(scope, EpisodeScope::Heartbeat(_));
        let (verdict, renewed) = hear_open(clock, open, fresh, is_heartbeat);
        delta.renewed |= renewed;
        return delta.answer(key, verdict);
    }
    if delta.opened.contains(&key) {
        return delta.answer(key, Verdict::Duplicate);
    }
    let opened = |occurrence| Opened {
        occurrence,
        scope: scope.clone(),
        parameters: parameters.clone(),
        previous_end: last_end,
        was_late: false,
    };
    match last_end.filter(|end| fresh.starts_at <= *end) {
        Some(previous_end) => match state.late.get_mut(&key) {
            // It opens with the annotations and the time of its last copy.
            Some(late) => {
                late.truncated &= input.truncated;
                let starts_at = late.occurrence.starts_at;
                late.occurrence = Occurrence { starts_at, ..fresh };
                late.parameters.clone_from(parameters);
                delta.answer(key, Verdict::Duplicate);
            }
            None => {
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
        },
        None => {
            // It started after the last known end, so it is not a copy of the late firing.
            state.late.remove(&key);
            delta.opened.insert(opened(fresh));
        }
    }
}

/// Applies a firing to an alert that is open. Returns the verdict, and whether the alert has begun anew.
///
/// A sender that vouches for its alerts sends their ends again and again: an alert that is heard after a silence has fired
/// all the time, also if a restart has moved its start. Only a heartbeat then begins anew, since its sender has.
fn hear_open(
    clock: ClockReading,
    open: &mut Occurrence,
    fresh: Occurrence,
    is_heartbeat: bool,
) -> (Verdict, bool) {
    if fresh.heard_at < open.heard_at {
        // A queue has delayed an earlier copy.
        return (Verdict::Duplicate, false);
    }
    let has_moved = open.is_replaced_by(fresh.starts_at, clock);
    if has_moved && open.validity.is_none() {
        // The resolve of the old occurrence was not received. The number of open alerts is unchanged.
        *open = fresh;
        return (Verdict::NoAction, true);
    }
    // The first start is retained: copies and restarts of Prometheus move it back and forth. It moves only behind what was
    // heard, so that no end before that ends the occurrence.
    let starts_at = if has_moved { fresh.starts_at } else { open.starts_at };
    let valid_until = fresh.validity.map(|validity| validity.until);
    let validity = Validity::after_firing(open.validity.as_ref(), valid_until, clock);
    let labels = Arc::clone(&open.labels);
    *open = Occurrence { starts_at, labels, validity, ..fresh };
    (Verdict::Duplicate, has_moved && is_heartbeat)
}

/// How long an occurrence stays open without a notification that contains it.
fn time_to_live(input: &Input, scope: &EpisodeScope) -> std::time::Duration {
    let ttl = input.source.occurrence_ttl;
    match scope {
        EpisodeScope::Heartbeat(_) => {
            let timeout = input.source.heartbeat.as_ref().and_then(|heartbeat| heartbeat.timeout);
            timeout.map_or(ttl, |timeout| timeout.min(ttl))
        }
        EpisodeScope::Target(_) | EpisodeScope::Hold(_) => ttl,
    }
}

/// Extends the expiry of a firing alert. Returns whether a new occurrence has replaced the open one.
fn refresh(clock: ClockReading, input: &Input, state: &mut RuleState, heard: &HeardAlert) -> bool {
    let HeardAlert { key, starts_at, validity } = heard;
    let (now, heard_at) = (clock.now, input.said_at(clock));
    if let Some(late) = state.late.get_mut(key) {
        late.occurrence.heard_at = heard_at;
        late.occurrence.expires_at = now.after(time_to_live(input, &late.scope));
    }
    let Some(episode) = state.episode.as_mut() else { return false };
    let ttl = time_to_live(input, &episode.scope);
    let Some(open) = episode.open.get_mut(key).filter(|open| open.heard_at < heard_at) else { return false };
    let is_restarted = open.is_replaced_by(*starts_at, clock);
    if is_restarted {
        open.starts_at = *starts_at;
    }
    let is_heartbeat = matches!(episode.scope, EpisodeScope::Heartbeat(_));
    let renewed = is_restarted && (open.validity.is_none() || is_heartbeat);
    if let HeardValidity::Until(until) = validity {
        open.validity = Validity::after_firing(open.validity.as_ref(), *until, clock);
    }
    open.heard_at = heard_at;
    open.expires_at = now.after(ttl);
    renewed
}

/// Applies a resolve to everything that it ends at a target. Returns the decision if nothing was open.
fn resolve_at(
    step: &StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    rules: &[RuleId],
    deltas: &mut RuleDeltas,
    resolve: ResolvedAlert,
) -> Option<Decision> {
    let mut applied = false;
    let mut was_open = false;
    let mut has_closed = false;
    for delta in deltas.iter_mut() {
        if let Some(counts) = cancel_opened(delta, &resolve) {
            was_open = true;
            applied |= counts;
        }
    }
    for rule in rules {
        let rule_state = rule.state_mut(state);
        if rule_state.is_tracked(&resolve.key) {
            was_open = true;
            let delta = deltas.delta_mut(rule);
            let was_tracked = rule_state.is_open(&resolve.key);
            applied |= apply_resolve(step.context.clock(), rule_state, delta, &resolve);
            has_closed |= was_tracked && !rule_state.is_open(&resolve.key);
        }
    }
    // An earlier alert of the same notification has resolved it, or it was open in a shadow state that was forgotten.
    let is_known = state.last_resolve(&resolve.key).is_some();
    let decision = (!was_open).then(|| {
        let verdict = match (is_known, &resolve.absence) {
            (true, _) => Verdict::Duplicate,
            (false, Some(_)) => Verdict::NoAction,
            (false, None) => Verdict::NoEvidence,
        };
        let (target, detail) = (Some(key.clone()), resolve.detail());
        Decision { target, detail, ..Decision::new(verdict, vec![resolve.key.clone()]) }
    });
    applied |= !was_open;
    // An end that is not the latest one is recorded too, so that a target whose only alert it was has a
    // history.
    if applied {
        let until = step.context.now.after(step.context.policy.last_resolve_retention);
        let (alert, ends_at) = (resolve.key, resolve.ends_at);
        let closed_at = has_closed.then_some(step.context.now);
        record_last_resolve(state, LastResolve { alert, ends_at, was_open, closed_at, until });
    }
    decision
}

/// Cancels the opening of an alert that fires and resolves in the same notification. Returns whether the end
/// is applied; `None` if the alert does not open here.
fn cancel_opened(delta: &mut RuleDelta, resolve: &ResolvedAlert) -> Option<bool> {
    if resolve.ends_at < delta.opened.get(&resolve.key)?.occurrence.starts_at {
        delta.answer_end(resolve, Verdict::Stale);
        return Some(false);
    }
    delta.opened.remove(&resolve.key);
    // One reply for the firing and one for the resolve.
    delta.answer_end(resolve, Verdict::Withdrawn);
    delta.answer_end(resolve, Verdict::Withdrawn);
    Some(true)
}

/// Applies a resolve to the late firing or the open occurrence. Returns whether the end is applied.
///
/// The end of an absence is applied too: what began before it is a late copy of what is gone, and what began after it opens
/// at once. That is no evidence of calm, which only an episode that closes by resolve gives.
fn apply_resolve(
    clock: ClockReading,
    state: &mut RuleState,
    delta: &mut RuleDelta,
    resolve: &ResolvedAlert,
) -> bool {
    if let Some(late) = state.late.get(&resolve.key) {
        if resolve.is_known() && late.occurrence.is_vouched_for(clock.now) {
            // Another sender repeats its own end.
            delta.answer_end(resolve, Verdict::Duplicate);
            return false;
        }
        // An end before it began is that of an earlier occurrence.
        let ended = resolve.ends_at >= late.occurrence.starts_at;
        delta.answer_end(resolve, if ended { Verdict::Withdrawn } else { Verdict::Stale });
        if ended {
            state.late.remove(&resolve.key);
        }
        return ended;
    }
    let Some(episode) = &mut state.episode else { return false };
    let Some(open) = episode.open.get_mut(&resolve.key) else { return false };
    if resolve.ends_at < open.starts_at {
        delta.answer_end(resolve, Verdict::Stale);
        return false;
    }
    if resolve.is_known() {
        delta.answer_end(resolve, Verdict::Duplicate);
        return false;
    }
    if resolve.absence.is_none() && !open.ends_with(resolve.ends_at, clock) {
        let detail = Some(DOUBTED_END.to_owned());
        delta.unchanged.push(Unchanged { alert: resolve.key.clone(), verdict: Verdict::Duplicate, detail });
        return false;
    }
    let Some(ended) = episode.open.remove(&resolve.key) else { return false };
    match &resolve.absence {
        Some(reason) => {
            delta.expired.push(Expired { alert: ended.alert, absence: Some(reason.clone()) });
        }
        None => delta.closed.push(ended),
    }
    true
}

/// Records the latest end of an alert.
pub(super) fn record_last_resolve(state: &mut TargetState, last_resolve: LastResolve) {
    match state.last_resolves.get_mut(&last_resolve.alert) {
        Some(known) => {
            known.ends_at = known.ends_at.max(last_resolve.ends_at);
            known.closed_at = known.closed_at.max(last_resolve.closed_at);
            known.was_open |= last_resolve.was_open;
            known.until = known.until.max(last_resolve.until);
        }
        None => state.last_resolves.insert(last_resolve),
    }
}

/// The late firings of a target, by rule, and when they open.
fn late_firings(state: &TargetState) -> Vec<(RuleId, AlertKey, Time)> {
    if state.all_rules().all(|(_, rule_state)| rule_state.late.is_empty()) {
        return Vec::new();
    }
    let mut firings = Vec::new();
    for rule in RuleId::all(state) {
        let late = rule.state(state).into_iter().flat_map(|rule_state| rule_state.late.iter());
        firings.extend(late.map(|late| (rule.clone(), late.occurrence.alert.clone(), late.opens_at)));
    }
    firings
}

/// Decreases wait for a whole window after the end of a late firing that did not open.
fn record_late_ends(
    step: &StepContext<'_>,
    state: &mut TargetState,
    before: &[(RuleId, AlertKey, Time)],
    deltas: &RuleDeltas,
) {
    let (now, retention) = (step.context.now, step.context.policy.last_resolve_retention);
    for (rule, alert, _) in before {
        let opens = deltas.0.iter().any(|(known, delta)| known == rule && delta.opened.contains(alert));
        let is_late = rule.state(state).is_some_and(|rule_state| rule_state.late.contains(alert));
        if !opens && !is_late {
            let part = if rule.is_shadow { state.shadows.get_or_default(&rule.name) } else { &mut *state };
            part.record_end(now, true, retention);
        }
    }
}

/// The alerts that are open at a target and absent, by rule.
fn absent_alerts(now: Time, state: &TargetState) -> Vec<(RuleId, AlertKey)> {
    let is_absent = |open: &&Occurrence| open.is_absent(now);
    if !state.all_rules().any(|(_, rule_state)| rule_state.occurrences().any(|open| is_absent(&open))) {
        return Vec::new();
    }
    let rules = RuleId::all(state).into_iter();
    let absent = rules.flat_map(|rule| {
        let open = rule.state(state).into_iter().flat_map(RuleState::occurrences);
        let alerts: Vec<AlertKey> = open.filter(is_absent).map(|open| open.alert.clone()).collect();
        alerts.into_iter().map(move |alert| (rule.clone(), alert))
    });
    absent.collect()
}

/// Decreases wait for a whole window after the end of an absence, however it ends: while the sender was silent, nothing else
/// could be heard of it either.
fn record_absence_ends(step: &StepContext<'_>, state: &mut TargetState, before: &[(RuleId, AlertKey)]) {
    let (now, retention) = (step.context.now, step.context.policy.last_resolve_retention);
    for (rule, alert) in before {
        let open = rule.state(state).and_then(|rule_state| rule_state.episode.as_ref()?.open.get(alert));
        if open.is_none_or(|open| !open.is_absent(now)) {
            let part = if rule.is_shadow { state.shadows.get_or_default(&rule.name) } else { &mut *state };
            part.record_end(now, true, retention);
        }
    }
}

/// The sender has ended alerts that cannot be read: they expire now.
fn expire_unreadable(now: Time, state: &mut TargetState, gone: &[AlertKey]) {
    let of_holds = state.rules.values_mut().map(|rule_state| &mut rule_state.unreadable);
    for unreadable in of_holds.chain([&mut state.invalid]) {
        for alert in gone {
            unreadable.get_mut(alert).into_iter().for_each(|known| known.expires_at = now);
        }
    }
}

/// Ends the firings that cannot be read and were not heard of for `occurrence_ttl`.
fn end_expired_invalid(step: &StepContext<'_>, key: &TargetKey, state: &mut TargetState) {
    let now = step.context.now;
    let ended = state.invalid.extract_if(|invalid| invalid.expires_at <= now);
    if !ended.is_empty() && key.kind() == KeyKind::Target {
        state.record_end(now, true, step.context.policy.last_resolve_retention);
    }
}

/// Records which alerts fire and cannot be read, and the end of that.
fn apply_unreadable(
    step: &StepContext<'_>,
    input: &Input,
    state: &mut TargetState,
    unreadable: Vec<(AlertKey, Option<Time>)>,
    readable: &[AlertKey],
) {
    let (now, retention) = (step.context.now, step.context.policy.last_resolve_retention);
    let expires_at = now.after(input.source.occurrence_ttl);
    let still: BTreeMap<AlertKey, Option<Time>> = unreadable.into_iter().collect();
    for (alert, starts_at) in &still {
        let known = state.invalid.remove(alert).and_then(|known| known.starts_at);
        let starts_at = known.max(*starts_at);
        state.invalid.insert(InvalidFiring { alert: alert.clone(), starts_at, expires_at, within: None });
    }
    for alert in readable.iter().filter(|alert| !still.contains_key(*alert)) {
        if state.invalid.remove(alert).is_some() {
            state.record_end(now, true, retention);
        }
    }
}
