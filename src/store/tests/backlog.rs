//! `max_backlog`: events for a full destination become dead letters at once; other destinations are not affected.

use super::*;

#[tokio::test]
async fn events_for_a_full_destination_are_dead_letters_at_once_and_others_get_them() {
    for mut harness in StoreHarness::all().await {
        harness.store.set_max_backlog(&name("queue"), Some(3)).unwrap();
        for at in 0..5 {
            harness.emit_firing(&format!("t{at}"), &at.to_string(), &["queue", "journal"]).await;
        }
        assert_eq!((harness.backlog("queue"), harness.backlog("journal")), ((3, 0, 2), (5, 0, 0)));
        assert_eq!(harness.store.undelivered(), 8);
        harness.restart().await;
        assert_eq!((harness.backlog("queue"), harness.store.undelivered()), ((3, 0, 2), 8));
        let dead_letters = harness.store.dead_letters(None, None, 10).await.unwrap();
        let actual: Vec<(&str, u32)> =
            dead_letters.iter().map(|dead_letter| (dead_letter.id.as_str(), dead_letter.attempts)).collect();
        assert_eq!(actual, [("3", 0), ("4", 0)]);
        assert!(
            dead_letters.iter().all(|dead_letter| dead_letter.error.starts_with("backlog_full")),
            "{dead_letters:?}"
        );
        let seqs = harness.claim_expecting("queue", &["0", "1", "2"]).await;
        harness.claim_expecting("journal", &["0", "1", "2", "3", "4"]).await;
        harness.settle("queue", seqs[0], Settlement::Delivered { answer: None }).await;
        harness.store.set_max_backlog(&name("queue"), Some(3)).unwrap();
        harness.emit_firing("t5", "5", &["queue"]).await;
        harness.claim_expecting("queue", &["5"]).await;
        harness
            .store
            .redrive(&dead_letters[0].delivery_id, Redrive::default(), audit("redrive"))
            .await
            .unwrap();
        harness.claim_expecting("queue", &["3"]).await;
        assert_eq!(harness.backlog("queue"), (4, 0, 1));
    }
}

#[tokio::test]
async fn max_backlog_holds_within_one_commit_and_beyond_the_window() {
    const { assert!(crate::store::lane::MAX_WINDOW_EVENTS < 30) };
    for mut harness in StoreHarness::all().await {
        harness.store.set_max_backlog(&name("queue"), Some(30)).unwrap();
        harness
            .write(&["a"], |_| {
                let mut changes = event("a", Kind::Note, "0", &["queue"]).changes();
                changes
                    .events
                    .extend((1..50).map(|at| event("a", Kind::Note, &at.to_string(), &["queue"]).event()));
                changes
            })
            .await;
        assert_eq!(harness.backlog("queue"), (30, 0, 20));
        harness.restart().await;
        assert_eq!((harness.backlog("queue"), harness.store.undelivered()), ((30, 0, 20), 30));
        for at in 0..30 {
            harness.claim_and_settle("queue", &at.to_string(), Settlement::Delivered { answer: None }).await;
        }
        harness.claim_expecting("queue", &[]).await;
        assert_eq!((harness.backlog("queue"), harness.store.undelivered()), ((0, 0, 20), 0));
    }
}

#[tokio::test]
async fn an_event_that_a_full_destination_did_not_accept_is_not_compensated() {
    for mut harness in StoreHarness::all().await {
        harness.emit_firing("a", "out-a", &["queue"]).await;
        harness.store.set_max_backlog(&name("queue"), Some(1)).unwrap();
        harness.emit_firing("b", "out-b", &["queue"]).await;
        harness.store.set_max_backlog(&name("queue"), None).unwrap();
        harness.restart().await;
        harness.emit_resolved("b", "in-b", &["queue"]).await;
        let claimed = harness.store.claim(&name("queue"), 10).await.unwrap();
        let actual: Vec<_> = claimed.iter().map(|one| (id_of(one), one.nothing_to_compensate)).collect();
        assert_eq!(actual, [("out-a".to_owned(), false), ("in-b".to_owned(), true)]);
    }
}

#[tokio::test]
async fn undelivered_events_are_counted_whatever_their_outcome() {
    for mut harness in StoreHarness::all().await {
        harness.emit("a", Kind::Note, "a", &["queue"]).await;
        harness.emit_decreases("b", &["b"], &["queue"]).await;
        for target in ["c", "d"] {
            harness.emit(target, Kind::Note, target, &["queue"]).await;
        }
        let seqs = harness.claim_expecting("queue", &["a", "b", "c", "d"]).await;
        harness.settle("queue", seqs[0], Settlement::Delivered { answer: None }).await;
        harness.settle("queue", seqs[1], retry_after(0)).await;
        harness.settle("queue", seqs[2], dead()).await;
        assert_eq!(harness.store.undelivered(), 2);
        harness.emit_cancelling("b", "out", &["queue"], &["b"]).await;
        assert_eq!(harness.store.undelivered(), 2, "one was cancelled, one is new");
        harness.restart().await;
        let (pending, retrying, _) = harness.backlog("queue");
        assert_eq!(harness.store.undelivered(), pending + retrying);
    }
}
