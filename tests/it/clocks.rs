//! The wall clock can step by hours while the bridge runs: waits do not jump, nothing acts twice or is lost, and what
//! others compare with their own clocks has the time of the wall clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod, resolved};
use crate::support::tools::eventually;

const HOURS_2: i64 = 7200;
/// More than a test takes, and much less than a step.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(10);

/// A bridge whose wall clock the test steps.
struct Stepped {
    bridge: Bridge,
    offset_file: PathBuf,
    offset: i64,
}

/// Compiles the library that changes the wall clock of the process that preloads it.
pub(crate) fn compile(dir: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wall-clock.c");
    let library = dir.join("wall-clock.so");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.expect("a C compiler").success());
    library
}

impl Stepped {
    /// Scale-outs have a cooldown of an hour.
    async fn start() -> Self {
        let rules = RULES.replace("scale_out: { by: 2 }, cooldown: 0s", "scale_out: { by: 2 }, cooldown: 1h");
        Self::start_with(Bridge::new(CONFIG, &rules)).await
    }

    async fn start_with(mut bridge: Bridge) -> Self {
        let (library, offset_file) = (compile(bridge.dir()), bridge.dir().join("offset"));
        bridge.env("LD_PRELOAD", &library.display().to_string());
        bridge.env("WALL_CLOCK_OFFSET_FILE", &offset_file.display().to_string());
        bridge.run().await;
        Self { bridge, offset_file, offset: 0 }
    }

    fn step_to(&mut self, offset: i64) {
        // By renaming: the bridge must not read an empty file.
        let temporary = self.offset_file.with_extension("new");
        fs::write(&temporary, offset.to_string()).expect("a file");
        fs::rename(temporary, &self.offset_file).expect("renamed");
        self.offset = offset;
    }

    /// The wall clock of the bridge.
    fn wall(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.offset)
    }

    fn assert_is_wall(&self, time: &Value, what: &str) {
        let difference = timestamp(time).duration_since(self.wall()).abs();
        assert!(difference < TOLERANCE, "{what}: {time}, and the wall clock shows {}", self.wall());
    }

    /// A pod of the node group is pending, for the first time. Returns the verdict.
    async fn fire(&self, nodegroup: &str, pod: &str) -> Value {
        self.bridge.post(notification(&[pending_pod(nodegroup, pod)])).await.verdicts()
    }

    /// The offset that the metrics show: of the wall clock to the store's clock.
    async fn assert_offset(&self, expected: f64) {
        let offset = self.bridge.metric("scalebridge_clock_offset_seconds").await;
        // Each second draws the store's clock towards the wall clock by at most ten milliseconds.
        let tolerance = TOLERANCE.as_secs_f64() / 100.0;
        assert!((offset - expected).abs() <= tolerance, "{offset}, expected {expected}");
    }

    /// The log lines with this message.
    fn logged(&self, message: &str) -> Vec<Value> {
        let log = self.bridge.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }
}

