//! Holds and heartbeats: episodes about no target. They open and close as all others do, and what they do
//! is to set the controls.

use super::act::{Book, Outcome};
use super::desk::Desk;
use super::episode::{Turn, open};
use crate::domain::control::Hold;
use crate::domain::name::Name;
use crate::domain::state::{AlertKey, Episode, TargetState};
use crate::domain::subject::Subject;
use crate::domain::target::{KeyKind, TargetKey};
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

/// Judges a hold's or a heartbeat's episode after a turn, sets the controls, and writes down what was
/// decided.
pub fn settle(
    desk: &mut Desk<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    name: &Name,
    turn: Turn,
) -> Vec<Decision> {
    let now = desk.context.now;
    let is_heartbeat = key.kind() == KeyKind::Heartbeat;
    let mut book = Book::new(Some(name).filter(|_| !is_heartbeat), key);
    // Rules do not see a heartbeat, whatever becomes of it.
    let quiet = |verdict| Outcome::quiet(if is_heartbeat { Verdict::Heartbeat } else { verdict });
    let rule_state = state.rules.get_or_default(name);
    let mut episode = rule_state.episode.take();
    let Turn { opened, renewed, closed, expired, late, quiet: said, outdated, .. } = turn;

    for (alert, verdict) in said {
        book.answer(quiet(verdict), vec![alert]);
    }
    for (alert, due) in late {
        book.answer(Outcome::stopped(Verdict::Late, Some(due)), vec![alert]);
    }
    book.note_if_any(Outcome::quiet(Verdict::Withdrawn), outdated);
    let lapsed = !expired.is_empty();
    book.note_if_any(Outcome::quiet(Verdict::Expired), expired);
    if !opened.is_empty() {
        let alerts: Vec<AlertKey> = opened.iter().map(|opened| opened.occurrence.alert.clone()).collect();
        let (episode, is_new) = open(desk.context, key, &mut episode, name, opened, None);
        if is_new {
            begin(desk, name, key, &episode.target, now);
        }
        book.answer(quiet(Verdict::NoAction), alerts);
    }
    if let Some(episode) = episode.as_ref().filter(|_| renewed) {
        begin_anew(desk, episode);
    }
    let over = episode.as_ref().is_some_and(|episode| episode.open.is_empty());
    if !closed.is_empty() {
        let alerts = closed.iter().map(|closed| closed.alert.clone()).collect();
        book.answer(quiet(if over { Verdict::NoAction } else { Verdict::StillOpen }), alerts);
    }
    if let Some(episode) = episode.take_if(|_| over) {
        end(desk, name, key, &episode.target, now, lapsed);
    }
    rule_state.episode = episode;
    if rule_state.is_empty() {
        state.rules.remove(name);
    }
    book.decisions
}

fn begin(desk: &mut Desk<'_>, rule: &Name, key: &TargetKey, subject: &Subject, now: Time) {
    match subject {
        Subject::Hold(covers) => {
            let hold = Hold { covers: covers.clone(), since: now };
            desk.controls_mut().open_hold(rule, key, hold);
        }
        Subject::Heartbeat(source) => desk.controls_mut().open_heartbeat(source, now),
        Subject::Target(_) => {}
    }
}

/// An alert of it has ended unheard and fires again. A heartbeat was silent then, unless another alert of it
/// has been open all the time; a hold goes on.
fn begin_anew(desk: &mut Desk<'_>, episode: &Episode) {
    let Subject::Heartbeat(source) = &episode.target else { return };
    let open_since = desk.controls().heartbeat(source).open_since;
    if open_since.is_some_and(|since| episode.open.iter().all(|open| open.starts_at > since)) {
        let now = desk.context.now;
        desk.controls_mut().end_heartbeat(source, now);
        desk.controls_mut().open_heartbeat(source, now);
    }
}

/// `lapsed` says that the last of it was not heard of any more, so that nobody knows its end.
fn end(desk: &mut Desk<'_>, rule: &Name, key: &TargetKey, subject: &Subject, now: Time, lapsed: bool) {
    match subject {
        Subject::Hold(_) => desk.controls_mut().end_hold(rule, key, lapsed.then_some(now)),
        Subject::Heartbeat(source) => desk.controls_mut().end_heartbeat(source, now),
        Subject::Target(_) => {}
    }
}
