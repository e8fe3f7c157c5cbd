//! Owed decreases: what a rule has added and not taken back is taken back once, however its alerts flap.

use super::*;
use crate::domain::delivery::EventDelivery;

/// Like [`guarded`], and the scale-in takes back what the rule has added.
fn reverting(out_cooldown: u64, in_cooldown: u64, window: u64) -> Setup {
    let mut setup = guarded(out_cooldown, in_cooldown, window);
    setup.on_resolved.as_mut().unwrap().action.change = Change::Revert;
    setup
}

/// Opens an episode with three emissions, and returns their ids.
fn grow_three_times(world: &mut World) -> Vec<Arc<str>> {
    let pods = ["a", "b", "c"];
    let grow = |at: i64| event_of(&world.post(at, vec![firing(pods[at as usize], 0)])).id;
    (0..3).map(grow).collect()
}

fn all_resolved(ends: i64) -> Vec<Alert> {
    ["a", "b", "c"].iter().map(|pod| resolved(pod, 0, ends)).collect()
}

#[test]
fn a_fixed_decrease_takes_back_all_that_the_rule_has_added() {
    let mut world = guarded(0, 0, 0).world();
    let ids = grow_three_times(&mut world);
    let decrease = event_of(&world.post(60, all_resolved(55)));
    assert_eq!((decrease.adjustment.unwrap().value, decrease.reverts), (-1, ids));
    assert_eq!(summary(&world.wait(3600)), "", "nothing is owed any more");
}

#[test]
fn a_revert_takes_back_the_sum_of_what_the_rule_has_added() {
    let mut world = reverting(0, 0, 0).world();
    let ids = grow_three_times(&mut world);
    let decrease = event_of(&world.post(60, all_resolved(55)));
    assert_eq!((decrease.adjustment.unwrap().value, decrease.reverts), (-6, ids));
}

#[test]
fn a_revert_names_as_many_events_as_fit_the_limits_and_the_rest_stays_owed() {
    let limits = Limits { min_capacity: Some(2), max_capacity: Some(7) };
    let mut world = Setup { limits, ..reverting(0, 10, 0) }.world();
    let ids = grow_three_times(&mut world);
    let first = event_of(&world.post(60, all_resolved(55)));
    assert_eq!((first.adjustment.unwrap().value, &first.reverts[..]), (-4, &ids[..2]));
    assert_eq!(summary(&world.wait(61)), "cooling_down×3");
    assert_eq!(summary(&world.wait(659)), "");
    let second = event_of(&world.wait(660));
    assert_eq!((second.adjustment.unwrap().value, &second.reverts[..]), (-2, &ids[2..]));
    assert_ne!(first.id, second.id);
    assert_eq!(summary(&world.wait(7200)), "");
}

#[test]
fn a_revert_takes_back_only_what_it_names_of_events_from_one_instant() {
    let limits = Limits { min_capacity: Some(2), max_capacity: Some(5) };
    let mut world = Setup { limits, ..reverting(0, 0, 0) }.world();
    world.post(0, vec![firing("a", 0)]);
    world.post(0, vec![firing("b", 0)]);
    let mut decisions = world.post(60, vec![resolved("a", 0, 55), resolved("b", 0, 55)]);
    decisions.extend(world.run_until(at(600)).into_iter().map(|(_, decision)| decision));
    let values = events(&decisions).into_iter().map(|event| event.adjustment.as_ref().unwrap().value);
    assert_eq!(values.collect::<Vec<_>>(), [-2, -2]);
}

#[test]
fn a_revert_always_names_the_oldest_event_and_cuts_its_value() {
    let limits = Limits { min_capacity: Some(2), max_capacity: Some(3) };
    let mut world = Setup { limits, ..reverting(0, 0, 0) }.world();
    world.post(0, vec![firing("a", 0)]);
    let decrease = event_of(&world.post(60, vec![resolved("a", 0, 55)]));
    assert_eq!((decrease.adjustment.unwrap().value, decrease.reverts.len()), (-1, 1));
    assert_eq!(summary(&world.wait(7200)), "");
}

#[test]
fn a_flap_within_the_cooldown_leaves_nothing_behind() {
    let mut world = reverting(10, 0, 5).world();
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    assert_eq!(summary(&world.post(120, vec![firing("a", 110)])), "withdrawn×1, cooling_down×1");
    assert_eq!(summary(&world.post(180, vec![resolved("a", 110, 175)])), "withdrawn×1, stabilizing×1");
    let decisions = world.run_until(at(7200));
    let values: Vec<i64> = decisions
        .iter()
        .filter_map(|(_, decision)| Some(decision.event.as_ref()?.adjustment.as_ref()?.value))
        .collect();
    assert_eq!(values, [-2]);
}

#[test]
fn after_hours_of_flapping_a_revert_has_taken_back_what_was_added() {
    let mut world = reverting(5, 10, 15).world();
    let mut sum = 0;
    let mut add = |decisions: &[Decision]| {
        let values = events(decisions).into_iter().filter_map(|event| event.adjustment.as_ref());
        sum += values.map(|adjustment| adjustment.value).sum::<i64>();
    };
    for round in 0..48 {
        let start = round * 600;
        for (at_second, alert) in
            [(start, firing("a", start - 5)), (start + 300, resolved("a", start - 5, start + 295))]
        {
            world.run_until(at(at_second)).into_iter().for_each(|(_, decision)| add(&[decision]));
            add(&world.post(at_second, vec![alert]));
        }
    }
    world.run_until(at(48 * 600 + 7200)).into_iter().for_each(|(_, decision)| add(&[decision]));
    assert_eq!(sum, 0);
    assert!(world.states.values().all(|state| state.owing_rules().next().is_none()));
}

