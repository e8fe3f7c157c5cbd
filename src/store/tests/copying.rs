//! A bridge that moves from SQLite to PostgreSQL continues where it was.

use super::controls::{change_controls, put};
use super::tracking::{change, readable, tracking};
use super::*;
use crate::domain::delivery::DeliveryChangeKind;
use crate::store::{
    AuditQuery, Copied, DeliveryQuery, Error, KeptNotification, NotificationLimits, NotificationQuery,
    Record, RecordQuery, copy,
};

/// The ids of events, as the bridge writes them.
fn id(number: u8) -> String {
    format!("{number:032x}")
}

impl StoreHarness {
    /// Emits an event that its state tracks.
    async fn emit_listed(&self, target: &str, kind: Kind, number: u8) {
        let event = readable(event(target, kind, &id(number), &["queue", "journal"]));
        let (target, state) = (key(target), tracking(&[&id(number)]));
        self.write(&[target.clone().as_str()], move |_| Changes {
            states: vec![(target.clone(), state.clone())],
            events: vec![event.clone()],
            ..Changes::default()
        })
        .await;
    }

    async fn settle_next(&self, destination: &str, settlement: Settlement) {
        let claimed = self.store.claim(&name(destination), 1).await.unwrap().remove(0);
        self.settle(destination, claimed.lease, settlement).await;
    }

    /// A SQLite store with something of everything.
    async fn varied() -> Self {
        let harness = Self::sqlite();
        let delivered = || Settlement::Delivered { answer: Some("{\"nodes\":3}".into()) };
        // Each event is settled at both destinations before the next one.
        for (number, settlement) in
            [delivered(), dead(), dead(), withdrawn(), delivered()].into_iter().enumerate()
        {
            harness.emit_listed(&format!("t{number}"), Kind::In, u8::try_from(number).unwrap()).await;
            harness.settle_next("queue", settlement).await;
            harness.settle_next("journal", delivered()).await;
        }
        let dead_letters = harness.store.dead_letters(None, None, 10).await.unwrap();
        harness.store.discard(&dead_letters[1].delivery_id, audit("discard")).await.unwrap();
        for (number, kind) in [(5, DeliveryChangeKind::Cancel), (6, DeliveryChangeKind::Suspend)] {
            harness.emit_listed(&format!("t{number}"), Kind::In, number).await;
            harness.change(&format!("t{number}"), &id(number), kind).await;
        }
        harness.emit_listed("t7", Kind::In, 7).await;
        harness.settle_next("queue", retry_after(600)).await;
        for number in 8..12 {
            harness.emit_listed("t8", Kind::Out, number).await;
        }
        let body = r#"{"decisions":[{"target":"gone","verdict":"paused"}]}"#;
        let record = |body: &str| Record { targets: vec![key("gone"), key("t1")], body: body.to_owned() };
        let (first, second) = (record(body), record("{}"));
        harness.write(&[], move |_| Changes { record: Some(first.clone()), ..Changes::default() }).await;
        harness.write(&[], move |_| Changes { record: Some(second.clone()), ..Changes::default() }).await;
        put(&harness, "deferred", deferred_state("nodes", Verdict::Paused, false)).await;
        change_controls(&harness, true).await;
        let limits = NotificationLimits { max_age: HOUR, max_bytes: 1 << 20 };
        for body in ["1", "2"] {
            let kept = KeptNotification::new(&name("prod"), body.as_bytes(), limits);
            harness.write(&[], move |_| Changes { notification: kept.clone(), ..Changes::default() }).await;
        }
        harness
    }

    /// Closes the store and copies it to a new database.
    async fn copy(&mut self) -> (Copied, Self) {
        self.store.close().await;
        let (database, dir) = (Database::new(), tempfile::tempdir().unwrap());
        let copied = copy(&self.dir.path().join("bridge.db"), database.settings(), now()).await.unwrap();
        let store = database.open(&destinations()).await;
        self.store = sqlite(&self.dir, &destinations());
        (copied, Self { store, dir, postgres: Some(database) })
    }
}

