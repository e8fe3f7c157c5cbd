//! What the alerts of a source may reach: `rules` and `targets` of a source.

use super::controls::{deploy, with_a_hold};
use super::*;
use crate::domain::direction::Direction;
use crate::domain::target_pattern::TargetPattern;

const HOUR: i64 = 3600;

/// Restricts the source that sends now to these targets.
fn restrict(world: &mut World, targets: &str) {
    let patterns = vec![TargetPattern::new(targets).unwrap()];
    Arc::make_mut(&mut world.source).permissions.targets = Some(patterns);
}

/// Lets another source send now, which is restricted to these targets.
fn switch_to_restricted(world: &mut World, targets: &str) {
    world.switch_to("guest");
    restrict(world, targets);
}

#[test]
fn an_alert_about_another_target_is_invalid_and_the_cause_names_both() {
    let mut world = Setup::default().world();
    restrict(&mut world, "*/*/*/*/prod-us/*/*");
    let decisions = world.post(0, vec![firing("a", -10)]);
    assert_eq!(summary(&decisions), "invalid×1");
    let cause = "target eks/nodegroup/-/-/prod-eu/-/workers is beyond `sources.prod.targets`";
    assert_eq!(decisions[0].detail.as_deref(), Some(cause));
    assert_eq!(decisions[0].rule.as_ref(), Some(&name("pods")));
    restrict(&mut world, "*/*/*/*/prod-eu/*/*");
    assert_eq!(summary(&world.post(60, vec![firing("a", -10)])), "emitted×1 scale_out +2");
}

#[test]
fn an_open_episode_goes_on_and_resolves_when_its_target_is_not_allowed_any_more() {
    let mut world = Setup::default().world();
    assert_eq!(summary(&world.post(0, vec![firing("a", -10)])), "emitted×1 scale_out +2");
    restrict(&mut world, "*/*/*/*/prod-us/*/*");
    assert_eq!(summary(&world.post(20 * HOUR, vec![firing("a", -10)])), "invalid×1");
    assert_eq!(summary(&world.wait(30 * HOUR)), "", "it was heard, so it does not expire");
    let closed = world.post(40 * HOUR, vec![resolved("a", -10, 40 * HOUR - 5)]);
    assert_eq!(summary(&closed), "emitted×1 scale_in -1");
}

#[test]
fn an_open_episode_goes_on_and_resolves_when_its_rule_is_not_listed_any_more() {
    let mut world = Setup::default().world();
    assert_eq!(summary(&world.post(0, vec![firing("a", -10)])), "emitted×1 scale_out +2");
    Arc::make_mut(&mut world.source).permissions.rules = Some([name("another")].into());
    assert_eq!(summary(&world.post(20 * HOUR, vec![firing("a", -10), firing("b", 5)])), "unmatched×2");
    assert_eq!(summary(&world.wait(30 * HOUR)), "", "it was heard, so it does not expire");
    let closed = world.post(40 * HOUR, vec![resolved("a", -10, 40 * HOUR - 5)]);
    assert_eq!(summary(&closed), "emitted×1 scale_in -1");
}

#[test]
fn an_invalid_alert_blocks_no_decrease_of_a_target_that_its_source_may_not_reach() {
    for (targets, expected) in
        [("*/*/*/*/prod-us/*/*", "emitted×1 scale_in -1"), ("*/*/*/*/prod-eu/*/*", "stabilizing×1")]
    {
        let mut world = Setup::default().world();
        world.post(0, vec![firing("a", -10)]);
        switch_to_restricted(&mut world, targets);
        // A parameter of the rule cannot be rendered.
        let mut rules = world.rules.rules().to_vec();
        let mut templates = Templates::new();
        for text in ["nodegroup", "{{ labels.nodegroup }}", "{{ labels.cluster }}"] {
            templates.template(text).unwrap();
        }
        rules[0].parameters = vec![("zone".into(), templates.template("{{ labels.nothing }}").unwrap())];
        let readable = std::mem::replace(&mut world.rules, RuleTable::new(rules, templates));
        assert_eq!(summary(&world.post(10, vec![firing("b", 5)])), "invalid×1");
        world.rules = readable;
        world.switch_to("prod");
        assert_eq!(summary(&world.post(20, vec![resolved("a", -10, 15)])), expected, "{targets}");
    }
}

#[test]
fn a_hold_beyond_the_targets_of_its_source_is_invalid_and_holds_nothing_there() {
    let mut world = with_a_hold(Setup::default(), Some("{{ labels.cluster }}"), &Direction::ALL);
    world.post(0, vec![firing("a", -10)]);
    switch_to_restricted(&mut world, "*/*/*/*/prod-us/*/*");
    let decisions = world.post(10, vec![deploy(true, 5, 0)]);
    assert_eq!(summary(&decisions), "invalid×1");
    let cause = "the hold covers */*/*/*/prod-eu/*/*, which is beyond `sources.guest.targets`";
    assert_eq!(decisions[0].detail.as_deref(), Some(cause));
    world.switch_to("prod");
    assert_eq!(summary(&world.post(20, vec![resolved("a", -10, 15)])), "emitted×1 scale_in -1");
}

