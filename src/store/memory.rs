//! In-memory store with a clock that the caller sets: the reference model for property tests, and the store of
//! `test`, `explain` and `replay`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::audit::MemoryAudit;
use super::dead_letters::{BACKLOG_FULL, DeadLetterRow};
use super::fast_map::Set;
use super::history::History;
use super::lane::{self, Group, Lane, NewDelivery, Outcome, PendingRetry, Position};
use super::lanes::{LaneHandle, LaneHandles};
use super::outbox::{DeliveryQueue, Outbox};
use super::states::StateStore;
use super::undelivered_decreases::{TrackedDecrease, UndeliveredDecreases};
use super::{
    AuditPage, AuditQuery, AuditWrite, Changes, Claimed, DeadLetter, DeadLetterError, DecideFn, Delivery,
    DeliveryId, DeliveryState, DestinationStats, DropError, Error, EventSeq, Keys, Lease, NewEvent,
    RecordCursor, RecordQuery, Records, Redrive, Retries, Settlement, Snapshot, StateCursor, StoredEvent,
    StoredRecord, StoredState, Tally, UnreadableRow, View, WallClock, dead_letters, withdrawn,
};
use crate::domain::alert_key::AlertKey;
use crate::domain::control::Controls;
use crate::domain::engine::{States, UndeliveredDecrease};
use crate::domain::event::id_prefix;
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;

/// An in-memory store. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
    lanes: LaneHandles,
    clock: WallClock,
    due: watch::Sender<Option<Time>>,
}

struct Inner {
    created: Time,
    controls: Arc<Controls>,
    /// Targets that depend on the controls and were not rechecked since the generation increased.
    recheck_queue: BTreeSet<TargetKey>,
    target_ids: BTreeMap<TargetKey, i64>,
    states: BTreeMap<TargetKey, Arc<TargetState>>,
    alerts: BTreeMap<AlertKey, BTreeSet<TargetKey>>,
    records: Vec<(Time, super::Record)>,
    events: Vec<(EventSeq, Time, NewEvent)>,
    tracked_decreases: UndeliveredDecreases<TargetKey>,
    /// The last error of unsettled deliveries.
    errors: BTreeMap<DeliveryId, String>,
    dead: BTreeMap<DeliveryId, DeadLetterRow>,
    /// Cancelled, discarded and withdrawn deliveries.
    never_delivered: BTreeSet<DeliveryId>,
    /// The new `expirytime` of redriven deliveries.
    expiry: BTreeMap<DeliveryId, Time>,
    audit: MemoryAudit,
}

impl Memory {
    /// An empty store, created at the clock's time.
    pub fn new(destinations: &[Name], clock: WallClock) -> Self {
        let handle = |(id, name): (usize, &Name)| {
            let handle = LaneHandle::new(name.clone(), id as i64, Lane::new(Position::default()));
            (name.clone(), Arc::new(handle))
        };
        let inner = Inner {
            created: clock(),
            controls: Arc::default(),
            recheck_queue: BTreeSet::new(),
            target_ids: BTreeMap::new(),
            states: BTreeMap::new(),
            alerts: BTreeMap::new(),
            records: Vec::new(),
            events: Vec::new(),
            tracked_decreases: UndeliveredDecreases::default(),
            errors: BTreeMap::new(),
            dead: BTreeMap::new(),
            never_delivered: BTreeSet::new(),
            expiry: BTreeMap::new(),
            audit: MemoryAudit::default(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            lanes: LaneHandles::new(destinations.iter().enumerate().map(handle).collect()),
            clock,
            due: watch::Sender::new(None),
        }
    }

    fn with_inner<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        f(&mut self.inner.lock())
    }

    fn add_destination(&self, destination: Name) {
        if self.lanes.get(&destination).is_some() {
            return;
        }
        let (newest, dead) = self.with_inner(|inner| {
            let dead = inner.dead.keys().filter(|delivery_id| delivery_id.destination == destination).count();
            (inner.events.len() as i64, dead as u64)
        });
        let id = self.lanes.all().len() as i64;
        let position = Position { cursor: newest, dead, ..Position::default() };
        self.lanes.add(Arc::new(LaneHandle::new(destination, id, Lane::new(position))));
    }
}

