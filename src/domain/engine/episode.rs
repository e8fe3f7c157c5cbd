//! Episodes: what a turn made of a rule's episode at a target, and what is done about it.

use std::collections::BTreeMap;

use super::{Context, emit};
use crate::domain::event::{Event, EventAlert};
use crate::domain::name::Name;
use crate::domain::rule::{Change, Mode, Repeat, Rule};
use crate::domain::state::{AlertKey, Cause, Episode, Occurrence, TargetState};
use crate::domain::target::{Target, TargetKey};
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Phase, Verdict};

/// What happened to one rule at one target at one moment.
#[derive(Default)]
pub struct Turn {
    /// Occurrences that open now; they are not in the episode yet.
    pub opened: Vec<Opened>,
    /// Occurrences that resolved; they are not in the episode any more.
    pub closed: Vec<Occurrence>,
    /// Occurrences that expired; they are not in the episode any more.
    pub expired: Vec<AlertKey>,
    /// Firings that wait, and until when.
    pub late: Vec<(AlertKey, Time)>,
    /// What changed nothing.
    pub quiet: Vec<(AlertKey, Verdict)>,
    /// The notification behind it; there is one whenever something opened or closed.
    pub cause: Option<Cause>,
    /// Whether that notification left out alerts.
    pub truncated: bool,
}

/// An occurrence that opens.
pub struct Opened {
    pub occurrence: Occurrence,
    pub target: Target,
    pub parameters: BTreeMap<String, String>,
    pub previous_end: Option<Time>,
}

/// The outcome for some alerts.
struct Outcome {
    verdict: Verdict,
    detail: Option<String>,
    event: Option<Event>,
}

impl Outcome {
    fn quiet(verdict: Verdict) -> Self {
        Self { verdict, detail: None, event: None }
    }

    fn because(verdict: Verdict, detail: &str) -> Self {
        Self { verdict, detail: Some(detail.to_owned()), event: None }
    }
}

/// Judges the episode after a turn, acts, and writes down what was decided.
pub fn settle(
    context: &Context<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    turn: Turn,
) -> Vec<Decision> {
    let rule = context.rules.rule(name);
    let mut book = Book { rule: name, target: key, decisions: Vec::new() };
    let rule_state = state.rules.entry(name.clone()).or_default();
    let mut episode = rule_state.episode.take();
    let Turn { opened, closed, expired, late, quiet, cause, truncated } = turn;

    for (alert, verdict) in quiet {
        book.add(Outcome::quiet(verdict), None, vec![alert]);
    }
    for (alert, due) in late {
        book.add(Outcome::quiet(Verdict::Late), Some(due), vec![alert]);
    }
    if !expired.is_empty() {
        book.add(Outcome::quiet(Verdict::Expired), None, expired);
    }
    if !opened.is_empty() {
        let alerts = opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
        let outcome = match (rule, &cause) {
            (Some(rule), Some(cause)) => {
                let open = open(context, key, &mut episode, name, opened);
                let mut act = Act { context, key, rule, cause, truncated, sequence: &mut state.sequence };
                act.on_firing(open)
            }
            _ => Outcome::because(Verdict::Withdrawn, "the rule is gone"),
        };
        book.add(outcome, None, alerts);
    }
    let over = episode.as_ref().is_some_and(|episode| episode.open.is_empty());
    if !closed.is_empty() {
        let alerts = closed.iter().map(|closed| closed.alert.clone()).collect();
        let outcome = match (&episode, rule, &cause) {
            (Some(_), ..) if !over => Outcome::quiet(Verdict::StillOpen),
            (Some(episode), Some(rule), Some(cause)) => {
                let mut act = Act { context, key, rule, cause, truncated, sequence: &mut state.sequence };
                act.on_resolved(episode, &closed)
            }
            _ => Outcome::because(Verdict::NoAction, "the rule is gone"),
        };
        book.add(outcome, None, alerts);
    }
    rule_state.episode = episode.filter(|_| !over);
    if rule_state.is_empty() {
        state.rules.remove(name);
    }
    book.decisions
}

/// Puts what opens into the episode, a new one if there is none. Gives the episode and whether it is
/// new.
fn open<'a>(
    context: &Context<'_>,
    key: &TargetKey,
    episode: &'a mut Option<Episode>,
    rule: &Name,
    opened: Vec<Opened>,
) -> (&'a mut Episode, bool) {
    let is_new = episode.is_none();
    let id = if is_new { emit::episode_id(rule, key, &opened) } else { String::new() };
    for Opened { occurrence, target, parameters, .. } in opened {
        let episode = episode.get_or_insert_with(|| Episode {
            id: id.clone(),
            target,
            opened_at: context.now,
            open: Vec::new(),
            emissions: 0,
            most_open: 0,
            adopted: false,
            parameters: BTreeMap::new(),
        });
        episode.adopted |= occurrence.starts_at < context.created;
        episode.parameters = parameters;
        episode.open.push(occurrence);
    }
    // `opened` is never empty here, so there is an episode now.
    let episode = episode.get_or_insert_with(|| unreachable!("something opened"));
    (episode, is_new)
}

