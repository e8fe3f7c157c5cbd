//! A decision cancels the delivery of decreases: they are never called again.

use super::tracking::{change, readable, tracking};
use super::*;
use crate::domain::delivery::DeliveryChangeKind::Cancel;
use crate::store::query::RecordQuery;
use crate::store::{DeliveryState, RefusalReason};

const BOTH: [&str; 2] = ["queue", "journal"];
fn delivered() -> Settlement {
    Settlement::Delivered { answer: None }
}

impl StoreHarness {
    /// Emits decreases with a state that tracks them.
    pub(super) async fn emit_decreases(&self, target: &str, ids: &[&str], to: &[&str]) {
        let state = tracking(ids);
        let events: Vec<_> = ids.iter().map(|id| readable(event(target, Kind::In, id, to))).collect();
        let target = key(target);
        self.write(&[target.clone().as_str()], move |_| Changes {
            states: vec![(target.clone(), state.clone())],
            events: events.clone(),
            ..Changes::default()
        })
        .await;
    }

    /// Emits an increase in the transaction that cancels these decreases of its target.
    pub(super) async fn emit_cancelling(&self, target: &str, id: &str, to: &[&str], cancelled: &[&str]) {
        let increase = event(target, Kind::Out, id, to);
        let cancelled: Vec<_> = cancelled.iter().map(|id| change(target, id, Cancel)).collect();
        self.write(&[target], move |_| Changes {
            delivery_changes: cancelled.clone(),
            ..increase.clone().changes()
        })
        .await;
    }

    /// Why a delivery that was claimed with this lease must not be called; `None` if its call begins.
    pub(super) async fn refusal(&self, lease: Lease) -> Option<RefusalReason> {
        let refused = self.store.begin_calls(&name("queue"), vec![lease]).await.unwrap();
        refused.first().map(|refused| refused.reason)
    }
}

