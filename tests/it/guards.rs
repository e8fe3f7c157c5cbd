//! Guards: a deferred action runs by itself as soon as its guard allows it, and not before.

use std::time::Duration;

use aws_sdk_sqs::types::Message;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, now, pending_pod, resolved};
use crate::support::queue::{create_queue, environment, receive_all};
use crate::support::tools::{LocalAws, REGION, eventually, eventually_within};

const LABELS: &str = "labels: { cluster: prod-eu, region: eu-west-1 }";
/// The source's grace period, so that it ends within a test.
const HEARTBEAT_GRACE: SignedDuration = SignedDuration::from_secs(2);

/// [`CONFIG`] with more settings of the source.
fn config_with(settings: &str) -> String {
    CONFIG.replace(LABELS, &format!("{LABELS}, {settings}"))
}

fn rules_with_hold() -> String {
    format!(
        "{RULES}
  - name: freeze
    matchers: [alertname = DeployInProgress]
    target: {{ cluster: \"{{{{ labels.cluster }}}}\" }}
    on_firing: {{ hold: {{ blocks: [scale_in] }} }}
"
    )
}

/// An alert with no label but its name.
fn alert(name: &str) -> Value {
    json!({
        "status": "firing", "labels": { "alertname": name }, "annotations": {}, "startsAt": now(),
        "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": name,
    })
}

fn actions(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["data"]["action"].as_str()).collect()
}

/// The distinct events in the journal. An event that was written but not settled before a kill is there twice.
fn distinct_events(bridge: &Bridge) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    for event in bridge.journal() {
        if events.iter().all(|known| known["id"] != event["id"]) {
            events.push(event);
        }
    }
    events
}

/// Waits for this many distinct events in the journal, and until everything that was decided by then is delivered.
/// Returns all of them, so that an event too many is seen.
async fn wait_for_events(bridge: &Bridge, count: usize) -> Vec<Value> {
    eventually("the event", async || (distinct_events(bridge).len() >= count).then_some(())).await;
    bridge.wait_delivered("journal").await;
    distinct_events(bridge)
}

fn time(event: &Value) -> Timestamp {
    event["time"].as_str().expect("a time").parse().expect("RFC 3339")
}

