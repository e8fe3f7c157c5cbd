//! Alerts of which nobody says whether they fire: their sender has ended them without evidence, or has not sent them again
//! in the time for which it vouched.

use super::controls::{deploy, pause, pause_ends, watchdog, with_a_heartbeat, with_a_hold};
use super::*;
use crate::domain::delivery::EventDelivery;
use crate::domain::direction::Direction;

/// `alert` has gone missing at `ends`.
fn missing(alert: Alert, ends: i64) -> Alert {
    let (ends_at, absence) = (Some(at(ends)), Some("MissingSeries".into()));
    Alert { status: Status::Resolved, ends_at, absence, ..alert }
}

/// `alert` fires, and its sender vouches for it until then.
fn until(alert: Alert, valid_until: i64) -> Alert {
    Alert { valid_until: Some(at(valid_until)), ..alert }
}

const MISSING: &str =
    "the sender has ended the alert without evidence that its condition is over: MissingSeries";

#[test]
fn an_alert_that_goes_missing_expires_with_the_reason_and_what_is_owed_stays() {
    let mut world = guarded(0, 0, 5).world();
    world.post(0, vec![firing("a", -10)]);
    let gone = world.post(60, vec![missing(firing("a", -10), 55)]);
    assert_eq!(summary(&gone), "expired×1");
    assert_eq!((gone[0].detail.as_deref(), gone[0].is_reply), (Some(MISSING), true));
    assert_eq!(summary(&world.wait(3000)), "");
    // The next close by resolve takes it back.
    world.post(3100, vec![firing("a", 3090)]);
    world.post(3200, vec![resolved("a", 3090, 3190)]);
    assert_eq!(event_of(&world.wait(3500)).reverts.len(), 2);
}

#[test]
fn an_episode_of_which_one_alert_has_gone_missing_closes_without_action() {
    let mut world = guarded(0, 0, 5).world();
    world.post(0, vec![firing("a", -10), firing("b", -10)]);
    assert_eq!(summary(&world.post(60, vec![missing(firing("a", -10), 55)])), "expired×1");
    let closed = world.post(90, vec![resolved("b", -10, 85)]);
    assert_eq!(summary(&closed), "no_evidence×1");
    assert_eq!(closed[0].detail.as_deref(), Some("an alert of the episode has expired"));
    assert_eq!(summary(&world.wait(3000)), "");
}

#[test]
fn the_window_of_another_rules_decrease_counts_from_an_absence() {
    let mut world = with_a_second_rule(guarded(0, 0, 5));
    world.post(0, vec![firing("a", -10), slow(true, -10, 0)]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "outranked×1");
    let gone = world.post(400, vec![missing(slow(true, -10, 0), 395)]);
    assert_eq!(summary(&gone), "expired×1, stabilizing×1");
    assert_eq!(last_wait(&gone), ("stabilizing".to_owned(), Some(700)));
    assert_eq!(summary(&world.wait(700)), "emitted×1 scale_in -1");
}

#[test]
fn an_absence_of_what_is_not_open_changes_nothing() {
    let mut world = Setup::default().world();
    let stray = world.post(0, vec![missing(firing("a", -10), -5)]);
    assert_eq!((summary(&stray).as_str(), stray[0].detail.as_deref()), ("no_action×1", Some(MISSING)));
    let again = world.post(10, vec![missing(firing("a", -10), -5)]);
    assert_eq!((summary(&again).as_str(), again[0].detail.as_deref()), ("duplicate×1", Some(MISSING)));
    assert_eq!(summary(&world.post(20, vec![firing("a", 15)])), "emitted×1 scale_out +2");
}

/// What began after the end of an absence opens at once. What began before is the copy of a second sender: it waits for its
/// end, and opens if none comes, so that nothing is lost and nothing happens twice.
#[test]
fn after_an_absence_a_new_firing_opens_at_once_and_a_copy_of_the_old_one_waits() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![firing("a", -10)]);
    world.post(60, vec![missing(firing("a", -10), 55)]);
    assert_eq!(summary(&world.post(61, vec![firing("a", -10)])), "late×1");
    let gone = world.post(62, vec![missing(firing("a", -10), 56)]);
    assert_eq!((summary(&gone).as_str(), gone[0].detail.as_deref()), ("withdrawn×1", Some(MISSING)));
    assert_eq!(summary(&world.post(70, vec![firing("a", -10)])), "late×1");
    assert_eq!(summary(&world.wait(70 + 360)), "emitted×1 scale_out +2");
    world.post(500, vec![missing(firing("a", -10), 490)]);
    assert_eq!(summary(&world.post(510, vec![firing("a", 505)])), "emitted×1 scale_out +2");
}

