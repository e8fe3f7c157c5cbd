//! Kept notifications: what a bridge has received can be replayed later, under other rules.

use std::fs;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, captured, notification, pending_pod, resolved};
use crate::support::tools::eventually;

/// The kept notifications, all pages.
async fn kept(bridge: &Bridge, query: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut page = bridge.get_json(&format!("/api/v1/notifications?limit=2{query}{cursor}")).await;
        all.append(page["notifications"].as_array_mut().expect("a list"));
        let Some(next) = page["next"].as_str() else { return all };
        cursor = format!("&cursor={next}");
    }
}

/// Configurations beside the running one, with other rules.
fn write_configuration(bridge: &Bridge, name: &str, rules: &str) {
    bridge.write(&format!("{name}.rules.yaml"), rules);
    bridge.write(&format!("{name}.yaml"), &CONFIG.replace("rules.yaml", &format!("{name}.rules.yaml")));
}

/// Runs `replay` with these arguments, and then the test that it has written.
fn replay(bridge: &Bridge, arguments: &[&str]) -> (Option<i32>, String) {
    let (code, text, error) = bridge.cli(&[&["replay", "--since", "1h"], arguments].concat());
    assert!(code == Some(0) || code == Some(1), "{error}");
    (code, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn new_rules_are_compared_with_the_old_ones_on_what_was_received() {
    let bridge = Bridge::start().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    let (code, ..) = bridge.cli(&["pause", "--direction", "scale_out", "--author", "ann", "--reason", "x"]);
    assert_eq!(code, Some(0));
    bridge.post(notification(&[pending_pod("spot", "b")])).await;
    assert_eq!(bridge.decisions("paused").await.len(), 1);
    assert_eq!(bridge.cli(&["resume", "1"]).0, Some(0));
    eventually("the deferred increase", async || {
        (bridge.decisions("emitted").await.len() == 2).then_some(())
    })
    .await;
    bridge.post(notification(&[resolved(&pod)])).await;
    let events = bridge.events().await;
    assert_eq!(events.len(), 3, "{events:?}");

    write_configuration(&bridge, "new", &RULES.replace("by: 2", "by: 3"));
    let (code, text) = replay(&bridge, &["--config", "new.yaml", "--against", "scalebridge.yaml"]);
    assert_eq!(code, Some(1), "{text}");
    let subject = "eks/nodegroup/-/eu-west-1/prod-eu/-";
    for line in [
        format!("- emitted unschedulable-pods scale_out +2 {subject}/workers, 1 alert"),
        format!("+ emitted unschedulable-pods scale_out +3 {subject}/workers, 1 alert"),
        format!("- emitted unschedulable-pods scale_out +2 {subject}/spot, 1 alert"),
        format!("+ emitted unschedulable-pods scale_out +3 {subject}/spot, 1 alert"),
    ] {
        assert_eq!(text.lines().filter(|shown| *shown == line).count(), 1, "{line} in\n{text}");
    }
    assert!(!text.contains("paused"), "both sides were paused:\n{text}");
    let summary = text.lines().last().expect("a summary");
    assert!(summary.starts_with("3 notifications from "), "{summary}");
    assert!(summary.ends_with(": 2 decisions differ, 0 alerts not comparable"), "{summary}");

    // The old side decides what the bridge has decided: the ids of events are those of the real ones.
    let arguments = ["--config", "scalebridge.yaml", "--against", "scalebridge.yaml", "--format", "json"];
    let (code, text) = replay(&bridge, &arguments);
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &report["differing"]), (Some(0), &json!(0)), "{report}");
    let moments = report["moments"].as_array().expect("a list");
    let against = moments.iter().flat_map(|moment| moment["against"].as_array().expect("a list"));
    let ids: Vec<&Value> = against.map(|one| &one["event"]["id"]).filter(|id| id.is_string()).collect();
    assert_eq!(ids, events.iter().map(|event| &event["id"]).collect::<Vec<_>>());
    let paused = moments.iter().find(|moment| moment["decisions"][0]["verdict"] == "paused");
    assert!(paused.is_some_and(|moment| moment["happened"] == json!(["prod-eu, 1 alert"])), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_written_as_a_rule_test_that_passes() {
    let bridge = Bridge::start().await;
    let pods = [pending_pod("workers", "a"), pending_pod("workers", "yes: \"b\" #")];
    bridge.post(notification(&pods)).await;
    assert_eq!(bridge.cli(&["pause", "--rule", "unschedulable-pods", "--reason", "x"]).0, Some(0));
    // An alert that cannot be read is decided, and no part of the test.
    let mut unreadable = pending_pod("spot", "d");
    unreadable["status"] = json!("unknown");
    bridge.post(notification(&[pending_pod("spot", "c"), unreadable])).await;
    assert_eq!(bridge.cli(&["resume", "1"]).0, Some(0));
    eventually("the deferred increase", async || {
        (bridge.decisions("emitted").await.len() == 2).then_some(())
    })
    .await;
    bridge.post(notification(&[resolved(&pods[0]), resolved(&pods[1])])).await;

    write_configuration(&bridge, "new", &RULES.replace("by: 2", "by: 3"));
    let written =
        ["--config", "new.yaml", "--against", "scalebridge.yaml", "--write-test", "happened.test.yaml"];
    let (code, text) = replay(&bridge, &written);
    assert_eq!(code, Some(1), "{text}");
    let (code, text, error) = bridge.cli(&["test", "happened.test.yaml"]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{text}");
    let test = fs::read_to_string(bridge.dir().join("happened.test.yaml")).expect("the test");
    assert!(test.contains("config: scalebridge.yaml\n"), "{test}");
    // It tests something: the new rules do not pass.
    bridge.write("new.test.yaml", &test.replace("config: scalebridge.yaml", "config: new.yaml"));
    let (code, text, _) = bridge.cli(&["test", "new.test.yaml"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("event.data.adjustment.value: expected 2, got 3"), "{text}");
    // A file is never overwritten.
    let (code, _, error) = bridge.cli(&[&["replay", "--since", "1h"], &written[..]].concat());
    assert_eq!(code, Some(2));
    assert!(error.contains("happened.test.yaml exists"), "{error}");
    assert_eq!(fs::read_to_string(bridge.dir().join("happened.test.yaml")).expect("the test"), test);

    // Captured bodies become a test too.
    bridge.write("body.json", &notification(&pods));
    let arguments = ["replay", "--config", "scalebridge.yaml", "--write-test", "body.test.yaml", "body.json"];
    let (code, _, error) = bridge.cli(&arguments);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(bridge.cli(&["test", "body.test.yaml"]).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_that_are_first_seen_resolved_are_listed_and_not_compared() {
    let bridge = Bridge::start().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(&[resolved(&pod)])).await;
    bridge.post(notification(&[resolved(&pending_pod("spot", "b")), pending_pod("spot", "c")])).await;
    write_configuration(&bridge, "new", &RULES.replace("KubePodsPending", "Other"));
    let arguments = ["--config", "new.yaml", "--against", "scalebridge.yaml"];
    let (code, text) = replay(&bridge, &arguments);
    assert_eq!(code, Some(1), "{text}");
    let listed: Vec<&str> = text.lines().filter(|line| line.starts_with("not comparable: ")).collect();
    assert_eq!(listed.len(), 2, "{text}");
    let expected =
        r#"prod-eu alertname="KubePodsPending", nodegroup="workers", pod="a", first seen resolved at"#;
    assert!(listed[0].contains(expected), "{text}");
    assert!(text.ends_with("differs, 2 alerts not comparable\n"), "{text}");
    assert!(!text.contains("no_evidence"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_failed_fails_in_the_replay_too() {
    let config =
        CONFIG.replace("events.jsonl }", "taken/events.jsonl }, initial_backoff: 100ms, max_backoff: 200ms");
    let mut bridge = Bridge::new(&config, &RULES.replace("cooldown: 0s", "cooldown: 1h"));
    fs::write(bridge.dir().join("taken"), "").expect("a file in place of the directory");
    bridge.run().await;
    bridge.post(notification(&[pending_pod("workers", "a")])).await;
    let emitted = std::time::Instant::now();
    eventually("an outage that matters", async || {
        (emitted.elapsed() > std::time::Duration::from_millis(1500)).then_some(())
    })
    .await;
    fs::remove_file(bridge.dir().join("taken")).expect("removed");
    bridge.wait_delivered("journal").await;
    let listed = bridge.get_json("/api/v1/deliveries?since=1h").await;
    assert_eq!(listed["events"].as_array().map(Vec::len), Some(1), "{listed}");
    let delivery = &listed["events"][0]["deliveries"][0];
    assert_eq!((&delivery["destination"], &delivery["state"]), (&json!("journal"), &json!("delivered")));
    assert!(delivery["attempts"].as_u64() > Some(1), "{listed}");
    assert_eq!(bridge.get_json("/api/v1/deliveries?until=1h").await["events"], json!([]));

    let arguments = ["--config", "scalebridge.yaml", "--write-test", "happened.test.yaml"];
    let (code, text) = replay(&bridge, &arguments);
    assert_eq!(code, Some(0), "{text}");
    let test = fs::read_to_string(bridge.dir().join("happened.test.yaml")).expect("the test");
    let down = test.find("destination: { journal: down }").expect("the failure");
    let notify = test.find("notify:").expect("the notification");
    let up = test.find("destination: { journal: up }").expect("the recovery");
    assert!(down < notify && notify < up, "{test}");
    assert_eq!(bridge.cli(&["test", "happened.test.yaml"]).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decrease_that_waited_after_a_restart_waits_in_the_replay_too() {
    let mut bridge = Bridge::start().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    bridge.wait_delivered("journal").await;
    assert!(bridge.stop().await.success());
    bridge.run().await;
    bridge.post(notification(&[resolved(&pod)])).await;
    let decided = bridge.decisions("stabilizing").await;
    assert_eq!(decided.len(), 1, "nothing decreases for late_window after a restart");

    let (code, text) = replay(&bridge, &["--config", "scalebridge.yaml", "--format", "json"]);
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(code, Some(0));
    let moments = report["moments"].as_array().expect("a list");
    let verdicts: Vec<&Value> = moments
        .iter()
        .flat_map(|moment| moment["decisions"].as_array())
        .flatten()
        .map(|one| &one["verdict"])
        .collect();
    assert_eq!(verdicts, ["emitted", "stabilizing"], "{report}");
    // Nothing is compared.
    assert!(
        report.get("differing").is_none() && moments.iter().all(|moment| moment.get("against").is_none())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_kept_as_they_came_and_survive_a_kill() {
    let config = CONFIG.replace("sources:\n", "sources:\n  prod-us: {}\n");
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let spaced = notification(&[pending_pod("workers", "ü")]).replace(',', " ,\n\t");
    let plain = captured("three-firing");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain.as_bytes()).expect("a body");
    let gzip = gzip.finish().expect("a body");
    assert_eq!(bridge.post(spaced.clone()).await.status, 200);
    let encoding = [("content-encoding", "gzip")];
    assert_eq!(bridge.post_to("/webhook/prod-us", &encoding, gzip).await.status, 200);
    assert_eq!(bridge.post("{}").await.status, 400);
    assert_eq!(bridge.post(notification(&[])).await.status, 200);
    // Decided in several transactions.
    let many: Vec<Value> = (0..1200).map(|at| pending_pod(&format!("group-{at}"), "a")).collect();
    assert_eq!(bridge.post(notification(&many)).await.verdicts(), json!({ "emitted": 1200 }));
    bridge.kill();
    bridge.run().await;
    let (_, text) = bridge.get_admin("/api/v1/notifications").await;
    assert!(text.contains(&spaced), "{text}");
    assert!(text.contains(plain.trim()), "{text}");
    let notifications = kept(&bridge, "").await;
    assert_eq!(notifications.len(), 4, "one for each that was accepted");
    assert_eq!(notifications[3]["body"]["alerts"].as_array().map(Vec::len), Some(1200));
    let sources: Vec<&Value> = notifications.iter().map(|one| &one["source"]).collect();
    assert_eq!(sources, ["prod-eu", "prod-us", "prod-eu", "prod-eu"]);
    assert_eq!(kept(&bridge, "&source=prod-us").await.len(), 1);
    assert_eq!(kept(&bridge, "&until=1h").await.len(), 0);
    assert_eq!(bridge.get_json("/api/v1/notifications").await["retention"], "1d");
    assert_eq!(bridge.api("GET", "/api/v1/notifications?cursor=x", None).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_notifications_make_room_and_none_is_kept_when_that_is_off() {
    let limited = "retention: { notifications_bytes: 40000 }\n";
    let mut bridge = Bridge::new(&(CONFIG.to_owned() + limited), RULES);
    bridge.run().await;
    // Texts that do not compress.
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = |length: usize| -> String { (0..length).map(|_| random.alphanumeric()).collect() };
    for pod in 0..30 {
        bridge.post(notification(&[pending_pod(&format!("group-{pod}"), &noise(1500))])).await;
    }
    // More than an eighth of the limit.
    bridge.post(notification(&[pending_pod("large", &noise(6000))])).await;
    let notifications = kept(&bridge, "").await;
    let groups: Vec<&str> = notifications
        .iter()
        .map(|one| one["body"]["alerts"][0]["labels"]["nodegroup"].as_str().expect("a label"))
        .collect();
    assert!((5..30).contains(&groups.len()), "{groups:?}");
    let newest: Vec<String> = (30 - groups.len()..30).map(|pod| format!("group-{pod}")).collect();
    assert_eq!(groups, newest, "the newest ones are kept");
    let bytes: usize =
        notifications.iter().map(|one| one["body"]["alerts"][0]["labels"].to_string().len()).sum();
    assert!(bytes < 40_000, "{bytes}");
    let (code, text) = replay(&bridge, &["--config", "scalebridge.yaml"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("note: the record begins at "), "{text}");

    assert!(bridge.stop().await.success());
    bridge.write("scalebridge.yaml", &(CONFIG.to_owned() + "retention: { notifications: off }\n"));
    bridge.run().await;
    bridge.post(notification(&[pending_pod("late", "a")])).await;
    eventually("that none is kept", async || kept(&bridge, "").await.is_empty().then_some(())).await;
    let (code, _, error) = bridge.cli(&["replay", "--since", "1h", "--config", "scalebridge.yaml"]);
    assert_eq!(code, Some(2), "what is not there has not been compared");
    assert!(error.contains("the bridge keeps no notifications (retention.notifications is off)"), "{error}");
}
