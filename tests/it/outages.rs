//! What an outage of a destination does to the events that it delays: none is lost, none is sent too late, and none acts
//! twice or all at once when it ends.

use std::fs;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::aws_stub::{AwsStub, Reply};
use crate::support::bridge::{Bridge, RULES, notification, pending_pod, resolved};
use crate::support::queue::TEST_AWS_ENV;
use crate::support::tools::eventually;

const RETRIES: &str = "scalebridge_deliveries_total{destination=\"sink\",result=\"retry\"}";
const DEAD: &str = "scalebridge_dead_letters{destination=\"sink\"}";

/// A bridge whose only destination is the file `sink/events.jsonl`, with these settings.
fn bridge(settings: &str) -> Bridge {
    let sink = format!("file: {{ path: sink/events.jsonl }}{settings}");
    Bridge::with_destinations(&[("sink", sink)])
}

/// From now on the file cannot be written, since its directory is a file.
fn begin_outage(bridge: &Bridge) {
    let sink = bridge.dir().join("sink");
    if sink.exists() {
        fs::rename(&sink, bridge.dir().join("delivered")).expect("renamed");
    }
    fs::write(sink, "").expect("a file");
}

fn end_outage(bridge: &Bridge) {
    let sink = bridge.dir().join("sink");
    fs::remove_file(&sink).expect("removed");
    if bridge.dir().join("delivered").exists() {
        fs::rename(bridge.dir().join("delivered"), sink).expect("renamed");
    }
}

