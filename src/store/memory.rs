//! A store that keeps nothing on disk: for tests, with a clock that the test moves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::lane::{Lane, Position};
use super::outlets::{Outlet, Outlets};
use super::{Changes, Claimed, Decide, Error, EventSeq, Keys, NewEvent, Settlement, Tally, View, WallClock};
use crate::domain::control::Controls;
use crate::domain::engine::States;
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
    numbers: BTreeMap<TargetKey, i64>,
    states: BTreeMap<TargetKey, Arc<TargetState>>,
    alerts: BTreeMap<AlertKey, BTreeSet<TargetKey>>,
    records: Vec<(Time, super::Record)>,
    events: Vec<(EventSeq, Time, NewEvent)>,
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
            numbers: BTreeMap::new(),
            states: BTreeMap::new(),
            alerts: BTreeMap::new(),
            records: Vec::new(),
            events: Vec::new(),
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
        self.inner(|inner| {
            let changes = decide(&View {
                now,
                created: inner.created,
                states: inner.states(&keys),
                controls: inner.controls.clone(),
                unsent: BTreeMap::new(),
            });
            inner.apply(now, changes, &self.outlets);
        });
        self.outlets.values().for_each(|outlet| outlet.wake());
        let next = self.inner(|inner| inner.states.values().filter_map(|state| state.due()).min());
        self.due.send_replace(next);
        Ok(())
    }

    pub(super) async fn settle(
        &self,
        outlet: &Arc<Outlet>,
        settled: Vec<(EventSeq, Settlement)>,
    ) -> Result<(), Error> {
        let now = self.now();
        outlet.lane(|lane| {
            for (seq, settlement) in settled {
                match settlement {
                    Settlement::Delivered => lane.delivered(seq),
                    Settlement::Retry { delay, .. } => lane.retry(seq, now.after(delay)),
                    Settlement::Dead { .. } => lane.dead(seq),
                }
            }
        });
        outlet.wake();
        Ok(())
    }

    pub(super) async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        let now = self.now();
        Ok(self.inner(|inner| {
            let due = inner.states.iter().filter(|(_, state)| state.due().is_some_and(|due| due <= now));
            due.take(max).map(|(key, _)| key.clone()).collect()
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
                let behind = inner.events.partition_point(|(seq, ..)| seq.0 <= lane.read_to());
                for (seq, at, event) in &inner.events[behind..] {
                    if !lane.has_room() {
                        break;
                    }
                    if event.destinations.contains(&outlet.name) {
                        let group = inner.numbers.get(&event.target).copied().unwrap_or(-seq.0);
                        lane.offer(*seq, group, *at, event.body.as_str().into());
                    } else {
                        lane.skip_to(*seq);
                    }
                }
                let handed = lane.claim(max, now).into_iter();
                let claimed = handed.map(|handed| Claimed {
                    seq: handed.seq,
                    body: handed.body.unwrap_or_else(|| {
                        let at = inner.events.partition_point(|(seq, ..)| *seq < handed.seq);
                        inner.events[at].2.body.as_str().into()
                    }),
                    emitted_at: handed.emitted_at,
                    attempts: handed.attempts,
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

    pub(super) fn tally(&self) -> Tally {
        Tally::default()
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

    fn apply(&mut self, now: Time, changes: Changes, outlets: &Outlets) {
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
        self.records.extend(changes.record.map(|record| (now, record)));
        for event in changes.events {
            let seq = EventSeq(self.events.len() as i64 + 1);
            for outlet in event.destinations.iter().filter_map(|name| outlets.get(name)) {
                outlet.lane(|lane| lane.given(1));
            }
            self.events.push((seq, now, event));
        }
    }
}
