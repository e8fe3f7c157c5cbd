//! What decisions make of the delivery of earlier events.

use super::controls::{DAY, deploy, pause, with_a_hold};
use super::*;
use crate::domain::delivery::EventDelivery;
use crate::domain::direction::Direction;

pub(super) fn given_up(why: GiveUp) -> EventDelivery {
    EventDelivery { given_up: Some(why), ..EventDelivery::default() }
}

/// The outcome of a call is unknown, and it is tried again.
pub(super) fn uncertain() -> EventDelivery {
    EventDelivery { is_uncertain: true, ..EventDelivery::pending() }
}

/// A world whose decrease, emitted at the second 60, is not delivered.
pub(super) fn undelivered(setup: Setup, delivery: EventDelivery) -> (World, Event) {
    let mut world = with_a_second_rule(setup);
    world.post(0, vec![firing("a", -10)]);
    let decrease = event_of(&world.post(60, vec![resolved("a", -10, 55)]));
    world.set_delivery(&decrease, delivery);
    (world, decrease)
}

#[test]
fn an_increase_that_is_being_delivered_blocks_its_rule_and_its_cooldown_counts_from_the_delivery() {
    let mut world = guarded(5, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, EventDelivery::pending());
    let grown = world.post(600, vec![firing("a", -10), firing("b", 590)]);
    assert_eq!(last_wait(&grown), ("cooling_down".to_owned(), None));
    assert_eq!(grown[1].detail, Some(format!("event {} of the rule is not delivered yet", first.id)));
    assert_eq!(summary(&world.wait(3600)), "");
    world.set_delivery(&first, EventDelivery::delivered(at(4000)));
    assert_eq!(last_wait(&world.wait(4001)), ("cooling_down".to_owned(), Some(4300)));
    assert_eq!(summary(&world.wait(4300)), "emitted×1 scale_out +2");
}

#[test]
fn an_increase_that_is_being_delivered_blocks_other_rules_from_its_emission() {
    let mut world = with_a_second_rule(guarded(5, 0, 0));
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, EventDelivery::pending());
    let other = world.post(60, vec![slow(true, 50, 0)]);
    assert_eq!(last_wait(&other), ("cooling_down".to_owned(), Some(300)));
    assert_eq!(summary(&world.wait(300)), "emitted×1 scale_out +2");
}

#[test]
fn a_decrease_waits_for_the_increase_that_it_answers() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, EventDelivery::pending());
    let closed = world.post(60, vec![resolved("a", -10, 55)]);
    assert_eq!(last_wait(&closed), ("cooling_down".to_owned(), None));
    let mut refused = World { states: world.states.clone(), ..guarded(0, 0, 0).world() };
    refused.set_delivery(&first, given_up(GiveUp::Rejected));
    assert_eq!(summary(&refused.wait(100)), "withdrawn×1", "nothing was added");
    world.set_delivery(&first, EventDelivery::delivered(at(90)));
    assert_eq!(event_of(&world.wait(100)).reverts, [first.id]);
}

#[test]
fn an_increase_that_no_destination_will_get_blocks_nothing_and_is_not_owed() {
    let mut world = guarded(60, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Rejected));
    let grown = world.post(60, vec![firing("a", -10), firing("b", 50)]);
    assert_eq!(summary(&grown), "duplicate×1, emitted×1 scale_out +2");
    let second = event_of(&grown);
    let closed = world.post(4000, vec![resolved("a", -10, 3990), resolved("b", 50, 3990)]);
    assert_eq!(event_of(&closed).reverts, [second.id], "only what was delivered is taken back");
}

#[test]
fn a_redriven_increase_is_owed_like_any_other() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Rejected));
    world.wait(30);
    world.set_delivery(&first, EventDelivery::pending());
    world.wait(40);
    assert_eq!(summary(&world.post(45, vec![firing("a", -10)])), "duplicate×1");
    world.set_delivery(&first, EventDelivery::delivered(at(50)));
    world.wait(50);
    let replaced = world.post(55, vec![resolved("a", -10, 52), firing("b", 53)]);
    assert_eq!(summary(&replaced), "no_action×1, still_open×1", "the need is answered");
    assert_eq!(event_of(&world.post(60, vec![resolved("b", 53, 58)])).reverts, [first.id]);
}

