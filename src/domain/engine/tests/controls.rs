//! Pauses, holds, heartbeats and rate limits, which block actions of any target; and rules in `mode: shadow`,
//! which block no other rule.

use super::*;
use crate::domain::control::Pause;
use crate::domain::delivery::EventDelivery;
use crate::domain::direction::Direction;
use crate::domain::rule::{HoldTemplate, PartialTemplate};
use crate::domain::source::HeartbeatSettings;
use crate::domain::target_pattern::TargetPattern;

const HOUR: i64 = 3600;
pub(super) const DAY: i64 = 24 * HOUR;

/// Pauses everything from the second `since`, until `until` if it is set. `narrow` restricts the pause.
pub(super) fn pause(
    world: &mut World,
    since: i64,
    until: Option<i64>,
    narrow: impl FnOnce(&mut Pause),
) -> u64 {
    let mut pause = Pause {
        id: 0,
        rule: None,
        target: None,
        direction: None,
        since: at(since),
        until: until.map(at),
        author: "ana".into(),
        reason: "the database moves".into(),
    };
    narrow(&mut pause);
    world.controls.pause(pause)
}

#[test]
fn a_pause_over_a_weekend_defers_scale_outs_without_a_deadline() {
    let mut world = with_a_second_rule(guarded(5, 10, 5));
    world.post(0, vec![firing("a", -10)]);
    let friday = pause(&mut world, 60, None, |_| {});
    let grown = world.post(10 * 60, vec![slow(true, 590, 0)]);
    assert_eq!(summary(&grown), "paused×1");
    assert_eq!(grown[0].detail.as_deref(), Some("pause 1 by ana: the database moves"));
    let mut others = firing("x", HOUR);
    others.labels = Arc::new([("alertname", "Pending"), ("nodegroup", "others")].into_iter().collect());
    assert_eq!(summary(&world.post(HOUR + 10, vec![others.clone()])), "paused×1");
    // Repeated notifications change nothing.
    assert_eq!(
        summary(&world.post(5 * HOUR, vec![slow(true, 590, 0), firing("a", -10)])),
        "duplicate×1, duplicate×1"
    );
    let quiet = world.post(20 * HOUR, vec![firing("a", -10), slow(true, 590, 0)]);
    assert_eq!(summary(&quiet), "duplicate×1, duplicate×1");
    let ended = pause_ends(&mut world, friday, 23 * HOUR);
    assert_eq!(summary(&ended), "emitted×1 scale_out +2, emitted×1 scale_out +2");
}

/// Ends a pause and rechecks all targets, as the recheck queue of the store does.
pub(super) fn pause_ends(world: &mut World, id: u64, seconds: i64) -> Vec<Decision> {
    assert!(world.controls.resume(id).is_some());
    world.wait(seconds)
}

#[test]
fn a_scale_in_waits_for_the_end_of_a_long_pause() {
    let mut world = guarded(0, 0, 5).world();
    world.post(0, vec![firing("a", -10)]);
    let id = pause(&mut world, 60, None, |_| {});
    assert_eq!(summary(&world.post(120, vec![resolved("a", -10, 110)])), "paused×1");
    assert_eq!(summary(&world.wait(DAY)), "");
    assert_eq!(summary(&pause_ends(&mut world, id, 2 * DAY)), "emitted×1 scale_in -1");
}

#[test]
fn a_pause_with_an_end_releases_the_action_at_that_time() {
    let mut world = Setup::default().world();
    pause(&mut world, 0, Some(1800), |_| {});
    let blocked = world.post(10, vec![firing("a", 5)]);
    assert_eq!((summary(&blocked).as_str(), blocked[0].until), ("paused×1", Some(at(1800))));
    assert_eq!(world.next_due(), Some(1800));
    assert_eq!(summary(&world.wait(1799)), "");
    assert_eq!(summary(&world.wait(1800)), "emitted×1 scale_out +2");
}

