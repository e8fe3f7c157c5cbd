//! Replicas on one database.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::replicas::Heartbeat;
use super::*;
use crate::domain::control::{Controls, GapCause};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;
use crate::store::outbox::Outbox as _;
use crate::store::postgres::{Connector, Postgres, Settings};
use crate::store::states::StateStore as _;
use crate::store::tests::postgres_server::PostgresServer;
use crate::store::{Changes, Keys, Replicas, Store};

/// A database of its own.
struct Database(String);

impl Database {
    async fn create() -> Self {
        let server = PostgresServer::shared();
        Self(server.url(&server.create_database(None)))
    }

    async fn execute(&self, sql: &str) {
        loop {
            let (client, connection) = tokio_postgres::connect(&self.0, NoTls).await.unwrap();
            let connection = tokio::spawn(connection);
            let executed = client.batch_execute(sql).await;
            drop(client);
            connection.await.unwrap().unwrap();
            match executed {
                // With what the tasks of replicas do at the same time.
                Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {}
                executed => return executed.unwrap(),
            }
        }
    }

    async fn open(&self) -> Postgres {
        let connector = Connector::from_url(&self.0).unwrap();
        let settings = Settings { connector, max_connections: 4, notify: true };
        Postgres::open(settings, &[]).await.unwrap()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..600 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("timed out waiting for {what}");
}

fn controls(version: u64, sources: &[&str]) -> Controls {
    let names: Vec<Name> = sources.iter().map(|name| Name::new(name).unwrap()).collect();
    let mut controls = Controls::default();
    controls.set_receiving(names.iter());
    controls.version = version;
    controls
}

#[tokio::test]
async fn a_replica_that_starts_beside_a_ready_one_has_missed_nothing() {
    let database = Database::create().await;
    let first = database.open().await;
    assert_eq!(first.0.fleet.last_stored(), None, "a new store");
    first.set_ready(true);
    let second = loop {
        let second = database.open().await;
        if second.0.fleet.last_stored().is_none() {
            break second;
        }
        second.0.pool.close();
    };
    until("the other replica", || second.others_are_ready()).await;
    assert!(!first.others_are_ready());
    close(&first.0).await;
    first.0.pool.close();
    until("its end", || !second.others_are_ready()).await;
    let third = database.open().await;
    assert!(third.0.fleet.last_stored().is_some(), "nobody is ready");
}

#[tokio::test]
async fn controls_counts_and_what_is_due_reach_every_replica() {
    let database = Database::create().await;
    let replica = database.open().await;
    let body = serde_json::to_string(&controls(7, &["prod"])).unwrap();
    let sql = format!(
        "UPDATE controls SET version = 7, body = '{body}';
         INSERT INTO targets (hash, key, due, tally, state) VALUES
             ('a', 'a', 17, 'o nodes;d paused', '{{}}'), ('b', 'b', NULL, 'o nodes', '{{}}')"
    );
    database.execute(&sql).await;
    let mut due = replica.0.fleet.next_due();
    until("the controls", || replica.controls().version == 7).await;
    assert_eq!(due.borrow_and_update().map(Time::as_nanos), Some(17));
    let nodes = Name::new("nodes").unwrap();
    until("the counts", || replica.0.fleet.snapshot().tally.open_episodes.get(&nodes) == Some(&2)).await;
    assert_eq!(replica.0.fleet.snapshot().tally.deferred.get(&Verdict::Paused), Some(&1));
}

#[tokio::test]
async fn a_process_that_was_not_heard_for_long_decides_nothing_before_its_gap_is_recorded() {
    let database = Database::create().await;
    let store = database.open().await;
    let body = serde_json::to_string(&controls(7, &["prod"])).unwrap();
    database.execute(&format!("UPDATE controls SET version = 7, body = '{body}'")).await;
    until("the controls", || store.controls().version == 7).await;
    store.set_ready(true);
    store.announce_ready().await;
    let decide = || {
        let store = Store::Postgres(store.clone());
        async move { store.transact(Keys::default(), |view| (Changes::default(), view.controls.clone())).await }
    };
    assert_eq!(decide().await.unwrap().reception_gaps(&Name::new("prod").unwrap()), None);
    // The task gives no sign of life meanwhile.
    let row = store.0.fleet.row.lock().await;
    database.execute("UPDATE replicas SET seen = now_ns() - 10000000000").await;
    store.0.fleet.forget_beat();
    assert!(matches!(decide().await, Err(Error::Unavailable(text)) if text.contains("sign of life")));
    drop(row);
    let gaps = *decide().await.unwrap().reception_gaps(&Name::new("prod").unwrap()).expect("a gap");
    assert_eq!(gaps.last.cause, GapCause::Store);
    assert!(gaps.last.until.since(gaps.last.from) > Duration::from_secs(9), "{gaps:?}");
}

#[tokio::test]
async fn a_database_that_came_back_behind_is_noticed_by_every_replica_once() {
    let database = Database::create().await;
    let [first, second] = [database.open().await, database.open().await];
    let body = serde_json::to_string(&controls(7, &["prod"])).unwrap();
    database.execute(&format!("UPDATE controls SET version = 7, body = '{body}'")).await;
    for store in [&first, &second] {
        until("the controls", || store.controls().version == 7).await;
    }
    // Apart from the task, which has its own row of what it knows.
    let mut replicas = [Heartbeat::default(), Heartbeat::default()];
    for (replica, store) in replicas.iter_mut().zip([&first, &second]) {
        replica.adopt_row(&store.0).await;
        replica.beat(&store.0).await.unwrap();
        assert_eq!((store.rewinds().count, store.0.fleet.incarnation()), (0, 0));
    }
    // A failover that has lost nothing.
    replicas[0].set_server("another 00000001");
    replicas[0].beat(&first.0).await.unwrap();
    assert_eq!((first.rewinds().count, first.0.fleet.incarnation()), (0, 0));
    // One that has.
    database.execute("DELETE FROM commits").await;
    for replica in &mut replicas {
        replica.set_server("another 00000001");
    }
    database.execute("UPDATE store SET server = 'another 00000001'").await;
    replicas[0].beat(&first.0).await.unwrap();
    replicas[1].beat(&second.0).await.unwrap();
    let incarnation = first.0.fleet.incarnation();
    assert!(incarnation != 0, "new ids");
    assert_eq!(second.0.fleet.incarnation(), incarnation, "one for all");
    // The task of a replica may have been first.
    let rewinds = [first.rewinds(), second.rewinds()];
    assert_eq!(rewinds.iter().map(|rewinds| rewinds.count).sum::<u64>(), 1, "counted once in the fleet");
    let last = rewinds.iter().find_map(|rewinds| rewinds.last);
    assert_eq!(last.map(|gap| gap.cause), Some(GapCause::DataLoss));
    let source = Name::new("prod").unwrap();
    for store in [&first, &second] {
        until("the gap", || store.controls().reception_gaps(&source).is_some()).await;
        let gaps = *store.controls().reception_gaps(&source).unwrap();
        assert_eq!(gaps.last.cause, GapCause::DataLoss);
        assert!(gaps.last.from < gaps.last.until, "{gaps:?}");
    }
}

#[tokio::test]
async fn the_replicas_are_listed_with_their_state_and_their_clocks() {
    let database = Database::create().await;
    let [first, second, lost] = [database.open().await, database.open().await, database.open().await];
    first.set_ready(true);
    let measured =
        |read: Replicas| read.all.len() == 3 && read.all.iter().all(|it| it.clock_offset.is_some());
    until("signs of life", || first.replicas().is_some_and(measured)).await;
    // Killed.
    lost.0.pool.close();
    let own = lost.0.replica;
    let gone = |read: Replicas| read.all.iter().any(|it| it.id == own && !it.is_alive);
    until("the loss", || first.replicas().is_some_and(gone)).await;
    let read = first.replicas().unwrap();
    assert_eq!(read.schema_step, 1);
    let states: BTreeMap<i64, (bool, bool, bool)> =
        read.all.iter().map(|it| (it.id, (it.is_alive, it.is_ready, it.is_own))).collect();
    let expected = [
        (first.0.replica, (true, true, true)),
        (second.0.replica, (true, false, false)),
        (own, (false, false, false)),
    ];
    assert_eq!(states, expected.into());
    for replica in &read.all {
        assert_eq!(replica.version, env!("CARGO_PKG_VERSION"));
        // The server is on this machine.
        assert!(replica.clock_offset.is_some_and(|offset| offset.abs() < 5_000_000_000), "{replica:?}");
        assert!(replica.started <= replica.seen);
    }
    // One that was stopped in order is not missed.
    close(&second.0).await;
    second.0.pool.close();
    until("its end", || {
        first.replicas().is_some_and(|read| read.all.iter().all(|it| it.id != second.0.replica))
    })
    .await;
}

#[tokio::test]
async fn a_restored_database_is_noticed_by_who_runs_and_by_who_starts() {
    let database = Database::create().await;
    let replica = database.open().await;
    let body = serde_json::to_string(&controls(7, &["prod"])).unwrap();
    database.execute(&format!("UPDATE controls SET version = 7, body = '{body}'")).await;
    until("the controls", || replica.controls().version == 7).await;
    // As a dump that was restored into this database: the same rows in new tables, without the last transactions.
    let restore =
        "BEGIN; CREATE TABLE copy AS SELECT * FROM store; DROP TABLE store; ALTER TABLE copy RENAME TO store;
        DELETE FROM commits; DELETE FROM replicas; COMMIT";
    database.execute(restore).await;
    until("the loss", || replica.rewinds().count == 1).await;
    let seen = replica.0.fleet.incarnation();
    assert!(seen != 0, "new ids");
    let source = Name::new("prod").unwrap();
    until("the gap", || replica.controls().reception_gaps(&source).is_some()).await;
    assert_eq!(replica.controls().reception_gaps(&source).unwrap().last.cause, GapCause::DataLoss);
    close(&replica.0).await;
    replica.0.pool.close();

    database.execute(restore).await;
    let next = database.open().await;
    assert!(![0, seen].contains(&next.0.fleet.incarnation()), "new ids, although nobody was there");
    close(&next.0).await;
    next.0.pool.close();
    let incarnation = next.0.fleet.incarnation();
    let after = database.open().await;
    assert_eq!(after.0.fleet.incarnation(), incarnation, "a restart is no restore");
}

/// Whether decisions of a replica keep what it does not know.
async fn keeps_unknown(store: &Postgres) -> bool {
    let store = Store::Postgres(store.clone());
    let read = store.transact(Keys::default(), |view| (Changes::default(), view.has_newer_configuration));
    read.await.unwrap()
}

#[tokio::test]
async fn a_replica_without_a_change_keeps_what_it_does_not_know_and_one_with_it_does_not() {
    const HOUR: &str = "3600000000000";
    let database = Database::create().await;
    let (old, new) = (database.open().await, database.open().await);
    for store in [&old, &new] {
        store.adopt_configuration(1).await.unwrap();
    }
    assert_eq!([keeps_unknown(&old).await, keeps_unknown(&new).await], [false, false]);
    new.adopt_configuration(2).await.unwrap();
    assert_eq!([keeps_unknown(&old).await, keeps_unknown(&new).await], [true, false]);
    // One that starts during the rollout with the former configuration has no newer one.
    let restarted = database.open().await;
    assert!(keeps_unknown(&restarted).await, "its configuration is not known yet");
    restarted.adopt_configuration(1).await.unwrap();
    assert_eq!([keeps_unknown(&restarted).await, keeps_unknown(&new).await], [true, false]);
    // The only replica that has a destination stops.
    let queue = Name::new("queue").unwrap();
    new.add_destinations(vec![queue.clone()]).await.unwrap();
    database
        .execute(
            "INSERT INTO deliveries (destination, event, target, state, due, age_from)
             SELECT id, 1, 1, 0, 1, 1 FROM destinations",
        )
        .await;
    new.close().await;
    assert_eq!(old.orphaned_destinations().await.unwrap(), [], "it may come back");
    database.execute(&format!("UPDATE store SET configuration_seen = configuration_seen - {HOUR}")).await;
    assert_eq!(old.orphaned_destinations().await.unwrap(), [queue]);
    assert!(!keeps_unknown(&old).await, "it has not come back");
}
