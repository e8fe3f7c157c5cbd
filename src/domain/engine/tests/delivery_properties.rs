//! Property test: whatever happens to the deliveries of a flapping rule with `revert`, what counts as delivered sums to
//! zero in the end, and nothing is taken back twice.

use proptest::prelude::*;

use super::controls::pause;
use super::*;
use crate::domain::delivery::EventDelivery;

#[derive(Debug, Clone)]
enum Happening {
    /// An alert fires, or resolves if it fires.
    Toggle(u8),
    /// Something becomes of an event that is pending: the last ones first.
    Deliver(u8),
    LoseAnswer(u8),
    Expire(u8),
    Reject(u8),
    /// An operator redrives the last dead letter.
    Redrive,
    Pause,
    Resume,
    Gap,
    /// A call to the destination succeeds.
    Success,
}

/// The rule with alerts `a` to `c`, and another one with `slow`.
struct Flapping {
    world: World,
    firing: BTreeMap<u8, i64>,
    seconds: i64,
    /// All events with their values, in the order of their emission.
    events: Vec<(Event, EventDelivery)>,
}

fn happenings() -> impl Strategy<Value = Vec<(i64, Happening)>> {
    let happening = prop_oneof![
        6 => (0..4_u8).prop_map(Happening::Toggle),
        4 => (0..2_u8).prop_map(Happening::Deliver),
        1 => (0..2_u8).prop_map(Happening::LoseAnswer),
        1 => (0..2_u8).prop_map(Happening::Expire),
        1 => (0..2_u8).prop_map(Happening::Reject),
        1 => Just(Happening::Redrive),
        1 => Just(Happening::Pause),
        1 => Just(Happening::Resume),
        1 => Just(Happening::Gap),
        1 => Just(Happening::Success),
    ];
    prop::collection::vec((prop_oneof![1..100_i64, 1..1200_i64], happening), 1..30)
}

impl Flapping {
    fn new() -> Self {
        let mut setup = guarded(2, 3, 5);
        setup.on_resolved.as_mut().unwrap().action.change = Change::Revert;
        Self { world: with_a_second_rule(setup), firing: BTreeMap::new(), seconds: 0, events: Vec::new() }
    }

    /// Does what the store does with a step: its events are pending, and the changes of deliveries are applied.
    fn store(&mut self, decisions: &[Decision]) -> Result<(), TestCaseError> {
        for change in &self.world.delivery_changes {
            let known = self.events.iter_mut().find(|(event, _)| event.id == change.event);
            let Some((_, delivery)) = known else { continue };
            match change.kind {
                DeliveryChangeKind::Cancel | DeliveryChangeKind::Replace => {
                    (delivery.is_pending, delivery.given_up) = (false, None);
                }
                DeliveryChangeKind::Renew { .. } => (delivery.is_pending, delivery.given_up) = (true, None),
                DeliveryChangeKind::Suspend | DeliveryChangeKind::Resume | DeliveryChangeKind::EndRenewal => {
                }
            }
        }
        for event in events(decisions) {
            for id in &event.reverts {
                let named = self.events.iter().find(|(known, _)| known.id == *id);
                prop_assert!(
                    named.is_some_and(|(_, delivery)| delivery.delivered_at.is_some()),
                    "not delivered"
                );
                let before = self.events.iter().filter(|(known, _)| known.reverts.contains(id));
                let counts =
                    |delivery: &EventDelivery| delivery.delivered_at.is_some() || delivery.is_uncertain;
                prop_assert!(
                    before.filter(|(_, delivery)| counts(delivery)).count() == 0,
                    "taken back twice"
                );
            }
            prop_assert!(self.events.iter().all(|(known, _)| known.id != event.id), "the id repeats");
            self.events.push((event.clone(), EventDelivery::pending()));
        }
        for (event, delivery) in &self.events {
            self.world.set_delivery(event, delivery.clone());
        }
        Ok(())
    }

    /// Processes what is due until then, and once more after each change of a delivery.
    fn advance(&mut self, seconds: i64) -> Result<(), TestCaseError> {
        let mut rounds = 0;
        loop {
            rounds += 1;
            prop_assert!(rounds < 500, "the states come due again and again");
            let next = self.world.next_due().filter(|next| *next < self.seconds + seconds);
            let Some(next) = next else { break };
            let decisions = self.world.wait((next + 1).max(self.seconds));
            self.store(&decisions)?;
        }
        self.seconds += seconds;
        self.recheck()
    }

    fn recheck(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..3 {
            let decisions = self.world.wait(self.seconds);
            self.store(&decisions)?;
        }
        Ok(())
    }

