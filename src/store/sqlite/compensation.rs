//! What was done, so that what undoes it can follow it: the `on_firing` events of each open episode.
//!
//! The list lies in the row of the target, which is written with every event anyway, and goes when the
//! episode does. The event that undoes gets a copy, so that nothing of the target is needed to judge it.
//! An event of the list has arrived at a destination of its route, unless a row there says otherwise;
//! rows that say so outlive their events (see `prune.rs`).

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

/// Those of a target; `None` where they are not known, since the episodes are older than the list.
pub(super) type FiringEvents = Option<Vec<FiringEventRef>>;

/// Bytes of one event in a row.
const ENTRY_BYTES: usize = 24;

/// Which episode it is.
pub(super) fn hash_episode(id: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(id.as_bytes());
    hasher.finish()
}

/// As a row has it.
pub(super) fn encode<'a>(firing: impl IntoIterator<Item = &'a FiringEventRef>) -> Vec<u8> {
    let bytes = |firing: &FiringEventRef| {
        let parts = [firing.episode.to_be_bytes(), firing.seq.0.to_be_bytes(), firing.route.to_be_bytes()];
        parts.concat()
    };
    firing.into_iter().flat_map(bytes).collect()
}

/// From a row.
pub(super) fn decode(bytes: &[u8]) -> Vec<FiringEventRef> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let one = |bytes: &[u8; ENTRY_BYTES]| FiringEventRef {
        episode: number(&bytes[..8]),
        seq: EventSeq(number(&bytes[8..16]).cast_signed()),
        route: number(&bytes[16..]).cast_signed(),
    };
    bytes.as_chunks::<ENTRY_BYTES>().0.iter().map(one).collect()
}

/// What is to be remembered beside a target's new state.
pub(super) fn merge(
    known: &FiringEvents,
    now: &[FiringEventRef],
    before: &TargetState,
    after: &TargetState,
) -> FiringEvents {
    let open: Vec<u64> = episodes(after).collect();
    match known {
        None if episodes(before).next().is_some() && !open.is_empty() => None,
        known => {
            let all = known.iter().flatten().chain(now);
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

/// Whether one of these has arrived at a destination. One that is tried again has not.
pub(super) fn has_arrived(
    reader: &Connection,
    destination: &Name,
    number: i64,
    firing: &[FiringEventRef],
) -> rusqlite::Result<bool> {
    let mut exception = reader.prepare_cached(
        "SELECT 1 FROM deliveries WHERE destination = ?1 AND event = ?2 AND state IN (?3, ?4, ?5, ?6)",
    )?;
    // Nearly always one and the same.
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
        let row = params![number, firing.seq.0, states.0, states.1, states.2, states.3];
        if !exception.exists(row)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The destinations of a route.
pub(super) fn route_destinations(reader: &Connection, id: i64) -> rusqlite::Result<Option<Arc<[Name]>>> {
    let mut route = reader.prepare_cached("SELECT destinations FROM routes WHERE id = ?1")?;
    let list = route.query_row([id], |row| Ok(parse_destinations(row.get_ref(0)?.as_str()?))).optional()?;
    Ok(list)
}

/// The names in a route's list.
pub(super) fn parse_destinations(list: &str) -> Arc<[Name]> {
    let names: Vec<String> = serde_json::from_str(list).unwrap_or_default();
    names.iter().filter_map(|name| Name::new(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let firing = [
            FiringEventRef { episode: u64::MAX, seq: EventSeq(1), route: i64::MAX },
            FiringEventRef { episode: hash_episode("e"), seq: EventSeq(1 << 40), route: 2 },
        ];
        assert_eq!(decode(&encode(&firing)), firing);
        assert_eq!(decode(&[]), []);
    }
}
