//! Occurrences, and the episodes that they open, grow and close.

use super::guards::with_another_rule;
use super::*;

#[test]
fn three_pods_make_one_event_and_the_repeat_makes_none() {
    let mut world = Setup::default().world();
    let group = || vec![firing("a", 0), firing("b", 0), firing("c", 0)];
    let first = world.post(1, group());
    assert_eq!(summary(&first), "emitted×3 scale_out +2");
    let event = events(&first)[0];
    assert_eq!(event.target.key().as_str(), "eks/nodegroup/-/-/prod-eu/-/workers");
    assert_eq!(event.reason, "3 alerts firing: Pending");
    assert_eq!(event.parameters["zone"], "any");
    assert_eq!((event.alerts.len(), event.episode.emission, event.phase), (3, 1, Phase::Firing));
    assert_eq!(summary(&world.post(300, group())), "duplicate×3");
}

#[test]
fn growth_acts_again_and_a_replaced_pod_does_not() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0), firing("b", 0)]);
    let grown = world.post(60, vec![firing("a", 0), firing("b", 0), firing("c", 50)]);
    assert_eq!(summary(&grown), "duplicate×2, emitted×1 scale_out +2");
    assert_eq!(events(&grown)[0].episode.emission, 2);
    let replaced =
        world.post(120, vec![resolved("a", 0, 110), firing("b", 0), firing("c", 50), firing("d", 115)]);
    assert_eq!(summary(&replaced), "duplicate×2, no_action×1, still_open×1");
    let again = world.post(180, vec![firing("b", 0), firing("c", 50), firing("d", 115), firing("e", 170)]);
    assert_eq!(summary(&again), "duplicate×3, emitted×1 scale_out +2");
}

#[test]
fn a_group_whose_only_pod_is_replaced_goes_on() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0)]);
    let replaced = world.post(60, vec![resolved("a", 0, 50), firing("b", 55)]);
    assert_eq!(summary(&replaced), "no_action×1, still_open×1");
}

#[test]
fn the_last_resolve_scales_in_once() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0), firing("b", 0)]);
    assert_eq!(
        summary(&world.post(60, vec![resolved("a", 0, 55), firing("b", 0)])),
        "duplicate×1, still_open×1"
    );
    let closed = world.post(120, vec![resolved("b", 0, 110)]);
    assert_eq!(summary(&closed), "emitted×1 scale_in -1");
    assert_eq!(events(&closed)[0].reason, "1 alert resolved: Pending");
    assert_eq!(summary(&world.post(121, vec![resolved("b", 0, 110)])), "duplicate×1");
    assert_eq!(
        summary(&world.post(122, vec![resolved("b", 0, 112)])),
        "duplicate×1",
        "a second Alertmanager reports a slightly later end"
    );
}

#[test]
fn a_resolve_of_an_unknown_alert_does_not_scale_in() {
    let mut world = Setup::default().world();
    assert_eq!(summary(&world.post(1, vec![resolved("a", -100, 0)])), "no_evidence×1");
    assert_eq!(summary(&world.post(2, vec![resolved("a", -100, 0)])), "duplicate×1");
    assert_eq!(summary(&world.post(3, vec![resolved("a", -100, 2)])), "no_evidence×1");
}

#[test]
fn a_resolve_older_than_the_open_occurrence_is_stale() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0)]);
    assert_eq!(summary(&world.post(2, vec![resolved("a", -100, -50)])), "stale×1");
    assert_eq!(summary(&world.post(60, vec![resolved("a", 0, 55)])), "emitted×1 scale_in -1");
}

#[test]
fn an_alert_that_is_missing_has_not_resolved() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0), firing("b", 0)]);
    assert_eq!(summary(&world.post(60, vec![firing("a", 0)])), "duplicate×1");
    assert_eq!(summary(&world.post(90, vec![resolved("a", 0, 80)])), "still_open×1");
}

#[test]
fn a_truncated_notification_may_scale_out_but_not_in() {
    let mut world = Setup::default().world();
    assert_eq!(summary(&world.post_truncated(1, true, vec![firing("a", 0)])), "emitted×1 scale_out +2");
    assert_eq!(summary(&world.post_truncated(60, true, vec![resolved("a", 0, 55)])), "no_evidence×1");
    assert_eq!(summary(&world.post(61, vec![resolved("a", 0, 55)])), "duplicate×1");
}

