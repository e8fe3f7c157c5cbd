//! One transaction: what it sees, and writing what it decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, ToSql, params};

use super::bodies::{self, Group};
use super::deliveries::PUT;
use super::evidence::{self, Fired};
use super::foresee::{Foreseen, Seen, Texts};
use super::index::{self, Known, Staged};
use super::published::write_controls;
use super::samples::{self, KeptState, Samples};
use super::writer::{Batch, Committed, Writer};
use super::{schema, watching};
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::Phase;
use crate::store::lane::Offered;
use crate::store::letters::BACKLOG_FULL;
use crate::store::shrinking::Open;
use crate::store::{Changes, Decide, EventSeq, Keys, NewEvent, Part, Record, View, withdrawn};

/// What a transaction writes.
struct Decided {
    now: Time,
    changes: Changes,
    texts: Texts,
    /// The numbers of the events that the decision was told of, by target.
    named: BTreeMap<TargetKey, Vec<i64>>,
}

/// What the events of a transaction will be known by.
#[derive(Default)]
struct Plan {
    events: Vec<Planned>,
    /// Those at the beginning of an episode, by their targets.
    fired: index::Map<Vec<Fired>>,
}

struct Planned {
    seq: i64,
    route: i64,
    /// What it undoes; `None` if it undoes nothing, or nobody knows.
    undoes: Option<Vec<Fired>>,
    /// Whether its text is kept with those of others.
    is_packed: bool,
}

impl Writer {
    /// Runs a decision and writes what it gives.
    pub(super) fn transact(
        &mut self,
        batch: &mut Batch,
        keys: &Keys,
        decide: &mut Decide,
        foreseen: Option<Box<Foreseen>>,
    ) -> rusqlite::Result<()> {
        let controls = batch.controls.clone().unwrap_or_else(|| self.published.controls());
        let Decided { now, changes, texts, mut named } =
            self.decide(batch, keys, decide, foreseen, &controls)?;
        let mut plan = self.plan(batch, &changes.events)?;
        for ((key, state), text) in changes.states.into_iter().zip(texts.states) {
            self.put_state(batch, now, key, (state, text), &plan.fired)?;
        }
        if let Some(changed) = changes.controls {
            write_controls(&self.connection, now, &changed)?;
            if changed.generation > controls.generation {
                batch.staged.watch(watching::Change::Wake(now));
            }
            batch.controls = Some(changed);
        }
        for key in &changes.looked_at {
            if let Some(id) = self.index().target(self.hashes.target(key), &batch.staged) {
                batch.staged.watch(watching::Change::LookedAt(id));
            }
        }
        if let Some(record) = &changes.record {
            self.put_record(batch, now, record, texts.record.as_deref())?;
        }
        self.put_texts(&mut plan.events, &texts.events)?;
        for (event, planned) in changes.events.into_iter().zip(plan.events) {
            if event.adds {
                named.remove(&event.target).into_iter().flatten().for_each(|seq| self.cancel(batch, seq));
            }
            self.put_event(batch, now, event, planned)?;
        }
        Ok(())
    }

    /// What is decided: as it was foreseen, if all that was seen then is still so.
    fn decide(
        &mut self,
        batch: &Batch,
        keys: &Keys,
        decide: &mut Decide,
        foreseen: Option<Box<Foreseen>>,
        controls: &Arc<Controls>,
    ) -> rusqlite::Result<Decided> {
        if let Some(foreseen) = foreseen {
            if self.still_holds(batch, keys, &foreseen, controls)? {
                let Foreseen { now, changes, texts, .. } = *foreseen;
                return Ok(Decided { now, changes, texts, named: BTreeMap::new() });
            }
            self.foresight.missed();
        }
        let now = self.clock.now();
        let seen = Seen::of(keys, self.hashes, &self.index(), &batch.staged);
        let states = seen.states(keys, |id| self.load(id, batch))?;
        let unsent = self.find_unsent(batch, keys.targets.iter().chain(states.targets.keys()))?;
        let view =
            View { now, created: self.created, states, controls: controls.clone(), unsent: unsent.events };
        let changes = decide(&view);
        let texts = Texts::of(&changes, &self.samples(batch));
        let texts = texts.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(Decided { now, changes, texts, named: unsent.seqs })
    }

