//! The guards: conditions that can block an action. They are evaluated in a fixed order; the first that
//! blocks names the verdict.

use super::calm;
use super::outcome::Outcome;
use super::step::StepContext;
use super::visible_state::VisibleState;
use crate::domain::blocker::Blocker;
use crate::domain::control::{Hold, Pause};
use crate::domain::direction::Direction;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rate::Slot;
use crate::domain::rule::{Action, Change, Mode, Rule, RuleTarget};
use crate::domain::state::{Deferred, Emission, EmissionOutcome, Episode};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

/// An action that a rule requests, and what the guards read.
#[derive(Clone, Copy)]
pub(super) struct ActionRequest<'a> {
    pub key: &'a TargetKey,
    pub visible: VisibleState<'a>,
    pub rule: &'a Rule,
    pub phase: Phase,
    pub action: &'a Action,
    pub episode: &'a Episode,
    pub deferred: &'a Deferred,
}

/// The guard that blocks an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocked {
    pub verdict: Verdict,
    /// When the action is rechecked; `None` if the end of the blocker is unknown.
    pub recheck_at: Option<Time>,
    /// The exhausted direction, if a rate limit blocks the action.
    pub limited_direction: Option<Direction>,
    pub by: Option<Blocker>,
}

impl Blocked {
    /// Blocked until the blocker is gone.
    fn by(verdict: Verdict, by: Blocker) -> Self {
        Self { verdict, recheck_at: None, limited_direction: None, by: Some(by) }
    }

    fn until(verdict: Verdict, recheck_at: Time, by: Option<Blocker>) -> Self {
        Self { verdict, recheck_at: Some(recheck_at), limited_direction: None, by }
    }

    pub(super) fn into_outcome(self) -> Outcome {
        let Self { verdict, recheck_at, by, .. } = self;
        match by {
            Some(by) => Outcome::blocked_by(verdict, recheck_at, by),
            None => Outcome::blocked(verdict, recheck_at),
        }
    }
}

/// Evaluates the guards in order and returns the first that blocks the action. Reserves a slot if it is a rate limit.
pub(super) fn blocked(step: &mut StepContext<'_>, request: &ActionRequest<'_>) -> Option<Blocked> {
    blocked_without_rate_limit(step, request).or_else(|| blocked_by_rate_limit(step, request))
}

/// All guards but the rate limits of the bridge.
fn blocked_without_rate_limit(step: &StepContext<'_>, request: &ActionRequest<'_>) -> Option<Blocked> {
    external_block(step, request)
        .or_else(|| stabilizing(step, request))
        .or_else(|| waiting_for_destination(step, request))
        .or_else(|| cooling_down(step, request, None))
        .or_else(|| over_budget(step, request))
}

/// What blocks a further call of an emitted action, apart from the event itself. Budgets and rate limits have counted it.
pub(super) fn blocked_again(
    step: &StepContext<'_>,
    request: &ActionRequest<'_>,
    event: &str,
) -> Option<Blocked> {
    external_block(step, request)
        .or_else(|| stabilizing(step, request))
        .or_else(|| cooling_down(step, request, Some(event)))
}

/// The guards that depend on other state than the rule's own: pauses, holds, heartbeats, episodes of other
/// rules.
fn external_block(step: &StepContext<'_>, request: &ActionRequest<'_>) -> Option<Blocked> {
    blocked_by_control(step, request.rule, request.key, &request.action.change, request.episode).or_else(
        || {
            let by = outranked_by(step, request).filter(|_| request.action.change.decreases_capacity())?;
            Some(Blocked::by(Verdict::Outranked, Blocker::Episode { rule: by.to_string() }))
        },
    )
}

/// A pause, a hold, or a heartbeat that is not open.
pub(super) fn blocked_by_control(
    step: &StepContext<'_>,
    rule: &Rule,
    key: &TargetKey,
    change: &Change,
    episode: &Episode,
) -> Option<Blocked> {
    blocked_by_pause(step, rule, key, change).or_else(|| blocked_by_hold(step, change, episode))
}

fn blocked_by_pause(
    step: &StepContext<'_>,
    rule: &Rule,
    key: &TargetKey,
    change: &Change,
) -> Option<Blocked> {
    let now = step.context.now;
    let covering = || step.controls().pauses(now).filter(|pause| pause.covers(&rule.name, key, change, now));
    // The action is unblocked when the last of the pauses ends; one without an end is the last.
    let first = covering().next()?;
    let ends_later = |last: &Pause, pause: &Pause| {
        last.until.is_some_and(|end| pause.until.is_none_or(|until| until > end))
    };
    let last = covering().fold(first, |last, pause| if ends_later(last, pause) { pause } else { last });
    let by = Blocker::Pause {
        id: last.id,
        author: last.author.clone(),
        reason: last.reason.clone(),
        others: covering().map(|pause| pause.id).filter(|id| *id != last.id).collect(),
    };
    Some(Blocked { recheck_at: last.until, ..Blocked::by(Verdict::Paused, by) })
}

