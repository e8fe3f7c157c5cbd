//! What a batch writes, as data: complete but for the numbers of events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::{Hash, alert_hash};
use super::decide::Outcome;
use super::rows::{LockedRows, LockedTarget};
use super::tracked::{EventWrite, References, compensated, event_id};
use super::view::Slot;
use crate::domain::control::Controls;
use crate::domain::delivery::DeliveryChangeKind;
use crate::domain::direction::Direction;
use crate::domain::rate::Rate;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::json;
use crate::store::fast_map::{Map, Set};
use crate::store::postgres::deliveries::feedback::TrackedEvent;
use crate::store::postgres::error::DbError;
use crate::store::postgres::fleet::tally;
use crate::store::postgres::queries::records::NewRecord;
use crate::store::postgres::queries::target_hash;
use crate::store::postgres::schedule::DestinationWaits;
use crate::store::tracking::Watch;
use crate::store::{AuditEntry, Changes, KeptNotification, NewEvent, Record};

/// Initial capacity of the text of a state: one allocation instead of one for each doubling.
const STATE_CAPACITY: usize = 2048;

/// The writes of a batch.
#[derive(Default)]
pub(super) struct WriteSet {
    pub targets: Vec<TargetWrite>,
    /// Targets that were processed and are not written.
    pub rechecked: Vec<RecheckedTarget>,
    pub removed_alerts: Vec<(Hash, i64)>,
    pub added_alerts: Vec<(Hash, i64)>,
    pub events: Vec<EventWrite>,
    /// Numbers of events to which the state of their target does not refer any more.
    pub untracked: Vec<i64>,
    pub delivery_changes: Vec<(ClockReading, i64, DeliveryChangeKind)>,
    pub records: Vec<NewRecord>,
    pub notifications: Vec<(ClockReading, KeptNotification)>,
    pub audit: Vec<(ClockReading, AuditEntry)>,
    pub controls: Option<Arc<Controls>>,
    /// In the order of [`Direction::ALL`].
    pub rates: [Option<Arc<Rate>>; 2],
    /// What targets have added to the counts, and what they add now.
    pub tally: Vec<(Option<String>, Option<String>)>,
    /// The earliest time at which a written target is due.
    pub next_due: Option<Time>,
    /// Whether a target that was due is not due any more, or is later.
    pub may_postpone: bool,
}

/// The columns of a target that are written with its state.
pub(super) struct TargetWrite {
    pub id: i64,
    pub at: Time,
    pub due: Option<Time>,
    pub recheck: bool,
    pub depends_on_controls: bool,
    pub generation: u64,
    /// Bits, see the column.
    pub watch: i16,
    pub waits: Option<String>,
    pub tally: Option<String>,
    /// JSON; `None` deletes the state.
    pub state: Option<String>,
}

/// The columns of a target that was processed without a change.
pub(super) struct RecheckedTarget {
    pub id: i64,
    pub generation: u64,
    pub waits: Option<String>,
}

/// What a write set is made from.
pub(super) struct Source<'a> {
    pub rows: &'a LockedRows,
    pub tracked: &'a BTreeMap<i64, Vec<TrackedEvent>>,
    /// When the next target is due, as far as is known.
    pub next_due: Option<Time>,
}

/// The targets that a decision writes or mentions without having read them.
pub(super) fn missing_targets(changes: &Changes, slot: &Slot, rows: &LockedRows) -> Vec<(Hash, TargetKey)> {
    let states = changes.states.iter().map(|(key, _)| key);
    let events = changes.events.iter().map(|event| &event.target);
    let records = changes.record.iter().flat_map(|record| &record.targets);
    let written: BTreeSet<&TargetKey> = states.chain(events).chain(records).collect();
    let is_known =
        |hash: &Hash| rows.by_hash.get(hash).is_some_and(|id| slot.targets.binary_search(id).is_ok());
    let all = written.into_iter().map(|key| (target_hash(key), key));
    all.filter(|(hash, _)| !is_known(hash)).map(|(hash, key)| (hash, key.clone())).collect()
}

