//! What holds whatever arrives: random histories of two rules at two targets, on a virtual clock.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::*;
use super::*;
use crate::domain::event::Event;
use crate::domain::verdict::Phase;

/// What happens, each this many seconds after what came before.
#[derive(Debug, Clone)]
enum Act {
    /// A notification: which alerts, whether each fires, and how long ago that began or ended.
    Post { alerts: Vec<(u8, bool, i64)>, truncated: bool },
    /// Nothing arrives.
    Wait,
}

fn history() -> impl Strategy<Value = Vec<(i64, Act)>> {
    let alert = (0..8_u8, prop::bool::weighted(0.6), 0..400_i64);
    // As Alertmanager sends them, a notification speaks of an alert once.
    let alerts = prop::collection::vec(alert, 1..5).prop_map(|mut alerts| {
        alerts.sort_by_key(|(number, ..)| *number);
        alerts.dedup_by_key(|(number, ..)| *number);
        alerts
    });
    let post = (alerts, prop::bool::weighted(0.1));
    let act = prop_oneof![
        4 => post.prop_map(|(alerts, truncated)| Act::Post { alerts, truncated }),
        1 => Just(Act::Wait),
    ];
    prop::collection::vec((prop_oneof![0..30_i64, 0..1200_i64], act), 1..40)
}

/// Alerts 0 to 3 are pods that wait, 4 to 7 are latencies; even ones are about one target, odd ones
/// about another.
fn alert_of(number: u8, fires: bool, at: i64) -> Alert {
    let pod = number.to_string();
    let mut alert = if fires { firing(&pod, at) } else { resolved(&pod, at - 50, at) };
    let name = if number < 4 { "Pending" } else { "Slow" };
    let group = if number.is_multiple_of(2) { "workers" } else { "others" };
    alert.labels = Arc::new([("alertname", name), ("nodegroup", group)].into_iter().collect());
    alert
}

/// One step of a history from `now` on, its notification `copies` times: all decisions with their times.
/// Whatever comes due on the way is decided at its time, to the second.
fn advance(world: &mut World, now: &mut i64, step: &(i64, Act), copies: usize) -> Vec<(i64, Decision)> {
    let arrives = *now + step.0;
    let mut told = Vec::new();
    while let Some(due) = world.next_due().filter(|due| *due <= arrives) {
        *now = due.max(*now);
        told.extend(world.wait(*now).into_iter().map(|decision| (*now, decision)));
    }
    *now = arrives;
    if let Act::Post { alerts, truncated } = &step.1 {
        for _ in 0..copies {
            let alerts = alerts.iter().map(|(number, fires, ago)| alert_of(*number, *fires, arrives - ago));
            let decisions = world.post_truncated(arrives, *truncated, alerts.collect());
            told.extend(decisions.into_iter().map(|decision| (arrives, decision)));
        }
    }
    told
}

fn run(world: &mut World, history: &[(i64, Act)], copies: usize) -> Vec<(i64, Decision)> {
    let mut now = 1000;
    history.iter().flat_map(|step| advance(world, &mut now, step, copies)).collect()
}

fn sent(told: &[(i64, Decision)]) -> impl Iterator<Item = (i64, &Event)> {
    told.iter().filter_map(|(at, decision)| decision.event.as_deref().map(|event| (*at, event)))
}

const OUT_COOLDOWN: i64 = 180;
const IN_COOLDOWN: i64 = 600;
const WINDOW: i64 = 300;