#[test]
fn of_two_pauses_the_longer_one_counts_and_a_longer_one_that_is_set_later_prolongs() {
    let mut world = Setup::default().world();
    pause(&mut world, 0, Some(600), |_| {});
    let longer = pause(&mut world, 0, Some(1200), |_| {});
    assert_eq!(world.post(10, vec![firing("a", 5)])[0].until, Some(at(1200)));
    let endless = pause(&mut world, 20, None, |_| {});
    let prolonged = world.wait(1200);
    assert_eq!((summary(&prolonged).as_str(), prolonged[0].until), ("paused×1", None));
    world.controls.resume(longer);
    assert_eq!(summary(&pause_ends(&mut world, endless, 1300)), "emitted×1 scale_out +2");
}

#[test]
fn a_pause_covers_only_its_rule_target_and_direction() {
    let blocked = |narrow: fn(&mut Pause)| {
        let mut world = Setup::default().world();
        pause(&mut world, 0, None, narrow);
        let fired = summary(&world.post(10, vec![firing("a", 5)]));
        (fired, summary(&world.post(20, vec![resolved("a", 5, 15)])))
    };
    let out = |verdict: &str| if verdict == "emitted" { "emitted×1 scale_out +2" } else { "paused×1" };
    for (narrow, fires) in [
        ((|pause| pause.rule = Some(name("pods"))) as fn(&mut Pause), "paused"),
        (|pause| pause.rule = Some(name("other")), "emitted"),
        (|pause| pause.target = TargetPattern::new("eks/*/workers"), "paused"),
        (|pause| pause.target = TargetPattern::new("ecs/*"), "emitted"),
        (|pause| pause.direction = Some(Direction::ScaleOut), "paused"),
        (|pause| pause.direction = Some(Direction::ScaleIn), "emitted"),
    ] {
        assert_eq!(blocked(narrow).0, out(fires));
    }
    let inwards = blocked(|pause| pause.direction = Some(Direction::ScaleIn));
    assert_eq!(inwards.1, "paused×1");
    let outwards = blocked(|pause| pause.direction = Some(Direction::ScaleOut));
    assert_eq!(
        outwards.1, "withdrawn×1, no_evidence×1",
        "nothing was emitted, so there is nothing to compensate"
    );
}

/// The world of `setup` with a hold rule `freeze`: while `alertname = Deploy` fires, it blocks the directions
/// `blocks` on targets of `cluster` (of all clusters if it is `None`).
pub(super) fn with_a_hold(setup: Setup, cluster: Option<&str>, blocks: &[Direction]) -> World {
    let mut world = setup.world();
    let mut templates = Templates::new();
    templates.template("nodegroup").unwrap();
    templates.template("{{ labels.nodegroup }}").unwrap();
    templates.template("{{ labels.cluster }}").unwrap();
    templates.template("{{ labels.zone | default('any') }}").unwrap();
    let cluster = cluster.map(|cluster| templates.template(cluster).unwrap());
    let pods = world.rules.rules()[0].clone();
    let freeze = Rule {
        name: name("freeze"),
        matchers: Matcher::parse_list("alertname = Deploy").unwrap(),
        target: RuleTarget::Hold(HoldTemplate {
            covers: PartialTemplate { cluster, ..PartialTemplate::default() },
            blocks: blocks.to_vec(),
            max_duration: None,
        }),
        on_firing: None,
        on_resolved: None,
        budget: None,
        parameters: Vec::new(),
        mode: Mode::Active,
        ..pods.clone()
    };
    world.rules = RuleTable::new(vec![pods, freeze], templates);
    world
}

pub(super) fn deploy(fires: bool, starts: i64, ends: i64) -> Alert {
    let mut alert = if fires { firing("deploy", starts) } else { resolved("deploy", starts, ends) };
    alert.labels = Arc::new([("alertname", "Deploy"), ("cluster", "prod-eu")].into_iter().collect());
    alert
}

#[test]
fn a_hold_stops_a_scale_in_until_it_ends() {
    let mut world = with_a_hold(Setup::default(), Some("{{ labels.cluster }}"), &[Direction::ScaleIn]);
    world.post(0, vec![firing("a", -10)]);
    assert_eq!(summary(&world.post(10, vec![deploy(true, 5, 0)])), "no_action×1");
    let held = world.post(60, vec![resolved("a", -10, 55)]);
    assert_eq!(summary(&held), "held×1");
    assert_eq!(held[0].detail.as_deref(), Some("held by rule freeze"));
    assert_eq!(summary(&world.post(120, vec![deploy(true, 5, 0)])), "duplicate×1");
    assert_eq!(summary(&world.wait(600)), "", "an unchanged block is not recorded again");
    assert_eq!(summary(&world.post(700, vec![deploy(false, 5, 690)])), "no_action×1");
    assert_eq!(summary(&world.wait(701)), "emitted×1 scale_in -1");
}

