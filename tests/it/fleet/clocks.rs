//! The clocks of the replicas are minutes apart. Time is the database's, for all of them.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::faults::time;
use crate::clocks::compile;
use crate::support::bridge::{Bridge, RULES, notification, pending_pod, resolved};
use crate::support::fleet::{Fleet, replica, wait_delivered};
use crate::support::postgres::PostgresServer;
use crate::support::sqs_stub::{Kind, SqsStub};
use crate::support::tools::eventually;

/// Seconds that the wall clock of each replica is ahead.
const SECONDS_AHEAD: [i64; 3] = [-180, 0, 300];
/// Of the whole fleet, a minute.
const SCALE_OUTS: usize = 8;
/// More than a test takes, and less than the clocks differ.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(100);

/// Cooldown and window are shorter than the clocks differ. The second rule has neither.
const QUICK_RULE: &str = r#"
  - name: quick
    matchers: [alertname = Quick]
    target: { platform: eks, kind: nodegroup, name: "{{ labels.nodegroup }}" }
    on_firing: { scale_out: { by: 1 }, cooldown: 0s }
    on_resolved: { scale_in: { by: 1 }, stabilization_window: 0s, cooldown: 0s }
    send_to: [queue]
"#;

async fn start(queue: &SqsStub, url: &str, engine: &str) -> Fleet {
    let rules = RULES.replace("[journal]", "[queue]");
    let rules = rules.replace("scale_out: { by: 2 }, cooldown: 0s", "scale_out: { by: 2 }, cooldown: 4m");
    let rules = rules.replace("stabilization_window: 0s", "stabilization_window: 4m");
    let mut replicas = Vec::new();
    for ahead in SECONDS_AHEAD {
        let mut bridge = replica(url, &[("queue", queue.destination())]);
        // A replica that a busy machine stops for seconds is missed, which is a reception gap.
        bridge.without_late_window();
        let config = fs::read_to_string(bridge.dir().join("scalebridge.yaml")).expect("a configuration");
        bridge.write("scalebridge.yaml", &config.replace("scale_in_per_minute: 0", engine));
        bridge.write("rules.yaml", &format!("{rules}{QUICK_RULE}"));
        let (library, offset) = (compile(bridge.dir()), bridge.dir().join("offset"));
        fs::write(&offset, ahead.to_string()).expect("a file");
        bridge.env("LD_PRELOAD", &library.display().to_string());
        bridge.env("WALL_CLOCK_OFFSET_FILE", &offset.display().to_string());
        replicas.push(bridge);
    }
    Fleet::start(replicas).await
}

async fn emitted(bridge: &Bridge, rule: &str) -> Vec<Value> {
    let mut emitted = bridge.decisions("emitted").await;
    emitted.retain(|decision| decision["rule"] == rule);
    emitted
}