#[test]
fn an_increase_that_is_redriven_after_the_close_is_taken_back() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Rejected));
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "no_evidence×1");
    world.set_delivery(&first, EventDelivery::delivered(at(100)));
    assert_eq!(event_of(&world.wait(101)).reverts, [first.id]);
}

#[test]
fn an_increase_that_is_redriven_after_the_decrease_of_its_rule_is_taken_back() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Rejected));
    let second = event_of(&world.post(60, vec![firing("b", 50)]));
    let closed = world.post(100, vec![resolved("a", -10, 90), resolved("b", 50, 90)]);
    assert_eq!(event_of(&closed).reverts, [second.id]);
    world.wait(101);
    world.wait(5 * 3600);
    world.set_delivery(&first, EventDelivery::delivered(at(5 * 3600 + 10)));
    assert_eq!(event_of(&world.wait(5 * 3600 + 20)).reverts, [first.id]);
    world.wait(5 * 3600 + 21);
    assert_eq!(summary(&world.wait(8 * DAY)), "");
    assert!(world.states.is_empty(), "{:?}", world.states);
}

#[test]
fn a_late_firing_does_not_continue_an_episode_whose_decrease_was_delivered_beside_a_dead_letter() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Rejected));
    world.post(60, vec![firing("b", 50)]);
    world.post(100, vec![resolved("a", -10, 90), resolved("b", 50, 90)]);
    world.wait(101);
    assert_eq!(summary(&world.post(110, vec![firing("a", -10)])), "late×1");
    let again = event_of(&world.wait(470));
    assert_ne!(again.episode.id, first.episode.id);
}

#[test]
fn an_increase_that_is_redriven_after_its_decrease_was_withdrawn_is_taken_back() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, EventDelivery::pending());
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "cooling_down×1");
    world.set_delivery(&first, given_up(GiveUp::Rejected));
    assert_eq!(summary(&world.wait(100)), "withdrawn×1");
    world.set_delivery(&first, EventDelivery::delivered(at(200)));
    assert_eq!(event_of(&world.wait(210)).reverts, [first.id]);
}

#[test]
fn what_is_owed_for_a_redriven_increase_ends_though_no_close_by_resolve_has_requested_a_decrease() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Rejected));
    assert_eq!(summary(&world.post_truncated(60, true, vec![resolved("a", -10, 55)])), "no_evidence×1");
    world.set_delivery(&first, EventDelivery::delivered(at(200)));
    assert_eq!(summary(&world.wait(210)), "");
    assert_eq!(world.states.values().map(|state| state.owing_rules().count()).sum::<usize>(), 1);
    assert_eq!(summary(&world.wait(210 + 7 * DAY)), "");
    assert!(world.states.is_empty(), "{:?}", world.states);
}

#[test]
fn the_event_of_an_open_episode_is_renewed_when_it_was_given_up_because_of_its_age() {
    let mut world = guarded(5, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Expired));
    assert_eq!(summary(&world.wait(3600)), "", "it is the same event");
    let renew = DeliveryChangeKind::Renew { expires_after: 60 * MINUTE };
    assert_eq!(world.changes(), [(first.id.clone(), renew)]);
    world.set_delivery(&first, EventDelivery::delivered(at(3700)));
    world.wait(3700);
    let grown = world.post(3800, vec![firing("b", 3790)]);
    assert_eq!(last_wait(&grown), ("cooling_down".to_owned(), Some(4000)));
}