#[test]
fn a_hold_blocks_no_other_direction_and_no_other_target() {
    let mut world = with_a_hold(Setup::default(), Some("{{ labels.cluster }}"), &[Direction::ScaleIn]);
    world.post(0, vec![deploy(true, -10, 0)]);
    assert_eq!(summary(&world.post(10, vec![firing("a", 5)])), "emitted×1 scale_out +2");
    let mut world = with_a_hold(Setup::default(), Some("elsewhere"), &Direction::ALL);
    world.post(0, vec![deploy(true, -10, 0)]);
    assert_eq!(summary(&world.post(10, vec![firing("a", 5)])), "emitted×1 scale_out +2");
    let mut world = with_a_hold(Setup::default(), None, &Direction::ALL);
    world.post(0, vec![deploy(true, -10, 0)]);
    assert_eq!(summary(&world.post(10, vec![firing("a", 5)])), "held×1", "all targets");
}

#[test]
fn a_hold_and_the_action_that_it_blocks_may_arrive_in_one_notification() {
    let mut world = with_a_hold(Setup::default(), None, &[Direction::ScaleIn]);
    world.post(0, vec![firing("a", -10)]);
    let both = world.post(60, vec![resolved("a", -10, 55), deploy(true, 50, 0)]);
    assert_eq!(summary(&both), "no_action×1, held×1");
    let again = world.post(120, vec![firing("b", 115), deploy(false, 50, 110)]);
    assert_eq!(summary(&again), "no_action×1, withdrawn×1, emitted×1 scale_out +2");
}

#[test]
fn a_hold_that_expires_releases_scale_outs_and_restarts_the_window_of_scale_ins() {
    let mut world = with_a_hold(guarded(0, 0, 0), None, &Direction::ALL);
    world.post(0, vec![deploy(true, -10, 0), firing("a", -10)]);
    assert_eq!(summary(&world.post(DAY - 100, vec![firing("a", -10)])), "duplicate×1");
    let mut other = firing("x", DAY - 95);
    other.labels = Arc::new([("alertname", "Pending"), ("nodegroup", "others")].into_iter().collect());
    assert_eq!(summary(&world.post(DAY - 90, vec![other])), "held×1");
    assert_eq!(summary(&world.wait(DAY)), "expired×1, emitted×1 scale_out +2, emitted×1 scale_out +2");
    let mut world = with_a_hold(guarded(0, 0, 5), None, &[Direction::ScaleIn]);
    world.post(0, vec![deploy(true, -10, 0)]);
    world.post(DAY - 200, vec![firing("a", DAY - 210)]);
    assert_eq!(summary(&world.post(DAY - 100, vec![resolved("a", DAY - 210, DAY - 110)])), "held×1");
    let expired = world.wait(DAY);
    assert_eq!(summary(&expired), "expired×1, stabilizing×1");
    assert_eq!(expired[1].until, Some(at(DAY + 300)), "the expiry is not evidence that a scale-in is safe");
    assert_eq!(summary(&world.wait(DAY + 300)), "emitted×1 scale_in -1");
}

#[test]
fn a_hold_of_a_removed_rule_or_of_a_shadow_blocks_nothing() {
    let mut world = with_a_hold(Setup::default(), None, &[Direction::ScaleIn]);
    world.post(0, vec![deploy(true, -10, 0), firing("a", -10)]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "held×1");
    world.rules = Setup::default().table(Templates::new());
    let ended = world.wait(61);
    assert_eq!(summary(&ended), "withdrawn×1, emitted×1 scale_in -1");
    assert_eq!(ended[0].rule, Some(name("freeze")), "the hold ends with its rule");
    let mut world = with_a_hold(Setup::default(), None, &Direction::ALL);
    let mut rules = world.rules.rules().to_vec();
    rules[1].mode = Mode::Shadow;
    world.rules = RuleTable::new(rules, known_templates());
    world.post(0, vec![deploy(true, -10, 0)]);
    assert_eq!(summary(&world.post(10, vec![firing("a", 5)])), "emitted×1 scale_out +2");
}

