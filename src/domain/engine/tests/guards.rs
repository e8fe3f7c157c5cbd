//! Guards, and what becomes of the actions that they block.

use super::*;

#[test]
fn a_scale_in_waits_for_its_stabilization_window_and_needs_no_notification() {
    let mut world = guarded(0, 0, 15).world();
    world.post(0, vec![firing("a", 0)]);
    let closed = world.post(60, vec![resolved("a", 0, 55)]);
    assert_eq!(summary(&closed), "stabilizing×1");
    assert_eq!(closed[0].until, Some(at(60 + 900)));
    assert_eq!(summary(&world.post(100, vec![resolved("a", 0, 55)])), "duplicate×1");
    assert_eq!(summary(&world.wait(60 + 899)), "");
    let emitted = world.wait(60 + 900);
    assert_eq!(summary(&emitted), "emitted×1 scale_in -1");
    assert_eq!(events(&emitted)[0].reason, "1 alert resolved: Pending");
    assert_eq!(summary(&world.wait(60 + 7200)), "");
}

#[test]
fn a_fire_within_the_stabilization_window_withdraws_the_scale_in() {
    let mut world = guarded(0, 0, 15).world();
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    let fired = world.post(300, vec![firing("b", 290)]);
    assert_eq!(summary(&fired), "withdrawn×1, emitted×1 scale_out +2");
    assert_eq!(summary(&world.wait(3000)), "");
    assert_eq!(summary(&world.post(3060, vec![resolved("b", 290, 3050)])), "stabilizing×1");
    assert_eq!(summary(&world.wait(3060 + 900)), "emitted×1 scale_in -1");
}

#[test]
fn a_scale_out_during_a_scale_ins_cooldown_goes_at_once_and_a_scale_in_during_a_scale_outs_waits() {
    let mut world = guarded(10, 10, 0).world();
    world.post(0, vec![firing("a", 0)]);
    let closed = world.post(60, vec![resolved("a", 0, 55)]);
    assert_eq!(summary(&closed), "cooling_down×1");
    assert_eq!(closed[0].until, Some(at(600)));
    assert_eq!(summary(&world.wait(600)), "emitted×1 scale_in -1");
    assert_eq!(summary(&world.post(660, vec![firing("b", 650)])), "emitted×1 scale_out +2");
}

#[test]
fn growth_within_a_cooldown_is_deferred_and_decided_when_it_is_over() {
    let mut world = guarded(5, 0, 0).world();
    world.post(0, vec![firing("a", 0)]);
    let grown = world.post(60, vec![firing("a", 0), firing("b", 55)]);
    assert_eq!(summary(&grown), "duplicate×1, cooling_down×1");
    let more = world.post(120, vec![firing("a", 0), firing("b", 55), firing("c", 115)]);
    assert_eq!(summary(&more), "duplicate×2, withdrawn×1, cooling_down×1");
    assert_eq!(summary(&world.wait(299)), "");
    let emitted = world.wait(300);
    assert_eq!(summary(&emitted), "emitted×1 scale_out +2");
    assert_eq!(events(&emitted)[0].alerts.len(), 3, "all alerts that are open by then");
    assert_eq!(events(&emitted)[0].episode.emission, 2);
}

#[test]
fn growth_that_is_over_when_its_cooldown_ends_is_withdrawn() {
    let mut world = guarded(5, 0, 0).world();
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![firing("a", 0), firing("b", 55)]);
    world.post(120, vec![firing("a", 0), resolved("b", 55, 110)]);
    assert_eq!(summary(&world.wait(300)), "withdrawn×1");
}

#[test]
fn growth_that_is_deferred_is_withdrawn_when_its_episode_closes() {
    let mut world = guarded(5, 0, 0).world();
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![firing("a", 0), firing("b", 55)]);
    let closed = world.post(120, vec![resolved("a", 0, 110), resolved("b", 55, 110)]);
    assert_eq!(summary(&closed), "withdrawn×1, cooling_down×2");
    assert_eq!(summary(&world.wait(300)), "emitted×2 scale_in -1");
}

