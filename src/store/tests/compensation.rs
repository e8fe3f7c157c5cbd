//! A compensation is sent exactly to the destinations at which a firing event of its episode arrived.

use super::tracking::change;
use super::*;
use crate::domain::delivery::DeliveryChangeKind;

const BOTH: [&str; 2] = ["queue", "journal"];

#[tokio::test]
async fn a_compensation_is_sent_where_the_firing_event_arrived_and_withdrawn_elsewhere() {
    for mut harness in StoreHarness::all().await {
        harness.emit_firing("a", "out", &BOTH).await;
        harness.emit_resolved("a", "in", &BOTH).await;
        harness.claim_and_settle("queue", "out", Settlement::Delivered { answer: None }).await;
        harness.claim_and_settle("journal", "out", dead()).await;
        harness.restart().await;
        assert!(!harness.claim_one("queue", "in").await.nothing_to_compensate);
        let claimed = harness.claim_one("journal", "in").await;
        assert!(claimed.nothing_to_compensate);
        harness.settle("journal", claimed.lease, withdrawn()).await;
        assert_eq!(harness.backlog("journal"), (0, 0, 1), "a withdrawn event is not a dead letter");
    }
}

#[tokio::test]
async fn a_compensation_waits_for_a_firing_event_that_is_retried() {
    for mut harness in StoreHarness::all().await {
        harness.emit_firing("a", "out", &["queue"]).await;
        harness.claim_and_settle("queue", "out", retry_after(0)).await;
        harness.emit_resolved("a", "in", &["queue"]).await;
        harness.restart().await;
        let claimed = harness.claim_one("queue", "out").await;
        assert_eq!((claimed.attempts, claimed.last_error.as_deref()), (1, Some("no answer")));
        harness.settle("queue", claimed.lease, Settlement::Delivered { answer: None }).await;
        let claimed = harness.claim_one("queue", "in").await;
        assert!(!claimed.nothing_to_compensate);
        assert_eq!(claimed.last_error, None);
    }
}

#[tokio::test]
async fn one_delivered_firing_event_of_several_is_enough() {
    for mut harness in StoreHarness::all().await {
        for id in ["out-1", "out-2", "out-3"] {
            harness.emit_firing("a", id, &["queue"]).await;
        }
        harness.claim_and_settle("queue", "out-1", dead()).await;
        harness.claim_and_settle("queue", "out-2", Settlement::Delivered { answer: None }).await;
        harness.claim_and_settle("queue", "out-3", dead()).await;
        harness.restart().await;
        harness.prune().await;
        harness.emit_resolved("a", "in", &["queue"]).await;
        harness.restart().await;
        assert!(!harness.claim_one("queue", "in").await.nothing_to_compensate);
    }
}

#[tokio::test]
async fn another_episode_of_the_target_is_no_evidence() {
    for harness in StoreHarness::all().await {
        let fires = |episode: &'static str, id| {
            harness.emit_episode_event(event("a", Kind::Out, id, &["queue"]), Phase::Firing, episode)
        };
        fires("e1", "out-1").await;
        harness.claim_and_settle("queue", "out-1", Settlement::Delivered { answer: None }).await;
        harness.emit_episode_event(event("a", Kind::In, "in-1", &["queue"]), Phase::Resolved, "e1").await;
        harness.claim_and_settle("queue", "in-1", Settlement::Delivered { answer: None }).await;
        fires("e2", "out-2").await;
        harness.claim_and_settle("queue", "out-2", dead()).await;
        harness.emit_episode_event(event("a", Kind::In, "in-2", &["queue"]), Phase::Resolved, "e2").await;
        assert!(harness.claim_one("queue", "in-2").await.nothing_to_compensate);
    }
}

