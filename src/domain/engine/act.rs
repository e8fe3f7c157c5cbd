//! Actions: executes what an episode requests, and emits an event if no guard blocks it.

use super::attempt::{ActionAttempt, ActionRequest};
use super::emit;
use super::guard::Blocked;
use super::outcome::{DecisionLog, Outcome};
use crate::domain::alert_key::AlertKey;
use crate::domain::event::{Event, EventAlert};
use crate::domain::phase::Phase;
use crate::domain::rule::{Action, Change, FiringAction, Mode, Repeat};
use crate::domain::state::{Deferred, Episode, Occurrence, PendingClose};
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;

impl ActionAttempt<'_, '_> {
    /// Handles openings in an episode. `alerts` are already in it; `had_grown` is whether the deferred action
    /// was still justified before these alerts opened.
    pub(super) fn on_firing(
        &mut self,
        episode: &mut Episode,
        is_new: bool,
        had_grown: bool,
        alerts: &[AlertKey],
        log: &mut DecisionLog<'_>,
    ) -> Outcome {
        let Some(firing) = &self.rule.on_firing else {
            return Outcome::new(Verdict::NoAction);
        };
        let acts = is_new || firing.repeat == Repeat::OnGrowth;
        if !acts || !episode.has_grown(self.rule.mode) {
            return Outcome::new(Verdict::NoAction);
        }
        let for_firing = |outcome: Outcome, episode: &Episode| {
            outcome.for_episode(Phase::Firing, episode, Some(self.rule))
        };
        // A deferred action that was no longer justified is not revived by the new openings, which are a
        // request of their own.
        if let Some(previous) = episode.deferred.take_if(|deferred| !deferred.is_repeat && !had_grown) {
            self.step.release_slot(&previous);
            let outcome = Outcome::with_detail(Verdict::Withdrawn, NO_LONGER_GROWN);
            log.record_if_any(for_firing(outcome, episode), previous.alerts);
        }
        if let Some(outcome) = self.check_evidence(&firing.action.change, episode) {
            return outcome;
        }
        // The newest action replaces the deferred one and takes over its request time, since the need never
        // ended.
        let previous = episode.deferred.take();
        let request = previous.as_ref().filter(|deferred| !deferred.is_repeat);
        let requested_at = request.map_or(self.step.context.now, |deferred| deferred.requested_at);
        let slot = previous.as_ref().and_then(Deferred::slot);
        // A repetition that no guard has blocked yet has no alerts and was never recorded.
        if let Some(previous) = previous {
            let outcome = Outcome::with_detail(Verdict::Withdrawn, "replaced by a newer action");
            log.record_if_any(for_firing(outcome, episode), previous.alerts);
        }
        let outcome =
            self.emit_or_defer(episode, &ActionRequest { requested_at, slot, is_repeat: false, alerts });
        if let Some(slot) =
            slot.filter(|slot| episode.deferred.as_ref().and_then(Deferred::slot) != Some(*slot))
        {
            self.step.rates.release(slot);
        }
        outcome
    }

    /// Executes the `on_firing` action: emits it, or defers it in the episode if a guard blocks it.
    pub(super) fn emit_or_defer(&mut self, episode: &mut Episode, request: &ActionRequest<'_>) -> Outcome {
        let rule = self.rule;
        if rule.mode == Mode::Disabled {
            return Outcome::new(Verdict::Disabled);
        }
        let Some(firing) = &rule.on_firing else {
            return Outcome::with_detail(Verdict::Withdrawn, "the rule no longer has on_firing");
        };
        if let Some(outcome) = self.check_evidence(&firing.action.change, episode) {
            return outcome;
        }
        // A repetition follows an emission, so the stabilization window is already over.
        let stable_since = if request.is_repeat { episode.opened_at } else { request.requested_at };
        if let Some(blocked) = self.blocked_by_guard(&firing.action, episode, stable_since, request.slot) {
            episode.deferred = Some(self.defer(&firing.action, &blocked, request));
            return blocked.into_outcome();
        }
        let event_alerts: Vec<EventAlert> = episode.open.iter().map(emit::event_alert).collect();
        let metrics = episode.open.iter().filter_map(|open| open.metric).collect();
        let emission = episode.emission_stats(rule.mode).emissions.saturating_add(1);
        let outcome = self.emit(Phase::Firing, &firing.action, episode, emission, event_alerts, metrics);
        if outcome.has_event() {
            episode.record_emission(rule.mode);
            episode.deferred = self.schedule_repeat(firing, emission);
        }
        outcome
    }

    /// Executes the `on_resolved` action of an episode that closed with the occurrences `closed`. If a guard
    /// blocks it, the pending close is returned too.
    pub(super) fn close_episode(
        &mut self,
        episode: Box<Episode>,
        closed: Vec<Occurrence>,
        request: &ActionRequest<'_>,
    ) -> (Outcome, Option<Box<PendingClose>>) {
        let (outcome, deferred) = self.on_resolved(&episode, &closed, request);
        let outcome = outcome.for_episode(Phase::Resolved, &episode, Some(self.rule));
        (outcome, deferred.map(|deferred| Box::new(PendingClose { episode, closed, deferred })))
    }

