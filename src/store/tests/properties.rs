//! Property test: under any sequence of emissions, claims, settlements and changes of deliveries, no cancelled or
//! suspended event is sent, nothing is sent again that has arrived, and the events of each target are claimed in order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::tracking::{change, tracking};
use super::*;
use crate::domain::delivery::{DeliveryChange, DeliveryChangeKind};

#[derive(Debug, Clone)]
enum Operation {
    /// Target, kind, and whether it goes to both destinations.
    Emit(usize, Kind, bool),
    /// Destination and maximum number.
    Claim(usize, usize),
    /// Destination, index of the claimed delivery, and outcome.
    Settle(usize, usize, Outcome),
    /// Destination and index of the dead letter.
    Redrive(usize, usize),
    Discard(usize, usize),
    /// Index of the event, and what changes about its delivery.
    Change(usize, DeliveryChangeKind),
    Restart,
    Prune,
    /// Several emissions, settlements and changes in one commit.
    Together(Vec<Operation>),
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Delivered,
    RetryNow,
    RetryLater,
    Dead,
    Expired,
}

impl Outcome {
    fn settlement(self) -> Settlement {
        match self {
            Self::Delivered => Settlement::Delivered { answer: None },
            Self::RetryNow => retry_after(0),
            Self::RetryLater => retry_after(3600),
            Self::Dead => dead(),
            Self::Expired => Settlement::Dead {
                error: "too old".into(),
                cause: GiveUp::Expired,
                called: true,
                uncertain: false,
            },
        }
    }
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let kind = prop::sample::select(vec![Kind::In, Kind::In, Kind::Out, Kind::Note]);
    let outcome =
        [Outcome::RetryNow, Outcome::RetryLater, Outcome::Dead, Outcome::Expired, Outcome::Delivered];
    let outcome = [&outcome[..], &[Outcome::Delivered]].concat();
    use DeliveryChangeKind::{Cancel, EndRenewal, Renew, Replace, Resume, Suspend};
    let kinds =
        vec![Cancel, Suspend, Suspend, Resume, Resume, Renew { expires_after: HOUR }, EndRenewal, Replace];
    let change =
        (0..40_usize, prop::sample::select(kinds)).prop_map(|(at, kind)| Operation::Change(at, kind)).boxed();
    let emit = (0..3_usize, kind, any::<bool>())
        .prop_map(|(target, kind, both)| Operation::Emit(target, kind, both))
        .boxed();
    let settle = (0..2_usize, 0..8_usize, prop::sample::select(outcome))
        .prop_map(|(lane, at, outcome)| Operation::Settle(lane, at, outcome))
        .boxed();
    let together = prop::collection::vec(prop_oneof![emit.clone(), settle.clone(), change.clone()], 2..8);
    let operation = prop_oneof![
        4 => emit,
        4 => (0..2_usize, 1..4_usize).prop_map(|(lane, max)| Operation::Claim(lane, max)),
        3 => settle,
        2 => together.prop_map(Operation::Together),
        1 => (0..2_usize, 0..8_usize).prop_map(|(lane, at)| Operation::Redrive(lane, at)),
        1 => (0..2_usize, 0..8_usize).prop_map(|(lane, at)| Operation::Discard(lane, at)),
        3 => change,
        1 => Just(Operation::Restart),
        1 => Just(Operation::Prune),
    ];
    prop::collection::vec(operation, 1..40)
}

/// The model of one destination.
#[derive(Default)]
struct Expected {
    /// The target of each unsettled event, by the event's number.
    unsettled: BTreeMap<i64, usize>,
    claimed: BTreeSet<i64>,
    /// Claimed deliveries that were cancelled: they are not retried.
    last_try: BTreeSet<i64>,
    /// Failed deliveries.
    retried: BTreeSet<i64>,
    /// Deliveries whose backoff is longer than the test.
    backing_off: BTreeSet<i64>,
    /// Deliveries that are not sent until they are resumed.
    suspended: BTreeSet<i64>,
    /// The last claim of each target since the start.
    last_claimed: BTreeMap<usize, i64>,
    dead: BTreeSet<i64>,
    /// Those of them that were given up because of their age.
    expired: BTreeSet<i64>,
    /// Targets with an event that was redriven while a later one was claimed.
    reordered: BTreeSet<usize>,
}

