//! Reception gaps: whatever the bridge could not accept is known, and shown, until it is certain that nothing more is
//! to come.

use std::process::Command;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, now, pending_pod, resolved};
use crate::support::queue::TEST_AWS_ENV;
use crate::support::sqs_stub::{Kind, SqsStub};
use crate::support::tools::eventually;

const CAUSES: [&str; 8] =
    ["not_running", "suspended", "store", "data_loss", "backlog", "refused", "no_fingerprint", "queue"];
const WAIT_AFTER_GAP: SignedDuration = SignedDuration::from_mins(6);

/// The last reception gap of a source, as the status shows it.
async fn last_gap(bridge: &Bridge, source: &str) -> Value {
    bridge.get_json("/api/v1/status").await["reception_gaps"][source].clone()
}

async fn gaps_counted(bridge: &Bridge, source: &str, cause: &str) -> f64 {
    let labels = format!("{{source=\"{source}\",cause=\"{cause}\"}}");
    bridge.metric(&format!("scalebridge_source_reception_gaps_total{labels}")).await
}

fn time(value: &Value) -> Timestamp {
    value.as_str().expect("text").parse().expect("a time")
}

/// The log line about the end of a gap.
async fn logged_gap(bridge: &Bridge, cause: &str) -> Value {
    eventually("a log line", async || {
        let log = bridge.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["message"] == "reception gap" && line["cause"] == cause)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_store_has_no_gap_and_all_series_exist() {
    let bridge = Bridge::start().await;
    assert_eq!(bridge.get_json("/api/v1/status").await["reception_gaps"], json!({}));
    assert_eq!(bridge.get_json("/api/v1/sources").await[0]["last_gap"], Value::Null);
    let (_, metrics) = bridge.get_admin("/metrics").await;
    for cause in CAUSES {
        let series =
            format!("scalebridge_source_reception_gaps_total{{source=\"prod-eu\",cause=\"{cause}\"}} 0\n");
        assert!(metrics.contains(&series), "{series}{metrics}");
    }
    let series = "scalebridge_source_reception_gap_seconds_total{source=\"prod-eu\"} 0.0\n";
    assert!(metrics.contains(series), "{metrics}");
}

/// Sends the beginning of a notification, and returns the connection.
async fn begin_notification(bridge: &Bridge, source: &str) -> TcpStream {
    let mut stream = TcpStream::connect(bridge.address()).await.expect("a connection");
    let head = format!("POST /webhook/{source} HTTP/1.1\r\nhost: bridge\r\ncontent-length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.expect("a head");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_notification_leaves_a_gap_of_its_source_only() {
    const SOURCES: [&str; 7] = ["json", "shape", "large", "encoding", "slow", "gone", "unknown-alert"];
    let sources: Vec<String> = SOURCES.iter().map(|source| format!("{source}: {{}}")).collect();
    let sources = format!("sources:\n  untouched: {{}}\n  {}\n", sources.join("\n  "));
    let config = CONFIG.replace("sources:\n", &sources);
    let config = config.replace(
        "server: { listen: \"127.0.0.1:0\" }",
        "server: { listen: \"127.0.0.1:0\", max_body_bytes: 100000, body_timeout: 1s }",
    );
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let before = time(&json!(now()));

    let post = async |source: &str, headers: &[(&str, &str)], body: &str| {
        bridge.post_to(&format!("/webhook/{source}"), headers, body).await.status
    };
    assert_eq!(post("untouched", &[], &notification(&[pending_pod("workers", "a")])).await, 200);
    assert_eq!(post("not-configured", &[], "{").await, 404);
    assert_eq!(post("json", &[], "{").await, 400);
    assert_eq!(post("shape", &[], "{}").await, 400);
    assert_eq!(post("large", &[], &" ".repeat(100_001)).await, 413);
    assert_eq!(post("encoding", &[("content-encoding", "zstd")], "x").await, 415);
    let slow = begin_notification(&bridge, "slow").await;
    drop(begin_notification(&bridge, "gone").await);
    let mut alert = pending_pod("workers", "b");
    alert["fingerprint"] = json!("");
    assert_eq!(post("unknown-alert", &[], &notification(&[alert])).await, 200);

    for source in SOURCES {
        let gap =
            eventually("a gap", async || Some(last_gap(&bridge, source).await).filter(|gap| !gap.is_null()));
        let gap = gap.await;
        let cause = if source == "unknown-alert" { "no_fingerprint" } else { "refused" };
        assert_eq!(gap["cause"], cause, "{source}");
        assert!(time(&gap["until"]) >= before - SignedDuration::from_millis(1), "{source}: {gap}");
        assert_eq!(gap["from"], gap["until"], "{source}");
        assert_eq!(time(&gap["no_decrease_before"]), time(&gap["until"]) + WAIT_AFTER_GAP, "{source}");
        assert_eq!(gaps_counted(&bridge, source, cause).await, 1.0, "{source}");
    }
    drop(slow);
    let status = bridge.get_json("/api/v1/status").await;
    let shown: Vec<&String> = status["reception_gaps"].as_object().expect("an object").keys().collect();
    let mut expected = SOURCES.to_vec();
    expected.sort_unstable();
    assert_eq!(shown, expected, "an accepted notification and an unknown source leave no gap");

    let (code, shown, _) = bridge.cli(&["status"]);
    let row = shown.lines().find(|line| line.starts_with("json ")).expect("the source");
    let gap = last_gap(&bridge, "json").await;
    assert_eq!(code, Some(0));
    assert!(row.contains(&format!("refused until {}", gap["until"].as_str().expect("text"))), "{row}");
    assert!(row.ends_with(gap["no_decrease_before"].as_str().expect("text")), "{row}");
}

/// Written within a second, also if nothing else is decided; and known after a kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_on_disk_soon() {
    let mut bridge = Bridge::start().await;
    assert_eq!(bridge.post("{").await.status, 400);
    let total = || {
        let database = rusqlite::Connection::open(bridge.dir().join("bridge.db")).expect("the store");
        let body: String =
            database.query_row("SELECT body FROM controls", [], |row| row.get(0)).expect("a row");
        serde_json::from_str::<Value>(&body).expect("JSON")["gaps"]["prod-eu"]["last"]["cause"].clone()
    };
    eventually("the gap in the store", async || (total() == "refused").then_some(())).await;
    bridge.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_backlog_leaves_a_gap() {
    let silent = SqsStub::silent(Kind::Standard);
    let mut bridge = Bridge::with_destinations(&[("silent", silent.destination())]);
    bridge.env("SCALEBRIDGE__DELIVERY__MAX_BACKLOG", "1");
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    assert_eq!(bridge.post(notification(&[pending_pod("workers", "a")])).await.status, 200);
    for pod in ["b", "c"] {
        assert_eq!(bridge.post(notification(&[pending_pod("workers", pod)])).await.status, 503);
    }
    assert_eq!(last_gap(&bridge, "prod-eu").await["cause"], "backlog");
    assert_eq!(gaps_counted(&bridge, "prod-eu", "backlog").await, 1.0, "two refusals are one gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_after_a_kill_is_a_gap_until_the_bridge_is_ready_again() {
    let mut bridge = Bridge::start().await;
    assert_eq!(bridge.post(notification(&[pending_pod("workers", "a")])).await.status, 200);
    let before = time(&json!(now()));
    bridge.kill();
    // The source `lab` is new: nothing can have been sent to it.
    bridge.write("scalebridge.yaml", &CONFIG.replace("sources:\n", "sources:\n  lab: {}\n"));
    let started = time(&json!(now()));
    bridge.run().await;
    let ready = time(&json!(now()));
    let gap = last_gap(&bridge, "prod-eu").await;
    assert_eq!(gap["cause"], "not_running");
    assert!(time(&gap["from"]) <= before, "{gap}");
    let until = time(&gap["until"]);
    assert!(started - SignedDuration::from_millis(1) <= until && until <= ready, "{gap}");
    assert_eq!(last_gap(&bridge, "lab").await, Value::Null);
    let line = logged_gap(&bridge, "not_running").await;
    assert_eq!(
        (&line["until"], &line["sources"], &line["level"]),
        (&gap["until"], &json!(1), &json!("WARN"))
    );

    // The next process knows `lab`.
    bridge.kill();
    bridge.run().await;
    assert_eq!(last_gap(&bridge, "lab").await["cause"], "not_running");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_from_a_stop_to_the_next_start_is_one_gap() {
    let mut bridge = Bridge::start().await;
    let before = time(&json!(now()));
    assert!(bridge.stop().await.success());
    let stopped = time(&json!(now()));
    bridge.run().await;
    let gap = last_gap(&bridge, "prod-eu").await;
    assert_eq!(gap["cause"], "not_running");
    let from = time(&gap["from"]);
    assert!(before - SignedDuration::from_millis(1) <= from && from <= stopped, "{gap}");
    assert!(time(&gap["until"]) >= stopped - SignedDuration::from_millis(1), "{gap}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decrease_that_waits_because_of_a_gap_says_so() {
    let bridge = Bridge::start().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await.verdicts();
    bridge.wait_delivered("journal").await;
    assert_eq!(bridge.post("{").await.status, 400);
    assert_eq!(bridge.post(notification(&[resolved(&pod)])).await.verdicts(), json!({ "stabilizing": 1 }));
    let decision = bridge.decisions("stabilizing").await.remove(0);
    let detail = "notifications of source prod-eu could not be received (refused)";
    assert_eq!(decision["detail"], detail);
    assert_eq!(decision["until"], last_gap(&bridge, "prod-eu").await["no_decrease_before"]);
}

fn signal(bridge: &Bridge, signal: &str) {
    let sent = Command::new("kill").args([signal, &bridge.pid().to_string()]).status().expect("kill");
    assert!(sent.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_has_a_gap() {
    let bridge = Bridge::start().await;
    signal(&bridge, "-STOP");
    // More than the five seconds that a busy machine may take.
    tokio::time::sleep(Duration::from_secs(6)).await;
    signal(&bridge, "-CONT");
    let gap =
        eventually("a gap", async || Some(last_gap(&bridge, "prod-eu").await).filter(|gap| !gap.is_null()));
    let gap = gap.await;
    assert_eq!(gap["cause"], "suspended");
    let length = time(&gap["until"]).duration_since(time(&gap["from"]));
    assert!(length > SignedDuration::from_secs(5), "{gap}");
    assert!(logged_gap(&bridge, "suspended").await["seconds"].as_f64().is_some_and(|seconds| seconds > 5.0));
    let seconds = "scalebridge_source_reception_gap_seconds_total{source=\"prod-eu\"}";
    assert!(bridge.metric(seconds).await > 5.0);
}
