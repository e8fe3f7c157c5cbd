//! Faults: failed writes are reported and rolled back, the store recovers, and damaged files are rejected.

use std::path::PathBuf;

use super::*;
use crate::store::Error;

fn assert_unavailable<T: std::fmt::Debug, E: Into<DeadLetterError>>(result: Result<T, E>) {
    match result.map_err(Into::into) {
        Err(DeadLetterError::Store(Error::Unavailable(_))) => {}
        other => panic!("{:?}", other.map_err(|error| error.to_string())),
    }
}

/// Every write fails as unavailable, and reads succeed.
async fn assert_nothing_is_written(harness: &StoreHarness, lease: Lease, dead_letter: &DeliveryId) {
    let keys = Keys { targets: vec![key("b")], alerts: Vec::new() };
    let emission = event("b", Kind::Note, "lost", &["queue"]);
    assert_unavailable(harness.store.transact(keys, move |_| (emission.clone().changes(), ())).await);
    assert_unavailable(harness.store.settle(&name("queue"), vec![(lease, retry_after(0))]).await);
    assert_unavailable(
        harness
            .store
            .redrive(dead_letter, Redrive { force: true, ..Redrive::default() }, audit("redrive"))
            .await,
    );
    assert_unavailable(harness.store.discard(dead_letter, audit("discard")).await);
    assert_unavailable(harness.store.prune(Duration::ZERO, Duration::ZERO).await);
    assert_eq!(harness.backlog("queue"), (1, 0, 1));
    // Reads succeed.
    harness.claim_expecting("queue", &[]).await;
    assert_eq!(harness.store.dead_letters(None, None, 10).await.unwrap().len(), 1);
}

async fn claimed_event_and_dead_letter(harness: &StoreHarness) -> (Lease, DeliveryId) {
    harness.emit("d", Kind::Note, "dead", &["queue"]).await;
    let dead_letter = harness.claim_one("queue", "dead").await;
    harness.settle("queue", dead_letter.lease, dead()).await;
    harness.emit("a", Kind::Note, "a", &["queue"]).await;
    let lease = harness.claim_one("queue", "a").await.lease;
    (lease, DeliveryId { seq: dead_letter.lease.seq(), destination: name("queue") })
}

async fn assert_writes_again(mut harness: StoreHarness, lease: Lease) {
    harness.settle("queue", lease, Settlement::Delivered { answer: None }).await;
    harness.emit("b", Kind::Note, "b", &["queue"]).await;
    harness.restart().await;
    harness.claim_and_settle("queue", "b", Settlement::Delivered { answer: None }).await;
    assert_eq!(harness.backlog("queue"), (0, 0, 1));
}

#[tokio::test]
async fn a_database_that_another_connection_has_locked_is_waited_for() {
    let harness = StoreHarness::sqlite();
    let (seq, dead_letter) = claimed_event_and_dead_letter(&harness).await;
    let other = harness.database();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_nothing_is_written(&harness, seq, &dead_letter).await;
    other.execute_batch("ROLLBACK").unwrap();
    assert_writes_again(harness, seq).await;
}

#[tokio::test]
async fn a_read_only_store_is_written_to_once_it_is_writable() {
    let harness = StoreHarness::sqlite();
    let (seq, dead_letter) = claimed_event_and_dead_letter(&harness).await;
    let readonly = |on: bool| {
        let Store::Sqlite(store) = &harness.store else { unreachable!("the harness is SQLite") };
        store.pragma("query_only", if on { 1 } else { 0 })
    };
    readonly(true).await;
    assert_nothing_is_written(&harness, seq, &dead_letter).await;
    readonly(false).await;
    assert_writes_again(harness, seq).await;
}

#[tokio::test]
async fn a_full_disk_rejects_writes_that_need_room_and_accepts_the_rest() {
    let harness = StoreHarness::sqlite();
    let (seq, _) = claimed_event_and_dead_letter(&harness).await;
    let Store::Sqlite(store) = &harness.store else { unreachable!("the harness is SQLite") };
    store.pragma("max_page_count", 1).await;
    let large = Settlement::Retry { delay: Duration::ZERO, error: "x".repeat(100_000), uncertain: false };
    assert_unavailable(harness.store.settle(&name("queue"), vec![(seq, large)]).await);
    let keys = Keys { targets: vec![key("b")], alerts: Vec::new() };
    let mut changes = event("b", Kind::Note, "lost", &["queue"]).changes();
    // Incompressible.
    let mut random = fastrand::Rng::with_seed(1);
    let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(100_000).collect();
    changes.events[0].body = noise.into();
    let changes = parking_lot::Mutex::new(Some(changes));
    let decide = move |_: &View| (changes.lock().take().unwrap_or_default(), ());
    assert_unavailable(harness.store.transact(keys, decide).await);
    assert_eq!(harness.backlog("queue"), (1, 0, 1));
    store.pragma("max_page_count", 1_000_000).await;
    assert_writes_again(harness, seq).await;
}

