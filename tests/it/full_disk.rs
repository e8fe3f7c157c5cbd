//! A full disk: notifications are answered with 503 until there is space, and nothing is lost.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::bridge::{Answer, Bridge, notification_of_group, pending_pod, resolved};
use crate::support::disk::Disk;
use crate::support::ledger::Ledger;
use crate::support::load::{self, Senders};
use crate::support::queue::TEST_AWS_ENV;
use crate::support::replay::Change;
use crate::support::seed;
use crate::support::sqs_stub::{Kind, SqsStub};
use crate::support::tools::{eventually, get};

/// More notifications than fit on the disk.
const MAX_POSTS: usize = 3000;
/// More than the WAL's size before a checkpoint, about 16 MiB.
const DISK_MIB: u32 = 64;
const REJECTED_SERIES: &str = "scalebridge_notifications_total{source=\"prod-eu\",code=\"503\"}";

/// A bridge with its store and its journal in `data`, and the events that it has accepted.
struct Harness {
    bridge: Bridge,
    queue: SqsStub,
    ledger: Ledger,
    posted: usize,
}

impl Harness {
    fn new() -> Self {
        let queue = SqsStub::start(Kind::Standard);
        let journal = "file: { path: data/events.jsonl }".to_owned();
        let mut bridge = Bridge::with_destinations(&[("queue", queue.destination()), ("journal", journal)]);
        TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
        bridge.env("SCALEBRIDGE__STORE__SQLITE__PATH", "data/bridge.db");
        // A refused notification is a reception gap.
        bridge.without_late_window();
        fs::create_dir(bridge.dir().join("data")).expect("a directory");
        Self { bridge, queue, ledger: Ledger::default(), posted: 0 }
    }

    /// Posts an alert of about 2 kB about a new target.
    async fn post(&mut self) -> Answer {
        self.posted += 1;
        let target = format!("group-{}", self.posted);
        let mut alert = pending_pod(&target, "a");
        alert["annotations"]["description"] = json!("x".repeat(2000));
        self.post_alert(&target, alert, Change::Fire { open: 1 }).await
    }

    async fn post_alert(&mut self, target: &str, alert: Value, change: Change) -> Answer {
        let group = format!("{{}}:{target}-{}", alert["status"]);
        let answer = self.bridge.post(notification_of_group(&group, &[alert])).await;
        match answer.status {
            200 => {
                assert_eq!(answer.json()["events"], 1, "{}", answer.body);
                self.ledger.record(target, &group, change);
            }
            503 => assert_eq!(answer.headers["retry-after"], "1"),
            other => panic!("{other}: {}", answer.body),
        }
        answer
    }

    /// Posts until a notification is rejected, and checks that the bridge is healthy.
    async fn post_until_full(&mut self) {
        let mut accepted = 0;
        while self.post().await.status == 200 {
            accepted += 1;
            assert!(accepted < MAX_POSTS, "the disk does not fill up");
        }
        assert!(matches!(get(&self.bridge.url("/-/healthy")).await, Ok((200, _))));
        assert!(self.bridge.metric(REJECTED_SERIES).await >= 1.0);
        // Where there is room for a page, a smaller commit may have succeeded since.
        eventually("a bridge that is not ready", async || {
            if self.post().await.status == 200 {
                return None;
            }
            let (code, says) = get(&self.bridge.url("/-/ready")).await.expect("an answer");
            let is_up = self.bridge.metric("scalebridge_store_up").await;
            (code == 503 && says.contains("the store cannot commit") && is_up == 0.0).then_some(())
        })
        .await;
        let status = self.bridge.get_json("/api/v1/status").await;
        assert_eq!(
            status["reception_gaps"]["prod-eu"]["cause"], "store",
            "known although it cannot be written"
        );
    }

    /// Posts until a notification is accepted; the bridge recovers without a restart.
    async fn post_until_accepted(&mut self) {
        eventually("a 200", async || (self.post().await.status == 200).then_some(())).await;
    }

    /// What could not be received is on the disk soon after there is space.
    async fn wait_for_stored_gap(&self) {
        let database = Connection::open(self.bridge.dir().join("data/bridge.db")).expect("the store");
        let cause = || {
            let body: String =
                database.query_row("SELECT body FROM controls", [], |row| row.get(0)).expect("a row");
            let controls: Value = serde_json::from_str(&body).expect("JSON");
            controls["gaps"]["prod-eu"]["last"]["cause"].clone()
        };
        eventually("the gap in the store", async || (cause() == "store").then_some(())).await;
    }

    async fn wait_delivered(&self) -> (Vec<Value>, Vec<Value>) {
        self.bridge.wait_settled(&["queue", "journal"]).await;
        let text = fs::read_to_string(self.bridge.dir().join("data/events.jsonl")).expect("a journal");
        let journal = text.lines().map(|line| serde_json::from_str(line).expect("one event per line"));
        (self.queue.events(), journal.collect())
    }

    /// Without a restart every event is delivered exactly once, whatever could not be written.
    async fn assert_delivered_once(&self) {
        let (queue, journal) = self.wait_delivered().await;
        for (destination, events) in [("queue", &queue), ("journal", &journal)] {
            let copies = self.ledger.check(&self.bridge, destination, events).await;
            assert!(copies.is_empty(), "{destination} received events more than once: {copies:?}");
        }
    }
}

