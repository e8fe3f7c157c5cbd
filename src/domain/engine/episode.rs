//! Episodes: what a turn made of a rule's episode at a target, and what is done about it.

use std::collections::BTreeMap;

use super::act::{Act, Book, Outcome};
use super::{Context, emit};
use crate::domain::name::Name;
use crate::domain::state::{AlertKey, Cause, Closing, Episode, Kept, Occurrence, RuleState, TargetState};
use crate::domain::target::{Target, TargetKey};
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

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

/// Judges the episode after a turn, acts, and writes down what was decided.
pub fn settle(
    context: &Context<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    turn: Turn,
) -> Vec<Decision> {
    let rule = context.rules.rule(name);
    let mut book = Book::new(name, key);
    let TargetState { sequence, rules, cooldowns, .. } = state;
    let rule_state = rules.entry(name.clone()).or_default();
    let mut episode = rule_state.episode.take();
    let Turn { opened, closed, expired, late, quiet, cause, truncated } = turn;

    for (alert, verdict) in quiet {
        book.add(Outcome::quiet(verdict), vec![alert]);
    }
    for (alert, due) in late {
        book.add(Outcome::stopped(Verdict::Late, due), vec![alert]);
    }
    if !expired.is_empty() {
        book.add(Outcome::quiet(Verdict::Expired), expired);
    }
    let mut act = match (rule, cause) {
        (Some(rule), Some(cause)) => Some(Act { context, key, rule, cause, truncated, sequence, cooldowns }),
        _ => None,
    };
    if !opened.is_empty() {
        let alerts: Vec<AlertKey> = opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
        let outcome = match &mut act {
            Some(act) => {
                let (episode, is_new) = open(context, key, &mut episode, name, opened);
                act.on_firing(episode, is_new, &alerts, &mut book)
            }
            None => Outcome::because(Verdict::Withdrawn, "the rule is gone"),
        };
        book.add(outcome, alerts);
    }
    let over = episode.as_ref().is_some_and(|episode| episode.open.is_empty());
    if over && let Some(kept) = episode.as_mut().and_then(|episode| episode.kept.take()) {
        book.add(Outcome::because(Verdict::Withdrawn, "its episode is over"), kept.alerts);
    }
    if !closed.is_empty() {
        let alerts: Vec<AlertKey> = closed.iter().map(|closed| closed.alert.clone()).collect();
        let outcome = match (episode.take_if(|_| over), act) {
            (None, _) => Outcome::quiet(Verdict::StillOpen),
            (Some(episode), Some(mut act)) => {
                let since = context.now;
                let (outcome, kept) = act.on_resolved(&episode, &closed, since, &alerts);
                rule_state.closing = kept.map(|kept| Closing { episode, closed, kept });
                outcome
            }
            (Some(_), None) => Outcome::because(Verdict::NoAction, "the rule is gone"),
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
            kept: None,
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

/// Withdraws what was to be done about episodes that have closed, under any rule: something opened on
/// the target, so the calm that they were waiting for is over.
pub fn withdraw_closings(key: &TargetKey, state: &mut TargetState) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for (name, rule_state) in &mut state.rules {
        if let Some(closing) = rule_state.closing.take() {
            let mut book = Book::new(name, key);
            let outcome = Outcome::because(Verdict::Withdrawn, "something opened on the target");
            book.add(outcome, closing.kept.alerts);
            decisions.extend(book.decisions);
        }
    }
    state.rules.retain(|_, rule_state| !rule_state.is_empty());
    decisions
}

/// Looks again at what guards have stopped and whose time has come: emitted if it is still supported,
/// else withdrawn, or stopped by the next guard. What adds capacity comes first.
pub fn look_again(context: &Context<'_>, key: &TargetKey, state: &mut TargetState) -> Vec<Decision> {
    let due = |kept: &Kept| kept.due <= context.now;
    let mut waiting: Vec<(bool, Name, bool)> = Vec::new();
    for (name, rule_state) in &state.rules {
        let rule = context.rules.rule(name);
        if rule_state.episode.as_ref().and_then(|episode| episode.kept.as_ref()).is_some_and(due) {
            let firing = rule.and_then(|rule| rule.on_firing.as_ref());
            waiting.push((
                firing.is_some_and(|firing| firing.action.change.takes_away()),
                name.clone(),
                false,
            ));
        }
        if rule_state.closing.as_ref().is_some_and(|closing| due(&closing.kept)) {
            let resolved = rule.and_then(|rule| rule.on_resolved.as_ref());
            let takes_away = resolved.is_some_and(|resolved| resolved.action.change.takes_away());
            waiting.push((takes_away, name.clone(), true));
        }
    }
    waiting.sort();
    let mut decisions = Vec::new();
    for (_, name, closing) in waiting {
        let mut book = Book::new(&name, key);
        if closing {
            close_again(context, key, state, &name, &mut book);
        } else {
            fire_again(context, key, state, &name, &mut book);
        }
        decisions.extend(book.decisions);
        forget_if_empty(state, &name);
    }
    decisions
}

fn fire_again(
    context: &Context<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    book: &mut Book<'_>,
) {
    let TargetState { sequence, rules, cooldowns, .. } = state;
    let Some(episode) = rules.get_mut(name).and_then(|rule_state| rule_state.episode.as_mut()) else {
        return;
    };
    let Some(kept) = episode.kept.take() else { return };
    let outcome = match context.rules.rule(name) {
        None => Outcome::because(Verdict::Withdrawn, "the rule is gone"),
        Some(_) if !episode.has_grown() => Outcome::because(Verdict::Withdrawn, "it shrank again meanwhile"),
        Some(rule) => {
            let cause = kept.cause;
            let mut act = Act { context, key, rule, cause, truncated: false, sequence, cooldowns };
            act.fire(episode, kept.since, &kept.alerts)
        }
    };
    book.add(outcome, kept.alerts);
}

fn close_again(
    context: &Context<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    book: &mut Book<'_>,
) {
    let TargetState { sequence, rules, cooldowns, .. } = state;
    let Some(rule_state) = rules.get_mut(name) else { return };
    let Some(Closing { episode, closed, kept }) = rule_state.closing.take() else { return };
    let outcome = match context.rules.rule(name) {
        None => Outcome::because(Verdict::Withdrawn, "the rule is gone"),
        Some(rule) => {
            let cause = kept.cause;
            let mut act = Act { context, key, rule, cause, truncated: false, sequence, cooldowns };
            let (outcome, again) = act.on_resolved(&episode, &closed, kept.since, &kept.alerts);
            rule_state.closing = again.map(|kept| Closing { episode, closed, kept });
            outcome
        }
    };
    book.add(outcome, kept.alerts);
}

fn forget_if_empty(state: &mut TargetState, name: &Name) {
    if state.rules.get(name).is_some_and(RuleState::is_empty) {
        state.rules.remove(name);
    }
}