async fn deferred_count(bridge: &Bridge, verdict: &str) -> f64 {
    bridge.metric(&format!("scalebridge_deferred_decisions{{verdict=\"{verdict}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stabilizing_scale_in_survives_a_kill_and_runs_when_its_window_ends() {
    let rules = RULES.replace("stabilization_window: 0s", "stabilization_window: 2s");
    // `tests/it/missed_firing.rs` has the wait after a reception gap.
    let mut bridge = Bridge::new(&config_with("late_window: 0s"), &rules);
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    bridge.wait_delivered("journal").await;
    assert_eq!(bridge.metric("scalebridge_open_episodes{rule=\"unschedulable-pods\"}").await, 1.0);
    let closed = bridge.post(notification(&[resolved(&pod)])).await;
    assert_eq!(closed.verdicts(), json!({ "stabilizing": 1 }));
    bridge.kill();
    bridge.run().await;
    assert_eq!(deferred_count(&bridge, "stabilizing").await, 1.0);
    let events = wait_for_events(&bridge, 2).await;
    assert_eq!(actions(&events), ["scale_out", "scale_in"]);
    assert_eq!(deferred_count(&bridge, "stabilizing").await, 0.0);
    assert_eq!(bridge.metric("scalebridge_open_episodes{rule=\"unschedulable-pods\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_blocked_by_a_hold_run_when_it_ends() {
    let mut bridge = Bridge::new(&config_with("late_window: 0s"), &rules_with_hold());
    bridge.run().await;
    let (pod, deploy) = (pending_pod("workers", "a"), alert("DeployInProgress"));
    assert_eq!(
        bridge.post(notification(&[deploy.clone(), pod.clone()])).await.verdicts(),
        json!({ "no_action": 1, "emitted": 1 })
    );
    assert_eq!(bridge.post(notification(&[resolved(&pod)])).await.verdicts(), json!({ "held": 1 }));
    assert_eq!(deferred_count(&bridge, "held").await, 1.0);
    bridge.kill();
    bridge.run().await;
    assert_eq!(deferred_count(&bridge, "held").await, 1.0, "a hold survives a restart");
    bridge.post(notification(&[resolved(&deploy)])).await;
    assert_eq!(actions(&wait_for_events(&bridge, 2).await), ["scale_out", "scale_in"]);
    assert_eq!(deferred_count(&bridge, "held").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_scaled_in_while_the_heartbeat_is_missing() {
    let settings = format!(
        "heartbeat: ['alertname = \"Watchdog\"'], heartbeat_grace: {}s, late_window: 0s",
        HEARTBEAT_GRACE.as_secs()
    );
    let mut bridge = Bridge::new(&config_with(&settings), RULES);
    bridge.run().await;
    let (pod, watchdog) = (pending_pod("workers", "a"), alert("Watchdog"));
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    bridge.wait_delivered("journal").await;
    assert_eq!(bridge.post(notification(&[resolved(&pod)])).await.verdicts(), json!({ "held": 1 }));
    let opens = Timestamp::now();
    assert_eq!(
        bridge.post(notification(std::slice::from_ref(&watchdog))).await.verdicts(),
        json!({ "heartbeat": 1 })
    );
    let events = wait_for_events(&bridge, 2).await;
    assert_eq!(actions(&events), ["scale_out", "scale_in"]);
    let waited = time(&events[1]).duration_since(opens);
    assert!(waited >= HEARTBEAT_GRACE, "alerts had {waited} to fire again");
    // Prometheus dies, and Alertmanager resolves all alerts.
    let pod = pending_pod("workers", "b");
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    bridge.wait_delivered("journal").await;
    let all = bridge.post(notification(&[resolved(&pod), resolved(&watchdog)])).await;
    assert_eq!(all.verdicts(), json!({ "heartbeat": 1, "held": 1 }));
    assert_eq!(actions(&bridge.events().await), ["scale_out", "scale_in", "scale_out"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_in_shadow_mode_sends_nothing() {
    let rules = RULES.replace("    matchers:", "    mode: shadow\n    matchers:");
    let mut bridge = Bridge::new(CONFIG, &rules);
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    let fired = bridge.post(notification(std::slice::from_ref(&pod))).await;
    assert_eq!(fired.json(), json!({ "alerts": 1, "events": 0, "verdicts": { "shadowed": 1 } }));
    let closed = bridge.post(notification(&[resolved(&pod)])).await;
    assert_eq!(closed.verdicts(), json!({ "shadowed": 1 }));
    assert!(bridge.events().await.is_empty());
}

/// The scale-in over the limit follows by itself when the first one is a minute old, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_limits_scale_ins_per_minute() {
    let config = format!("{CONFIG}engine: {{ scale_in_per_minute: 2 }}\n");
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let pods: Vec<Value> = ["a", "b", "c"].iter().map(|group| pending_pod(group, "1")).collect();
    bridge.post(notification(&pods)).await;
    bridge.wait_delivered("journal").await;
    let ends: Vec<Value> = pods.iter().map(resolved).collect();
    assert_eq!(bridge.post(notification(&ends)).await.verdicts(), json!({ "emitted": 2, "over_budget": 1 }));
    assert_eq!(deferred_count(&bridge, "over_budget").await, 1.0);
    let scale_ins = || {
        let events = bridge.journal().into_iter();
        events.filter(|event| event["data"]["action"] == "scale_in").collect::<Vec<Value>>()
    };
    eventually_within(Duration::from_secs(100), "the third scale-in", async || {
        (scale_ins().len() >= 3).then_some(())
    })
    .await;
    bridge.wait_delivered("journal").await;
    let scale_ins = scale_ins();
    let mut targets: Vec<&str> =
        scale_ins.iter().filter_map(|event| event["data"]["target"]["name"].as_str()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["a", "b", "c"], "one for each");
    let waited = time(&scale_ins[2]).duration_since(time(&scale_ins[0]));
    assert!(waited >= SignedDuration::from_secs(60), "the third came after {waited:?}");
    assert_eq!(deferred_count(&bridge, "over_budget").await, 0.0);
}

/// A bridge that sends to the queue `scaling` of the local AWS, which does not exist yet.
async fn start_with_queue(aws: &LocalAws) -> (Bridge, String) {
    let url = format!("{}/000000000000/scaling", aws.url());
    let queue = format!(
        "  journal: {{ sqs: {{ queue_url: \"{url}\", region: {REGION} }}, initial_backoff: 50ms, max_backoff: 200ms }}"
    );
    let config =
        config_with("late_window: 0s").replace("  journal: { file: { path: events.jsonl } }", &queue);
    let mut bridge = Bridge::new(&config, RULES);
    environment(aws).iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    (bridge, url)
}

/// The actions of the messages in the queue, in their order, once the bridge has delivered everything.
async fn received_actions(bridge: &Bridge, aws: &LocalAws, url: &str) -> Vec<String> {
    bridge.wait_delivered("journal").await;
    let received = receive_all(aws, url).await;
    let event = |message: &Message| -> Value {
        serde_json::from_str(message.body().expect("a body")).expect("an event")
    };
    let events: Vec<Value> = received.iter().map(event).collect();
    actions(&events).into_iter().map(str::to_owned).collect()
}

/// The queue does not exist yet, so nothing is known of the scale-out when its alert resolves.
#[tokio::test(flavor = "multi_thread")]
async fn a_scale_in_waits_for_the_delivery_of_the_scale_out_that_it_answers() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let (mut bridge, url) = start_with_queue(&aws).await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    let closed = bridge.post(notification(&[resolved(&pod)])).await;
    assert_eq!(closed.json(), json!({ "alerts": 1, "events": 0, "verdicts": { "cooling_down": 1 } }));
    let waiting = bridge.decisions("cooling_down").await.remove(0);
    assert_eq!(waiting["until"], Value::Null, "{waiting}");
    // It waits after a restart too, and runs by itself when the scale-out has arrived.
    bridge.kill();
    bridge.run().await;
    assert_eq!(deferred_count(&bridge, "cooling_down").await, 1.0);
    create_queue(&aws, "scaling").await;
    eventually("the scale-in", async || (bridge.decisions("emitted").await.len() == 2).then_some(())).await;
    assert_eq!(received_actions(&bridge, &aws, &url).await, ["scale_out", "scale_in"]);
    assert_eq!(deferred_count(&bridge, "cooling_down").await, 0.0);
}

/// The queue is deleted before the scale-in, which is therefore undelivered when the next scale-out is decided.
#[tokio::test(flavor = "multi_thread")]
async fn an_undelivered_scale_in_is_superseded_by_the_next_scale_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let (mut bridge, url) = start_with_queue(&aws).await;
    create_queue(&aws, "scaling").await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    assert_eq!(received_actions(&bridge, &aws, &url).await, ["scale_out"]);
    aws.sqs().delete_queue().queue_url(&url).send().await.expect("deleted");
    assert_eq!(bridge.post(notification(&[resolved(&pod)])).await.verdicts(), json!({ "emitted": 1 }));
    let again = bridge.post(notification(&[pending_pod("workers", "b")])).await;
    assert_eq!(again.json(), json!({ "alerts": 1, "events": 1, "verdicts": { "emitted": 1 } }));
    let superseded = "scalebridge_decisions_total{rule=\"unschedulable-pods\",verdict=\"superseded\"}";
    assert_eq!(bridge.metric(superseded).await, 1.0);
    // It is not delivered after a restart either.
    bridge.kill();
    bridge.run().await;
    create_queue(&aws, "scaling").await;
    assert_eq!(received_actions(&bridge, &aws, &url).await, ["scale_out"]);
    assert_eq!(bridge.metric("scalebridge_dead_letters{destination=\"journal\"}").await, 0.0);
}