impl StateStore for Memory {
    async fn transact(&self, keys: Keys, mut decide: DecideFn) -> Result<(), Error> {
        let now = self.now();
        // Claims take the same lock, so workers cannot claim the undelivered decreases of the view meanwhile.
        self.with_inner(|inner| {
            let states = inner.states(&keys);
            let (seqs, undelivered_decreases) = inner.undelivered_decreases(&keys, &states);
            let (created, controls) = (inner.created, inner.controls.clone());
            let changes = decide(&View { now, created, states, controls, undelivered_decreases });
            inner.apply(now, changes, seqs, &self.lanes);
        });
        self.lanes.all().values().for_each(|handle| handle.wake());
        let next = self.with_inner(|inner| {
            let to_recheck = inner.recheck_queue.first().map(|_| now);
            inner.states.values().filter_map(|state| state.due()).chain(to_recheck).min()
        });
        self.due.send_replace(next);
        Ok(())
    }

    async fn locate(&self, alerts: Vec<AlertKey>) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error> {
        let keys = Keys { alerts, targets: Vec::new() };
        Ok(self.with_inner(|inner| inner.states(&keys).alerts))
    }

    async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        let now = self.now();
        Ok(self.with_inner(|inner| {
            let scheduled = inner.states.iter().filter_map(|(key, state)| Some((state.due()?, key)));
            let due: BTreeSet<_> = scheduled.filter(|(at, _)| *at <= now).collect();
            let known: BTreeSet<_> = due.iter().map(|(_, key)| *key).collect();
            let to_recheck = inner.recheck_queue.iter().filter(|key| !known.contains(key));
            due.iter().map(|(_, key)| *key).chain(to_recheck).take(max).cloned().collect()
        }))
    }

    fn next_due(&self) -> watch::Receiver<Option<Time>> {
        self.due.subscribe()
    }

    fn snapshot(&self) -> Snapshot {
        let (controls, tally) = self.with_inner(|inner| (inner.controls.clone(), inner.tally()));
        Snapshot { controls, tally, unreadable_rows: Vec::new() }
    }

    async fn drop_unreadable(&self, _row: i64, _audit: AuditWrite) -> Result<UnreadableRow, DropError> {
        Err(DropError::NotUnreadable)
    }

    async fn audit(&self, write: AuditWrite) -> Result<i64, Error> {
        let now = self.now();
        Ok(self.with_inner(|inner| inner.audit.write(now, write)))
    }

    /// Deletes nothing: an in-memory store is short-lived.
    async fn prune(&self, _decisions: Duration, _delivered: Duration) -> Result<bool, Error> {
        Ok(false)
    }

    async fn close(&self) {}
}

impl DeliveryQueue for Memory {
    async fn claim(&self, destination: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        let handle = self.lanes.require(destination)?;
        let now = self.now();
        self.with_inner(|inner| {
            handle.with_lane(|lane| {
                inner.refill(&handle.name, lane);
                let claim = lane.claim(max, now).into_iter();
                let claimed = claim.map(|claim| {
                    let delivery_id = DeliveryId { seq: claim.lease.seq(), destination: handle.name.clone() };
                    Claimed {
                        lease: claim.lease,
                        body: claim.body.unwrap_or_else(|| inner.as_sent(&delivery_id)),
                        emitted_at: claim.emitted_at,
                        attempts: claim.attempts,
                        last_error: inner.errors.get(&delivery_id).map(|error| error.as_str().into()),
                        nothing_to_compensate: claim.compensates && !inner.has_arrived(&delivery_id),
                    }
                });
                Ok(claimed.collect())
            })
        })
    }

    async fn superseded(&self, destination: &Name, leases: Vec<Lease>) -> Result<Vec<Lease>, Error> {
        Ok(self.lanes.require(destination)?.with_lane(|lane| lane.superseded(leases)))
    }

    async fn settle(&self, destination: &Name, settled: Vec<(Lease, Settlement)>) -> Result<(), Error> {
        let handle = &self.lanes.require(destination)?;
        let now = self.now();
        self.with_inner(|inner| {
            for (lease, settlement) in settled {
                if handle.with_lane(|lane| lane.holds(lease)) {
                    inner.settle(now, handle, lease.seq(), settlement);
                }
            }
        });
        handle.wake();
        Ok(())
    }

    async fn wait(&self, destination: &Name) {
        match self.lanes.require(destination) {
            Ok(handle) => handle.wait(self.now()).await,
            Err(_) => std::future::pending().await,
        }
    }

    fn now(&self) -> Time {
        (self.clock)()
    }
}

impl Outbox for Memory {
    async fn add_destinations(&self, destinations: Vec<Name>) -> Result<(), Error> {
        destinations.into_iter().for_each(|destination| self.add_destination(destination));
        Ok(())
    }

