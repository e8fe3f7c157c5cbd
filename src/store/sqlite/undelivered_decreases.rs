//! Events that may make capacity less and were not sent yet: a transaction is told of them, and cancels
//! them when it adds capacity.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};

use super::event_blocks::BodyReader;
use super::index::Fingerprint;
use super::schema;
use super::writer::{LaneChanges, WriteBatch, Writer};
use crate::domain::engine::UndeliveredDecrease;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::store::fast_map::{Map, Set};
use crate::store::lane::{Lane, Outcome};
use crate::store::undelivered_decreases::{TrackedDecrease, UndeliveredDecreases};

/// Each event with each destination that has not settled it, also those that are configured no more. The
/// events behind the first cursor are found by their index, those before it by their rows.
const UNDELIVERED_DECREASES: &str = "
    SELECT e.id AS event, e.target, d.name FROM events e INDEXED BY shrinking
    JOIN routes r ON r.id = e.route JOIN json_each(r.destinations) n
    JOIN destinations d ON d.name = n.value
    LEFT JOIN deliveries x ON x.destination = d.id AND x.event = e.id
    WHERE e.decreases = 1
    AND e.id > (SELECT coalesce(min(cursor), 9223372036854775807) FROM destinations WHERE enqueued > settled_below_cursor)
    AND (x.state = ?1 OR x.state IS NULL AND e.id > d.cursor)
    UNION
    SELECT e.id, e.target, d.name FROM deliveries x
    JOIN events e ON e.id = x.event AND e.decreases = 1
    JOIN destinations d ON d.id = x.destination
    WHERE x.state = ?1
    ORDER BY event";
/// The key of a target by its number, also of one that was forgotten.
pub(super) const TARGET_HASH: &str = "
    SELECT hash FROM targets WHERE id = ?1
    UNION ALL SELECT hash FROM retired_targets WHERE id = ?1 LIMIT 1";

/// What is known of them. Targets go by their keys' hashes, since a target that is forgotten and comes
/// back has another number.
#[derive(Debug, Default)]
pub(super) struct DecreaseTracker {
    undelivered_decreases: UndeliveredDecreases<Fingerprint>,
    /// Destinations whose lanes withhold something until the batch is over.
    withholding: BTreeSet<Name>,
}

/// What a transaction is told, and the numbers of the events.
#[derive(Debug, Default)]
pub(super) struct FoundDecreases {
    pub events: BTreeMap<TargetKey, Vec<UndeliveredDecrease>>,
    pub seqs: BTreeMap<TargetKey, Vec<i64>>,
}

impl DecreaseTracker {
    /// Finds out which there are, when the store is opened.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut undelivered_decreases = UndeliveredDecreases::default();
        let mut found = connection.prepare(UNDELIVERED_DECREASES)?;
        let mut rows = found.query([schema::RETRY])?;
        let mut events: BTreeMap<i64, (i64, Vec<Name>)> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (_, left) = events.entry(row.get(0)?).or_insert((row.get(1)?, Vec::new()));
            left.extend(Name::new(row.get_ref(2)?.as_str()?));
        }
        for (seq, (group, left)) in events {
            let hash =
                connection.prepare_cached(TARGET_HASH)?.query_row([group], |row| row.get(0)).optional()?;
            // What was decided about a target forgotten so long ago is past its retention.
            if let Some(hash) = hash {
                undelivered_decreases.add(
                    seq,
                    TrackedDecrease { target: Fingerprint(hash), group, pending_destinations: left },
                );
            }
        }
        Ok(Self { undelivered_decreases, withholding: BTreeSet::new() })
    }

    /// Takes over what a batch has committed.
    pub(super) fn merge(
        &mut self,
        added: UndeliveredDecreases<Fingerprint>,
        lanes: &Map<Name, LaneChanges>,
        cancelled: &Set<i64>,
    ) {
        let none = self.undelivered_decreases.is_empty();
        for (name, lane_changes) in lanes.iter().filter(|_| !none) {
            for one in lane_changes.settlements.iter().filter(|one| one.outcome != Outcome::Retry) {
                self.undelivered_decreases.mark_settled(one.seq.0, name);
            }
        }
        // What was given up and is redriven at once stands in both.
        self.undelivered_decreases.merge(added);
        cancelled.iter().for_each(|seq| self.undelivered_decreases.remove(*seq));
    }
}

impl Writer {
    /// The events of the wanted targets that may make capacity less and were not sent yet everywhere.
    /// Until [`Writer::release`] no worker gets them.
    pub(super) fn find_undelivered_decreases<'k>(
        &mut self,
        batch: &WriteBatch,
        wanted: impl Iterator<Item = &'k TargetKey>,
    ) -> rusqlite::Result<FoundDecreases> {
        let mut found = FoundDecreases::default();
        if self.decrease_tracker.undelivered_decreases.is_empty() && batch.undelivered_decreases.is_empty() {
            return Ok(found);
        }
        let wanted: BTreeSet<&TargetKey> = wanted.collect();
        for key in wanted {
            let hash = self.hashes.target(key);
            let both = [&self.decrease_tracker.undelivered_decreases, &batch.undelivered_decreases];
            for (seq, open) in both.into_iter().flat_map(|known| known.for_target(&hash)) {
                let left = undelivered_destinations(batch, seq, open);
                if left.is_empty() {
                    continue;
                }
                for handle in left.into_iter().filter_map(|name| self.lanes.get(name)) {
                    handle.with_lane(|lane| lane.withhold(open.group));
                    self.decrease_tracker.withholding.insert(handle.name.clone());
                }
                // What is redriven in this batch may be known twice.
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

    /// Reads an event back; `None` if it is none of ours, so that nothing is known of it.
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
        let told = |error| {
            tracing::warn!(event = seq, %target, %error, "an event that was not sent yet cannot be read; it is not superseded");
        };
        Ok(read.and_then(|read| read.map_err(told).ok()))
    }

    /// Cancels an event wherever it was not sent yet.
    pub(super) fn cancel(&self, batch: &mut WriteBatch, seq: i64) {
        let known =
            [self.decrease_tracker.undelivered_decreases.get(seq), batch.undelivered_decreases.get(seq)];
        let left = known.into_iter().flatten().flat_map(|open| undelivered_destinations(batch, seq, open));
        let left: Vec<Name> = left.cloned().collect();
        for name in left {
            batch.lanes.entry(name).or_default().cancelled.insert(seq);
        }
        batch.cancelled.insert(seq);
    }

    /// The batch is over: workers may have what was withheld from them.
    pub(super) fn release(&mut self) {
        for name in std::mem::take(&mut self.decrease_tracker.withholding) {
            if let Some(handle) = self.lanes.get(&name) {
                handle.with_lane(Lane::release);
                handle.wake();
            }
        }
    }
}

/// The destinations that have not settled an event, as far as the batch has come.
fn undelivered_destinations<'a>(
    batch: &WriteBatch,
    seq: i64,
    open: &'a TrackedDecrease<Fingerprint>,
) -> Vec<&'a Name> {
    if batch.cancelled.contains(&seq) {
        return Vec::new();
    }
    let finished =
        |name: &Name| batch.lanes.get(name).is_some_and(|lane_changes| lane_changes.has_finished(seq));
    open.pending_destinations.iter().filter(|name| !finished(name)).collect()
}
