//! Rules in `mode: shadow` are evaluated apart.

use super::*;

/// `pods` as in [`guarded`] with these values, and `trial`, a shadow rule for the same alerts in the row before it or
/// after it.
fn with_a_trial(setup: Setup, is_first: bool, change: impl FnOnce(&mut Rule)) -> World {
    let mut world = setup.world();
    let pods = world.rules.rules()[0].clone();
    let mut trial = Rule { name: name("trial"), mode: Mode::Shadow, ..pods.clone() };
    change(&mut trial);
    let rules = if is_first { vec![trial, pods] } else { vec![pods, trial] };
    world.rules = RuleTable::new(rules, known_templates());
    world
}

#[test]
fn a_shadow_rule_takes_no_alert_from_an_active_one_and_is_hidden_by_none() {
    for is_first in [true, false] {
        let mut world = with_a_trial(guarded(0, 0, 0), is_first, |_| {});
        let opened = world.post(0, vec![firing("a", -10)]);
        assert_eq!(summary(&opened), "emitted×1 scale_out +2, shadowed×1 scale_out +2");
        let closed = world.post(60, vec![resolved("a", -10, 55)]);
        assert_eq!(summary(&closed), "emitted×1 scale_in -1, shadowed×1 scale_in -1");
    }
}

#[test]
fn active_episodes_outrank_a_shadow_rule_and_disturb_its_calm() {
    let mut world = with_a_trial(guarded(0, 0, 0), false, |trial| {
        trial.matchers = Matcher::parse_list("alertname = Slow").unwrap();
        trial.on_firing = idle(5).on_firing;
        trial.on_resolved = None;
    });
    world.post(0, vec![firing("a", -10)]);
    assert_eq!(summary(&world.post(60, vec![slow(true, 50, 0)])), "outranked×1");
    assert_eq!(summary(&world.wait(360)), "");
    let ended = world.post(400, vec![resolved("a", -10, 390)]);
    assert_eq!(summary(&ended), "emitted×1 scale_in -1, stabilizing×1");
    assert_eq!(ended[1].until, Some(at(700)));
    assert_eq!(summary(&world.wait(700)), "shadowed×1 scale_in -1");
}

#[test]
fn a_late_firing_under_a_shadow_rule_does_not_disturb_active_ones() {
    let mut world = with_a_trial(guarded(0, 0, 5), false, |trial| {
        trial.matchers = Matcher::parse_list("alertname = Slow").unwrap();
        trial.on_resolved = None;
    });
    world.post(-200, vec![slow(true, -210, 0)]);
    world.post(-100, vec![slow(false, -210, -110)]);
    world.post(0, vec![firing("a", -10)]);
    world.post(60, vec![resolved("a", -10, 55)]);
    assert_eq!(summary(&world.post(100, vec![slow(true, -210, 0)])), "late×1");
    assert_eq!(summary(&world.wait(360)), "emitted×1 scale_in -1");
}

#[test]
fn an_alert_that_a_shadow_rule_cannot_read_does_not_block_active_ones() {
    let mut templates = known_templates();
    let missing = templates.template("{{ labels.missing }}").unwrap();
    let mut world =
        with_a_trial(guarded(0, 0, 5), true, |trial| trial.parameters = vec![("x".into(), missing)]);
    world.rules = RuleTable::new(world.rules.rules().to_vec(), templates);
    assert_eq!(summary(&world.post(0, vec![firing("a", -10)])), "invalid×1, emitted×1 scale_out +2");
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "stabilizing×1");
    assert_eq!(summary(&world.wait(360)), "emitted×1 scale_in -1");
}

#[test]
fn a_shadow_rule_owes_what_it_would_have_added_until_it_would_have_taken_it_back() {
    let mut world = Setup { mode: Mode::Shadow, ..guarded(0, 0, 0) }.world();
    world.post(0, vec![firing("a", -10)]);
    world.post(10, vec![firing("b", 5)]);
    let closed = world.post(60, vec![resolved("a", -10, 55), resolved("b", 5, 55)]);
    assert_eq!(closed[0].shadow.as_ref().unwrap().reverts.len(), 2);
    assert_eq!(summary(&world.wait(3600)), "");
}

#[test]
fn what_a_shadow_rule_owes_is_forgotten_after_retention_owed() {
    let mut world = Setup { mode: Mode::Shadow, ..guarded(0, 0, 0) }.world();
    world.post(0, vec![firing("a", -10)]);
    world.post_truncated(60, true, vec![resolved("a", -10, 55)]);
    world.run_until(at(60 + 7 * 24 * 3600));
    assert!(world.states.is_empty(), "{:?}", world.states);
}

#[test]
fn a_rule_that_becomes_active_forgets_its_shadow_state_and_opens_with_the_next_notification() {
    let mut world = Setup { mode: Mode::Shadow, ..guarded(10, 0, 0) }.world();
    assert_eq!(summary(&world.post(0, vec![firing("a", -10)])), "shadowed×1 scale_out +2");
    world.rules = guarded(10, 0, 0).table(Templates::new());
    assert_eq!(summary(&world.wait(30)), "");
    assert_eq!(
        summary(&world.post(60, vec![firing("a", -10)])),
        "emitted×1 scale_out +2",
        "no cooldown is left"
    );
}

#[test]
fn the_end_of_an_alert_that_only_a_former_shadow_had_open_is_kept() {
    let mut world = Setup { mode: Mode::Shadow, ..guarded(0, 0, 0) }.world();
    world.post(0, vec![firing("a", -10)]);
    world.rules = guarded(0, 0, 0).table(Templates::new());
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "no_evidence×1");
    assert_eq!(summary(&world.post(70, vec![firing("a", -10)])), "late×1");
}
