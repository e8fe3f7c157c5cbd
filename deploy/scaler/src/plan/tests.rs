//! A table of plans: one line a case, with the whole answer.

use std::collections::BTreeMap;

use scalebridge::domain::time::Time;

use super::test_support::{LATER, NOW, adjustment, event, id, limits, size};
use super::{End, Facts, Policy, Present, Step, answer_of, called, ended, plan};
use crate::capacity::{Lever, MaxDecrease, Request};
use crate::event::{Limits, ScalingEvent};
use crate::ledger::{AppliedItem, Entries, Frozen, Pending, TargetItem};
use crate::outcome::{Answer, Outcome};

/// A case: `present`, the change that the event asks for, and conditions, a word each.
struct Case {
    event: ScalingEvent,
    entries: Entries,
    present: Present,
    policy: Policy,
}

/// Reads a case. Words after the change: `event:2..40`, `config:2..40`, `group:2..40`, `most:20%`, `most:3`, `dry`,
/// `expired`, `seq:N` (of the ledger; the event has 100), `done:4>6` (the event was applied), `reverts:4>6,6>6,?`,
/// `baseline:N`, `busy`, `no-increase`, `no-decrease`, `frozen:increases`, `frozen:decreases`,
/// `own:4>6` and `other:4>6` (pending changes; of an expired event with a trailing `x`).
fn case(present: &str, change: &str, words: &str) -> Case {
    let mut case = Case {
        event: event(1, 100, change),
        entries: Entries::default(),
        present: size(0),
        policy: Policy::default(),
    };
    case.present.lever = match present.split_once('/') {
        Some((floor, current)) => {
            Lever::Floor { floor: floor.parse().unwrap(), current: current.parse().unwrap() }
        }
        None => Lever::Size(present.parse().unwrap()),
    };
    words.split_whitespace().for_each(|word| case.condition(word));
    case
}

fn pair(text: &str) -> (u32, u32) {
    let (from, to) = text.split_once('>').unwrap();
    (from.parse().unwrap(), to.parse().unwrap())
}

fn applied(number: u32, (from, to): (u32, u32)) -> (String, AppliedItem) {
    (id(number), AppliedItem::new(&id(number), &event(1, 1, "+1").subject, (from, to), LATER))
}

impl Case {
    fn condition(&mut self, word: &str) {
        let (key, value) = word.split_once(':').unwrap_or((word, ""));
        match key {
            "event" => self.event.limits = limits(value),
            "config" => self.policy.limits = limits(value),
            "group" => self.present.limits = limits(value),
            "most" => {
                self.policy.max_decrease = Some(match value.strip_suffix('%') {
                    Some(percent) => MaxDecrease::Percent(percent.parse().unwrap()),
                    None => MaxDecrease::Units(value.parse().unwrap()),
                });
            }
            "dry" => self.policy.dry_run = true,
            "expired" => self.event.expirytime = NOW,
            "seq" => self.entries.target.sequence = value.parse().unwrap(),
            "done" => self.entries.applied.extend([applied(1, pair(value))]),
            "reverts" => self.reverts(value),
            "twice" => self.event.reverts.extend(self.event.reverts.clone()),
            "taken" => {
                let item = self.entries.applied.get_mut(&id(10)).unwrap();
                item.taken_back.insert(id(77), value.parse().unwrap());
            }
            "elsewhere" => self.entries.applied.get_mut(&id(10)).unwrap().subject = "eks/…".to_owned(),
            "taken-before" => {
                let item = AppliedItem::new(&self.event.id, &self.event.subject, (0, 0), LATER);
                let item = AppliedItem { taken_back_before: Some(id(20)), ..item };
                self.entries.applied.insert(item.id.clone(), item);
            }
            "baseline" => self.entries.target.baseline = Some(value.parse().unwrap()),
            "busy" => self.present.busy = Some("an update is in progress".to_owned()),
            "no-increase" => self.present.refuses_increase = Some("Launch is suspended".to_owned()),
            "no-decrease" => self.present.refuses_decrease = Some("Terminate is suspended".to_owned()),
            "frozen" => self.freeze(value),
            "own" | "other" => self.pending(key == "own", value),
            // The call of the pending change may have been made.
            "called" => self.entries.target.pending.as_mut().unwrap().called = true,
            "of-floor" => {
                let pending = self.entries.target.pending.as_mut().unwrap();
                pending.is_floor = true;
            }
            _ => panic!("unknown word {word}"),
        }
    }

