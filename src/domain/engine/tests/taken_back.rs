//! What takes back a decrease that is emitted and that no answer has confirmed.

use super::controls::pause;
use super::deliveries::{given_up, uncertain, undelivered};
use super::*;
use crate::domain::delivery::EventDelivery;
use crate::domain::direction::Direction;

#[test]
fn an_increase_supersedes_a_decrease_that_is_not_confirmed() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), EventDelivery::pending());
    let opened = world.post(90, vec![slow(true, 80, 0)]);
    assert_eq!(summary(&opened), "emitted×1 scale_out +2, superseded×1, outranked×1");
    assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Cancel)]);
    let ended = world.post(200, vec![slow(false, 80, 190)]);
    let second = event_of(&ended);
    assert_eq!((second.action, second.id != first.id), ("scale_in", true));
}

#[test]
fn an_increase_supersedes_for_ever_a_decrease_that_may_have_arrived() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), uncertain());
    assert_eq!(summary(&world.post(90, vec![slow(true, 80, 0)])), "emitted×1 scale_out +2, superseded×1");
    assert_eq!(world.changes(), [(first.id, DeliveryChangeKind::Cancel)]);
    assert_eq!(summary(&world.post(200, vec![slow(false, 80, 190)])), "no_action×1");
    assert_eq!(summary(&world.wait(30 * 3600)), "");
}

#[test]
fn an_opening_of_its_own_rule_supersedes_a_decrease_and_counts_it_if_it_may_have_arrived() {
    for (delivery, owed) in [(EventDelivery::pending(), 2), (uncertain(), 1)] {
        let (mut world, first) = undelivered(guarded(0, 0, 0), delivery);
        let opened = world.post(90, vec![firing("b", 80)]);
        assert_eq!(summary(&opened), "superseded×1, emitted×1 scale_out +2");
        assert_eq!(world.changes(), [(first.id, DeliveryChangeKind::Cancel)]);
        let closed = world.post(200, vec![resolved("b", 80, 190)]);
        assert_eq!(event_of(&closed).reverts.len(), owed);
    }
}

/// Begins or ends what blocks the emission of a decrease.
type Blocker = fn(&mut World, bool) -> Vec<Decision>;

/// A pause, a reception gap, a late firing and an invalid one.
fn blockers() -> [Blocker; 4] {
    [
        |world, begins| {
            if begins {
                pause(world, 90, None, |_| {});
            } else {
                assert!(world.controls.resume(1).is_some());
            }
            world.wait(if begins { 90 } else { 460 })
        },
        |world, begins| {
            if begins {
                world.gap(80, 90);
            }
            world.wait(if begins { 90 } else { 460 })
        },
        |world, begins| match begins {
            true => world.post(90, vec![firing("a", -10)]),
            false => world.post(400, vec![resolved("a", -10, 390)]),
        },
        |world, begins| match begins {
            true => world.post_invalid(90, "a"),
            false => world.post(400, vec![resolved("a", -10, 390)]),
        },
    ]
}

#[test]
fn what_would_block_its_emission_takes_back_a_decrease_that_is_not_confirmed() {
    for blocker in blockers() {
        let (mut world, first) = undelivered(guarded(0, 0, 0), EventDelivery::pending());
        let taken_back = blocker(&mut world, true);
        assert!(summary(&taken_back).contains("superseded×1"), "{}", summary(&taken_back));
        assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Cancel)]);
        let mut decisions = blocker(&mut world, false);
        decisions.extend(world.run_until(at(3600)).into_iter().map(|(_, decision)| decision));
        let again = event_of(&decisions);
        assert_ne!(again.id, first.id);
        assert_eq!(again.reverts, first.reverts, "with the evidence that it had");
    }
}

#[test]
fn a_decrease_that_may_have_arrived_keeps_its_id_and_is_suspended_while_something_blocks_it() {
    for blocker in blockers() {
        let (mut world, first) = undelivered(guarded(0, 0, 0), uncertain());
        blocker(&mut world, true);
        assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Suspend)]);
        assert_eq!(summary(&world.wait(91)), "");
        assert_eq!(world.changes(), [], "once");
        blocker(&mut world, false);
        assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Resume)]);
        assert_eq!(summary(&world.wait(800)), "");
        assert_eq!(world.changes(), [], "once");
        world.set_delivery(&first, EventDelivery::delivered(at(810)));
        world.wait(810);
        assert!(world.states.values().all(|state| state.owing_rules().next().is_none()));
    }
}

#[test]
fn a_suspended_decrease_whose_call_has_arrived_goes_on_at_the_other_destinations() {
    for blocker in blockers() {
        let (mut world, first) = undelivered(guarded(0, 0, 0), uncertain());
        blocker(&mut world, true);
        assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Suspend)]);
        let elsewhere = EventDelivery { is_pending: true, ..EventDelivery::delivered(at(91)) };
        world.set_delivery(&first, elsewhere);
        world.wait(91);
        assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Resume)]);
        world.wait(92);
        assert_eq!(world.changes(), [], "once");
    }
}

