//! The guards: what may stop an action, one after the other. The first that does names the verdict.

use super::act::{Act, Outcome, change_of};
use super::desk::Desk;
use super::{Context, Policy};
use crate::domain::control::Direction;
use crate::domain::name::Name;
use crate::domain::rate::Place;
use crate::domain::rule::{Action, Aim, Change, Mode, Rule};
use crate::domain::state::{Episode, Kept, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Phase, Verdict};

/// What stops an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub verdict: Verdict,
    /// When it is looked at again, where that is known; else the end of what stands in its way is waited
    /// for.
    pub due: Option<Time>,
    /// The direction that has no room, where a limit of the process stops it.
    pub line: Option<Direction>,
    pub why: Option<String>,
}

impl Stop {
    /// Until what stands in the way has ended.
    fn of(verdict: Verdict) -> Self {
        Self { verdict, due: None, line: None, why: None }
    }

    fn until(verdict: Verdict, due: Time) -> Self {
        Self { due: Some(due), ..Self::of(verdict) }
    }

    pub fn into_outcome(self) -> Outcome {
        let Self { verdict, due, why, .. } = self;
        match why {
            Some(why) => Outcome::stopped_because(verdict, due, why),
            None => Outcome::stopped(verdict, due),
        }
    }
}

impl Act<'_, '_> {
    /// The first guard that stops the action.
    pub fn guard(
        &mut self,
        action: &Action,
        episode: &Episode,
        since: Time,
        place: Option<Place>,
    ) -> Option<Stop> {
        let (rule, now) = (self.rule, self.desk.context.now);
        let change = &action.change;
        if let Some(stop) = obstacle(self.desk, rule, self.key, change, episode, self.outranked.as_ref()) {
            return Some(stop);
        }
        let calm = calm_since(self.desk, change, episode, since).after(action.stabilization_window);
        if calm > now {
            return Some(Stop::until(Verdict::Stabilizing, calm));
        }
        if let Some(until) = self.ledger.cooldowns.blocks(change, now) {
            return Some(Stop::until(Verdict::CoolingDown, until));
        }
        self.over_budget().or_else(|| self.over_limit(change, place))
    }

    fn over_budget(&self) -> Option<Stop> {
        let now = self.desk.context.now;
        let events = self.rule.budget?.events.get() as usize;
        let mut spent: Vec<Time> = self.ledger.spent.iter().copied().filter(|free| *free > now).collect();
        spent.sort_unstable();
        let free = spent.len().checked_sub(events).map(|at| spent[at])?;
        let why = Some("the rule's budget on this target is spent".to_owned());
        Some(Stop { why, ..Stop::until(Verdict::OverBudget, free) })
    }

    /// The process's own limits, which are for what is sent.
    fn over_limit(&mut self, change: &Change, place: Option<Place>) -> Option<Stop> {
        if self.rule.mode != Mode::Active {
            return None;
        }
        let Context { now, policy: Policy { per_minute, .. }, .. } = *self.desk.context;
        let Place { line, turn } = self.desk.rates.stop(per_minute, change, now, place)?;
        let why = Some(format!("this process has reached engine.{line}_per_minute"));
        Some(Stop { why, line: Some(line), ..Stop::until(Verdict::OverBudget, turn) })
    }
}

/// The guards whose end another thing decides: a pause, a hold or a heartbeat, another rule's episode.
fn obstacle(
    desk: &Desk<'_>,
    rule: &Rule,
    key: &TargetKey,
    change: &Change,
    episode: &Episode,
    outranked: Option<&Name>,
) -> Option<Stop> {
    paused(desk, rule, key, change).or_else(|| held(desk, change, episode)).or_else(|| {
        let by = outranked.filter(|_| change.takes_away())?;
        let why = Some(format!("rule {by} has an episode open on the target that adds capacity"));
        Some(Stop { why, ..Stop::of(Verdict::Outranked) })
    })
}

fn paused(desk: &Desk<'_>, rule: &Rule, key: &TargetKey, change: &Change) -> Option<Stop> {
    let now = desk.context.now;
    let mut covering = desk.controls().pauses(now).filter(|pause| pause.covers(&rule.name, key, change, now));
    let first = covering.next()?;
    // It is free when the last of them is over.
    let due = covering.map(|pause| pause.until).fold(first.until, |a, b| Some(a?.max(b?)));
    let why = Some(format!("pause {} by {}: {}", first.id, first.author, first.reason));
    Some(Stop { due, why, ..Stop::of(Verdict::Paused) })
}

