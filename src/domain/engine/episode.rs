//! Episodes: updates a rule's episode at a target with the changes of a step, and executes its actions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attempt::{ActionAttempt, ActionRequest, EmissionState};
use super::delta::{Opened, RuleDelta};
use super::guard::outranked_by;
use super::outcome::{DecisionLog, Outcome};
use super::step::StepContext;
use super::{Context, emit};
use crate::domain::alert_key::AlertKey;
use crate::domain::alert_map::AlertMap;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::Mode;
use crate::domain::state::{
    EmissionStats, Episode, ExpiredEpisode, Occurrence, PendingClose, RuleState, Shadow, TargetState,
};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

/// Updates the episode with the changes of a step, executes its actions, and returns the decisions.
pub(super) fn evaluate_episode(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    delta: RuleDelta,
) -> Vec<Decision> {
    let Context { now, policy, .. } = *step.context;
    let rule = step.rule(name);
    let mode = rule.map_or(Mode::Active, |rule| rule.mode);
    let outranked = outranked_by(step, state, name, !delta.opened.is_empty());
    let mut log = DecisionLog::new(Some(name), key);
    let TargetState { sequence, rules, cooldowns, known_since, .. } = state;
    let rule_state = rules.get_or_default(name);
    let RuleState { budget_expiries, shadow, pending_close, expired_episode, .. } = rule_state;
    let mut episode = rule_state.episode.take();
    let RuleDelta { opened, closed, expired, late, unchanged, outdated, trigger, truncated, .. } = delta;
    let ended_now = closed.len() + expired.len();
    let most_open = episode.as_ref().map_or(0, |it| it.emission_stats(mode).most_open as usize);
    let had_grown = episode.as_ref().is_some_and(|it| it.open.len() + ended_now > most_open);

    if let Some(episode) = episode.as_mut().filter(|_| !expired.is_empty()) {
        episode.expired = true;
    }
    log_without_action(&mut log, unchanged, late, outdated, expired);
    let mut attempt = match (rule, trigger) {
        (Some(rule), Some(trigger)) => {
            let emission_state =
                EmissionState::for_mode(mode, EmissionState { sequence, cooldowns, budget_expiries }, shadow);
            Some(ActionAttempt { step: &mut *step, key, rule, trigger, truncated, outranked, emission_state })
        }
        _ => None,
    };
    let opened = Opening { opened, known_since: *known_since, expired_episode: expired_episode.as_deref() };
    act_on_opened(attempt.as_mut(), &mut episode, opened, had_grown, &mut log);
    let is_over = episode.as_ref().is_some_and(|episode| episode.open.is_empty());
    if let Some(Episode { id, .. }) = episode.as_deref().filter(|episode| is_over && episode.expired) {
        let until = now.after(policy.expired_episode_retention);
        *expired_episode = Some(Box::new(ExpiredEpisode { episode: id.clone(), until }));
    }
    let dropped = episode.as_mut().filter(|_| is_over).and_then(|episode| episode.deferred.take());
    if let (Some(deferred), Some(episode)) = (&dropped, &episode) {
        let outcome = Outcome::with_detail(Verdict::Withdrawn, "the episode has closed");
        log.record_if_any(outcome.for_episode(Phase::Firing, episode, rule), deferred.alerts.clone());
    }
    if !closed.is_empty() {
        act_on_closed(attempt.as_mut(), episode.take_if(|_| is_over), closed, pending_close, &mut log);
    }
    let mut decisions = log.decisions;
    if let Some(deferred) = dropped {
        step.release_slot(&deferred);
    }
    rule_state.episode = episode.filter(|_| !is_over);
    remove_if_empty(state, name);
    decisions.extend(supersede(step, key, &decisions));
    decisions
}

/// Records the changes that lead to no action.
fn log_without_action(
    log: &mut DecisionLog<'_>,
    unchanged: Vec<(AlertKey, Verdict)>,
    late: Vec<(AlertKey, Time)>,
    outdated: Vec<AlertKey>,
    expired: Vec<AlertKey>,
) {
    for (alert, verdict) in unchanged {
        log.reply(Outcome::new(verdict), vec![alert]);
    }
    for (alert, opens_at) in late {
        log.reply(Outcome::blocked(Verdict::Late, Some(opens_at)), vec![alert]);
    }
    log.record_if_any(Outcome::new(Verdict::Withdrawn), outdated);
    log.record_if_any(Outcome::new(Verdict::Expired), expired);
}

/// Occurrences that open, and what their target's state knows of the time before them.
pub(super) struct Opening<'a> {
    pub opened: AlertMap<Opened>,
    /// See [`TargetState::known_since`].
    pub known_since: Option<Time>,
    pub expired_episode: Option<&'a ExpiredEpisode>,
}

