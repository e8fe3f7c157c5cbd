//! Replicas, the network and the database fail at random under load.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::twins::Queues;
use crate::support::bridge::{Bridge, RULES, notification, pending_pod, try_post};
use crate::support::fleet::{Fleet, Leases, replica, wait_settled};
use crate::support::load::{Senders, constant_address};
use crate::support::postgres::PostgresServer;
use crate::support::relay::{Network, Relay};
use crate::support::seed;
use crate::support::sqs_stub::{Kind, SqsStub};
use crate::support::tools::{eventually, get};

const REPLICAS: usize = 3;

/// What happens to a replica or to the database.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// SIGKILL to a replica.
    Kill,
    /// A replica's connections to the database are closed.
    Cut,
    /// A replica and the database do not hear each other, and neither is told.
    Silence,
    /// The database is stopped and started.
    Shutdown,
    /// The database crashes, and recovers.
    Crash,
}

const FAULTS: [Fault; 9] = [
    Fault::Kill,
    Fault::Kill,
    Fault::Kill,
    Fault::Cut,
    Fault::Cut,
    Fault::Silence,
    Fault::Silence,
    Fault::Shutdown,
    Fault::Crash,
];

struct Trial {
    rng: fastrand::Rng,
    server: PostgresServer,
    database: String,
    /// The way of each replica to the database.
    networks: Vec<Relay>,
    fleet: Fleet,
    senders: Senders,
}