fn blocked_by_hold(step: &StepContext<'_>, change: &Change, episode: &Episode) -> Option<Blocked> {
    let target = episode.scope.target()?;
    let mut holding = step.controls().holds_on(target);
    let by_rule = holding.find(|(rule, hold)| is_blocking_hold(step, rule, hold, change));
    let by_rule = by_rule.map(|(rule, _)| Blocker::Hold { rule: rule.to_string() });
    let by_source = || {
        let missing = calm::missing_heartbeat(step, episode).filter(|_| change.decreases_capacity())?;
        Some(Blocker::Heartbeat { source: missing.to_string() })
    };
    Some(Blocked::by(Verdict::Held, by_rule.or_else(by_source)?))
}

/// Whether the current version of a rule is an active hold that blocks the change.
fn is_blocking_hold(step: &StepContext<'_>, rule: &Name, hold: &Hold, change: &Change) -> bool {
    if step.is_kept(rule) {
        return change.decreases_capacity();
    }
    let rule = step.rule(rule).filter(|rule| rule.mode == Mode::Active);
    rule.is_some_and(|rule| match &rule.target {
        RuleTarget::Hold(_) if hold.is_unreadable => change.decreases_capacity(),
        RuleTarget::Hold(hold) => hold.blocks.iter().any(|direction| change.has_direction(*direction)),
        RuleTarget::Target(_) => false,
    })
}

/// Another active rule with an open episode on the target that has increased capacity, or is about to. A `set_capacity`
/// that can also decrease it outranks others only after its emission: two of them would wait for each other. Between
/// these, the earlier row wins.
fn outranked_by<'a>(step: &StepContext<'_>, request: &ActionRequest<'a>) -> Option<&'a Name> {
    let own = request.rule;
    let others = request.visible.outranking_rules().filter(|(name, _)| **name != own.name);
    let mut outranking = others.filter(|(name, state)| {
        if step.is_kept(name) {
            let episode = state.episode.as_deref();
            return episode.is_some_and(|episode| !episode.open.is_empty() && episode.emissions > 0);
        }
        let change = step.active_rule(name).and_then(|rule| rule.on_firing.as_ref());
        let (Some(change), Some(episode)) = (change.map(|firing| &firing.action.change), &state.episode)
        else {
            return false;
        };
        let is_peer = request.phase == Phase::Firing && has_both(change) && has_both(&request.action.change);
        let is_earlier = || step.context.rules.row(name) < step.context.rules.row(&own.name);
        outranks(change, episode) && (!is_peer || is_earlier())
    });
    outranking.next().map(|(name, _)| name)
}

fn has_both(change: &Change) -> bool {
    change.increases_capacity() && change.decreases_capacity()
}

/// Whether an open episode of an active rule outranks the decreases of other rules.
pub(super) fn outranks_decreases(rule: &Rule, episode: &Episode) -> bool {
    rule.on_firing.as_ref().is_some_and(|firing| outranks(&firing.action.change, episode))
}

fn outranks(change: &Change, episode: &Episode) -> bool {
    // An episode that closes in this step is not open any more.
    let is_open = !episode.open.is_empty() && change.increases_capacity();
    let is_requested = episode.deferred.is_some() && !has_both(change);
    is_open && (episode.emissions > 0 || is_requested)
}

/// The stabilization window, and for decreases everything else that has to be over.
fn stabilizing(step: &StepContext<'_>, request: &ActionRequest<'_>) -> Option<Blocked> {
    let ActionRequest { visible, action, episode, deferred, .. } = *request;
    // Nobody says any more that what it repeats is needed.
    if deferred.is_repeat && episode.is_absent(step.context.now) {
        let last = episode.open.iter().max_by_key(|open| open.expires_at)?;
        return Some(Blocked::by(Verdict::Stabilizing, calm::absence_wait(last).by));
    }
    let wait = if action.change.decreases_capacity() {
        calm::wait(step, visible, action, episode, deferred)?
    } else {
        let stable_since = deferred.stable_since();
        let is_over = stable_since.after(action.stabilization_window) <= step.context.now;
        (!is_over).then(|| calm::window_wait(action, stable_since))?
    };
    Some(Blocked::until(Verdict::Stabilizing, wait.until, Some(wait.by)))
}

/// After an earlier emission was given up because of its age, the action waits for a call that succeeds.
fn waiting_for_destination(step: &StepContext<'_>, request: &ActionRequest<'_>) -> Option<Blocked> {
    let wait = request.deferred.wait.filter(|wait| wait.until > step.context.now)?;
    let last_success = |name: &Name| step.context.deliveries.last_success.get(name).copied();
    let owed = request.visible.own.emissions.iter().filter(|emission| {
        emission.is_owed && emission.rule == request.rule.name && request.phase == Phase::Resolved
    });
    let mut names: Vec<&Name> = owed.flat_map(|emission| &emission.acting).collect();
    if names.is_empty() {
        names.extend(&request.rule.acting);
    }
    let works = names.into_iter().filter_map(last_success).any(|at| at >= wait.since);
    (!works).then(|| Blocked::by(Verdict::CoolingDown, Blocker::Destination))
}

