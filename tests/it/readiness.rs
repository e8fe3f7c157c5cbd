//! `/-/ready`, `status` and the metrics say when the store or the backlog refuses notifications, and the log says it once.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, captured, notification, pending_pod, program, resolved};
use crate::support::queue::TEST_AWS_ENV;
use crate::support::sqs_stub::{Kind, SqsStub};
use crate::support::tools::{eventually, get};

async fn ready(bridge: &Bridge) -> (u16, String) {
    get(&bridge.url("/-/ready")).await.expect("an answer")
}

async fn wait_ready(bridge: &Bridge) {
    eventually("readiness", async || (ready(bridge).await.0 == 200).then_some(())).await;
}

/// The lines of the log with this message.
fn lines(bridge: &Bridge, message: &str) -> Vec<Value> {
    let log = bridge.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

async fn wait_line(bridge: &Bridge, message: &str) -> Value {
    eventually(message, async || lines(bridge, message).into_iter().next()).await
}

fn status(bridge: &Bridge) -> String {
    let shown =
        Command::new(program()).args(["status", "--url", &bridge.admin_url()]).output().expect("an exit");
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

const REMOVED: &str = "a file of the store was removed or replaced, refusing all changes but deliveries";
const RECOVERED: &str = "the file of the store is back at its path";

/// What is committed to a removed file would be lost at the end of the process: nothing is accepted, and what is stored
/// is still delivered.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_accepted_while_the_file_of_the_store_is_gone() {
    let queue = SqsStub::unreachable(Kind::Standard);
    let mut bridge = Bridge::with_destinations(&[("queue", queue.destination())]);
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    assert_eq!(bridge.post(notification(&[pending_pod("group-1", "a")])).await.status, 200);
    for name in ["bridge.db", "bridge.db-wal"] {
        let file = bridge.dir().join(name);
        let away = bridge.dir().join("away");
        fs::rename(&file, &away).expect("a move");
        eventually("a refusal", async || (ready(&bridge).await.0 == 503).then_some(())).await;
        // A load balancer sends nothing to a bridge that is not ready.
        eventually("a reception gap although nothing was refused", async || {
            let status = bridge.get_json("/api/v1/status").await;
            (status["reception_gaps"]["prod-eu"]["cause"] == "store").then_some(())
        })
        .await;
        let answer = bridge.post(notification(&[pending_pod("group-2", name)])).await;
        assert_eq!((answer.status, &*answer.headers["retry-after"]), (503, "1"));
        let (code, says) = ready(&bridge).await;
        assert!(code == 503 && says.contains("a file of the store was removed or replaced"), "{says}");
        assert_eq!(bridge.metric("scalebridge_store_up").await, 0.0);
        let shown = bridge.get_json("/api/v1/status").await;
        assert!(shown["refusing"].as_str().is_some_and(|why| why.contains("removed or replaced")), "{shown}");
        let text = status(&bridge);
        assert!(text.contains("not ready") && text.contains("Notifications are REFUSED: "), "{text}");
        let (code, problem) = bridge
            .api(
                "POST",
                "/api/v1/pauses",
                Some(json!({ "author": "me", "reason": "why", "ends_after": "1h" })),
            )
            .await;
        assert_eq!(code, 503, "a pause would be lost too: {problem}");
        fs::rename(&away, &file).expect("a move");
        wait_ready(&bridge).await;
        assert_eq!(bridge.metric("scalebridge_store_up").await, 1.0);
    }
    assert_eq!(lines(&bridge, REMOVED).len(), 2, "one line each time");
    assert!(lines(&bridge, REMOVED)[0]["fix"].as_str().is_some_and(|fix| fix.contains("move it back")));
    assert_eq!(lines(&bridge, RECOVERED).len(), 2, "one line each time");

    // A backup that is restored over the file of a running bridge is not what is open.
    let database = bridge.dir().join("bridge.db");
    fs::copy(&database, bridge.dir().join("backup")).expect("a copy");
    fs::rename(bridge.dir().join("backup"), &database).expect("a restored file");
    eventually("a refusal", async || (ready(&bridge).await.0 == 503).then_some(())).await;
    queue.heal();
    eventually("a delivery", async || (queue.events().len() == 1).then_some(())).await;
    assert!(bridge.stop().await.success());
}

const TRUNCATED: &str = "the file of the store was truncated, refusing all changes";

/// What was in the file is lost, and what is committed would be lost too: nothing makes the store ready again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_accepted_after_the_file_of_the_store_was_truncated_in_place() {
    let mut bridge = Bridge::start().await;
    assert_eq!(bridge.post(notification(&[pending_pod("group-1", "a")])).await.status, 200);
    bridge.wait_delivered("journal").await;
    let database = bridge.dir().join("bridge.db");
    let before = fs::read(&database).expect("its content");
    fs::OpenOptions::new().write(true).truncate(true).open(&database).expect("truncated");
    eventually("a refusal", async || (ready(&bridge).await.0 == 503).then_some(())).await;
    for number in 0..3 {
        let answer = bridge.post(notification(&[pending_pod("group-2", &number.to_string())])).await;
        assert_eq!((answer.status, &*answer.headers["retry-after"]), (503, "1"));
    }
    let (code, says) = ready(&bridge).await;
    assert!(code == 503 && says.contains("the file of the store was truncated"), "{says}");
    assert_eq!(bridge.metric("scalebridge_store_up").await, 0.0);
    assert!(status(&bridge).contains("Notifications are REFUSED: "));
    // A backup that is copied into the open file is not what SQLite has in its caches.
    fs::write(&database, before).expect("written in place");
    let answer = bridge.post(notification(&[pending_pod("group-3", "a")])).await;
    assert_eq!(answer.status, 503);
    let (code, says) = ready(&bridge).await;
    assert!(code == 503 && says.contains("the file of the store was truncated"), "{says}");
    assert_eq!(lines(&bridge, TRUNCATED).len(), 1);
    assert!(lines(&bridge, TRUNCATED)[0]["fix"].as_str().is_some_and(|fix| fix.contains("backup")));
    bridge.stop().await;
}

