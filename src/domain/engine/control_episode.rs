//! Episodes of holds and heartbeats. They follow the same rules as target episodes, but update the controls
//! instead of emitting events.

use super::deferred::{OUTDATED, RULE_REMOVED};
use super::delta::{ControlInput, RuleDelta, Unchanged, UnreadableHold};
use super::episode::{Opening, log_expired, open_occurrences};
use super::outcome::{DecisionLog, Outcome};
use super::step::StepContext;
use crate::domain::alert_key::AlertKey;
use crate::domain::control::Hold;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::heartbeat_key::HeartbeatKey;
use crate::domain::name::Name;
use crate::domain::rule::{HoldTemplate, RuleTarget};
use crate::domain::state::{Episode, InvalidFiring, RuleState, TargetState};
use crate::domain::target::{KeyKind, TargetKey};
use crate::domain::target_pattern::TargetPattern;
use crate::domain::verdict::{Decision, Verdict};

const HOLD_BEGINS: &str = "the hold begins";
const HOLD_ENDS: &str = "the hold ends";
const HOLD_OVER: &str = "the hold ends: its max_duration is over";
const HEARTBEAT_OPENS: &str = "the heartbeat opens";
const HEARTBEAT_ENDS: &str = "the heartbeat ends";
const HEARTBEAT_ABSENT: &str = "the heartbeat is not open: its sender does not vouch for it any more";
const HEARTBEAT_BACK: &str = "the heartbeat opens again after a silence";

/// Updates the episodes of a hold or heartbeat and the controls, and returns the decisions.
pub(super) fn evaluate(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    deltas: Vec<(Name, RuleDelta)>,
    input: ControlInput,
) -> Vec<Decision> {
    let mut decisions = Vec::new();
    apply_unreadable(step, state, input);
    let is_heartbeat = key.kind() == KeyKind::Heartbeat;
    for (name, delta) in deltas {
        decisions.extend(evaluate_episode(step, key, state, &name, delta));
    }
    let names: Vec<Name> = state.rules.iter().map(|(name, _)| name.clone()).collect();
    for name in names {
        decisions.extend(match is_heartbeat {
            true => update_silence(step, key, state.rules.get_or_default(&name)),
            false => end_if_over(step, key, state, &name),
        });
    }
    state.rules.retain(|_, rule_state| !rule_state.is_empty());
    decisions
}

fn apply_unreadable(step: &StepContext<'_>, state: &mut TargetState, input: ControlInput) {
    let now = step.context.now;
    let ControlInput { unreadable, readable, ttl } = input;
    for rule_state in state.rules.values_mut() {
        rule_state.unreadable.extract_if(|known| readable.contains(&known.alert));
    }
    for UnreadableHold { alert, starts_at, rule } in unreadable {
        let rule_state = state.rules.get_or_default(&rule);
        rule_state.unreadable.remove(&alert);
        let expires_at = now.after(ttl);
        rule_state.unreadable.insert(InvalidFiring { alert, starts_at, expires_at, within: None });
    }
}

/// Updates the episode of one rule, and returns the decisions.
fn evaluate_episode(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    delta: RuleDelta,
) -> Vec<Decision> {
    let is_heartbeat = key.kind() == KeyKind::Heartbeat;
    let mut log = DecisionLog::new(Some(name).filter(|_| !is_heartbeat), key);
    // Rules are not evaluated for a heartbeat, so all its decisions have the same verdict.
    let verdict_of = |verdict| if is_heartbeat { Verdict::Heartbeat } else { verdict };
    let was_in_force = step.controls().hold(name, key).is_some();
    let rule_state = state.rules.get_or_default(name);
    let RuleDelta { opened, renewed, closed, expired, late, unchanged, outdated, .. } = delta;
    for Unchanged { alert, verdict, detail } in unchanged {
        let outcome = Outcome::new(verdict_of(verdict));
        log.reply(detail.iter().fold(outcome, |outcome, detail| outcome.and_detail(detail)), vec![alert]);
    }
    log.record_if_any(Outcome::with_detail(Verdict::Withdrawn, OUTDATED), outdated);
    let has_expired = !expired.is_empty();
    log_expired(&mut log, expired);
    let mut opened_alerts = Vec::new();
    let mut is_new = false;
    if !opened.is_empty() {
        opened_alerts = opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
        let opening = Opening { opened, known_since: None, expired_episode: None };
        is_new = open_occurrences(step.context, key, &mut rule_state.episode, name, opening).1;
    }
    if renewed || is_new {
        restart(step, name, rule_state, is_new);
    } else if !opened_alerts.is_empty() {
        prolong(step, name, rule_state);
    }
    let ended = rule_state.episode.take_if(|episode| episode.open.is_empty());
    let is_over = ended.is_some();
    if let Some(EpisodeScope::Heartbeat(heartbeat)) = ended.as_ref().map(|episode| &episode.scope) {
        let now = step.context.now;
        step.controls_mut().end_heartbeat(heartbeat, now);
    }
    if is_over {
        rule_state.hold_until = None;
    }
    let is_in_force = update_hold(step, name, key, rule_state, has_expired) || is_heartbeat;
    for (alert, due) in late {
        let outcome = Outcome::blocked(Verdict::Late, Some(due));
        let begins = !is_heartbeat && !was_in_force && is_in_force;
        log.reply(if begins { outcome.and_detail(HOLD_BEGINS) } else { outcome }, vec![alert]);
    }
    if !opened_alerts.is_empty() {
        let begins = if is_heartbeat { is_new } else { !was_in_force && is_in_force };
        let until = rule_state.hold_until.filter(|_| begins);
        let outcome = Outcome::blocked(verdict_of(Verdict::NoAction), until);
        let detail = if is_heartbeat { HEARTBEAT_OPENS } else { HOLD_BEGINS };
        log.reply(if begins { outcome.and_detail(detail) } else { outcome }, opened_alerts);
    }
    if !closed.is_empty() {
        let alerts = closed.into_iter().map(|closed| closed.alert).collect();
        let verdict = verdict_of(if is_over { Verdict::NoAction } else { Verdict::StillOpen });
        let outcome = Outcome::new(verdict);
        let detail = if is_heartbeat { HEARTBEAT_ENDS } else { HOLD_ENDS };
        log.reply(if is_over { outcome.and_detail(detail) } else { outcome }, alerts);
    }
    log.decisions
}

