//! Twin senders, as a pair of Alertmanagers, send everything twice, in different orders and to different replicas.

use serde_json::Value;

use crate::support::bridge::Bridge;
use crate::support::fleet::{Fleet, replica, wait_settled};
use crate::support::ledger::{Ledger, RULE};
use crate::support::load::{Senders, constant_address};
use crate::support::postgres::PostgresServer;
use crate::support::seed;
use crate::support::sqs_stub::{Kind, SqsStub};

/// The number of notifications that are sent twice.
const NOTIFICATIONS: usize = 200;

/// Each change is answered as one replica would answer it, once, and arrives at each destination in order.
#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_adjust_as_one_does_when_twins_send_everything_to_all_of_them() {
    let seed = seed();
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let queues = Queues::start(seed);
    let replicas = (0..3).map(|_| queues.replica(&server.url(&database))).collect();
    let fleet = Fleet::start(replicas).await;
    let mut senders = Senders::start_twins(seed, &constant_address(fleet.url()));
    senders.wait_answered(NOTIFICATIONS).await;
    queues.fifo.heal();
    let ledger = senders.stop().await;
    wait_settled(server, &database).await;
    queues.check(&fleet, &ledger).await;
    for replica in &fleet.replicas {
        let accepted = r#"scalebridge_notifications_total{source="prod-eu",code="200"}"#;
        assert!(replica.metric(accepted).await > 0.0, "all replicas have decided");
        assert!(!replica.journal().is_empty(), "all replicas have delivered");
    }
}

/// Where the events of a fleet arrive: queues, and a file of each replica.
pub(super) struct Queues {
    pub fifo: SqsStub,
    pub standard: SqsStub,
}

impl Queues {
    /// The FIFO queue has faults until it is healed.
    pub(super) fn start(seed: u64) -> Self {
        Self { fifo: SqsStub::faulty(Kind::Fifo, seed), standard: SqsStub::start(Kind::Standard) }
    }

    /// A replica that sends to the queues and to its file. Decreases are decided at once after a reception gap.
    pub(super) fn replica(&self, url: &str) -> Bridge {
        let journal = "file: { path: events.jsonl }".to_owned();
        let (fifo, standard) = (self.fifo.destination(), self.standard.destination());
        let bridge = replica(url, &[("fifo", fifo), ("standard", standard), ("journal", journal)]);
        bridge.without_late_window();
        bridge
    }

    /// Checks that everything has arrived that the decisions of the rule of [`Ledger::check`] justify, and nothing else.
    pub(super) async fn check(&self, fleet: &Fleet, ledger: &Ledger) {
        let bridge = &fleet.replicas[0];
        let own = |mut events: Vec<Value>| {
            events.retain(|event| event["data"]["rule"] == RULE);
            events
        };
        let all = |stub: &SqsStub| own(stub.sent().into_iter().map(|sent| sent.event).collect());
        ledger.check(bridge, "fifo", &all(&self.fifo)).await;
        let copies = ledger.check(bridge, "fifo", &own(self.fifo.events())).await;
        assert!(copies.is_empty(), "deduplication ids identify duplicates: {copies:?}");
        ledger.check(bridge, "standard", &all(&self.standard)).await;
        // Each replica has a file of its own, so there is no order of arrival.
        let mut files = own(fleet.replicas.iter().flat_map(Bridge::journal_after_kills).collect());
        files.sort_by_key(|event| event["sequence"].as_str().and_then(|text| text.parse::<u64>().ok()));
        ledger.check(bridge, "journal", &files).await;
        self.fifo.assert_no_violations();
        self.standard.assert_no_violations();
    }
}