#[test]
fn an_absence_from_before_the_alert_began_is_stale() {
    let mut world = Setup::default().world();
    world.post(0, vec![firing("a", -10)]);
    assert_eq!(summary(&world.post(60, vec![missing(firing("a", -10), -20)])), "stale×1");
    assert_eq!(summary(&world.post(70, vec![firing("a", -10)])), "duplicate×1", "it is still open");
}

#[test]
fn a_hold_whose_alert_goes_missing_ends_as_expired_and_restarts_the_windows() {
    let mut world = with_a_hold(guarded(0, 0, 5), None, &[Direction::ScaleIn]);
    world.post(0, vec![firing("a", -10), deploy(true, -10, 0)]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "held×1");
    let gone = world.post(600, vec![missing(deploy(true, -10, 0), 590)]);
    assert_eq!((summary(&gone).as_str(), gone[0].detail.as_deref()), ("expired×1", Some(MISSING)));
    assert_eq!(last_wait(&world.wait(601)), ("stabilizing".to_owned(), Some(900)));
    assert_eq!(summary(&world.wait(900)), "emitted×1 scale_in -1");
}

#[test]
fn a_hold_that_cannot_be_read_ends_as_expired_when_its_alert_goes_missing() {
    let mut world = with_a_hold(guarded(0, 0, 5), Some("{{ labels.zone }}"), &Direction::ALL);
    world.post(0, vec![firing("a", -10), deploy(true, -10, 0)]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "held×1");
    world.post(600, vec![missing(deploy(true, -10, 0), 590)]);
    assert_eq!(last_wait(&world.wait(601)), ("stabilizing".to_owned(), Some(900)));
}

#[test]
fn a_heartbeat_that_goes_missing_is_not_open() {
    let mut world = with_a_heartbeat(guarded(0, 0, 5));
    world.post(0, vec![watchdog(true, -7200, 0), firing("a", -10)]);
    let gone = world.post(60, vec![missing(watchdog(true, -7200, 0), 55)]);
    assert_eq!((summary(&gone).as_str(), gone[0].detail.as_deref()), ("expired×1", Some(MISSING)));
    assert_eq!(summary(&world.post(70, vec![resolved("a", -10, 65)])), "held×1");
}

/// The alert of another rule is absent from the second 300 on; the decrease of `pods` waits for its window until 360.
fn waiting_beside(rule: fn(&mut Rule)) -> World {
    let mut world = with_a_second_rule(guarded(0, 0, 5));
    let mut rules = world.rules.rules().to_vec();
    rule(&mut rules[1]);
    world.rules = RuleTable::new(rules, known_templates());
    world.post(0, vec![firing("a", -10), until(slow(true, -10, 0), 240)]);
    world.post(60, vec![resolved("a", -10, 55), until(slow(true, -10, 0), 300)]);
    world
}

fn only_notifies(rule: &mut Rule) {
    rule.on_firing.as_mut().unwrap().action.change = Change::Notify;
}

#[test]
fn a_decrease_waits_while_an_alert_about_its_target_is_absent_and_a_window_after_it_is_heard_again() {
    let mut world = waiting_beside(only_notifies);
    let waits = world.wait(360);
    assert_eq!(last_wait(&waits), ("stabilizing".to_owned(), Some(60 + 24 * 3600)));
    let why = "alert fp-slow about the target is absent: its sender has not sent it again in time";
    assert_eq!(waits[0].detail.as_deref(), Some(why));
    let heard = world.post(4000, vec![until(slow(true, -10, 0), 4240)]);
    assert_eq!(summary(&heard), "duplicate×1, stabilizing×1");
    assert_eq!(last_wait(&heard), ("stabilizing".to_owned(), Some(4300)));
    world.post(4200, vec![until(slow(true, -10, 0), 4440)]);
    assert_eq!(summary(&world.wait(4300)), "emitted×1 scale_in -1");
}

