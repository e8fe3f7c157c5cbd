//! What the bridge relies on in Prometheus and Alertmanager, whatever their version, and what only newer ones can do.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::bridge::{self, Bridge, CONFIG, captured};
use crate::support::prometheus::{Release, note, on_old_and_new};
use crate::support::tools::{Exporter, Server, eventually, get};

on_old_and_new!(a_503_is_repeated_at_once_and_a_4xx_is_not, all_metrics_of_the_bridge_are_scraped);

/// Counts the notifications by receiver, and refuses some.
type Counts = Arc<Mutex<BTreeMap<String, u32>>>;

async fn refuse(State(received): State<Counts>, Path(receiver): Path<String>) -> StatusCode {
    let mut received = received.lock().expect("the lock is not poisoned");
    let count = received.entry(receiver.clone()).or_default();
    *count += 1;
    match (receiver.as_str(), *count) {
        ("unavailable", ..3) => StatusCode::SERVICE_UNAVAILABLE,
        ("throttled", _) => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::OK,
    }
}

/// All receivers get the same alert. One is refused until it has been accepted once, the other for good.
async fn a_503_is_repeated_at_once_and_a_4xx_is_not(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let received = Counts::default();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let router = Router::new().route("/{receiver}", post(refuse)).with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let alertmanager = release
        .start_alertmanager(
            dir.path(),
            &format!(
                "
route:
  receiver: unavailable
  group_wait: 0s
  group_interval: 5m
  routes:
    - {{ receiver: throttled, continue: true }}
    - {{ receiver: unavailable }}
receivers:
  - name: unavailable
    webhook_configs: [{{ url: 'http://{address}/unavailable' }}]
  - name: throttled
    webhook_configs: [{{ url: 'http://{address}/throttled' }}]
"
            ),
        )
        .await;
    send(&alertmanager, &json!({ "alertname": "KubePodsPending" })).await;

    let count = |receiver: &str| received.lock().expect("the lock").get(receiver).copied().unwrap_or(0);
    eventually("the third try", async || (count("unavailable") >= 3).then_some(())).await;
    eventually("the refused try", async || (count("throttled") >= 1).then_some(())).await;
    // Alertmanager counts a notification when it is over.
    let failed = eventually("the end of both", async || {
        let (_, metrics) = get(&(alertmanager.url() + "/metrics")).await.ok()?;
        let sum = |name: &str| {
            let series = metrics.lines().filter(|line| line.starts_with(name) && line.contains("webhook"));
            series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        (sum("alertmanager_notifications_total{") >= 2.0)
            .then(|| sum("alertmanager_notifications_failed_total{"))
    });
    assert_eq!(failed.await, 1.0);
    assert_eq!((count("unavailable"), count("throttled")), (3, 1));
}

/// Sends an alert to Alertmanager that fires from now on.
async fn send(alertmanager: &Server, labels: &Value) {
    let now = Timestamp::now();
    let end = now + SignedDuration::from_mins(5);
    let alert = json!([{ "labels": labels, "startsAt": now.to_string(), "endsAt": end.to_string() }]);
    let url = alertmanager.url() + "/api/v2/alerts";
    let answer = bridge::post(url, &[], alert.to_string().into_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn all_metrics_of_the_bridge_are_scraped(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let bridge = Bridge::start().await;
    assert_eq!(bridge.post(captured("three-firing")).await.status, 200);
    bridge.wait_delivered("journal").await;
    let config = format!(
        "
global: {{ scrape_interval: 1s }}
scrape_configs:
  - job_name: scalebridge
    static_configs: [{{ targets: ['{}'] }}]
",
        bridge.admin_url().strip_prefix("http://").expect("a URL"),
    );
    let prometheus = release.start_prometheus(dir.path(), &config, "").await;
    let (_, metrics) = bridge.get_admin("/metrics").await;
    let samples = metrics.lines().filter(|line| !line.starts_with('#')).count();
    assert!(samples > 50, "{metrics}");
    eventually("a scrape of all samples", async || {
        (query(&prometheus, "scrape_samples_scraped").await? == samples as f64).then_some(())
    })
    .await;
    assert_eq!(query(&prometheus, "up").await, Some(1.0));
    assert_eq!(query(&prometheus, "scalebridge_notifications_total").await, Some(1.0));
    let (_, metadata) = get(&(prometheus.url() + "/api/v1/metadata")).await.expect("an answer");
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    assert_eq!(metadata["data"]["scalebridge_notifications"][0]["type"], "counter", "{metadata}");
}

/// The value of the only series of a query, if there is one.
async fn query(prometheus: &Server, query: &str) -> Option<f64> {
    let (_, text) = get(&format!("{}/api/v1/query?query={query}", prometheus.url())).await.ok()?;
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

const UTF8_RULES: &str = r#"
rules:
  - name: pods
    matchers: ['"k8s.alert kind" = "unschedulable-✓"']
    target: { platform: eks, kind: nodegroup, name: "{{ labels['k8s.nodegroup'] }}" }
    on_firing: { scale_out: { by: 2 } }
    send_to: [journal]
"#;

const UTF8_ALERTS: &str = r#"
groups:
  - name: capacity
    rules:
      - alert: Pods
        expr: '{"k8s.pods.pending"} > 0'
        labels: { "k8s.alert kind": "unschedulable-✓" }
"#;

/// Label names with any character come from Prometheus 3, and Alertmanager has routed them since 0.27.
#[tokio::test(flavor = "multi_thread")]
async fn a_label_name_with_any_character_reaches_the_rules() {
    let release = Release::New;
    if release.is_replaced() {
        note("a_label_name_with_any_character_reaches_the_rules needs the newest, and is skipped");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut bridge = Bridge::new(CONFIG, UTF8_RULES);
    bridge.run().await;
    let webhook = bridge.url("/webhook/prod-eu");
    let config = format!(
        "
route:
  receiver: others
  group_wait: 0s
  routes: [{{ receiver: scaling, matchers: ['\"k8s.alert kind\" =~ \"unschedulable-.\"'] }}]
receivers:
  - name: others
  - name: scaling
    webhook_configs: [{{ url: '{webhook}' }}]
"
    );
    let alertmanager = release.start_alertmanager(dir.path(), &config).await;
    let exporter = Exporter::start().await;
    exporter.set_metrics("{\"k8s.pods.pending\",\"k8s.nodegroup\"=\"workers\"} 3\n");
    let config = format!(
        "
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: [rules.yml]
alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ['{}'] }}] }}] }}
scrape_configs: [{{ job_name: pods, static_configs: [{{ targets: ['{}'] }}] }}]
",
        alertmanager.address(),
        exporter.address(),
    );
    let _prometheus = release.start_prometheus(dir.path(), &config, UTF8_ALERTS).await;

    eventually("an event", async || (!bridge.journal().is_empty()).then_some(())).await;
    let event = bridge.journal().remove(0);
    assert_eq!(event["data"]["target"]["name"], "workers");
    assert_eq!(event["data"]["alerts"][0]["labels"]["k8s.alert kind"], "unschedulable-✓");
    assert_eq!(event["data"]["notification"]["reason"], "first notification");
}