pub(super) fn watchdog(fires: bool, starts: i64, ends: i64) -> Alert {
    let mut alert = if fires { firing("watchdog", starts) } else { resolved("watchdog", starts, ends) };
    alert.labels = Arc::new([("alertname", "Watchdog")].into_iter().collect());
    alert
}

pub(super) fn with_a_heartbeat(setup: Setup) -> World {
    let mut world = setup.world();
    let source = Arc::get_mut(&mut world.source).unwrap();
    source.heartbeat = Some(HeartbeatSettings::new(Matcher::parse_list("alertname = Watchdog").unwrap()));
    world
}

#[test]
fn prometheus_dies_and_alertmanager_resolves_everything() {
    // In any order, in one notification or in several: nothing scales in.
    let mut world = with_a_heartbeat(guarded(0, 0, 5));
    assert_eq!(summary(&world.post(0, vec![watchdog(true, -10, 0)])), "heartbeat×1");
    world.post(10, vec![firing("a", -10)]);
    assert_eq!(summary(&world.post(300, vec![resolved("a", -10, 290)])), "stabilizing×1");
    assert_eq!(summary(&world.post(310, vec![watchdog(false, -10, 290)])), "heartbeat×1");
    assert_eq!(summary(&world.wait(899)), "");
    assert_eq!(summary(&world.wait(900)), "held×1");
    assert_eq!(summary(&world.wait(2 * HOUR)), "");

    let mut world = with_a_heartbeat(guarded(0, 0, 5));
    world.post(0, vec![watchdog(true, -10, 0), firing("a", -10)]);
    let all = world.post(300, vec![resolved("a", -10, 290), watchdog(false, -10, 290)]);
    assert_eq!(summary(&all), "heartbeat×1, held×1");
    assert_eq!(all[1].detail.as_deref(), Some("the heartbeat of source prod is not open"));
}

#[test]
fn after_a_lost_heartbeat_a_scale_in_waits_for_the_grace_of_the_heartbeat() {
    let mut world = with_a_heartbeat(guarded(0, 0, 5));
    world.post(0, vec![watchdog(true, -10, 0), firing("a", -10)]);
    world.post(300, vec![watchdog(false, -10, 290)]);
    assert_eq!(summary(&world.post(310, vec![resolved("a", -10, 290)])), "held×1");
    // Prometheus is back after twenty minutes; its alerts need a few minutes to fire again.
    assert_eq!(summary(&world.post(1500, vec![watchdog(true, 1490, 0)])), "heartbeat×1");
    let watched = world.wait(1501);
    assert_eq!((summary(&watched).as_str(), watched[0].until), ("stabilizing×1", Some(at(2400))));
    let mut again = World {
        states: world.states.clone(),
        controls: world.controls.clone(),
        ..with_a_heartbeat(guarded(0, 0, 5))
    };
    assert_eq!(summary(&world.wait(2399)), "");
    assert_eq!(summary(&world.wait(2400)), "emitted×1 scale_in -1", "the alert has really resolved");
    assert_eq!(
        summary(&again.post(1700, vec![firing("a", 1650)])),
        "withdrawn×1, emitted×1 scale_out +2",
        "the alert fires again"
    );
}

#[test]
fn a_source_whose_heartbeat_was_never_received_does_not_scale_in() {
    let mut world = with_a_heartbeat(Setup::default());
    assert_eq!(summary(&world.post(0, vec![firing("a", -10)])), "emitted×1 scale_out +2");
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "held×1");
    assert_eq!(
        summary(&world.post(90, vec![watchdog(false, -10, 85)])),
        "heartbeat×1",
        "a resolved heartbeat does not open it"
    );
    assert_eq!(summary(&world.wait(91)), "");
    world.post(120, vec![watchdog(true, 110, 0)]);
    assert_eq!(summary(&world.wait(121)), "stabilizing×1");
    assert_eq!(summary(&world.wait(120 + 899)), "", "the grace counts from the first opening too");
    assert_eq!(summary(&world.wait(120 + 900)), "emitted×1 scale_in -1");
}

