//! Evidence of calm: what a decrease has to wait for, whichever phase of its rule requests it.

use super::controls::{DAY, watchdog, with_a_heartbeat};
use super::*;

/// A world whose decrease has been requested at the second 60, with a window of five minutes: in turn `on_resolved` of
/// `pods`, and `on_firing` of it. The rule `latency` is beside it; its alert `slow` has fired and resolved before, so a
/// firing that began before that end is late.
fn waiting_decreases() -> [World; 2] {
    let with_an_earlier_slow = |setup: Setup| {
        let mut world = with_a_second_rule(setup);
        world.post(-200, vec![slow(true, -210, 0)]);
        world.post(-100, vec![slow(false, -210, -110)]);
        world
    };
    let mut resolved_world = with_an_earlier_slow(guarded(0, 0, 5));
    resolved_world.post(0, vec![firing("a", 0)]);
    resolved_world.post(60, vec![resolved("a", 0, 55)]);
    let mut firing_world = with_an_earlier_slow(idle(5));
    firing_world.post(60, vec![firing("a", 50)]);
    [resolved_world, firing_world]
}

#[test]
fn the_window_counts_from_the_end_of_another_rules_need() {
    for mut world in waiting_decreases() {
        world.post(100, vec![slow(true, 90, 0)]);
        assert_eq!(summary(&world.wait(360)), "outranked×1");
        let ended = world.post(400, vec![slow(false, 90, 390)]);
        assert_eq!(last_wait(&ended), ("stabilizing".to_owned(), Some(700)));
        assert_eq!(summary(&world.wait(699)), "");
        assert_eq!(summary(&world.wait(700)), "emitted×1 scale_in -1");
    }
}

#[test]
fn the_end_of_an_increase_that_was_only_deferred_disturbs_too() {
    for mut world in waiting_decreases() {
        let mut rules = world.rules.rules().to_vec();
        rules[1].on_firing.as_mut().unwrap().action.stabilization_window = 30 * MINUTE;
        world.rules = RuleTable::new(rules, known_templates());
        world.post(100, vec![slow(true, 90, 0)]);
        world.post(200, vec![slow(false, 90, 190)]);
        assert_eq!(last_wait(&world.wait(360)), ("stabilizing".to_owned(), Some(500)));
        assert_eq!(summary(&world.wait(500)), "emitted×1 scale_in -1");
    }
}

#[test]
fn growth_does_not_restart_the_window_of_a_decrease_on_firing() {
    let mut world = idle(5).world();
    world.post(60, vec![firing("a", 50)]);
    let grown = world.post(200, vec![firing("a", 50), firing("b", 190)]);
    assert_eq!(last_wait(&grown), ("stabilizing".to_owned(), Some(360)));
    assert_eq!(summary(&world.wait(360)), "emitted×1 scale_in -1");
}

#[test]
fn a_decrease_waits_for_a_late_firing_and_a_window_after_its_end() {
    for mut world in waiting_decreases() {
        assert_eq!(summary(&world.post(100, vec![slow(true, -210, 0)])), "late×1");
        let waits = world.wait(360);
        assert_eq!(last_wait(&waits), ("stabilizing".to_owned(), Some(460)));
        assert_eq!(waits[0].detail.as_deref(), Some("a late firing about the target waits for its resolve"));
        assert_eq!(summary(&world.post(400, vec![slow(false, -210, 390)])), "withdrawn×1");
        assert_eq!(last_wait(&world.wait(460)), ("stabilizing".to_owned(), Some(700)));
        assert_eq!(summary(&world.wait(700)), "emitted×1 scale_in -1");
    }
}

#[test]
fn a_late_firing_that_continues_an_episode_outranks_the_decrease_of_another_rule() {
    for mut world in waiting_decreases() {
        world.post(100, vec![slow(true, -210, 0)]);
        world.wait(360);
        assert_eq!(summary(&world.wait(460)), "no_action×1, outranked×1", "`latency` has no decrease");
    }
}

