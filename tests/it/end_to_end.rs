//! The whole path with real programs: an alert and its end go from Prometheus through Alertmanager and the
//! bridge to a queue and to a function that changes capacity.

use std::collections::BTreeMap;
use std::path::Path;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName as System};
use serde_json::{Value, json};

use crate::support::bridge::Bridge;
use crate::support::prometheus::{Release, on_old_and_new};
use crate::support::queue;
use crate::support::tools::{Exporter, LocalAws, Server, eventually, get};

on_old_and_new!(an_alert_and_its_end_change_capacity);

const GROUP: &str = "workers";
const FUNCTION: &str = "capacity-scaler";
const SUBJECT: &str = "ec2/autoscaling-group/-/eu-west-1/-/-/workers";
/// The series of notifications answered with 200.
const NOTIFICATIONS: &str = r#"scalebridge_notifications_total{source="prod-eu",code="200"}"#;
const PODS: [&str; 3] = ["checkout-a", "checkout-b", "checkout-c"];

const RULES: &str = r#"
rules:
  - name: unschedulable-pods
    sources: [prod-eu]
    matchers:
      - alertname = KubePodUnschedulable
      - severity =~ "warning|critical"
    when: annotations.value | float >= 1
    target:
      platform: ec2
      kind: autoscaling-group
      name: "{{ labels.asg }}"
      region: "{{ labels.region }}"
    on_firing: { scale_out: { by: 2 }, cooldown: 0s }
    on_resolved: { scale_in: { by: 1 }, stabilization_window: 0s, cooldown: 0s }
    expires_after: 10m
    limits: { min_capacity: 2, max_capacity: 40 }
    parameters: { runbook: "{{ annotations.runbook_url }}" }
    send_to: [scaling-queue, capacity-function]
"#;

const ALERTS: &str = r#"
groups:
  - name: capacity
    rules:
      - alert: KubePodUnschedulable
        expr: max by (asg, namespace, pod) (kube_pod_status_unschedulable) == 1
        labels: { severity: warning }
        annotations: { value: "{{ $value }}", runbook_url: "https://runbooks.example.com/pods?a=1&b=\"2\"" }
"#;

async fn wait_for_two_notifications(bridge: &Bridge) {
    let before = bridge.metric(NOTIFICATIONS).await;
    eventually("two repeats", async || (bridge.metric(NOTIFICATIONS).await >= before + 2.0).then_some(()))
        .await;
}

async fn an_alert_and_its_end_change_capacity(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let queue_url = aws.create_fifo_queue("scaling.fifo").await;
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo/scaler.yaml");
    aws.run(&["create-scaler", FUNCTION, &scaler(), config]);
    aws.run(&["create-group", GROUP, "2", "2", "10"]);

    // The bridge starts first: an alert that is older than its store cannot decrease capacity.
    let mut bridge = Bridge::new(&bridge_config(&queue_url), RULES);
    queue::environment(&aws).iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    let alertmanager = release.start_alertmanager(dir.path(), &alertmanager_config(&bridge)).await;
    let exporter = Exporter::start().await;
    exporter.set_metrics(unschedulable(0));
    let _prometheus = release
        .start_prometheus(dir.path(), &prometheus_config(exporter.address(), &alertmanager), ALERTS)
        .await;

    // Three unschedulable pods: one message, and two more instances.
    exporter.set_metrics(unschedulable(1));
    let fired = receive(&aws, &queue_url).await;
    let alerts = alerts_of(&alertmanager).await;
    let event = body(&fired);
    check_envelope(&fired, &event, "scale_out");
    assert_same(
        &event["data"],
        &json!({
            "rule": "unschedulable-pods",
            "phase": "firing",
            "action": "scale_out",
            "adjustment": { "type": "ChangeInCapacity", "value": 2, "min_magnitude": null },
            "target": { "platform": "ec2", "kind": "autoscaling-group", "name": GROUP, "region": "eu-west-1" },
            "limits": { "min_capacity": 2, "max_capacity": 40 },
            "reason": "3 alerts firing: KubePodUnschedulable",
            "episode": { "id": hex(&event["data"]["episode"]["id"]), "opened_at": event["time"], "emission": 1 },
            "alerts": event_alerts(&event, "firing", &alerts),
            "alerts_total": 3,
            "notification": notification(&alertmanager, release.reason("first notification")),
            "parameters": { "runbook": "https://runbooks.example.com/pods?a=1&b=\"2\"" },
            "reverts": [],
        }),
    );
    assert_eq!(capacity_after(&aws, &event), 4);

    // Alertmanager repeats the group: no event is emitted.
    wait_for_two_notifications(&bridge).await;

    // The pods are scheduled: one more message, and one instance less.
    exporter.set_metrics(unschedulable(0));
    let resolved = receive(&aws, &queue_url).await;
    let end = body(&resolved);
    check_envelope(&resolved, &end, "scale_in");
    assert_same(
        &end["data"],
        &json!({
            "rule": "unschedulable-pods",
            "phase": "resolved",
            "action": "scale_in",
            "adjustment": { "type": "ChangeInCapacity", "value": -1, "min_magnitude": null },
            "target": event["data"]["target"],
            "limits": event["data"]["limits"],
            "reason": "3 alerts resolved: KubePodUnschedulable",
            "episode": event["data"]["episode"],
            "alerts": event_alerts(&end, "resolved", &alerts),
            "alerts_total": 3,
            "notification": notification(&alertmanager, release.reason("all alerts resolved")),
            "parameters": event["data"]["parameters"],
            "reverts": [event["id"]],
        }),
    );
    assert_ne!(end["id"], event["id"]);
    assert!(sequence(&end) > sequence(&event));
    assert_eq!(capacity_after(&aws, &end), 3);

    // No other event was sent.
    assert!(bridge.stop().await.success());
    assert_eq!(queue::receive_all(&aws, &queue_url).await, []);
}