    async fn remove_destination(&self, destination: Name) -> Result<(), Error> {
        self.lanes.remove(&destination);
        Ok(())
    }

    /// None: the caller of an in-memory store knows all its destinations.
    async fn orphaned_destinations(&self) -> Result<Vec<Name>, Error> {
        Ok(Vec::new())
    }

    fn set_max_backlog(&self, destination: &Name, max_backlog: Option<u64>) -> Result<(), Error> {
        self.lanes.require(destination)?.set_max_backlog(max_backlog);
        Ok(())
    }

    fn release(&self, destination: &Name, retries: Retries) -> Result<(), Error> {
        self.lanes.require(destination)?.release_claims(retries);
        Ok(())
    }

    fn undelivered(&self) -> u64 {
        self.lanes.undelivered()
    }

    fn stats(&self, destination: &Name) -> DestinationStats {
        self.lanes.stats(destination)
    }

    async fn dead_letters(
        &self,
        destination: Option<Name>,
        after: Option<DeliveryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        Ok(self.with_inner(|inner| {
            let wanted = |delivery_id: &DeliveryId| {
                destination.as_ref().is_none_or(|wanted| *wanted == delivery_id.destination)
                    && after.as_ref().is_none_or(|after| delivery_id > after)
            };
            let found = inner.dead.iter().filter(|(delivery_id, _)| wanted(delivery_id)).take(max);
            found.map(|(_, row)| DeadLetter::from(row.clone())).collect()
        }))
    }

    async fn redrive(
        &self,
        delivery_id: &DeliveryId,
        redrive: Redrive,
        audit: AuditWrite,
    ) -> Result<(), DeadLetterError> {
        let now = self.now();
        let DeliveryId { seq, destination } = delivery_id.clone();
        let handle = &self.lanes.get(&destination).ok_or(DeadLetterError::NotConfigured(destination))?;
        self.with_inner(|inner| {
            inner.redrive(now, handle, seq, redrive).map(|()| inner.audit.write(now, audit))
        })?;
        handle.wake();
        Ok(())
    }

    async fn discard(&self, delivery_id: &DeliveryId, audit: AuditWrite) -> Result<(), DeadLetterError> {
        let now = self.now();
        self.with_inner(|inner| {
            inner.dead.remove(delivery_id).map(|_| {
                inner.never_delivered.insert(delivery_id.clone());
                inner.audit.write(now, audit);
            })
        })
        .ok_or(DeadLetterError::NotDead)?;
        let handle = self.lanes.get(&delivery_id.destination);
        handle.into_iter().for_each(|handle| handle.with_lane(|lane| lane.mark_discarded(1)));
        Ok(())
    }
}

impl History for Memory {
    async fn history(&self, target: &TargetKey, from: Time, to: Time) -> Result<Vec<String>, Error> {
        Ok(self.with_inner(|inner| {
            let matching = inner
                .records
                .iter()
                .filter(|(at, record)| *at >= from && *at <= to && record.targets.contains(target));
            matching.map(|(_, record)| record.body.clone()).collect()
        }))
    }

    async fn records(&self, wanted: RecordQuery) -> Result<Records, Error> {
        let (low, high) = wanted.id_range();
        Ok(self.with_inner(|inner| {
            let matching = inner.records.iter().zip(1..).filter(|((at, record), id)| {
                (low..=high).contains(id)
                    && (wanted.from..=wanted.to).contains(at)
                    && wanted.target.as_ref().is_none_or(|target| record.targets.contains(target))
            });
            let mut found: Vec<_> = matching
                .map(|((_, record), id)| StoredRecord {
                    cursor: RecordCursor::new(id),
                    body: record.body.clone(),
                })
                .collect();
            if wanted.newest_first {
                found.reverse();
            }
            let has_more = found.len() > wanted.max;
            found.truncate(wanted.max);
            Records { records: found, has_more }
        }))
    }

