//! Rolling upgrades: this version beside those that know one or two schema steps more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use super::*;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::store::postgres::Postgres;
use crate::store::tests::postgres::Database;
use crate::store::{Changes, Keys, Outage, Store};

/// Steps that add what this version does not need.
const NEXT: &str = "ALTER TABLE targets ADD COLUMN note text; CREATE TABLE notes (id bigint PRIMARY KEY)";
const AFTER_NEXT: &str = "ALTER TABLE events ADD COLUMN note text";

/// The pool of a process of another version.
fn pool(database: &Database) -> Pool {
    Pool::new(database.settings().connector, 2, fastrand::i64(1..)).unwrap()
}

/// Starts as the version with these steps after those of this version does.
async fn start_newer(database: &Database, steps: &[&'static str]) {
    let steps: Vec<&str> = MIGRATIONS.iter().chain(steps).copied().collect();
    migrate_to(&pool(database), &steps).await.unwrap();
}

fn step(database: &Database) -> i32 {
    database.execute("SELECT schema_step FROM store").unwrap().parse().unwrap()
}

fn target() -> TargetKey {
    TargetKey::from_stored("eks/nodegroup/-/-/-/-/workers")
}

/// Counts at a target; returns the number.
async fn count(store: &Store) -> Result<u64, Error> {
    let keys = Keys { targets: vec![target()], alerts: Vec::new() };
    let decide = |view: &crate::store::View| {
        let before = view.states.targets.get(&target()).map(|state| TargetState::clone(state));
        let mut state = before.unwrap_or_default();
        state.known_since = state.known_since.or(Some(view.now));
        state.sequence += 1;
        let counted = state.sequence;
        (Changes { states: vec![(target(), state)], ..Changes::default() }, counted)
    };
    store.transact(keys, decide).await
}

/// A replica that decides all the time, and fails the test if it cannot.
struct Working {
    counted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Working {
    fn start(store: &Store) -> Self {
        let (counted, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (store, counted, stop) = (store.clone(), counted.clone(), stop.clone());
            async move {
                while !stop.load(Ordering::Relaxed) {
                    counted.store(count(&store).await.unwrap(), Ordering::Relaxed);
                }
            }
        });
        Self { counted, stop, task }
    }

    /// It has decided some more.
    async fn goes_on(&self) {
        let before = self.counted.load(Ordering::Relaxed);
        until("decisions", || self.counted.load(Ordering::Relaxed) > before + 10 || self.task.is_finished())
            .await;
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.counted.load(Ordering::Relaxed)
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1200 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("timed out waiting for {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn this_version_runs_on_its_own_step_and_the_next_one_and_on_no_later_one() {
    let database = Database::new();
    let running = database.open(&[]).await;
    let working = Working::start(&running);
    working.goes_on().await;

    start_newer(&database, &[NEXT]).await;
    assert_eq!(step(&database), SCHEMA_STEP + 1);
    working.goes_on().await;
    // Also a rollback: this version is started on the database of the next one, and leaves its step.
    let restarted = database.open(&[]).await;
    assert!(count(&restarted).await.unwrap() > 0);
    assert_eq!(step(&database), SCHEMA_STEP + 1);

    start_newer(&database, &[NEXT, AFTER_NEXT]).await;
    assert_eq!(step(&database), SCHEMA_STEP + 2);
    let error = Postgres::open(database.settings(), &[]).await.err().unwrap();
    let Error::Unusable(text) = error else { panic!("{error}") };
    let (found, usable) = (SCHEMA_STEP + 2, SCHEMA_STEP + 1);
    assert!(text.contains(&format!("schema step {found}, of a newer scalebridge")), "{text}");
    assert!(text.contains(&format!("can use up to step {usable}: start the newer version")), "{text}");
    // Those that run were started before.
    working.goes_on().await;
    let counted = working.end().await;
    assert!(count(&running).await.unwrap() > counted, "nothing was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_migrates_under_a_lock_while_another_one_works() {
    let database = Database::new();
    let running = database.open(&[]).await;
    let working = Working::start(&running);
    // Another process migrates, and has not committed.
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK})")).await.unwrap();
    let starting = tokio::spawn({
        let pools: Vec<Pool> = (0..4).map(|_| pool(&database)).collect();
        async move {
            let steps: Vec<&str> = MIGRATIONS.iter().chain(&[NEXT]).copied().collect();
            join_all(pools.iter().map(|pool| migrate_to(pool, &steps))).await
        }
    });
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    until("four that wait", || database.execute(waiting).unwrap() == "4").await;
    working.goes_on().await;
    assert_eq!((step(&database), starting.is_finished()), (SCHEMA_STEP, false));

    client.batch_execute("COMMIT").await.unwrap();
    for migrated in starting.await.unwrap() {
        migrated.unwrap();
    }
    assert_eq!(step(&database), SCHEMA_STEP + 1, "the step ran once");
    working.goes_on().await;
    working.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_read_what_newer_ones_write_stops_and_does_not_start() {
    let database = Database::new();
    let running = database.open(&[]).await;
    count(&running).await.unwrap();
    start_newer(&database, &[NEXT]).await;
    database.execute(&format!("UPDATE store SET min_step = {}", SCHEMA_STEP + 1));
    let fix = format!("start a version that knows step {}", SCHEMA_STEP + 1);

    until("the outage", || running.outage().is_some()).await;
    let outage = running.outage().unwrap();
    assert!(matches!(&outage, Outage::Outdated(cause) if cause.contains(&fix)), "{outage}");
    let refused = count(&running).await.unwrap_err();
    assert!(matches!(&refused, Error::Unavailable(cause) if cause.contains(&fix)), "{refused}");
    let error = Postgres::open(database.settings(), &[]).await.err().unwrap();
    assert!(matches!(&error, Error::Unusable(cause) if cause.contains(&fix)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_is_seen_by_a_newer_version_before_it_writes_what_older_ones_cannot_read() {
    let database = Database::new();
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK})")).await.unwrap();
    let listed = client.query_one("SELECT count(*) FROM replicas", &[]).await.unwrap();
    assert_eq!(listed.get::<_, i64>(0), 0, "nobody runs");
    let starting = tokio::spawn({
        let settings = database.settings();
        async move { Postgres::open(settings, &[]).await }
    });
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    until("one that waits", || database.execute(waiting).unwrap() == "1").await;
    client.batch_execute(&format!("UPDATE store SET min_step = {}; COMMIT", SCHEMA_STEP + 1)).await.unwrap();
    let error = starting.await.unwrap().err().unwrap();
    assert!(matches!(&error, Error::Unusable(cause) if cause.contains("cannot read")), "{error}");
    assert_eq!(database.execute("SELECT count(*) FROM replicas").unwrap(), "0");
}
