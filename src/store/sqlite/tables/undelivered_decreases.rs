//! Undelivered decreases per target. An increase of the same target cancels them in the same commit.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};

use super::deliveries::OutboxTable;
use super::delivery_changes;
use crate::domain::engine::UndeliveredDecrease;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::store::EventSeq;
use crate::store::lane::Lane;
use crate::store::sqlite::codec::event_blocks::BodyReader;
use crate::store::sqlite::committed::decreases::DecreaseTracker;
use crate::store::sqlite::committed::index::Fingerprint;
use crate::store::sqlite::committed::staged::WriteBatch;
use crate::store::undelivered_decreases::TrackedDecrease;

/// The undelivered decreases that a transaction sees, and their event ids.
#[derive(Debug, Default)]
pub(crate) struct FoundDecreases {
    pub events: BTreeMap<TargetKey, Vec<UndeliveredDecrease>>,
    pub seqs: BTreeMap<TargetKey, Vec<i64>>,
}

/// Returns the undelivered decreases of the targets, and withholds them: until [`release`] workers cannot claim them.
pub(crate) fn find<'k>(
    connection: &Connection,
    outbox: &mut OutboxTable,
    batch: &WriteBatch,
    targets: impl Iterator<Item = &'k TargetKey>,
) -> rusqlite::Result<FoundDecreases> {
    let mut found = FoundDecreases::default();
    let OutboxTable { hashes, lanes, decreases: tracker, .. } = outbox;
    let DecreaseTracker { undelivered, withholding } = tracker;
    let known = [&*undelivered].into_iter().chain(batch.decreases());
    let known: Vec<_> = known.filter(|known| !known.is_empty()).collect();
    if known.is_empty() {
        return Ok(found);
    }
    let targets: BTreeSet<&TargetKey> = targets.collect();
    for key in targets {
        let hash = hashes.target(key);
        for (seq, decrease) in known.iter().flat_map(|known| known.for_target(&hash)) {
            let pending = undelivered_destinations(batch, seq, decrease);
            if pending.is_empty() {
                continue;
            }
            for handle in pending.into_iter().filter_map(|name| lanes.get(name)) {
                handle.with_lane(|lane| lane.withhold(decrease.group));
                withholding.insert(handle.name.clone());
            }
            // A delivery that is redriven in this batch may be in several.
            if found.seqs.get(key).is_some_and(|seqs| seqs.contains(&seq)) {
                continue;
            }
            let Some(decrease) = read(connection, key, seq)? else { continue };
            found.events.entry(key.clone()).or_default().push(decrease);
            found.seqs.entry(key.clone()).or_default().push(seq);
        }
    }
    Ok(found)
}

/// Reads an event back; `None` if it cannot be read, so that it is not superseded.
fn read(
    connection: &Connection,
    target: &TargetKey,
    seq: i64,
) -> rusqlite::Result<Option<UndeliveredDecrease>> {
    let mut body = connection.prepare_cached("SELECT body FROM events WHERE id = ?1")?;
    let read = body
        .query_row([seq], |row| {
            Ok(UndeliveredDecrease::read(BodyReader::new(connection).read(seq, row.get_ref(0)?)?))
        })
        .optional()?;
    let log = |error| {
        tracing::warn!(event = seq, %target, %error, "undelivered decrease unreadable, not superseded");
    };
    Ok(read.and_then(|read| read.map_err(log).ok()))
}

/// Cancels the undelivered decreases that an increase supersedes.
pub(crate) fn supersede(
    connection: &Connection,
    outbox: &OutboxTable,
    batch: &mut WriteBatch,
    seqs: Vec<i64>,
) -> rusqlite::Result<()> {
    for seq in seqs {
        let known = [&outbox.decreases.undelivered].into_iter().chain(batch.decreases());
        let pending = known
            .filter_map(|known| known.get(seq))
            .flat_map(|decrease| undelivered_destinations(batch, seq, decrease))
            .cloned();
        // A delivery that is redriven in this batch may be in several.
        let pending: BTreeSet<Name> = pending.collect();
        let pending: Vec<Name> = pending.into_iter().collect();
        delivery_changes::cancel(connection, outbox, batch, EventSeq(seq), &pending)?;
    }
    Ok(())
}

/// Ends the withholding when the batch is over.
pub(crate) fn release(outbox: &mut OutboxTable) {
    for name in std::mem::take(&mut outbox.decreases.withholding) {
        if let Some(handle) = outbox.lanes.get(&name) {
            handle.with_lane(Lane::release);
            handle.wake();
        }
    }
}

/// The destinations that have not settled an event, with the changes of the batch so far.
fn undelivered_destinations<'a>(
    batch: &WriteBatch,
    seq: i64,
    decrease: &'a TrackedDecrease<Fingerprint>,
) -> Vec<&'a Name> {
    if batch.is_cancelled(seq) {
        return Vec::new();
    }
    decrease.pending_destinations.iter().filter(|name| !batch.has_finished(name, seq)).collect()
}
