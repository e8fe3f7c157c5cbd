//! Queries: records in both orders, events with their deliveries, states.

use std::ops::Bound;

use super::*;
use crate::store::{DeliveryQuery, DeliveryState, EventDeliveries, Record, RecordCursor, RecordQuery};

async fn record(store: &Store, target: &str, body: &str) {
    let (target, body) = (key(target), body.to_owned());
    let decide = move |_: &View| {
        let record = Some(Record { targets: vec![target.clone()], body: body.clone() });
        (Changes { record, ..Changes::default() }, ())
    };
    store.transact(Keys::default(), decide).await.unwrap();
}

/// The numbers that are the bodies of records.
fn numbers(records: &crate::store::Records) -> Vec<i64> {
    records.records.iter().map(|record| record.body.parse().unwrap()).collect()
}

/// The positions of all records, oldest first.
async fn cursors(store: &Store) -> Vec<RecordCursor> {
    let all = RecordQuery { newest_first: false, max: usize::MAX, ..RecordQuery::default() };
    store.records(all).await.unwrap().records.iter().map(|record| record.cursor).collect()
}

#[tokio::test]
async fn records_are_found_by_id_target_and_order_and_a_page_says_if_there_are_more() {
    for harness in StoreHarness::all().await {
        let store = &harness.store;
        for (target, body) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4"), ("b", "5")] {
            record(store, target, body).await;
        }
        let all = store.records(RecordQuery::default()).await.unwrap();
        assert_eq!((numbers(&all), all.has_more), (vec![5, 4, 3, 2, 1], false));
        assert_eq!(all.records[4].body, "1");
        let first = store
            .records(RecordQuery { newest_first: false, max: 2, ..RecordQuery::default() })
            .await
            .unwrap();
        assert_eq!((numbers(&first), first.has_more), (vec![1, 2], true));
        let exact = store.records(RecordQuery { max: 5, ..RecordQuery::default() }).await.unwrap();
        assert_eq!((exact.records.len(), exact.has_more), (5, false), "a full last page has no next one");
        let cursors = cursors(store).await;
        let at = |number: usize| cursors[number - 1];
        let between = RecordQuery {
            above: Bound::Excluded(at(1)),
            below: Bound::Included(at(4)),
            ..RecordQuery::default()
        };
        assert_eq!(numbers(&store.records(between).await.unwrap()), [4, 3, 2]);
        let of_a = RecordQuery { target: Some(key("a")), ..RecordQuery::default() };
        assert_eq!(numbers(&store.records(of_a.clone()).await.unwrap()), [4, 3, 1]);
        let one = store.records(RecordQuery { max: 1, below: Bound::Excluded(at(4)), ..of_a }).await.unwrap();
        assert_eq!((numbers(&one), one.has_more), (vec![3], true));
        let none = RecordQuery { target: Some(key("never-heard-of")), ..RecordQuery::default() };
        assert!(numbers(&store.records(none).await.unwrap()).is_empty());
        let later =
            RecordQuery { from: store.now().after(Duration::from_secs(60)), ..RecordQuery::default() };
        assert!(numbers(&store.records(later).await.unwrap()).is_empty());
        let until_now = RecordQuery { to: store.now(), from: Time::from_millis(0), ..RecordQuery::default() };
        assert_eq!(store.records(until_now).await.unwrap().records.len(), 5);
    }
}

/// A client that follows decisions continues after the last id that it has seen, also across a restart.
#[tokio::test]
async fn a_record_id_is_never_reused_also_when_all_before_it_are_past_their_retention() {
    for mut harness in StoreHarness::durable().await {
        let mut last = RecordCursor::BEFORE_ALL;
        for round in 0..3 {
            for body in ["1", "2", "3"] {
                record(&harness.store, "a", body).await;
            }
            let query = RecordQuery { above: Bound::Excluded(last), ..RecordQuery::default() };
            let found = harness.store.records(query).await.unwrap().records;
            assert_eq!(found.len(), 3, "round {round}: {found:?} behind {last}");
            last = found[0].cursor;
            harness.prune().await;
            let history = harness.table("history", "record_targets");
            assert_eq!((harness.count("records"), harness.count(history)), (1, 1), "the newest one stays");
            harness.restart().await;
        }
    }
}

