//! Through a queue, by a worker.

use serde_json::{Value, json};

use crate::bridge::{ALERTS, Bridge, now};
use crate::process::eventually;
use crate::setup::{BEFORE, Cloud, Worker, scaler_config};

/// Receives what the bridge sends, and sends every message twice to another queue.
pub(crate) async fn double(cloud: &Cloud, from: &str, to: &str, messages: usize) {
    let mut sent = 0;
    eventually("all messages of the bridge", async || {
        for body in cloud.receive(from).await {
            for copy in ["first", "second"] {
                let event: Value = serde_json::from_str(&body).unwrap();
                let send = cloud.sqs.send_message().queue_url(to).message_body(&body);
                let send = send.message_group_id(event["subject"].as_str().unwrap().replace('/', "."));
                let id = format!("{}-{copy}", event["id"].as_str().unwrap());
                send.message_deduplication_id(id).send().await.unwrap();
            }
            sent += 1;
        }
        (sent >= messages).then_some(())
    })
    .await;
    assert_eq!(sent, messages);
}

#[tokio::test]
async fn every_platform_changes_once_although_every_message_comes_twice() {
    let cloud = Cloud::start().await;
    let (sent, queue) = (cloud.queue("sent.fifo", 30).await, cloud.queue("scaling.fifo", 30).await);
    let mut worker = Worker::start(&cloud, scaler_config(Some(&queue), None), &[]).await;
    let destination = format!("sqs: {{ queue_url: \"{sent}\" }}");
    let mut bridge = Bridge::start(&destination, &cloud.environment()).await;
    assert_eq!(cloud.capacities().await, BEFORE);

    let started = now();
    for alert in ALERTS {
        bridge.notify(alert, &started, None).await;
    }
    double(&cloud, &sent, &queue, 3).await;
    eventually("both copies", async || (worker.lines("event").len() == 6).then_some(())).await;
    assert_eq!(cloud.capacities().await, [7, 8, 9]);
    assert_eq!((worker.outcomes("applied"), worker.outcomes("already_applied")), (3, 3));

    for alert in ALERTS {
        bridge.notify(alert, &started, Some(&now())).await;
    }
    double(&cloud, &sent, &queue, 3).await;
    eventually("both copies", async || (worker.lines("event").len() == 12).then_some(())).await;
    assert_eq!(cloud.capacities().await, BEFORE);
    assert_eq!((worker.outcomes("applied"), worker.outcomes("already_applied")), (6, 6));

    let (status, metrics) = worker.get("/metrics").await;
    assert_eq!(status, 200);
    for series in [
        r#"scalebridge_scaler_events_total{platform="eks",outcome="applied"} 2"#,
        r#"scalebridge_scaler_events_total{platform="ecs",outcome="already_applied"} 2"#,
        r#"scalebridge_scaler_capacity_change_total{direction="increase"} 9"#,
        r#"scalebridge_scaler_capacity_change_total{direction="decrease"} 9"#,
        "scalebridge_scaler_ledger_errors_total 0",
    ] {
        assert!(metrics.lines().any(|line| line == series), "{series} in\n{metrics}");
    }
    assert_eq!(worker.get("/-/ready").await.0, 200);
    eventually("deleted messages", async || cloud.is_empty(&queue).await.then_some(())).await;
    assert_eq!(worker.process.stop().await, Some(0));
}

/// An event for the group `web`, or another one. `number` gives its id and its sequence.
pub(crate) fn event(number: u32, change: i64, name: &str) -> String {
    let (kind, action) = match change > 0 {
        true => ("io.scalebridge.scale_out.v1", "scale_out"),
        false => ("io.scalebridge.scale_in.v1", "scale_in"),
    };
    json!({
        "specversion": "1.0", "id": format!("{number:032x}"), "source": "/scalebridge/test", "type": kind,
        "subject": format!("ec2/autoscaling-group/-/eu-west-1/-/-/{name}"), "time": "2026-11-30T10:00:00Z",
        "sequence": number.to_string(), "expirytime": "2126-11-30T10:00:00Z",
        "data": {
            "rule": "group", "action": action, "reason": "1 alert firing",
            "target": { "platform": "ec2", "kind": "autoscaling-group", "name": name, "region": "eu-west-1" },
            "adjustment": { "type": "ChangeInCapacity", "value": change },
        },
    })
    .to_string()
}

pub(crate) async fn send(cloud: &Cloud, queue: &str, event: String) {
    cloud.sqs.send_message().queue_url(queue).message_body(event).send().await.unwrap();
}

#[tokio::test]
async fn increases_have_the_same_sum_in_any_order_and_a_late_decrease_is_skipped() {
    let cloud = Cloud::start().await;
    let queue = cloud.queue("scaling", 30).await;
    let mut worker = Worker::start(&cloud, scaler_config(Some(&queue), None), &[]).await;
    for number in [3, 1, 2] {
        send(&cloud, &queue, event(number, 1 << number, "web")).await;
        let answered = number.to_string();
        eventually("its answer", async || {
            let lines = worker.lines("event");
            lines.into_iter().find(|line| line["sequence"] == answered.as_str())
        })
        .await;
    }
    assert_eq!(cloud.capacities().await[1], 5 + 2 + 4 + 8);
    // It is older than the last increase.
    send(&cloud, &queue, event(2, -3, "web").replace(&format!("{:032x}", 2), &format!("{:032x}", 20))).await;
    let line = eventually("its answer", async || {
        worker.lines("event").into_iter().find(|line| line["outcome"] == "overtaken")
    })
    .await;
    assert_eq!(line["reason"], "a later event of the target was applied before");
    assert_eq!(cloud.capacities().await[1], 5 + 2 + 4 + 8);
    eventually("deleted messages", async || cloud.is_empty(&queue).await.then_some(())).await;
    assert_eq!(worker.process.stop().await, Some(0));
}

#[tokio::test]
async fn a_refused_event_blocks_nothing_and_is_kept_for_an_operator() {
    let cloud = Cloud::start().await;
    let (queue, refusals) = (cloud.queue("scaling.fifo", 30).await, cloud.queue("refusals.fifo", 30).await);
    let worker = Worker::start(&cloud, scaler_config(Some(&queue), Some(&refusals)), &[]).await;
    let events = [event(1, 2, "other"), "no event".to_owned(), event(2, 3, "web")];
    for (number, body) in events.iter().enumerate() {
        let send = cloud.sqs.send_message().queue_url(&queue).message_body(body);
        let send = send.message_group_id("one").message_deduplication_id(number.to_string());
        send.send().await.unwrap();
    }
    eventually("the last one of the group", async || (worker.outcomes("applied") == 1).then_some(())).await;
    assert_eq!((cloud.capacities().await[1], worker.outcomes("refused")), (8, 2));
    let mut kept: Vec<Value> = Vec::new();
    eventually("both refused events", async || {
        kept.extend(cloud.receive(&refusals).await.iter().map(|body| serde_json::from_str(body).unwrap()));
        (kept.len() == 2).then_some(())
    })
    .await;
    assert_eq!(kept[0]["event"]["id"], "00000000000000000000000000000001");
    let reason = "no pattern of `targets` matches ec2/autoscaling-group/-/eu-west-1/-/-/other";
    assert_eq!(kept[0]["answer"]["reason"], reason);
    assert_eq!((&kept[1]["event"], &kept[1]["answer"]["outcome"]), (&json!("no event"), &json!("refused")));
}