    fn still_holds(
        &mut self,
        batch: &Batch,
        keys: &Keys,
        foreseen: &Foreseen,
        controls: &Arc<Controls>,
    ) -> rusqlite::Result<bool> {
        let is_same = |(id, known): (&i64, &Arc<Known>)| {
            let now = self.index().state(*id, &batch.staged).flatten();
            now.is_some_and(|now| Arc::ptr_eq(&now, known))
        };
        if !foreseen.seen.is_still_so(&self.index(), &batch.staged)
            || !Arc::ptr_eq(&foreseen.controls, controls)
            || !foreseen.known.iter().all(is_same)
        {
            return Ok(false);
        }
        let known = foreseen.known.values().map(|known| &known.key);
        let unsent = self.find_unsent(batch, keys.targets.iter().chain(known))?;
        Ok(unsent.events.is_empty())
    }

    /// What the events will be known by. Made before the states are written, since they remember it.
    fn plan(&mut self, batch: &mut Batch, events: &[NewEvent]) -> rusqlite::Result<Plan> {
        let mut plan = Plan::default();
        for event in events {
            let seq = batch.next.event;
            batch.next.event += 1;
            let route = self.route(batch, &event.destinations)?;
            let mut undoes = None;
            if let Some(Part { phase, episode }) = &event.part {
                let episode = evidence::episode(episode);
                let target = self.hashes.target(&event.target);
                let fired = plan.fired.entry(target).or_default();
                match phase {
                    Phase::Firing => fired.push(Fired { episode, seq: EventSeq(seq), route }),
                    Phase::Resolved => {
                        let id = self.index().target(target, &batch.staged);
                        let known = id.map_or(Ok(None), |id| self.load(id, batch))?;
                        // Of a target without a state nothing is open, so it has nothing to undo.
                        let before = known.map_or(Some(Vec::new()), |known| known.fired.clone());
                        undoes = before.map(|before| {
                            let all = before.iter().chain(&*fired);
                            all.filter(|fired| fired.episode == episode).copied().collect()
                        });
                    }
                }
            }
            plan.events.push(Planned { seq, route, undoes, is_packed: false });
        }
        Ok(plan)
    }

