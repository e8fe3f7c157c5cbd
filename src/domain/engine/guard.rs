//! The guards: what may stop an action, one after the other. The first that does names the verdict.

use super::act::{ActionAttempt, Outcome, change_of};
use super::step::StepContext;
use super::{Context, Policy};
use crate::domain::direction::Direction;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rate::Slot;
use crate::domain::rule::{Action, Change, Mode, Rule, RuleTarget};
use crate::domain::state::{Deferred, Episode, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

/// What stops an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocked {
    pub verdict: Verdict,
    /// When it is looked at again, where that is known; else the end of what stands in its way is waited
    /// for.
    pub recheck_at: Option<Time>,
    /// The direction that has no room, where a limit of the process stops it.
    pub limited_direction: Option<Direction>,
    pub detail: Option<String>,
}

impl Blocked {
    /// Until what stands in the way has ended.
    fn from_verdict(verdict: Verdict) -> Self {
        Self { verdict, recheck_at: None, limited_direction: None, detail: None }
    }

    fn until(verdict: Verdict, recheck_at: Time) -> Self {
        Self { recheck_at: Some(recheck_at), ..Self::from_verdict(verdict) }
    }

    pub(super) fn into_outcome(self) -> Outcome {
        let Self { verdict, recheck_at, detail, .. } = self;
        match detail {
            Some(detail) => Outcome::blocked_with_detail(verdict, recheck_at, detail),
            None => Outcome::blocked(verdict, recheck_at),
        }
    }
}

impl ActionAttempt<'_, '_> {
    /// The first guard that stops the action.
    pub(super) fn blocked_by_guard(
        &mut self,
        action: &Action,
        episode: &Episode,
        since: Time,
        slot: Option<Slot>,
    ) -> Option<Blocked> {
        let (rule, now) = (self.rule, self.step.context.now);
        let change = &action.change;
        if let Some(blocked) =
            external_block(self.step, rule, self.key, change, episode, self.outranked.as_ref())
        {
            return Some(blocked);
        }
        let stable_at = stable_since(self.step, change, episode, since).after(action.stabilization_window);
        if stable_at > now {
            return Some(Blocked::until(Verdict::Stabilizing, stable_at));
        }
        if let Some(until) = self.emission_state.cooldowns.blocked_until(change, now) {
            return Some(Blocked::until(Verdict::CoolingDown, until));
        }
        self.blocked_by_budget().or_else(|| self.blocked_by_rate_limit(change, slot))
    }

    fn blocked_by_budget(&self) -> Option<Blocked> {
        let now = self.step.context.now;
        let events = self.rule.budget?.events.get() as usize;
        let mut budget_expiries: Vec<Time> =
            self.emission_state.budget_expiries.iter().copied().filter(|free| *free > now).collect();
        budget_expiries.sort_unstable();
        let free = budget_expiries.len().checked_sub(events).map(|at| budget_expiries[at])?;
        let detail = Some("the rule's budget on this target is spent".to_owned());
        Some(Blocked { detail, ..Blocked::until(Verdict::OverBudget, free) })
    }

    /// The process's own limits, which are for what is sent.
    fn blocked_by_rate_limit(&mut self, change: &Change, slot: Option<Slot>) -> Option<Blocked> {
        if self.rule.mode != Mode::Active {
            return None;
        }
        let Context { now, policy: Policy { per_minute, .. }, .. } = *self.step.context;
        let Slot { direction, at } = self.step.rates.reserve_if_limited(per_minute, change, now, slot)?;
        let detail = Some(format!("this process has reached engine.{direction}_per_minute"));
        Some(Blocked {
            detail,
            limited_direction: Some(direction),
            ..Blocked::until(Verdict::OverBudget, at)
        })
    }
}

/// The guards whose end another thing decides: a pause, a hold or a heartbeat, another rule's episode.
fn external_block(
    step: &StepContext<'_>,
    rule: &Rule,
    key: &TargetKey,
    change: &Change,
    episode: &Episode,
    outranked: Option<&Name>,
) -> Option<Blocked> {
    blocked_by_pause(step, rule, key, change).or_else(|| blocked_by_hold(step, change, episode)).or_else(
        || {
            let by = outranked.filter(|_| change.decreases_capacity())?;
            let detail = Some(format!("rule {by} has an episode open on the target that adds capacity"));
            Some(Blocked { detail, ..Blocked::from_verdict(Verdict::Outranked) })
        },
    )
}

fn blocked_by_pause(
    step: &StepContext<'_>,
    rule: &Rule,
    key: &TargetKey,
    change: &Change,
) -> Option<Blocked> {
    let now = step.context.now;
    let mut covering = step.controls().pauses(now).filter(|pause| pause.covers(&rule.name, key, change, now));
    let first = covering.next()?;
    // It is free when the last of them is over.
    let recheck_at = covering.map(|pause| pause.until).fold(first.until, |a, b| Some(a?.max(b?)));
    let detail = Some(format!("pause {} by {}: {}", first.id, first.author, first.reason));
    Some(Blocked { recheck_at, detail, ..Blocked::from_verdict(Verdict::Paused) })
}