    fn reverts(&mut self, value: &str) {
        for (number, increase) in (10..).zip(value.split(',')) {
            self.event.reverts.push(id(number));
            if increase != "?" {
                self.entries.applied.extend([applied(number, pair(increase))]);
            }
        }
    }

    fn freeze(&mut self, direction: &str) {
        let frozen = Frozen { by: "ann".to_owned(), reason: "incident 7".to_owned(), since: NOW };
        match direction {
            "increases" => self.entries.freeze.increases = Some(frozen),
            _ => self.entries.freeze.decreases = Some(frozen),
        }
    }

    fn pending(&mut self, is_own: bool, value: &str) {
        let (text, is_expired) = value.strip_suffix('x').map_or((value, false), |text| (text, true));
        let (from, to) = pair(text);
        let by = i64::from(to) - i64::from(from);
        let request = Request {
            adjustment: adjustment(&format!("{by:+}")),
            limits: Limits::default(),
            take_back: None,
        };
        let (number, sequence) = if is_own { (1, 100) } else { (2, 99) };
        let expirytime = if is_expired { NOW } else { LATER };
        if is_own {
            self.event.expirytime = expirytime;
        }
        self.entries.target.pending = Some(Pending {
            id: id(number),
            token: id(number),
            called: false,
            reverts: Vec::new(),
            sequence,
            expirytime,
            is_floor: self.present.lever.is_floor(),
            from,
            to,
            cut_by: String::new(),
            note: String::new(),
            request,
            worker: 0,
            held_since: Time::from_nanos(0),
        });
    }

    /// Carries the steps out until there is an answer. Returns it after the calls and what was given up.
    fn run(mut self) -> String {
        let mut done = Vec::new();
        for _ in 0..10 {
            let Self { event, entries, present, policy } = &self;
            let step = plan(&Facts { worker: 7, event, entries, present, policy, now: NOW });
            match step {
                Step::Answer(answer) => {
                    done.push(show(&answer));
                    return done.join(" | ");
                }
                Step::Begin(target) => self.entries.target = target,
                Step::Call(pending) => {
                    let to = pending.to;
                    self.entries.target = called(&self.entries, &pending);
                    self.present.lever = match self.present.lever {
                        Lever::Size(_) => Lever::Size(to),
                        Lever::Floor { current, .. } => Lever::Floor { floor: to, current: current.max(to) },
                    };
                    let whose = if pending.id == self.event.id { "call" } else { "call of the other" };
                    done.push(format!("{whose} {}>{to}", pending.from));
                    let end = ended(&self.entries, &self.event.subject, &pending);
                    if self.end(end, &mut done) {
                        return done.join(" | ");
                    }
                }
                Step::End(end) => {
                    if self.end(*end, &mut done) {
                        return done.join(" | ");
                    }
                }
                Step::GiveUp { target, why } => {
                    self.entries.target = target;
                    done.push(format!("given up: {why}"));
                }
            }
        }
        panic!("no answer: {done:?}");
    }

    /// Returns whether it is the event's own change.
    fn end(&mut self, end: End, done: &mut Vec<String>) -> bool {
        let End { pending, taken_back, never_applied, applied, target } = end;
        self.entries.target = target;
        let items = taken_back.into_iter().map(|(_, new)| new).chain(never_applied).chain([applied]);
        self.entries.applied.extend(items.map(|item| (item.id.clone(), item)));
        let is_own = pending.id == self.event.id;
        if is_own {
            done.push(show(&answer_of(&self.event, &pending)));
        }
        is_own
    }
}

