//! Deliveries whose age is over are found, whatever they wait for.

use super::*;
use crate::domain::retry::AgeLimits;

const LIMITS: AgeLimits = AgeLimits { max_age: HOUR, scale_in_max_age: Duration::from_secs(300) };

impl StoreHarness {
    /// The ids of expired deliveries, which are given up.
    async fn give_up_expired(&self, max: usize) -> Vec<String> {
        let expired = self.store.claim_expired(&name("queue"), LIMITS, max).await.unwrap();
        let ids = expired.claimed.iter().map(id_of).collect();
        let settled = expired.claimed.into_iter().map(|one| (one.lease, dead())).collect();
        self.store.settle(&name("queue"), settled).await.unwrap();
        ids
    }
}

/// A store with a clock that the test moves.
fn with_clock() -> (Vec<StoreHarness>, Arc<dyn Fn(Duration) + Send + Sync>) {
    let moved = Arc::new(parking_lot::Mutex::new(Duration::ZERO));
    let clock: crate::store::WallClock = Arc::new({
        let moved = moved.clone();
        move || now().after(*moved.lock())
    });
    let memory = StoreHarness::of_memory(Memory::new(&destinations(), clock));
    (vec![memory], Arc::new(move |by| *moved.lock() += by))
}

#[tokio::test]
async fn expired_deliveries_are_found_in_the_window_in_a_backoff_and_behind_one() {
    let (harnesses, advance) = with_clock();
    for harness in harnesses {
        // More than the window holds.
        for at in 0..40 {
            harness.emit(&format!("target-{at}"), Kind::Out, &format!("out-{at:02}"), &["queue"]).await;
        }
        harness.emit("a", Kind::Out, "retried", &["queue"]).await;
        harness.emit("b", Kind::In, "in", &["queue"]).await;
        assert_eq!(harness.give_up_expired(100).await, [""; 0]);
        loop {
            let claimed = harness.claim("queue").await;
            if claimed.is_empty() {
                break;
            }
            for (lease, id) in claimed {
                let settlement = if id == "retried" { retry_after(7200) } else { retry_after(36_000) };
                harness.settle("queue", lease, settlement).await;
            }
        }
        harness.emit("a", Kind::In, "behind", &["queue"]).await;
        advance(Duration::from_secs(301));
        let mut found = harness.give_up_expired(100).await;
        found.extend(harness.give_up_expired(100).await);
        found.sort();
        assert_eq!(found, ["behind", "in"]);
        advance(HOUR);
        let mut found = Vec::new();
        loop {
            let step = harness.give_up_expired(7).await;
            assert!(step.len() <= 7);
            if step.is_empty() {
                break;
            }
            found.extend(step);
        }
        assert_eq!(found.len(), 41, "{found:?}");
        assert_eq!(harness.backlog("queue"), (0, 0, 43));
        assert_eq!(harness.store.undelivered_at(&name("queue")), 0);
    }
}

#[tokio::test]
async fn a_delivery_that_has_not_expired_keeps_its_place_and_its_backoff() {
    for harness in StoreHarness::all().await {
        harness.emit("a", Kind::Out, "first", &["queue"]).await;
        harness.emit("a", Kind::Out, "second", &["queue"]).await;
        harness.claim_and_settle("queue", "first", retry_after(600)).await;
        let examined = harness.store.claim_expired(&name("queue"), LIMITS, 10).await.unwrap();
        assert!(examined.claimed.is_empty() && examined.waiting > 0);
        assert!(harness.claim("queue").await.is_empty(), "the backoff is not over, and the second waits");
        harness.emit("b", Kind::Out, "other", &["queue"]).await;
        harness.store.claim_expired(&name("queue"), LIMITS, 10).await.unwrap();
        harness.claim_one("queue", "other").await;
        let again = harness.store.claim_expired(&name("queue"), LIMITS, 10).await.unwrap();
        assert_eq!((again.examined, again.claimed.len()), (0, 0), "examined once");
    }
}