/// A store with a few hundred targets and events, closed.
async fn closed_store() -> (StoreHarness, PathBuf, Vec<u8>) {
    let harness = StoreHarness::sqlite();
    for at in 0..300 {
        harness.emit_firing(&format!("t{at}"), &at.to_string(), &["queue", "journal"]).await;
    }
    harness.store.close().await;
    let path = harness.dir.path().join("bridge.db");
    let bytes = std::fs::read(&path).unwrap();
    (harness, path, bytes)
}

fn open_error(path: &std::path::Path) -> Option<String> {
    let before = std::fs::read(path).unwrap();
    let opened = Sqlite::open(path, &destinations(), clock());
    let after = std::fs::read(path).unwrap();
    match opened {
        Ok(_) => None,
        Err(error) => {
            assert!(before == after, "the file was changed: {error}");
            Some(error.to_string())
        }
    }
}

#[tokio::test]
async fn a_file_with_a_damaged_header_is_rejected_and_not_changed() {
    let (_harness, path, mut bytes) = closed_store().await;
    bytes[..16].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let error = open_error(&path).expect("an error");
    assert!(error.contains("its header is damaged") && error.contains("keep a copy"), "{error}");
}

#[tokio::test]
async fn a_truncated_file_is_rejected() {
    let (_harness, path, bytes) = closed_store().await;
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = open_error(&path).expect("an error");
    assert!(error.contains("is damaged") && error.contains(".recover"), "{error}");
}

/// The delivery worker makes it a dead letter.
#[tokio::test]
async fn a_damaged_event_is_claimed_without_its_text_and_hides_no_other() {
    for damage in ["CAST(x'ff' AS TEXT)", "x'00'", "''"] {
        let mut harness = StoreHarness::sqlite();
        for target in ["a", "b"] {
            harness.emit(target, Kind::In, target, &["queue"]).await;
        }
        harness.store.close().await;
        let update = format!("UPDATE events SET body = {damage} WHERE id = 1");
        assert_eq!(harness.database().execute(&update, []).unwrap(), 1);
        harness.restart().await;
        harness.emit("a", Kind::Note, "next", &["queue"]).await;
        let claimed = harness.store.claim(&name("queue"), 10).await.unwrap();
        let texts: Vec<bool> = claimed.iter().map(|one| one.body.is_empty()).collect();
        assert_eq!(texts, [true, false], "{damage}");
        assert!(claimed[0].body.header().is_err());
        harness.settle("queue", claimed[0].lease, dead()).await;
        harness.claim_expecting("queue", &["next"]).await;
        assert_eq!(harness.store.dead_letters(None, None, 10).await.unwrap().len(), 1);
    }
}

/// The root pages of all tables: every start reads them.
#[tokio::test]
async fn a_damaged_page_is_detected_at_start_if_the_start_reads_it() {
    let (harness, path, bytes) = closed_store().await;
    let roots: Vec<(String, usize)> = {
        let database = harness.database();
        let mut roots = database
            .prepare(
                "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
            )
            .unwrap();
        let roots = roots.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        roots.map(Result::unwrap).collect()
    };
    assert_eq!(roots.len(), 18);
    for (table, page) in roots {
        let mut damaged = bytes.clone();
        damaged[(page - 1) * 8192..][..8192].fill(0xA5);
        std::fs::write(&path, &damaged).unwrap();
        let error = open_error(&path).unwrap_or_else(|| panic!("the damage of {table} was not detected"));
        assert!(error.contains("is damaged") && error.contains("keep a copy"), "{table}: {error}");
    }
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(open_error(&path), None);
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_rejected_and_not_changed() {
    let (harness, path, _) = closed_store().await;
    harness.database().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = open_error(&path).unwrap();
    assert!(error.contains("was written by a newer scalebridge (schema 99"), "{error}");
    assert!(error.contains("start that version, or set `store.sqlite.path` to another file"), "{error}");
    let version = harness.database().pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    assert_eq!(version.unwrap(), 99);
    assert_eq!(harness.count("events"), 300);
}

#[tokio::test]
async fn if_one_destination_cannot_be_added_none_is() {
    let harness = StoreHarness::sqlite();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON destinations WHEN new.name = 'second'
                  BEGIN SELECT raise(ABORT, 'refused'); END";
    harness.database().execute_batch(refuse).unwrap();
    let new = [name("first"), name("second")];
    assert_unavailable(harness.store.add_destinations(&new).await.map_err(DeadLetterError::from));
    for destination in &new {
        harness.store.claim(destination, 1).await.unwrap_err();
    }
    harness.database().execute_batch("DROP TRIGGER refuse").unwrap();
    harness.store.add_destinations(&new).await.unwrap();
    harness.emit("a", Kind::Note, "note", &["first", "second"]).await;
    for destination in ["first", "second"] {
        harness.claim_expecting(destination, &["note"]).await;
    }
}
