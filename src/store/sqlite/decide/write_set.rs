//! What a decision writes, complete but for ids: encoded states, events, the record, and the deltas of counts. Once it
//! exists, only writing rows can fail.

use std::sync::Arc;

use super::read_set::ReadSet;
use crate::domain::control::Controls;
use crate::domain::delivery::{DeliveryChange, DeliveryChangeKind};
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::json;
use crate::store::fast_map::Set;
use crate::store::sqlite::codec::compression::Encoded;
use crate::store::sqlite::codec::event_blocks::{self, EncodedBlock};
use crate::store::sqlite::codec::firing_events;
use crate::store::sqlite::codec::states::{self, EncodedState};
use crate::store::sqlite::committed::index::{CachedTarget, Fingerprint, Fingerprints, Map};
use crate::store::sqlite::tally::Deltas;
use crate::store::tracking::Watch;
use crate::store::{AuditEntry, Changes, EventSeq, KeptNotification, NewEvent, Record};

/// Initial capacity of the text of a state: one allocation instead of one for each doubling.
const STATE_CAPACITY: usize = 2048;

/// What encoding needs to know about the store.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub hashes: Fingerprints,
    /// The destinations that have lanes.
    pub destinations: &'a [Name],
}

/// The writes of a transaction.
pub(crate) struct WriteSet {
    /// The moment of the decision.
    pub clock: ClockReading,
    pub states: Vec<StateWrite>,
    /// The changes of the counts by the states.
    pub tally: Deltas,
    pub controls: Option<Arc<Controls>>,
    /// Targets whose deferred actions were re-evaluated.
    pub rechecked: Vec<Fingerprint>,
    pub record: Option<RecordWrite>,
    pub notification: Option<KeptNotification>,
    /// The audit entry, if an operator's act makes these changes.
    pub audit: Option<AuditEntry>,
    pub events: Vec<EventWrite>,
    /// Changes of the delivery of earlier events.
    pub delivery_changes: Vec<DeliveryWrite>,
    /// Blocks of the events, in their order.
    pub event_blocks: Vec<EncodedBlock>,
}

/// A new or deleted state.
pub(crate) struct StateWrite {
    pub hash: Fingerprint,
    /// The state that it replaces, with its id.
    pub before: Option<(i64, Arc<CachedTarget>)>,
    /// `None` deletes the target.
    pub after: Option<NewState>,
    /// Alerts of the state before that the new one does not have.
    pub removed_alerts: Vec<Fingerprint>,
    /// Alerts of the new state that the one before does not have.
    pub added_alerts: Vec<Fingerprint>,
    /// The due time before and after.
    pub due: (Option<Time>, Option<Time>),
    /// Whether the target depended on the controls before, and does after.
    pub depends_on_controls: (bool, bool),
    /// The changes of deliveries that the target waits for.
    pub watch: Watch,
}

/// A state in its stored form.
pub(crate) struct NewState {
    pub key: TargetKey,
    pub state: Arc<TargetState>,
    pub encoded: EncodedState,
    /// 16 bytes for each alert.
    pub alerts: Vec<u8>,
    /// Hashes of the open episodes.
    pub open_episodes: Vec<u64>,
    /// Whether the state before had an open episode.
    pub had_open_episode: bool,
    /// Hashes of the ids of the events that it knows, sorted.
    pub known_events: Vec<u64>,
}

impl NewState {
    /// The state of a target whose earlier state was dropped.
    pub(crate) fn known_since(key: TargetKey, now: Time) -> serde_json::Result<Self> {
        let state = TargetState { known_since: Some(now), ..TargetState::default() };
        let encoded = states::encode(json::to_string(&state, STATE_CAPACITY)?);
        let (alerts, open_episodes, known_events) = Default::default();
        let state = Arc::new(state);
        Ok(Self { key, state, encoded, alerts, open_episodes, had_open_episode: false, known_events })
    }
}

/// A decision record.
pub(crate) struct RecordWrite {
    pub targets: Vec<Fingerprint>,
    pub body: Encoded,
}

/// An event.
pub(crate) struct EventWrite {
    pub target: Fingerprint,
    /// The end of an episode that it is about, and the hash of the episode.
    pub episode: Option<(Phase, u64)>,
    /// The hash of its id; 0 if it cannot be read.
    pub id: u64,
    pub event: NewEvent,
}

/// A change of the delivery of an event.
pub(crate) struct DeliveryWrite {
    pub seq: EventSeq,
    /// Its destinations.
    pub route: i64,
    pub kind: DeliveryChangeKind,
}

