//! Behaviour of the store when SQLite fails, and after a restart.

use std::path::Path;
use std::sync::atomic::Ordering;

use rusqlite::StatementStatus;
use serde_json::json;

use super::tables::{delivery_status, receipts};
use super::*;
use crate::domain::delivery::GiveUp;
use crate::domain::engine::DeliveryFeedback;
use crate::domain::name::Name;
use crate::store::tests::tracking::tracking;
use crate::store::{Changes, NewEvent};

fn queue() -> Name {
    Name::new("queue").unwrap()
}

fn wall() -> WallClock {
    Arc::new(|| Time::from_millis(1_795_366_500_000))
}

fn open(dir: &Path) -> Sqlite {
    Sqlite::open(&dir.join("bridge.db"), &[queue()], wall()).unwrap()
}

/// Writes one event of this size about a target, and nothing else.
fn event(target: &str, bytes: usize) -> DecideFn {
    let target = TargetKey::from_stored(target);
    let state = crate::domain::state::TargetState {
        last_resolves: std::iter::once(crate::domain::state::LastResolve {
            alert: crate::domain::alert_key::AlertKey {
                source: queue(),
                fingerprint: target.as_str().into(),
            },
            ends_at: Time::from_nanos(0),
            was_open: true,
            closed_at: None,
            until: Time::from_nanos(i64::MAX),
        })
        .collect(),
        ..Default::default()
    };
    // Does not compress.
    let mut random = fastrand::Rng::with_seed(1);
    let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(bytes).collect();
    Box::new(move |_| Changes {
        states: vec![(target.clone(), state.clone())],
        events: vec![NewEvent {
            target: target.clone(),
            acting: [queue()].into(),
            destinations: [queue()].into(),
            may_decrease_capacity: false,
            reverts: Arc::default(),
            episode_phase: None,
            body: noise.as_str().into(),
        }],
        ..Changes::default()
    })
}

fn count(dir: &Path, table: &str) -> i64 {
    let database = Connection::open(dir.join("bridge.db")).unwrap();
    database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

async fn write(store: &Sqlite, target: &str) {
    let keys = Keys { targets: vec![TargetKey::from_stored(target)], alerts: Vec::new() };
    store.transact(keys, event(target, 10)).await.unwrap();
}

async fn claim(store: &Sqlite) -> Vec<Claimed> {
    store.claim(&queue(), 10).await.unwrap()
}

async fn settle(store: &Sqlite, settled: Vec<(Lease, Settlement)>) {
    store.settle(&queue(), settled).await.unwrap();
}

impl Sqlite {
    /// Sets a pragma of the writer's connection.
    pub async fn pragma(&self, name: &'static str, value: i64) {
        let set = |reply| Command::Pragma { name, value, reply };
        self.ask(set).await.unwrap();
    }
}

/// A writer without threads, whose file can have this number of pages.
fn writer(dir: &Path, pages: i64) -> Writer {
    let opened = schema::open(&dir.join("bridge.db"), wall()()).unwrap();
    opened.writer.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    prepare(opened, &[queue()], wall(), mpsc::sync_channel(1).0, Arc::default()).unwrap().writer
}

/// A full disk makes SQLite roll back by itself, in the middle of a batch.
#[test]
fn a_failed_batch_commits_none_of_its_later_commands() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path(), 30);
    let transact = |decide: DecideFn| {
        let (reply, answer) = oneshot::channel();
        (Command::Transact { keys: Keys::default(), decide, reply }, answer)
    };
    let (full, first) = transact(event("full", 1_000_000));
    let (after, second) = transact(event("after", 10));
    writer.process_batch(vec![full, after]);
    assert!(first.blocking_recv().unwrap().is_err());
    assert!(second.blocking_recv().unwrap().is_err());
    assert_eq!((count(dir.path(), "targets"), count(dir.path(), "events")), (0, 0));
    let (later, third) = transact(event("later", 10));
    writer.process_batch(vec![later]);
    assert!(third.blocking_recv().unwrap().is_ok());
    assert_eq!((count(dir.path(), "targets"), count(dir.path(), "events")), (1, 1));
}

