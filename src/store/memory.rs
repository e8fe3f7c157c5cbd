//! A store that keeps nothing on disk: for tests, with a clock that the test moves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::lane::{self, End, Group, Lane, Offered, Position, Waiting};
use super::letters::{BACKLOG_FULL, Row};
use super::numbers::Set;
use super::outlets::{Outlet, Outlets};
use super::shrinking::{Open, Shrinking};
use super::{
    Changes, Claimed, DeadLetter, Decide, Delivery, DeliveryState, Error, EventSeq, Keys, LetterError,
    NewEvent, Place, Records, Redrive, Settlement, StoredEvent, StoredRecord, StoredState, Tally, View,
    WallClock, Wanted, expiry, look, withdrawn,
};
use crate::domain::control::Controls;
use crate::domain::engine::{States, UndeliveredDecrease};
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::state::{AlertKey, TargetState};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::Phase;

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
    /// What went wrong the last time, of what was tried and is not settled.
    errors: BTreeMap<Place, String>,
    dead: BTreeMap<Place, Row>,
    /// What was cancelled or discarded.
    missed: BTreeSet<Place>,
    /// What was redriven with another `expirytime`.
    expiry: BTreeMap<Place, Time>,
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
            errors: BTreeMap::new(),
            dead: BTreeMap::new(),
            missed: BTreeSet::new(),
            expiry: BTreeMap::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            outlets: Outlets::new(destinations.iter().enumerate().map(outlet).collect()),
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
        self.outlets.all().values().for_each(|outlet| outlet.wake());
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
            for (seq, settlement) in settled {
                inner.settle(now, outlet, seq, settlement);
            }
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

    pub(super) async fn attach(&self, destination: Name) -> Result<(), Error> {
        let (newest, dead) = self.inner(|inner| {
            let dead = inner.dead.keys().filter(|place| place.destination == destination).count();
            (inner.events.len() as i64, dead as u64)
        });
        let number = self.outlets.all().len() as i64;
        let position = Position { cursor: newest, dead, ..Position::default() };
        self.outlets.attach(Arc::new(Outlet::new(destination, number, Lane::new(position))));
        Ok(())
    }

    pub(super) async fn detach(&self, destination: Name) -> Result<(), Error> {
        self.outlets.detach(&destination);
        Ok(())
    }

    /// What a store in memory was given is known to those who gave it.
    pub(super) async fn abandoned(&self) -> Result<Vec<Name>, Error> {
        Ok(Vec::new())
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
                let claimed = handed.map(|handed| {
                    let place = Place { seq: handed.seq, destination: outlet.name.clone() };
                    Claimed {
                        seq: handed.seq,
                        body: handed.body.unwrap_or_else(|| inner.as_sent(&place)),
                        emitted_at: handed.emitted_at,
                        attempts: handed.attempts,
                        last_error: inner.errors.get(&place).map(|error| error.as_str().into()),
                        undoes_nothing: handed.undoes && !inner.has_arrived(&place),
                    }
                });
                Ok(claimed.collect())
            })
        })
    }

    pub(super) async fn dead_letters(
        &self,
        destination: Option<Name>,
        after: Option<Place>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        Ok(self.inner(|inner| {
            let wanted = |place: &Place| {
                destination.as_ref().is_none_or(|wanted| *wanted == place.destination)
                    && after.as_ref().is_none_or(|after| place > after)
            };
            let found = inner.dead.iter().filter(|(place, _)| wanted(place)).take(max);
            found.map(|(_, row)| DeadLetter::from(row.clone())).collect()
        }))
    }

    pub(super) async fn redrive(
        &self,
        outlet: &Arc<Outlet>,
        seq: EventSeq,
        redrive: Redrive,
    ) -> Result<(), LetterError> {
        let now = self.now();
        self.inner(|inner| inner.redrive(now, outlet, seq, redrive))?;
        outlet.wake();
        Ok(())
    }

    pub(super) async fn discard(&self, place: &Place) -> Result<(), LetterError> {
        self.inner(|inner| inner.dead.remove(place).map(|_| inner.missed.insert(place.clone())))
            .ok_or(LetterError::NotDead)?;
        let outlet = self.outlets.get(&place.destination);
        outlet.into_iter().for_each(|outlet| outlet.lane(|lane| lane.discarded(1)));
        Ok(())
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

    pub(super) async fn records(&self, wanted: Wanted) -> Result<Records, Error> {
        let (low, high) = wanted.numbers();
        Ok(self.inner(|inner| {
            let about = inner.records.iter().zip(1..).filter(|((at, record), id)| {
                (low..=high).contains(id)
                    && (wanted.from..=wanted.to).contains(at)
                    && wanted.target.as_ref().is_none_or(|target| record.targets.contains(target))
            });
            let mut found: Vec<_> =
                about.map(|((_, record), id)| StoredRecord { id, body: record.body.clone() }).collect();
            if wanted.newest_first {
                found.reverse();
            }
            let more = found.len() > wanted.max;
            found.truncate(wanted.max);
            Records { records: found, more }
        }))
    }

    pub(super) async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        let begin = look::beginning(id);
        Ok(self.inner(|inner| {
            let found = inner.events.iter().rev().find(|(_, _, event)| event.body.starts_with(&begin));
            found.map(|(seq, emitted_at, event)| {
                let deliveries = event.destinations.iter().filter_map(|destination| {
                    let outlet = self.outlets.get(destination)?;
                    Some(inner.delivery(*seq, &outlet))
                });
                StoredEvent {
                    emitted_at: *emitted_at,
                    body: event.body.to_string(),
                    deliveries: deliveries.collect(),
                }
            })
        }))
    }

    pub(super) async fn states(&self, after: i64, max: usize) -> Result<Vec<StoredState>, Error> {
        Ok(self.inner(|inner| {
            let numbered = inner.states.iter().filter_map(|(key, state)| {
                let id = *inner.numbers.get(key)?;
                (id > after).then(|| StoredState { id, key: key.clone(), state: TargetState::clone(state) })
            });
            let mut found: Vec<_> = numbered.collect();
            found.sort_by_key(|state| state.id);
            found.truncate(max);
            found
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
                for verdict in state.deferred_verdicts() {
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
    ) -> (BTreeMap<TargetKey, Vec<EventSeq>>, BTreeMap<TargetKey, Vec<UndeliveredDecrease>>) {
        let (mut seqs, mut events) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        let wanted: BTreeSet<&TargetKey> = keys.targets.iter().chain(states.targets.keys()).collect();
        for key in wanted {
            for (seq, _) in self.shrinking.of(key) {
                let Ok(unsent) = UndeliveredDecrease::read(self.body(EventSeq(seq))) else { continue };
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
                lane.to_park(&Set::default()).into_iter().for_each(|seq| lane.parked(EventSeq(seq)));
            }
            if !lane.has_room() {
                return;
            }
            if event.destinations.contains(destination) {
                let offered = Offered {
                    seq: *seq,
                    group: self.group(&event.target, *seq),
                    emitted_at: *at,
                    undoes: undoes(event),
                    body: event.body.clone(),
                };
                let place = Place { seq: *seq, destination: destination.clone() };
                match self.dead.contains_key(&place) || self.missed.contains(&place) {
                    true => lane.offer_with_row(&offered),
                    false => lane.offer(offered),
                }
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
        &self.event(seq).2.body
    }

    fn cancel(&mut self, seq: EventSeq, outlets: &Outlets) {
        let left = self.shrinking.get(seq.0).into_iter().flat_map(|open| &open.left);
        for outlet in left.filter_map(|name| outlets.get(name)) {
            outlet.lane(|lane| lane.cancel(seq));
            self.missed.insert(Place { seq, destination: outlet.name.clone() });
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
            let before = self.states.get(&key).cloned();
            for alert in before.iter().flat_map(|before| before.alerts()) {
                if let Some(targets) = self.alerts.get_mut(alert) {
                    targets.remove(&key);
                }
            }
            for alert in state.alerts() {
                self.alerts.entry(alert.clone()).or_default().insert(key.clone());
            }
            for alert in before.iter().flat_map(|before| before.alerts()) {
                if self.alerts.get(alert).is_some_and(BTreeSet::is_empty) {
                    self.alerts.remove(alert);
                }
            }
            let next = self.numbers.len() as i64 + 1;
            self.numbers.entry(key.clone()).or_insert(next);
            if state.is_empty() {
                self.states.remove(&key);
            } else {
                self.states.insert(key, Arc::new(state));
            }
        }
        if let Some(controls) = changes.controls {
            if controls.generation > self.controls.generation {
                self.woken = self.states.keys().cloned().collect();
            }
            self.controls = controls;
        }
        let watches = |key: &TargetKey| self.states.get(key).is_some_and(|state| state.depends_on_controls());
        self.woken.retain(|key| !changes.looked_at.contains(key) && watches(key));
        self.records.extend(changes.record.map(|record| (now, record)));
        for event in changes.events {
            if event.adds {
                unsent.remove(&event.target).into_iter().flatten().for_each(|seq| self.cancel(seq, outlets));
            }
            self.put_event(now, event, outlets);
        }
    }

    fn put_event(&mut self, now: Time, event: NewEvent, outlets: &Outlets) {
        let seq = EventSeq(self.events.len() as i64 + 1);
        let mut left = Vec::new();
        self.events.push((seq, now, event.clone()));
        for outlet in event.destinations.iter().filter_map(|name| outlets.get(name)) {
            let place = Place { seq, destination: outlet.name.clone() };
            if undoes(&event) && self.fired(&place).next().is_none() {
                self.withdraw(now, &place, withdrawn::NEVER_GIVEN);
                outlet.lane(|lane| lane.given(1, 1, 0));
                self.missed.insert(place);
            } else if outlet.is_full(0) {
                self.bury(now, &place, 0, BACKLOG_FULL.to_owned());
                outlet.lane(|lane| lane.given(1, 1, 1));
            } else {
                outlet.lane(|lane| lane.given(1, 0, 0));
                left.push(place.destination);
            }
        }
        if event.may_shrink && !left.is_empty() {
            let target = event.target;
            let group = self.group(&target, seq);
            self.shrinking.add(seq.0, Open { target, group, left });
        }
    }

    fn settle(&mut self, now: Time, outlet: &Outlet, seq: EventSeq, settlement: Settlement) {
        if !outlet.lane(|lane| lane.is_open(seq)) {
            return;
        }
        let place = Place { seq, destination: outlet.name.clone() };
        match settlement {
            Settlement::Retry { delay, error } => {
                self.errors.insert(place, error);
                return outlet.lane(|lane| lane.retry(seq, now.after(delay)));
            }
            Settlement::Delivered | Settlement::Answered { .. } => {
                self.missed.remove(&place);
                outlet.lane(|lane| lane.delivered(seq));
            }
            Settlement::Withdrawn { reason } => {
                // What was cancelled has its line already.
                if !outlet.lane(|lane| lane.is_cancelled(seq)) {
                    self.withdraw(now, &place, &reason);
                }
                outlet.lane(|lane| lane.delivered(seq));
            }
            Settlement::Dead { error } => {
                let attempts = outlet.lane(|lane| match lane.row(seq, End::Dead) {
                    lane::Row::Put { attempts } => attempts,
                    _ => 0,
                });
                self.bury(now, &place, attempts, error);
                outlet.lane(|lane| lane.dead(seq));
            }
        }
        self.errors.remove(&place);
        self.shrinking.settled(seq.0, &outlet.name);
    }

    fn bury(&mut self, now: Time, place: &Place, attempts: u32, error: String) {
        let (_, emitted_at, _) = self.event(place.seq);
        let emitted_at = *emitted_at;
        let (place, event) = (place.clone(), self.as_sent(place));
        let row = Row { place: place.clone(), emitted_at, attempts, error, given_up_at: now, event };
        self.dead.insert(place, row);
    }

    fn withdraw(&mut self, now: Time, place: &Place, reason: &str) {
        let (_, _, event) = self.event(place.seq);
        let body = withdrawn::record(now, &event.body, &place.destination, reason);
        let targets = vec![event.target.clone()];
        self.records.push((now, super::Record { targets, body }));
    }

    fn redrive(
        &mut self,
        now: Time,
        outlet: &Outlet,
        seq: EventSeq,
        redrive: Redrive,
    ) -> Result<(), LetterError> {
        let place = Place { seq, destination: outlet.name.clone() };
        let row = self.dead.get(&place).ok_or(LetterError::NotDead)?;
        if let Some(expiry) = redrive.check(&row.event, now)? {
            self.expiry.insert(place.clone(), expiry);
        }
        let Some(Row { attempts, error, .. }) = self.dead.remove(&place) else { return Ok(()) };
        let (_, _, event) = self.event(seq);
        let (target, shrinks, undoes) = (event.target.clone(), event.may_shrink, undoes(event));
        let group = self.group(&target, seq);
        if shrinks {
            self.shrinking.add(seq.0, Open { target, group, left: vec![outlet.name.clone()] });
        }
        self.errors.insert(place, error);
        outlet.lane(|lane| lane.redrive(Waiting { seq, group, emitted_at: now, undoes, attempts, due: now }));
        Ok(())
    }

    /// The `on_firing` events of the same episode that a destination was given.
    fn fired<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = EventSeq> + 'a {
        let (_, _, undoes) = self.event(place.seq);
        let of_episode = move |event: &NewEvent| match (&event.part, &undoes.part) {
            (Some(one), Some(other)) => {
                one.phase == Phase::Firing && one.episode == other.episode && event.target == undoes.target
            }
            _ => false,
        };
        let given = self.events.iter().filter(move |(seq, _, event)| {
            *seq < place.seq && of_episode(event) && event.destinations.contains(&place.destination)
        });
        given.map(|(seq, ..)| *seq)
    }

    /// Whether one of these has arrived there; all that were given have been settled by now.
    fn has_arrived(&self, place: &Place) -> bool {
        self.fired(place).any(|seq| {
            let place = Place { seq, destination: place.destination.clone() };
            !self.dead.contains_key(&place) && !self.missed.contains(&place)
        })
    }

    /// What has become of an event at a destination. What a withdrawal was is told by the records alone.
    fn delivery(&self, seq: EventSeq, outlet: &Outlet) -> Delivery {
        let place = Place { seq, destination: outlet.name.clone() };
        let retry = outlet.lane(|lane| lane.is_open(seq).then(|| lane.row(seq, End::Dead)));
        let dead = self.dead.get(&place);
        let (state, failed_attempts) = match (retry, dead) {
            (_, Some(row)) => (DeliveryState::Dead, row.attempts),
            (Some(lane::Row::Put { attempts }), None) if self.errors.contains_key(&place) => {
                // The one that is being told of is not there yet.
                (DeliveryState::Retrying, attempts.saturating_sub(1))
            }
            (Some(_), None) => (DeliveryState::Pending, 0),
            (None, None) if self.missed.contains(&place) => (DeliveryState::Superseded, 0),
            (None, None) if outlet.lane(|lane| lane.is_settled(seq)) => (DeliveryState::Delivered, 0),
            (None, None) => (DeliveryState::Pending, 0),
        };
        let error = dead.map(|row| row.error.clone()).or_else(|| self.errors.get(&place).cloned());
        Delivery { destination: place.destination, state, failed_attempts, error, answer: None, due: None }
    }

    fn event(&self, seq: EventSeq) -> &(EventSeq, Time, NewEvent) {
        &self.events[self.events.partition_point(|(known, ..)| *known < seq)]
    }

    fn as_sent(&self, place: &Place) -> EncodedEvent {
        let body = self.body(place.seq);
        let rewritten = self.expiry.get(place).and_then(|at| expiry::rewrite(body, *at).ok());
        rewritten.map_or_else(|| body.into(), Into::into)
    }
}

fn undoes(event: &NewEvent) -> bool {
    event.part.as_ref().is_some_and(|part| part.phase == Phase::Resolved)
}