#[tokio::test]
async fn a_destination_that_came_to_the_rule_later_is_not_sent_the_compensation() {
    for mut harness in StoreHarness::all().await {
        harness.emit_firing("a", "out", &["queue"]).await;
        harness.claim_and_settle("queue", "out", Settlement::Delivered { answer: None }).await;
        harness.emit_resolved("a", "in", &BOTH).await;
        assert_eq!((harness.backlog("queue"), harness.backlog("journal")), ((1, 0, 0), (0, 0, 0)));
        harness.restart().await;
        harness.claim_expecting("journal", &[]).await;
        assert_eq!(harness.backlog("journal"), (0, 0, 0));
        assert!(!harness.claim_one("queue", "in").await.nothing_to_compensate);
        let decisions = harness.decisions("a").await;
        let [line] = &decisions[..] else { panic!("{decisions:?}") };
        assert_eq!((&line["verdict"], &line["destination"]), (&json!("withdrawn"), &json!("journal")));
        assert_eq!(
            (&line["event"], &line["phase"], &line["rule"]),
            (&json!("in"), &json!("resolved"), &json!("nodes"))
        );
    }
}

#[tokio::test]
async fn why_it_did_not_scale_is_in_the_history_of_the_target() {
    for harness in StoreHarness::all().await {
        harness.emit_firing("a", "out", &["queue"]).await;
        harness.claim_and_settle("queue", "out", dead()).await;
        harness.emit_resolved("a", "in", &["queue"]).await;
        harness.claim_and_settle("queue", "in", withdrawn()).await;
        let expected = json!({
            "rule": "nodes", "target": "a", "phase": "resolved", "episode": "e", "action": "scale_in",
            "verdict": "withdrawn", "detail": "nothing to compensate", "alerts": ["f1"], "event": "in",
            "destination": "queue",
        });
        assert_eq!(harness.decisions("a").await, [expected]);
    }
}

#[tokio::test]
async fn a_delivered_event_that_was_pruned_counts_as_delivered() {
    let mut harness = StoreHarness::sqlite();
    harness.emit_firing("a", "out", &["queue"]).await;
    harness.emit_firing("b", "other", &["queue"]).await;
    let seqs = harness.claim_expecting("queue", &["out", "other"]).await;
    harness.settle("queue", seqs[0], Settlement::Delivered { answer: None }).await;
    harness.settle("queue", seqs[1], dead()).await;
    harness.restart().await;
    harness.prune().await;
    assert_eq!(harness.count("events"), 1, "the dead letter");
    harness.emit_resolved("a", "in", &["queue"]).await;
    harness.restart().await;
    assert!(!harness.claim_one("queue", "in").await.nothing_to_compensate);
}

#[tokio::test]
async fn a_discarded_event_counts_as_undelivered_whatever_was_pruned() {
    for mut harness in StoreHarness::all().await {
        harness.emit_firing("a", "out", &["queue"]).await;
        let claimed = harness.claim_one("queue", "out").await;
        harness.settle("queue", claimed.lease, dead()).await;
        harness
            .store
            .discard(&DeliveryId { seq: claimed.lease.seq(), destination: name("queue") }, audit("discard"))
            .await
            .unwrap();
        assert_eq!(harness.backlog("queue"), (0, 0, 0));
        for _ in 0..3 {
            harness.prune().await;
            harness.restart().await;
        }
        harness.emit_resolved("a", "in", &["queue"]).await;
        for _ in 0..3 {
            harness.prune().await;
            harness.restart().await;
        }
        harness.claim_and_withdraw("queue", "in").await;
    }
    for harness in StoreHarness::durable().await {
        harness.emit_firing("a", "out", &["queue"]).await;
        let claimed = harness.claim_one("queue", "out").await;
        harness.settle("queue", claimed.lease, dead()).await;
        harness
            .store
            .discard(&DeliveryId { seq: claimed.lease.seq(), destination: name("queue") }, audit("discard"))
            .await
            .unwrap();
        harness.emit_resolved("a", "in", &["queue"]).await;
        harness.claim_and_withdraw("queue", "in").await;
        for _ in 0..3 {
            harness.prune().await;
        }
        assert_eq!(
            (harness.count("events"), harness.count("deliveries")),
            (0, 0),
            "no compensation can refer to them"
        );
    }
}

#[tokio::test]
async fn a_redriven_and_delivered_event_is_compensated() {
    for mut harness in StoreHarness::all().await {
        harness.emit_firing("a", "out", &["queue"]).await;
        let claimed = harness.claim_one("queue", "out").await;
        harness.settle("queue", claimed.lease, dead()).await;
        harness.emit_resolved("a", "in", &["queue"]).await;
        let delivery_id = DeliveryId { seq: claimed.lease.seq(), destination: name("queue") };
        let force = Redrive { force: true, ..Redrive::default() };
        harness.store.redrive(&delivery_id, force, audit("redrive")).await.unwrap();
        harness.restart().await;
        harness.claim_and_settle("queue", "out", Settlement::Delivered { answer: None }).await;
        harness.restart().await;
        assert!(!harness.claim_one("queue", "in").await.nothing_to_compensate);
    }
}

