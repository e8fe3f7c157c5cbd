//! Two real Alertmanagers that know nothing of each other send all alerts of one Prometheus, to replicas behind a balancer.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::bridge::post;
use crate::support::fleet::{Fleet, replica, wait_settled};
use crate::support::postgres::PostgresServer;
use crate::support::prometheus::Release;
use crate::support::sqs_stub::{Kind, SqsStub};
use crate::support::tools::{Server, eventually};

const TARGETS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn two_alertmanagers_make_one_adjustment_of_each_alert_whichever_replicas_hear_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let queue = SqsStub::start(Kind::Fifo);
    let replicas = (0..3).map(|_| replica(&server.url(&database), &[("queue", queue.destination())]));
    let fleet = Fleet::start(replicas.collect()).await;
    let alertmanagers = [
        start(&dir.path().join("one"), &fleet.url()).await,
        start(&dir.path().join("other"), &fleet.url()).await,
    ];
    let begin = Timestamp::now();

    send_all(&alertmanagers, begin, begin + SignedDuration::from_mins(5)).await;
    heard(&fleet, 2 * TARGETS).await;
    wait_settled(server, &database).await;
    assert_eq!(count(&queue, "scale_out"), TARGETS);

    send_all(&alertmanagers, begin, Timestamp::now()).await;
    heard(&fleet, 4 * TARGETS).await;
    wait_settled(server, &database).await;
    assert_eq!((count(&queue, "scale_out"), count(&queue, "scale_in")), (TARGETS, TARGETS));
    queue.assert_no_violations();
}

async fn start(dir: &Path, url: &str) -> Server {
    std::fs::create_dir(dir).expect("a directory");
    let config = format!(
        "
route:
  receiver: scaling
  group_by: [alertname, nodegroup]
  group_wait: 1s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: scaling
    webhook_configs: [{{ url: '{url}', send_resolved: true }}]
"
    );
    Release::New.start_alertmanager(dir, &config).await
}

/// Prometheus sends all alerts to both.
async fn send_all(alertmanagers: &[Server; 2], begin: Timestamp, end: Timestamp) {
    let alert = |number: usize| {
        json!({
            "labels": { "alertname": "KubePodsPending", "nodegroup": format!("group-{number}") },
            "startsAt": begin.to_string(), "endsAt": end.to_string(),
        })
    };
    let alerts: Vec<Value> = (0..TARGETS).map(alert).collect();
    for alertmanager in alertmanagers {
        let body = json!(alerts).to_string().into_bytes();
        assert_eq!(post(alertmanager.url() + "/api/v2/alerts", &[], body).await.status, 200);
    }
}

/// Waits until the replicas have accepted this many notifications.
async fn heard(fleet: &Fleet, notifications: usize) {
    eventually("the notifications of both", async || {
        let mut sum = 0.0;
        for replica in &fleet.replicas {
            sum += replica.metric(r#"scalebridge_notifications_total{source="prod-eu",code="200"}"#).await;
        }
        (sum >= notifications as f64).then_some(())
    })
    .await;
}

fn count(queue: &SqsStub, action: &str) -> usize {
    queue.sent().iter().filter(|sent| sent.event["data"]["action"] == action).count()
}