#[tokio::test(flavor = "multi_thread")]
async fn cooldowns_and_windows_hold_whatever_the_clocks_of_the_replicas_show() {
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let queue = SqsStub::start(Kind::Standard);
    let fleet = start(&queue, &server.url(&database), "scale_in_per_minute: 0").await;
    for (first, replica) in fleet.replicas.iter().enumerate() {
        let group = format!("group-{first}");
        let pod = pending_pod(&group, "a");
        assert_eq!(
            replica.post(notification(std::slice::from_ref(&pod))).await.verdicts(),
            json!({ "emitted": 1 })
        );
        wait_delivered(server, &database).await;
        // More need, heard by each of the others: the cooldown goes on.
        let others = fleet.replicas.iter().enumerate().filter(|(index, _)| *index != first);
        for (index, other) in others {
            let more = notification(&[pod.clone(), pending_pod(&group, &index.to_string())]);
            let answer = other.post(more).await;
            assert_eq!(answer.verdicts()["cooling_down"], 1, "{}", answer.body);
        }
        let decision = fleet.replicas[first].decisions("cooling_down").await.remove(0);
        let left = time(&decision["until"]).duration_since(Timestamp::now());
        assert!(left > SignedDuration::from_mins(4) - TOLERANCE, "{decision}");
    }
    for (first, replica) in fleet.replicas.iter().enumerate() {
        let group = format!("calm-{first}");
        let pod = pending_pod(&group, "a");
        replica.post(notification(std::slice::from_ref(&pod))).await;
        let answer = fleet.replicas[(first + 1) % 3].post(notification(&[resolved(&pod)])).await;
        assert_eq!(answer.status, 200);
    }
    // Each replica looks for what is due: nothing is, by the time of the database.
    check_quick_target(&fleet, &queue).await;
    let actions: Vec<Value> = emitted(&fleet.replicas[0], "unschedulable-pods").await;
    assert_eq!(actions.len(), 2 * SECONDS_AHEAD.len(), "{actions:?}");
    assert!(actions.iter().all(|decision| decision["action"] == "scale_out"), "{actions:?}");
    let now = Timestamp::now();
    for decision in fleet.replicas[2].all_decisions().await {
        let difference = time(&decision["at"]).duration_since(now).abs();
        assert!(difference < TOLERANCE, "{decision}");
    }
}

/// The events of the quick rule, in the order of their arrival.
fn quick(queue: &SqsStub) -> Vec<Value> {
    let mut events = queue.events();
    events.retain(|event| event["data"]["rule"] == "quick");
    events
}

/// One target whose alerts come and go at all replicas in turn: its events are stamped in their order.
async fn check_quick_target(fleet: &Fleet, queue: &SqsStub) {
    for turn in 0..9 {
        let mut pod = pending_pod("quick", &turn.to_string());
        pod["labels"]["alertname"] = json!("Quick");
        let replica = &fleet.replicas[turn % 3];
        assert_eq!(replica.post(notification(std::slice::from_ref(&pod))).await.status, 200);
        eventually("the increase", async || (quick(queue).len() == 2 * turn + 1).then_some(())).await;
        let other = &fleet.replicas[(turn + 1) % 3];
        assert_eq!(other.post(notification(&[resolved(&pod)])).await.status, 200);
        eventually("the decrease", async || (quick(queue).len() == 2 * turn + 2).then_some(())).await;
    }
    let events = quick(queue);
    let stamps: Vec<Timestamp> = events.iter().map(|event| time(&event["time"])).collect();
    assert!(stamps.is_sorted(), "{stamps:?}");
    let sequences: Vec<u64> =
        events.iter().filter_map(|event| event["sequence"].as_str()?.parse().ok()).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    assert_eq!(sequences.len(), 18);
}

/// All replicas decide at the same time. The limit is one for all of them, in any minute of the database's time.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_per_minute_is_the_fleets_whatever_the_clocks_of_the_replicas_show() {
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let queue = SqsStub::start(Kind::Standard);
    let fleet = start(&queue, &server.url(&database), &format!("scale_out_per_minute: {SCALE_OUTS}")).await;
    let posts = (0..10 * SECONDS_AHEAD.len()).map(|number| {
        let replica = &fleet.replicas[number % SECONDS_AHEAD.len()];
        async move {
            let body = notification(&[pending_pod(&format!("group-{number}"), "a")]);
            assert_eq!(replica.post(body).await.status, 200);
        }
    });
    futures_util::future::join_all(posts).await;
    let mut times: Vec<Timestamp> =
        emitted(&fleet.replicas[0], "unschedulable-pods").await.iter().map(|one| time(&one["at"])).collect();
    times.sort_unstable();
    assert!(times.len() >= SCALE_OUTS, "{times:?}");
    for span in times.windows(SCALE_OUTS + 1) {
        let took = span[SCALE_OUTS].duration_since(span[0]);
        assert!(took >= SignedDuration::from_secs(60), "{SCALE_OUTS} a minute, and {span:?}");
    }
}