#[test]
fn a_decrease_waits_a_window_after_an_absent_alert_has_expired() {
    let mut world = waiting_beside(only_notifies);
    world.wait(360);
    let expires = 60 + 24 * 3600;
    assert_eq!(summary(&world.wait(expires)), "expired×1, stabilizing×1");
    assert_eq!(summary(&world.wait(expires + 299)), "");
    assert_eq!(summary(&world.wait(expires + 300)), "emitted×1 scale_in -1");
}

#[test]
fn a_decrease_that_is_not_confirmed_is_taken_back_when_an_alert_about_its_target_is_absent() {
    let mut world = with_a_second_rule(guarded(0, 0, 0));
    let mut rules = world.rules.rules().to_vec();
    only_notifies(&mut rules[1]);
    world.rules = RuleTable::new(rules, known_templates());
    world.post(0, vec![firing("a", -10), until(slow(true, -10, 0), 240)]);
    let decrease = event_of(&world.post(60, vec![resolved("a", -10, 55)]));
    world.set_delivery(&decrease, EventDelivery::pending());
    assert_eq!(summary(&world.wait(61)), "");
    assert_eq!(world.next_due(), Some(240));
    assert_eq!(summary(&world.wait(240)), "superseded×1, stabilizing×1");
    assert_eq!(world.changes(), [(decrease.id, DeliveryChangeKind::Cancel)]);
}

#[test]
fn a_decrease_on_firing_waits_while_its_own_alert_is_absent() {
    let mut world = idle(5).world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    assert_eq!(last_wait(&world.wait(300)), ("stabilizing".to_owned(), Some(24 * 3600)));
    world.post(400, vec![until(firing("a", -10), 640)]);
    assert_eq!(summary(&world.wait(699)), "");
    world.post(640, vec![until(firing("a", -10), 880)]);
    assert_eq!(summary(&world.wait(700)), "stabilizing×1", "it was absent for an instant");
}

#[test]
fn an_absent_alert_stays_open_and_goes_on_when_it_is_heard_again_though_its_start_has_moved() {
    let mut world = guarded(0, 0, 5).world();
    world.post(0, vec![until(firing("a", -10), 240), until(firing("b", -10), 240)]);
    assert_eq!(summary(&world.wait(1000)), "", "nothing happens when it is absent");
    assert_eq!(summary(&world.post(1100, vec![resolved("b", -10, 230)])), "still_open×1");
    // Prometheus has restarted.
    assert_eq!(summary(&world.post(1200, vec![until(firing("a", 1190), 1430)])), "duplicate×1");
    let earlier = world.post(1210, vec![resolved("a", -10, 1000)]);
    assert_eq!(summary(&earlier), "stale×1", "it has begun anew after that end");
    assert_eq!(summary(&world.post(1300, vec![resolved("a", 1190, 1290)])), "stabilizing×1");
    assert_eq!(summary(&world.wait(1600)), "emitted×1 scale_in -1");
}

#[test]
fn a_firing_that_arrives_after_the_time_for_which_its_sender_vouched_is_no_resolve() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    // Its `endsAt` has passed when it arrives, so that it looks like an end.
    assert_eq!(summary(&world.post(310, vec![resolved("a", -10, 300)])), "duplicate×1");
    assert_eq!(
        summary(&world.post(319, vec![resolved("a", -10, 300)])),
        "duplicate×1",
        "a copy of the request"
    );
    assert_eq!(
        summary(&world.post(320, vec![resolved("a", -10, 300)])),
        "emitted×1 scale_in -1",
        "only an end is repeated"
    );
}

#[test]
fn an_end_within_the_time_for_which_its_sender_vouched_is_a_resolve_at_once() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 45)])), "emitted×1 scale_in -1");
}

#[test]
fn late_firings_in_any_order_and_their_copies_are_no_resolve() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    for (now, ends_at) in [(300, 240), (301, 240), (310, 300), (311, 300), (312, 270), (313, 305), (319, 300)]
    {
        assert_eq!(summary(&world.post(now, vec![resolved("a", -10, ends_at)])), "duplicate×1", "{now}");
    }
    // A firing ends the doubt.
    assert_eq!(summary(&world.post(340, vec![until(firing("a", -10), 580)])), "duplicate×1");
    assert_eq!(summary(&world.post(400, vec![resolved("a", -10, 390)])), "emitted×1 scale_in -1");
}

