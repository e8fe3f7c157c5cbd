//! Alerts that Prometheus and vmalert send to the bridge without an Alertmanager (`kind: prometheus`).

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::any;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::bridge::{Answer, Bridge, CONFIG, RULES, captured, now};
use crate::support::prometheus::{Release, on_old_and_new};
use crate::support::tools::{Exporter, Server, eventually, get, tool};

on_old_and_new!(
    an_alert_of_prometheus_and_its_end_change_capacity,
    a_prometheus_that_dies_decreases_nothing,
    an_alert_is_the_same_one_directly_and_through_alertmanager,
    replicas_are_one_for_growth,
);

/// The source `prod-eu` of kind prometheus. Nothing was sent before the bridge ran.
fn config() -> String {
    CONFIG.replace("prod-eu: {", "prod-eu: { kind: prometheus, late_window: 0s,")
}

const ACCEPTED: &str = r#"scalebridge_notifications_total{source="prod-eu",code="200"}"#;

const ALERTS: &str = "
groups:
  - name: capacity
    rules:
      - alert: KubePodsPending
        expr: pending > 0
        annotations: { summary: 'pod {{ $labels.pod }} is pending' }
";

fn pending(pods: &[&str]) -> String {
    pods.iter().map(|pod| format!("pending{{nodegroup=\"workers\",pod=\"{pod}\"}} 1\n")).collect()
}

fn prometheus_config(exporter: &Exporter, external_labels: &str, alertmanagers: &str) -> String {
    format!(
        "
global: {{ scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{ {external_labels} }} }}
alerting: {{ alertmanagers: [{alertmanagers}] }}
rule_files: [rules.yml]
scrape_configs:
  - job_name: pods
    static_configs: [{{ targets: ['{}'] }}]
",
        exporter.address()
    )
}

/// An entry of `alertmanagers` that sends to a source of the bridge.
fn direct(bridge: &Bridge, source: &str) -> String {
    format!(
        "{{ path_prefix: /prometheus/{source}, static_configs: [{{ targets: ['{}'] }}] }}",
        bridge.address()
    )
}

async fn start_bridge() -> Bridge {
    let mut bridge = Bridge::new(&config(), RULES);
    bridge.run().await;
    bridge
}

async fn wait_for_events(bridge: &Bridge, count: usize) -> Vec<Value> {
    eventually("events", async || (bridge.journal().len() >= count).then_some(())).await;
    let events = bridge.events().await;
    assert_eq!(events.len(), count, "{events:?}");
    events
}

/// Waits for this many further notifications.
async fn wait_for_notifications(bridge: &Bridge, count: f64) {
    let before = bridge.metric(ACCEPTED).await;
    eventually("notifications", async || (bridge.metric(ACCEPTED).await >= before + count).then_some(()))
        .await;
}

fn assert_round_trip(events: &[Value]) {
    let values: Vec<_> = events.iter().map(|event| &event["data"]["adjustment"]["value"]).collect();
    assert_eq!(values, [2, -1]);
    assert_eq!(events[0]["data"]["episode"]["id"], events[1]["data"]["episode"]["id"]);
    assert_eq!(events[1]["data"]["reverts"], json!([events[0]["id"]]));
}

async fn an_alert_of_prometheus_and_its_end_change_capacity(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let bridge = start_bridge().await;
    let exporter = Exporter::start().await;
    exporter.set_metrics(pending(&["a", "b"]));
    let config = prometheus_config(&exporter, "", &direct(&bridge, "prod-eu"));
    let _prometheus = release.start_prometheus(dir.path(), &config, ALERTS).await;

    let fired = wait_for_events(&bridge, 1).await;
    let alerts = fired[0]["data"]["alerts"].as_array().expect("a list");
    let mut summaries: Vec<_> = alerts.iter().map(|alert| &alert["annotations"]["summary"]).collect();
    summaries.sort_by_key(|summary| summary.as_str());
    assert_eq!(summaries, ["pod a is pending", "pod b is pending"]);
    // Prometheus sends the alert each second: these are no events.
    wait_for_notifications(&bridge, 3.0).await;
    exporter.set_metrics("");
    let events = wait_for_events(&bridge, 2).await;
    assert_round_trip(&events);
    // The end is sent again and again, too.
    wait_for_notifications(&bridge, 2.0).await;
    assert_eq!(bridge.events().await.len(), 2);
}

