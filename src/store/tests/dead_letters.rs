//! Dead letters are listed, redriven and discarded.

use super::tracking::tracking;
use super::*;
use crate::domain::delivery::DeliveryChangeKind;

fn delivery_id(seq: EventSeq) -> DeliveryId {
    DeliveryId { seq, destination: name("queue") }
}

impl StoreHarness {
    /// Emits an event about a target and settles it as a dead letter.
    async fn create_dead_letter(&self, target: &str, id: &str, kind: Kind) -> DeliveryId {
        self.emit_episode_event(event(target, kind, id, &["queue"]), Phase::Firing, "e").await;
        let claimed = self.claim_one("queue", id).await;
        self.settle("queue", claimed.lease, dead()).await;
        delivery_id(claimed.lease.seq())
    }

    async fn dead_letter_ids(&self) -> Vec<String> {
        let dead_letters = self.store.dead_letters(None, None, 100).await.unwrap();
        dead_letters.into_iter().map(|dead_letter| dead_letter.id).collect()
    }
}

fn force() -> Redrive {
    Redrive { force: true, ..Redrive::default() }
}

#[tokio::test]
async fn a_dead_letter_is_returned_with_all_its_fields() {
    for mut harness in StoreHarness::all().await {
        harness.emit_firing("a", "out", &["queue"]).await;
        let claimed = harness.claim_one("queue", "out").await;
        harness.settle("queue", claimed.lease, retry_after(0)).await;
        harness.claim_and_settle("queue", "out", dead()).await;
        harness.restart().await;
        let dead_letter = harness
            .store
            .dead_letter(&delivery_id(claimed.lease.seq()))
            .await
            .unwrap()
            .expect("a dead dead_letter");
        assert_eq!(
            (
                dead_letter.id.as_str(),
                dead_letter.rule.as_str(),
                dead_letter.target.as_str(),
                dead_letter.action.as_str()
            ),
            ("out", "nodes", "a", "scale_out")
        );
        assert_eq!((dead_letter.attempts, dead_letter.error.as_str()), (2, "refused"));
        assert_eq!(dead_letter.event, claimed.body);
        for at in [dead_letter.given_up_at, dead_letter.emitted_at] {
            assert!((now()..now().after(HOUR)).contains(&at), "{at:?}");
        }
        let other = DeliveryId { seq: EventSeq(claimed.lease.seq().0 + 1), ..dead_letter.delivery_id };
        assert_eq!(harness.store.dead_letter(&other).await.unwrap(), None);
    }
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages_the_newest_last() {
    for harness in StoreHarness::all().await {
        for at in 0..5 {
            let id = at.to_string();
            harness.emit("a", Kind::Note, &id, &["queue", "journal"]).await;
            for destination in ["queue", "journal"] {
                harness.claim_and_settle(destination, &id, dead()).await;
            }
        }
        for destination in [None, Some(name("journal"))] {
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                let page = harness.store.dead_letters(destination.as_ref(), after.as_ref(), 3).await.unwrap();
                let Some(last) = page.last() else { break };
                after = Some(last.delivery_id.clone());
                pages.extend(page.into_iter().map(|dead_letter| {
                    format!("{} {}", dead_letter.id, dead_letter.delivery_id.destination)
                }));
            }
            let all = (0..5).flat_map(|at| [format!("{at} journal"), format!("{at} queue")]);
            let expected: Vec<String> =
                all.filter(|one| destination.is_none() || one.ends_with("journal")).collect();
            assert_eq!(pages, expected);
        }
    }
}

