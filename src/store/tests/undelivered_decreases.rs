//! An event that increases capacity cancels the undelivered decreases of its target.

use super::*;
use crate::store::query::RecordQuery;

const BOTH: [&str; 2] = ["queue", "journal"];

#[tokio::test]
async fn undelivered_decreases_are_named_to_transactions_about_their_target() {
    for harness in StoreHarness::both() {
        harness.emit("a", Kind::In, "in-1", &["queue"]).await;
        harness.emit("b", Kind::In, "in-2", &["queue"]).await;
        assert_eq!(harness.emit("a", Kind::Note, "note", &["queue"]).await, ["in-1"]);
        let keys = Keys { targets: Vec::new(), alerts: vec![alert("a")] };
        let undelivered =
            harness.store.transact(keys, |view| (Changes::default(), view.undelivered_decreases.clone()));
        let undelivered = undelivered.await.unwrap();
        let decrease = &undelivered[&key("a")][0];
        assert_eq!((decrease.rule.as_str(), &decrease.alerts[..]), ("nodes", &[alert("f1")][..]));
        let seqs = harness.claim_expecting("queue", &["in-1", "in-2"]).await;
        harness.settle("queue", seqs[0], Settlement::Delivered { answer: None }).await;
        harness
            .settle(
                "queue",
                seqs[1],
                Settlement::Dead {
                    error: "refused".into(),
                    cause: GiveUp::Rejected,
                    called: true,
                    uncertain: false,
                },
            )
            .await;
        assert_eq!(harness.emit("a", Kind::Out, "out", &["queue"]).await, [""; 0]);
        assert_eq!(harness.emit("b", Kind::Out, "out", &["queue"]).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_pending_decrease_is_cancelled_and_its_target_continues() {
    for mut harness in StoreHarness::both() {
        harness.emit("a", Kind::Note, "note", &BOTH).await;
        harness.emit("a", Kind::In, "in-1", &BOTH).await;
        harness.emit("a", Kind::In, "in-2", &BOTH).await;
        harness.emit("b", Kind::In, "in-3", &BOTH).await;
        assert_eq!(harness.emit("a", Kind::Out, "out", &BOTH).await, ["in-1", "in-2"]);
        assert_eq!(harness.emit("a", Kind::Note, "last", &BOTH).await, [""; 0]);
        assert_eq!(harness.backlog("queue"), (4, 0, 0));
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (4, 0, 0));
        for destination in BOTH {
            let seqs = harness.claim_expecting(destination, &["note", "in-3"]).await;
            harness.settle(destination, seqs[0], Settlement::Delivered { answer: None }).await;
            let seqs = harness.claim_expecting(destination, &["out"]).await;
            harness.settle(destination, seqs[0], Settlement::Delivered { answer: None }).await;
            harness.claim_expecting(destination, &["last"]).await;
            assert_eq!(harness.backlog(destination), (2, 0, 0));
        }
    }
}

#[tokio::test]
async fn a_decrease_that_is_backing_off_is_cancelled() {
    for mut harness in StoreHarness::both() {
        harness.emit("a", Kind::In, "in", &["queue"]).await;
        let seqs = harness.claim_expecting("queue", &["in"]).await;
        harness.settle("queue", seqs[0], retry_after(0)).await;
        harness.restart().await;
        assert_eq!(harness.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        harness.claim_expecting("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn a_claimed_decrease_that_was_cancelled_is_not_retried() {
    for mut harness in StoreHarness::both() {
        harness.emit("a", Kind::In, "in", &["queue"]).await;
        let seqs = harness.claim_expecting("queue", &["in"]).await;
        assert_eq!(harness.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
        harness.claim_expecting("queue", &[]).await;
        harness.settle("queue", seqs[0], retry_after(0)).await;
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        harness.claim_expecting("queue", &["out"]).await;
    }
}

/// Whether a delivery that was claimed with this lease must not be sent any more.
async fn is_superseded(harness: &StoreHarness, lease: Lease) -> bool {
    !harness.store.begin_calls(&name("queue"), vec![lease]).await.unwrap().is_empty()
}

#[tokio::test]
async fn a_claimed_decrease_is_known_to_be_cancelled_and_has_one_record() {
    for mut harness in StoreHarness::both() {
        harness.emit("a", Kind::In, "in", &BOTH).await;
        let seqs = harness.claim_expecting("queue", &["in"]).await;
        assert!(!is_superseded(&harness, seqs[0]).await);
        harness.emit("a", Kind::Out, "out", &BOTH).await;
        assert!(is_superseded(&harness, seqs[0]).await);
        let before = harness.store.records(RecordQuery::default()).await.unwrap().records.len();
        harness.settle("queue", seqs[0], Settlement::Withdrawn { reason: "too late".into() }).await;
        assert_eq!(harness.store.records(RecordQuery::default()).await.unwrap().records.len(), before);
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        harness.claim_expecting("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn a_claimed_decrease_may_still_be_delivered() {
    for mut harness in StoreHarness::both() {
        harness.emit("a", Kind::In, "in", &["queue"]).await;
        let seqs = harness.claim_expecting("queue", &["in"]).await;
        harness.emit("a", Kind::Out, "out", &["queue"]).await;
        harness.settle("queue", seqs[0], Settlement::Delivered { answer: None }).await;
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        harness.claim_expecting("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn a_cancelled_decrease_that_was_claimed_at_shutdown_is_not_sent_again() {
    let mut harness = StoreHarness::sqlite();
    // An unsettled event before it holds back the cursor.
    harness.emit("b", Kind::Note, "first", &["queue"]).await;
    harness.emit("a", Kind::In, "in-1", &["queue"]).await;
    harness.emit("c", Kind::In, "in-2", &["queue"]).await;
    let seqs = harness.claim_expecting("queue", &["first", "in-1", "in-2"]).await;
    harness.emit("a", Kind::Out, "out-1", &["queue"]).await;
    harness.emit("c", Kind::Out, "out-2", &["queue"]).await;
    harness.settle("queue", seqs[2], Settlement::Delivered { answer: None }).await;
    harness.restart().await;
    harness.claim_expecting("queue", &["first", "out-1", "out-2"]).await;
    assert_eq!(harness.backlog("queue"), (3, 0, 0));
}

#[tokio::test]
async fn a_decrease_is_cancelled_only_where_it_was_not_delivered() {
    for mut harness in StoreHarness::both() {
        harness.emit("a", Kind::In, "in", &BOTH).await;
        let seqs = harness.claim_expecting("queue", &["in"]).await;
        harness.settle("queue", seqs[0], Settlement::Delivered { answer: None }).await;
        harness.restart().await;
        assert_eq!(harness.emit("a", Kind::Out, "out", &BOTH).await, ["in"]);
        harness.claim_expecting("queue", &["out"]).await;
        harness.claim_expecting("journal", &["out"]).await;
    }
}

#[tokio::test]
async fn a_decrease_beyond_the_window_is_cancelled() {
    for mut harness in StoreHarness::both() {
        harness
            .write(&["b"], |_| {
                let mut changes = event("b", Kind::Note, "note", &["queue"]).changes();
                let note = || event("b", Kind::Note, "note", &["queue"]).event();
                changes.events.extend((0..50).map(|_| note()));
                changes
            })
            .await;
        harness.emit("a", Kind::In, "in", &["queue"]).await;
        let seqs = harness.claim_expecting("queue", &["note"]).await;
        assert_eq!(harness.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
        assert_eq!(harness.backlog("queue"), (52, 0, 0));
        harness.settle("queue", seqs[0], Settlement::Delivered { answer: None }).await;
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (51, 0, 0));
        let mut ids = Vec::new();
        while ids.len() < 51 {
            for (seq, id) in harness.claim("queue").await {
                harness.settle("queue", seq, Settlement::Delivered { answer: None }).await;
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
    harness.emit("a", Kind::In, "in", &["queue"]).await;
    harness.emit("a", Kind::Out, "out", &["queue"]).await;
    assert_eq!(harness.count("deliveries WHERE state = 3"), 1, "the cursor has not passed it");
    for seq in harness.claim_expecting("queue", &["first", "out"]).await {
        harness.settle("queue", seq, Settlement::Delivered { answer: None }).await;
    }
    for _ in 0..2 {
        harness.store.prune(Duration::ZERO, Duration::ZERO).await.unwrap();
    }
    assert_eq!(harness.count("deliveries"), 0);
    assert_eq!(harness.count("events"), 0);
}

#[tokio::test]
async fn a_destination_that_is_added_again_is_not_sent_what_was_cancelled_meanwhile() {
    let mut harness = StoreHarness::sqlite();
    harness.emit("a", Kind::In, "in", &["journal"]).await;
    harness.restart_for(&[name("queue")]).await;
    assert_eq!(harness.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
    harness.restart().await;
    harness.claim_expecting("journal", &[]).await;
    assert_eq!(harness.backlog("journal"), (0, 0, 0));
    harness.claim_expecting("queue", &["out"]).await;
}

#[tokio::test]
async fn a_target_whose_state_was_deleted_meanwhile_is_still_the_same() {
    for mut harness in StoreHarness::both() {
        harness.emit("a", Kind::In, "in", &["queue"]).await;
        harness
            .write(&["a"], |_| Changes {
                states: vec![(key("a"), TargetState::default())],
                ..Changes::default()
            })
            .await;
        harness.restart().await;
        assert_eq!(harness.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
        harness.claim_expecting("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn an_unreadable_event_is_not_cancelled() {
    for harness in StoreHarness::both() {
        harness
            .write(&["a"], |_| {
                let mut changes = event("a", Kind::In, "in", &["queue"]).changes();
                changes.events[0].body = r#"{"id":"strange"}"#.into();
                changes
            })
            .await;
        assert_eq!(harness.emit("a", Kind::Out, "out", &["queue"]).await, [""; 0]);
        harness.claim_expecting("queue", &["strange"]).await;
    }
}