    async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        let prefix = id_prefix(id);
        Ok(self.with_inner(|inner| {
            let found = inner.events.iter().rev().find(|(_, _, event)| event.body.starts_with(&prefix));
            found.map(|(seq, emitted_at, event)| {
                let deliveries = event.destinations.iter().filter_map(|destination| {
                    let handle = self.lanes.get(destination)?;
                    Some(inner.delivery(*seq, &handle))
                });
                StoredEvent {
                    emitted_at: *emitted_at,
                    body: event.body.to_string(),
                    deliveries: deliveries.collect(),
                }
            })
        }))
    }

    async fn states(&self, after: Option<StateCursor>, max: usize) -> Result<Vec<StoredState>, Error> {
        Ok(self.with_inner(|inner| {
            let numbered = inner.states.iter().filter_map(|(key, state)| {
                let cursor = StateCursor::new(*inner.target_ids.get(key)?);
                let is_after = after.is_none_or(|after| cursor > after);
                is_after.then(|| StoredState { cursor, key: key.clone(), state: TargetState::clone(state) })
            });
            let mut found: Vec<_> = numbered.collect();
            found.sort_by_key(|state| state.cursor);
            found.truncate(max);
            found
        }))
    }

    async fn audit_trail(&self, query: AuditQuery) -> Result<AuditPage, Error> {
        Ok(self.with_inner(|inner| inner.audit.page(&query)))
    }
}

