//! Undelivered decreases per target. An increase of the same target cancels them in the same commit.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::OptionalExtension;

use super::batch::WriteBatch;
use super::event_blocks::BodyReader;
use super::index::Fingerprint;
use super::writer::Writer;
use crate::domain::engine::UndeliveredDecrease;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::store::lane::Lane;
use crate::store::undelivered_decreases::TrackedDecrease;

/// The undelivered decreases that a transaction sees, and their event ids.
#[derive(Debug, Default)]
pub(super) struct FoundDecreases {
    pub events: BTreeMap<TargetKey, Vec<UndeliveredDecrease>>,
    pub seqs: BTreeMap<TargetKey, Vec<i64>>,
}

impl Writer {
    /// Returns the undelivered decreases of the targets, and withholds them: until [`Writer::release`]
    /// workers cannot claim them.
    pub(super) fn find_undelivered_decreases<'k>(
        &mut self,
        batch: &WriteBatch,
        targets: impl Iterator<Item = &'k TargetKey>,
    ) -> rusqlite::Result<FoundDecreases> {
        let mut found = FoundDecreases::default();
        if self.decrease_tracker.undelivered_decreases.is_empty() && batch.undelivered_decreases.is_empty() {
            return Ok(found);
        }
        let targets: BTreeSet<&TargetKey> = targets.collect();
        for key in targets {
            let hash = self.hashes.target(key);
            let both = [&self.decrease_tracker.undelivered_decreases, &batch.undelivered_decreases];
            for (seq, decrease) in both.into_iter().flat_map(|known| known.for_target(&hash)) {
                let pending = undelivered_destinations(batch, seq, decrease);
                if pending.is_empty() {
                    continue;
                }
                for handle in pending.into_iter().filter_map(|name| self.lanes.get(name)) {
                    handle.with_lane(|lane| lane.withhold(decrease.group));
                    self.decrease_tracker.withholding.insert(handle.name.clone());
                }
                // A delivery that is redriven in this batch may be in both.
                if found.seqs.get(key).is_some_and(|seqs| seqs.contains(&seq)) {
                    continue;
                }
                let Some(decrease) = self.read_undelivered_decrease(key, seq)? else { continue };
                found.events.entry(key.clone()).or_default().push(decrease);
                found.seqs.entry(key.clone()).or_default().push(seq);
            }
        }
        Ok(found)
    }

    /// Reads an event back; `None` if it cannot be read, so that it is not superseded.
    fn read_undelivered_decrease(
        &self,
        target: &TargetKey,
        seq: i64,
    ) -> rusqlite::Result<Option<UndeliveredDecrease>> {
        let mut body = self.connection.prepare_cached("SELECT body FROM events WHERE id = ?1")?;
        let read = body
            .query_row([seq], |row| {
                Ok(UndeliveredDecrease::read(BodyReader::new(&self.connection).read(seq, row.get_ref(0)?)?))
            })
            .optional()?;
        let log = |error| {
            tracing::warn!(event = seq, %target, %error, "undelivered decrease unreadable, not superseded");
        };
        Ok(read.and_then(|read| read.map_err(log).ok()))
    }

    /// Cancels the undelivered deliveries of an event.
    pub(super) fn cancel(&self, batch: &mut WriteBatch, seq: i64) {
        let known =
            [self.decrease_tracker.undelivered_decreases.get(seq), batch.undelivered_decreases.get(seq)];
        let pending =
            known.into_iter().flatten().flat_map(|decrease| undelivered_destinations(batch, seq, decrease));
        let pending: Vec<Name> = pending.cloned().collect();
        for name in pending {
            batch.lanes.entry(name).or_default().cancelled.insert(seq);
        }
        batch.cancelled.insert(seq);
    }

    /// Ends the withholding when the batch is over.
    pub(super) fn release(&mut self) {
        for name in std::mem::take(&mut self.decrease_tracker.withholding) {
            if let Some(handle) = self.lanes.get(&name) {
                handle.with_lane(Lane::release);
                handle.wake();
            }
        }
    }
}

/// The destinations that have not settled an event, with the changes of the batch so far.
fn undelivered_destinations<'a>(
    batch: &WriteBatch,
    seq: i64,
    decrease: &'a TrackedDecrease<Fingerprint>,
) -> Vec<&'a Name> {
    if batch.cancelled.contains(&seq) {
        return Vec::new();
    }
    let finished =
        |name: &Name| batch.lanes.get(name).is_some_and(|lane_changes| lane_changes.has_finished(seq));
    decrease.pending_destinations.iter().filter(|name| !finished(name)).collect()
}