/// The cooldowns of earlier events except `itself`, counted from their delivery.
fn cooling_down(
    step: &StepContext<'_>,
    request: &ActionRequest<'_>,
    itself: Option<&str>,
) -> Option<Blocked> {
    let (now, change) = (step.context.now, &request.action.change);
    let is_other = |emission: &&Emission| Some(&*emission.id) != itself;
    let others = request.visible.own.emissions.iter().filter(is_other);
    let own_events = others.filter(|emission| blocks(emission, request));
    let mut last: Option<(Time, &Emission)> = None;
    for emission in own_events {
        // What a decrease answers must not arrive anywhere after it.
        let is_answered = emission.is_owed && request.action.change.decreases_capacity();
        let start = match emission.outcome {
            EmissionOutcome::Delivered(_)
                if emission.is_pending_elsewhere && is_answered && emission.rule == request.rule.name =>
            {
                return Some(undelivered(emission, true));
            }
            EmissionOutcome::Delivered(at) => at,
            EmissionOutcome::DeadLetter => continue,
            EmissionOutcome::Pending if emission.rule == request.rule.name => {
                return Some(undelivered(emission, false));
            }
            EmissionOutcome::Pending => emission.emitted_at,
        };
        let until = start.after(emission.cooldown());
        if until > now && last.is_none_or(|(last, _)| until > last) {
            last = Some((until, emission));
        }
    }
    let earlier_version = request.visible.own.cooldowns.blocked_until(change, now);
    match (last, earlier_version) {
        (Some((until, emission)), legacy) if legacy.is_none_or(|legacy| legacy <= until) => {
            let (event, rule) = (emission.id.to_string(), emission.rule.to_string());
            Some(Blocked::until(Verdict::CoolingDown, until, Some(Blocker::Cooldown { event, rule })))
        }
        (_, Some(until)) => Some(Blocked::until(Verdict::CoolingDown, until, None)),
        (_, None) => None,
    }
}

fn undelivered(emission: &Emission, partly: bool) -> Blocked {
    Blocked::by(Verdict::CoolingDown, Blocker::Undelivered { event: emission.id.to_string(), partly })
}

/// Whether an earlier event blocks an action for its cooldown: an increase looks at increases, a decrease at both, a
/// `notify` at the events of its own rule.
fn blocks(emission: &Emission, request: &ActionRequest<'_>) -> bool {
    let change = &request.action.change;
    match (change.increases_capacity(), change.decreases_capacity()) {
        (_, true) => emission.increases || emission.decreases,
        (true, false) => emission.increases,
        (false, false) => emission.rule == request.rule.name,
    }
}

fn over_budget(step: &StepContext<'_>, request: &ActionRequest<'_>) -> Option<Blocked> {
    let now = step.context.now;
    let events = request.rule.budget?.events.get() as usize;
    let spent = request.visible.own.rules.get(&request.rule.name)?.budget_expiries.iter();
    let mut expiries: Vec<Time> = spent.copied().filter(|free| *free > now).collect();
    expiries.sort_unstable();
    let free = expiries.len().checked_sub(events).map(|at| expiries[at])?;
    Some(Blocked::until(Verdict::OverBudget, free, Some(Blocker::Budget)))
}

/// The rate limits of the bridge. They count emitted events, so they do not apply to shadow rules.
fn blocked_by_rate_limit(step: &mut StepContext<'_>, request: &ActionRequest<'_>) -> Option<Blocked> {
    if request.rule.mode != Mode::Active {
        return None;
    }
    let reserved = step.rates.reserve_if_limited(&request.action.change, request.deferred.slot());
    let Slot { direction, at } = reserved?;
    let by = Some(Blocker::RateLimit { direction });
    Some(Blocked { limited_direction: Some(direction), ..Blocked::until(Verdict::OverBudget, at, by) })
}

/// Whether a deferred action has to be rechecked now: it is due, or its blocker has ended earlier than expected.
pub(super) fn is_ready(step: &StepContext<'_>, request: &ActionRequest<'_>) -> bool {
    let deferred = request.deferred;
    if deferred.is_due(step.context.now) {
        return true;
    }
    // A repetition that no guard has blocked yet waits for its time.
    let Some(blocked_by) = deferred.blocked_by else { return false };
    match blocked_by {
        // Its slot in the rate limits is its place in the queue.
        Verdict::OverBudget => false,
        Verdict::Paused | Verdict::Held | Verdict::Outranked => external_block(step, request)
            .is_none_or(|blocked| blocked.verdict != blocked_by || blocked.recheck_at != deferred.recheck_at),
        _ => blocked_without_rate_limit(step, request).is_none_or(|blocked| {
            let ends_earlier = match (blocked.recheck_at, deferred.recheck_at) {
                (Some(now), Some(before)) => now < before,
                (Some(_), None) => true,
                (None, _) => false,
            };
            let has_changed = blocked.verdict != blocked_by && deferred.recheck_at.is_none();
            has_changed || (blocked.verdict == blocked_by && ends_earlier)
        }),
    }
}
