//! What undoes goes where what it undoes has arrived, and nowhere else.

use super::*;

const BOTH: [&str; 2] = ["queue", "journal"];

#[tokio::test]
async fn what_undoes_is_sent_where_what_was_done_has_arrived_and_withdrawn_where_it_never_did() {
    for mut house in House::both() {
        house.fire("a", "out", &BOTH).await;
        house.resolve("a", "in", &BOTH).await;
        house.ends("queue", "out", Settlement::Delivered).await;
        house.ends("journal", "out", dead()).await;
        house.restart().await;
        assert!(!house.takes("queue", "in").await.undoes_nothing);
        let claimed = house.takes("journal", "in").await;
        assert!(claimed.undoes_nothing);
        house.settle("journal", claimed.seq, withdrawn()).await;
        assert_eq!(house.backlog("journal"), (0, 0, 1), "it is no dead letter");
    }
}

#[tokio::test]
async fn what_undoes_waits_for_what_is_tried_again() {
    for mut house in House::both() {
        house.fire("a", "out", &["queue"]).await;
        house.ends("queue", "out", retry_after(0)).await;
        house.resolve("a", "in", &["queue"]).await;
        house.restart().await;
        let claimed = house.takes("queue", "out").await;
        assert_eq!((claimed.attempts, claimed.last_error.as_deref()), (1, Some("no answer")));
        house.settle("queue", claimed.seq, Settlement::Delivered).await;
        let claimed = house.takes("queue", "in").await;
        assert!(!claimed.undoes_nothing);
        assert_eq!(claimed.last_error, None);
    }
}

#[tokio::test]
async fn one_of_several_that_has_arrived_is_enough() {
    for mut house in House::both() {
        for id in ["out-1", "out-2", "out-3"] {
            house.fire("a", id, &["queue"]).await;
        }
        house.ends("queue", "out-1", dead()).await;
        house.ends("queue", "out-2", Settlement::Delivered).await;
        house.ends("queue", "out-3", dead()).await;
        house.restart().await;
        house.prune().await;
        house.resolve("a", "in", &["queue"]).await;
        house.restart().await;
        assert!(!house.takes("queue", "in").await.undoes_nothing);
    }
}

#[tokio::test]
async fn another_episode_of_the_target_is_no_evidence() {
    for house in House::both() {
        let fires = |episode: &'static str, id| {
            house.chapter(event("a", Kind::Out, id, &["queue"]), Phase::Firing, episode)
        };
        fires("e1", "out-1").await;
        house.ends("queue", "out-1", Settlement::Delivered).await;
        house.chapter(event("a", Kind::In, "in-1", &["queue"]), Phase::Resolved, "e1").await;
        house.ends("queue", "in-1", Settlement::Delivered).await;
        fires("e2", "out-2").await;
        house.ends("queue", "out-2", dead()).await;
        house.chapter(event("a", Kind::In, "in-2", &["queue"]), Phase::Resolved, "e2").await;
        assert!(house.takes("queue", "in-2").await.undoes_nothing);
    }
}