/// Adds opened occurrences to the episode and executes the `on_firing` action.
fn act_on_opened(
    attempt: Option<&mut ActionAttempt<'_, '_>>,
    episode: &mut Option<Box<Episode>>,
    opening: Opening<'_>,
    had_grown: bool,
    log: &mut DecisionLog<'_>,
) {
    if opening.opened.is_empty() {
        return;
    }
    let alerts: Vec<AlertKey> = opening.opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
    let outcome = match attempt {
        Some(attempt) => {
            let (context, key, rule) = (attempt.step.context, attempt.key, attempt.rule);
            let (episode, is_new) = open_occurrences(context, key, episode, &rule.name, opening);
            let outcome = attempt.on_firing(episode, is_new, had_grown, &alerts, log);
            outcome.for_episode(Phase::Firing, episode, Some(rule))
        }
        None => Outcome::with_detail(Verdict::Withdrawn, RULE_REMOVED),
    };
    log.reply(outcome, alerts);
}

/// Executes the `on_resolved` action if the resolved occurrences `closed` have closed an episode.
fn act_on_closed(
    attempt: Option<&mut ActionAttempt<'_, '_>>,
    episode: Option<Box<Episode>>,
    closed: Vec<Occurrence>,
    pending_close: &mut Option<Box<PendingClose>>,
    log: &mut DecisionLog<'_>,
) {
    let alerts: Vec<AlertKey> = closed.iter().map(|closed| closed.alert.clone()).collect();
    let outcome = match (episode, attempt) {
        (None, _) => Outcome::new(Verdict::StillOpen),
        (Some(episode), Some(attempt)) => {
            let requested_at = attempt.step.context.now;
            let request = ActionRequest { requested_at, slot: None, is_repeat: false, alerts: &alerts };
            let outcome;
            (outcome, *pending_close) = attempt.close_episode(episode, closed, &request);
            outcome
        }
        (Some(_), None) => Outcome::with_detail(Verdict::NoAction, RULE_REMOVED),
    };
    log.reply(outcome, alerts);
}

/// Cancels the undelivered decreases of a target if one of the decisions increases capacity.
pub(super) fn supersede(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    decisions: &[Decision],
) -> Vec<Decision> {
    let increases = decisions
        .iter()
        .filter_map(|decision| decision.event.as_ref())
        .any(|event| event.increases_capacity());
    let cancelled = if increases { step.supersede(key) } else { Vec::new() };
    let superseded = cancelled.into_iter().map(|decrease| {
        let detail = format!("an increase supersedes event {}, which was not delivered yet", decrease.id);
        let mut log = DecisionLog::new(Some(&decrease.rule), key);
        log.record(Outcome::with_detail(Verdict::Superseded, &detail), decrease.alerts.clone());
        log.decisions
    });
    superseded.collect::<Vec<_>>().concat()
}

/// Adds occurrences to the episode, and opens a new one if there is none. Returns the episode and whether it
/// is new.
pub(super) fn open_occurrences<'a>(
    context: &Context<'_>,
    key: &TargetKey,
    episode: &'a mut Option<Box<Episode>>,
    rule: &Name,
    opening: Opening<'_>,
) -> (&'a mut Episode, bool) {
    let Opening { opened, known_since, expired_episode } = opening;
    let created = known_since.map_or(context.created, |since| since.max(context.created));
    let is_new = episode.is_none();
    let id = if is_new { emit::episode_id(rule, key, &opened, expired_episode) } else { Arc::default() };
    for Opened { occurrence, scope, parameters, .. } in opened {
        let episode = episode.get_or_insert_with(|| {
            Box::new(Episode {
                id: id.clone(),
                scope,
                opened_at: context.now,
                open: AlertMap::default(),
                emissions: 0,
                most_open: 0,
                shadowed: EmissionStats::default(),
                sources: Vec::new(),
                adopted: false,
                expired: false,
                deferred: None,
                parameters: BTreeMap::new(),
            })
        });
        episode.adopted |= occurrence.starts_at < context.clock().on_wall(created);
        if let Err(at) = episode.sources.binary_search(&occurrence.alert.source) {
            episode.sources.insert(at, occurrence.alert.source.clone());
        }
        episode.parameters = parameters;
        episode.open.insert(occurrence);
    }
    // `opened` is never empty, so there is an episode now.
    let episode = episode.get_or_insert_with(|| unreachable!("opened is not empty"));
    (episode, is_new)
}

pub(super) const RULE_REMOVED: &str = "the rule no longer exists";

/// Removes the shadow state of a rule if it is empty, and then the rule's state if it is empty.
pub(super) fn remove_if_empty(state: &mut TargetState, name: &Name) {
    let Some(rule_state) = state.rules.get_mut(name) else { return };
    rule_state.shadow.take_if(|shadow| **shadow == Shadow::default());
    if rule_state.is_empty() {
        state.rules.remove(name);
    }
}