#[test]
fn a_scale_in_of_an_alert_that_fires_waits_until_it_has_fired_for_its_window() {
    let idle = Action {
        change: Change::ScaleIn(by(1)),
        cooldown: Duration::ZERO,
        stabilization_window: 10 * MINUTE,
    };
    let setup = || Setup {
        on_firing: Some(FiringAction { action: idle.clone(), repeat: Repeat::OnGrowth }),
        on_resolved: None,
        ..Setup::default()
    };
    let mut world = setup().world();
    assert_eq!(summary(&world.post(0, vec![firing("idle", 0)])), "stabilizing×1");
    assert_eq!(summary(&world.wait(600)), "emitted×1 scale_in -1");
    let mut world = setup().world();
    world.post(0, vec![firing("idle", 0)]);
    assert_eq!(summary(&world.post(300, vec![resolved("idle", 0, 290)])), "withdrawn×1, no_action×1");
    assert_eq!(summary(&world.wait(600)), "");
}

#[test]
fn growth_does_not_prolong_the_stabilization_window_of_a_deferred_action() {
    let out = Action {
        change: Change::ScaleOut(by(2)),
        cooldown: Duration::ZERO,
        stabilization_window: 2 * MINUTE,
    };
    let on_firing = Some(FiringAction { action: out, repeat: Repeat::OnGrowth });
    let mut world = Setup { on_firing, ..Setup::default() }.world();
    world.post(0, vec![firing("a", 0)]);
    let joined = world.post(60, vec![firing("a", 0), firing("b", 50)]);
    assert_eq!(summary(&joined), "duplicate×1, withdrawn×1, stabilizing×1");
    assert_eq!(summary(&world.wait(120)), "emitted×1 scale_out +2");
}

#[test]
fn a_deferred_action_follows_the_rule_as_it_is_when_it_is_due() {
    let mut world = guarded(0, 0, 15).world();
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    world.rules = RuleTable::new(Vec::new(), Templates::new());
    assert_eq!(summary(&world.wait(61)), "withdrawn×1");
    let mut world = guarded(0, 0, 15).world();
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    world.rules = Setup { mode: Mode::Disabled, ..guarded(0, 0, 15) }.table(Templates::new());
    assert_eq!(summary(&world.wait(60 + 900)), "disabled×1");
}

#[test]
fn a_cooldown_outlives_the_episode_that_began_it() {
    let mut world = guarded(600, 0, 0).world();
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    assert_eq!(summary(&world.wait(4000)), "");
    let again = world.post(5000, vec![firing("a", 4990)]);
    assert_eq!(summary(&again), "withdrawn×1, cooling_down×1");
    assert_eq!(summary(&world.wait(36_000)), "emitted×1 scale_out +2");
}

#[test]
fn a_target_under_an_open_scale_out_episode_never_shrinks() {
    let mut world = with_a_second_rule(Setup::default());
    world.post(0, vec![firing("a", 0)]);
    world.post(10, vec![slow(true, 5, 0)]);
    let closed = world.post(60, vec![resolved("a", 0, 55)]);
    assert_eq!(summary(&closed), "outranked×1");
    assert_eq!(closed[0].until, None);
    assert_eq!(summary(&world.wait(600)), "");
    let ended = world.post(660, vec![slow(false, 5, 650)]);
    assert_eq!(summary(&ended), "no_action×1, emitted×1 scale_in -1");
    assert_eq!(ended[1].rule, Some(name("pods")));
}