#[test]
fn a_late_firing_continues_the_episode_whose_decrease_is_not_delivered() {
    let mut world = guarded(0, 0, 15).world();
    let first = event_of(&world.post(0, vec![firing("a", 0)]));
    world.post(60, vec![resolved("a", 0, 55)]);
    assert_eq!(summary(&world.post(100, vec![firing("a", 0)])), "late×1");
    assert_eq!(summary(&world.wait(460)), "withdrawn×1, no_action×1");
    assert_eq!(summary(&world.post(500, vec![firing("a", 0)])), "duplicate×1");
    let grown = event_of(&world.post(510, vec![firing("a", 0), firing("b", 505)]));
    assert_eq!((&grown.episode.id, grown.episode.emission), (&first.episode.id, 2));
    world.post(600, vec![resolved("a", 0, 590), resolved("b", 505, 590)]);
    let paid = event_of(&world.wait(1500));
    assert_eq!(paid.reverts, [first.id, grown.id]);
}

#[test]
fn a_late_firing_after_the_delivered_decrease_is_a_new_episode() {
    let mut world = guarded(0, 0, 0).world();
    let first = event_of(&world.post(0, vec![firing("a", 0)]));
    world.post(60, vec![resolved("a", 0, 55)]);
    world.post(100, vec![firing("a", 0)]);
    let again = event_of(&world.wait(460));
    assert_eq!(again.action, "scale_out");
    assert_ne!(again.episode.id, first.episode.id);
}

#[test]
fn a_late_firing_joins_an_open_episode_without_growth() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    assert_eq!(summary(&world.post(100, vec![firing("c", 90)])), "emitted×1 scale_out +2");
    assert_eq!(summary(&world.post(110, vec![firing("a", 0)])), "late×1");
    assert_eq!(summary(&world.wait(470)), "no_action×1");
    let replaced = world.post(500, vec![resolved("a", 0, 490), firing("b", 495)]);
    assert_eq!(summary(&replaced), "no_action×1, still_open×1", "two alerts were open before");
    assert_eq!(summary(&world.post(600, vec![firing("d", 590)])), "emitted×1 scale_out +2");
}

#[test]
fn a_resolve_from_before_a_late_firing_began_is_stale() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    assert_eq!(summary(&world.post(61, vec![firing("a", 40)])), "late×1");
    assert_eq!(summary(&world.post(90, vec![resolved("a", 0, 30)])), "stale×1");
    assert_eq!(summary(&world.wait(421)), "emitted×1 scale_out +2");
}

#[test]
fn a_decrease_waits_while_an_alert_of_its_target_cannot_be_read() {
    let [mut world, mut on_firing] = waiting_decreases();
    assert_eq!(summary(&world.post_invalid(100, "a")), "invalid×1", "it was closed here");
    let waits = world.wait(360);
    assert_eq!(last_wait(&waits), ("stabilizing".to_owned(), Some(100 + DAY)));
    assert_eq!(waits[0].detail.as_deref(), Some("alert fp-a about the target fires and cannot be read"));
    let read = world.post(400, vec![resolved("a", 0, 390)]);
    assert_eq!(summary(&read), "duplicate×1, stabilizing×1");
    assert_eq!(read[1].until, Some(at(700)), "the window counts from the end of the invalid firing");
    assert_eq!(summary(&world.wait(700)), "emitted×1 scale_in -1");

    assert_eq!(summary(&on_firing.post_invalid(100, "a")), "invalid×1", "it is open here");
    assert_eq!(last_wait(&on_firing.wait(360)), ("stabilizing".to_owned(), Some(100 + DAY)));
    let read = on_firing.post(400, vec![firing("a", 50)]);
    assert_eq!(summary(&read), "duplicate×1, stabilizing×1");
    assert_eq!(summary(&on_firing.wait(700)), "emitted×1 scale_in -1");
}

#[test]
fn an_invalid_firing_that_is_not_heard_any_more_ends_like_one_that_was_read() {
    let [mut world, _] = waiting_decreases();
    world.post_invalid(100, "a");
    world.wait(360);
    assert_eq!(last_wait(&world.wait(100 + DAY)), ("stabilizing".to_owned(), Some(400 + DAY)));
    assert_eq!(summary(&world.wait(400 + DAY)), "emitted×1 scale_in -1");
}