#[test]
fn a_heartbeat_that_expired_is_not_open() {
    let mut world = with_a_heartbeat(Setup::default());
    world.post(0, vec![watchdog(true, -10, 0)]);
    assert_eq!(summary(&world.wait(DAY)), "expired×1");
    world.post(DAY + 10, vec![firing("a", DAY + 5)]);
    assert_eq!(summary(&world.post(DAY + 60, vec![resolved("a", DAY + 5, DAY + 55)])), "held×1");
}

#[test]
fn a_shadow_records_what_it_would_have_sent_and_affects_no_other_rule() {
    let mut world = guarded(5, 5, 0).world();
    let pods = world.rules.rules()[0].clone();
    let trial = Rule { name: name("trial"), mode: Mode::Shadow, continues: true, ..pods.clone() };
    world.rules = RuleTable::new(vec![trial, pods], known_templates());
    let opened = world.post(0, vec![firing("a", -10)]);
    assert_eq!(summary(&opened), "emitted×1 scale_out +2, shadowed×1 scale_out +2");
    let (sent, would) = (opened[0].event.as_deref().unwrap(), opened[1].shadow.as_deref().unwrap());
    assert!(opened[1].event.is_none(), "a shadow emits no event");
    assert_eq!((&sent.target, &sent.adjustment), (&would.target, &would.adjustment));
    // Each rule is blocked by its own cooldown only; both complete their episodes.
    let grown = world.post(60, vec![firing("a", -10), firing("b", 50)]);
    assert_eq!(summary(&grown), "duplicate×1, cooling_down×1, duplicate×1, cooling_down×1");
    assert_eq!(summary(&world.wait(300)), "emitted×1 scale_out +2, shadowed×1 scale_out +2");
    let closed = world.post(700, vec![resolved("a", -10, 690), resolved("b", 50, 690)]);
    assert_eq!(summary(&closed), "emitted×2 scale_in -1, shadowed×2 scale_in -1");
}

#[test]
fn a_shadow_outranks_no_rule_and_its_openings_withdraw_nothing() {
    let mut world = with_a_second_rule(guarded(0, 0, 5));
    let mut rules = world.rules.rules().to_vec();
    rules[1].mode = Mode::Shadow;
    world.rules = RuleTable::new(rules, known_templates());
    world.post(0, vec![firing("a", -10)]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "stabilizing×1");
    assert_eq!(summary(&world.post(120, vec![slow(true, 110, 0)])), "shadowed×1 scale_out +2");
    assert_eq!(summary(&world.wait(360)), "emitted×1 scale_in -1");
}

#[test]
fn emissions_in_shadow_mode_do_not_count_when_the_rule_is_active() {
    let mut world = Setup { mode: Mode::Shadow, ..guarded(0, 0, 0) }.world();
    assert_eq!(summary(&world.post(0, vec![firing("a", -10)])), "shadowed×1 scale_out +2");
    world.rules = guarded(0, 0, 0).table(Templates::new());
    assert_eq!(
        summary(&world.post(60, vec![resolved("a", -10, 55)])),
        "no_evidence×1",
        "the rule has no open episode, now that it is active"
    );
    assert_eq!(summary(&world.post(90, vec![firing("b", 80)])), "emitted×1 scale_out +2");
    world.rules = Setup { mode: Mode::Shadow, ..guarded(0, 0, 0) }.table(Templates::new());
    assert_eq!(summary(&world.post(120, vec![resolved("b", 80, 110)])), "no_action×1");
}

fn pods_of(group: &str, fires: bool, starts: i64, ends: i64) -> Alert {
    let mut alert = if fires { firing(group, starts) } else { resolved(group, starts, ends) };
    alert.labels = Arc::new([("alertname", "Pending"), ("nodegroup", group)].into_iter().collect());
    alert
}

