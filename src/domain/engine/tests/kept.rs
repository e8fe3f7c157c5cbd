//! Rules of a newer configuration, which some replicas do not have yet.

use super::*;
use crate::domain::delivery::EventDelivery;

/// Replaces the rule `pods` by one that nothing matches, as a replica with an older configuration knows it.
fn forget_pods(world: &mut World) -> RuleTable {
    let mut other = world.rules.rules()[0].clone();
    other.name = name("other");
    other.matchers = Matcher::parse_list("alertname = Other").unwrap();
    let templates = known_templates();
    world.keeps_unknown_rules = true;
    std::mem::replace(&mut world.rules, RuleTable::new(vec![other], templates))
}

fn remember(world: &mut World, rules: RuleTable) {
    world.rules = rules;
    world.keeps_unknown_rules = false;
}

#[test]
fn a_deferred_decrease_of_a_rule_that_others_have_is_left_to_them_and_comes_due_seldom() {
    let mut world = guarded(0, 0, 10).world();
    let increase = event_of(&world.post(0, vec![firing("a", -10)]));
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "stabilizing×1");
    let rules = forget_pods(&mut world);
    let ended = world.run_until(at(1000));
    assert!(ended.is_empty(), "{ended:?}");
    assert!(world.next_due() > Some(1000), "it is looked at again");
    remember(&mut world, rules);
    let decrease = event_of(&world.wait(1010));
    assert_eq!((decrease.action.to_string().as_str(), decrease.reverts), ("scale_in", vec![increase.id]));
}

#[test]
fn an_alert_that_resolves_at_a_replica_without_its_rule_is_answered_and_the_decrease_made_by_another_one() {
    let mut world = guarded(0, 0, 10).world();
    world.post(0, vec![firing("a", -10)]);
    let rules = forget_pods(&mut world);
    assert_eq!(summary(&world.post(30, vec![firing("a", -10)])), "unmatched×1");
    let resolved = world.post(60, vec![resolved("a", -10, 55)]);
    assert_eq!(summary(&resolved), "no_action×1");
    world.run_until(at(120));
    remember(&mut world, rules);
    let decisions = world.run_until(at(1000)).into_iter().map(|(_, decision)| decision).collect::<Vec<_>>();
    assert_eq!(summary(&decisions), "stabilizing×1, emitted×1 scale_in -1");
}

#[test]
fn an_unconfirmed_decrease_of_a_rule_that_others_have_is_not_cancelled() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![firing("a", -10)]);
    let decrease = event_of(&world.post(60, vec![resolved("a", -10, 55)]));
    world.set_delivery(&decrease, EventDelivery::pending());
    forget_pods(&mut world);
    assert_eq!((summary(&world.recheck(at(100))), world.changes()), (String::new(), Vec::new()));
    world.keeps_unknown_rules = false;
    assert_eq!(summary(&world.recheck(at(101))), "withdrawn×1", "its rule was removed");
}

#[test]
fn a_late_firing_opens_at_a_replica_that_has_its_rule() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![firing("a", -10)]);
    world.post(60, vec![resolved("a", -10, 55)]);
    assert_eq!(summary(&world.post(61, vec![firing("a", 20)])), "late×1");
    let rules = forget_pods(&mut world);
    let lost = world.run_until(at(700));
    assert!(lost.is_empty(), "{lost:?}");
    remember(&mut world, rules);
    let decisions = world.run_until(at(1000)).into_iter().map(|(_, decision)| decision).collect::<Vec<_>>();
    assert_eq!(summary(&decisions), "emitted×1 scale_out +2");
}

#[test]
fn what_a_rule_owes_that_nobody_has_any_more_is_ended() {
    let mut world = guarded(0, 0, 10).world();
    world.post(0, vec![firing("a", -10)]);
    world.post(60, vec![resolved("a", -10, 55)]);
    forget_pods(&mut world);
    world.wait(100);
    world.keeps_unknown_rules = false;
    assert_eq!(summary(&world.wait(101)), "withdrawn×1");
}
