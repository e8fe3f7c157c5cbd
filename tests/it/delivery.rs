//! Accepted events reach their destinations independently of each other, on a local AWS.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod, resolved};
use crate::support::queue::{create_function, create_queue, environment, receive_all};
use crate::support::tools::{LocalAws, REGION, eventually, get};

/// A bridge with these destinations in the local AWS.
fn bridge(aws: &LocalAws, destinations: &[(&str, String)]) -> Bridge {
    let mut bridge = Bridge::with_destinations(destinations);
    environment(aws).iter().for_each(|(name, value)| bridge.env(name, value));
    bridge
}

fn sqs(url: &str) -> String {
    format!("sqs: {{ queue_url: \"{url}\", region: {REGION} }}")
}

fn journal() -> String {
    "file: { path: events.jsonl }".to_owned()
}

fn body(message: &aws_sdk_sqs::types::Message) -> Value {
    serde_json::from_str(message.body().expect("a body")).expect("an event")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_in_a_standard_queue_once() {
    use aws_sdk_sqs::types::MessageSystemAttributeName as System;
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let url = create_queue(&aws, "scaling").await;
    let mut bridge = bridge(&aws, &[("queue", sqs(&url))]);
    bridge.run().await;
    for part in 0..5 {
        let alerts: Vec<Value> = (0..9).map(|at| pending_pod(&format!("group-{part}-{at}"), "a")).collect();
        assert_eq!(bridge.post(notification(&alerts)).await.verdicts(), json!({ "emitted": 9 }));
    }
    bridge.wait_delivered("queue").await;
    let received = receive_all(&aws, &url).await;
    let mut names: Vec<String> =
        received.iter().map(|message| body(message)["data"]["target"]["name"].to_string()).collect();
    names.sort();
    names.dedup();
    assert_eq!((received.len(), names.len()), (45, 45));
    let group = received[0].attributes().and_then(|system| system.get(&System::MessageGroupId));
    assert_eq!(group.map(String::as_str), Some("prod-eu"), "fair queues share by message group, the source");
}

/// While the queue is missing, deliveries fail and are retried. What answers them waits, and comes in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_created_later_gets_every_target_in_order() {
    use aws_sdk_sqs::types::QueueAttributeName::FifoQueue;
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let url = format!("{}/000000000000/scaling.fifo", aws.url());
    let mut bridge = bridge(&aws, &[("queue", sqs(&url)), ("journal", journal())]);
    bridge.run().await;
    let pods = |group: &str, count: usize| {
        (0..count).map(|at| pending_pod(group, &format!("pod-{at}"))).collect::<Vec<Value>>()
    };
    for count in 1..=4 {
        for group in ["a", "b", "c"] {
            bridge.post(notification(&pods(group, count))).await;
        }
    }
    let ends: Vec<Value> = pods("a", 4).iter().map(resolved).collect();
    assert_eq!(bridge.post(notification(&ends)).await.verdicts(), json!({ "cooling_down": 4 }));
    eventually("a retry", async || {
        let series = "scalebridge_deliveries_total{destination=\"queue\",result=\"retry\"}";
        (bridge.metric(series).await >= 2.0).then_some(())
    })
    .await;
    assert_eq!(bridge.metric("scalebridge_destination_up{destination=\"queue\"}").await, 0.0);
    assert_eq!(bridge.events().await.len(), 3, "an unavailable queue does not delay other destinations");
    let (status, ready) = get(&bridge.url("/-/ready")).await.expect("an answer");
    let lines: Vec<&str> = ready.lines().collect();
    assert_eq!((status, lines.len(), lines[0]), (200, 2, "scalebridge is ready"), "{ready}");
    assert!(lines[1].starts_with("destination queue unavailable, operator action required: "), "{ready}");

    aws.sqs()
        .create_queue()
        .queue_name("scaling.fifo")
        .attributes(FifoQueue, "true")
        .send()
        .await
        .expect("a queue");
    bridge.wait_settled(&["queue"]).await;
    assert_eq!(bridge.metric("scalebridge_destination_up{destination=\"queue\"}").await, 1.0);
    let ready = get(&bridge.url("/-/ready")).await.expect("an answer");
    assert_eq!(ready, (200, "scalebridge is ready\n".to_owned()));
    let received: Vec<Value> = receive_all(&aws, &url).await.iter().map(body).collect();
    assert_eq!(received.len(), 6);
    for group in ["a", "b", "c"] {
        let of_group = received.iter().filter(|event| event["data"]["target"]["name"] == group);
        let (sequences, found): (Vec<u64>, Vec<_>) = of_group
            .map(|event| {
                let sequence = event["sequence"].as_str().and_then(|text| text.parse::<u64>().ok());
                (sequence.expect("a number"), (&event["data"]["action"], &event["data"]["alerts_total"]))
            })
            .unzip();
        assert!(sequences.is_sorted(), "{group}: {sequences:?}");
        let last = if group == "a" { "scale_in" } else { "scale_out" };
        assert_eq!(found, [(&json!("scale_out"), &json!(1)), (&json!(last), &json!(4))], "{group}");
    }
}

