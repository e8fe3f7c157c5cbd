//! Graceful restarts: a bridge drains on SIGTERM, so that no event is delivered twice.

use tokio::sync::watch;

use crate::support::bridge::Bridge;
use crate::support::load::Senders;
use crate::support::queue::TEST_AWS_ENV;
use crate::support::seed;
use crate::support::sqs_stub::{Kind, SqsStub};

const RESTARTS: usize = 12;

/// The queues are slow and reject many calls, so each stop finds calls in flight and deliveries that wait for
/// a retry; but they acknowledge every accepted message.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_duplicated_by_a_restart() {
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let queues = [
        ("fifo", SqsStub::without_lost_answers(Kind::Fifo, seed)),
        ("standard", SqsStub::without_lost_answers(Kind::Standard, seed ^ 0xFF)),
    ];
    let mut destinations: Vec<(&str, String)> =
        queues.iter().map(|(name, stub)| (*name, stub.destination())).collect();
    destinations.push(("journal", "file: { path: events.jsonl }".to_owned()));
    let mut bridge = Bridge::with_destinations(&destinations);
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.without_late_window();
    bridge.run().await;
    let (address, to) = watch::channel(Some(bridge.url("/webhook/prod-eu")));
    let mut senders = Senders::start(seed, &to);
    for _ in 0..RESTARTS {
        senders.wait_answered(rng.usize(8..30)).await;
        address.send_replace(None);
        assert!(bridge.stop().await.success());
        bridge.run().await;
        address.send_replace(Some(bridge.url("/webhook/prod-eu")));
    }
    let ledger = senders.stop().await;
    queues.iter().for_each(|(_, stub)| stub.heal());
    bridge.wait_settled(&["fifo", "standard", "journal"]).await;
    for (name, stub) in &queues {
        let sent: Vec<_> = stub.sent().into_iter().map(|sent| sent.event).collect();
        let duplicates = ledger.check(&bridge, name, &sent).await;
        assert!(duplicates.is_empty(), "{name}: {duplicates:?}");
        stub.assert_no_violations();
    }
    let duplicates = ledger.check(&bridge, "journal", &bridge.journal()).await;
    assert!(duplicates.is_empty(), "the journal: {duplicates:?}");
}
