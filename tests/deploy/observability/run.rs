//! A real run: Prometheus scrapes a bridge and a scaler's worker, as the README says, and no query of dashboard, rules and
//! runbooks is about something that does not exist.
//!
//! - Each query of the dashboard returns data.
//! - Each selector in the expression of an alert rule or of a runbook returns at least one series: the query itself
//!   returns nothing while nothing is wrong. Prometheus parses the query (`/api/v1/parse_query`, since 3.0), so that no
//!   selector is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::queries::{self, Query, REPLICAS, RULES, blocks, list, read, text};
use super::world::{GROUP, Scaler, break_destination, watchdog};
use crate::support::bridge::{Answer, Bridge, notification, pending_pod, resolved};
use crate::support::prometheus::{Release, on_old_and_new};
use crate::support::secrets::secret;
use crate::support::tools::{Server, eventually, eventually_within, get};

on_old_and_new!(no_query_is_empty_in_a_real_run);

/// Rates need some scrapes, on a machine that may be busy.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(120);

/// `prod-eu` asks for a token, and the file of that of `locked` will be missing. `broken` accepts nothing.
const CONFIG: &str = r#"
server: { listen: "127.0.0.1:0" }
admin:
  listen: "127.0.0.1:0"
  tokens: [{ name: prometheus, scope: read, token_file: prometheus.token }]
store: { sqlite: { path: bridge.db } }
sources:
  prod-eu:
    labels: { cluster: prod-eu, region: eu-west-1 }
    heartbeat: [alertname = Watchdog]
    auth: { bearer_token_files: [sender.token] }
  locked: { auth: { bearer_token_files: [locked.token] } }
destinations:
  scaling-queue: { sqs: { queue_url: "QUEUE", region: eu-west-1 } }
  broken: { file: { path: taken/x.jsonl }, initial_backoff: 50ms, max_backoff: 60ms }
rules: [rules.yaml]
log: { format: json }
"#;

/// What resolves is not taken back: `stabilization_window` is longer than the test.
const BRIDGE_RULES: &str = r#"
rules:
  - name: group-is-busy
    matchers: [alertname = GroupIsBusy]
    target: { platform: ec2, kind: autoscaling-group, name: "{{ labels.nodegroup }}", region: "{{ labels.region }}" }
    on_firing: { scale_out: { by: 2 }, cooldown: 0s }
    on_resolved: { scale_in: { revert: true } }
    send_to: [scaling-queue]
  - name: nobody-hears-it
    matchers: [alertname = KubePodsPending]
    target: { platform: eks, kind: nodegroup, name: "{{ labels.nodegroup }}", cluster: "{{ labels.cluster }}" }
    on_firing: { scale_out: { by: 1 }, cooldown: 0s }
    send_to: [broken]
"#;

struct Run {
    bridge: Bridge,
    scaler: Scaler,
    sender: String,
}

impl Run {
    async fn start(directory: &std::path::Path) -> Self {
        let scaler = Scaler::start(directory).await;
        let mut bridge = Bridge::new(&CONFIG.replace("QUEUE", &scaler.queue), BRIDGE_RULES);
        scaler.environment().iter().for_each(|(name, value)| bridge.env(name, value));
        let sender = secret("token-of-the-sender");
        bridge.write("sender.token", &sender);
        bridge.write("locked.token", &secret("token-of-another-sender"));
        bridge.write("prometheus.token", &secret("token-of-prometheus"));
        break_destination(bridge.dir());
        bridge.run().await;
        Self { bridge, scaler, sender }
    }

    async fn post(&self, source: &str, token: &str, body: String) -> Answer {
        let token = format!("Bearer {token}");
        self.bridge.post_to(&format!("/webhook/{source}"), &[("authorization", &token)], body).await
    }

    /// Alerts that act, resolve, cannot be used and do not arrive: what the metrics are about.
    async fn make_trouble(&self) {
        let mut busy = pending_pod(GROUP, "a");
        busy["labels"]["alertname"] = json!("GroupIsBusy");
        let mut elsewhere = pending_pod("elsewhere", "b");
        elsewhere["labels"]["alertname"] = json!("GroupIsBusy");
        let mut invalid = pending_pod("none", "c");
        invalid["labels"].as_object_mut().expect("labels").remove("nodegroup");
        let alerts = [watchdog(), busy.clone(), elsewhere, invalid, pending_pod("pods", "d")];
        let answer = self.post("prod-eu", &self.sender, notification(&alerts)).await;
        assert_eq!(answer.verdicts(), json!({ "emitted": 3, "heartbeat": 1, "invalid": 1 }));
        eventually("the answer of the scaler", async || {
            let (_, metrics) = get(&(self.scaler.worker.url() + "/metrics")).await.ok()?;
            let refused = r#"scalebridge_scaler_events_total{platform="ec2",outcome="refused"} 1"#;
            let applied = r#"scalebridge_scaler_events_total{platform="ec2",outcome="applied"} 1"#;
            (metrics.contains(refused) && metrics.contains(applied)).then_some(())
        })
        .await;
        let answer = self.post("prod-eu", &self.sender, notification(&[resolved(&busy)])).await;
        assert_eq!(answer.verdicts(), json!({ "stabilizing": 1 }));
    }