#[test]
fn scale_ins_over_the_rate_limit_of_the_process_wait_for_their_slots() {
    let mut world = Setup::default().world();
    world.policy.per_minute = PerMinute { scale_out: 0, scale_in: 2 };
    let groups = ["a", "b", "c", "d", "e"];
    world.post(0, groups.iter().map(|group| pods_of(group, true, -10, 0)).collect());
    let closed = world.post(60, groups.iter().map(|group| pods_of(group, false, -10, 55)).collect());
    assert_eq!(
        summary(&closed),
        "emitted×1 scale_in -1, emitted×1 scale_in -1, over_budget×1, over_budget×1, over_budget×1"
    );
    let waits: Vec<_> = closed[2..].iter().map(|decision| decision.until).collect();
    assert_eq!(waits, [Some(at(120)), Some(at(120)), Some(at(180))]);
    assert_eq!(closed[2].detail.as_deref(), Some("this process has reached engine.scale_in_per_minute"));
    assert_eq!(summary(&world.wait(120)), "emitted×1 scale_in -1, emitted×1 scale_in -1");
    assert_eq!(summary(&world.wait(179)), "");
    assert_eq!(summary(&world.wait(180)), "emitted×1 scale_in -1");
}

#[test]
fn a_released_slot_is_free_for_the_next() {
    let mut world = Setup::default().world();
    world.policy.per_minute = PerMinute { scale_out: 0, scale_in: 1 };
    world.post(0, ["a", "b", "c"].iter().map(|group| pods_of(group, true, -10, 0)).collect());
    let closed = world.post(60, ["a", "b"].iter().map(|group| pods_of(group, false, -10, 55)).collect());
    assert_eq!(summary(&closed), "emitted×1 scale_in -1, over_budget×1");
    assert_eq!(
        summary(&world.post(70, vec![pods_of("b", true, 65, 0)])),
        "withdrawn×1, emitted×1 scale_out +2"
    );
    let next = world.post(80, vec![pods_of("c", false, -10, 75)]);
    assert_eq!((summary(&next).as_str(), next[0].until), ("over_budget×1", Some(at(120))));
}

#[test]
fn a_scale_out_supersedes_undelivered_decreases() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![firing("a", -10)]);
    let shrunk = world.post(60, vec![resolved("a", -10, 55)]);
    let event = events(&shrunk)[0].clone();
    world.set_delivery(&event, EventDelivery::pending());
    let fired = world.post(90, vec![firing("b", 80)]);
    assert_eq!(summary(&fired), "superseded×1, emitted×1 scale_out +2");
    assert_eq!(fired[0].detail, Some(format!("the rule opened before event {} was confirmed", event.id)));
    assert!(!fired[0].is_reply, "the notification is about another alert");
    let cancelled: Vec<_> = world.delivery_changes.iter().map(|it| (&it.event, it.kind)).collect();
    assert_eq!(cancelled, [(&event.id, DeliveryChangeKind::Cancel)]);
    assert_eq!(summary(&world.post(120, vec![firing("b", 80)])), "duplicate×1");
}

#[test]
fn forty_pods_make_one_event_and_the_fortieth_resolve_one_scale_in() {
    let mut world = guarded(5, 10, 15).world();
    let pods: Vec<String> = (1..=40).map(|pod| format!("web-{pod}")).collect();
    let opened = world.post(0, pods.iter().map(|pod| firing(pod, -10)).collect());
    assert_eq!(summary(&opened), "emitted×40 scale_out +2");
    let most = world.post(600, pods[..39].iter().map(|pod| resolved(pod, -10, 590)).collect());
    assert_eq!(summary(&most), "still_open×39");
    assert_eq!(summary(&world.post(900, vec![resolved(&pods[39], -10, 890)])), "stabilizing×1");
    assert_eq!(summary(&world.wait(900 + 900)), "emitted×1 scale_in -1");
}

#[test]
fn a_pending_pod_that_is_recreated_every_three_minutes_is_one_need() {
    let mut world = guarded(5, 10, 15).world();
    assert_eq!(summary(&world.post(0, vec![firing("pod-0", -10)])), "emitted×1 scale_out +2");
    for round in 1..20 {
        let (before, now) = (format!("pod-{}", round - 1), format!("pod-{round}"));
        let (start, end) = (180 * round, 180 * round - 5);
        let due = world.run_until(at(start));
        assert!(due.iter().all(|(_, decision)| decision.verdict != Verdict::Withdrawn), "{due:?}");
        // The old pod resolves shortly before the new one fires, or in the same notification.
        let decisions = if round % 2 == 0 {
            world.post(start, vec![resolved(&before, start - 190, end), firing(&now, end)])
        } else {
            let mut first = world.post(start, vec![resolved(&before, start - 190, end)]);
            first.extend(world.post(start + 10, vec![firing(&now, start)]));
            first
        };
        let shrinks = events(&decisions).iter().filter(|event| event.action == "scale_in").count();
        assert_eq!(shrinks, 0, "{}", summary(&decisions));
    }
    world.run_until(at(4000));
    assert_eq!(summary(&world.post(4000, vec![resolved("pod-19", 3420, 3990)])), "stabilizing×1");
    assert_eq!(summary(&world.wait(4900)), "emitted×1 scale_in -1");
}