impl WriteSet {
    /// Encodes the changes of a decision that has read `reads`. `read_now` reads the state of a target that the
    /// decision writes without having read it.
    ///
    /// # Errors
    /// A state cannot be written as JSON, or an error of `read_now`.
    pub(crate) fn new<E: From<serde_json::Error>>(
        clock: ClockReading,
        changes: Changes,
        reads: &ReadSet,
        Stored { hashes, destinations }: Stored<'_>,
        mut read_now: impl FnMut(Fingerprint) -> Result<Option<(i64, Arc<CachedTarget>)>, E>,
    ) -> Result<Self, E> {
        let Changes {
            states: changed,
            controls,
            rechecked,
            record,
            notification,
            events,
            delivery_changes,
            audit,
            // One process: it remembers them itself.
            rates: _,
        } = changes;
        let known = reads.by_hash(hashes);
        let delivery_changes = delivery_changes.iter();
        let delivery_changes =
            delivery_changes.filter_map(|change| DeliveryWrite::find(change, &known, hashes)).collect();
        let mut tally = Deltas::default();
        let mut writes = Vec::with_capacity(changed.len());
        // Only the last state of a target counts.
        let mut written = Set::default();
        for (key, state) in changed.into_iter().rev() {
            let hash = hashes.target(&key);
            if !written.insert(hash) {
                continue;
            }
            let before = known.get(&hash).cloned().map_or_else(|| read_now(hash), Ok)?;
            if state.is_empty() && before.is_none() {
                continue;
            }
            let none = TargetState::default();
            tally.put(before.as_ref().map_or(&none, |(_, known)| &known.state), &state);
            writes.push(StateWrite::new(hash, key, before, state, Stored { hashes, destinations })?);
        }
        writes.reverse();
        Ok(Self {
            clock,
            states: writes,
            tally,
            controls,
            rechecked: rechecked.iter().map(|key| hashes.target(key)).collect(),
            record: record.map(|Record { targets, body }| RecordWrite {
                targets: targets.iter().map(|key| hashes.target(key)).collect(),
                body: Encoded::from_text(body),
            }),
            notification,
            audit,
            delivery_changes,
            event_blocks: event_blocks::encode_blocks(&events),
            events: events.into_iter().map(|event| EventWrite::new(event, hashes)).collect(),
        })
    }
}

impl StateWrite {
    fn new(
        hash: Fingerprint,
        key: TargetKey,
        before: Option<(i64, Arc<CachedTarget>)>,
        state: TargetState,
        Stored { hashes, destinations }: Stored<'_>,
    ) -> serde_json::Result<Self> {
        let old = before.as_ref().map(|(_, known)| &*known.state);
        let old_alerts = old.map(|old| hashes.alerts(old)).unwrap_or_default();
        let alerts = hashes.alerts(&state);
        let missing = |from: &[Fingerprint], other: &[Fingerprint]| -> Vec<Fingerprint> {
            // Both are sorted; a target can have as many alerts as a notification.
            from.iter().filter(|alert| other.binary_search(alert).is_err()).copied().collect()
        };
        let mut write = Self {
            hash,
            removed_alerts: missing(&old_alerts, &alerts),
            added_alerts: missing(&alerts, &old_alerts),
            due: (old.and_then(TargetState::due), state.due()),
            depends_on_controls: (
                old.is_some_and(TargetState::depends_on_controls),
                state.depends_on_controls(),
            ),
            watch: Watch::of(&state, destinations),
            after: None,
            before: None,
        };
        if !state.is_empty() {
            let text = json::to_string(&state, STATE_CAPACITY)?;
            let ids = state.emissions.iter().map(|emission| &emission.id);
            let mut known_events: Vec<u64> = ids.map(|id| firing_events::hash(id)).collect();
            known_events.sort_unstable();
            write.after = Some(NewState {
                encoded: states::encode(text),
                alerts: alerts.iter().flat_map(|alert| alert.0).collect(),
                open_episodes: firing_events::open_episodes(&state).collect(),
                had_open_episode: old.is_some_and(|old| firing_events::open_episodes(old).next().is_some()),
                known_events,
                key,
                state: Arc::new(state),
            });
        }
        write.before = before;
        Ok(write)
    }
}

impl EventWrite {
    fn new(event: NewEvent, hashes: Fingerprints) -> Self {
        let episode = event.episode_phase.as_ref();
        let episode = episode.map(|phase| (phase.phase, firing_events::hash(&phase.episode)));
        let id = event.body.header().map_or(0, |header| firing_events::hash(&header.id));
        Self { target: hashes.target(&event.target), episode, id, event }
    }
}

impl DeliveryWrite {
    /// Finds the event of a change in the list of its target. `None` if nothing is known about it any more.
    fn find(
        change: &DeliveryChange,
        known: &Map<Option<(i64, Arc<CachedTarget>)>>,
        hashes: Fingerprints,
    ) -> Option<Self> {
        let DeliveryChange { target, event, kind } = change;
        let target = known.get(&hashes.target(target))?.as_ref();
        let found = target.and_then(|(_, target)| target.events.find(event));
        if found.is_none() {
            tracing::debug!(%event, ?kind, "change of the delivery of an unknown event, ignored");
        }
        found.map(|event| Self { seq: event.seq, route: event.route, kind: *kind })
    }
}
