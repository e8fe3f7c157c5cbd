//! Accepted notifications survive SIGKILL at any time.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::support::bridge::Bridge;
use crate::support::load;
use crate::support::queue::TEST_AWS_ENV;
use crate::support::sqs_stub::{Kind, SqsStub};

const KILLS: usize = 36;
const NOTIFICATIONS: usize = 400;

/// The kills are spread over the load by the number of accepted notifications; some occur before the bridge is
/// ready.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_that_was_accepted_is_lost_in_a_storm_of_sigkills() {
    let seed = std::env::var("KILL_SEED").map_or(11, |seed| seed.parse().expect("a seed"));
    eprintln!("seed {seed}");
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

    // The store is created before the load: an occurrence that is older than the store cannot decrease capacity.
    bridge.run().await;
    let (address, to) = watch::channel(None);
    let (answered, mut answers) = watch::channel(0);
    let sending = tokio::spawn(load::send(seed, NOTIFICATIONS, to, answered));
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
        let threshold = kill * NOTIFICATIONS / (KILLS + 1) + rng.usize(1..8);
        answers.wait_for(|count| *count >= threshold).await.expect("running senders");
        // Half of the kills follow an answer immediately.
        if rng.bool() {
            tokio::time::sleep(Duration::from_micros(rng.u64(..20_000))).await;
        }
        bridge.kill();
        address.send_replace(None);
    }
    assert!(*answers.borrow() < NOTIFICATIONS, "the load ended before the last kill");
    fifo.heal();
    bridge.run().await;
    address.send_replace(Some(bridge.url("/webhook/prod-eu")));
    let ledger = sending.await.expect("the load");
    for name in ["fifo", "standard", "journal"] {
        bridge.wait_delivered(name).await;
    }

    let all = |stub: &SqsStub| stub.sent().into_iter().map(|sent| sent.event).collect::<Vec<Value>>();
    ledger.check("every attempt at the fifo queue", &all(&fifo));
    assert!(
        ledger.check("the fifo queue", &fifo.events()).is_empty(),
        "deduplication ids identify duplicates"
    );
    ledger.check("the standard queue", &all(&standard));
    ledger.check("the journal", &bridge.journal_after_kills());
    fifo.assert_no_violations();
    standard.assert_no_violations();
}
