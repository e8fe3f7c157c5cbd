//! What an in-memory store has, behind its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::notifications::Notifications;
use crate::domain::alert_key::AlertKey;
use crate::domain::control::Controls;
use crate::domain::delivery::GiveUp;
use crate::domain::engine::States;
use crate::domain::header::EncodedEvent;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::store::audit::MemoryAudit;
use crate::store::dead_letters::{BACKLOG_FULL, DeadLetterRow};
use crate::store::fast_map::Set;
use crate::store::lane::{Claim, Group, Lane, Marks, NewDelivery, PendingRetry};
use crate::store::lanes::{LaneHandle, LaneHandles};
use crate::store::{
    AuditWrite, Changes, Claimed, DeadLetterError, Delivery, DeliveryId, DeliveryState, EventSeq, Keys,
    NewEvent, Record, Redrive, Settlement, Tally, dead_letters, expiry, withdrawn,
};

/// Locked for each operation.
pub(super) struct Inner {
    pub(super) created: Time,
    pub(super) controls: Arc<Controls>,
    /// Targets that depend on the controls and were not rechecked since the generation increased.
    pub(super) recheck_queue: BTreeSet<TargetKey>,
    pub(super) target_ids: BTreeMap<TargetKey, i64>,
    pub(super) states: BTreeMap<TargetKey, Arc<TargetState>>,
    /// When each target is due.
    pub(super) due: BTreeSet<(Time, TargetKey)>,
    /// Targets that wait until calls to a destination succeed.
    pub(super) waiting: BTreeSet<TargetKey>,
    pub(super) alerts: BTreeMap<AlertKey, BTreeSet<TargetKey>>,
    /// With the wall clock.
    pub(super) records: Vec<(Time, Record)>,
    pub(super) events: Vec<(EventSeq, Time, NewEvent)>,
    /// The last error of unsettled deliveries.
    pub(super) errors: BTreeMap<DeliveryId, String>,
    pub(super) dead: BTreeMap<DeliveryId, DeadLetterRow>,
    /// Why each dead letter was given up.
    pub(super) causes: BTreeMap<DeliveryId, GiveUp>,
    /// Cancelled, discarded, replaced and withdrawn deliveries.
    pub(super) never_delivered: BTreeSet<DeliveryId>,
    /// Those of them that were replaced.
    pub(super) replaced: BTreeSet<DeliveryId>,
    /// Settled deliveries that may have arrived.
    pub(super) uncertain: BTreeSet<DeliveryId>,
    pub(super) receipts: BTreeMap<DeliveryId, Receipt>,
    /// Events by target and id.
    pub(super) ids: BTreeMap<(TargetKey, Arc<str>), EventSeq>,
    /// Targets for which a delivery has changed since they were rechecked.
    pub(super) changed: BTreeSet<TargetKey>,
    /// The new `expirytime` of redriven deliveries.
    pub(super) expiry: BTreeMap<DeliveryId, Time>,
    pub(super) audit: MemoryAudit,
    pub(super) notifications: Notifications,
}

/// A delivery that has arrived.
pub(super) struct Receipt {
    at: Time,
    attempts: u32,
    answer: Option<String>,
}

impl Receipt {
    pub(super) fn at(&self) -> Time {
        self.at
    }
}