fn show(answer: &Answer) -> String {
    let Answer { outcome, from, to, reason, .. } = answer;
    let outcome = match outcome {
        Outcome::Applied => "applied",
        Outcome::Capped => "capped",
        Outcome::AlreadyApplied => "already applied",
        Outcome::Overtaken => "overtaken",
        Outcome::Expired => "expired",
        Outcome::Refused => "refused",
        Outcome::Retry => "retry",
        Outcome::DryRun => "dry run",
    };
    let change = from.zip(*to).map_or(String::new(), |(from, to)| format!(" {from}>{to}"));
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{outcome}{change}{reason}")
}

fn check(cases: &[(&str, &str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (present, change, words, expected) in cases {
        let got = case(present, change, words).run();
        if got != *expected {
            wrong.push(format!("{present} {change} {words}\n  expected {expected}\n       got {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn increases() {
    check(&[
        ("4", "+2", "", "call 4>6 | applied 4>6"),
        ("0", "+1", "", "call 0>1 | applied 0>1"),
        ("4", "+2", "event:2..40", "call 4>6 | applied 4>6"),
        ("4", "+2", "event:..6", "call 4>6 | applied 4>6"),
        ("4", "+2", "event:..5", "call 4>5 | capped 4>5: the maximum of the event is 5"),
        ("4", "+2", "config:..5", "call 4>5 | capped 4>5: the maximum of the configuration is 5"),
        ("4", "+2", "group:..5", "call 4>5 | capped 4>5: the maximum of the group is 5"),
        (
            "4",
            "+9",
            "event:..8 config:..6 group:..7",
            "call 4>6 | capped 4>6: the maximum of the configuration is 6",
        ),
        ("4", "+2", "group:..4", "capped 4>4: the maximum of the group is 4"),
        // Above its maximum a capacity stays: an increase never decreases.
        ("9", "+2", "event:..5", "capped 9>9: the maximum of the event is 5"),
        // Nor is one below its minimum.
        ("0", "+1", "event:2..", "call 0>2 | capped 0>2: the minimum of the event is 2"),
        ("0", "+3", "event:2..", "call 0>3 | applied 0>3"),
        // A decrease's limit does not hold back an increase.
        ("4", "+2", "most:1", "call 4>6 | applied 4>6"),
        ("4", "+2", "no-decrease", "call 4>6 | applied 4>6"),
        ("4", "+2", "no-increase", "refused: Launch is suspended"),
        ("4", "+2", "busy", "retry: an update is in progress"),
        ("4", "+2", "busy no-increase", "retry: an update is in progress"),
        ("4", "+2", "dry", "dry run 4>6"),
        ("4", "+2", "dry group:..5", "dry run 4>5: the maximum of the group is 5"),
        ("4", "+2", "expired", "expired: it expired at 1970-01-01T00:16:40.000Z"),
        (
            "4",
            "+2",
            "event:6.. group:..3",
            "refused: the minimum of the event, 6, is above the maximum of the group, 3",
        ),
        // The decrease that takes it back has come first.
        (
            "4",
            "+2",
            "taken-before",
            "overtaken: event 00000000000000000000000000000014 has taken it back before it arrived",
        ),
        // In any order, each once.
        ("4", "+2", "seq:101", "call 4>6 | applied 4>6"),
        ("6", "+2", "done:4>6", "already applied 4>6"),
        ("6", "+2", "done:4>6 expired", "already applied 4>6"),
        ("6", "+2", "done:4>6 frozen:increases", "already applied 4>6"),
        (
            "4294967290",
            "+9",
            "",
            "call 4294967290>4294967295 | capped 4294967290>4294967295: the value is too large",
        ),
    ]);
}

#[test]
fn decreases() {
    check(&[
        ("6", "-2", "", "call 6>4 | applied 6>4"),
        ("6", "-2", "event:4..", "call 6>4 | applied 6>4"),
        ("6", "-2", "event:5..", "call 6>5 | capped 6>5: the minimum of the event is 5"),
        ("6", "-2", "config:5..", "call 6>5 | capped 6>5: the minimum of the configuration is 5"),
        ("6", "-2", "group:5..", "call 6>5 | capped 6>5: the minimum of the group is 5"),
        ("6", "-2", "group:6..", "capped 6>6: the minimum of the group is 6"),
        ("6", "-4", "event:3.. config:4.. group:5..", "call 6>5 | capped 6>5: the minimum of the group is 5"),
        // Below its minimum a capacity stays: a decrease never increases.
        ("2", "-1", "event:5..", "capped 2>2: the minimum of the event is 5"),
        ("1", "-2", "", "call 1>0 | capped 1>0: nothing is left"),
        ("0", "-2", "", "capped 0>0: nothing is left"),
        ("6", "-2", "no-increase", "call 6>4 | applied 6>4"),
        ("6", "-2", "no-decrease", "refused: Terminate is suspended"),
        ("6", "-2", "busy", "retry: an update is in progress"),
        ("6", "-2", "dry", "dry run 6>4"),
        ("6", "-2", "expired", "expired: it expired at 1970-01-01T00:16:40.000Z"),
        // Only in order.
        ("6", "-2", "seq:99", "call 6>4 | applied 6>4"),
        ("6", "-2", "seq:100", "call 6>4 | applied 6>4"),
        ("6", "-2", "seq:101", "overtaken: a later event of the target was applied before"),
        ("4", "-2", "done:6>4 seq:101", "already applied 6>4"),
        // Not all at once.
        ("40", "-20", "most:20%", "call 40>32 | capped 40>32: the configuration allows 8 less at once"),
        ("40", "-8", "most:20%", "call 40>32 | applied 40>32"),
        ("3", "-2", "most:20%", "call 3>2 | capped 3>2: the configuration allows 1 less at once"),
        ("40", "-20", "most:3", "call 40>37 | capped 40>37: the configuration allows 3 less at once"),
        ("40", "-20", "most:0", "capped 40>40: the configuration allows 0 less at once"),
        (
            "40",
            "-30",
            "most:20 event:25..",
            "call 40>25 | capped 40>25: the configuration allows 20 less at once; the minimum of the event is 25",
        ),
    ]);
}

#[test]
fn decreases_take_back_what_was_applied() {
    check(&[
        ("6", "-2", "reverts:4>6", "call 6>4 | applied 6>4"),
        ("8", "-4", "reverts:4>6,6>8", "call 8>4 | applied 8>4"),
        // Capped, refused and expired increases have added less than they asked for, or nothing.
        (
            "5",
            "-2",
            "reverts:4>5",
            "call 5>4 | capped 5>4: asked -2, applied -1 for the increases that it takes back",
        ),
        ("4", "-2", "reverts:4>4", "capped 4>4: asked -2, applied 0 for the increases that it takes back"),
        ("9", "-2", "reverts:?", "capped 9>9: asked -2, applied 0 for the increases that it takes back"),
        (
            "130",
            "-96",
            "reverts:100>130,?",
            "call 130>100 | capped 130>100: asked -96, applied -30 for the increases that it takes back",
        ),
        // More was added than it asks for.
        ("12", "-2", "reverts:4>12", "call 12>10 | applied 12>10"),
        // A decrease that is named has added nothing.
        ("9", "-2", "reverts:9>7", "capped 9>9: asked -2, applied 0 for the increases that it takes back"),
        // One that is named twice was added once.
        (
            "12",
            "-8",
            "reverts:4>8 twice",
            "call 12>8 | capped 12>8: asked -8, applied -4 for the increases that it takes back",
        ),
        // Another decrease has taken a part of it back, or it is of another target.
        (
            "12",
            "-4",
            "reverts:4>8 taken:3",
            "call 12>11 | capped 12>11: asked -4, applied -1 for the increases that it takes back",
        ),
        (
            "12",
            "-4",
            "reverts:4>8 elsewhere",
            "capped 12>12: asked -4, applied 0 for the increases that it takes back",
        ),
        ("6", "-2", "reverts:4>6 event:5..", "call 6>5 | capped 6>5: the minimum of the event is 5"),
        ("6", "-2", "reverts:4>6 seq:101", "overtaken: a later event of the target was applied before"),
        (
            "100",
            "-50%",
            "reverts:90>100",
            "call 100>90 | capped 100>90: asked -50, applied -10 for the increases that it takes back",
        ),
    ]);
}

#[test]
fn percentages_are_rounded_as_auto_scaling_rounds() {
    check(&[
        ("10", "25%", "", "call 10>12 | applied 10>12"),
        ("10", "-25%", "", "call 10>8 | applied 10>8"),
        ("4", "25%", "", "call 4>5 | applied 4>5"),
        // A part of one unit is one unit.
        ("3", "10%", "", "call 3>4 | applied 3>4"),
        ("3", "-10%", "", "call 3>2 | applied 3>2"),
        ("10", "67%", "", "call 10>16 | applied 10>16"),
        ("10", "-67%", "", "call 10>4 | applied 10>4"),
        ("10", "10%~3", "", "call 10>13 | applied 10>13"),
        ("10", "-10%~3", "", "call 10>7 | applied 10>7"),
        ("100", "10%~3", "", "call 100>110 | applied 100>110"),
        ("0", "25%", "", "capped 0>0: +25% of 0 is nothing"),
        ("0", "25%~2", "", "call 0>2 | applied 0>2"),
        ("10", "-200%", "", "call 10>0 | capped 10>0: nothing is left"),
        ("10", "100%", "event:..15", "call 10>15 | capped 10>15: the maximum of the event is 15"),
    ]);
}

#[test]
fn exact_capacities() {
    check(&[
        ("4", "=10", "", "call 4>10 | applied 4>10"),
        ("10", "=10", "", "applied 10>10"),
        ("12", "=10", "", "capped 12>12: the capacity is above 10, and the event only raises it"),
        ("12", "=10!", "", "call 12>10 | applied 12>10"),
        ("4", "=10!", "", "call 4>10 | applied 4>10"),
        ("4", "=10", "event:..8", "call 4>8 | capped 4>8: the maximum of the event is 8"),
        ("12", "=0!", "group:3..", "call 12>3 | capped 12>3: the minimum of the group is 3"),
        ("100", "=10!", "most:20%", "call 100>80 | capped 100>80: the configuration allows 20 less at once"),
        // What is exact replaces what came before it, so it counts only in order.
        ("4", "=10", "seq:101", "overtaken: a later event of the target was applied before"),
        ("12", "=10!", "seq:101", "overtaken: a later event of the target was applied before"),
        ("12", "=10!", "no-decrease", "refused: Terminate is suspended"),
        ("4", "=10", "no-decrease", "call 4>10 | applied 4>10"),
    ]);
}

/// The floor of a group that another autoscaler sizes: `floor/current`.
#[test]
fn floors() {
    check(&[
        ("2/5", "+2", "", "call 2>7 | applied 2>7"),
        ("5/5", "+2", "", "call 5>7 | applied 5>7"),
        // It is high enough already.
        ("8/5", "+2", "", "capped 8>8: the floor is 8 already"),
        ("2/5", "+2", "group:..6", "call 2>6 | capped 2>6: the maximum of the group is 6"),
        ("7/7", "-2", "baseline:2", "call 7>5 | applied 7>5"),
        ("7/7", "-9", "baseline:2", "call 7>2 | capped 7>2: the floor was 2 before it was raised"),
        // It was never raised by the scaler.
        ("7/7", "-2", "", "capped 7>7: the floor was 7 before it was raised"),
        // Somebody has lowered it meanwhile.
        ("1/7", "-2", "baseline:2", "capped 1>1: the floor was 1 before it was raised"),
        // What the floor was raised by is taken back: to the size of then, and by what was asked for.
        ("13/10", "-3", "baseline:2 reverts:2>13", "call 13>2 | applied 13>2"),
        ("15/12", "-3", "baseline:2 reverts:2>13 most:1", "call 15>4 | applied 15>4"),
        ("7/9", "-2", "baseline:2 reverts:2>3", "call 7>6 | applied 7>6"),
        (
            "7/9",
            "-2",
            "baseline:2 reverts:?",
            "capped 7>7: asked -2, applied 0 for the increases that it takes back",
        ),
        (
            "13/10",
            "-3",
            "baseline:2 reverts:2>13 group:5..",
            "call 13>5 | capped 13>5: the minimum of the group is 5",
        ),
        ("2/5", "=9", "", "call 2>9 | applied 2>9"),
        ("9/9", "=4!", "baseline:2", "call 9>4 | applied 9>4"),
        ("2/10", "50%", "", "call 2>15 | applied 2>15"),
    ]);
}

#[test]
fn a_change_that_was_interrupted_is_finished_first() {
    check(&[
        // Its own: killed before the call, after it, and after the note.
        ("4", "+2", "own:4>6", "call 4>6 | applied 4>6"),
        ("6", "+2", "own:4>6", "applied 4>6"),
        ("6", "+2", "own:4>6 done:4>6", "applied 4>6"),
        ("6", "-2", "own:6>4", "call 6>4 | applied 6>4"),
        ("4", "-2", "own:6>4", "applied 6>4"),
        // Somebody else has changed it meanwhile.
        ("5", "+2", "own:4>6", "call 5>7 | applied 5>7: planned anew: the capacity was 4 and is 5"),
        ("9", "-2", "own:6>4", "call 9>7 | applied 9>7: planned anew: the capacity was 6 and is 9"),
        (
            "5",
            "+2",
            "own:4>6 group:..5",
            "capped 5>5: the maximum of the group is 5; planned anew: the capacity was 4 and is 5",
        ),
        // It has expired: a change that was made counts, one that was not is not made any more.
        (
            "4",
            "+2",
            "own:4>6x",
            "given up: event 00000000000000000000000000000001 expired before its change was made | \
             expired: it expired at 1970-01-01T00:16:40.000Z",
        ),
        ("6", "+2", "own:4>6x", "applied 4>6"),
        ("4", "+2", "own:4>6 busy", "given up: an update is in progress | retry: an update is in progress"),
        ("4", "+2", "own:4>6 no-increase", "given up: Launch is suspended | refused: Launch is suspended"),
        (
            "4",
            "+2",
            "own:4>6 frozen:increases",
            "given up: increases are frozen by ann since 1970-01-01T00:16:40.000Z: incident 7 | \
             retry: increases are frozen by ann since 1970-01-01T00:16:40.000Z: incident 7",
        ),
        // That of another event: killed before the call, and after it.
        ("4", "+1", "other:4>6", "call of the other 4>6 | call 6>7 | applied 6>7"),
        ("6", "+1", "other:4>6", "call 6>7 | applied 6>7"),
        ("4", "-1", "other:4>6", "call of the other 4>6 | call 6>5 | applied 6>5"),
        ("6", "+1", "other:6>4", "call of the other 6>4 | call 4>5 | applied 4>5"),
        (
            "4",
            "+1",
            "other:4>6x",
            "given up: event 00000000000000000000000000000002 expired before its change was made | call 4>5 | applied 4>5",
        ),
        ("6", "+1", "other:4>6x", "call 6>7 | applied 6>7"),
        // Begun when `managed_by` was another one: 4 of the size are not 4 of the floor.
        (
            "4",
            "+1",
            "other:4>6 of-floor",
            "given up: event 00000000000000000000000000000002 was about another value: `managed_by` or the target's owner \
             has changed | call 4>5 | applied 4>5",
        ),
        (
            "6",
            "+2",
            "own:4>6 of-floor",
            "given up: event 00000000000000000000000000000001 was about another value: `managed_by` or the target's owner \
             has changed | call 6>8 | applied 6>8",
        ),
        ("5", "+1", "other:4>6", "call of the other 5>7 | call 7>8 | applied 7>8"),
        ("4", "+1", "other:4>6 busy", "given up: an update is in progress | retry: an update is in progress"),
        ("4", "+1", "other:4>6 called busy", "retry: an update is in progress"),
        // A change that may not be made now does not hold back what comes after it.
        (
            "4",
            "-1",
            "other:4>6 frozen:increases",
            "given up: increases are frozen by ann since 1970-01-01T00:16:40.000Z: incident 7 | call 4>3 | applied 4>3",
        ),
        ("6", "+2", "done:4>6 other:6>4", "call of the other 6>4 | already applied 4>6"),
    ]);
}

#[test]
fn a_change_that_was_perhaps_called_is_not_called_twice_and_one_that_was_not_keeps_to_new_limits() {
    check(&[
        // Perhaps it is its own update.
        ("4", "+2", "own:4>6 called busy", "retry: an update is in progress"),
        ("4", "+2", "own:4>6x called busy", "retry: an update is in progress"),
        ("4", "+2", "own:4>6 called", "call 4>6 | applied 4>6"),
        ("6", "+2", "own:4>6 called", "applied 4>6"),
        // It was perhaps called before somebody else has changed the capacity: it is not called twice.
        (
            "7",
            "+2",
            "own:4>6 called",
            "applied 4>6: its call had no answer; the capacity is 7 now, so it counts as made",
        ),
        (
            "7",
            "+2",
            "own:4>6x called",
            "applied 4>6: its call had no answer; the capacity is 7 now, so it counts as made",
        ),
        // A limit has changed meanwhile.
        (
            "4",
            "+2",
            "own:4>6 config:..5",
            "call 4>5 | capped 4>5: the maximum of the configuration is 5; planned anew: a limit has changed",
        ),
        // Nothing is called in a dry run.
        ("4", "+2", "own:4>6 dry", "dry run 4>6"),
        ("4", "+3", "other:4>6 dry", "dry run 4>7"),
    ]);
}

#[test]
fn a_change_that_another_worker_makes_is_left_to_it_for_a_minute() {
    let held = |seconds: i64| {
        let mut case = case("4", "+1", "other:4>6");
        let pending = case.entries.target.pending.as_mut().unwrap();
        (pending.worker, pending.held_since) = (8, Time::from_millis(1_000_000 - seconds * 1_000));
        case.run()
    };
    let retry = "retry: event 00000000000000000000000000000002 is being applied by another worker, or was when that \
                 worker ended: it is held for a minute";
    assert_eq!([held(0), held(59), held(-60)], [retry, retry, retry]);
    // The clock of a worker that has died was ahead.
    assert_eq!(held(-61), "call of the other 4>6 | call 6>7 | applied 6>7");
    assert_eq!(held(60), "call of the other 4>6 | call 6>7 | applied 6>7");
    // What was written as applied needs no call.
    let mut noted = case("6", "+1", "other:4>6");
    noted.entries.target.pending.as_mut().unwrap().worker = 8;
    noted.entries.target.pending.as_mut().unwrap().held_since = NOW;
    noted.entries.applied.extend([applied(2, (4, 6))]);
    assert_eq!(noted.run(), "call 6>7 | applied 6>7");
}

#[test]
fn a_worker_makes_no_call_for_a_change_that_it_has_held_for_long() {
    let mut case = case("4", "+2", "own:4>6");
    let pending = case.entries.target.pending.as_mut().unwrap();
    (pending.worker, pending.held_since) = (7, Time::from_millis(1_000_000 - 20_000));
    let Case { event, entries, present, policy } = &case;
    let step = plan(&Facts { worker: 7, event, entries, present, policy, now: NOW });
    let Step::Begin(TargetItem { pending: Some(pending), .. }) = step else { panic!("{step:?}") };
    assert_eq!((pending.worker, pending.held_since), (7, NOW), "it is held anew before a call");
}

#[test]
fn a_direction_can_be_frozen() {
    check(&[
        (
            "4",
            "+2",
            "frozen:increases",
            "retry: increases are frozen by ann since 1970-01-01T00:16:40.000Z: incident 7",
        ),
        ("4", "+2", "frozen:decreases", "call 4>6 | applied 4>6"),
        (
            "6",
            "-2",
            "frozen:decreases",
            "retry: decreases are frozen by ann since 1970-01-01T00:16:40.000Z: incident 7",
        ),
        ("6", "-2", "frozen:increases", "call 6>4 | applied 6>4"),
        // A frozen event that has expired is answered.
        ("6", "-2", "frozen:decreases expired", "expired: it expired at 1970-01-01T00:16:40.000Z"),
    ]);
}

#[test]
fn an_increase_is_taken_back_once_and_not_applied_after_that() {
    let subject = event(1, 1, "+1").subject;
    let pending = Pending { reverts: [13, 10, 11, 12].map(id).into(), from: 9, to: 4, ..pending() };
    // One of another target is named first, and left alone.
    let mut other = applied(13, (0, 9));
    other.1.subject = "eks/…".to_owned();
    let known = [applied(10, (0, 3)), applied(11, (3, 7)), other].into();
    let mut entries = Entries { applied: known, ..Entries::default() };
    let end = ended(&entries, &subject, &pending);
    let units: Vec<_> =
        end.taken_back.iter().map(|(old, new)| (old.id.clone(), new.taken_back[&id(1)])).collect();
    assert_eq!(units, [(id(10), 3), (id(11), 2)]);
    let [never] = &end.never_applied[..] else { panic!("{:?}", end.never_applied) };
    assert_eq!((&never.id, &never.taken_back_before, never.added()), (&id(12), &Some(id(1)), 0));
    // The same again, after its worker has died: nothing is taken back twice.
    let written = end.taken_back.into_iter().map(|(_, new)| (new.id.clone(), new));
    entries.applied.extend(written.chain([(id(12), never.clone())]));
    let end = ended(&entries, &subject, &pending);
    assert!(end.taken_back.is_empty() && end.never_applied.is_empty());
    let next = ScalingEvent { reverts: [10, 11, 12].map(id).into(), ..event(2, 2, "-9") };
    assert_eq!(entries.left_for(&next), 2);
}

#[test]
fn a_sequence_of_the_far_future_is_refused() {
    let mut case = case("4", "+2", "");
    let day = 24 * 60 * 60 * 1_000_000;
    case.event.sequence = 1_000_000_000 + day;
    assert_eq!(case.run(), "call 4>6 | applied 4>6");
    let mut case = self::case("4", "+2", "");
    case.event.sequence = 1_000_000_001 + day;
    assert!(case.run().starts_with("refused: sequence is 87400000001, which is more than a day"));
}

fn pending() -> Pending {
    Pending {
        id: id(1),
        token: id(1),
        called: false,
        reverts: Vec::new(),
        sequence: 100,
        expirytime: LATER,
        is_floor: false,
        from: 4,
        to: 6,
        cut_by: String::new(),
        note: String::new(),
        request: Request { adjustment: adjustment("+2"), limits: Limits::default(), take_back: None },
        worker: 7,
        held_since: NOW,
    }
}

#[test]
fn the_ledger_has_what_was_applied_and_the_highest_sequence() {
    let entries = Entries::default();
    let End { applied, target, .. } = ended(&entries, &event(1, 1, "+2").subject, &pending());
    assert_eq!((applied.from, applied.to, applied.expirytime), (4, 6, LATER));
    assert_eq!((target.sequence, target.version, target.pending, target.baseline), (100, 1, None, None));
    let known: BTreeMap<String, AppliedItem> = [(id(1), applied)].into();
    let entries = Entries { applied: known, ..Entries::default() };
    let decrease = ScalingEvent { reverts: vec![id(1), id(2)], ..event(3, 3, "-9") };
    assert_eq!(entries.left_for(&decrease), 2);
}
