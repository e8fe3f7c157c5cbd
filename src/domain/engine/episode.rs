//! Episodes: applies the changes of a step to episodes, and requests their actions.
//!
//! All changes are applied before any action is executed, so that every opening of a notification is in view.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::act::{new_request, schedule_repeat};
use super::deferred::{
    self, Acting, NO_LONGER_GROWN, OUTDATED, Pass, RULE_REMOVED, Replies, has_need, missing_evidence,
};
use super::delta::{Expired, Opened, RuleDelta, Unchanged};
use super::outcome::{DecisionLog, Outcome};
use super::step::StepContext;
use super::{Context, delivery, emit, end, guard, kept, owed, unconfirmed};
use crate::domain::alert_key::AlertKey;
use crate::domain::alert_map::AlertMap;
use crate::domain::delivery::DeliveryChangeKind;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::{Mode, Repeat, Rule};
use crate::domain::state::{ClosedEpisode, Deferred, Episode, ExpiredEpisode, Occurrence, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;
use crate::domain::verdict::{Decision, Verdict};

const TRUNCATED: &str = "the notification is truncated (max_alerts)";
const CLOSED_TRUNCATED: &str = "a truncated notification (max_alerts) has closed an alert of the episode";
const CLOSED: &str = "the episode has closed";
/// A firing that came after the resolve, or with it.
const RESOLVED_LATE: &str = "the alert resolved before its firing opened";
const NOTHING_OWED: &str = "the rule owes no decrease on this target";

/// Applies the changes of the active rules or of one in `mode: shadow`, and executes their requested and deferred actions.
pub(super) fn evaluate_all(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    own: &mut TargetState,
    active: Option<&TargetState>,
    deltas: Vec<(Name, RuleDelta)>,
) -> Vec<Decision> {
    let mut acting = Acting { key, own, active };
    let mut replies = Replies::default();
    let mut decisions = Vec::new();
    let mut opened = Vec::new();
    for (name, delta) in deltas {
        if !delta.opened.is_empty() {
            opened.push(name.clone());
        }
        decisions.extend(apply_delta(step, &mut acting, &name, delta, &mut replies));
    }
    decisions.extend(deferred::execute(step, &mut acting, &mut replies, Pass::Increases));
    let mut taken_back = Vec::new();
    for name in opened.iter().filter(|name| has_increased(step, acting.own, name)).collect::<Vec<_>>() {
        taken_back.extend(unconfirmed::supersede(step, &mut acting, name));
    }
    taken_back.extend(unconfirmed::recheck(step, &mut acting));
    if !taken_back.is_empty() {
        decisions.extend(taken_back);
        // What is not called any more blocks no increase any more.
        decisions.extend(deferred::execute(step, &mut acting, &mut replies, Pass::Increases));
    }
    decisions.extend(deferred::execute(step, &mut acting, &mut replies, Pass::Decreases));
    for name in emitted_increases(step, acting.own) {
        decisions.extend(unconfirmed::supersede(step, &mut acting, &name));
    }
    acting.own.rules.retain(|_, rule_state| !rule_state.is_empty());
    decisions
}

/// The rules whose `set_capacity` was emitted in this step among the decreases, since it may also decrease capacity.
fn emitted_increases(step: &StepContext<'_>, own: &TargetState) -> Vec<Name> {
    let emitted = own.emissions.iter().filter(|emission| step.emitted.contains(&emission.id));
    let both = emitted.filter(|emission| emission.increases && emission.decreases);
    both.map(|emission| emission.rule.clone()).collect()
}

/// Whether the open episode of an active rule has increased capacity, or is about to, so that it outranks decreases.
fn has_increased(step: &StepContext<'_>, own: &TargetState, name: &Name) -> bool {
    let episode = own.rules.get(name).and_then(|rule_state| rule_state.episode.as_deref());
    let rule = step.active_rule(name);
    rule.zip(episode).is_some_and(|(rule, episode)| guard::outranks_decreases(rule, episode))
}

/// Applies the changes of one rule and requests its actions. Returns what is decided without executing an action.
fn apply_delta(
    step: &mut StepContext<'_>,
    acting: &mut Acting<'_>,
    name: &Name,
    delta: RuleDelta,
    replies: &mut Replies,
) -> Vec<Decision> {
    let is_shadow = acting.active.is_some();
    let rule = step.rule(name).filter(|rule| (rule.mode == Mode::Shadow) == is_shadow);
    let RuleDelta { opened, closed, expired, late, unchanged, outdated, trigger, truncated, .. } = delta;
    let ended_now = closed.len() + expired.len();
    let was_told = !closed.is_empty() || expired.iter().any(|expired| expired.absence.is_some());
    let rule_state = acting.own.rules.get_or_default(name);
    if let Some(episode) = rule_state.episode.as_mut().filter(|_| !expired.is_empty()) {
        episode.expired = true;
    }
    if let Some(episode) = rule_state.episode.as_mut().filter(|_| truncated && !closed.is_empty()) {
        episode.truncated = true;
    }
    let log = DecisionLog::new(Some(name), acting.key);
    let mut change = RuleChange { trigger, truncated, log, replies };
    log_without_action(&mut change.log, rule, unchanged, late, outdated, expired);
    if !opened.is_empty() {
        match rule {
            Some(rule) => open(step, acting, rule, opened, ended_now, &mut change),
            None => {
                let alerts = opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
                change.log.reply(Outcome::with_detail(Verdict::Withdrawn, RULE_REMOVED), alerts);
            }
        }
    }
    if was_told {
        acting.own.record_end(step.context.now, false, step.context.policy.last_resolve_retention);
    }
    let rule_state = acting.own.rules.get_or_default(name);
    let is_over = rule_state.episode.as_ref().is_some_and(|episode| episode.open.is_empty());
    if is_over {
        close(step, acting, name, rule, closed, &mut change);
    } else if !closed.is_empty() {
        let alerts = closed.into_iter().map(|closed| closed.alert).collect();
        change.log.reply(Outcome::new(Verdict::StillOpen), alerts);
    }
    change.log.decisions
}

/// A change of one rule: its cause and its decisions.
struct RuleChange<'a> {
    /// The notification that causes it; set whenever an occurrence has opened or closed.
    trigger: Option<Arc<Trigger>>,
    /// Whether that notification is truncated.
    truncated: bool,
    log: DecisionLog<'a>,
    /// The replies of actions that are still to be executed.
    replies: &'a mut Replies,
}

