//! Episodes: what a turn made of a rule's episode at a target, and what is done about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::act::{ActionAttempt, ActionRequest, DecisionLog, EmissionState, Outcome};
use super::guard::outranked_by;
use super::step::StepContext;
use super::{Context, emit};
use crate::domain::alert_key::AlertKey;
use crate::domain::alert_map::{AlertMap, HasAlertKey};
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::Mode;
use crate::domain::state::{
    EmissionStats, Episode, ExpiredEpisode, Occurrence, PendingClose, RuleState, Shadow, TargetState,
};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;
use crate::domain::verdict::{Decision, Verdict};

/// What happened to one rule at one target at one moment.
#[derive(Default)]
pub(super) struct RuleDelta {
    /// Occurrences that open now; they are not in the episode yet.
    pub opened: AlertMap<Opened>,
    /// Whether an open occurrence has ended unheard and another of the same alert has taken its place.
    pub renewed: bool,
    /// Occurrences that resolved; they are not in the episode any more.
    pub closed: Vec<Occurrence>,
    /// Occurrences that expired; they are not in the episode any more.
    pub expired: Vec<AlertKey>,
    /// Firings that wait, and until when.
    pub late: Vec<(AlertKey, Time)>,
    /// What changed nothing.
    pub unchanged: Vec<(AlertKey, Verdict)>,
    /// Firings that have lost their meaning.
    pub outdated: Vec<AlertKey>,
    /// The notification behind it; there is one whenever something opened or closed.
    pub trigger: Option<Arc<Trigger>>,
    /// Whether that notification left out alerts.
    pub truncated: bool,
}

/// An occurrence that opens.
pub(super) struct Opened {
    pub occurrence: Occurrence,
    pub scope: EpisodeScope,
    pub parameters: BTreeMap<String, String>,
    pub previous_end: Option<Time>,
}

impl HasAlertKey for Opened {
    fn alert(&self) -> &AlertKey {
        &self.occurrence.alert
    }
}

