//! What Alertmanager says later than it happened: what it wanted to say while the bridge was down, and firings of an
//! alert that has resolved. `tests/it/gaps.rs` has the gaps themselves.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, post};
use crate::support::prometheus::{Release, on_old_and_new};
use crate::support::tools::{Port, Server, eventually};

on_old_and_new!(
    nothing_is_decreased_before_what_was_missed_has_been_heard,
    a_scale_in_waits_for_a_late_firing_and_is_withdrawn_when_it_opens,
    nothing_is_decreased_when_alertmanager_resolves_what_a_dead_prometheus_does_not_report,
);

const STABILIZATION_WINDOW: Duration = Duration::from_secs(3);
/// Those of the test with late firings: longer than Alertmanager needs to send what it is told, also on a busy machine.
const LATE_STABILIZATION_WINDOW: SignedDuration = SignedDuration::from_secs(8);
const LATE_FIRING_WINDOW: SignedDuration = SignedDuration::from_secs(10);
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
    send(alertmanager, nodegroup, starts_at.unwrap_or(now), end).await;
    now
}

/// Sends to Alertmanager that the alert, which has resolved, still fires: as a Prometheus does that did not see it end.
async fn report_late(alertmanager: &Server, nodegroup: &str, starts_at: Timestamp) {
    send(alertmanager, nodegroup, starts_at, Timestamp::now() + SignedDuration::from_mins(5)).await;
}