impl WriteSet {
    /// The writes of these decisions.
    ///
    /// # Errors
    /// A state or the controls cannot be written as JSON.
    pub(super) fn new(
        decided: Vec<(Slot, Changes)>,
        outcome: &Outcome,
        source: &Source<'_>,
    ) -> Result<Self, DbError> {
        let mut set = Self::default();
        for (slot, changes) in decided {
            set.add(&slot, changes, source)?;
        }
        set.controls.clone_from(&outcome.controls);
        for ((direction, is_changed), rate) in
            Direction::ALL.into_iter().zip(outcome.changed.rates).zip(&mut set.rates)
        {
            *rate = is_changed.then(|| outcome.rates.rate(direction).clone());
        }
        Ok(set)
    }

    /// Whether nothing is written.
    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty()
            && self.rechecked.is_empty()
            && self.events.is_empty()
            && self.delivery_changes.is_empty()
            && self.records.is_empty()
            && self.notifications.is_empty()
            && self.audit.is_empty()
            && self.controls.is_none()
            && self.rates.iter().all(Option::is_none)
    }

    fn add(&mut self, slot: &Slot, changes: Changes, source: &Source<'_>) -> Result<(), DbError> {
        let Changes {
            states,
            controls,
            rechecked,
            record,
            notification,
            events,
            delivery_changes,
            rates: _,
            audit,
        } = changes;
        let clock = slot.view.clock();
        let id = |key: &TargetKey| {
            let id = source.rows.by_hash.get(&target_hash(key)).copied();
            id.filter(|id| slot.targets.binary_search(id).is_ok())
        };
        let generation = controls.as_ref().map_or(0, |changed| changed.generation);
        let generation = generation.max(slot.view.controls.generation);
        let rechecked: Set<i64> = rechecked.iter().filter_map(id).collect();
        for change in &delivery_changes {
            let events = id(&change.target).and_then(|id| source.tracked.get(&id));
            let found = events.and_then(|events| events.iter().rev().find(|event| event.id == change.event));
            match found {
                Some(event) => self.delivery_changes.push((clock, event.seq.0, change.kind)),
                None => {
                    tracing::debug!(event = %change.event, kind = ?change.kind, "change of the delivery of an unknown event, ignored");
                }
            }
        }
        // Only the last state of a target counts.
        let mut after: Map<i64, TargetState> = Map::default();
        let mut order = Vec::new();
        for (key, state) in states {
            if let Some(id) = id(&key)
                && after.insert(id, state).is_none()
            {
                order.push(id);
            }
        }
        self.add_events(events, &after, clock, source, id);
        for id in order {
            if let (Some(state), Some(before)) = (after.get(&id), source.rows.targets.get(&id)) {
                let rechecked = rechecked.contains(&id).then_some(generation);
                self.add_target(slot, before, state, rechecked, source)?;
            }
        }
        let unwritten = rechecked.iter().filter(|id| !after.contains_key(id));
        for before in unwritten.filter_map(|id| source.rows.targets.get(id)) {
            self.may_postpone |=
                before.is_pending(slot.view.controls.generation) || before.due <= source.next_due;
            let waits = before.state.as_ref().filter(|_| before.has_waits);
            let waits =
                waits.and_then(|state| DestinationWaits::of(state, &slot.view.deliveries.last_success));
            self.rechecked.push(RecheckedTarget { id: before.id, generation, waits });
        }
        if let Some(Record { targets, body }) = record {
            let mut targets: Vec<i64> = targets.iter().filter_map(id).collect();
            targets.sort_unstable();
            targets.dedup();
            let (at, ahead) = (clock.wall.as_nanos(), clock.ahead_nanos());
            self.records.push(NewRecord { at, ahead, targets, body });
        }
        self.notifications.extend(notification.map(|notification| (clock, notification)));
        self.audit.extend(audit.map(|entry| (clock, entry)));
        Ok(())
    }

    /// `rechecked` is the generation of the controls, if the target was processed because it was due.
    fn add_target(
        &mut self,
        slot: &Slot,
        before: &LockedTarget,
        state: &TargetState,
        rechecked: Option<u64>,
        source: &Source<'_>,
    ) -> Result<(), DbError> {
        let old = before.state.as_deref();
        if state.is_empty() && old.is_none() {
            return Ok(());
        }
        let depended = old.is_some_and(TargetState::depends_on_controls);
        let depends_on_controls = !state.is_empty() && state.depends_on_controls();
        // It stays pending until it is processed, whatever else is decided about it.
        let generation = match rechecked {
            Some(generation) => generation,
            None if depended => before.generation,
            None => slot.view.controls.generation,
        };
        let watch = Watch::of(state, None);
        let write = TargetWrite {
            id: before.id,
            at: slot.view.now,
            due: state.due().filter(|_| !state.is_empty()),
            recheck: before.recheck && rechecked.is_none() && !state.is_empty(),
            depends_on_controls,
            generation,
            watch: i16::from(watch.tracks_events) | i16::from(watch.awaits_delivery) << 1,
            waits: DestinationWaits::of(state, &slot.view.deliveries.last_success),
            tally: tally::encode(state),
            state: (!state.is_empty()).then(|| json::to_string(state, STATE_CAPACITY)).transpose().map_err(
                |error| DbError::Damaged(format!("the state of {} cannot be written: {error}", before.key)),
            )?,
        };
        let [old_alerts, alerts] = [old, Some(state)].map(|state| alerts(state));
        let missing = |from: &[Hash], other: &[Hash]| -> Vec<(Hash, i64)> {
            // Both are sorted; a target can have as many alerts as a notification.
            from.iter()
                .filter(|alert| other.binary_search(alert).is_err())
                .map(|alert| (*alert, before.id))
                .collect()
        };
        self.removed_alerts.extend(missing(&old_alerts, &alerts));
        self.added_alerts.extend(missing(&alerts, &old_alerts));
        if write.tally != before.tally {
            self.tally.push((before.tally.clone(), write.tally.clone()));
        }
        let is_pending = before.is_pending(slot.view.controls.generation)
            && (depended || before.recheck || before.has_waits);
        self.may_postpone |= is_pending || before.due.is_some() && before.due <= source.next_due;
        self.next_due = self.next_due.into_iter().chain(write.due).min();
        let references = References::new(state);
        let events = source.tracked.get(&before.id).into_iter().flatten();
        let untracked = events.filter(|event| {
            let episode = event.episode.as_ref().map(|(episode, phase)| (episode.as_str(), *phase));
            !references.has(episode, &event.id)
        });
        self.untracked.extend(untracked.map(|event| event.seq.0));
        self.targets.push(write);
        Ok(())
    }

    /// Adds the events of a command. `after` are the states that it writes.
    fn add_events(
        &mut self,
        events: Vec<NewEvent>,
        after: &Map<i64, TargetState>,
        clock: ClockReading,
        source: &Source<'_>,
        id: impl Fn(&TargetKey) -> Option<i64>,
    ) {
        let first = self.events.len();
        for event in events {
            let Some(target) = id(&event.target) else { continue };
            let before = source.rows.targets.get(&target).and_then(|target| target.state.as_deref());
            let references = after.get(&target).or(before).map(References::new);
            let event_id = event_id(&event);
            let phase = event.episode_phase.as_ref();
            let is_tracked = references.is_some_and(|references| {
                references.has(phase.map(|phase| (&*phase.episode, phase.phase)), &event_id)
            });
            let stored = source.tracked.get(&target);
            let compensates = compensated(&event, target, stored, (&self.events, first));
            self.events.push(EventWrite { target, clock, id: event_id, event, is_tracked, compensates });
        }
    }
}

impl LockedTarget {
    /// Whether it has to be processed for another reason than a time, by controls of this generation.
    fn is_pending(&self, generation: u64) -> bool {
        self.recheck || self.generation < generation || self.has_waits
    }
}

/// The alerts of a state, sorted and without duplicates.
fn alerts(state: Option<&TargetState>) -> Vec<Hash> {
    let mut alerts: Vec<Hash> = state.into_iter().flat_map(|state| state.alerts().map(alert_hash)).collect();
    alerts.sort_unstable();
    alerts.dedup();
    alerts
}

#[cfg(test)]
#[path = "write_set_tests.rs"]
mod tests;