#[test]
fn a_paused_event_is_renewed_when_the_pause_ends() {
    let mut world = guarded(5, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    let id = pause(&mut world, 10, None, |_| {});
    world.set_delivery(&first, given_up(GiveUp::Expired));
    world.wait(3600);
    assert_eq!(world.changes(), []);
    world.controls.resume(id);
    world.wait(7200);
    assert_eq!(world.changes().len(), 1);
    world.set_delivery(&first, EventDelivery::delivered(at(7300)));
    let closed = world.post(7400, vec![resolved("a", -10, 7390)]);
    assert_eq!(last_wait(&closed), ("cooling_down".to_owned(), Some(7600)));
    assert_eq!(event_of(&world.wait(7600)).reverts, [first.id], "it is owed");
}

#[test]
fn a_paused_event_is_renewed_at_the_end_of_a_timed_pause() {
    let mut world = guarded(5, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    pause(&mut world, 10, Some(7200), |_| {});
    pause(&mut world, 10, Some(9000), |_| {});
    world.set_delivery(&first, given_up(GiveUp::Expired));
    assert_eq!(summary(&world.wait(3600)), "");
    assert_eq!((world.changes(), world.next_due()), (vec![], Some(9000)));
    assert_eq!(summary(&world.wait(9000)), "");
    let renew = DeliveryChangeKind::Renew { expires_after: 60 * MINUTE };
    assert_eq!(world.changes(), [(first.id.clone(), renew)]);
    world.set_delivery(&first, EventDelivery::pending());
    assert_eq!(summary(&world.wait(9001)), "");
    assert!(world.next_due() > Some(9001));
}

#[test]
fn an_event_that_became_too_old_under_a_pause_is_not_replaced_without_growth() {
    let mut world = guarded(5, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    let id = pause(&mut world, 10, None, |_| {});
    world.set_delivery(&first, given_up(GiveUp::Expired));
    world.wait(3600);
    let other = world.post(3700, vec![firing("b", 3690), resolved("a", -10, 3690)]);
    assert_eq!(summary(&other), "no_action×1, still_open×1", "another pod is no growth");
    world.controls.resume(id);
    assert_eq!(summary(&world.wait(7200)), "");
    assert_eq!(world.changes().len(), 1, "it is renewed");
}

#[test]
fn a_paused_event_is_not_renewed_after_its_episode() {
    let mut world = guarded(5, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    pause(&mut world, 10, Some(7200), |_| {});
    world.set_delivery(&first, given_up(GiveUp::Expired));
    world.wait(3600);
    world.post(3700, vec![resolved("a", -10, 3690)]);
    world.wait(7200);
    assert_eq!(world.changes(), []);
    assert!(world.next_due().is_none_or(|due| due > 7200));
}

#[test]
fn a_withheld_event_is_renewed_when_its_hold_has_lasted_for_max_duration() {
    let mut world = with_a_hold(guarded(5, 0, 0), None, &Direction::ALL);
    let mut rules = world.rules.rules().to_vec();
    if let RuleTarget::Hold(hold) = &mut rules[1].target {
        hold.max_duration = Some(60 * MINUTE);
    }
    world.rules = RuleTable::new(rules, known_templates());
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.post(10, vec![deploy(true, 5, 0)]);
    world.set_delivery(&first, given_up(GiveUp::Expired));
    assert_eq!(summary(&world.wait(3600)), "");
    let generation = world.controls.generation;
    let is_rechecked =
        |state: &TargetState| state.emission(&first.id).is_some() && state.depends_on_controls();
    assert!(world.states.values().any(|state| is_rechecked(state)));
    assert_eq!(world.next_due(), Some(3610));
    assert_eq!(summary(&world.wait(3610)), "expired×1");
    assert!(world.controls.generation > generation, "the targets are rechecked");
    world.wait(3611);
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn the_event_of_a_closed_episode_is_not_renewed_and_nothing_is_owed_for_it() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, EventDelivery::pending());
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "cooling_down×1");
    world.set_delivery(&first, given_up(GiveUp::Expired));
    assert_eq!(summary(&world.wait(3600)), "withdrawn×1");
    assert_eq!(world.changes(), []);
}

#[test]
fn the_renewal_of_an_unanswered_event_ends_when_its_episode_closes() {
    for (closed_at, is_over) in [(3599, false), (3600, true), (9000, true)] {
        let mut world = guarded(0, 0, 0).world();
        let first = event_of(&world.post(0, vec![firing("a", -10)]));
        world.set_delivery(&first, EventDelivery::pending());
        world.wait(3599);
        let closed = world.post(closed_at, vec![resolved("a", -10, closed_at - 5)]);
        assert_eq!(last_wait(&closed), ("cooling_down".to_owned(), None), "its worker gives it up");
        let ended = (first.id.clone(), DeliveryChangeKind::EndRenewal);
        assert_eq!(world.changes(), Vec::from_iter(Some(ended).filter(|_| is_over)), "{closed_at}");
        world.set_delivery(&first, given_up(GiveUp::Expired));
        assert_eq!(summary(&world.wait(closed_at + 1)), "withdrawn×1", "nothing is owed for it");
        assert_eq!(world.changes(), []);
    }
}

#[test]
fn a_close_ends_no_renewal_of_a_delivered_event_or_of_another_rule() {
    let mut world = with_a_second_rule(guarded(0, 0, 0));
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, EventDelivery::delivered(at(1)));
    let other = event_of(&world.post(10, vec![slow(true, 0, 0)]));
    world.set_delivery(&other, EventDelivery::pending());
    world.post(9000, vec![resolved("a", -10, 8990)]);
    assert_eq!(world.changes(), []);
    world.post(9100, vec![slow(false, 0, 9090)]);
    assert_eq!(world.changes(), [(other.id, DeliveryChangeKind::EndRenewal)]);
}

#[test]
fn a_decrease_that_was_given_up_because_of_its_age_waits_for_its_destination() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Expired));
    let again = world.wait(400);
    assert_eq!(last_wait(&again), ("cooling_down".to_owned(), None));
    assert_eq!(world.changes(), [(first.id.clone(), DeliveryChangeKind::Replace)]);
    world.deliveries.last_success.insert(name("queue"), at(390));
    assert_eq!(summary(&world.wait(410)), "", "that call was before the give-up");
    world.deliveries.last_success.insert(name("queue"), at(420));
    let second = event_of(&world.wait(421));
    assert_ne!(second.id, first.id);
    assert_eq!(second.reverts, first.reverts);
}

