//! Tracks which `on_firing` events an open episode has emitted, so that its `on_resolved` event goes only to
//! destinations that received one.
//!
//! The list is in the row of the target, which is written with every event anyway, and is deleted with the
//! episode. The compensating event gets a copy, so that its deliveries are decided without the target. An
//! event of the list has arrived at a destination of its route unless `deliveries` has a row that says
//! otherwise; those rows are retained longer than their events (`prune.rs`).

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::schema;
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::store::EventSeq;

/// An `on_firing` event of an open episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FiringEventRef {
    /// A hash of the episode's id.
    pub episode: u64,
    pub seq: EventSeq,
    pub route: i64,
}

/// The `on_firing` events of a target; `None` if unknown, because its episodes are older than schema 3.
pub(super) type FiringEvents = Option<Vec<FiringEventRef>>;

/// Bytes of one encoded entry of the list.
const ENTRY_BYTES: usize = 24;

pub(super) fn hash_episode(id: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(id.as_bytes());
    hasher.finish()
}

/// Encodes a list for its column: three big-endian integers per event.
pub(super) fn encode<'a>(firing: impl IntoIterator<Item = &'a FiringEventRef>) -> Vec<u8> {
    let bytes = |firing: &FiringEventRef| {
        let parts = [firing.episode.to_be_bytes(), firing.seq.0.to_be_bytes(), firing.route.to_be_bytes()];
        parts.concat()
    };
    firing.into_iter().flat_map(bytes).collect()
}

/// Decodes a list.
pub(super) fn decode(bytes: &[u8]) -> Vec<FiringEventRef> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let one = |bytes: &[u8; ENTRY_BYTES]| FiringEventRef {
        episode: number(&bytes[..8]),
        seq: EventSeq(number(&bytes[8..16]).cast_signed()),
        route: number(&bytes[16..]).cast_signed(),
    };
    bytes.as_chunks::<ENTRY_BYTES>().0.iter().map(one).collect()
}

/// The list for a target's new state: known and new events, without those of closed episodes.
pub(super) fn merge(
    known: &FiringEvents,
    new: &[FiringEventRef],
    before: &TargetState,
    after: &TargetState,
) -> FiringEvents {
    let open: Vec<u64> = episodes(after).collect();
    match known {
        None if episodes(before).next().is_some() && !open.is_empty() => None,
        known => {
            let all = known.iter().flatten().chain(new);
            Some(all.filter(|firing| open.contains(&firing.episode)).copied().collect())
        }
    }
}

fn episodes(state: &TargetState) -> impl Iterator<Item = u64> {
    let rules = state.rules.values();
    let open = rules.flat_map(|rule| {
        rule.episode.iter().chain(rule.pending_close.iter().map(|closing| &closing.episode))
    });
    open.map(|known| hash_episode(&known.id))
}

/// Whether one of these events has arrived at a destination. A delivery that waits for a retry has not.
pub(super) fn has_arrived(
    reader: &Connection,
    destination: &Name,
    destination_id: i64,
    firing: &[FiringEventRef],
) -> rusqlite::Result<bool> {
    let mut exception = reader.prepare_cached(
        "SELECT 1 FROM deliveries WHERE destination = ?1 AND event = ?2 AND state IN (?3, ?4, ?5, ?6)",
    )?;
    // All events nearly always have the same route.
    let mut known: Option<(i64, bool)> = None;
    for firing in firing {
        let is_routed = match known {
            Some((id, is_routed)) if id == firing.route => is_routed,
            _ => route_destinations(reader, firing.route)?.is_some_and(|names| names.contains(destination)),
        };
        known = Some((firing.route, is_routed));
        if !is_routed {
            continue;
        }
        let states = (schema::RETRY, schema::DEAD, schema::CANCELLED, schema::DISCARDED);
        let row = params![destination_id, firing.seq.0, states.0, states.1, states.2, states.3];
        if !exception.exists(row)? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn route_destinations(reader: &Connection, id: i64) -> rusqlite::Result<Option<Arc<[Name]>>> {
    let mut route = reader.prepare_cached("SELECT destinations FROM routes WHERE id = ?1")?;
    let list = route.query_row([id], |row| Ok(parse_destinations(row.get_ref(0)?.as_str()?))).optional()?;
    Ok(list)
}

/// Parses the list of names in `routes.destinations`.
pub(super) fn parse_destinations(list: &str) -> Arc<[Name]> {
    let names: Vec<String> = serde_json::from_str(list).unwrap_or_default();
    names.iter().filter_map(|name| Name::new(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let firing = [
            FiringEventRef { episode: u64::MAX, seq: EventSeq(1), route: i64::MAX },
            FiringEventRef { episode: hash_episode("e"), seq: EventSeq(1 << 40), route: 2 },
        ];
        assert_eq!(decode(&encode(&firing)), firing);
        assert_eq!(decode(&[]), []);
    }
}
