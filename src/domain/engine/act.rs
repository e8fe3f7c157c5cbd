//! Acting: what an episode asks for, and the event when nothing stands in its way.

use std::sync::Arc;

use super::desk::Desk;
use super::emit;
use super::guard::Stop;
use crate::domain::event::{Event, EventAlert};
use crate::domain::name::Name;
use crate::domain::rate::Place;
use crate::domain::rule::{Action, Change, FiringAction, Mode, Repeat, Rule};
use crate::domain::state::{AlertKey, Cause, Cooldowns, Episode, Kept, Occurrence, Shadow};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Phase, Verdict};

/// The outcome for some alerts.
#[derive(Default)]
pub struct Outcome {
    verdict: Option<Verdict>,
    detail: Option<String>,
    until: Option<Time>,
    about: Option<About>,
    event: Option<Box<Event>>,
    /// What `mode: shadow` would have sent.
    shadow: Option<Box<Event>>,
}

/// Which end of which episode, and what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct About {
    phase: Phase,
    episode: Arc<str>,
    action: Option<&'static str>,
}

impl Outcome {
    pub fn quiet(verdict: Verdict) -> Self {
        Self { verdict: Some(verdict), ..Self::default() }
    }

    pub fn because(verdict: Verdict, detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..Self::quiet(verdict) }
    }

    pub fn stopped(verdict: Verdict, until: Option<Time>) -> Self {
        Self { until, ..Self::quiet(verdict) }
    }

    pub fn stopped_because(verdict: Verdict, until: Option<Time>, detail: String) -> Self {
        Self { detail: Some(detail), ..Self::stopped(verdict, until) }
    }

    /// Says what it is about.
    pub fn about(self, phase: Phase, episode: &Episode, rule: Option<&Rule>) -> Self {
        let change = rule.and_then(|rule| change_of(rule, phase));
        let about = About { phase, episode: episode.id.clone(), action: change.map(Change::action) };
        Self { about: Some(about), ..self }
    }

    /// Whether it is what was said of `kept` already.
    pub fn is_said_of(&self, kept: &Kept) -> bool {
        self.verdict.is_some() && self.verdict == kept.stopped_by && self.until == kept.due
    }
}

/// What a rule asks for at one end of an episode.
pub fn change_of(rule: &Rule, phase: Phase) -> Option<&Change> {
    let action = match phase {
        Phase::Firing => rule.on_firing.as_ref().map(|firing| &firing.action),
        Phase::Resolved => rule.on_resolved.as_ref().map(|resolved| &resolved.action),
    };
    action.map(|action| &action.change)
}

/// What earlier emissions block: of all active rules about the target, or of one rule in `mode: shadow`.
pub struct Ledger<'a> {
    pub sequence: &'a mut u64,
    pub cooldowns: &'a mut Cooldowns,
    /// See [`crate::domain::state::RuleState::spent`].
    pub spent: &'a mut Vec<Time>,
}

impl<'a> Ledger<'a> {
    /// That of a rule's mode. What is made for a shadow is forgotten again when it stays empty.
    pub fn of(mode: Mode, own: Self, shadow: &'a mut Option<Box<Shadow>>) -> Self {
        match mode {
            Mode::Active | Mode::Disabled => own,
            Mode::Shadow => {
                let shadow = &mut **shadow.get_or_insert_default();
                Self { sequence: own.sequence, cooldowns: &mut shadow.cooldowns, spent: &mut shadow.spent }
            }
        }
    }
}

/// One chance of a rule to act on a target.
pub struct Act<'a, 'd> {
    pub desk: &'a mut Desk<'d>,
    pub key: &'a TargetKey,
    pub rule: &'a Rule,
    pub cause: Arc<Cause>,
    /// Whether the notification left out alerts.
    pub truncated: bool,
    /// Another rule that has an episode open that added capacity, if there is one.
    pub outranked: Option<Name>,
    pub ledger: Ledger<'a>,
}

