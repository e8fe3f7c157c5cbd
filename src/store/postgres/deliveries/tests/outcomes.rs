//! What settlements and operators make of deliveries, and what decisions see of it.

use std::time::Duration;

use super::*;
use crate::domain::delivery::EventDelivery;
use crate::domain::retry::AgeLimits;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::store::DeadLetterError;
use crate::store::postgres::deliveries::feedback::{self, DecidedTarget, Feedback};
use crate::store::tests::tracking::tracking;
use crate::store::{Error, RefusalReason, Refused};

impl World {
    async fn feedback(&self, target: &str, state: &TargetState) -> Feedback {
        let transaction = Transaction::begin(&self.shared().pool).await.unwrap();
        let id = self.number(&format!("SELECT id FROM targets WHERE key = '{target}'")).await;
        let key = TargetKey::from_stored(target);
        let targets = [DecidedTarget { id, key: &key, state }];
        let read = feedback::read(self.shared(), &transaction, &targets).await.unwrap();
        transaction.rollback().await.unwrap();
        read
    }

    async fn tracked(&self, target: &str, id: &str) -> EventDelivery {
        let read = self.feedback(target, &tracking(&[id])).await;
        read.deliveries.events[&TargetKey::from_stored(target)][id].clone()
    }
}

#[tokio::test]
async fn a_decision_sees_the_delivery_of_the_events_that_its_state_tracks() {
    let world = World::new(1).await;
    let event = world.emit("a", "1", &["queue", "journal"]).await;
    world.emit("a", "2", &["queue"]).await;
    assert_eq!(world.tracked("a", "1").await, EventDelivery::pending());
    let read = world.feedback("a", &tracking(&["1"])).await;
    let key = TargetKey::from_stored("a");
    assert_eq!(read.deliveries.events[&key].len(), 1, "the other one is not tracked by the state");
    let tracked: Vec<_> =
        read.tracked.values().flatten().map(|one| (&*one.id, one.destinations.len())).collect();
    assert_eq!(tracked, [("1", 2), ("2", 1)]);
    let lease = world.claim_expecting(&[event]).await[0];
    world.store().begin_calls(&name("queue"), vec![lease]).await.unwrap();
    assert!(world.tracked("a", "1").await.is_uncertain, "the call goes on");
    assert!(world.feedback("a", &tracking(&["1"])).await.deliveries.last_success.is_empty());
    world.settle(lease, SUCCESS).await;
    let delivered = world.tracked("a", "1").await;
    assert!(delivered.is_pending && !delivered.is_uncertain, "at the other destination");
    let successes = world.feedback("a", &tracking(&["1"])).await.deliveries.last_success;
    assert_eq!(successes.get(&name("queue")).copied(), delivered.delivered_at);
    assert_eq!(world.number("SELECT count(*) FROM targets WHERE recheck").await, 1, "it awaits a delivery");
}

#[tokio::test]
async fn a_target_is_processed_if_it_waits_for_what_has_happened() {
    let world = World::new(1).await;
    let mut events = Vec::new();
    for (watch, target) in ["a", "b", "c", "d"].into_iter().enumerate() {
        events.push(world.emit(target, target, &["queue"]).await);
        world.execute(&format!("UPDATE targets SET watch = {watch} WHERE key = '{target}'")).await;
    }
    let rechecked = async |settlement: Settlement| {
        for lease in world.claim_expecting(&events).await {
            world.settle(lease, settlement.clone()).await;
        }
        let keys = "SELECT coalesce(sum(ascii(key) - 96), 0) FROM targets WHERE recheck";
        let sum = world.number(&format!("SELECT ({keys})::bigint")).await;
        world
            .execute("UPDATE targets SET recheck = false; UPDATE deliveries SET state = 0, due = now_ns()")
            .await;
        sum
    };
    assert_eq!(rechecked(retry_after(0)).await, 0);
    assert_eq!(rechecked(SUCCESS).await, 3 + 4, "those that await a delivery");
    assert_eq!(rechecked(dead(GiveUp::Expired)).await, 2 + 3 + 4, "and those that track events");
    let due = *world.shared().fleet.next_due().borrow();
    assert!(due.is_some_and(|due| due <= world.store().clock().now), "{due:?}");
}