impl Expected {
    fn claimed(&mut self, seq: i64) {
        let Some(&target) = self.unsettled.get(&seq) else { panic!("{seq} was cancelled or settled") };
        let first =
            self.unsettled.iter().find(|(seq, other)| **other == target && !self.suspended.contains(seq));
        let first = first.map(|(seq, _)| *seq);
        let mixed = self.reordered.contains(&target);
        assert!(mixed || first == Some(seq), "an earlier event of the target is unsettled");
        assert!(
            self.claimed.iter().all(|out| self.unsettled[out] != target),
            "another event of the target is claimed"
        );
        assert!(!self.backing_off.contains(&seq), "{seq} is backing off");
        assert!(!self.suspended.contains(&seq), "{seq} is suspended");
        assert!(self.claimed.insert(seq), "{seq} is already claimed");
        let last = self.last_claimed.insert(target, seq);
        assert!(mixed || last <= Some(seq), "{seq} comes after {last:?}");
    }

    fn settled(&mut self, seq: i64, outcome: Outcome) {
        self.claimed.remove(&seq);
        let last = self.last_try.remove(&seq);
        match outcome {
            // What was cancelled meanwhile is not tried again, and is no dead letter.
            _ if last => {}
            Outcome::RetryNow | Outcome::RetryLater => {
                self.retried.insert(seq);
                // What was suspended meanwhile stands aside instead.
                if matches!(outcome, Outcome::RetryLater) && !self.suspended.contains(&seq) {
                    self.backing_off.insert(seq);
                }
                return;
            }
            Outcome::Delivered => {}
            Outcome::Dead => drop(self.dead.insert(seq)),
            Outcome::Expired => drop((self.dead.insert(seq), self.expired.insert(seq))),
        }
        self.close(seq);
    }

    fn redriven(&mut self, seq: i64, target: usize) {
        self.dead.remove(&seq);
        self.expired.remove(&seq);
        if self.claimed.iter().any(|out| self.unsettled[out] == target) {
            self.reordered.insert(target);
        }
        self.last_claimed.remove(&target);
        self.unsettled.insert(seq, target);
        self.retried.insert(seq);
    }

    fn close(&mut self, seq: i64) {
        self.unsettled.remove(&seq);
        self.retried.remove(&seq);
        self.backing_off.remove(&seq);
        self.suspended.remove(&seq);
    }

    fn change(&mut self, seq: i64, target: usize, kind: DeliveryChangeKind) {
        match kind {
            DeliveryChangeKind::Cancel if self.is_open(seq) => self.cancel(seq),
            DeliveryChangeKind::Suspend if self.is_open(seq) => {
                self.backing_off.remove(&seq);
                self.suspended.insert(seq);
            }
            DeliveryChangeKind::Resume if self.suspended.remove(&seq) => {
                if self.claimed.iter().any(|out| self.unsettled[out] == target && *out != seq) {
                    self.reordered.insert(target);
                }
                self.last_claimed.remove(&target);
            }
            DeliveryChangeKind::Renew { .. } if self.expired.contains(&seq) => self.redriven(seq, target),
            DeliveryChangeKind::Replace => {
                self.dead.remove(&seq);
                self.expired.remove(&seq);
            }
            _ => {}
        }
    }

    /// Whether the delivery is neither settled nor cancelled.
    fn is_open(&self, seq: i64) -> bool {
        self.unsettled.contains_key(&seq) && !self.last_try.contains(&seq)
    }

    fn cancel(&mut self, seq: i64) {
        if self.claimed.contains(&seq) {
            self.last_try.insert(seq);
        } else {
            self.close(seq);
        }
    }

    fn restarted(&mut self) {
        self.claimed.clear();
        self.last_claimed.clear();
        self.reordered.clear();
        for seq in std::mem::take(&mut self.last_try) {
            self.close(seq);
        }
    }

    fn check(&self, (pending, retrying, dead): (u64, u64, u64)) {
        assert_eq!((retrying, dead), (self.retried.len() as u64, self.dead.len() as u64));
        assert_eq!(pending, (self.unsettled.len() - self.retried.len()) as u64);
    }
}

/// A store and its model.
struct World {
    harness: StoreHarness,
    lanes: [Expected; 2],
    /// The target of each event.
    targets: BTreeMap<i64, usize>,
    /// The last lease of each delivery, by destination and event.
    leases: BTreeMap<(usize, i64), Lease>,
}

impl World {
    fn new(harness: StoreHarness) -> Self {
        let (lanes, targets, leases) = Default::default();
        Self { harness, lanes, targets, leases }
    }