/// Everything that can be read, as text.
async fn shown(store: &Store) -> Vec<String> {
    let mut all = vec![format!("{:?} {:?}", store.tally(), store.controls())];
    let states = store.states(None, 1000).await.unwrap();
    all.extend(states.iter().map(|stored| format!("{stored:?}")));
    let records = store.records(RecordQuery::default()).await.unwrap();
    all.extend(records.records.iter().map(|record| format!("{record:?}")));
    for target in ["gone", "t1"] {
        let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
        all.push(format!("{:?}", store.history(&key(target), from, to).await.unwrap()));
    }
    for number in 0..12 {
        let mut event = store.event(&id(number)).await.unwrap().unwrap();
        for delivery in &mut event.deliveries {
            // SQLite knows it when a worker has read the event.
            delivery.blocked_by = None;
        }
        all.push(format!("{event:?}"));
    }
    let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
    let mut page = store.deliveries(DeliveryQuery { from, to, below: None, max: 100 }).await.unwrap();
    page.events.iter_mut().flat_map(|event| &mut event.deliveries).for_each(|one| one.blocked_by = None);
    all.extend(page.events.iter().map(|event| format!("{event:?}")));
    let dead_letters = store.dead_letters(None, None, 100).await.unwrap();
    all.extend(dead_letters.iter().map(|dead_letter| format!("{dead_letter:?}")));
    all.push(format!("{:?}", store.audit_trail(AuditQuery::default()).await.unwrap()));
    let query = NotificationQuery { source: None, from, to, after: None, max: 100 };
    let kept = store.notifications(query).await.unwrap().notifications;
    all.extend(kept.iter().map(|kept| format!("{} {:?} {}", kept.source, kept.at, kept.body)));
    all.extend(destinations().map(|destination| format!("{:?}", store.backlog(&destination))));
    all
}

#[tokio::test]
async fn all_that_is_shown_of_a_bridge_is_the_same_after_the_copy() {
    let mut harness = StoreHarness::varied().await;
    let (copied, moved) = harness.copy().await;
    let (before, after) = (shown(&harness.store).await, shown(&moved.store).await);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after, before);
    }
    assert_eq!(after.len(), before.len());
    let expected = Copied {
        destinations: 2,
        targets: 10,
        unreadable: 0,
        events: 12,
        deliveries: 24,
        undelivered: 12,
        dead_letters: 1,
        records: copied.records,
        audit_entries: 1,
        notifications: 2,
        seconds_ahead: copied.seconds_ahead,
    };
    assert_eq!(copied, expected);
    assert_eq!(copied.records as i64, harness.count("records"));
}

#[tokio::test]
async fn what_was_not_delivered_is_delivered_in_its_order_and_numbers_go_on() {
    let mut harness = StoreHarness::varied().await;
    let (_, moved) = harness.copy().await;
    let last = |records: crate::store::Records| records.records[0].cursor;
    let newest = last(harness.store.records(RecordQuery::default()).await.unwrap());
    for destination in ["queue", "journal"] {
        loop {
            let (before, after) = (harness.claim(destination).await, moved.claim(destination).await);
            let ids = |claimed: &[(Lease, String)]| {
                claimed.iter().map(|(lease, id)| (lease.seq(), id.clone())).collect::<Vec<_>>()
            };
            assert_eq!(ids(&after), ids(&before));
            if before.is_empty() {
                break;
            }
            for (harness, claimed) in [(&harness, before), (&moved, after)] {
                for (lease, _) in claimed {
                    harness.settle(destination, lease, Settlement::Delivered { answer: None }).await;
                }
            }
        }
    }
    moved.change("t6", &id(6), DeliveryChangeKind::Resume).await;
    let resumed = moved.claim_one("queue", &id(6)).await;
    moved.emit_listed("new", Kind::Out, 12).await;
    let new = moved.claim_one("queue", &id(12)).await;
    assert!(new.lease.seq() > resumed.lease.seq() && new.lease.seq().0 == 13, "{:?}", new.lease);
    moved
        .write(&[], |_| {
            let record = Record { targets: vec![key("gone")], body: "{}".into() };
            Changes { record: Some(record), ..Changes::default() }
        })
        .await;
    assert!(last(moved.store.records(RecordQuery::default()).await.unwrap()) > newest);
    let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
    assert_eq!(moved.store.history(&key("gone"), from, to).await.unwrap().len(), 3);
    assert_eq!(moved.store.audit(audit("reload")).await.unwrap(), 2);
    let changed = vec![change("t5", &id(5), DeliveryChangeKind::Cancel)];
    moved.write(&["t5"], move |_| Changes { delivery_changes: changed.clone(), ..Changes::default() }).await;
}

