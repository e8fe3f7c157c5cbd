//! Notifications of a queue, which can reorder and repeat them.

use super::*;

impl World {
    /// Processes a notification that was sent at another time than it is received.
    fn post_sent(&mut self, received: i64, sent: i64, alerts: Vec<Alert>) -> Vec<Decision> {
        self.sent_at = Some(at(sent));
        let decisions = self.post(received, alerts);
        self.sent_at = None;
        decisions
    }
}

#[test]
fn a_firing_that_comes_after_its_resolve_opens_nothing() {
    let mut world = guarded(0, 0, 0).world();
    assert_eq!(summary(&world.post_sent(100, 60, vec![resolved("a", -10, 50)])), "no_evidence×1");
    let firing_too_late = world.post_sent(110, 0, vec![firing("a", -10)]);
    assert_eq!(summary(&firing_too_late), "stale×1");
    let why = "it was sent before the end of the alert that was received";
    assert_eq!(
        (firing_too_late[0].rule.as_ref(), firing_too_late[0].detail.as_deref()),
        (Some(&name("pods")), Some(why))
    );
    assert_eq!(summary(&world.wait(1000)), "");
}

#[test]
fn a_copy_of_a_firing_that_comes_after_the_resolve_is_stale() {
    let mut world = guarded(0, 0, 5).world();
    world.post_sent(1, 0, vec![firing("a", -10)]);
    world.post_sent(61, 60, vec![resolved("a", -10, 50)]);
    assert_eq!(summary(&world.post_sent(90, 0, vec![firing("a", -10)])), "stale×1");
    assert_eq!(
        summary(&world.wait(361)),
        "emitted×1 scale_in -1",
        "it is not late, so that nothing waits for it"
    );
}

#[test]
fn a_firing_that_began_after_the_end_opens_whenever_it_was_sent() {
    let mut world = guarded(0, 0, 0).world();
    world.post_sent(61, 60, vec![resolved("a", -10, 50)]);
    assert_eq!(summary(&world.post_sent(62, 49, vec![firing("a", 51)])), "emitted×1 scale_out +2");
}

#[test]
fn a_firing_that_was_sent_after_the_end_may_be_the_copy_of_another_alertmanager() {
    let mut world = guarded(0, 0, 0).world();
    world.post_sent(61, 60, vec![resolved("a", -10, 50)]);
    assert_eq!(summary(&world.post_sent(62, 51, vec![firing("a", -10)])), "late×1");
    assert_eq!(summary(&world.wait(62 + 360)), "emitted×1 scale_out +2");
}

#[test]
fn without_the_time_of_sending_a_firing_from_before_the_end_is_late() {
    let mut world = guarded(0, 0, 0).world();
    world.post(61, vec![resolved("a", -10, 50)]);
    assert_eq!(summary(&world.post(62, vec![firing("a", -10)])), "late×1");
}

/// The bridge was down, and the queue delivers what was sent meanwhile: the second firing before the first resolve.
#[test]
fn a_resolve_that_comes_after_the_next_firing_does_not_end_it() {
    let mut world = guarded(0, 0, 0).world();
    world.post_sent(5000, 0, vec![firing("a", -10)]);
    assert_eq!(summary(&world.post_sent(5001, 120, vec![firing("a", 110)])), "no_action×1");
    assert_eq!(summary(&world.post_sent(5002, 60, vec![resolved("a", -10, 50)])), "stale×1");
    assert_eq!(summary(&world.post_sent(5003, 180, vec![resolved("a", 110, 170)])), "emitted×1 scale_in -1");
}

#[test]
fn an_earlier_copy_does_not_replace_what_a_later_one_has_said() {
    let mut world = guarded(0, 0, 0).world();
    let with_value = |value: &str| {
        let annotations = Arc::new([("value", value)].into_iter().collect());
        Alert { annotations, ..firing("a", -10) }
    };
    world.post_sent(100, 90, vec![with_value("9")]);
    assert_eq!(summary(&world.post_sent(110, 10, vec![with_value("1")])), "duplicate×1");
    let open = world
        .states
        .values()
        .next()
        .unwrap()
        .occurrence(&AlertKey { source: name("prod"), fingerprint: "fp-a".into() });
    assert_eq!(open.unwrap().annotations.get("value"), "9");
}

#[test]
fn a_delayed_firing_that_cannot_be_read_blocks_nothing_after_the_resolve() {
    let mut world = guarded(0, 0, 5).world();
    world.post_sent(1, 0, vec![firing("a", -10)]);
    world.post_sent(61, 60, vec![resolved("a", -10, 50)]);
    world.sent_at = Some(at(10));
    assert_eq!(summary(&world.post_invalid(100, "a")), "invalid×1");
    assert_eq!(summary(&world.wait(361)), "emitted×1 scale_in -1");
}