/// A store that cannot commit is not ready, and recovers by itself, also if no notification comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_program_has_locked_is_not_ready() {
    let bridge = Bridge::start().await;
    let alert = pending_pod("group-1", "a");
    assert_eq!(bridge.post(notification(std::slice::from_ref(&alert))).await.status, 200);
    let other = rusqlite::Connection::open(bridge.dir().join("bridge.db")).expect("the store");
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    for _ in 0..3 {
        assert_eq!(bridge.post(notification(&[resolved(&alert)])).await.status, 503);
        let (code, says) = ready(&bridge).await;
        assert!(
            code == 503 && says.contains("the store cannot commit: database is locked"),
            "{code}: {says}"
        );
        assert_eq!(bridge.metric("scalebridge_store_up").await, 0.0);
    }
    other.execute_batch("ROLLBACK").expect("unlocked");
    wait_ready(&bridge).await;
    assert_eq!(bridge.metric("scalebridge_store_up").await, 1.0);
    wait_line(&bridge, "the store commits again").await;
    assert_eq!(lines(&bridge, "the store cannot commit, refusing notifications; retrying").len(), 1);
    assert_eq!(lines(&bridge, "notification rejected").len(), 0, "no line for each request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_backlog_is_not_ready() {
    const FULL: &str = "too many unsettled deliveries, refusing notifications until some are settled";
    let queue = SqsStub::unreachable(Kind::Standard);
    let mut bridge = Bridge::with_destinations(&[("queue", queue.destination())]);
    let config = fs::read_to_string(bridge.dir().join("scalebridge.yaml")).expect("a configuration");
    bridge.write("scalebridge.yaml", &(config + "delivery: { max_backlog: 2 }\n"));
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    let pods = [pending_pod("group-1", "a"), pending_pod("group-2", "a")];
    assert_eq!(bridge.post(notification(&pods)).await.status, 200);
    let (code, says) = ready(&bridge).await;
    assert!(
        code == 503 && says.contains("too many unsettled deliveries: 2, delivery.max_backlog is 2"),
        "{says}"
    );
    eventually("a reception gap although nothing was refused", async || {
        let status = bridge.get_json("/api/v1/status").await;
        (status["reception_gaps"]["prod-eu"]["cause"] == "backlog").then_some(())
    })
    .await;
    for _ in 0..3 {
        assert_eq!(bridge.post(captured("three-firing")).await.status, 503);
    }
    let shown = bridge.get_json("/api/v1/status").await;
    assert!(shown["refusing"].as_str().is_some_and(|why| why.contains("delivery.max_backlog")), "{shown}");
    assert_eq!(bridge.metric("scalebridge_store_up").await, 1.0);
    let line = wait_line(&bridge, FULL).await;
    assert_eq!((&line["undelivered"], &line["max_backlog"]), (&json!(2), &json!(2)), "{line}");
    queue.heal();
    wait_ready(&bridge).await;
    wait_line(&bridge, "the backlog is below its limit, accepting notifications again").await;
    assert_eq!(lines(&bridge, FULL).len(), 1);
    assert_eq!(lines(&bridge, "notification rejected").len(), 0, "no line for each request");
}

/// A limit that the process cannot raise: the bridge answers, and is not ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_beyond_its_file_size_limit_lives_and_is_not_ready() {
    let mut bridge = Bridge::new(CONFIG, RULES);
    // Room for a new store, and for some notifications.
    bridge.wrap_with(&["prlimit", "--fsize=600000:600000"]);
    bridge.run().await;
    let mut posted = 0;
    loop {
        posted += 1;
        let mut alert = pending_pod(&format!("group-{posted}"), "a");
        alert["annotations"]["description"] = json!("x".repeat(2000));
        let refused = bridge.post(notification(&[alert])).await.status == 503;
        let (code, says) = ready(&bridge).await;
        if refused && code == 503 && says.contains("the store cannot commit") {
            break;
        }
        assert!(posted < 1000, "the limit is not reached");
    }
    assert!(matches!(get(&bridge.url("/-/healthy")).await, Ok((200, _))));
    assert!(bridge.stop().await.success());
}
