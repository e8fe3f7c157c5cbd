//! Two replicas on one database: no delivery is in two hands, and each target's events are sent in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

const TARGETS: usize = 3;
const EVENTS: i64 = 400;

/// What the workers of both replicas have in their hands.
#[derive(Default)]
struct Hands {
    /// The target of each event.
    targets: BTreeMap<i64, usize>,
    /// The event that is being called, by target.
    in_flight: BTreeMap<usize, i64>,
    /// The last event that has arrived, by target.
    arrived: BTreeMap<usize, i64>,
    /// Events that may come after later ones: they stood aside, were suspended or redriven.
    late: std::collections::BTreeSet<i64>,
    settled: usize,
}

impl Hands {
    fn claimed(&mut self, event: i64) {
        let target = self.targets[&event];
        if let Some(other) = self.in_flight.insert(target, event) {
            panic!("event {event} of target {target} is claimed while {other} is");
        }
        let last = self.arrived.get(&target).copied().unwrap_or(0);
        assert!(last < event || self.late.contains(&event), "{event} comes after {last}");
    }

    /// Before the settlement, so that the next claim is after it.
    fn settles(&mut self, event: i64, settlement: &Settlement) {
        let target = self.targets[&event];
        assert_eq!(self.in_flight.remove(&target), Some(event));
        match settlement {
            Settlement::Delivered { .. } => {
                let last = self.arrived.entry(target).or_default();
                *last = (*last).max(event);
                self.settled += 1;
            }
            Settlement::Retry { .. } => {}
            // It is redriven, or sent when others have passed it.
            _ => drop(self.late.insert(event)),
        }
    }
}

fn outcome(random: &mut fastrand::Rng) -> Settlement {
    match random.u8(0..10) {
        0 => retry_after(0),
        1 | 2 => Settlement::NotCalled {
            delay: std::time::Duration::from_millis(random.u64(0..5)),
            stands_aside: true,
        },
        3 => dead(GiveUp::Rejected),
        _ => SUCCESS,
    }
}

async fn work(store: Postgres, hands: Arc<Mutex<Hands>>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    while hands.lock().settled < EVENTS as usize {
        let max = random.usize(1..8);
        let claimed = store.claim(&name("queue"), max).await.unwrap();
        {
            let mut hands = hands.lock();
            claimed.iter().for_each(|one| hands.claimed(one.lease.seq().0));
        }
        tokio::task::yield_now().await;
        let outcomes: Vec<_> = claimed.iter().map(|one| (one.lease, outcome(&mut random))).collect();
        {
            let mut hands = hands.lock();
            outcomes.iter().for_each(|(lease, outcome)| hands.settles(lease.seq().0, outcome));
        }
        let dead: Vec<_> = outcomes.iter().filter(|one| matches!(one.1, Settlement::Dead { .. })).collect();
        let dead: Vec<EventSeq> = dead.into_iter().map(|(lease, _)| lease.seq()).collect();
        if !outcomes.is_empty() {
            store.settle(&name("queue"), outcomes).await.unwrap();
        }
        for seq in dead {
            let delivery_id = DeliveryId { seq, destination: name("queue") };
            let redrive = Redrive { force: true, ..Redrive::default() };
            store.redrive(&delivery_id, redrive, audit()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_never_hold_one_target_and_keep_the_order_of_its_events() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new(2).await;
    let hands = Arc::new(Mutex::new(Hands::default()));
    let emitted = async {
        for id in 0..EVENTS {
            let target = random.usize(0..TARGETS);
            // Known before it can be claimed.
            hands.lock().targets.insert(id + 1, target);
            let event = world.emit(&format!("t{target}"), &id.to_string(), &["queue"]).await;
            assert_eq!(event, id + 1);
        }
    };
    let workers = (0..6).map(|worker: usize| {
        tokio::spawn(work(world.replicas[worker % 2].clone(), hands.clone(), seed ^ worker as u64))
    });
    let workers: Vec<_> = workers.collect();
    emitted.await;
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(world.number("SELECT count(*) FROM deliveries WHERE state = 1").await, EVENTS);
    assert_eq!(world.number("SELECT count(*) FROM deliveries WHERE state <> 1").await, 0);
    world.count().await;
    assert_eq!(world.backlog().await, (0, 0, 0));
}
