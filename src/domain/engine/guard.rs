//! The guards: conditions that can block an action. They are evaluated in a fixed order; the first that
//! blocks names the verdict.

use super::attempt::{ActionAttempt, requested_change};
use super::outcome::Outcome;
use super::step::StepContext;
use crate::domain::direction::Direction;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rate::Slot;
use crate::domain::rule::{Action, Change, Mode, Rule, RuleTarget};
use crate::domain::state::{Deferred, Episode, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

/// The guard that blocks an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocked {
    pub verdict: Verdict,
    /// When the action is rechecked; `None` if the end of the blocker is unknown.
    pub recheck_at: Option<Time>,
    /// The exhausted direction, if a rate limit blocks the action.
    pub limited_direction: Option<Direction>,
    pub detail: Option<String>,
}

impl Blocked {
    /// Blocked until the blocker is gone.
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
    /// Evaluates the guards in order and returns the first that blocks the action.
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
        let detail = Some("the rule's budget for this target is used up".to_owned());
        Some(Blocked { detail, ..Blocked::until(Verdict::OverBudget, free) })
    }

    /// The rate limits of the process. They count emitted events, so they do not apply to shadow rules.
    fn blocked_by_rate_limit(&mut self, change: &Change, slot: Option<Slot>) -> Option<Blocked> {
        if self.rule.mode != Mode::Active {
            return None;
        }
        let Slot { direction, at } = self.step.rates.reserve_if_limited(change, slot)?;
        let detail = Some(format!("this process has reached engine.{direction}_per_minute"));
        Some(Blocked {
            detail,
            limited_direction: Some(direction),
            ..Blocked::until(Verdict::OverBudget, at)
        })
    }
}

/// The guards that depend on other state than the rule's own: pauses, holds, heartbeats, episodes of other
/// rules.
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
            let detail = Some(format!("rule {by} has an open episode on the target that increases capacity"));
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
    // The action is unblocked when the last of the pauses ends.
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

/// Whether the current version of a rule is an active hold that blocks the change.
fn is_blocking_hold(step: &StepContext<'_>, rule: &Name, change: &Change) -> bool {
    let rule = step.rule(rule).filter(|rule| rule.mode == Mode::Active);
    rule.is_some_and(|rule| match &rule.target {
        RuleTarget::Hold(hold) => hold.blocks.iter().any(|direction| change.has_direction(*direction)),
        RuleTarget::Target(_) => false,
    })
}

/// Since when the request has been stable. For a decrease, the window restarts when a heartbeat opens:
/// without a heartbeat, other alerts could not have been received.
fn stable_since(step: &StepContext<'_>, change: &Change, episode: &Episode, since: Time) -> Time {
    let open_since = |source: &Name| step.controls().heartbeat(source).open_since;
    let sources = step.with_heartbeat(&episode.sources).filter(|_| change.decreases_capacity());
    sources.filter_map(open_since).fold(since, Time::max)
}

/// Another active rule with an open episode on the target that has increased capacity, or is about to.
/// `is_firing` is true for the `on_firing` action of the rule and false for `on_resolved`. Two rules that
/// both wait to set a capacity do not block each other, which would be a deadlock.
pub(super) fn outranked_by(
    step: &StepContext<'_>,
    state: &TargetState,
    own: &Name,
    is_firing: bool,
) -> Option<Name> {
    let own_rule = step.rule(own).filter(|_| is_firing);
    let also_increases = own_rule
        .and_then(|rule| requested_change(rule, Phase::Firing))
        .is_some_and(Change::increases_capacity);
    let others = state.rules.iter().filter(|(name, _)| *name != own);
    let mut outranking = others.filter(|(name, rule_state)| {
        let rule = step.rule(name).filter(|rule| rule.mode == Mode::Active);
        let (Some(change), Some(episode)) =
            (rule.and_then(|rule| requested_change(rule, Phase::Firing)), &rule_state.episode)
        else {
            return false;
        };
        // An episode that closes in this step is not open any more.
        let is_open = !episode.open.is_empty();
        let is_deferred = episode.deferred.is_some() && !(also_increases && change.decreases_capacity());
        is_open && change.increases_capacity() && (episode.emissions > 0 || is_deferred)
    });
    outranking.next().map(|(name, _)| name.clone())
}

/// Why a deferred action is not justified any more because of a change of the controls; `None` if it still is.
pub(super) fn invalidated_by(
    step: &StepContext<'_>,
    name: &Name,
    phase: Phase,
    episode: &Episode,
    deferred: &Deferred,
) -> Option<String> {
    // Only decreases have a deadline.
    deferred.deadline?;
    let lost =
        step.controls().heartbeat_lost_since(step.with_heartbeat(&episode.sources), deferred.requested_at);
    if let Some(source) = lost {
        return Some(format!("the heartbeat of source {source} was lost while the action was deferred"));
    }
    let (target, change) = (episode.scope.target()?, requested_change(step.rule(name)?, phase)?);
    let mut expired_holds = step.controls().rules_with_expired_hold(target, deferred.requested_at);
    let hold = expired_holds.find(|rule| is_blocking_hold(step, rule, change))?;
    Some(format!("the hold of rule {hold} has expired"))
}

/// Whether the deferred action of a rule has to be rechecked now: it is due, or its blocker has changed.
pub(super) fn is_ready_to_recheck(
    step: &StepContext<'_>,
    key: &TargetKey,
    state: &TargetState,
    name: &Name,
) -> bool {
    let Some(rule_state) = state.rules.get(name) else { return false };
    let (phase, episode) = match (&rule_state.episode, &rule_state.pending_close) {
        (Some(episode), _) => (Phase::Firing, episode),
        (None, Some(pending_close)) => (Phase::Resolved, &pending_close.episode),
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
    let Some((rule, change)) = rule.and_then(|rule| Some((rule, requested_change(rule, phase)?))) else {
        return true;
    };
    let outranked = outranked_by(step, state, name, phase == Phase::Firing);
    let blocked = external_block(step, rule, key, change, episode, outranked.as_ref());
    blocked.is_none_or(|blocked| {
        Some(blocked.verdict) != deferred.blocked_by || blocked.recheck_at != deferred.recheck_at
    })
}