    /// One of each kind of answer that is not 200.
    async fn be_refused(&self) {
        assert_eq!(self.post("prod-eu", &self.sender, "no JSON".to_owned()).await.status, 400);
        assert_eq!(self.post("prod-eu", "a-wrong-token", notification(&[])).await.status, 401);
        fs::remove_file(self.bridge.dir().join("locked.token")).expect("a file");
        eventually("a secret that cannot be read", async || {
            (self.post("locked", "any-token", notification(&[])).await.status == 503).then_some(())
        })
        .await;
    }

    /// The scrape configuration of the README, with the addresses of this run.
    fn prometheus_config(&self) -> String {
        let shown = blocks(&read("deploy/observability/README.md"), "yaml").remove(0);
        let mut config: Value = serde_saphyr::from_str(&shown).expect("YAML");
        config["global"] = json!({ "scrape_interval": "1s", "evaluation_interval": "1s" });
        config["rule_files"] = json!(["rules.yml"]);
        let jobs = config["scrape_configs"].as_array_mut().expect("a list");
        let names: Vec<_> = jobs.iter().map(|job| text(job, "job_name").to_owned()).collect();
        assert_eq!(names, ["scalebridge", "scalebridge-scaler"]);
        // No certificates here; tests/it/credentials_page.rs has them.
        for key in ["scheme", "tls_config"] {
            jobs[0].as_object_mut().expect("a job").remove(key).expect("https");
        }
        jobs[0]["authorization"]["credentials_file"] = json!(self.bridge.dir().join("prometheus.token"));
        // The bridge is scraped twice, as two replicas: what is of the fleet has the same value in both.
        let targets = |address: &str, instances: &[&str]| -> Value {
            let one = |name: &&str| json!({ "targets": [address], "labels": { "instance": name } });
            instances.iter().map(one).collect()
        };
        jobs[0]["static_configs"] = targets(self.bridge.admin_address(), &REPLICAS);
        jobs[1]["static_configs"] = targets(&self.scaler.worker.address(), &["worker-0"]);
        config.to_string()
    }
}

/// What Prometheus' API answers.
async fn ask(prometheus: &Server, route: &str, query: &str) -> Value {
    let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
    let url = format!("{}/api/v1/{route}?query={query}", prometheus.url());
    let (status, body) = get(&url).await.expect("an answer");
    assert_eq!(status, 200, "{query}: {body}");
    serde_json::from_str::<Value>(&body).expect("JSON")["data"].take()
}

/// How many series a query returns now.
async fn count(prometheus: &Server, query: &str) -> usize {
    let answer = ask(prometheus, "query", query).await;
    list(&answer, "result").len()
}

/// A selector without its range and its offset: whether there is such a series.
fn selector(node: &Value) -> String {
    let mut matchers: Vec<String> = list(node, "matchers")
        .iter()
        .map(|matcher| {
            format!("{}{}{}", text(matcher, "name"), text(matcher, "type"), json!(text(matcher, "value")))
        })
        .filter(|matcher| !matcher.starts_with("__name__="))
        .collect();
    matchers.sort();
    format!("{}{{{}}}", text(node, "name"), matchers.join(", "))
}

