//! The `on_firing` events that an `on_resolved` event compensates: it goes only to destinations that received one of
//! them. The list is in the row of the event, a copy of what the target's row has (`tracked_events.rs`), so that its
//! deliveries are decided without the target. Before schema 9, the target's row had this list too.

use std::hash::Hasher;

use crate::domain::state::TargetState;
use crate::store::EventSeq;

/// An `on_firing` event of an open episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FiringEventRef {
    /// A hash of the episode's id.
    pub episode: u64,
    pub seq: EventSeq,
    pub route: i64,
}

/// Bytes of one encoded entry of the list.
const ENTRY_BYTES: usize = 24;

/// A hash of the id of an episode or an event.
pub(crate) fn hash(id: &str) -> u64 {
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(id.as_bytes());
    hasher.finish()
}

/// The hashes of the open episodes of a state, including those that are being closed.
pub(crate) fn open_episodes(state: &TargetState) -> impl Iterator<Item = u64> {
    let rules = state.rules.values();
    let open =
        rules.flat_map(|rule| rule.episode.iter().chain(rule.closed.iter().map(|closed| &closed.episode)));
    open.map(|known| hash(&known.id))
}

/// Encodes a list for its column: three big-endian integers per event.
pub(crate) fn encode<'a>(firing: impl IntoIterator<Item = &'a FiringEventRef>) -> Vec<u8> {
    let bytes = |firing: &FiringEventRef| {
        let parts = [firing.episode.to_be_bytes(), firing.seq.0.to_be_bytes(), firing.route.to_be_bytes()];
        parts.concat()
    };
    firing.into_iter().flat_map(bytes).collect()
}

/// Decodes a list.
pub(crate) fn decode(bytes: &[u8]) -> Vec<FiringEventRef> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let one = |bytes: &[u8; ENTRY_BYTES]| FiringEventRef {
        episode: number(&bytes[..8]),
        seq: EventSeq(number(&bytes[8..16]).cast_signed()),
        route: number(&bytes[16..]).cast_signed(),
    };
    bytes.as_chunks::<ENTRY_BYTES>().0.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let firing = [
            FiringEventRef { episode: u64::MAX, seq: EventSeq(1), route: i64::MAX },
            FiringEventRef { episode: hash("e"), seq: EventSeq(1 << 40), route: 2 },
        ];
        assert_eq!(decode(&encode(&firing)), firing);
        assert_eq!(decode(&[]), []);
    }
}
