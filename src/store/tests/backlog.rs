//! A destination takes no more than its bound, and nobody waits for it.

use super::*;

#[tokio::test]
async fn what_a_full_destination_is_given_is_a_dead_letter_at_once_and_others_get_it() {
    for mut house in House::both() {
        house.store.bound(&name("queue"), Some(3)).unwrap();
        for at in 0..5 {
            house.fire(&format!("t{at}"), &at.to_string(), &["queue", "journal"]).await;
        }
        assert_eq!((house.backlog("queue"), house.backlog("journal")), ((3, 0, 2), (5, 0, 0)));
        assert_eq!(house.store.undelivered(), 8);
        house.restart().await;
        assert_eq!((house.backlog("queue"), house.store.undelivered()), ((3, 0, 2), 8));
        let letters = house.store.dead_letters(None, None, 10).await.unwrap();
        let told: Vec<(&str, u32)> =
            letters.iter().map(|letter| (letter.id.as_str(), letter.attempts)).collect();
        assert_eq!(told, [("3", 0), ("4", 0)]);
        assert!(letters.iter().all(|letter| letter.error.starts_with("backlog_full")), "{letters:?}");
        let seqs = house.sends("queue", &["0", "1", "2"]).await;
        house.sends("journal", &["0", "1", "2", "3", "4"]).await;
        house.settle("queue", seqs[0], Settlement::Delivered).await;
        house.store.bound(&name("queue"), Some(3)).unwrap();
        house.fire("t5", "5", &["queue"]).await;
        house.sends("queue", &["5"]).await;
        house.store.redrive(&letters[0].place, Redrive::default()).await.unwrap();
        house.sends("queue", &["3"]).await;
        assert_eq!(house.backlog("queue"), (4, 0, 1));
    }
}

#[tokio::test]
async fn a_bound_holds_within_one_commit_and_beyond_the_window() {
    for mut house in House::both() {
        house.store.bound(&name("queue"), Some(30)).unwrap();
        house
            .write(&["a"], |_| {
                let mut changes = event("a", Kind::Note, "0", &["queue"]).changes();
                changes
                    .events
                    .extend((1..50).map(|at| event("a", Kind::Note, &at.to_string(), &["queue"]).event()));
                changes
            })
            .await;
        assert_eq!(house.backlog("queue"), (30, 0, 20));
        house.restart().await;
        assert_eq!((house.backlog("queue"), house.store.undelivered()), ((30, 0, 20), 30));
        for at in 0..30 {
            house.ends("queue", &at.to_string(), Settlement::Delivered).await;
        }
        house.sends("queue", &[]).await;
        assert_eq!((house.backlog("queue"), house.store.undelivered()), ((0, 0, 20), 0));
    }
}

#[tokio::test]
async fn what_never_got_in_is_not_undone() {
    for mut house in House::both() {
        house.fire("a", "out-a", &["queue"]).await;
        house.store.bound(&name("queue"), Some(1)).unwrap();
        house.fire("b", "out-b", &["queue"]).await;
        house.store.bound(&name("queue"), None).unwrap();
        house.restart().await;
        house.resolve("b", "in-b", &["queue"]).await;
        let claimed = house.store.claim(&name("queue"), 10).await.unwrap();
        let told: Vec<_> = claimed.iter().map(|one| (id_of(one), one.undoes_nothing)).collect();
        assert_eq!(told, [("out-a".to_owned(), false), ("in-b".to_owned(), true)]);
    }
}

#[tokio::test]
async fn what_is_left_is_counted_whatever_becomes_of_it() {
    for mut house in House::both() {
        for (target, kind) in [("a", Kind::Note), ("b", Kind::In), ("c", Kind::Note), ("d", Kind::Note)] {
            house.emit(target, kind, target, &["queue"]).await;
        }
        let seqs = house.sends("queue", &["a", "b", "c", "d"]).await;
        house.settle("queue", seqs[0], Settlement::Delivered).await;
        house.settle("queue", seqs[1], retry_after(0)).await;
        house.settle("queue", seqs[2], dead()).await;
        assert_eq!(house.store.undelivered(), 2);
        house.emit("b", Kind::Out, "out", &["queue"]).await;
        assert_eq!(house.store.undelivered(), 2, "one was cancelled, one is new");
        house.restart().await;
        let (pending, retrying, _) = house.backlog("queue");
        assert_eq!(house.store.undelivered(), pending + retrying);
    }
}