#[tokio::test]
async fn a_dead_letter_is_redriven_once() {
    for mut harness in StoreHarness::all().await {
        let delivery_id = harness.create_dead_letter("a", "out", Kind::Out).await;
        harness.restart().await;
        harness.store.redrive(&delivery_id, Redrive::default(), audit("redrive")).await.unwrap();
        let second = harness.store.redrive(&delivery_id, Redrive::default(), audit("redrive")).await;
        assert!(matches!(second, Err(DeadLetterError::NotDead)), "{second:?}");
        assert_eq!(harness.backlog("queue"), (0, 1, 0));
        assert_eq!(harness.dead_letter_ids().await, [""; 0]);
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (0, 1, 0));
        let claimed = harness.claim_one("queue", "out").await;
        assert_eq!((claimed.attempts, claimed.last_error.as_deref()), (1, Some("refused")));
        harness.settle("queue", claimed.lease, Settlement::Delivered { answer: None }).await;
        harness.restart().await;
        harness.claim_expecting("queue", &[]).await;
        assert_eq!(harness.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn concurrent_redrives_of_one_dead_letter_redrive_it_once() {
    for harness in StoreHarness::durable().await {
        let delivery_id = harness.create_dead_letter("a", "out", Kind::Out).await;
        let gate = Gate::new(&harness.store, true).await;
        let redrive = || {
            let (store, delivery_id) = (harness.store.clone(), delivery_id.clone());
            tokio::spawn(
                async move { store.redrive(&delivery_id, Redrive::default(), audit("redrive")).await },
            )
        };
        let both = [redrive(), redrive()];
        gate.open().await;
        let mut done = Vec::new();
        for one in both {
            done.push(one.await.unwrap().is_ok());
        }
        done.sort_unstable();
        assert_eq!(done, [false, true]);
        assert_eq!(harness.backlog("queue"), (0, 1, 0));
        harness.claim_one("queue", "out").await;
    }
}

#[tokio::test]
async fn a_redriven_event_precedes_later_undelivered_events_of_its_target() {
    for mut harness in StoreHarness::all().await {
        let first = harness.create_dead_letter("a", "1", Kind::Note).await;
        let third = {
            harness.emit("a", Kind::Note, "2", &["queue"]).await;
            harness.claim_and_settle("queue", "2", Settlement::Delivered { answer: None }).await;
            harness.create_dead_letter("a", "3", Kind::Note).await
        };
        harness.emit("a", Kind::Note, "4", &["queue"]).await;
        harness.emit("a", Kind::Note, "5", &["queue"]).await;
        let fourth = harness.claim_one("queue", "4").await;
        for delivery_id in [&third, &first] {
            harness.store.redrive(delivery_id, Redrive::default(), audit("redrive")).await.unwrap();
        }
        harness.claim_expecting("queue", &[]).await;
        harness.settle("queue", fourth.lease, Settlement::Delivered { answer: None }).await;
        harness.restart().await;
        for id in ["1", "3", "5"] {
            harness.claim_and_settle("queue", id, Settlement::Delivered { answer: None }).await;
        }
    }
}

#[tokio::test]
async fn an_expirytime_is_only_rewritten_when_that_is_asked_for_and_nothing_else_is() {
    for mut harness in StoreHarness::all().await {
        let delivery_id = harness.create_dead_letter("a", "out", Kind::Out).await;
        let before = harness.store.dead_letter(&delivery_id).await.unwrap().unwrap().event;
        let valid_for = Some(2 * HOUR);
        harness
            .store
            .redrive(&delivery_id, Redrive { valid_for, force: false }, audit("redrive"))
            .await
            .unwrap();
        harness.restart().await;
        let claimed = harness.claim_one("queue", "out").await;
        let expiry = |event: &str| {
            let event: serde_json::Value = serde_json::from_str(event).unwrap();
            event["expirytime"].as_str().unwrap().to_owned()
        };
        let (old, new) = (expiry(&before), expiry(&claimed.body));
        let valid_until = Time::parse(&new).unwrap();
        assert!(valid_until >= now().after(2 * HOUR) && valid_until < now().after(3 * HOUR), "{new}");
        assert_eq!(claimed.body.replace(&new, &old), *before);
        harness.settle("queue", claimed.lease, dead()).await;
        let dead_letter = harness.store.dead_letter(&delivery_id).await.unwrap().unwrap();
        assert_eq!(expiry(&dead_letter.event), new, "a second redrive keeps it");
        harness.store.redrive(&delivery_id, Redrive::default(), audit("redrive")).await.unwrap();
        assert_eq!(expiry(&harness.claim_one("queue", "out").await.body), new);
    }
}

/// The number is part of the names of executions: each such redrive starts another one, and a renewal does not.
#[tokio::test]
async fn redrives_that_set_another_expirytime_are_counted_and_renewals_are_not() {
    for mut harness in StoreHarness::all().await {
        harness.emit_tracked("a", Kind::Out, "out", &["queue"]).await;
        let claimed = harness.claim_one("queue", "out").await;
        assert_eq!((claimed.redrives, claimed.is_uncertain), (0, false));
        let delivery_id = delivery_id(claimed.lease.seq());
        let expired = Settlement::Dead {
            error: "expired: too old".into(),
            cause: GiveUp::Expired,
            called: true,
            uncertain: true,
        };
        harness.settle("queue", claimed.lease, expired.clone()).await;
        let valid_for = Some(2 * HOUR);
        for (valid_for, redrives) in [(None, 0), (valid_for, 1), (None, 1), (valid_for, 2)] {
            let redrive = Redrive { valid_for, force: true };
            harness.store.redrive(&delivery_id, redrive, audit("redrive")).await.unwrap();
            harness.restart().await;
            let claimed = harness.claim_one("queue", "out").await;
            assert_eq!((claimed.redrives, claimed.is_uncertain), (redrives, true), "{valid_for:?}");
            harness.settle("queue", claimed.lease, expired.clone()).await;
            harness.change("a", "out", DeliveryChangeKind::Renew { expires_after: HOUR }).await;
            harness.restart().await;
            let claimed = harness.claim_one("queue", "out").await;
            assert_eq!(claimed.redrives, redrives, "renewed after {valid_for:?}");
            harness.settle("queue", claimed.lease, expired.clone()).await;
        }
    }
}

/// Only a call that was stored before it was made is known of after a kill.
#[tokio::test]
async fn an_increase_whose_call_was_stored_is_uncertain_after_a_restart() {
    for mut harness in StoreHarness::durable().await {
        harness.emit_tracked("a", Kind::Out, "out", &["queue"]).await;
        let claimed = harness.claim_one("queue", "out").await;
        harness.store.begin_calls(&name("queue"), vec![claimed.lease]).await.unwrap();
        harness.restart().await;
        let claimed = harness.claim_one("queue", "out").await;
        assert_eq!((claimed.attempts, claimed.is_uncertain), (0, true));
    }
}

#[tokio::test]
async fn another_destination_keeps_the_event_as_it_was() {
    for harness in StoreHarness::all().await {
        harness.emit_firing("a", "out", &["queue", "journal"]).await;
        let claimed = harness.claim_one("queue", "out").await;
        harness.settle("queue", claimed.lease, dead()).await;
        let valid_for = Some(2 * HOUR);
        harness
            .store
            .redrive(&delivery_id(claimed.lease.seq()), Redrive { valid_for, force: false }, audit("redrive"))
            .await
            .unwrap();
        assert_ne!(harness.claim_one("queue", "out").await.body, claimed.body);
        assert_eq!(harness.claim_one("journal", "out").await.body, claimed.body);
    }
}

#[tokio::test]
async fn an_expired_event_stays_a_dead_letter_and_the_redrive_is_rejected() {
    for harness in StoreHarness::all().await {
        harness
            .write(&["a"], |_| {
                let emission = event("a", Kind::Out, "out", &["queue"]);
                let episode_event = EpisodeEvent { emission, phase: Phase::Firing, episode: "e".into() };
                let mut changes = episode_event.changes();
                let event = &mut changes.events[0];
                event.body = event
                    .body
                    .replace(&now().after(HOUR).to_millis_string(), "2026-11-22T16:00:00.000Z")
                    .into();
                changes
            })
            .await;
        let claimed = harness.claim_one("queue", "out").await;
        harness.settle("queue", claimed.lease, dead()).await;
        let delivery_id = delivery_id(claimed.lease.seq());
        let rejected = harness.store.redrive(&delivery_id, Redrive::default(), audit("redrive")).await;
        assert!(matches!(rejected, Err(DeadLetterError::Expired { .. })), "{rejected:?}");
        assert_eq!(harness.backlog("queue"), (0, 0, 1));
        harness
            .store
            .redrive(&delivery_id, Redrive { valid_for: Some(HOUR), force: false }, audit("redrive"))
            .await
            .unwrap();
        assert_eq!(harness.backlog("queue"), (0, 1, 0));
    }
}

#[tokio::test]
async fn a_decrease_is_only_redriven_by_force_and_may_be_cancelled_then() {
    for mut harness in StoreHarness::all().await {
        let delivery_id = harness.create_dead_letter("a", "in", Kind::In).await;
        let rejected = harness.store.redrive(&delivery_id, Redrive::default(), audit("redrive")).await;
        let Err(DeadLetterError::Firing(firing)) = rejected else { panic!("{rejected:?}") };
        assert_eq!(firing.rule, name("nodes"));
        harness.put_state("a", tracking(&["in"])).await;
        harness.store.redrive(&delivery_id, force(), audit("redrive")).await.unwrap();
        assert!(harness.tracked("a", "in").await.is_pending);
        harness.restart().await;
        harness.change("a", "in", DeliveryChangeKind::Cancel).await;
        harness.emit("a", Kind::Out, "out", &["queue"]).await;
        harness.claim_and_settle("queue", "out", Settlement::Delivered { answer: None }).await;
        assert_eq!(harness.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn an_unreadable_event_is_not_redriven() {
    for harness in StoreHarness::all().await {
        harness
            .write(&["a"], |_| {
                let mut changes = event("a", Kind::Note, "note", &["queue"]).changes();
                changes.events[0].body = r#"{"id":"note"}"#.into();
                changes
            })
            .await;
        let claimed = harness.claim_one("queue", "note").await;
        harness.settle("queue", claimed.lease, dead()).await;
        let rejected =
            harness.store.redrive(&delivery_id(claimed.lease.seq()), force(), audit("redrive")).await;
        assert!(matches!(rejected, Err(DeadLetterError::Unreadable(_))), "{rejected:?}");
        assert_eq!(harness.dead_letter_ids().await, ["note"]);
    }
}

#[tokio::test]
async fn a_discarded_dead_letter_cannot_be_redriven() {
    for mut harness in StoreHarness::all().await {
        let delivery_id = harness.create_dead_letter("a", "out", Kind::Out).await;
        harness.restart().await;
        harness.store.discard(&delivery_id, audit("discard")).await.unwrap();
        let second = harness.store.discard(&delivery_id, audit("discard")).await;
        assert!(matches!(second, Err(DeadLetterError::NotDead)), "{second:?}");
        let redriven = harness.store.redrive(&delivery_id, force(), audit("redrive")).await;
        assert!(matches!(redriven, Err(DeadLetterError::NotDead)), "{redriven:?}");
        harness.restart().await;
        assert_eq!((harness.dead_letter_ids().await.len(), harness.backlog("queue")), (0, (0, 0, 0)));
        harness.claim_expecting("queue", &[]).await;
    }
}

#[tokio::test]
async fn dead_letters_of_a_destination_that_is_gone_are_listed_and_discarded() {
    for mut harness in StoreHarness::durable().await {
        let delivery_id = harness.create_dead_letter("a", "out", Kind::Out).await;
        harness.restart_for(&[name("journal")]).await;
        assert_eq!(harness.dead_letter_ids().await, ["out"]);
        let redriven = harness.store.redrive(&delivery_id, force(), audit("redrive")).await;
        assert!(matches!(redriven, Err(DeadLetterError::NotConfigured(_))), "{redriven:?}");
        harness.store.discard(&delivery_id, audit("discard")).await.unwrap();
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn the_age_of_a_redriven_event_counts_from_its_redrive() {
    for harness in StoreHarness::all().await {
        let delivery_id = harness.create_dead_letter("a", "out", Kind::Out).await;
        let dead_letter = harness.store.dead_letter(&delivery_id).await.unwrap().unwrap();
        harness.store.redrive(&delivery_id, Redrive::default(), audit("redrive")).await.unwrap();
        let shown = harness.store.stats(&name("queue")).oldest_unsettled;
        assert_eq!(shown, Some(dead_letter.emitted_at), "but for the age that is shown");
        assert!(harness.claim_one("queue", "out").await.emitted_at >= dead_letter.given_up_at);
    }
}

#[tokio::test]
async fn a_decrease_is_redriven_without_force_once_nothing_fires_on_its_target() {
    for harness in StoreHarness::all().await {
        let delivery_id = harness.create_dead_letter("a", "in", Kind::In).await;
        let redrive =
            async || harness.store.redrive(&delivery_id, Redrive::default(), audit("redrive")).await;
        let refused = redrive().await.unwrap_err().to_string();
        assert!(refused.contains("rule `nodes` fires on its target"), "{refused}");
        // Its episode closes.
        harness.emit_resolved("a", "later", &["journal"]).await;
        redrive().await.unwrap();
        harness.claim_one("queue", "in").await;
    }
}

#[tokio::test]
async fn an_increase_whose_episode_is_over_is_redriven_by_force_only() {
    for harness in StoreHarness::all().await {
        let first = harness.create_dead_letter("a", "first", Kind::Out).await;
        let second = harness.create_dead_letter("a", "second", Kind::Out).await;
        harness.store.redrive(&first, Redrive::default(), audit("redrive")).await.unwrap();
        harness.emit_resolved("a", "resolved", &["journal"]).await;
        let refused = harness.store.redrive(&second, Redrive::default(), audit("redrive")).await;
        assert!(
            matches!(&refused, Err(DeadLetterError::EpisodeOver { rule }) if rule == "nodes"),
            "{refused:?}"
        );
        harness.store.redrive(&second, force(), audit("redrive")).await.unwrap();
    }
}
