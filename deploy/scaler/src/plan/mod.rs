//! The next step for an event: a pure function of the event, the present capacity and the ledger.
//!
//! The caller carries a step out, reads again what has changed, and asks for the next step, until it is an answer. It can
//! die between any two steps: the next delivery of an event of the target goes on from there.

#[cfg(test)]
mod histories;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use scalebridge::domain::event::{Adjustment, AdjustmentType};
use scalebridge::domain::time::Time;

use crate::capacity::{Bound, Change, Lever, MaxDecrease, Request};
use crate::event::{Limits, ScalingEvent};
use crate::ledger::{AppliedItem, Entries, Frozen, Pending, TargetItem};
use crate::outcome::{Answer, Outcome};

/// The capacity of a target as its platform shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    pub lever: Lever,
    /// The version of what was read, where the platform has one: a change is refused if it is another one by then.
    pub revision: String,
    /// The bounds of the group or service itself.
    pub limits: Limits,
    /// Why nothing can be changed right now, for example an update in progress.
    pub busy: Option<String>,
    /// Why the platform or its owner does not allow an increase.
    pub refuses_increase: Option<String>,
    /// The same of a decrease.
    pub refuses_decrease: Option<String>,
}

/// The configuration of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    pub limits: Limits,
    pub max_decrease: Option<MaxDecrease>,
    pub dry_run: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The event is done.
    Answer(Answer),
    /// Write the target's item, which has a pending change; then plan again.
    Begin(TargetItem),
    /// Write down that the call may have been made, see [`called`]; set the lever; then go on with [`ended`].
    Call(Pending),
    /// The pending change is made: write what was applied, and then the target's item.
    End(Box<End>),
    /// The pending change will not be made: write the target's item, and plan again.
    GiveUp { target: TargetItem, why: String },
}

/// What is written when a pending change was made, in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    pub pending: Pending,
    /// Of the increases that it has taken back: what is written, and what replaces it.
    pub taken_back: Vec<(AppliedItem, AppliedItem)>,
    /// Of the increases that it takes back and that have not arrived: they never will be applied.
    pub never_applied: Vec<AppliedItem>,
    pub applied: AppliedItem,
    pub target: TargetItem,
}

/// A worker makes the change that it holds within this time, calls included: the timeouts of a platform's client are
/// shorter.
pub const CALL_WINDOW: Duration = Duration::from_secs(20);
/// A change is taken over from a worker that has held it for this long: no call of it is on its way any more, also where
/// the clocks of both differ by some seconds.
pub const MAX_HOLD: Duration = Duration::from_secs(60);

/// A `sequence` is a time in microseconds, or less.
const MAX_SEQUENCE_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// All that a plan depends on.
pub struct Facts<'a> {
    /// A random number of the worker, for this delivery of the event.
    pub worker: u64,
    pub event: &'a ScalingEvent,
    pub entries: &'a Entries,
    pub present: &'a Present,
    pub policy: &'a Policy,
    pub now: Time,
}

/// The next step for an event.
pub fn plan(facts: &Facts<'_>) -> Step {
    let Facts { event, entries, policy, now, .. } = facts;
    if policy.dry_run {
        // A change that was begun before is left as it is.
        return decided(event, entries, *now).map_or_else(|| begin(facts), Step::Answer);
    }
    match (settled(event, entries, *now), &entries.target.pending) {
        (Some(answer), _) => Step::Answer(answer),
        (None, Some(pending)) => go_on(facts, pending),
        (None, None) => begin(facts),
    }
}

/// The answer, if it does not depend on the present capacity.
pub fn settled(event: &ScalingEvent, entries: &Entries, now: Time) -> Option<Answer> {
    // A pending change, of this event or of another one, is finished before anything is answered.
    if entries.target.pending.is_some() { None } else { decided(event, entries, now) }
}

fn decided(event: &ScalingEvent, entries: &Entries, now: Time) -> Option<Answer> {
    if let Some(applied) = entries.applied.get(&event.id) {
        if let Some(by) = &applied.taken_back_before {
            let reason = format!("event {by} has taken it back before it arrived");
            return Some(answer(event, Outcome::Overtaken, None, reason));
        }
        let AppliedItem { from, to, .. } = *applied;
        return Some(answer(event, Outcome::AlreadyApplied, Some((from, to)), String::new()));
    }
    if event.expirytime <= now {
        let reason = format!("it expired at {}", event.expirytime.to_millis_string());
        return Some(answer(event, Outcome::Expired, None, reason));
    }
    if !is_increase(&event.adjustment) && event.sequence < entries.target.sequence {
        let reason = "a later event of the target was applied before".to_owned();
        return Some(answer(event, Outcome::Overtaken, None, reason));
    }
    // It would make every later event of the target an overtaken one.
    let latest = now.after(MAX_SEQUENCE_AHEAD).as_millis().saturating_mul(1_000);
    if i128::from(event.sequence) > i128::from(latest) {
        let reason = format!("sequence is {}, which is more than a day in the future", event.sequence);
        return Some(answer(event, Outcome::Refused, None, reason));
    }
    None
}

