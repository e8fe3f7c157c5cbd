//! Outcomes, and the log that turns them into decisions.

use std::sync::Arc;

use crate::domain::alert_key::AlertKey;
use crate::domain::blocker::Blocker;
use crate::domain::event::Event;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::{Action, Change, Rule};
use crate::domain::state::{Deferred, Episode};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

/// The action that a rule requests in a phase of an episode.
pub(super) fn requested_action(rule: &Rule, phase: Phase) -> Option<&Action> {
    match phase {
        Phase::Firing => rule.on_firing.as_ref().map(|firing| &firing.action),
        Phase::Resolved => rule.on_resolved.as_ref().map(|resolved| &resolved.action),
    }
}

/// The outcome for one or more alerts.
#[derive(Default)]
pub(super) struct Outcome {
    verdict: Option<Verdict>,
    detail: Option<String>,
    blocked_by: Option<Box<Blocker>>,
    until: Option<Time>,
    context: Option<EpisodeContext>,
    event: Option<Box<Event>>,
    /// The event that a rule in `mode: shadow` would have emitted.
    shadow: Option<Box<Event>>,
}

/// The phase, the episode and the requested action of an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
struct EpisodeContext {
    phase: Phase,
    episode: Option<Arc<str>>,
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

    pub(super) fn blocked_by(verdict: Verdict, until: Option<Time>, blocker: Blocker) -> Self {
        let detail = Some(blocker.to_string());
        Self { detail, blocked_by: Some(Box::new(blocker)), ..Self::blocked(verdict, until) }
    }

    pub(super) fn and_detail(self, detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..self }
    }

    pub(super) fn emitted(event: Box<Event>) -> Self {
        Self { event: Some(event), ..Self::new(Verdict::Emitted) }
    }

    pub(super) fn shadowed(event: Box<Event>) -> Self {
        Self { shadow: Some(event), ..Self::new(Verdict::Shadowed) }
    }

    /// Adds the phase, the episode and the action that the rule requests.
    pub(super) fn for_episode(self, phase: Phase, episode: &Episode, rule: Option<&Rule>) -> Self {
        self.for_episode_with_id(phase, episode.id.clone(), rule)
    }

    /// Like [`Self::for_episode`].
    pub(super) fn for_episode_with_id(self, phase: Phase, id: Arc<str>, rule: Option<&Rule>) -> Self {
        let action = rule.and_then(|rule| requested_action(rule, phase));
        let action = action.map(|action| Change::action(&action.change));
        let context = EpisodeContext { phase, episode: Some(id), action };
        Self { context: Some(context), ..self }
    }

    /// Adds the `on_firing` action of the rule, which an alert that has not opened yet would request.
    pub(super) fn for_firing(self, rule: Option<&Rule>) -> Self {
        let action = rule.and_then(|rule| requested_action(rule, Phase::Firing));
        let Some(action) = action.map(|action| Change::action(&action.change)) else { return self };
        let context = EpisodeContext { phase: Phase::Firing, episode: None, action: Some(action) };
        Self { context: Some(context), ..self }
    }

    /// Whether the outcome was already recorded for `deferred`.
    pub(super) fn is_unchanged_from(&self, deferred: &Deferred) -> bool {
        self.verdict.is_some() && self.verdict == deferred.blocked_by && self.until == deferred.recheck_at
    }
}

/// The decisions of one rule at one target. Alerts with the same outcome share a decision.
pub(super) struct DecisionLog<'a> {
    rule: Option<&'a Name>,
    target: &'a TargetKey,
    pub decisions: Vec<Decision>,
}

impl<'a> DecisionLog<'a> {
    pub(super) fn new(rule: Option<&'a Name>, target: &'a TargetKey) -> Self {
        Self { rule, target, decisions: Vec::new() }
    }

    /// Adds the reply to alerts of a notification.
    pub(super) fn reply(&mut self, outcome: Outcome, alerts: Vec<AlertKey>) {
        self.add(outcome, alerts, true);
    }

    /// Adds a decision that is not a reply, for example about a deferred action.
    pub(super) fn record(&mut self, outcome: Outcome, alerts: Vec<AlertKey>) {
        self.add(outcome, alerts, false);
    }

    /// Like [`Self::record`], but does nothing if there are no alerts.
    pub(super) fn record_if_any(&mut self, outcome: Outcome, alerts: Vec<AlertKey>) {
        if !alerts.is_empty() {
            self.record(outcome, alerts);
        }
    }

    fn add(&mut self, outcome: Outcome, alerts: Vec<AlertKey>, is_reply: bool) {
        let Outcome { verdict, detail, blocked_by, until, context, event, shadow } = outcome;
        let Some(verdict) = verdict else { return };
        let (phase, episode, action) = match context {
            Some(EpisodeContext { phase, episode, action }) => (Some(phase), episode, action),
            None => (None, None, None),
        };
        let has_event = event.is_some() || shadow.is_some();
        let is_same = |known: &&mut Decision| {
            !has_event
                && (known.verdict, known.is_reply, known.until) == (verdict, is_reply, until)
                && (known.phase, known.action) == (phase, action)
                && (&known.detail, &known.episode) == (&detail, &episode)
                && known.event.is_none()
                && known.shadow.is_none()
        };
        if let Some(known) = self.decisions.iter_mut().find(is_same) {
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
            blocked_by,
            until,
            event,
            shadow,
            ..Decision::new(verdict, alerts)
        });
    }
}
