//! Kept notifications: order, paging, limits, and what a restart or a failure leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{StoreHarness, clock, destinations, name};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{
    Changes, Error, KeptNotification, Keys, Memory, NotificationLimits, NotificationQuery, Sqlite, Store,
};

const DAY: Duration = Duration::from_hours(24);
const UNLIMITED: NotificationLimits = NotificationLimits { max_age: DAY, max_bytes: 1 << 30 };

fn notification(source: &str, body: &str, limits: NotificationLimits) -> KeptNotification {
    KeptNotification::new(&name(source), body.as_bytes(), limits).unwrap()
}

/// Text that does not compress, so that its stored form has one byte more.
fn incompressible(bytes: usize, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.alphanumeric()).take(bytes).collect()
}

async fn keep(store: &Store, notification: KeptNotification) -> Result<(), Error> {
    let changes = move || Changes { notification: Some(notification.clone()), ..Changes::default() };
    store.transact(Keys::default(), move |_| (changes(), ())).await
}

fn all() -> NotificationQuery {
    let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
    NotificationQuery { source: None, from, to, after: None, max: 100 }
}

/// By the wall clock, when the last notification of each source was kept.
async fn last_of_sources(store: &Store) -> BTreeMap<Name, Time> {
    let (mut last, mut query) = (BTreeMap::new(), all());
    loop {
        let page = store.notifications(query.clone()).await.unwrap();
        last.extend(page.notifications.into_iter().map(|kept| (kept.source, kept.at.wall)));
        let Some(next) = page.next else { return last };
        query.after = Some(next);
    }
}

async fn kept(store: &Store) -> Vec<String> {
    let page = store.notifications(all()).await.unwrap();
    page.notifications.into_iter().map(|kept| kept.body).collect()
}

#[tokio::test]
async fn when_each_source_was_last_heard_is_known_after_a_restart() {
    for mut harness in StoreHarness::all().await {
        assert_eq!(harness.store.last_kept(), BTreeMap::new(), "nothing was kept before");
        // One that is heard often does not hide the others.
        let sources = ["rare", "other"].into_iter().chain(std::iter::repeat_n("often", 1200));
        let keep = |source| keep(&harness.store, notification(source, "1", UNLIMITED));
        for kept in futures_util::future::join_all(sources.map(keep)).await {
            kept.unwrap();
        }
        let expected = last_of_sources(&harness.store).await;
        assert_eq!(expected.len(), 3);
        harness.restart().await;
        let expected = if harness.is_durable() { expected } else { BTreeMap::new() };
        assert_eq!(harness.store.last_kept(), expected);
    }
}