/// `request_response`: an error of the function is a failed delivery although the call succeeds. The function
/// needs a queue that is created later.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_function_invocation_is_retried() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let url = format!("{}/000000000000/handled", aws.url());
    let code = format!(
        "import json, boto3\n\ndef handler(event, context):\n    \
         boto3.client('sqs').send_message(QueueUrl='{url}', MessageBody=json.dumps(event))\n"
    );
    create_function(&aws, dir.path(), "scaler", &code);
    let lambda =
        format!("lambda: {{ function: scaler, invocation_type: request_response, region: {REGION} }}");
    let mut bridge = bridge(&aws, &[("function", lambda)]);
    bridge.run().await;
    assert_eq!(bridge.post(notification(&[pending_pod("a", "a")])).await.verdicts(), json!({ "emitted": 1 }));
    eventually("a retry", async || {
        let series = "scalebridge_deliveries_total{destination=\"function\",result=\"retry\"}";
        (bridge.metric(series).await >= 1.0).then_some(())
    })
    .await;

    assert_eq!(create_queue(&aws, "handled").await, url);
    bridge.wait_delivered("function").await;
    let handled = receive_all(&aws, &url).await;
    assert_eq!(handled.len(), 1);
    assert_eq!(body(&handled[0])["data"]["target"]["name"], "a");
}

/// A call with several events: the function reports those that failed, and only they are retried.
#[tokio::test(flavor = "multi_thread")]
async fn only_events_that_a_function_reports_as_failed_are_retried() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let url = create_queue(&aws, "handled").await;
    // The function handles the first event of each call and reports the others as failed.
    let code = format!(
        "import json, boto3\n\ndef handler(events, context):\n    \
             failed = [{{'itemIdentifier': event['id']}} for event in events[1:]]\n    \
             boto3.client('sqs').send_message(QueueUrl='{url}', MessageBody=json.dumps(events[0]))\n    \
             return {{'batchItemFailures': failed}}\n"
    );
    create_function(&aws, dir.path(), "scaler", &code);
    let lambda = format!(
        "lambda: {{ function: scaler, invocation_type: request_response, per_target_order: true, \
         max_events: 10, region: {REGION} }}"
    );
    let mut bridge = bridge(&aws, &[("function", lambda)]);
    bridge.run().await;
    let alerts: Vec<Value> = (0..6).map(|at| pending_pod(&format!("group-{at}"), "a")).collect();
    assert_eq!(bridge.post(notification(&alerts)).await.verdicts(), json!({ "emitted": 6 }));
    bridge.wait_delivered("function").await;
    let mut handled: Vec<String> = receive_all(&aws, &url)
        .await
        .iter()
        .map(|message| body(message)["data"]["target"]["name"].to_string())
        .collect();
    handled.sort();
    assert_eq!(handled, (0..6).map(|at| format!("\"group-{at}\"")).collect::<Vec<_>>());
    let retries = "scalebridge_deliveries_total{destination=\"function\",result=\"retry\"}";
    assert!(bridge.metric(retries).await >= 5.0);
}

/// Starts a proxy that records the requests to STS and forwards them to the local AWS. Returns its address and the
/// recorded requests.
async fn sts_proxy(aws: &LocalAws) -> (String, Arc<Mutex<Vec<String>>>) {
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let (recorded, url) = (Arc::clone(&requests), aws.url());
    let forward = move |headers: axum::http::HeaderMap, body: String| {
        recorded.lock().expect("the lock is not poisoned").push(body.clone());
        let mut call = ureq::post(&format!("{url}/"));
        for name in ["authorization", "content-type", "x-amz-date"] {
            call = call.header(name, headers[name].to_str().expect("text"));
        }
        async move {
            let call = move || {
                let mut answer = call.send(body).expect("an answer");
                (answer.status(), answer.body_mut().read_to_string().expect("text"))
            };
            tokio::task::spawn_blocking(call).await.expect("a call")
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("its address"));
    let router = axum::Router::new().fallback(forward);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, requests)
}

