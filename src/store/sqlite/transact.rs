//! One transaction: reads the states, decides or validates an optimistic decision, and writes the changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, ToSql, params};

use super::batch::{CommittedEvent, WriteBatch};
use super::committed::write_controls;
use super::compensation::{self, FiringEventRef};
use super::deliveries::UPSERT_DELIVERY;
use super::dictionaries::{self, Dictionaries, EncodedState};
use super::event_blocks::{self, EncodedBlock};
use super::index::{self, CachedTarget, Fingerprint, IndexOverlay};
use super::optimistic::{EncodedChanges, ReadSet, Speculation};
use super::writer::Writer;
use super::{recheck_queue, schema};
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::dead_letters::BACKLOG_FULL;
use crate::store::lane::NewDelivery;
use crate::store::undelivered_decreases::TrackedDecrease;
use crate::store::{
    AuditWrite, Changes, DecideFn, EpisodePhase, EventSeq, Keys, NewEvent, Record, View, withdrawn,
};

/// A decided transaction.
struct Decision {
    now: Time,
    changes: Changes,
    encoded: EncodedChanges,
    /// The undelivered decreases that the decision has seen, by target.
    undelivered_seqs: BTreeMap<TargetKey, Vec<i64>>,
}

/// The ids, routes and compensations of the events of a transaction.
#[derive(Default)]
struct Plan {
    events: Vec<PlannedEvent>,
    /// New `on_firing` events, by target.
    firing: index::Map<Vec<FiringEventRef>>,
}

struct PlannedEvent {
    seq: i64,
    route: i64,
    /// The `on_firing` events that it compensates; `None` for an `on_firing` event, or if they are unknown.
    compensates: Option<Vec<FiringEventRef>>,
    /// Whether its body is in an event block.
    is_in_block: bool,
}

impl Writer {
    /// Decides a transaction and writes its changes.
    pub(super) fn transact(
        &mut self,
        batch: &mut WriteBatch,
        keys: &Keys,
        decide: &mut DecideFn,
        speculation: Option<Box<Speculation>>,
    ) -> rusqlite::Result<()> {
        let controls = batch.controls.clone().unwrap_or_else(|| self.committed.controls());
        let Decision { now, changes, encoded, mut undelivered_seqs } =
            self.decide(batch, keys, decide, speculation, &controls)?;
        let mut plan = self.plan(batch, &changes.events)?;
        for ((key, state), text) in changes.states.into_iter().zip(encoded.states) {
            self.put_state(batch, now, key, (state, text), &plan.firing)?;
        }
        if let Some(changed) = changes.controls {
            write_controls(&self.connection, now, &changed)?;
            if changed.generation > controls.generation {
                batch.overlay.push_recheck_change(recheck_queue::RecheckChange::ControlsChanged(now));
            }
            batch.controls = Some(changed);
        }
        for key in &changes.rechecked {
            if let Some(id) = self.index().target(self.hashes.target(key), &batch.overlay) {
                batch.overlay.push_recheck_change(recheck_queue::RecheckChange::Rechecked(id));
            }
        }
        if let Some(entry) = changes.audit {
            self.write_audit(now, &AuditWrite::Add(entry))?;
        }
        if let Some(record) = &changes.record {
            self.put_record(batch, now, record, encoded.record.as_deref())?;
        }
        self.put_event_blocks(&mut plan.events, &encoded.event_blocks)?;
        for (event, planned) in changes.events.into_iter().zip(plan.events) {
            if event.increases_capacity {
                undelivered_seqs
                    .remove(&event.target)
                    .into_iter()
                    .flatten()
                    .for_each(|seq| self.cancel(batch, seq));
            }
            self.put_event(batch, now, event, planned)?;
        }
        Ok(())
    }

