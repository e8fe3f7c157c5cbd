//! Episodes of holds and heartbeats. They follow the same rules as target episodes, but update the controls
//! instead of emitting events.

use super::delta::RuleDelta;
use super::episode::{Opening, open_occurrences};
use super::outcome::{DecisionLog, Outcome};
use super::step::StepContext;
use crate::domain::alert_key::AlertKey;
use crate::domain::control::Hold;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::name::Name;
use crate::domain::state::{Episode, TargetState};
use crate::domain::target::{KeyKind, TargetKey};
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

/// Updates the episode of a hold or heartbeat, updates the controls, and returns the decisions.
pub(super) fn evaluate_episode(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    delta: RuleDelta,
) -> Vec<Decision> {
    let now = step.context.now;
    let is_heartbeat = key.kind() == KeyKind::Heartbeat;
    let mut log = DecisionLog::new(Some(name).filter(|_| !is_heartbeat), key);
    // Rules are not evaluated for a heartbeat, so all its decisions have the same verdict.
    let outcome_of = |verdict| Outcome::new(if is_heartbeat { Verdict::Heartbeat } else { verdict });
    let rule_state = state.rules.get_or_default(name);
    let mut episode = rule_state.episode.take();
    let RuleDelta { opened, renewed, closed, expired, late, unchanged, outdated, .. } = delta;

    for (alert, verdict) in unchanged {
        log.reply(outcome_of(verdict), vec![alert]);
    }
    for (alert, due) in late {
        log.reply(Outcome::blocked(Verdict::Late, Some(due)), vec![alert]);
    }
    log.record_if_any(Outcome::new(Verdict::Withdrawn), outdated);
    let has_expired = !expired.is_empty();
    log.record_if_any(Outcome::new(Verdict::Expired), expired);
    if !opened.is_empty() {
        let alerts: Vec<AlertKey> = opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
        let opening = Opening { opened, known_since: None, expired_episode: None };
        let (episode, is_new) = open_occurrences(step.context, key, &mut episode, name, opening);
        if is_new {
            begin(step, name, key, &episode.scope, now);
        }
        log.reply(outcome_of(Verdict::NoAction), alerts);
    }
    if let Some(episode) = episode.as_ref().filter(|_| renewed) {
        restart(step, episode);
    }
    let is_over = episode.as_ref().is_some_and(|episode| episode.open.is_empty());
    if !closed.is_empty() {
        let alerts = closed.iter().map(|closed| closed.alert.clone()).collect();
        log.reply(outcome_of(if is_over { Verdict::NoAction } else { Verdict::StillOpen }), alerts);
    }
    if let Some(episode) = episode.take_if(|_| is_over) {
        end(step, name, key, &episode.scope, now, has_expired);
    }
    rule_state.episode = episode;
    if rule_state.is_empty() {
        state.rules.remove(name);
    }
    log.decisions
}

fn begin(step: &mut StepContext<'_>, rule: &Name, key: &TargetKey, scope: &EpisodeScope, now: Time) {
    match scope {
        EpisodeScope::Hold(covers) => {
            let hold = Hold { covers: covers.clone(), since: now };
            step.controls_mut().open_hold(rule, key, hold);
        }
        EpisodeScope::Heartbeat(source) => step.controls_mut().open_heartbeat(source, now),
        EpisodeScope::Target(_) => {}
    }
}

/// Handles an occurrence that was replaced because its resolve was not received. A heartbeat was lost in
/// between, unless another alert of the heartbeat has been open all the time. A hold continues.
fn restart(step: &mut StepContext<'_>, episode: &Episode) {
    let EpisodeScope::Heartbeat(source) = &episode.scope else { return };
    let open_since = step.controls().heartbeat(source).open_since;
    if open_since.is_some_and(|since| episode.open.iter().all(|open| open.starts_at > since)) {
        let now = step.context.now;
        step.controls_mut().end_heartbeat(source, now);
        step.controls_mut().open_heartbeat(source, now);
    }
}

/// `has_expired` is whether the last alert expired, so that its end is unknown.
fn end(
    step: &mut StepContext<'_>,
    rule: &Name,
    key: &TargetKey,
    scope: &EpisodeScope,
    now: Time,
    has_expired: bool,
) {
    match scope {
        EpisodeScope::Hold(_) => step.controls_mut().end_hold(rule, key, has_expired.then_some(now)),
        EpisodeScope::Heartbeat(source) => step.controls_mut().end_heartbeat(source, now),
        EpisodeScope::Target(_) => {}
    }
}
