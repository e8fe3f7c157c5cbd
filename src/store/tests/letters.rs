//! Dead letters are listed, sent once more and thrown away.

use super::*;

fn place(seq: EventSeq) -> Place {
    Place { seq, destination: name("queue") }
}

impl House {
    /// An event about a target that was given up.
    async fn bury(&self, target: &str, id: &str, kind: Kind) -> Place {
        self.chapter(event(target, kind, id, &["queue"]), Phase::Firing, "e").await;
        let claimed = self.takes("queue", id).await;
        self.settle("queue", claimed.seq, dead()).await;
        place(claimed.seq)
    }

    async fn letters(&self) -> Vec<String> {
        let letters = self.store.dead_letters(None, None, 100).await.unwrap();
        letters.into_iter().map(|letter| letter.id).collect()
    }
}

fn force() -> Redrive {
    Redrive { force: true, ..Redrive::default() }
}

#[tokio::test]
async fn all_that_is_known_of_a_dead_letter_is_shown() {
    for mut house in House::both() {
        house.fire("a", "out", &["queue"]).await;
        let claimed = house.takes("queue", "out").await;
        house.settle("queue", claimed.seq, retry_after(0)).await;
        house.ends("queue", "out", dead()).await;
        house.restart().await;
        let letter = house.store.dead_letter(&place(claimed.seq)).await.unwrap().expect("a dead letter");
        assert_eq!(
            (letter.id.as_str(), letter.rule.as_str(), letter.target.as_str(), letter.action.as_str()),
            ("out", "nodes", "a", "scale_out")
        );
        assert_eq!((letter.attempts, letter.error.as_str()), (2, "refused"));
        assert_eq!(letter.event, claimed.body);
        assert!(letter.given_up_at >= letter.emitted_at);
        let other = Place { seq: EventSeq(claimed.seq.0 + 1), ..letter.place };
        assert_eq!(house.store.dead_letter(&other).await.unwrap(), None);
    }
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages_the_newest_last() {
    for house in House::both() {
        for at in 0..5 {
            let id = at.to_string();
            house.emit("a", Kind::Note, &id, &["queue", "journal"]).await;
            for destination in ["queue", "journal"] {
                house.ends(destination, &id, dead()).await;
            }
        }
        for destination in [None, Some(name("journal"))] {
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                let page = house.store.dead_letters(destination.as_ref(), after.as_ref(), 3).await.unwrap();
                let Some(last) = page.last() else { break };
                after = Some(last.place.clone());
                pages.extend(
                    page.into_iter().map(|letter| format!("{} {}", letter.id, letter.place.destination)),
                );
            }
            let all = (0..5).flat_map(|at| [format!("{at} journal"), format!("{at} queue")]);
            let expected: Vec<String> =
                all.filter(|one| destination.is_none() || one.ends_with("journal")).collect();
            assert_eq!(pages, expected);
        }
    }
}

