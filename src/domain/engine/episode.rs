//! Episodes: what a turn made of a rule's episode at a target, and what is done about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::act::{Act, Asked, Book, Ledger, Outcome};
use super::desk::Desk;
use super::guard::outranked_by;
use super::{Context, emit};
use crate::domain::by_alert::{ByAlert, OfAlert};
use crate::domain::name::Name;
use crate::domain::rule::Mode;
use crate::domain::state::{
    AlertKey, Cause, Closing, Episode, Lapsed, Occurrence, RuleState, Shadow, TargetState, Told,
};
use crate::domain::subject::Subject;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Phase, Verdict};

/// What happened to one rule at one target at one moment.
#[derive(Default)]
pub struct Turn {
    /// Occurrences that open now; they are not in the episode yet.
    pub opened: ByAlert<Opened>,
    /// Whether an open occurrence has ended unheard and another of the same alert has taken its place.
    pub renewed: bool,
    /// Occurrences that resolved; they are not in the episode any more.
    pub closed: Vec<Occurrence>,
    /// Occurrences that expired; they are not in the episode any more.
    pub expired: Vec<AlertKey>,
    /// Firings that wait, and until when.
    pub late: Vec<(AlertKey, Time)>,
    /// What changed nothing.
    pub quiet: Vec<(AlertKey, Verdict)>,
    /// Firings that have lost their meaning.
    pub outdated: Vec<AlertKey>,
    /// The notification behind it; there is one whenever something opened or closed.
    pub cause: Option<Arc<Cause>>,
    /// Whether that notification left out alerts.
    pub truncated: bool,
}

/// An occurrence that opens.
pub struct Opened {
    pub occurrence: Occurrence,
    pub target: Subject,
    pub parameters: BTreeMap<String, String>,
    pub previous_end: Option<Time>,
}

impl OfAlert for Opened {
    fn alert(&self) -> &AlertKey {
        &self.occurrence.alert
    }
}

/// Judges the episode after a turn, acts, and writes down what was decided.
pub fn settle(
    desk: &mut Desk<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    turn: Turn,
) -> Vec<Decision> {
    let Context { now, policy, .. } = *desk.context;
    let rule = desk.rule(name);
    let mode = rule.map_or(Mode::Active, |rule| rule.mode);
    let outranked = outranked_by(desk, state, name, !turn.opened.is_empty());
    let mut book = Book::new(Some(name), key);
    let TargetState { sequence, rules, cooldowns, .. } = state;
    let rule_state = rules.get_or_default(name);
    let RuleState { spent, shadow, closing, lapsed, .. } = rule_state;
    let mut episode = rule_state.episode.take();
    let Turn { opened, closed, expired, late, quiet, outdated, cause, truncated, .. } = turn;
    let left = closed.len() + expired.len();
    let most_open = episode.as_ref().map_or(0, |it| it.told(mode).most_open as usize);
    let had_grown = episode.as_ref().is_some_and(|it| it.open.len() + left > most_open);

    for (alert, verdict) in quiet {
        book.answer(Outcome::quiet(verdict), vec![alert]);
    }
    for (alert, due) in late {
        book.answer(Outcome::stopped(Verdict::Late, Some(due)), vec![alert]);
    }
    book.note_if_any(Outcome::quiet(Verdict::Withdrawn), outdated);
    if !expired.is_empty() {
        if let Some(episode) = &mut episode {
            episode.expired = true;
        }
        book.note(Outcome::quiet(Verdict::Expired), expired);
    }
    let mut act = match (rule, cause) {
        (Some(rule), Some(cause)) => {
            let ledger = Ledger::of(mode, Ledger { sequence, cooldowns, spent }, shadow);
            Some(Act { desk: &mut *desk, key, rule, cause, truncated, outranked, ledger })
        }
        _ => None,
    };
    if !opened.is_empty() {
        let alerts: Vec<AlertKey> = opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
        let outcome = match &mut act {
            Some(act) => {
                let (episode, is_new) =
                    open(act.desk.context, key, &mut episode, name, opened, lapsed.as_deref());
                let outcome = act.on_firing(episode, is_new, had_grown, &alerts, &mut book);
                outcome.about(Phase::Firing, episode, rule)
            }
            None => Outcome::because(Verdict::Withdrawn, RULE_GONE),
        };
        book.answer(outcome, alerts);
    }
    let over = episode.as_ref().is_some_and(|episode| episode.open.is_empty());
    if let Some(Episode { id, .. }) = episode.as_deref().filter(|episode| over && episode.expired) {
        let until = now.after(policy.keep_lapsed);
        *lapsed = Some(Box::new(Lapsed { episode: id.clone(), until }));
    }
    let dropped = episode.as_mut().filter(|_| over).and_then(|episode| episode.kept.take());
    if let (Some(kept), Some(episode)) = (&dropped, &episode) {
        let outcome = Outcome::because(Verdict::Withdrawn, "its episode is over");
        book.note_if_any(outcome.about(Phase::Firing, episode, rule), kept.alerts.clone());
    }
    if !closed.is_empty() {
        let alerts: Vec<AlertKey> = closed.iter().map(|closed| closed.alert.clone()).collect();
        let outcome = match (episode.take_if(|_| over), &mut act) {
            (None, _) => Outcome::quiet(Verdict::StillOpen),
            (Some(episode), Some(act)) => {
                let asked = Asked { since: now, place: None, by_clock: false, alerts: &alerts };
                let (outcome, kept) = act.on_resolved(&episode, &closed, &asked);
                let outcome = outcome.about(Phase::Resolved, &episode, rule);
                *closing = kept.map(|kept| Box::new(Closing { episode, closed, kept }));
                outcome
            }
            (Some(_), None) => Outcome::because(Verdict::NoAction, RULE_GONE),
        };
        book.answer(outcome, alerts);
    }
    let mut decisions = book.decisions;
    if let Some(kept) = dropped {
        desk.let_go(&kept);
    }
    rule_state.episode = episode.filter(|_| !over);
    tidy(state, name);
    decisions.extend(supersede(desk, key, &decisions));
    decisions
}