/// Records the changes that lead to no action.
fn log_without_action(
    log: &mut DecisionLog<'_>,
    rule: Option<&Rule>,
    unchanged: Vec<Unchanged>,
    late: Vec<(AlertKey, Time)>,
    outdated: Vec<AlertKey>,
    expired: Vec<Expired>,
) {
    for Unchanged { alert, verdict, detail } in unchanged {
        let outcome = match verdict {
            Verdict::Withdrawn => Outcome::with_detail(verdict, RESOLVED_LATE).for_firing(rule),
            _ => Outcome::new(verdict),
        };
        let outcome = match detail {
            Some(detail) => outcome.and_detail(&detail),
            None => outcome,
        };
        log.reply(outcome, vec![alert]);
    }
    for (alert, opens_at) in late {
        log.reply(Outcome::blocked(Verdict::Late, Some(opens_at)).for_firing(rule), vec![alert]);
    }
    let withdrawn = Outcome::with_detail(Verdict::Withdrawn, OUTDATED);
    log.record_if_any(withdrawn.for_firing(rule), outdated);
    log_expired(log, expired);
}

/// Records occurrences that have expired. What the sender has ended is answered with its reason.
pub(super) fn log_expired(log: &mut DecisionLog<'_>, expired: Vec<Expired>) {
    for Expired { alert, absence } in expired {
        match absence {
            Some(reason) => {
                let outcome = Outcome::with_detail(Verdict::Expired, &end::absence_detail(&reason));
                log.reply(outcome, vec![alert]);
            }
            None => log.record(Outcome::new(Verdict::Expired), vec![alert]),
        }
    }
}

