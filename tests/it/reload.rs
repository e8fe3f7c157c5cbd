//! Reload: atomic, and no notification is rejected meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod, resolved};
use crate::support::secrets::secret;
use crate::support::tools::eventually;

/// Rules with a version number as a parameter of their events.
fn version(number: usize) -> String {
    RULES.replace(
        "send_to: [journal]",
        &format!("send_to: [journal]\n    parameters: {{ version: \"{number}\" }}"),
    )
}

/// A notification about two node groups, which causes two events.
fn two_pods(sender: usize, count: usize) -> String {
    let pod = |side: &str| pending_pod(&format!("s{sender}-{count}-{side}"), "a");
    notification(&[pod("left"), pod("right")])
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_notification_is_refused_lost_doubled_or_decided_by_two_versions_of_the_rules() {
    const SENDERS: usize = 4;
    let bridge = Arc::new({
        let mut bridge = Bridge::new(CONFIG, &version(0));
        bridge.run().await;
        bridge
    });
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (bridge, stop) = (bridge.clone(), stop.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = bridge.post(two_pods(sender, count)).await;
                    assert_eq!(answer.verdicts(), json!({ "emitted": 2 }));
                    count += 1;
                }
                count
            })
        })
        .collect();
    for number in 1..=20 {
        bridge.write("rules.yaml", &version(number));
        // The destination changes as well, so that its worker is replaced.
        let timeout = format!("path: events.jsonl }}, timeout: {number}s");
        bridge.write("scalebridge.yaml", &CONFIG.replace("path: events.jsonl }", &timeout));
        let (status, answer) = bridge.api("POST", "/-/reload", None).await;
        assert_eq!(status, 200, "{answer}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for sender in senders {
        sent += sender.await.expect("a sender");
    }
    let events = bridge.events().await;
    assert_eq!(events.len(), 2 * sent, "each event arrives once");
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in &events {
        let name = event["data"]["target"]["name"].as_str().expect("a name");
        let (notification, _) = name.rsplit_once('-').expect("a side");
        let version = event["data"]["parameters"]["version"].as_str().expect("a version");
        versions.entry(notification.to_owned()).or_default().push(version.to_owned());
    }
    assert!(versions.values().all(|sides| sides.len() == 2 && sides[0] == sides[1]), "{versions:?}");
    let used: std::collections::BTreeSet<&String> = versions.values().flatten().collect();
    assert!(used.len() > 3, "too few versions have decided: {used:?}");
    assert_eq!(bridge.metric("scalebridge_config_last_reload_successful").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_configuration_is_rejected_and_the_running_one_stays_active() {
    let bridge = Bridge::start().await;
    bridge.write("rules.yaml", &RULES.replace("cooldown: 0s", "cooldwn: 0s"));
    let (status, answer) = bridge.api("POST", "/-/reload", None).await;
    assert_eq!(status, 422);
    let findings = answer["errors"].as_array().expect("findings").iter().filter_map(Value::as_str);
    let errors: Vec<&str> = findings.filter(|finding| finding.contains(": error[")).collect();
    assert_eq!(errors.len(), 2, "all errors, not only the first: {answer}");
    let first = errors[0];
    assert!(first.starts_with("rules.yaml:11:") && first.contains("did you mean `cooldown`?"), "{first}");
    assert_eq!(bridge.metric("scalebridge_config_last_reload_successful").await, 0.0);
    let last_error = bridge.get_json("/api/v1/status").await["configuration"]["last_error"].clone();
    assert!(last_error.as_str().is_some_and(|text| text.contains("E004")), "{last_error}");
    let answer = bridge.post(notification(&[pending_pod("workers", "a")])).await;
    assert_eq!(answer.verdicts(), json!({ "emitted": 1 }));
    let (code, _, said) = bridge.cli(&["reload"]);
    assert!(code == Some(1) && said.contains("did you mean `cooldown`?"), "{said}");

    bridge.write("rules.yaml", RULES);
    let (code, said, _) = bridge.cli(&["reload"]);
    assert_eq!((code, said.lines().next()), (Some(0), Some("no changes")));
    assert_eq!(bridge.metric("scalebridge_config_last_reload_successful").await, 1.0);
    assert_eq!(bridge.get_json("/api/v1/status").await["configuration"]["last_error"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_need_a_restart_are_reported_and_stay_as_they_were() {
    let bridge = Bridge::start().await;
    let changed = CONFIG
        .replace(
            "server: { listen: \"127.0.0.1:0\" }",
            "server: { listen: \"127.0.0.1:1\", max_in_flight: 7 }",
        )
        .replace("path: bridge.db", "path: other.db")
        .replace("log: { format: json }", "log: { format: json, level: debug }");
    bridge.write("scalebridge.yaml", &(changed + "retention: { decisions: 1d }\n"));
    let (status, answer) = bridge.api("POST", "/-/reload", None).await;
    assert_eq!((status, &answer["needs_restart"]), (200, &json!(["server", "store", "log"])));
    assert_eq!(answer["changed"], json!(["retention changed"]));
    assert_eq!(
        bridge.get_json("/api/v1/status").await["configuration"]["needs_restart"],
        answer["needs_restart"]
    );
    assert_eq!(bridge.post(notification(&[pending_pod("workers", "a")])).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_sources_destinations_and_rules_work_at_once_and_open_episodes_keep_their_target() {
    let bridge = Bridge::start().await;
    let (old, other) = (pending_pod("workers", "a"), pending_pod("others", "b"));
    bridge.post(notification(&[old.clone(), other.clone()])).await;
    bridge.wait_delivered("journal").await;
    assert_eq!(bridge.post_to("/webhook/prod-us", &[], notification(&[])).await.status, 404);

    let config = CONFIG
        .replace("sources:\n", "sources:\n  prod-us: {}\n")
        .replace("destinations:\n", "destinations:\n  second: { file: { path: second.jsonl } }\n");
    bridge.write("scalebridge.yaml", &config);
    let rules = RULES
        .replace("name: \"{{ labels.nodegroup }}\"", "name: \"new-{{ labels.nodegroup }}\"")
        .replace("cluster: \"{{ labels.cluster }}\"", "cluster: \"{{ labels.cluster | default('none') }}\"")
        .replace("region: \"{{ labels.region }}\"", "region: eu-west-1")
        .replace("[journal]", "[journal, second]")
        .replace("{ by: 1 }", "{ by: 4 }");
    bridge.write("rules.yaml", &rules);
    let (code, said, _) = bridge.cli(&["reload"]);
    assert_eq!(code, Some(0));
    let changes = ["rule unschedulable-pods changed", "source prod-us added", "destination second added"];
    assert_eq!(said.lines().take(3).collect::<Vec<_>>(), changes);

    let fresh = pending_pod("fresh", "c");
    assert_eq!(
        bridge.post_to("/webhook/prod-us", &[], notification(&[fresh])).await.verdicts(),
        json!({ "emitted": 1 })
    );
    // The action is that of the new rules, the target that of the episode. A destination without the `on_firing`
    // event does not get the `on_resolved` event.
    bridge.post(notification(&[resolved(&old)])).await;
    let events = bridge.events().await;
    let last = events.last().expect("an event");
    assert_eq!(last["data"]["target"]["name"], "workers");
    assert_eq!(last["data"]["adjustment"]["value"], -4);
    bridge.wait_delivered("second").await;
    let second = fs::read_to_string(bridge.dir().join("second.jsonl")).expect("the new file");
    let names: Vec<Value> = second
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an event")["data"]["target"]["name"].clone())
        .collect();
    assert_eq!(names, ["new-fresh"]);

    // Episodes of a removed rule close without an action.
    bridge.write("rules.yaml", &rules.replace("unschedulable-pods", "renamed"));
    assert_eq!(bridge.cli(&["reload"]).0, Some(0));
    let before = bridge.events().await.len();
    bridge.post(notification(&[resolved(&other)])).await;
    assert_eq!(bridge.events().await.len(), before);
    // The metric has a series for each configured rule, and for each removed one with open episodes.
    let (_, metrics) = bridge.get_admin("/metrics").await;
    let mut shown: Vec<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("scalebridge_open_episodes")).collect();
    shown.sort_unstable();
    assert_eq!(shown, ["{rule=\"renamed\"} 0", "{rule=\"unschedulable-pods\"} 1"]);
}

fn with_away() -> (String, String) {
    let away = "destinations:\n  away: { file: { path: gone/away.jsonl }, initial_backoff: 50ms, max_backoff: 100ms }\n";
    (CONFIG.replace("destinations:\n", away), RULES.replace("[journal]", "[journal, away]"))
}

async fn away_dead_letters(bridge: &Bridge, count: usize) -> Vec<Value> {
    eventually("dead letters", async || {
        let found = bridge.get_json("/api/v1/dead-letters?destination=away").await;
        let found = found["dead_letters"].as_array().expect("a list").clone();
        (found.len() == count).then_some(found)
    })
    .await
}

/// A file is in place of the destination's directory, so no delivery succeeds.
async fn bridge_with_failing_destination() -> Bridge {
    let (config, rules) = with_away();
    let mut bridge = Bridge::new(&config, &rules);
    fs::write(bridge.dir().join("gone"), "").expect("a file in place of the directory");
    bridge.run().await;
    for pod in ["a", "b", "c"] {
        assert_eq!(bridge.post(notification(&[pending_pod("workers", pod)])).await.status, 200);
        // A rule emits its next event when the one before has been delivered somewhere.
        bridge.wait_delivered("journal").await;
    }
    bridge.post(notification(&[pending_pod("others", "d")])).await;
    bridge
}

#[tokio::test(flavor = "multi_thread")]
async fn undelivered_events_of_a_removed_destination_become_dead_letters_and_can_be_redriven_when_it_is_back()
{
    let bridge = bridge_with_failing_destination().await;
    bridge.write("scalebridge.yaml", CONFIG);
    bridge.write("rules.yaml", RULES);
    let (code, said, _) = bridge.cli(&["reload"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("destination away removed"), "{said}");
    let dead_letters = away_dead_letters(&bridge, 4).await;
    for dead_letter in &dead_letters {
        let error = dead_letter["error"].as_str().expect("an error");
        assert!(error.starts_with("destination_removed: "), "{error}");
    }
    let id = dead_letters[0]["id"].as_str().expect("an id");
    let (status, answer) =
        bridge.api("POST", &format!("/api/v1/dead-letters/{id}/redrive"), Some(json!({}))).await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["detail"].as_str().is_some_and(|text| text.contains("not configured")), "{answer}");
    let metrics = bridge.get_admin("/metrics").await.1;
    assert!(!metrics.contains("destination_up{destination=\"away\"}"), "{metrics}");

    fs::remove_file(bridge.dir().join("gone")).expect("the file was removed");
    let (config, rules) = with_away();
    bridge.write("scalebridge.yaml", &config);
    bridge.write("rules.yaml", &rules);
    assert_eq!(bridge.cli(&["reload"]).0, Some(0));
    let (code, said, _) = bridge.cli(&["dead-letters", "redrive", "--destination", "away"]);
    assert_eq!((code, said.as_str()), (Some(0), "redriven: 4, failed: 0\n"));
    bridge.wait_delivered("away").await;
    let got = fs::read_to_string(bridge.dir().join("gone/away.jsonl")).expect("its file");
    assert_eq!(got.lines().count(), 4);
    assert_eq!(away_dead_letters(&bridge, 0).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_removed_while_the_bridge_was_down_leaves_dead_letters_too() {
    let mut bridge = bridge_with_failing_destination().await;
    bridge.kill();
    bridge.write("scalebridge.yaml", CONFIG);
    bridge.write("rules.yaml", RULES);
    bridge.run().await;
    away_dead_letters(&bridge, 4).await;
    bridge.kill();
    bridge.run().await;
    away_dead_letters(&bridge, 4).await;
}

async fn wait_for_reloads(bridge: &Bridge, count: usize) {
    eventually("a reload", async || {
        let log = bridge.log();
        (log.matches("configuration reloaded").count() >= count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_or_a_changed_file_triggers_a_reload_also_in_a_config_map_volume() {
    let mut bridge = Bridge::new(CONFIG, RULES);
    // The layout of a ConfigMap volume: files are links into `..data`, which is a link to a version.
    let map = bridge.dir().join("map");
    let version = |name: &str, text: &str| {
        fs::create_dir_all(map.join(name)).expect("a folder");
        fs::write(map.join(name).join("rules.yaml"), text).expect("rules");
    };
    version("..v1", RULES);
    symlink("..v1", map.join("..data")).expect("a link");
    symlink("..data/rules.yaml", map.join("rules.yaml")).expect("a link");
    bridge.write("scalebridge.yaml", &CONFIG.replace("[rules.yaml]", "[map/rules.yaml]"));
    bridge.run().await;

    version("..v2", &RULES.replace("by: 2", "by: 5"));
    symlink("..v2", map.join("..data_tmp")).expect("a link");
    fs::rename(map.join("..data_tmp"), map.join("..data")).expect("a replaced link");
    wait_for_reloads(&bridge, 1).await;
    bridge.post(notification(&[pending_pod("workers", "a")])).await;
    assert_eq!(bridge.events().await[0]["data"]["adjustment"]["value"], 5);

    let hangup = |pid: u32| {
        let sent = std::process::Command::new("kill").args(["-HUP", &pid.to_string()]).status();
        assert!(sent.expect("kill").success());
    };
    hangup(bridge.pid());
    wait_for_reloads(&bridge, 2).await;
    // An invalid file is reported, and the bridge keeps running.
    version("..v2", "rules: [");
    eventually("the rejection", async || bridge.log().contains("configuration rejected").then_some(())).await;
    assert_eq!(bridge.post(notification(&[pending_pod("others", "a")])).await.status, 200);
}

/// The store refuses one of two new destinations.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_cannot_add_a_destination_changes_nothing() {
    let bridge = Bridge::start().await;
    let database = rusqlite::Connection::open(bridge.dir().join("bridge.db")).expect("a database");
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON destinations WHEN new.name = 'second'
                  BEGIN SELECT raise(ABORT, 'refused'); END";
    database.execute_batch(refuse).expect("a trigger");
    let more = "destinations:\n  first: { file: { path: first.jsonl } }\n  second: { file: { path: second.jsonl } }\n";
    bridge.write("scalebridge.yaml", &CONFIG.replace("destinations:\n", more));
    let (status, answer) = bridge.api("POST", "/-/reload", None).await;
    assert_eq!(status, 503, "{answer}");
    let destinations = bridge.get_json("/api/v1/destinations").await;
    assert_eq!(destinations.as_array().map(Vec::len), Some(1), "{destinations}");
    // A destination with a lane would have no such dead letter: 404.
    let redrive = bridge.api("POST", "/api/v1/dead-letters/1-first/redrive", Some(json!({}))).await;
    assert_eq!(redrive.0, 409, "{redrive:?}");
    database.execute_batch("DROP TRIGGER refuse").expect("no trigger");
    let (status, answer) = bridge.api("POST", "/-/reload", None).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(bridge.api("POST", "/api/v1/dead-letters/1-first/redrive", Some(json!({}))).await.0, 404);
}

/// Source files beside the configuration, which only has `prod-eu`.
const WITH_SOURCE_FILES: &str =
    "source_files: [sources/*.yaml]\nsource_defaults: { labels: { region: eu-west-1 } }\n";

async fn status_of(bridge: &Bridge, source: &str) -> u16 {
    bridge.post_to(&format!("/webhook/{source}"), &[], notification(&[])).await.status
}

async fn wait_for_status(bridge: &Bridge, source: &str, status: u16) {
    eventually("the status of a webhook", async || (status_of(bridge, source).await == status).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_file_that_appears_changes_or_disappears_is_a_reload() {
    let mut bridge = Bridge::new(&format!("{CONFIG}{WITH_SOURCE_FILES}"), RULES);
    bridge.run().await;
    let folder = bridge.dir().join("sources");
    let file = folder.join("prod-us.yaml");
    assert_eq!(status_of(&bridge, "prod-us").await, 404);

    fs::create_dir(&folder).expect("a folder");
    fs::write(&file, "sources:\n  prod-us: { labels: { cluster: prod-us } }\n").expect("a source file");
    wait_for_status(&bridge, "prod-us", 200).await;
    let pod = pending_pod("workers", "a");
    let answer = bridge.post_to("/webhook/prod-us", &[], notification(std::slice::from_ref(&pod))).await;
    assert_eq!(answer.verdicts(), json!({ "emitted": 1 }));
    let target = &bridge.events().await[0]["data"]["target"];
    assert_eq!((&target["cluster"], &target["region"]), (&json!("prod-us"), &json!("eu-west-1")));

    // What is wrong is reported in its own file, and the running configuration stays.
    fs::write(folder.join("third.yaml"), "sources:\n  prod-us: {}\n  prod-ap: { late_windwo: 1m }\n")
        .expect("a file");
    let rejected = |bridge: &Bridge| {
        let log = bridge.log();
        let line = log.lines().find(|line| line.contains("configuration rejected"))?;
        Some(line.to_owned())
    };
    let line = eventually("the rejection", async || rejected(&bridge)).await;
    for expected in [
        "sources/third.yaml:2:3: error[E015]: duplicate source name `prod-us`",
        "first defined at sources/prod-us.yaml:2:3",
        "sources/third.yaml:3:14: error[E004]: unknown key `late_windwo`",
    ] {
        assert!(line.contains(expected), "{expected}: {line}");
    }
    assert_eq!(status_of(&bridge, "prod-us").await, 200);
    fs::write(folder.join("third.yaml"), "sources:\n  prod-ap: { late_window: 1m }\n").expect("a file");
    wait_for_status(&bridge, "prod-ap", 200).await;

    // The open episode of a removed source stays, and goes on when the source is back.
    let text = fs::read_to_string(&file).expect("the file");
    fs::remove_file(&file).expect("a file");
    wait_for_status(&bridge, "prod-us", 404).await;
    let open = async || bridge.get_json("/api/v1/episodes").await["episodes"].as_array().map(Vec::len);
    assert_eq!(open().await, Some(1));
    fs::write(&file, text).expect("a source file");
    wait_for_status(&bridge, "prod-us", 200).await;
    let duplicate = bridge.post_to("/webhook/prod-us", &[], notification(std::slice::from_ref(&pod))).await;
    assert_eq!(duplicate.verdicts(), json!({ "duplicate": 1 }));
    bridge.post_to("/webhook/prod-us", &[], notification(&[resolved(&pod)])).await;
    assert_eq!(bridge.decisions("no_evidence").await.len(), 0);
    assert_eq!(status_of(&bridge, "prod-eu").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_may_reach_can_be_narrowed_while_an_episode_is_open() {
    let bridge = Bridge::start().await;
    let (old, new) = (pending_pod("workers", "a"), pending_pod("others", "b"));
    assert_eq!(
        bridge.post(notification(std::slice::from_ref(&old))).await.verdicts(),
        json!({ "emitted": 1 })
    );
    bridge.wait_delivered("journal").await;
    let narrowed =
        CONFIG.replace("prod-eu: { labels:", "prod-eu: { targets: ['*/*/*/*/prod-us/*/*'], labels:");
    bridge.write("scalebridge.yaml", &narrowed);
    let (code, said, _) = bridge.cli(&["reload"]);
    assert_eq!((code, said.lines().next()), (Some(0), Some("source prod-eu changed")));
    let answer = bridge.post(notification(&[old.clone(), new.clone()])).await;
    assert_eq!(answer.verdicts(), json!({ "invalid": 2 }));
    let detail = "target eks/nodegroup/-/eu-west-1/prod-eu/-/others is beyond `sources.prod-eu.targets`";
    let decisions = bridge.decisions("invalid").await;
    assert!(decisions.iter().any(|decision| decision["detail"] == detail), "{decisions:?}");
    let labels = ["alertname=KubePodsPending", "nodegroup=others"];
    let (code, said, _) = bridge.cli(&["explain", "--config", "scalebridge.yaml", labels[0], labels[1]]);
    assert!(code == Some(0) && said.contains(detail), "{said}");
    let sources = bridge.get_json("/api/v1/sources").await;
    assert_eq!(sources[0]["targets"], json!(["*/*/*/*/prod-us/*/*"]), "{sources}");

    bridge.write(
        "rules.yaml",
        &format!("{RULES}{}", RULES.replace("\nrules:\n", "").replace("unschedulable-pods", "later")),
    );
    let listed = CONFIG.replace("prod-eu: { labels:", "prod-eu: { rules: [later], labels:");
    let listed = listed.replace("[rules.yaml]", "['rule?.y*ml']");
    bridge.write("scalebridge.yaml", &listed);
    assert_eq!(bridge.cli(&["reload"]).0, Some(0));
    let answer = bridge.post(notification(&[new])).await;
    assert_eq!(answer.verdicts(), json!({ "emitted": 1 }));
    assert_eq!(bridge.decisions("emitted").await.iter().filter(|it| it["rule"] == "later").count(), 1);
    // A resolved alert goes to the episode in which it is open, whatever its source may reach by now.
    let answer = bridge.post(notification(&[resolved(&old)])).await;
    assert_eq!(answer.verdicts(), json!({ "emitted": 1 }));
    let events = bridge.events().await;
    assert_eq!(events.last().expect("an event")["data"]["rule"], "unschedulable-pods");
}

/// Sets how many files the bridge may have open.
fn limit_files(bridge: &Bridge, files: u32) {
    let arguments = ["--pid".to_owned(), bridge.pid().to_string(), format!("--nofile={files}:")];
    let set = Command::new("prlimit").args(arguments).status();
    assert!(set.is_ok_and(|status| status.success()), "prlimit");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_read_for_lack_of_resources_are_read_later_without_a_change() {
    let mut bridge = Bridge::new(CONFIG, &version(0));
    bridge.run().await;
    // Fewer than it has open: it can open none.
    limit_files(&bridge, 3);
    bridge.write("rules.yaml", &version(1));
    let logged = |text: &str| bridge.log().lines().filter(|line| line.contains(text)).count();
    eventually("a failed reload", async || (logged("Too many open files") > 0).then_some(())).await;
    assert_eq!(logged("configuration reloaded"), 0);
    limit_files(&bridge, 1024);
    eventually("the reload", async || (logged("\"message\":\"configuration reloaded\"") == 1).then_some(()))
        .await;
    assert_eq!(bridge.post(notification(&[pending_pod("workers", "a")])).await.status, 200);
    let events = bridge.events().await;
    assert_eq!(events[0]["data"]["parameters"]["version"], "1");
}

/// A device that does not answer, here by a file whose reading fails with an input/output error.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_cannot_read_a_file_or_a_secret_fails_and_is_not_invalid() {
    let config = CONFIG.replace("prod-eu: {", "prod-eu: { auth: { bearer_token_files: [prod.token] },");
    let mut bridge = Bridge::new(&config, &version(0));
    bridge.write("prod.token", &format!("{}\n", secret("token-of-prod-4716")));
    bridge.run().await;
    for name in ["rules.yaml", "prod.token"] {
        let path = bridge.dir().join(name);
        let text = fs::read_to_string(&path).expect("a file");
        fs::remove_file(&path).expect("removed");
        symlink("/proc/self/mem", &path).expect("a link");
        let (status, answer) = bridge.api("POST", "/-/reload", None).await;
        assert_eq!(status, 503, "{answer}");
        assert!(answer.to_string().contains("Input/output error"), "{answer}");
        bridge.write(name, &text);
        assert_eq!(bridge.api("POST", "/-/reload", None).await.0, 200);
    }
    let missing = bridge.dir().join("prod.token");
    fs::remove_file(missing).expect("removed");
    assert_eq!(
        bridge.api("POST", "/-/reload", None).await.0,
        200,
        "a secret that does not exist is a warning"
    );
}
