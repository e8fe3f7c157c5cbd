//! Everything between an exporter and the capacity of each platform.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::problems::{Exporters, PROBLEMS};
use super::shipped::{faster, shipped, with_value};
use crate::bridge::{Bridge, client};
use crate::process::eventually;
use crate::setup::{BEFORE, Cloud, Worker, scaler_config};
use crate::support::prometheus::Release;
use crate::support::tools::{Server, get};

/// The source, as in `config/scalebridge.yaml`. The defaults of its times are written out, so that they become shorter too.
const SOURCE: &str = r#"prod-eu:
    labels: { cluster: prod-eu, region: eu-west-1 }
    heartbeat: ['alertname = "Watchdog"']
    heartbeat_timeout: 11m
    heartbeat_grace: 15m
    late_window: 6m
    occurrence_ttl: 24h
    auth: { bearer_token_files: [TOKEN] }"#;

/// The capacity of each platform without a problem.
pub(crate) const CALM: [u32; 4] = [BEFORE[0]; 4];

pub(crate) struct World {
    _prometheus: Server,
    _alertmanagers: Vec<Server>,
    pub(crate) exporters: Exporters,
    /// The bridge whose events reach the scaler.
    pub(crate) bridge: Bridge,
    /// A bridge that gets the same alerts and has no holds. Its events end in a file.
    pub(crate) control: Option<Bridge>,
    worker: Worker,
    cluster: Cluster,
    cloud: Cloud,
    _directory: tempfile::TempDir,
}

impl World {
    /// Starts everything. There is no problem.
    pub(crate) async fn start(release: Release) -> Self {
        Self::start_all(release, false).await
    }

    /// Starts everything, and `control`.
    pub(crate) async fn start_with_control(release: Release) -> Self {
        Self::start_all(release, true).await
    }

    async fn start_all(release: Release, has_control: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let cloud = Cloud::start().await;
        let cluster = Cluster::start(&cloud.eks_url()).await;
        let queue = cloud.queue("scaling.fifo", 30).await;
        let eks = [("AWS_ENDPOINT_URL_EKS", cluster.eks_url())];
        let worker = Worker::start(&cloud, with_deployments(&scaler_config(Some(&queue), None)), &eks).await;
        let mut receivers = Receivers { release, directory: directory.path(), alertmanagers: Vec::new() };
        let queue = format!("sqs: {{ queue_url: \"{queue}\" }}");
        let bridge = receivers.start("main", &queue, &rule_table(), &cloud).await;
        let control = if has_control {
            let table = rule_table();
            let without_holds = table.replace(".+MetricsMissing", "Unused");
            assert_ne!(without_holds, table);
            Some(receivers.start("control", "file: { path: events.jsonl }", &without_holds, &cloud).await)
        } else {
            None
        };
        let alertmanagers = receivers.alertmanagers;
        let exporters = Exporters::start().await;
        let prometheus = start_prometheus(release, directory.path(), &exporters, &alertmanagers).await;
        let world = Self {
            _prometheus: prometheus,
            _alertmanagers: alertmanagers,
            exporters,
            bridge,
            control,
            worker,
            cluster,
            cloud,
            _directory: directory,
        };
        world.wait_calm().await;
        world
    }

    /// Waits for the heartbeat. There is no problem.
    async fn wait_calm(&self) {
        for bridge in [&self.bridge].into_iter().chain(&self.control) {
            eventually("the heartbeat", async || bridge.decisions("verdict=heartbeat").await.pop()).await;
            assert_eq!(bridge.holds().await, Vec::<String>::new());
        }
        assert_eq!(self.capacities().await, CALM);
    }

    /// Nodes of EKS, instances of EC2, tasks of ECS, pods of Kubernetes.
    pub(crate) async fn capacities(&self) -> [u32; 4] {
        let [nodes, instances, tasks] = self.cloud.capacities().await;
        [nodes, instances, tasks, u32::try_from(self.cluster.replicas()).expect("a small number")]
    }

    /// The capacities after all increases that were emitted. There was no decrease.
    pub(crate) async fn raised(&self) -> [u32; 4] {
        let mut capacities = CALM;
        for (problem, capacity) in PROBLEMS.iter().zip(&mut capacities) {
            let (increases, decreases) = self.bridge.counts(problem).await;
            assert_eq!(decreases, 0, "{}", problem.rule);
            *capacity += increases * problem.by;
        }
        capacities
    }