/// Adds opened occurrences to the episode of a rule, and requests the `on_firing` action.
fn open(
    step: &mut StepContext<'_>,
    acting: &mut Acting<'_>,
    rule: &Rule,
    opened: AlertMap<Opened>,
    ended_now: usize,
    change: &mut RuleChange<'_>,
) {
    let alerts: Vec<AlertKey> = opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
    let continued = end_closed_action(step, acting, rule, &opened, &mut change.log);
    let known_since = acting.own.known_since;
    let rule_state = acting.own.rules.get_or_default(&rule.name);
    // `retention.owed` counts from the close of this episode.
    rule_state.owed_until = None;
    let most_open = rule_state.episode.as_ref().map_or(0, |it| it.most_open as usize);
    let had_grown = rule_state.episode.as_ref().is_some_and(|it| it.open.len() + ended_now > most_open);
    let is_continued = continued.is_some() && rule_state.episode.is_none();
    let opened_at = rule_state.episode.as_ref().map(|episode| episode.opened_at);
    let joining = opened_at.map_or(0, |at| {
        opened
            .iter()
            .filter(|opened| opened.was_late && !was_in_episode(acting, &opened.occurrence.alert, at))
            .count()
    });
    let rule_state = acting.own.rules.get_or_default(&rule.name);
    if rule_state.episode.is_none() {
        rule_state.episode = continued;
    }
    let expired_episode = rule_state.expired_episode.as_deref();
    let opening = Opening { opened, known_since, expired_episode };
    let (episode, is_new) =
        open_occurrences(step.context, acting.key, &mut rule_state.episode, &rule.name, opening);
    if episode.emissions > 0 {
        // Late firings of other episodes join this one without growth.
        episode.most_open = episode.most_open.saturating_add(u32::try_from(joining).unwrap_or(u32::MAX));
    }
    let growth = Growth { is_new: is_new || is_continued, had_grown };
    match request_firing(step, rule, episode, growth, &alerts, change) {
        Some(outcome) => {
            if is_continued && rule.mode != Mode::Disabled && !has_need(episode) {
                repeat_again(step, rule, episode, change.trigger.as_ref());
            }
            change.log.reply(outcome.for_episode(Phase::Firing, episode, Some(rule)), alerts);
        }
        None => change.replies.add(&rule.name, Phase::Firing, alerts),
    }
}

/// An episode goes on that has nothing to emit now: `while_firing` acts again after its cooldown.
fn repeat_again(step: &StepContext<'_>, rule: &Rule, episode: &mut Episode, trigger: Option<&Arc<Trigger>>) {
    if let Some((firing, trigger)) = rule.on_firing.as_ref().zip(trigger) {
        episode.deferred = schedule_repeat(firing, episode.emissions, trigger, step);
    }
}

/// Whether the last occurrence of an alert was in the episode that opened at this time.
fn was_in_episode(acting: &Acting<'_>, alert: &AlertKey, opened_at: Time) -> bool {
    let target = acting.active.unwrap_or(acting.own);
    target.last_resolve(alert).is_some_and(|last| last.was_in_episode_of(opened_at))
}

/// An opening of the rule ends the `on_resolved` action of its closed episode. Returns the episode if a late firing
/// continues it.
fn end_closed_action(
    step: &mut StepContext<'_>,
    acting: &mut Acting<'_>,
    rule: &Rule,
    opened: &AlertMap<Opened>,
    log: &mut DecisionLog<'_>,
) -> Option<Box<Episode>> {
    let rule_state = acting.own.rules.get_or_default(&rule.name);
    let ClosedEpisode { episode, deferred, emitted, is_answered, .. } = *rule_state.closed.take()?;
    let goes_on = opened
        .iter()
        .any(|opened| opened.was_late && was_in_episode(acting, &opened.occurrence.alert, episode.opened_at));
    if let Some(deferred) = deferred {
        step.release_slot(&deferred);
        let outcome = Outcome::with_detail(Verdict::Withdrawn, "an alert of the rule opened on the target");
        log.record(outcome.for_episode(Phase::Resolved, &episode, Some(rule)), deferred.alerts);
    }
    if let Some(emitted) = emitted.filter(|emitted| !emitted.is_rejected) {
        let detail = format!("the rule opened before event {} was confirmed", emitted.event);
        let outcome = Outcome::with_detail(Verdict::Superseded, &detail);
        log.record(outcome.for_episode(Phase::Resolved, &episode, Some(rule)), emitted.request.alerts);
        if end_unconfirmed(step, acting, &emitted.event) {
            return None;
        }
    }
    Some(episode).filter(|episode| goes_on && !is_answered && !episode.expired)
}