#[test]
fn an_invalid_firing_of_an_alert_that_the_target_does_not_know_blocks_nothing() {
    let [mut world, _] = waiting_decreases();
    assert_eq!(summary(&world.post_invalid(100, "unknown")), "invalid×1");
    assert_eq!(summary(&world.wait(360)), "emitted×1 scale_in -1");
}

#[test]
fn an_alert_whose_rule_cannot_read_it_blocks_decreases_on_the_target_that_it_renders() {
    for mut world in waiting_decreases() {
        let mut templates = known_templates();
        let metric = templates.template("{{ annotations.value }}").unwrap();
        let step = RuleStep { from: 0.0, by: NonZeroU32::new(1).unwrap() };
        let mut rules = world.rules.rules().to_vec();
        let steps = Steps::new(metric, vec![step]).unwrap();
        rules[1].on_firing.as_mut().unwrap().action.change = Change::ScaleOut(Amount::Steps(steps));
        world.rules = RuleTable::new(rules, templates);
        let mut unreadable = slow(true, 90, 0);
        unreadable.annotations = Arc::new([("value", "many")].into_iter().collect());
        assert_eq!(summary(&world.post(100, vec![unreadable])), "invalid×1");
        assert_eq!(last_wait(&world.wait(360)), ("stabilizing".to_owned(), Some(100 + DAY)));
        let ended = world.post(400, vec![slow(false, 90, 390)]);
        assert_eq!(summary(&ended), "duplicate×1, stabilizing×1");
        assert_eq!(summary(&world.wait(700)), "emitted×1 scale_in -1");
    }
}

#[test]
fn an_invalid_firing_of_an_open_alert_is_heard() {
    let mut world = Setup::default().world();
    world.post(0, vec![firing("a", 0)]);
    world.post_invalid(20 * 3600, "a");
    assert_eq!(summary(&world.wait(DAY)), "", "it does not expire");
}

#[test]
fn a_decrease_waits_for_late_window_after_a_reception_gap() {
    for mut world in waiting_decreases() {
        world.gap(200, 300);
        let waits = world.wait(360);
        assert_eq!(last_wait(&waits), ("stabilizing".to_owned(), Some(660)));
        let detail = "notifications of source prod could not be received (not_running)";
        assert_eq!(waits[0].detail.as_deref(), Some(detail));
        assert_eq!(summary(&world.wait(660)), "emitted×1 scale_in -1");
    }
}

#[test]
fn a_decrease_does_not_wait_for_a_reception_gap_of_which_nothing_is_missing() {
    for mut world in waiting_decreases() {
        world.gap(200, 300);
        world.controls.reconcile_gap(&name("prod"), at(299));
        assert_eq!(
            last_wait(&world.wait(360)),
            ("stabilizing".to_owned(), Some(660)),
            "asked during the gap"
        );
        world.controls.reconcile_gap(&name("prod"), at(400));
        assert_eq!(summary(&world.recheck(at(401))), "emitted×1 scale_in -1");
    }
}

#[test]
fn a_reception_gap_of_a_source_without_alerts_here_blocks_nothing() {
    for mut world in waiting_decreases() {
        let gap = ReceptionGap { from: at(200), until: at(300), cause: GapCause::Store };
        world.controls.record_gap(&name("another"), gap);
        assert_eq!(summary(&world.wait(360)), "emitted×1 scale_in -1");
    }
}

#[test]
fn a_reception_gap_of_a_source_whose_episode_is_over_and_dropped_delays_decreases() {
    let mut world = with_a_second_rule(guarded(0, 0, 0));
    let mut rules = world.rules.rules().to_vec();
    rules[1].on_resolved = rules[0].on_resolved.clone();
    world.rules = RuleTable::new(rules, known_templates());
    world.switch_to("staging");
    world.post(0, vec![slow(true, -10, 0)]);
    assert_eq!(summary(&world.post(60, vec![slow(false, -10, 55)])), "emitted×1 scale_in -1");
    world.wait(61);
    assert!(world.states.values().all(|state| state.rules.is_empty()), "the episode is dropped");
    world.switch_to("prod");
    world.post(100, vec![firing("a", 95)]);
    let gap = ReceptionGap { from: at(110), until: at(120), cause: GapCause::Refused };
    world.controls.record_gap(&name("staging"), gap);
    let closed = world.post(200, vec![resolved("a", 95, 190)]);
    assert_eq!(last_wait(&closed), ("stabilizing".to_owned(), Some(120 + 360)));
    assert_eq!(summary(&world.wait(480)), "emitted×1 scale_in -1");
}

