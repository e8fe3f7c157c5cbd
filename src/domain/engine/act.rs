//! Acting: what an episode asks for, and the event when nothing stands in its way.

use std::sync::Arc;

use super::emit;
use super::guard::Blocked;
use super::step::StepContext;
use crate::domain::alert_key::AlertKey;
use crate::domain::event::{Event, EventAlert};
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rate::Slot;
use crate::domain::rule::{Action, Change, FiringAction, Mode, Repeat, Rule};
use crate::domain::state::{Cooldowns, Deferred, Episode, Occurrence, Shadow};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;
use crate::domain::verdict::{Decision, Verdict};

/// The outcome for some alerts.
#[derive(Default)]
pub(super) struct Outcome {
    verdict: Option<Verdict>,
    detail: Option<String>,
    until: Option<Time>,
    context: Option<EpisodeContext>,
    event: Option<Box<Event>>,
    /// What `mode: shadow` would have sent.
    shadow: Option<Box<Event>>,
}

/// Which end of which episode, and what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct EpisodeContext {
    phase: Phase,
    episode: Arc<str>,
    action: Option<&'static str>,
}

impl Outcome {
    pub(super) fn new(verdict: Verdict) -> Self {
        Self { verdict: Some(verdict), ..Self::default() }
    }

    pub(super) fn with_detail(verdict: Verdict, detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..Self::new(verdict) }
    }

    pub(super) fn blocked(verdict: Verdict, until: Option<Time>) -> Self {
        Self { until, ..Self::new(verdict) }
    }

    pub(super) fn blocked_with_detail(verdict: Verdict, until: Option<Time>, detail: String) -> Self {
        Self { detail: Some(detail), ..Self::blocked(verdict, until) }
    }

    /// Says what it is about.
    pub(super) fn for_episode(self, phase: Phase, episode: &Episode, rule: Option<&Rule>) -> Self {
        let change = rule.and_then(|rule| change_of(rule, phase));
        let about = EpisodeContext { phase, episode: episode.id.clone(), action: change.map(Change::action) };
        Self { context: Some(about), ..self }
    }

    /// Whether it is what was said of `kept` already.
    pub(super) fn is_unchanged_from(&self, deferred: &Deferred) -> bool {
        self.verdict.is_some() && self.verdict == deferred.blocked_by && self.until == deferred.recheck_at
    }
}

/// What a rule asks for at one end of an episode.
pub(super) fn change_of(rule: &Rule, phase: Phase) -> Option<&Change> {
    let action = match phase {
        Phase::Firing => rule.on_firing.as_ref().map(|firing| &firing.action),
        Phase::Resolved => rule.on_resolved.as_ref().map(|resolved| &resolved.action),
    };
    action.map(|action| &action.change)
}

/// What earlier emissions block: of all active rules about the target, or of one rule in `mode: shadow`.
pub(super) struct EmissionState<'a> {
    pub sequence: &'a mut u64,
    pub cooldowns: &'a mut Cooldowns,
    /// See [`crate::domain::state::RuleState::budget_expiries`].
    pub budget_expiries: &'a mut Vec<Time>,
}

impl<'a> EmissionState<'a> {
    /// That of a rule's mode. What is made for a shadow is forgotten again when it stays empty.
    pub(super) fn for_mode(mode: Mode, own: Self, shadow: &'a mut Option<Box<Shadow>>) -> Self {
        match mode {
            Mode::Active | Mode::Disabled => own,
            Mode::Shadow => {
                let shadow = &mut **shadow.get_or_insert_default();
                Self {
                    sequence: own.sequence,
                    cooldowns: &mut shadow.cooldowns,
                    budget_expiries: &mut shadow.budget_expiries,
                }
            }
        }
    }
}

/// One chance of a rule to act on a target.
pub(super) struct ActionAttempt<'a, 'd> {
    pub step: &'a mut StepContext<'d>,
    pub key: &'a TargetKey,
    pub rule: &'a Rule,
    pub trigger: Arc<Trigger>,
    /// Whether the notification left out alerts.
    pub truncated: bool,
    /// Another rule that has an episode open that added capacity, if there is one.
    pub outranked: Option<Name>,
    pub emission_state: EmissionState<'a>,
}