fn selectors(node: &Value, found: &mut BTreeSet<String>) {
    match node {
        Value::Object(fields) => {
            if ["vectorSelector", "matrixSelector"].contains(&node["type"].as_str().unwrap_or_default()) {
                found.insert(selector(node));
            }
            fields.values().for_each(|value| selectors(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| selectors(value, found)),
        _ => {}
    }
}

/// Each selector, with the place of a query that has it.
async fn all_selectors(prometheus: &Server, queries: Vec<Query>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for query in queries {
        let mut found = BTreeSet::new();
        selectors(&ask(prometheus, "parse_query", &query.text).await, &mut found);
        assert!(!found.is_empty(), "{query:?}");
        all.extend(found.into_iter().map(|selector| (selector, query.place.clone())));
    }
    all
}

/// The metrics of the fleet, by docs/METRICS.md.
fn of_the_fleet() -> BTreeSet<String> {
    let document = read("docs/METRICS.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter(|row| row.split('|').nth(2).map(str::trim) == Some("fleet"));
    let names: BTreeSet<_> = names.filter_map(|row| row.split('`').next().map(str::to_owned)).collect();
    assert!(names.len() > 8, "{names:?}");
    names
}

/// Whether a metric of the fleet is summed over replicas. `outer` is the aggregation that is next outside.
fn counts_the_fleet_twice(node: &Value, outer: Option<&Value>, fleet: &BTreeSet<String>) -> bool {
    match node {
        Value::Object(fields) => {
            if node["type"] == "vectorSelector" && fleet.contains(text(node, "name")) {
                return outer.is_none_or(|outer| {
                    outer["op"] != "max" && !list(outer, "grouping").contains(&json!("instance"))
                });
            }
            let outer = if node["type"] == "aggregation" { Some(node) } else { outer };
            fields.values().any(|value| counts_the_fleet_twice(value, outer, fleet))
        }
        Value::Array(values) => values.iter().any(|value| counts_the_fleet_twice(value, outer, fleet)),
        _ => false,
    }
}

/// The only value of a panel.
async fn stat(prometheus: &Server, panel: &str) -> String {
    let query = queries::of_dashboard().into_iter().find(|query| query.place == panel).expect("a panel");
    let answer = ask(prometheus, "query", &query.text).await;
    assert_eq!(list(&answer, "result").len(), 1, "{panel}: {answer}");
    answer["result"][0]["value"][1].as_str().expect("a value").to_owned()
}

/// The alerts whose expression holds now.
async fn holding(prometheus: &Server) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rule in queries::of_rules() {
        if count(prometheus, &rule.text).await > 0 {
            found.insert(rule.place);
        }
    }
    found
}

async fn no_query_is_empty_in_a_real_run(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let run = Run::start(dir.path()).await;
    let config = run.prometheus_config();
    let prometheus = release.start_prometheus(dir.path(), &config, &read(RULES)).await;
    eventually_within(SCRAPE_TIMEOUT, "both jobs", async || {
        (count(&prometheus, "up == 1").await == 3).then_some(())
    })
    .await;
    run.make_trouble().await;
    run.be_refused().await;

    for query in queries::of_dashboard() {
        let what = format!("data of the panel {}: {}", query.place, query.text);
        eventually_within(SCRAPE_TIMEOUT, &what, async || {
            (count(&prometheus, &query.text).await > 0).then_some(())
        })
        .await;
    }

    // Two increases of a rule that takes them back; the decrease of one of them waits.
    for (panel, expected) in [
        ("Replicas", "2"),
        ("Store", "1"),
        ("Destinations down", "1"),
        ("Dead letters", "0"),
        ("Owed decreases", "2"),
        ("Deferred actions", "1"),
        ("Pauses", "0"),
    ] {
        eventually(&format!("{panel}: {expected}"), async || {
            (stat(&prometheus, panel).await == expected).then_some(())
        })
        .await;
    }

    if release == Release::New && !release.is_replaced() {
        let fleet = of_the_fleet();
        for query in queries::of_rules().into_iter().chain(queries::of_dashboard()) {
            let parsed = ask(&prometheus, "parse_query", &query.text).await;
            assert!(!counts_the_fleet_twice(&parsed, None, &fleet), "each replica counts: {query:?}");
        }
        let queries = queries::of_rules().into_iter().chain(queries::of_runbooks()).collect();
        let selectors = all_selectors(&prometheus, queries).await;
        assert!(selectors.len() > 40, "only {} selectors: {selectors:#?}", selectors.len());
        for (selector, place) in selectors {
            eventually(&format!("{selector} of {place}"), async || {
                (count(&prometheus, &selector).await > 0).then_some(())
            })
            .await;
        }
    }

    // What is wrong here, and no more. An increase of a series with few samples is extrapolated far, at first.
    let expected = ["ScalebridgeDestinationDown", "ScalebridgeInvalidAlerts", "ScalebridgeScalerRefused"];
    eventually_within(SCRAPE_TIMEOUT, &format!("only {expected:?} to hold"), async || {
        holding(&prometheus).await.iter().eq(expected.iter()).then_some(())
    })
    .await;
}
