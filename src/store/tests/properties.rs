//! Whatever is emitted, claimed, settled and cancelled in whatever order: nothing that was cancelled is
//! sent, and each target's events in their order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    /// Which target, of what kind, to one or both.
    Emit(usize, Kind, bool),
    /// To which destination, at most how many.
    Claim(usize, usize),
    /// Which of those that are on their way, and how it ends.
    Settle(usize, usize, End),
    /// Which dead letter of which destination is sent once more, or thrown away.
    Redrive(usize, usize),
    Discard(usize, usize),
    Restart,
    Prune,
    /// Several of the first and the third in one commit.
    Together(Vec<Act>),
}

#[derive(Debug, Clone, Copy)]
enum End {
    Arrives,
    Fails,
    FailsForLong,
    IsGivenUp,
}

impl End {
    fn settlement(self) -> Settlement {
        match self {
            Self::Arrives => Settlement::Delivered,
            Self::Fails => retry_after(0),
            Self::FailsForLong => retry_after(3600),
            Self::IsGivenUp => Settlement::Dead { error: "refused".into() },
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let kind = prop::sample::select(vec![Kind::In, Kind::In, Kind::Out, Kind::Note]);
    let end = vec![End::Arrives, End::Arrives, End::Fails, End::FailsForLong, End::IsGivenUp];
    let emit = (0..3_usize, kind, any::<bool>())
        .prop_map(|(target, kind, both)| Act::Emit(target, kind, both))
        .boxed();
    let settle = (0..2_usize, 0..8_usize, prop::sample::select(end))
        .prop_map(|(lane, at, end)| Act::Settle(lane, at, end))
        .boxed();
    let together = prop::collection::vec(prop_oneof![emit.clone(), settle.clone()], 2..8);
    let act = prop_oneof![
        4 => emit,
        4 => (0..2_usize, 1..4_usize).prop_map(|(lane, max)| Act::Claim(lane, max)),
        3 => settle,
        2 => together.prop_map(Act::Together),
        1 => (0..2_usize, 0..8_usize).prop_map(|(lane, at)| Act::Redrive(lane, at)),
        1 => (0..2_usize, 0..8_usize).prop_map(|(lane, at)| Act::Discard(lane, at)),
        1 => Just(Act::Restart),
        1 => Just(Act::Prune),
    ];
    prop::collection::vec(act, 1..40)
}

/// What is known of one destination's deliveries.
#[derive(Default)]
struct Expected {
    /// The target of each event that is to be sent, by the event's number.
    open: BTreeMap<i64, usize>,
    out: BTreeSet<i64>,
    /// Those on their way that are not to be tried again.
    last_try: BTreeSet<i64>,
    /// Those that failed once.
    tried: BTreeSet<i64>,
    /// Those that are not tried again before the test is over.
    long: BTreeSet<i64>,
    /// What has arrived since the start, and what had before and may come again.
    arrived: BTreeSet<i64>,
    again: BTreeMap<i64, usize>,
    /// The last of each target that was handed out since the start.
    last: BTreeMap<usize, i64>,
    dead: BTreeSet<i64>,
    /// Targets in whose order something was redriven while another was on its way, which is not overtaken.
    mixed: BTreeSet<usize>,
}

impl Expected {
    fn claimed(&mut self, seq: i64) {
        if let Some(target) = self.again.remove(&seq) {
            self.open.insert(seq, target);
        }
        let Some(&target) = self.open.get(&seq) else { panic!("{seq} was cancelled or is over") };
        let first = self.open.iter().find(|(_, other)| **other == target).map(|(seq, _)| *seq);
        let mixed = self.mixed.contains(&target);
        assert!(mixed || first == Some(seq), "an earlier one of the target is not settled");
        assert!(self.out.iter().all(|out| self.open[out] != target), "one of the target is out");
        assert!(!self.long.contains(&seq), "the time of {seq} has not come");
        assert!(self.out.insert(seq), "{seq} is out already");
        let last = self.last.insert(target, seq);
        assert!(mixed || last <= Some(seq), "{seq} comes after {last:?}");
    }

    fn settled(&mut self, seq: i64, end: End) {
        self.out.remove(&seq);
        let last = self.last_try.remove(&seq);
        match end {
            End::Fails | End::FailsForLong if !last => {
                self.tried.insert(seq);
                if matches!(end, End::FailsForLong) {
                    self.long.insert(seq);
                }
                return;
            }
            End::Fails | End::FailsForLong => {}
            // One that was cancelled does not come again, whatever is known of it.
            End::Arrives if last => {}
            End::Arrives => drop(self.arrived.insert(seq)),
            End::IsGivenUp => drop(self.dead.insert(seq)),
        }
        self.close(seq);
    }

    fn redriven(&mut self, seq: i64, target: usize) {
        self.dead.remove(&seq);
        if self.out.iter().any(|out| self.open[out] == target) {
            self.mixed.insert(target);
        }
        self.last.remove(&target);
        self.open.insert(seq, target);
        self.tried.insert(seq);
    }

    fn close(&mut self, seq: i64) {
        self.open.remove(&seq);
        self.tried.remove(&seq);
        self.long.remove(&seq);
    }

    fn cancel(&mut self, seq: i64) {
        if self.out.contains(&seq) {
            self.last_try.insert(seq);
        } else {
            self.close(seq);
        }
    }

    fn restarted(&mut self, targets: &BTreeMap<i64, usize>) {
        self.out.clear();
        self.last.clear();
        self.mixed.clear();
        for seq in std::mem::take(&mut self.last_try) {
            self.close(seq);
        }
        self.again.extend(std::mem::take(&mut self.arrived).into_iter().map(|seq| (seq, targets[&seq])));
    }

    fn check(&self, (pending, retrying, dead): (u64, u64, u64)) {
        assert_eq!((retrying, dead), (self.tried.len() as u64, self.dead.len() as u64));
        let least = (self.open.len() - self.tried.len()) as u64;
        assert!(
            (least..=least + self.again.len() as u64).contains(&pending),
            "{pending} pending, not {least}"
        );
    }
}

/// A store, and what is expected of it.
struct World {
    house: House,
    lanes: [Expected; 2],
    /// The target of each event, and which events may make capacity less.
    targets: BTreeMap<i64, usize>,
    shrinking: BTreeSet<i64>,
}

impl World {
    fn new(house: House) -> Self {
        Self { house, lanes: Default::default(), targets: BTreeMap::new(), shrinking: BTreeSet::new() }
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Emit(..) | Act::Settle(..) => self.together(vec![act]).await,
            Act::Together(acts) => self.together(acts).await,
            Act::Claim(lane, max) => drop(self.claim(lane, max).await),
            Act::Redrive(lane, at) => {
                let Some(place) = self.dead_letter(lane, at) else { return };
                let all = Redrive { valid_for: Some(HOUR), force: true };
                self.house.store.redrive(&place, all).await.unwrap();
                self.lanes[lane].redriven(place.seq.0, self.targets[&place.seq.0]);
            }
            Act::Discard(lane, at) => {
                let Some(place) = self.dead_letter(lane, at) else { return };
                self.house.store.discard(&place).await.unwrap();
                self.lanes[lane].dead.remove(&place.seq.0);
            }
            Act::Restart => {
                self.house.restart().await;
                if matches!(self.house.store, Store::Sqlite(_)) {
                    self.lanes.iter_mut().for_each(|lane| lane.restarted(&self.targets));
                }
            }
            Act::Prune => drop(self.house.store.prune(Duration::ZERO, Duration::ZERO).await.unwrap()),
        }
        let mut left = 0;
        for (lane, destination) in self.lanes.iter().zip(destinations()) {
            let backlog = self.house.backlog(destination.as_str());
            lane.check(backlog);
            left += backlog.0 + backlog.1;
        }
        assert_eq!(self.house.store.undelivered(), left);
    }

    fn dead_letter(&self, lane: usize, at: usize) -> Option<Place> {
        let dead = &self.lanes[lane].dead;
        let seq = dead.iter().nth(at % dead.len().max(1))?;
        Some(Place { seq: EventSeq(*seq), destination: destinations()[lane].clone() })
    }

    /// All in one commit: what is asked for while the writer is held up.
    async fn together(&mut self, acts: Vec<Act>) {
        let gate = Gate::new(&self.house.store, acts.len() > 1).await;
        let mut asked = Vec::new();
        let mut taken = BTreeSet::new();
        let mut seq = self.targets.len() as i64;
        for act in acts {
            let store = self.house.store.clone();
            match act {
                Act::Emit(target, kind, both) => {
                    seq += 1;
                    let to: &[&str] = if both { &["queue", "journal"] } else { &["queue"] };
                    let emitted = event(&format!("t{target}"), kind, &seq.to_string(), to);
                    let keys = self.house.keys(&[emitted.target.as_str()]);
                    let task = tokio::spawn(async move {
                        store
                            .transact(keys, move |view| (emitted.clone().changes(), ids(view)))
                            .await
                            .unwrap()
                    });
                    asked.push((Asked::Emit(target, kind, to.len()), task));
                }
                Act::Settle(lane, at, end) => {
                    let out: Vec<i64> = self.lanes[lane].out.iter().copied().collect();
                    let Some(&seq) = out.get(at % out.len().max(1)) else { continue };
                    if taken.insert((lane, seq)) {
                        let settled = vec![(EventSeq(seq), end.settlement())];
                        let task = tokio::spawn(async move {
                            store.settle(&destinations()[lane], settled).await.unwrap();
                            Vec::new()
                        });
                        asked.push((Asked::Settle(lane, seq, end), task));
                    }
                }
                _ => unreachable!("only what is written"),
            }
        }
        gate.open().await;
        for (asked, task) in asked {
            let told = task.await.unwrap();
            match asked {
                Asked::Emit(target, kind, lanes) => self.emitted(target, kind, lanes, &told),
                Asked::Settle(lane, seq, end) => self.lanes[lane].settled(seq, end),
            }
        }
    }

    fn emitted(&mut self, target: usize, kind: Kind, lanes: usize, told: &[String]) {
        let seq = self.targets.len() as i64 + 1;
        let told: BTreeSet<i64> = told.iter().map(|id| id.parse().unwrap()).collect();
        let open =
            self.lanes.iter().flat_map(|lane| lane.open.keys().filter(|seq| !lane.last_try.contains(seq)));
        let unsent = open.filter(|seq| self.targets[seq] == target && self.shrinking.contains(seq)).copied();
        // What may come again is not known to have arrived.
        let again = self.lanes.iter().flat_map(|lane| lane.again.keys().copied());
        let unsent: BTreeSet<i64> = unsent.collect();
        let possible: BTreeSet<i64> = again.chain(unsent.iter().copied()).collect();
        assert!(unsent.is_subset(&told) && told.is_subset(&possible), "told of {told:?}, not {unsent:?}");
        self.targets.insert(seq, target);
        match kind {
            Kind::In => drop(self.shrinking.insert(seq)),
            Kind::Out => self.cancel(&told),
            Kind::Note => {}
        }
        for lane in &mut self.lanes[..lanes] {
            lane.open.insert(seq, target);
        }
    }

    fn cancel(&mut self, told: &BTreeSet<i64>) {
        for lane in &mut self.lanes {
            for seq in told {
                lane.again.remove(seq);
                lane.cancel(*seq);
            }
        }
    }

    async fn claim(&mut self, lane: usize, max: usize) -> Vec<i64> {
        let claimed = self.house.store.claim(&destinations()[lane], max).await.unwrap();
        let seqs: Vec<i64> = claimed.iter().map(|one| one.seq.0).collect();
        for one in claimed {
            assert_eq!(id_of(&one), one.seq.0.to_string());
            self.lanes[lane].claimed(one.seq.0);
        }
        seqs
    }

    async fn settle(&mut self, lane: usize, seq: i64, end: End) {
        self.house.settle(destinations()[lane].as_str(), EventSeq(seq), end.settlement()).await;
        self.lanes[lane].settled(seq, end);
    }

    /// In the end everything is sent but what waits, and what waits behind it.
    async fn drain(mut self) {
        for lane in 0..2 {
            loop {
                for seq in self.lanes[lane].out.clone() {
                    self.settle(lane, seq, End::Arrives).await;
                }
                if self.claim(lane, 3).await.is_empty() {
                    // A commit lets go of what waits behind one that fails.
                    self.act(Act::Prune).await;
                    if self.claim(lane, 3).await.is_empty() {
                        break;
                    }
                }
            }
            let expected = &self.lanes[lane];
            let mut firsts: BTreeMap<usize, i64> = BTreeMap::new();
            for (seq, target) in &expected.open {
                firsts.entry(*target).or_insert(*seq);
            }
            for (target, first) in firsts {
                let waits = |seq: &i64| expected.long.contains(seq) && expected.open[seq] == target;
                // What was redriven waits behind what was on its way then.
                let waited_for = expected.mixed.contains(&target) && expected.long.iter().any(waits);
                assert!(waits(&first) || waited_for, "{first} is never sent");
            }
        }
        if let Store::Sqlite(_) = self.house.store {
            self.house.store.close().await;
            let dead: usize = self.lanes.iter().map(|lane| lane.dead.len()).sum();
            assert_eq!(self.house.count("deliveries WHERE state = 2"), dead as i64, "dead letters");
        }
    }
}

/// What was asked of the store and is to be told to the lanes' model.
enum Asked {
    Emit(usize, Kind, usize),
    Settle(usize, i64, End),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_cancelled_is_not_sent_and_all_else_is_in_order(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for house in House::both() {
                let mut world = World::new(house);
                for act in &acts {
                    world.act(act.clone()).await;
                }
                world.drain().await;
            }
        });
    }
}
