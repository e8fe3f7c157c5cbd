//! The primary of the database dies, and a standby takes its place.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::twins::Queues;
use crate::support::bridge::{Bridge, notification, pending_pod, resolved};
use crate::support::fleet::{Fleet, move_database, replica, wait_settled};
use crate::support::load::{Senders, constant_address};
use crate::support::postgres::PostgresServer;
use crate::support::seed;
use crate::support::sqs_stub::{Kind, SqsStub};
use crate::support::tools::eventually;

const HBA: &str = "host all all 127.0.0.1/32 trust\n";
const FAILOVERS: usize = 2;
const CAME_BACK_BEHIND: &str = "the database came back behind what was confirmed";

/// A URL with both servers, of which one is the primary.
fn url(servers: [&PostgresServer; 2], database: &str) -> String {
    let [one, other] = servers.map(PostgresServer::port);
    format!(
        "postgres://postgres@127.0.0.1:{one},127.0.0.1:{other}/{database}?target_session_attrs=read-write"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_synchronous_standby_takes_over_under_load() {
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut primary = PostgresServer::start(&[], HBA, |_| {});
    let database = primary.create_database(None);
    let mut standby = primary.standby(&[]);
    primary.require_standby();
    let queues = Queues::start(seed);
    let replicas = (0..3).map(|_| queues.replica(&url([&primary, &standby], &database))).collect();
    let fleet = Fleet::start(replicas).await;
    let mut senders = Senders::start_twins(seed, &constant_address(fleet.url()));
    for failover in 1..=FAILOVERS {
        senders.wait_answered(rng.usize(5..20)).await;
        tokio::time::sleep(Duration::from_millis(rng.u64(..100))).await;
        // Nothing is written to it any more before the standby takes over.
        primary.crash();
        standby.promote();
        senders.wait_answered(rng.usize(5..20)).await;
        if failover < FAILOVERS {
            let next = standby.standby(&[]);
            standby.require_standby();
            fleet
                .replicas
                .iter()
                .for_each(|replica| move_database(replica, &url([&standby, &next], &database)));
            primary = std::mem::replace(&mut standby, next);
        }
    }
    queues.fifo.heal();
    let ledger = senders.stop().await;
    wait_settled(&standby, &database).await;
    queues.check(&fleet, &ledger).await;
    assert!(!fleet.log().contains(CAME_BACK_BEHIND), "nothing was lost");
}

/// The standby lacks the last decisions, whose events were delivered. Alertmanager repeats what still fires.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_lacks_decisions_is_noticed_and_reuses_no_id() {
    let mut primary = PostgresServer::start(&[], HBA, |_| {});
    let database = primary.create_database(None);
    let standby = primary.standby(&[]);
    let queue = SqsStub::start(Kind::Standard);
    let url = url([&primary, &standby], &database);
    let new = || replica(&url, &[("queue", queue.destination())]);
    let fleet = Fleet::start(vec![new(), new()]).await;
    let before = pending_pod("before", "a");
    post(&fleet, &[&before]).await;
    wait_settled(&primary, &database).await;
    primary.wait_followed_by(&standby);
    standby.stop_following();
    let lost: Vec<Value> = (0..8).map(|number| pending_pod(&format!("lost-{number}"), "a")).collect();
    for alert in &lost {
        post(&fleet, &[alert]).await;
    }
    wait_settled(&primary, &database).await;
    assert_eq!(queue.events().len(), 1 + lost.len());

    primary.crash();
    standby.promote();
    // At once, from both Alertmanagers.
    for alert in &lost {
        post(&fleet, &[alert]).await;
    }
    eventually("the log", async || fleet.log().contains(CAME_BACK_BEHIND).then_some(())).await;
    for replica in &fleet.replicas {
        eventually("a gap", async || {
            let status = replica.get_json("/api/v1/status").await;
            (status["reception_gaps"]["prod-eu"]["cause"] == "data_loss").then_some(())
        })
        .await;
    }
    wait_settled(&standby, &database).await;
    let events = queue.events();
    let mut by_id: BTreeMap<&str, &Value> = BTreeMap::new();
    for event in &events {
        let first = *by_id.entry(event["id"].as_str().expect("an id")).or_insert(event);
        assert_eq!(first, event, "one id, two contents");
    }
    let of = |name: &str| by_id.values().filter(|event| event["data"]["target"]["name"] == name).count();
    assert_eq!(of("before"), 1, "the standby knows it");
    for number in 0..lost.len() {
        assert_eq!(of(&format!("lost-{number}")), 2, "decided again, with a new id");
    }
    // What happened in the gap is unknown, so nothing is decreased for now.
    let ends: Vec<Value> = lost.iter().chain([&before]).map(resolved).collect();
    let answer = fleet.replicas[0].post(notification(&ends)).await;
    assert_eq!(answer.verdicts(), json!({ "stabilizing": ends.len() }));
}

/// Posts a notification twice, as Alertmanagers do until it is accepted.
async fn post(fleet: &Fleet, alerts: &[&Value]) {
    let body = notification(&alerts.iter().copied().cloned().collect::<Vec<Value>>());
    let until_accepted = async |replica: &Bridge| {
        eventually("a 200", async || (replica.post(body.clone()).await.status == 200).then_some(())).await;
    };
    tokio::join!(until_accepted(&fleet.replicas[0]), until_accepted(&fleet.replicas[1]));
}
