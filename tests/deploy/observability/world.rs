//! A bridge, a scaler and what they need, in the states that alerts are about.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, notification, pending_pod, program, resolved};
use crate::support::tools::{LocalAws, REGION, Server, eventually};

/// Without a configured group, the scaler refuses events.
pub(super) const GROUP: &str = "workers";
/// The destination that does not accept events.
pub(super) const BROKEN: &str = "broken";
/// The key of the target that owes a decrease.
pub(super) const TARGET: &str = "eks/nodegroup/-/eu-west-1/prod-eu/-/owing";
/// The rule of the bridge of the runbooks.
pub(super) const RULE: &str = "unschedulable-pods";

/// `broken` is below a file. What is older than half a second is a dead letter.
const CONFIG: &str = r#"
server: { listen: "127.0.0.1:0" }
admin: { listen: "127.0.0.1:0" }
store: { sqlite: { path: bridge.db } }
sources:
  prod-eu: { labels: { cluster: prod-eu, region: eu-west-1 }, heartbeat: [alertname = Watchdog] }
destinations:
  journal: { file: { path: events.jsonl } }
  broken: { file: { path: taken/x.jsonl }, initial_backoff: 50ms, max_backoff: 60ms, max_age: 500ms }
rules: [rules.yaml]
log: { format: json }
"#;

const RULES: &str = r#"
rules:
  - name: unschedulable-pods
    matchers: [alertname = KubePodsPending]
    target:
      platform: eks
      kind: nodegroup
      name: "{{ labels.nodegroup }}"
      cluster: "{{ labels.cluster }}"
      region: "{{ labels.region }}"
    on_firing: { scale_out: { by: 2 }, cooldown: 0s }
    on_resolved: { scale_in: { by: 1 } }
    send_to: [journal, broken]
"#;

/// An alert that always fires.
pub(super) fn watchdog() -> Value {
    let mut alert = pending_pod("none", "none");
    alert["labels"] = json!({ "alertname": "Watchdog" });
    alert["fingerprint"] = json!("watchdog");
    alert
}

/// A stopped bridge, whose destination `broken` does not accept events.
pub(super) fn bridge() -> Bridge {
    let bridge = Bridge::new(CONFIG, RULES);
    break_destination(bridge.dir());
    bridge
}

/// Puts a file in the place of the directory `taken`.
pub(super) fn break_destination(directory: &Path) {
    fs::write(directory.join("taken"), "").expect("a file");
}

/// A running bridge with dead letters, an open and an owing episode, a deferred decrease, an invalid alert, an open
/// heartbeat, a pause, and a reload in its audit trail.
pub(super) async fn troubled_bridge() -> Bridge {
    let mut bridge = bridge();
    bridge.run().await;
    let (open, owing) = (pending_pod("open", "a"), pending_pod("owing", "a"));
    let mut invalid = pending_pod("none", "b");
    invalid["labels"].as_object_mut().expect("labels").remove("nodegroup");
    let first = notification(&[watchdog(), open, owing.clone(), invalid]);
    assert_eq!(bridge.post(first).await.verdicts(), json!({ "emitted": 2, "heartbeat": 1, "invalid": 1 }));
    eventually("dead letters", async || (dead_letters(&bridge).await.len() == 2).then_some(())).await;
    bridge.wait_delivered("journal").await;
    assert_eq!(bridge.post(notification(&[resolved(&owing)])).await.verdicts(), json!({ "stabilizing": 1 }));
    for words in [&["reload", "--reason", "test"][..], &["pause", "--rule", RULE, "--reason", "test"]] {
        let (code, _, errors) = bridge.cli(words);
        assert_eq!(code, Some(0), "{words:?}: {errors}");
    }
    bridge
}

/// The ids of its dead letters.
pub(super) async fn dead_letters(bridge: &Bridge) -> Vec<String> {
    let page = bridge.get_json("/api/v1/dead-letters").await;
    let letters = page["dead_letters"].as_array().expect("a list").iter();
    letters.map(|letter| letter["id"].as_str().expect("an id").to_owned()).collect()
}

/// A running bridge that cannot read the state of [`TARGET`].
pub(super) async fn bridge_with_an_unreadable_state() -> Bridge {
    let mut bridge = bridge();
    bridge.run().await;
    bridge.post(notification(&[pending_pod("owing", "a")])).await;
    assert!(bridge.stop().await.success());
    let database = rusqlite::Connection::open(bridge.dir().join("bridge.db")).expect("a database");
    let damaged = database.execute("UPDATE targets SET state = x'ff' WHERE key = ?1", [TARGET]);
    assert_eq!(damaged.expect("a row"), 1);
    drop(database);
    bridge.run().await;
    let answer = bridge.post(notification(&[pending_pod("owing", "a")])).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    bridge
}

/// The scaler, which is built with the bridge by `make test`.
pub(super) fn scaler() -> PathBuf {
    let scaler = Path::new(env!("CARGO_BIN_EXE_scalebridge")).with_file_name("scalebridge-scaler");
    assert!(scaler.exists(), "{} is missing: run cargo build -p scalebridge-scaler", scaler.display());
    scaler
}

/// A directory with both programs by their names.
pub(super) fn programs(directory: &Path) -> PathBuf {
    let path = directory.join("bin");
    fs::create_dir_all(&path).expect("a directory");
    for (name, program) in [("scalebridge", program()), ("scalebridge-scaler", scaler())] {
        std::os::unix::fs::symlink(program, path.join(name)).expect("a link");
    }
    path
}

/// A worker of the scaler, with a queue and a group of 2 to 10 instances.
pub(super) struct Scaler {
    pub aws: LocalAws,
    pub queue: String,
    pub worker: Server,
    config: String,
}

impl Scaler {
    pub(super) async fn start(directory: &Path) -> Self {
        let aws = LocalAws::start(directory).await;
        let queue = aws.create_fifo_queue("scaling.fifo").await;
        aws.run(&["create-group", GROUP, "2", "2", "10"]);
        let config = json!({
            "queue": { "queue_url": queue },
            "ledger": { "sqlite": { "path": directory.join("scaler.db") } },
            "targets": [{ "match": "ec2/autoscaling-group/*/*/*/*/workers", "managed_by": "nobody" }],
        })
        .to_string();
        let environment = Self::variables(&aws, &config);
        let worker = Server::start("worker", directory, "/-/ready", |port| {
            let mut command = Command::new(scaler());
            command.args(["worker", "--listen", &format!("127.0.0.1:{port}")]).envs(environment);
            command
        })
        .await;
        Self { aws, queue, worker, config }
    }

    /// What programs need to call the local AWS, and the scaler's configuration.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        Self::variables(&self.aws, &self.config)
    }

    fn variables(aws: &LocalAws, config: &str) -> Vec<(&'static str, String)> {
        [
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL", &aws.url()),
            ("SCALEBRIDGE_SCALER_CONFIG", config),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
    }
}
