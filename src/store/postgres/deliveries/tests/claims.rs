//! Which deliveries are claimed, and in which order.

use super::*;

#[tokio::test]
async fn the_first_delivery_of_each_target_is_claimed_and_the_next_one_when_it_ends() {
    let world = World::new(1).await;
    let first = world.emit("a", "1", &["queue"]).await;
    let second = world.emit("a", "2", &["queue", "journal"]).await;
    let third = world.emit("a", "3", &["queue"]).await;
    let other = world.emit("b", "4", &["queue"]).await;
    world.count().await;
    let leases = world.claim_expecting(&[first, other]).await;
    world.claim_expecting(&[]).await;
    assert_eq!(world.store().claim(&name("journal"), 10).await.unwrap().len(), 1, "destinations do not wait");
    world.settle(leases[0], retry_after(0)).await;
    world.claim_and_settle(first, SUCCESS).await;
    world.claim_and_settle(second, dead(GiveUp::Rejected)).await;
    world.claim_and_settle(third, retry_after(3600)).await;
    world.claim_expecting(&[]).await;
    assert_eq!(world.backlog().await, (1, 1, 1));
}

#[tokio::test]
async fn a_backoff_holds_its_target_back_and_what_stands_aside_does_not() {
    let world = World::new(1).await;
    let first = world.emit("a", "1", &["queue"]).await;
    let second = world.emit("a", "2", &["queue"]).await;
    let third = world.emit("a", "3", &["queue"]).await;
    world.claim_and_settle(first, not_called(true)).await;
    world.claim_and_settle(second, not_called(false)).await;
    world.claim_expecting(&[]).await;
    world.execute("UPDATE deliveries SET due = now_ns() WHERE is_aside").await;
    world.claim_and_settle(first, SUCCESS).await;
    world.claim_expecting(&[]).await;
    world.execute("UPDATE deliveries SET due = now_ns() WHERE NOT is_parked AND state = 0").await;
    world.claim_and_settle(second, SUCCESS).await;
    world.claim_and_settle(third, SUCCESS).await;
}

#[tokio::test]
async fn what_is_redriven_comes_first_but_after_one_that_is_claimed() {
    let world = World::new(1).await;
    let mut events = Vec::new();
    for id in ["1", "2", "3", "4", "5"] {
        events.push(world.emit("a", id, &["queue"]).await);
    }
    world.count().await;
    for (event, settlement) in [(0, dead(GiveUp::Rejected)), (1, SUCCESS), (2, dead(GiveUp::Rejected))] {
        world.claim_and_settle(events[event], settlement).await;
    }
    let fourth = world.claim_expecting(&[events[3]]).await[0];
    world.redrive(events[2]).await;
    world.redrive(events[0]).await;
    world.claim_expecting(&[]).await;
    assert_eq!(world.backlog().await, (2, 2, 0));
    world.settle(fourth, SUCCESS).await;
    for event in [0, 2, 4] {
        world.claim_and_settle(events[event], SUCCESS).await;
    }
    assert_eq!(world.backlog().await, (0, 0, 0));
}

/// Nothing else would look at the ones before it.
#[tokio::test]
async fn what_waits_behind_a_claim_of_a_replica_that_has_died_is_claimed_when_its_lease_ends() {
    let world = World::new(2).await;
    let first = world.emit("a", "1", &["queue"]).await;
    let second = world.emit("a", "2", &["queue"]).await;
    world.claim_and_settle(first, dead(GiveUp::Rejected)).await;
    claim(&world.replicas[1], 10).await;
    world.redrive(first).await;
    world.claim_expecting(&[]).await;
    world.execute("UPDATE deliveries SET due = now_ns() WHERE token IS NOT NULL").await;
    world.claim_and_settle(first, SUCCESS).await;
    world.claim_and_settle(second, SUCCESS).await;
}

#[tokio::test]
async fn a_suspended_delivery_lets_others_pass_until_it_is_resumed() {
    let world = World::new(1).await;
    let first = world.emit("a", "1", &["queue"]).await;
    let second = world.emit("a", "2", &["queue"]).await;
    let third = world.emit("a", "3", &["queue"]).await;
    world.count().await;
    let lease = world.claim_expecting(&[first]).await[0];
    world.change(first, DeliveryChangeKind::Suspend).await;
    world.claim_expecting(&[]).await;
    world.settle(lease, retry_after(0)).await;
    let lease = world.claim_expecting(&[second]).await[0];
    world.change(first, DeliveryChangeKind::Resume).await;
    world.claim_expecting(&[]).await;
    world.settle(lease, SUCCESS).await;
    world.claim_and_settle(first, SUCCESS).await;
    world.claim_and_settle(third, SUCCESS).await;
    assert_eq!(world.backlog().await, (0, 0, 0));
}

