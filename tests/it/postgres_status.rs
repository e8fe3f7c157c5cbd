//! What operators see of a fleet: its replicas, which figures are the fleet's, and which are those of one replica.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod};
use crate::support::postgres::PostgresServer;
use crate::support::tools::{eventually, tool};

/// Two running replicas.
async fn fleet() -> [Bridge; 2] {
    let server = PostgresServer::shared();
    let url = server.url(&server.create_database(None));
    let mut replicas = [crate::postgres::bridge_on(&url), crate::postgres::bridge_on(&url)];
    for replica in &mut replicas {
        replica.run().await;
    }
    replicas
}

async fn replicas_of(bridge: &Bridge) -> Vec<Value> {
    bridge.get_json("/api/v1/status").await["fleet"]["replicas"].as_array().cloned().unwrap_or_default()
}

/// The replicas, when as many have this status, as one of them shows them.
async fn when(bridge: &Bridge, status: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} {status} replicas"), async || {
        let shown = replicas_of(bridge).await;
        (shown.iter().filter(|replica| replica["status"] == status).count() == count).then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_shows_all_of_them_and_a_lost_one_is_missed() {
    let [first, mut second] = fleet().await;
    for bridge in [&first, &second] {
        let shown = when(bridge, "ready", 2).await;
        assert_eq!(shown.iter().filter(|replica| replica["answers"] == true).count(), 1, "{shown:?}");
        for replica in &shown {
            assert_eq!(replica["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(replica["schema_step"], 1);
        }
    }
    eventually("the clocks", async || {
        let shown = replicas_of(&first).await;
        // The server is on this machine.
        let offsets: Vec<f64> = shown.iter().filter_map(|it| it["clock_offset_seconds"].as_f64()).collect();
        (offsets.len() == 2 && offsets.iter().all(|offset| offset.abs() < 5.0)).then_some(())
    })
    .await;
    assert!(first.metric("scalebridge_clock_offset_seconds").await.abs() < 5.0);
    let (code, text, _) = first.cli(&["status"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("Fleet: 2 of 2 replicas ready, schema step 1"), "{text}");
    assert!(text.contains("(answers)"), "{text}");

    second.kill();
    let shown = when(&first, "lost", 1).await;
    let lost = shown.iter().find(|replica| replica["answers"] == false).expect("the other one");
    assert_eq!(lost["status"], "lost", "{shown:?}");
    let (_, text, _) = first.cli(&["status"]);
    assert!(text.contains("Fleet: 1 of 2 replicas ready"), "{text}");
    // Its successor is another one, and a replica that was stopped is not missed.
    second.run().await;
    when(&first, "ready", 2).await;
    assert!(second.stop().await.success());
    let shown = when(&first, "ready", 1).await;
    assert!(shown.iter().all(|replica| replica["status"] != "not_ready"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_the_fleet_are_the_same_everywhere_and_those_of_a_replica_are_its_own() {
    let [first, second] = fleet().await;
    let answer = first.post(notification(&[pending_pod("workers", "a")])).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let open = "scalebridge_open_episodes{rule=\"unschedulable-pods\"}";
    for bridge in [&first, &second] {
        eventually("the episode", async || (bridge.metric(open).await == 1.0).then_some(())).await;
        eventually("no undelivered event", async || {
            let status = bridge.get_json("/api/v1/status").await;
            assert_eq!(status["open_episodes"]["unschedulable-pods"], 1);
            (status["undelivered"] == 0).then_some(())
        })
        .await;
    }
    let accepted = "scalebridge_notifications_total{source=\"prod-eu\",code=\"200\"}";
    assert_eq!((first.metric(accepted).await, second.metric(accepted).await), (1.0, 0.0));
    let delivered = "scalebridge_deliveries_total{destination=\"journal\",result=\"delivered\"}";
    assert_eq!(
        first.metric(delivered).await + second.metric(delivered).await,
        1.0,
        "one of them has delivered it"
    );
    // The notification was kept, so the other one knows when the source was heard.
    let heard = "scalebridge_last_notification_timestamp_seconds{source=\"prod-eu\"}";
    let at = first.metric(heard).await;
    eventually("the time", async || ((second.metric(heard).await - at).abs() < 5.0).then_some(())).await;

    let destinations = second.get_json("/api/v1/destinations").await;
    let name = destinations[0]["replica"].as_str().expect("a replica").to_owned();
    let (_, text, _) = second.cli(&["destinations"]);
    assert!(text.contains(&format!("FAILING AT {name}")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sqlite_nothing_is_said_about_a_fleet() {
    let bridge = Bridge::start().await;
    assert_eq!(bridge.get_json("/api/v1/status").await.get("fleet"), None);
    assert_eq!(bridge.get_json("/api/v1/destinations").await[0].get("replica"), None);
    for command in ["status", "destinations"] {
        let (_, text, _) = bridge.cli(&[command]);
        assert!(!text.to_lowercase().contains("replica") && !text.contains("Fleet"), "{text}");
    }
}

fn document() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md")).expect("the document")
}

/// `| scalebridge_outbox_deliveries | destination, state | fleet | …` by name.
fn documented() -> BTreeMap<String, (String, String)> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), ((*cells.get(2)?).to_owned(), (*cells.get(3)?).to_owned())))
    };
    document().lines().filter_map(row).filter(|(name, _)| name.starts_with("scalebridge_")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_says_whose_it_is_and_is_documented_with_its_labels() {
    // Some exist for sources with Alertmanagers only.
    let asked = "  asked: { alertmanager: { urls: ['http://127.0.0.1:9'] } }\ndestinations:";
    let mut bridge = Bridge::new(&CONFIG.replace("destinations:", asked), RULES);
    bridge.run().await;
    let (_, text) = bridge.get_admin("/metrics").await;
    let documented = documented();
    let mut served = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP scalebridge_")) {
        let (name, help) = line.split_once(' ').expect("a help");
        let name = format!("scalebridge_{name}");
        let (labels, whose) =
            documented.get(&name).unwrap_or_else(|| panic!("docs/METRICS.md does not have {name}"));
        let said = match &**whose {
            "fleet" => "(of the fleet: take the maximum over replicas)",
            "replica" => "(of this replica)",
            other => panic!("{name} is of {other}"),
        };
        assert!(help.contains(said), "{name}: {help}, documented as {whose}");
        let names = |text: &str| -> BTreeSet<String> {
            let names = text.split(',').filter_map(|label| label.split('=').next());
            names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty() && name != "le").collect()
        };
        let series = text.lines().find(|line| {
            line.strip_prefix(&name).is_some_and(|rest| rest.starts_with("{") || rest.starts_with("_bucket{"))
        });
        if let Some(series) = series {
            let shown = series.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).expect("labels").0;
            // A value has no comma here.
            assert_eq!(names(shown), names(labels), "the labels of {name}");
        }
        served.insert(name);
    }
    let missing: Vec<&String> = documented.keys().filter(|name| !served.contains(*name)).collect();
    assert_eq!(missing, Vec::<&String>::new(), "documented and not served");
}

#[test]
fn the_queries_of_the_document_are_valid() {
    let text = document();
    let rest = text.split("```promql\n").nth(1).expect("a block");
    let queries = rest.split("```").next().expect("its end");
    let recorded = queries.lines().enumerate().map(|(number, line)| {
        let query = line.split('#').next().expect("a query").trim();
        format!("      - {{ record: \"query:{number}\", expr: '{query}' }}\n")
    });
    let rules = format!("groups:\n  - name: queries\n    rules:\n{}", recorded.collect::<String>());
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queries.yml");
    fs::write(&path, &rules).expect("a file");
    let checked = tool("bin/promtool").args(["check", "rules"]).arg(&path).output().expect("promtool");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{said}\n{rules}");
    // Each metric is one that exists.
    let documented = documented();
    for word in rules.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_')) {
        let known = word.strip_suffix("_bucket").unwrap_or(word);
        assert!(!word.starts_with("scalebridge_") || documented.contains_key(known), "{word}");
    }
}