/// The restored database is on a server that counts its transactions from the beginning.
#[tokio::test]
async fn record_ids_go_on_after_a_dump_was_restored() {
    let mut harness = StoreHarness::postgres().await;
    for body in ["1", "2"] {
        record(&harness.store, "a", body).await;
    }
    harness.execute(
        "UPDATE records SET id = id + (1::bigint << 50); UPDATE record_targets SET record = record + (1::bigint << 50)",
    );
    for restarts in 0..2 {
        harness.restart().await;
        record(&harness.store, "a", &(3 + restarts).to_string()).await;
    }
    for target in [None, Some(key("a"))] {
        let found = harness.store.records(RecordQuery { target, ..RecordQuery::default() }).await.unwrap();
        assert_eq!(numbers(&found), [4, 3, 2, 1]);
    }
}

/// Readers that follow the records continue after the last one that they have seen.
#[tokio::test]
async fn a_reader_that_follows_skips_no_record_that_is_committed_late() {
    let harness = StoreHarness::postgres().await;
    let database = harness.postgres.as_ref().unwrap();
    let (mut late, connection) = database.config().connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let earlier = late.transaction().await.unwrap();
    let insert = "INSERT INTO records (id, at, ahead, body) SELECT first_position() + 1, now_ns(), 0, '1'";
    earlier.execute(insert, &[]).await.unwrap();
    record(&harness.store, "a", "2").await;
    let follow = async |above| {
        let query = RecordQuery { above, is_final: true, newest_first: false, ..RecordQuery::default() };
        harness.store.records(query).await.unwrap()
    };
    assert_eq!(numbers(&follow(Bound::Unbounded).await), [0; 0], "one before it is not committed");
    assert_eq!(numbers(&harness.store.records(RecordQuery::default()).await.unwrap()), [2]);
    earlier.commit().await.unwrap();
    // Transactions of other tests on this server can delay it.
    let mut found = Vec::new();
    while found.len() < 2 {
        found = numbers(&follow(Bound::Unbounded).await);
        tokio::task::yield_now().await;
    }
    assert_eq!(found, [1, 2]);
    drop((late, connection));
}

/// The wall clock may have any value after a restart.
#[tokio::test]
async fn time_goes_on_where_it_was_also_when_all_is_past_its_retention() {
    let harness = StoreHarness::sqlite();
    record(&harness.store, "a", "1").await;
    harness.prune().await;
    let before = harness.store.now();
    harness.store.close().await;
    let a_day_back: crate::store::WallClock =
        Arc::new(|| Time::from_nanos(now().as_nanos() - 24 * 3_600_000_000_000));
    let store = Sqlite::open(&harness.dir.path().join("bridge.db"), &destinations(), a_day_back).unwrap();
    let after = Store::Sqlite(store).now();
    // Only the time of the last record is stored, and pruning took a moment.
    assert!(after.after(Duration::from_secs(60)) > before, "{after:?}, and before the restart {before:?}");
}

/// A record that outlives its target must not be attributed to another one.
#[tokio::test]
async fn a_target_id_is_never_reused_also_when_all_are_pruned() {
    for mut harness in StoreHarness::durable().await {
        for target in ["a", "b", "c"] {
            record(&harness.store, target, target).await;
            harness.prune().await;
            let without_state = harness.table("retired_targets", "targets WHERE state IS NULL");
            assert_eq!((harness.count("records"), harness.count(without_state)), (1, 1));
            harness.restart().await;
        }
        for (target, found) in [("c", vec!["again", "c"]), ("a", vec!["again"]), ("d", vec!["again"])] {
            record(&harness.store, target, "again").await;
            let of_it = RecordQuery { target: Some(key(target)), ..RecordQuery::default() };
            let records = harness.store.records(of_it).await.unwrap().records;
            assert_eq!(records.iter().map(|record| &*record.body).collect::<Vec<_>>(), found, "{target}");
        }
    }
}

/// The record of a large notification has a megabyte; a page of them must not exhaust the memory.
#[tokio::test]
async fn long_records_come_in_small_pages() {
    for harness in StoreHarness::durable().await {
        let body = |number: i64| format!("{}{number}", "0".repeat(1 << 20));
        for number in 1..=8 {
            record(&harness.store, "a", &body(number)).await;
        }
        for target in [None, Some(key("a"))] {
            let mut below = Bound::Unbounded;
            let mut found = Vec::new();
            loop {
                let page = harness
                    .store
                    .records(RecordQuery { below, target: target.clone(), ..RecordQuery::default() })
                    .await
                    .unwrap();
                assert!(page.records.len() <= 5, "{}", page.records.len());
                found.extend(numbers(&page));
                if !page.has_more {
                    break;
                }
                below = Bound::Excluded(page.records.last().unwrap().cursor);
            }
            assert_eq!(found, [8, 7, 6, 5, 4, 3, 2, 1]);
        }
    }
}