impl Trial {
    async fn happens(&mut self, fault: Fault) {
        let one = self.rng.usize(..REPLICAS);
        let accepted = self.rng.usize(1..10);
        match fault {
            Fault::Kill => {
                let leases = Leases::read(&self.server, &self.database);
                self.fleet.kill(one);
                self.senders.wait_answered(accepted).await;
                self.fleet.run(one).await;
                leases.end(&self.server, &self.database);
            }
            Fault::Cut => {
                self.networks[one].set(Network::Cut);
                self.senders.wait_answered(accepted).await;
                self.networks[one].set(Network::Up);
            }
            Fault::Silence => {
                self.networks[one].set(Network::Silent);
                tokio::time::sleep(Duration::from_millis(self.rng.u64(..2000))).await;
                // What was on its way arrives, or is lost.
                if self.rng.bool() {
                    self.networks[one].set(Network::Cut);
                }
                self.networks[one].set(Network::Up);
            }
            Fault::Shutdown | Fault::Crash => {
                if matches!(fault, Fault::Shutdown) {
                    self.server.stop();
                } else {
                    self.server.crash();
                }
                tokio::time::sleep(Duration::from_millis(self.rng.u64(..300))).await;
                self.server.restart(&[]);
            }
        }
        let accepted = self.rng.usize(1..10);
        self.senders.wait_answered(accepted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_done_twice_while_replicas_the_network_and_the_database_fail() {
    let seed = seed();
    let server = PostgresServer::start(&[], "host all all 127.0.0.1/32 trust\n", |_| {});
    let database = server.create_database(None);
    let queues = Queues::start(seed);
    let (mut networks, mut replicas) = (Vec::new(), Vec::new());
    for _ in 0..REPLICAS {
        let network = Relay::to(format!("127.0.0.1:{}", server.port())).await;
        let replica = queues.replica(&format!("postgres://postgres@127.0.0.1:{}/{database}", network.port()));
        Guarded::add_rule(&replica);
        networks.push(network);
        replicas.push(replica);
    }
    let fleet = Fleet::start(replicas).await;
    let senders = Senders::start_twins(seed, &constant_address(fleet.url()));
    let guarded = Guarded::start(fleet.url());
    let rng = fastrand::Rng::with_seed(seed);
    let mut trial = Trial { rng, server, database, networks, fleet, senders };
    let mut faults = FAULTS;
    trial.rng.shuffle(&mut faults);
    for fault in faults {
        trial.happens(fault).await;
    }
    queues.fifo.heal();
    guarded.stop().await;
    let ledger = trial.senders.stop().await;
    wait_settled(&trial.server, &trial.database).await;
    queues.check(&trial.fleet, &ledger).await;
    Guarded::check(&trial.fleet.replicas[0]).await;
}

/// The network loses everything between a replica and the database while the replica has locked the row of a target, and
/// tells neither. The others decide about the target all the same, and the replica says why it is not ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_hears_nothing_from_the_database_holds_nobody_up_and_refuses() {
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let network = Relay::to(format!("127.0.0.1:{}", server.port())).await;
    let queue = SqsStub::start(Kind::Standard);
    let new = |url: &str| replica(url, &[("queue", queue.destination())]);
    let cut_off = format!("postgres://postgres@127.0.0.1:{}/{database}", network.port());
    let fleet = Fleet::start(vec![new(&cut_off), new(&server.url(&database))]).await;
    let [replica, other] = &fleet.replicas[..] else { panic!("two replicas") };
    let alert = |number: usize| notification(&[pending_pod("workers", &number.to_string())]).into_bytes();
    let url = replica.url("/webhook/prod-eu");

    let lock = format!(
        "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_stat_activity a USING (pid)
         WHERE c.relname = 'targets' AND l.mode = 'RowShareLock' AND a.datname = '{database}'
         AND a.state = 'idle in transaction'"
    );
    let mut number = 0;
    let refused = loop {
        number += 1;
        let posted = tokio::spawn(try_post(url.clone(), &[], alert(number)));
        tokio::time::sleep(Duration::from_millis(number as u64 % 30)).await;
        network.set(Network::Silent);
        if server.sql(&database, &lock) != "0" {
            break posted;
        }
        network.set(Network::Up);
        posted.await.expect("a task").expect("an answer");
    };
    // Each waits until the server has ended the transaction of the replica.
    let answers = (1..=4).map(|more| try_post(other.url("/webhook/prod-eu"), &[], alert(number + more)));
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let refused = refused.await.expect("a task").expect("an answer");
    assert_eq!(refused.status, 503, "{}", refused.body);
    let ready = replica.url("/-/ready");
    let status = async |expected: u16| get(&ready).await.ok().filter(|(status, _)| *status == expected);
    let (_, cause) = eventually("readiness to fail", async || status(503).await).await;
    assert!(cause.contains("store"), "{cause}");
    network.set(Network::Up);
    eventually("readiness", async || status(200).await).await;
    assert_eq!(replica.post(alert(0)).await.status, 200);
}

/// Alerts of a rule with a cooldown and a budget, which never resolve and become more and more.
struct Guarded {
    sender: JoinHandle<()>,
    stop: CancellationToken,
}

impl Guarded {
    const RULE: &str = "guarded";
    const TARGETS: usize = 4;
    const RULE_COOLDOWN: SignedDuration = SignedDuration::from_secs(3);
    const BUDGET: usize = 4;

    fn add_rule(replica: &Bridge) {
        let rule = r#"
  - name: guarded
    matchers: [alertname = Guarded]
    target: { platform: eks, kind: nodegroup, name: "{{ labels.nodegroup }}" }
    on_firing: { scale_out: { by: 1 }, cooldown: 3s }
    budget: { events: 4, per: 1h }
    send_to: [fifo, standard, journal]
"#;
        replica.write("rules.yaml", &(RULES.replace("[journal]", "[fifo, standard, journal]") + rule));
    }

    fn start(url: String) -> Self {
        let stop = CancellationToken::new();
        let sender = tokio::spawn(Self::send(url, stop.clone()));
        Self { sender, stop }
    }

    async fn send(url: String, stop: CancellationToken) {
        let mut number = 0;
        while !stop.is_cancelled() {
            let alerts: Vec<Value> = (0..Self::TARGETS)
                .map(|target| {
                    let mut alert = pending_pod(&format!("guarded-{target}"), &number.to_string());
                    alert["labels"]["alertname"] = "Guarded".into();
                    alert
                })
                .collect();
            let body = notification(&alerts).into_bytes();
            // Twins, to different replicas. What is refused is not needed: more follow.
            let sent = async |body: Vec<u8>| drop(try_post(url.clone(), &[], body).await);
            tokio::join!(sent(body.clone()), sent(body));
            number += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.sender.await.expect("the sender");
    }

    /// Whichever replicas have decided, no event came before the end of the cooldown or above the budget.
    async fn check(bridge: &Bridge) {
        let mut emitted: Vec<Value> = bridge.decisions("emitted").await;
        emitted.retain(|decision| decision["rule"] == Self::RULE);
        for target in 0..Self::TARGETS {
            let name = format!("guarded-{target}");
            let of_target = emitted.iter().filter(|decision| decision["target"]["name"] == *name);
            let mut times: Vec<Timestamp> = of_target.map(|decision| time(&decision["at"])).collect();
            times.reverse();
            assert!((1..=Self::BUDGET).contains(&times.len()), "{name}: {times:?}");
            let waited = times.windows(2).map(|pair| pair[1].duration_since(pair[0]));
            waited.for_each(|waited| assert!(waited >= Self::RULE_COOLDOWN, "{name}: {times:?}"));
        }
    }
}

pub(super) fn time(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is not a time"));
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
