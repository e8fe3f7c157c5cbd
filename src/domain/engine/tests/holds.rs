//! Details of holds.

use super::controls::{DAY, deploy, with_a_hold};
use super::*;
use crate::domain::direction::Direction;

#[test]
fn a_hold_that_cannot_be_read_blocks_decreases_until_it_is_read_again() {
    let mut world = with_a_hold(Setup::default(), Some("{{ labels.zone }}"), &Direction::ALL);
    world.post(0, vec![firing("a", -10)]);
    assert_eq!(summary(&world.post(10, vec![deploy(true, 5, 0)])), "invalid×1");
    assert_eq!(summary(&world.post(20, vec![firing("b", 15)])), "emitted×1 scale_out +2");
    let closed = world.post(60, vec![resolved("a", -10, 55), resolved("b", 15, 55)]);
    assert_eq!(summary(&closed), "held×2");
    assert_eq!(summary(&world.wait(600)), "");
    let mut elsewhere = deploy(true, 5, 0);
    Arc::make_mut(&mut elsewhere.labels).set("zone", "elsewhere");
    assert_eq!(summary(&world.post(700, vec![elsewhere])), "no_action×1");
    assert_eq!(summary(&world.wait(701)), "emitted×2 scale_in -1", "the hold does not cover the target");
}

#[test]
fn a_hold_that_cannot_be_read_ends_when_its_alert_resolves_or_is_not_heard_any_more() {
    let unreadable = || {
        let mut world = with_a_hold(Setup::default(), Some("{{ labels.zone }}"), &Direction::ALL);
        world.post(0, vec![firing("a", -10), deploy(true, -10, 0)]);
        assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "held×1");
        world
    };
    let mut world = unreadable();
    world.post(100, vec![deploy(false, -10, 90)]);
    assert_eq!(summary(&world.wait(101)), "emitted×1 scale_in -1");
    let mut world = unreadable();
    assert_eq!(summary(&world.wait(DAY - 1)), "");
    assert_eq!(summary(&world.wait(DAY)), "emitted×1 scale_in -1");
}

fn limited_hold() -> World {
    let mut world = with_a_hold(guarded(0, 0, 5), None, &Direction::ALL);
    let mut rules = world.rules.rules().to_vec();
    let RuleTarget::Hold(hold) = &mut rules[1].target else { panic!("it is a hold") };
    hold.max_duration = Some(10 * MINUTE);
    world.rules = RuleTable::new(rules, known_templates());
    world
}

#[test]
fn a_hold_ends_after_max_duration_and_does_not_begin_again_with_the_same_occurrence() {
    let mut world = limited_hold();
    world.post(0, vec![firing("a", -10)]);
    let begins = world.post(30, vec![deploy(true, 20, 0)]);
    assert_eq!(summary(&begins), "no_action×1");
    assert_eq!((begins[0].detail.as_deref(), begins[0].until), (Some("the hold begins"), Some(at(630))));
    let until = |world: &World| world.controls.holds().map(|(_, hold)| hold.until).collect::<Vec<_>>();
    assert_eq!(until(&world), [Some(at(630))]);
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "held×1");
    assert_eq!(summary(&world.wait(629)), "");
    let over = world.wait(630);
    assert_eq!(until(&world), []);
    assert_eq!(summary(&over), "expired×1, stabilizing×1");
    assert_eq!(over[0].detail.as_deref(), Some("the hold ends: its max_duration is over"));
    assert_eq!(over[1].until, Some(at(930)));
    assert_eq!(over[1].detail.as_deref(), Some("the stabilization window of 5m"));
    assert_eq!(summary(&world.post(700, vec![deploy(true, 20, 0)])), "duplicate×1");
    assert_eq!(summary(&world.wait(930)), "emitted×1 scale_in -1");
}

