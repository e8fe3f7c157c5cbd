//! Longer random histories of random rules, with a second alert of each rule.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::model::*;
use super::properties::{self, Violations};
use super::world::{Action, World};

fn actions() -> impl Strategy<Value = Action> {
    let alert = 0..4_usize;
    prop_oneof![
        6 => alert.clone().prop_map(Action::Fire),
        5 => alert.clone().prop_map(Action::Resolved),
        2 => alert.clone().prop_map(Action::Late),
        1 => alert.clone().prop_map(Action::Invalid),
        1 => alert.clone().prop_map(Action::Unreadable),
        1 => alert.clone().prop_map(Action::Truncated),
        2 => alert.clone().prop_map(Action::Vouched),
        1 => alert.clone().prop_map(Action::Overdue),
        1 => alert.clone().prop_map(Action::Missing),
        1 => alert.clone().prop_map(Action::Delayed),
        1 => alert.prop_map(Action::EndAgain),
        1 => Just(Action::Gap),
        1 => Just(Action::HeartbeatOff),
        1 => Just(Action::HeartbeatOn),
        1 => Just(Action::Pause),
        1 => Just(Action::Resume),
        1 => Just(Action::Down),
        1 => Just(Action::Up),
        2 => any::<bool>().prop_map(Action::Unknown),
    ]
}

pub(crate) fn histories() -> impl Strategy<Value = Vec<(Time, Action)>> {
    let steps = prop::sample::select(vec![30, 60, 301, 400, 1200, 4200]);
    // Odd seconds, so that few things happen in the same instant.
    let step = (steps, 0..3_i64).prop_map(|(step, more)| step + more);
    prop::collection::vec((step, actions()), 4..16)
}

fn rules(name: &'static str) -> impl Strategy<Value = Rule> {
    let by = 1..4_i64;
    let increase = by.clone().prop_map(OnFiring::IncreaseBy);
    let on = prop_oneof![
        3 => increase.clone().prop_map(|firing| (firing, OnResolved::Revert)),
        1 => by.clone().prop_map(|by| (OnFiring::IncreaseBy(by), OnResolved::DecreaseBy(by))),
        1 => Just((OnFiring::Steps(vec![(0, 1), (100, 7)]), OnResolved::Revert)),
        1 => by.prop_map(|by| (OnFiring::DecreaseBy(by), OnResolved::None)),
        1 => Just((OnFiring::Notify, OnResolved::Notify)),
        1 => any::<bool>()
            .prop_map(|allow_decrease| (OnFiring::SetCapacity { to: 3, allow_decrease }, OnResolved::None)),
        1 => increase.prop_map(|firing| (firing, OnResolved::Notify)),
    ];
    let repeat = prop_oneof![
        1 => Just(Repeat::Never),
        1 => Just(Repeat::WhileFiring { max_emissions: 3 }),
        3 => Just(Repeat::OnGrowth),
    ];
    (on, repeat)
        .prop_map(move |((firing, resolved), repeat)| Rule { repeat, ..Rule::new(name, firing, resolved) })
}

pub(crate) fn configs() -> impl Strategy<Value = Config> {
    (rules("a"), rules("b"), any::<bool>()).prop_map(|(a, b, has_heartbeat)| {
        let heartbeat = has_heartbeat.then_some(Heartbeat { grace: 900, timeout: None });
        Config { heartbeat, ..Config::new(vec![a, b]) }
    })
}

fn run(config: &Config, history: Vec<(Time, Action)>) -> String {
    let mut violations = Violations::default();
    let mut world = World::new(config);
    for (step, action) in history {
        let before = world.clone();
        world.advance(step);
        properties::check_decreases(&before, &world, &mut violations);
        let before = world.clone();
        if world.apply(0, action) {
            properties::check_decreases(&before, &world, &mut violations);
        }
        if !violations.check_difference(&world) {
            break;
        }
    }
    violations.check_state(&world);
    properties::check_bounded(&world, &mut violations);
    violations.list()
}

/// The ids of all events of the active rules and when they were emitted.
fn ids(config: &Config, history: &[(Time, Action)]) -> Vec<(Arc<str>, i64)> {
    let mut world = World::new(config);
    for (step, action) in history {
        world.apply(*step, *action);
    }
    world.advance(3 * HOUR);
    let sent = world.bridge.ledger.iter();
    sent.map(|sent| (sent.id.clone(), sent.emitted_at.as_nanos())).collect()
}

/// The seed of all cases. Another one: `PROPTEST_RNG_SEED=2 PROPTEST_CASES=100 cargo test --lib reference::random`.
fn seed() -> u64 {
    std::env::var("PROPTEST_RNG_SEED").map_or(1, |text| text.parse().expect("a number"))
}

/// By default so many cases that the tests take seconds, and always the same, so that a change that did not cause it
/// meets no failure.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").map_or(40, |text| text.parse().expect("a number"));
    let rng_seed = RngSeed::Fixed(seed());
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

/// Found by `make soak` with `revert_and_set_capacity`.
#[test]
fn a_decrease_that_is_resumed_in_the_moment_of_an_increase_is_superseded() {
    let set = OnFiring::SetCapacity { to: 3, allow_decrease: true };
    let rules = vec![
        Rule::new("revert", OnFiring::IncreaseBy(2), OnResolved::Revert),
        Rule::new("set", set, OnResolved::None),
    ];
    let outcome_unknown = [(60, Action::Fire(0)), (1200, Action::Resolved(0)), (60, Action::Unknown(false))];
    let resumed = [(301, Action::Pause), (60, Action::Fire(1)), (1200, Action::Resume)];
    let history = outcome_unknown.into_iter().chain(resumed).collect();
    assert_eq!(run(&Config::new(rules), history), "");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_histories_have_the_properties_and_lead_both_to_the_same(
        config in configs(),
        history in histories(),
    ) {
        let list = run(&config, history);
        prop_assert!(list.is_empty(), "seed {}: {list}", seed());
    }

    #[test]
    fn the_same_history_gives_the_same_ids_and_shadow_rules_change_nothing(
        config in configs(),
        history in histories(),
    ) {
        let mut tried = config.clone();
        tried.rules.push(Rule::new("trial", OnFiring::IncreaseBy(5), OnResolved::Revert).shadow());
        tried.rules.push(Rule::new("trial-idle", OnFiring::DecreaseBy(1), OnResolved::None).shadow());
        let plain = ids(&config, &history);
        prop_assert_eq!(&plain, &ids(&config, &history), "seed {}", seed());
        prop_assert_eq!(&plain, &ids(&tried, &history), "seed {}", seed());
    }
}
