//! The store's clock and the wall clock: what happens when the wall clock steps.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::domain::time::ClockReading;
use crate::store::{AuditQuery, Record, RecordQuery, WallClock};
use std::ops::Bound;

const HOURS_2: i64 = 7200;

/// A wall clock that the test steps, and a store that reads it.
struct Stepped {
    harness: StoreHarness,
    wall: Arc<AtomicI64>,
}

/// Seconds after the start of the test.
fn at(seconds: i64) -> Time {
    Time::from_nanos(now().as_nanos() + seconds * 1_000_000_000)
}

impl Stepped {
    /// The stores whose clock follows the wall clock slowly, and the one that reads both clocks from its server.
    async fn all() -> [Self; 3] {
        let [one, other] = Self::both();
        let wall = Arc::new(AtomicI64::new(at(0).as_nanos()));
        [one, other, Self { harness: StoreHarness::postgres().await, wall }]
    }

    fn both() -> [Self; 2] {
        let dir = || tempfile::tempdir().unwrap();
        [false, true].map(|in_memory| {
            let wall = Arc::new(AtomicI64::new(at(0).as_nanos()));
            let (read, dir) = (Self::read(&wall), dir());
            let store = match in_memory {
                true => Store::Memory(Memory::with_wall_clock(&destinations(), clock(), read)),
                false => Self::open(&dir, read),
            };
            Self { harness: StoreHarness { store, dir, postgres: None }, wall }
        })
    }

    fn read(wall: &Arc<AtomicI64>) -> WallClock {
        let wall = wall.clone();
        Arc::new(move || Time::from_nanos(wall.load(Ordering::Relaxed)))
    }

    fn open(dir: &TempDir, wall: WallClock) -> Store {
        Store::Sqlite(Sqlite::open(&dir.path().join("bridge.db"), &destinations(), wall).unwrap())
    }

    fn set_wall(&self, time: Time) {
        self.wall.store(time.as_nanos(), Ordering::Relaxed);
        if let Some(database) = &self.harness.postgres {
            database.freeze_clock(time);
        }
    }

    async fn restart(&mut self) {
        match self.harness.store {
            Store::Sqlite(_) => {
                self.harness.store.close().await;
                self.harness.store = Self::open(&self.harness.dir, Self::read(&self.wall));
            }
            _ => self.harness.restart().await,
        }
    }

    /// Stores a record, and returns the clocks that its decision has read.
    async fn record(&self, body: &str) -> ClockReading {
        let body = body.to_owned();
        let decide = move |view: &View| {
            let record = Some(Record { targets: vec![key("a")], body: body.clone() });
            (Changes { record, ..Changes::default() }, view.clock())
        };
        self.harness.store.transact(Keys::default(), decide).await.unwrap()
    }

    /// All pages of a query, as numbers.
    async fn query(&self, query: &RecordQuery) -> Vec<usize> {
        let (mut found, mut query) = (Vec::new(), query.clone());
        loop {
            let page = self.harness.store.records(query.clone()).await.unwrap();
            found.extend(page.records.iter().map(|record| record.body.parse::<usize>().unwrap()));
            let Some(last) = page.records.last().filter(|_| page.has_more) else { return found };
            let bound = Bound::Excluded(last.cursor);
            *(if query.newest_first { &mut query.below } else { &mut query.above }) = bound;
        }
    }
}

/// The clocks of SQLite go on in real time, so they differ from those of the test by what the test takes.
fn is_about(time: Time, expected: Time) -> bool {
    time.since(expected) + expected.since(time) < Duration::from_secs(600)
}

#[tokio::test]
async fn a_step_of_the_wall_clock_is_seen_by_decisions_and_moves_no_wait() {
    for stepped in Stepped::both() {
        for step in [0, HOURS_2, -HOURS_2] {
            stepped.set_wall(at(step));
            let seen = stepped.record("0").await;
            assert_eq!(seen.wall, at(step));
            assert!(is_about(seen.now, at(0)), "{} after a step of {step} s", seen.now);
        }
        stepped.harness.emit("a", Kind::Note, "note", &["queue"]).await;
        stepped.set_wall(at(HOURS_2));
        let claimed = stepped.harness.claim_one("queue", "note").await;
        assert!(is_about(claimed.emitted_at, at(0)), "ages are counted by the store's clock");
        let retry = retry_after(0);
        stepped.harness.settle("queue", claimed.lease, retry).await;
        stepped.set_wall(at(-HOURS_2));
        let again = stepped.harness.claim_one("queue", "note").await;
        stepped.harness.settle("queue", again.lease, dead()).await;
        let dead_letter = stepped.harness.store.dead_letters(None, None, 1).await.unwrap().remove(0);
        assert_eq!(dead_letter.given_up_at, at(-HOURS_2), "what ended is dated by the wall clock");
    }
}

