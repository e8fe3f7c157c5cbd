//! Executes requested and deferred actions in their order: increases first, then what was requested first, then the
//! order of the rule table.

use std::collections::BTreeSet;

use super::act::{self, Unblocked};
use super::guard::{self, ActionRequest};
use super::outcome::{DecisionLog, Outcome, requested_action};
use super::owed;
use super::step::StepContext;
use super::visible_state::VisibleState;
use crate::domain::alert_key::AlertKey;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::{Change, Mode, Repeat, Rule};
use crate::domain::state::{Deferred, DestinationWait, Episode, RuleState, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

pub(super) const RULE_REMOVED: &str = "the rule no longer exists, or no longer sends events";
/// A late firing whose alert fires anew for another target, or no longer is this heartbeat.
pub(super) const OUTDATED: &str = "a later firing of the alert is not about this target";
/// The growth ended before the guards let the action pass.
pub(super) const NO_LONGER_GROWN: &str = "the episode shrank while the action was deferred";
const NOTHING_OWED: &str = "nothing is owed any more";

/// The alerts of the notification that an action answers, by rule and phase. Such an action is new.
#[derive(Default)]
pub(super) struct Replies(Vec<(Name, Phase, Vec<AlertKey>)>);

impl Replies {
    pub(super) fn add(&mut self, rule: &Name, phase: Phase, alerts: Vec<AlertKey>) {
        self.0.push((rule.clone(), phase, alerts));
    }

    fn contains(&self, rule: &Name, phase: Phase) -> bool {
        self.0.iter().any(|(name, known, _)| name == rule && *known == phase)
    }

    fn take(&mut self, rule: &Name, phase: Phase) -> Option<Vec<AlertKey>> {
        let at = self.0.iter().position(|(name, known, _)| name == rule && *known == phase)?;
        Some(self.0.swap_remove(at).2)
    }
}

/// Which actions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Those that do not decrease capacity.
    Increases,
    Decreases,
}

/// The target on which rules act, with their state.
pub(super) struct Acting<'a> {
    pub key: &'a TargetKey,
    pub own: &'a mut TargetState,
    /// The state of the active rules, for a rule in `mode: shadow`.
    pub active: Option<&'a TargetState>,
}

impl Acting<'_> {
    pub(super) fn visible(&self) -> VisibleState<'_> {
        VisibleState { own: self.own, active: self.active }
    }
}

/// Executes the actions of a pass that are new or ready. Each is emitted, withdrawn if it is not justified any more, or
/// deferred (again).
pub(super) fn execute(
    step: &mut StepContext<'_>,
    acting: &mut Acting<'_>,
    replies: &mut Replies,
    pass: Pass,
) -> Vec<Decision> {
    let mut executed: BTreeSet<Name> = BTreeSet::new();
    let mut decisions = Vec::new();
    // One at a time and each once: the outcome of one can unblock another.
    while let Some((name, phase)) = next(step, acting, replies, pass, &executed) {
        decisions.extend(execute_one(step, acting, replies, &name, phase));
        executed.insert(name);
    }
    decisions
}

/// The next action to execute.
fn next(
    step: &StepContext<'_>,
    acting: &Acting<'_>,
    replies: &Replies,
    pass: Pass,
    executed: &BTreeSet<Name>,
) -> Option<(Name, Phase)> {
    // What was requested first, then the order of the rule table.
    type Order = (Time, Option<usize>);
    let mut first: Option<(Order, &Name, Phase)> = None;
    for (name, rule_state) in acting.own.rules.iter().filter(|(name, _)| !executed.contains(*name)) {
        let Some((phase, episode, deferred)) = pending(rule_state) else { continue };
        if step.is_kept(name) {
            continue;
        }
        let rule = step.rule(name);
        let change = rule.and_then(|rule| requested_action(rule, phase)).map(|action| &action.change);
        let decreases = change.map_or(deferred.decreases, Change::decreases_capacity);
        let is_ready = || match rule.zip(rule.and_then(|rule| requested_action(rule, phase))) {
            // It is withdrawn.
            None => true,
            Some((rule, action)) => {
                let visible = acting.visible();
                let request =
                    ActionRequest { key: acting.key, visible, rule, phase, action, episode, deferred };
                guard::is_ready(step, &request)
            }
        };
        // Nothing can block it any more: it is withdrawn.
        let is_paid = || decreases && phase == Phase::Resolved && !owed::owes(acting.own, name);
        let is_next = || replies.contains(name, phase) || is_paid() || is_ready();
        if decreases != (pass == Pass::Decreases) || !is_next() {
            continue;
        }
        let order = (deferred.requested_at, step.context.rules.row(name));
        if first.as_ref().is_none_or(|(known, ..)| order < *known) {
            first = Some((order, name, phase));
        }
    }
    first.map(|(_, name, phase)| (name.clone(), phase))
}

/// The deferred action of a rule with its episode.
pub(super) fn pending(rule_state: &RuleState) -> Option<(Phase, &Episode, &Deferred)> {
    if let Some(episode) = rule_state.episode.as_deref()
        && let Some(deferred) = &episode.deferred
    {
        return Some((Phase::Firing, episode, deferred));
    }
    let closed = rule_state.closed.as_deref()?;
    Some((Phase::Resolved, &closed.episode, closed.deferred.as_ref()?))
}