    /// Returns the optimistic decision if it is valid, and decides now otherwise.
    fn decide(
        &mut self,
        batch: &WriteBatch,
        keys: &Keys,
        decide: &mut DecideFn,
        speculation: Option<Box<Speculation>>,
        controls: &Arc<Controls>,
    ) -> rusqlite::Result<Decision> {
        if let Some(speculation) = speculation {
            if self.validate(batch, keys, &speculation, controls)? {
                let Speculation { now, changes, encoded, .. } = *speculation;
                return Ok(Decision { now, changes, encoded, undelivered_seqs: BTreeMap::new() });
            }
            self.gate.conflicted();
        }
        let now = self.clock.now();
        let read_set = ReadSet::for_keys(keys, self.hashes, &self.index(), &batch.overlay);
        let states = read_set.states(keys, |id| self.load(id, batch))?;
        let undelivered =
            self.find_undelivered_decreases(batch, keys.targets.iter().chain(states.targets.keys()))?;
        let view = View {
            now,
            created: self.created,
            states,
            controls: controls.clone(),
            undelivered_decreases: undelivered.events,
        };
        let changes = decide(&view);
        let encoded = EncodedChanges::from_changes(&changes, &self.dictionaries(batch));
        let encoded = encoded.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(Decision { now, changes, encoded, undelivered_seqs: undelivered.seqs })
    }

    /// Whether nothing that the optimistic decision has read was changed since.
    fn validate(
        &mut self,
        batch: &WriteBatch,
        keys: &Keys,
        speculation: &Speculation,
        controls: &Arc<Controls>,
    ) -> rusqlite::Result<bool> {
        let is_same = |(id, known): (&i64, &Arc<CachedTarget>)| {
            let now = self.index().state(*id, &batch.overlay).flatten();
            now.is_some_and(|now| Arc::ptr_eq(&now, known))
        };
        if !speculation.read_set.is_unchanged(&self.index(), &batch.overlay)
            || !Arc::ptr_eq(&speculation.controls, controls)
            || !speculation.targets.iter().all(is_same)
        {
            return Ok(false);
        }
        let known = speculation.targets.values().map(|known| &known.key);
        let undelivered = self.find_undelivered_decreases(batch, keys.targets.iter().chain(known))?;
        Ok(undelivered.events.is_empty())
    }

    /// Assigns ids to the events. Runs before the states are written, because a state stores its `on_firing`
    /// events.
    fn plan(&mut self, batch: &mut WriteBatch, events: &[NewEvent]) -> rusqlite::Result<Plan> {
        let mut plan = Plan::default();
        for event in events {
            let seq = batch.next.event;
            batch.next.event += 1;
            let route = self.route_id(batch, &event.destinations)?;
            let mut compensates = None;
            if let Some(EpisodePhase { phase, episode }) = &event.episode_phase {
                let episode = compensation::hash_episode(episode);
                let target = self.hashes.target(&event.target);
                let firing = plan.firing.entry(target).or_default();
                match phase {
                    Phase::Firing => firing.push(FiringEventRef { episode, seq: EventSeq(seq), route }),
                    Phase::Resolved => {
                        let id = self.index().target(target, &batch.overlay);
                        let known = id.map_or(Ok(None), |id| self.load(id, batch))?;
                        // A target without a state has no open episode, so there is nothing to compensate.
                        let before = known.map_or(Some(Vec::new()), |known| known.firing.clone());
                        compensates = before.map(|before| {
                            let all = before.iter().chain(&*firing);
                            all.filter(|firing| firing.episode == episode).copied().collect()
                        });
                    }
                }
            }
            plan.events.push(PlannedEvent { seq, route, compensates, is_in_block: false });
        }
        Ok(plan)
    }

    pub(super) fn load(
        &mut self,
        id: i64,
        batch: &WriteBatch,
    ) -> rusqlite::Result<Option<Arc<CachedTarget>>> {
        let cached = self.index().state(id, &batch.overlay);
        if let Some(known) = cached {
            return Ok(known);
        }
        let mut read = self.connection.prepare_cached(
            "SELECT t.key, t.state, t.firing_events, d.text
             FROM targets t LEFT JOIN dictionaries d ON d.id = t.dictionary WHERE t.id = ?1",
        )?;
        let found = read.query_row([id], |row| {
            let key = TargetKey::from_stored(row.get_ref(0)?.as_str()?);
            let state: TargetState =
                serde_json::from_str(&dictionaries::decode_state(row.get_ref(1)?, row.get_ref(3)?)?)
                    .map_err(|error| {
                        rusqlite::Error::FromSqlConversionFailure(
                            1,
                            rusqlite::types::Type::Text,
                            Box::new(error),
                        )
                    })?;
            let firing = row.get_ref(2)?.as_blob_or_null()?.map(compensation::decode);
            Ok(Arc::new(CachedTarget { key, state: Arc::new(state), firing }))
        });
        let found = found.optional()?;
        if let Some(known) = &found {
            self.index_mut().cache(id, known.clone());
        }
        Ok(found)
    }

