//! Accepted events survive SIGKILL, SIGTERM and restarts.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bridge::{Bridge, CONFIG, RULES, captured, notification, pending_pod, resolved};
use crate::support::queue;
use crate::support::tools::{LocalAws, REGION, eventually, get};

/// The queue does not exist yet when the bridge is killed, so the event cannot have been delivered before.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_200_was_followed_by_a_sigkill_is_delivered_once_after_the_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let queue_url = format!("{}/000000000000/scaling", aws.url());
    let config = CONFIG.replace(
        "journal: { file: { path: events.jsonl } }",
        &format!("queue: {{ sqs: {{ queue_url: \"{queue_url}\", region: {REGION} }}, initial_backoff: 50ms, max_backoff: 200ms }}"),
    );
    let mut bridge = Bridge::new(&config, &RULES.replace("[journal]", "[queue]"));
    queue::environment(&aws).iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    let answer = bridge.post(captured("three-firing")).await;
    bridge.kill();
    assert_eq!(answer.verdicts(), json!({ "emitted": 3 }));

    bridge.run().await;
    assert_eq!(bridge.post(captured("three-firing")).await.verdicts(), json!({ "duplicate": 3 }));
    assert_eq!(queue::create_queue(&aws, "scaling").await, queue_url);
    bridge.wait_delivered("queue").await;
    let received = queue::receive_all(&aws, &queue_url).await;
    assert_eq!(received.len(), 1, "{received:?}");
    let event: Value = serde_json::from_str(received[0].body().expect("a body")).expect("an event");
    assert_eq!(event["data"]["alerts_total"], 3);
}

/// The bridge is killed right after an answer, at any point of the deliveries: every event is in the journal, and
/// duplicates are identical.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_in_a_row_of_sigkills() {
    let mut bridge = Bridge::new(CONFIG, RULES);
    let mut accepted = 0;
    for round in 0..8 {
        bridge.run().await;
        for group in 0..=round {
            let body = notification(&[pending_pod(&format!("group-{round}-{group}"), "a")]);
            assert_eq!(bridge.post(body).await.verdicts(), json!({ "emitted": 1 }));
            accepted += 1;
        }
        bridge.kill();
    }
    bridge.run().await;
    let mut events: BTreeMap<String, Value> = BTreeMap::new();
    bridge.wait_delivered("journal").await;
    for event in bridge.journal_after_kills() {
        let id = event["id"].as_str().expect("an id").to_owned();
        if let Some(before) = events.insert(id, event.clone()) {
            assert_eq!(before, event);
        }
    }
    assert_eq!(events.len(), accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_episode_outlives_the_process() {
    let mut bridge = Bridge::new(CONFIG, RULES);
    bridge.without_late_window();
    bridge.run().await;
    let (a, b) = (pending_pod("workers", "a"), pending_pod("workers", "b"));
    bridge.post(notification(&[a.clone(), b.clone()])).await;
    bridge.kill();
    bridge.run().await;
    assert_eq!(
        bridge.post(notification(&[a.clone(), b.clone()])).await.verdicts(),
        json!({ "duplicate": 2 })
    );
    assert!(bridge.stop().await.success());
    bridge.run().await;
    // A scale-in follows the delivery of its scale-out.
    bridge.wait_delivered("journal").await;
    let ends = notification(&[resolved(&a), resolved(&b)]);
    assert_eq!(bridge.post(ends).await.verdicts(), json!({ "emitted": 2 }));
    // The kill may have occurred between a delivery and its settlement; the event is then delivered twice.
    let mut events = bridge.events().await;
    events.dedup_by_key(|event| event["id"].clone());
    assert_eq!(events.len(), 2, "{events:?}");
    let sequence = |event: &Value| event["sequence"].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(sequence(&events[1]) > sequence(&events[0]));
}

/// A deferred scale-in is emitted when its stabilization window is over, also if the process was down for a part
/// of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stabilizing_scale_in_outlives_the_process() {
    let rules = RULES.replace("stabilization_window: 0s", "stabilization_window: 2s");
    let mut bridge = Bridge::new(CONFIG, &rules);
    bridge.without_late_window();
    bridge.run().await;
    let a = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&a))).await;
    let closed = bridge.post(notification(&[resolved(&a)])).await;
    assert_eq!(closed.verdicts(), json!({ "stabilizing": 1 }));
    bridge.kill();
    bridge.run().await;
    eventually("the scale-in", async || {
        let journal = bridge.journal();
        journal.iter().any(|event| event["data"]["action"] == "scale_in").then_some(())
    })
    .await;
    let series = "scalebridge_decisions_total{rule=\"unschedulable-pods\",verdict=\"emitted\"}";
    assert_eq!(bridge.metric(series).await, 1.0);
}

/// A request that is in flight at SIGTERM is answered; new ones are rejected.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_answers_requests_in_flight_and_accepts_no_more() {
    let mut bridge = Bridge::start().await;
    let body = captured("three-firing");
    let (first, rest) = body.split_at(100);
    let mut stream = TcpStream::connect(bridge.address()).await.expect("a connection");
    let head = format!(
        "POST /webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\ncontent-length: {}\r\n\r\n{first}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("a head");
    // When a later request has been answered, the head of this one has been read.
    assert_eq!(bridge.post(captured("one-firing")).await.status, 200);
    let url = bridge.url("/-/ready");
    bridge.terminate();
    eventually("the bridge to accept no more requests", async || {
        let answer = get(&url).await;
        answer.map_or(true, |(status, _)| status == 503).then_some(())
    })
    .await;
    stream.write_all(rest.as_bytes()).await.expect("the rest");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("{\"emitted\":3}"), "{answer}");
    assert!(bridge.wait_exit().await.success());
    bridge.run().await;
    assert_eq!(bridge.events().await.len(), 1);
}

/// The request of a hanging sender is aborted early enough for the store to be closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_sender_does_not_use_up_the_time_to_close_the_store() {
    let server = "server: { listen: \"127.0.0.1:0\"";
    let mut bridge = Bridge::new(&CONFIG.replace(server, &format!("{server}, drain_timeout: 2s")), RULES);
    bridge.run().await;
    let mut stream = TcpStream::connect(bridge.address()).await.expect("a connection");
    let head = "POST /webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("a head");
    assert_eq!(bridge.post(captured("one-firing")).await.status, 200);
    assert!(bridge.stop().await.success());
    let log = bridge.log();
    assert!(log.contains("\"stopped\"") && !log.contains("did not close"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bridge_on_the_same_store_does_not_start() {
    let bridge = Bridge::start().await;
    let second = bridge.command().stdout(Stdio::null()).stderr(Stdio::piped()).output().expect("an exit");
    let says = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{says}");
    assert!(says.contains("another scalebridge uses the store bridge.db"), "{says}");
    assert_eq!(bridge.post(captured("three-firing")).await.status, 200, "the first bridge still runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_a_store_is_not_changed() {
    let bridge = Bridge::new(CONFIG, RULES);
    let file = bridge.dir().join("bridge.db");
    let text = "notes of another program, longer than a page header of a database\n".repeat(100);
    std::fs::write(&file, &text).expect("a file");
    let ended = bridge.command().stdout(Stdio::null()).stderr(Stdio::piped()).output().expect("an exit");
    let says = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{says}");
    assert!(says.contains("bridge.db is not a SQLite database"), "{says}");
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), text);
}