#[test]
fn an_episode_keeps_its_target_when_the_rules_template_changes() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![firing("a", -10)]);
    let mut rule = world.rules.rules()[0].clone();
    let mut templates = known_templates();
    let RuleTarget::Target(target) = &mut rule.target else { panic!("it is about a target") };
    target.name = templates.template("moved").unwrap();
    world.rules = RuleTable::new(vec![rule], templates);
    assert_eq!(summary(&world.post(60, vec![firing("a", -10)])), "duplicate×1");
    let joined = world.post(90, vec![firing("a", -10), firing("b", 80)]);
    assert_eq!(summary(&joined), "emitted×1 scale_out +2, duplicate×1");
    assert_eq!(events(&joined)[0].target.name, "moved");
    let closed = world.post(120, vec![resolved("a", -10, 110)]);
    assert_eq!(
        (summary(&closed).as_str(), &*events(&closed)[0].target.name),
        ("emitted×1 scale_in -1", "workers")
    );
}

#[test]
fn a_rule_that_is_renamed_is_another_rule() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![firing("a", -10)]);
    let renamed = Rule { name: name("renamed"), ..world.rules.rules()[0].clone() };
    world.rules = RuleTable::new(vec![renamed], known_templates());
    assert_eq!(summary(&world.post(60, vec![firing("a", -10)])), "emitted×1 scale_out +2");
    assert_eq!(
        summary(&world.post(120, vec![resolved("a", -10, 110)])),
        "no_action×1, emitted×1 scale_in -1"
    );
}

#[test]
fn a_heartbeat_that_restarts_was_lost_in_between() {
    // Prometheus was down, and up again before Alertmanager sent the resolve: only the new start shows it.
    let mut world = with_a_heartbeat(guarded(0, 0, 5));
    world.post(0, vec![watchdog(true, -10, 0), firing("a", -10)]);
    assert_eq!(summary(&world.post(300, vec![resolved("a", -10, 290)])), "stabilizing×1");
    assert_eq!(summary(&world.post(500, vec![watchdog(true, 490, 0)])), "heartbeat×1");
    // A copy with the same start changes nothing.
    assert_eq!(summary(&world.post(700, vec![watchdog(true, 490, 0)])), "heartbeat×1");
    let waits = world.wait(900);
    assert_eq!((summary(&waits).as_str(), waits[0].until), ("stabilizing×1", Some(at(500 + 900))));
    assert_eq!(summary(&world.wait(500 + 900)), "emitted×1 scale_in -1");
}

#[test]
fn an_alert_that_is_not_the_heartbeat_any_more_does_not_keep_it_open() {
    let mut world = with_a_heartbeat(Setup::default());
    world.post(0, vec![watchdog(true, -10, 0), firing("a", -10)]);
    let source = Arc::get_mut(&mut world.source).unwrap();
    source.heartbeat =
        Some(HeartbeatSettings::new(Matcher::parse_list("alertname = DeadMansSwitch").unwrap()));
    let decisions = world.post(60, vec![watchdog(true, -10, 0)]);
    assert_eq!(summary(&decisions), "unmatched×1, withdrawn×1");
    assert_eq!(summary(&world.post(90, vec![resolved("a", -10, 85)])), "held×1");
}