    fn put_state(
        &mut self,
        batch: &mut WriteBatch,
        now: Time,
        key: TargetKey,
        (state, encoded): (TargetState, EncodedState),
        firing: &index::Map<Vec<FiringEventRef>>,
    ) -> rusqlite::Result<()> {
        let hash = self.hashes.target(&key);
        let id = self.index().target(hash, &batch.overlay);
        // In the cache, because the decision has just read it.
        let known = id.map_or(Ok(None), |id| self.load(id, batch))?;
        let (before, known_firing) = known.map_or_else(
            || (Arc::default(), Some(Vec::new())),
            |known| (known.state.clone(), known.firing.clone()),
        );
        if state.is_empty() {
            let Some(id) = id else { return Ok(()) };
            self.update_recheck_queue(batch, id, before.depends_on_controls(), false)?;
            batch.tally.put(&before, &TargetState::default());
            self.connection.prepare_cached("DELETE FROM targets WHERE id = ?1")?.execute([id])?;
            self.connection
                .prepare_cached("INSERT INTO retired_targets VALUES (?1, ?2, ?3)")?
                .execute(params![hash.0, id, now.as_nanos()])?;
            batch.overlay.put(&self.index(), &self.hashes, id, hash, &before, None);
            return Ok(());
        }
        if encoded.is_candidate()
            && let Some(dictionaries) = self.dictionaries(batch).add_candidate(&self.connection, &encoded)?
        {
            batch.dictionaries = Some(Arc::new(dictionaries));
        }
        let known_alerts = self.hashes.alerts(&state);
        let alerts: Vec<u8> = known_alerts.iter().flat_map(|alert| alert.0).collect();
        let due = state.due().map(Time::as_nanos);
        let new = firing.get(&hash).map_or(&[][..], Vec::as_slice);
        let firing = compensation::merge(&known_firing, new, &before, &state);
        let firing_bytes = firing.as_ref().map(compensation::encode);
        let row: [&dyn ToSql; 5] = [&due, &alerts, &encoded.text, &firing_bytes, &encoded.dictionary];
        let id = self.put_target_row(batch, id, hash, &key, row)?;
        self.update_recheck_queue(batch, id, before.depends_on_controls(), state.depends_on_controls())?;
        batch.tally.put(&before, &state);
        let known = Arc::new(CachedTarget { key, state: Arc::new(state), firing });
        batch.overlay.put(&self.index(), &self.hashes, id, hash, &before, Some((known, known_alerts)));
        Ok(())
    }

    /// Writes the row of a target: due time, alerts, state, `on_firing` events and dictionary. Returns its id.
    fn put_target_row(
        &self,
        batch: &mut WriteBatch,
        id: Option<i64>,
        hash: Fingerprint,
        key: &TargetKey,
        [due, alerts, state, firing_events, dictionary]: [&dyn ToSql; 5],
    ) -> rusqlite::Result<i64> {
        if let Some(id) = id {
            let mut update = self.connection.prepare_cached(
                "UPDATE targets SET due = ?2, alerts = ?3, state = ?4, firing_events = ?5, dictionary = ?6 WHERE id = ?1",
            )?;
            update.execute(params![id, due, alerts, state, firing_events, dictionary])?;
            return Ok(id);
        }
        let id = batch.next.target;
        batch.next.target += 1;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO targets (id, hash, due, alerts, key, state, firing_events, dictionary)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        insert.execute(params![id, hash.0, due, alerts, key.as_str(), state, firing_events, dictionary])?;
        Ok(id)
    }

    fn dictionaries(&self, batch: &WriteBatch) -> Arc<Dictionaries> {
        batch.dictionaries.clone().unwrap_or_else(|| self.committed.dictionaries())
    }

