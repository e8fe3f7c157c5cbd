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
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let fifo = SqsStub::faulty(Kind::Fifo, seed);
    let standard = SqsStub::start(Kind::Standard);
    let journal = "file: { path: events.jsonl }".to_owned();
    let mut bridge = Bridge::with_destinations(&[
        ("fifo", fifo.destination()),
        ("standard", standard.destination()),
        ("journal", journal),
    ]);
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));

    bridge.without_late_window();
    // The store is created before the load: an occurrence that is older than the store cannot decrease capacity.
    bridge.run().await;
    let (address, to) = watch::channel(None);
    let mut senders = Senders::start(seed, &to);
    for kill in 0..KILLS {
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
    fifo.heal();
    bridge.run().await;
    address.send_replace(Some(bridge.url("/webhook/prod-eu")));
    let ledger = senders.stop().await;
    bridge.wait_settled(&["fifo", "standard", "journal"]).await;

    let all = |stub: &SqsStub| stub.sent().into_iter().map(|sent| sent.event).collect::<Vec<Value>>();
    ledger.check(&bridge, "fifo", &all(&fifo)).await;
    let copies = ledger.check(&bridge, "fifo", &fifo.events()).await;
    assert!(copies.is_empty(), "deduplication ids identify duplicates: {copies:?}");
    ledger.check(&bridge, "standard", &all(&standard)).await;
    ledger.check(&bridge, "journal", &bridge.journal_after_kills()).await;
    fifo.assert_no_violations();
    standard.assert_no_violations();
}
