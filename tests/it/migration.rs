//! A store of an earlier schema opens with all its rows, and the bridge continues with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value as Column;
use scalebridge::domain::engine::Policy;
use scalebridge::domain::name::Name;
use scalebridge::domain::rate::PerMinute;
use scalebridge::domain::target::TargetKey;
use scalebridge::domain::time::Time;
use scalebridge::domain::verdict::Verdict;
use scalebridge::testing::{self, Bridge, DeliveryQueue as _, Initiator, Metrics, Pauses, Sqlite, Store};
use serde_json::{Value, json};

/// Written by the last version with schema 4 under load: active and shadow rules, a heartbeat, a hold, two
/// pauses, deferred actions, a late firing, retries, dead letters, one of them discarded and one redriven,
/// superseded, withdrawn and answered deliveries, a retired target, an event block and states compressed with
/// dictionaries.
const SCHEMA_4: &str = include_str!("../fixtures/store-schema-4.sql");
/// Two seconds after the last commit of the fixture.
const OPENED_MS: i64 = 1_795_959_910_148;
const DESTINATIONS: [&str; 4] = ["journal", "scaler", "short", "slow"];
/// Names of schema 4, with today's. Their columns are the same ones in the same order.
const RENAMED: [(&str, &str); 3] =
    [("texts", "event_blocks"), ("watching", "recheck_queue"), ("former_targets", "retired_targets")];
/// Tables that schema 4 did not have.
const ADDED: [&str; 5] = ["audit", "delivery_rechecks", "notifications", "receipts", "wall_clock_steps"];
/// Tables that only earlier schemas have: since schema 7, states are compressed with a dictionary of the program.
const REMOVED: [&str; 1] = ["samples"];
/// The columns of tables that are not compared: schema 7 encodes states anew, and schema 9 adds columns and schedules
/// targets anew (`check_schedule`).
const CHANGED: [(&str, usize); 6] =
    [("targets", 2), ("targets", 5), ("targets", 7), ("targets", 8), ("targets", 9), ("deliveries", 8)];
const DICTIONARY: &str = include_str!("../../src/store/sqlite/codec/state-dictionary-1.json");
const CONFIG: &str = "
sources:
  prod-eu:
    labels: { cluster: prod-eu }
    heartbeat: ['alertname = \"Watchdog\"']
    heartbeat_grace: 0s
    late_window: 0s
destinations: { journal: { file: { path: journal.jsonl } } }
rules: [rules.yaml]
";
const RULES: &str = r#"
defaults: { send_to: [journal], expires_after: 24h }
rules:
  - name: pending
    matchers: [alertname = Pending]
    target: { platform: eks, kind: nodegroup, name: "{{ labels.group }}", cluster: "{{ labels.cluster }}" }
    on_firing: { scale_out: { by: 2 } }
    on_resolved: { scale_in: { by: 2 }, stabilization_window: 0s }
"#;

type Rows = Vec<Vec<Column>>;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn open(dir: &Path, now_ms: i64) -> Store {
    let wall = Arc::new(move || Time::from_millis(now_ms));
    let opened = Sqlite::open(&dir.join("bridge.db"), &DESTINATIONS.map(name), wall);
    Store::Sqlite(opened.expect("a store"))
}

/// All rows of all tables, under the names of today, without columns that later schemas change.
fn tables(database: &Connection) -> BTreeMap<String, Rows> {
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    let mut names = database.prepare(names).expect("a query");
    let names = names.query_map([], |row| row.get::<_, String>(0)).expect("tables");
    let read = |table: String| {
        let mut rows = database.prepare(&format!("SELECT * FROM {table}")).expect("a query");
        let columns = 0..rows.column_count();
        let is_changed = |column: &usize| CHANGED.contains(&(table.as_str(), *column));
        // Of schema 8; not in the fixture.
        let added = rows.column_index("ahead").ok();
        let columns: Vec<usize> =
            columns.filter(|column| !is_changed(column) && added != Some(*column)).collect();
        let rows = rows.query_map([], |row| columns.iter().map(|&column| row.get(column)).collect());
        let rows = rows.expect("rows").collect::<Result<Rows, _>>().expect("rows");
        let renamed = RENAMED.iter().find(|(before, _)| *before == table);
        (renamed.map_or(table, |(_, name)| (*name).to_owned()), rows)
    };
    names.map(|name| read(name.expect("a name"))).collect()
}