    fn update_recheck_queue(
        &self,
        batch: &mut WriteBatch,
        id: i64,
        before: bool,
        after: bool,
    ) -> rusqlite::Result<()> {
        let (change, statement) = match (before, after) {
            (false, true) => (recheck_queue::RecheckChange::Add(id), "INSERT INTO recheck_queue VALUES (?1)"),
            (true, false) => {
                (recheck_queue::RecheckChange::Remove(id), "DELETE FROM recheck_queue WHERE target = ?1")
            }
            _ => return Ok(()),
        };
        self.connection.prepare_cached(statement)?.execute([id])?;
        batch.overlay.push_recheck_change(change);
        Ok(())
    }

    fn put_record(
        &mut self,
        batch: &mut WriteBatch,
        now: Time,
        record: &Record,
        compressed: Option<&[u8]>,
    ) -> rusqlite::Result<()> {
        let mut targets = Vec::with_capacity(record.targets.len());
        for key in &record.targets {
            targets.push(self.target_id(key, batch, now)?);
        }
        match compressed {
            Some(compressed) => self.put_record_about(batch, now, &targets, compressed),
            None => self.put_record_about(batch, now, &targets, record.body.as_str()),
        }
    }

    /// Writes a record and its entries in the histories of the targets with these ids.
    pub(super) fn put_record_about(
        &self,
        batch: &mut WriteBatch,
        now: Time,
        targets: &[i64],
        body: impl ToSql,
    ) -> rusqlite::Result<()> {
        let id = batch.next.record;
        batch.next.record += 1;
        for target in targets {
            let mut put = self.connection.prepare_cached("INSERT INTO history VALUES (?1, ?2, ?3)")?;
            put.execute(params![target, now.as_nanos(), id])?;
        }
        let targets: Vec<u8> = targets.iter().flat_map(|target| target.to_be_bytes()).collect();
        let mut put = self.connection.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4)")?;
        put.execute(params![id, now.as_nanos(), targets, body]).map(drop)
    }

    /// Writes the compressed event blocks.
    fn put_event_blocks(&self, events: &mut [PlannedEvent], blocks: &[EncodedBlock]) -> rusqlite::Result<()> {
        let mut events = events.iter_mut();
        for EncodedBlock { event_count, compressed } in blocks {
            let mut block: Vec<_> = events.by_ref().take(*event_count).collect();
            if let (Some(compressed), [first, ..], [.., last]) = (compressed, &*block, &*block) {
                event_blocks::write(&self.connection, first.seq, last.seq, compressed)?;
                block.iter_mut().for_each(|event| event.is_in_block = true);
            }
        }
        Ok(())
    }

    fn put_event(
        &mut self,
        batch: &mut WriteBatch,
        now: Time,
        event: NewEvent,
        planned: PlannedEvent,
    ) -> rusqlite::Result<()> {
        let PlannedEvent { seq, route, compensates, is_in_block } = planned;
        let target = self.target_id(&event.target, batch, now)?;
        let compensates_bytes = compensates.as_ref().map(compensation::encode);
        self.connection
            .prepare_cached(
                "INSERT INTO events (id, target, route, at, body, decreases, compensates)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                seq,
                target,
                route,
                now.as_nanos(),
                if is_in_block { "" } else { &event.body },
                event.may_decrease_capacity,
                compensates_bytes
            ])?;
        let mut pending_destinations = Vec::with_capacity(event.destinations.len());
        for name in event.destinations.iter() {
            batch.lanes.entry(name.clone()).or_default().enqueued += 1;
            let settled_on_insert = if compensates
                .as_ref()
                .map_or(Ok(false), |compensates| self.was_never_routed_to(batch, name, compensates))?
            {
                let record = withdrawn::withdrawal_record(now, &event.body, name, withdrawn::NEVER_ROUTED);
                self.put_record_about(batch, now, &[target], record)?;
                self.settle_on_insert(batch, now, seq, name, schema::WITHDRAWN, withdrawn::NEVER_ROUTED)?
            } else if self.is_full(batch, name) {
                self.settle_on_insert(batch, now, seq, name, schema::DEAD, BACKLOG_FULL)?
            } else {
                false
            };
            if !settled_on_insert {
                pending_destinations.push(name.clone());
            }
        }
        if event.may_decrease_capacity && !pending_destinations.is_empty() {
            let decrease = TrackedDecrease {
                target: self.hashes.target(&event.target),
                group: target,
                pending_destinations,
            };
            batch.undelivered_decreases.add(seq, decrease);
        }
        let NewEvent { destinations, body, .. } = event;
        batch.events.push(CommittedEvent {
            delivery: NewDelivery {
                seq: EventSeq(seq),
                group: target,
                emitted_at: now,
                compensates: compensates.is_some(),
                body,
            },
            destinations,
        });
        Ok(())
    }

    /// Whether no route of these events has the destination.
    fn was_never_routed_to(
        &mut self,
        batch: &WriteBatch,
        name: &Name,
        compensates: &[FiringEventRef],
    ) -> rusqlite::Result<bool> {
        for firing in compensates {
            if self.route_destinations(batch, firing.route)?.contains(name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_full(&self, batch: &WriteBatch, name: &Name) -> bool {
        let lane_changes = batch.lanes.get(name);
        // `enqueued` includes the delivery that is being checked.
        let more = lane_changes.map_or(0, |lane_changes| {
            lane_changes.enqueued.saturating_sub(1 + lane_changes.settled_on_insert.len() as u64)
        });
        self.lanes.get(name).is_some_and(|handle| handle.is_full(more))
    }

    /// Settles a delivery in the commit that enqueues it. Returns false if the destination has no lane.
    fn settle_on_insert(
        &self,
        batch: &mut WriteBatch,
        now: Time,
        seq: i64,
        name: &Name,
        state: i64,
        reason: &str,
    ) -> rusqlite::Result<bool> {
        let Some(handle) = self.lanes.get(name) else { return Ok(false) };
        let mut put = self.connection.prepare_cached(UPSERT_DELIVERY)?;
        put.execute(params![handle.id, seq, state, 0, now.as_nanos(), reason])?;
        let lane_changes = batch.lanes.entry(name.clone()).or_default();
        lane_changes.settled_on_insert.insert(seq);
        if state == schema::DEAD {
            lane_changes.dead_on_insert += 1;
            lane_changes.dead_delta += 1;
        }
        Ok(true)
    }

    /// Returns the id of a target, also of one whose state this transaction deletes. A target without a state
    /// gets an id too, so that its history is found.
    fn target_id(&self, key: &TargetKey, batch: &mut WriteBatch, now: Time) -> rusqlite::Result<i64> {
        let hash = self.hashes.target(key);
        let staged = self.index().target(hash, &batch.overlay);
        if let Some(id) = staged.or_else(|| self.index().target(hash, &IndexOverlay::default())) {
            return Ok(id);
        }
        let mut last =
            self.connection.prepare_cached("SELECT max(id) FROM retired_targets WHERE hash = ?1")?;
        let last: Option<i64> = last.query_row([hash.0], |row| row.get(0))?;
        let id = last.unwrap_or_else(|| {
            batch.next.target += 1;
            batch.next.target - 1
        });
        // The id is retained for as long as the decisions that are made now.
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO retired_targets VALUES (?1, ?2, ?3)")?
            .execute(params![hash.0, id, now.as_nanos()])?;
        Ok(id)
    }

    fn route_destinations(&mut self, batch: &WriteBatch, id: i64) -> rusqlite::Result<Arc<[Name]>> {
        let known = self.routes.iter().chain(batch.routes.iter().map(|(names, id)| (names, id)));
        if let Some((names, _)) = known.into_iter().find(|(_, known)| **known == id) {
            return Ok(names.clone());
        }
        let names = compensation::route_destinations(&self.connection, id)?.unwrap_or_else(|| [].into());
        self.routes.insert(names.clone(), id);
        Ok(names)
    }

    fn route_id(&mut self, batch: &mut WriteBatch, destinations: &Arc<[Name]>) -> rusqlite::Result<i64> {
        let staged = batch.routes.iter().find(|(known, _)| known == destinations);
        if let Some(&id) = self.routes.get(destinations).or(staged.map(|(_, id)| id)) {
            return Ok(id);
        }
        let names: Vec<&str> = destinations.iter().map(Name::as_str).collect();
        let list = serde_json::to_string(&names)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        self.connection.execute("INSERT OR IGNORE INTO routes (destinations) VALUES (?1)", [&list])?;
        let id =
            self.connection
                .query_row("SELECT id FROM routes WHERE destinations = ?1", [&list], |row| row.get(0))?;
        batch.routes.push((destinations.clone(), id));
        Ok(id)
    }
}