#[tokio::test]
async fn a_success_is_written_once_a_second_and_at_once_while_a_target_waits() {
    let world = World::new(1).await;
    let last = "SELECT last_success FROM destinations WHERE name = 'queue'";
    let succeed = async |id: &str| {
        let event = world.emit("a", id, &["queue"]).await;
        world.claim_and_settle(event, SUCCESS).await;
        world.number(last).await
    };
    let first = succeed("1").await;
    assert_eq!(succeed("2").await, first);
    world.execute("UPDATE targets SET waits = '{}'").await;
    let waited = succeed("3").await;
    assert!(waited > first);
    world.execute("UPDATE targets SET waits = NULL; UPDATE destinations SET last_success = last_success - 1000000001").await;
    assert!(succeed("4").await > waited);
}

#[tokio::test]
async fn a_withdrawn_delivery_has_a_record_and_a_second_settlement_changes_nothing() {
    let world = World::new(1).await;
    let event = world.emit("a", "1", &["queue"]).await;
    world.count().await;
    let lease = world.claim_expecting(&[event]).await[0];
    let withdrawn = Settlement::Withdrawn { reason: "nothing to compensate".to_owned() };
    let both = vec![(lease, withdrawn), (lease, SUCCESS)];
    world.store().settle(&name("queue"), both).await.unwrap();
    world.settle(lease, dead(GiveUp::Rejected)).await;
    assert_eq!(world.backlog().await, (0, 0, 0));
    assert_eq!(
        world
            .number("SELECT count(*) FROM deliveries WHERE state = 4 AND error = 'nothing to compensate'")
            .await,
        1
    );
    let records = "SELECT count(*) FROM records r JOIN record_targets t ON t.record = r.id
                   WHERE r.body LIKE '%\"withdrawn\"%' AND r.body LIKE '%nothing to compensate%'";
    assert_eq!(world.number(records).await, 1);
}

#[tokio::test]
async fn dead_letters_are_listed_redriven_and_discarded_once() {
    let world = World::new(1).await;
    let event = world.emit("a", "1", &["queue", "journal"]).await;
    let other = world.emit("b", "2", &["queue"]).await;
    world.count().await;
    for lease in world.claim_expecting(&[event, other]).await {
        world.settle(lease, dead(GiveUp::Rejected)).await;
    }
    for claimed in world.store().claim(&name("journal"), 10).await.unwrap() {
        let settled = vec![(claimed.lease, dead(GiveUp::Expired))];
        world.store().settle(&name("journal"), settled).await.unwrap();
    }
    let list = async |destination: Option<&str>, after: Option<DeliveryId>| {
        let found = world.store().dead_letters(destination.map(name), after, 2).await.unwrap();
        found.into_iter().map(|one| one.delivery_id).collect::<Vec<_>>()
    };
    let id = |seq: i64, destination: &str| DeliveryId { seq: EventSeq(seq), destination: name(destination) };
    let page = list(None, None).await;
    assert_eq!(page, [id(event, "journal"), id(event, "queue")]);
    assert_eq!(list(None, page.last().cloned()).await, [id(other, "queue")]);
    assert_eq!(list(Some("queue"), None).await, [id(event, "queue"), id(other, "queue")]);
    assert_eq!(world.backlog().await, (0, 0, 2));
    world.redrive(event).await;
    let again = world.store().redrive(&id(event, "queue"), Redrive::default(), audit()).await;
    assert!(matches!(again, Err(DeadLetterError::NotDead)), "{again:?}");
    world.store().discard(&id(other, "queue"), audit()).await.unwrap();
    let again = world.store().discard(&id(other, "queue"), audit()).await;
    assert!(matches!(again, Err(DeadLetterError::NotDead)), "{again:?}");
    assert_eq!(world.backlog().await, (0, 1, 0));
    assert_eq!(world.number("SELECT count(*) FROM audit").await, 2);
    let gone = world.store().redrive(&id(event, "gone"), Redrive::default(), audit()).await;
    assert!(matches!(gone, Err(DeadLetterError::NotConfigured(_))), "{gone:?}");
    world.claim_and_settle(event, SUCCESS).await;
}