#[test]
fn an_adopted_alert_scales_out_but_not_in() {
    let mut world = Setup::default().world();
    world.created = at(0);
    let adopted = world.post(10, vec![firing("a", -600)]);
    assert_eq!(summary(&adopted), "emitted×1 scale_out +2");
    assert_eq!(
        summary(&world.post(20, vec![firing("a", -600), firing("b", 15)])),
        "duplicate×1, emitted×1 scale_out +2"
    );
    assert_eq!(
        summary(&world.post(60, vec![resolved("a", -600, 50), resolved("b", 15, 50)])),
        "no_evidence×2"
    );
}

#[test]
fn an_alert_that_started_before_the_state_was_dropped_scales_out_but_not_in() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0)]);
    let [(_, state)] = &mut world.states.iter_mut().collect::<Vec<_>>()[..] else { panic!("one target") };
    **state = TargetState { known_since: Some(at(10)), ..TargetState::default() }.into();
    assert_eq!(summary(&world.post(20, vec![firing("a", 0)])), "emitted×1 scale_out +2");
    assert_eq!(summary(&world.post(60, vec![resolved("a", 0, 50)])), "no_evidence×1");
    assert_eq!(summary(&world.post(1000, vec![firing("a", 990)])), "emitted×1 scale_out +2");
    let later = world.post(1060, vec![resolved("a", 990, 1050)]);
    assert_eq!(summary(&later), "emitted×1 scale_in -1", "an alert that started later is evidence");
}

#[test]
fn a_store_lost_in_the_middle_of_an_incident_sends_the_same_event_again() {
    let mut world = Setup::default().world();
    let before = world.post(1, vec![firing("a", 0), firing("b", 0)]);
    world.states.clear();
    world.created = at(100);
    let after = world.post(120, vec![firing("a", 0), firing("b", 0)]);
    assert_eq!(events(&before)[0].id, events(&after)[0].id);
    assert!(events(&after)[0].sequence > events(&before)[0].sequence);
}

#[test]
fn ids_differ_by_phase_emission_and_episode() {
    let mut world = Setup::default().world();
    let mut ids = Vec::new();
    for round in 0..3 {
        let start = round * 1000;
        for decisions in [
            world.post(start + 1, vec![firing("a", start)]),
            world.post(start + 2, vec![firing("a", start), firing("b", start)]),
            world.post(start + 60, vec![resolved("a", start, start + 50), resolved("b", start, start + 50)]),
        ] {
            ids.extend(events(&decisions).iter().map(|event| event.id.clone()));
        }
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((count, ids.len()), (9, 9));
    assert!(ids.iter().all(|id| id.len() == 32));
}

#[test]
fn sequence_rises_for_a_target_even_when_the_clock_stands_still() {
    let mut world = Setup::default().world();
    let first = world.post(1, vec![firing("a", 0)]);
    let second = world.post(1, vec![firing("a", 0), firing("b", 0)]);
    assert_eq!(events(&first)[0].sequence, at(1).as_micros());
    assert_eq!(events(&second)[0].sequence, at(1).as_micros() + 1);
}

#[test]
fn a_late_copy_of_a_second_alertmanager_waits_and_its_resolve_withdraws_it() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    let late = world.post(61, vec![firing("a", 0)]);
    assert_eq!(summary(&late), "late×1");
    assert_eq!(late[0].until, Some(at(61 + 360)));
    assert_eq!(summary(&world.post(62, vec![firing("a", 0)])), "duplicate×1");
    assert_eq!(summary(&world.post(90, vec![resolved("a", 0, 55)])), "withdrawn×1");
    assert_eq!(summary(&world.wait(61 + 360)), "");
}

#[test]
fn a_late_firing_without_a_resolve_opens_when_its_window_is_over() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    world.post(70, vec![firing("a", 0)]);
    assert_eq!(summary(&world.wait(70 + 359)), "");
    let opened = world.wait(70 + 360);
    assert_eq!(summary(&opened), "emitted×1 scale_out +2");
    assert_eq!(summary(&world.post(500, vec![firing("a", 0)])), "duplicate×1");
}

#[test]
fn a_late_firing_continues_only_the_episode_that_its_occurrence_was_in() {
    for (alert, expected) in [("a", vec![]), ("b", vec![390])] {
        let mut world = guarded(0, 0, 60).world();
        world.post(0, vec![firing("a", -10)]);
        world.post(10, vec![resolved("b", -10, 5)]);
        world.post(20, vec![resolved("a", -10, 15)]);
        world.post(30, vec![firing(alert, -10)]);
        let emitted: Vec<i64> = (30..400).filter(|at| !events(&world.wait(*at)).is_empty()).collect();
        assert_eq!(emitted, expected, "{alert}");
    }
}