    fn toggle(&mut self, number: u8) -> Result<(), TestCaseError> {
        let pod = ["a", "b", "c", "slow"][usize::from(number % 4)];
        let started = self.firing.remove(&number);
        let (starts, ends) = (started.unwrap_or(self.seconds), self.seconds);
        let alert = match (pod, started.is_none()) {
            ("slow", fires) => slow(fires, starts, ends),
            (_, true) => firing(pod, starts),
            (_, false) => resolved(pod, starts, ends),
        };
        if started.is_none() {
            self.firing.insert(number, starts);
        }
        let decisions = self.world.post(self.seconds, vec![alert]);
        self.store(&decisions)
    }

    /// Changes the delivery of one of the pending events.
    fn settle(&mut self, back: u8, change: impl FnOnce(&mut EventDelivery)) {
        let mut pending = self.events.iter_mut().rev().filter(|(_, delivery)| delivery.is_pending);
        if let Some((_, delivery)) = pending.nth(usize::from(back)) {
            change(delivery);
        }
    }

    fn happens(&mut self, happening: &Happening) -> Result<(), TestCaseError> {
        let now = at(self.seconds);
        let give_up = |why| {
            move |delivery: &mut EventDelivery| {
                (delivery.is_pending, delivery.given_up) = (false, Some(why));
            }
        };
        match happening {
            Happening::Toggle(number) => self.toggle(*number)?,
            Happening::Deliver(back) => {
                self.settle(*back, |delivery| *delivery = EventDelivery::delivered(now));
            }
            Happening::LoseAnswer(back) => self.settle(*back, |delivery| delivery.is_uncertain = true),
            Happening::Expire(back) => self.settle(*back, give_up(GiveUp::Expired)),
            Happening::Reject(back) => self.settle(*back, give_up(GiveUp::Rejected)),
            Happening::Redrive => self.redrive(),
            Happening::Pause => drop(pause(&mut self.world, self.seconds, None, |_| {})),
            Happening::Resume => self.resume(),
            Happening::Gap => self.world.gap(self.seconds - 10, self.seconds),
            Happening::Success => drop(self.world.deliveries.last_success.insert(name("queue"), now)),
        }
        self.store(&[])?;
        self.recheck()
    }

    fn redrive(&mut self) {
        let dead = self.events.iter_mut().rev().find(|(_, delivery)| delivery.given_up.is_some());
        dead.into_iter().for_each(|(_, delivery)| (delivery.is_pending, delivery.given_up) = (true, None));
    }

    fn resume(&mut self) {
        let pauses: Vec<u64> = self.world.controls.pauses(self.world.now).map(|pause| pause.id).collect();
        pauses.into_iter().for_each(|pause| drop(self.world.controls.resume(pause)));
    }

    /// Everything is delivered, and all alerts resolve. An episode of its own ends dead letters of decreases.
    fn end(&mut self) -> Result<(), TestCaseError> {
        self.resume();
        for round in 0..40 {
            self.advance(600)?;
            let now = at(self.seconds);
            self.world.deliveries.last_success.insert(name("queue"), now);
            for (_, delivery) in self.events.iter_mut().filter(|(_, delivery)| delivery.is_pending) {
                *delivery = EventDelivery::delivered(now);
            }
            self.store(&[])?;
            self.recheck()?;
            let numbers: Vec<u8> = self.firing.keys().copied().collect();
            numbers.into_iter().try_for_each(|number| self.toggle(number))?;
            if round == 1 {
                self.toggle(0)?;
            }
        }
        Ok(())
    }

    /// The sum of the values of the rule `pods` that count as delivered.
    fn sum(&self) -> i64 {
        let counted = self.events.iter().filter(|(event, delivery)| {
            let is_decrease = event.action == "scale_in";
            event.rule.as_str() == "pods"
                && (delivery.delivered_at.is_some() || (is_decrease && delivery.is_uncertain))
        });
        counted.filter_map(|(event, _)| Some(event.adjustment.as_ref()?.value)).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_counts_as_delivered_sums_to_zero_in_the_end(happenings in happenings()) {
        let mut flapping = Flapping::new();
        for (delay, happening) in &happenings {
            flapping.advance(*delay)?;
            flapping.happens(happening)?;
        }
        flapping.end()?;
        let states = &flapping.world.states;
        let waiting: Vec<Verdict> = states.values().flat_map(|state| state.deferred_verdicts()).collect();
        prop_assert!(waiting.is_empty(), "{waiting:?}");
        prop_assert_eq!(states.values().flat_map(|state| state.owing_rules()).count(), 0);
        prop_assert_eq!(flapping.sum(), 0);
    }
}