async fn send(alertmanager: &Server, nodegroup: &str, starts_at: Timestamp, end: Timestamp) {
    let alert = json!([{
        "labels": { "alertname": "KubePodsPending", "nodegroup": nodegroup, "pod": "a" },
        "startsAt": starts_at.to_string(), "endsAt": end.to_string(),
    }]);
    let answer = post(alertmanager.url() + "/api/v2/alerts", &[], alert.to_string().into_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
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
async fn nothing_is_decreased_before_what_was_missed_has_been_heard(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let port = Port::reserve();
    let mut bridge = Bridge::new(&bridge_config(&port), RULES);
    bridge.run().await;
    let alertmanager = release.start_alertmanager(dir.path(), &alertmanager_config(&bridge)).await;

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

/// The decisions about a node group with this verdict, the oldest first.
async fn decisions(bridge: &Bridge, nodegroup: &str, verdict: &str) -> Vec<Value> {
    let mut decisions = bridge.decisions(verdict).await;
    decisions.retain(|decision| {
        decision["subject"].as_str().is_some_and(|subject| subject.ends_with(&format!("/{nodegroup}")))
    });
    decisions.reverse();
    decisions
}

fn time_of(decision: &Value, field: &str) -> Timestamp {
    let text = decision[field].as_str().unwrap_or_else(|| panic!("{field} of {decision}"));
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

async fn wait_for_decision(bridge: &Bridge, nodegroup: &str, verdict: &str, count: usize) -> Value {
    eventually(verdict, async || {
        let found = decisions(bridge, nodegroup, verdict).await;
        found.get(count - 1).cloned()
    })
    .await
}

/// Both node groups resolve, and while their scale-ins wait, Alertmanager says that their alerts still fire. One of them
/// does; the other resolves again.
async fn a_scale_in_waits_for_a_late_firing_and_is_withdrawn_when_it_opens(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = CONFIG.replace(
        "region: eu-west-1 } }",
        &format!("region: eu-west-1 }}, late_window: {}s }}", LATE_FIRING_WINDOW.as_secs()),
    );
    let window = |seconds: i64| format!("stabilization_window: {seconds}s");
    let rules = RULES.replace(&window(3), &window(LATE_STABILIZATION_WINDOW.as_secs()));
    let mut bridge = Bridge::new(&config, &rules);
    bridge.run().await;
    let alertmanager = release.start_alertmanager(dir.path(), &alertmanager_config(&bridge)).await;

    let started = [report(&alertmanager, "firing", None).await, report(&alertmanager, "ended", None).await];
    for (nodegroup, starts_at) in ["firing", "ended"].into_iter().zip(started) {
        eventually("a scale-out", async || (actions(&bridge, nodegroup) == ["scale_out"]).then_some(()))
            .await;
        bridge.wait_delivered("journal").await;
        report(&alertmanager, nodegroup, Some(starts_at)).await;
        let closed = wait_for_decision(&bridge, nodegroup, "stabilizing", 1).await;
        assert_eq!(closed["action"], "scale_in", "{closed}");
        report_late(&alertmanager, nodegroup, starts_at).await;
        wait_for_decision(&bridge, nodegroup, "late", 1).await;
    }
    report(&alertmanager, "ended", Some(started[1])).await;

    check_late_firing_that_opens(&bridge).await;
    check_late_firing_that_resolves(&bridge).await;

    // The alert that went on resolves at last, and with it the episode that its late firing continued.
    report(&alertmanager, "firing", Some(started[0])).await;
    eventually("the scale-in", async || (actions(&bridge, "firing").len() == 2).then_some(())).await;
    let events: Vec<Value> = bridge.events().await;
    let events: Vec<&Value> =
        events.iter().filter(|event| event["data"]["target"]["name"] == "firing").collect();
    assert_eq!((&events[1]["data"]["action"], events.len()), (&json!("scale_in"), 2));
    assert_eq!(events[1]["data"]["reverts"], json!([events[0]["id"]]));
    assert_eq!(events[1]["data"]["episode"]["id"], events[0]["data"]["episode"]["id"]);
}

/// The scale-in waits beyond its window for the late firing, which opens and withdraws it.
async fn check_late_firing_that_opens(bridge: &Bridge) {
    let late = decisions(bridge, "firing", "late").await.remove(0);
    let opens_at = time_of(&late, "until");
    assert_eq!(opens_at.duration_since(time_of(&late, "at")), LATE_FIRING_WINDOW);
    let withdrawn = wait_for_decision(bridge, "firing", "withdrawn", 1).await;
    assert_eq!(withdrawn["action"], "scale_in", "{withdrawn}");
    assert!(time_of(&withdrawn, "at") >= opens_at, "{withdrawn}");
    let waits = decisions(bridge, "firing", "stabilizing").await;
    let [first, second] = &waits[..] else { panic!("{waits:#?}") };
    assert!(time_of(first, "until") < opens_at, "the late firing came within the window: {first}");
    assert_eq!(time_of(second, "until"), opens_at, "{second}");
    assert_eq!(actions(bridge, "firing"), ["scale_out"], "nothing was decreased, and nothing is added again");
}

/// The end of the late firing starts the window of the scale-in again.
async fn check_late_firing_that_resolves(bridge: &Bridge) {
    let withdrawn = wait_for_decision(bridge, "ended", "withdrawn", 1).await;
    let shrunk = eventually("the scale-in", async || events(bridge, "ended").get(1).cloned()).await;
    assert_eq!(shrunk.0, "scale_in");
    let waited = shrunk.1.duration_since(time_of(&withdrawn, "at"));
    assert!(waited >= LATE_STABILIZATION_WINDOW, "{waited} after {withdrawn}");
    assert_eq!(actions(bridge, "ended"), ["scale_out", "scale_in"]);
}

/// Sends to Alertmanager the beginning, or the end, of an alert without labels.
async fn report_watchdog(alertmanager: &Server, starts_at: Timestamp, end: Timestamp) {
    let alert = json!([{
        "labels": { "alertname": "Watchdog" }, "startsAt": starts_at.to_string(), "endsAt": end.to_string(),
    }]);
    let answer = post(alertmanager.url() + "/api/v2/alerts", &[], alert.to_string().into_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Prometheus dies, and Alertmanager resolves all of its alerts, in whatever order: nothing has recovered. When it is
/// back, what it still sees has time to fire again.
async fn nothing_is_decreased_when_alertmanager_resolves_what_a_dead_prometheus_does_not_report(
    release: Release,
) {
    // Longer than the late window, which delays the scale-in too.
    const HEARTBEAT_GRACE: SignedDuration = SignedDuration::from_secs(14);
    let dir = tempfile::tempdir().expect("a directory");
    let heartbeat = format!(
        "prod-eu: {{ heartbeat: ['alertname = \"Watchdog\"'], heartbeat_grace: {}s, late_window: {}s,",
        HEARTBEAT_GRACE.as_secs(),
        LATE_FIRING_WINDOW.as_secs()
    );
    let mut bridge = Bridge::new(&CONFIG.replace("prod-eu: {", &heartbeat), RULES);
    bridge.run().await;
    let alertmanager = release.start_alertmanager(dir.path(), &alertmanager_config(&bridge)).await;
    let begun = Timestamp::now();
    report_watchdog(&alertmanager, begun, begun + SignedDuration::from_mins(5)).await;
    let starts = [report(&alertmanager, "flapping", None).await, report(&alertmanager, "calm", None).await];
    for (nodegroup, starts_at) in ["flapping", "calm"].into_iter().zip(starts) {
        eventually("a scale-out", async || (actions(&bridge, nodegroup) == ["scale_out"]).then_some(()))
            .await;
        bridge.wait_delivered("journal").await;
        report(&alertmanager, nodegroup, Some(starts_at)).await;
    }
    report_watchdog(&alertmanager, begun, Timestamp::now()).await;
    let open_since = async || bridge.get_json("/api/v1/sources").await[0]["heartbeat_open_since"].clone();
    eventually("the end of the heartbeat", async || open_since().await.is_null().then_some(())).await;
    for nodegroup in ["flapping", "calm"] {
        wait_for_decision(&bridge, nodegroup, "held", 1).await;
    }

    let back = Timestamp::now();
    report_watchdog(&alertmanager, back, back + SignedDuration::from_mins(5)).await;
    eventually("the heartbeat", async || open_since().await.is_string().then_some(())).await;
    let opened_at: Timestamp = open_since().await.as_str().expect("text").parse().expect("a time");
    report(&alertmanager, "flapping", None).await;
    let calm = eventually("the scale-in", async || events(&bridge, "calm").get(1).cloned()).await;
    assert_eq!(calm.0, "scale_in");
    assert!(calm.1.duration_since(opened_at) >= HEARTBEAT_GRACE, "{} after {opened_at}", calm.1);
    assert!(!actions(&bridge, "flapping").contains(&"scale_in".to_owned()));
}