/// One chance to act.
struct Act<'a> {
    context: &'a Context<'a>,
    key: &'a TargetKey,
    rule: &'a Rule,
    cause: &'a Cause,
    truncated: bool,
    sequence: &'a mut u64,
}

impl Act<'_> {
    fn on_firing(&mut self, (episode, is_new): (&mut Episode, bool)) -> Outcome {
        if self.rule.mode == Mode::Disabled {
            return Outcome::quiet(Verdict::Disabled);
        }
        let Some(action) = &self.rule.on_firing else {
            return Outcome::quiet(Verdict::NoAction);
        };
        let open = u32::try_from(episode.open.len()).unwrap_or(u32::MAX);
        let grew = open > episode.most_open && action.repeat == Repeat::OnGrowth;
        if open == 0 || !(is_new || grew) {
            return Outcome::quiet(Verdict::NoAction);
        }
        if let Some(outcome) = self.refuse(&action.change, episode) {
            return outcome;
        }
        let alerts: Vec<EventAlert> = episode.open.iter().map(emit::alert).collect();
        let metrics = episode.open.iter().filter_map(|open| open.metric);
        let emission = episode.emissions + 1;
        let outcome = self.emit(Phase::Firing, &action.change, episode, emission, alerts, metrics.collect());
        if outcome.verdict == Verdict::Emitted {
            episode.emissions = emission;
            episode.most_open = open;
        }
        outcome
    }

    fn on_resolved(&mut self, episode: &Episode, closed: &[Occurrence]) -> Outcome {
        if self.rule.mode == Mode::Disabled {
            return Outcome::quiet(Verdict::Disabled);
        }
        let Some(action) = &self.rule.on_resolved else {
            return Outcome::quiet(Verdict::NoAction);
        };
        if episode.emissions == 0 {
            return Outcome::because(Verdict::NoEvidence, "this episode has emitted nothing to undo");
        }
        if self.truncated {
            return Outcome::because(Verdict::NoEvidence, "the notification left out alerts (max_alerts)");
        }
        if let Some(outcome) = self.refuse(&action.change, episode) {
            return outcome;
        }
        let alerts = closed.iter().map(emit::alert).collect();
        self.emit(Phase::Resolved, &action.change, episode, 1, alerts, Vec::new())
    }

    /// Capacity is only taken away on positive evidence.
    fn refuse(&self, change: &Change, episode: &Episode) -> Option<Outcome> {
        if !change.takes_away() {
            None
        } else if self.truncated {
            Some(Outcome::because(Verdict::NoEvidence, "the notification left out alerts (max_alerts)"))
        } else if episode.adopted {
            Some(Outcome::because(Verdict::NoEvidence, "it began before this store was created"))
        } else {
            None
        }
    }

    fn emit(
        &mut self,
        phase: Phase,
        change: &Change,
        episode: &Episode,
        emission: u32,
        alerts: Vec<EventAlert>,
        metrics: Vec<f64>,
    ) -> Outcome {
        let adjustment = match emit::adjustment(change, &self.rule.limits, &metrics) {
            Ok(adjustment) => adjustment,
            Err(error) => return Outcome::because(Verdict::Invalid, &error),
        };
        *self.sequence = self.context.now.as_micros().max(self.sequence.saturating_add(1));
        let event = Event {
            id: emit::event_id(&self.rule.name, self.key, phase, &episode.id, emission),
            action: change.action(),
            time: self.context.now,
            sequence: *self.sequence,
            expires_after: self.rule.expires_after,
            rule: self.rule.name.clone(),
            phase,
            adjustment,
            target: episode.target.clone(),
            limits: self.rule.limits,
            reason: emit::reason(phase, &alerts),
            episode: emit::episode_ref(episode, emission),
            alerts,
            cause: self.cause.clone(),
            parameters: episode.parameters.clone(),
        };
        Outcome { verdict: Verdict::Emitted, detail: None, event: Some(event) }
    }
}

/// The decisions of one turn; alerts with the same outcome stand together.
struct Book<'a> {
    rule: &'a Name,
    target: &'a TargetKey,
    decisions: Vec<Decision>,
}

impl Book<'_> {
    fn add(&mut self, outcome: Outcome, until: Option<Time>, alerts: Vec<AlertKey>) {
        let same = |known: &&mut Decision| {
            known.verdict == outcome.verdict
                && known.event.is_none()
                && outcome.event.is_none()
                && known.until == until
                && known.detail == outcome.detail
        };
        match self.decisions.iter_mut().find(same) {
            Some(known) => known.alerts.extend(alerts),
            None => self.decisions.push(Decision {
                rule: Some(self.rule.clone()),
                target: Some(self.target.clone()),
                verdict: outcome.verdict,
                detail: outcome.detail,
                until,
                alerts,
                event: outcome.event.map(Box::new),
            }),
        }
    }
}
