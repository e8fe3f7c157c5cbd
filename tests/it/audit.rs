//! The audit trail: every act of an operator, with actor, time and reason.

use std::fs;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod};
use crate::support::tools::eventually;

async fn trail(bridge: &Bridge, query: &str) -> Vec<Value> {
    let page = bridge.get_json(&format!("/api/v1/audit{query}")).await;
    page["entries"].as_array().expect("a list").clone()
}

/// Act, actor, outcome and reason of each entry, newest first.
async fn acts(bridge: &Bridge, query: &str) -> Vec<String> {
    let entries = trail(bridge, query).await;
    let line = |entry: &Value| {
        ["act", "actor", "outcome", "reason"].map(|key| entry[key].as_str().unwrap_or("-")).join(" ")
    };
    entries.iter().map(line).collect()
}

/// A bridge with as many dead letters of the destination `broken`. Their events were delivered to the destination
/// `journal`: otherwise they would be renewed as long as their episodes are open.
async fn bridge_with_dead_letters(count: usize) -> Bridge {
    let broken =
        "broken: { file: { path: taken/x.jsonl }, initial_backoff: 50ms, max_backoff: 60ms, max_age: 500ms }";
    let config = CONFIG.replace("destinations:\n", &format!("destinations:\n  {broken}\n"));
    let mut bridge = Bridge::new(&config, &RULES.replace("[journal]", "[journal, broken]"));
    fs::write(bridge.dir().join("taken"), "").expect("a file in place of the directory");
    bridge.run().await;
    let pods: Vec<Value> = (0..count).map(|at| pending_pod(&format!("g{at}"), "a")).collect();
    bridge.post(notification(&pods)).await;
    eventually("dead letters", async || {
        let found = bridge.get_json("/api/v1/dead-letters").await;
        (found["dead_letters"].as_array().map(Vec::len) == Some(count)).then_some(())
    })
    .await;
    bridge
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_is_recorded_with_actor_time_and_reason_and_survives_a_kill() {
    let mut bridge = bridge_with_dead_letters(4).await;
    let cli = |words: &[&str]| {
        let (code, said, error) = bridge.cli(words);
        assert_eq!(code, Some(0), "{words:?}: {said}{error}");
    };
    let ann = ["--author", "ann", "--reason"];
    cli(&[&["pause", "--direction", "scale_in"], &ann[..], &["image exchange"]].concat());
    cli(&[&["resume", "1"], &ann[..], &["images exchanged"]].concat());
    cli(&[&["dead-letters", "redrive", "1-broken", "--valid-for", "15m"], &ann[..], &["again"]].concat());
    cli(&[&["dead-letters", "discard", "2-broken"], &ann[..], &["too late"]].concat());
    cli(&["dead-letters", "discard", "--rule", "nobody", "--author", "ben"]);
    cli(&[&["dead-letters", "redrive", "--destination", "broken"], &ann[..], &["all again"]].concat());
    cli(&[&["reload"], &ann[..], &["nothing new"]].concat());
    bridge.kill();
    bridge.run().await;
    let expected = [
        "reload ann done nothing new",
        "bulk_redrive ann done all again",
        "bulk_discard ben done -",
        "discard ann done too late",
        "redrive ann done again",
        "resume ann done images exchanged",
        "pause ann done image exchange",
    ];
    assert_eq!(acts(&bridge, "").await, expected);
    let entries = trail(&bridge, "").await;
    assert!(entries.iter().all(|entry| entry["at"].as_str().is_some_and(|at| at.ends_with('Z'))));
    assert_eq!(entries[1]["bulk"]["selector"]["destination"], "broken");
    let changed = entries[1]["bulk"]["succeeded"].as_u64().expect("a count");
    assert!((2..=3).contains(&changed), "the redriven one may have failed again: {}", entries[1]);
    assert_eq!(entries[2]["bulk"]["succeeded"], 0);
    assert_eq!(entries[3]["dead_letter"], "2-broken");
    assert_eq!(entries[4]["redrive"], json!({ "valid_for": "15m", "force": false }));
    assert_eq!(
        (&entries[6]["pause"]["id"], &entries[6]["pause"]["direction"]),
        (&json!(1), &json!("scale_in"))
    );

    let (code, shown, _) = bridge.cli(&["audit", "--actor", "ann", "--act", "pause"]);
    let row = shown.lines().nth(1).expect("a row");
    assert!(code == Some(0) && row.contains("ann") && row.contains("pause 1: scale_in"), "{shown}");
    assert!(row.ends_with("image exchange"), "{shown}");
    let (_, shown, _) = bridge.cli(&["audit", "--limit", "3", "--since", "1h", "--format", "json"]);
    let shown: Vec<Value> = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown, entries[..3], "as the bridge sent them");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_was_not_performed_is_not_recorded() {
    let bridge = Bridge::start().await;
    let post = async |path: &str, body: Value| bridge.api("POST", path, Some(body)).await.0;
    assert_eq!(post("/api/v1/dead-letters/1-journal/redrive", json!({ "author": "ann" })).await, 404);
    assert_eq!(post("/api/v1/dead-letters/1-nobody/redrive", json!({})).await, 409);
    assert_eq!(bridge.api("DELETE", "/api/v1/dead-letters/1-journal?author=ann", None).await.0, 404);
    assert_eq!(bridge.api("DELETE", "/api/v1/pauses/7", None).await.0, 404);
    let unknown = json!({ "rule": "nobody", "author": "ann", "reason": "test" });
    assert_eq!(post("/api/v1/pauses", unknown).await, 404);
    assert_eq!(post("/api/v1/pauses", json!({ "author": "ann", "reason": " " })).await, 400);
    assert_eq!(post("/api/v1/dead-letters/discard", json!({ "author": "ann" })).await, 400);
    let control = json!({ "options": { "reason": "a\nb" }, "selector": { "all": true } });
    assert_eq!(post("/api/v1/dead-letters/redrive", control).await, 400);
    assert_eq!(trail(&bridge, "").await, [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_are_recorded_with_their_changes_or_errors_whoever_causes_them() {
    let bridge = Bridge::start().await;
    bridge.write("rules.yaml", &RULES.replace("by: 2", "by: 3"));
    let changed = eventually("the reload of the changed file", async || {
        trail(&bridge, "?actor=file%20watcher").await.into_iter().next()
    })
    .await;
    assert_eq!(changed["reload"]["changed"], json!(["rule unschedulable-pods changed"]), "{changed}");

    let sent = std::process::Command::new("kill").args(["-HUP", &bridge.pid().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()));
    let by_signal = eventually("the reload by SIGHUP", async || {
        trail(&bridge, "?actor=signal&act=reload").await.into_iter().next()
    })
    .await;
    assert_eq!(by_signal["outcome"], "done", "{by_signal}");

    bridge.write("rules.yaml", "rules: [");
    let (status, answer) = bridge.api("POST", "/-/reload?author=ann&reason=new%20rules", None).await;
    assert_eq!(status, 422, "{answer}");
    let failed = trail(&bridge, "?actor=ann").await.remove(0);
    assert_eq!((&failed["outcome"], &failed["reason"]), (&json!("failed"), &json!("new rules")));
    assert_eq!(failed["errors"], answer["errors"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_paged_and_filtered() {
    let bridge = Bridge::start().await;
    for author in ["ann", "ben", ""] {
        let path = format!("/-/reload?author={author}");
        assert_eq!(bridge.api("POST", &path, None).await.0, 200);
    }
    let all = trail(&bridge, "").await;
    let actors: Vec<&str> = all.iter().filter_map(|entry| entry["actor"].as_str()).collect();
    assert_eq!(actors, ["unknown", "ben", "ann"]);
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = bridge.get_json(&format!("/api/v1/audit?limit=1{cursor}")).await;
        paged.extend(page["entries"].as_array().expect("a list").clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, all);
    assert_eq!(trail(&bridge, "?actor=ben&since=1h").await.len(), 1);
    assert_eq!(trail(&bridge, "?until=1h").await.len(), 0);
    for (query, part) in [
        ("?act=reloads", "known acts: pause, resume"),
        ("?cursor=x", "cursor"),
        ("?limit=0", "expected 1 to 1000"),
        ("?since=yesterday", "a duration before now"),
        ("?actors=ann", "unknown field `actors`"),
    ] {
        let (status, answer) = bridge.api("GET", &format!("/api/v1/audit{query}"), None).await;
        assert_eq!(status, 400, "{query}");
        assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{query}: {answer}");
    }
}

/// The store fails in the middle: dead letters that were discarded before are counted, the others are unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_operation_that_stops_half_way_leaves_its_counts() {
    let mut bridge = bridge_with_dead_letters(4).await;
    let database = rusqlite::Connection::open(bridge.dir().join("bridge.db")).expect("a database");
    let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON deliveries WHEN new.state = 6 AND new.event = 3
                  BEGIN SELECT raise(ABORT, 'refused'); END";
    database.execute_batch(refuse).expect("a trigger");
    let all = json!({ "selector": { "all": true }, "author": "ann", "reason": "too late" });
    let (status, answer) = bridge.api("POST", "/api/v1/dead-letters/discard", Some(all)).await;
    assert_eq!(status, 503, "{answer}");
    let entry = trail(&bridge, "").await.remove(0);
    assert_eq!(
        (&entry["act"], &entry["outcome"], &entry["bulk"]["succeeded"]),
        (&json!("bulk_discard"), &json!("failed"), &json!(2)),
        "{entry}"
    );
    assert_eq!((&entry["actor"], &entry["reason"]), (&json!("ann"), &json!("too late")));
    let left = bridge.get_json("/api/v1/dead-letters").await;
    assert_eq!(left["dead_letters"].as_array().map(Vec::len), Some(2));

    // An entry that a killed process left behind.
    let running = r#"UPDATE audit SET body = replace(body, '"failed"', '"running"')"#;
    database.execute_batch(running).expect("an update");
    bridge.kill();
    bridge.run().await;
    assert_eq!(trail(&bridge, "").await[0]["outcome"], "interrupted");
}