/// What comes after the lever was set to the `to` of the pending change.
pub fn ended(entries: &Entries, subject: &str, pending: &Pending) -> End {
    let Pending { id, from, to, sequence, expirytime, is_floor, reverts, .. } = pending;
    let (mut taken_back, mut never_applied) = (Vec::new(), Vec::new());
    let mut left = from.saturating_sub(*to);
    for increase in reverts {
        let Some(old) = entries.applied.get(increase) else {
            let item = AppliedItem::new(increase, subject, (0, 0), *expirytime);
            never_applied.push(AppliedItem { taken_back_before: Some(id.clone()), ..item });
            continue;
        };
        if old.subject != subject {
            continue;
        }
        let units = old.left_for(id).min(left);
        left -= units;
        if units > 0 && !old.taken_back.contains_key(id) {
            let mut new = old.clone();
            new.taken_back.insert(id.clone(), units);
            taken_back.push((old.clone(), new));
        }
    }
    End {
        taken_back,
        never_applied,
        applied: AppliedItem::new(id, subject, (*from, *to), *expirytime),
        target: entries.target.end(*sequence, *is_floor, (*from, *to)),
        pending: pending.clone(),
    }
}

fn end(facts: &Facts<'_>, pending: &Pending) -> Step {
    Step::End(Box::new(ended(facts.entries, &facts.event.subject, pending)))
}

/// The call of the pending change may have been made from now on.
pub fn called(entries: &Entries, pending: &Pending) -> TargetItem {
    entries.target.begin(Pending { called: true, ..pending.clone() })
}

/// The event cannot be applied now.
pub fn retry(event: &ScalingEvent, reason: String) -> Answer {
    answer(event, Outcome::Retry, None, reason)
}

/// Nothing was set by this worker: another one can take the change over at once.
pub fn released(entries: &Entries, pending: &Pending) -> TargetItem {
    let (held_since, worker, called) = (Time::from_nanos(0), 0, false);
    entries.target.begin(Pending { held_since, worker, called, ..pending.clone() })
}

/// The event will never be applied.
pub fn refuse(event: &ScalingEvent, reason: String) -> Answer {
    answer(event, Outcome::Refused, None, reason)
}