#[tokio::test]
async fn a_destination_that_came_to_the_rule_later_is_not_sent_what_undoes() {
    for mut house in House::both() {
        house.fire("a", "out", &["queue"]).await;
        house.ends("queue", "out", Settlement::Delivered).await;
        house.resolve("a", "in", &BOTH).await;
        assert_eq!((house.backlog("queue"), house.backlog("journal")), ((1, 0, 0), (0, 0, 0)));
        house.restart().await;
        house.sends("journal", &[]).await;
        assert_eq!(house.backlog("journal"), (0, 0, 0));
        assert!(!house.takes("queue", "in").await.undoes_nothing);
        let decisions = house.decisions("a").await;
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
    for house in House::both() {
        house.fire("a", "out", &["queue"]).await;
        house.ends("queue", "out", dead()).await;
        house.resolve("a", "in", &["queue"]).await;
        house.ends("queue", "in", withdrawn()).await;
        let expected = json!({
            "rule": "nodes", "target": "a", "phase": "resolved", "episode": "e", "action": "scale_in",
            "verdict": "withdrawn", "detail": "there is nothing to undo", "alerts": ["f1"], "event": "in",
            "destination": "queue",
        });
        assert_eq!(house.decisions("a").await, [expected]);
    }
}

#[tokio::test]
async fn what_was_delivered_and_pruned_has_arrived() {
    let mut house = House::sqlite();
    house.fire("a", "out", &["queue"]).await;
    house.fire("b", "other", &["queue"]).await;
    let seqs = house.sends("queue", &["out", "other"]).await;
    house.settle("queue", seqs[0], Settlement::Delivered).await;
    house.settle("queue", seqs[1], dead()).await;
    house.restart().await;
    house.prune().await;
    assert_eq!(house.count("events"), 1, "the dead letter");
    house.resolve("a", "in", &["queue"]).await;
    house.restart().await;
    assert!(!house.takes("queue", "in").await.undoes_nothing);
}

#[tokio::test]
async fn what_was_discarded_has_not_arrived_however_much_was_pruned() {
    for mut house in House::both() {
        house.fire("a", "out", &["queue"]).await;
        let claimed = house.takes("queue", "out").await;
        house.settle("queue", claimed.seq, dead()).await;
        house.store.discard(&Place { seq: claimed.seq, destination: name("queue") }).await.unwrap();
        assert_eq!(house.backlog("queue"), (0, 0, 0));
        for _ in 0..3 {
            house.prune().await;
            house.restart().await;
        }
        house.resolve("a", "in", &["queue"]).await;
        for _ in 0..3 {
            house.prune().await;
            house.restart().await;
        }
        house.ends_withdrawn("queue", "in").await;
    }
    let house = House::sqlite();
    house.fire("a", "out", &["queue"]).await;
    let claimed = house.takes("queue", "out").await;
    house.settle("queue", claimed.seq, dead()).await;
    house.store.discard(&Place { seq: claimed.seq, destination: name("queue") }).await.unwrap();
    house.resolve("a", "in", &["queue"]).await;
    house.ends_withdrawn("queue", "in").await;
    for _ in 0..3 {
        house.prune().await;
    }
    assert_eq!((house.count("events"), house.count("deliveries")), (0, 0), "nobody asks any more");
}

#[tokio::test]
async fn what_was_redriven_and_arrived_is_undone() {
    for mut house in House::both() {
        house.fire("a", "out", &["queue"]).await;
        let claimed = house.takes("queue", "out").await;
        house.settle("queue", claimed.seq, dead()).await;
        house.resolve("a", "in", &["queue"]).await;
        let place = Place { seq: claimed.seq, destination: name("queue") };
        house.store.redrive(&place, Redrive::default()).await.unwrap();
        house.restart().await;
        house.ends("queue", "out", Settlement::Delivered).await;
        house.restart().await;
        assert!(!house.takes("queue", "in").await.undoes_nothing);
    }
}

#[tokio::test]
async fn a_scale_in_that_was_cancelled_is_not_undone_unless_it_arrived_nevertheless() {
    for mut house in House::both() {
        for (target, arrives) in [("a", true), ("b", false)] {
            house.chapter(event(target, Kind::In, "in", &["queue"]), Phase::Firing, "e").await;
            let claimed = house.takes("queue", "in").await;
            house
                .write(&[target], move |_| {
                    let mut changes = event(target, Kind::Out, "more", &["queue"]).changes();
                    changes.states = vec![(key(target), open_episode("e"))];
                    changes
                })
                .await;
            house
                .settle("queue", claimed.seq, if arrives { Settlement::Delivered } else { retry_after(0) })
                .await;
            house.ends("queue", "more", Settlement::Delivered).await;
            house.restart().await;
            house.prune().await;
            house.chapter(event(target, Kind::Out, "back", &["queue"]), Phase::Resolved, "e").await;
            let claimed = house.takes("queue", "back").await;
            assert_eq!(claimed.undoes_nothing, !arrives);
            house.settle("queue", claimed.seq, Settlement::Delivered).await;
        }
    }
}

#[tokio::test]
async fn what_was_open_before_the_store_remembered_is_undone_as_before() {
    let mut house = House::sqlite();
    house.fire("a", "out", &["queue"]).await;
    house.ends("queue", "out", Settlement::Delivered).await;
    house.store.close().await;
    house.database().execute_batch("UPDATE targets SET fired = NULL").unwrap();
    house.restart().await;
    house.fire("a", "more", &["queue"]).await;
    house.ends("queue", "more", dead()).await;
    house.resolve("a", "in", &["queue"]).await;
    assert!(!house.takes("queue", "in").await.undoes_nothing, "nobody knows about the first");
}

#[tokio::test]
async fn an_answer_is_kept_as_long_as_its_event() {
    let mut house = House::sqlite();
    house.fire("a", "out-1", &["queue"]).await;
    house.fire("b", "out-2", &["queue"]).await;
    let seqs = house.sends("queue", &["out-1", "out-2"]).await;
    // The second one's row lies above the cursor.
    house.settle("queue", seqs[1], Settlement::Answered { answer: "{\"nodes\":3}".into() }).await;
    assert_eq!(house.backlog("queue"), (1, 0, 0));
    house.restart().await;
    assert_eq!(house.backlog("queue"), (1, 0, 0));
    house.ends("queue", "out-1", Settlement::Delivered).await;
    let kept = "SELECT error FROM deliveries WHERE state = 4";
    let answers = |house: &House| {
        let database = house.database();
        let mut query = database.prepare(kept).unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect::<Vec<String>>()
    };
    assert_eq!(answers(&house), ["{\"nodes\":3}"]);
    assert_eq!(house.count("deliveries"), 1, "nothing is kept of what arrived without an answer");
    house.restart().await;
    house.prune().await;
    house.prune().await;
    assert_eq!((house.count("events"), house.count("deliveries")), (0, 0));
    house.resolve("b", "in", &["queue"]).await;
    assert!(!house.takes("queue", "in").await.undoes_nothing, "an answer is no failure");
}

impl House {
    async fn ends_withdrawn(&self, destination: &str, id: &str) {
        let claimed = self.takes(destination, id).await;
        assert!(claimed.undoes_nothing);
        self.settle(destination, claimed.seq, withdrawn()).await;
    }
}