/// With `role_arn` the bridge assumes the role once and reuses the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_called_with_the_role_of_its_destination() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let url = create_queue(&aws, "scaling").await;
    let queue = format!(
        "sqs: {{ queue_url: \"{url}\", region: {REGION}, \
         role_arn: \"arn:aws:iam::000000000000:role/scaling\", external_id: x-1 }}"
    );
    let (sts, requests) = sts_proxy(&aws).await;
    let mut bridge = bridge(&aws, &[("queue", queue)]);
    bridge.env("AWS_ENDPOINT_URL_STS", &sts);
    bridge.run().await;
    for group in ["a", "b"] {
        bridge.post(notification(&[pending_pod(group, "a")])).await.verdicts();
        bridge.wait_delivered("queue").await;
    }
    assert_eq!(receive_all(&aws, &url).await.len(), 2);
    let requests = requests.lock().expect("the lock is not poisoned").clone();
    assert_eq!(requests.len(), 1, "the session is reused: {requests:?}");
    for part in ["Action=AssumeRole", "role%2Fscaling", "ExternalId=x-1", "RoleSessionName=scalebridge-queue"]
    {
        assert!(requests[0].contains(part), "{part}: {requests:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stdout_has_events_and_nothing_else() {
    let config = CONFIG.replace("file: { path: events.jsonl }", "file: { path: \"-\" }");
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let alerts: Vec<Value> = (0..3).map(|at| pending_pod(&format!("group-{at}"), "a")).collect();
    bridge.post(notification(&alerts)).await;
    bridge.wait_delivered("journal").await;
    assert!(bridge.stop().await.success());
    let text = std::fs::read_to_string(bridge.dir().join("stdout")).expect("its stdout");
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("one event per line")).collect();
    assert_eq!(events.len(), 3);
}

/// Some errors of the SDK quote the whole request. The log must not.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_failure_does_not_contain_the_event() {
    let queue = sqs("https://sqs.eu-west-1.amazonaws.com/123456789012/scaling");
    let config =
        CONFIG.replace("journal: { file: { path: events.jsonl } }", &format!("journal: {{ {queue} }}"));
    let mut bridge = Bridge::new(&config, RULES);
    for (name, value) in
        [("AWS_ENDPOINT_URL", "no URL"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]
    {
        bridge.env(name, value);
    }
    bridge.run().await;
    bridge.post(notification(&[pending_pod("a", "a")])).await;
    let log = eventually("a failure", async || {
        let log = bridge.log();
        log.contains("destination unavailable").then_some(log)
    })
    .await;
    assert!(log.contains("failed to apply endpoint `no URL`"), "{log}");
    assert!(!log.contains("specversion"), "{log}");
}

/// Missing credentials need operator action: they are reported by `/-/ready` and logged once.
#[tokio::test(flavor = "multi_thread")]
async fn missing_credentials_are_reported() {
    let queue = sqs("https://sqs.eu-west-1.amazonaws.com/123456789012/scaling");
    let config =
        CONFIG.replace("journal: { file: { path: events.jsonl } }", &format!("journal: {{ {queue} }}"));
    let mut bridge = Bridge::new(&config, RULES);
    for (name, value) in [
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ] {
        bridge.env(name, value);
    }
    bridge.run().await;
    bridge.post(notification(&[pending_pod("a", "a")])).await;
    let line = eventually("a failure", async || {
        let (status, ready) = get(&bridge.url("/-/ready")).await.expect("an answer");
        assert_eq!(status, 200);
        ready.lines().nth(1).map(ToOwned::to_owned)
    })
    .await;
    assert!(line.starts_with("destination journal unavailable, operator action required: "), "{line}");
    assert!(line.contains("credential"), "{line}");
    let found = bridge
        .log()
        .lines()
        .filter(|line| line.contains("destination unavailable, operator action required"))
        .count();
    assert_eq!(found, 1, "{}", bridge.log());
}

/// Any JSON string is delivered and read back unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_an_alert_can_poison_a_queue() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let url = create_queue(&aws, "scaling").await;
    let mut bridge = bridge(&aws, &[("queue", sqs(&url))]);
    bridge.run().await;
    let odd: String =
        ('\u{0}'..'\u{3000}').chain(['\u{FFFD}', '\u{FFFE}', '\u{FFFF}', '\u{1F4A5}']).collect();
    let mut alert = pending_pod("a", "a");
    alert["annotations"]["summary"] = json!(odd);
    alert["labels"]["nodegroup"] = json!("näme/with \u{7}\u{FFFF} odd % characters");
    assert_eq!(bridge.post(notification(&[alert])).await.verdicts(), json!({ "emitted": 1 }));
    bridge.wait_delivered("queue").await;
    let received = receive_all(&aws, &url).await;
    let accepted = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..);
    assert!(received[0].body().expect("a body").chars().all(accepted), "SQS would reject the body");
    let event = body(&received[0]);
    assert_eq!(event["data"]["alerts"][0]["annotations"]["summary"], odd);
    assert_eq!(event["data"]["target"]["name"], "näme/with \u{7}\u{FFFF} odd % characters");
}

