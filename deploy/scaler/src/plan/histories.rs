//! Random histories: events in any order, each delivered several times, by workers that die at any step.

use proptest::prelude::*;
use scalebridge::domain::time::Time;

use super::test_support::{event, id, size};
use super::{End, Facts, MAX_HOLD, Policy, Step, answer_of, called, ended, plan};
use crate::event::ScalingEvent;
use crate::ledger::{AppliedItem, Entries, TargetItem};
use crate::outcome::{Answer, Outcome};

const START: u32 = 50;

/// What survives the death of a worker.
struct World {
    entries: Entries,
    capacity: u32,
    calls: Vec<(String, u32, u32)>,
    worker: u64,
    now: Time,
}

/// Where a worker dies: after so many writes and calls; `None` if it lives.
type Life = Option<u8>;

impl World {
    fn new() -> Self {
        let (entries, calls) = Default::default();
        Self { entries, capacity: START, calls, worker: 0, now: Time::from_millis(0) }
    }

    /// A worker handles a copy of an event. `None` if it dies before its answer.
    fn deliver(&mut self, event: &ScalingEvent, mut life: Life) -> Option<Answer> {
        // After its predecessor's hold.
        (self.worker, self.now) = (self.worker + 1, self.now.after(MAX_HOLD));
        // Each act ends with the possible death of the worker.
        let mut acted = |life: &mut Life| match life {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        };
        loop {
            let present = size(self.capacity);
            let facts = Facts {
                worker: self.worker,
                event,
                entries: &self.entries,
                present: &present,
                policy: &Policy::default(),
                now: self.now,
            };
            match plan(&facts) {
                Step::Answer(answer) => return Some(answer),
                Step::Begin(target) => self.write(target),
                Step::GiveUp { target, .. } => self.write(target),
                Step::Call(pending) => {
                    assert_eq!(self.capacity, pending.from, "a call replaces what was planned from");
                    self.write(called(&self.entries, &pending));
                    if !acted(&mut life) {
                        return None;
                    }
                    self.capacity = pending.to;
                    self.calls.push((pending.id.clone(), pending.from, pending.to));
                    if !acted(&mut life) {
                        return None;
                    }
                    let end = ended(&self.entries, &event.subject, &pending);
                    if let Some(answer) = self.end(end, event, &mut life, &mut acted) {
                        return answer;
                    }
                    continue;
                }
                Step::End(end) => {
                    if let Some(answer) = self.end(*end, event, &mut life, &mut acted) {
                        return answer;
                    }
                    continue;
                }
            }
            if !acted(&mut life) {
                return None;
            }
        }
    }

    /// `Some` if the worker is done with the event, or dead.
    fn end(
        &mut self,
        end: End,
        event: &ScalingEvent,
        life: &mut Life,
        acted: &mut impl FnMut(&mut Life) -> bool,
    ) -> Option<Option<Answer>> {
        let End { pending, taken_back, never_applied, applied, target } = end;
        for (old, new) in taken_back {
            assert_eq!(self.entries.applied.insert(new.id.clone(), new), Some(old));
            if !acted(life) {
                return Some(None);
            }
        }
        for item in never_applied {
            self.note(item);
            if !acted(life) {
                return Some(None);
            }
        }
        self.note(applied);
        if !acted(life) {
            return Some(None);
        }
        self.write(target);
        if !acted(life) {
            return Some(None);
        }
        (pending.id == event.id).then(|| Some(answer_of(event, &pending)))
    }

    fn write(&mut self, target: TargetItem) {
        assert_eq!(target.version, self.entries.target.version + 1);
        self.entries.target = target;
    }

    fn note(&mut self, applied: AppliedItem) {
        let known = self.entries.applied.entry(applied.id.clone()).or_insert_with(|| applied.clone());
        assert_eq!(*known, applied, "an event is noted once");
    }
}

/// Changes of -5 to +5, then the deliveries: which event, and when its worker dies.
fn history() -> impl Strategy<Value = (Vec<i64>, Vec<(usize, Life)>)> {
    let change = prop_oneof![1_i64..=5, -5_i64..=-1];
    let life = prop_oneof![2 => Just(None), 3 => (0_u8..6).prop_map(Some)];
    (prop::collection::vec(change, 1..8), prop::collection::vec((0_usize..8, life), 0..30))
}

