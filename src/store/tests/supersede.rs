//! What adds capacity cancels what would take it away and was not sent yet.

use super::*;
use crate::store::look::Wanted;

const BOTH: [&str; 2] = ["queue", "journal"];

#[tokio::test]
async fn what_was_not_sent_is_named_to_whoever_decides_about_its_target() {
    for house in House::both() {
        house.emit("a", Kind::In, "in-1", &["queue"]).await;
        house.emit("b", Kind::In, "in-2", &["queue"]).await;
        assert_eq!(house.emit("a", Kind::Note, "note", &["queue"]).await, ["in-1"]);
        let keys = Keys { targets: Vec::new(), alerts: vec![alert("a")] };
        let told = house.store.transact(keys, |view| (Changes::default(), view.unsent.clone()));
        let told = told.await.unwrap();
        let unsent = &told[&key("a")][0];
        assert_eq!((unsent.rule.as_str(), &unsent.alerts[..]), ("nodes", &[alert("f1")][..]));
        let seqs = house.sends("queue", &["in-1", "in-2"]).await;
        house.settle("queue", seqs[0], Settlement::Delivered).await;
        house.settle("queue", seqs[1], Settlement::Dead { error: "refused".into() }).await;
        assert_eq!(house.emit("a", Kind::Out, "out", &["queue"]).await, [""; 0]);
        assert_eq!(house.emit("b", Kind::Out, "out", &["queue"]).await, [""; 0]);
    }
}

#[tokio::test]
async fn what_waits_to_be_sent_is_cancelled_and_its_target_goes_on() {
    for mut house in House::both() {
        house.emit("a", Kind::Note, "note", &BOTH).await;
        house.emit("a", Kind::In, "in-1", &BOTH).await;
        house.emit("a", Kind::In, "in-2", &BOTH).await;
        house.emit("b", Kind::In, "in-3", &BOTH).await;
        assert_eq!(house.emit("a", Kind::Out, "out", &BOTH).await, ["in-1", "in-2"]);
        assert_eq!(house.emit("a", Kind::Note, "last", &BOTH).await, [""; 0]);
        assert_eq!(house.backlog("queue"), (4, 0, 0));
        house.restart().await;
        assert_eq!(house.backlog("queue"), (4, 0, 0));
        for destination in BOTH {
            let seqs = house.sends(destination, &["note", "in-3"]).await;
            house.settle(destination, seqs[0], Settlement::Delivered).await;
            let seqs = house.sends(destination, &["out"]).await;
            house.settle(destination, seqs[0], Settlement::Delivered).await;
            house.sends(destination, &["last"]).await;
            assert_eq!(house.backlog(destination), (2, 0, 0));
        }
    }
}