#[test]
fn a_wait_for_the_destination_that_is_over_is_due_once() {
    let (mut world, _) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Expired));
    world.wait(400);
    assert_eq!(summary(&world.post(500, vec![slow(true, 490, 0)])), "emitted×1 scale_out +2, outranked×1");
    assert_eq!(summary(&world.wait(400 + 3600)), "");
    assert!(world.next_due().is_some_and(|due| due > 400 + 3600), "{:?}", world.next_due());
    assert_eq!(world.post(5000, vec![slow(false, 490, 4990)]).last().unwrap().verdict, Verdict::Emitted);
}

#[test]
fn each_wait_for_the_destination_is_twice_as_long() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Expired));
    let mut ids = BTreeSet::from([first.id]);
    let mut now = 400;
    for hours in [1, 2, 4, 8, 16, 24, 24] {
        assert_eq!(summary(&world.wait(now)), "cooling_down×1");
        assert_eq!(summary(&world.wait(now + hours * 3600 - 1)), "");
        now += hours * 3600;
        let next = event_of(&world.wait(now));
        world.set_delivery(&next, given_up(GiveUp::Expired));
        assert!(ids.insert(next.id), "it has a new id");
        now += 100;
    }
}

#[test]
fn no_decrease_follows_a_rejected_one_until_the_rule_opens_again() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Rejected));
    assert_eq!(summary(&world.wait(400)), "");
    assert_eq!(summary(&world.wait(4 * 3600)), "");
    let opened = world.post(5 * 3600, vec![firing("b", 5 * 3600 - 10)]);
    assert_eq!(summary(&opened), "emitted×1 scale_out +2");
    let closed = world.post(6 * 3600, vec![resolved("b", 5 * 3600 - 10, 6 * 3600 - 10)]);
    let second = event_of(&closed);
    assert_ne!(second.id, first.id);
    assert_eq!(second.reverts.len(), 2, "what is owed has stayed");
}

#[test]
fn the_dead_letter_of_a_decrease_is_replaced_when_a_later_one_has_paid() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Rejected));
    world.wait(400);
    world.post(500, vec![firing("b", 490)]);
    world.post(600, vec![resolved("b", 490, 590)]);
    world.wait(601);
    assert_eq!(world.changes(), [(first.id, DeliveryChangeKind::Replace)]);
    assert_eq!(summary(&world.wait(4 * 3600)), "");
}

#[test]
fn a_decrease_that_is_redriven_after_its_rule_has_opened_again_takes_back_what_it_names() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Rejected));
    world.wait(400);
    let second = event_of(&world.post(500, vec![firing("b", 490)]));
    world.wait(510);
    world.set_delivery(&first, EventDelivery::delivered(at(550)));
    world.wait(550);
    let closed = world.post(600, vec![resolved("b", 490, 590)]);
    assert_eq!(event_of(&closed).reverts, [second.id]);
}

#[test]
fn a_rejected_decrease_that_is_redriven_takes_back_what_was_owed() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Rejected));
    world.wait(400);
    world.set_delivery(&first, EventDelivery::delivered(at(500)));
    world.wait(500);
    assert!(world.states.values().all(|state| state.owing_rules().next().is_none()));
    assert_eq!(summary(&world.wait(4 * 3600)), "");
}

