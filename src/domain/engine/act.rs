//! Acting: what stands in the way of an action, and the event when nothing does.

use super::{Context, emit};
use crate::domain::event::{Event, EventAlert};
use crate::domain::name::Name;
use crate::domain::rule::{Action, Change, FiringAction, Mode, Repeat, Rule};
use crate::domain::state::{AlertKey, Cause, Cooldowns, Episode, Kept, Occurrence};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Phase, Verdict};

/// The outcome for some alerts.
pub struct Outcome {
    verdict: Verdict,
    detail: Option<String>,
    until: Option<Time>,
    event: Option<Event>,
}

impl Outcome {
    pub fn quiet(verdict: Verdict) -> Self {
        Self { verdict, detail: None, until: None, event: None }
    }

    pub fn because(verdict: Verdict, detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..Self::quiet(verdict) }
    }

    pub fn stopped(verdict: Verdict, until: Option<Time>) -> Self {
        Self { until, ..Self::quiet(verdict) }
    }
}

/// One chance of a rule to act on a target.
pub struct Act<'a> {
    pub context: &'a Context<'a>,
    pub key: &'a TargetKey,
    pub rule: &'a Rule,
    pub cause: Cause,
    /// Whether the notification left out alerts.
    pub truncated: bool,
    /// Whether another rule has an episode open that added capacity.
    pub outranked: bool,
    pub sequence: &'a mut u64,
    pub cooldowns: &'a mut Cooldowns,
    /// See [`crate::domain::state::RuleState::spent`].
    pub spent: &'a mut Vec<Time>,
}

/// What stops an action: the verdict, and when it is looked at again, if that is known.
type Stop = (Verdict, Option<Time>);