#[tokio::test]
async fn expired_deliveries_are_claimed_whatever_they_wait_for_and_others_keep_their_place() {
    let world = World::new(1).await;
    let first = world.emit("a", "1", &["queue"]).await;
    let behind = world.emit("a", "2", &["queue"]).await;
    let suspended = world.emit("b", "3", &["queue"]).await;
    world.change(suspended, DeliveryChangeKind::Suspend).await;
    world.claim_and_settle(first, retry_after(600)).await;
    let limits = AgeLimits { max_age: Duration::from_secs(3600), scale_in_max_age: Duration::from_secs(300) };
    let expired = async || {
        // However long the last check took.
        *world.shared().destinations.get(&name("queue")).unwrap().next_expiry_check.lock() = Duration::ZERO;
        world.store().claim_expired(&name("queue"), limits, 10).await.unwrap()
    };
    let found = expired().await;
    assert_eq!((found.claimed.len(), found.examined, found.waiting), (0, 2, 2));
    assert_eq!(expired().await.examined, 0, "it is known by now");
    world.claim_expecting(&[]).await;
    let old = "now_ns() - 4000 * 1000000000::bigint";
    world.execute(&format!("UPDATE deliveries SET age_from = {old} WHERE event <> {first}")).await;
    let found = expired().await;
    let events: Vec<i64> = found.claimed.iter().map(|one| one.lease.seq().0).collect();
    assert_eq!(events, [behind], "what is suspended does not get older");
    assert!(expired().await.claimed.is_empty(), "it is leased");
    world.settle(found.claimed[0].lease, dead(GiveUp::Expired)).await;
    world.execute(&format!("UPDATE deliveries SET expiry = now_ns() - 1 WHERE event = {first}")).await;
    assert_eq!(expired().await.claimed.len(), 1, "its expirytime is over");
}

#[tokio::test]
async fn unsettled_events_are_shown_with_whether_they_are_claimed() {
    let world = World::new(1).await;
    world.emit("a", "1", &["queue"]).await;
    world.emit("a", "2", &["queue"]).await;
    world.claim().await;
    let found = world.store().unsettled_events(&name("queue"), 10).await.unwrap();
    let shown: Vec<_> = found.iter().map(|one| (&*one.header.id, one.is_claimed)).collect();
    assert_eq!(shown, [("1", true), ("2", false)]);
}

#[tokio::test]
async fn a_target_that_another_session_has_locked_holds_up_only_the_calls_and_settlements_of_its_own_deliveries()
 {
    let world = World::new(1).await;
    let mut events = Vec::new();
    for target in ["a", "b", "c"] {
        events.push(world.emit(target, target, &["queue"]).await);
    }
    let leases = world.claim_expecting(&events).await;
    let session = connect(&world.config).await;
    session.batch_execute("BEGIN; SELECT FROM targets WHERE key = 'b' FOR UPDATE").await.unwrap();
    let refused = world.store().begin_calls(&name("queue"), leases.clone()).await.unwrap();
    assert_eq!(refused, [Refused { lease: leases[1], reason: RefusalReason::Locked }]);
    let all = leases.iter().map(|lease| (*lease, SUCCESS)).collect();
    let settled = world.store().settle(&name("queue"), all).await;
    assert!(matches!(&settled, Err(Error::Locked(left)) if *left == [leases[1]]), "{settled:?}");
    let delivered = "SELECT count(*) FROM deliveries WHERE state = 1";
    assert_eq!(world.number(delivered).await, 2);
    session.batch_execute("ROLLBACK").await.unwrap();
    world.settle(leases[1], SUCCESS).await;
    assert_eq!(world.number(delivered).await, 3);
}