/// What adds capacity cancels what would take it away and was not sent yet.
pub fn supersede(desk: &mut Desk<'_>, key: &TargetKey, decisions: &[Decision]) -> Vec<Decision> {
    let adds = decisions.iter().filter_map(|decision| decision.event.as_ref()).any(|event| event.adds());
    let cancelled = if adds { desk.supersede(key) } else { Vec::new() };
    let superseded = cancelled.into_iter().map(|unsent| {
        let why = format!("event {} was not sent yet, and capacity is added now", unsent.id);
        let mut book = Book::new(Some(&unsent.rule), key);
        book.note(Outcome::because(Verdict::Superseded, &why), unsent.alerts.clone());
        book.decisions
    });
    superseded.collect::<Vec<_>>().concat()
}

/// Puts what opens into the episode, a new one if there is none. Gives the episode and whether it is
/// new.
pub fn open<'a>(
    context: &Context<'_>,
    key: &TargetKey,
    episode: &'a mut Option<Box<Episode>>,
    rule: &Name,
    opened: ByAlert<Opened>,
    lapsed: Option<&Lapsed>,
) -> (&'a mut Episode, bool) {
    let is_new = episode.is_none();
    let id = if is_new { emit::episode_id(rule, key, &opened, lapsed) } else { Arc::default() };
    for Opened { occurrence, target, parameters, .. } in opened {
        let episode = episode.get_or_insert_with(|| {
            Box::new(Episode {
                id: id.clone(),
                target,
                opened_at: context.now,
                open: ByAlert::default(),
                emissions: 0,
                most_open: 0,
                shadowed: Told::default(),
                sources: Vec::new(),
                adopted: false,
                expired: false,
                kept: None,
                parameters: BTreeMap::new(),
            })
        });
        episode.adopted |= occurrence.starts_at < context.created;
        if let Err(at) = episode.sources.binary_search(&occurrence.alert.source) {
            episode.sources.insert(at, occurrence.alert.source.clone());
        }
        episode.parameters = parameters;
        episode.open.put(occurrence);
    }
    // `opened` is never empty here, so there is an episode now.
    let episode = episode.get_or_insert_with(|| unreachable!("something opened"));
    (episode, is_new)
}

pub const RULE_GONE: &str = "the rule is gone";

/// Forgets what a rule has here and is empty.
pub fn tidy(state: &mut TargetState, name: &Name) {
    let Some(rule_state) = state.rules.get_mut(name) else { return };
    rule_state.shadow.take_if(|shadow| **shadow == Shadow::default());
    if rule_state.is_empty() {
        state.rules.remove(name);
    }
}