#[test]
fn what_is_owed_stays_for_the_next_close_by_resolve() {
    let mut world = reverting(0, 0, 5).world();
    let mut ids = vec![event_of(&world.post(0, vec![firing("a", 0)])).id];
    assert_eq!(summary(&world.post(60, vec![resolved("a", 0, 55)])), "stabilizing×1");
    let opened = world.post(120, vec![firing("b", 110)]);
    assert_eq!(summary(&opened), "withdrawn×1, emitted×1 scale_out +2");
    ids.push(event_of(&opened).id);
    assert_eq!(summary(&world.post_truncated(180, true, vec![resolved("b", 110, 175)])), "no_evidence×1");
    assert_eq!(summary(&world.wait(3600)), "", "a truncated close requests nothing");
    ids.push(event_of(&world.post(4000, vec![firing("c", 3990)])).id);
    world.post(4060, vec![resolved("c", 3990, 4055)]);
    let decrease = event_of(&world.wait(4360));
    assert_eq!((decrease.adjustment.unwrap().value, decrease.reverts), (-6, ids));
}

#[test]
fn an_expired_or_adopted_close_ends_without_action_whatever_on_resolved_does() {
    for change in [
        Change::ScaleIn(by(1)),
        Change::Revert,
        Change::Notify,
        Change::SetCapacity { to: 3, allow_decrease: true },
    ] {
        let setup = || Setup {
            on_resolved: Some(ResolvedAction { action: unguarded(change.clone()) }),
            ..Setup::default()
        };
        let mut adopted = setup().world();
        adopted.created = at(0);
        adopted.post(10, vec![firing("a", -600)]);
        assert_eq!(summary(&adopted.post(60, vec![resolved("a", -600, 55)])), "no_evidence×1");
        let mut truncated = setup().world();
        truncated.post(10, vec![firing("a", 0)]);
        assert_eq!(summary(&truncated.post_truncated(60, true, vec![resolved("a", 0, 55)])), "no_evidence×1");
        let mut expired = setup().world();
        expired.post(0, vec![firing("a", 0), firing("b", 0)]);
        expired.post(3600, vec![firing("b", 0)]);
        expired.wait(24 * 3600);
        let closed = expired.post(24 * 3600 + 60, vec![resolved("b", 0, 24 * 3600)]);
        assert_eq!(summary(&closed), "no_evidence×1");
        assert_eq!(summary(&expired.wait(24 * 3600 + 3600)), "");
    }
}

#[test]
fn what_is_owed_is_forgotten_after_retention_owed_since_the_last_close() {
    let mut world = reverting(0, 0, 0).world();
    world.post(0, vec![firing("a", 0)]);
    world.post_truncated(60, true, vec![resolved("a", 0, 55)]);
    let week = 7 * 24 * 3600;
    world.wait(60 + week - 1);
    assert_eq!(world.states.values().map(|state| state.owing_rules().count()).sum::<usize>(), 1);
    assert_eq!(summary(&world.wait(60 + week)), "", "no action waited for it");
    assert!(world.states.is_empty(), "{:?}", world.states);
}

#[test]
fn what_is_owed_is_not_forgotten_while_the_rule_is_open_again() {
    let mut world = reverting(0, 0, 0).world();
    world.post(0, vec![firing("a", 0)]);
    world.post_truncated(60, true, vec![resolved("a", 0, 55)]);
    let day = 24 * 3600;
    world.post(6 * day, vec![firing("b", 6 * day - 10)]);
    for half_days in 13..17 {
        world.run_until(at(half_days * day / 2));
        let again = world.post(half_days * day / 2, vec![firing("b", 6 * day - 10)]);
        assert_eq!(summary(&again), "duplicate×1");
    }
    let closed = world.post(8 * day + 60, vec![resolved("b", 6 * day - 10, 8 * day + 50)]);
    assert_eq!(event_of(&closed).reverts.len(), 2);
}

#[test]
fn a_set_capacity_without_allow_decrease_is_an_increase_only() {
    let set = |allow_decrease| Change::SetCapacity { to: 6, allow_decrease };
    let setup = |change| Setup {
        on_firing: Some(FiringAction { action: unguarded(change), repeat: Repeat::OnGrowth }),
        on_resolved: None,
        ..Setup::default()
    };
    for (change, verdict) in [(set(false), "emitted×1 set_capacity +6"), (set(true), "outranked×1")] {
        let mut world = with_a_second_rule(setup(change));
        world.post(0, vec![slow(true, -10, 0)]);
        assert_eq!(summary(&world.post(10, vec![firing("a", 5)])), verdict);
    }
}

#[test]
fn a_decrease_that_something_blocks_is_withdrawn_when_nothing_is_owed() {
    let mut world = with_a_second_rule(guarded(0, 0, 0));
    let first = event_of(&world.post(0, vec![firing("a", -10)]));
    world.set_delivery(&first, EventDelivery::pending());
    world.post(10, vec![slow(true, 5, 0)]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "outranked×1");
    world.set_delivery(&first, super::deliveries::given_up(GiveUp::Expired));
    assert_eq!(summary(&world.wait(3600)), "withdrawn×1");
}
