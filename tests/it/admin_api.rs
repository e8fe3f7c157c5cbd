//! The admin API and the CLI commands that call it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, now, pending_pod, program, resolved};
use crate::support::tools::eventually;

fn unmatched_alert() -> Value {
    json!({
        "status": "firing", "labels": { "alertname": "Other" }, "annotations": {}, "startsAt": now(),
        "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "other",
    })
}

/// A bridge with decisions of several verdicts about three alerts and an invalid one.
async fn busy_bridge() -> Bridge {
    let bridge = Bridge::start().await;
    let (a, b) = (pending_pod("workers", "a"), pending_pod("others", "b"));
    bridge.post(notification(&[a.clone(), b.clone(), unmatched_alert()])).await;
    bridge.post(notification(std::slice::from_ref(&a))).await;
    // A decrease waits for the delivery of the increase that it answers.
    bridge.wait_delivered("journal").await;
    bridge.post(notification(&[resolved(&a)])).await;
    bridge.post(notification(&[json!({ "status": "burning" })])).await;
    bridge
}

async fn decisions(bridge: &Bridge, query: &str) -> Vec<Value> {
    let found = bridge.get_json(&format!("/api/v1/decisions{query}")).await;
    found["decisions"].as_array().expect("a list").clone()
}

fn verdicts(decisions: &[Value]) -> Vec<&str> {
    decisions.iter().filter_map(|decision| decision["verdict"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_has_a_decision_that_can_be_queried() {
    let bridge = busy_bridge().await;
    let all = decisions(&bridge, "").await;
    assert_eq!(verdicts(&all), ["invalid", "emitted", "duplicate", "unmatched", "emitted", "emitted"]);
    let found = async |query: &str| {
        let found = decisions(&bridge, query).await;
        verdicts(&found).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(found("?verdict=duplicate,unmatched").await, ["duplicate", "unmatched"]);
    assert_eq!(found("?rule=unschedulable-pods&verdict=emitted").await.len(), 3);
    assert_eq!(found("?fingerprint=other").await, ["unmatched"]);
    assert_eq!(found("?target=*/workers").await, ["emitted", "duplicate", "emitted"]);
    let exact = "eks/nodegroup/-/eu-west-1/prod-eu/-/others";
    assert_eq!(found(&format!("?target={exact}")).await, ["emitted"]);
    assert_eq!(found("?since=1h").await.len(), all.len());
    assert_eq!(found("?until=1h").await.len(), 0);
    let middle = all[2]["at"].as_str().expect("a time");
    let (since, until) = (found(&format!("?since={middle}")).await, found(&format!("?until={middle}")).await);
    assert!(since.len() + until.len() >= all.len(), "{since:?} {until:?}");
    let alert = &all[5]["alerts"][0];
    assert_eq!(alert["labels"]["cluster"], "prod-eu", "the source's label: {alert}");
    assert_eq!(all[0]["alerts"], json!([{ "fingerprint": "", "source": "prod-eu" }]));
    assert!(all[0]["detail"].as_str().is_some_and(|text| text.contains("status")), "{}", all[0]);

    // Pagination returns the same decisions.
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = bridge.get_json(&format!("/api/v1/decisions?limit=1{cursor}")).await;
        paged.extend(page["decisions"].as_array().expect("a list").clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, all);
    let (code, shown, _) = bridge.cli(&["decisions", "--verdict", "duplicate", "--limit", "5"]);
    assert_eq!(code, Some(0));
    let line =
        "  unschedulable-pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  KubePodsPending from prod-eu\n";
    assert!(shown.contains("  duplicate  ") && shown.ends_with(line), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_request_gets_an_error_that_says_what_is_wrong() {
    let bridge = Bridge::start().await;
    for (path, part) in [
        ("/api/v1/decisions?rul=x", "unknown field `rul`"),
        ("/api/v1/decisions?verdict=emited", "unknown verdict `emited`"),
        ("/api/v1/decisions?limit=0", "expected 1 to 1000"),
        ("/api/v1/decisions?since=yesterday", "a duration before now"),
        ("/api/v1/decisions?cursor=x", "cursor"),
        ("/api/v1/decisions?action=scale_up", "known actions: scale_out"),
        ("/api/v1/decisions?alert=alertname%3D%22x", "alert: "),
        ("/api/v1/decisions?source=No", "source: "),
        ("/api/v1/dead-letters?cursor=x", "17-scaling-queue"),
        ("/api/v1/decisions/stream?limit=3", "not supported by the stream"),
    ] {
        let (status, answer) = bridge.api("GET", path, None).await;
        assert_eq!((status, &answer["status"]), (400, &json!(400)), "{path}: {answer}");
        assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{path}: {answer}");
    }
    for path in ["/api/v1/nothing", "/api/v1/events/x", "/api/v1/dead-letters/1-journal", "/"] {
        assert_eq!(bridge.api("GET", path, None).await.0, 404, "{path}");
    }
    assert_eq!(bridge.api("GET", "/-/reload", None).await.0, 405);
    let (status, answer) = bridge.api("POST", "/api/v1/pauses", Some(json!({ "author": "a" }))).await;
    assert!(
        status == 400 && answer["detail"].as_str().is_some_and(|text| text.contains("reason")),
        "{answer}"
    );
    let (status, answer) =
        bridge.api("POST", "/api/v1/pauses", Some(json!([null, null, "scale_in", null, "a", "b"]))).await;
    assert!(
        status == 400 && answer["detail"].as_str().is_some_and(|text| text.contains("a JSON object")),
        "{answer}"
    );
    let unknown = json!({ "rule": "nobody", "author": "a", "reason": "b" });
    assert_eq!(bridge.api("POST", "/api/v1/pauses", Some(unknown)).await.0, 404);
    // A web page can send this request to loopback from a browser, but without CORS it cannot set the JSON
    // content type.
    let url = format!("{}/api/v1/pauses", bridge.admin_url());
    let simple = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let body = r#"{"author":"a","reason":"b"}"#;
    let sent = tokio::task::spawn_blocking(move || simple.post(url).content_type("text/plain").send(body));
    assert_eq!(sent.await.expect("a call").expect("an answer").status(), 415);
    assert_eq!(bridge.get_json("/api/v1/pauses").await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_blocks_at_once_survives_a_kill_and_deferred_actions_run_when_it_ends() {
    // The kill leaves a reception gap, which would postpone the decreases.
    let config = CONFIG.replace("prod-eu: { labels:", "prod-eu: { late_window: 0s, labels:");
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let (code, shown, _) = bridge.cli(&[
        "pause",
        "--direction",
        "scale_in",
        "--target",
        "*/workers",
        "--reason",
        "image exchange",
    ]);
    assert_eq!(code, Some(0));
    assert!(
        shown
            .lines()
            .nth(1)
            .is_some_and(|row| row.starts_with("1 ") && row.ends_with("ops     image exchange")),
        "{shown}"
    );
    let (a, b) = (pending_pod("workers", "a"), pending_pod("others", "b"));
    bridge.post(notification(&[a.clone(), b.clone()])).await;
    bridge.wait_delivered("journal").await;
    let both = bridge.post(notification(&[resolved(&a), resolved(&b)])).await;
    assert_eq!(both.verdicts(), json!({ "emitted": 1, "paused": 1 }));
    bridge.wait_delivered("journal").await;
    bridge.kill();
    bridge.run().await;
    let waiting = bridge.get_json("/api/v1/episodes?rule=unschedulable-pods").await["episodes"].clone();
    assert_eq!(waiting[0]["deferred"]["verdict"], "paused");
    assert_eq!(
        (&waiting[0]["phase"], &waiting[0]["target"]["name"]),
        (&json!("resolved"), &json!("workers"))
    );
    let (code, shown, _) = bridge.cli(&["resume", "1"]);
    assert_eq!((code, shown.as_str()), (Some(0), "pause 1 ended\n"));
    eventually("the deferred scale-in", async || {
        let last = bridge.journal().into_iter().rfind(|event| event["data"]["target"]["name"] == "workers");
        last.filter(|event| event["data"]["action"] == "scale_in")
    })
    .await;
    let (code, _, said) = bridge.cli(&["resume", "1"]);
    assert!(code == Some(2) && said.contains("no active pause 1"), "{said}");

    // A pause with a duration ends by itself.
    assert_eq!(bridge.cli(&["pause", "--all", "--for", "1s", "--reason", "a moment"]).0, Some(0));
    let answer = bridge.post(notification(&[pending_pod("fresh", "c")])).await;
    assert_eq!(answer.verdicts(), json!({ "paused": 1 }));
    eventually("the end of the pause", async || {
        bridge.journal().iter().any(|event| event["data"]["target"]["name"] == "fresh").then_some(())
    })
    .await;
    assert_eq!(bridge.get_json("/api/v1/pauses").await, json!([]));
}

/// An operator gives the name of a target, not its key, and learns how many targets of this name there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_alone_covers_the_targets_of_that_name_and_their_number_is_said() {
    let bridge = busy_bridge().await;
    let key = "eks/nodegroup/-/eu-west-1/prod-eu/-/workers";
    let of_key = decisions(&bridge, &format!("?target={key}")).await;
    assert!(!of_key.is_empty());
    assert_eq!(decisions(&bridge, "?target=workers").await, of_key);
    assert_eq!(decisions(&bridge, "?target=orkers").await, Vec::<Value>::new());
    assert_eq!(
        bridge.get_json("/api/v1/targets/covered?target=workers").await,
        json!({ "pattern": "*/workers", "count": 1, "is_partial": false, "keys": [key] })
    );
    let (code, _, note) = bridge.cli(&["decisions", "--target", "workers"]);
    assert_eq!(code, Some(0));
    assert_eq!(note.trim(), format!("`workers` (`*/workers`) covers 1 target: {key}"));
    let pause = ["pause", "--target", "nodes", "--reason", "image exchange"];
    let (code, shown, note) = bridge.cli(&pause);
    assert_eq!(code, Some(0));
    assert!(shown.contains(" */nodes "), "{shown}");
    assert_eq!(note.trim(), "`nodes` (`*/nodes`) covers no target that alerts have reached so far");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_shown_with_the_state_of_each_delivery() {
    let config = CONFIG.replace(
        "destinations:\n",
        "destinations:\n  broken: { file: { path: taken/x.jsonl }, initial_backoff: 50ms, max_backoff: 60ms, max_age: 1s }\n",
    );
    let mut bridge = Bridge::new(&config, &RULES.replace("[journal]", "[journal, broken]"));
    fs::write(bridge.dir().join("taken"), "").expect("a file in place of the directory");
    bridge.run().await;
    let a = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&a))).await;
    let id = decisions(&bridge, "?verdict=emitted").await[0]["event"].as_str().expect("an id").to_owned();
    let delivery_to = |event: &Value, name: &str| {
        let deliveries = event["deliveries"].as_array().expect("a list").iter();
        deliveries.into_iter().find(|delivery| delivery["destination"] == name).expect("a delivery").clone()
    };
    let shown = eventually("the delivery", async || {
        let shown = bridge.get_json(&format!("/api/v1/events/{id}")).await;
        (delivery_to(&shown, "journal")["state"] == "delivered"
            && delivery_to(&shown, "broken")["state"] == "dead")
            .then_some(shown)
    })
    .await;
    assert_eq!((&shown["event"]["id"], &delivery_to(&shown, "journal")["attempts"]), (&json!(id), &json!(1)));
    let broken = delivery_to(&shown, "broken");
    assert!(broken["error"].as_str().is_some_and(|error| error.contains("taken")), "{broken}");
    let (code, text, _) = bridge.cli(&["event", &id]);
    assert!(code == Some(0) && text.contains("\n  journal  delivered "), "{text}");

    // An `on_resolved` event whose `on_firing` event did not arrive at a destination is not sent there and does not
    // become a dead letter.
    bridge.post(notification(&[resolved(&a)])).await;
    let (code, listed, _) = bridge.cli(&["dead-letters", "list"]);
    assert_eq!((code, listed.lines().count()), (Some(0), 2), "{listed}");
    let dead_letter =
        listed.lines().nth(1).and_then(|row| row.split_whitespace().next()).expect("an id").to_owned();
    assert_eq!(dead_letter, "1-broken");
    let (code, one, _) = bridge.cli(&["dead-letters", "show", &dead_letter, "-o", "json"]);
    let one: Value = serde_json::from_str(&one).expect("JSON");
    assert_eq!((code, &one["event"]["id"], &one["takes_away"]), (Some(0), &json!(id), &json!(false)));
    fs::remove_file(bridge.dir().join("taken")).expect("the file was removed");
    let (code, said, error) = bridge.cli(&["dead-letters", "redrive", &dead_letter, "--valid-for", "15m"]);
    assert!(
        code == Some(1) && said.is_empty() && error.contains("episode"),
        "its episode is over: {said}{error}"
    );
    let words = ["dead-letters", "redrive", &dead_letter, "--valid-for", "15m", "--force"];
    let (code, said, _) = bridge.cli(&words);
    assert_eq!((code, said.as_str()), (Some(0), "redriven 1-broken\n"));
    let arrived = eventually("the redriven event", async || {
        let text = fs::read_to_string(bridge.dir().join("taken/x.jsonl")).ok()?;
        serde_json::from_str::<Value>(text.lines().next()?).ok()
    })
    .await;
    assert_eq!(arrived["id"], json!(id));
    let (code, _, said) = bridge.cli(&["dead-letters", "redrive", &dead_letter]);
    assert!(code == Some(2) && said.contains("no such dead letter"), "{said}");
}

/// `on_firing` decreases of five targets that fire, all delivered to `journal`, and dead letters of `broken`: what was
/// delivered somewhere is not deferred again.
async fn bridge_with_dead_decreases() -> (Bridge, Vec<Value>) {
    let broken = "broken: { file: { path: taken/x.jsonl }, initial_backoff: 50ms, max_backoff: 60ms, scale_in_max_age: 500ms }";
    let config = CONFIG.replace("destinations:\n", &format!("destinations:\n  {broken}\n"));
    let rules = RULES
        .replace("on_firing: { scale_out", "on_firing: { stabilization_window: 0s, scale_in")
        .replace("    on_resolved: { scale_in: { by: 1 }, stabilization_window: 0s, cooldown: 0s }\n", "")
        .replace("[journal]", "[journal, broken]");
    let mut bridge = Bridge::new(&config, &rules);
    fs::write(bridge.dir().join("taken"), "").expect("a file in place of the directory");
    bridge.run().await;
    let pods: Vec<Value> = (0..5).map(|at| pending_pod(&format!("g{at}"), "a")).collect();
    assert_eq!(bridge.post(notification(&pods)).await.verdicts(), json!({ "emitted": 5 }));
    eventually("dead letters", async || {
        let found = bridge.get_json("/api/v1/dead-letters").await;
        (found["dead_letters"].as_array().map(Vec::len) == Some(5)).then_some(())
    })
    .await;
    bridge.wait_delivered("journal").await;
    (bridge, pods)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dead_letters_are_discarded_or_redriven_and_decreases_of_what_fires_only_by_force() {
    let (bridge, pods) = bridge_with_dead_decreases().await;
    let page = bridge.get_json("/api/v1/dead-letters?limit=2").await;
    let next = page["next"].as_str().expect("another page").to_owned();
    let rest = bridge.get_json(&format!("/api/v1/dead-letters?limit=1000&cursor={next}")).await;
    assert_eq!(rest["dead_letters"].as_array().map(Vec::len), Some(3));

    let (code, said, _) = bridge.cli(&["dead-letters", "redrive", "--all"]);
    let head = "redriven: 0, failed: 5\n";
    let fires = "rule `unschedulable-pods` fires on its target: KubePodsPending; use force";
    assert!(code == Some(0) && said.starts_with(head) && said.contains(fires), "{said}");
    let (code, said, _) = bridge.cli(&["dead-letters", "discard", "1-broken"]);
    assert_eq!((code, said.as_str()), (Some(0), "discarded 1-broken\n"));
    let (_, said, _) = bridge.cli(&["dead-letters", "discard", "--action", "scale_out"]);
    assert_eq!(said, "discarded: 0, failed: 0\n");
    fs::remove_file(bridge.dir().join("taken")).expect("the file was removed");
    // Nothing fires on one of the targets any more, so that its decrease needs no force.
    bridge.post(notification(&[resolved(&pods[4])])).await;
    let words = ["dead-letters", "redrive", "--all", "--format", "json"];
    let done: Value = serde_json::from_str(&bridge.cli(&words).1).expect("JSON");
    assert_eq!((&done["succeeded"], &done["failed_total"]), (&json!(1), &json!(3)), "{done}");
    let words = ["dead-letters", "redrive", "--rule", "unschedulable-pods", "--force", "--format", "json"];
    let done: Value = serde_json::from_str(&bridge.cli(&words).1).expect("JSON");
    assert_eq!((&done["succeeded"], &done["failed_total"]), (&json!(3), &json!(0)), "{done}");
    bridge.wait_delivered("broken").await;
    let got = fs::read_to_string(bridge.dir().join("taken/x.jsonl")).expect("its file");
    assert_eq!(got.lines().count(), 4, "a discarded dead letter is not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_reports_what_would_be_decided_and_changes_nothing() {
    let bridge = Bridge::start().await;
    let a = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&a))).await;
    let before = (decisions(&bridge, "").await, bridge.events().await);
    let body = notification(&[a.clone(), pending_pod("workers", "b"), unmatched_alert()]);
    fs::write(bridge.dir().join("body.json"), &body).expect("a file");
    let (status, reported) =
        bridge.api("POST", "/api/v1/explain", Some(serde_json::from_str(&body).expect("JSON"))).await;
    assert_eq!(status, 200, "{reported}");
    let verdicts: BTreeSet<&str> = reported["decisions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["verdict"].as_str())
        .collect();
    assert_eq!(verdicts, ["duplicate", "emitted", "unmatched"].into());
    let emitted =
        reported["decisions"].as_array().into_iter().flatten().find(|one| one["verdict"] == "emitted");
    assert_eq!(
        emitted.expect("an emitted decision")["event"]["data"]["episode"]["emission"],
        2,
        "decided by the current state"
    );
    let rule = &reported["alerts"][2]["rules"][0];
    assert_eq!(rule["reason"], r#"alertname="KubePodsPending" does not match: the value is "Other""#);
    let (code, shown, _) =
        bridge.cli(&["explain", "body.json", "--url", &bridge.admin_url(), "--source", "prod-eu"]);
    assert!(code == Some(0) && shown.contains("duplicate unschedulable-pods"), "{shown}");
    assert_eq!((decisions(&bridge, "").await, bridge.events().await), before);
    // The webhook decides as explained.
    assert_eq!(bridge.post(body).await.verdicts(), json!({ "duplicate": 1, "emitted": 1, "unmatched": 1 }));
    let (status, _) = bridge.api("POST", "/api/v1/explain?source=nobody", Some(json!({}))).await;
    assert_eq!(status, 404);
    assert_eq!(bridge.api("POST", "/api/v1/explain", Some(json!({}))).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_streamed_when_made_and_a_reader_that_reconnects_misses_none() {
    let bridge = busy_bridge().await;
    let mut child = Command::new(program())
        .args([
            "decisions",
            "--watch",
            "--format",
            "json",
            "--url",
            &bridge.admin_url(),
            "--verdict",
            "emitted",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    // Decisions that were made before the client connected are not streamed.
    let fresh = eventually("a decision", async || {
        let name = format!("fresh-{}", fastrand::u32(..));
        bridge.post(notification(&[pending_pod(&name, "a")])).await;
        serde_json::from_str::<Value>(&received.try_recv().ok()?).ok()
    })
    .await;
    assert!(fresh["target"]["name"].as_str().is_some_and(|name| name.starts_with("fresh-")), "{fresh}");
    child.kill().expect("a kill");
    child.wait().expect("an exit status");

    // Reconnects with `Last-Event-ID`, as a browser does after its connection was lost.
    let all: Vec<Value> = decisions(&bridge, "").await.into_iter().rev().collect();
    let seen =
        all.iter().find(|decision| decision["verdict"] == "duplicate").expect("a duplicate")["id"].clone();
    let behind: Vec<&Value> = all
        .iter()
        .skip_while(|decision| decision["id"] != seen)
        .skip(1)
        .map(|decision| &decision["id"])
        .collect();
    assert!(behind.len() >= 3, "{all:?}");
    let admin = bridge.admin_url();
    let host = admin.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(host).await.expect("a connection");
    let seen = seen.as_str().expect("an id");
    let request =
        format!("GET /api/v1/decisions/stream HTTP/1.1\r\nHost: {host}\r\nLast-Event-ID: {seen}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut got = String::new();
    let streamed = eventually("the remaining decisions", async || {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.expect("more of the stream");
        got.push_str(&String::from_utf8_lossy(&part[..count]));
        let ids: Vec<Value> =
            got.lines().filter_map(|line| Some(json!(line.strip_prefix("id: ")?))).collect();
        (ids.len() >= behind.len()).then_some(ids)
    })
    .await;
    assert_eq!(streamed.iter().collect::<Vec<_>>(), behind);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_the_bridge_is_shown_to_people_and_programs() {
    let bridge = busy_bridge().await;
    bridge.wait_delivered("journal").await;
    let (code, shown, _) = bridge.cli(&["status"]);
    assert_eq!(code, Some(0));
    let shown = shown.lines().skip(1).collect::<Vec<_>>().join("\n");
    let is_time = |word: &&str| word.parse::<jiff::Timestamp>().is_ok();
    let times: Vec<&str> = shown.split_whitespace().filter(is_time).collect();
    let shown = times.iter().fold(shown.clone(), |shown, time| shown.replace(time, "TIME"));
    insta::assert_snapshot!(shown, @r"
      configuration       1 rule, 1 source, 1 destination, loaded TIME
      undelivered events  0
      pauses              0
      holds               none
      open episodes       unschedulable-pods 1
      deferred            none

    DESTINATION  KIND  PENDING  RETRYING  DEAD  OLDEST  FAILING
    journal      file  0        0         0     -       -

    SOURCE   LAST NOTIFICATION         HEARTBEAT  LAST RECEPTION GAP                             NO DECREASE BEFORE
    prod-eu  TIME  -          no_fingerprint until TIME  TIME
    ");
    let rules = bridge.get_json("/api/v1/rules").await;
    assert_eq!(rules[0]["matchers"], json!(["alertname=\"KubePodsPending\""]));
    assert_eq!((&rules[0]["on_firing"]["amount"], &rules[0]["open_episodes"]), (&json!("2"), &json!(1)));
    let sources = bridge.get_json("/api/v1/sources").await;
    assert_eq!(sources[0]["labels"]["region"], "eu-west-1");
    let (code, shown, _) = bridge.cli(&["episodes"]);
    assert!(code == Some(0) && shown.lines().count() == 1 && shown.contains("/others"), "{shown}");
    assert_eq!(bridge.cli(&["status", "--url", "http://127.0.0.1:1"]).0, Some(1));
    let open = bridge.get_json("/api/v1/episodes?limit=1").await;
    assert!(open["next"].is_number(), "{open}");
}

/// The OpenAPI document is a snapshot, so that a review sees every change of the API. Every path in it exists, and
/// every GET returns what its schema describes.
#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_is_the_published_one_and_matches_the_api() {
    let bridge = Bridge::start().await;
    let document = bridge.get_json("/openapi.json").await;
    let shown = serde_json::to_string_pretty(&document).expect("JSON");
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("openapi.json", shown);
    });
    assert!(jsonschema::meta::is_valid(&document["components"]["schemas"]["Decision"]));
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys().filter(|method| *method != "get") {
            let path = path.replace("{id}", "1");
            let (status, _) = bridge.api(&method.to_uppercase(), &path, None).await;
            assert_ne!(status, 405, "{method} {path}");
        }
        if methods.get("get").is_some() && !path.ends_with("stream") && !path.contains('{') {
            let answer = bridge.get_json(path).await;
            let schema = &methods["get"]["responses"]["200"]["content"]["application/json"]["schema"];
            let mut whole = schema.clone();
            whole["components"] = document["components"].clone();
            let validator = jsonschema::validator_for(&whole).expect("a schema");
            let errors: Vec<String> = validator.iter_errors(&answer).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{path}: {errors:?} {answer}");
        }
    }
}
