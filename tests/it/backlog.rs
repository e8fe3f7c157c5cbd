//! A backlog that is larger than the window of a destination's lane.

use scalebridge::testing::MAX_WINDOW_BYTES;
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, notification_of_group, pending_pod};
use crate::support::ledger::Ledger;
use crate::support::queue::TEST_AWS_ENV;
use crate::support::replay::Change;
use crate::support::seed;
use crate::support::sqs_stub::{Kind, SqsStub};
use crate::support::tools::eventually;

const TARGETS: usize = 100;
/// Each round adds an alert to every target, so that the events of one target are far apart in the backlog.
const ROUNDS: usize = 8;
const TARGETS_PER_NOTIFICATION: usize = 50;
/// An event has all alerts of its target. The window is bounded in bytes as well as in events: long alerts exceed it
/// with few events, which the debug build processes in seconds.
const ALERT_BYTES: usize = MAX_WINDOW_BYTES * 3 / 2 / (TARGETS * ROUNDS * (ROUNDS + 1) / 2);

async fn grow(bridge: &Bridge, round: usize, ledger: &mut Ledger) {
    let targets: Vec<String> = (0..TARGETS).map(|at| format!("group-{at}")).collect();
    for (at, part) in targets.chunks(TARGETS_PER_NOTIFICATION).enumerate() {
        let group = format!("{{}}:{round}-{at}");
        let pod = format!("pod-{round}");
        let alert = |target| {
            let mut alert = pending_pod(target, &pod);
            alert["annotations"]["description"] = json!("x".repeat(ALERT_BYTES));
            alert
        };
        let alerts: Vec<Value> = part.iter().map(|target| alert(target)).collect();
        let answer = bridge.post(notification_of_group(&group, &alerts)).await;
        assert_eq!(answer.json()["events"], TARGETS_PER_NOTIFICATION, "{}", answer.body);
        for target in part {
            ledger.record(target, &group, Change::Fire { open: round + 1 });
        }
    }
}

/// The window is refilled from the store as it drains.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_drains_completely_and_in_order() {
    drain_backlog(seed(), false).await;
}

/// The lane is rebuilt from the store at start.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_drains_completely_and_in_order_after_a_kill() {
    drain_backlog(seed(), true).await;
}

async fn drain_backlog(seed: u64, killed: bool) {
    let (silent, works) = (SqsStub::silent(Kind::Fifo), SqsStub::faulty(Kind::Standard, seed));
    // Growth is emitted when an acting destination has the event before it.
    let first = SqsStub::start(Kind::Standard);
    let mut bridge = Bridge::with_destinations(&[
        ("silent", silent.destination()),
        ("works", works.destination() + ", timeout: 3s"),
        ("first", first.destination()),
    ]);
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    let mut ledger = Ledger::default();
    for round in 0..ROUNDS {
        grow(&bridge, round, &mut ledger).await;
        bridge.wait_delivered("first").await;
    }
    if killed {
        bridge.kill();
        bridge.run().await;
    }
    eventually("every fault", async || works.has_met_every_fault().then_some(())).await;
    works.heal();
    bridge.wait_delivered("works").await;
    let backlog = "scalebridge_outbox_deliveries{destination=\"silent\",state=";
    let pending = bridge.metric(&format!("{backlog}\"pending\"}}")).await;
    let retrying = bridge.metric(&format!("{backlog}\"retrying\"}}")).await;
    assert_eq!(pending + retrying, (TARGETS * ROUNDS) as f64);

    silent.heal();
    bridge.wait_delivered("silent").await;
    for (name, stub) in [("silent", &silent), ("works", &works), ("first", &first)] {
        let sent: Vec<Value> = stub.sent().into_iter().map(|sent| sent.event).collect();
        ledger.check(&bridge, name, &sent).await;
        stub.assert_no_violations();
    }
    let bytes: usize = silent.events().iter().map(|event| event.to_string().len()).sum();
    assert!(bytes > MAX_WINDOW_BYTES, "the whole backlog fits into the window");
    let copies = ledger.check(&bridge, "silent", &silent.events()).await;
    assert!(copies.is_empty(), "deduplication ids identify duplicates");
}
