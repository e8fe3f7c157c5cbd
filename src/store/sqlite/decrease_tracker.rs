//! The undelivered decreases of all targets, read when the store is opened and kept up to date with each
//! commit.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};

use super::batch::LaneChanges;
use super::index::Fingerprint;
use super::schema;
use crate::domain::name::Name;
use crate::store::fast_map::{Map, Set};
use crate::store::lane::Outcome;
use crate::store::undelivered_decreases::{TrackedDecrease, UndeliveredDecreases};

/// Each undelivered decrease with each destination that has not settled it, including destinations that are not
/// configured any more. Events above the lowest cursor are found by their index, those below it by their rows.
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
/// The hash of a target's key by its id, also of a retired id.
pub(super) const TARGET_HASH: &str = "
    SELECT hash FROM targets WHERE id = ?1
    UNION ALL SELECT hash FROM retired_targets WHERE id = ?1 LIMIT 1";

/// The undelivered decreases of the last commit. Targets are identified by the hash of their key, because a
/// target whose state was deleted gets another id when it returns.
#[derive(Debug, Default)]
pub(super) struct DecreaseTracker {
    pub(super) undelivered_decreases: UndeliveredDecreases<Fingerprint>,
    /// Destinations whose lanes withhold deliveries until the batch is over.
    pub(super) withholding: BTreeSet<Name>,
}

impl DecreaseTracker {
    /// Reads the undelivered decreases when the store is opened.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut undelivered_decreases = UndeliveredDecreases::default();
        let mut found = connection.prepare(UNDELIVERED_DECREASES)?;
        let mut rows = found.query([schema::RETRY])?;
        let mut events: BTreeMap<i64, (i64, Vec<Name>)> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (_, pending) = events.entry(row.get(0)?).or_insert((row.get(1)?, Vec::new()));
            pending.extend(Name::new(row.get_ref(2)?.as_str()?));
        }
        for (seq, (group, pending_destinations)) in events {
            let hash =
                connection.prepare_cached(TARGET_HASH)?.query_row([group], |row| row.get(0)).optional()?;
            // An id that is not retained any more belongs to decisions past their retention.
            if let Some(hash) = hash {
                undelivered_decreases
                    .add(seq, TrackedDecrease { target: Fingerprint(hash), group, pending_destinations });
            }
        }
        Ok(Self { undelivered_decreases, withholding: BTreeSet::new() })
    }

    /// Applies a committed batch.
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
        // Added last: a dead letter that is redriven in the same batch is in both.
        self.undelivered_decreases.merge(added);
        cancelled.iter().for_each(|seq| self.undelivered_decreases.remove(*seq));
    }
}