#[test]
fn a_scale_in_that_is_deferred_for_longer_than_its_debt_is_retained_expires() {
    let mut world = with_a_second_rule(guarded(0, 0, 15));
    world.policy.owed_retention = 60 * MINUTE;
    world.post(0, vec![firing("a", 0)]);
    world.post(10, vec![slow(true, 5, 0)]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", 0, 55)])), "outranked×1");
    assert_eq!(summary(&world.wait(60 + 3599)), "");
    let expired = world.wait(60 + 3600);
    assert_eq!(summary(&expired), "expired×1");
    assert_eq!(
        expired[0].detail.as_deref(),
        Some("what the rule owes was not taken back within retention.owed")
    );
}

#[test]
fn growth_of_another_rule_does_not_withdraw_the_outranked_scale_in() {
    let mut world = with_a_second_rule(guarded(0, 0, 5));
    world.post(0, vec![firing("a", 0)]);
    world.post(10, vec![slow(true, 5, 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    let mut other = slow(true, 90, 0);
    other.fingerprint = "fp-slow-2".into();
    assert_eq!(
        summary(&world.post(100, vec![slow(true, 5, 0), other.clone()])),
        "duplicate×1, emitted×1 scale_out +2"
    );
    (other.status, other.ends_at) = (Status::Resolved, Some(at(590)));
    let ended = world.post(600, vec![slow(false, 5, 590), other]);
    assert_eq!(summary(&ended), "no_action×2, stabilizing×1");
    assert_eq!(ended[1].until, Some(at(900)), "its window counts from the end of the other need");
    assert_eq!(summary(&world.wait(900)), "emitted×1 scale_in -1");
}

#[test]
fn when_two_rules_come_due_together_the_scale_out_goes_first() {
    let mut world = with_a_second_rule(guarded(5, 0, 0));
    world.post(0, vec![firing("a", 0)]);
    // A scale-in and a scale-out wait for the cooldown of the first scale-out.
    let both = world.post(60, vec![resolved("a", 0, 55), slow(true, 58, 0)]);
    assert_eq!(summary(&both), "cooling_down×1, outranked×1");
    assert_eq!(summary(&world.wait(300)), "emitted×1 scale_out +2");
}

#[test]
fn the_end_of_a_deferred_notify_does_not_disturb_a_scale_in() {
    let mut world = with_another_rule(guarded(0, 0, 15), "report", |rule| {
        rule.on_firing = fires(Change::Notify, 10 * MINUTE);
    });
    world.post(0, vec![firing("a", -10), slow(true, -10, 0)]);
    world.post(60, vec![resolved("a", -10, 55)]);
    assert_eq!(summary(&world.post(120, vec![slow(false, -10, 110)])), "withdrawn×1, no_action×1");
    assert_eq!(summary(&world.wait(60 + 900)), "emitted×1 scale_in -1");
}

#[test]
fn a_budget_bounds_the_events_about_a_target_and_frees_itself() {
    let budget = Some(Budget { events: NonZeroU32::new(2).unwrap(), per: 60 * MINUTE });
    let mut world = Setup { budget, ..Setup::default() }.world();
    world.post(0, vec![firing("a", 0)]);
    world.post(600, vec![firing("a", 0), firing("b", 590)]);
    let third = world.post(1200, vec![firing("a", 0), firing("b", 590), firing("c", 1190)]);
    assert_eq!(summary(&third), "duplicate×2, over_budget×1");
    assert_eq!(third[1].until, Some(at(3600)));
    assert_eq!(summary(&world.wait(3599)), "");
    assert_eq!(summary(&world.wait(3600)), "emitted×1 scale_out +2");
    let fourth =
        world.post(3700, vec![resolved("a", 0, 3690), resolved("b", 590, 3690), resolved("c", 1190, 3690)]);
    assert_eq!(summary(&fourth), "over_budget×3");
    assert_eq!(fourth[0].until, Some(at(600 + 3600)));
    assert_eq!(summary(&world.wait(4200)), "emitted×3 scale_in -1");
}

#[test]
fn a_budget_is_each_targets_own() {
    let budget = Some(Budget { events: NonZeroU32::new(1).unwrap(), per: 60 * MINUTE });
    let mut world = Setup { budget, ..Setup::default() }.world();
    let mut other = firing("b", 0);
    other.labels = Arc::new([("alertname", "Pending"), ("nodegroup", "others")].into_iter().collect());
    assert_eq!(
        summary(&world.post(0, vec![firing("a", 0), other])),
        "emitted×1 scale_out +2, emitted×1 scale_out +2"
    );
}

fn while_firing(max_emissions: u32) -> World {
    let max_emissions = NonZeroU32::new(max_emissions).unwrap();
    let out = Action {
        change: Change::ScaleOut(by(2)),
        cooldown: 5 * MINUTE,
        stabilization_window: Duration::ZERO,
    };
    let on_firing = Some(FiringAction { action: out, repeat: Repeat::WhileFiring { max_emissions } });
    Setup { on_firing, ..guarded(5, 0, 0) }.world()
}

#[test]
fn while_firing_acts_once_for_each_cooldown_by_its_own_clock() {
    let mut world = while_firing(3);
    assert_eq!(summary(&world.post(0, vec![firing("a", 0)])), "emitted×1 scale_out +2");
    let joined = world.post(60, vec![firing("a", 0), firing("b", 50)]);
    assert_eq!(summary(&joined), "duplicate×1, no_action×1", "notifications never trigger it");
    assert_eq!(summary(&world.wait(299)), "");
    let second = world.wait(300);
    assert_eq!(summary(&second), "emitted×2 scale_out +2");
    assert_eq!(events(&second)[0].episode.emission, 2);
    assert_eq!(summary(&world.wait(600)), "emitted×2 scale_out +2");
    assert_eq!(summary(&world.wait(6000)), "", "no more than max_emissions");
}

#[test]
fn the_window_of_a_repeated_decrease_starts_with_the_emission_before_it() {
    for (window, expected) in [(3, [180, 480, 780]), (5, [300, 600, 900]), (10, [600, 1200, 1800])] {
        let action = Action {
            change: Change::ScaleIn(by(1)),
            cooldown: 5 * MINUTE,
            stabilization_window: window * MINUTE,
        };
        let repeat = Repeat::WhileFiring { max_emissions: NonZeroU32::new(3).unwrap() };
        let on_firing = Some(FiringAction { action, repeat });
        let mut world = Setup { on_firing, on_resolved: None, ..guarded(0, 0, 0) }.world();
        world.post(0, vec![firing("a", -10)]);
        let emits = |seconds: &i64| !events(&world.wait(*seconds)).is_empty();
        let emitted: Vec<i64> = (0..3600).filter(emits).collect();
        assert_eq!(emitted, expected, "a window of {window} minutes");
    }
}

#[test]
fn while_firing_acts_again_one_cooldown_after_a_late_firing_has_made_the_episode_go_on() {
    let mut world = while_firing(3);
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 50)]);
    world.post(70, vec![firing("a", 0)]);
    assert_eq!(summary(&world.wait(430)), "withdrawn×1, no_action×1");
    assert_eq!(summary(&world.wait(729)), "");
    let second = event_of(&world.wait(730));
    assert_eq!((second.action, second.episode.emission), ("scale_out", 2));
}

#[test]
fn while_firing_ends_with_its_episode() {
    let mut world = while_firing(5);
    world.post(0, vec![firing("a", 0)]);
    let closed = world.post(60, vec![resolved("a", 0, 50)]);
    assert_eq!(summary(&closed), "cooling_down×1");
    assert_eq!(summary(&world.wait(300)), "emitted×1 scale_in -1");
    assert_eq!(summary(&world.wait(6000)), "");
}

#[test]
fn a_silenced_alert_that_never_resolves_stops_acting_and_expires() {
    let mut world = while_firing(2);
    world.post(0, vec![firing("a", 0)]);
    assert_eq!(summary(&world.wait(300)), "emitted×1 scale_out +2");
    assert_eq!(summary(&world.wait(24 * 3600)), "expired×1");
}

/// The world of `setup` with another rule, named `second`, for `alertname = Slow`. `change` adapts it.
pub(super) fn with_another_rule(setup: Setup, second: &str, change: impl FnOnce(&mut Rule)) -> World {
    let mut world = with_a_second_rule(setup);
    let (first, mut other) = (world.rules.rules()[0].clone(), world.rules.rules()[1].clone());
    other.name = name(second);
    change(&mut other);
    world.rules = RuleTable::new(vec![first, other], known_templates());
    world
}

fn fires(change: Change, window: Duration) -> Option<FiringAction> {
    let action = Action { change, cooldown: Duration::ZERO, stabilization_window: window };
    Some(FiringAction { action, repeat: Repeat::OnGrowth })
}

fn to(to: u32) -> Change {
    Change::SetCapacity { to, allow_decrease: true }
}

#[test]
fn an_increase_does_not_wait_for_what_its_opening_has_superseded() {
    let mut setup = Setup { on_firing: fires(to(4), Duration::ZERO), on_resolved: None, ..Setup::default() };
    setup.on_firing.iter_mut().for_each(|firing| firing.action.cooldown = 5 * MINUTE);
    let mut world = with_a_second_rule(setup);
    let first = event_of(&world.post(0, vec![firing("a", 0)]));
    world.set_delivery(&first, EventDelivery::pending());
    let opened = world.post(60, vec![slow(true, 55, 0)]);
    assert_eq!(summary(&opened), "cooling_down×1, superseded×1, emitted×1 scale_out +2, outranked×1");
}

#[test]
fn two_rules_that_wait_to_set_a_capacity_do_not_block_each_other() {
    let setup = Setup { on_firing: fires(to(4), 5 * MINUTE), on_resolved: None, ..Setup::default() };
    let mut world = with_another_rule(setup, "latency", |rule| rule.on_firing = fires(to(6), 5 * MINUTE));
    world.post(0, vec![firing("a", 0)]);
    assert_eq!(summary(&world.post(60, vec![slow(true, 55, 0)])), "stabilizing×1");
    assert_eq!(summary(&world.wait(300)), "emitted×1 set_capacity +4");
    assert_eq!(summary(&world.wait(360)), "outranked×1");
    let closed = world.post(600, vec![resolved("a", 0, 590)]);
    assert_eq!(summary(&closed), "no_action×1, stabilizing×1", "its window counts from that end");
    assert_eq!(summary(&world.wait(900)), "emitted×1 set_capacity +6");
}

#[test]
fn of_rules_that_open_together_the_scale_out_goes_first_whatever_their_names() {
    let mut world = with_another_rule(Setup::default(), "idle", |rule| {
        rule.on_firing = fires(Change::ScaleIn(by(1)), Duration::ZERO);
    });
    let both = world.post(0, vec![slow(true, 0, 0), firing("a", 0)]);
    assert_eq!(summary(&both), "emitted×1 scale_out +2, outranked×1");
}

#[test]
fn growth_after_a_withdrawn_growth_waits_for_a_window_of_its_own() {
    let on_firing = fires(Change::ScaleIn(by(1)), 10 * MINUTE);
    let mut world = Setup { on_firing, on_resolved: None, ..Setup::default() }.world();
    world.post(0, vec![firing("a", 0)]);
    assert_eq!(summary(&world.wait(600)), "emitted×1 scale_in -1");
    assert_eq!(summary(&world.post(1000, vec![firing("b", 990)])), "stabilizing×1");
    world.post(1100, vec![resolved("b", 990, 1090)]);
    let grown = world.post(1590, vec![firing("c", 1580)]);
    assert_eq!(summary(&grown), "withdrawn×1, stabilizing×1");
    assert_eq!(summary(&world.wait(1600)), "");
    assert_eq!(summary(&world.wait(2190)), "emitted×1 scale_in -1");
}

#[test]
fn growth_from_a_truncated_notification_does_not_scale_in() {
    let on_firing = fires(Change::ScaleIn(by(1)), 10 * MINUTE);
    let mut world = Setup { on_firing, on_resolved: None, ..Setup::default() }.world();
    world.post(0, vec![firing("a", 0)]);
    world.wait(600);
    world.post(1000, vec![firing("b", 990)]);
    world.post(1100, vec![resolved("b", 990, 1090)]);
    let grown = world.post_truncated(1590, true, vec![firing("c", 1580)]);
    assert_eq!(summary(&grown), "withdrawn×1, no_evidence×1");
    assert_eq!(summary(&world.wait(1600)), "");
}

#[test]
fn a_pod_that_takes_the_place_of_another_does_not_prolong_the_wait() {
    let mut world =
        Setup { on_firing: fires(Change::ScaleOut(by(2)), 2 * MINUTE), ..Setup::default() }.world();
    world.post(0, vec![firing("a", 0)]);
    world.wait(120);
    world.post(200, vec![firing("b", 190)]);
    world.post(300, vec![resolved("b", 190, 290), firing("c", 290)]);
    assert_eq!(summary(&world.wait(320)), "emitted×1 scale_out +2");
}

#[test]
fn a_set_capacity_that_may_decrease_outranks_only_after_its_emission() {
    let mut world = with_another_rule(Setup::default(), "latency", |rule| {
        rule.on_firing = fires(to(6), 10 * MINUTE);
    });
    assert_eq!(summary(&world.post(10, vec![slow(true, 5, 0)])), "stabilizing×1");
    let mut adopted = slow(true, -7200, 0);
    adopted.fingerprint = "fp-slow-2".into();
    assert_eq!(summary(&world.post(20, vec![adopted])), "no_evidence×1");
    world.post(30, vec![firing("a", 25)]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", 25, 55)])), "emitted×1 scale_in -1");
    assert_eq!(summary(&world.wait(610)), "no_evidence×1", "an adopted episode cannot decrease");
}

#[test]
fn a_repetition_needs_a_rule_that_still_repeats() {
    let with = |repeat| {
        let mut world = while_firing(5);
        world.post(0, vec![firing("a", 0)]);
        let mut rule = world.rules.rules()[0].clone();
        rule.on_firing.as_mut().unwrap().repeat = repeat;
        world.rules = RuleTable::new(vec![rule], known_templates());
        world
    };
    assert_eq!(summary(&with(Repeat::Never).wait(300)), "withdrawn×1");
    let fewer = Repeat::WhileFiring { max_emissions: NonZeroU32::MIN };
    assert_eq!(summary(&with(fewer).wait(300)), "withdrawn×1");
    let mut world = with(Repeat::OnGrowth);
    let grown = world.post(60, vec![firing("b", 50)]);
    assert_eq!(
        summary(&grown),
        "cooling_down×1",
        "the repetition was never recorded, so it is not withdrawn"
    );
    assert_eq!(grown[0].until, Some(at(300)));
    assert_eq!(summary(&world.wait(300)), "emitted×1 scale_out +2");
}

#[test]
fn a_repetition_waits_for_its_cooldown_but_not_for_a_second_window() {
    let mut world = while_firing(3);
    let mut rule = world.rules.rules()[0].clone();
    rule.on_firing.as_mut().unwrap().action.stabilization_window = 2 * MINUTE;
    world.rules = RuleTable::new(vec![rule], known_templates());
    assert_eq!(summary(&world.post(0, vec![firing("a", 0)])), "stabilizing×1");
    assert_eq!(summary(&world.wait(120)), "emitted×1 scale_out +2");
    assert_eq!(summary(&world.wait(420)), "emitted×1 scale_out +2");
}

#[test]
fn a_repetition_that_a_guard_blocks_is_withdrawn_with_its_episode() {
    let budget = Some(Budget { events: NonZeroU32::MIN, per: 60 * MINUTE });
    let mut world = while_firing(3);
    let mut rule = world.rules.rules()[0].clone();
    (rule.budget, rule.on_resolved) = (budget, None);
    world.rules = RuleTable::new(vec![rule], known_templates());
    world.post(0, vec![firing("a", 0)]);
    assert_eq!(summary(&world.wait(300)), "over_budget×1");
    assert_eq!(summary(&world.post(400, vec![resolved("a", 0, 390)])), "withdrawn×1, no_action×1");
}

#[test]
fn a_scale_in_outranked_by_an_episode_that_expires_waits_for_a_whole_window() {
    let mut world = with_a_second_rule(guarded(0, 0, 5));
    world.post(0, vec![slow(true, -5, 0)]);
    world.post(24 * 3600 - 120, vec![firing("a", 24 * 3600 - 130)]);
    let end = 24 * 3600 - 70;
    assert_eq!(
        summary(&world.post(24 * 3600 - 60, vec![resolved("a", 24 * 3600 - 130, end)])),
        "outranked×1"
    );
    let expired = world.wait(24 * 3600);
    assert_eq!(summary(&expired), "expired×1, stabilizing×1");
    assert_eq!(expired[1].until, Some(at(24 * 3600 + 300)));
    assert_eq!(summary(&world.wait(24 * 3600 + 300)), "emitted×1 scale_in -1");
}

#[test]
fn openings_of_a_rule_without_an_increase_do_not_disturb_a_scale_in() {
    let mut world = with_another_rule(guarded(0, 0, 15), "report", |rule| {
        rule.on_firing = fires(Change::Notify, Duration::ZERO);
    });
    world.post(0, vec![firing("a", -10), slow(true, -10, 0)]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "stabilizing×1");
    assert_eq!(summary(&world.post(120, vec![slow(true, -10, 0)])), "duplicate×1");
    // The resolve of the old occurrence was not received.
    assert_eq!(summary(&world.post(300, vec![slow(true, 290, 0)])), "no_action×1");
    assert_eq!(summary(&world.post(400, vec![slow(false, 290, 390)])), "no_action×1");
    assert_eq!(summary(&world.wait(60 + 900)), "emitted×1 scale_in -1");
}

#[test]
fn growth_exceeds_every_earlier_emission_and_not_only_the_last() {
    let mut world = while_firing(5);
    world.post(0, vec![firing("a", -10), firing("b", -10)]);
    world.post(60, vec![resolved("b", -10, 55)]);
    assert_eq!(summary(&world.wait(300)), "emitted×1 scale_out +2");
    let mut rule = world.rules.rules()[0].clone();
    rule.on_firing.as_mut().unwrap().repeat = Repeat::OnGrowth;
    world.rules = RuleTable::new(vec![rule], known_templates());
    assert_eq!(
        summary(&world.post(400, vec![firing("c", 390)])),
        "no_action×1",
        "two alerts were open at an earlier emission"
    );
}

#[test]
fn an_episode_that_closes_in_the_same_notification_outranks_nothing() {
    let mut world = with_another_rule(guarded(0, 0, 5), "slowness", |_| {});
    world.post(0, vec![firing("a", -10), slow(true, -10, 0)]);
    let closed = world.post(60, vec![resolved("a", -10, 55), slow(false, -10, 55)]);
    assert_eq!(summary(&closed), "no_action×1, stabilizing×1");
    assert_eq!(summary(&world.wait(360)), "emitted×1 scale_in -1");
}
