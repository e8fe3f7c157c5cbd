//! What episodes owe that were open, or waited for their scale-in, when a version without owed decreases was replaced.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use scalebridge::domain::engine::Policy;
use scalebridge::domain::name::Name;
use scalebridge::domain::rate::PerMinute;
use scalebridge::domain::time::Time;
use scalebridge::testing::{self, Bridge, DeliveryQueue as _, Metrics, Settlement, Sqlite, Store};
use serde_json::{Value, json};

const SCHEMA_7: &str = include_str!("../fixtures/store-schema-7.sql");
/// A few seconds after the last commit of the fixture.
const OPENED_MS: i64 = 1_795_990_270_000;
const CONFIG: &str = "
sources:
  prod-eu: { labels: { cluster: prod-eu, region: eu-west-1 }, late_window: 0s }
destinations:
  journal: { file: { path: journal.jsonl } }
  broken: { file: { path: broken.jsonl } }
rules: [rules.yaml]
";
/// `pods` had a fixed scale-in by 1 when the fixture was written.
const RULES: &str = r#"
rules:
  - name: pods
    matchers: [alertname = KubePodsPending]
    target: &target { platform: eks, kind: nodegroup, name: "{{ labels.nodegroup }}", cluster: "{{ labels.cluster }}", region: "{{ labels.region }}" }
    on_firing: { scale_out: { by: 2 }, cooldown: 0s }
    on_resolved: { scale_in: { revert: true } }
    send_to: [journal]
  - name: unsent
    matchers: [alertname = Unsent]
    target: *target
    on_firing: { scale_out: { by: 3 }, cooldown: 0s }
    on_resolved: { scale_in: { by: 3 }, stabilization_window: 0s, cooldown: 0s }
    send_to: [broken]
"#;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// The store and a bridge with it at this time.
fn open(dir: &Path, now_ms: i64) -> (Store, Bridge) {
    let wall = Arc::new(move || Time::from_millis(now_ms));
    let opened = Sqlite::open(&dir.join("bridge.db"), &["journal", "broken"].map(name), wall);
    let store = Store::Sqlite(opened.expect("a store"));
    let settings = testing::load(&dir.join("scalebridge.yaml")).expect("a configuration");
    let policy = Policy {
        last_resolve_retention: Duration::from_secs(3600),
        expired_episode_retention: Duration::from_secs(3600),
        owed_retention: Duration::from_secs(7 * 86_400),
        probes_destinations: true,
        per_minute: PerMinute::default(),
    };
    let bridge = Bridge::new(store.clone(), settings.rules, settings.sources, policy, Metrics::new());
    (store, bridge)
}

async fn resolve(bridge: &Bridge, alertname: &str, nodegroup: &str, pods: &[&str]) {
    let alert = |pod: &&str| {
        json!({
            "status": "resolved", "annotations": {}, "fingerprint": format!("{alertname}-{nodegroup}-{pod}"),
            "labels": { "alertname": alertname, "nodegroup": nodegroup, "pod": pod },
            "startsAt": "2026-11-29T22:11:00Z", "endsAt": "2026-11-29T22:12:00Z",
        })
    };
    let alerts: Vec<Value> = pods.iter().map(alert).collect();
    let body = json!({ "version": "4", "alerts": alerts, "truncatedAlerts": 0 });
    let notification = testing::parse_notification(body.to_string().as_bytes()).expect("a notification");
    let source = bridge.source("prod-eu").expect("a source");
    bridge.ingest(&source, notification, None).await.expect("a decision");
}

/// Delivers everything that can be called, and returns the node group, the value and the number of `reverts` of each
/// event.
async fn deliver(store: &Store, destination: &str) -> BTreeMap<(String, i64), usize> {
    let mut events = BTreeMap::new();
    loop {
        let claimed = store.claim(&name(destination), 10).await.expect("a claim");
        if claimed.is_empty() {
            return events;
        }
        for one in &claimed {
            let event: Value = serde_json::from_str(&one.body).expect("an event");
            let target = event["data"]["target"]["name"].as_str().expect("text").to_owned();
            let value = event["data"]["adjustment"]["value"].as_i64().expect("a number");
            let reverts = event["data"]["reverts"].as_array().map_or(0, Vec::len);
            assert_eq!(events.insert((target, value), reverts), None, "twice: {event}");
        }
        let settled = claimed.into_iter().map(|one| (one.lease, Settlement::Delivered { answer: None }));
        store.settle(&name(destination), settled.collect()).await.expect("settled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_added_before_the_upgrade_is_taken_back_by_the_next_close() {
    let dir = tempfile::tempdir().expect("a directory");
    let database = Connection::open(dir.path().join("bridge.db")).expect("a database");
    database.execute_batch(SCHEMA_7).expect("the fixture");
    drop(database);
    std::fs::write(dir.path().join("scalebridge.yaml"), CONFIG).expect("a file");
    std::fs::write(dir.path().join("rules.yaml"), RULES).expect("a file");

    let (store, bridge) = open(dir.path(), OPENED_MS);
    let undelivered = [(("answered".to_owned(), 3), 0), (("waiting".to_owned(), 3), 0)];
    let arrived = deliver(&store, "broken").await;
    assert!(undelivered.iter().all(|(event, _)| arrived.contains_key(event)), "{arrived:?}");
    resolve(&bridge, "KubePodsPending", "open", &["a", "b"]).await;
    resolve(&bridge, "Unsent", "waiting", &["a"]).await;
    bridge.process_due().await.expect("decided");
    assert_eq!(deliver(&store, "journal").await, BTreeMap::new(), "the windows are not over");
    store.close().await;

    let (store, bridge) = open(dir.path(), OPENED_MS + 600_000);
    bridge.process_due().await.expect("decided");
    let taken_back = deliver(&store, "journal").await;
    assert_eq!(taken_back, BTreeMap::from([(("closing".to_owned(), -2), 1), (("open".to_owned(), -4), 2)]));
    let late = deliver(&store, "broken").await;
    let all: BTreeMap<_, _> = arrived.into_iter().chain(late).collect();
    assert_eq!(all.get(&("waiting".to_owned(), -3)), Some(&1), "{all:?}");
    let of_answered = all.keys().filter(|(target, value)| target == "answered" && *value < 0);
    assert_eq!(of_answered.count(), 1, "{all:?}");
    store.close().await;
}
