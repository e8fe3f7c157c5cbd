//! What a database that several replicas share keeps, and that all of them can delete old rows at the same time.

use super::controls::put;
use super::tracking::{readable, tracking};
use super::*;
use crate::store::Record;

async fn record(store: &Store, target: &str) {
    let target = key(target);
    let decide = move |_: &View| {
        let record = Some(Record { targets: vec![target.clone()], body: "{}".into() });
        (Changes { record, ..Changes::default() }, ())
    };
    store.transact(Keys::default(), decide).await.unwrap();
}

#[tokio::test]
async fn events_that_are_tracked_undelivered_or_dead_letters_stay() {
    let harness = StoreHarness::postgres().await;
    let tracked = readable(event("tracked", Kind::Out, "tracked", &["queue"]));
    harness
        .write(&["tracked"], move |_| Changes {
            states: vec![(key("tracked"), tracking(&["tracked"]))],
            events: vec![tracked.clone()],
            ..Changes::default()
        })
        .await;
    for target in ["delivered", "dead", "retried", "pending"] {
        harness.emit(target, Kind::Note, target, &["queue"]).await;
    }
    for (lease, id) in harness.claim("queue").await {
        let settlement = match id.as_str() {
            "tracked" | "delivered" => Settlement::Delivered { answer: None },
            "dead" => dead(),
            "retried" => retry_after(3600),
            _ => Settlement::NotCalled { delay: HOUR, stands_aside: false },
        };
        harness.settle("queue", lease, settlement).await;
    }
    harness.prune().await;
    let left = "SELECT string_agg(id, ' ' ORDER BY seq) FROM events";
    let left = || harness.postgres.as_ref().unwrap().execute(left).unwrap();
    assert_eq!((left().as_str(), harness.count("deliveries")), ("tracked dead retried pending", 4));
    put(&harness, "tracked", TargetState::default()).await;
    harness.prune().await;
    assert_eq!(left(), "dead retried pending");
}

#[tokio::test]
async fn a_target_of_which_nothing_is_known_stays_as_long_as_something_happens_to_its_events() {
    let harness = StoreHarness::postgres().await;
    for target in ["dead", "pending", "delivered"] {
        harness.emit(target, Kind::Note, target, &["queue"]).await;
        record(&harness.store, target).await;
        put(&harness, target, TargetState::default()).await;
    }
    for (lease, id) in harness.claim("queue").await {
        match id.as_str() {
            "dead" => harness.settle("queue", lease, dead()).await,
            "delivered" => harness.settle("queue", lease, Settlement::Delivered { answer: None }).await,
            _ => {}
        }
    }
    record(&harness.store, "newest").await;
    harness.prune().await;
    let keys = "SELECT string_agg(key, ' ' ORDER BY id) FROM targets";
    assert_eq!(harness.postgres.as_ref().unwrap().execute(keys).unwrap(), "dead pending newest");
    assert_eq!(harness.count("record_targets"), 1);
}

#[tokio::test]
async fn replicas_delete_at_the_same_time_and_skip_what_another_one_has_locked() {
    let harness = StoreHarness::postgres().await;
    let database = harness.postgres.as_ref().unwrap();
    database.execute(
        "INSERT INTO records SELECT n, now_ns() - 1000000000 + n, 0, '{}' FROM generate_series(1, 3000) n;
         INSERT INTO record_targets SELECT 1, n FROM generate_series(1, 3000) n",
    );
    let (mut other, connection) = database.config().connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let lock = other.transaction().await.unwrap();
    lock.execute("SELECT FROM records WHERE id = 7 FOR UPDATE", &[]).await.unwrap();
    let second = database.open(&destinations()).await;
    let prune = async |store: &Store| while store.prune(Duration::ZERO, Duration::ZERO).await.unwrap() {};
    tokio::join!(prune(&harness.store), prune(&second));
    prune(&harness.store).await;
    assert_eq!((harness.count("records"), harness.count("record_targets")), (2, 2), "7 and the newest one");
    lock.commit().await.unwrap();
    prune(&second).await;
    assert_eq!(harness.count("records WHERE id = 3000"), 1);
    assert_eq!(harness.count("records"), 1);
    second.close().await;
    drop((other, connection));
}