#[tokio::test]
async fn an_increase_alone_cancels_nothing() {
    for harness in StoreHarness::all().await {
        harness.emit_decreases("a", &["in"], &["queue"]).await;
        harness.emit("a", Kind::Out, "out", &["queue"]).await;
        let lease = harness.claim_expecting("queue", &["in"]).await[0];
        assert_eq!(harness.refusal(lease).await, None);
        harness.settle("queue", lease, delivered()).await;
        harness.claim_expecting("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn a_pending_decrease_is_cancelled_and_its_target_continues() {
    for mut harness in StoreHarness::all().await {
        harness.emit("a", Kind::Note, "note", &BOTH).await;
        harness.emit_decreases("a", &["in-1", "in-2"], &BOTH).await;
        harness.emit_decreases("b", &["in-3"], &BOTH).await;
        harness.emit_cancelling("a", "out", &BOTH, &["in-1", "in-2"]).await;
        harness.emit("a", Kind::Note, "last", &BOTH).await;
        assert_eq!(harness.backlog("queue"), (4, 0, 0));
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (4, 0, 0));
        for destination in BOTH {
            let leases = harness.claim_expecting(destination, &["note", "in-3"]).await;
            harness.settle(destination, leases[0], delivered()).await;
            harness.claim_and_settle(destination, "out", delivered()).await;
            harness.claim_expecting(destination, &["last"]).await;
            assert_eq!(harness.backlog(destination), (2, 0, 0));
        }
    }
}

#[tokio::test]
async fn a_decrease_that_is_backing_off_is_cancelled() {
    for mut harness in StoreHarness::all().await {
        harness.emit_decreases("a", &["in"], &["queue"]).await;
        harness.claim_and_settle("queue", "in", retry_after(0)).await;
        harness.restart().await;
        harness.emit_cancelling("a", "out", &["queue"], &["in"]).await;
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        harness.claim_expecting("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn a_claimed_decrease_that_is_cancelled_is_not_retried() {
    for mut harness in StoreHarness::all().await {
        harness.emit_decreases("a", &["in"], &["queue"]).await;
        let leases = harness.claim_expecting("queue", &["in"]).await;
        harness.emit_cancelling("a", "out", &["queue"], &["in"]).await;
        harness.claim_expecting("queue", &[]).await;
        harness.settle("queue", leases[0], retry_after(0)).await;
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        harness.claim_expecting("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn a_claimed_decrease_that_is_cancelled_is_not_called_and_has_no_second_record() {
    for mut harness in StoreHarness::all().await {
        harness.emit_decreases("a", &["in"], &BOTH).await;
        let lease = harness.claim_expecting("queue", &["in"]).await[0];
        harness.emit_cancelling("a", "out", &BOTH, &["in"]).await;
        assert_eq!(harness.refusal(lease).await, Some(RefusalReason::Superseded));
        let before = harness.store.records(RecordQuery::default()).await.unwrap().records.len();
        harness.settle("queue", lease, Settlement::Withdrawn { reason: "too late".into() }).await;
        assert_eq!(harness.store.records(RecordQuery::default()).await.unwrap().records.len(), before);
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        for destination in BOTH {
            harness.claim_expecting(destination, &["out"]).await;
        }
    }
}

/// Transactions do not stop workers from claiming.
#[tokio::test]
async fn a_decrease_that_is_claimed_during_the_transaction_that_cancels_it_is_not_called() {
    let harness = StoreHarness::sqlite();
    harness.emit_decreases("a", &["in"], &["queue"]).await;
    let Store::Sqlite(sqlite) = &harness.store else { unreachable!("the harness is SQLite") };
    let handle = sqlite.lanes().require(&name("queue")).unwrap();
    let leases = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let claimed = leases.clone();
    harness
        .write(&["a"], move |view| {
            let claims = handle.with_lane(|lane| lane.claim(10, view.now));
            claimed.lock().extend(claims.iter().map(|one| one.lease));
            Changes { delivery_changes: vec![change("a", "in", Cancel)], ..Changes::default() }
        })
        .await;
    let lease = leases.lock()[0];
    assert_eq!(harness.refusal(lease).await, Some(RefusalReason::Superseded));
    harness.settle("queue", lease, retry_after(0)).await;
    harness.claim_expecting("queue", &[]).await;
    assert_eq!(harness.backlog("queue"), (0, 0, 0));
}

#[tokio::test]
async fn a_delivery_that_arrives_after_its_cancellation_is_shown_as_arrived() {
    let id = "0123456789abcdef0123456789abcdef";
    for mut harness in StoreHarness::all().await {
        harness.emit_decreases("a", &[id], &["queue"]).await;
        let lease = harness.claim_expecting("queue", &[id]).await[0];
        assert_eq!(harness.refusal(lease).await, None, "the call begins");
        harness.change("a", id, Cancel).await;
        harness.settle("queue", lease, delivered()).await;
        for restart in [false, true] {
            if restart {
                harness.restart().await;
            }
            let delivery = harness.tracked("a", id).await;
            assert!(delivery.delivered_at.is_some() && !delivery.is_pending, "{delivery:?}");
            let stored = harness.store.event(id).await.unwrap().unwrap();
            assert_eq!(stored.deliveries[0].state, DeliveryState::Delivered);
            assert_eq!(harness.backlog("queue"), (0, 0, 0));
            harness.claim_expecting("queue", &[]).await;
        }
    }
}

#[tokio::test]
async fn a_cancelled_decrease_that_is_given_up_afterwards_is_no_dead_letter() {
    let dead =
        |called| Settlement::Dead { error: "no".into(), cause: GiveUp::Rejected, called, uncertain: false };
    for mut harness in StoreHarness::all().await {
        for (target, called) in [("a", false), ("b", true)] {
            harness.emit_decreases(target, &[target], &["queue"]).await;
            let lease = harness.claim_expecting("queue", &[target]).await[0];
            harness.change(target, target, Cancel).await;
            harness.settle("queue", lease, dead(called)).await;
            harness.restart().await;
            assert_eq!(harness.backlog("queue"), (0, 0, 0), "an operator could redrive a dead letter");
            let delivery = harness.tracked(target, target).await;
            assert_eq!((delivery.is_pending, delivery.given_up), (false, None));
            harness.emit(target, Kind::Out, "out", &["queue"]).await;
            harness.claim_and_settle("queue", "out", delivered()).await;
        }
    }
}

#[tokio::test]
async fn a_cancelled_decrease_that_was_claimed_at_shutdown_is_not_sent_again() {
    for mut harness in StoreHarness::durable().await {
        // An unsettled event before it holds back the cursor.
        harness.emit("b", Kind::Note, "first", &["queue"]).await;
        harness.emit_decreases("a", &["in-1"], &["queue"]).await;
        harness.emit_decreases("c", &["in-2"], &["queue"]).await;
        let leases = harness.claim_expecting("queue", &["first", "in-1", "in-2"]).await;
        harness.emit_cancelling("a", "out-1", &["queue"], &["in-1"]).await;
        harness.emit_cancelling("c", "out-2", &["queue"], &["in-2"]).await;
        harness.settle("queue", leases[2], delivered()).await;
        harness.restart().await;
        harness.claim_expecting("queue", &["first", "out-1", "out-2"]).await;
        assert_eq!(harness.backlog("queue"), (3, 0, 0));
    }
}

#[tokio::test]
async fn a_decrease_is_cancelled_only_where_it_has_not_arrived() {
    for mut harness in StoreHarness::all().await {
        harness.emit_decreases("a", &["in"], &BOTH).await;
        harness.claim_and_settle("queue", "in", delivered()).await;
        harness.restart().await;
        harness.change("a", "in", Cancel).await;
        let delivery = harness.tracked("a", "in").await;
        assert!(delivery.delivered_at.is_some() && !delivery.is_pending, "{delivery:?}");
        for destination in BOTH {
            harness.claim_expecting(destination, &[]).await;
            assert_eq!(harness.backlog(destination), (0, 0, 0));
        }
    }
}

#[tokio::test]
async fn a_decrease_beyond_the_window_is_cancelled() {
    for mut harness in StoreHarness::all().await {
        harness
            .write(&["b"], |_| {
                let mut changes = event("b", Kind::Note, "note", &["queue"]).changes();
                let note = || event("b", Kind::Note, "note", &["queue"]).event();
                changes.events.extend((0..50).map(|_| note()));
                changes
            })
            .await;
        harness.emit_decreases("a", &["in"], &["queue"]).await;
        let first = harness.store.claim(&name("queue"), 1).await.unwrap().remove(0);
        assert_eq!(id_of(&first), "note");
        harness.emit_cancelling("a", "out", &["queue"], &["in"]).await;
        assert_eq!(harness.backlog("queue"), (52, 0, 0));
        harness.settle("queue", first.lease, delivered()).await;
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (51, 0, 0));
        let mut ids = Vec::new();
        while ids.len() < 51 {
            for (lease, id) in harness.claim("queue").await {
                harness.settle("queue", lease, delivered()).await;
                ids.push(id);
            }
        }
        assert!(!ids.contains(&"in".to_owned()));
        assert_eq!(harness.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn a_cancelled_decrease_is_pruned_when_all_before_it_is_settled() {
    let harness = StoreHarness::sqlite();
    harness.emit("b", Kind::Note, "first", &["queue"]).await;
    harness.emit_decreases("a", &["in"], &["queue"]).await;
    harness.emit_cancelling("a", "out", &["queue"], &["in"]).await;
    assert_eq!(harness.count("deliveries WHERE state = 3"), 1, "the cursor has not passed it");
    for lease in harness.claim_expecting("queue", &["first", "out"]).await {
        harness.settle("queue", lease, delivered()).await;
    }
    for _ in 0..2 {
        harness.store.prune(Duration::ZERO, Duration::ZERO).await.unwrap();
    }
    assert_eq!(harness.count("deliveries"), 0);
    assert_eq!(harness.count("events"), 0);
}

#[tokio::test]
async fn a_destination_that_is_added_again_is_not_sent_what_was_cancelled_meanwhile() {
    for mut harness in StoreHarness::durable().await {
        harness.emit_decreases("a", &["in"], &["journal"]).await;
        harness.restart_for(&[name("queue")]).await;
        harness.emit_cancelling("a", "out", &["queue"], &["in"]).await;
        harness.restart().await;
        harness.claim_expecting("journal", &[]).await;
        assert_eq!(harness.backlog("journal"), (0, 0, 0));
        harness.claim_expecting("queue", &["out"]).await;
    }
}