#[test]
fn an_end_is_kept_while_anything_is_owed_only_if_its_alert_was_open() {
    let mut world = with_a_second_rule(guarded(0, 0, 600));
    let mut templates = known_templates();
    let metric = templates.template("{{ annotations.value }}").unwrap();
    let step = RuleStep { from: 0.0, by: NonZeroU32::new(1).unwrap() };
    let mut rules = world.rules.rules().to_vec();
    let steps = Steps::new(metric, vec![step]).unwrap();
    rules[1].on_firing.as_mut().unwrap().action.change = Change::ScaleOut(Amount::Steps(steps));
    world.rules = RuleTable::new(rules, templates);
    world.post(0, vec![firing("a", -10)]);
    let mut unreadable = slow(true, -10, 0);
    unreadable.annotations = Arc::new([("value", "many")].into_iter().collect());
    world.post(10, vec![unreadable]);
    world.post(20, vec![resolved("a", -10, 15), slow(false, -10, 15)]);
    assert_eq!(summary(&world.wait(3620)), "");
    let both = world.post(3700, vec![firing("a", -10), slow(true, 12, 0)]);
    assert_eq!(summary(&both), "late×1, emitted×1 scale_out +1");
}

#[test]
fn a_closed_episode_is_kept_as_long_as_the_ends_of_its_alerts() {
    let setup = Setup { on_resolved: None, ..guarded(0, 0, 0) };
    let resolves = guarded(0, 0, 0).on_resolved;
    let mut world = with_another_rule(setup, "latency", |rule| rule.on_resolved = resolves);
    world.post(0, vec![slow(true, -10, 0)]);
    world.post(10, vec![firing("a", -10)]);
    world.post(20, vec![resolved("a", -10, 15)]);
    assert_eq!(summary(&world.wait(3620)), "");
    assert_eq!(summary(&world.post(3700, vec![firing("a", -10)])), "late×1", "the other rule owes");
    assert_eq!(summary(&world.wait(4060)), "no_action×1", "its episode goes on");
}

#[test]
fn a_late_firing_that_returns_to_its_open_episode_is_growth() {
    let mut world = guarded(1, 0, 60).world();
    world.post(0, vec![firing("a", -10)]);
    world.post(10, vec![firing("a", -10), firing("b", 5)]);
    world.post(20, vec![resolved("b", 5, 15)]);
    world.post(30, vec![firing("b", 5)]);
    assert_eq!(summary(&world.wait(60)), "withdrawn×1");
    assert_eq!(summary(&world.wait(390)), "emitted×1 scale_out +2");
}

#[test]
fn an_alert_that_fires_anew_after_its_end_is_not_late() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    assert_eq!(summary(&world.post(70, vec![firing("a", 56)])), "emitted×1 scale_out +2");
}

#[test]
fn starts_that_move_back_and_forth_are_the_same_occurrence() {
    let mut world = Setup::default().world();
    world.post(10, vec![firing("a", 5)]);
    assert_eq!(summary(&world.post(20, vec![firing("a", 8)])), "duplicate×1");
    assert_eq!(summary(&world.post(30, vec![firing("a", 5)])), "duplicate×1");
    assert_eq!(
        summary(&world.post(40, vec![firing("a", 35)])),
        "no_action×1",
        "its resolve was not received"
    );
    assert_eq!(summary(&world.post(60, vec![resolved("a", 35, 55)])), "emitted×1 scale_in -1");
}

#[test]
fn an_alert_that_is_not_mentioned_any_more_expires_without_a_scale_in() {
    let mut world = Setup::default().world();
    world.post(0, vec![firing("a", 0)]);
    assert_eq!(summary(&world.wait(24 * 3600 - 1)), "");
    assert_eq!(summary(&world.wait(24 * 3600)), "expired×1");
    assert_eq!(summary(&world.wait(8 * 24 * 3600 - 1)), "");
    assert!(!world.states.is_empty(), "the id of the expired episode is retained");
    world.wait(8 * 24 * 3600);
    assert!(world.states.is_empty());
}