impl Act<'_> {
    /// Something opened in this episode: `alerts`, which are in it already. `had_grown` tells whether
    /// what is kept was still supported before.
    pub fn on_firing(
        &mut self,
        episode: &mut Episode,
        is_new: bool,
        had_grown: bool,
        alerts: &[AlertKey],
        book: &mut Book<'_>,
    ) -> Outcome {
        let Some(firing) = &self.rule.on_firing else {
            return Outcome::quiet(Verdict::NoAction);
        };
        let acts = is_new || firing.repeat == Repeat::OnGrowth;
        if !acts || !episode.has_grown(Mode::Active) {
            return Outcome::quiet(Verdict::NoAction);
        }
        // What had lost its support does not come back by what opens now; that waits for itself.
        if let Some(older) = episode.kept.take_if(|kept| !kept.by_clock && !had_grown) {
            book.add(Outcome::because(Verdict::Withdrawn, "it shrank again meanwhile"), older.alerts);
        }
        if let Some(outcome) = self.refuse(&firing.action.change, episode) {
            return outcome;
        }
        // The newest takes the place of what is kept. Its wait goes on: the need for it never ended.
        let older = episode.kept.take();
        let asked = older.as_ref().filter(|kept| !kept.by_clock);
        let since = asked.map_or(self.context.now, |kept| kept.since);
        // Of a repetition that no guard has stopped yet nobody was told.
        if let Some(older) = older.filter(|kept| !kept.alerts.is_empty()) {
            book.add(Outcome::because(Verdict::Withdrawn, "a newer one takes its place"), older.alerts);
        }
        self.fire(episode, since, alerts, false)
    }

    /// The `on_firing` action, asked for since `since` by `alerts` or by our own clock: emitted, or kept
    /// in the episode by a guard.
    pub fn fire(
        &mut self,
        episode: &mut Episode,
        since: Time,
        alerts: &[AlertKey],
        by_clock: bool,
    ) -> Outcome {
        if self.rule.mode == Mode::Disabled {
            return Outcome::quiet(Verdict::Disabled);
        }
        let Some(firing) = &self.rule.on_firing else {
            return Outcome::because(Verdict::Withdrawn, "the rule has no on_firing any more");
        };
        if let Some(outcome) = self.refuse(&firing.action.change, episode) {
            return outcome;
        }
        // An episode that repeats has been through its window.
        let calm_since = if by_clock { episode.opened_at } else { since };
        if let Some((verdict, due)) = self.guard(&firing.action, calm_since) {
            episode.kept = Some(Kept { by_clock, ..self.keep(&firing.action, since, due, alerts) });
            return Outcome::stopped(verdict, due);
        }
        let shown: Vec<EventAlert> = episode.open.iter().map(emit::alert).collect();
        let metrics = episode.open.iter().filter_map(|open| open.metric).collect();
        let emission = episode.emissions + 1;
        let outcome = self.emit(Phase::Firing, &firing.action, episode, emission, shown, metrics);
        if outcome.verdict == Verdict::Emitted {
            episode.emissions = emission;
            episode.most_open = episode.open_count();
            episode.kept = self.repeat(firing, emission);
        }
        outcome
    }

    /// The `on_resolved` action of an episode that closed with `closed`, asked for since `since`. What a
    /// guard stops for a time is given back, to be kept.
    pub fn on_resolved(
        &mut self,
        episode: &Episode,
        closed: &[Occurrence],
        since: Time,
        alerts: &[AlertKey],
    ) -> (Outcome, Option<Kept>) {
        if self.rule.mode == Mode::Disabled {
            return (Outcome::quiet(Verdict::Disabled), None);
        }
        let Some(resolved) = &self.rule.on_resolved else {
            return (Outcome::quiet(Verdict::NoAction), None);
        };
        if episode.emissions == 0 {
            let detail = "this episode has emitted nothing to undo";
            return (Outcome::because(Verdict::NoEvidence, detail), None);
        }
        if self.truncated {
            return (Outcome::because(Verdict::NoEvidence, TRUNCATED), None);
        }
        if let Some(outcome) = self.refuse(&resolved.action.change, episode) {
            return (outcome, None);
        }
        if let Some((verdict, due)) = self.guard(&resolved.action, since) {
            let kept = self.keep(&resolved.action, since, due, alerts);
            return (Outcome::stopped(verdict, due), Some(kept));
        }
        let shown = closed.iter().map(emit::alert).collect();
        (self.emit(Phase::Resolved, &resolved.action, episode, 1, shown, Vec::new()), None)
    }

    /// Capacity is only taken away on positive evidence.
    fn refuse(&self, change: &Change, episode: &Episode) -> Option<Outcome> {
        if !change.takes_away() {
            None
        } else if self.truncated {
            Some(Outcome::because(Verdict::NoEvidence, TRUNCATED))
        } else if episode.adopted {
            Some(Outcome::because(Verdict::NoEvidence, "it began before this store was created"))
        } else if episode.expired {
            Some(Outcome::because(Verdict::NoEvidence, "an alert of it was not heard of any more"))
        } else {
            None
        }
    }

    /// The first guard that stops the action.
    fn guard(&self, action: &Action, since: Time) -> Option<Stop> {
        let now = self.context.now;
        if self.outranked && action.change.takes_away() {
            return Some((Verdict::Outranked, None));
        }
        let calm = since.after(action.stabilization_window);
        if calm > now {
            return Some((Verdict::Stabilizing, Some(calm)));
        }
        if let Some(until) = self.cooldowns.blocks(&action.change, now) {
            return Some((Verdict::CoolingDown, Some(until)));
        }
        let events = self.rule.budget?.events.get() as usize;
        let mut spent: Vec<Time> = self.spent.iter().copied().filter(|free| *free > now).collect();
        spent.sort_unstable();
        let frees = spent.len().checked_sub(events).map(|at| spent[at]);
        frees.map(|free| (Verdict::OverBudget, Some(free)))
    }

    fn keep(&self, action: &Action, since: Time, due: Option<Time>, alerts: &[AlertKey]) -> Kept {
        let longest = action.stabilization_window.saturating_add(self.context.policy.max_deferral);
        let give_up = action.change.takes_away().then(|| since.after(longest));
        Kept {
            since,
            due,
            give_up,
            by_clock: false,
            stopped_by: None,
            alerts: alerts.to_vec(),
            cause: self.cause.clone(),
        }
    }

    /// Whether the rule, as it is now, acts again by our own clock after that many emissions.
    pub fn repeats(&self, emissions: u32) -> bool {
        let repeat = self.rule.on_firing.as_ref().map(|firing| firing.repeat);
        matches!(repeat, Some(Repeat::WhileFiring { max_emissions }) if emissions < max_emissions.get())
    }

    /// What `repeat: while_firing` does after an emission: the same again after the cooldown.
    fn repeat(&self, firing: &FiringAction, emission: u32) -> Option<Kept> {
        let Repeat::WhileFiring { max_emissions } = firing.repeat else { return None };
        let next = self.context.now.after(firing.action.cooldown);
        let kept = || Kept { by_clock: true, ..self.keep(&firing.action, next, Some(next), &[]) };
        (emission < max_emissions.get() && next > self.context.now).then(kept)
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
        let Some(target) = episode.target.target().cloned() else {
            return Outcome::because(Verdict::NoAction, "it is not about a target");
        };
        let adjustment = match emit::adjustment(&action.change, &self.rule.limits, &metrics) {
            Ok(adjustment) => adjustment,
            Err(error) => return Outcome::because(Verdict::Invalid, &error),
        };
        *self.sequence = self.context.now.as_micros().max(self.sequence.saturating_add(1));
        self.cooldowns.emitted(action, self.context.now);
        if let Some(budget) = self.rule.budget {
            self.spent.retain(|free| *free > self.context.now);
            self.spent.push(self.context.now.after(budget.per));
        }
        let event = Event {
            id: emit::event_id(&self.rule.name, self.key, phase, &episode.id, emission),
            action: action.change.action(),
            time: self.context.now,
            sequence: *self.sequence,
            expires_after: self.rule.expires_after,
            rule: self.rule.name.clone(),
            phase,
            adjustment,
            target: target,
            limits: self.rule.limits,
            reason: emit::reason(phase, &alerts),
            episode: emit::episode_ref(episode, emission),
            alerts,
            cause: self.cause.clone(),
            parameters: episode.parameters.clone(),
        };
        Outcome { event: Some(event), ..Outcome::quiet(Verdict::Emitted) }
    }
}

const TRUNCATED: &str = "the notification left out alerts (max_alerts)";

/// The decisions of one rule at one target; alerts with the same outcome stand together.
pub struct Book<'a> {
    rule: &'a Name,
    target: &'a TargetKey,
    pub decisions: Vec<Decision>,
}

impl<'a> Book<'a> {
    pub fn new(rule: &'a Name, target: &'a TargetKey) -> Self {
        Self { rule, target, decisions: Vec::new() }
    }

    pub fn rule(&self) -> &'a Name {
        self.rule
    }

    pub fn add(&mut self, outcome: Outcome, alerts: Vec<AlertKey>) {
        let Outcome { verdict, detail, until, event } = outcome;
        let same = |known: &&mut Decision| {
            known.verdict == verdict
                && known.event.is_none()
                && event.is_none()
                && known.until == until
                && known.detail == detail
        };
        match self.decisions.iter_mut().find(same) {
            Some(known) => known.alerts.extend(alerts),
            None => self.decisions.push(Decision {
                rule: Some(self.rule.clone()),
                target: Some(self.target.clone()),
                detail,
                until,
                event: event.map(Box::new),
                ..Decision::new(verdict, alerts)
            }),
        }
    }
}
