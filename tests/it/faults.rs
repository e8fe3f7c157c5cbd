//! Faults of a destination: accepted events still arrive in order, and other destinations are not affected.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::support::bridge::{Bridge, RULES};
use crate::support::ledger::assert_superseded;
use crate::support::load::{self, Senders};
use crate::support::queue::TEST_AWS_ENV;
use crate::support::seed;
use crate::support::sqs_stub::{Kind, Sent, SqsStub};
use crate::support::tools::eventually;

/// The least number of notifications of a load.
const NOTIFICATIONS: usize = 240;

fn journal() -> String {
    "file: { path: events.jsonl }".to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_events_arrive_in_order_whatever_a_queue_does() {
    let seed = seed();
    for schedule in 0..3 {
        eprintln!("schedule {schedule}");
        let seed = seed.wrapping_mul(3).wrapping_add(schedule);
        faulty_destinations(seed, &[("fifo", Kind::Fifo), ("standard", Kind::Standard)]).await;
    }
}

/// The names of executions identify duplicates, as the deduplication ids of the FIFO topic do.
#[tokio::test(flavor = "multi_thread")]
async fn accepted_events_arrive_in_order_whatever_a_topic_a_bus_or_a_state_machine_does() {
    let kinds = [
        ("topic-fifo", Kind::FifoTopic),
        ("topic", Kind::Topic),
        ("bus", Kind::Bus),
        ("workflow", Kind::StateMachine),
    ];
    faulty_destinations(seed(), &kinds).await;
}

/// The first of them is FIFO.
async fn faulty_destinations(seed: u64, kinds: &[(&'static str, Kind)]) {
    let faulty: Vec<(&str, SqsStub)> = kinds
        .iter()
        .zip(0..)
        .map(|(&(name, kind), at)| (name, SqsStub::faulty(kind, seed ^ (0xFF * at))))
        .collect();
    let steady = SqsStub::start(Kind::Standard);
    let mut destinations: Vec<(&str, String)> =
        faulty.iter().map(|(name, stub)| (*name, stub.destination() + ", timeout: 5s")).collect();
    destinations.extend([("steady", steady.destination()), ("journal", journal())]);
    let mut bridge = Bridge::with_destinations(&destinations);
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    let mut senders = Senders::start(seed, &load::constant_address(bridge.url("/webhook/prod-eu")));
    senders.wait_answered(NOTIFICATIONS).await;
    for (name, stub) in &faulty {
        let all = format!("{name} to have met every fault");
        eventually(&all, async || stub.has_met_every_fault().then_some(())).await;
    }
    let ledger = senders.stop().await;
    faulty.iter().for_each(|(_, stub)| stub.heal());
    let names: Vec<&str> = destinations.iter().map(|(name, _)| *name).collect();
    bridge.wait_settled(&names).await;
    let events = bridge.decisions("emitted").await.len();
    assert!(events > NOTIFICATIONS / 2, "only {events} events");
    for (name, stub) in &faulty {
        let sent = stub.sent();
        let all: Vec<Value> = sent.iter().map(|sent| sent.event.clone()).collect();
        let copies = ledger.check(&bridge, name, &all).await;
        assert_only_lost_answers_repeat(&bridge, name, &sent, &copies).await;
        assert_targets_in_order(name, &sent);
        stub.assert_no_violations();
    }
    assert_one_group_per_target(&faulty[0].1.sent());
    let deduplicating = faulty
        .iter()
        .zip(kinds)
        .filter(|(_, (_, kind))| matches!(kind, Kind::Fifo | Kind::FifoTopic | Kind::StateMachine));
    let deduplicating = deduplicating.map(|((name, stub), _)| (*name, stub.events()));
    for (name, events) in deduplicating.chain([("steady", steady.events()), ("journal", bridge.journal())]) {
        let copies = ledger.check(&bridge, name, &events).await;
        assert!(copies.is_empty(), "{name} has events more than once: {copies:?}");
    }
}

/// An event is sent again only after an attempt whose acknowledgement was lost, and then always, unless it was
/// superseded.
async fn assert_only_lost_answers_repeat(
    bridge: &Bridge,
    name: &str,
    sent: &[Sent],
    copies: &HashMap<String, usize>,
) {
    let mut lost: HashMap<&str, usize> = HashMap::new();
    for sent in sent.iter().filter(|sent| sent.answer_lost) {
        *lost.entry(&sent.id).or_default() += 1;
    }
    for (id, count) in copies {
        let lost = lost.get(id.as_str()).copied().unwrap_or(0);
        assert!(*count <= lost + 1, "{name}: {id} received {count} times, {lost} answers lost");
    }
    for (id, lost) in lost {
        if copies.get(id).copied().unwrap_or(1) != lost + 1 {
            assert_superseded(bridge, name, id).await;
        }
    }
}

/// A retried event is sent before later events of its target, so the order does not depend on deduplication by the
/// queue.
fn assert_targets_in_order(name: &str, sent: &[Sent]) {
    let mut last: HashMap<String, u64> = HashMap::new();
    for sent in sent {
        let sequence = sent.event["sequence"].as_str().and_then(|text| text.parse().ok()).expect("a number");
        let before = last.insert(sent.event["subject"].to_string(), sequence);
        assert!(before <= Some(sequence), "{name}: {} was sent after {before:?}", sent.event);
    }
}

fn assert_one_group_per_target(sent: &[Sent]) {
    let target = |sent: &Sent| (sent.group.clone(), sent.event["subject"].to_string());
    let pairs: BTreeSet<_> = sent.iter().map(target).collect();
    let groups: BTreeSet<_> = pairs.iter().map(|(group, _)| group).collect();
    let subjects: BTreeSet<_> = pairs.iter().map(|(_, subject)| subject).collect();
    assert_eq!((groups.len(), subjects.len()), (pairs.len(), pairs.len()));
}

/// The events of a rule reach its destinations while that of another rule, which takes the same alerts, is unreachable.
/// That destination receives what is not withdrawn meanwhile when it is reachable again.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_queue_neither_delays_nor_duplicates_other_deliveries() {
    const DEAD_RULE: &str = "pods-of-the-dead-queue";
    let seed = seed();
    let (dead, works) = (SqsStub::unreachable(Kind::Fifo), SqsStub::start(Kind::Standard));
    let destinations = [("dead", dead.destination()), ("works", works.destination()), ("journal", journal())];
    let mut bridge = Bridge::with_destinations(&destinations);
    let rule = RULES.trim_start().trim_start_matches("rules:\n");
    let to_dead =
        rule.replace("unschedulable-pods", DEAD_RULE).replace("[journal]", "[dead]\n    continue: true");
    bridge
        .write("rules.yaml", &format!("rules:\n{to_dead}{}", rule.replace("[journal]", "[works, journal]")));
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    let mut senders = Senders::start(seed, &load::constant_address(bridge.url("/webhook/prod-eu")));
    senders.wait_answered(NOTIFICATIONS).await;
    let ledger = senders.stop().await;
    eventually("every action of the other rule", async || {
        let (_, page) = bridge.api("GET", "/api/v1/episodes?limit=1000", None).await;
        let episodes = page["episodes"].as_array().expect("a list");
        let waits = |episode: &Value| episode["rule"] != DEAD_RULE && episode.get("deferred").is_some();
        (!episodes.iter().any(waits)).then_some(())
    })
    .await;
    bridge.wait_delivered("works").await;
    bridge.wait_delivered("journal").await;
    assert!(ledger.check(&bridge, "works", &works.events()).await.is_empty());
    assert!(ledger.check(&bridge, "journal", &bridge.journal()).await.is_empty());
    assert!(dead.sent().is_empty());
    let up = "scalebridge_destination_up{destination=";
    assert_eq!(bridge.metric(&format!("{up}\"dead\"}}")).await, 0.0);
    assert_eq!(bridge.metric(&format!("{up}\"works\"}}")).await, 1.0);

    dead.heal();
    bridge.wait_settled(&["dead"]).await;
    let sent: Vec<Value> = dead.sent().into_iter().map(|sent| sent.event).collect();
    assert!(ledger.check_rule(DEAD_RULE, &bridge, "dead", &sent).await.is_empty());
    dead.assert_no_violations();
    assert_eq!(bridge.metric(&format!("{up}\"dead\"}}")).await, 1.0);
}
