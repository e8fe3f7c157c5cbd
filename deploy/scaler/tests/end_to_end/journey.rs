//! From a rule of Prometheus through Alertmanager, the bridge, a queue and the scaler to a changed capacity, with the alert
//! rules, the configuration of Alertmanager and the rule table that are shipped.

mod cluster;
mod decisions;
mod metrics;
mod problems;
mod shipped;
mod world;

use crate::process::eventually;
use crate::support::prometheus::{Release, on_old_and_new};
use decisions::time;
use problems::PROBLEMS;
use world::{CALM, World};

on_old_and_new!(
    a_problem_of_each_platform_adds_what_its_rule_says_and_its_end_takes_it_back,
    while_the_exporters_are_stopped_nothing_decreases,
);

async fn a_problem_of_each_platform_adds_what_its_rule_says_and_its_end_takes_it_back(release: Release) {
    let world = World::start(release).await;
    world.exporters.show(&PROBLEMS);
    let increases: u32 = PROBLEMS.iter().map(|problem| problem.times).sum();
    world.wait_applied(increases).await;
    let mut more = CALM;
    for (capacity, problem) in more.iter_mut().zip(&PROBLEMS) {
        *capacity += problem.times * problem.by;
    }
    assert_eq!(world.capacities().await, more);

    // Alertmanager repeats the groups: nothing changes.
    let mut heard = Vec::new();
    for problem in &PROBLEMS {
        heard.push(world.bridge.repeats(problem).await);
    }
    for (problem, heard) in PROBLEMS.iter().zip(heard) {
        let repeats = async || (world.bridge.repeats(problem).await >= heard + 2).then_some(());
        eventually("two repeats", repeats).await;
    }
    assert_eq!(world.capacities().await, more);

    world.exporters.show(&[]);
    let decreases = u32::try_from(PROBLEMS.len()).expect("a small number");
    world.wait_applied(increases + decreases).await;
    assert_eq!(world.capacities().await, CALM);
    for problem in &PROBLEMS {
        assert_eq!(world.bridge.counts(problem).await, (problem.times, 1), "{}", problem.rule);
        // Its window, the 15m of the rule table, began with the end of the problem, and was over.
        let waits = world.bridge.decisions(&format!("rule={}&verdict=stabilizing", problem.rule)).await;
        let wait = waits.first().unwrap_or_else(|| panic!("{} has not waited", problem.rule));
        assert_eq!(wait["blocked_by"]["length"], "9s", "{wait}");
        let decrease = world.bridge.emitted(problem).await.pop().expect("a decrease");
        assert!(time(&decrease["at"]) >= time(&wait["until"]), "{wait} {decrease}");
    }
}

async fn while_the_exporters_are_stopped_nothing_decreases(release: Release) {
    let mut world = World::start_with_control(release).await;
    world.exporters.show(&PROBLEMS);
    for problem in &PROBLEMS {
        let increased = async || (world.bridge.counts(problem).await.0 > 0).then_some(());
        eventually("the increase", increased).await;
    }

    // The metrics are gone, and some time later the alerts, too.
    world.exporters.stop().await;
    for problem in &PROBLEMS {
        let resolve = eventually("the resolve", async || world.bridge.resolved(problem).await).await;
        let blocked_by = resolve["blocked_by"]["kind"].as_str();
        assert_eq!((resolve["verdict"].as_str(), blocked_by), (Some("held"), Some("hold")), "{resolve}");
    }
    // A bridge without the holds decreases then.
    let control = world.control.take().expect("the other bridge");
    for problem in &PROBLEMS {
        let decreased = async || (control.counts(problem).await.1 == 1).then_some(());
        eventually("the decrease without holds", decreased).await;
    }
    let before = world.raised().await;
    assert_eq!(world.capacities().await, before);
    for problem in &PROBLEMS {
        let episode = world.bridge.episode(problem).await;
        assert_eq!(episode["deferred"]["verdict"], "held", "{episode}");
    }

    // The exporters are back, and show that the problems are still there.
    world.exporters.start_again().await;
    eventually("the end of the holds", async || world.bridge.holds().await.is_empty().then_some(())).await;
    let after = world.raised().await;
    assert!(after.iter().zip(before).all(|(after, before)| *after > before), "{after:?} {before:?}");
    for problem in &PROBLEMS {
        let episode = world.bridge.episode(problem).await;
        assert_eq!(episode["phase"], "firing", "{episode}");
    }

    // The problems are over.
    world.exporters.show(&[]);
    for problem in &PROBLEMS {
        let decreased = async || (world.bridge.counts(problem).await.1 > 0).then_some(());
        eventually("the decrease", decreased).await;
    }
    eventually("what it was", async || (world.capacities().await == CALM).then_some(())).await;
    for problem in &PROBLEMS {
        assert_eq!(world.bridge.counts(problem).await.1, 1, "{}", problem.rule);
    }
}