/// The events that have arrived.
fn arrived(bridge: &Bridge) -> Vec<Value> {
    let text = fs::read_to_string(bridge.dir().join("sink/events.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// The node group and the action of each event that has arrived.
fn arrived_actions(bridge: &Bridge) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let data = |event: &Value| (text(&event["data"]["target"]["name"]), text(&event["data"]["action"]));
    arrived(bridge).iter().map(data).collect()
}

fn scale_in(nodegroup: &str) -> (String, String) {
    (nodegroup.to_owned(), "scale_in".to_owned())
}

/// Fires about a node group that has nothing to do with the outage, and waits for its event.
async fn deliver_another(bridge: &Bridge, nodegroup: &str) {
    bridge.post(notification(&[pending_pod(nodegroup, "a")])).await.verdicts();
    let event = (nodegroup.to_owned(), "scale_out".to_owned());
    eventually("the other event", async || arrived_actions(bridge).contains(&event).then_some(())).await;
}

async fn wait_for_retry(bridge: &Bridge, before: f64) {
    eventually("a retry", async || (bridge.metric(RETRIES).await > before).then_some(())).await;
}

/// The delivery of an event to the only destination.
async fn delivery(bridge: &Bridge, event: &Value) -> Value {
    let path = format!("/api/v1/events/{}", event.as_str().expect("an id"));
    bridge.get_json(&path).await["deliveries"][0].clone()
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is not a time"));
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The need grows while its first event is not delivered: each cooldown would be over by the time of its emission.
#[tokio::test(flavor = "multi_thread")]
async fn a_need_that_grows_during_an_outage_is_not_answered_all_at_once_after_it() {
    const MIN_WAIT: Duration = Duration::from_secs(2);
    let mut bridge = bridge("");
    bridge.write("rules.yaml", &rules_with_cooldown(MIN_WAIT));
    begin_outage(&bridge);
    bridge.run().await;
    let pods: Vec<Value> = (0..4).map(|at| pending_pod("workers", &format!("pod-{at}"))).collect();
    let first = bridge.post(notification(&pods[..1])).await;
    assert_eq!(first.verdicts(), json!({ "emitted": 1 }));
    for count in 2..=pods.len() {
        tokio::time::sleep(MIN_WAIT).await;
        bridge.post(notification(&pods[..count])).await.verdicts();
        let waiting = bridge.decisions("cooling_down").await.remove(0);
        assert_eq!(waiting["until"], Value::Null, "{waiting}");
    }
    assert_eq!(bridge.decisions("emitted").await.len(), 1);

    end_outage(&bridge);
    bridge.wait_settled(&["sink"]).await;
    let events = arrived(&bridge);
    assert_eq!(events.len(), 2, "the growth is answered once");
    let delivered_at = time(&delivery(&bridge, &events[0]["id"]).await["delivered_at"]);
    let waited = time(&events[1]["time"]).duration_since(delivered_at);
    assert!(waited >= SignedDuration::try_from(MIN_WAIT).expect("short"), "{waited} after the delivery");
}

fn rules_with_cooldown(cooldown: Duration) -> String {
    let cooldown = format!("scale_out: {{ by: 2 }}, cooldown: {}s", cooldown.as_secs());
    RULES.replace("[journal]", "[sink]").replace("scale_out: { by: 2 }, cooldown: 0s", &cooldown)
}

/// The need lasts, so its event is worth sending, and no consumer may reject it as expired.
#[tokio::test(flavor = "multi_thread")]
async fn the_event_of_an_open_episode_outlives_its_ages_and_arrives_with_a_new_expirytime() {
    let mut bridge = bridge(", max_age: 1s");
    let rules = RULES.replace("[journal]", "[sink]\n    expires_after: 2s");
    bridge.write("rules.yaml", &rules);
    begin_outage(&bridge);
    bridge.run().await;
    bridge.post(notification(&[pending_pod("workers", "a")])).await.verdicts();
    let id = bridge.decisions("emitted").await[0]["event"].clone();
    let path = format!("/api/v1/events/{}", id.as_str().expect("an id"));
    let emitted = bridge.get_json(&path).await["event"].clone();
    let expirytime = time(&emitted["expirytime"]);
    eventually("the end of both ages", async || (Timestamp::now() > expirytime).then_some(())).await;

    end_outage(&bridge);
    eventually("the event", async || (arrived(&bridge).len() == 1).then_some(())).await;
    bridge.wait_settled(&["sink"]).await;
    assert_eq!(bridge.metric(DEAD).await, 0.0);
    let events = arrived(&bridge);
    assert_eq!(events.len(), 1, "{events:#?}");
    for field in ["id", "sequence", "time", "data"] {
        assert_eq!(events[0][field], emitted[field], "{field}");
    }
    let delivered_at = time(&delivery(&bridge, &id).await["delivered_at"]);
    assert!(delivered_at > expirytime);
    assert!(delivered_at < time(&events[0]["expirytime"]), "{}", events[0]);
    assert_eq!(bridge.decisions("emitted").await.len(), 1);
}

/// The next call would be hours away. Events that were never called are given up too.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_given_up_at_its_age_and_not_at_the_next_call() {
    let config = Bridge::with_destinations(&[("sink", "file: { path: sink/events.jsonl }".to_owned())]);
    let config = fs::read_to_string(config.dir().join("scalebridge.yaml")).expect("a configuration");
    let rare = "initial_backoff: 365d, max_backoff: 365d, max_age: 3s";
    let config = config.replace("initial_backoff: 50ms, max_backoff: 200ms", rare);
    let mut bridge = Bridge::new(&config, &RULES.replace("[journal]", "[sink]"));
    begin_outage(&bridge);
    bridge.run().await;
    let pods = ["a", "b", "c", "d", "e"].map(|group| pending_pod(group, "a"));
    bridge.post(notification(&pods)).await.verdicts();
    bridge.post(notification(&pods.each_ref().map(resolved))).await.verdicts();
    eventually("dead letters", async || (bridge.metric(DEAD).await == 5.0).then_some(())).await;
    let dead = bridge.get_json("/api/v1/dead-letters").await["dead_letters"].clone();
    for dead in dead.as_array().expect("a list") {
        assert!(dead["attempts"].as_u64().is_some_and(|attempts| attempts <= 1), "{dead}");
        let error = dead["error"].as_str().expect("text");
        assert!(error.starts_with("expired: not delivered within 3s"), "{error}");
    }
    assert_eq!(arrived(&bridge), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_an_event_that_is_renewed_from_a_dead_letter() {
    let mut bridge = bridge(", max_age: 2s");
    begin_outage(&bridge);
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await.verdicts();
    let id = bridge.decisions("emitted").await.remove(0)["event"].as_str().expect("an id").to_owned();
    let last = |text: &str| {
        let is_about = |line: &str| line.contains(text) && line.contains(&id);
        bridge.log().lines().enumerate().filter(|(_, line)| is_about(line)).map(|(at, _)| at).last()
    };
    eventually("a renewal", async || last("delivery renewed")).await;
    assert!(last("delivery expired").is_some());
    bridge.post(notification(&[resolved(&pod)])).await.verdicts();
    eventually("a dead letter", async || (bridge.metric(DEAD).await == 1.0).then_some(())).await;
    let expired = eventually("the last line", async || last("delivery expired")).await;
    assert!(last("delivery renewed").is_some_and(|renewed| renewed < expired), "{}", bridge.log());
}

/// The decrease is too old when the destination works again, and what it would have taken back is still owed.
#[tokio::test(flavor = "multi_thread")]
async fn a_scale_in_that_was_given_up_in_an_outage_is_made_again_after_it() {
    let mut bridge = bridge(", scale_in_max_age: 3s");
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await.verdicts();
    bridge.wait_delivered("sink").await;
    begin_outage(&bridge);
    assert_eq!(bridge.post(notification(&[resolved(&pod)])).await.verdicts(), json!({ "emitted": 1 }));
    let given_up = bridge.decisions("emitted").await.remove(0)["event"].clone();
    let waiting = eventually("a new request", async || bridge.decisions("cooling_down").await.pop()).await;
    assert_eq!((&waiting["action"], &waiting["until"]), (&json!("scale_in"), &Value::Null), "{waiting}");
    assert_eq!(delivery(&bridge, &given_up).await["state"], "replaced");
    eventually("a log line", async || bridge.log().contains("delivery expired").then_some(())).await;
    assert!(!bridge.log().contains("kept as a dead letter"), "nobody has to redrive it");
    assert_eq!(arrived_actions(&bridge), []);

    end_outage(&bridge);
    deliver_another(&bridge, "others").await;
    let last = eventually("the scale-in", async || {
        let events = arrived(&bridge);
        events.into_iter().find(|event| event["data"]["action"] == "scale_in")
    })
    .await;
    bridge.wait_settled(&["sink"]).await;
    let first = arrived(&bridge)[0].clone();
    assert_eq!(last["data"]["reverts"], json!([first["id"]]));
    assert_ne!(last["id"], given_up);
    assert_eq!(arrived_actions(&bridge).iter().filter(|event| **event == scale_in("workers")).count(), 1);
    assert_eq!(bridge.metric(DEAD).await, 0.0);
}

/// A hold, too, stops what is emitted and not delivered, and delays nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_withholds_an_increase_that_is_emitted_and_not_delivered() {
    let mut bridge = bridge("");
    let hold = "  - name: freeze\n    matchers: [alertname = Freeze]\n    \
                target: { name: \"{{ labels.nodegroup }}\" }\n    on_firing: { hold: {} }\n";
    bridge.write("rules.yaml", &(RULES.replace("[journal]", "[sink]") + hold));
    begin_outage(&bridge);
    bridge.run().await;
    bridge.post(notification(&[pending_pod("a", "a")])).await.verdicts();
    wait_for_retry(&bridge, 0.0).await;
    let withheld = bridge.decisions("emitted").await[0]["event"].clone();
    let mut freeze = pending_pod("a", "freeze");
    freeze["labels"]["alertname"] = json!("Freeze");
    bridge.post(notification(std::slice::from_ref(&freeze))).await.verdicts();
    let calls = async |event: &Value| delivery(&bridge, event).await["attempts"].as_u64().expect("a number");
    // A call that was under way when the hold began still ends.
    let most_calls = calls(&withheld).await + 1;
    bridge.post(notification(&[pending_pod("b", "a")])).await.verdicts();
    let other = bridge.decisions("emitted").await[0]["event"].clone();
    eventually("calls of the other event", async || (calls(&other).await >= 4).then_some(())).await;
    assert!(calls(&withheld).await <= most_calls);
    end_outage(&bridge);
    eventually("the other event", async || (!arrived(&bridge).is_empty()).then_some(())).await;
    assert_eq!(arrived(&bridge).len(), 1, "of the target without a hold");

    bridge.post(notification(&[resolved(&freeze)])).await.verdicts();
    bridge.wait_delivered("sink").await;
    let groups: Vec<String> = arrived_actions(&bridge).into_iter().map(|(group, _)| group).collect();
    assert_eq!(groups, ["b", "a"]);
}

/// A pause takes back a decrease that no answer has confirmed; its end requests it again, with another id.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_takes_back_a_scale_in_that_is_emitted_and_not_delivered() {
    let mut bridge = bridge("");
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await.verdicts();
    bridge.wait_delivered("sink").await;
    begin_outage(&bridge);
    let before = bridge.metric(RETRIES).await;
    assert_eq!(bridge.post(notification(&[resolved(&pod)])).await.verdicts(), json!({ "emitted": 1 }));
    wait_for_retry(&bridge, before).await;
    let taken_back = bridge.decisions("emitted").await.remove(0)["event"].clone();
    let pause = json!({ "direction": "scale_in", "author": "ann", "reason": "unclear" });
    let (status, pause) = bridge.api("POST", "/api/v1/pauses", Some(pause)).await;
    assert_eq!((status, &pause["undelivered_events"]), (201, &json!(1)), "{pause}");
    eventually("the decision", async || bridge.decisions("superseded").await.pop()).await;
    // A call that is under way ends first.
    eventually("its delivery", async || {
        (delivery(&bridge, &taken_back).await["state"] == "superseded").then_some(())
    })
    .await;

    end_outage(&bridge);
    deliver_another(&bridge, "others").await;
    assert!(!arrived_actions(&bridge).contains(&scale_in("workers")));
    assert_eq!(bridge.api("DELETE", &format!("/api/v1/pauses/{}", pause["id"]), None).await.0, 200);
    eventually("the scale-in", async || {
        arrived_actions(&bridge).contains(&scale_in("workers")).then_some(())
    })
    .await;
    bridge.wait_settled(&["sink"]).await;
    let events = arrived(&bridge);
    assert_eq!(events.len(), 3);
    assert_ne!(events[2]["id"], taken_back);
}

/// What a pause could not stop any more is said at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_says_how_many_calls_were_already_under_way() {
    let queue = AwsStub::start(Reply::Silence).await;
    let mut bridge = Bridge::with_destinations(&[("queue", queue.queue())]);
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    bridge.post(notification(&[pending_pod("workers", "a")])).await.verdicts();
    eventually("the call", async || (queue.calls().len() == 1).then_some(())).await;
    for (target, events) in [("*/others", 0), ("*/workers", 1)] {
        let words = ["pause", "--target", target, "--author", "ann", "--reason", "test", "--format", "json"];
        let (code, said, error) = bridge.cli(&words);
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{error}"));
        let pause = &said[0];
        assert_eq!(code, Some(0));
        let counts = (&pause["undelivered_events"], &pause["calls_in_flight"]);
        assert_eq!(counts, (&json!(events), &json!(events)), "{target}: {pause}");
    }
}

/// The answer to a call may have been lost with the process: the decrease keeps its id, and is not made anew when it is
/// given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_scale_in_whose_call_was_interrupted_by_a_kill_is_not_made_a_second_time() {
    const ACCESS_DENIED: &str = "{\"__type\":\"AccessDenied\",\"message\":\"no\"}";
    let queue = AwsStub::start(Reply::Accept).await;
    let destination = format!("{}, scale_in_max_age: 4s", queue.queue());
    let mut bridge = Bridge::with_destinations(&[("queue", destination)]);
    bridge.without_late_window();
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await.verdicts();
    bridge.wait_delivered("queue").await;
    queue.set(Reply::Silence);
    assert_eq!(bridge.post(notification(&[resolved(&pod)])).await.verdicts(), json!({ "emitted": 1 }));
    eventually("the call", async || (queue.calls().len() == 2).then_some(())).await;
    bridge.kill();
    // What this answers has certainly not arrived: only the call before the kill may have.
    queue.set(Reply::Page(403, "application/x-amz-json-1.0", ACCESS_DENIED.to_owned()));
    bridge.run().await;
    let series = "scalebridge_dead_letters{destination=\"queue\"}";
    eventually("a dead letter", async || (bridge.metric(series).await == 1.0).then_some(())).await;
    let owed = "scalebridge_owed_decreases{rule=\"unschedulable-pods\"}";
    eventually("nothing owed", async || (bridge.metric(owed).await == 0.0).then_some(())).await;

    queue.set(Reply::Accept);
    bridge.post(notification(&[pending_pod("others", "a")])).await.verdicts();
    bridge.wait_settled(&["queue"]).await;
    let called = queue.called();
    let mut decreases: Vec<&String> =
        called.iter().filter(|(_, action)| action == "scale_in").map(|(id, _)| id).collect();
    decreases.dedup();
    assert_eq!(decreases.len(), 1, "one id, before and after the kill: {called:?}");
    assert_eq!(bridge.decisions("cooling_down").await, Vec::<Value>::new());
}