fn events(changes: &[i64]) -> Vec<ScalingEvent> {
    (1..)
        .zip(changes)
        .map(|(number, change)| event(number, u64::from(number), &format!("{change:+}")))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever dies and is repeated, each event changes the capacity at most once, and in the end each was applied once,
    /// but decreases that a later event has overtaken.
    #[test]
    fn each_event_acts_once_whatever_dies((changes, deliveries) in history()) {
        let events = events(&changes);
        let mut world = World::new();
        for (at, life) in deliveries {
            world.deliver(&events[at % events.len()], life);
        }
        let mut expected = i64::from(START);
        for (event, change) in events.iter().zip(&changes) {
            let answer = world.deliver(event, None).unwrap();
            match answer.outcome {
                Outcome::Applied | Outcome::AlreadyApplied => expected += change,
                Outcome::Overtaken => prop_assert!(*change < 0, "{answer:?}"),
                _ => prop_assert!(false, "{answer:?}"),
            }
        }
        prop_assert_eq!(i64::from(world.capacity), expected);
        for number in 1..=events.len() {
            let calls = world.calls.iter().filter(|(of, ..)| *of == id(number as u32)).count();
            prop_assert!(calls <= 1, "event {number} was called {calls} times");
        }
    }

    /// Increases lead to the same capacity in any order.
    #[test]
    fn increases_count_in_any_order(changes in prop::collection::vec(1_i64..=5, 1..8), seed in any::<u64>()) {
        let mut events = events(&changes);
        let mut left = seed;
        for at in (1..events.len()).rev() {
            events.swap(at, (left % (at as u64 + 1)) as usize);
            left /= at as u64 + 1;
        }
        let mut world = World::new();
        for event in &events {
            prop_assert_eq!(world.deliver(event, None).unwrap().outcome, Outcome::Applied);
        }
        prop_assert_eq!(i64::from(world.capacity), i64::from(START) + changes.iter().sum::<i64>());
    }

    /// Increases, and decreases that take them back, in any order: nothing is taken that was not added, and nothing stays
    /// of an increase whose decrease was not overtaken.
    #[test]
    fn what_is_taken_back_was_added_in_any_order(
        changes in prop::collection::vec(1_i64..=5, 1..5),
        deliveries in prop::collection::vec(
            (0_usize..8, prop_oneof![2 => Just(None), 3 => (0_u8..8).prop_map(Some)]), 0..30),
    ) {
        let mut events = events(&changes);
        let count = changes.len();
        for (at, change) in changes.iter().enumerate() {
            let number = u32::try_from(count + at + 1).unwrap();
            let reverts = vec![events[at].id.clone()];
            let decrease = event(number, u64::from(number), &format!("{:+}", -change));
            events.push(ScalingEvent { reverts, ..decrease });
        }
        let mut world = World::new();
        for (at, life) in deliveries {
            world.deliver(&events[at % events.len()], life);
            prop_assert!(world.capacity >= START, "{} was taken from what was there", world.capacity);
        }
        let answers: Vec<Answer> = events.iter().map(|event| world.deliver(event, None).unwrap()).collect();
        let stays = changes.iter().enumerate().filter(|(at, _)| {
            answers[count + at].outcome == Outcome::Overtaken && answers[*at].outcome != Outcome::Overtaken
        });
        let expected = i64::from(START) + stays.map(|(_, change)| change).sum::<i64>();
        prop_assert_eq!(i64::from(world.capacity), expected, "{:?}", answers);
    }

    /// Beside somebody else who changes the capacity at any time, an increase never lowers it and a decrease never raises
    /// it, and a call never replaces a capacity that was not read.
    #[test]
    fn the_direction_holds_beside_others(
        (changes, deliveries) in history(),
        others in prop::collection::vec(prop::option::weighted(0.3, 0_u32..100), 30),
    ) {
        let events = events(&changes);
        let mut world = World::new();
        for ((at, life), other) in deliveries.into_iter().zip(others) {
            if let Some(capacity) = other {
                world.capacity = capacity;
            }
            world.deliver(&events[at % events.len()], life);
        }
        for (of, from, to) in &world.calls {
            let is_increase = (1..).zip(&changes).any(|(number, change)| id(number) == *of && *change > 0);
            prop_assert!(if is_increase { to > from } else { to < from }, "{of}: {from}>{to}");
        }
    }
}