/// An unconfirmed decrease is not called again. Returns whether it counts as delivered, since the outcome of a call is
/// unknown.
fn end_unconfirmed(step: &mut StepContext<'_>, acting: &mut Acting<'_>, event: &Arc<str>) -> bool {
    let emission = acting.own.emission(event).cloned();
    let Some(emission) = emission.filter(|emission| emission.delivered_at().is_none()) else { return false };
    step.change_delivery(acting.key, event, DeliveryChangeKind::Cancel);
    let is_uncertain = step.delivery(acting.key, &emission).is_uncertain;
    if is_uncertain {
        // Its cooldown counts from now.
        delivery::count_as_delivered(step, acting.own, &emission);
    } else {
        acting.own.emissions.retain(|known| known.id != *event);
    }
    is_uncertain
}

/// What an opening means for the episode.
struct Growth {
    /// Whether it opens or continues the episode.
    is_new: bool,
    /// Whether more alerts were open before it than at any earlier emission.
    had_grown: bool,
}

/// Requests the `on_firing` action. Returns the outcome if there is nothing to execute.
fn request_firing(
    step: &mut StepContext<'_>,
    rule: &Rule,
    episode: &mut Episode,
    growth: Growth,
    alerts: &[AlertKey],
    change: &mut RuleChange<'_>,
) -> Option<Outcome> {
    let RuleChange { trigger, truncated, log, .. } = change;
    let (Some(firing), Some(trigger)) = (&rule.on_firing, &trigger) else {
        return Some(Outcome::new(Verdict::NoAction));
    };
    let change = &firing.action.change;
    let acts = growth.is_new || firing.repeat == Repeat::OnGrowth;
    if !acts || !has_need(episode) {
        return Some(Outcome::new(Verdict::NoAction));
    }
    if rule.mode == Mode::Disabled {
        return Some(Outcome::new(Verdict::Disabled));
    }
    // A deferred action that was no longer justified is not revived by the new openings, which are a
    // request of their own.
    let is_stale = |deferred: &mut Deferred| !deferred.is_repeat && !deferred.is_retry && !growth.had_grown;
    if let Some(previous) = episode.deferred.take_if(is_stale) {
        step.release_slot(&previous);
        let outcome = Outcome::with_detail(Verdict::Withdrawn, NO_LONGER_GROWN);
        log.record_if_any(outcome.for_episode(Phase::Firing, episode, Some(rule)), previous.alerts);
    }
    if change.decreases_capacity() {
        let truncated = truncated.then_some(TRUNCATED);
        if let Some(detail) = truncated.or_else(|| missing_evidence(episode)) {
            return Some(Outcome::with_detail(Verdict::NoEvidence, detail));
        }
    }
    let previous = episode.deferred.take();
    // The newest action replaces the deferred one and takes over its request time, since the need never ended.
    let kept = previous.as_ref().filter(|previous| !previous.is_repeat);
    let request = new_request(change.decreases_capacity(), step.context.now, Arc::clone(trigger));
    episode.deferred = Some(Deferred {
        requested_at: kept.map_or(request.requested_at, |previous| previous.requested_at),
        stable_since: kept.and_then(|previous| previous.stable_since),
        recheck_at: kept.and_then(Deferred::slot).map_or(request.recheck_at, |slot| Some(slot.at)),
        limited_direction: kept.and_then(|previous| previous.limited_direction),
        is_retry: kept.is_some_and(|previous| previous.is_retry),
        wait: kept.and_then(|previous| previous.wait),
        alerts: alerts.to_vec(),
        ..request
    });
    // A repetition that no guard has blocked yet has no alerts and was never recorded.
    if let Some(previous) = previous {
        if previous.is_repeat {
            step.release_slot(&previous);
        }
        let outcome = Outcome::with_detail(Verdict::Withdrawn, "replaced by a newer action");
        log.record_if_any(outcome.for_episode(Phase::Firing, episode, Some(rule)), previous.alerts);
    }
    None
}