pub(super) fn event(id: &str, target: &str) -> NewEvent {
    NewEvent {
        target: key(target),
        acting: destinations().into(),
        destinations: destinations().into(),
        may_decrease_capacity: false,
        reverts: Arc::default(),
        episode_phase: None,
        body: format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"x\":1}}").as_str().into(),
    }
}

async fn put(store: &Store, id: &str) {
    put_about(store, id, "a").await;
}

async fn put_about(store: &Store, id: &str, target: &str) {
    let event = event(id, target);
    let decide = move |_: &View| (Changes { events: vec![event.clone()], ..Changes::default() }, ());
    store.transact(Keys::default(), decide).await.unwrap();
}

async fn states(store: &Store, id: &str) -> Vec<DeliveryState> {
    store.event(id).await.unwrap().unwrap().deliveries.iter().map(|delivery| delivery.state).collect()
}

#[tokio::test]
async fn an_event_is_returned_with_the_state_of_each_delivery() {
    use DeliveryState::{Dead, Delivered, Discarded, Pending, Retrying};

    let (first, second) = ("0123456789abcdef0123456789abcdef", "ffffffffffffffffffffffffffffffff");
    for harness in StoreHarness::all().await {
        let store = &harness.store;
        put(store, first).await;
        put(store, second).await;
        assert_eq!(states(store, first).await, [Pending, Pending]);
        let settle = async |destination: &str, settlement: Settlement| {
            let claimed = store.claim(&name(destination), 1).await.unwrap();
            store.settle(&name(destination), vec![(claimed[0].lease, settlement)]).await.unwrap();
        };
        settle("queue", Settlement::Delivered { answer: None }).await;
        settle(
            "journal",
            Settlement::Retry { delay: Duration::ZERO, error: "once".into(), uncertain: false },
        )
        .await;
        assert_eq!(states(store, first).await, [Delivered, Retrying]);
        let stored = store.event(first).await.unwrap().unwrap();
        assert_eq!(stored.deliveries[1].error.as_deref(), Some("once"));
        assert_eq!(stored.deliveries[1].attempts, 1);
        assert_eq!((stored.deliveries[0].attempts, stored.deliveries[0].delivered_at.is_some()), (1, true));
        settle(
            "journal",
            Settlement::Dead {
                error: "given up".into(),
                cause: GiveUp::Rejected,
                called: true,
                uncertain: false,
            },
        )
        .await;
        assert_eq!(states(store, first).await, [Delivered, Dead]);
        assert_eq!(
            states(store, second).await,
            [Pending, Pending],
            "the row of the other event does not apply"
        );
        let dead_letter = store.dead_letters(None, None, 1).await.unwrap().remove(0);
        store.discard(&dead_letter.delivery_id, audit("discard")).await.unwrap();
        let expected =
            if matches!(harness.store, Store::Memory(_)) { DeliveryState::Superseded } else { Discarded };
        assert_eq!(states(store, first).await, [Delivered, expected]);
        for unknown in ["", "x", "'; DROP TABLE events", "00000000000000000000000000000000"] {
            assert_eq!(store.event(unknown).await.unwrap(), None, "{unknown}");
        }
    }
}