#[test]
fn an_alert_that_fires_again_after_it_expired_has_an_event_of_its_own() {
    let mut world = Setup::default().world();
    let mut ids = BTreeSet::new();
    // The start is the same each time, since no end was received. Another alert opens and closes in between.
    for round in 0..3 {
        let begin = round * 49 * 3600;
        let decisions = world.post(begin, vec![firing("a", 0)]);
        assert_eq!(summary(&decisions), "emitted×1 scale_out +2");
        ids.insert(events(&decisions)[0].id.clone());
        assert_eq!(summary(&world.wait(begin + 24 * 3600)), "expired×1");
        world.post(begin + 25 * 3600, vec![firing("b", begin + 25 * 3600)]);
        world.post(begin + 26 * 3600, vec![resolved("b", begin + 25 * 3600, begin + 26 * 3600)]);
    }
    assert_eq!(ids.len(), 3);
}

#[test]
fn an_episode_of_which_one_alert_expired_does_not_scale_in() {
    let mut world = Setup::default().world();
    world.post(0, vec![firing("a", 0), firing("b", 0)]);
    world.post(3600, vec![firing("b", 0)]);
    assert_eq!(summary(&world.wait(24 * 3600)), "expired×1");
    assert_eq!(summary(&world.post(24 * 3600 + 60, vec![resolved("b", 0, 24 * 3600)])), "no_evidence×1");
}

#[test]
fn the_end_of_an_alert_is_forgotten_after_its_time() {
    let mut world = Setup::default().world();
    world.post(0, vec![firing("a", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    world.wait(60 + 3599);
    assert_eq!(world.states.len(), 1);
    world.wait(60 + 3600);
    assert!(world.states.is_empty());
}

#[test]
fn a_resolve_goes_to_the_open_occurrence_whatever_the_rules_are_now() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0)]);
    let mut other = resolved("a", 0, 50);
    other.labels = Arc::new([("alertname", "Renamed")].into_iter().collect());
    assert_eq!(summary(&world.post(60, vec![other])), "emitted×1 scale_in -1");
}

#[test]
fn an_episode_of_a_removed_rule_ends_without_action() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0)]);
    world.rules = RuleTable::new(Vec::new(), Templates::new());
    assert_eq!(summary(&world.post(60, vec![resolved("a", 0, 50)])), "no_action×1");
}

#[test]
fn a_disabled_rule_matches_its_alerts_and_records_that_it_is_disabled() {
    let mut world = Setup { mode: Mode::Disabled, ..Setup::default() }.world();
    assert_eq!(summary(&world.post(1, vec![firing("a", 0)])), "disabled×1");
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0)]);
    world.rules = Setup { mode: Mode::Disabled, ..Setup::default() }.table(Templates::new());
    assert_eq!(summary(&world.post(60, vec![resolved("a", 0, 50)])), "disabled×1");
}

#[test]
fn an_alert_without_the_label_of_its_target_is_invalid_and_its_neighbours_are_not() {
    let mut world = Setup::default().world();
    let mut lost = firing("a", 0);
    lost.labels = Arc::new([("alertname", "Pending")].into_iter().collect());
    let decisions = world.post(1, vec![lost, firing("b", 0)]);
    assert_eq!(summary(&decisions), "invalid×1, emitted×1 scale_out +2");
    assert_eq!(decisions[0].detail.as_deref(), Some("target.name: the alert has no label `nodegroup`"));
}

#[test]
fn the_same_alert_twice_in_one_notification_counts_once() {
    let mut world = Setup::default().world();
    let decisions = world.post(1, vec![firing("a", 0), firing("a", 0)]);
    assert_eq!(summary(&decisions), "duplicate×1, emitted×1 scale_out +2");
    assert_eq!(events(&decisions)[0].alerts.len(), 1);
}

#[test]
fn a_scale_in_on_firing_requires_a_complete_notification() {
    let idle = || Setup {
        on_firing: Some(FiringAction { action: unguarded(Change::ScaleIn(by(3))), repeat: Repeat::Never }),
        on_resolved: None,
        ..Setup::default()
    };
    assert_eq!(summary(&idle().world().post(1, vec![firing("a", 0)])), "emitted×1 scale_in -3");
    assert_eq!(summary(&idle().world().post_truncated(1, true, vec![firing("a", 0)])), "no_evidence×1");
}

#[test]
fn repeat_never_acts_once_an_episode() {
    let change = Change::ScaleOut(by(2));
    let mut world = Setup {
        on_firing: Some(FiringAction { action: unguarded(change), repeat: Repeat::Never }),
        ..Setup::default()
    }
    .world();
    world.post(1, vec![firing("a", 0)]);
    assert_eq!(summary(&world.post(2, vec![firing("a", 0), firing("b", 0)])), "duplicate×1, no_action×1");
}