fn blocked_by_hold(step: &StepContext<'_>, change: &Change, episode: &Episode) -> Option<Blocked> {
    let target = episode.scope.target()?;
    let mut holding = step.controls().rules_holding(target);
    let by_rule =
        holding.find(|rule| is_blocking_hold(step, rule, change)).map(|by| format!("held by rule {by}"));
    let by_source = || {
        let is_open = |source: &&Name| step.controls().heartbeat(source).open_since.is_some();
        let silent = step.with_heartbeat(&episode.sources).find(|source| !is_open(source))?;
        change.decreases_capacity().then(|| format!("the heartbeat of source {silent} is not open"))
    };
    let detail = by_rule.or_else(by_source)?;
    Some(Blocked { detail: Some(detail), ..Blocked::from_verdict(Verdict::Held) })
}

/// Whether a rule, as it is now, stops a change where it holds.
fn is_blocking_hold(step: &StepContext<'_>, rule: &Name, change: &Change) -> bool {
    let rule = step.rule(rule).filter(|rule| rule.mode == Mode::Active);
    rule.is_some_and(|rule| match &rule.target {
        RuleTarget::Hold(hold) => hold.blocks.iter().any(|direction| change.has_direction(*direction)),
        RuleTarget::Target(_) => false,
    })
}

/// Since when what is asked for has been supported. What takes capacity away needs a calm that was watched:
/// while a heartbeat was not open nobody would have told of anything else.
fn stable_since(step: &StepContext<'_>, change: &Change, episode: &Episode, since: Time) -> Time {
    let watched = |source: &Name| step.controls().heartbeat(source).open_since;
    let sources = step.with_heartbeat(&episode.sources).filter(|_| change.decreases_capacity());
    sources.filter_map(watched).fold(since, Time::max)
}

/// Another active rule that has an episode open on the target that added capacity, or is about to.
/// `fires` tells the rule's `on_firing` from its `on_resolved`: of two that wait to set a capacity
/// neither stops the other, or both would wait for ever.
pub(super) fn outranked_by(
    step: &StepContext<'_>,
    state: &TargetState,
    own: &Name,
    fires: bool,
) -> Option<Name> {
    let own_rule = step.rule(own).filter(|_| fires);
    let adds_too =
        own_rule.and_then(|rule| change_of(rule, Phase::Firing)).is_some_and(Change::increases_capacity);
    let others = state.rules.iter().filter(|(name, _)| *name != own);
    let mut outranking = others.filter(|(name, rule_state)| {
        let rule = step.rule(name).filter(|rule| rule.mode == Mode::Active);
        let (Some(change), Some(episode)) =
            (rule.and_then(|rule| change_of(rule, Phase::Firing)), &rule_state.episode)
        else {
            return false;
        };
        // One that closes in this very notification is open no more.
        let is_open = !episode.open.is_empty();
        let waits = episode.deferred.is_some() && !(adds_too && change.decreases_capacity());
        is_open && change.increases_capacity() && (episode.emissions > 0 || waits)
    });
    outranking.next().map(|(name, _)| name.clone())
}

/// Why what is kept for this end of an episode has lost its support by what became of the controls, if it
/// has.
pub(super) fn invalidated_by(
    step: &StepContext<'_>,
    name: &Name,
    phase: Phase,
    episode: &Episode,
    deferred: &Deferred,
) -> Option<String> {
    // Only what takes capacity away has a time at which it is given up.
    deferred.deadline?;
    let broken =
        step.controls().heartbeat_lost_since(step.with_heartbeat(&episode.sources), deferred.requested_at);
    if let Some(source) = broken {
        return Some(format!("the heartbeat of source {source} ended meanwhile"));
    }
    let (target, change) = (episode.scope.target()?, change_of(step.rule(name)?, phase)?);
    let mut expired_holds = step.controls().rules_with_expired_hold(target, deferred.requested_at);
    let hold = expired_holds.find(|rule| is_blocking_hold(step, rule, change))?;
    Some(format!("the hold of rule {hold} was not heard of any more"))
}

/// Whether what is kept has to be looked at now: its time has come, or what stood in its way is not what it
/// was.
pub(super) fn is_ready_to_recheck(
    step: &StepContext<'_>,
    key: &TargetKey,
    state: &TargetState,
    name: &Name,
) -> bool {
    let Some(rule_state) = state.rules.get(name) else { return false };
    let (phase, episode) = match (&rule_state.episode, &rule_state.pending_close) {
        (Some(episode), _) => (Phase::Firing, episode),
        (None, Some(closing)) => (Phase::Resolved, &closing.episode),
        (None, None) => return false,
    };
    let Some(deferred) = rule_state.deferred() else { return false };
    if deferred.is_due(step.context.now) || invalidated_by(step, name, phase, episode, deferred).is_some() {
        return true;
    }
    if !matches!(deferred.blocked_by, Some(Verdict::Paused | Verdict::Held | Verdict::Outranked)) {
        return false;
    }
    let rule = step.rule(name).filter(|rule| rule.mode != Mode::Disabled);
    let Some((rule, change)) = rule.and_then(|rule| Some((rule, change_of(rule, phase)?))) else {
        return true;
    };
    let outranked = outranked_by(step, state, name, phase == Phase::Firing);
    let blocked = external_block(step, rule, key, change, episode, outranked.as_ref());
    blocked.is_none_or(|blocked| {
        Some(blocked.verdict) != deferred.blocked_by || blocked.recheck_at != deferred.recheck_at
    })
}
