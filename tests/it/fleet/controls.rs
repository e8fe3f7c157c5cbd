//! What an operator or an alert tells one replica holds at all of them.

use serde_json::json;

use crate::support::bridge::{notification, pending_pod};
use crate::support::fleet::{Fleet, replica, wait_settled};
use crate::support::postgres::PostgresServer;
use crate::support::sqs_stub::{Kind, SqsStub};
use crate::support::tools::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_at_one_replica_holds_at_all_and_what_it_deferred_runs_when_another_ends_it() {
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let queue = SqsStub::start(Kind::Standard);
    let replicas = (0..3).map(|_| replica(&server.url(&database), &[("queue", queue.destination())]));
    let fleet = Fleet::start(replicas.collect()).await;
    let [first, second, third] = &fleet.replicas[..] else { panic!("three replicas") };
    let (code, said, error) = first.cli(&["pause", "--all", "--reason", "a change"]);
    assert_eq!(code, Some(0), "{said}{error}");
    // Decisions read the database, so nothing is waited for.
    let answer = second.post(notification(&[pending_pod("workers", "a")])).await;
    assert_eq!(answer.verdicts(), json!({ "paused": 1 }));
    for replica in &fleet.replicas {
        eventually("the pause", async || {
            (replica.get_json("/api/v1/pauses").await != json!([])).then_some(())
        })
        .await;
        eventually("the deferred action", async || {
            (replica.get_json("/api/v1/status").await["deferred"]["paused"] == 1).then_some(())
        })
        .await;
    }
    assert_eq!(queue.events().len(), 0);
    let pause = third.get_json("/api/v1/pauses").await[0]["id"].to_string();
    let (code, said, error) = third.cli(&["resume", &pause]);
    assert_eq!(code, Some(0), "{said}{error}");
    wait_settled(server, &database).await;
    assert_eq!(queue.events().len(), 1);
    for replica in &fleet.replicas {
        eventually("the end of the pause", async || {
            (replica.get_json("/api/v1/pauses").await == json!([])).then_some(())
        })
        .await;
    }
}
