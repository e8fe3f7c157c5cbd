use super::*;
use crate::ledger::conformance;
use crate::plan::test_support::{LATER, NOW, event, id};

async fn open_at(path: &Path) -> SqliteLedger {
    SqliteLedger::open(path.to_owned(), || NOW).await.unwrap()
}

async fn error_of(path: &Path) -> String {
    SqliteLedger::open(path.to_owned(), || NOW).await.map(|_| ()).unwrap_err().0
}

#[tokio::test]
async fn does_what_every_ledger_does() {
    let directory = tempfile::tempdir().unwrap();
    conformance::check(&open_at(&directory.path().join("scaler.db")).await).await;
}

#[tokio::test]
async fn keeps_everything_for_the_next_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scaler.db");
    let event = event(1, 1, "+3");
    let target = TargetItem { version: 1, sequence: 1, ..TargetItem::default() };
    let applied = AppliedItem::new(&event.id, &event.subject, (2, 5), LATER);
    {
        let ledger = open_at(&path).await;
        ledger.write_target(&event.subject, 0, &target).await.unwrap();
        ledger.write_applied(&event.subject, &applied).await.unwrap();
    }
    let entries = open_at(&path).await.read(&event).await.unwrap();
    assert_eq!(entries.target, target);
    assert_eq!(entries.applied.get(&event.id), Some(&applied));
}

/// Two processes have a connection each.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_writers_of_a_version_one_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scaler.db");
    for version in 0..20 {
        let item = TargetItem { version: version + 1, ..TargetItem::default() };
        let writers: Vec<_> = [open_at(&path).await, open_at(&path).await]
            .into_iter()
            .cycle()
            .take(8)
            .map(|ledger| {
                let item = item.clone();
                tokio::spawn(async move { ledger.write_target("subject", version, &item).await.unwrap() })
            })
            .collect();
        let mut written = 0;
        for writer in writers {
            written += usize::from(writer.await.unwrap() == Written::Yes);
        }
        assert_eq!(written, 1, "version {version}");
    }
}

#[tokio::test]
async fn deletes_decreases_a_week_after_the_events_expired_and_keeps_increases() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scaler.db");
    let ledger = open_at(&path).await;
    let of = |number: u32, expirytime| AppliedItem::new(&id(number), "subject", (2, 1), expirytime);
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    for number in 1..=30 {
        ledger
            .write_applied("subject", &of(number, NOW.after(Duration::from_secs(number.into()))))
            .await
            .unwrap();
    }
    let increase = AppliedItem { from: 1, to: 2, ..of(31, NOW) };
    ledger.write_applied("subject", &increase).await.unwrap();
    let count = |path: PathBuf| {
        let count = "SELECT count(*) FROM applied";
        Connection::open(path).unwrap().query_row(count, [], |row| row.get::<_, usize>(0)).unwrap()
    };
    assert_eq!(count(path.clone()), 31);
    // 25 of them are outdated by then; each write deletes some.
    let after = SqliteLedger { now: || NOW.after(Duration::from_secs(7 * 24 * 60 * 60 + 25)), ..ledger };
    let last = of(100, NOW.after(week));
    for _ in 0..3 {
        after.write_applied("subject", &last).await.unwrap();
    }
    let events: Vec<_> = (1..=31).map(id).collect();
    let asked = ScalingEvent { reverts: events, ..event(100, 1, "-3") };
    let entries = after.read(&asked).await.unwrap();
    let kept: Vec<_> = entries.applied.into_keys().collect();
    assert_eq!(kept, [25, 26, 27, 28, 29, 30, 31, 100].map(id));
}

#[tokio::test]
async fn refuses_files_that_are_not_ledgers_of_this_version() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE orders (id INTEGER)").unwrap();
    let error = error_of(&other).await;
    assert!(error.ends_with("the file is a database of another program: name another file"), "{error}");
    assert!(!other.with_extension("db-wal").exists(), "nothing was written beside it");

    let newer = directory.path().join("newer.db");
    drop(open_at(&newer).await);
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let error = error_of(&newer).await;
    assert!(error.ends_with("the schema has version 2, this scaler knows 1: use a newer scaler"), "{error}");

    let text = directory.path().join("notes.txt");
    std::fs::write(
        &text,
        "buy milk, and something longer than the header of a database file has, which is 100",
    )
    .unwrap();
    let error = error_of(&text).await;
    assert!(error.ends_with("file is not a database"), "{error}");
    let missing = directory.path().join("missing/scaler.db");
    let error = error_of(&missing).await;
    assert!(error.contains("missing/scaler.db") && error.contains("unable to open"), "{error}");
}

#[tokio::test]
async fn commits_are_synced_and_concurrent_readers_do_not_wait() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open_at(&directory.path().join("scaler.db")).await;
    let connection = ledger.connection.lock();
    let pragma =
        |name| connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
    assert_eq!(pragma("journal_mode").unwrap(), rusqlite::types::Value::Text("wal".to_owned()));
    assert_eq!(pragma("synchronous").unwrap(), rusqlite::types::Value::Integer(2));
}

#[tokio::test]
async fn a_file_that_was_replaced_or_deleted_is_not_used_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scaler.db");
    let ledger = open_at(&path).await;
    let event = event(1, 1, "+3");
    let item = TargetItem { version: 1, ..TargetItem::default() };
    let errors = async || {
        let write = ledger.write_target(&event.subject, 0, &item).await.map(drop);
        [ledger.read_freeze().await.map(drop), ledger.read(&event).await.map(drop), write]
    };
    let aside = directory.path().join("aside.db");
    std::fs::rename(&path, &aside).unwrap();
    let expected = Err(LedgerError(format!("{}: {REPLACED}", path.display())));
    assert_eq!(errors().await, [expected.clone(), expected.clone(), expected.clone()], "nothing is there");
    std::fs::write(&path, "").unwrap();
    assert_eq!(errors().await, [expected.clone(), expected.clone(), expected], "another one is there");
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(errors().await, [Ok(()), Ok(()), Ok(())], "the old one is back");
}
