//! What people look at: records in both orders, events with their deliveries, states.

use std::ops::Bound;

use super::*;
use crate::store::{DeliveryState, Record, Wanted};

async fn record(store: &Store, target: &str, body: &str) {
    let (target, body) = (key(target), body.to_owned());
    let decide = move |_: &View| {
        let record = Some(Record { targets: vec![target.clone()], body: body.clone() });
        (Changes { record, ..Changes::default() }, ())
    };
    store.transact(Keys::default(), decide).await.unwrap();
}

fn ids(records: &crate::store::Records) -> Vec<i64> {
    records.records.iter().map(|record| record.id).collect()
}

#[tokio::test]
async fn records_are_found_by_number_target_and_order_and_it_is_told_if_there_are_more() {
    for house in House::both() {
        let store = &house.store;
        for (target, body) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4"), ("b", "5")] {
            record(store, target, body).await;
        }
        let all = store.records(Wanted::default()).await.unwrap();
        assert_eq!((ids(&all), all.more), (vec![5, 4, 3, 2, 1], false));
        assert_eq!(all.records[4].body, "1");
        let first = store.records(Wanted { newest_first: false, max: 2, ..Wanted::default() }).await.unwrap();
        assert_eq!((ids(&first), first.more), (vec![1, 2], true));
        let exact = store.records(Wanted { max: 5, ..Wanted::default() }).await.unwrap();
        assert_eq!((exact.records.len(), exact.more), (5, false), "as many as there are is all of them");
        let between = Wanted { above: Bound::Excluded(1), below: Bound::Included(4), ..Wanted::default() };
        assert_eq!(ids(&store.records(between).await.unwrap()), [4, 3, 2]);
        let of_a = Wanted { target: Some(key("a")), ..Wanted::default() };
        assert_eq!(ids(&store.records(of_a.clone()).await.unwrap()), [4, 3, 1]);
        let one = store.records(Wanted { max: 1, below: Bound::Excluded(4), ..of_a }).await.unwrap();
        assert_eq!((ids(&one), one.more), (vec![3], true));
        let none = Wanted { target: Some(key("never-heard-of")), ..Wanted::default() };
        assert!(ids(&store.records(none).await.unwrap()).is_empty());
        let later = Wanted { from: store.now().after(Duration::from_secs(60)), ..Wanted::default() };
        assert!(ids(&store.records(later).await.unwrap()).is_empty());
        let until_now = Wanted { to: store.now(), from: Time::from_millis(0), ..Wanted::default() };
        assert_eq!(store.records(until_now).await.unwrap().records.len(), 5);
    }
}

/// Who follows decisions asks for those behind the last one that he has seen, also over a restart.
#[tokio::test]
async fn a_records_number_never_comes_again_also_when_all_before_it_are_past_their_retention() {
    let mut house = House::sqlite();
    let mut last = 0;
    for round in 0..3 {
        for body in ["1", "2", "3"] {
            record(&house.store, "a", body).await;
        }
        let wanted = Wanted { above: Bound::Excluded(last), ..Wanted::default() };
        let found = ids(&house.store.records(wanted).await.unwrap());
        assert_eq!(found.len(), 3, "round {round}: {found:?} behind {last}");
        last = found[0];
        house.prune().await;
        assert_eq!((house.count("records"), house.count("history")), (1, 1), "the newest one stays");
        house.restart().await;
    }
}

/// The wall clock may stand anywhere after a restart.
#[tokio::test]
async fn time_goes_on_where_it_was_also_when_all_is_past_its_retention() {
    let house = House::sqlite();
    record(&house.store, "a", "1").await;
    house.prune().await;
    let before = house.store.now();
    house.store.close().await;
    let a_day_back: crate::store::WallClock =
        Arc::new(|| Time::from_nanos(now().as_nanos() - 24 * 3_600_000_000_000));
    let store = Sqlite::open(&house.dir.path().join("bridge.db"), &destinations(), a_day_back).unwrap();
    let after = Store::Sqlite(store).now();
    // The last decision's time is what is known: pruning took a moment since.
    assert!(after.after(Duration::from_secs(60)) > before, "{after:?}, and before the restart {before:?}");
}

/// A record that outlives its target must not tell of another one.
#[tokio::test]
async fn a_targets_number_never_comes_again_also_when_all_are_forgotten() {
    let mut house = House::sqlite();
    for target in ["a", "b", "c"] {
        record(&house.store, target, target).await;
        house.prune().await;
        assert_eq!((house.count("records"), house.count("former_targets")), (1, 1));
        house.restart().await;
    }
    for (target, found) in [("c", vec!["again", "c"]), ("a", vec!["again"]), ("d", vec!["again"])] {
        record(&house.store, target, "again").await;
        let of_it = Wanted { target: Some(key(target)), ..Wanted::default() };
        let records = house.store.records(of_it).await.unwrap().records;
        assert_eq!(records.iter().map(|record| &*record.body).collect::<Vec<_>>(), found, "{target}");
    }
}