#[tokio::test]
async fn what_waits_for_another_try_is_cancelled() {
    for mut house in House::both() {
        house.emit("a", Kind::In, "in", &["queue"]).await;
        let seqs = house.sends("queue", &["in"]).await;
        house.settle("queue", seqs[0], retry_after(0)).await;
        house.restart().await;
        assert_eq!(house.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
        assert_eq!(house.backlog("queue"), (1, 0, 0));
        house.restart().await;
        assert_eq!(house.backlog("queue"), (1, 0, 0));
        house.sends("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn what_is_on_its_way_is_not_tried_again_when_it_fails() {
    for mut house in House::both() {
        house.emit("a", Kind::In, "in", &["queue"]).await;
        let seqs = house.sends("queue", &["in"]).await;
        assert_eq!(house.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
        house.sends("queue", &[]).await;
        house.settle("queue", seqs[0], retry_after(0)).await;
        house.restart().await;
        assert_eq!(house.backlog("queue"), (1, 0, 0));
        house.sends("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn what_waits_for_its_call_is_known_to_be_cancelled_and_has_one_line_of_history() {
    for mut house in House::both() {
        house.emit("a", Kind::In, "in", &BOTH).await;
        let seqs = house.sends("queue", &["in"]).await;
        assert!(!house.store.is_cancelled(&name("queue"), seqs[0]));
        house.emit("a", Kind::Out, "out", &BOTH).await;
        assert!(house.store.is_cancelled(&name("queue"), seqs[0]));
        let before = house.store.records(Wanted::default()).await.unwrap().records.len();
        house.settle("queue", seqs[0], Settlement::Withdrawn { reason: "too late".into() }).await;
        assert_eq!(house.store.records(Wanted::default()).await.unwrap().records.len(), before);
        house.restart().await;
        assert_eq!(house.backlog("queue"), (1, 0, 0));
        house.sends("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn what_is_on_its_way_may_arrive() {
    for mut house in House::both() {
        house.emit("a", Kind::In, "in", &["queue"]).await;
        let seqs = house.sends("queue", &["in"]).await;
        house.emit("a", Kind::Out, "out", &["queue"]).await;
        house.settle("queue", seqs[0], Settlement::Delivered).await;
        house.restart().await;
        assert_eq!(house.backlog("queue"), (1, 0, 0));
        house.sends("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn what_was_on_its_way_when_the_bridge_ended_is_not_sent_again() {
    let mut house = House::sqlite();
    // One that is before it and not settled holds the cursor.
    house.emit("b", Kind::Note, "first", &["queue"]).await;
    house.emit("a", Kind::In, "in-1", &["queue"]).await;
    house.emit("c", Kind::In, "in-2", &["queue"]).await;
    let seqs = house.sends("queue", &["first", "in-1", "in-2"]).await;
    house.emit("a", Kind::Out, "out-1", &["queue"]).await;
    house.emit("c", Kind::Out, "out-2", &["queue"]).await;
    house.settle("queue", seqs[2], Settlement::Delivered).await;
    house.restart().await;
    house.sends("queue", &["first", "out-1", "out-2"]).await;
    assert_eq!(house.backlog("queue"), (3, 0, 0));
}

#[tokio::test]
async fn each_destination_is_spared_what_it_was_not_sent() {
    for mut house in House::both() {
        house.emit("a", Kind::In, "in", &BOTH).await;
        let seqs = house.sends("queue", &["in"]).await;
        house.settle("queue", seqs[0], Settlement::Delivered).await;
        house.restart().await;
        assert_eq!(house.emit("a", Kind::Out, "out", &BOTH).await, ["in"]);
        house.sends("queue", &["out"]).await;
        house.sends("journal", &["out"]).await;
    }
}

#[tokio::test]
async fn what_lies_beyond_the_window_is_cancelled() {
    for mut house in House::both() {
        house
            .write(&["b"], |_| {
                let mut changes = event("b", Kind::Note, "note", &["queue"]).changes();
                let note = || event("b", Kind::Note, "note", &["queue"]).event();
                changes.events.extend((0..50).map(|_| note()));
                changes
            })
            .await;
        house.emit("a", Kind::In, "in", &["queue"]).await;
        let seqs = house.sends("queue", &["note"]).await;
        assert_eq!(house.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
        assert_eq!(house.backlog("queue"), (52, 0, 0));
        house.settle("queue", seqs[0], Settlement::Delivered).await;
        house.restart().await;
        assert_eq!(house.backlog("queue"), (51, 0, 0));
        let mut ids = Vec::new();
        while ids.len() < 51 {
            for (seq, id) in house.claim("queue").await {
                house.settle("queue", seq, Settlement::Delivered).await;
                ids.push(id);
            }
        }
        assert!(!ids.contains(&"in".to_owned()));
        assert_eq!(house.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn what_is_cancelled_is_pruned_when_all_before_it_is_settled() {
    let house = House::sqlite();
    house.emit("b", Kind::Note, "first", &["queue"]).await;
    house.emit("a", Kind::In, "in", &["queue"]).await;
    house.emit("a", Kind::Out, "out", &["queue"]).await;
    assert_eq!(house.count("deliveries WHERE state = 3"), 1, "the cursor does not tell it");
    for seq in house.sends("queue", &["first", "out"]).await {
        house.settle("queue", seq, Settlement::Delivered).await;
    }
    for _ in 0..2 {
        house.store.prune(Duration::ZERO, Duration::ZERO).await.unwrap();
    }
    assert_eq!(house.count("deliveries"), 0);
    assert_eq!(house.count("events"), 0);
}

#[tokio::test]
async fn a_destination_that_comes_back_is_not_sent_what_was_cancelled_meanwhile() {
    let mut house = House::sqlite();
    house.emit("a", Kind::In, "in", &["journal"]).await;
    house.restart_for(&[name("queue")]).await;
    assert_eq!(house.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
    house.restart().await;
    house.sends("journal", &[]).await;
    assert_eq!(house.backlog("journal"), (0, 0, 0));
    house.sends("queue", &["out"]).await;
}

#[tokio::test]
async fn a_target_that_was_forgotten_meanwhile_is_still_the_same() {
    for mut house in House::both() {
        house.emit("a", Kind::In, "in", &["queue"]).await;
        house
            .write(&["a"], |_| Changes {
                states: vec![(key("a"), TargetState::default())],
                ..Changes::default()
            })
            .await;
        house.restart().await;
        assert_eq!(house.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
        house.sends("queue", &["out"]).await;
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_left_as_it_is() {
    for house in House::both() {
        house
            .write(&["a"], |_| {
                let mut changes = event("a", Kind::In, "in", &["queue"]).changes();
                changes.events[0].body = r#"{"id":"strange"}"#.into();
                changes
            })
            .await;
        assert_eq!(house.emit("a", Kind::Out, "out", &["queue"]).await, [""; 0]);
        house.sends("queue", &["strange"]).await;
    }
}
