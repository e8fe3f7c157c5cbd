//! One transaction: reads the states, decides, and applies the write set.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::Connection;

use super::CommandError;
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};
use crate::store::sqlite::committed::controls::write_controls;
use crate::store::sqlite::committed::index;
use crate::store::sqlite::committed::recheck_queue::RecheckChange;
use crate::store::sqlite::committed::staged::WriteBatch;
use crate::store::sqlite::decide::read_set::{LoadError, ReadSet};
use crate::store::sqlite::decide::write_set::{RecordWrite, Stored, WriteSet};
use crate::store::sqlite::tables::deliveries::OutboxTable;
use crate::store::sqlite::tables::events::{self, Plan};
use crate::store::sqlite::tables::states::StateTable;
use crate::store::sqlite::tables::{audit, delivery_changes, delivery_status, history, notifications};
use crate::store::{AuditWrite, DecideFn, Keys, UnreadableStates, View};

/// What a transaction works on.
pub(super) struct Transaction<'a> {
    pub connection: &'a Connection,
    pub states: &'a mut StateTable,
    pub outbox: &'a mut OutboxTable,
    pub created: Time,
    pub clock: ClockReading,
}

impl Transaction<'_> {
    /// Decides the transaction and applies its write set.
    pub(super) fn run(
        &mut self,
        batch: &mut WriteBatch,
        keys: &Keys,
        decide: &mut DecideFn,
    ) -> Result<(), CommandError> {
        let controls = batch.controls(&self.states.committed);
        let write_set = self.decide(batch, keys, decide, &controls)?;
        Ok(self.apply(batch, write_set, &controls)?)
    }

    fn decide(
        &mut self,
        batch: &WriteBatch,
        keys: &Keys,
        decide: &mut DecideFn,
        controls: &Arc<Controls>,
    ) -> Result<WriteSet, CommandError> {
        let Self { connection, states, outbox, created, clock } = self;
        let (connection, clock, hashes, layers) = (*connection, *clock, states.hashes, batch.layers());
        let ClockReading { now, wall } = clock;
        let look_up = ReadSet::look_up(keys, hashes, &states.index, layers);
        let read_set = look_up.load(keys, |id| states.load(connection, layers, now, id))?;
        let known = read_set.known().map(|known| &**known);
        let view = View {
            now,
            wall,
            created: *created,
            states: read_set.states(keys),
            controls: controls.clone(),
            deliveries: delivery_status::read(connection, outbox, batch, known)?,
            rates: None,
            incarnation: 0,
            has_newer_configuration: false,
        };
        // A panic would end the thread that all commands share.
        let changes = catch_unwind(AssertUnwindSafe(|| decide(&view))).map_err(|_| CommandError::Panicked)?;
        let read_now = |hash| {
            let id = states.index.target(hash, layers);
            let known = id.map(|id| states.load(connection, layers, now, id)).transpose();
            let known = known.map_err(|error| match error {
                LoadError::Failed(error) => CommandError::Sql(error),
                LoadError::Unreadable(target) => CommandError::Unreadable(UnreadableStates {
                    targets: target.into_iter().collect(),
                    ..UnreadableStates::default()
                }),
            })?;
            Ok::<_, CommandError>(id.zip(known.flatten()))
        };
        let destinations: Vec<Name> = outbox.lanes.all().keys().cloned().collect();
        let stored = Stored { hashes, destinations: &destinations };
        WriteSet::new(clock, changes, &read_set, stored, read_now)
    }

    fn apply(
        &mut self,
        batch: &mut WriteBatch,
        write_set: WriteSet,
        controls: &Controls,
    ) -> rusqlite::Result<()> {
        let WriteSet {
            clock,
            states,
            tally,
            controls: changed,
            rechecked,
            record,
            notification,
            audit,
            events,
            delivery_changes,
            event_blocks,
        } = write_set;
        let now = clock.now;
        let before: index::Map<_> = states
            .iter()
            .filter_map(|write| Some((write.hash, write.before.as_ref()?.1.events.clone())))
            .collect();
        let mut plan = Plan::new(self.connection, self.outbox, batch, &events, &before)?;
        for write in states {
            let new = plan.listed.get(&write.hash).map_or(&[][..], Vec::as_slice);
            self.states.put(self.connection, batch, now, write, new)?;
        }
        batch.current.tally.absorb(tally);
        if let Some(changed) = changed {
            write_controls(self.connection, now, &changed)?;
            if changed.generation > controls.generation {
                batch.current.index.push_recheck_change(RecheckChange::ControlsChanged(now));
            }
            batch.current.controls = Some(changed);
        }
        for hash in rechecked {
            let id = self.states.index.target(hash, batch.layers());
            if let Some(id) = id {
                self.states.rechecked(self.connection, batch, id)?;
            }
        }
        if let Some(entry) = audit {
            audit::write(self.connection, clock, &AuditWrite::Add(entry))?;
        }
        if let Some(record) = record {
            self.put_record(batch, clock, &record)?;
        }
        if let Some(notification) = notification {
            notifications::put(self.connection, batch, clock, &notification)?;
        }
        for change in &delivery_changes {
            delivery_changes::apply(self.connection, self.outbox, batch, clock, change)?;
        }
        plan.put_blocks(self.connection, &event_blocks)?;
        for (write, planned) in events.into_iter().zip(plan.events) {
            events::put_event(self.connection, self.states, self.outbox, batch, clock, (write, planned))?;
        }
        Ok(())
    }

    fn put_record(
        &self,
        batch: &mut WriteBatch,
        clock: ClockReading,
        record: &RecordWrite,
    ) -> rusqlite::Result<()> {
        let mut targets = Vec::with_capacity(record.targets.len());
        for hash in &record.targets {
            targets.push(self.states.target_id(self.connection, batch, clock.now, *hash)?);
        }
        history::put_record(self.connection, batch, clock, &targets, &record.body)
    }
}