impl Act<'_, '_> {
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
        if !acts || !episode.has_grown(self.rule.mode) {
            return Outcome::quiet(Verdict::NoAction);
        }
        let about =
            |outcome: Outcome, episode: &Episode| outcome.about(Phase::Firing, episode, Some(self.rule));
        // What had lost its support does not come back by what opens now; that waits for itself.
        if let Some(older) = episode.kept.take_if(|kept| !kept.by_clock && !had_grown) {
            self.desk.let_go(&older);
            let outcome = Outcome::because(Verdict::Withdrawn, SHRANK);
            book.note_if_any(about(outcome, episode), older.alerts);
        }
        if let Some(outcome) = self.refuse(&firing.action.change, episode) {
            return outcome;
        }
        // The newest takes the place of what is kept. Its wait goes on: the need for it never ended.
        let older = episode.kept.take();
        let asked = older.as_ref().filter(|kept| !kept.by_clock);
        let since = asked.map_or(self.desk.context.now, |kept| kept.since);
        let place = older.as_ref().and_then(Kept::place);
        // Of a repetition that no guard has stopped yet nobody was told.
        if let Some(older) = older {
            let outcome = Outcome::because(Verdict::Withdrawn, "a newer one takes its place");
            book.note_if_any(about(outcome, episode), older.alerts);
        }
        let fired = self.fire(episode, &Asked { since, place, by_clock: false, alerts });
        if let Some(place) = place.filter(|place| episode.kept.as_ref().and_then(Kept::place) != Some(*place))
        {
            self.desk.rates.give_back(place);
        }
        fired
    }

    /// The `on_firing` action: emitted, or kept in the episode by a guard.
    pub fn fire(&mut self, episode: &mut Episode, asked: &Asked<'_>) -> Outcome {
        let rule = self.rule;
        if rule.mode == Mode::Disabled {
            return Outcome::quiet(Verdict::Disabled);
        }
        let Some(firing) = &rule.on_firing else {
            return Outcome::because(Verdict::Withdrawn, "the rule has no on_firing any more");
        };
        if let Some(outcome) = self.refuse(&firing.action.change, episode) {
            return outcome;
        }
        // An episode that repeats has been through its window.
        let calm_since = if asked.by_clock { episode.opened_at } else { asked.since };
        if let Some(stop) = self.guard(&firing.action, episode, calm_since, asked.place) {
            episode.kept = Some(self.keep(&firing.action, &stop, asked));
            return stop.into_outcome();
        }
        let shown: Vec<EventAlert> = episode.open.iter().map(emit::alert).collect();
        let metrics = episode.open.iter().filter_map(|open| open.metric).collect();
        let emission = episode.told(rule.mode).emissions.saturating_add(1);
        let outcome = self.emit(Phase::Firing, &firing.action, episode, emission, shown, metrics);
        if matches!(outcome.verdict, Some(Verdict::Emitted | Verdict::Shadowed)) {
            episode.tell(rule.mode);
            episode.kept = self.repeat(firing, emission);
        }
        outcome
    }

    /// The `on_resolved` action of an episode that closed with `closed`. What a guard stops for a time is
    /// given back, to be kept.
    pub fn on_resolved(
        &mut self,
        episode: &Episode,
        closed: &[Occurrence],
        asked: &Asked<'_>,
    ) -> (Outcome, Option<Kept>) {
        let rule = self.rule;
        if rule.mode == Mode::Disabled {
            return (Outcome::quiet(Verdict::Disabled), None);
        }
        let Some(resolved) = &rule.on_resolved else {
            return (Outcome::quiet(Verdict::NoAction), None);
        };
        if episode.told(rule.mode).emissions == 0 {
            let detail = "this episode has emitted nothing to undo";
            return (Outcome::because(Verdict::NoEvidence, detail), None);
        }
        if self.truncated {
            return (Outcome::because(Verdict::NoEvidence, TRUNCATED), None);
        }
        if let Some(outcome) = self.refuse(&resolved.action.change, episode) {
            return (outcome, None);
        }
        if let Some(stop) = self.guard(&resolved.action, episode, asked.since, asked.place) {
            let kept = self.keep(&resolved.action, &stop, asked);
            return (stop.into_outcome(), Some(kept));
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

    fn keep(&self, action: &Action, stop: &Stop, asked: &Asked<'_>) -> Kept {
        let kept = self.to_come(action, asked.since, stop.due, asked);
        Kept { stopped_by: Some(stop.verdict), line: stop.line, ..kept }
    }

    fn to_come(&self, action: &Action, since: Time, due: Option<Time>, asked: &Asked<'_>) -> Kept {
        let deferral = self.desk.context.policy.max_deferral;
        let longest = action.stabilization_window.saturating_add(deferral);
        let give_up = action.change.takes_away().then(|| since.after(longest));
        let (alerts, cause) = (asked.alerts.to_vec(), self.cause.clone());
        let by_clock = asked.by_clock;
        Kept { since, due, line: None, give_up, by_clock, stopped_by: None, alerts, cause }
    }

    /// Whether the rule, as it is now, acts again by our own clock after that many emissions.
    pub fn repeats(&self, emissions: u32) -> bool {
        let repeat = self.rule.on_firing.as_ref().map(|firing| firing.repeat);
        matches!(repeat, Some(Repeat::WhileFiring { max_emissions }) if emissions < max_emissions.get())
    }

    /// What `repeat: while_firing` does after an emission: the same again after the cooldown.
    fn repeat(&self, firing: &FiringAction, emission: u32) -> Option<Kept> {
        let Repeat::WhileFiring { max_emissions } = firing.repeat else { return None };
        let now = self.desk.context.now;
        let next = now.after(firing.action.cooldown);
        let asked = Asked { since: next, place: None, by_clock: true, alerts: &[] };
        let kept = || self.to_come(&firing.action, next, Some(next), &asked);
        (emission < max_emissions.get() && next > now).then(kept)
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
        let now = self.desk.context.now;
        let Some(target) = episode.target.target().cloned() else {
            return Outcome::because(Verdict::NoAction, "it is not about a target");
        };
        debug_assert_eq!(target.key(), *self.key);
        let adjustment = match emit::adjustment(&action.change, &self.rule.limits, &metrics) {
            Ok(adjustment) => adjustment,
            Err(error) => return Outcome::because(Verdict::Invalid, &error),
        };
        let sequence = now.as_micros().max(self.ledger.sequence.saturating_add(1));
        self.ledger.cooldowns.emitted(action, now);
        if let Some(budget) = self.rule.budget {
            self.ledger.spent.retain(|free| *free > now);
            self.ledger.spent.push(now.after(budget.per));
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
            cause: self.cause.clone(),
            parameters: episode.parameters.clone(),
        });
        if self.rule.mode == Mode::Shadow {
            return Outcome { shadow: Some(event), ..Outcome::quiet(Verdict::Shadowed) };
        }
        *self.ledger.sequence = sequence;
        self.desk.rates.emitted(self.desk.context.policy.per_minute, &action.change, now);
        Outcome { event: Some(event), ..Outcome::quiet(Verdict::Emitted) }
    }
}