#[test]
fn a_suspended_decrease_is_due_when_the_wait_after_a_reception_gap_is_over() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), uncertain());
    world.gap(80, 90);
    assert_eq!(summary(&world.wait(90)), "superseded×1");
    assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Suspend)]);
    assert_eq!(world.next_due(), Some(450));
    assert_eq!(summary(&world.wait(450)), "");
    assert_eq!(world.changes(), [(first.id, DeliveryChangeKind::Resume)]);
}

#[test]
fn a_suspended_decrease_waits_for_its_window_after_a_late_firing() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), EventDelivery::default());
    let mut setup = guarded(0, 0, 5);
    setup.on_firing.as_mut().unwrap().action.cooldown = Duration::ZERO;
    world.rules = with_a_second_rule(setup).rules;
    world.set_delivery(&first, uncertain());
    assert_eq!(summary(&world.post(90, vec![firing("a", -10)])), "late×1, superseded×1");
    assert_eq!(summary(&world.post(100, vec![resolved("a", -10, 96)])), "withdrawn×1");
    assert_eq!(world.changes(), []);
    assert_eq!(world.next_due(), Some(400));
    world.wait(400);
    assert_eq!(world.changes(), [(first.id, DeliveryChangeKind::Resume)]);
}

#[test]
fn a_decrease_that_is_taken_back_does_not_overwrite_a_newer_request() {
    let mut world = idle(0).world();
    world.policy.per_minute.scale_in = 1;
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Rejected));
    world.wait(10);
    let grown = world.post(20, vec![firing("a", -10), firing("b", 15)]);
    assert_eq!(last_wait(&grown), ("over_budget".to_owned(), Some(60)));
    world.set_delivery(&first, EventDelivery::pending());
    let id = pause(&mut world, 30, None, |_| {});
    assert_eq!(summary(&world.wait(30)), "superseded×1, withdrawn×1");
    assert_eq!(world.rates.contents(Direction::ScaleIn).1, [at(60)], "the slot of the newer one");
    assert!(world.controls.resume(id).is_some());
    assert_eq!(summary(&world.wait(40)), "");
    let second = event_of(&world.wait(60));
    assert_eq!((second.alerts.len(), second.id != first.id), (2, true));
}

/// The rules of `world` after a reload that has removed `pods`, and after one that has removed its decrease.
fn without_the_decrease(world: &World) -> [RuleTable; 2] {
    let mut rules = world.rules.rules().to_vec();
    rules[0].on_resolved = None;
    let removed = rules[1..].to_vec();
    [RuleTable::new(removed, known_templates()), RuleTable::new(rules, known_templates())]
}

#[test]
fn a_decrease_ends_when_a_reload_removes_its_rule_or_its_action() {
    for case in 0..2 {
        for is_paused in [false, true] {
            let (mut world, first) = undelivered(guarded(0, 0, 0), EventDelivery::pending());
            let [removed, changed] = without_the_decrease(&world);
            world.rules = if case == 0 { removed } else { changed };
            if is_paused {
                pause(&mut world, 80, None, |_| {});
            }
            assert!(world.states.values().any(|state| state.depends_on_controls()), "a reload rechecks it");
            assert!(summary(&world.wait(90)).starts_with("withdrawn×1"));
            assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Cancel)]);
            assert_eq!(summary(&world.wait(91)), "");
            assert_eq!(world.changes(), [], "once");
        }
    }
}

#[test]
fn a_suspended_decrease_is_not_resumed_after_a_reload_has_removed_its_rule_or_its_action() {
    for case in 0..2 {
        let (mut world, first) = undelivered(guarded(0, 10, 0), uncertain());
        pause(&mut world, 80, None, |_| {});
        assert_eq!(summary(&world.wait(90)), "superseded×1");
        let [removed, changed] = without_the_decrease(&world);
        world.rules = if case == 0 { removed } else { changed };
        assert_eq!(summary(&world.wait(100)), "withdrawn×1");
        assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Cancel)]);
        assert!(world.controls.resume(1).is_some());
        assert_eq!(summary(&world.wait(110)), "");
        assert_eq!(world.changes(), []);
        assert!(
            world.states.values().all(|state| state.owing_rules().next().is_none()),
            "it may have arrived"
        );
    }
}

#[test]
fn a_decrease_that_may_have_arrived_has_its_cooldown_from_the_opening_of_its_rule() {
    let (mut world, first) = undelivered(guarded(0, 10, 0), uncertain());
    world.post(90, vec![firing("b", 80)]);
    assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Cancel)]);
    let closed = world.post(200, vec![resolved("b", 80, 190)]);
    assert_eq!(last_wait(&closed), ("cooling_down".to_owned(), Some(90 + 600)));
    assert!(closed.last().unwrap().detail.as_ref().is_some_and(|detail| detail.contains(&*first.id)));
}