#[test]
fn a_hold_within_the_targets_of_its_source_is_in_force() {
    let mut world = with_a_hold(Setup::default(), Some("{{ labels.cluster }}"), &Direction::ALL);
    world.post(0, vec![firing("a", -10)]);
    switch_to_restricted(&mut world, "*/*/*/*/prod-eu/*/*");
    assert_eq!(summary(&world.post(10, vec![deploy(true, 5, 0)])), "no_action×1");
    world.switch_to("prod");
    assert_eq!(summary(&world.post(20, vec![resolved("a", -10, 15)])), "held×1");
}

/// A hold for all targets, and one whose fields cannot be rendered.
#[test]
fn a_hold_that_is_invalid_blocks_scale_ins_only_within_the_targets_of_its_source() {
    for cluster in [None, Some("{{ labels.zone }}")] {
        for (targets, expected) in
            [("*/*/*/*/prod-us/*/*", "emitted×1 scale_in -1"), ("*/*/*/*/prod-eu/*/*", "held×1")]
        {
            let mut world = with_a_hold(Setup::default(), cluster, &Direction::ALL);
            world.post(0, vec![firing("a", -10)]);
            switch_to_restricted(&mut world, targets);
            assert_eq!(summary(&world.post(10, vec![deploy(true, 5, 0)])), "invalid×1");
            world.switch_to("prod");
            let increased = world.post(20, vec![firing("b", 15)]);
            assert_eq!(summary(&increased), "emitted×1 scale_out +2", "it blocks no increase");
            let closed = world.post(30, vec![resolved("a", -10, 25), resolved("b", 15, 25)]);
            assert_eq!(summary(&closed).replace("×2", "×1"), expected, "{cluster:?} {targets}");
        }
    }
}

#[test]
fn a_hold_that_cannot_be_read_covers_what_any_of_its_sources_may_reach() {
    let mut world = with_a_hold(Setup::default(), Some("{{ labels.zone }}"), &Direction::ALL);
    world.post(0, vec![firing("a", -10)]);
    switch_to_restricted(&mut world, "*/*/*/*/prod-us/*/*");
    world.post(10, vec![deploy(true, 5, 0)]);
    world.switch_to("prod");
    world.post(11, vec![deploy(true, 5, 0)]);
    assert_eq!(summary(&world.post(20, vec![resolved("a", -10, 15)])), "held×1", "`prod` may reach all");
    world.post(30, vec![deploy(false, 5, 25)]);
    assert_eq!(summary(&world.wait(31)), "emitted×1 scale_in -1", "the other alert is about others");
}

#[test]
fn a_hold_that_cannot_be_read_covers_no_more_after_its_source_was_removed() {
    for (targets, expected) in
        [("*/*/*/*/prod-us/*/*", "emitted×1 scale_in -1"), ("*/*/*/*/prod-eu/*/*", "held×1")]
    {
        let mut world = with_a_hold(Setup::default(), Some("{{ labels.zone }}"), &Direction::ALL);
        world.post(0, vec![firing("a", -10)]);
        switch_to_restricted(&mut world, targets);
        assert_eq!(summary(&world.post(10, vec![deploy(true, 5, 0)])), "invalid×1");
        world.switch_to("prod");
        // `guest` is removed from the configuration.
        world.other_sources.clear();
        world.wait(15);
        assert_eq!(summary(&world.post(20, vec![resolved("a", -10, 15)])), expected, "{targets}");
    }
}

#[test]
fn an_alert_of_a_removed_source_that_a_hold_cannot_read_covers_no_more_than_the_source_allowed() {
    for (targets, expected) in
        [("*/*/*/*/prod-us/*/*", "emitted×1 scale_in -1"), ("*/*/*/*/prod-eu/*/*", "held×1")]
    {
        for resolves_first in [false, true] {
            let mut world = with_a_hold(Setup::default(), Some("{{ labels.zone }}"), &Direction::ALL);
            world.post(0, vec![firing("a", -10)]);
            switch_to_restricted(&mut world, targets);
            world.post(10, vec![deploy(true, 5, 0)]);
            // The same alert of a source that may reach all.
            world.switch_to("prod");
            world.post(11, vec![deploy(true, 5, 0)]);
            if resolves_first {
                world.post(12, vec![deploy(false, 5, 12)]);
            }
            // `guest` is removed from the configuration, before or after the other alert has resolved.
            world.other_sources.clear();
            world.wait(15);
            if !resolves_first {
                world.post(16, vec![deploy(false, 5, 15)]);
            }
            assert_eq!(summary(&world.post(20, vec![resolved("a", -10, 15)])), expected, "{targets}");
        }
    }
}

#[test]
fn a_hold_that_its_source_does_not_list_does_not_open() {
    let mut world = with_a_hold(Setup::default(), Some("{{ labels.cluster }}"), &Direction::ALL);
    world.post(0, vec![firing("a", -10)]);
    Arc::make_mut(&mut world.source).permissions.rules = Some([name("pods")].into());
    assert_eq!(summary(&world.post(10, vec![deploy(true, 5, 0)])), "unmatched×1");
    assert_eq!(summary(&world.post(20, vec![resolved("a", -10, 15)])), "emitted×1 scale_in -1");
}