    async fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Emit(..) | Operation::Settle(..) | Operation::Change(..) => {
                self.commit_together(vec![operation]).await;
            }
            Operation::Together(operations) => self.commit_together(operations).await,
            Operation::Claim(lane, max) => drop(self.claim(lane, max).await),
            Operation::Redrive(lane, at) => {
                let Some(delivery_id) = self.dead_letter(lane, at) else { return };
                let all = Redrive { valid_for: Some(HOUR), force: true };
                self.harness.store.redrive(&delivery_id, all, audit("redrive")).await.unwrap();
                self.lanes[lane].redriven(delivery_id.seq.0, self.targets[&delivery_id.seq.0]);
            }
            Operation::Discard(lane, at) => {
                let Some(delivery_id) = self.dead_letter(lane, at) else { return };
                self.harness.store.discard(&delivery_id, audit("discard")).await.unwrap();
                self.lanes[lane].dead.remove(&delivery_id.seq.0);
                self.lanes[lane].expired.remove(&delivery_id.seq.0);
            }
            Operation::Restart => {
                self.harness.restart().await;
                if self.harness.is_durable() {
                    self.lanes.iter_mut().for_each(Expected::restarted);
                }
            }
            Operation::Prune => drop(self.harness.store.prune(Duration::ZERO, Duration::ZERO).await.unwrap()),
        }
        let mut undelivered = 0;
        for (lane, destination) in self.lanes.iter().zip(destinations()) {
            let backlog = self.harness.backlog(destination.as_str());
            lane.check(backlog);
            undelivered += backlog.0 + backlog.1;
        }
        assert_eq!(self.harness.store.undelivered(), undelivered);
    }

    fn dead_letter(&self, lane: usize, at: usize) -> Option<DeliveryId> {
        let dead = &self.lanes[lane].dead;
        let seq = dead.iter().nth(at % dead.len().max(1))?;
        Some(DeliveryId { seq: EventSeq(*seq), destination: destinations()[lane].clone() })
    }

    /// All in one commit: they are submitted while the writer is blocked. Where several transactions run at the same
    /// time, there is one commit for each, since their order would not be known.
    async fn commit_together(&mut self, operations: Vec<Operation>) {
        if matches!(self.harness.store, Store::Postgres(_)) && operations.len() > 1 {
            for operation in operations {
                Box::pin(self.commit_together(vec![operation])).await;
            }
            return;
        }
        let gate = Gate::new(&self.harness.store, operations.len() > 1).await;
        let mut submitted = Vec::new();
        let mut settling = BTreeSet::new();
        let mut seq = self.targets.len() as i64;
        let mut targets = self.targets.clone();
        for operation in operations {
            match operation {
                Operation::Emit(target, kind, both) => {
                    seq += 1;
                    let to: &[&str] = if both { &["queue", "journal"] } else { &["queue"] };
                    targets.insert(seq, target);
                    let emitted = event(&format!("t{target}"), kind, &seq.to_string(), to);
                    let task = self.submit_emission(emitted, tracking_all(&targets, target));
                    submitted.push((Submitted::Emit(target, to.len()), task));
                }
                Operation::Settle(lane, at, outcome) => {
                    let out: Vec<i64> = self.lanes[lane].claimed.iter().copied().collect();
                    let Some(&seq) = out.get(at % out.len().max(1)) else { continue };
                    if settling.insert((lane, seq)) {
                        let settled = vec![(self.leases[&(lane, seq)], outcome.settlement())];
                        let store = self.harness.store.clone();
                        let task = tokio::spawn(async move {
                            store.settle(&destinations()[lane], settled).await.unwrap();
                        });
                        submitted.push((Submitted::Settle(lane, seq, outcome), task));
                    }
                }
                Operation::Change(at, kind) => {
                    let Some((&seq, &target)) = targets.iter().nth(at % targets.len().max(1)) else {
                        continue;
                    };
                    let task = self.submit_change(change(&format!("t{target}"), &seq.to_string(), kind));
                    submitted.push((Submitted::Change(seq, target, kind), task));
                }
                _ => unreachable!("only emissions, settlements and changes"),
            }
        }
        gate.open().await;
        for (submitted, task) in submitted {
            task.await.unwrap();
            match submitted {
                Submitted::Emit(target, lanes) => self.emitted(target, lanes),
                Submitted::Settle(lane, seq, outcome) => self.lanes[lane].settled(seq, outcome),
                Submitted::Change(seq, target, kind) => {
                    self.lanes.iter_mut().for_each(|lane| lane.change(seq, target, kind));
                }
            }
        }
    }

    fn submit_emission(&self, emitted: Emission, state: TargetState) -> JoinHandle<()> {
        let store = self.harness.store.clone();
        let keys = self.harness.keys(&[emitted.target.as_str()]);
        tokio::spawn(async move {
            let decide = move |_: &View| {
                let mut changes = emitted.clone().changes();
                changes.states[0].1 = state.clone();
                (changes, ())
            };
            store.transact(keys, decide).await.unwrap();
        })
    }

    fn submit_change(&self, changed: DeliveryChange) -> JoinHandle<()> {
        let store = self.harness.store.clone();
        let keys = self.harness.keys(&[changed.target.as_str()]);
        tokio::spawn(async move {
            let decide = move |_: &View| {
                let changes = Changes { delivery_changes: vec![changed.clone()], ..Changes::default() };
                (changes, ())
            };
            store.transact(keys, decide).await.unwrap();
        })
    }

    fn emitted(&mut self, target: usize, lanes: usize) {
        let seq = self.targets.len() as i64 + 1;
        self.targets.insert(seq, target);
        for lane in &mut self.lanes[..lanes] {
            lane.unsettled.insert(seq, target);
        }
    }

    async fn claim(&mut self, lane: usize, max: usize) -> Vec<i64> {
        let claimed = self.harness.store.claim(&destinations()[lane], max).await.unwrap();
        let seqs: Vec<i64> = claimed.iter().map(|one| one.lease.seq().0).collect();
        for one in claimed {
            assert_eq!(id_of(&one), one.lease.seq().0.to_string());
            self.lanes[lane].claimed(one.lease.seq().0);
            self.leases.insert((lane, one.lease.seq().0), one.lease);
        }
        seqs
    }

    async fn settle(&mut self, lane: usize, seq: i64, outcome: Outcome) {
        let lease = self.leases[&(lane, seq)];
        self.harness.settle(destinations()[lane].as_str(), lease, outcome.settlement()).await;
        self.lanes[lane].settled(seq, outcome);
    }

    /// Settles everything, and expects that only deliveries that are backing off remain, and those behind them.
    async fn drain(mut self) {
        for at in 0..self.targets.len() {
            self.apply(Operation::Change(at, DeliveryChangeKind::Resume)).await;
        }
        for lane in 0..2 {
            loop {
                for seq in self.lanes[lane].claimed.clone() {
                    self.settle(lane, seq, Outcome::Delivered).await;
                }
                if self.claim(lane, 3).await.is_empty() {
                    // A commit parks deliveries that are blocked by a retry.
                    self.apply(Operation::Prune).await;
                    if self.claim(lane, 3).await.is_empty() {
                        break;
                    }
                }
            }
            let expected = &self.lanes[lane];
            let mut firsts: BTreeMap<usize, i64> = BTreeMap::new();
            for (seq, target) in &expected.unsettled {
                firsts.entry(*target).or_insert(*seq);
            }
            for (target, first) in firsts {
                let waits =
                    |seq: &i64| expected.backing_off.contains(seq) && expected.unsettled[seq] == target;
                // A redriven event is ordered behind the one that was claimed.
                let waited_for =
                    expected.reordered.contains(&target) && expected.backing_off.iter().any(waits);
                assert!(waits(&first) || waited_for, "{first} is never sent");
            }
        }
        if self.harness.is_durable() {
            self.harness.store.close().await;
            let dead: usize = self.lanes.iter().map(|lane| lane.dead.len()).sum();
            assert_eq!(self.harness.count("deliveries WHERE state = 2"), dead as i64, "dead letters");
        }
    }
}

/// A state that tracks all events of a target.
fn tracking_all(targets: &BTreeMap<i64, usize>, target: usize) -> TargetState {
    let ids = targets.iter().filter(|(_, other)| **other == target).map(|(seq, _)| seq.to_string());
    let ids: Vec<String> = ids.collect();
    tracking(&ids.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A submitted command that is to be applied to the model.
enum Submitted {
    Emit(usize, usize),
    Settle(usize, i64, Outcome),
    Change(i64, usize, DeliveryChangeKind),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn cancelled_events_are_not_sent_and_all_others_are_in_order(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut harnesses = vec![StoreHarness::sqlite(), StoreHarness::memory()];
            // A case takes much longer there.
            if operations.len().is_multiple_of(2) {
                harnesses.push(StoreHarness::postgres().await);
            }
            for harness in harnesses {
                let mut world = World::new(harness);
                for operation in &operations {
                    world.apply(operation.clone()).await;
                }
                world.drain().await;
            }
        });
    }
}