#[tokio::test]
async fn claims_are_released_when_the_store_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, "a").await;
    // The lane has one event ready, and the clock says that there are more in the store.
    store.clock.last_event.fetch_add(1, Ordering::AcqRel);
    let database = Connection::open(dir.path().join("bridge.db")).unwrap();
    database.execute_batch("ALTER TABLE routes RENAME TO hidden").unwrap();
    assert!(store.claim(&queue(), 10).await.is_err());
    database.execute_batch("ALTER TABLE hidden RENAME TO routes").unwrap();
    assert_eq!(claim(&store).await.len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_failing_target_does_not_repeat_delivered_events_of_other_targets() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for target in ["a", "a", "b", "c"] {
        write(&store, target).await;
    }
    let claimed = claim(&store).await;
    assert_eq!(claimed.iter().map(|one| one.lease.seq().0).collect::<Vec<_>>(), [1, 3, 4]);
    let retry = Settlement::Retry { delay: Duration::from_secs(60), error: "no".into(), uncertain: false };
    settle(&store, vec![(claimed[0].lease, retry.clone())]).await;
    let delivered = claimed[1..].iter().map(|one| (one.lease, Settlement::Delivered { answer: None }));
    settle(&store, delivered.collect()).await;
    store.close().await;

    store = open(dir.path());
    assert!(claim(&store).await.is_empty(), "b and c were delivered, a waits");
    let backlog = store.stats(&queue()).backlog;
    assert_eq!((backlog.pending, backlog.retrying), (1, 1));
    store.release(&queue(), Retries::DueNow).unwrap();
    let claimed = claim(&store).await;
    settle(&store, vec![(claimed[0].lease, Settlement::Delivered { answer: None })]).await;
    let claimed = claim(&store).await;
    assert_eq!(claimed.iter().map(|one| (one.lease.seq().0, one.attempts)).collect::<Vec<_>>(), [(2, 0)]);
    let lease = claimed[0].lease;
    settle(&store, vec![(lease, Settlement::Delivered { answer: None }), (lease, retry)]).await;
    store.close().await;
    assert_eq!(count(dir.path(), "deliveries"), 0);
}

/// A transaction about the target `a` that tells what it knows about deliveries.
fn asking(writer: &mut Writer, changes: impl Fn() -> Changes + Send + 'static) -> DeliveryFeedback {
    let (reply, answer) = oneshot::channel();
    let (sender, known) = mpsc::channel();
    let decide: DecideFn = Box::new(move |view| {
        sender.send(view.deliveries.clone()).unwrap();
        changes()
    });
    let keys = Keys { targets: vec![TargetKey::from_stored("a")], alerts: Vec::new() };
    writer.process_batch(vec![Command::Transact { keys, decide, reply }]);
    assert!(answer.blocking_recv().unwrap().is_ok());
    known.recv().unwrap()
}

/// An event about the target `a`.
fn readable_event(id: &str) -> NewEvent {
    let body = json!({
        "specversion": "1.0", "id": id, "source": "/scalebridge/prod", "type": "io.scalebridge.scale_out.v1",
        "subject": "a", "sequence": "7", "expirytime": "2027-01-01T00:00:00Z",
        "data": { "rule": "nodes", "phase": "firing", "action": "scale_out", "alerts": [] },
    });
    NewEvent {
        target: TargetKey::from_stored("a"),
        acting: [queue()].into(),
        destinations: [queue()].into(),
        may_decrease_capacity: false,
        reverts: Arc::default(),
        episode_phase: None,
        body: body.to_string().as_str().into(),
    }
}

#[test]
fn a_step_makes_as_many_statements_for_a_thousand_dead_letters_as_for_one() {
    let statements = |count: usize| {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), 100_000);
        writer.outbox.lanes.require(&queue()).unwrap().set_max_backlog(Some(0));
        asking(&mut writer, move || {
            let ids: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            let tracked: Vec<&str> = ids.iter().map(String::as_str).collect();
            Changes {
                states: vec![(TargetKey::from_stored("a"), tracking(&tracked))],
                events: ids.iter().map(|id| readable_event(id)).collect(),
                ..Changes::default()
            }
        });
        let known = asking(&mut writer, Changes::default);
        let deliveries = &known.events[&TargetKey::from_stored("a")];
        assert_eq!(deliveries.values().filter(|one| one.given_up == Some(GiveUp::Rejected)).count(), count);
        let run = |sql| writer.connection.prepare_cached(sql).unwrap().get_status(StatementStatus::Run);
        [delivery_status::SELECT_ROWS, delivery_status::SELECT_EMISSIONS, receipts::SELECT_ALL].map(run)
    };
    assert_eq!(statements(1000), statements(1));
}

/// What the watchdog of the service manager relies on.
#[tokio::test]
async fn a_writer_that_is_stuck_is_busy_until_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, "a").await;
    let (release, stuck) = mpsc::channel::<()>();
    let stuck = Mutex::new(stuck);
    let decide: DecideFn = Box::new(move |_| {
        // Ends, also if the test has failed.
        let _ended = stuck.lock().recv();
        Changes::default()
    });
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.transact(Keys::default(), decide).await }
    });
    // Longer than an idle writer sleeps.
    while store.writer_busy_for() < Duration::from_millis(1500) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(release);
    waiting.await.unwrap().unwrap();
    while store.writer_busy_for() >= Duration::from_millis(1500) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