    pub(super) fn load(&mut self, id: i64, batch: &Batch) -> rusqlite::Result<Option<Arc<Known>>> {
        let at_hand = self.index().state(id, &batch.staged);
        if let Some(known) = at_hand {
            return Ok(known);
        }
        let mut read = self.connection.prepare_cached(
            "SELECT t.key, t.state, t.fired, s.text
             FROM targets t LEFT JOIN samples s ON s.id = t.sample WHERE t.id = ?1",
        )?;
        let found = read.query_row([id], |row| {
            let key = TargetKey::from_stored(row.get_ref(0)?.as_str()?);
            let state: TargetState = serde_json::from_str(&samples::text(row.get_ref(1)?, row.get_ref(3)?)?)
                .map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
                })?;
            let fired = row.get_ref(2)?.as_blob_or_null()?.map(evidence::read);
            Ok(Arc::new(Known { key, state: Arc::new(state), fired }))
        });
        let found = found.optional()?;
        if let Some(known) = &found {
            self.index_mut().keep(id, known.clone());
        }
        Ok(found)
    }

    fn put_state(
        &mut self,
        batch: &mut Batch,
        now: Time,
        key: TargetKey,
        (state, kept): (TargetState, KeptState),
        fired: &index::Map<Vec<Fired>>,
    ) -> rusqlite::Result<()> {
        let hash = self.hashes.target(&key);
        let id = self.index().target(hash, &batch.staged);
        // At hand, since the decision has just seen it.
        let known = id.map_or(Ok(None), |id| self.load(id, batch))?;
        let (before, known_fired) = known.map_or_else(
            || (Arc::default(), Some(Vec::new())),
            |known| (known.state.clone(), known.fired.clone()),
        );
        if state.is_empty() {
            let Some(id) = id else { return Ok(()) };
            self.put_watching(batch, id, before.depends_on_controls(), false)?;
            batch.tally.put(&before, &TargetState::default());
            self.connection.prepare_cached("DELETE FROM targets WHERE id = ?1")?.execute([id])?;
            self.connection
                .prepare_cached("INSERT INTO former_targets VALUES (?1, ?2, ?3)")?
                .execute(params![hash.0, id, now.as_nanos()])?;
            batch.staged.put(&self.index(), &self.hashes, id, hash, &before, None);
            return Ok(());
        }
        if kept.is_wanted()
            && let Some(samples) = self.samples(batch).take(&self.connection, &kept)?
        {
            batch.samples = Some(Arc::new(samples));
        }
        let known_alerts = self.hashes.alerts(&state);
        let alerts: Vec<u8> = known_alerts.iter().flat_map(|alert| alert.0).collect();
        let due = state.due().map(Time::as_nanos);
        let new = fired.get(&hash).map_or(&[][..], Vec::as_slice);
        let fired = evidence::remember(&known_fired, new, &before, &state);
        let fired_bytes = fired.as_ref().map(evidence::write);
        let id = match id {
            Some(id) => {
                self.connection
                    .prepare_cached(
                        "UPDATE targets SET due = ?2, alerts = ?3, state = ?4, fired = ?5, sample = ?6 WHERE id = ?1",
                    )?
                    .execute(params![id, due, alerts, kept.text, fired_bytes, kept.sample])?;
                id
            }
            None => {
                let id = batch.next.target;
                batch.next.target += 1;
                self.connection
                    .prepare_cached(
                        "INSERT INTO targets (id, hash, due, alerts, key, state, fired, sample)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    )?
                    .execute(params![
                        id,
                        hash.0,
                        due,
                        alerts,
                        key.as_str(),
                        kept.text,
                        fired_bytes,
                        kept.sample
                    ])?;
                id
            }
        };
        self.put_watching(batch, id, before.depends_on_controls(), state.depends_on_controls())?;
        batch.tally.put(&before, &state);
        let known = Arc::new(Known { key, state: Arc::new(state), fired });
        batch.staged.put(&self.index(), &self.hashes, id, hash, &before, Some((known, known_alerts)));
        Ok(())
    }

    fn samples(&self, batch: &Batch) -> Arc<Samples> {
        batch.samples.clone().unwrap_or_else(|| self.published.samples())
    }

    fn put_watching(&self, batch: &mut Batch, id: i64, before: bool, after: bool) -> rusqlite::Result<()> {
        let (change, statement) = match (before, after) {
            (false, true) => (watching::Change::Begins(id), "INSERT INTO watching VALUES (?1)"),
            (true, false) => (watching::Change::Ends(id), "DELETE FROM watching WHERE target = ?1"),
            _ => return Ok(()),
        };
        self.connection.prepare_cached(statement)?.execute([id])?;
        batch.staged.watch(change);
        Ok(())
    }

    fn put_record(
        &mut self,
        batch: &mut Batch,
        now: Time,
        record: &Record,
        packed: Option<&[u8]>,
    ) -> rusqlite::Result<()> {
        let mut targets = Vec::with_capacity(record.targets.len());
        for key in &record.targets {
            targets.push(self.number(key, batch, now)?);
        }
        match packed {
            Some(packed) => self.put_record_about(batch, now, &targets, packed),
            None => self.put_record_about(batch, now, &targets, record.body.as_str()),
        }
    }

    /// Writes a record about the targets of these numbers.
    pub(super) fn put_record_about(
        &self,
        batch: &mut Batch,
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

    /// Writes the texts that are kept together.
    fn put_texts(&self, events: &mut [Planned], groups: &[Group]) -> rusqlite::Result<()> {
        let mut events = events.iter_mut();
        for Group { events: count, packed } in groups {
            let mut group: Vec<_> = events.by_ref().take(*count).collect();
            if let (Some(packed), [first, ..], [.., last]) = (packed, &*group, &*group) {
                bodies::write(&self.connection, first.seq, last.seq, packed)?;
                group.iter_mut().for_each(|event| event.is_packed = true);
            }
        }
        Ok(())
    }

    fn put_event(
        &mut self,
        batch: &mut Batch,
        now: Time,
        event: NewEvent,
        planned: Planned,
    ) -> rusqlite::Result<()> {
        let Planned { seq, route, undoes, is_packed } = planned;
        let target = self.number(&event.target, batch, now)?;
        let undoes_bytes = undoes.as_ref().map(evidence::write);
        self.connection
            .prepare_cached(
                "INSERT INTO events (id, target, route, at, body, shrinks, undoes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                seq,
                target,
                route,
                now.as_nanos(),
                if is_packed { "" } else { &event.body },
                event.may_shrink,
                undoes_bytes
            ])?;
        let mut left = Vec::with_capacity(event.destinations.len());
        for name in event.destinations.iter() {
            batch.lanes.entry(name.clone()).or_default().given += 1;
            let refused =
                if undoes.as_ref().map_or(Ok(false), |undoes| self.is_stranger(batch, name, undoes))? {
                    let record = withdrawn::record(now, &event.body, name, withdrawn::NEVER_GIVEN);
                    self.put_record_about(batch, now, &[target], record)?;
                    self.refuse(batch, now, seq, name, schema::WITHDRAWN, withdrawn::NEVER_GIVEN)?
                } else if self.is_full(batch, name) {
                    self.refuse(batch, now, seq, name, schema::DEAD, BACKLOG_FULL)?
                } else {
                    false
                };
            if !refused {
                left.push(name.clone());
            }
        }
        if event.may_shrink && !left.is_empty() {
            let open = Open { target: self.hashes.target(&event.target), group: target, left };
            batch.shrinking.add(seq, open);
        }
        let NewEvent { destinations, body, .. } = event;
        batch.events.push(Committed {
            offered: Offered {
                seq: EventSeq(seq),
                group: target,
                emitted_at: now,
                undoes: undoes.is_some(),
                body,
            },
            destinations,
        });
        Ok(())
    }

    /// Whether a destination was given none of these.
    fn is_stranger(&mut self, batch: &Batch, name: &Name, undoes: &[Fired]) -> rusqlite::Result<bool> {
        for fired in undoes {
            if self.destinations_of(batch, fired.route)?.contains(name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_full(&self, batch: &Batch, name: &Name) -> bool {
        let staging = batch.lanes.get(name);
        // The one that is asked about is counted as given already.
        let more =
            staging.map_or(0, |staging| staging.given.saturating_sub(1 + staging.refused.len() as u64));
        self.outlets.get(name).is_some_and(|outlet| outlet.is_full(more))
    }

    /// Settles a delivery in the commit that makes it. False where nobody delivers.
    fn refuse(
        &self,
        batch: &mut Batch,
        now: Time,
        seq: i64,
        name: &Name,
        state: i64,
        reason: &str,
    ) -> rusqlite::Result<bool> {
        let Some(outlet) = self.outlets.get(name) else { return Ok(false) };
        let mut put = self.connection.prepare_cached(PUT)?;
        put.execute(params![outlet.number, seq, state, 0, now.as_nanos(), reason])?;
        let staging = batch.lanes.entry(name.clone()).or_default();
        staging.refused.insert(seq);
        if state == schema::DEAD {
            staging.refused_dead += 1;
            staging.dead += 1;
        }
        Ok(true)
    }

    /// A target's number, also of one that this transaction forgets. One without a state gets a number too,
    /// so that what was decided about it is found.
    fn number(&self, key: &TargetKey, batch: &mut Batch, now: Time) -> rusqlite::Result<i64> {
        let hash = self.hashes.target(key);
        let staged = self.index().target(hash, &batch.staged);
        if let Some(id) = staged.or_else(|| self.index().target(hash, &Staged::default())) {
            return Ok(id);
        }
        let mut last =
            self.connection.prepare_cached("SELECT max(id) FROM former_targets WHERE hash = ?1")?;
        let last: Option<i64> = last.query_row([hash.0], |row| row.get(0))?;
        let id = last.unwrap_or_else(|| {
            batch.next.target += 1;
            batch.next.target - 1
        });
        // From now on it is kept as long as what is decided now.
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO former_targets VALUES (?1, ?2, ?3)")?
            .execute(params![hash.0, id, now.as_nanos()])?;
        Ok(id)
    }

    /// The destinations of a route.
    fn destinations_of(&mut self, batch: &Batch, id: i64) -> rusqlite::Result<Arc<[Name]>> {
        let known = self.routes.iter().chain(batch.routes.iter().map(|(names, id)| (names, id)));
        if let Some((names, _)) = known.into_iter().find(|(_, known)| **known == id) {
            return Ok(names.clone());
        }
        let names = evidence::route(&self.connection, id)?.unwrap_or_else(|| [].into());
        self.routes.insert(names.clone(), id);
        Ok(names)
    }

    fn route(&mut self, batch: &mut Batch, destinations: &Arc<[Name]>) -> rusqlite::Result<i64> {
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