/// A `POST` of alerts as Prometheus does it.
async fn post(bridge: &Bridge, alerts: &Value) -> Answer {
    bridge.post_to("/prometheus/prod-eu/api/v2/alerts", &[], alerts.to_string()).await
}

/// An alert about a pod of a node group, which starts now and ends at a time.
fn alert(nodegroup: &str, ends_at: Timestamp) -> Value {
    let labels = json!({ "alertname": "KubePodsPending", "nodegroup": nodegroup, "pod": "a" });
    json!({ "labels": labels, "startsAt": now(), "endsAt": ends_at.to_string() })
}

/// The same alert with another end.
fn ending(alert: &Value, ends_at: Timestamp) -> Value {
    let mut alert = alert.clone();
    alert["endsAt"] = json!(ends_at.to_string());
    alert
}

fn after_seconds(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

/// The adjustments of a node group.
fn adjustments(bridge: &Bridge, nodegroup: &str) -> Vec<i64> {
    let events = bridge.journal();
    let about = events.iter().filter(|event| event["data"]["target"]["name"] == nodegroup);
    about.map(|event| event["data"]["adjustment"]["value"].as_i64().expect("a number")).collect()
}

/// Waits until another alert, whose end the test sends now, has decreased its own target: what could be decreased by now has
/// been.
async fn wait_for_a_decrease(bridge: &Bridge, nodegroup: &str) {
    let fires = alert(nodegroup, after_seconds(3600));
    assert_eq!(post(bridge, &json!([fires])).await.verdicts(), json!({ "emitted": 1 }));
    bridge.wait_delivered("journal").await;
    assert_eq!(post(bridge, &json!([ending(&fires, Timestamp::now())])).await.status, 200);
    eventually("the decrease", async || (adjustments(bridge, nodegroup) == [2, -1]).then_some(())).await;
}

/// The time until which Prometheus vouches for an alert: four times the longer of interval and resend delay.
const VALIDITY: Duration = Duration::from_secs(4);

async fn a_prometheus_that_dies_decreases_nothing(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let bridge = start_bridge().await;
    let exporter = Exporter::start().await;
    exporter.set_metrics(pending(&["a"]));
    let config = prometheus_config(&exporter, "", &direct(&bridge, "prod-eu"));
    let prometheus = release.start_prometheus(dir.path(), &config, ALERTS).await;
    wait_for_events(&bridge, 1).await;
    prometheus.kill();
    tokio::time::sleep(VALIDITY + Duration::from_secs(1)).await;
    wait_for_a_decrease(&bridge, "other").await;
    assert_eq!(adjustments(&bridge, "workers"), [2]);

    // A restarted Prometheus has the alert start later. It is the same one.
    let _prometheus = release.start_prometheus(dir.path(), &config, ALERTS).await;
    wait_for_notifications(&bridge, 3.0).await;
    bridge.wait_delivered("journal").await;
    assert_eq!(adjustments(&bridge, "workers"), [2]);
    exporter.set_metrics("");
    eventually("the decrease", async || (adjustments(&bridge, "workers") == [2, -1]).then_some(())).await;
}

async fn an_alert_is_the_same_one_directly_and_through_alertmanager(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config().replace(
        "prod-eu: {",
        "through-alertmanager: { labels: { cluster: other, region: eu-west-1 } }\n  prod-eu: {",
    );
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let receiver = format!(
        "
route: {{ receiver: scaling, group_wait: 0s }}
receivers: [{{ name: scaling, webhook_configs: [{{ url: '{}' }}] }}]
",
        bridge.url("/webhook/through-alertmanager")
    );
    let alertmanager = release.start_alertmanager(dir.path(), &receiver).await;
    let exporter = Exporter::start().await;
    exporter.set_metrics(pending(&["a"]));
    let both = format!(
        "{}, {{ static_configs: [{{ targets: ['{}'] }}] }}",
        direct(&bridge, "prod-eu"),
        alertmanager.address()
    );
    // Alertmanager drops labels without a value. `region` is overridden by each source.
    let config = prometheus_config(&exporter, "region: elsewhere, replica: ''", &both);
    let _prometheus = release.start_prometheus(dir.path(), &config, ALERTS).await;
    // The targets differ in the cluster: one event each.
    let events = wait_for_events(&bridge, 2).await;
    let of = |source: &str| {
        let from = events.iter().find(|event| event["data"]["notification"]["source"] == source);
        let alert = &from.unwrap_or_else(|| panic!("no event of {source}: {events:?}"))["data"]["alerts"][0];
        ["fingerprint", "starts_at", "generator_url", "annotations"].map(|field| alert[field].clone())
    };
    let (direct, through) = (of("prod-eu"), of("through-alertmanager"));
    assert_eq!(direct, through);
    let (_, alerts) = get(&(alertmanager.url() + "/api/v2/alerts")).await.expect("an answer");
    let alerts: Value = serde_json::from_str(&alerts).expect("JSON");
    assert_eq!(alerts[0]["fingerprint"], direct[0]);
}

async fn replicas_are_one_for_growth(release: Release) {
    let (one, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let config = config().replace("kind: prometheus,", "kind: prometheus, ignore_labels: [replica],");
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let exporter = Exporter::start().await;
    exporter.set_metrics(pending(&["a"]));
    let start = async |dir: &Path, replica: &str| {
        let labels = format!("replica: {replica}");
        let config = prometheus_config(&exporter, &labels, &direct(&bridge, "prod-eu"));
        release.start_prometheus(dir, &config, ALERTS).await
    };
    let _replicas = (start(one.path(), "a").await, start(other.path(), "b").await);
    let episode = eventually("the alerts of both", async || {
        let episodes = bridge.get_json("/api/v1/episodes").await["episodes"].clone();
        let alerts = |episode: &Value| episode["alerts"].as_array().map_or(0, Vec::len);
        episodes.as_array()?.iter().find(|episode| alerts(episode) == 2).cloned()
    })
    .await;
    assert_eq!(bridge.events().await.len(), 1, "{episode}");
    exporter.set_metrics("");
    assert_round_trip(&wait_for_events(&bridge, 2).await);
}

/// What the datasource of vmalert answers: pending pods, or nothing at all.
type Datasource = Arc<Mutex<Option<Vec<&'static str>>>>;

async fn query(State(datasource): State<Datasource>) -> (StatusCode, String) {
    let Some(pods) = datasource.lock().expect("the lock is not poisoned").clone() else {
        return (StatusCode::SERVICE_UNAVAILABLE, String::new());
    };
    let at = Timestamp::now().as_second();
    let series = |pod| json!({ "metric": { "nodegroup": "workers", "pod": pod }, "value": [at, "1"] });
    let result: Vec<Value> = pods.into_iter().map(series).collect();
    let answer = json!({ "status": "success", "data": { "resultType": "vector", "result": result } });
    (StatusCode::OK, answer.to_string())
}

/// Starts vmalert, which evaluates the rules each second.
async fn start_vmalert(dir: &Path, datasource: &str, bridge: &Bridge) -> Server {
    fs::write(dir.join("rules.yml"), ALERTS).expect("its rules");
    Server::start("vmalert", dir, "/health", |port| {
        let mut command = tool("bin/vmalert");
        command.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
        command.arg(format!("-datasource.url={datasource}"));
        command.arg(format!("-notifier.url={}", bridge.url("/prometheus/prod-eu")));
        command.args(["-rule=rules.yml", "-evaluationInterval=1s", "-rule.evalDelay=0s"]);
        command
    })
    .await
}

/// vmalert sends nothing when it cannot ask its datasource, nor when it starts again.
#[tokio::test(flavor = "multi_thread")]
async fn a_hiccup_of_vmalert_is_no_event() {
    let dir = tempfile::tempdir().expect("a directory");
    let datasource = Datasource::default();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let router = Router::new().route("/{*path}", any(query)).with_state(Arc::clone(&datasource));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let answer =
        |pods: Option<&[&'static str]>| *datasource.lock().expect("the lock") = pods.map(<[_]>::to_vec);
    let bridge = start_bridge().await;

    answer(Some(&["a", "b"]));
    let vmalert = start_vmalert(dir.path(), &url, &bridge).await;
    wait_for_events(&bridge, 1).await;
    wait_for_notifications(&bridge, 2.0).await;

    // The datasource is away for longer than vmalert vouches for its alerts, and then vmalert, too.
    answer(None);
    tokio::time::sleep(VALIDITY + Duration::from_secs(1)).await;
    wait_for_a_decrease(&bridge, "other").await;
    assert_eq!(adjustments(&bridge, "workers"), [2]);
    answer(Some(&["a", "b"]));
    wait_for_notifications(&bridge, 2.0).await;
    vmalert.kill();
    tokio::time::sleep(VALIDITY + Duration::from_secs(1)).await;
    let _vmalert = start_vmalert(dir.path(), &url, &bridge).await;
    wait_for_notifications(&bridge, 2.0).await;
    wait_for_a_decrease(&bridge, "another").await;
    assert_eq!(adjustments(&bridge, "workers"), [2]);

    answer(Some(&[]));
    eventually("the decrease", async || (adjustments(&bridge, "workers") == [2, -1]).then_some(())).await;
}

/// A firing alert that arrives after its own end looks like a resolved one. But only a resolved one is sent again with the same
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn a_firing_alert_that_arrives_late_decreases_nothing() {
    let bridge = start_bridge().await;
    let told = after_seconds(1);
    let fires = alert("workers", told);
    assert_eq!(post(&bridge, &json!([fires])).await.verdicts(), json!({ "emitted": 1 }));
    bridge.wait_delivered("journal").await;
    // The next copy was under way until its end was over, on two ways.
    let late = json!([ending(&fires, told + SignedDuration::from_millis(300))]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..2 {
        assert_eq!(post(&bridge, &late).await.verdicts(), json!({ "duplicate": 1 }));
    }
    wait_for_a_decrease(&bridge, "other").await;
    assert_eq!(adjustments(&bridge, "workers"), [2]);
    // What is sent again with this end has resolved.
    eventually("the decrease", async || {
        assert_eq!(post(&bridge, &late).await.status, 200);
        (adjustments(&bridge, "workers") == [2, -1]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn captured_bodies_of_each_sender_are_decided() {
    for sender in ["2.42", "3.5", "vmalert"] {
        let bridge = start_bridge().await;
        // Captured long ago: the ends of all alerts are over.
        for name in ["firing", "one-resolved", "all-resolved"] {
            let path =
                format!("{}/tests/fixtures/prometheus/{sender}/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let body: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
            let answer = post(&bridge, &body).await;
            assert_eq!(answer.status, 200, "{sender}/{name}");
            assert_eq!(answer.json()["alerts"], 2, "{sender}/{name}");
        }
        assert_eq!(bridge.events().await, Vec::<Value>::new(), "{sender}");
    }
}

/// Each of these errors invalidates the whole body.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_body_is_rejected_with_the_position_of_the_error() {
    let bridge = start_bridge().await;
    for (body, expected) in [
        ("", "line 1 column 0"),
        ("nonsense", "line 1 column 2"),
        ("[{},\n{]", "line 2"),
        ("{}", "expected a sequence"),
        ("null", "expected a sequence"),
        ("[] trailing", "trailing"),
    ] {
        let answer = bridge.post_to("/prometheus/prod-eu/api/v2/alerts", &[], body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        let error = answer.json()["error"].as_str().expect("an error").to_owned();
        assert!(error.contains(expected), "{body}: {error}");
    }
    assert_eq!(bridge.metric(r#"scalebridge_notifications_total{source="prod-eu",code="400"}"#).await, 6.0);
    let gaps = r#"scalebridge_source_reception_gaps_total{source="prod-eu",cause="refused"}"#;
    assert!(bridge.metric(gaps).await >= 1.0, "what is refused may be missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_alert_does_not_affect_the_others() {
    let bridge = start_bridge().await;
    let bad = |change: &dyn Fn(&mut Value)| {
        let mut alert = alert("bad", after_seconds(60));
        change(&mut alert);
        alert
    };
    let alerts = json!([
        bad(&|alert| alert["labels"] = json!({})),
        bad(&|alert| alert["labels"]["n"] = json!(1)),
        bad(&|alert| alert["startsAt"] = json!("soon")),
        bad(&|alert| alert["endsAt"] = json!("soon")),
        bad(&|alert| alert["endsAt"] = json!("2026-01-01T00:00:00Z")),
        bad(&|alert| alert["annotations"] = json!({ "summary": "x".repeat(200_000) })),
        null,
        7,
        alert("good", after_seconds(60)),
    ]);
    let answer = post(&bridge, &alerts).await;
    assert_eq!(
        answer.json(),
        json!({ "alerts": 9, "events": 1, "verdicts": { "invalid": 8, "emitted": 1 } })
    );
    assert_eq!(bridge.events().await[0]["data"]["target"]["name"], "good");
}

/// The kind or the path to configure.
#[tokio::test(flavor = "multi_thread")]
async fn a_notification_of_another_kind_is_answered_with_what_to_configure() {
    let both = config().replace("prod-eu: {", "am: {}\n  prod-eu: {");
    let mut bridge = Bridge::new(&both, RULES);
    bridge.run().await;
    let sns = json!({ "Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "Message": "{}" })
        .to_string();
    let grafana = json!({ "version": "1", "orgId": 1, "alerts": [] }).to_string();
    let alerts = json!([alert("workers", after_seconds(60))]).to_string();
    let (webhook, direct) = ("/webhook/am", "/prometheus/prod-eu/api/v2/alerts");
    for (path, body, status, expected) in [
        ("/webhook/prod-eu", alerts.clone(), 400, "`path_prefix: /prometheus/SOURCE`"),
        ("/webhook/prod-eu", captured("one-firing"), 400, "is of kind prometheus"),
        ("/prometheus/am/api/v2/alerts", alerts.clone(), 400, "`kind: prometheus`"),
        ("/prometheus/nobody/api/v2/alerts", alerts.clone(), 404, "unknown source"),
        ("/prometheus/prod-eu/api/v1/alerts", alerts.clone(), 404, "/prometheus/{source}/api/v2/alerts"),
        (webhook, alerts, 400, "`kind: prometheus`"),
        (webhook, grafana.clone(), 400, "`kind: grafana`"),
        (webhook, sns.clone(), 400, "`kind: sqs`"),
        (direct, captured("one-firing"), 400, "`kind: alertmanager`"),
        (direct, grafana, 400, "`kind: grafana`"),
        (direct, sns, 400, "`kind: sqs`"),
    ] {
        let answer = bridge.post_to(path, &[], body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(expected), "{path}: {} in {}", expected, answer.body);
    }
    assert_eq!(get(&bridge.url(direct)).await.expect("an answer").0, 405);
    assert_eq!(bridge.post_to(direct, &[("content-encoding", "br")], "[]").await.status, 415);
    assert_eq!(bridge.post_to(direct, &[], "[]").await.json()["alerts"], 0);
    assert_eq!(bridge.events().await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_and_the_backlog_of_the_source_are_checked() {
    let config =
        config().replace("kind: prometheus,", "kind: prometheus, auth: { bearer_token_files: [token] },");
    let mut bridge = Bridge::new(&config, RULES);
    fs::write(bridge.dir().join("token"), "right-token-of-the-source").expect("a file");
    bridge.run().await;
    let send = async |token: &str| {
        let header = format!("Bearer {token}");
        let path = "/prometheus/prod-eu/api/v2/alerts";
        bridge.post_to(path, &[("authorization", &header)], "[]").await.status
    };
    assert_eq!((send("right-token-of-the-source").await, send("wrong").await), (200, 401));
    fs::remove_file(bridge.dir().join("token")).expect("removed");
    assert_eq!(send("wrong").await, 503, "a secret of our own that cannot be read");
}

/// What operators do with notifications works with those of Prometheus.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_prometheus_are_explained_replayed_and_sent() {
    let bridge = start_bridge().await;
    let url = bridge.url("/prometheus/prod-eu/api/v2/alerts");
    let send = |status: &str| {
        let words =
            ["send", "--url", &url, status, "alertname=KubePodsPending", "nodegroup=workers", "pod=a"];
        bridge.cli(&words)
    };
    let (code, printed, error) = send("--firing");
    assert_eq!((code, printed.contains("\"emitted\":1")), (Some(0), true), "{printed} {error}");
    bridge.wait_delivered("journal").await;
    assert_eq!(send("--resolved").0, Some(0));
    assert_round_trip(&wait_for_events(&bridge, 2).await);

    let arguments = ["--config", "scalebridge.yaml", "--against", "scalebridge.yaml", "--format", "json"];
    let (code, text, error) = bridge.cli(&[&["replay", "--since", "1h"], &arguments[..]].concat());
    assert_eq!(code, Some(0), "{error}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let moments = report["moments"].as_array().expect("a list");
    let emitted = moments.iter().flat_map(|moment| moment["decisions"].as_array().expect("a list"));
    let actions: Vec<_> =
        emitted.filter(|one| one["verdict"] == "emitted").map(|one| &one["action"]).collect();
    assert_eq!(actions, ["scale_out", "scale_in"], "{report}");

    // A file is taken as received when it was modified.
    let fires = alert("spot", after_seconds(3600));
    let write = |name: &str, body: &Value, modified: Timestamp| {
        let path = bridge.dir().join(name);
        fs::write(&path, body.to_string()).expect("a file");
        let file = fs::File::options().append(true).open(&path).expect("the file");
        file.set_modified(modified.into()).expect("its time");
    };
    write("firing.json", &json!([fires]), after_seconds(1));
    write("resolved.json", &json!([ending(&fires, after_seconds(120))]), after_seconds(120));
    let explain = |file: &str, more: &[&str]| {
        let (code, text, error) =
            bridge.cli(&[&["explain", file, "--config", "scalebridge.yaml"], more].concat());
        assert_eq!(code, Some(0), "{error}");
        text
    };
    for more in [vec![], vec!["--url", bridge.admin_url().leak()]] {
        let text = explain("firing.json", &more);
        assert!(text.contains("alert 1 of 1, firing") && text.contains("emitted"), "{text}");
        let text = explain("resolved.json", &more);
        assert!(text.contains("alert 1 of 1, resolved"), "{text}");
    }
    // People write labels, whatever the kind of the source is.
    let admin = bridge.admin_url();
    let (code, text, error) =
        bridge.cli(&["explain", "alertname=KubePodsPending", "nodegroup=x", "pod=a", "--url", &admin]);
    assert_eq!((code, text.contains("emitted")), (Some(0), true), "{text} {error}");
    let files = ["replay", "--config", "scalebridge.yaml", "firing.json", "resolved.json"];
    let (code, text, error) = bridge.cli(&files);
    assert_eq!(code, Some(0), "{error}");
    assert!(text.contains("scale_out +2") && text.contains("scale_in -1"), "{text}");
}