/// Two Prometheus servers send the same alert, and each has an end of its own. The firings in between were not received.
#[test]
fn an_alert_of_two_senders_with_different_ends_resolves_with_the_second_copy_of_either() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    assert_eq!(summary(&world.post(480, vec![resolved("a", -10, 300)])), "duplicate×1");
    assert_eq!(summary(&world.post(500, vec![resolved("a", -10, 330)])), "duplicate×1");
    assert_eq!(summary(&world.post(540, vec![resolved("a", -10, 300)])), "emitted×1 scale_in -1");
    assert_eq!(summary(&world.post(560, vec![resolved("a", -10, 330)])), "duplicate×1");
}

/// One of two Prometheus servers has ended the alert, and repeats its end each minute. The other one goes on sending it.
#[test]
fn an_end_that_one_sender_repeats_does_not_withdraw_what_another_one_vouches_for() {
    let mut world = guarded(0, 0, 5).world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    assert_eq!(summary(&world.post(30, vec![resolved("a", -10, 20)])), "stabilizing×1");
    assert_eq!(summary(&world.post(60, vec![until(firing("a", -10), 300)])), "late×1");
    for now in (90..=330).step_by(60) {
        let end = summary(&world.post(now, vec![resolved("a", -10, 20)]));
        // The decrease is due at 330, and waits for the late firing.
        assert!(["duplicate×1", "duplicate×1, stabilizing×1"].contains(&end.as_str()), "{now}: {end}");
        let copy = until(firing("a", -10), now + 270);
        assert_eq!(summary(&world.post(now + 30, vec![copy])), "duplicate×1", "{now}");
    }
    let opened = world.wait(60 + 360);
    assert_eq!(
        summary(&opened),
        "withdrawn×1, no_action×1",
        "the episode goes on, so that nothing is decreased"
    );
    assert_eq!(summary(&world.post(450, vec![resolved("a", -10, 20)])), "duplicate×1");
    // The other one ends it too.
    assert_eq!(summary(&world.post(510, vec![resolved("a", -10, 505)])), "stabilizing×1");
    assert_eq!(summary(&world.wait(510 + 300)), "emitted×1 scale_in -1");
}

#[test]
fn a_later_end_and_the_end_of_the_validity_withdraw_a_late_firing() {
    let mut world = guarded(0, 0, 5).world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    world.post(30, vec![resolved("a", -10, 20)]);
    assert_eq!(summary(&world.post(60, vec![until(firing("a", -10), 180)])), "late×1");
    assert_eq!(summary(&world.post(90, vec![resolved("a", -10, 21)])), "withdrawn×1", "a later end");
    assert_eq!(summary(&world.post(100, vec![until(firing("a", -10), 180)])), "late×1");
    assert_eq!(summary(&world.post(179, vec![resolved("a", -10, 21)])), "duplicate×1");
    assert_eq!(
        summary(&world.post(180, vec![resolved("a", -10, 21)])),
        "withdrawn×1",
        "its validity is over"
    );
}

#[test]
fn the_four_doubted_ends_that_were_received_last_are_remembered() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    for (now, ends_at) in [(900, 500), (901, 400), (902, 300), (903, 350), (904, 320)] {
        assert_eq!(summary(&world.post(now, vec![resolved("a", -10, ends_at)])), "duplicate×1", "{now}");
    }
    assert_eq!(summary(&world.post(960, vec![resolved("a", -10, 500)])), "duplicate×1", "it was forgotten");
    assert_eq!(summary(&world.post(961, vec![resolved("a", -10, 320)])), "emitted×1 scale_in -1");
}

/// Prometheus evaluates on a grid, so that the end can lie exactly where the validity of the last firing received does.
#[test]
fn an_end_at_the_end_of_the_validity_resolves_when_it_is_sent_again() {
    let mut world = guarded(0, 0, 0).world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    assert_eq!(summary(&world.post(300, vec![resolved("a", -10, 240)])), "duplicate×1");
    assert_eq!(summary(&world.post(309, vec![resolved("a", -10, 240)])), "duplicate×1");
    assert_eq!(summary(&world.post(360, vec![resolved("a", -10, 240)])), "emitted×1 scale_in -1");
}