    fn on_resolved(
        &mut self,
        episode: &Episode,
        closed: &[Occurrence],
        request: &ActionRequest<'_>,
    ) -> (Outcome, Option<Deferred>) {
        let rule = self.rule;
        if rule.mode == Mode::Disabled {
            return (Outcome::new(Verdict::Disabled), None);
        }
        let Some(resolved) = &rule.on_resolved else {
            return (Outcome::new(Verdict::NoAction), None);
        };
        if episode.emission_stats(rule.mode).emissions == 0 {
            let detail = "the episode has emitted no event to compensate";
            return (Outcome::with_detail(Verdict::NoEvidence, detail), None);
        }
        if self.truncated {
            return (Outcome::with_detail(Verdict::NoEvidence, TRUNCATED), None);
        }
        if let Some(outcome) = self.check_evidence(&resolved.action.change, episode) {
            return (outcome, None);
        }
        if let Some(blocked) =
            self.blocked_by_guard(&resolved.action, episode, request.requested_at, request.slot)
        {
            let deferred = self.defer(&resolved.action, &blocked, request);
            return (blocked.into_outcome(), Some(deferred));
        }
        let event_alerts = closed.iter().map(emit::event_alert).collect();
        (self.emit(Phase::Resolved, &resolved.action, episode, 1, event_alerts, Vec::new()), None)
    }

    /// A decrease requires positive evidence. Returns the outcome `no_evidence` if it is missing.
    fn check_evidence(&self, change: &Change, episode: &Episode) -> Option<Outcome> {
        if !change.decreases_capacity() {
            None
        } else if self.truncated {
            Some(Outcome::with_detail(Verdict::NoEvidence, TRUNCATED))
        } else if episode.adopted {
            Some(Outcome::with_detail(
                Verdict::NoEvidence,
                "an alert of the episode started before this store was created, or before the target's state was dropped",
            ))
        } else if episode.expired {
            Some(Outcome::with_detail(Verdict::NoEvidence, "an alert of the episode has expired"))
        } else {
            None
        }
    }

    fn defer(&self, action: &Action, blocked: &Blocked, request: &ActionRequest<'_>) -> Deferred {
        let deferred = self.schedule(action, request.requested_at, blocked.recheck_at, request);
        Deferred {
            blocked_by: Some(blocked.verdict),
            limited_direction: blocked.limited_direction,
            ..deferred
        }
    }

    fn schedule(
        &self,
        action: &Action,
        requested_at: Time,
        recheck_at: Option<Time>,
        request: &ActionRequest<'_>,
    ) -> Deferred {
        let deferral = self.step.context.policy.max_deferral;
        let longest = action.stabilization_window.saturating_add(deferral);
        let deadline = action.change.decreases_capacity().then(|| requested_at.after(longest));
        let (alerts, trigger) = (request.alerts.to_vec(), self.trigger.clone());
        let is_repeat = request.is_repeat;
        Deferred {
            requested_at,
            recheck_at,
            limited_direction: None,
            deadline,
            is_repeat,
            blocked_by: None,
            alerts,
            trigger,
        }
    }

    /// Whether the current version of the rule repeats the action after `emissions` emissions.
    pub(super) fn has_repeats_left(&self, emissions: u32) -> bool {
        let repeat = self.rule.on_firing.as_ref().map(|firing| firing.repeat);
        matches!(repeat, Some(Repeat::WhileFiring { max_emissions }) if emissions < max_emissions.get())
    }

    /// Schedules the next repetition of `repeat: while_firing`, after the cooldown.
    fn schedule_repeat(&self, firing: &FiringAction, emission: u32) -> Option<Deferred> {
        let Repeat::WhileFiring { max_emissions } = firing.repeat else { return None };
        let now = self.step.context.now;
        let next = now.after(firing.action.cooldown);
        let request = ActionRequest { requested_at: next, slot: None, is_repeat: true, alerts: &[] };
        let deferred = || self.schedule(&firing.action, next, Some(next), &request);
        (emission < max_emissions.get() && next > now).then(deferred)
    }

    fn emit(
        &mut self,
        phase: Phase,
        action: &Action,
        episode: &Episode,
        emission: u32,
        alerts: Vec<EventAlert>,
        metrics: Vec<f64>,
    ) -> Outcome {
        let (now, clock) = (self.step.context.now, self.step.context.clock());
        let Some(target) = episode.scope.target().cloned() else {
            return Outcome::with_detail(Verdict::NoAction, "the episode is not about a target");
        };
        debug_assert_eq!(target.key(), *self.key);
        let adjustment = match emit::adjustment(&action.change, &self.rule.limits, &metrics) {
            Ok(adjustment) => adjustment,
            Err(error) => return Outcome::with_detail(Verdict::Invalid, &error),
        };
        let sequence = now.as_micros().max(self.emission_state.sequence.saturating_add(1));
        self.emission_state.cooldowns.record_emission(action, now);
        if let Some(budget) = self.rule.budget {
            self.emission_state.budget_expiries.retain(|free| *free > now);
            self.emission_state.budget_expiries.push(now.after(budget.per));
        }
        let event = Box::new(Event {
            id: emit::event_id(&self.rule.name, self.key, phase, &episode.id, emission),
            action: action.change.action(),
            time: clock.wall,
            sequence,
            expires_after: self.rule.expires_after,
            rule: self.rule.name.clone(),
            phase,
            adjustment,
            target,
            key: self.key.clone(),
            limits: self.rule.limits,
            reason: emit::reason(phase, &alerts),
            episode: emit::episode_ref(episode, emission, clock),
            alerts,
            trigger: self.trigger.clone(),
            parameters: episode.parameters.clone(),
        });
        if self.rule.mode == Mode::Shadow {
            return Outcome::shadowed(event);
        }
        *self.emission_state.sequence = sequence;
        self.step.rates.record_emission(&action.change);
        Outcome::emitted(event)
    }
}

const TRUNCATED: &str = "the notification is truncated (max_alerts)";
/// The growth ended before the guards let the action pass.
pub(super) const NO_LONGER_GROWN: &str = "the episode shrank while the action was deferred";