/// The answer after the event's own pending change was made.
pub fn answer_of(event: &ScalingEvent, pending: &Pending) -> Answer {
    let Pending { from, to, cut_by, note, .. } = pending;
    let outcome = if cut_by.is_empty() { Outcome::Applied } else { Outcome::Capped };
    let parts: Vec<&str> =
        [cut_by.as_str(), note.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
    answer(event, outcome, Some((*from, *to)), parts.join("; "))
}

/// A change is pending, of this event or of another one: it is finished before anything else is planned.
fn go_on(facts: &Facts<'_>, pending: &Pending) -> Step {
    let Facts { worker, event, entries, present, policy, now } = facts;
    let give_up = |why: String| Step::GiveUp { target: entries.target.give_up(), why };
    // It was made, and what was applied is written; only the target's item is not.
    if let Some(AppliedItem { from, to, .. }) = entries.applied.get(&pending.id) {
        return end(facts, &Pending { from: *from, to: *to, ..pending.clone() });
    }
    if pending.worker != *worker && is_held(pending, *now) {
        return Step::Answer(retry(event, held_by_another(event, pending)));
    }
    // A platform without preconditions would execute a late call after those of later events.
    if pending.worker != *worker || *now >= pending.held_since.after(CALL_WINDOW) {
        let own = Pending { worker: *worker, held_since: *now, ..pending.clone() };
        return Step::Begin(entries.target.begin(own));
    }
    if pending.is_floor != present.lever.is_floor() {
        let id = &pending.id;
        return give_up(format!(
            "event {id} was about another value: `managed_by` or the target's owner has changed"
        ));
    }
    let value = present.lever.value();
    if value == pending.to {
        return end(facts, pending);
    }
    if pending.called {
        if value != pending.from {
            // It may have been made before somebody else has changed the capacity: made again, it would act twice.
            let note = format!("its call had no answer; the capacity is {value} now, so it counts as made");
            return end(facts, &Pending { note, ..pending.clone() });
        }
        if let Some(busy) = &present.busy {
            // Perhaps with this very change.
            return Step::Answer(retry(event, busy.clone()));
        }
    }
    if pending.expirytime <= *now {
        return give_up(format!("event {} expired before its change was made", pending.id));
    }
    let change = match size(&pending.request, present, policy, entries.target.baseline) {
        Ok(change) => change,
        Err(why) => return give_up(why),
    };
    // Nothing was changed: what waits does not hold up the other events of the target.
    if let Some(why) = waits(facts, &change).or_else(|| refusal(present, &change)) {
        return give_up(why);
    }
    if value == pending.from && change.to == pending.to {
        return Step::Call(pending.clone());
    }
    plan_anew(facts, pending, change)
}

fn is_held(pending: &Pending, now: Time) -> bool {
    // A worker whose clock is ahead by more than that does not hold it for ever.
    now < pending.held_since.after(MAX_HOLD) && pending.held_since <= now.after(MAX_HOLD)
}

fn held_by_another(event: &ScalingEvent, pending: &Pending) -> String {
    let which = if pending.id == event.id { "it".to_owned() } else { format!("event {}", pending.id) };
    format!(
        "{which} is being applied by another worker, or was when that worker ended: it is held for a minute"
    )
}

/// Somebody else has changed the capacity or a limit: what was planned before is planned anew.
fn plan_anew(facts: &Facts<'_>, pending: &Pending, change: Change) -> Step {
    let Change { from, to, cut_by } = change;
    let note = match from == pending.from {
        true => "planned anew: a limit has changed".to_owned(),
        false => format!("planned anew: the capacity was {} and is {from}", pending.from),
    };
    let token = format!("{}-{to}", pending.id);
    let again = Pending { from, to, cut_by, note, token, called: false, ..pending.clone() };
    if from == to {
        return end(facts, &again);
    }
    Step::Begin(facts.entries.target.begin(again))
}

/// Nothing is pending: the event's own change.
fn begin(facts: &Facts<'_>) -> Step {
    let Facts { worker, event, entries, present, policy, now } = facts;
    let request = request(facts);
    let change = match size(&request, present, policy, entries.target.baseline) {
        Ok(change) => change,
        Err(why) => return Step::Answer(answer(event, Outcome::Refused, None, why)),
    };
    if let Some(wait) = waits(facts, &change) {
        return Step::Answer(answer(event, Outcome::Retry, None, wait));
    }
    if let Some(why) = refusal(present, &change) {
        return Step::Answer(answer(event, Outcome::Refused, None, why));
    }
    let Change { from, to, cut_by } = change;
    if policy.dry_run {
        return Step::Answer(answer(event, Outcome::DryRun, Some((from, to)), cut_by));
    }
    let ScalingEvent { id, sequence, expirytime, .. } = (*event).clone();
    let reverts: BTreeSet<String> = event.reverts.iter().cloned().collect();
    Step::Begin(entries.target.begin(Pending {
        token: id.clone(),
        id,
        called: false,
        reverts: reverts.into_iter().collect(),
        sequence,
        expirytime,
        is_floor: present.lever.is_floor(),
        from,
        to,
        cut_by,
        note: String::new(),
        request,
        worker: *worker,
        held_since: *now,
    }))
}

fn request(facts: &Facts<'_>) -> Request {
    let ScalingEvent { adjustment, limits, reverts, .. } = facts.event;
    let take_back = (!reverts.is_empty()).then(|| facts.entries.left_for(facts.event));
    Request { adjustment: adjustment.clone(), limits: *limits, take_back }
}

/// Whether the event adds to what is there, so that it counts in any order.
fn is_increase(adjustment: &Adjustment) -> bool {
    adjustment.kind != AdjustmentType::ExactCapacity && adjustment.value > 0
}

fn size(
    request: &Request,
    present: &Present,
    policy: &Policy,
    baseline: Option<u32>,
) -> Result<Change, String> {
    let bounds = [
        Bound { limits: request.limits, owner: "the event" },
        Bound { limits: policy.limits, owner: "the configuration" },
        Bound { limits: present.limits, owner: "the group" },
    ];
    let change = request.change(present.lever, &bounds, policy.max_decrease, baseline);
    change.map_err(|contradiction| contradiction.to_string())
}

/// Why the change has to wait.
fn waits(facts: &Facts<'_>, change: &Change) -> Option<String> {
    let freeze = &facts.entries.freeze;
    let (frozen, direction) = match change.from.cmp(&change.to) {
        std::cmp::Ordering::Less => (&freeze.increases, "increases"),
        std::cmp::Ordering::Greater => (&freeze.decreases, "decreases"),
        std::cmp::Ordering::Equal => (&None, ""),
    };
    if let Some(Frozen { by, reason, since }) = frozen {
        return Some(format!("{direction} are frozen by {by} since {}: {reason}", since.to_millis_string()));
    }
    facts.present.busy.clone()
}

/// Why the platform does not allow the change.
fn refusal(present: &Present, change: &Change) -> Option<String> {
    match change.from.cmp(&change.to) {
        std::cmp::Ordering::Less => present.refuses_increase.clone(),
        std::cmp::Ordering::Greater => present.refuses_decrease.clone(),
        std::cmp::Ordering::Equal => None,
    }
}

fn answer(event: &ScalingEvent, outcome: Outcome, change: Option<(u32, u32)>, reason: String) -> Answer {
    Answer {
        id: event.id.clone(),
        outcome,
        from: change.map(|(from, _)| from),
        to: change.map(|(_, to)| to),
        reason,
    }
}