#[test]
fn a_budget_expiry_takes_no_slot_of_the_rate_limit() {
    let budget = Some(Budget { events: NonZeroU32::MIN, per: MINUTE });
    let mut world = Setup { budget, ..Setup::default() }.world();
    world.policy.per_minute = PerMinute { scale_out: 0, scale_in: 1 };
    world.post(-100, ["b", "c", "d"].iter().map(|group| pods_of(group, true, -110, 0)).collect());
    world.post(0, vec![pods_of("a", true, -5, 0)]);
    assert_eq!(summary(&world.post(0, vec![pods_of("b", false, -110, -5)])), "emitted×1 scale_in -1");
    let in_line = world.post(5, vec![pods_of("c", false, -110, 0)]);
    assert_eq!((summary(&in_line).as_str(), in_line[0].until), ("over_budget×1", Some(at(60))));
    let spent = world.post(10, vec![pods_of("a", false, -5, 5)]);
    assert_eq!(spent[0].until, Some(at(60)), "the rule's own budget, which expires at the time of that slot");
    assert_eq!(summary(&world.post(20, vec![pods_of("a", true, 15, 0)])), "withdrawn×1, over_budget×1");
    let behind = world.post(30, vec![pods_of("d", false, -110, 25)]);
    assert_eq!((summary(&behind).as_str(), behind[0].until), ("over_budget×1", Some(at(120))));
}

#[test]
fn each_direction_has_slots_of_its_own() {
    let mut world = Setup::default().world();
    let groups = ["v", "x", "y", "z"];
    world.post(-100, groups.iter().map(|group| pods_of(group, true, -110, 0)).collect());
    world.policy.per_minute = PerMinute { scale_out: 1, scale_in: 1 };
    world.post(0, vec![pods_of("a", true, -5, 0), pods_of("z", false, -110, -5)]);
    let both = world.post(10, vec![pods_of("b", true, 5, 0), pods_of("y", false, -110, 5)]);
    assert_eq!(both.iter().map(|it| it.until).collect::<Vec<_>>(), [Some(at(60)), Some(at(60))]);
    assert_eq!(summary(&world.post(20, vec![pods_of("y", true, 15, 0)])), "withdrawn×1, over_budget×1");
    // The free slot is that of the scale-in.
    assert_eq!(world.post(30, vec![pods_of("x", false, -110, 25)])[0].until, Some(at(60)));
    assert_eq!(world.post(40, vec![pods_of("v", false, -110, 35)])[0].until, Some(at(120)));
}

#[test]
fn a_hold_that_expires_elsewhere_withdraws_nothing_here() {
    let mut world =
        with_a_hold(Setup::default(), Some("{{ labels.zone | default('any') }}"), &[Direction::ScaleIn]);
    let in_zone = |zone: &str| {
        let mut alert = deploy(true, -10, 0);
        alert.fingerprint = format!("fp-deploy-{zone}").into();
        Arc::make_mut(&mut alert.labels).set("zone", zone);
        alert
    };
    world.post(0, vec![in_zone("elsewhere"), in_zone("prod-eu")]);
    world.post(DAY - 200, vec![in_zone("prod-eu"), firing("a", DAY - 210)]);
    assert_eq!(summary(&world.post(DAY - 100, vec![resolved("a", DAY - 210, DAY - 110)])), "held×1");
    assert_eq!(summary(&world.wait(DAY)), "expired×1", "the hold that covers the target has not expired");
    let mut end = in_zone("prod-eu");
    (end.status, end.ends_at) = (Status::Resolved, Some(at(DAY + 50)));
    assert_eq!(summary(&world.post(DAY + 60, vec![end])), "no_action×1");
    assert_eq!(summary(&world.wait(DAY + 61)), "emitted×1 scale_in -1");
}

#[test]
fn the_window_of_a_paused_scale_in_restarts_when_the_hold_on_its_target_expires() {
    let mut world = with_a_hold(guarded(0, 0, 5), None, &[Direction::ScaleIn]);
    world.post(0, vec![deploy(true, -10, 0)]);
    world.post(DAY - 200, vec![firing("a", DAY - 210)]);
    let id = pause(&mut world, DAY - 150, None, |_| {});
    assert_eq!(summary(&world.post(DAY - 100, vec![resolved("a", DAY - 210, DAY - 110)])), "paused×1");
    assert_eq!(summary(&world.wait(DAY)), "expired×1");
    let waits = pause_ends(&mut world, id, DAY + 60);
    assert_eq!((summary(&waits).as_str(), waits[0].until), ("stabilizing×1", Some(at(DAY + 300))));
}