/// An event that is emitted and not delivered yet is not sent while a pause covers it, and delays nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_withholds_an_increase_that_is_emitted_and_not_delivered() {
    let mut bridge = Bridge::with_destinations(&[("sink", "file: { path: sink/events.jsonl }".to_owned())]);
    // The directory cannot be created.
    bridge.write("sink", "");
    bridge.run().await;
    let emit = async |group: &str| {
        let answer = bridge.post(notification(&[pending_pod(group, "a")])).await;
        assert_eq!(answer.verdicts(), json!({ "emitted": 1 }));
    };
    emit("a").await;
    let retries = "scalebridge_deliveries_total{destination=\"sink\",result=\"retry\"}";
    eventually("a retry", async || (bridge.metric(retries).await >= 1.0).then_some(())).await;
    let pause = json!({ "target": "*/a", "author": "ann", "reason": "no more nodes" });
    let (status, pause) = bridge.api("POST", "/api/v1/pauses", Some(pause)).await;
    assert_eq!((status, &pause["undelivered_events"]), (201, &json!(1)), "{pause}");
    assert!(pause["calls_in_flight"].as_u64().is_some_and(|calls| calls <= 1), "{pause}");

    std::fs::remove_file(bridge.dir().join("sink")).expect("removed");
    let delivered = || {
        let text = std::fs::read_to_string(bridge.dir().join("sink/events.jsonl")).unwrap_or_default();
        let events = text.lines().map(|line| serde_json::from_str(line).expect("an event"));
        events.map(|event: Value| event["data"]["target"]["name"].clone()).collect::<Vec<_>>()
    };
    // It takes the place of the withheld one, also as the probe of the circuit breaker.
    emit("b").await;
    eventually("the other event", async || (!delivered().is_empty()).then_some(())).await;
    assert_eq!(delivered(), ["b"]);

    assert_eq!(bridge.api("DELETE", &format!("/api/v1/pauses/{}", pause["id"]), None).await.0, 200);
    eventually("the event after the pause", async || (delivered().len() == 2).then_some(())).await;
    assert_eq!(delivered(), ["b", "a"]);
}

/// A destination that fails gives its events up when they are too old; then it is not said to fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_gave_everything_up_has_nothing_to_deliver_and_the_next_event_is_sent_at_once() {
    let sink = "file: { path: sink/events.jsonl }, max_age: 3s".to_owned();
    let mut bridge = Bridge::with_destinations(&[("sink", sink)]);
    bridge.write("sink", "");
    bridge.run().await;
    // Their episodes close: events of open ones are tried for ever.
    let alerts = ["a", "b", "c", "d"].map(|group| pending_pod(group, "a"));
    bridge.post(notification(&alerts)).await;
    bridge.post(notification(&alerts.each_ref().map(resolved))).await;
    let destination = async || bridge.get_json("/api/v1/destinations").await[0].clone();
    eventually("dead letters", async || (destination().await["dead_letters"] == 4).then_some(())).await;
    let idle = eventually("nothing to deliver", async || {
        let found = destination().await;
        found["idle_since"].is_string().then_some(found)
    })
    .await;
    assert_eq!(idle.get("failing"), None, "{idle}");
    assert!(idle["last_error"].as_str().is_some_and(|error| error.contains("sink")), "{idle}");
    let (_, ready) = get(&bridge.url("/-/ready")).await.expect("an answer");
    assert!(ready.contains("destination sink has nothing to deliver since "), "{ready}");
    let (_, status, _) = bridge.cli(&["status"]);
    assert!(status.contains("nothing to deliver since "), "{status}");

    std::fs::remove_file(bridge.dir().join("sink")).expect("removed");
    bridge.post(notification(&[pending_pod("e", "a")])).await;
    bridge.wait_delivered("sink").await;
    assert_eq!(bridge.metric("scalebridge_destination_up{destination=\"sink\"}").await, 1.0);
    assert_eq!(destination().await.get("idle_since"), None);
}
