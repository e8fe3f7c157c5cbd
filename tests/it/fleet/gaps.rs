//! Reception gaps of a fleet: nobody has to be refused for one, and no replica has to live on to tell of it.

use serde_json::Value;

use crate::postgres::bridge_on;
use crate::support::bridge::{Bridge, notification, pending_pod};
use crate::support::postgres::PostgresServer;
use crate::support::tools::eventually;

/// The last reception gap of the source; null if there was none.
async fn gap(bridge: &Bridge) -> Value {
    bridge.get_json("/api/v1/status").await["reception_gaps"]["prod-eu"].clone()
}

async fn wait_gap(bridge: &Bridge, cause: &str) -> Value {
    eventually("a reception gap", async || Some(gap(bridge).await).filter(|gap| gap["cause"] == cause)).await
}

/// Two replicas on one database, of which the first has accepted a notification.
async fn two_replicas(url: &str) -> [Bridge; 2] {
    let mut replicas = [bridge_on(url), bridge_on(url)];
    for replica in &mut replicas {
        replica.run().await;
    }
    let answer = replicas[0].post(notification(&[pending_pod("workers", "a")])).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(gap(&replicas[1]).await, Value::Null);
    replicas
}

#[tokio::test]
async fn a_replica_that_was_killed_leaves_a_gap_that_the_others_know() {
    let server = PostgresServer::shared();
    let [mut first, second] = two_replicas(&server.url(&server.create_database(None))).await;
    first.kill();
    wait_gap(&second, "not_running").await;
}

#[tokio::test]
async fn a_replica_that_stops_leaves_none() {
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let [mut first, second] = two_replicas(&server.url(&database)).await;
    // Each knows of the other one when it has given a sign of life after that.
    wait_beats(server, &database, 2).await;
    assert!(first.stop().await.success());
    // Long enough that it would be missed.
    wait_beats(server, &database, 7).await;
    assert_eq!(gap(&second).await, Value::Null);
}

/// Waits until each replica that runs is ready and has given so many signs of life more.
async fn wait_beats(server: &PostgresServer, database: &str, more: u64) {
    let least = || {
        let of_ready =
            "SELECT CASE WHEN bool_and(is_ready) THEN min(beat) END FROM replicas WHERE NOT is_stopped";
        server.sql(database, of_ready).trim().parse::<u64>().ok()
    };
    let before = eventually("ready replicas", async || least()).await;
    eventually("signs of life", async || least().filter(|beat| *beat >= before + more)).await;
}

#[tokio::test]
async fn a_restart_right_after_a_kill_leaves_a_gap() {
    let server = PostgresServer::shared();
    let mut bridge = bridge_on(&server.url(&server.create_database(None)));
    bridge.run().await;
    assert_eq!(bridge.post(notification(&[pending_pod("workers", "a")])).await.status, 200);
    bridge.kill();
    bridge.run().await;
    assert_eq!(gap(&bridge).await["cause"], "not_running");
}

#[tokio::test]
async fn an_outage_of_the_database_is_a_gap_although_nothing_was_refused() {
    let mut server = PostgresServer::start(&[], "host all all 127.0.0.1/32 trust\n", |_| {});
    let url = server.url(&server.create_database(None));
    let [first, second] = two_replicas(&url).await;
    server.stop();
    for replica in [&first, &second] {
        eventually("an outage", async || (replica.metric("scalebridge_store_up").await == 0.0).then_some(()))
            .await;
    }
    server.restart(&[]);
    for replica in [&first, &second] {
        wait_gap(replica, "store").await;
    }
}