/// What is asked for: by whom, and since when.
pub struct Asked<'a> {
    pub since: Time,
    /// The place that it was given when the process's limits stopped it before.
    pub place: Option<Place>,
    /// Whether `repeat: while_firing` asks.
    pub by_clock: bool,
    /// The alerts that it is about.
    pub alerts: &'a [AlertKey],
}

const TRUNCATED: &str = "the notification left out alerts (max_alerts)";
/// Growth that was over before a guard let it pass.
pub const SHRANK: &str = "it shrank again meanwhile";

/// The decisions of one rule at one target; alerts with the same outcome stand together.
pub struct Book<'a> {
    rule: Option<&'a Name>,
    target: &'a TargetKey,
    pub decisions: Vec<Decision>,
}

impl<'a> Book<'a> {
    pub fn new(rule: Option<&'a Name>, target: &'a TargetKey) -> Self {
        Self { rule, target, decisions: Vec::new() }
    }

    /// What a notification says of these alerts, answered.
    pub fn answer(&mut self, outcome: Outcome, alerts: Vec<AlertKey>) {
        self.add(outcome, alerts, true);
    }

    /// What became of something that waited, or came due.
    pub fn note(&mut self, outcome: Outcome, alerts: Vec<AlertKey>) {
        self.add(outcome, alerts, false);
    }

    /// The same, unless it is about nothing.
    pub fn note_if_any(&mut self, outcome: Outcome, alerts: Vec<AlertKey>) {
        if !alerts.is_empty() {
            self.note(outcome, alerts);
        }
    }

    fn add(&mut self, outcome: Outcome, alerts: Vec<AlertKey>, answers: bool) {
        let Outcome { verdict, detail, until, about, event, shadow } = outcome;
        let Some(verdict) = verdict else { return };
        let (phase, episode, action) = match about {
            Some(About { phase, episode, action }) => (Some(phase), Some(episode), action),
            None => (None, None, None),
        };
        let acts = event.is_some() || shadow.is_some();
        let same = |known: &&mut Decision| {
            !acts
                && (known.verdict, known.answers, known.until) == (verdict, answers, until)
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
            answers,
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
