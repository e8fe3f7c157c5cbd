//! What Alertmanager wanted to say while the bridge was down. `tests/it/gaps.rs` has the gaps themselves.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, post};
use crate::support::tools::{self, Port, Server, eventually};

const STABILIZATION_WINDOW: Duration = Duration::from_secs(3);
/// Longer than Alertmanager's `group_interval`, and than its retries take after the bridge is back.
const WAIT_AFTER_GAP: SignedDuration = SignedDuration::from_secs(15);
const ACCEPTED: &str = r#"scalebridge_notifications_total{source="prod-eu",code="200"}"#;

const RULES: &str = r#"
rules:
  - name: pods
    matchers: [alertname = KubePodsPending]
    target: { platform: eks, kind: nodegroup, name: "{{ labels.nodegroup }}" }
    on_firing: { scale_out: { by: 2 }, cooldown: 0s }
    on_resolved: { scale_in: { by: 1 }, stabilization_window: 3s, cooldown: 0s }
    send_to: [journal]
"#;

fn bridge_config(port: &Port) -> String {
    CONFIG
        .replace(
            "server: { listen: \"127.0.0.1:0\" }",
            &format!("server: {{ listen: \"127.0.0.1:{}\" }}", port.number),
        )
        .replace(
            "region: eu-west-1 } }",
            &format!("region: eu-west-1 }}, late_window: {}s }}", WAIT_AFTER_GAP.as_secs()),
        )
}

fn alertmanager_config(bridge: &Bridge) -> String {
    format!(
        "
route:
  receiver: scaling
  group_by: [alertname, nodegroup]
  group_wait: 1s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: scaling
    webhook_configs: [{{ url: '{}', send_resolved: true }}]
",
        bridge.url("/webhook/prod-eu")
    )
}

/// Sends an alert to Alertmanager as Prometheus does: it fires from now on, or from `starts_at` until now.
async fn report(alertmanager: &Server, nodegroup: &str, starts_at: Option<Timestamp>) -> Timestamp {
    let now = Timestamp::now();
    let end = starts_at.map_or(now + SignedDuration::from_mins(5), |_| now);
    let alert = json!([{
        "labels": { "alertname": "KubePodsPending", "nodegroup": nodegroup, "pod": "a" },
        "startsAt": starts_at.unwrap_or(now).to_string(), "endsAt": end.to_string(),
    }]);
    let answer = post(alertmanager.url() + "/api/v2/alerts", &[], alert.to_string().into_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    now
}

/// The events about a node group: the action and the time of each.
fn events(bridge: &Bridge, nodegroup: &str) -> Vec<(String, Timestamp)> {
    let about = |event: &Value| event["data"]["target"]["name"] == nodegroup;
    let of = |event: &Value| {
        let action = event["data"]["action"].as_str().expect("text").to_owned();
        (action, event["time"].as_str().expect("text").parse().expect("a time"))
    };
    bridge.journal().iter().filter(|event| about(event)).map(of).collect()
}

fn actions(bridge: &Bridge, nodegroup: &str) -> Vec<String> {
    events(bridge, nodegroup).into_iter().map(|(action, _)| action).collect()
}

/// Both node groups resolve, and the bridge hears it. While it is down, the alert of one of them fires again, and the
/// window of both scale-ins ends.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decreased_before_what_was_missed_has_been_heard() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = Port::reserve();
    let mut bridge = Bridge::new(&bridge_config(&port), RULES);
    bridge.run().await;
    let alertmanager = tools::start_alertmanager(dir.path(), &alertmanager_config(&bridge)).await;

    let started = [report(&alertmanager, "flapping", None).await, report(&alertmanager, "calm", None).await];
    for nodegroup in ["flapping", "calm"] {
        eventually("a scale-out", async || (actions(&bridge, nodegroup) == ["scale_out"]).then_some(()))
            .await;
    }
    report(&alertmanager, "flapping", Some(started[0])).await;
    report(&alertmanager, "calm", Some(started[1])).await;
    eventually("both resolves", async || (bridge.metric(ACCEPTED).await >= 4.0).then_some(())).await;
    bridge.kill();
    report(&alertmanager, "flapping", None).await;
    tokio::time::sleep(STABILIZATION_WINDOW).await;

    bridge.run().await;
    let gap = bridge.get_json("/api/v1/status").await["reception_gaps"]["prod-eu"].clone();
    assert_eq!(gap["cause"], "not_running", "{gap}");
    let time = |field: &str| -> Timestamp { gap[field].as_str().expect("text").parse().expect("a time") };
    assert_eq!(time("no_decrease_before"), time("until") + WAIT_AFTER_GAP);

    // The firing that was missed arrives, and the scale-in that it contradicts never does.
    eventually("the firing", async || (bridge.metric(ACCEPTED).await >= 1.0).then_some(())).await;
    bridge.wait_delivered("journal").await;
    assert!(!actions(&bridge, "flapping").contains(&"scale_in".to_owned()));
    // The other one comes when it is certain that nothing was missed.
    let calm = eventually("the scale-in", async || events(&bridge, "calm").get(1).cloned()).await;
    assert_eq!(calm.0, "scale_in");
    assert!(calm.1 >= time("no_decrease_before"), "{} is before {gap}", calm.1);
    assert!(!actions(&bridge, "flapping").contains(&"scale_in".to_owned()));
}
