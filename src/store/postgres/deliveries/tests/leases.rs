//! Leases: who may settle, until when, and what becomes of the others.

use std::time::Duration;

use super::*;
use crate::store::{RefusalReason, Retries};

#[tokio::test]
async fn a_replica_that_has_lost_its_lease_changes_nothing() {
    let world = World::new(2).await;
    let event = world.emit("a", "1", &["queue"]).await;
    let lost = world.claim_expecting(&[event]).await[0];
    world.execute("UPDATE deliveries SET due = now_ns() WHERE token IS NOT NULL").await;
    let other = &world.replicas[1];
    let held = claim(other, 10).await[0].1;
    world.settle(lost, SUCCESS).await;
    assert_eq!(
        world.number("SELECT count(*) FROM deliveries WHERE state = 0 AND token IS NOT NULL").await,
        1
    );
    let refused = world.store().begin_calls(&name("queue"), vec![lost]).await.unwrap();
    assert_eq!(refused[0].reason, RefusalReason::LeaseEnded);
    assert_eq!(other.begin_calls(&name("queue"), vec![held]).await.unwrap(), []);
    other.settle(&name("queue"), vec![(held, SUCCESS)]).await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM deliveries WHERE state = 1").await, 1);
}

#[tokio::test]
async fn leases_are_renewed_while_the_worker_holds_them() {
    let world = World::new(1).await;
    let event = world.emit("a", "1", &["queue"]).await;
    let lease = world.claim_expecting(&[event]).await[0];
    world.execute("UPDATE deliveries SET due = now_ns() + 1000000000").await;
    super::super::leases::renew(world.shared()).await.unwrap();
    let renewed = "SELECT count(*) FROM deliveries WHERE due > now_ns() + 50 * 1000000000::bigint";
    assert_eq!(world.number(renewed).await, 1);
    world.settle(lease, retry_after(1)).await;
    super::super::leases::renew(world.shared()).await.unwrap();
    assert_eq!(world.number(renewed).await, 0, "it is settled");
}

#[tokio::test]
async fn what_a_worker_that_has_ended_had_claimed_is_claimed_again_and_its_call_is_uncertain() {
    let world = World::new(2).await;
    let called = world.emit("a", "1", &["queue"]).await;
    let waiting = world.emit("b", "2", &["queue"]).await;
    let suspended = world.emit("c", "3", &["queue"]).await;
    let leases = world.claim_expecting(&[called, waiting, suspended]).await;
    world.store().begin_calls(&name("queue"), vec![leases[0]]).await.unwrap();
    world.settle(leases[1], retry_after(3600)).await;
    world.change(suspended, DeliveryChangeKind::Suspend).await;
    world.store().release(&name("queue"), Retries::Keep).unwrap();
    let refused = world.store().begin_calls(&name("queue"), vec![leases[0]]).await.unwrap();
    assert_eq!(refused[0].reason, RefusalReason::LeaseEnded);
    let claimed = claim(&world.replicas[1], 10).await;
    assert_eq!(claimed.len(), 1, "one waits for its retry, one is suspended");
    assert_eq!(claimed[0].0, called);
    assert_eq!(world.number("SELECT count(*) FROM deliveries WHERE is_uncertain AND NOT is_called").await, 1);
}

#[tokio::test]
async fn a_closed_store_leaves_its_claims_to_others() {
    let world = World::new(2).await;
    let event = world.emit("a", "1", &["queue"]).await;
    world.claim_expecting(&[event]).await;
    assert_eq!(claim(&world.replicas[1], 10).await, []);
    super::super::close(world.shared()).await;
    assert_eq!(claim(&world.replicas[1], 10).await[0].0, event);
}

#[tokio::test]
async fn a_cancelled_delivery_whose_replica_has_died_ends_and_its_target_is_processed() {
    let world = World::new(2).await;
    let first = world.emit("a", "1", &["queue"]).await;
    let second = world.emit("a", "2", &["queue"]).await;
    world.count().await;
    let lease = claim(&world.replicas[1], 10).await[0].1;
    world.replicas[1].begin_calls(&name("queue"), vec![lease]).await.unwrap();
    world.change(first, DeliveryChangeKind::Cancel).await;
    world.claim_expecting(&[]).await;
    assert_eq!(world.backlog().await, (2, 0, 0));
    super::super::leases::end_overdue(world.shared()).await.unwrap();
    assert_eq!(world.backlog().await, (2, 0, 0), "its lease has not ended");
    world.execute("UPDATE deliveries SET due = now_ns() - 1 WHERE token IS NOT NULL").await;
    super::super::leases::end_overdue(world.shared()).await.unwrap();
    assert_eq!(world.backlog().await, (1, 0, 0));
    assert_eq!(world.number("SELECT count(*) FROM targets WHERE recheck").await, 1);
    assert_eq!(world.number("SELECT count(*) FROM deliveries WHERE is_uncertain AND state = 3").await, 1);
    world.claim_and_settle(second, SUCCESS).await;
}

/// A destination that is removed from the configuration of all replicas, one after the other.
#[tokio::test]
async fn the_last_replica_that_delivers_to_a_removed_destination_gives_its_deliveries_up() {
    let world = World::new(2).await;
    let first = world.emit("a", "1", &["queue"]).await;
    let second = world.emit("a", "2", &["queue"]).await;
    world.claim_and_settle(first, retry_after(3600)).await;
    world.count().await;
    let queue = name("queue");
    world.store().release(&queue, Retries::DueNow).unwrap();
    world.claim_expecting(&[]).await;
    assert_eq!(world.store().undelivered_at(&queue), 0, "the other replica delivers them");
    world.store().remove_destination(queue.clone()).await.unwrap();
    assert_eq!(world.store().orphaned_destinations().await.unwrap(), []);
    let last = &world.replicas[1];
    for event in [first, second] {
        last.release(&queue, Retries::DueNow).unwrap();
        let claimed = claim(last, 10).await;
        assert_eq!(claimed[0].0, event, "no retry is waited for");
        last.settle(&queue, vec![(claimed[0].1, dead(GiveUp::Rejected))]).await.unwrap();
    }
    assert_eq!(last.undelivered_at(&queue), 0);
    last.remove_destination(queue).await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM deliveries WHERE state = 2").await, 2);
}

#[tokio::test]
async fn a_destination_to_which_nobody_delivers_is_orphaned() {
    let world = World::new(2).await;
    world.emit("a", "1", &["journal"]).await;
    let orphans = async || world.store().orphaned_destinations().await.unwrap();
    assert_eq!(orphans().await, []);
    world.store().remove_destination(name("journal")).await.unwrap();
    assert_eq!(orphans().await, [], "another replica delivers to it");
    world.execute("UPDATE replica_destinations SET until = now_ns()").await;
    assert_eq!(orphans().await, [name("journal")], "that one has died");
    world.store().add_destinations(vec![name("journal")]).await.unwrap();
    assert_eq!(orphans().await, []);
    assert_eq!(world.store().stats(&name("journal")).undelivered, 1);
}

#[test]
fn a_worker_asks_at_least_once_a_second_and_sooner_if_a_delivery_is_due() {
    let at = |millis: i64| Time::from_millis(millis);
    let delay = |due: Option<i64>| super::super::leases::poll_delay(due.map(at), at(10_000));
    assert_eq!([None, Some(10_300), Some(60_000)].map(delay), [1000, 300, 1000].map(Duration::from_millis));
    assert_eq!(delay(Some(9_000)), Duration::from_millis(1));
}
