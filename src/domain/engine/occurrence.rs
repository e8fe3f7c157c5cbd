//! Occurrences: what one firing or resolve does to what is open.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::desk::Desk;
use super::episode::{self, Opened, Turn};
use super::{Input, again, aside};
use crate::domain::name::Name;
use crate::domain::notification::Alert;
use crate::domain::state::{AlertKey, Ended, Late, Occurrence, RuleState, TargetState};
use crate::domain::subject::Subject;
use crate::domain::target::{KeyKind, TargetKey};
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

/// What one notification brings to one target.
#[derive(Default)]
pub struct Turns<'a> {
    pub firing: Vec<Firing<'a>>,
    /// Alerts that fire and are known here, whichever rule takes them now, and when they began.
    pub heard: Vec<(AlertKey, Time)>,
    /// Firings of a rule that have lost their meaning: a late one that fires anew at another target, one
    /// that was a heartbeat and is none any more.
    pub outdated: Vec<(Name, AlertKey)>,
    pub resolves: Vec<Resolve>,
}

/// A firing alert that a rule took.
pub struct Firing<'a> {
    pub key: AlertKey,
    pub alert: &'a Alert,
    pub rule: &'a Name,
    /// What the rule says that it is about, and the key of that.
    pub subject: &'a Subject,
    pub home: &'a TargetKey,
    pub parameters: &'a BTreeMap<String, String>,
    pub metric: Option<f64>,
    pub last_end: Option<Time>,
}

/// The end of an alert that is open or late here.
pub struct Resolve {
    pub key: AlertKey,
    pub ends_at: Time,
    pub last_end: Option<Time>,
}

/// What happened to each rule at one target; there are few, and most often one.
#[derive(Default)]
struct Rules(Vec<(Name, Turn)>);