fn timestamp(time: &Value) -> Timestamp {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is not a time"));
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

const DIFFERS: &str = "the wall clock differs from the store's clock";
const AGREES: &str = "the wall clock agrees with the store's clock";

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_the_wall_clock_move_no_guard_and_events_are_born_with_the_new_time() {
    let mut stepped = Stepped::start().await;
    stepped.assert_offset(0.0).await;
    assert_eq!(stepped.fire("workers", "first").await, json!({ "emitted": 1 }));
    // Its cooldown counts from the delivery.
    stepped.bridge.wait_delivered("journal").await;
    let mut count = 1;
    for (offset, nodegroup) in [(HOURS_2, "ahead"), (-HOURS_2, "behind")] {
        stepped.step_to(offset);
        stepped.assert_offset(offset as f64).await;
        // The cooldown of the first event neither ends nor starts over.
        assert_eq!(stepped.fire("workers", nodegroup).await, json!({ "cooling_down": 1 }));
        let decision = stepped.bridge.decisions("cooling_down").await.remove(0);
        stepped.assert_is_wall(&decision["at"], "the record");
        let left = timestamp(&decision["until"]).duration_since(stepped.wall());
        assert!(
            left > SignedDuration::from_hours(1) - TOLERANCE && left <= SignedDuration::from_hours(1),
            "{left}"
        );
        // An event that is emitted now is valid for an hour from now, for every consumer.
        assert_eq!(stepped.fire(nodegroup, "one").await, json!({ "emitted": 1 }));
        let events = stepped.bridge.events().await;
        count += 1;
        assert_eq!(events.len(), count, "delivered, and nothing acts twice");
        let event = &events[count - 1];
        stepped.assert_is_wall(&event["time"], "the event");
        let valid_for = timestamp(&event["expirytime"]).duration_since(timestamp(&event["time"]));
        assert_eq!(valid_for, SignedDuration::from_hours(1));
        assert_eq!(event["data"]["episode"]["opened_at"], event["time"]);
        assert_eq!(stepped.bridge.metric("scalebridge_dead_letters{destination=\"journal\"}").await, 0.0);
        let path = format!("/api/v1/events/{}", event["id"].as_str().expect("an id"));
        assert_eq!(stepped.bridge.get_json(&path).await["emitted_at"], event["time"]);
        stepped.assert_is_wall(&stepped.bridge.get_json("/api/v1/status").await["now"], "the status");
    }
    let differs = eventually("the log line", async || stepped.logged(DIFFERS).pop()).await;
    assert_eq!(stepped.logged(DIFFERS).len(), 1, "once, however large the difference becomes");
    assert_eq!(differs["level"], "WARN");
    let logged = timestamp(&differs["wall_clock"]).duration_since(timestamp(&differs["store_clock"]));
    assert!((logged.abs() - SignedDuration::from_secs(HOURS_2)).abs() < TOLERANCE, "{differs}");
    assert_eq!(stepped.logged(AGREES), Vec::<Value>::new());

    check_queries(&stepped).await;

    stepped.step_to(0);
    let agrees = eventually("the log line", async || stepped.logged(AGREES).pop()).await;
    assert_eq!(agrees["level"], "INFO");
    stepped.assert_offset(0.0).await;
    // The store's clock goes on where it was, and with it the guards.
    assert!(stepped.bridge.stop().await.success());
    stepped.bridge.run().await;
    stepped.assert_offset(0.0).await;
    assert_eq!(stepped.fire("workers", "last").await.as_object().expect("verdicts")["cooling_down"], 1);
    assert_eq!(stepped.bridge.events().await.len(), count);
}

/// Records are in the order of their decisions, whatever times they have, and are found by these times.
async fn check_queries(stepped: &Stepped) {
    let stamp = |seconds: i64| Timestamp::now() + SignedDuration::from_secs(seconds);
    let found = async |query: String| {
        let page = stepped.bridge.get_json(&format!("/api/v1/decisions?verdict=emitted{query}")).await;
        let decisions = page["decisions"].as_array().expect("a list").clone();
        let targets = decisions.iter().map(|decision| {
            let subject = decision["subject"].as_str().expect("a target");
            subject.rsplit('/').next().unwrap_or_default().to_owned()
        });
        targets.collect::<Vec<_>>()
    };
    assert_eq!(found(String::new()).await, ["behind", "ahead", "workers"]);
    assert_eq!(found(format!("&since={}", stamp(3600))).await, ["ahead"]);
    assert_eq!(found(format!("&until={}", stamp(3600))).await, ["behind", "workers"]);
    assert_eq!(found(format!("&since={}&until={}", stamp(-3600), stamp(3600))).await, ["workers"]);
    // A duration counts back from the wall clock, which is two hours behind by now.
    assert_eq!(found("&since=1h".to_owned()).await, ["behind", "ahead", "workers"]);
    assert_eq!(found("&until=1h".to_owned()).await, Vec::<String>::new());
}

/// The destination fails while the clock is stepped: what waits for it is neither too old at once, nor kept for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_wall_clock_changes_no_age_of_an_event_that_waits_for_its_destination() {
    let sink = "file: { path: sink/events.jsonl }, max_age: 15s".to_owned();
    let bridge = Bridge::with_destinations(&[("sink", sink)]);
    // An expirytime is one of the wall clock, so that of the first rule is far away.
    let rules = RULES.replace("[journal]", "[sink]");
    let lasting =
        rules.replace("unschedulable-pods", "lasting").replace("[sink]", "[sink]\n    expires_after: 1d");
    let lasting = lasting.replace("[alertname = KubePodsPending]", "[nodegroup = closed]");
    bridge.write("rules.yaml", &(lasting + rules.trim_start().trim_start_matches("rules:\n")));
    let file = bridge.dir().join("sink");
    fs::write(&file, "").expect("a file in place of the directory");
    let mut stepped = Stepped::start_with(bridge).await;
    let dead = "scalebridge_dead_letters{destination=\"sink\"}";
    // Its episode closes, so that it is tried until its age is over.
    let pod = pending_pod("closed", "a");
    stepped.bridge.post(notification(std::slice::from_ref(&pod))).await.verdicts();
    stepped.bridge.post(notification(&[resolved(&pod)])).await.verdicts();
    // Its expirytime is over with the step, and it is still needed.
    assert_eq!(stepped.fire("ahead", "a").await, json!({ "emitted": 1 }));
    stepped.step_to(HOURS_2);
    assert_eq!(stepped.fire("other", "a").await, json!({ "emitted": 1 }));
    let retries = "scalebridge_deliveries_total{destination=\"sink\",result=\"retry\"}";
    let before = stepped.bridge.metric(retries).await;
    eventually("a retry", async || (stepped.bridge.metric(retries).await > before + 2.0).then_some(())).await;
    fs::remove_file(&file).expect("removed");
    let arrived = || {
        let text = fs::read_to_string(file.join("events.jsonl")).unwrap_or_default();
        let events = text.lines().map(|line| serde_json::from_str(line).expect("an event"));
        events.filter(|event: &Value| event["data"]["action"] == "scale_out").collect::<Vec<Value>>()
    };
    eventually("all events", async || (arrived().len() >= 3).then_some(())).await;
    stepped.bridge.wait_delivered("sink").await;
    let events = arrived();
    assert_eq!(events.len(), 3);
    for event in &events {
        assert!(timestamp(&event["expirytime"]) > stepped.wall(), "{event}");
    }
    assert_eq!(stepped.bridge.metric(dead).await, 0.0);

    fs::rename(&file, file.with_extension("before")).expect("renamed");
    fs::write(&file, "").expect("a file in place of the directory");
    let pod = pending_pod("behind", "a");
    stepped.bridge.post(notification(std::slice::from_ref(&pod))).await.verdicts();
    stepped.bridge.post(notification(&[resolved(&pod)])).await.verdicts();
    stepped.step_to(-HOURS_2);
    eventually("a dead letter", async || (stepped.bridge.metric(dead).await == 1.0).then_some(())).await;
}