/// Closes the episode of a rule, and requests the `on_resolved` action if the resolved occurrences `closed` have closed
/// it.
fn close(
    step: &mut StepContext<'_>,
    acting: &mut Acting<'_>,
    name: &Name,
    rule: Option<&Rule>,
    closed: Vec<Occurrence>,
    change: &mut RuleChange<'_>,
) {
    let (now, policy) = (step.context.now, step.context.policy);
    let rule_state = acting.own.rules.get_or_default(name);
    let Some(mut episode) = rule_state.episode.take() else { return };
    end_firing_action(step, acting, rule, &mut episode, &mut change.log);
    delivery::end_renewals(step, acting.key, acting.own, name, &mut episode);
    let was_need = rule.is_none_or(|rule| {
        let firing = rule.on_firing.as_ref();
        firing.is_some_and(|firing| firing.action.change.increases_capacity()) && episode.emissions > 0
    });
    acting.own.record_end(now, was_need, policy.last_resolve_retention);
    let owes = owed::owes(acting.own, name);
    let alerts: Vec<AlertKey> = closed.iter().map(|closed| closed.alert.clone()).collect();
    let is_kept = step.is_kept(name);
    let request = match is_kept {
        true => request_kept(owes, &episode, change, now),
        false => request_resolved(rule, &episode, change, now),
    };
    let rule_state = acting.own.rules.get_or_default(name);
    rule_state.owed_until = owes.then(|| now.after(policy.owed_retention));
    if episode.expired {
        let until = now.after(policy.expired_episode_retention);
        rule_state.expired_episode = Some(Box::new(ExpiredEpisode { episode: episode.id.clone(), until }));
    }
    let request = request.map(|request| Deferred { alerts: alerts.clone(), ..request });
    let (deferred, unneeded, outcome) = match request {
        Ok(_) if closed.is_empty() => (None, None, None),
        Ok(request) if request.decreases && !owes => (None, Some(request), Some(no_evidence(NOTHING_OWED))),
        Ok(request) => (Some(request), None, None),
        Err(outcome) => (None, None, Some(outcome)),
    };
    let outcome = outcome.map(|outcome| outcome.for_episode(Phase::Resolved, &episode, rule));
    if is_kept && deferred.is_some() {
        change.log.reply(kept::outcome().for_episode(Phase::Resolved, &episode, rule), alerts);
    } else if deferred.is_some() {
        change.replies.add(name, Phase::Resolved, alerts);
    } else if let Some(outcome) = outcome.filter(|_| !closed.is_empty()) {
        change.log.reply(outcome, alerts);
    }
    // A late firing can continue an episode that has emitted something and did not expire. What is owed is shown with it.
    let is_retained = episode.emissions > 0 && (rule.is_some() || is_kept) && (!episode.expired || owes);
    if deferred.is_some() || is_retained {
        let until = Some(now.after(policy.last_resolve_retention));
        let closed = if deferred.is_some() || unneeded.is_some() { closed } else { Vec::new() };
        let (emitted, is_answered) = (None, false);
        rule_state.closed = Some(Box::new(ClosedEpisode {
            episode,
            closed,
            deferred,
            unneeded,
            is_answered,
            emitted,
            until,
        }));
    }
}

/// The close of an episode ends its `on_firing` action: deferred or, if it decreases, not confirmed.
fn end_firing_action(
    step: &mut StepContext<'_>,
    acting: &mut Acting<'_>,
    rule: Option<&Rule>,
    episode: &mut Episode,
    log: &mut DecisionLog<'_>,
) {
    if let Some(deferred) = episode.deferred.take() {
        step.release_slot(&deferred);
        // The need of a deferred increase ends too.
        let firing = rule.and_then(|rule| rule.on_firing.as_ref());
        if firing.map_or(!deferred.decreases, |firing| firing.action.change.increases_capacity()) {
            acting.own.record_end(step.context.now, true, step.context.policy.last_resolve_retention);
        }
        let outcome = Outcome::with_detail(Verdict::Withdrawn, CLOSED);
        log.record_if_any(outcome.for_episode(Phase::Firing, episode, rule), deferred.alerts);
    }
    if let Some(emitted) = episode.emitted.take().filter(|emitted| !emitted.is_rejected) {
        let detail = format!("the episode has closed before event {} was confirmed", emitted.event);
        let outcome = Outcome::with_detail(Verdict::Superseded, &detail);
        log.record(outcome.for_episode(Phase::Firing, episode, rule), emitted.request.alerts);
        if !end_unconfirmed(step, acting, &emitted.event) {
            episode.undelivered_emissions = episode.undelivered_emissions.saturating_add(1);
        }
    }
}

