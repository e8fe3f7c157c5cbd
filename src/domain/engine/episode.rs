//! Episodes: what a turn made of a rule's episode at a target, and what is done about it.

use std::collections::{BTreeMap, BTreeSet};

use super::act::{Act, Book, Outcome};
use super::{Context, emit};
use crate::domain::by_alert::{ByAlert, OfAlert};
use crate::domain::name::Name;
use crate::domain::rule::Mode;
use crate::domain::state::{
    AlertKey, Cause, Closing, Episode, Kept, Occurrence, RuleState, TargetState, Told,
};
use crate::domain::subject::Subject;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

/// What happened to one rule at one target at one moment.
#[derive(Default)]
pub struct Turn {
    /// Occurrences that open now; they are not in the episode yet.
    pub opened: ByAlert<Opened>,
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
    context: &Context<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    turn: Turn,
) -> Vec<Decision> {
    let rule = context.rules.rule(name);
    let outranked = is_outranked(context, state, name, !turn.opened.is_empty());
    let mut book = Book::new(name, key);
    let TargetState { sequence, rules, cooldowns, .. } = state;
    let rule_state = rules.entry(name.clone()).or_default();
    let spent = &mut rule_state.spent;
    let mut episode = rule_state.episode.take();
    let Turn { opened, closed, expired, late, quiet, cause, truncated } = turn;
    let left = closed.len() + expired.len();
    let had_grown = episode.as_ref().is_some_and(|it| it.open.len() + left > it.most_open as usize);

    for (alert, verdict) in quiet {
        book.add(Outcome::quiet(verdict), vec![alert]);
    }
    for (alert, due) in late {
        book.add(Outcome::stopped(Verdict::Late, Some(due)), vec![alert]);
    }
    if !expired.is_empty() {
        if let Some(episode) = &mut episode {
            episode.expired = true;
        }
        book.add(Outcome::quiet(Verdict::Expired), expired);
    }
    let mut act = match (rule, cause) {
        (Some(rule), Some(cause)) => {
            Some(Act { context, key, rule, cause, truncated, outranked, sequence, cooldowns, spent })
        }
        _ => None,
    };
    if !opened.is_empty() {
        let alerts: Vec<AlertKey> = opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
        let outcome = match &mut act {
            Some(act) => {
                let (episode, is_new) = open(context, key, &mut episode, name, opened);
                act.on_firing(episode, is_new, had_grown, &alerts, &mut book)
            }
            None => Outcome::because(Verdict::Withdrawn, RULE_GONE),
        };
        book.add(outcome, alerts);
    }
    let over = episode.as_ref().is_some_and(|episode| episode.open.is_empty());
    if over
        && let Some(kept) = episode.as_mut().and_then(|episode| episode.kept.take())
        && !kept.alerts.is_empty()
    {
        book.add(Outcome::because(Verdict::Withdrawn, "its episode is over"), kept.alerts);
    }
    if !closed.is_empty() {
        let alerts: Vec<AlertKey> = closed.iter().map(|closed| closed.alert.clone()).collect();
        let outcome = match (episode.take_if(|_| over), act) {
            (None, _) => Outcome::quiet(Verdict::StillOpen),
            (Some(episode), Some(mut act)) => {
                let since = context.now;
                let (outcome, kept) = act.on_resolved(&episode, &closed, since, &alerts);
                rule_state.closing = kept.map(|kept| Box::new(Closing { episode, closed, kept }));
                outcome
            }
            (Some(_), None) => Outcome::because(Verdict::NoAction, RULE_GONE),
        };
        book.add(outcome, alerts);
    }
    rule_state.episode = episode.filter(|_| !over);
    forget_if_empty(state, name);
    book.decisions
}

/// Puts what opens into the episode, a new one if there is none. Gives the episode and whether it is
/// new.
fn open<'a>(
    context: &Context<'_>,
    key: &TargetKey,
    episode: &'a mut Option<Box<Episode>>,
    rule: &Name,
    opened: ByAlert<Opened>,
) -> (&'a mut Episode, bool) {
    let is_new = episode.is_none();
    let id = if is_new { emit::episode_id(rule, key, &opened) } else { String::new() };
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
                sources: BTreeSet::new(),
                adopted: false,
                expired: false,
                kept: None,
                parameters: BTreeMap::new(),
            })
        });
        episode.adopted |= occurrence.starts_at < context.created;
        episode.parameters = parameters;
        episode.open.put(occurrence);
    }
    // `opened` is never empty here, so there is an episode now.
    let episode = episode.get_or_insert_with(|| unreachable!("something opened"));
    (episode, is_new)
}

/// Withdraws what was to be done about episodes that have closed, under any rule, and says `why`:
/// something opened on the target, so the calm that they were waiting for is over, or nobody knows what
/// became of an alert there.
pub fn withdraw_closings(key: &TargetKey, state: &mut TargetState, why: &str) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for (name, rule_state) in &mut state.rules {
        if let Some(closing) = rule_state.closing.take() {
            let mut book = Book::new(name, key);
            let outcome = Outcome::because(Verdict::Withdrawn, why);
            book.add(outcome, closing.kept.alerts);
            decisions.extend(book.decisions);
        }
    }
    state.rules.retain(|_, rule_state| !rule_state.is_empty());
    decisions
}