/// Compares field by field and reports those that differ.
#[track_caller]
fn assert_same(actual: &Value, expected: &Value) {
    fn fields(at: &str, value: &Value) -> Vec<String> {
        match value {
            Value::Object(object) if !object.is_empty() => {
                object.iter().flat_map(|(name, value)| fields(&format!("{at}.{name}"), value)).collect()
            }
            Value::Array(list) if !list.is_empty() => {
                list.iter().enumerate().flat_map(|(i, value)| fields(&format!("{at}[{i}]"), value)).collect()
            }
            leaf => vec![format!("{at}: {leaf}")],
        }
    }
    let (actual, expected) = (fields("", actual), fields("", expected));
    let missing: Vec<_> = expected.iter().filter(|field| !actual.contains(field)).collect();
    let surplus: Vec<_> = actual.iter().filter(|field| !expected.contains(field)).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "expected {missing:#?}, got {surplus:#?}");
}

/// Checks what all events of this test have in common: message attributes and CloudEvents attributes.
fn check_envelope(message: &Message, event: &Value, action: &str) {
    let id = hex(&event["id"]);
    let kind = format!("io.scalebridge.{action}.v1");
    let traceparent = format!("00-{id}-{}-00", &id[..16]);

    let system = message.attributes().expect("attributes");
    assert_eq!(system[&System::MessageGroupId], SUBJECT);
    assert_eq!(system[&System::MessageDeduplicationId], id);

    let attributes: BTreeMap<&str, (&str, &str)> = message
        .message_attributes()
        .expect("message attributes")
        .iter()
        .map(|(name, value)| (name.as_str(), (value.data_type(), value.string_value().expect("a string"))))
        .collect();
    let expected = [
        ("content-type", "application/cloudevents+json"),
        ("ce-specversion", "1.0"),
        ("ce-id", id),
        ("ce-type", &kind),
        ("ce-source", "/scalebridge/prod-eu"),
        ("ce-subject", SUBJECT),
        ("rule", "unschedulable-pods"),
        ("traceparent", &traceparent),
    ];
    assert_eq!(attributes, expected.map(|(name, value)| (name, ("String", value))).into());

    let mut envelope = event.clone();
    envelope.as_object_mut().expect("an object").remove("data").expect("data");
    assert_same(
        &envelope,
        &json!({
            "specversion": "1.0",
            "id": id,
            "source": "/scalebridge/prod-eu",
            "type": kind,
            "subject": SUBJECT,
            "time": event["time"],
            "datacontenttype": "application/json",
            "dataschema": "urn:scalebridge:schema:event-data:v1",
            "sequence": sequence(event).to_string(),
            "expirytime": event["expirytime"],
            "traceparent": traceparent,
        }),
    );
    let age = jiff::Timestamp::now().duration_since(time(&event["time"]));
    assert!((0..60).contains(&age.as_secs()), "the event is {age:?} old");
    let lasts = time(&event["expirytime"]).duration_since(time(&event["time"]));
    assert_eq!(lasts.as_secs(), 600);
}

