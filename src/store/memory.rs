//! A store that keeps nothing on disk: for tests, with a clock that the test moves.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::lane::{Group, Lane, Position};
use super::outlets::{Outlet, Outlets};
use super::shrinking::{Open, Shrinking};
use super::{Changes, Claimed, Decide, Error, EventSeq, Keys, NewEvent, Settlement, Tally, View, WallClock};
use crate::domain::control::Controls;
use crate::domain::engine::{States, Unsent};
use crate::domain::name::Name;
use crate::domain::state::{AlertKey, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;

/// A store in memory. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
    outlets: Outlets,
    clock: WallClock,
    due: watch::Sender<Option<Time>>,
}

struct Inner {
    created: Time,
    controls: Arc<Controls>,
    /// Targets that watch the controls and were not looked at since they changed.
    woken: BTreeSet<TargetKey>,
    numbers: BTreeMap<TargetKey, i64>,
    states: BTreeMap<TargetKey, Arc<TargetState>>,
    alerts: BTreeMap<AlertKey, BTreeSet<TargetKey>>,
    records: Vec<(Time, super::Record)>,
    events: Vec<(EventSeq, Time, NewEvent)>,
    shrinking: Shrinking<TargetKey>,
}

impl Memory {
    /// An empty store, created at the clock's time.
    pub fn new(destinations: &[Name], clock: WallClock) -> Self {
        let outlet = |(number, name): (usize, &Name)| {
            let outlet = Outlet::new(name.clone(), number as i64, Lane::new(Position::default()));
            (name.clone(), Arc::new(outlet))
        };
        let inner = Inner {
            created: clock(),
            controls: Arc::default(),
            woken: BTreeSet::new(),
            numbers: BTreeMap::new(),
            states: BTreeMap::new(),
            alerts: BTreeMap::new(),
            records: Vec::new(),
            events: Vec::new(),
            shrinking: Shrinking::default(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            outlets: Arc::new(destinations.iter().enumerate().map(outlet).collect()),
            clock,
            due: watch::Sender::new(None),
        }
    }

    fn inner<R>(&self, look: impl FnOnce(&mut Inner) -> R) -> R {
        look(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn now(&self) -> Time {
        (self.clock)()
    }

    pub(super) fn outlets(&self) -> &Outlets {
        &self.outlets
    }

    pub(super) async fn transact(&self, keys: Keys, mut decide: Decide) -> Result<(), Error> {
        let now = self.now();
        // Claims and settlements wait for the same lock, so nothing that the view names is sent meanwhile.
        self.inner(|inner| {
            let states = inner.states(&keys);
            let (seqs, unsent) = inner.unsent(&keys, &states);
            let (created, controls) = (inner.created, inner.controls.clone());
            let changes = decide(&View { now, created, states, controls, unsent });
            inner.apply(now, changes, seqs, &self.outlets);
        });
        self.outlets.values().for_each(|outlet| outlet.wake());
        let next = self.inner(|inner| {
            let woken = inner.woken.first().map(|_| now);
            inner.states.values().filter_map(|state| state.due()).chain(woken).min()
        });
        self.due.send_replace(next);
        Ok(())
    }

    pub(super) async fn settle(
        &self,
        outlet: &Arc<Outlet>,
        settled: Vec<(EventSeq, Settlement)>,
    ) -> Result<(), Error> {
        let now = self.now();
        self.inner(|inner| {
            outlet.lane(|lane| {
                for (seq, settlement) in settled {
                    match settlement {
                        Settlement::Retry { delay, .. } => {
                            lane.retry(seq, now.after(delay));
                            continue;
                        }
                        Settlement::Delivered
                        | Settlement::Answered { .. }
                        | Settlement::Withdrawn { .. } => lane.delivered(seq),
                        Settlement::Dead { .. } => lane.dead(seq),
                    }
                    inner.shrinking.settled(seq.0, &outlet.name);
                }
            });
        });
        outlet.wake();
        Ok(())
    }

    pub(super) async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        let now = self.now();
        Ok(self.inner(|inner| {
            let due = inner.states.iter().filter_map(|(key, state)| Some((state.due()?, key)));
            let timely: BTreeSet<_> = due.filter(|(due, _)| *due <= now).collect();
            let known: BTreeSet<_> = timely.iter().map(|(_, key)| *key).collect();
            let woken = inner.woken.iter().filter(|key| !known.contains(key));
            timely.iter().map(|(_, key)| *key).chain(woken).take(max).cloned().collect()
        }))
    }

    pub(super) async fn locate(&self, keys: Keys) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error> {
        Ok(self.inner(|inner| inner.states(&keys).alerts))
    }

    pub(super) fn next_due(&self) -> watch::Receiver<Option<Time>> {
        self.due.subscribe()
    }

    /// Nothing is removed: a test's store is short-lived.
    pub(super) async fn prune(&self, _decisions: Duration, _delivered: Duration) -> Result<bool, Error> {
        Ok(false)
    }

    pub(super) async fn claim(&self, outlet: &Arc<Outlet>, max: usize) -> Result<Vec<Claimed>, Error> {
        let now = self.now();
        self.inner(|inner| {
            outlet.lane(|lane| {
                inner.refill(&outlet.name, lane);
                let handed = lane.claim(max, now).into_iter();
                let claimed = handed.map(|handed| Claimed {
                    seq: handed.seq,
                    body: handed.body.unwrap_or_else(|| inner.body(handed.seq).into()),
                    emitted_at: handed.emitted_at,
                    attempts: handed.attempts,
                    last_error: None,
                    undoes_nothing: false,
                });
                Ok(claimed.collect())
            })
        })
    }

    pub(super) async fn history(
        &self,
        target: &TargetKey,
        from: Time,
        to: Time,
    ) -> Result<Vec<String>, Error> {
        Ok(self.inner(|inner| {
            let about = inner
                .records
                .iter()
                .filter(|(at, record)| *at >= from && *at <= to && record.targets.contains(target));
            about.map(|(_, record)| record.body.clone()).collect()
        }))
    }

    pub(super) async fn close(&self) {}

    pub(super) fn controls(&self) -> Arc<Controls> {
        self.inner(|inner| inner.controls.clone())
    }

    /// Counted anew each time: a test's store is small.
    pub(super) fn tally(&self) -> Tally {
        self.inner(|inner| {
            let mut tally = Tally::default();
            for state in inner.states.values() {
                for rule in state.open_episodes() {
                    *tally.open_episodes.entry(rule.clone()).or_default() += 1;
                }
                for verdict in state.deferred() {
                    *tally.deferred.entry(verdict).or_default() += 1;
                }
            }
            tally
        })
    }
}

impl Inner {
    fn states(&self, keys: &Keys) -> States {
        let mut states = States::default();
        let mut wanted: BTreeSet<&TargetKey> = keys.targets.iter().collect();
        for alert in &keys.alerts {
            if let Some(targets) = self.alerts.get(alert) {
                wanted.extend(targets);
                states.alerts.insert(alert.clone(), targets.iter().cloned().collect());
            }
        }
        for key in wanted {
            if let Some(state) = self.states.get(key) {
                states.targets.insert(key.clone(), state.clone());
            }
        }
        states
    }

    /// For each wanted target the events that may make its capacity less and were not sent yet, with
    /// their numbers.
    fn unsent(
        &self,
        keys: &Keys,
        states: &States,
    ) -> (BTreeMap<TargetKey, Vec<EventSeq>>, BTreeMap<TargetKey, Vec<Unsent>>) {
        let (mut seqs, mut events) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        let wanted: BTreeSet<&TargetKey> = keys.targets.iter().chain(states.targets.keys()).collect();
        for key in wanted {
            for (seq, _) in self.shrinking.of(key) {
                let Ok(unsent) = Unsent::read(self.body(EventSeq(seq))) else { continue };
                seqs.entry(key.clone()).or_default().push(EventSeq(seq));
                events.entry(key.clone()).or_default().push(unsent);
            }
        }
        (seqs, events)
    }

    fn refill(&self, destination: &Name, lane: &mut Lane) {
        let behind = self.events.partition_point(|(seq, ..)| seq.0 <= lane.read_to());
        for (seq, at, event) in &self.events[behind..] {
            if !lane.has_room() {
                // What waits behind one that fails leaves the room to others.
                lane.to_park(&HashSet::new()).into_iter().for_each(|seq| lane.parked(EventSeq(seq)));
            }
            if !lane.has_room() {
                return;
            }
            if event.destinations.contains(destination) {
                lane.offer(*seq, self.group(&event.target, *seq), *at, event.body.as_str().into());
            } else {
                lane.skip_to(*seq);
            }
        }
    }

    /// An event without a state of its target is in an order of its own.
    fn group(&self, target: &TargetKey, seq: EventSeq) -> Group {
        self.numbers.get(target).copied().unwrap_or(-seq.0)
    }

    fn body(&self, seq: EventSeq) -> &str {
        let at = self.events.partition_point(|(known, ..)| *known < seq);
        &self.events[at].2.body
    }

    fn cancel(&mut self, seq: EventSeq, outlets: &Outlets) {
        let left = self.shrinking.get(seq.0).into_iter().flat_map(|open| &open.left);
        for outlet in left.filter_map(|name| outlets.get(name)) {
            outlet.lane(|lane| lane.cancel(seq));
        }
        self.shrinking.remove(seq.0);
    }

    fn apply(
        &mut self,
        now: Time,
        changes: Changes,
        mut unsent: BTreeMap<TargetKey, Vec<EventSeq>>,
        outlets: &Outlets,
    ) {
        for (key, state) in changes.states {
            for targets in self.alerts.values_mut() {
                targets.remove(&key);
            }
            for alert in state.alerts() {
                self.alerts.entry(alert.clone()).or_default().insert(key.clone());
            }
            self.alerts.retain(|_, targets| !targets.is_empty());
            let next = self.numbers.len() as i64 + 1;
            self.numbers.entry(key.clone()).or_insert(next);
            if state.is_empty() {
                self.states.remove(&key);
            } else {
                self.states.insert(key, Arc::new(state));
            }
        }
        if let Some(controls) = changes.controls {
            if controls.wakes > self.controls.wakes {
                self.woken = self.states.keys().cloned().collect();
            }
            self.controls = controls;
        }
        let watches = |key: &TargetKey| self.states.get(key).is_some_and(|state| state.watches());
        self.woken.retain(|key| !changes.looked_at.contains(key) && watches(key));
        self.records.extend(changes.record.map(|record| (now, record)));
        for event in changes.events {
            if event.adds {
                unsent.remove(&event.target).into_iter().flatten().for_each(|seq| self.cancel(seq, outlets));
            }
            let seq = EventSeq(self.events.len() as i64 + 1);
            if event.may_shrink {
                let (target, left) = (event.target.clone(), event.destinations.to_vec());
                let group = self.group(&target, seq);
                self.shrinking.add(seq.0, Open { target, group, left });
            }
            for outlet in event.destinations.iter().filter_map(|name| outlets.get(name)) {
                outlet.lane(|lane| lane.given(1));
            }
            self.events.push((seq, now, event));
        }
    }
}