impl Inner {
    /// Counts all states: an in-memory store is small.
    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for state in self.states.values() {
            for rule in state.open_episodes() {
                *tally.open_episodes.entry(rule.clone()).or_default() += 1;
            }
            for verdict in state.deferred_verdicts() {
                *tally.deferred.entry(verdict).or_default() += 1;
            }
        }
        tally
    }

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

    /// The numbers and contents of the undelivered decreases of each target.
    fn undelivered_decreases(
        &self,
        keys: &Keys,
        states: &States,
    ) -> (BTreeMap<TargetKey, Vec<EventSeq>>, BTreeMap<TargetKey, Vec<UndeliveredDecrease>>) {
        let (mut seqs, mut events) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        let wanted: BTreeSet<&TargetKey> = keys.targets.iter().chain(states.targets.keys()).collect();
        for key in wanted {
            for (seq, _) in self.tracked_decreases.for_target(key) {
                let Ok(decrease) = UndeliveredDecrease::read(self.body(EventSeq(seq))) else { continue };
                seqs.entry(key.clone()).or_default().push(EventSeq(seq));
                events.entry(key.clone()).or_default().push(decrease);
            }
        }
        (seqs, events)
    }

    fn refill(&self, destination: &Name, lane: &mut Lane) {
        let first = self.events.partition_point(|(seq, ..)| seq.0 <= lane.high_watermark());
        for (seq, at, event) in &self.events[first..] {
            if !lane.has_room() {
                // Deliveries blocked by a retry are parked, so that they do not fill the window.
                lane.blocked_by_retry(&Set::default())
                    .into_iter()
                    .for_each(|seq| lane.mark_parked(EventSeq(seq)));
            }
            if !lane.has_room() {
                return;
            }
            if event.destinations.contains(destination) {
                let delivery = NewDelivery {
                    seq: *seq,
                    group: self.group(&event.target, *seq),
                    emitted_at: *at,
                    compensates: compensates(event),
                    body: event.body.clone(),
                };
                let delivery_id = DeliveryId { seq: *seq, destination: destination.clone() };
                match self.dead.contains_key(&delivery_id) || self.never_delivered.contains(&delivery_id) {
                    true => lane.push_known(&delivery),
                    false => lane.push(delivery),
                }
            } else {
                lane.skip_to(*seq);
            }
        }
    }

    /// An event whose target never had a state is in a group of its own.
    fn group(&self, target: &TargetKey, seq: EventSeq) -> Group {
        self.target_ids.get(target).copied().unwrap_or(-seq.0)
    }

    fn body(&self, seq: EventSeq) -> &str {
        &self.event(seq).2.body
    }

    fn cancel(&mut self, seq: EventSeq, lanes: &LaneHandles) {
        let pending_destinations =
            self.tracked_decreases.get(seq.0).into_iter().flat_map(|decrease| &decrease.pending_destinations);
        for handle in pending_destinations.filter_map(|name| lanes.get(name)) {
            handle.with_lane(|lane| lane.cancel(seq));
            self.never_delivered.insert(DeliveryId { seq, destination: handle.name.clone() });
        }
        self.tracked_decreases.remove(seq.0);
    }

    fn apply(
        &mut self,
        now: Time,
        changes: Changes,
        mut undelivered_decreases: BTreeMap<TargetKey, Vec<EventSeq>>,
        lanes: &LaneHandles,
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
            let next = self.target_ids.len() as i64 + 1;
            self.target_ids.entry(key.clone()).or_insert(next);
            if state.is_empty() {
                self.states.remove(&key);
            } else {
                self.states.insert(key, Arc::new(state));
            }
        }
        if let Some(controls) = changes.controls {
            if controls.generation > self.controls.generation {
                self.recheck_queue = self.states.keys().cloned().collect();
            }
            self.controls = controls;
        }
        let depends = |key: &TargetKey| self.states.get(key).is_some_and(|state| state.depends_on_controls());
        self.recheck_queue.retain(|key| !changes.rechecked.contains(key) && depends(key));
        self.records.extend(changes.record.map(|record| (now, record)));
        changes.audit.into_iter().for_each(|entry| {
            self.audit.write(now, AuditWrite::Add(entry));
        });
        for event in changes.events {
            if event.increases_capacity {
                undelivered_decreases
                    .remove(&event.target)
                    .into_iter()
                    .flatten()
                    .for_each(|seq| self.cancel(seq, lanes));
            }
            self.put_event(now, event, lanes);
        }
    }

    fn put_event(&mut self, now: Time, event: NewEvent, lanes: &LaneHandles) {
        let seq = EventSeq(self.events.len() as i64 + 1);
        let mut pending_destinations = Vec::new();
        self.events.push((seq, now, event.clone()));
        for handle in event.destinations.iter().filter_map(|name| lanes.get(name)) {
            let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
            if compensates(&event) && self.firing_events(&delivery_id).next().is_none() {
                self.withdraw(now, &delivery_id, withdrawn::NEVER_ROUTED);
                handle.with_lane(|lane| lane.add_enqueued(1, 1, 0));
                self.never_delivered.insert(delivery_id);
            } else if handle.is_full(0) {
                self.put_dead_letter(now, &delivery_id, 0, BACKLOG_FULL.to_owned());
                handle.with_lane(|lane| lane.add_enqueued(1, 1, 1));
            } else {
                handle.with_lane(|lane| lane.add_enqueued(1, 0, 0));
                pending_destinations.push(delivery_id.destination);
            }
        }
        if event.may_decrease_capacity && !pending_destinations.is_empty() {
            let target = event.target;
            let group = self.group(&target, seq);
            self.tracked_decreases.add(seq.0, TrackedDecrease { target, group, pending_destinations });
        }
    }

    fn settle(&mut self, now: Time, handle: &LaneHandle, seq: EventSeq, settlement: Settlement) {
        if !handle.with_lane(|lane| lane.is_unsettled(seq)) {
            return;
        }
        let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
        match settlement {
            Settlement::Retry { delay, error } => {
                self.errors.insert(delivery_id, error);
                return handle.with_lane(|lane| lane.schedule_retry(seq, now.after(delay)));
            }
            Settlement::Delivered | Settlement::Answered { .. } => {
                self.never_delivered.remove(&delivery_id);
                handle.with_lane(|lane| lane.mark_delivered(seq));
            }
            Settlement::Withdrawn { reason } => {
                // A cancelled delivery already has a record.
                if !handle.with_lane(|lane| lane.is_cancelled(seq)) {
                    self.withdraw(now, &delivery_id, &reason);
                }
                handle.with_lane(|lane| lane.mark_delivered(seq));
            }
            Settlement::Dead { error } => {
                let attempts = handle.with_lane(|lane| match lane.row_change(seq, Outcome::Dead) {
                    lane::RowChange::Put { attempts } => attempts,
                    _ => 0,
                });
                self.put_dead_letter(now, &delivery_id, attempts, error);
                handle.with_lane(|lane| lane.mark_dead(seq));
            }
        }
        self.errors.remove(&delivery_id);
        self.tracked_decreases.mark_settled(seq.0, &handle.name);
    }

    fn put_dead_letter(&mut self, now: Time, delivery_id: &DeliveryId, attempts: u32, error: String) {
        let (_, emitted_at, _) = self.event(delivery_id.seq);
        let emitted_at = *emitted_at;
        let (delivery_id, event) = (delivery_id.clone(), self.as_sent(delivery_id));
        let row = DeadLetterRow {
            delivery_id: delivery_id.clone(),
            emitted_at,
            attempts,
            error,
            given_up_at: now,
            event,
        };
        self.dead.insert(delivery_id, row);
    }

    fn withdraw(&mut self, now: Time, delivery_id: &DeliveryId, reason: &str) {
        let (_, _, event) = self.event(delivery_id.seq);
        let body = withdrawn::withdrawal_record(now, &event.body, &delivery_id.destination, reason);
        let targets = vec![event.target.clone()];
        self.records.push((now, super::Record { targets, body }));
    }

    fn redrive(
        &mut self,
        now: Time,
        handle: &LaneHandle,
        seq: EventSeq,
        redrive: Redrive,
    ) -> Result<(), DeadLetterError> {
        let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
        let row = self.dead.get(&delivery_id).ok_or(DeadLetterError::NotDead)?;
        if let Some(expiry) = redrive.check(&row.event, now)? {
            self.expiry.insert(delivery_id.clone(), expiry);
        }
        let Some(DeadLetterRow { attempts, error, .. }) = self.dead.remove(&delivery_id) else {
            return Ok(());
        };
        let (_, _, event) = self.event(seq);
        let (target, may_decrease, compensation) =
            (event.target.clone(), event.may_decrease_capacity, compensates(event));
        let group = self.group(&target, seq);
        if may_decrease {
            self.tracked_decreases.add(
                seq.0,
                TrackedDecrease { target, group, pending_destinations: vec![handle.name.clone()] },
            );
        }
        self.errors.insert(delivery_id, error);
        handle.with_lane(|lane| {
            lane.redrive(PendingRetry {
                seq,
                group,
                emitted_at: now,
                compensates: compensation,
                attempts,
                due: now,
            });
        });
        Ok(())
    }

    /// The `on_firing` events of the same episode that were routed to the destination.
    fn firing_events<'a>(&'a self, delivery_id: &'a DeliveryId) -> impl Iterator<Item = EventSeq> + 'a {
        let (_, _, compensation) = self.event(delivery_id.seq);
        let of_episode = move |event: &NewEvent| match (&event.episode_phase, &compensation.episode_phase) {
            (Some(one), Some(other)) => {
                one.phase == Phase::Firing
                    && one.episode == other.episode
                    && event.target == compensation.target
            }
            _ => false,
        };
        let enqueued = self.events.iter().filter(move |(seq, _, event)| {
            *seq < delivery_id.seq
                && of_episode(event)
                && event.destinations.contains(&delivery_id.destination)
        });
        enqueued.map(|(seq, ..)| *seq)
    }

    /// Whether one of the [`Self::firing_events`] has arrived at the destination. All of them are settled.
    fn has_arrived(&self, delivery_id: &DeliveryId) -> bool {
        self.firing_events(delivery_id).any(|seq| {
            let delivery_id = DeliveryId { seq, destination: delivery_id.destination.clone() };
            !self.dead.contains_key(&delivery_id) && !self.never_delivered.contains(&delivery_id)
        })
    }

    /// The state of a delivery. Cancelled, discarded and withdrawn deliveries are not distinguished.
    fn delivery(&self, seq: EventSeq, handle: &LaneHandle) -> Delivery {
        let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
        let if_dead =
            handle.with_lane(|lane| lane.is_unsettled(seq).then(|| lane.row_change(seq, Outcome::Dead)));
        let dead = self.dead.get(&delivery_id);
        let (state, failed_attempts) = match (if_dead, dead) {
            (_, Some(row)) => (DeliveryState::Dead, row.attempts),
            (Some(lane::RowChange::Put { attempts }), None) if self.errors.contains_key(&delivery_id) => {
                // `row_change` counts the attempt that would fail now.
                (DeliveryState::Retrying, attempts.saturating_sub(1))
            }
            (Some(_), None) => (DeliveryState::Pending, 0),
            (None, None) if self.never_delivered.contains(&delivery_id) => (DeliveryState::Superseded, 0),
            (None, None) if handle.with_lane(|lane| lane.is_settled(seq)) => (DeliveryState::Delivered, 0),
            (None, None) => (DeliveryState::Pending, 0),
        };
        let error = dead.map(|row| row.error.clone()).or_else(|| self.errors.get(&delivery_id).cloned());
        Delivery {
            destination: delivery_id.destination,
            state,
            failed_attempts,
            error,
            answer: None,
            due: None,
        }
    }

    fn event(&self, seq: EventSeq) -> &(EventSeq, Time, NewEvent) {
        &self.events[self.events.partition_point(|(known, ..)| *known < seq)]
    }

    fn as_sent(&self, delivery_id: &DeliveryId) -> EncodedEvent {
        dead_letters::as_sent(self.body(delivery_id.seq), self.expiry.get(delivery_id).copied())
    }
}

fn compensates(event: &NewEvent) -> bool {
    event.episode_phase.as_ref().is_some_and(|phase| phase.phase == Phase::Resolved)
}