impl ActionAttempt<'_, '_> {
    /// Something opened in this episode: `alerts`, which are in it already. `had_grown` tells whether
    /// what is kept was still supported before.
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
        let about = |outcome: Outcome, episode: &Episode| {
            outcome.for_episode(Phase::Firing, episode, Some(self.rule))
        };
        // What had lost its support does not come back by what opens now; that waits for itself.
        if let Some(older) = episode.deferred.take_if(|deferred| !deferred.is_repeat && !had_grown) {
            self.step.release_slot(&older);
            let outcome = Outcome::with_detail(Verdict::Withdrawn, NO_LONGER_GROWN);
            log.record_if_any(about(outcome, episode), older.alerts);
        }
        if let Some(outcome) = self.check_evidence(&firing.action.change, episode) {
            return outcome;
        }
        // The newest takes the place of what is kept. Its wait goes on: the need for it never ended.
        let older = episode.deferred.take();
        let request = older.as_ref().filter(|deferred| !deferred.is_repeat);
        let requested_at = request.map_or(self.step.context.now, |deferred| deferred.requested_at);
        let slot = older.as_ref().and_then(Deferred::slot);
        // Of a repetition that no guard has stopped yet nobody was told.
        if let Some(older) = older {
            let outcome = Outcome::with_detail(Verdict::Withdrawn, "a newer one takes its place");
            log.record_if_any(about(outcome, episode), older.alerts);
        }
        let fired =
            self.emit_or_defer(episode, &ActionRequest { requested_at, slot, is_repeat: false, alerts });
        if let Some(slot) =
            slot.filter(|slot| episode.deferred.as_ref().and_then(Deferred::slot) != Some(*slot))
        {
            self.step.rates.release(slot);
        }
        fired
    }

    /// The `on_firing` action: emitted, or kept in the episode by a guard.
    pub(super) fn emit_or_defer(&mut self, episode: &mut Episode, request: &ActionRequest<'_>) -> Outcome {
        let rule = self.rule;
        if rule.mode == Mode::Disabled {
            return Outcome::new(Verdict::Disabled);
        }
        let Some(firing) = &rule.on_firing else {
            return Outcome::with_detail(Verdict::Withdrawn, "the rule has no on_firing any more");
        };
        if let Some(outcome) = self.check_evidence(&firing.action.change, episode) {
            return outcome;
        }
        // An episode that repeats has been through its window.
        let stable_since = if request.is_repeat { episode.opened_at } else { request.requested_at };
        if let Some(blocked) = self.blocked_by_guard(&firing.action, episode, stable_since, request.slot) {
            episode.deferred = Some(self.defer(&firing.action, &blocked, request));
            return blocked.into_outcome();
        }
        let shown: Vec<EventAlert> = episode.open.iter().map(emit::event_alert).collect();
        let metrics = episode.open.iter().filter_map(|open| open.metric).collect();
        let emission = episode.emission_stats(rule.mode).emissions.saturating_add(1);
        let outcome = self.emit(Phase::Firing, &firing.action, episode, emission, shown, metrics);
        if matches!(outcome.verdict, Some(Verdict::Emitted | Verdict::Shadowed)) {
            episode.record_emission(rule.mode);
            episode.deferred = self.schedule_repeat(firing, emission);
        }
        outcome
    }

    /// The `on_resolved` action of an episode that closed with `closed`. What a guard stops for a time is
    /// given back, to be kept.
    pub(super) fn on_resolved(
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
            let detail = "this episode has emitted nothing to undo";
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
        let shown = closed.iter().map(emit::event_alert).collect();
        (self.emit(Phase::Resolved, &resolved.action, episode, 1, shown, Vec::new()), None)
    }

    /// Capacity is only taken away on positive evidence.
    fn check_evidence(&self, change: &Change, episode: &Episode) -> Option<Outcome> {
        if !change.decreases_capacity() {
            None
        } else if self.truncated {
            Some(Outcome::with_detail(Verdict::NoEvidence, TRUNCATED))
        } else if episode.adopted {
            Some(Outcome::with_detail(Verdict::NoEvidence, "it began before this store was created"))
        } else if episode.expired {
            Some(Outcome::with_detail(Verdict::NoEvidence, "an alert of it was not heard of any more"))
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

    /// Whether the rule, as it is now, acts again by our own clock after that many emissions.
    pub(super) fn has_repeats_left(&self, emissions: u32) -> bool {
        let repeat = self.rule.on_firing.as_ref().map(|firing| firing.repeat);
        matches!(repeat, Some(Repeat::WhileFiring { max_emissions }) if emissions < max_emissions.get())
    }

    /// What `repeat: while_firing` does after an emission: the same again after the cooldown.
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
        let now = self.step.context.now;
        let Some(target) = episode.scope.target().cloned() else {
            return Outcome::with_detail(Verdict::NoAction, "it is not about a target");
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
            time: now,
            sequence,
            expires_after: self.rule.expires_after,
            rule: self.rule.name.clone(),
            phase,
            adjustment,
            target,
            key: self.key.clone(),
            limits: self.rule.limits,
            reason: emit::reason(phase, &alerts),
            episode: emit::episode_ref(episode, emission),
            alerts,
            trigger: self.trigger.clone(),
            parameters: episode.parameters.clone(),
        });
        if self.rule.mode == Mode::Shadow {
            return Outcome { shadow: Some(event), ..Outcome::new(Verdict::Shadowed) };
        }
        *self.emission_state.sequence = sequence;
        self.step.rates.record_emission(self.step.context.policy.per_minute, &action.change, now);
        Outcome { event: Some(event), ..Outcome::new(Verdict::Emitted) }
    }
}