#[test]
fn a_hold_whose_max_duration_was_over_begins_again_with_a_new_occurrence() {
    let mut world = limited_hold();
    world.post(0, vec![deploy(true, -10, 0)]);
    assert_eq!(summary(&world.wait(600)), "expired×1");
    assert_eq!(summary(&world.post(700, vec![deploy(true, 690, 0)])), "no_action×1");
    assert_eq!(world.controls.holds().map(|(_, hold)| hold.until).collect::<Vec<_>>(), [Some(at(1300))]);
    assert_eq!(summary(&world.post(710, vec![firing("a", 700)])), "held×1");
    assert_eq!(summary(&world.wait(1300)), "expired×1, emitted×1 scale_out +2");
}

#[test]
fn max_duration_counts_from_the_last_alert_of_a_hold_that_has_opened() {
    let other = |starts| {
        let mut alert = deploy(true, starts, 0);
        Arc::make_mut(&mut alert.labels).set("service", "shop");
        alert.fingerprint = "fp-shop".into();
        alert
    };
    let until = |world: &World| world.controls.holds().map(|(_, hold)| hold.until).collect::<Vec<_>>();
    // While the hold of the first one is in force, and after it was over.
    for (second, over) in [(500, None), (700, Some(600))] {
        let mut world = limited_hold();
        world.post(-60, vec![firing("a", -70)]);
        world.post(0, vec![deploy(true, -10, 0)]);
        if let Some(over) = over {
            assert_eq!(summary(&world.wait(over)), "expired×1");
        }
        world.post(second, vec![other(second - 10)]);
        assert_eq!(until(&world), [Some(at(second + 600))]);
        // A repeat of either changes nothing.
        world.post(second + 10, vec![deploy(true, -10, 0), other(second - 10)]);
        assert_eq!(until(&world), [Some(at(second + 600))]);
        assert_eq!(summary(&world.post(second + 20, vec![resolved("a", -70, second + 15)])), "held×1");
        assert_eq!(summary(&world.wait(second + 599)), "");
        assert_eq!(summary(&world.wait(second + 600)), "expired×2, stabilizing×1");
    }
}

#[test]
fn a_late_firing_of_a_hold_is_in_force() {
    let mut world = with_a_hold(Setup::default(), None, &[Direction::ScaleIn]);
    world.post(-100, vec![deploy(true, -110, 0)]);
    world.post(-50, vec![deploy(false, -110, -60)]);
    world.post(0, vec![firing("a", -10)]);
    let late = world.post(30, vec![deploy(true, -110, 0)]);
    assert_eq!((summary(&late).as_str(), late[0].detail.as_deref()), ("late×1", Some("the hold begins")));
    assert_eq!(summary(&world.post(60, vec![resolved("a", -10, 55)])), "held×1");
    assert_eq!(summary(&world.post(90, vec![deploy(false, -110, 80)])), "withdrawn×1");
    assert_eq!(summary(&world.wait(91)), "emitted×1 scale_in -1");
}

#[test]
fn the_decisions_of_a_hold_say_that_it_begins_and_ends() {
    let mut world = with_a_hold(Setup::default(), None, &Direction::ALL);
    let begins = world.post(0, vec![deploy(true, -10, 0)]);
    assert_eq!(begins[0].detail.as_deref(), Some("the hold begins"));
    let ends = world.post(60, vec![deploy(false, -10, 55)]);
    assert_eq!(ends[0].detail.as_deref(), Some("the hold ends"));
}

#[test]
fn alerts_that_differ_only_in_ignored_labels_count_as_one_for_growth() {
    let mut world = Setup::default().world();
    Arc::get_mut(&mut world.source).unwrap().ignore_labels = vec!["replica".into()];
    let copy = |pod: &str, replica: &str| {
        let mut alert = firing(pod, 0);
        Arc::make_mut(&mut alert.labels).set("replica", replica);
        alert.fingerprint = format!("fp-{pod}-{replica}").into();
        alert
    };
    assert_eq!(summary(&world.post(1, vec![copy("a", "0")])), "emitted×1 scale_out +2");
    assert_eq!(summary(&world.post(30, vec![copy("a", "0"), copy("a", "1")])), "duplicate×1, no_action×1");
    let grown = world.post(60, vec![copy("b", "1")]);
    assert_eq!(summary(&grown), "emitted×1 scale_out +2");
    assert_eq!(events(&grown)[0].alerts.len(), 3, "the event has every copy");
}