    /// Waits until the scaler has applied so many events.
    pub(crate) async fn wait_applied(&self, events: u32) {
        let events = events as usize;
        eventually("the events", async || (self.worker.outcomes("applied") >= events).then_some(())).await;
        assert_eq!(self.worker.lines("event").len(), events, "no event came twice, and none was refused");
    }
}

/// Pairs of an Alertmanager and the bridge that it notifies.
struct Receivers<'d> {
    release: Release,
    directory: &'d Path,
    alertmanagers: Vec<Server>,
}

impl Receivers<'_> {
    async fn start(&mut self, name: &str, destination: &str, table: &str, cloud: &Cloud) -> Bridge {
        let directory = self.directory.join(name);
        fs::create_dir(&directory).expect("a directory");
        let token = directory.join("token");
        fs::write(&token, "secret").expect("a token");
        let token = token.to_str().expect("UTF-8");
        let source = faster(SOURCE).replace("TOKEN", token);
        let destination = format!("scaling-queue: {{ {destination} }}");
        // The bridge starts before the alerts: one that is older than its store cannot decrease capacity.
        let bridge = Bridge::start_with(&source, &destination, table, &cloud.environment()).await;
        let config = shipped("deploy/prometheus/alertmanager.yml");
        let config = with_value(&config, "url", &bridge.webhook("prod-eu"));
        let config = with_value(&config, "credentials_file", token);
        // So that groups repeat within the test.
        let config = with_value(&config, "repeat_interval", "1s");
        self.alertmanagers.push(self.release.start_alertmanager(&directory, &config).await);
        bridge
    }
}

/// The rule table that is shipped. The default of `cooldown` is written out, so that it becomes shorter too.
fn rule_table() -> String {
    let table = shipped("config/rules.yaml");
    let table = with_value(&table, "send_to", "[scaling-queue]");
    table.replacen("defaults:\n", &faster("defaults:\n  cooldown: 5m\n"), 1)
}

/// The scaler's configuration, which covers deployments too.
fn with_deployments(config: &str) -> String {
    let mut config: Value = serde_json::from_str(config).expect("JSON");
    let targets = config["targets"].as_array_mut().expect("a list");
    targets.push(json!({ "match": "kubernetes/deployment/-/*/prod-eu/shop/*" }));
    config.to_string()
}

/// Starts Prometheus, without rules until it has scraped every exporter and found Alertmanager. Both take five seconds
/// after the start, however short its intervals are, and the `for` of the `…MetricsMissing` alerts is 1.2 seconds here.
async fn start_prometheus(
    release: Release,
    directory: &Path,
    exporters: &Exporters,
    alertmanagers: &[Server],
) -> Server {
    let addresses: Vec<_> = alertmanagers.iter().map(Server::address).collect();
    let config = json!({
        "global": {
            "scrape_interval": faster("60s"),
            "evaluation_interval": faster("60s"),
            "external_labels": { "cluster": "prod-eu", "region": "eu-west-1" },
        },
        "rule_files": ["*.rules.yml"],
        "alerting": { "alertmanagers": [{ "static_configs": [{ "targets": addresses }] }] },
        "scrape_configs": exporters.scrape_configs(),
    });
    fs::write(directory.join("prometheus.yml"), config.to_string()).expect("its configuration");
    let prometheus = Server::start("prometheus", directory, "/-/ready", |port| {
        let mut command = release.tool("prometheus");
        command.arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=prometheus");
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--web.enable-lifecycle");
        // Alertmanager resolves an alert that Prometheus has not repeated for four times as long. That must not happen
        // on a busy machine.
        command.arg("--rules.alert.resend-delay=10s");
        command
    })
    .await;
    let api = format!("{}/api/v1", prometheus.url());
    for (path, list, count) in [
        ("alertmanagers", "activeAlertmanagers", addresses.len()),
        ("query?query=up==1", "result", exporters.count()),
    ] {
        eventually(path, async || {
            let (_, body) = get(&format!("{api}/{path}")).await.ok()?;
            let answer: Value = serde_json::from_str(&body).ok()?;
            (answer["data"][list].as_array()?.len() == count).then_some(())
        })
        .await;
    }
    let rules = shipped("deploy/prometheus/capacity.rules.yml");
    fs::write(directory.join("capacity.rules.yml"), rules).expect("its rules");
    let reload = client().post(format!("{}/-/reload", prometheus.url())).send().await.expect("an answer");
    assert_eq!(reload.status(), 200, "{}", reload.text().await.unwrap_or_default());
    prometheus
}
