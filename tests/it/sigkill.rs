//! Accepted notifications survive SIGKILL at any time.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::support::bridge::Bridge;
use crate::support::load::Senders;
use crate::support::queue::TEST_AWS_ENV;
use crate::support::seed;
use crate::support::sqs_stub::{Kind, SqsStub};

const KILLS: usize = 36;

/// Each kill follows a few answers, and the load goes on until the last one; some kills occur before the bridge is
/// ready.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_that_was_accepted_is_lost_in_a_storm_of_sigkills() {
    storm_of_sigkills(Kind::Fifo, &[("standard", Kind::Standard)], KILLS).await;
}

/// Nor does a kill start a second execution, or make the bridge take an execution of its own for another's.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_at_a_state_machine_a_topic_and_a_bus_in_a_storm_of_sigkills() {
    let others = [("fifo-topic", Kind::FifoTopic), ("topic", Kind::Topic), ("bus", Kind::Bus)];
    storm_of_sigkills(Kind::StateMachine, &others, KILLS / 2).await;
}

/// The first destination is faulty, and drops duplicates.
async fn storm_of_sigkills(faulty: Kind, others: &[(&'static str, Kind)], kills: usize) {
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let faulty = SqsStub::faulty(faulty, seed);
    let others: Vec<(&str, SqsStub)> =
        others.iter().map(|&(name, kind)| (name, SqsStub::start(kind))).collect();
    let mut destinations = vec![("faulty", faulty.destination())];
    destinations.extend(others.iter().map(|(name, stub)| (*name, stub.destination())));
    destinations.push(("journal", "file: { path: events.jsonl }".to_owned()));
    let mut bridge = Bridge::with_destinations(&destinations);
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));

    bridge.without_late_window();
    // The store is created before the load: an occurrence that is older than the store cannot decrease capacity.
    bridge.run().await;
    let (address, to) = watch::channel(None);
    let mut senders = Senders::start(seed, &to);
    for kill in 0..kills {
        if kill > 0 {
            bridge.launch();
            if rng.u8(..6) == 0 {
                tokio::time::sleep(Duration::from_millis(rng.u64(..80))).await;
                bridge.kill();
                continue;
            }
            bridge.wait_ready().await;
        }
        address.send_replace(Some(bridge.url("/webhook/prod-eu")));
        senders.wait_answered(rng.usize(1..20)).await;
        // Half of the kills follow an answer immediately.
        if rng.bool() {
            tokio::time::sleep(Duration::from_micros(rng.u64(..20_000))).await;
        }
        bridge.kill();
        address.send_replace(None);
    }
    faulty.heal();
    bridge.run().await;
    address.send_replace(Some(bridge.url("/webhook/prod-eu")));
    let ledger = senders.stop().await;
    let names: Vec<&str> = destinations.iter().map(|(name, _)| *name).collect();
    bridge.wait_settled(&names).await;

    let all = |stub: &SqsStub| stub.sent().into_iter().map(|sent| sent.event).collect::<Vec<Value>>();
    ledger.check(&bridge, "faulty", &all(&faulty)).await;
    let copies = ledger.check(&bridge, "faulty", &faulty.events()).await;
    assert!(copies.is_empty(), "deduplication ids and names identify duplicates: {copies:?}");
    for (name, stub) in &others {
        ledger.check(&bridge, name, &all(stub)).await;
        stub.assert_no_violations();
    }
    ledger.check(&bridge, "journal", &bridge.journal_after_kills()).await;
    faulty.assert_no_violations();
    let dead_letters = bridge.get_json("/api/v1/dead-letters").await;
    let refused: Vec<&Value> = dead_letters["dead_letters"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|letter| letter["error"].as_str().is_some_and(|error| error.contains("Already")))
        .collect();
    assert!(refused.is_empty(), "its own executions, taken for another's: {refused:#?}");
}