fn world() -> World {
    with_a_second_rule(guarded_seconds(OUT_COOLDOWN, IN_COOLDOWN, WINDOW))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn doubling_every_notification_adds_no_event(history in history()) {
        let (once, twice) = (run(&mut world(), &history, 1), run(&mut world(), &history, 2));
        let ids = |told: &[(i64, Decision)]| sent(told).map(|(_, event)| event.id.clone()).collect::<Vec<_>>();
        prop_assert_eq!(ids(&once), ids(&twice));
    }

    #[test]
    fn guards_hold_to_the_second(history in history()) {
        let told = run(&mut world(), &history, 1);
        let mut last: BTreeMap<(TargetKey, bool), i64> = BTreeMap::new();
        for (at, event) in sent(&told) {
            let key = event.target.key();
            let since = |takes: bool| last.get(&(key.clone(), takes)).map_or(i64::MAX, |then| at - then);
            // Only the rule `pods` has a cooldown; the other's events block nothing.
            let takes = event.action == "scale_in";
            prop_assert!(!takes || since(true) >= IN_COOLDOWN, "a scale-in within a scale-in's cooldown");
            prop_assert!(since(false) >= OUT_COOLDOWN, "within a scale-out's cooldown");
            if event.rule.as_str() == "pods" {
                last.insert((key, takes), at);
            }
        }
    }

    /// Nothing takes capacity away but the end of an episode that added some, and each ends once.
    #[test]
    fn capacity_is_only_taken_away_after_it_was_added(history in history()) {
        let told = run(&mut world(), &history, 1);
        let mut added: BTreeMap<String, u32> = BTreeMap::new();
        for (_, event) in sent(&told) {
            let episode = &event.episode.id;
            if event.phase == Phase::Firing {
                *added.entry(episode.clone()).or_default() += 1;
            } else {
                prop_assert!(added.remove(episode).is_some(), "nothing to undo, or undone before");
            }
        }
    }

    /// Ids never repeat, and `sequence` rises for each target.
    #[test]
    fn every_event_is_one_of_its_kind(history in history()) {
        let told = run(&mut world(), &history, 1);
        let mut ids = std::collections::BTreeSet::new();
        let mut last: BTreeMap<TargetKey, u64> = BTreeMap::new();
        for (_, event) in sent(&told) {
            prop_assert!(ids.insert(event.id.clone()));
            let before = last.insert(event.target.key(), event.sequence);
            prop_assert!(before.is_none_or(|before| event.sequence > before));
        }
    }

    /// A target shrinks only while no other rule has an episode open that added capacity, and only after
    /// a calm.
    #[test]
    fn a_target_never_shrinks_under_a_scale_out_or_before_its_calm(history in history()) {
        let mut world = world();
        let mut now = 1000;
        let mut opened: BTreeMap<TargetKey, i64> = BTreeMap::new();
        for step in &history {
            let before = world.open_episodes();
            for (at, decision) in advance(&mut world, &mut now, step, 1) {
                let Some(key) = decision.target.clone() else { continue };
                if let Some(event) = decision.event.as_deref().filter(|event| event.action == "scale_in") {
                    let other = (key.clone(), name("latency"));
                    let outranked = before.contains(&other) && world.open_episodes().contains(&other);
                    prop_assert!(!outranked, "it shrank under another rule's scale-out");
                    let calm = at - opened.get(&key).copied().unwrap_or(i64::MIN / 2);
                    prop_assert!(calm >= WINDOW, "{} after something opened: {calm}", event.reason);
                }
                if decision.event.as_deref().is_some_and(|event| event.phase == Phase::Firing) {
                    opened.insert(key, at);
                }
            }
        }
    }

    #[test]
    fn every_alert_gets_a_verdict(history in history()) {
        let mut world = world();
        for (at, (_, act)) in history.iter().enumerate() {
            if let Act::Post { alerts, truncated } = act {
                let now = 1000 + at as i64 * 100;
                let posted = alerts.iter().map(|(number, fires, ago)| alert_of(*number, *fires, now - ago));
                let decisions = world.post_truncated(now, *truncated, posted.collect());
                for (number, ..) in alerts {
                    let fingerprint = format!("fp-{number}");
                    let told = decisions.iter().any(|decision| decision.alerts.iter().any(|alert| *alert.fingerprint == *fingerprint));
                    prop_assert!(told, "alert {number} got no verdict");
                }
            }
        }
    }
}