/// What is asked for: by whom, and since when.
pub(super) struct ActionRequest<'a> {
    pub requested_at: Time,
    /// The place that it was given when the process's limits stopped it before.
    pub slot: Option<Slot>,
    /// Whether `repeat: while_firing` asks.
    pub is_repeat: bool,
    /// The alerts that it is about.
    pub alerts: &'a [AlertKey],
}

const TRUNCATED: &str = "the notification left out alerts (max_alerts)";
/// Growth that was over before a guard let it pass.
pub(super) const NO_LONGER_GROWN: &str = "it shrank again meanwhile";

/// The decisions of one rule at one target; alerts with the same outcome stand together.
pub(super) struct DecisionLog<'a> {
    rule: Option<&'a Name>,
    target: &'a TargetKey,
    pub decisions: Vec<Decision>,
}

impl<'a> DecisionLog<'a> {
    pub(super) fn new(rule: Option<&'a Name>, target: &'a TargetKey) -> Self {
        Self { rule, target, decisions: Vec::new() }
    }

    /// What a notification says of these alerts, answered.
    pub(super) fn reply(&mut self, outcome: Outcome, alerts: Vec<AlertKey>) {
        self.add(outcome, alerts, true);
    }

    /// What became of something that waited, or came due.
    pub(super) fn record(&mut self, outcome: Outcome, alerts: Vec<AlertKey>) {
        self.add(outcome, alerts, false);
    }

    /// The same, unless it is about nothing.
    pub(super) fn record_if_any(&mut self, outcome: Outcome, alerts: Vec<AlertKey>) {
        if !alerts.is_empty() {
            self.record(outcome, alerts);
        }
    }

    fn add(&mut self, outcome: Outcome, alerts: Vec<AlertKey>, is_reply: bool) {
        let Outcome { verdict, detail, until, context: about, event, shadow } = outcome;
        let Some(verdict) = verdict else { return };
        let (phase, episode, action) = match about {
            Some(EpisodeContext { phase, episode, action }) => (Some(phase), Some(episode), action),
            None => (None, None, None),
        };
        let acts = event.is_some() || shadow.is_some();
        let same = |known: &&mut Decision| {
            !acts
                && (known.verdict, known.is_reply, known.until) == (verdict, is_reply, until)
                && (known.phase, known.action) == (phase, action)
                && (&known.detail, &known.episode) == (&detail, &episode)
                && known.event.is_none()
                && known.shadow.is_none()
        };
        if let Some(known) = self.decisions.iter_mut().find(same) {
            known.alerts.extend(alerts);
            return;
        }
        self.decisions.push(Decision {
            rule: self.rule.cloned(),
            target: Some(self.target.clone()),
            is_reply,
            phase,
            episode,
            action,
            detail,
            until,
            event,
            shadow,
            ..Decision::new(verdict, alerts)
        });
    }
}
