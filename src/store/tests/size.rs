//! The file is small again after a storm, and nobody had to wait for that.

use std::time::Instant;

use super::*;

const AT_ONCE: usize = 500;

impl House {
    fn bytes(&self) -> u64 {
        let size = |suffix: &str| {
            let path = self.dir.path().join(format!("bridge.db{suffix}"));
            std::fs::metadata(path).map_or(0, |file| file.len())
        };
        size("") + size("-wal")
    }

    async fn storm(&self, events: usize) {
        for chunk in 0..events / AT_ONCE {
            let target = format!("storm-{chunk}");
            let body = format!("{{\"id\":\"{chunk}\",\"x\":\"{}\"}}", "x".repeat(1000));
            self.write(&[], move |_| {
                let mut event = event(&target, Kind::Note, "note", &["queue"]).event();
                event.body.clone_from(&body);
                Changes { events: vec![event; AT_ONCE], ..Changes::default() }
            })
            .await;
            loop {
                let claimed = self.store.claim(&name("queue"), AT_ONCE).await.unwrap();
                if claimed.is_empty() {
                    break;
                }
                let settled = claimed.iter().map(|one| (one.seq, Settlement::Delivered)).collect();
                self.store.settle(&name("queue"), settled).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn after_a_storm_the_store_is_back_within_twice_its_size() {
    let house = House::sqlite();
    // What was there before, and stays.
    for at in 0..200 {
        house.fire(&format!("t{at}"), &"x".repeat(8000), &["journal"]).await;
    }
    house.prune().await;
    let before = house.bytes();
    house.storm(60_000).await;
    let storm = house.bytes();
    assert!(storm > 4 * before, "{before} bytes, {storm} in the storm");
    let mut steps = 0;
    let mut longest = Duration::ZERO;
    let mut more = true;
    while more || house.bytes() > 2 * before {
        let began = Instant::now();
        more = house.store.prune(Duration::ZERO, Duration::ZERO).await.unwrap();
        longest = longest.max(began.elapsed());
        steps += 1;
        assert!(steps < 5_000, "{} bytes, {before} before", house.bytes());
    }
    let after = house.bytes();
    assert!(after <= 2 * before, "{before} bytes before, {after} after {steps} steps");
    assert!(longest < Duration::from_secs(2), "a step took {longest:?}");
    assert_eq!(house.backlog("journal"), (200, 0, 0));
}