#[test]
fn a_redriven_decrease_is_superseded_like_any_other() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Rejected));
    world.wait(400);
    world.set_delivery(&first, EventDelivery::pending());
    world.wait(500);
    assert_eq!(
        summary(&world.post(600, vec![slow(true, 590, 0)])),
        "emitted×1 scale_out +2, superseded×1, outranked×1"
    );
    assert_eq!(world.changes(), [(first.id, DeliveryChangeKind::Cancel)]);
}

#[test]
fn discarding_its_dead_letter_ends_a_decrease() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Rejected));
    world.wait(400);
    world.set_delivery(&first, EventDelivery::default());
    assert_eq!(summary(&world.wait(500)), "withdrawn×1");
    assert!(world.states.values().all(|state| state.owing_rules().next().is_none()));
}

#[test]
fn a_dead_letter_of_which_nothing_is_known_any_more_is_not_owed() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Rejected));
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "no_evidence×1");
    world.deliveries.events.clear();
    assert_eq!(summary(&world.wait(100)), "");
    assert!(world.states.values().all(|state| state.emissions.is_empty()), "nothing was added");
}

#[test]
fn what_is_owed_stays_if_no_destination_gets_the_decrease() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), EventDelivery::default());
    assert_eq!(summary(&world.wait(100)), "withdrawn×1");
    assert_eq!(summary(&world.wait(200)), "", "it is not made again and again");
    let second = event_of(&world.post(300, vec![firing("b", 290)]));
    let again = event_of(&world.post(400, vec![resolved("b", 290, 390)]));
    assert_eq!(again.reverts, [first.reverts[0].clone(), second.id]);
}

#[test]
fn a_success_at_the_very_time_of_a_give_up_is_a_later_one() {
    let (mut world, first) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Expired));
    assert_eq!(last_wait(&world.wait(400)), ("cooling_down".to_owned(), None));
    world.deliveries.last_success.insert(name("queue"), at(400));
    assert_ne!(event_of(&world.wait(400)).id, first.id, "not only the probe an hour later");
}

#[test]
fn a_success_between_a_give_up_and_its_decision_leaves_nothing_to_wait_for() {
    let later_success = Some(at(399));
    let given_up = EventDelivery { later_success, ..given_up(GiveUp::Expired) };
    let (mut world, first) = undelivered(guarded(0, 0, 0), given_up.clone());
    world.deliveries.last_success.insert(name("queue"), at(399));
    let second = event_of(&world.wait(400));
    assert_ne!(second.id, first.id);
    // The destination goes on giving up this one event: each wait is twice as long as the one before.
    world.set_delivery(&second, EventDelivery { later_success: None, ..given_up });
    assert_eq!(last_wait(&world.wait(700)), ("cooling_down".to_owned(), None));
    assert_eq!(summary(&world.wait(700 + 7199)), "");
    assert_eq!(summary(&world.wait(700 + 7200)), "emitted×1 scale_in -1");
}

#[test]
fn after_a_change_of_send_to_a_decrease_waits_for_the_destination_of_what_it_takes_back() {
    let (mut world, _) = undelivered(guarded(0, 0, 0), given_up(GiveUp::Expired));
    let mut rules = world.rules.rules().to_vec();
    let before = rules[0].acting[0].clone();
    (rules[0].send_to, rules[0].acting) = (vec![name("another")], vec![name("another")]);
    world.rules = RuleTable::new(rules, known_templates());
    assert_eq!(last_wait(&world.wait(100)), ("cooling_down".to_owned(), None));
    world.deliveries.last_success.insert(name("another"), at(110));
    assert_eq!(summary(&world.wait(120)), "");
    world.deliveries.last_success.insert(before, at(130));
    assert_eq!(summary(&world.wait(140)), "emitted×1 scale_in -1");
}

#[test]
fn a_decrease_that_may_have_arrived_counts_as_delivered_when_it_is_given_up() {
    for why in [GiveUp::Expired, GiveUp::Rejected] {
        let delivery = EventDelivery { is_uncertain: true, ..given_up(why) };
        let (mut world, _) = undelivered(guarded(0, 0, 0), delivery);
        assert_eq!(summary(&world.wait(400)), "");
        assert_eq!(world.changes(), []);
        assert_eq!(summary(&world.wait(30 * 3600)), "", "what it may have taken is not taken again");
    }
}