/// A world with a rule `latency` in which the decrease of `pods` is due at 360, and only `latency` can be late.
fn due_beside_a_late_firing() -> World {
    let mut world = with_a_second_rule(guarded(0, 0, 5));
    world.post(-20, vec![slow(true, -30, 0)]);
    world.post(-10, vec![slow(false, -30, -15)]);
    world.post(0, vec![firing("a", -10)]);
    world.post(60, vec![resolved("a", -10, 55)]);
    world
}

#[test]
fn a_late_firing_that_is_due_opens_before_a_decrease_though_a_notification_comes_first() {
    let mut world = due_beside_a_late_firing();
    assert_eq!(summary(&world.post(70, vec![slow(true, -30, 0)])), "late×1");
    let again = world.post(500, vec![firing("b", 490), resolved("b", 490, 495)]);
    // It continues its episode, whose event was delivered.
    assert_eq!(summary(&again), "no_action×1, withdrawn×2, outranked×1");
    assert_eq!(again.iter().map(|decision| decision.is_reply).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn a_late_firing_that_is_due_and_ends_with_a_notification_restarts_the_window() {
    let mut world = due_beside_a_late_firing();
    world.post(70, vec![slow(true, -30, 0)]);
    let ended = world.post(500, vec![slow(false, -30, 495)]);
    assert_eq!(summary(&ended), "withdrawn×1, stabilizing×1");
    assert_eq!(last_wait(&ended), ("stabilizing".to_owned(), Some(800)));
}

#[test]
fn a_late_firing_that_a_new_occurrence_replaces_and_ends_restarts_the_window() {
    let mut world = due_beside_a_late_firing();
    world.post(70, vec![slow(true, -30, 0)]);
    world.post(200, vec![slow(true, 190, 0), slow(false, 190, 195)]);
    assert_eq!(last_wait(&world.wait(430)), ("stabilizing".to_owned(), Some(500)));
    assert_eq!(summary(&world.wait(500)), "emitted×1 scale_in -1");
}

#[test]
fn a_late_firing_that_fires_anew_about_another_target_restarts_the_window_of_its_own() {
    let mut world = due_beside_a_late_firing();
    world.post(70, vec![slow(true, -30, 0)]);
    let mut elsewhere = slow(true, 190, 0);
    Arc::make_mut(&mut elsewhere.labels).set("nodegroup", "others");
    world.post(200, vec![elsewhere]);
    assert_eq!(last_wait(&world.wait(430)), ("stabilizing".to_owned(), Some(500)));
}

#[test]
fn an_invalid_firing_that_has_expired_restarts_the_window_though_a_notification_comes_first() {
    let mut world = due_beside_a_late_firing();
    world.post_invalid(70, "a");
    let heard = world.post(80 + DAY, vec![firing("b", 70 + DAY), resolved("b", 70 + DAY, 75 + DAY)]);
    assert_eq!(last_wait(&heard), ("stabilizing".to_owned(), Some(380 + DAY)));
}

#[test]
fn with_a_heartbeat_a_decrease_waits_for_late_window_after_the_last_close_on_the_target() {
    let with_slow = |setup: Setup| {
        let rules = with_a_second_rule(Setup { ..setup }).rules;
        let mut world = World { rules, ..with_a_heartbeat(Setup::default()) };
        world.post(-2000, vec![watchdog(true, -2010, 0)]);
        world
    };
    let mut world = with_slow(guarded(0, 0, 0));
    world.post(0, vec![firing("a", -10)]);
    let closed = world.post(60, vec![resolved("a", -10, 55)]);
    assert_eq!(last_wait(&closed), ("stabilizing".to_owned(), Some(420)));
    assert_eq!(
        closed[0].detail.as_deref(),
        Some("the heartbeat of source prod may end later than its alerts")
    );
    assert_eq!(summary(&world.wait(420)), "emitted×1 scale_in -1");

    let mut world = with_slow(idle(0));
    world.post(0, vec![slow(true, -10, 0)]);
    world.post(60, vec![slow(false, -10, 55)]);
    assert_eq!(last_wait(&world.post(100, vec![firing("a", 90)])), ("stabilizing".to_owned(), Some(420)));
    assert_eq!(summary(&world.wait(420)), "emitted×1 scale_in -1");
}

#[test]
fn a_decrease_on_firing_waits_for_the_heartbeat_and_its_grace() {
    let mut world = with_a_heartbeat(idle(0));
    assert_eq!(summary(&world.post(0, vec![firing("a", -10)])), "held×1");
    world.post(60, vec![watchdog(true, 50, 0)]);
    assert_eq!(last_wait(&world.wait(61)), ("stabilizing".to_owned(), Some(60 + 900)));
    assert_eq!(summary(&world.wait(960)), "emitted×1 scale_in -1");
}

#[test]
fn a_window_that_is_longer_than_the_grace_counts_from_the_heartbeat_too() {
    let mut world = with_a_heartbeat(guarded(0, 0, 30));
    world.post(0, vec![firing("a", -10)]);
    world.post(60, vec![resolved("a", -10, 55)]);
    world.post(100, vec![watchdog(true, 90, 0)]);
    assert_eq!(last_wait(&world.wait(101)), ("stabilizing".to_owned(), Some(100 + 1800)));
}

#[test]
fn with_equal_an_alert_depends_on_the_heartbeat_with_its_own_values() {
    let mut world = with_a_heartbeat(Setup::default());
    Arc::get_mut(&mut world.source).unwrap().heartbeat.as_mut().unwrap().equal = vec!["prometheus".into()];
    let of = |mut alert: Alert, prometheus: &str| {
        Arc::make_mut(&mut alert.labels).set("prometheus", prometheus);
        alert.fingerprint = format!("{}-{prometheus}", alert.fingerprint).into();
        alert
    };
    world.post(-2000, vec![of(watchdog(true, -2010, 0), "p0")]);
    world.post(0, vec![of(firing("a", -10), "p1")]);
    let held = world.post(60, vec![of(resolved("a", -10, 55), "p1")]);
    assert_eq!(summary(&held), "held×1", "no heartbeat of p1 is known");
    world.post(100, vec![of(watchdog(true, 90, 0), "p1")]);
    assert_eq!(last_wait(&world.wait(101)), ("stabilizing".to_owned(), Some(1000)));
    world.post(200, vec![of(watchdog(false, -2010, 190), "p0")]);
    assert_eq!(summary(&world.wait(1000)), "emitted×1 scale_in -1", "it does not depend on p0");
}

#[test]
fn a_late_firing_of_the_heartbeat_does_not_open_it() {
    let mut world = with_a_heartbeat(idle(0));
    world.post(-2000, vec![watchdog(true, -2010, 0)]);
    world.post(-1000, vec![watchdog(false, -2010, -1010)]);
    assert_eq!(summary(&world.post(0, vec![watchdog(true, -2010, 0)])), "late×1");
    assert_eq!(summary(&world.post(10, vec![firing("a", 0)])), "held×1");
    assert_eq!(summary(&world.wait(361)), "heartbeat×1, stabilizing×1", "it opens when its window is over");
}

#[test]
fn the_close_of_a_deferred_set_capacity_restarts_the_window() {
    let mut world = with_a_second_rule(guarded(0, 0, 5));
    let mut rules = world.rules.rules().to_vec();
    let change = Change::SetCapacity { to: 3, allow_decrease: true };
    let stabilization_window = 5 * MINUTE;
    rules[1].on_firing.as_mut().unwrap().action = Action { stabilization_window, ..unguarded(change) };
    world.rules = RuleTable::new(rules, known_templates());
    world.post(0, vec![firing("a", -10)]);
    assert_eq!(
        last_wait(&world.post(60, vec![resolved("a", -10, 55)])),
        ("stabilizing".to_owned(), Some(360))
    );
    assert_eq!(summary(&world.post(70, vec![slow(true, 65, 0)])), "stabilizing×1");
    world.post(100, vec![slow(false, 65, 95)]);
    assert_eq!(last_wait(&world.wait(360)), ("stabilizing".to_owned(), Some(400)));
    assert_eq!(summary(&world.wait(400)), "emitted×1 scale_in -1");
}
