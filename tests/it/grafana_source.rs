//! Grafana's webhook contact point: its bodies, its signatures, and what a stranger can do without a key.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::support::bridge::{Answer, Bridge, CONFIG, now};
use crate::support::raw::{Raw, status};
use crate::support::secrets::secret;
use crate::support::signing::hmac_hex;
use crate::support::tools::eventually;

const KEY: &str = "grafana-key-4801";
const NEXT_KEY: &str = "grafana-key-4802";
const TOKEN: &str = "grafana-token-4803";
const SIGNATURE: &str = "X-Grafana-Alerting-Signature";
const TIMESTAMP: &str = "X-Grafana-Alerting-Timestamp";

/// Adds two nodes for each queue that is too long, and takes them back.
const RULES: &str = r#"
rules:
  - name: long-queues
    matchers: [alertname = QueueTooLong]
    target: { platform: eks, kind: nodegroup, name: "{{ labels.nodegroup }}", cluster: "{{ labels.cluster }}" }
    on_firing: { scale_out: { metric: "{{ annotations.value_B }}", steps: [{ from: 0, by: 1 }, { from: 40, by: 3 }] }, cooldown: 0s }
    on_resolved: { scale_in: { revert: true }, stabilization_window: 0s, cooldown: 0s }
    send_to: [journal]
  - name: no-data
    matchers: ['alertname =~ "DatasourceNoData|DatasourceError"']
    target: { cluster: "{{ labels.cluster }}" }
    on_firing: { hold: { blocks: [scale_in], max_duration: 1d } }
"#;

fn config(auth: &str) -> String {
    let source = format!("prod-eu: {{ kind: grafana, late_window: 0s, {auth}");
    CONFIG.replace("prod-eu: {", &source)
}

async fn start(auth: &str) -> Bridge {
    let mut bridge = Bridge::new(&config(auth), RULES);
    for (file, key) in [("grafana.token", KEY), ("bearer.token", TOKEN)] {
        bridge.write(file, &secret(key));
    }
    bridge.run().await;
    bridge
}

/// Signed with a time.
async fn signed_bridge() -> Bridge {
    start(&format!("auth: {{ hmac: {{ key_files: [grafana.token], timestamp_header: {TIMESTAMP} }} }},"))
        .await
}

/// A body as Grafana sends it.
fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/grafana/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(&path).expect("a body")).expect("JSON")
}

/// The same body with alerts that have begun now, and have ended now if they have resolved.
fn at_present(name: &str, begun: &str) -> String {
    let mut body = fixture(name);
    for alert in body["alerts"].as_array_mut().expect("alerts") {
        alert["startsAt"] = json!(begun);
        if alert["status"] == "resolved" {
            alert["endsAt"] = json!(now());
        }
    }
    body.to_string()
}

fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn signed_at(key: &str, time: i64, body: &[u8]) -> [(&'static str, String); 2] {
    let time = time.to_string();
    let signature = hmac_hex(key, &[time.as_bytes(), b":", body].concat());
    [(SIGNATURE, signature), (TIMESTAMP, time)]
}

async fn post(bridge: &Bridge, headers: &[(&'static str, String)], body: &[u8]) -> Answer {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    bridge.post_to("/webhook/prod-eu", &headers, body).await
}

async fn send(bridge: &Bridge, body: &str) -> Answer {
    post(bridge, &signed_at(KEY, unix_now(), body.as_bytes()), body.as_bytes()).await
}

async fn refused(bridge: &Bridge, reason: &str) -> f64 {
    bridge
        .metric(&format!("scalebridge_auth_failures_total{{listener=\"server\",reason=\"{reason}\"}}"))
        .await
}

fn adjustments(events: &[Value]) -> Vec<(Value, Value)> {
    let of = |event: &Value| (event["data"]["action"].clone(), event["data"]["adjustment"]["value"].clone());
    events.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_notification_scales_out_by_its_values_once_and_back_when_it_is_over() {
    let bridge = signed_bridge().await;
    let begun = now();
    let firing = at_present("12.4/two-firing", &begun);
    let first = signed_at(KEY, unix_now(), firing.as_bytes());
    let answer = post(&bridge, &first, firing.as_bytes()).await;
    assert_eq!(answer.verdicts(), json!({ "emitted": 2 }));
    // The same request again, as Grafana or someone else repeats it, and a later one.
    assert_eq!(post(&bridge, &first, firing.as_bytes()).await.verdicts(), json!({ "duplicate": 2 }));
    assert_eq!(send(&bridge, &firing).await.verdicts(), json!({ "duplicate": 2 }));
    bridge.wait_delivered("journal").await;

    let half = at_present("12.4/one-resolved-one-firing", &begun);
    assert_eq!(send(&bridge, &half).await.verdicts(), json!({ "still_open": 1, "duplicate": 1 }));
    let over = half.replace("\"firing\"", "\"resolved\"").replace("0001-01-01T00:00:00Z", &now());
    assert_eq!(send(&bridge, &over).await.verdicts(), json!({ "duplicate": 1, "emitted": 1 }));
    let events = bridge.events().await;
    assert_eq!(
        adjustments(&events),
        [(json!("scale_out"), json!(3)), (json!("scale_in"), json!(-3))],
        "44.2 is above 40"
    );
    assert_eq!(events[0]["data"]["notification"]["receiver"], "scalebridge");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_valid_signature_is_refused_and_leaves_nothing() {
    let bridge = signed_bridge().await;
    let body = at_present("12.4/two-firing", &now());
    let (bytes, time) = (body.as_bytes(), unix_now());
    let [signature, _] = signed_at(KEY, time, bytes);
    let with_body = signed_at(KEY, time, b"another body");
    for (headers, reason, says) in [
        (vec![], "missing", "requires credentials"),
        (vec![signature.clone()], "missing_timestamp", "Timestamp Header"),
        (signed_at(KEY, time - 400, bytes).to_vec(), "expired", "clocks"),
        (signed_at(KEY, time + 400, bytes).to_vec(), "expired", "clocks"),
        (signed_at(NEXT_KEY, time, bytes).to_vec(), "wrong", "sources.prod-eu.auth"),
        (with_body.to_vec(), "wrong", "sources.prod-eu.auth"),
        (
            vec![(SIGNATURE, hmac_hex(KEY, bytes)), (TIMESTAMP, time.to_string())],
            "wrong",
            "sources.prod-eu.auth",
        ),
        (
            vec![(SIGNATURE, "sha256=00".to_owned()), (TIMESTAMP, time.to_string())],
            "malformed",
            "sources.prod-eu",
        ),
        (vec![("authorization", format!("Bearer {TOKEN}"))], "wrong", "sources.prod-eu.auth"),
    ] {
        let before = refused(&bridge, reason).await;
        let answer = post(&bridge, &headers, bytes).await;
        assert_eq!(answer.status, 401, "{headers:?}: {}", answer.body);
        assert!(answer.body.contains(says), "{headers:?}: {}", answer.body);
        assert!(answer.headers.contains_key("www-authenticate"), "{answer:?}");
        assert_eq!(refused(&bridge, reason).await, before + 1.0, "{reason}");
    }
    let status = bridge.get_json("/api/v1/status").await;
    assert_eq!(status["reception_gaps"], json!({}), "a stranger makes no gap");
    assert_eq!(bridge.all_decisions().await, Vec::<Value>::new());
    assert_eq!(send(&bridge, &body).await.verdicts(), json!({ "emitted": 2 }));
    let sources = bridge.get_json("/api/v1/sources").await;
    assert_eq!(sources[0]["auth"], json!(["hmac"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_by_its_files_beside_a_token_and_an_unreadable_one_is_a_gap() {
    let hmac = format!("hmac: {{ key_files: [grafana.token, next.token], timestamp_header: {TIMESTAMP} }}");
    let bridge = start(&format!("auth: {{ {hmac}, bearer_token_files: [bearer.token] }},")).await;
    let body = at_present("12.4/two-firing", &now());
    let with =
        async |key: &str| post(&bridge, &signed_at(key, unix_now(), body.as_bytes()), body.as_bytes()).await;
    assert_eq!(with(KEY).await.status, 200, "one key is enough");
    let bearer = [("authorization", format!("Bearer {TOKEN}"))];
    assert_eq!(post(&bridge, &bearer, body.as_bytes()).await.status, 200, "or another method");

    let unreadable = with(NEXT_KEY).await;
    assert_eq!((unreadable.status, &*unreadable.headers["retry-after"]), (503, "1"), "{}", unreadable.body);
    assert!(!unreadable.body.contains("next.token"), "{}", unreadable.body);
    let status = bridge.get_json("/api/v1/status").await;
    assert_eq!(status["reception_gaps"]["prod-eu"]["cause"], "refused", "it may be the source");
    assert!(status["auth_errors"]["prod-eu"].as_str().is_some_and(|error| error.contains("next.token")));

    bridge.write("next.token", &secret(NEXT_KEY));
    eventually("the new key", async || (with(NEXT_KEY).await.status == 200).then_some(())).await;
    assert_eq!(with(KEY).await.status, 200, "both");
    bridge.write("grafana.token", NEXT_KEY);
    eventually("the end of the old key", async || (with(KEY).await.status == 401).then_some(())).await;
    assert_eq!(with(NEXT_KEY).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_is_the_body_as_it_is_sent() {
    let bridge = signed_bridge().await;
    let body = at_present("12.4/two-firing", &now());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body.as_bytes()).expect("gzip");
    let gzip = encoder.finish().expect("gzip");
    let encoded = |headers: [(&'static str, String); 2]| {
        let [signature, time] = headers;
        [signature, time, ("content-encoding", "gzip".to_owned())]
    };
    let of_the_text = encoded(signed_at(KEY, unix_now(), body.as_bytes()));
    assert_eq!(post(&bridge, &of_the_text, &gzip).await.status, 401);
    let of_the_bytes = encoded(signed_at(KEY, unix_now(), &gzip));
    assert_eq!(post(&bridge, &of_the_bytes, &gzip).await.verdicts(), json!({ "emitted": 2 }));
    // Past the signature, what is wrong is told, and it is a gap.
    let broken = b"not gzip";
    assert_eq!(post(&bridge, &encoded(signed_at(KEY, unix_now(), broken)), broken).await.status, 400);
    let status = bridge.get_json("/api/v1/status").await;
    assert_eq!(status["reception_gaps"]["prod-eu"]["cause"], "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_take_the_memory_of_senders_that_are_known() {
    let hmac = format!("hmac: {{ key_files: [grafana.token], timestamp_header: {TIMESTAMP} }}");
    let text = config(&format!("auth: {{ {hmac}, bearer_token_files: [bearer.token] }},"));
    let text = text.replace(
        "\"127.0.0.1:0\" }\nadmin",
        "\"127.0.0.1:0\", max_body_bytes: 100000, max_in_flight_bytes: 250000 }\nadmin",
    );
    let mut bridge = Bridge::new(&text, RULES);
    bridge.write("grafana.token", &secret(KEY));
    bridge.write("bearer.token", &secret(TOKEN));
    bridge.run().await;
    // Bodies that do not end, of requests that claim a signature.
    let head = format!(
        "POST /webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\n{SIGNATURE}: {}\r\n{TIMESTAMP}: {}\r\ncontent-length: 100000\r\n\r\n",
        "0".repeat(64),
        unix_now()
    );
    let mut strangers = Vec::new();
    for _ in 0..5 {
        strangers.push(Raw::request(bridge.address(), [head.as_bytes(), &[b' '; 60_000]].concat()).await);
    }
    let mut answers = BTreeMap::new();
    for stranger in strangers.iter_mut().skip(1) {
        *answers.entry(status(&stranger.head().await)).or_insert(0) += 1;
    }
    assert_eq!(answers, BTreeMap::from([(503, 4)]), "one of them has the memory of all strangers");
    let body = at_present("12.4/two-firing", &now());
    let bearer = [("authorization", format!("Bearer {TOKEN}"))];
    assert_eq!(post(&bridge, &bearer, body.as_bytes()).await.verdicts(), json!({ "emitted": 2 }));
    assert_eq!(send(&bridge, &body).await.verdicts(), json!({ "duplicate": 2 }), "small bodies still fit");
    let status = bridge.get_json("/api/v1/status").await;
    assert_eq!(
        status["reception_gaps"]["prod-eu"]["cause"], "refused",
        "one of those without memory may have been the source"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_of_grafana_is_decided_and_another_one_refused_with_the_fix() {
    for (name, verdicts) in [
        ("9.3/two-firing", json!({ "invalid": 2 })),
        ("12.4/test-notification", json!({ "unmatched": 1 })),
        ("12.4/truncated", json!({ "emitted": 2 })),
    ] {
        let bridge = start("").await;
        assert_eq!(bridge.post(at_present(name, &now())).await.verdicts(), verdicts, "{name}");
    }
    let bridge = start("").await;
    for (body, says) in [
        (r#"{"text":"The queue is long"}"#, "custom payload"),
        ("The queue is long", "custom payload"),
        (r#"{"version":"4","alerts":[]}"#, "kind: alertmanager"),
    ] {
        let answer = bridge.post(body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body.contains(says), "{body}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_on_the_alerts_without_data_keeps_the_capacity_while_grafana_knows_nothing() {
    let bridge = start("").await;
    let begun = now();
    assert_eq!(bridge.post(at_present("12.4/two-firing", &begun)).await.verdicts(), json!({ "emitted": 2 }));
    bridge.wait_delivered("journal").await;
    bridge.post(at_present("12.4/datasource-no-data", &now())).await;
    // Grafana lets the alerts of the rule expire, which says nothing about the queues.
    let over = at_present("12.4/two-firing", &begun).replace("\"firing\"", "\"resolved\"");
    let over = over.replace("0001-01-01T00:00:00Z", &now());
    assert_eq!(bridge.post(over).await.verdicts(), json!({ "held": 2 }));
    assert_eq!(bridge.events().await.len(), 1, "nothing is taken back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_without_evidence_takes_nothing_back() {
    for reason in
        ["missing-series", "no-data", "error", "paused", "updated", "rule-deleted", "error-keep-last"]
    {
        let bridge = start("").await;
        let begun = now();
        assert_eq!(
            bridge.post(at_present("12.4/two-firing", &begun)).await.verdicts(),
            json!({ "emitted": 2 })
        );
        bridge.wait_delivered("journal").await;
        let over = bridge.post(at_present(&format!("12.4/resolved-{reason}"), &begun)).await;
        assert_eq!(over.verdicts(), json!({ "expired": 2 }), "{reason}");
        assert_eq!(bridge.events().await.len(), 1, "{reason}: nothing is taken back");
        // The next alert begins an episode of its own.
        assert_eq!(
            bridge.post(at_present("12.4/two-firing", &now())).await.verdicts(),
            json!({ "emitted": 2 })
        );
    }
}