/// A new episode, or an occurrence that was replaced because its resolve was not received. A heartbeat was then lost in
/// between, unless another alert of the heartbeat has been open all the time. A hold continues, or begins anew if its
/// `max_duration` was over.
fn restart(step: &mut StepContext<'_>, rule: &Name, rule_state: &mut RuleState, is_new: bool) {
    let now = step.context.now;
    let Some(episode) = &mut rule_state.episode else { return };
    match &episode.scope {
        EpisodeScope::Heartbeat(heartbeat) => {
            let heartbeat: HeartbeatKey = heartbeat.clone();
            let open_since = step.controls().heartbeat(&heartbeat).open_since;
            let was_lost = |since| episode.open.iter().all(|open| open.starts_at > since);
            if !is_new && open_since.is_some_and(was_lost) {
                step.controls_mut().end_heartbeat(&heartbeat, now);
            }
            step.controls_mut().open_heartbeat(&heartbeat, now);
        }
        EpisodeScope::Hold(_) => {
            if is_new || episode.hold_over {
                prolong(step, rule, rule_state);
            }
        }
        EpisodeScope::Target(_) => {}
    }
}

/// An alert of a hold has opened. `max_duration` counts from now, also if it was over: it ends the hold of an alert that
/// was left firing, and this one was not.
fn prolong(step: &StepContext<'_>, rule: &Name, rule_state: &mut RuleState) {
    let Some(episode) = &mut rule_state.episode else { return };
    if matches!(episode.scope, EpisodeScope::Hold(_)) {
        episode.hold_over = false;
        let max_duration = hold_template(step, rule).and_then(|hold| hold.max_duration);
        rule_state.hold_until = max_duration.map(|max_duration| step.context.now.after(max_duration));
    }
}

fn hold_template<'a>(step: &StepContext<'a>, rule: &Name) -> Option<&'a HoldTemplate> {
    match &step.rule(rule)?.target {
        RuleTarget::Hold(hold) => Some(hold),
        RuleTarget::Target(_) => None,
    }
}

/// Opens or ends the hold of a rule, as its alerts require: it is in force while one of them is open or late, and for
/// decreases also while one fires and cannot be read. Returns whether it is in force.
fn update_hold(
    step: &mut StepContext<'_>,
    rule: &Name,
    key: &TargetKey,
    rule_state: &mut RuleState,
    has_expired: bool,
) -> bool {
    if key.kind() != KeyKind::Hold {
        return false;
    }
    let now = step.context.now;
    remember_allowed(step, rule_state);
    let is_open = rule_state.episode.as_ref().is_some_and(|episode| !episode.hold_over);
    let is_readable = is_open || !rule_state.late.is_empty();
    let is_in_force = is_readable || !rule_state.unreadable.is_empty();
    let (until, is_unreadable) = (rule_state.hold_until, !is_readable);
    let known = step.controls().hold(rule, key);
    let within = if is_readable { None } else { unreadable_within(step, rule_state, known) };
    let is_same =
        known.map(|hold| (hold.is_unreadable, hold.until, &hold.within) == (is_unreadable, until, &within));
    let known = known.map(|hold| (hold.is_unreadable, hold.since));
    match (known, is_in_force) {
        (Some(_), true) if is_same == Some(true) => {}
        (None, false) => {}
        (Some(_), false) => {
            step.controls_mut().end_hold(rule, key, has_expired.then_some(now));
        }
        (_, true) => {
            let covers = key.fields().unwrap_or_default();
            let goes_on = known.filter(|(known, _)| *known == is_unreadable);
            let since = goes_on.map_or(now, |(_, since)| since);
            step.controls_mut().open_hold(rule, key, Hold { covers, since, is_unreadable, within, until });
        }
    }
    is_in_force
}