/// The JSON of each state, by the id of its target. The query has the id, the state and the text of its dictionary.
fn states(database: &Connection, query: &str) -> BTreeMap<i64, String> {
    let mut rows = database.prepare(query).expect("a query");
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<String>>(2)?)));
    let decode = |state, dictionary: Option<String>| match state {
        Column::Text(text) => text,
        Column::Blob(block) => {
            let dictionary = dictionary.unwrap_or_default();
            let text = lz4_flex::block::decompress_size_prepended_with_dict(&block, dictionary.as_bytes());
            String::from_utf8(text.expect("a state")).expect("UTF-8")
        }
        other => panic!("{other:?}"),
    };
    let rows = rows.expect("rows").map(|row| row.expect("a row"));
    rows.map(|(id, state, dictionary)| (id, decode(state, dictionary))).collect()
}

fn numbers<K: ToString>(counts: &BTreeMap<K, u64>) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> =
        counts.iter().map(|(key, count)| (key.to_string(), *count)).collect();
    counts.sort();
    counts
}

fn verdicts(records: &[String]) -> Vec<Value> {
    let records = records.iter().map(|record| serde_json::from_str::<Value>(record).expect("a record"));
    records.map(|record| record["decisions"][0]["verdict"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_schema_4_opens_with_all_its_rows_and_the_bridge_goes_on_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let database = Connection::open(dir.path().join("bridge.db")).expect("a database");
    database.execute_batch(SCHEMA_4).expect("the fixture");
    let before = tables(&database);
    assert!(before.values().all(|rows| !rows.is_empty()), "every table of the fixture has rows");
    let states_before = states(
        &database,
        "SELECT t.id, t.state, s.text FROM targets t LEFT JOIN samples s ON s.id = t.sample",
    );
    drop(database);

    let store = open(dir.path(), OPENED_MS);
    let database = Connection::open(dir.path().join("bridge.db")).expect("a database");
    let after = tables(&database);
    let known = after.keys().filter(|table| !ADDED.contains(&table.as_str()));
    let lasting = || before.iter().filter(|(table, _)| !REMOVED.contains(&table.as_str()));
    assert_eq!(known.collect::<Vec<_>>(), lasting().map(|(table, _)| table).collect::<Vec<_>>());
    for (table, rows) in lasting() {
        if table != "recheck_queue" {
            assert_eq!(after[table], *rows, "rows of {table}");
        }
    }
    for old in RENAMED.map(|(old, _)| old).into_iter().chain(REMOVED).chain(["dictionaries"]) {
        assert!(!database.table_exists(None, old).expect("a schema"), "{old} is gone");
    }
    let text = format!("CASE dictionary WHEN 1 THEN '{DICTIONARY}' END");
    let states_after = states(&database, &format!("SELECT id, state, {text} FROM targets"));
    assert_eq!(states_after, states_before, "the same states");
    let version = database.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    assert_eq!(version.expect("a version"), 10);
    let unused = "SELECT count(*) FROM sqlite_schema WHERE name = 'shrinking'";
    let unused = database.query_row(unused, [], |row| row.get::<_, i64>(0));
    assert_eq!(unused.expect("a number"), 0, "an index that nothing uses is gone");
    let expired = "SELECT count(*) FROM deliveries WHERE state = 2 AND flags = 8";
    let expired = database.query_row(expired, [], |row| row.get::<_, i64>(0));
    assert_eq!(expired.expect("a number"), 2, "the dead letters that were too old");
    check_schedule(&store, &database).await;
    drop(database);
    check_states(&store).await;
    check_dead_letters(&store).await;
    check_events(&store).await;
    check_histories(&store).await;
    check_backlogs(&store);
    store.close().await;

    // Ten minutes later no cooldown blocks a decrease.
    let store = open(dir.path(), OPENED_MS + 600_000);
    resolve_and_resume(dir.path(), &store).await;
    store.close().await;
}

/// What is stored about when a target is processed is what this version derives from its state.
async fn check_schedule(store: &Store, database: &Connection) {
    let rows = "SELECT key, due, id IN (SELECT target FROM recheck_queue) FROM targets";
    let mut rows = database.prepare(rows).expect("a query");
    let stored = rows.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).expect("rows");
    let stored: BTreeMap<String, (Option<i64>, bool)> = stored.collect::<Result<_, _>>().expect("rows");
    let states = store.states(None, 100).await.expect("states");
    let derived = states.iter().map(|one| {
        let due = one.state.due().map(scalebridge::domain::time::Time::as_nanos);
        (one.key.as_str().to_owned(), (due, one.state.depends_on_controls()))
    });
    assert_eq!(stored, derived.collect());
}

/// States, episodes and deferred actions.
async fn check_states(store: &Store) {
    let tally = store.tally();
    let open: Vec<(String, u64)> =
        [("busy", 1), ("freeze", 1), ("pending", 13), ("shrink", 3), ("trial", 13), ("unreachable", 5)]
            .map(|(rule, count)| (rule.to_owned(), count))
            .into();
    assert_eq!(numbers(&tally.open_episodes), open);
    let deferred = [
        (Verdict::Paused, 3),
        (Verdict::Held, 1),
        (Verdict::CoolingDown, 3),
        (Verdict::Stabilizing, 1),
        (Verdict::Late, 2),
    ];
    assert_eq!(tally.deferred, BTreeMap::from(deferred));

    let states = store.states(None, 100).await.expect("states");
    assert_eq!(states.len(), 28, "every state can be decoded");
    let rule = |key: &str, rule: &str| {
        let state = states.iter().find(|state| state.key.as_str() == key).expect("a state");
        state.state.rules.get(&name(rule)).expect("a rule").clone()
    };
    let episode = rule("eks/nodegroup/-/-/prod-eu/-/workers-0", "pending").episode.expect("an episode");
    assert_eq!(episode.id.to_string(), "69cf574acea099228056ba60962ab86f");
    let paused = rule("eks/nodegroup/-/-/prod-eu/-/workers-99", "pending");
    assert_eq!(paused.deferred().expect("a deferred action").blocked_by, Some(Verdict::Paused));
    let closing = rule("ecs/service/-/-/prod-us/-/patient", "patient").closed.expect("a closed episode");
    assert_eq!(closing.episode.id.to_string(), "d952e727adce79d0c49e9d8657da302d");
    assert_eq!(closing.deferred.expect("a deferred action").blocked_by, Some(Verdict::Stabilizing));
}

async fn check_dead_letters(store: &Store) {
    let dead = store.dead_letters(None, None, 100).await.expect("dead letters");
    let dead: Vec<(i64, &str, &str, u32, bool)> = dead
        .iter()
        .map(|one| {
            let is_expired = one.error.starts_with("expired: not delivered within 2s; the last error");
            let id = &one.delivery_id;
            (id.seq.0, id.destination.as_str(), one.target.as_str(), one.attempts, is_expired)
        })
        .collect();
    assert_eq!(
        dead,
        [
            (23, "short", "ecs/service/-/-/prod-us/-/lost3", 2, true),
            (24, "short", "ecs/service/-/-/prod-us/-/lost4", 3, true),
        ]
    );
}

/// An event in its own row, one in an event block, and the deliveries of the others.
async fn check_events(store: &Store) {
    for (id, action, deliveries) in [
        ("76900049e55008854c8a499200d0316d", "scale_out", &["journal delivered"][..]),
        ("06ca48f0c1f6f8bdf2b691971fecda96", "scale_out", &["short discarded", "slow retrying"]),
        ("764aa06b1a7bee1346a6fc9e827c9eb1", "scale_in", &["slow superseded"]),
        ("3c60b2e2e348e17d23c7f95021e1d0d7", "scale_out", &["scaler delivered {\"capacity\":4}"]),
        ("61be5640f25d51aeab02ef81be5fed71", "scale_in", &["short withdrawn", "slow pending"]),
        ("75a58bb6cbb5473cedefacc40f89c7bf", "scale_out", &["short retrying", "slow retrying"]),
    ] {
        let event = store.event(id).await.expect("an answer").expect("an event");
        let body: Value = serde_json::from_str(&event.body).expect("an event");
        assert_eq!((&body["id"], &body["data"]["action"]), (&json!(id), &json!(action)));
        let shown: Vec<String> = event
            .deliveries
            .iter()
            .map(|one| {
                let answer = one.answer.as_deref().map(|answer| format!(" {answer}")).unwrap_or_default();
                format!("{} {}{answer}", one.destination, one.state.as_str())
            })
            .collect();
        assert_eq!(shown, deliveries, "{id}");
    }
}

async fn check_histories(store: &Store) {
    let history = async |key: &str| {
        let key = TargetKey::from_stored(key);
        let all = store.history(&key, Time::from_nanos(0), Time::from_nanos(i64::MAX));
        all.await.expect("a history")
    };
    let of_block = history("eks/nodegroup/-/-/prod-eu/-/workers-11").await;
    let record: Value = serde_json::from_str(&of_block[0]).expect("a record");
    let decisions = record["decisions"].as_array().expect("decisions");
    assert_eq!(decisions.len(), 24, "active and shadow, of twelve targets");
    let emitted = decisions
        .iter()
        .find(|one| one["target"] == "eks/nodegroup/-/-/prod-eu/-/workers-11" && one["verdict"] == "emitted");
    let id = emitted.expect("an emitted decision")["event"].as_str().expect("an id");
    let event = store.event(id).await.expect("an answer").expect("an event");
    let body: Value = serde_json::from_str(&event.body).expect("an event");
    assert_eq!(body["subject"], "eks/nodegroup/-/-/prod-eu/-/workers-11");
    assert_eq!(verdicts(&history("ecs/service/-/-/prod-us/-/patient").await), ["emitted", "stabilizing"]);
    let retired = history("ecs/service/-/-/prod-us/-/lost").await;
    assert_eq!(verdicts(&retired), ["emitted", "emitted", "withdrawn"], "of a target without a state");
}

fn check_backlogs(store: &Store) {
    let backlog = |destination: &str| {
        let backlog = store.backlog(&name(destination));
        (backlog.pending, backlog.retrying, backlog.dead)
    };
    let backlogs = DESTINATIONS.map(backlog);
    assert_eq!(backlogs, [(0, 0, 0), (0, 0, 0), (1, 2, 2), (6, 2, 0)], "as `status` showed them");
}

/// A bridge with this configuration.
fn bridge(dir: &Path, store: &Store, (config, rules): (&str, &str)) -> Bridge {
    std::fs::write(dir.join("scalebridge.yaml"), config).expect("a file");
    std::fs::write(dir.join("rules.yaml"), rules).expect("a file");
    let settings = testing::load(&dir.join("scalebridge.yaml")).expect("a configuration");
    let policy = Policy {
        last_resolve_retention: Duration::from_secs(3600),
        expired_episode_retention: Duration::from_secs(3600),
        owed_retention: Duration::from_secs(3600),
        probes_destinations: true,
        per_minute: PerMinute::default(),
    };
    Bridge::new(store.clone(), settings.rules, settings.sources, policy, Metrics::new())
}

async fn notify(bridge: &Bridge, source: &str, alert: Value) {
    let body = json!({ "version": "4", "alerts": [alert], "truncatedAlerts": 0 });
    let notification = testing::parse_notification(body.to_string().as_bytes()).expect("a notification");
    let source = bridge.source(source).expect("a source");
    bridge.ingest(&source, notification, None).await.expect("a decision");
}

async fn resolve_and_resume(dir: &Path, store: &Store) {
    let bridge = bridge(dir, store, (CONFIG, RULES));
    let all = Pauses::new(store.clone());
    let pauses = all.active();
    let shown: Vec<(u64, &str, &str)> =
        pauses.iter().map(|pause| (pause.id, pause.author.as_str(), pause.reason.as_str())).collect();
    assert_eq!(shown, [(1, "ana", "the database moves"), (2, "ben", "no scale-in this month")]);
    assert_eq!(pauses[1].until.expect("an end").to_string(), "2026-12-29T13:44:39.788693472Z");

    // The episode has been open since before the migration, and owes what event 1 has added.
    let alert = json!({
        "status": "resolved", "annotations": {}, "fingerprint": "a5b2c13339fbed74",
        "labels": { "alertname": "Pending", "group": "workers-0" },
        "startsAt": "2026-11-29T13:44:36.311822Z", "endsAt": "2026-11-29T13:55:00Z",
    });
    let body = json!({ "version": "4", "alerts": [alert], "truncatedAlerts": 0 });
    let notification = testing::parse_notification(body.to_string().as_bytes()).expect("a notification");
    let source = bridge.source("prod-eu").expect("a source");
    let summary = bridge.ingest(&source, notification, None).await.expect("a decision");
    assert_eq!(summary.verdicts.get(&Verdict::Emitted), Some(&1), "{:?}", summary.verdicts);
    let claimed = store.claim(&name("journal"), 10).await.expect("a claim");
    assert_eq!(claimed.len(), 1);
    assert!(!claimed[0].nothing_to_compensate);
    let event: Value = serde_json::from_str(&claimed[0].body).expect("an event");
    assert_eq!((&event["data"]["action"], &event["data"]["rule"]), (&json!("scale_in"), &json!("pending")));
    assert_eq!(event["subject"], "eks/nodegroup/-/-/prod-eu/-/workers-0");
    assert_eq!(event["data"]["reverts"].as_array().map(Vec::len), Some(1), "{event}");
    assert_eq!(store.tally().open_episodes[&name("pending")], 12);

    // An action that waits for a pause is emitted when the pause ends.
    let ana = Initiator::from_request(Some("ana"), None).expect("an initiator");
    all.resume(ana, 1).await.expect("an answer").expect("a pause");
    bridge.process_due().await.expect("decided");
    let claimed = store.claim(&name("journal"), 10).await.expect("a claim");
    let subjects: Vec<String> = claimed
        .iter()
        .map(|one| serde_json::from_str::<Value>(&one.body).expect("an event")["subject"].to_string())
        .collect();
    assert!(subjects.contains(&"\"eks/nodegroup/-/-/prod-eu/-/workers-99\"".to_owned()), "{subjects:?}");
}

const DECREASING_CONFIG: &str = "
sources: { prod-us: { late_window: 0s } }
destinations:
  journal: { file: { path: journal.jsonl } }
  slow: { file: { path: slow.jsonl } }
rules: [rules.yaml]
";
const DECREASING_RULES: &str = r#"
defaults: { expires_after: 24h }
rules:
  - name: shrink
    send_to: [slow]
    matchers: [alertname = Idle]
    target: { platform: custom, kind: pool, name: "{{ labels.group }}" }
    on_firing: { scale_in: { by: 1 }, stabilization_window: 0s }
  - name: unreachable
    send_to: [journal]
    matchers: [alertname = Unreachable]
    target: { platform: custom, kind: pool, name: "{{ labels.group }}" }
    on_firing: { scale_out: { by: 1 } }
    on_resolved: { scale_in: { by: 1 }, stabilization_window: 0s }
"#;
/// The `on_firing` decrease of `pool2` in the fixture, which is not delivered.
const IDLE: &str = "25506bd3859939c612b696d9c1064ba8";
/// Adds an increase of `pool` that was delivered and the `on_resolved` decrease for it, which is not: copies of events of
/// another target. Nothing is paused.
const ADD_UNDELIVERED: &str = r#"
UPDATE controls SET body = json_set(body, '$.pauses', json('{}'));
INSERT INTO events (id, target, route, at, body, shrinks, undoes)
SELECT 28, 16, 1, at, replace(replace(replace(replace(body, '61be5640', '11111111'), '"resolved"', '"firing"'),
                                      'scale_in', 'scale_out'), '"value":-1', '"value":1'), 0, NULL
FROM events WHERE id = 19;
INSERT INTO events (id, target, route, at, body, shrinks, undoes)
SELECT 29, 16, 1, at + 1, replace(body, '61be5640', '22222222'), 1,
       x'f300f4fe3315bc94000000000000001c0000000000000001' FROM events WHERE id = 19;
UPDATE destinations SET cursor = 28, given = given + 2, passed = passed + 1 WHERE name = 'journal';
"#;
const UNREACHABLE: &str = "22222222f25d51aeab02ef81be5fed71";

#[tokio::test(flavor = "multi_thread")]
async fn decreases_that_were_not_delivered_at_the_upgrade_are_taken_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let database = Connection::open(dir.path().join("bridge.db")).expect("a database");
    database.execute_batch(SCHEMA_4).expect("the fixture");
    database.execute_batch(ADD_UNDELIVERED).expect("more events");
    drop(database);
    let store = open(dir.path(), OPENED_MS + 600_000);
    let bridge = bridge(dir.path(), &store, (DECREASING_CONFIG, DECREASING_RULES));
    bridge.process_due().await.expect("decided");
    let shown = async |id: &str| {
        let event = store.event(id).await.expect("an answer").expect("an event");
        let one = &event.deliveries[0];
        format!("{} {}", one.destination, one.state.as_str())
    };
    assert_eq!(shown(IDLE).await, "slow pending");
    assert_eq!(shown(UNREACHABLE).await, "journal pending");
    assert_eq!(store.tally().owed.get(&name("unreachable")), Some(&1));

    // Its own rule and an increase of another rule.
    for group in ["pool", "pool2"] {
        let alert = json!({
            "status": "firing", "annotations": {}, "fingerprint": group,
            "labels": { "alertname": "Unreachable", "group": group },
            "startsAt": "2026-11-29T13:54:00Z",
        });
        notify(&bridge, "prod-us", alert).await;
    }
    assert_eq!(shown(IDLE).await, "slow superseded");
    assert_eq!(shown(UNREACHABLE).await, "journal superseded");
    assert_eq!(store.tally().owed.get(&name("unreachable")), Some(&3), "what is owed stays");
    store.close().await;
}