#[test]
fn while_firing_does_not_act_again_for_an_alert_that_is_absent() {
    let mut setup = guarded(10, 0, 5);
    let max_emissions = NonZeroU32::new(5).unwrap();
    setup.on_firing.as_mut().unwrap().repeat = Repeat::WhileFiring { max_emissions };
    let mut world = setup.world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    assert_eq!(last_wait(&world.wait(600)), ("stabilizing".to_owned(), None));
    // A pause that comes meanwhile blocks it too.
    let id = pause(&mut world, 700, None, |_| {});
    assert_eq!(summary(&world.post(800, vec![until(firing("a", -10), 1040)])), "duplicate×1, paused×1");
    assert_eq!(summary(&pause_ends(&mut world, id, 900)), "emitted×1 scale_out +2");
}

#[test]
fn while_firing_acts_again_when_an_absent_alert_is_heard_again() {
    let mut setup = guarded(10, 0, 5);
    let max_emissions = NonZeroU32::new(5).unwrap();
    setup.on_firing.as_mut().unwrap().repeat = Repeat::WhileFiring { max_emissions };
    let mut world = setup.world();
    world.post(0, vec![until(firing("a", -10), 240)]);
    assert_eq!(summary(&world.wait(600)), "stabilizing×1");
    let heard = world.post(1000, vec![until(firing("a", -10), 1240)]);
    assert_eq!(summary(&heard), "duplicate×1, emitted×1 scale_out +2");
}

#[test]
fn a_heartbeat_that_is_absent_is_not_open_until_it_is_heard_again_and_its_grace_is_over() {
    let mut world = with_a_heartbeat(guarded(0, 0, 5));
    world.post(0, vec![until(watchdog(true, -7200, 0), 240), firing("a", -10)]);
    assert_eq!(world.next_due(), Some(240));
    let absent = world.wait(240);
    assert_eq!(summary(&absent), "heartbeat×1");
    let why = "the heartbeat is not open: its sender does not vouch for it any more";
    assert_eq!(absent[0].detail.as_deref(), Some(why));
    assert_eq!(summary(&world.wait(250)), "");
    assert_eq!(summary(&world.post(260, vec![resolved("a", -10, 255)])), "held×1");
    world.post(1000, vec![until(watchdog(true, 990, 0), 20_000)]);
    assert_eq!(last_wait(&world.wait(1001)), ("stabilizing".to_owned(), Some(1000 + 900)));
    assert_eq!(summary(&world.wait(1900)), "emitted×1 scale_in -1");
}

#[test]
fn the_validity_of_a_heartbeat_does_not_count_the_time_in_which_nothing_could_be_received() {
    let mut world = with_a_heartbeat(guarded(0, 0, 5));
    world.post(0, vec![until(watchdog(true, -7200, 0), 240)]);
    world.gap(100, 1000);
    assert_eq!(summary(&world.wait(1000)), "");
    assert_eq!(summary(&world.wait(1140)), "heartbeat×1", "140 of 240 seconds were left");
}

#[test]
fn a_sender_whose_clock_differs_vouches_by_its_own_clock() {
    let mut world = idle(0).world();
    world.wall = Some(at(-3600));
    world.post(0, vec![until(firing("a", -3610), -3600 + 240)]);
    let state = world.states.values().next().unwrap();
    let open = state.rules.get(&name("pods")).unwrap().episode.as_ref().unwrap().open.iter().next().unwrap();
    let validity = open.validity.as_ref().unwrap();
    assert_eq!((validity.absent_at, validity.until), (at(240), at(-3360)));
}

/// As an earlier version stored it.
#[test]
fn an_occurrence_without_validity_is_never_absent() {
    let mut world = idle(5).world();
    world.post(0, vec![firing("a", -10)]);
    let state = serde_json::to_string(&**world.states.values().next().unwrap()).unwrap();
    assert!(!state.contains("validity"), "{state}");
    assert_eq!(summary(&world.wait(300)), "emitted×1 scale_in -1");
}