#[tokio::test]
async fn notifications_are_kept_in_the_order_of_their_commits_and_outlive_a_restart() {
    for mut harness in StoreHarness::all().await {
        let long = format!(r#"{{"alerts":[{}]}}"#, "{\"status\":\"firing\"},".repeat(1000));
        for (source, body) in [("a", "1"), ("b", long.as_str()), ("a", "3")] {
            keep(&harness.store, notification(source, body, UNLIMITED)).await.unwrap();
        }
        harness.restart().await;
        keep(&harness.store, notification("b", "4", UNLIMITED)).await.unwrap();
        assert_eq!(kept(&harness.store).await, ["1", &long, "3", "4"]);

        let of_b = NotificationQuery { source: Some(name("b")), max: 1, ..all() };
        let first = harness.store.notifications(of_b.clone()).await.unwrap();
        assert_eq!(first.notifications[0].body, long);
        let since_kept =
            clock()().since(first.notifications[0].at.wall) + first.notifications[0].at.wall.since(clock()());
        assert!(since_kept < Duration::from_mins(10), "{since_kept:?}");
        let rest = NotificationQuery { after: first.next, ..of_b };
        let rest = harness.store.notifications(rest).await.unwrap();
        assert_eq!((rest.notifications[0].body.as_str(), rest.next), ("4", None));
        assert_eq!(rest.notifications[0].source, name("b"));
    }
}

#[tokio::test]
async fn a_page_ends_where_its_bodies_are_large() {
    for harness in StoreHarness::all().await {
        let large = "x".repeat(5 << 20);
        for _ in 0..3 {
            keep(&harness.store, notification("a", &large, UNLIMITED)).await.unwrap();
        }
        let page = harness.store.notifications(all()).await.unwrap();
        assert_eq!(page.notifications.len(), 2);
        let rest =
            harness.store.notifications(NotificationQuery { after: page.next, ..all() }).await.unwrap();
        assert_eq!((rest.notifications.len(), rest.next), (1, None));
    }
}

#[tokio::test]
async fn a_transaction_that_fails_keeps_nothing() {
    for harness in StoreHarness::durable().await {
        keep(&harness.store, notification("a", "1", UNLIMITED)).await.unwrap();
        harness.break_inserts("notifications", "NEW.source = 'b'");
        keep(&harness.store, notification("b", "2", UNLIMITED)).await.unwrap_err();
        let panics = |_: &crate::store::View| -> (Changes, ()) { panic!("on purpose") };
        harness.store.transact(Keys::default(), panics).await.unwrap_err();
        keep(&harness.store, notification("a", "3", UNLIMITED)).await.unwrap();
        assert_eq!(kept(&harness.store).await, ["1", "3"]);
    }
}

#[tokio::test]
async fn new_notifications_remove_the_oldest_ones_beyond_the_limit_of_bytes() {
    for mut harness in StoreHarness::all().await {
        // Each takes 100 bytes.
        let bodies: Vec<String> = (0..30).map(|seed| incompressible(99, seed)).collect();
        let limits = NotificationLimits { max_bytes: 1000, ..UNLIMITED };
        for body in &bodies[..20] {
            keep(&harness.store, notification("a", body, limits)).await.unwrap();
        }
        assert_eq!(kept(&harness.store).await, bodies[10..20]);
        harness.restart().await;
        for body in &bodies[20..] {
            keep(&harness.store, notification("a", body, limits)).await.unwrap();
        }
        assert_eq!(kept(&harness.store).await, bodies[20..], "the bytes are known after a restart");
        // A lower limit, as after a reload.
        let limits = NotificationLimits { max_bytes: 250, ..UNLIMITED };
        while harness.store.prune_notifications(limits).await.unwrap() {}
        assert_eq!(kept(&harness.store).await, bodies[28..]);
    }
}

#[tokio::test]
async fn none_are_left_when_keeping_is_turned_off() {
    for harness in StoreHarness::all().await {
        keep(&harness.store, notification("a", "1", UNLIMITED)).await.unwrap();
        let off = NotificationLimits { max_age: Duration::ZERO, ..UNLIMITED };
        while harness.store.prune_notifications(off).await.unwrap() {}
        assert!(kept(&harness.store).await.is_empty());
    }
}

#[tokio::test]
async fn notifications_are_removed_at_their_age() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(1_795_366_500_000));
    let clock = |now: &Arc<AtomicI64>| -> crate::store::WallClock {
        let now = now.clone();
        Arc::new(move || Time::from_millis(now.load(Ordering::Relaxed)))
    };
    let open =
        || Store::Sqlite(Sqlite::open(&dir.path().join("bridge.db"), &destinations(), clock(&now)).unwrap());
    let in_memory = Store::Memory(Memory::new(&destinations(), clock(&now)));
    let mut on_disk = open();
    for hour in 0..3 {
        for store in [&in_memory, &on_disk] {
            keep(store, notification("a", &format!("hour {hour}"), UNLIMITED)).await.unwrap();
        }
        now.fetch_add(3_600_000, Ordering::Relaxed);
        // The store's clock takes over the wall clock when it starts.
        on_disk.close().await;
        on_disk = open();
    }
    let limits = NotificationLimits { max_age: Duration::from_mins(150), ..UNLIMITED };
    for store in [in_memory, on_disk] {
        while store.prune_notifications(limits).await.unwrap() {}
        assert_eq!(kept(&store).await, ["hour 1", "hour 2"]);
    }
}

#[tokio::test]
async fn notifications_are_removed_at_their_age_by_the_clock_of_the_server() {
    let harness = StoreHarness::postgres().await;
    let database = harness.postgres.as_ref().unwrap();
    for hour in 0..3 {
        database.set_clock(clock()().after(hour * Duration::from_hours(1)));
        keep(&harness.store, notification("a", &format!("hour {hour}"), UNLIMITED)).await.unwrap();
    }
    database.set_clock(clock()().after(Duration::from_hours(3)));
    let limits = NotificationLimits { max_age: Duration::from_mins(150), ..UNLIMITED };
    while harness.store.prune_notifications(limits).await.unwrap() {}
    assert_eq!(kept(&harness.store).await, ["hour 1", "hour 2"]);
}
