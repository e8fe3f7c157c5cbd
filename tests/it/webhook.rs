//! The webhook: answers, limits, and the decisions behind a 200.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bridge::{Bridge, CONFIG, RULES, captured, notification, pending_pod, post, resolved};
use crate::support::raw::{Raw, status};
use crate::support::tools::{eventually, get};

#[tokio::test(flavor = "multi_thread")]
async fn three_pods_make_one_event() {
    let bridge = Bridge::start().await;
    let answer = bridge.post(captured("three-firing")).await;
    assert_eq!(answer.json(), json!({ "alerts": 3, "events": 1, "verdicts": { "emitted": 3 } }));
    assert_eq!(bridge.post(captured("three-firing")).await.verdicts(), json!({ "duplicate": 3 }));
    let events = bridge.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["subject"], "eks/nodegroup/-/eu-west-1/prod-eu/-/workers");
    assert_eq!(
        events[0]["data"]["notification"]["group_key"],
        "{}:{alertname=\"KubePodsPending\", cluster=\"prod-eu\"}"
    );
    assert_eq!(
        bridge
            .metric("scalebridge_events_total{source=\"prod-eu\",rule=\"unschedulable-pods\",action=\"scale_out\"}")
            .await,
        1.0
    );
    assert_eq!(bridge.metric("scalebridge_notifications_total{source=\"prod-eu\",code=\"200\"}").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_captured_notification_is_decided() {
    for (name, verdicts) in [
        ("one-firing", json!({ "unmatched": 1 })),
        ("three-firing-0.34-fields", json!({ "emitted": 3 })),
        ("truncated", json!({ "unmatched": 2 })),
        ("one-resolved-three-firing", json!({ "emitted": 3, "no_evidence": 1 })),
        ("all-resolved", json!({ "no_evidence": 3 })),
        ("0.33.1/one-firing", json!({ "unmatched": 1 })),
        ("0.33.1/truncated", json!({ "unmatched": 2 })),
        ("0.33.1/one-resolved-three-firing", json!({ "emitted": 3, "no_evidence": 1 })),
        ("0.33.1/all-resolved", json!({ "no_evidence": 3 })),
    ] {
        let bridge = Bridge::start().await;
        assert_eq!(bridge.post(captured(name)).await.verdicts(), verdicts, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_captured_notifications_of_a_group_are_decided_the_same_in_each_version() {
    for (version, reason) in [("", Value::Null), ("0.33.1/", json!("first notification"))] {
        let bridge = Bridge::start().await;
        let verdicts = async |name: &str| bridge.post(captured(&format!("{version}{name}"))).await.verdicts();
        assert_eq!(verdicts("three-firing").await, json!({ "emitted": 3 }), "{version}");
        let replaced = verdicts("one-resolved-three-firing").await;
        assert_eq!(replaced, json!({ "duplicate": 2, "no_action": 1, "still_open": 1 }), "{version}");
        // These alerts started before the store was created: they are adopted and cannot decrease capacity.
        assert_eq!(verdicts("all-resolved").await, json!({ "no_evidence": 3 }), "{version}");
        let events = bridge.events().await;
        assert_eq!(events.len(), 1, "{version}");
        assert_eq!(events[0]["data"]["notification"]["reason"], reason, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_incident_is_one_more_event() {
    let bridge = Bridge::start().await;
    let (a, b) = (pending_pod("workers", "a"), pending_pod("workers", "b"));
    bridge.post(notification(&[a.clone(), b.clone()])).await;
    let first = bridge.post(notification(&[resolved(&a), b.clone()])).await;
    assert_eq!(first.verdicts(), json!({ "still_open": 1, "duplicate": 1 }));
    // The decrease waits for the delivery of the increase that it answers.
    bridge.wait_delivered("journal").await;
    let last = notification(&[resolved(&b)]);
    assert_eq!(bridge.post(last.as_str()).await.verdicts(), json!({ "emitted": 1 }));
    assert_eq!(bridge.post(last).await.verdicts(), json!({ "duplicate": 1 }));
    let events = bridge.events().await;
    let actions: Vec<_> = events.iter().map(|event| &event["data"]["adjustment"]["value"]).collect();
    assert_eq!(actions, [2, -1]);
    assert_eq!(events[0]["data"]["episode"]["id"], events[1]["data"]["episode"]["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_cannot_speak_for_another_cluster() {
    let bridge = Bridge::start().await;
    let mut alert = pending_pod("workers", "a");
    alert["labels"]["cluster"] = json!("somebody-elses");
    bridge.post(notification(&[alert])).await;
    let events = bridge.events().await;
    assert_eq!(events[0]["data"]["target"]["cluster"], "prod-eu");
    assert_eq!(events[0]["data"]["alerts"][0]["labels"]["cluster"], "prod-eu");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_traceparent_is_propagated_and_an_invalid_one_is_replaced() {
    let bridge = Bridge::start().await;
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let post = async |traceparent: &str, group: &str| {
        let body = notification(&[pending_pod(group, "a")]);
        bridge.post_to("/webhook/prod-eu", &[("traceparent", traceparent)], body).await
    };
    post(given, "workers").await;
    post("nonsense", "others").await;
    let events = bridge.events().await;
    assert_eq!(events[0]["traceparent"], given);
    let id = events[1]["id"].as_str().expect("an id");
    assert_eq!(events[1]["traceparent"], format!("00-{id}-{}-00", &id[..16]));
}

/// Each of these errors invalidates the whole body.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_body_is_rejected_with_the_position_of_the_error() {
    let bridge = Bridge::start().await;
    for (body, expected) in [
        ("", "line 1 column 0"),
        ("nonsense", "line 1 column 2"),
        ("{\"version\":\"4\",\n\"alerts\":[}", "line 2"),
        ("[]", "not an Alertmanager notification"),
        (r#"{"version":"4"}"#, "missing field `alerts`"),
        (r#"{"version":"4","alerts":null}"#, "sequence"),
        (r#"{"version":"4","alerts":"all"}"#, "sequence"),
        (r#"{"version":"3","alerts":[]}"#, "version \"3\""),
        (r#"{"version":4,"alerts":[]}"#, "string"),
        (r#"{"alerts":[]}"#, "version"),
        (r#"{"version":"4","alerts":[]} trailing"#, "trailing"),
    ] {
        let answer = bridge.post(body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        let error = answer.json()["error"].as_str().expect("an error").to_owned();
        assert!(error.contains(expected), "{body}: {error}");
    }
    assert_eq!(bridge.events().await, Vec::<Value>::new());
    assert_eq!(bridge.metric("scalebridge_notifications_total{source=\"prod-eu\",code=\"400\"}").await, 11.0);
}

/// An error in one alert invalidates only this alert.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_alert_does_not_affect_the_others() {
    let bridge = Bridge::start().await;
    let bad = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut alert = pending_pod(name, "bad");
        change(&mut alert);
        alert
    };
    let alerts = [
        bad("status", &|alert| alert["status"] = json!("pending")),
        bad("no-status", &|alert| drop(alert.as_object_mut().and_then(|alert| alert.remove("status")))),
        bad("labels", &|alert| alert["labels"]["n"] = json!(1)),
        bad("label-list", &|alert| alert["labels"] = json!(["a"])),
        bad("fingerprint", &|alert| alert["fingerprint"] = json!("")),
        bad("starts", &|alert| alert["startsAt"] = json!("soon")),
        bad("large", &|alert| alert["annotations"]["summary"] = json!("x".repeat(200_000))),
        bad("target", &|alert| alert["labels"]["nodegroup"] = json!("")),
        json!("not even an object"),
        json!(null),
        pending_pod("good", "a"),
        pending_pod("good", "b"),
    ];
    let answer = bridge.post(notification(&alerts)).await;
    assert_eq!(
        answer.json(),
        json!({ "alerts": 12, "events": 1, "verdicts": { "invalid": 10, "emitted": 2 } })
    );
    assert_eq!(bridge.events().await[0]["data"]["target"]["name"], "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_are_rejected() {
    let bridge = Bridge::start().await;
    assert_eq!(bridge.post_to("/webhook/staging", &[], captured("three-firing")).await.status, 404);
    assert_eq!(bridge.post_to("/webhook/prod-eu/more", &[], "").await.status, 404);
    assert_eq!(bridge.post_to("/webhook/prod-eu/", &[], captured("three-firing")).await.status, 200);
    assert_eq!(bridge.post_to("/webhook/prod-eu//", &[], "").await.status, 404, "only one slash is accepted");
    assert_eq!(bridge.post_to("/", &[], "").await.status, 404);
    assert_eq!(get(&bridge.url("/webhook/prod-eu")).await.expect("an answer").0, 405);
    assert_eq!(
        get(&bridge.url("/metrics")).await.expect("an answer").0,
        404,
        "metrics are served by the admin listener"
    );
    assert_eq!(get(&bridge.url("/-/healthy")).await.expect("an answer").0, 200);
    assert_eq!(bridge.get_admin("/webhook/prod-eu").await.0, 404);
    let odd = bridge.post_to("/webhook/%ff", &[], "").await;
    assert_eq!(odd.status, 404, "a name that is not UTF-8 is an unknown source");
    assert!(odd.json()["error"].is_string());
    // The name of an unknown source never becomes a label.
    assert_eq!(bridge.metric("scalebridge_notifications_total{source=\"\",code=\"404\"}").await, 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzipped_body_is_accepted_and_other_encodings_are_rejected() {
    let bridge = Bridge::start().await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    let headers = [("content-encoding", "gzip")];
    let body = gzip(captured("three-firing").as_bytes());
    assert_eq!(bridge.post_to("/webhook/prod-eu", &headers, body).await.verdicts(), json!({ "emitted": 3 }));
    assert_eq!(bridge.post_to("/webhook/prod-eu", &headers, "plain").await.status, 400);
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert_eq!(bridge.post_to("/webhook/prod-eu", &headers, bomb).await.status, 413);
    let zstd = [("content-encoding", "zstd")];
    assert_eq!(bridge.post_to("/webhook/prod-eu", &zstd, "x").await.status, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_rejected_with_and_without_a_content_length() {
    let bridge = Bridge::start().await;
    let body = vec![b' '; 40 << 20];
    let answer = bridge.post(body).await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("server.max_body_bytes"), "{}", answer.body);
    // Without a content length: one chunk more than the limit.
    let mut stream = TcpStream::connect(bridge.address()).await.expect("a connection");
    let head = "POST /webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("a head");
    let chunk = [format!("{:x}\r\n", 1 << 20).as_bytes(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    for _ in 0..33 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut answer = vec![0; 64];
    let length = stream.read(&mut answer).await.expect("an answer");
    assert!(answer[..length].starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer[..length]));
}

/// 503, since Alertmanager retries after it, unlike after a 4xx.
#[tokio::test(flavor = "multi_thread")]
async fn requests_over_max_in_flight_are_rejected_with_503() {
    let config = CONFIG.replace(
        "server: { listen: \"127.0.0.1:0\" }",
        "server: { listen: \"127.0.0.1:0\", max_in_flight: 1 }",
    );
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let refused = eventually("a rejection", async || {
        let mut posts = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let url = bridge.url("/webhook/prod-eu");
            posts.spawn(async move { post(url, &[], captured("one-firing").into()).await });
        }
        posts.join_all().await.into_iter().find(|answer| answer.status != 200)
    })
    .await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "1"));
    assert!(refused.body.contains("max_in_flight"), "{}", refused.body);
    assert_eq!(bridge.post(captured("one-firing")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_whose_bodies_have_not_arrived_do_not_keep_others_out() {
    let config = CONFIG.replace(
        "server: { listen: \"127.0.0.1:0\" }",
        "server: { listen: \"127.0.0.1:0\", max_in_flight: 1, body_timeout: 10m }",
    );
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let mut unfinished = Vec::new();
    for _ in 0..3 {
        let head = "POST /webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\nexpect: 100-continue\r\n\
                    content-length: 100000\r\n\r\n";
        let mut sender = Raw::request(bridge.address(), head).await;
        // The bridge waits for the body.
        assert_eq!(status(&sender.head().await), 100);
        unfinished.push(sender);
    }
    assert_eq!(bridge.post(captured("one-firing")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sender_gets_503_or_is_disconnected() {
    let config = CONFIG.replace(
        "server: { listen: \"127.0.0.1:0\" }",
        "server: { listen: \"127.0.0.1:0\", header_timeout: 500ms, body_timeout: 4s }",
    );
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let mut stream = TcpStream::connect(bridge.address()).await.expect("a connection");
    let head = "POST /webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("a head");
    let mut answer = vec![0; 12];
    // Within one `body_timeout`: the bridge does not wait for the rest of a body that has timed out.
    let read = tokio::time::timeout(Duration::from_secs(7), stream.read_exact(&mut answer)).await;
    read.expect("an answer in time").expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 503");
    // An incomplete request head: the connection is closed.
    let mut stream = TcpStream::connect(bridge.address()).await.expect("a connection");
    stream.write_all(b"POST /webhook/prod-eu HTTP/1.1\r\nhost: br").await.expect("a part");
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
    ended.expect("an end in time").expect("an end");
    assert_eq!(bridge.post(captured("three-firing")).await.status, 200);
}

/// More alerts than fit into one transaction; the alerts of one target are still decided together.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_notification_is_decided_completely() {
    let config = format!("{CONFIG}engine: {{ scale_in_per_minute: 0 }}\n");
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let alerts: Vec<Value> =
        (0..5000).map(|at| pending_pod(&format!("group-{}", at % 1250), &format!("pod-{at}"))).collect();
    let answer = bridge.post(notification(&alerts)).await;
    assert_eq!(answer.json(), json!({ "alerts": 5000, "events": 1250, "verdicts": { "emitted": 5000 } }));
    let events = bridge.events().await;
    assert_eq!(events.len(), 1250);
    assert!(events.iter().all(|event| event["data"]["alerts_total"] == 4));
    let ends: Vec<Value> = alerts.iter().map(resolved).collect();
    let answer = bridge.post(notification(&ends)).await;
    assert_eq!(answer.json(), json!({ "alerts": 5000, "events": 1250, "verdicts": { "emitted": 5000 } }));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_in_the_format_that_the_scraper_accepts_without_labels_of_alerts() {
    let bridge = Bridge::start().await;
    bridge.post(captured("three-firing")).await;
    bridge.events().await;
    let (status, text) = bridge.get_admin("/metrics").await;
    assert_eq!(status, 200);
    assert!(
        !text.contains("# EOF") && text.contains("\n# TYPE scalebridge_events_total counter\n"),
        "{text}"
    );
    let openmetrics = bridge.openmetrics().await;
    assert!(
        openmetrics.ends_with("# EOF\n") && openmetrics.contains("\n# TYPE scalebridge_events counter\n")
    );
    for name in [
        "scalebridge_notifications_total{",
        "scalebridge_alerts_total{source=\"prod-eu\",status=\"firing\"} 3",
        "scalebridge_decisions_total{rule=\"unschedulable-pods\",verdict=\"emitted\"} 1",
        "scalebridge_events_total{",
        "scalebridge_deliveries_total{destination=\"journal\",result=\"delivered\"} 1",
        "scalebridge_delivery_duration_seconds_count{destination=\"journal\"} 1",
        "scalebridge_alert_to_delivery_seconds_count{destination=\"journal\"} 1",
        "scalebridge_outbox_deliveries{destination=\"journal\",state=\"pending\"} 0",
        "scalebridge_outbox_oldest_seconds{",
        "scalebridge_dead_letters{destination=\"journal\"} 0",
        "scalebridge_destination_up{destination=\"journal\"} 1",
        "scalebridge_config_last_reload_successful 1",
        "scalebridge_config_last_reload_success_timestamp_seconds ",
        "scalebridge_build_info{",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
    ] {
        assert!(text.contains(&format!("\n{name}")), "{name} is missing:\n{text}");
        assert!(openmetrics.contains(&format!("\n{name}")), "{name} is missing:\n{openmetrics}");
    }
    assert!(!text.contains("web-0") && !text.contains("nodegroup"));
}

/// `events.jsonl` is a directory at first, so deliveries fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_backlog_is_answered_with_503_until_it_shrinks() {
    let mut bridge = Bridge::new(CONFIG, RULES);
    bridge.env("SCALEBRIDGE__DELIVERY__MAX_BACKLOG", "2");
    let journal = bridge.dir().join("events.jsonl");
    std::fs::create_dir(&journal).expect("a directory");
    bridge.run().await;
    let post = |group: &str| bridge.post(notification(&[pending_pod(group, "a")]));
    for group in ["one", "two"] {
        assert_eq!(post(group).await.verdicts(), json!({ "emitted": 1 }));
    }
    let refused = post("three").await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.headers.get("retry-after").map(String::as_str), Some("1"));
    assert!(refused.body.contains("delivery.max_backlog"), "{}", refused.body);
    std::fs::remove_dir(&journal).expect("the directory was removed");
    eventually("an accepted notification", async || (post("three").await.status == 200).then_some(())).await;
    assert_eq!(bridge.events().await.len(), 3);
}

/// `max_backlog` of one destination does not limit the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_destination_gets_dead_letters_and_does_not_affect_the_others() {
    let full = "full: { file: { path: full }, max_backlog: 1 }";
    let config = CONFIG.replace("destinations:\n", &format!("destinations:\n  {full}\n"));
    let mut bridge = Bridge::new(&config, &RULES.replace("[journal]", "[journal, full]"));
    std::fs::create_dir(bridge.dir().join("full")).expect("a directory");
    bridge.run().await;
    for group in ["one", "two", "three"] {
        let answer = bridge.post(notification(&[pending_pod(group, "a")])).await;
        assert_eq!(answer.verdicts(), json!({ "emitted": 1 }));
    }
    assert_eq!(bridge.events().await.len(), 3);
    assert_eq!(bridge.metric("scalebridge_dead_letters{destination=\"full\"}").await, 2.0);
}
