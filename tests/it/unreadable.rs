//! A row of the store that cannot be read concerns its own target only.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::bridge::{Answer, Bridge, CONFIG, RULES, notification, pending_pod, resolved};
use crate::support::tools::eventually;

const VICTIM: &str = "victim";
const VICTIM_KEY: &str = "eks/nodegroup/-/eu-west-1/prod-eu/-/victim";
const NEIGHBOUR: &str = "neighbour";
/// Notifications about other targets.
const OTHERS: usize = 160;
const UNREADABLE_ROWS: &str = "scalebridge_store_unreadable_rows";
const DROP: &str = "/api/v1/unreadable-states/drop";

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
    // The restarts are reception gaps.
    bridge.without_late_window();
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
    assert_eq!(bridge.metric(UNREADABLE_ROWS).await, 1.0);

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

/// Stops the bridge, changes the victim's row, and starts the bridge again.
async fn restart_with(bridge: &mut Bridge, change: &str) {
    assert!(bridge.stop().await.success());
    {
        let database = rusqlite::Connection::open(bridge.dir().join("bridge.db")).expect("a database");
        let update = format!("UPDATE targets SET {change} WHERE key = ?1");
        assert_eq!(database.execute(&update, [VICTIM_KEY]).expect("an update"), 1);
    }
    bridge.run().await;
}

async fn post_one(bridge: &Bridge, alert: &Value) -> Answer {
    bridge.post(notification(std::slice::from_ref(alert))).await
}

/// The entries of drops in the audit trail.
async fn drops(bridge: &Bridge) -> Vec<Value> {
    let page = bridge.get_json("/api/v1/audit?act=drop_state").await;
    page["entries"].as_array().expect("a list").clone()
}

async fn assert_refused_with_reason(bridge: &Bridge, victim: &Value) {
    let body = notification(std::slice::from_ref(victim));
    let explained = bridge.api("POST", "/api/v1/explain", serde_json::from_str(&body).ok()).await;
    let detail = explained.1["detail"].as_str().unwrap_or_default();
    assert!(explained.0 == 503 && detail.contains(VICTIM_KEY), "{explained:?}");
    assert!(detail.contains("`scalebridge store drop` gives one up"), "{detail}");
    bridge.write("body.json", &body);
    let (code, _, error) = bridge.cli(&["explain", "body.json", "--url", &bridge.admin_url()]);
    assert!(code == Some(1) && error.contains("503") && error.contains(VICTIM_KEY), "{error}");
    let answer = bridge.post(body).await;
    assert!(answer.status == 503 && answer.body.contains(VICTIM_KEY), "{answer:?}");
}