/// The request of the `on_resolved` action, without its alerts, or the outcome if there is nothing to execute.
fn request_resolved(
    rule: Option<&Rule>,
    episode: &Episode,
    change: &RuleChange<'_>,
    now: Time,
) -> Result<Deferred, Outcome> {
    let Some(rule) = rule else { return Err(Outcome::with_detail(Verdict::NoAction, RULE_REMOVED)) };
    if rule.mode == Mode::Disabled {
        return Err(Outcome::new(Verdict::Disabled));
    }
    let (Some(resolved), Some(trigger)) = (&rule.on_resolved, &change.trigger) else {
        return Err(Outcome::new(Verdict::NoAction));
    };
    let requested = &resolved.action.change;
    if !requested.decreases_capacity() && episode.emissions == 0 {
        return Err(no_evidence("the episode has emitted no event to compensate"));
    }
    if episode.truncated {
        return Err(no_evidence(if change.truncated { TRUNCATED } else { CLOSED_TRUNCATED }));
    }
    match missing_evidence(episode) {
        Some(detail) => Err(no_evidence(detail)),
        None => Ok(new_request(requested.decreases_capacity(), now, trigger.clone())),
    }
}

/// The request of a rule of a newer configuration, which is kept for those who know whether it has an `on_resolved` action.
fn request_kept(
    owes: bool,
    episode: &Episode,
    change: &RuleChange<'_>,
    now: Time,
) -> Result<Deferred, Outcome> {
    let Some(trigger) = &change.trigger else { return Err(kept::outcome()) };
    if episode.truncated {
        return Err(no_evidence(if change.truncated { TRUNCATED } else { CLOSED_TRUNCATED }));
    }
    match missing_evidence(episode) {
        Some(detail) => Err(no_evidence(detail)),
        None => Ok(new_request(owes, now, trigger.clone())),
    }
}

fn no_evidence(detail: &str) -> Outcome {
    Outcome::with_detail(Verdict::NoEvidence, detail)
}

/// Occurrences that open, and what their target's state knows of the time before them.
pub(super) struct Opening<'a> {
    pub opened: AlertMap<Opened>,
    /// See [`TargetState::known_since`].
    pub known_since: Option<Time>,
    pub expired_episode: Option<&'a ExpiredEpisode>,
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
        let episode = episode.get_or_insert_with(|| Box::new(new_episode(id.clone(), scope, context.now)));
        episode.adopted |= occurrence.starts_at < context.clock().on_wall(created);
        if let Err(at) = episode.sources.binary_search(&occurrence.alert.source) {
            episode.sources.insert(at, occurrence.alert.source.clone());
        }
        let source = context.sources.get(&occurrence.alert.source);
        let has_equal = source.and_then(|source| source.heartbeat.as_ref());
        if let (Some(source), Some(_)) = (source, has_equal.filter(|heartbeat| !heartbeat.equal.is_empty())) {
            let heartbeat = source.heartbeat_key(&occurrence.labels);
            if let Err(at) = episode.heartbeats.binary_search(&heartbeat) {
                episode.heartbeats.insert(at, heartbeat);
            }
        }
        episode.parameters = parameters;
        episode.open.insert(occurrence);
    }
    // `opened` is never empty, so there is an episode now.
    let episode = episode.get_or_insert_with(|| unreachable!("opened is not empty"));
    (episode, is_new)
}

fn new_episode(id: Arc<str>, scope: EpisodeScope, opened_at: Time) -> Episode {
    Episode {
        id,
        scope,
        opened_at,
        open: AlertMap::default(),
        emissions: 0,
        resolved_emissions: 0,
        undelivered_emissions: 0,
        most_open: 0,
        sources: Vec::new(),
        heartbeats: Vec::new(),
        adopted: false,
        expired: false,
        truncated: false,
        hold_over: false,
        is_silent: false,
        deferred: None,
        emitted: None,
        parameters: BTreeMap::new(),
    }
}