/// The expected alerts in the order of the event, built from Alertmanager's API and the labels of the source,
/// which override those of the alert.
fn event_alerts(event: &Value, status: &str, alerts: &BTreeMap<String, Value>) -> Value {
    let listed = event["data"]["alerts"].as_array().expect("a list");
    assert_eq!(listed.len(), alerts.len());
    let expected = listed.iter().map(|listed| {
        let fingerprint = listed["fingerprint"].as_str().expect("a fingerprint");
        let alert = &alerts[fingerprint];
        assert_eq!(time(&listed["starts_at"]), time(&alert["startsAt"]));
        let mut labels = alert["labels"].clone();
        assert_eq!(labels["cluster"], "elsewhere");
        labels["cluster"] = "prod-eu".into();
        labels["region"] = "eu-west-1".into();
        json!({
            "fingerprint": fingerprint,
            "status": status,
            "labels": labels,
            "annotations": alert["annotations"],
            "starts_at": listed["starts_at"],
            "generator_url": alert["generatorURL"],
        })
    });
    expected.collect()
}

fn notification(alertmanager: &Server, reason: Value) -> Value {
    json!({
        "source": "prod-eu",
        "receiver": "scaling",
        "group_key": "{}:{alertname=\"KubePodUnschedulable\", asg=\"workers\"}",
        "external_url": alertmanager.url(),
        "reason": reason,
    })
}

/// The open alerts by fingerprint, from Alertmanager's API.
async fn alerts_of(alertmanager: &Server) -> BTreeMap<String, Value> {
    let (_, text) = get(&(alertmanager.url() + "/api/v2/alerts")).await.expect("an answer");
    let alerts: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let pods: Vec<&Value> = alerts.iter().map(|alert| &alert["labels"]["pod"]).collect();
    assert_eq!(pods.len(), PODS.len(), "{pods:?}");
    alerts
        .iter()
        .map(|alert| (alert["fingerprint"].as_str().expect("text").to_owned(), alert.clone()))
        .collect()
}

fn bridge_config(queue_url: &str) -> String {
    format!(
        r#"
server: {{ listen: "127.0.0.1:0" }}
admin: {{ listen: "127.0.0.1:0" }}
store: {{ sqlite: {{ path: bridge.db }} }}
sources:
  prod-eu: {{ labels: {{ cluster: prod-eu, region: eu-west-1 }} }}
destinations:
  scaling-queue: {{ sqs: {{ queue_url: "{queue_url}", region: eu-west-1 }} }}
  capacity-function: {{ lambda: {{ function: {FUNCTION}, region: eu-west-1 }} }}
rules: [rules.yaml]
log: {{ format: json }}
"#
    )
}

fn alertmanager_config(bridge: &Bridge) -> String {
    format!(
        "
route:
  receiver: scaling
  group_by: [alertname, asg]
  group_wait: 1s
  group_interval: 1s
  repeat_interval: 1s
receivers:
  - name: scaling
    webhook_configs: [{{ url: '{}', send_resolved: true }}]
",
        bridge.url("/webhook/prod-eu")
    )
}

fn prometheus_config(exporter: &str, alertmanager: &Server) -> String {
    format!(
        "
global:
  scrape_interval: 1s
  evaluation_interval: 1s
  # The labels of the source override this one.
  external_labels: {{ cluster: elsewhere }}
rule_files: [rules.yml]
alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ['{}'] }}] }}] }}
scrape_configs:
  - job_name: pods
    static_configs: [{{ targets: ['{exporter}'] }}]
",
        alertmanager.address()
    )
}

fn unschedulable(value: u8) -> String {
    PODS.map(|pod| {
        format!("kube_pod_status_unschedulable{{asg=\"{GROUP}\",namespace=\"shop\",pod=\"{pod}\"}} {value}\n")
    })
    .concat()
}

/// Waits for a message, which must be the only one, and deletes it from the queue.
async fn receive(aws: &LocalAws, queue_url: &str) -> Message {
    eventually("a message", async || {
        let mut received = queue::receive_all(aws, queue_url).await;
        assert!(received.len() <= 1, "{received:#?}");
        received.pop()
    })
    .await
}

fn body(message: &Message) -> Value {
    serde_json::from_str(message.body().expect("a body")).expect("JSON")
}

fn hex(id: &Value) -> &str {
    let text = id.as_str().expect("text");
    assert!(text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{text}");
    text
}

fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().expect("text").parse().expect("a time")
}

fn sequence(event: &Value) -> u64 {
    event["sequence"].as_str().expect("text").parse().expect("a number")
}

/// The capacity that the scaler has set for the event.
fn capacity_after(aws: &LocalAws, event: &Value) -> u32 {
    aws.run(&["capacity-after", hex(&event["id"])]).parse().expect("a number")
}

/// The scaler, which is built with the bridge by `make test`.
fn scaler() -> String {
    let scaler = Path::new(env!("CARGO_BIN_EXE_scalebridge")).with_file_name("scalebridge-scaler");
    assert!(scaler.exists(), "{} is missing: run cargo build -p scalebridge-scaler", scaler.display());
    scaler.to_str().expect("UTF-8").to_owned()
}