fn execute_one(
    step: &mut StepContext<'_>,
    acting: &mut Acting<'_>,
    replies: &mut Replies,
    name: &Name,
    phase: Phase,
) -> Vec<Decision> {
    let rule_state = acting.own.rules.get_or_default(name);
    let Some(mut deferred) = rule_state.take_deferred(phase) else { return Vec::new() };
    let Some(episode) = rule_state.last_episode() else { return Vec::new() };
    let episode_id = episode.id.clone();
    let reply = replies.take(name, phase);
    // A repetition is about all alerts that are open now.
    if deferred.is_repeat {
        deferred.alerts = episode.open.iter().map(|open| open.alert.clone()).collect();
    }
    let rule = step.rule(name);
    let outcome = outcome_of(step, acting, rule, phase, &deferred, reply.is_some());
    let outcome = outcome.for_episode_with_id(phase, episode_id, rule);
    let after = acting.own.rules.get(name).and_then(RuleState::deferred);
    if after.and_then(Deferred::slot) != deferred.slot() {
        step.release_slot(&deferred);
    }
    let mut log = DecisionLog::new(Some(name), acting.key);
    match reply {
        Some(alerts) => log.reply(outcome, alerts),
        // An unchanged block is not recorded again.
        None if outcome.is_unchanged_from(&deferred) => {}
        None => log.record(outcome, deferred.alerts),
    }
    log.decisions
}

/// Executes an action that has been removed from the state.
fn outcome_of(
    step: &mut StepContext<'_>,
    acting: &mut Acting<'_>,
    rule: Option<&Rule>,
    phase: Phase,
    deferred: &Deferred,
    is_new: bool,
) -> Outcome {
    let action = rule.and_then(|rule| Some((rule, requested_action(rule, phase)?)));
    let Some((rule, action)) = action else {
        return Outcome::with_detail(Verdict::Withdrawn, RULE_REMOVED);
    };
    let episode = acting.own.rules.get(&rule.name).and_then(RuleState::last_episode);
    let Some(episode) = episode else {
        return Outcome::with_detail(Verdict::Withdrawn, act::NO_EPISODE);
    };
    if let Some(outcome) = not_justified(acting, rule, phase, episode, deferred, is_new) {
        let is_decrease = phase == Phase::Resolved && action.change.decreases_capacity();
        if is_decrease && !owed::owes(acting.own, &rule.name) {
            owed::set_aside(acting.own, &rule.name, deferred.clone());
        }
        return outcome;
    }
    let visible = acting.visible();
    let request = ActionRequest { key: acting.key, visible, rule, phase, action, episode, deferred };
    if let Some(blocked) = guard::blocked(step, &request) {
        let is_over = |wait: DestinationWait| wait.until <= step.context.now;
        let again = Deferred {
            wait: deferred.wait.map(|wait| DestinationWait { is_over: is_over(wait), ..wait }),
            recheck_at: blocked.recheck_at,
            limited_direction: blocked.limited_direction,
            blocked_by: Some(blocked.verdict),
            decreases: action.change.decreases_capacity(),
            ..deferred.clone()
        };
        acting.own.rules.get_or_default(&rule.name).defer(phase, again);
        return blocked.into_outcome();
    }
    let unblocked = Unblocked { key: acting.key, rule, phase, action, request: deferred };
    act::emit(step, acting.own, unblocked)
}

/// Why an action is not justified (any more); `None` if it is.
fn not_justified(
    acting: &Acting<'_>,
    rule: &Rule,
    phase: Phase,
    episode: &Episode,
    deferred: &Deferred,
    is_new: bool,
) -> Option<Outcome> {
    let is_of_part = (rule.mode == Mode::Shadow) == acting.active.is_some();
    if !is_of_part {
        return Some(Outcome::with_detail(Verdict::Withdrawn, RULE_REMOVED));
    }
    if rule.mode == Mode::Disabled {
        return Some(Outcome::new(Verdict::Disabled));
    }
    let action = requested_action(rule, phase)?;
    if action.change.decreases_capacity()
        && let Some(detail) = missing_evidence(episode)
    {
        return Some(Outcome::with_detail(Verdict::NoEvidence, detail));
    }
    match phase {
        Phase::Firing if deferred.is_repeat => {
            let repeat = rule.on_firing.as_ref().map(|firing| firing.repeat);
            let has_more = matches!(repeat, Some(Repeat::WhileFiring { max_emissions })
                if episode.emissions < max_emissions.get());
            (!has_more)
                .then(|| Outcome::with_detail(Verdict::Withdrawn, "the rule no longer repeats the action"))
        }
        Phase::Firing => {
            let is_justified = deferred.is_retry || has_need(episode);
            (!is_justified).then(|| Outcome::with_detail(Verdict::Withdrawn, NO_LONGER_GROWN))
        }
        Phase::Resolved if action.change.decreases_capacity() => {
            let owes = owed::owes(acting.own, &rule.name);
            let verdict = if is_new { Verdict::NoEvidence } else { Verdict::Withdrawn };
            (!owes).then(|| Outcome::with_detail(verdict, NOTHING_OWED))
        }
        Phase::Resolved => None,
    }
}

/// Whether an episode needs an emission: it has grown since the last one, or nothing of it is delivered or being tried.
pub(super) fn has_need(episode: &Episode) -> bool {
    episode.has_grown() || episode.undelivered_emissions >= episode.emissions
}

/// Why an episode cannot decrease capacity.
pub(super) fn missing_evidence(episode: &Episode) -> Option<&'static str> {
    if episode.adopted {
        Some(
            "an alert of the episode started before this store was created, or before the target's state was dropped",
        )
    } else if episode.expired {
        Some("an alert of the episode has expired")
    } else {
        None
    }
}