#[tokio::test]
async fn a_cancelled_scale_in_is_compensated_only_if_it_was_delivered() {
    for mut harness in StoreHarness::all().await {
        for (target, arrives) in [("a", true), ("b", false)] {
            harness.emit_episode_event(event(target, Kind::In, "in", &["queue"]), Phase::Firing, "e").await;
            let claimed = harness.claim_one("queue", "in").await;
            harness
                .write(&[target], move |_| {
                    let mut changes = event(target, Kind::Out, "more", &["queue"]).changes();
                    changes.states = vec![(key(target), open_episode("e"))];
                    changes.delivery_changes = vec![change(target, "in", DeliveryChangeKind::Cancel)];
                    changes
                })
                .await;
            harness
                .settle(
                    "queue",
                    claimed.lease,
                    if arrives { Settlement::Delivered { answer: None } } else { retry_after(0) },
                )
                .await;
            harness.claim_and_settle("queue", "more", Settlement::Delivered { answer: None }).await;
            harness.restart().await;
            harness.prune().await;
            harness
                .emit_episode_event(event(target, Kind::Out, "back", &["queue"]), Phase::Resolved, "e")
                .await;
            let claimed = harness.claim_one("queue", "back").await;
            assert_eq!(claimed.nothing_to_compensate, !arrives);
            harness.settle("queue", claimed.lease, Settlement::Delivered { answer: None }).await;
        }
    }
}

#[tokio::test]
async fn an_episode_older_than_the_tracking_is_compensated() {
    let mut harness = StoreHarness::sqlite();
    harness.emit_firing("a", "out", &["queue"]).await;
    harness.claim_and_settle("queue", "out", Settlement::Delivered { answer: None }).await;
    harness.store.close().await;
    harness.database().execute_batch("UPDATE targets SET firing_events = NULL").unwrap();
    harness.restart().await;
    harness.emit_firing("a", "more", &["queue"]).await;
    harness.claim_and_settle("queue", "more", dead()).await;
    harness.emit_resolved("a", "in", &["queue"]).await;
    assert!(
        !harness.claim_one("queue", "in").await.nothing_to_compensate,
        "the first event is not in the list"
    );
}

#[tokio::test]
async fn an_answer_is_stored_as_long_as_its_event() {
    let mut harness = StoreHarness::sqlite();
    harness.emit_firing("a", "out-1", &["queue"]).await;
    harness.emit_firing("b", "out-2", &["queue"]).await;
    let seqs = harness.claim_expecting("queue", &["out-1", "out-2"]).await;
    // The row of the second event is above the cursor.
    harness.settle("queue", seqs[1], Settlement::Delivered { answer: Some("{\"nodes\":3}".into()) }).await;
    assert_eq!(harness.backlog("queue"), (1, 0, 0));
    harness.restart().await;
    assert_eq!(harness.backlog("queue"), (1, 0, 0));
    harness.claim_and_settle("queue", "out-1", Settlement::Delivered { answer: None }).await;
    let has_answer = "receipts WHERE instr(block, CAST('{\"nodes\":3}' AS BLOB)) > 0";
    assert_eq!((harness.count("receipts"), harness.count(has_answer)), (2, 1));
    assert_eq!(harness.count("deliveries"), 0, "a delivery that arrived has no row");
    harness.restart().await;
    harness.prune().await;
    harness.prune().await;
    assert_eq!((harness.count("events"), harness.count("receipts")), (0, 0));
    harness.emit_resolved("b", "in", &["queue"]).await;
    assert!(!harness.claim_one("queue", "in").await.nothing_to_compensate, "an answer is not a failure");
}

impl StoreHarness {
    async fn claim_and_withdraw(&self, destination: &str, id: &str) {
        let claimed = self.claim_one(destination, id).await;
        assert!(claimed.nothing_to_compensate);
        self.settle(destination, claimed.lease, withdrawn()).await;
    }
}
