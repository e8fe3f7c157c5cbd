//! Two clocks: waits are measured by the store's clock; the wall clock is for what others compare with theirs.

use super::*;

const HOURS_2: i64 = 7200;

impl World {
    /// Lets the wall clock differ from the store's clock from now on. It does not move on by itself.
    fn step_wall(&mut self, seconds: i64) {
        self.wall = Some(at(seconds));
    }
}

#[test]
fn an_event_is_born_with_the_time_of_the_wall_clock_and_its_cooldown_does_not_jump() {
    for step in [HOURS_2, -HOURS_2] {
        let mut world = guarded(10, 0, 0).world();
        let first = world.post(0, vec![firing("a", 0)]);
        assert_eq!(events(&first)[0].time, at(0));
        let sequence = events(&first)[0].sequence;
        world.step_wall(step + 60);
        let grown = world.post(60, vec![firing("a", 0), firing("b", 50)]);
        assert_eq!(summary(&grown), "duplicate×1, cooling_down×1", "after a step of {step} s");
        assert_eq!(grown[1].until, Some(at(600)), "in ten minutes, by the store's clock");
        assert_eq!(summary(&world.wait(599)), "");
        world.step_wall(step + 600);
        let emitted = world.wait(600);
        let event = events(&emitted)[0];
        assert_eq!(event.time, at(step + 600));
        assert_eq!(event.header().expirytime, at(step + 600 + 3600), "an hour after it, for any consumer");
        assert_eq!(event.episode.opened_at, at(step), "ten minutes before it");
        assert!(event.sequence > sequence, "the wall clock does not order events");
    }
}

/// Otherwise a restarted Prometheus, which moves `startsAt`, would look like a new occurrence, and every alert like
/// one from before the store was created, or none.
#[test]
fn the_times_of_prometheus_are_compared_with_the_wall_clock() {
    // All clocks were two hours behind at first, and are corrected now.
    let mut world = Setup::default().world();
    world.post(0, vec![firing("a", 0)]);
    world.step_wall(HOURS_2 + 600);
    world.post(600, vec![firing("a", HOURS_2 + 590)]);
    let renewed = |world: &World| {
        let state = world.states.values().next().unwrap();
        let episode = state.rules.get(&name("pods")).unwrap().episode.clone().unwrap();
        episode.open.iter().next().unwrap().starts_at != at(0)
    };
    assert!(renewed(&world), "it started after it was last heard");
    let mut world = Setup::default().world();
    world.post(0, vec![firing("a", 0)]);
    world.step_wall(HOURS_2 + 600);
    world.post(600, vec![firing("a", HOURS_2 - 10)]);
    assert!(!renewed(&world), "it started before it was last heard");
    assert_eq!(summary(&world.post(660, vec![resolved("a", 0, HOURS_2 + 650)])), "emitted×1 scale_in -1");

    // The store was created an hour before the start, by its own clock.
    let mut world = Setup::default().world();
    world.step_wall(HOURS_2);
    world.post(0, vec![firing("old", HOURS_2 - 3700)]);
    let closed = world.post(60, vec![resolved("old", HOURS_2 - 3700, HOURS_2 + 50)]);
    assert_eq!(summary(&closed), "no_evidence×1", "it fired before the store was created");
}