/// Keeps with each unreadable alert of a hold what its source allows, for the time after the source was removed.
fn remember_allowed(step: &StepContext<'_>, rule_state: &mut RuleState) {
    for firing in rule_state.unreadable.iter_mut() {
        if let Some(source) = step.context.sources.get(&firing.alert.source) {
            firing.within.clone_from(&source.permissions.targets);
        }
    }
}

/// The targets that the sources of the unreadable alerts of a hold allow; `None` if one of them allows all. If a source
/// was removed and is not known to have allowed less than all, its alerts cover what the hold did: the hold never covers
/// more because of the removal.
fn unreadable_within(
    step: &StepContext<'_>,
    rule_state: &RuleState,
    known: Option<&Hold>,
) -> Option<Vec<TargetPattern>> {
    let mut within = Vec::new();
    for firing in rule_state.unreadable.iter() {
        let is_removed = !step.context.sources.contains_key(&firing.alert.source);
        let allowed = match (&firing.within, known) {
            (Some(allowed), _) => allowed.as_slice(),
            (None, _) if !is_removed => return None,
            (None, Some(hold)) if hold.is_unreadable => hold.within.as_deref()?,
            (None, _) => &[],
        };
        within.extend(allowed.iter().cloned());
    }
    within.sort();
    within.dedup();
    Some(within)
}

/// Ends a hold whose rule no longer exists, whose `max_duration` is over, or whose unreadable alerts have expired.
fn end_if_over(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
) -> Vec<Decision> {
    let now = step.context.now;
    let mut log = DecisionLog::new(Some(name), key);
    let rule_state = state.rules.get_or_default(name);
    let alerts = |episode: &Episode| episode.open.iter().map(|open| open.alert.clone()).collect::<Vec<_>>();
    if hold_template(step, name).is_none() && !step.is_kept(name) {
        let alerts = rule_state.episode.as_deref().map(alerts).unwrap_or_default();
        *rule_state = RuleState::default();
        log.record_if_any(Outcome::with_detail(Verdict::Withdrawn, RULE_REMOVED), alerts);
        step.controls_mut().end_hold(name, key, None);
        return log.decisions;
    }
    let mut has_expired = !rule_state.unreadable.extract_if(|known| known.expires_at <= now).is_empty();
    if rule_state.hold_until.take_if(|until| *until <= now).is_some()
        && let Some(episode) = &mut rule_state.episode
    {
        episode.hold_over = true;
        has_expired = true;
        log.record_if_any(Outcome::with_detail(Verdict::Expired, HOLD_OVER), alerts(episode));
    }
    update_hold(step, name, key, rule_state, has_expired);
    log.decisions
}

/// A heartbeat is not open while no sender vouches for any of its alerts. The time in which nothing could be received does
/// not count, as with `heartbeat_timeout`.
fn update_silence(step: &mut StepContext<'_>, key: &TargetKey, rule_state: &mut RuleState) -> Vec<Decision> {
    let clock = step.context.clock();
    let Some(episode) = &mut rule_state.episode else { return Vec::new() };
    let EpisodeScope::Heartbeat(heartbeat) = episode.scope.clone() else { return Vec::new() };
    for open in episode.open.iter_mut().filter(|open| open.is_absent(clock.now)) {
        let gaps = step.controls().reception_gaps(&open.alert.source);
        let (Some(gaps), Some(validity)) = (gaps, &mut open.validity) else { continue };
        let missed = gaps.last.until.since(gaps.last.from.max(open.heard_at));
        validity.absent_at = validity.absent_at.max(clock.on_store(validity.until).after(missed));
    }
    let is_silent = episode.is_absent(clock.now);
    if is_silent == episode.is_silent {
        return Vec::new();
    }
    episode.is_silent = is_silent;
    let detail = if is_silent {
        step.controls_mut().end_heartbeat(&heartbeat, clock.now);
        HEARTBEAT_ABSENT
    } else {
        step.controls_mut().open_heartbeat(&heartbeat, clock.now);
        HEARTBEAT_BACK
    };
    let mut log = DecisionLog::new(None, key);
    let alerts = episode.open.iter().map(|open| open.alert.clone()).collect();
    log.record(Outcome::with_detail(Verdict::Heartbeat, detail), alerts);
    log.decisions
}

/// `heartbeat_timeout` does not count the time in which no notification of the source could be received.
pub(super) fn extend_by_gaps(step: &StepContext<'_>, rule_state: &mut RuleState) {
    let now = step.context.now;
    let Some(episode) = &mut rule_state.episode else { return };
    let due: Vec<AlertKey> =
        episode.open.iter().filter(|open| open.expires_at <= now).map(|open| open.alert.clone()).collect();
    for alert in due {
        let Some((source, heartbeat)) = step.with_heartbeat([&alert.source]).next() else { continue };
        let Some(gaps) = step.controls().reception_gaps(&alert.source) else { continue };
        let (Some(timeout), Some(open)) = (heartbeat.timeout, episode.open.get_mut(&alert)) else { continue };
        let missed = gaps.last.until.since(gaps.last.from.max(open.heard_at));
        let extended = open.heard_at.after(timeout.min(source.occurrence_ttl)).after(missed);
        if extended > now {
            open.expires_at = extended;
        }
    }
}