/// Fills and frees the disk several times: accepted events are delivered once, and rejected notifications have
/// no effect.
async fn assert_full_disk_loses_nothing(
    harness: &mut Harness,
    fill: impl Fn(&Harness),
    free: impl Fn(&Harness),
) {
    for _ in 0..5 {
        assert_eq!(harness.post().await.status, 200);
    }
    for _ in 0..2 {
        fill(harness);
        harness.post_until_full().await;
        free(harness);
        harness.post_until_accepted().await;
        harness.wait_for_stored_gap().await;
        harness.assert_delivered_once().await;
    }
    // A rejected notification leaves no partial state.
    fill(harness);
    harness.post_until_full().await;
    let refused = pending_pod("refused", "a");
    let first = harness.post_alert("refused", refused.clone(), Change::Fire { open: 1 }).await;
    free(harness);
    if first.status != 200 {
        eventually("a 200", async || {
            let again = harness.post_alert("refused", refused.clone(), Change::Fire { open: 1 }).await;
            (again.status == 200).then_some(())
        })
        .await;
    }
    // A scale-in follows the delivery of its scale-out.
    harness.wait_delivered().await;
    let end = harness.post_alert("refused", resolved(&refused), Change::Close { resolved: 1 }).await;
    assert_eq!(end.status, 200);
    harness.assert_delivered_once().await;
    harness.queue.assert_no_violations();
}

/// Skipped where mounting is not permitted, but not in CI; `a_file_size_limit_is_handled_like_a_full_disk` runs everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_rejects_notifications_until_there_is_space() {
    let mut harness = Harness::new();
    let Some(disk) = Disk::mount(&harness.bridge.dir().join("data"), DISK_MIB) else { return };
    // The log is on the same disk: a failed write of a log line must not stop the bridge.
    symlink("data/bridge.log", harness.bridge.dir().join("bridge.log")).expect("a link");
    harness.bridge.run().await;
    assert_full_disk_loses_nothing(&mut harness, |_| disk.fill(), |_| disk.free()).await;

    // The bridge is killed while the disk is full, and cannot start again without space.
    disk.fill();
    harness.post_until_full().await;
    harness.bridge.kill();
    let start =
        harness.bridge.command().stdout(Stdio::null()).stderr(Stdio::piped()).output().expect("an exit");
    let says = String::from_utf8_lossy(&start.stderr);
    assert!(start.status.code() == Some(2) && says.contains("disk is full"), "{:?}: {says}", start.status);
    disk.free();
    harness.bridge.run().await;
    harness.post_until_accepted().await;
    let (queue, journal) = harness.wait_delivered().await;
    harness.ledger.check(&harness.bridge, "queue", &queue).await;
    harness.ledger.check(&harness.bridge, "journal", &journal).await;
}

/// Under load: whatever fails on the full disk, a commit, a settlement or a write to the journal, is retried.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_times_loses_nothing_under_load() {
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut harness = Harness::new();
    let Some(disk) = Disk::mount(&harness.bridge.dir().join("data"), DISK_MIB) else { return };
    harness.bridge.run().await;
    let mut senders = Senders::start(seed, &load::constant_address(harness.bridge.url("/webhook/prod-eu")));
    let mut rejecting_rounds = 0;
    for _ in 0..8 {
        senders.wait_answered(rng.usize(1..8)).await;
        let before = harness.bridge.metric(REJECTED_SERIES).await;
        disk.fill();
        let threshold = senders.answered() + 20;
        // After a checkpoint the WAL is overwritten in place and needs no space. Before the first one it grows.
        rejecting_rounds += eventually("a rejection or enough answers", async || {
            let rejected = harness.bridge.metric(REJECTED_SERIES).await > before;
            (rejected || senders.answered() >= threshold).then_some(u32::from(rejected))
        })
        .await;
        tokio::time::sleep(Duration::from_millis(rng.u64(..20))).await;
        disk.free();
    }
    assert!(rejecting_rounds > 0, "the disk was never full");
    harness.ledger = senders.stop().await;
    harness.assert_delivered_once().await;
}

/// With `RLIMIT_FSIZE` a write fails with another error (`EFBIG`) than on a full disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_size_limit_is_handled_like_a_full_disk() {
    let mut harness = Harness::new();
    harness.bridge.run().await;
    let limit = |harness: &Harness, bytes: &str| {
        let (pid, size) = (harness.bridge.pid().to_string(), format!("--fsize={bytes}:"));
        let set = Command::new("prlimit").args(["--pid", &pid, &size]).status();
        assert!(set.is_ok_and(|status| status.success()), "prlimit");
    };
    let length = |harness: &Harness| -> io::Result<u64> {
        Ok(fs::metadata(harness.bridge.dir().join("data/bridge.db-wal"))?.len())
    };
    let fill = |harness: &Harness| limit(harness, &length(harness).expect("a WAL").to_string());
    assert_full_disk_loses_nothing(&mut harness, fill, |harness| limit(harness, "unlimited")).await;
}