/// Judges the episode after a turn, acts, and writes down what was decided.
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
    let TargetState { sequence, rules, cooldowns, .. } = state;
    let rule_state = rules.get_or_default(name);
    let RuleState { budget_expiries, shadow, pending_close, expired_episode, .. } = rule_state;
    let mut episode = rule_state.episode.take();
    let RuleDelta { opened, closed, expired, late, unchanged, outdated, trigger, truncated, .. } = delta;
    let left = closed.len() + expired.len();
    let most_open = episode.as_ref().map_or(0, |it| it.emission_stats(mode).most_open as usize);
    let had_grown = episode.as_ref().is_some_and(|it| it.open.len() + left > most_open);

    for (alert, verdict) in unchanged {
        log.reply(Outcome::new(verdict), vec![alert]);
    }
    for (alert, due) in late {
        log.reply(Outcome::blocked(Verdict::Late, Some(due)), vec![alert]);
    }
    log.record_if_any(Outcome::new(Verdict::Withdrawn), outdated);
    if !expired.is_empty() {
        if let Some(episode) = &mut episode {
            episode.expired = true;
        }
        log.record(Outcome::new(Verdict::Expired), expired);
    }
    let mut attempt = match (rule, trigger) {
        (Some(rule), Some(trigger)) => {
            let emission_state =
                EmissionState::for_mode(mode, EmissionState { sequence, cooldowns, budget_expiries }, shadow);
            Some(ActionAttempt { step: &mut *step, key, rule, trigger, truncated, outranked, emission_state })
        }
        _ => None,
    };
    if !opened.is_empty() {
        let alerts: Vec<AlertKey> = opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
        let outcome = match &mut attempt {
            Some(attempt) => {
                let (episode, is_new) =
                    open(attempt.step.context, key, &mut episode, name, opened, expired_episode.as_deref());
                let outcome = attempt.on_firing(episode, is_new, had_grown, &alerts, &mut log);
                outcome.for_episode(Phase::Firing, episode, rule)
            }
            None => Outcome::with_detail(Verdict::Withdrawn, RULE_GONE),
        };
        log.reply(outcome, alerts);
    }
    let is_over = episode.as_ref().is_some_and(|episode| episode.open.is_empty());
    if let Some(Episode { id, .. }) = episode.as_deref().filter(|episode| is_over && episode.expired) {
        let until = now.after(policy.expired_episode_retention);
        *expired_episode = Some(Box::new(ExpiredEpisode { episode: id.clone(), until }));
    }
    let dropped = episode.as_mut().filter(|_| is_over).and_then(|episode| episode.deferred.take());
    if let (Some(deferred), Some(episode)) = (&dropped, &episode) {
        let outcome = Outcome::with_detail(Verdict::Withdrawn, "its episode is over");
        log.record_if_any(outcome.for_episode(Phase::Firing, episode, rule), deferred.alerts.clone());
    }
    if !closed.is_empty() {
        let alerts: Vec<AlertKey> = closed.iter().map(|closed| closed.alert.clone()).collect();
        let outcome = match (episode.take_if(|_| is_over), &mut attempt) {
            (None, _) => Outcome::new(Verdict::StillOpen),
            (Some(episode), Some(attempt)) => {
                let request =
                    ActionRequest { requested_at: now, slot: None, is_repeat: false, alerts: &alerts };
                let (outcome, deferred) = attempt.on_resolved(&episode, &closed, &request);
                let outcome = outcome.for_episode(Phase::Resolved, &episode, rule);
                *pending_close =
                    deferred.map(|deferred| Box::new(PendingClose { episode, closed, deferred }));
                outcome
            }
            (Some(_), None) => Outcome::with_detail(Verdict::NoAction, RULE_GONE),
        };
        log.reply(outcome, alerts);
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

/// What adds capacity cancels what would take it away and was not sent yet.
pub(super) fn supersede(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    decisions: &[Decision],
) -> Vec<Decision> {
    let adds = decisions
        .iter()
        .filter_map(|decision| decision.event.as_ref())
        .any(|event| event.increases_capacity());
    let cancelled = if adds { step.supersede(key) } else { Vec::new() };
    let superseded = cancelled.into_iter().map(|decrease| {
        let why = format!("event {} was not sent yet, and capacity is added now", decrease.id);
        let mut log = DecisionLog::new(Some(&decrease.rule), key);
        log.record(Outcome::with_detail(Verdict::Superseded, &why), decrease.alerts.clone());
        log.decisions
    });
    superseded.collect::<Vec<_>>().concat()
}

/// Puts what opens into the episode, a new one if there is none. Gives the episode and whether it is
/// new.
pub(super) fn open<'a>(
    context: &Context<'_>,
    key: &TargetKey,
    episode: &'a mut Option<Box<Episode>>,
    rule: &Name,
    opened: AlertMap<Opened>,
    expired_episode: Option<&ExpiredEpisode>,
) -> (&'a mut Episode, bool) {
    let is_new = episode.is_none();
    let id = if is_new { emit::episode_id(rule, key, &opened, expired_episode) } else { Arc::default() };
    for Opened { occurrence, scope: target, parameters, .. } in opened {
        let episode = episode.get_or_insert_with(|| {
            Box::new(Episode {
                id: id.clone(),
                scope: target,
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
        episode.adopted |= occurrence.starts_at < context.created;
        if let Err(at) = episode.sources.binary_search(&occurrence.alert.source) {
            episode.sources.insert(at, occurrence.alert.source.clone());
        }
        episode.parameters = parameters;
        episode.open.insert(occurrence);
    }
    // `opened` is never empty here, so there is an episode now.
    let episode = episode.get_or_insert_with(|| unreachable!("something opened"));
    (episode, is_new)
}

pub(super) const RULE_GONE: &str = "the rule is gone";

/// Forgets what a rule has here and is empty.
pub(super) fn remove_if_empty(state: &mut TargetState, name: &Name) {
    let Some(rule_state) = state.rules.get_mut(name) else { return };
    rule_state.shadow.take_if(|shadow| **shadow == Shadow::default());
    if rule_state.is_empty() {
        state.rules.remove(name);
    }
}