#[test]
fn steps_use_the_highest_metric_of_the_open_alerts() {
    let mut templates = Templates::new();
    let metric = templates.template("{{ annotations.value }}").unwrap();
    let one = |from: f64, by: u32| RuleStep { from, by: NonZeroU32::new(by).unwrap() };
    let steps = Steps::new(metric, vec![one(0.0, 1), one(10.0, 3)]).unwrap();
    let change = Change::ScaleOut(Amount::Steps(steps));
    let on_firing = Some(FiringAction { action: unguarded(change), repeat: Repeat::OnGrowth });
    let mut world = Setup::default().world();
    world.rules = Setup { on_firing, ..Setup::default() }.table(templates);
    let with = |pod: &str, value: &str| {
        let mut alert = firing(pod, 0);
        alert.annotations = Arc::new([("value", value)].into_iter().collect());
        alert
    };
    assert_eq!(summary(&world.post(1, vec![with("a", "12"), with("b", "5")])), "emitted×2 scale_out +3");
    assert_eq!(
        summary(&world.post(2, vec![with("a", "2"), with("b", "5"), with("c", "9.9")])),
        "duplicate×2, emitted×1 scale_out +1",
        "the metrics are those of the latest annotations"
    );
    let odd = world.post(3, vec![with("d", "NaN"), with("e", "-1"), with("f", "many")]);
    assert_eq!(summary(&odd), "invalid×1, invalid×1, invalid×1");
}

#[test]
fn adjustments_use_the_terms_of_auto_scaling() {
    let changed = |change: Change| {
        let limits = Limits { min_capacity: Some(2), max_capacity: Some(40) };
        let on_firing = Some(FiringAction { action: unguarded(change), repeat: Repeat::Never });
        let decisions = Setup { on_firing, limits, ..Setup::default() }.world().post(1, vec![firing("a", 0)]);
        events(&decisions)[0].adjustment.clone()
    };
    let percent = |percent: u32| Amount::ByPercent {
        percent: NonZeroU32::new(percent).unwrap(),
        at_least: NonZeroU32::new(1),
    };
    let out = changed(Change::ScaleOut(percent(25))).unwrap();
    assert_eq!(
        (out.kind, out.value, out.min_magnitude),
        (AdjustmentType::PercentChangeInCapacity, 25, Some(1))
    );
    let inwards = changed(Change::ScaleIn(percent(25))).unwrap();
    assert_eq!(inwards.value, -25);
    let exact = changed(Change::SetCapacity { to: 100, allow_decrease: false }).unwrap();
    assert_eq!(
        (exact.kind, exact.value, exact.allow_decrease),
        (AdjustmentType::ExactCapacity, 40, Some(false))
    );
    assert_eq!(changed(Change::Notify), None);
}

#[test]
fn a_new_occurrence_after_a_late_one_is_about_one_target() {
    let mut world = Setup::default().world();
    let on = |group: &str, starts: i64| {
        let mut alert = firing("a", starts);
        Arc::make_mut(&mut alert.labels).set("nodegroup", group);
        alert
    };
    world.post(1, vec![on("workers", 0)]);
    world.post(60, vec![resolved("a", 0, 55)]);
    assert_eq!(summary(&world.post(61, vec![on("workers", 0)])), "late×1");
    // The label from which the target is rendered has changed.
    let anew = world.post(70, vec![on("others", 65)]);
    let decision = anew.iter().find(|decision| decision.event.is_some()).unwrap();
    assert_eq!(decision.target.as_ref(), Some(&decision.event.as_ref().unwrap().target.key()));
    assert_eq!(decision.target.as_ref().unwrap().as_str(), "eks/nodegroup/-/-/prod-eu/-/others");
    assert_eq!(summary(&anew), "emitted×1 scale_out +2, withdrawn×1");
    assert_eq!(summary(&world.wait(500)), "", "the late firing was withdrawn and does not open");
    assert_eq!(summary(&world.post(600, vec![resolved("a", 65, 590)])), "emitted×1 scale_in -1");
}