#[tokio::test]
async fn what_is_cancelled_is_not_claimed_and_its_target_goes_on() {
    let world = World::new(1).await;
    let first = world.emit("a", "1", &["queue"]).await;
    let second = world.emit("a", "2", &["queue"]).await;
    let third = world.emit("a", "3", &["queue"]).await;
    world.count().await;
    let lease = world.claim_expecting(&[first]).await[0];
    world.change(second, DeliveryChangeKind::Cancel).await;
    world.change(first, DeliveryChangeKind::Cancel).await;
    world.claim_expecting(&[]).await;
    assert_eq!(world.backlog().await, (2, 0, 0), "the call can go on");
    world.settle(lease, retry_after(0)).await;
    assert_eq!(world.backlog().await, (1, 0, 0));
    world.claim_and_settle(third, SUCCESS).await;
    assert_eq!(world.number("SELECT count(*) FROM deliveries WHERE state = 3").await, 2);
}

#[tokio::test]
async fn a_claim_finds_the_deliveries_behind_thousands_that_wait_for_others() {
    let world = World::new(1).await;
    let first = world.emit("a", "1", &["queue"]).await;
    world.claim_and_settle(first, retry_after(3600)).await;
    world
        .execute(
            "INSERT INTO events (id, target, at, destinations, acting, may_decrease, tracked, body)
             SELECT 'e', target, at, destinations, acting, false, false, body FROM events, generate_series(1, 3000);
             INSERT INTO deliveries (destination, event, target, state, due, age_from)
             SELECT d.destination, e.seq, d.target, 0, e.at, e.at FROM events e, deliveries d WHERE e.id = 'e'",
        )
        .await;
    let last = world.emit("b", "2", &["queue"]).await;
    assert_eq!(claim(world.store(), 1).await[0].0, last);
    let parked = world.number("SELECT count(*) FROM deliveries WHERE is_parked").await;
    assert_eq!(parked, 3000, "they are not examined again");
    world
        .execute("UPDATE deliveries SET due = now_ns() WHERE state = 0 AND NOT is_parked AND token IS NULL")
        .await;
    world.claim_and_settle(first, SUCCESS).await;
    world.claim_expecting(&[first + 1]).await;
}

#[tokio::test]
async fn a_compensation_waits_for_what_stands_aside_and_is_withdrawn_if_nothing_arrived() {
    let world = World::new(1).await;
    let firing = world.emit("a", "1", &["queue"]).await;
    let lost = world.emit("b", "2", &["queue"]).await;
    let leases = world.claim_expecting(&[firing, lost]).await;
    world.settle(leases[0], not_called(true)).await;
    world.settle(leases[1], dead(GiveUp::Rejected)).await;
    let back = world.emit_compensating("a", "3", &["queue"], Some(vec![firing])).await;
    let later = world.emit("a", "4", &["queue"]).await;
    let nothing = world.emit_compensating("b", "5", &["queue"], Some(vec![lost, firing + 1000])).await;
    world.execute(&format!("DELETE FROM deliveries WHERE event = {}", firing + 1000)).await;
    let claimed = world.store().claim(&name("queue"), 10).await.unwrap();
    let found: Vec<_> = claimed.iter().map(|one| (one.lease.seq().0, one.nothing_to_compensate)).collect();
    assert_eq!(found, [(nothing, false)], "an event that was pruned has arrived; the other one stands aside");
    world.claim_and_settle(later, SUCCESS).await;
    world.execute("UPDATE deliveries SET due = now_ns() WHERE is_aside").await;
    world.claim_and_settle(firing, SUCCESS).await;
    let claimed = world.store().claim(&name("queue"), 10).await.unwrap();
    assert_eq!((claimed[0].lease.seq().0, claimed[0].nothing_to_compensate), (back, false));
    let nothing = world.emit_compensating("c", "6", &["queue"], Some(vec![lost])).await;
    let claimed = world.store().claim(&name("queue"), 10).await.unwrap();
    assert_eq!((claimed[0].lease.seq().0, claimed[0].nothing_to_compensate), (nothing, true));
}