/// Whether another active rule has an episode open on the target that added capacity, or is about to.
/// `fires` tells the rule's `on_firing` from its `on_resolved`: of two that wait to set a capacity
/// neither stops the other, or both would wait for ever.
fn is_outranked(context: &Context<'_>, state: &TargetState, own: &Name, fires: bool) -> bool {
    let own_rule = context.rules.rule(own).filter(|_| fires);
    let adds_too =
        own_rule.and_then(|rule| rule.on_firing.as_ref()).is_some_and(|it| it.action.change.adds());
    state.rules.iter().filter(|(name, _)| *name != own).any(|(name, rule_state)| {
        let rule = context.rules.rule(name).filter(|rule| rule.mode == Mode::Active);
        let (Some(firing), Some(episode)) =
            (rule.and_then(|rule| rule.on_firing.as_ref()), &rule_state.episode)
        else {
            return false;
        };
        let change = &firing.action.change;
        let waits = episode.kept.is_some() && !(adds_too && change.takes_away());
        change.adds() && (episode.emissions > 0 || waits)
    })
}

/// Looks again at what guards have stopped and whose time has come, or whose obstacle has gone: emitted
/// if it is still supported, else withdrawn, or stopped by the next guard. What adds capacity comes
/// first.
pub fn look_again(context: &Context<'_>, key: &TargetKey, state: &mut TargetState) -> Vec<Decision> {
    let mut seen: BTreeSet<Name> = BTreeSet::new();
    let mut decisions = Vec::new();
    // One after the other, each once: what becomes of one may free another.
    loop {
        let waiting = state.rules.iter().filter(|(name, _)| !seen.contains(*name));
        let waiting = waiting.filter_map(|(name, rule_state)| {
            let kept = rule_state.kept()?;
            let fires = rule_state.episode.is_some();
            let free = || kept.due.is_none() && !is_outranked(context, state, name, fires);
            (kept.is_due(context.now) || free()).then(|| (kept.give_up.is_some(), name, fires))
        });
        let Some((_, name, fires)) = waiting.min() else { return decisions };
        let name = name.clone();
        let outranked = is_outranked(context, state, &name, fires);
        let mut book = Book::new(&name, key);
        again(context, key, state, outranked, &mut book);
        decisions.extend(book.decisions);
        forget_if_empty(state, &name);
        seen.insert(name);
    }
}

/// The action that a rule has kept.
fn again(
    context: &Context<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    outranked: bool,
    book: &mut Book<'_>,
) {
    let TargetState { sequence, rules, cooldowns, .. } = state;
    let Some(rule_state) = rules.get_mut(book.rule()) else { return };
    let Some(cause) = rule_state.kept().map(|kept| kept.cause.clone()) else { return };
    let RuleState { episode, closing, spent, .. } = rule_state;
    let rule = context.rules.rule(book.rule());
    let act = rule.map(|rule| Act {
        context,
        key,
        rule,
        cause,
        truncated: false,
        outranked,
        sequence,
        cooldowns,
        spent,
    });
    let too_long = |kept: &Kept| kept.give_up.is_some_and(|give_up| give_up <= context.now);
    let withdrawn = |why| Outcome::because(Verdict::Withdrawn, why);
    if let Some(episode) = episode
        && let Some(kept) = episode.kept.take()
    {
        // A repetition is about whatever is open by now.
        let alerts = if kept.by_clock {
            episode.open.iter().map(|open| open.alert.clone()).collect()
        } else {
            kept.alerts.clone()
        };
        let outcome = match act {
            None => withdrawn(RULE_GONE),
            Some(_) if too_long(&kept) => withdrawn(KEPT_TOO_LONG),
            Some(_) if !kept.by_clock && !episode.has_grown(Mode::Active) => {
                withdrawn("it shrank again meanwhile")
            }
            Some(act) if kept.by_clock && !act.repeats(episode.emissions) => {
                withdrawn("the rule repeats no more")
            }
            Some(mut act) => act.fire(episode, kept.since, &alerts, kept.by_clock),
        };
        book.add(outcome, alerts);
    } else if let Some(taken) = closing.take() {
        let Closing { episode, closed, kept } = *taken;
        let outcome = match act {
            None => withdrawn(RULE_GONE),
            Some(_) if too_long(&kept) => withdrawn(KEPT_TOO_LONG),
            Some(mut act) => {
                let (outcome, again) = act.on_resolved(&episode, &closed, kept.since, &kept.alerts);
                *closing = again.map(|kept| Box::new(Closing { episode, closed, kept }));
                outcome
            }
        };
        book.add(outcome, kept.alerts);
    }
}

const RULE_GONE: &str = "the rule is gone";
const KEPT_TOO_LONG: &str = "it was kept for longer than engine.max_deferral";

fn forget_if_empty(state: &mut TargetState, name: &Name) {
    if state.rules.get(name).is_some_and(RuleState::is_empty) {
        state.rules.remove(name);
    }
}