#[test]
fn a_decrease_on_firing_is_tried_until_it_is_delivered() {
    let mut world = idle(0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Expired));
    assert_eq!(last_wait(&world.wait(400)), ("cooling_down".to_owned(), None));
    world.deliveries.last_success.insert(name("queue"), at(420));
    let second = event_of(&world.wait(421));
    assert_ne!(second.id, first.id);
    world.set_delivery(&second, EventDelivery::pending());
    let closed = world.post(500, vec![resolved("a", -10, 490)]);
    assert_eq!(summary(&closed), "superseded×1, no_action×1", "its episode has closed");
    assert_eq!(world.changes(), [(second.id, DeliveryChangeKind::Cancel)]);
    assert_eq!(summary(&world.wait(30 * 3600)), "");
}

#[test]
fn a_late_firing_emits_again_when_nothing_of_the_episode_was_delivered() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, given_up(GiveUp::Rejected));
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "no_evidence×1");
    assert_eq!(summary(&world.post(70, vec![firing("a", -10)])), "late×1");
    let again = event_of(&world.wait(430));
    assert_eq!((&again.episode.id, again.episode.emission), (&first.episode.id, 2));
}

#[test]
fn a_decrease_waits_until_what_it_answers_is_pending_at_no_acting_destination() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, EventDelivery { is_pending: true, ..EventDelivery::delivered(at(1)) });
    let closed = world.post(60, vec![resolved("a", -10, 55)]);
    assert_eq!(last_wait(&closed), ("cooling_down".to_owned(), None));
    assert!(world.states.values().all(|state| state.awaits_delivery()));
    world.set_delivery(&first, EventDelivery::delivered(at(1)));
    assert_eq!(event_of(&world.wait(70)).reverts, [first.id]);
}

#[test]
fn an_increase_that_was_given_up_after_its_close_is_not_renewed_beside_its_successor() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, EventDelivery::pending());
    world.post(60, vec![resolved("a", -10, 55)]);
    world.set_delivery(&first, given_up(GiveUp::Expired));
    assert_eq!(summary(&world.wait(3600)), "withdrawn×1");
    assert_eq!(summary(&world.post(3610, vec![firing("a", -10)])), "late×1");
    let again = event_of(&world.wait(3970));
    world.set_delivery(&again, EventDelivery::pending());
    assert_eq!(summary(&world.wait(3980)), "");
    assert_eq!(world.changes(), []);
}

#[test]
fn an_increase_that_was_given_up_at_its_close_is_not_renewed_while_its_successor_waits() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, EventDelivery::pending());
    world.post(4000, vec![resolved("a", -10, 3990)]);
    world.set_delivery(&first, given_up(GiveUp::Expired));
    world.wait(4001);
    world.post(4010, vec![firing("a", -10)]);
    let id = pause(&mut world, 4020, None, |_| {});
    assert_eq!(summary(&world.wait(4370)), "paused×1");
    world.controls.resume(id);
    let second = event_of(&world.wait(4400));
    assert_eq!((&second.episode.id, second.episode.emission), (&first.episode.id, 2));
    assert_eq!(world.changes(), [], "one event of the episode is enough");
}

#[test]
fn a_late_firing_emits_a_decrease_again_when_none_of_the_episode_was_delivered() {
    for (is_given_up, is_closed_at) in [(false, 60), (true, 500)] {
        let mut world = idle(0).world();
        let first = event_of(&world.post(0, vec![firing("a", -10)]));
        world.set_delivery(&first, EventDelivery::pending());
        if is_given_up {
            world.set_delivery(&first, given_up(GiveUp::Expired));
            assert_eq!(last_wait(&world.wait(400)), ("cooling_down".to_owned(), None));
        }
        let closed = summary(&world.post(is_closed_at, vec![resolved("a", -10, is_closed_at - 5)]));
        let expected = if is_given_up { "withdrawn×1, no_action×1" } else { "superseded×1, no_action×1" };
        assert_eq!(closed, expected);
        world.post(is_closed_at + 10, vec![firing("a", -10)]);
        let again = event_of(&world.wait(is_closed_at + 370));
        assert_eq!((&again.episode.id, again.episode.emission), (&first.episode.id, 2));
    }
}
