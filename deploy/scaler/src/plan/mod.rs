//! The next step for an event: a pure function of the event, the present capacity and the ledger.
//!
//! The caller carries a step out, reads again what has changed, and asks for the next step, until it is an answer. It can
//! die between any two steps; whoever gets the event next asks again and goes on.

#[cfg(test)]
mod histories;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

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
    /// Write the target's item, and then answer. If the item was changed meanwhile, read and plan again.
    Note { target: TargetItem, applied: AppliedItem, answer: Answer },
    /// Write the target's item, which has a pending change; then plan again.
    Begin(TargetItem),
    /// Set the lever with the id of the pending change as token, then go on with [`ended`].
    Call(Pending),
    /// The pending change is made: write what was applied, and then the target's item.
    End { pending: Pending, applied: AppliedItem, target: TargetItem },
    /// The pending change will not be made: write the target's item, and plan again.
    GiveUp { target: TargetItem, why: String },
}

/// A worker makes the change that it holds within this time, calls included: the timeouts of a platform's client are
/// shorter.
pub const CALL_WINDOW: Duration = Duration::from_secs(20);
/// A change is taken over from a worker that has held it for this long: no call of it is on its way any more, also where
/// the clocks of both differ by some seconds.
pub const MAX_HOLD: Duration = Duration::from_secs(60);

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
    match (settled(facts.event, facts.entries, facts.now), &facts.entries.target.pending) {
        (Some(answer), _) => Step::Answer(answer),
        (None, Some(pending)) => go_on(facts, pending),
        (None, None) => begin(facts),
    }
}

/// The answer, if it does not depend on the present capacity.
pub fn settled(event: &ScalingEvent, entries: &Entries, now: Time) -> Option<Answer> {
    // Of this event or of another one: it is finished before anything is answered.
    if entries.target.pending.is_some() {
        return None;
    }
    if let Some(applied) = entries.applied.get(&event.id) {
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
    None
}

/// What comes after the lever was set to the `to` of the pending change.
pub fn ended(entries: &Entries, pending: &Pending) -> Step {
    let Pending { id, from, to, sequence, expirytime, is_floor, .. } = pending;
    Step::End {
        applied: AppliedItem { id: id.clone(), from: *from, to: *to, expirytime: *expirytime },
        target: entries.target.end(*sequence, *is_floor, (*from, *to)),
        pending: pending.clone(),
    }
}

/// The event cannot be applied now.
pub fn retry(event: &ScalingEvent, reason: String) -> Answer {
    answer(event, Outcome::Retry, None, reason)
}

/// Nothing was set by this worker: another one can take the change over at once.
pub fn released(entries: &Entries, pending: &Pending) -> TargetItem {
    entries.target.begin(Pending { held_since: Time::from_nanos(0), worker: 0, ..pending.clone() })
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
    // It was made, and what was applied is written; only the target's item is not.
    if entries.applied.contains_key(&pending.id) {
        return ended(entries, pending);
    }
    if pending.worker != *worker && *now < pending.held_since.after(MAX_HOLD) {
        return Step::Answer(retry(event, format!("another worker applies event {}", pending.id)));
    }
    // A platform without preconditions would execute a late call after those of later events.
    if pending.worker != *worker || *now >= pending.held_since.after(CALL_WINDOW) {
        let own = Pending { worker: *worker, held_since: *now, ..pending.clone() };
        return Step::Begin(entries.target.begin(own));
    }
    if pending.is_floor != present.lever.is_floor() {
        let why = format!(
            "event {} was about another value: `managed_by` or the target's owner has changed",
            pending.id
        );
        return Step::GiveUp { target: entries.target.give_up(), why };
    }
    let value = present.lever.value();
    if value == pending.to {
        return ended(entries, pending);
    }
    if pending.expirytime <= *now {
        let why = format!("event {} expired before its change was made", pending.id);
        return Step::GiveUp { target: entries.target.give_up(), why };
    }
    let change = match size(&pending.request, present, policy, entries.target.baseline) {
        Ok(change) => change,
        Err(why) => return Step::GiveUp { target: entries.target.give_up(), why },
    };
    if let Some(wait) = waits(facts, change.from < change.to) {
        return Step::Answer(answer(event, Outcome::Retry, None, wait));
    }
    if let Some(why) = refusal(present, &change) {
        return Step::GiveUp { target: entries.target.give_up(), why };
    }
    if value == pending.from {
        return Step::Call(pending.clone());
    }
    // Somebody else has changed it meanwhile: what was planned from another capacity is planned anew.
    let Change { from, to, cut_by } = change;
    let note = format!("planned anew: the capacity was {} and is {value}", pending.from);
    let again = Pending { from, to, cut_by, note, ..pending.clone() };
    if from == to {
        return ended(entries, &again);
    }
    Step::Begin(entries.target.begin(again))
}

/// Nothing is pending: the event's own change.
fn begin(facts: &Facts<'_>) -> Step {
    let Facts { worker, event, entries, present, policy, now } = facts;
    let request = request(facts);
    let change = match size(&request, present, policy, entries.target.baseline) {
        Ok(change) => change,
        Err(why) => return Step::Answer(answer(event, Outcome::Refused, None, why)),
    };
    let Change { from, to, cut_by } = change.clone();
    if let Some(wait) = waits(facts, is_increase(&request.adjustment)) {
        return Step::Answer(answer(event, Outcome::Retry, None, wait));
    }
    if let Some(why) = refusal(present, &change) {
        return Step::Answer(answer(event, Outcome::Refused, None, why));
    }
    if policy.dry_run {
        return Step::Answer(answer(event, Outcome::DryRun, Some((from, to)), cut_by));
    }
    let ScalingEvent { id, sequence, expirytime, .. } = (*event).clone();
    if from == to {
        let outcome = if cut_by.is_empty() { Outcome::Applied } else { Outcome::Capped };
        return Step::Note {
            target: entries.target.end(sequence, false, (from, to)),
            applied: AppliedItem { id, from, to, expirytime },
            answer: answer(event, outcome, Some((from, to)), cut_by),
        };
    }
    Step::Begin(entries.target.begin(Pending {
        id,
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
    let take_back = (!reverts.is_empty()).then(|| facts.entries.added_for(reverts));
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
fn waits(facts: &Facts<'_>, is_increase: bool) -> Option<String> {
    let freeze = &facts.entries.freeze;
    let (frozen, direction) = match is_increase {
        true => (&freeze.increases, "increases"),
        false => (&freeze.decreases, "decreases"),
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
