//! What guards have stopped, taken up again.

use std::collections::BTreeSet;

use super::act::{Act, Asked, Book, Ledger, Outcome, SHRANK};
use super::desk::Desk;
use super::episode::{RULE_GONE, supersede, tidy};
use super::guard::{is_ripe, lost_support, outranked_by};
use super::occurrence::Touched;
use crate::domain::name::Name;
use crate::domain::rule::Mode;
use crate::domain::state::{AlertKey, Closing, Kept, RuleState, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::verdict::{Decision, Phase, Verdict};

const KEPT_TOO_LONG: &str = "it was kept for longer than engine.max_deferral";

/// Withdraws what was to be done about episodes that have closed, and says `why`: something opened on the
/// target, so the calm that they were waiting for is over, or nobody knows what became of an alert there.
pub fn withdraw_closings(
    desk: &mut Desk<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    touched: &Touched,
    why: &str,
) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for (name, rule_state) in state.rules.iter_mut() {
        let touches = match touched {
            Touched::All => true,
            Touched::Own(names) => names.contains(name),
        };
        if let Some(closing) = rule_state.closing.take_if(|_| touches) {
            desk.let_go(&closing.kept);
            let mut book = Book::new(Some(name), key);
            let outcome = Outcome::because(Verdict::Withdrawn, why);
            let outcome = outcome.about(Phase::Resolved, &closing.episode, desk.rule(name));
            book.note(outcome, closing.kept.alerts);
            decisions.extend(book.decisions);
        }
    }
    state.rules.retain(|_, rule_state| !rule_state.is_empty());
    decisions
}

/// Looks again at what guards have stopped and whose time has come, or whose obstacle has gone: emitted
/// if it is still supported, else withdrawn, or stopped by the next guard. What adds capacity comes
/// first.
pub fn look_again(desk: &mut Desk<'_>, key: &TargetKey, state: &mut TargetState) -> Vec<Decision> {
    let mut seen: BTreeSet<Name> = BTreeSet::new();
    let mut decisions = Vec::new();
    // One after the other, each once: what becomes of one may free another.
    loop {
        let waiting = state.rules.iter().filter(|(name, _)| !seen.contains(*name));
        let ripe = waiting.filter(|(name, _)| is_ripe(desk, key, state, name));
        let order = ripe.filter_map(|(name, rule)| Some((rule.kept()?.give_up.is_some(), name)));
        let Some((_, name)) = order.min() else { return decisions };
        let name = name.clone();
        let taken_up = again(desk, key, state, &name);
        let superseded = supersede(desk, key, &taken_up);
        decisions.extend(taken_up.into_iter().chain(superseded));
        tidy(state, &name);
        seen.insert(name);
    }
}

/// The action that a rule has kept.
fn again(desk: &mut Desk<'_>, key: &TargetKey, state: &mut TargetState, name: &Name) -> Vec<Decision> {
    let rule = desk.rule(name);
    let fires = state.rules.get(name).is_some_and(|rule_state| rule_state.episode.is_some());
    let outranked = outranked_by(desk, state, name, fires);
    let TargetState { sequence, rules, cooldowns, .. } = state;
    let Some(rule_state) = rules.get_mut(name) else { return Vec::new() };
    let Some(kept) = take_kept(rule_state) else { return Vec::new() };
    let RuleState { episode, closing, spent, shadow, .. } = rule_state;
    let taken = closing.take();
    let lost = match (&*episode, &taken) {
        (Some(episode), _) => lost_support(desk, name, Phase::Firing, episode, &kept),
        (None, Some(closing)) => lost_support(desk, name, Phase::Resolved, &closing.episode, &kept),
        (None, None) => None,
    };
    let too_long = kept.give_up.is_some_and(|give_up| give_up <= desk.context.now);
    let lost = lost.or_else(|| too_long.then(|| KEPT_TOO_LONG.to_owned()));
    let mut act = rule.map(|rule| {
        let cause = kept.cause.clone();
        let ledger = Ledger::of(rule.mode, Ledger { sequence, cooldowns, spent }, shadow);
        Act { desk: &mut *desk, key, rule, cause, truncated: false, outranked, ledger }
    });
    let withdrawn = |why: &str| Outcome::because(Verdict::Withdrawn, why);
    let mut book = Book::new(Some(name), key);
    // A repetition is about whatever is open by now.
    let alerts: Vec<AlertKey> = match &*episode {
        Some(episode) if kept.by_clock => episode.open.iter().map(|open| open.alert.clone()).collect(),
        _ => kept.alerts.clone(),
    };
    let asked = Asked { since: kept.since, place: kept.place(), by_clock: kept.by_clock, alerts: &alerts };
    let mode = rule.map_or(Mode::Active, |rule| rule.mode);
    let outcome = match (episode, taken, &mut act, &lost) {
        (_, _, None, _) => withdrawn(RULE_GONE),
        (_, _, _, Some(why)) => withdrawn(why),
        (Some(episode), ..) if !kept.by_clock && !episode.has_grown(mode) => withdrawn(SHRANK),
        (Some(episode), _, Some(act), _) if kept.by_clock && !act.repeats(episode.told(mode).emissions) => {
            withdrawn("the rule repeats no more")
        }
        (Some(episode), _, Some(act), _) => act.fire(episode, &asked).about(Phase::Firing, episode, rule),
        (None, Some(taken), Some(act), _) => {
            let Closing { episode, closed, .. } = *taken;
            let (outcome, again) = act.on_resolved(&episode, &closed, &asked);
            let outcome = outcome.about(Phase::Resolved, &episode, rule);
            *closing = again.map(|kept| Box::new(Closing { episode, closed, kept }));
            outcome
        }
        (None, None, ..) => return Vec::new(),
    };
    let still_waits = rule_state.kept();
    if still_waits.and_then(Kept::place) != kept.place() {
        desk.let_go(&kept);
    }
    // Of what is stopped as before nobody has to be told again.
    if !outcome.is_said_of(&kept) {
        book.note(outcome, alerts);
    }
    book.decisions
}

/// Takes out what an open episode has kept; what a closed one has kept is copied, and goes with its closing.
fn take_kept(rule_state: &mut RuleState) -> Option<Kept> {
    match (&mut rule_state.episode, &rule_state.closing) {
        (Some(episode), _) => episode.kept.take(),
        (None, Some(closing)) => Some(closing.kept.clone()),
        (None, None) => None,
    }
}