async fn assert_shown(bridge: &Bridge) {
    let status = bridge.get_json("/api/v1/status").await;
    let rows = status["unreadable_rows"].as_array().expect("a list");
    assert!(rows.len() == 1 && rows[0]["target"] == VICTIM_KEY, "{status}");
    assert!(rows[0]["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{status}");
    let (_, shown, _) = bridge.cli(&["status", "--format", "json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["status"]["unreadable_rows"], status["unreadable_rows"]);
    let (code, shown, _) = bridge.cli(&["status"]);
    let expected =
        ["UNREADABLE STATES: 1\n", VICTIM_KEY, "get 503", "scalebridge store drop TARGET --reason"];
    assert!(code == Some(0) && expected.iter().all(|part| shown.contains(part)), "{shown}");
    // What was decided about the target is still known, and lists have everything else.
    let decided = bridge.get_json(&format!("/api/v1/decisions?target={VICTIM_KEY}")).await;
    assert!(decided["decisions"].as_array().is_some_and(|decided| !decided.is_empty()), "{decided}");
    let (mut subjects, mut cursor) = (Vec::new(), Some(0));
    while let Some(after) = cursor {
        let page = bridge.get_json(&format!("/api/v1/episodes?limit=1&cursor={after}")).await;
        subjects
            .extend(page["episodes"].as_array().expect("a list").iter().map(|one| one["subject"].clone()));
        cursor = page["next"].as_i64();
    }
    assert_eq!(subjects, ["eks/nodegroup/-/eu-west-1/prod-eu/-/other"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_an_unreadable_state_and_gives_it_up() {
    let (mut bridge, victim) = with_deferred_scale_ins().await;
    damage(&bridge.dir().join("bridge.db"), VICTIM, |_| 3, 0xff);
    for _ in 0..2 {
        bridge.run().await;
        wait_for_scale_in(&bridge, NEIGHBOUR).await;
        bridge.post(notification(&[pending_pod("other", "a")])).await;
        assert_refused_with_reason(&bridge, &victim).await;
        assert_eq!(bridge.metric(UNREADABLE_ROWS).await, 1.0);
        assert_shown(&bridge).await;
        assert!(bridge.stop().await.success());
    }
    bridge.run().await;

    let (code, _, error) = bridge.cli(&["store", "drop", "eks/nobody", "--reason", "test"]);
    assert!(code == Some(2) && error.contains("404: no unreadable state `eks/nobody`"), "{error}");
    let no_reason = json!({ "target": VICTIM_KEY, "reason": " " });
    assert_eq!(bridge.api("POST", DROP, Some(no_reason)).await.0, 400);
    assert_eq!(drops(&bridge).await, [Value::Null; 0], "nothing was dropped");
    let ann = ["--author", "ann", "--reason", "restored by hand"];
    let (code, shown, error) = bridge.cli(&[&["store", "drop", VICTIM_KEY], &ann[..]].concat());
    assert_eq!(code, Some(0), "{error}");
    assert!(shown.starts_with(&format!("dropped the state of {VICTIM_KEY} (row #")), "{shown}");
    assert!(shown.contains("increase capacity again and never decrease it"), "{shown}");
    assert_eq!(post_one(&bridge, &victim).await.verdicts(), json!({ "emitted": 1 }));

    for is_restarted in [false, true] {
        if is_restarted {
            bridge.kill();
            bridge.run().await;
        }
        assert_eq!(bridge.metric(UNREADABLE_ROWS).await, 0.0);
        let status = bridge.get_json("/api/v1/status").await;
        assert_eq!(status["unreadable_rows"], Value::Null);
        assert_eq!(status["open_episodes"], json!({ "unschedulable-pods": 2 }));
        assert_eq!(status["deferred"], json!({}));
        assert_eq!(post_one(&bridge, &victim).await.verdicts(), json!({ "duplicate": 1 }));
        let again = json!({ "target": VICTIM_KEY, "reason": "again" });
        let (code, answer) = bridge.api("POST", DROP, Some(again)).await;
        assert_eq!(code, 404, "{answer}");
        assert!(answer["detail"].as_str().is_some_and(|text| text.contains("no unreadable state is known")));
        let [entry] = &drops(&bridge).await[..] else { panic!("one drop") };
        assert_eq!((&entry["actor"], &entry["reason"]), (&json!("ann"), &json!("restored by hand")));
        assert_eq!(
            (&entry["outcome"], &entry["dropped_state"]["target"]),
            (&json!("done"), &json!(VICTIM_KEY))
        );
        assert!(entry["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{entry}");
    }
    assert_eq!(post_one(&bridge, &resolved(&victim)).await.verdicts(), json!({ "no_evidence": 1 }));
    let (_, shown, _) = bridge.cli(&["audit", "--act", "drop_state"]);
    assert!(shown.contains(&format!("state of {VICTIM_KEY}")), "{shown}");
    assert_eq!(scale_ins(&bridge), [NEIGHBOUR], "the deferred scale-in went with the state");
}

/// A row that nothing has needed since the start is found by the drop. If the key is damaged too, the row has a number.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_given_up_by_its_key_before_it_was_needed_and_by_its_number_without_a_key() {
    let mut bridge = Bridge::start().await;
    let pod = pending_pod(VICTIM, "a");
    assert_eq!(post_one(&bridge, &pod).await.verdicts(), json!({ "emitted": 1 }));
    restart_with(&mut bridge, "dictionary = 99").await;
    assert_eq!(bridge.get_json("/api/v1/status").await["unreadable_rows"], Value::Null);
    let (code, shown, error) =
        bridge.cli(&["store", "drop", VICTIM_KEY, "--reason", "test", "--format", "json"]);
    assert_eq!(code, Some(0), "{error}");
    let dropped: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(dropped["target"], VICTIM_KEY);
    // Without a state, a resolve is no evidence.
    assert_eq!(post_one(&bridge, &resolved(&pod)).await.verdicts(), json!({ "no_evidence": 1 }));

    let pod = pending_pod(VICTIM, "b");
    assert_eq!(post_one(&bridge, &pod).await.verdicts(), json!({ "emitted": 1 }));
    restart_with(&mut bridge, "key = CAST(key AS BLOB)").await;
    assert_eq!(post_one(&bridge, &pod).await.status, 503);
    let rows = bridge.get_json("/api/v1/status").await["unreadable_rows"].clone();
    assert_eq!(rows[0]["target"], Value::Null, "{rows}");
    let number = format!("#{}", rows[0]["row"]);
    let (code, _, error) = bridge.cli(&["store", "drop", VICTIM_KEY, "--reason", "test"]);
    assert!(code == Some(2) && error.contains(&format!("unreadable: {number}")), "{error}");
    let (_, shown, _) = bridge.cli(&["status"]);
    assert!(shown.contains(&format!("  {number} (row {number}) since ")), "{shown}");
    let (code, shown, error) = bridge.cli(&["store", "drop", &number, "--reason", "test"]);
    assert!(
        code == Some(0) && shown.starts_with(&format!("dropped the state of {number}")),
        "{shown}{error}"
    );
    assert_eq!(post_one(&bridge, &pod).await.verdicts(), json!({ "emitted": 1 }));
    assert_eq!(drops(&bridge).await.len(), 2);
}
