//! A row of the store that cannot be read concerns its own target only.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod, resolved};
use crate::support::tools::eventually;

const VICTIM: &str = "victim";
const NEIGHBOUR: &str = "neighbour";
/// Notifications about other targets.
const OTHERS: usize = 160;

/// Flips bits of one byte of the stored state of a target. `at` is the byte's place in the state.
fn damage(file: &Path, target: &str, at: impl FnOnce(usize) -> usize, bits: u8) {
    let state: Vec<u8> = {
        let database = rusqlite::Connection::open(file).expect("a database");
        let query = "SELECT state FROM targets WHERE key LIKE '%' || ?1";
        let found = database.query_row(query, [target], |row| Ok(row.get_ref(0)?.as_bytes()?.to_vec()));
        found.expect("a state")
    };
    let mut bytes = fs::read(file).expect("the file");
    let mut places = (0..bytes.len()).filter(|&place| bytes[place..].starts_with(&state));
    let place = places.next().expect("the state is in the file");
    assert_eq!(places.next(), None, "the state is in the file once");
    bytes[place + at(state.len())] ^= bits;
    fs::write(file, bytes).expect("the file");
}

/// A stopped bridge with one deferred scale-in for each of the two targets, due in a few seconds.
async fn with_deferred_scale_ins() -> (Bridge, Value) {
    let rules = RULES.replace("stabilization_window: 0s", "stabilization_window: 3s");
    let config = CONFIG.to_owned() + "engine: { scale_in_per_minute: 0 }\n";
    let mut bridge = Bridge::new(&config, &rules);
    bridge.run().await;
    let pods = [VICTIM, NEIGHBOUR].map(|group| pending_pod(group, "a"));
    assert_eq!(bridge.post(notification(&pods)).await.verdicts(), json!({ "emitted": 2 }));
    let answer = bridge.post(notification(&pods.each_ref().map(resolved))).await;
    assert_eq!(answer.verdicts(), json!({ "stabilizing": 2 }));
    assert!(bridge.stop().await.success());
    let [victim, _] = pods;
    (bridge, victim)
}

fn scale_ins(bridge: &Bridge) -> Vec<String> {
    let events = bridge.journal();
    let scale_ins = events.iter().filter(|event| event["data"]["action"] == "scale_in");
    scale_ins.filter_map(|event| event["data"]["target"]["name"].as_str().map(str::to_owned)).collect()
}

async fn wait_for_scale_in(bridge: &Bridge, target: &str) {
    eventually("the scale-in of the neighbour", async || {
        scale_ins(bridge).iter().any(|name| name == target).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_state_of_one_target_concerns_no_other() {
    let (mut bridge, victim) = with_deferred_scale_ins().await;
    // A byte of the length in front of the compressed text: it cannot be decompressed.
    damage(&bridge.dir().join("bridge.db"), VICTIM, |_| 3, 0xff);
    bridge.run().await;
    wait_for_scale_in(&bridge, NEIGHBOUR).await;
    assert_eq!(scale_ins(&bridge), [NEIGHBOUR], "no scale-in without the state that it follows from");
    assert_eq!(bridge.metric("scalebridge_store_unreadable_rows").await, 1.0);

    let mut posts = tokio::task::JoinSet::new();
    let bridge = std::sync::Arc::new(bridge);
    for other in 0..OTHERS {
        let bridge = bridge.clone();
        // Half of the time a notification about the damaged target is in the same batch.
        let victim = (other % 2 == 0).then(|| notification(std::slice::from_ref(&victim)));
        posts.spawn(async move {
            let refused = match victim {
                Some(body) => Some(bridge.post(body).await.status),
                None => None,
            };
            let body = notification(&[pending_pod(&format!("other-{other}"), "a")]);
            (bridge.post(body).await.status, refused)
        });
    }
    let answers = posts.join_all().await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), OTHERS);
    assert!(answers.iter().filter_map(|(_, refused)| *refused).all(|status| status == 503));

    let other = pending_pod("mixed", "a");
    let mixed = bridge.post(notification(&[victim.clone(), other.clone()])).await;
    assert_eq!(mixed.status, 503, "{}", mixed.body);
    assert!(mixed.body.contains(VICTIM) && mixed.body.contains("store drop"), "{}", mixed.body);
    let again = bridge.post(notification(&[other])).await;
    assert_eq!(again.verdicts(), json!({ "duplicate": 1 }), "its other alert was accepted");
}

/// Whatever byte is flipped, the neighbour's scale-in comes and others are accepted. The state of the target itself
/// may still be readable: a flipped letter of an annotation is not noticed.
#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_byte_of_a_state_stops_the_work_of_others() {
    for part in 0..4 {
        let (mut bridge, _) = with_deferred_scale_ins().await;
        damage(&bridge.dir().join("bridge.db"), VICTIM, |length| part * length / 4, 0x80);
        bridge.run().await;
        wait_for_scale_in(&bridge, NEIGHBOUR).await;
        let other = bridge.post(notification(&[pending_pod("other", "a")])).await;
        assert_eq!(other.verdicts(), json!({ "emitted": 1 }), "part {part}");
    }
}