fn held(desk: &Desk<'_>, change: &Change, episode: &Episode) -> Option<Stop> {
    let target = episode.target.target()?;
    let mut holding = desk.controls().holding(target);
    let by_rule = holding.find(|rule| blocks(desk, rule, change)).map(|by| format!("held by rule {by}"));
    let by_source = || {
        let is_open = |source: &&Name| desk.controls().heartbeat(source).open_since.is_some();
        let silent = desk.with_heartbeat(&episode.sources).find(|source| !is_open(source))?;
        change.takes_away().then(|| format!("the heartbeat of source {silent} is not open"))
    };
    let why = by_rule.or_else(by_source)?;
    Some(Stop { why: Some(why), ..Stop::of(Verdict::Held) })
}

/// Whether a rule, as it is now, stops a change where it holds.
fn blocks(desk: &Desk<'_>, rule: &Name, change: &Change) -> bool {
    let rule = desk.rule(rule).filter(|rule| rule.mode == Mode::Active);
    rule.is_some_and(|rule| match &rule.target {
        Aim::Hold(hold) => hold.blocks.iter().any(|direction| direction.is_of(change)),
        Aim::Target(_) => false,
    })
}

/// Since when what is asked for has been supported. What takes capacity away needs a calm that was watched:
/// while a heartbeat was not open nobody would have told of anything else.
fn calm_since(desk: &Desk<'_>, change: &Change, episode: &Episode, since: Time) -> Time {
    let watched = |source: &Name| desk.controls().heartbeat(source).open_since;
    let sources = desk.with_heartbeat(&episode.sources).filter(|_| change.takes_away());
    sources.filter_map(watched).fold(since, Time::max)
}

/// Another active rule that has an episode open on the target that added capacity, or is about to.
/// `fires` tells the rule's `on_firing` from its `on_resolved`: of two that wait to set a capacity
/// neither stops the other, or both would wait for ever.
pub fn outranked_by(desk: &Desk<'_>, state: &TargetState, own: &Name, fires: bool) -> Option<Name> {
    let own_rule = desk.rule(own).filter(|_| fires);
    let adds_too = own_rule.and_then(|rule| change_of(rule, Phase::Firing)).is_some_and(Change::adds);
    let others = state.rules.iter().filter(|(name, _)| *name != own);
    let mut outranking = others.filter(|(name, rule_state)| {
        let rule = desk.rule(name).filter(|rule| rule.mode == Mode::Active);
        let (Some(change), Some(episode)) =
            (rule.and_then(|rule| change_of(rule, Phase::Firing)), &rule_state.episode)
        else {
            return false;
        };
        // One that closes in this very notification is open no more.
        let is_open = !episode.open.is_empty();
        let waits = episode.kept.is_some() && !(adds_too && change.takes_away());
        is_open && change.adds() && (episode.emissions > 0 || waits)
    });
    outranking.next().map(|(name, _)| name.clone())
}

/// Why what is kept for this end of an episode has lost its support by what became of the controls, if it
/// has.
pub fn lost_support(
    desk: &Desk<'_>,
    name: &Name,
    phase: Phase,
    episode: &Episode,
    kept: &Kept,
) -> Option<String> {
    // Only what takes capacity away has a time at which it is given up.
    kept.give_up?;
    let broken = desk.controls().broken_since(desk.with_heartbeat(&episode.sources), kept.since);
    if let Some(source) = broken {
        return Some(format!("the heartbeat of source {source} ended meanwhile"));
    }
    let (target, change) = (episode.target.target()?, change_of(desk.rule(name)?, phase)?);
    let mut lapsed = desk.controls().lapsed_since(target, kept.since);
    let hold = lapsed.find(|rule| blocks(desk, rule, change))?;
    Some(format!("the hold of rule {hold} was not heard of any more"))
}

/// Whether what is kept has to be looked at now: its time has come, or what stood in its way is not what it
/// was.
pub fn is_ripe(desk: &Desk<'_>, key: &TargetKey, state: &TargetState, name: &Name) -> bool {
    let Some(rule_state) = state.rules.get(name) else { return false };
    let (phase, episode) = match (&rule_state.episode, &rule_state.closing) {
        (Some(episode), _) => (Phase::Firing, episode),
        (None, Some(closing)) => (Phase::Resolved, &closing.episode),
        (None, None) => return false,
    };
    let Some(kept) = rule_state.kept() else { return false };
    if kept.is_due(desk.context.now) || lost_support(desk, name, phase, episode, kept).is_some() {
        return true;
    }
    if !matches!(kept.stopped_by, Some(Verdict::Paused | Verdict::Held | Verdict::Outranked)) {
        return false;
    }
    let rule = desk.rule(name).filter(|rule| rule.mode != Mode::Disabled);
    let Some((rule, change)) = rule.and_then(|rule| Some((rule, change_of(rule, phase)?))) else {
        return true;
    };
    let outranked = outranked_by(desk, state, name, phase == Phase::Firing);
    let stop = obstacle(desk, rule, key, change, episode, outranked.as_ref());
    stop.is_none_or(|stop| Some(stop.verdict) != kept.stopped_by || stop.due != kept.due)
}