#[test]
fn a_firing_alert_is_refreshed_also_when_its_rule_does_not_match_it() {
    let mut world = Setup::default().world();
    world.post(0, vec![firing("a", 0)]);
    let mut renamed = firing("a", 0);
    Arc::make_mut(&mut renamed.labels).set("alertname", "Renamed");
    assert_eq!(summary(&world.post(20 * 3600, vec![renamed])), "unmatched×1");
    assert_eq!(summary(&world.wait(30 * 3600)), "");
    assert_eq!(
        summary(&world.post(31 * 3600, vec![resolved("a", 0, 31 * 3600 - 5)])),
        "emitted×1 scale_in -1"
    );
}

#[test]
fn an_alert_that_resolves_twice_in_one_notification_has_two_answers() {
    let mut world = Setup::default().world();
    world.post(1, vec![firing("a", 0)]);
    let twice = world.post(60, vec![resolved("a", 0, 50), resolved("a", 0, 55)]);
    assert_eq!(summary(&twice), "duplicate×1, emitted×1 scale_in -1");
}

#[test]
fn an_alert_that_fires_and_resolves_in_one_notification_is_not_left_open() {
    for swapped in [false, true] {
        let mut world = Setup::default().world();
        let mut both = vec![firing("a", 0), resolved("a", 0, 50)];
        if swapped {
            both.reverse();
        }
        assert_eq!(summary(&world.post(60, both.clone())), "withdrawn×2");
        let again = summary(&world.post(61, both));
        assert!(again == "late×1, withdrawn×1" || again == "withdrawn×1, late×1", "{again}");
        assert_eq!(summary(&world.wait(60 + 3600 * 2)), "");
        assert!(world.states.is_empty());
    }
}

/// A notification is split by target only, so all alerts about one target are in one step.
#[test]
fn a_target_with_very_many_alerts_is_decided_in_one_step() {
    const PODS: i64 = 5_000;
    let mut world = Setup::default().world();
    let all = |make: &dyn Fn(&str) -> Alert| (0..PODS).map(|pod| make(&pod.to_string())).collect::<Vec<_>>();
    assert_eq!(summary(&world.post(1, all(&|pod| firing(pod, 0)))), "emitted×5000 scale_out +2");
    assert_eq!(summary(&world.post(2, all(&|pod| firing(pod, 0)))), "duplicate×5000");
    assert_eq!(summary(&world.post(60, all(&|pod| resolved(pod, 0, 50)))), "emitted×5000 scale_in -1");
}

#[test]
fn a_late_firing_of_a_truncated_notification_does_not_scale_in() {
    let late = || {
        let mut world = Setup {
            on_firing: Some(FiringAction {
                action: unguarded(Change::ScaleIn(by(3))),
                repeat: Repeat::Never,
            }),
            on_resolved: None,
            ..Setup::default()
        }
        .world();
        assert_eq!(summary(&world.post(60, vec![resolved("a", 0, 55)])), "no_evidence×1");
        assert_eq!(summary(&world.post_truncated(61, true, vec![firing("a", 0)])), "late×1");
        world
    };
    assert_eq!(summary(&late().wait(61 + 360)), "no_evidence×1");
    let mut world = late();
    assert_eq!(
        summary(&world.post(90, vec![firing("a", 0)])),
        "duplicate×1",
        "a complete notification has it too"
    );
    assert_eq!(summary(&world.wait(61 + 360)), "emitted×1 scale_in -3");
}

#[test]
fn an_alert_that_starts_ahead_of_our_clock_is_the_same_when_it_is_received_again() {
    let mut world = Setup::default().world();
    world.post(0, vec![firing("a", 30)]);
    assert_eq!(summary(&world.post(10, vec![firing("a", 30)])), "duplicate×1");
}

#[test]
fn a_resolve_of_an_unknown_alert_that_is_twice_in_one_notification_is_applied_once() {
    let mut world = Setup::default().world();
    let twice = world.post(60, vec![resolved("a", 0, 50), resolved("a", 0, 50), resolved("a", 0, 55)]);
    assert_eq!(summary(&twice), "no_evidence×2, duplicate×1");
}

#[test]
fn an_episode_closes_without_action_after_a_truncated_notification_has_closed_one_of_its_alerts() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![firing("a", -10), firing("b", -10)]);
    assert_eq!(summary(&world.post_truncated(60, true, vec![resolved("a", -10, 55)])), "still_open×1");
    assert_eq!(summary(&world.post(120, vec![resolved("b", -10, 115)])), "no_evidence×1");
    world.post(200, vec![firing("c", 190)]);
    let closed = world.post(300, vec![resolved("c", 190, 290)]);
    assert_eq!(event_of(&closed).reverts.len(), 2, "what is owed has stayed");
}