/// Of events that were deleted, only the row of their target and rows of what never arrived are left.
#[tokio::test]
async fn an_open_episode_is_taken_back_where_its_increase_arrived_also_if_that_was_deleted() {
    for arrives in [true, false] {
        let mut harness = StoreHarness::sqlite();
        harness.emit_firing("a", "out", &["queue"]).await;
        let claimed = harness.claim_one("queue", "out").await;
        let settlement = if arrives { Settlement::Delivered { answer: None } } else { dead() };
        harness.settle("queue", claimed.lease, settlement).await;
        if !arrives {
            let delivery_id = DeliveryId { seq: claimed.lease.seq(), destination: name("queue") };
            harness.store.discard(&delivery_id, audit("discard")).await.unwrap();
        }
        harness.restart().await;
        harness.prune().await;
        let (_, moved) = harness.copy().await;
        moved.emit_resolved("a", "in", &["queue"]).await;
        assert_eq!(moved.claim_one("queue", "in").await.nothing_to_compensate, !arrives);
    }
}

#[tokio::test]
async fn nothing_is_copied_to_a_database_with_data_or_while_a_bridge_uses_one_of_the_stores() {
    let mut harness = StoreHarness::sqlite();
    harness.emit("a", Kind::Note, "note", &["queue"]).await;
    let file = harness.dir.path().join("bridge.db");
    let database = Database::new();
    let refusal = async |database: &Database| match copy(&file, database.settings(), now()).await {
        Err(Error::Unusable(error)) => error,
        other => panic!("{other:?}"),
    };
    let in_use = refusal(&database).await;
    assert!(in_use.contains("bridge.db"), "{in_use}");
    let (_, moved) = harness.copy().await;
    harness.store.close().await;
    let full = refusal(moved.postgres.as_ref().unwrap()).await;
    assert!(full.contains("has data of a bridge already"), "{full}");
    let bridge = database.open(&destinations()).await;
    database.execute(
        "INSERT INTO replicas (id, name, started, seen, beat, is_ready, schema_step, version)
         VALUES (7, 'host', now_ns(), now_ns(), 1, true, 1, '0.1.0')",
    );
    let used = refusal(&database).await;
    assert!(used.contains("a bridge uses the PostgreSQL database"), "{used}");
    bridge.close().await;
    let absent = copy(&harness.dir.path().join("absent.db"), database.settings(), now()).await;
    assert!(matches!(&absent, Err(Error::Unusable(error)) if error.contains("does not exist")), "{absent:?}");
}

#[tokio::test]
async fn a_state_that_cannot_be_read_stays_so_and_can_be_given_up() {
    let mut harness = StoreHarness::sqlite();
    put(&harness, "a", deferred_state("nodes", Verdict::Paused, false)).await;
    harness.store.close().await;
    harness.execute("UPDATE targets SET dictionary = 99");
    let (copied, moved) = harness.copy().await;
    assert_eq!((copied.targets, copied.unreadable), (1, 1));
    let read = moved.store.transact(moved.keys(&["a"]), |_| (Changes::default(), ())).await;
    assert!(matches!(read, Err(Error::Unreadable(_))), "{read:?}");
    let row = moved.store.unreadable_rows().remove(0);
    moved.store.drop_unreadable(row.id, audit("drop_state")).await.unwrap();
    put(&moved, "a", deferred_state("nodes", Verdict::Paused, false)).await;
}