impl Inner {
    /// Counts all states: an in-memory store is small.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for state in self.states.values() {
            for rule in state.open_episodes() {
                *tally.open_episodes.entry(rule.clone()).or_default() += 1;
            }
            for rule in state.owing_rules() {
                *tally.owed.entry(rule.clone()).or_default() += 1;
            }
            for verdict in state.deferred_verdicts() {
                *tally.deferred.entry(verdict).or_default() += 1;
            }
        }
        tally
    }

    pub(super) fn states(&self, keys: &Keys) -> States {
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

    /// A claim with what the lane does not have.
    pub(super) fn claimed(&self, destination: &Name, claim: Claim) -> Claimed {
        let delivery_id = DeliveryId { seq: claim.lease.seq(), destination: destination.clone() };
        Claimed {
            lease: claim.lease,
            body: claim.body.unwrap_or_else(|| self.as_sent(&delivery_id)),
            emitted_at: claim.age_from,
            attempts: claim.attempts,
            is_uncertain: claim.is_uncertain,
            redrives: expiry::redrives(self.expiry.get(&delivery_id).copied()),
            last_error: self.errors.get(&delivery_id).map(|error| error.as_str().into()),
            nothing_to_compensate: claim.compensates && !self.has_arrived(&delivery_id),
        }
    }

    pub(super) fn refill(&self, destination: &Name, lane: &mut Lane) {
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
    pub(super) fn group(&self, target: &TargetKey, seq: EventSeq) -> Group {
        self.target_ids.get(target).copied().unwrap_or(-seq.0)
    }

    pub(super) fn body(&self, seq: EventSeq) -> &str {
        &self.event(seq).2.body
    }

    pub(super) fn apply(&mut self, clock: ClockReading, changes: Changes, lanes: &LaneHandles) {
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
            self.index(&key, before.as_deref(), &state);
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
        self.changed.retain(|key| !changes.rechecked.contains(key) && self.states.contains_key(key));
        for change in &changes.delivery_changes {
            self.change_delivery(clock, change, lanes);
        }
        let depends = |key: &TargetKey| self.states.get(key).is_some_and(|state| state.depends_on_controls());
        self.recheck_queue.retain(|key| !changes.rechecked.contains(key) && depends(key));
        self.records.extend(changes.record.map(|record| (clock.wall, record)));
        changes.notification.into_iter().for_each(|notification| self.notifications.put(clock, notification));
        changes.audit.into_iter().for_each(|entry| {
            self.audit.write(clock.wall, AuditWrite::Add(entry));
        });
        for event in changes.events {
            self.put_event(clock, event, lanes);
        }
    }

    /// Indexes a state that replaces another one.
    fn index(&mut self, key: &TargetKey, before: Option<&TargetState>, state: &TargetState) {
        if let Some(at) = before.and_then(TargetState::due) {
            self.due.remove(&(at, key.clone()));
        }
        if let Some(at) = state.due() {
            self.due.insert((at, key.clone()));
        }
        if state.destination_waits().next().is_some() {
            self.waiting.insert(key.clone());
        } else {
            self.waiting.remove(key);
        }
    }

    pub(super) fn put_event(&mut self, clock: ClockReading, event: NewEvent, lanes: &LaneHandles) {
        let seq = EventSeq(self.events.len() as i64 + 1);
        self.events.push((seq, clock.now, event.clone()));
        if let Ok(header) = event.body.header() {
            self.ids.insert((event.target.clone(), header.id.clone()), seq);
        }
        for handle in event.destinations.iter().filter_map(|name| lanes.get(name)) {
            let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
            if compensates(&event) && self.firing_events(&delivery_id).next().is_none() {
                self.withdraw(clock.wall, &delivery_id, withdrawn::NEVER_ROUTED);
                handle.with_lane(|lane| lane.add_enqueued(1, 1, 0));
                self.never_delivered.insert(delivery_id);
                self.delivery_ended(&event.target);
            } else if handle.is_full(0) {
                let (error, cause) = (BACKLOG_FULL.to_owned(), GiveUp::Rejected);
                self.put_dead_letter(clock.wall, &delivery_id, 0, error, cause);
                handle.with_lane(|lane| lane.add_enqueued(1, 1, 1));
                self.delivery_ended(&event.target);
            } else {
                handle.with_lane(|lane| lane.add_enqueued(1, 0, 0));
            }
        }
    }

    pub(super) fn settle(
        &mut self,
        clock: ClockReading,
        handle: &LaneHandle,
        seq: EventSeq,
        settlement: Settlement,
    ) {
        if !handle.with_lane(|lane| lane.is_unsettled(seq)) {
            return;
        }
        let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
        let target = self.event(seq).2.target.clone();
        let (was_cancelled, was_uncertain) =
            handle.with_lane(|lane| (lane.is_cancelled(seq), lane.is_uncertain(seq)));
        let outcome = self.write_outcome(clock, handle, seq, settlement);
        let is_uncertain = was_uncertain || matches!(outcome, Settled::Retry { is_uncertain: true });
        match outcome {
            Settled::Arrived => self.delivery_arrived(&target),
            Settled::Retry { .. } if !was_cancelled => return,
            Settled::Retry { .. } | Settled::NotDelivered => {
                if is_uncertain {
                    self.uncertain.insert(delivery_id.clone());
                }
                self.delivery_ended(&target);
            }
        }
        self.errors.remove(&delivery_id);
    }

    fn write_outcome(
        &mut self,
        clock: ClockReading,
        handle: &LaneHandle,
        seq: EventSeq,
        settlement: Settlement,
    ) -> Settled {
        let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
        match settlement {
            Settlement::Retry { delay, error, uncertain } => {
                self.errors.insert(delivery_id, error);
                handle.with_lane(|lane| lane.schedule_retry(seq, clock.now.after(delay), uncertain));
                Settled::Retry { is_uncertain: uncertain }
            }
            Settlement::NotCalled { delay, stands_aside } => {
                handle.with_lane(|lane| lane.postpone(seq, clock.now.after(delay), stands_aside));
                Settled::Retry { is_uncertain: false }
            }
            Settlement::Delivered { answer } => {
                self.never_delivered.remove(&delivery_id);
                let attempts = handle.with_lane(|lane| lane.attempts(seq)).saturating_add(1);
                self.receipts.insert(delivery_id, Receipt { at: clock.now, attempts, answer });
                handle.with_lane(|lane| lane.mark_arrived(seq, clock.now));
                Settled::Arrived
            }
            Settlement::Withdrawn { reason } => {
                // A cancelled delivery already has a record.
                if !handle.with_lane(|lane| lane.is_cancelled(seq)) {
                    self.withdraw(clock.wall, &delivery_id, &reason);
                    self.never_delivered.insert(delivery_id);
                }
                handle.with_lane(|lane| lane.mark_withdrawn(seq));
                Settled::NotDelivered
            }
            Settlement::Dead { error, cause, called, uncertain } => {
                if uncertain {
                    self.uncertain.insert(delivery_id.clone());
                }
                // It was superseded, so it is no dead letter that can be redriven.
                if handle.with_lane(|lane| lane.is_cancelled(seq)) {
                    handle.with_lane(|lane| lane.mark_withdrawn(seq));
                    return Settled::NotDelivered;
                }
                let attempts = handle.with_lane(|lane| lane.attempts(seq)).saturating_add(u32::from(called));
                self.put_dead_letter(clock.wall, &delivery_id, attempts, error, cause);
                handle.with_lane(|lane| lane.mark_dead(seq));
                Settled::NotDelivered
            }
        }
    }

    pub(super) fn put_dead_letter(
        &mut self,
        wall: Time,
        delivery_id: &DeliveryId,
        attempts: u32,
        error: String,
        cause: GiveUp,
    ) {
        self.causes.insert(delivery_id.clone(), cause);
        let (_, emitted_at, _) = self.event(delivery_id.seq);
        let emitted_at = *emitted_at;
        let (delivery_id, event) = (delivery_id.clone(), self.as_sent(delivery_id));
        let row = DeadLetterRow {
            delivery_id: delivery_id.clone(),
            emitted_at,
            attempts,
            error,
            given_up_at: wall,
            event,
        };
        self.dead.insert(delivery_id, row);
    }

    pub(super) fn withdraw(&mut self, wall: Time, delivery_id: &DeliveryId, reason: &str) {
        let (_, _, event) = self.event(delivery_id.seq);
        let body = withdrawn::withdrawal_record(wall, &event.body, &delivery_id.destination, reason);
        let targets = vec![event.target.clone()];
        self.records.push((wall, Record { targets, body }));
    }

    pub(super) fn redrive(
        &mut self,
        clock: ClockReading,
        handle: &LaneHandle,
        seq: EventSeq,
        redrive: Redrive,
    ) -> Result<(), DeadLetterError> {
        let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
        let row = self.dead.get(&delivery_id).ok_or(DeadLetterError::NotDead)?;
        let (_, _, event) = self.event(seq);
        let state = self.states.get(&event.target).cloned().unwrap_or_default();
        let before = self.expiry.get(&delivery_id).copied();
        let may_decrease = event.may_decrease_capacity;
        if let Some(expiry) = redrive.check(&row.event, before, may_decrease, &state, clock.wall)? {
            self.expiry.insert(delivery_id.clone(), expiry);
        }
        self.deliver_again(clock.now, handle, seq);
        Ok(())
    }

    /// Returns a dead letter to the queue.
    pub(super) fn deliver_again(&mut self, now: Time, handle: &LaneHandle, seq: EventSeq) {
        let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
        let Some(DeadLetterRow { attempts, error, .. }) = self.dead.remove(&delivery_id) else { return };
        let (_, emitted_at, event) = self.event(seq);
        let (emitted_at, target, compensates) = (*emitted_at, event.target.clone(), compensates(event));
        let group = self.group(&target, seq);
        let is_uncertain = self.uncertain.remove(&delivery_id);
        self.errors.insert(delivery_id, error);
        let marks = Marks { is_suspended: false, is_uncertain };
        let pending =
            PendingRetry { seq, group, emitted_at, age_from: now, compensates, attempts, marks, due: now };
        handle.with_lane(|lane| lane.redrive(pending));
        self.delivery_ended(&target);
    }

    /// The `on_firing` events of the same episode that were routed to the destination.
    pub(super) fn firing_events<'a>(
        &'a self,
        delivery_id: &'a DeliveryId,
    ) -> impl Iterator<Item = EventSeq> + 'a {
        let (_, _, compensation) = self.event(delivery_id.seq);
        let is_reverted = move |event: &NewEvent| {
            let id = event.body.header().map(|header| header.id.clone());
            event.target == compensation.target && id.is_ok_and(|id| compensation.reverts.contains(&id))
        };
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
                && if compensation.reverts.is_empty() { of_episode(event) } else { is_reverted(event) }
                && event.destinations.contains(&delivery_id.destination)
        });
        enqueued.map(|(seq, ..)| *seq)
    }

    /// Whether one of the [`Self::firing_events`] has arrived at the destination.
    pub(super) fn has_arrived(&self, delivery_id: &DeliveryId) -> bool {
        self.firing_events(delivery_id).any(|seq| {
            let delivery_id = DeliveryId { seq, destination: delivery_id.destination.clone() };
            self.receipts.contains_key(&delivery_id)
        })
    }

    /// Whether one of them can still be delivered: it stands aside.
    pub(super) fn is_compensation_undecided(&self, delivery_id: &DeliveryId, lane: &Lane) -> bool {
        self.firing_events(delivery_id).any(|seq| lane.is_unsettled(seq))
    }

    /// The state of a delivery. Cancelled, discarded and withdrawn deliveries are not distinguished.
    pub(super) fn delivery(&self, seq: EventSeq, handle: &LaneHandle) -> Delivery {
        let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
        let (is_unsettled, attempts, is_suspended, is_uncertain, first) = handle.with_lane(|lane| {
            let marks = (lane.is_suspended(seq), lane.is_uncertain(seq));
            (lane.is_unsettled(seq), lane.attempts(seq), marks.0, marks.1, lane.blocked_by(seq))
        });
        let (dead, receipt) = (self.dead.get(&delivery_id), self.receipts.get(&delivery_id));
        let error = self.errors.get(&delivery_id).cloned();
        let (state, attempts) = match (dead, receipt) {
            (Some(row), _) => (DeliveryState::Dead, row.attempts),
            (None, Some(receipt)) => (DeliveryState::Delivered, receipt.attempts),
            (None, None) if is_unsettled && (attempts > 0 || error.is_some()) => {
                (DeliveryState::Retrying, attempts)
            }
            (None, None) if is_unsettled => (DeliveryState::Pending, 0),
            (None, None) if self.replaced.contains(&delivery_id) => (DeliveryState::Replaced, 0),
            (None, None) if self.never_delivered.contains(&delivery_id) => (DeliveryState::Superseded, 0),
            (None, None) => (DeliveryState::Pending, 0),
        };
        let blocked_by = first.and_then(|seq| Some(self.event(seq).2.body.header().ok()?.id.to_string()));
        Delivery {
            state,
            attempts,
            delivered_at: receipt.map(|receipt| receipt.at),
            error: dead.map(|row| row.error.clone()).or(error),
            answer: receipt.and_then(|receipt| receipt.answer.clone()),
            is_suspended,
            is_uncertain: is_uncertain || self.uncertain.contains(&delivery_id),
            blocked_by: blocked_by.filter(|_| state == DeliveryState::Pending),
            due: None,
            destination: delivery_id.destination,
        }
    }

    pub(super) fn event(&self, seq: EventSeq) -> &(EventSeq, Time, NewEvent) {
        &self.events[self.events.partition_point(|(known, ..)| *known < seq)]
    }

    pub(super) fn as_sent(&self, delivery_id: &DeliveryId) -> EncodedEvent {
        dead_letters::as_sent(self.body(delivery_id.seq), self.expiry.get(delivery_id).copied())
    }
}

/// What a settlement has made of a delivery.
enum Settled {
    Arrived,
    NotDelivered,
    Retry { is_uncertain: bool },
}

pub(super) fn compensates(event: &NewEvent) -> bool {
    event.episode_phase.as_ref().is_some_and(|phase| phase.phase == Phase::Resolved)
}