#[tokio::test]
async fn a_dead_letter_is_sent_once_more_and_no_more_often() {
    for mut house in House::both() {
        let place = house.bury("a", "out", Kind::Out).await;
        house.restart().await;
        house.store.redrive(&place, Redrive::default()).await.unwrap();
        let again = house.store.redrive(&place, Redrive::default()).await;
        assert!(matches!(again, Err(LetterError::NotDead)), "{again:?}");
        assert_eq!(house.backlog("queue"), (0, 1, 0));
        assert_eq!(house.letters().await, [""; 0]);
        house.restart().await;
        assert_eq!(house.backlog("queue"), (0, 1, 0));
        let claimed = house.takes("queue", "out").await;
        assert_eq!((claimed.attempts, claimed.last_error.as_deref()), (1, Some("refused")));
        house.settle("queue", claimed.seq, Settlement::Delivered).await;
        house.restart().await;
        house.sends("queue", &[]).await;
        assert_eq!(house.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn two_that_redrive_at_once_redrive_once() {
    let house = House::sqlite();
    let place = house.bury("a", "out", Kind::Out).await;
    let gate = Gate::new(&house.store, true).await;
    let redrive = || {
        let (store, place) = (house.store.clone(), place.clone());
        tokio::spawn(async move { store.redrive(&place, Redrive::default()).await })
    };
    let both = [redrive(), redrive()];
    gate.open().await;
    let mut done = Vec::new();
    for one in both {
        done.push(one.await.unwrap().is_ok());
    }
    assert_eq!(done, [true, false]);
    assert_eq!(house.backlog("queue"), (0, 1, 0));
    house.takes("queue", "out").await;
}

#[tokio::test]
async fn what_is_redriven_takes_its_place_before_what_came_later_and_is_left() {
    for mut house in House::both() {
        let first = house.bury("a", "1", Kind::Note).await;
        let third = {
            house.emit("a", Kind::Note, "2", &["queue"]).await;
            house.ends("queue", "2", Settlement::Delivered).await;
            house.bury("a", "3", Kind::Note).await
        };
        house.emit("a", Kind::Note, "4", &["queue"]).await;
        house.emit("a", Kind::Note, "5", &["queue"]).await;
        let out = house.takes("queue", "4").await;
        for place in [&third, &first] {
            house.store.redrive(place, Redrive::default()).await.unwrap();
        }
        house.sends("queue", &[]).await;
        house.settle("queue", out.seq, Settlement::Delivered).await;
        house.restart().await;
        for id in ["1", "3", "5"] {
            house.ends("queue", id, Settlement::Delivered).await;
        }
    }
}

#[tokio::test]
async fn an_expirytime_is_only_rewritten_when_that_is_asked_for_and_nothing_else_is() {
    for mut house in House::both() {
        let place = house.bury("a", "out", Kind::Out).await;
        let before = house.store.dead_letter(&place).await.unwrap().unwrap().event;
        let valid_for = Some(2 * HOUR);
        house.store.redrive(&place, Redrive { valid_for, force: false }).await.unwrap();
        house.restart().await;
        let claimed = house.takes("queue", "out").await;
        let expiry = |event: &str| {
            let event: serde_json::Value = serde_json::from_str(event).unwrap();
            event["expirytime"].as_str().unwrap().to_owned()
        };
        let (old, new) = (expiry(&before), expiry(&claimed.body));
        let valid_until = Time::parse(&new).unwrap();
        assert!(valid_until >= now().after(2 * HOUR) && valid_until < now().after(3 * HOUR), "{new}");
        assert_eq!(claimed.body.replace(&new, &old), *before);
        house.settle("queue", claimed.seq, dead()).await;
        let letter = house.store.dead_letter(&place).await.unwrap().unwrap();
        assert_eq!(expiry(&letter.event), new, "a second redrive goes on from it");
        house.store.redrive(&place, Redrive::default()).await.unwrap();
        assert_eq!(expiry(&house.takes("queue", "out").await.body), new);
    }
}

#[tokio::test]
async fn another_destination_keeps_the_event_as_it_was() {
    for house in House::both() {
        house.fire("a", "out", &["queue", "journal"]).await;
        let claimed = house.takes("queue", "out").await;
        house.settle("queue", claimed.seq, dead()).await;
        let valid_for = Some(2 * HOUR);
        house.store.redrive(&place(claimed.seq), Redrive { valid_for, force: false }).await.unwrap();
        assert_ne!(house.takes("queue", "out").await.body, claimed.body);
        assert_eq!(house.takes("journal", "out").await.body, claimed.body);
    }
}

#[tokio::test]
async fn what_is_stale_stays_a_dead_letter_and_the_caller_is_told() {
    for house in House::both() {
        house
            .write(&["a"], |_| {
                let emission = event("a", Kind::Out, "out", &["queue"]);
                let chapter = Chapter { emission, phase: Phase::Firing, episode: "e".into() };
                let mut changes = chapter.changes();
                let event = &mut changes.events[0];
                event.body = event
                    .body
                    .replace(&now().after(HOUR).to_millis_string(), "2026-11-22T16:00:00.000Z")
                    .into();
                changes
            })
            .await;
        let claimed = house.takes("queue", "out").await;
        house.settle("queue", claimed.seq, dead()).await;
        let place = place(claimed.seq);
        let refused = house.store.redrive(&place, Redrive::default()).await;
        assert!(matches!(refused, Err(LetterError::Expired { .. })), "{refused:?}");
        assert_eq!(house.backlog("queue"), (0, 0, 1));
        house.store.redrive(&place, Redrive { valid_for: Some(HOUR), force: false }).await.unwrap();
        assert_eq!(house.backlog("queue"), (0, 1, 0));
    }
}

#[tokio::test]
async fn what_takes_capacity_away_is_only_redriven_by_force_and_may_be_superseded_again() {
    for mut house in House::both() {
        let place = house.bury("a", "in", Kind::In).await;
        let refused = house.store.redrive(&place, Redrive::default()).await;
        assert!(matches!(refused, Err(LetterError::TakesAway)), "{refused:?}");
        assert_eq!(house.emit("a", Kind::Note, "note-1", &["queue"]).await, [""; 0]);
        house.ends("queue", "note-1", Settlement::Delivered).await;
        house.store.redrive(&place, force()).await.unwrap();
        assert_eq!(house.emit("a", Kind::Note, "note-2", &["queue"]).await, ["in"]);
        house.restart().await;
        assert_eq!(house.emit("a", Kind::Out, "out", &["queue"]).await, ["in"]);
        for id in ["note-2", "out"] {
            house.ends("queue", id, Settlement::Delivered).await;
        }
        assert_eq!(house.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn what_is_no_event_is_not_redriven() {
    for house in House::both() {
        house
            .write(&["a"], |_| {
                let mut changes = event("a", Kind::Note, "note", &["queue"]).changes();
                changes.events[0].body = r#"{"id":"note"}"#.into();
                changes
            })
            .await;
        let claimed = house.takes("queue", "note").await;
        house.settle("queue", claimed.seq, dead()).await;
        let refused = house.store.redrive(&place(claimed.seq), force()).await;
        assert!(matches!(refused, Err(LetterError::Unreadable(_))), "{refused:?}");
        assert_eq!(house.letters().await, ["note"]);
    }
}

#[tokio::test]
async fn what_is_discarded_is_gone_for_good() {
    for mut house in House::both() {
        let place = house.bury("a", "out", Kind::Out).await;
        house.restart().await;
        house.store.discard(&place).await.unwrap();
        let again = house.store.discard(&place).await;
        assert!(matches!(again, Err(LetterError::NotDead)), "{again:?}");
        let redriven = house.store.redrive(&place, force()).await;
        assert!(matches!(redriven, Err(LetterError::NotDead)), "{redriven:?}");
        house.restart().await;
        assert_eq!((house.letters().await.len(), house.backlog("queue")), (0, (0, 0, 0)));
        house.sends("queue", &[]).await;
    }
}

#[tokio::test]
async fn dead_letters_of_a_destination_that_is_gone_are_listed_and_discarded() {
    let mut house = House::sqlite();
    let place = house.bury("a", "out", Kind::Out).await;
    house.restart_for(&[name("journal")]).await;
    assert_eq!(house.letters().await, ["out"]);
    let redriven = house.store.redrive(&place, force()).await;
    assert!(matches!(redriven, Err(LetterError::NotConfigured(_))), "{redriven:?}");
    house.store.discard(&place).await.unwrap();
    house.restart().await;
    assert_eq!(house.backlog("queue"), (0, 0, 0));
}

#[tokio::test]
async fn what_is_redriven_is_as_old_as_its_redrive() {
    for house in House::both() {
        let place = house.bury("a", "out", Kind::Out).await;
        let letter = house.store.dead_letter(&place).await.unwrap().unwrap();
        house.store.redrive(&place, Redrive::default()).await.unwrap();
        assert!(house.takes("queue", "out").await.emitted_at >= letter.given_up_at);
    }
}