#[tokio::test]
async fn undelivered_events_of_a_removed_destination_become_dead_letters() {
    let id = "0123456789abcdef0123456789abcdef";
    for harness in StoreHarness::all().await {
        let store = &harness.store;
        for _ in 0..3 {
            put(store, id).await;
        }
        // When the worker ends, one delivery is backing off.
        let journal = name("journal");
        let claimed = store.claim(&journal, 1).await.unwrap();
        let retry =
            Settlement::Retry { delay: Duration::from_secs(3600), error: "later".into(), uncertain: false };
        store.settle(&journal, vec![(claimed[0].lease, retry)]).await.unwrap();
        store.release_all(&journal).unwrap();
        // One event a target at a time.
        while store.undelivered_at(&journal) > 0 {
            let claimed = store.claim(&journal, 10).await.unwrap();
            assert!(!claimed.is_empty(), "all can be claimed, also the one that is backing off");
            let dead = |claimed: &Claimed| {
                (
                    claimed.lease,
                    Settlement::Dead {
                        error: "gone".into(),
                        cause: GiveUp::Rejected,
                        called: true,
                        uncertain: false,
                    },
                )
            };
            store.settle(&journal, claimed.iter().map(dead).collect()).await.unwrap();
        }
        store.remove_destination(&journal).await.unwrap();
        let dead_letters = store.dead_letters(Some(&journal), None, 10).await.unwrap();
        assert_eq!(
            dead_letters.iter().map(|dead_letter| dead_letter.error.as_str()).collect::<Vec<_>>(),
            ["gone"; 3]
        );
        assert!(store.claim(&journal, 1).await.is_err(), "the destination is removed");
        assert_eq!(store.orphaned_destinations().await.unwrap(), []);
        // Added again, it gets events from then on.
        store.add_destinations(std::slice::from_ref(&journal)).await.unwrap();
        assert_eq!((store.backlog(&journal).dead, store.backlog(&journal).pending), (3, 0));
        put(store, id).await;
        assert_eq!(store.claim(&journal, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn claims_of_a_worker_that_ended_are_released_and_claimed_in_order() {
    let id = "0123456789abcdef0123456789abcdef";
    for harness in StoreHarness::all().await {
        let store = &harness.store;
        put_about(store, id, "a").await;
        put_about(store, id, "b").await;
        let queue = name("queue");
        let first = store.claim(&queue, 10).await.unwrap();
        assert_eq!((first.len(), store.claim(&queue, 10).await.unwrap().len()), (2, 0));
        store.release_claims(&queue).unwrap();
        let again = store.claim(&queue, 10).await.unwrap();
        let seqs = |claimed: &[Claimed]| claimed.iter().map(|one| one.lease.seq()).collect::<Vec<_>>();
        assert_eq!(seqs(&again), seqs(&first));
        let settled = again.iter().map(|one| (one.lease, Settlement::Delivered { answer: None })).collect();
        store.settle(&queue, settled).await.unwrap();
        store.release_claims(&queue).unwrap();
        assert_eq!(store.claim(&queue, 10).await.unwrap().len(), 0, "settled deliveries are not claimed");
    }
}

#[tokio::test]
async fn deliveries_are_listed_newest_first_by_the_time_of_their_events() {
    for mut harness in StoreHarness::all().await {
        for id in ["1", "2", "3"] {
            harness.emit(id, Kind::Out, id, &["queue", "journal"]).await;
        }
        let leases = harness.claim_expecting("queue", &["1", "2", "3"]).await;
        harness.settle("queue", leases[0], Settlement::Delivered { answer: None }).await;
        harness.settle("queue", leases[1], retry_after(3600)).await;
        harness.restart().await;
        let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
        let query = DeliveryQuery { from, to, below: None, max: 2 };
        let first = harness.store.deliveries(query.clone()).await.unwrap();
        let rest = DeliveryQuery { below: first.next, ..query.clone() };
        let rest = harness.store.deliveries(rest).await.unwrap();
        assert_eq!(rest.next, None);
        let events: Vec<_> = first.events.into_iter().chain(rest.events).collect();
        let of_queue = |event: &EventDeliveries| {
            let [queue, journal] = &event.deliveries[..] else { panic!("{event:?}") };
            assert_eq!((queue.destination.as_str(), journal.destination.as_str()), ("queue", "journal"));
            assert_eq!(journal.state, DeliveryState::Pending);
            (queue.state, queue.attempts, queue.delivered_at.is_some())
        };
        let expected = [
            (DeliveryState::Pending, 0, false),
            (DeliveryState::Retrying, 1, false),
            (DeliveryState::Delivered, 1, true),
        ];
        assert_eq!(events.iter().map(of_queue).collect::<Vec<_>>(), expected);

        let at = events[1].emitted_at;
        let one = DeliveryQuery { from: at, to: at, ..query };
        let cursors: Vec<_> =
            harness.store.deliveries(one).await.unwrap().events.iter().map(|event| event.cursor).collect();
        assert!(cursors.contains(&events[1].cursor), "both bounds are inclusive: {cursors:?}");
    }
}