/// One of a large notification has a megabyte; a page of them must not take all memory.
#[tokio::test]
async fn long_records_come_in_small_pages() {
    let house = House::sqlite();
    let body = format!("\"{}\"", "x".repeat(1 << 20));
    for _ in 0..8 {
        record(&house.store, "a", &body).await;
    }
    for target in [None, Some(key("a"))] {
        let mut below = Bound::Unbounded;
        let mut found = Vec::new();
        loop {
            let page = house
                .store
                .records(Wanted { below, target: target.clone(), ..Wanted::default() })
                .await
                .unwrap();
            assert!(page.records.len() <= 5, "{}", page.records.len());
            found.extend(ids(&page));
            if !page.more {
                break;
            }
            below = Bound::Excluded(*found.last().unwrap());
        }
        assert_eq!(found, [8, 7, 6, 5, 4, 3, 2, 1]);
    }
}

fn event(id: &str, target: &str) -> NewEvent {
    NewEvent {
        target: key(target),
        destinations: destinations().into(),
        adds: true,
        may_shrink: false,
        part: None,
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
async fn an_event_is_told_with_what_became_of_it_at_each_destination() {
    use DeliveryState::{Dead, Delivered, Discarded, Pending, Retrying};

    let (first, second) = ("0123456789abcdef0123456789abcdef", "ffffffffffffffffffffffffffffffff");
    for house in House::both() {
        let store = &house.store;
        put(store, first).await;
        put(store, second).await;
        assert_eq!(states(store, first).await, [Pending, Pending]);
        let settle = async |destination: &str, settlement: Settlement| {
            let claimed = store.claim(&name(destination), 1).await.unwrap();
            store.settle(&name(destination), vec![(claimed[0].seq, settlement)]).await.unwrap();
        };
        settle("queue", Settlement::Delivered).await;
        settle("journal", Settlement::Retry { delay: Duration::ZERO, error: "once".into() }).await;
        assert_eq!(states(store, first).await, [Delivered, Retrying]);
        let told = store.event(first).await.unwrap().unwrap();
        assert_eq!(told.deliveries[1].error.as_deref(), Some("once"));
        assert_eq!(told.deliveries[1].failed_attempts, 1);
        settle("journal", Settlement::Dead { error: "given up".into() }).await;
        assert_eq!(states(store, first).await, [Delivered, Dead]);
        assert_eq!(states(store, second).await, [Pending, Pending], "another one's row is not its own");
        let letter = store.dead_letters(None, None, 1).await.unwrap().remove(0);
        store.discard(&letter.place).await.unwrap();
        let expected =
            if matches!(house.store, Store::Memory(_)) { DeliveryState::Superseded } else { Discarded };
        assert_eq!(states(store, first).await, [Delivered, expected]);
        for unknown in ["", "x", "'; DROP TABLE events", "00000000000000000000000000000000"] {
            assert_eq!(store.event(unknown).await.unwrap(), None, "{unknown}");
        }
    }
}

#[tokio::test]
async fn what_a_destination_that_is_no_more_has_not_got_becomes_dead_letters() {
    let id = "0123456789abcdef0123456789abcdef";
    for house in House::both() {
        let store = &house.store;
        for _ in 0..3 {
            put(store, id).await;
        }
        // One is on its way when the worker ends, one waits for another try.
        let journal = name("journal");
        let claimed = store.claim(&journal, 1).await.unwrap();
        let retry = Settlement::Retry { delay: Duration::from_secs(3600), error: "later".into() };
        store.settle(&journal, vec![(claimed[0].seq, retry)]).await.unwrap();
        assert_eq!(store.retire(&journal, "gone").await.unwrap(), 3);
        let letters = store.dead_letters(Some(&journal), None, 10).await.unwrap();
        assert_eq!(letters.iter().map(|letter| letter.error.as_str()).collect::<Vec<_>>(), ["gone"; 3]);
        assert!(store.claim(&journal, 1).await.is_err(), "nobody delivers there");
        assert_eq!(store.abandoned().await.unwrap(), []);
        // It comes back, and is given what comes from then on.
        store.attach(&journal).await.unwrap();
        assert_eq!((store.backlog(&journal).dead, store.backlog(&journal).pending), (3, 0));
        put(store, id).await;
        assert_eq!(store.claim(&journal, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_was_claimed_by_a_worker_that_is_no_more_is_handed_out_again_in_order() {
    let id = "0123456789abcdef0123456789abcdef";
    for house in House::both() {
        let store = &house.store;
        put_about(store, id, "a").await;
        put_about(store, id, "b").await;
        let queue = name("queue");
        let first = store.claim(&queue, 10).await.unwrap();
        assert_eq!((first.len(), store.claim(&queue, 10).await.unwrap().len()), (2, 0));
        store.take_back(&queue).unwrap();
        let again = store.claim(&queue, 10).await.unwrap();
        let seqs = |claimed: &[Claimed]| claimed.iter().map(|one| one.seq).collect::<Vec<_>>();
        assert_eq!(seqs(&again), seqs(&first));
        let settled = again.iter().map(|one| (one.seq, Settlement::Delivered)).collect();
        store.settle(&queue, settled).await.unwrap();
        store.take_back(&queue).unwrap();
        assert_eq!(store.claim(&queue, 10).await.unwrap().len(), 0, "what is settled is settled");
    }
}
