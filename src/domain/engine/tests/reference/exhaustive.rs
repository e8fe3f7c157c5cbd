//! All histories of up to a number of actions after some beginnings, each a short or a long step apart, for pairs of
//! rules.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::merging::state_hash;
use super::model::*;
use super::properties::{self, Violations};
use super::world::{Action, World};

const INTERVALS: [Time; 2] = [60, 1200];

/// The actions of a history.
fn alphabet(has_heartbeat: bool) -> Vec<Action> {
    let mut actions = vec![
        Action::Gap,
        Action::Pause,
        Action::Resume,
        Action::Down,
        Action::Up,
        Action::Unknown(false),
        Action::Unknown(true),
    ];
    for rule in 0..2 {
        actions.extend([
            Action::Fire(rule),
            Action::Resolved(rule),
            Action::Late(rule),
            Action::Invalid(rule),
            Action::Truncated(rule),
            Action::Vouched(rule),
            Action::Missing(rule),
            Action::EndAgain(rule),
        ]);
    }
    if has_heartbeat {
        actions.extend([Action::HeartbeatOff, Action::HeartbeatOn]);
    }
    actions
}

/// Beginnings from which the interesting states are near.
fn beginnings() -> Vec<Vec<(Time, Action)>> {
    let closed = [(60, Action::Fire(0)), (1200, Action::Resolved(0))];
    let after = |rest: &[(Time, Action)]| closed.iter().chain(rest).copied().collect();
    vec![
        vec![],
        after(&[]),
        vec![(60, Action::Fire(0)), (60, Action::Fire(2)), (1200, Action::Resolved(0))],
        after(&[(60, Action::Down), (400, Action::Gap)]),
        after(&[(60, Action::Unknown(true)), (301, Action::Fire(1))]),
        vec![(60, Action::Unknown(true)), (60, Action::Fire(0))],
        vec![(60, Action::Fire(0)), (60, Action::Fire(1)), (1200, Action::Resolved(1))],
        after(&[(60, Action::Down), (300, Action::Fire(1))]),
        after(&[(60, Action::Unknown(false)), (301, Action::Pause)]),
        after(&[(30, Action::Vouched(1)), (271, Action::Overdue(1))]),
        after(&[(30, Action::Late(0)), (30, Action::Vouched(0))]),
    ]
}

struct Exploration {
    depth: usize,
    actions: Vec<Action>,
    violations: Violations,
    /// The states with the largest number of actions after which they were explored.
    explored: HashMap<u128, usize>,
    deadline: Option<Instant>,
}

impl Exploration {
    /// Explores all histories of up to `left` actions after this one.
    fn explore(&mut self, world: &World, left: usize) {
        let known = self.explored.entry(state_hash(world)).or_default();
        if *known > left || self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return;
        }
        *known = left + 1;
        if !self.violations.check_state(world) {
            return;
        }
        if left + 1 >= self.depth {
            properties::check_bounded(world, &mut self.violations);
        }
        if left == 0 {
            return;
        }
        for step in INTERVALS {
            let mut advanced = world.clone();
            advanced.advance(step);
            properties::check_decreases(world, &advanced, &mut self.violations);
            if !self.violations.check_difference(&advanced) {
                continue;
            }
            for action in self.actions.clone() {
                let mut next = advanced.clone();
                if next.apply(0, action) {
                    properties::check_decreases(&advanced, &next, &mut self.violations);
                    self.explore(&next, left - 1);
                }
            }
        }
    }
}

/// Explores two beginnings to this depth, and the others to one less. Returns the number of states.
fn run(config: &Config, depth: usize, deadline: Option<Instant>) -> usize {
    let mut exploration = Exploration {
        depth,
        actions: alphabet(config.heartbeat.is_some()),
        violations: Violations::default(),
        explored: HashMap::new(),
        deadline,
    };
    for (number, beginning) in beginnings().iter().enumerate() {
        let mut world = World::new(config);
        for (step, action) in beginning {
            world.apply(*step, *action);
        }
        let depth = if number < 2 { depth } else { depth.saturating_sub(1) };
        exploration.explore(&world, depth);
    }
    exploration.violations.assert_none(exploration.explored.len());
    exploration.explored.len()
}