impl Rules {
    fn turn(&mut self, rule: &Name) -> &mut Turn {
        let known = self.0.iter().position(|(name, _)| name == rule);
        let at = known.unwrap_or_else(|| {
            self.0.push((rule.clone(), Turn::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn turns(&mut self) -> impl Iterator<Item = &mut Turn> {
        self.0.iter_mut().map(|(_, turn)| turn)
    }
}

/// Applies what a notification brings. All of it is seen before any episode is judged: a pod that
/// takes the place of another in the same notification neither closes nor opens anything.
pub fn apply(
    desk: &mut Desk<'_>,
    input: &Input,
    key: &TargetKey,
    state: &mut TargetState,
    turns: Turns<'_>,
) -> Vec<Decision> {
    let now = desk.context.now;
    let mut by_rule = Rules::default();
    for firing in turns.firing {
        let turn = by_rule.turn(firing.rule);
        let rule_state = state.rules.get_or_default(firing.rule);
        fire(now, input, rule_state, turn, firing);
    }
    for (key, starts_at) in &turns.heard {
        for (name, rule_state) in state.rules.iter_mut() {
            if hear(now, input, rule_state, key, *starts_at) {
                by_rule.turn(name).renewed = true;
            }
        }
    }
    for (rule, alert) in turns.outdated {
        if let Some(rule_state) = state.rules.get_mut(&rule) {
            rule_state.late.take(&alert);
            rule_state.episode.as_mut().and_then(|episode| episode.open.take(&alert));
        }
        by_rule.turn(&rule).outdated.push(alert);
    }
    let mut decisions = Vec::new();
    for resolve in turns.resolves {
        let mut applied = false;
        let mut was_open = false;
        for turn in by_rule.turns() {
            if let Some(fresh) = take_back(turn, &resolve) {
                was_open = true;
                applied |= fresh;
            }
        }
        for (name, rule_state) in state.rules.iter_mut() {
            if rule_state.knows(&resolve.key) {
                was_open = true;
                let turn = by_rule.turn(name);
                applied |= end(rule_state, turn, &resolve);
            }
        }
        if !was_open {
            // The same notification has resolved it already.
            let duplicate = Decision::new(Verdict::Duplicate, vec![resolve.key.clone()]);
            decisions.push(Decision { target: Some(key.clone()), ..duplicate });
        }
        // Also one that is not the last, so that a target that only this was about has a history.
        if applied {
            let until = now.after(desk.context.policy.keep_ended);
            let (alert, ends_at) = (resolve.key, resolve.ends_at);
            remember_end(state, Ended { alert, ends_at, was_open, until });
        }
    }
    for turn in by_rule.turns() {
        turn.cause = Some(input.cause.clone());
        turn.truncated = input.truncated;
    }
    decisions.extend(settle(desk, key, state, by_rule));
    decisions
}

/// Settles all turns of a moment. Rules in which something opens come first, so that what they add is
/// known to those that would take away; and what they open ends every wait for a calm.
fn settle(desk: &mut Desk<'_>, key: &TargetKey, state: &mut TargetState, turns: Rules) -> Vec<Decision> {
    let mut turns = turns.0;
    turns.sort_by(|(a, _), (b, _)| a.cmp(b));
    if key.kind() != KeyKind::Target {
        let settled = turns.into_iter().map(|(name, turn)| aside::settle(desk, key, state, &name, turn));
        return settled.collect::<Vec<_>>().concat();
    }
    let opens = touched(desk, &turns, |turn| turn.renewed || !turn.opened.is_empty());
    let expires = touched(desk, &turns, |turn| !turn.expired.is_empty());
    // Of those in which something opens, those that could take away come last.
    turns.sort_by_key(|(name, turn)| {
        let firing = desk.rule(name).and_then(|rule| rule.on_firing.as_ref());
        (turn.opened.is_empty(), firing.is_some_and(|firing| firing.action.change.takes_away()))
    });
    let mut decisions = Vec::new();
    for (name, turn) in turns {
        decisions.extend(episode::settle(desk, key, state, &name, turn));
    }
    let why = "something opened on the target";
    decisions.extend(again::withdraw_closings(desk, key, state, &opens, why));
    // What stood in the way may still do so: absence is no evidence.
    let why = "an alert about the target was not heard of any more";
    decisions.extend(again::withdraw_closings(desk, key, state, &expires, why));
    // What has come due, and what only an episode that has closed now stood in the way of.
    decisions.extend(again::look_again(desk, key, state));
    decisions
}

/// Whose closings something touches.
pub enum Touched {
    /// Those of all rules.
    All,
    /// Those of these rules, which are in `mode: shadow` and stop nobody else.
    Own(Vec<Name>),
}

fn touched(desk: &Desk<'_>, turns: &[(Name, Turn)], by: impl Fn(&Turn) -> bool) -> Touched {
    let (shadow, others): (Vec<&Name>, Vec<&Name>) = turns
        .iter()
        .filter(|(_, turn)| by(turn))
        .map(|(name, _)| name)
        .partition(|name| desk.is_shadow(name));
    if others.is_empty() { Touched::Own(shadow.into_iter().cloned().collect()) } else { Touched::All }
}

fn fire(now: Time, input: &Input, state: &mut RuleState, turn: &mut Turn, firing: Firing<'_>) {
    let Firing { key, alert, subject, parameters, metric, last_end, .. } = firing;
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
        if !open.is_over_by(fresh.starts_at) {
            // The first start stays: copies and restarts move it back and forth.
            let (starts_at, labels) = (open.starts_at, Arc::clone(&open.labels));
            *open = Occurrence { starts_at, labels, ..fresh };
            turn.quiet.push((key, Verdict::Duplicate));
        } else {
            // Its resolve never reached us. As many alerts are open as before.
            *open = fresh;
            turn.renewed = true;
            turn.quiet.push((key, Verdict::NoAction));
        }
        return;
    }
    if turn.opened.has(&key) {
        turn.quiet.push((key, Verdict::Duplicate));
        return;
    }
    match last_end.filter(|end| fresh.starts_at <= *end) {
        Some(previous_end) => {
            if let Some(late) = state.late.get_mut(&key) {
                late.truncated &= input.truncated;
                turn.quiet.push((key, Verdict::Duplicate));
                return;
            }
            let due = now.after(input.source.late_window);
            state.late.put(Late {
                occurrence: fresh,
                target: subject.clone(),
                parameters: parameters.clone(),
                cause: input.cause.clone(),
                truncated: input.truncated,
                previous_end,
                due,
            });
            turn.late.push((key, due));
        }
        None => {
            // It began after that end, so it is no copy of what waits.
            state.late.take(&key);
            turn.opened.put(Opened {
                occurrence: fresh,
                target: subject.clone(),
                parameters: parameters.clone(),
                previous_end: last_end,
            });
        }
    }
}

/// It fires, so it does not expire. Whether it has begun anew.
fn hear(now: Time, input: &Input, state: &mut RuleState, key: &AlertKey, starts_at: Time) -> bool {
    let open = state.episode.as_mut().and_then(|episode| episode.open.get_mut(key));
    let Some(open) = open.filter(|open| open.heard_at < now) else { return false };
    let renewed = open.is_over_by(starts_at);
    if renewed {
        open.starts_at = starts_at;
    }
    open.heard_at = now;
    open.expires_at = now.after(input.source.occurrence_ttl);
    renewed
}

/// An alert that opens and resolves in one notification does not open. Whether the end counts; `None`
/// if it does not open here.
fn take_back(turn: &mut Turn, resolve: &Resolve) -> Option<bool> {
    if resolve.ends_at < turn.opened.get(&resolve.key)?.occurrence.starts_at {
        turn.quiet.push((resolve.key.clone(), Verdict::Stale));
        return Some(false);
    }
    turn.opened.take(&resolve.key);
    // One answer for the firing, one for the resolve.
    turn.quiet.extend([(resolve.key.clone(), Verdict::Withdrawn), (resolve.key.clone(), Verdict::Withdrawn)]);
    Some(true)
}

/// Whether the end counts.
fn end(state: &mut RuleState, turn: &mut Turn, resolve: &Resolve) -> bool {
    if state.late.take(&resolve.key).is_some() {
        turn.quiet.push((resolve.key.clone(), Verdict::Withdrawn));
        return true;
    }
    let Some(episode) = &mut state.episode else { return false };
    let Some(open) = episode.open.get(&resolve.key) else { return false };
    if resolve.ends_at < open.starts_at {
        turn.quiet.push((resolve.key.clone(), Verdict::Stale));
        return false;
    }
    if resolve.last_end.is_some_and(|last| resolve.ends_at <= last) {
        turn.quiet.push((resolve.key.clone(), Verdict::Duplicate));
        return false;
    }
    turn.closed.extend(episode.open.take(&resolve.key));
    true
}

/// Remembers the latest end of an alert.
pub fn remember_end(state: &mut TargetState, ended: Ended) {
    match state.ended.get_mut(&ended.alert) {
        Some(known) => {
            known.ends_at = known.ends_at.max(ended.ends_at);
            known.was_open |= ended.was_open;
            known.until = known.until.max(ended.until);
        }
        None => state.ended.put(ended),
    }
}

/// Ends occurrences that nobody speaks of any more, opens late ones whose window is over, and looks again
/// at what guards have stopped.
pub fn expire(desk: &mut Desk<'_>, key: &TargetKey, state: &mut TargetState) -> Vec<Decision> {
    let now = desk.context.now;
    let mut by_rule = Rules::default();
    for (name, rule_state) in state.rules.iter_mut() {
        let mut turn = Turn::default();
        if let Some(episode) = &mut rule_state.episode {
            let expired = episode.open.take_if(|open| open.expires_at <= now);
            turn.expired.extend(expired.into_iter().map(|open| open.alert));
        }
        for late in rule_state.late.take_if(|late| late.due <= now) {
            let Late { occurrence, target, parameters, cause, truncated, previous_end, .. } = late;
            turn.opened.put(Opened { occurrence, target, parameters, previous_end: Some(previous_end) });
            turn.cause = Some(cause);
            turn.truncated |= truncated;
        }
        if !turn.opened.is_empty() || !turn.expired.is_empty() {
            *by_rule.turn(name) = turn;
        }
    }
    settle(desk, key, state, by_rule)
}