/// Otherwise a restart would make the store's clock jump to a time that the wall clock never had again.
#[tokio::test]
async fn after_a_restart_the_time_of_the_store_goes_on_and_not_that_of_an_earlier_wall_clock() {
    for mut stepped in Stepped::both() {
        stepped.set_wall(at(HOURS_2));
        stepped.record("0").await;
        stepped.set_wall(at(-HOURS_2));
        stepped.restart().await;
        let reading = stepped.harness.store.clock();
        assert_eq!(reading.wall, at(-HOURS_2));
        assert!(is_about(reading.now, at(0)), "{}", reading.now);
    }
}

#[tokio::test]
async fn entries_of_the_audit_trail_have_the_time_of_the_wall_clock_and_are_found_by_it() {
    for stepped in Stepped::all().await {
        for (step, act) in [(0, "first"), (HOURS_2, "ahead"), (-HOURS_2, "back")] {
            stepped.set_wall(at(step));
            let entry = AuditEntry { actor: "ann".into(), act: act.into(), body: "{}".into() };
            stepped.harness.store.audit(AuditWrite::Add(entry)).await.unwrap();
        }
        let found = async |from, to| {
            let query = AuditQuery { from: at(from), to: at(to), ..AuditQuery::default() };
            let page = stepped.harness.store.audit_trail(query).await.unwrap();
            page.entries.into_iter().map(|stored| stored.entry.act).collect::<Vec<_>>()
        };
        assert_eq!(found(-HOURS_2, HOURS_2).await, ["back", "ahead", "first"]);
        assert_eq!(found(-HOURS_2, -1).await, ["back"]);
        assert_eq!(found(1, HOURS_2).await, ["ahead"]);
        assert_eq!(found(0, 0).await, ["first"]);
    }
}

/// The wall clock goes on, and steps now and then, also while the bridge is not running.
#[tokio::test]
async fn a_time_selects_records_by_the_wall_clock_whatever_steps_it_made() {
    let mut rng = fastrand::Rng::with_seed(7);
    for mut stepped in Stepped::all().await {
        let mut stamps: Vec<i64> = Vec::new();
        let mut second = 0;
        for number in 0..120 {
            second += match rng.u8(..10) {
                0 => rng.i64(-HOURS_2..HOURS_2),
                1 => -1,
                _ => rng.i64(0..60),
            };
            stepped.set_wall(at(second));
            if rng.u8(..20) == 0 {
                stepped.restart().await;
            }
            stamps.push(second);
            stepped.record(&number.to_string()).await;
        }
        let oldest_first = RecordQuery { newest_first: false, max: usize::MAX, ..RecordQuery::default() };
        let all = stepped.harness.store.records(oldest_first).await.unwrap().records;
        let (first, last) = (stamps.iter().min().unwrap() - 10, stamps.iter().max().unwrap() + 10);
        for case in 0..200 {
            let (from, to) = (rng.i64(first..last), rng.i64(first..last));
            let mut query =
                RecordQuery { newest_first: rng.bool(), max: rng.usize(1..30), ..RecordQuery::default() };
            if rng.bool() {
                query.from = at(from);
            }
            if rng.bool() {
                query.to = at(to);
            }
            if rng.bool() {
                query.target = Some(key("a"));
            }
            let above = rng.bool().then(|| rng.usize(..all.len()));
            if let Some(above) = above {
                query.above = Bound::Excluded(all[above].cursor);
            }
            let is_above = |number: usize| above.is_none_or(|above| number > above);
            let is_wanted =
                |number: &usize| (query.from..=query.to).contains(&at(stamps[*number])) && is_above(*number);
            let mut expected: Vec<usize> = (0..stamps.len()).filter(is_wanted).collect();
            if query.newest_first {
                expected.reverse();
            }
            assert_eq!(stepped.query(&query).await, expected, "case {case}: {query:?} of {stamps:?}");
        }
    }
}

/// A wall clock that was years ahead for a moment must not keep what was stored then for years.
#[tokio::test]
async fn records_and_entries_are_pruned_by_their_age_and_not_by_the_wall_clock() {
    let [stepped, _] = Stepped::both();
    for step in [0, 1_000_000_000, -HOURS_2, 0] {
        stepped.set_wall(at(step));
        stepped.record("0").await;
        stepped.harness.store.audit(audit("pause")).await.unwrap();
    }
    let harness = &stepped.harness;
    assert_eq!(harness.count("wall_clock_steps"), 1);
    harness.prune().await;
    for table in ["records", "history", "audit"] {
        assert_eq!(harness.count(table), 1, "{table}: the newest one stays");
    }
    assert_eq!(harness.count("wall_clock_steps"), 0);
}