fn pair(a: Rule, b: Rule) -> Config {
    Config::new(vec![a, b])
}

fn revert(name: &'static str, by: i64) -> Rule {
    Rule::new(name, OnFiring::IncreaseBy(by), OnResolved::Revert)
}

fn fixed() -> Rule {
    Rule::new("fixed", OnFiring::IncreaseBy(2), OnResolved::DecreaseBy(2))
}

fn steps() -> Rule {
    Rule::new("steps", OnFiring::Steps(vec![(0, 1), (100, 7)]), OnResolved::Revert)
}

fn idle() -> Rule {
    Rule::new("idle", OnFiring::DecreaseBy(1), OnResolved::None)
}

fn set_capacity() -> Rule {
    Rule::new("set", OnFiring::SetCapacity { to: 3, allow_decrease: true }, OnResolved::None)
}

fn hold() -> Rule {
    Rule::new("h", OnFiring::Hold { blocks_increases: true }, OnResolved::None)
}

fn notify() -> Rule {
    Rule::new("n", OnFiring::Notify, OnResolved::Notify)
}

fn with_heartbeat(mut config: Config) -> Config {
    config.heartbeat = Some(Heartbeat { grace: 900, timeout: None });
    config
}

macro_rules! pairs {
    ($($name:ident: $config:expr;)*) => {
        $(#[test]
        fn $name() {
            run(&$config, 2, None);
        })*

        /// The pairs by name.
        fn pairs() -> Vec<(&'static str, Config)> {
            vec![$((stringify!($name), $config)),*]
        }
    };
}

pairs! {
    revert_and_revert: pair(revert("a", 1), revert("b", 10));
    steps_and_fixed: pair(steps(), fixed());
    revert_and_idle: pair(revert("a", 2), idle());
    idle_and_revert: pair(idle(), revert("a", 2));
    revert_and_notify: pair(revert("a", 2), notify());
    revert_and_hold: pair(revert("a", 2), hold());
    revert_and_set_capacity: pair(revert("a", 2), set_capacity());
    set_capacity_and_idle: pair(set_capacity(), idle());
    heartbeat_revert_and_idle: with_heartbeat(pair(revert("a", 2), idle()));
    heartbeat_revert_and_revert: with_heartbeat(pair(revert("a", 1), revert("b", 10)));
}

/// The destination answers again in the instant in which the decrease is given up: by an order of time that counts the
/// success as the later one, the decrease does not wait for a probe.
#[test]
fn a_destination_that_works_again_in_the_instant_of_a_give_up_ends_the_wait() {
    let mut world = World::new(&with_heartbeat(pair(revert("a", 2), idle())));
    let history = [
        (60, Action::Fire(0)),
        (1200, Action::Resolved(0)),
        (60, Action::Down),
        (300, Action::Fire(1)),
        (60, Action::HeartbeatOff),
        (60, Action::HeartbeatOn),
        (1200, Action::Up),
    ];
    for (step, action) in history {
        assert!(world.apply(step, action));
    }
    let emitted = world.bridge.ledger.len();
    world.advance(900);
    assert_eq!(world.difference(), None);
    assert!(world.bridge.ledger.len() > emitted, "{:?}", world.bridge.ledger);
}

/// `make soak`: deeper, and for at most so many minutes. `SOAK_PAIR` chooses one of the pairs.
#[test]
#[ignore = "minutes to hours: `make soak`"]
fn soak() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let depth = usize::try_from(number("SOAK_DEPTH", 4)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60 * number("SOAK_MINUTES", 600));
    let only = std::env::var("SOAK_PAIR").ok();
    for (name, config) in
        pairs().into_iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name))
    {
        let begin = Instant::now();
        let count = run(&config, depth, Some(deadline));
        let is_complete = Instant::now() < deadline;
        let result = if is_complete { "complete" } else { "stopped by SOAK_MINUTES" };
        eprintln!("{name}: {count} states to depth {depth} in {:?}, {result}", begin.elapsed());
    }
}
