//! Optimistic execution. A transaction is decided on the caller's thread against the last committed snapshot,
//! and its states are encoded there too; the writer validates the read set and commits, or re-runs the
//! decision itself. The writer is one thread and the bottleneck, so the work is moved off it. The result is
//! the same in both cases, because a decision is a pure function that can be run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::Sqlite;
use super::compression;
use super::dictionaries::{Dictionaries, EncodedState};
use super::event_blocks::{self, EncodedBlock};
use super::index::{CachedTarget, Fingerprint, Fingerprints, Ids, Index, IndexOverlay};
use super::shared_clock::SharedClock;
use crate::domain::control::Controls;
use crate::domain::engine::States;
use crate::domain::state::TargetState;
use crate::domain::time::Time;
use crate::json;
use crate::store::fast_map::Map;
use crate::store::{Changes, DecideFn, Keys, View};

/// The index: changed by the writer, read by all threads.
pub(super) type SharedIndex = Arc<RwLock<Index>>;

/// Number of transactions that the writer decides after a conflict.
const SKIPS_AFTER_CONFLICT: u32 = 16;

/// An optimistic decision with everything that it has read.
pub(super) struct Speculation {
    pub now: Time,
    pub read_set: ReadSet,
    pub targets: Map<i64, Arc<CachedTarget>>,
    pub controls: Arc<Controls>,
    pub changes: Changes,
    pub encoded: EncodedChanges,
}

/// The changes of a decision in their stored form.
pub(super) struct EncodedChanges {
    /// One for each state.
    pub states: Vec<EncodedState>,
    /// The record, if compression pays.
    pub record: Option<Vec<u8>>,
    pub event_blocks: Vec<EncodedBlock>,
}

impl EncodedChanges {
    pub(super) fn from_changes(changes: &Changes, dictionaries: &Dictionaries) -> serde_json::Result<Self> {
        let states = changes
            .states
            .iter()
            .map(|(_, state)| encode(state).map(|text| dictionaries.encode(state, text)));
        Ok(Self {
            states: states.collect::<Result<_, _>>()?,
            record: changes.record.as_ref().and_then(|record| compression::compress(record.body.as_bytes())),
            event_blocks: event_blocks::encode_blocks(&changes.events),
        })
    }
}

/// The index entries of the requested targets and alerts, in the order of the keys.
pub(super) struct ReadSet {
    targets: Vec<(Fingerprint, Option<i64>)>,
    alerts: Vec<(Fingerprint, Ids)>,
}

impl ReadSet {
    pub(super) fn for_keys(keys: &Keys, hashes: Fingerprints, index: &Index, overlay: &IndexOverlay) -> Self {
        let target = |key| {
            let hash = hashes.target(key);
            (hash, index.target(hash, overlay))
        };
        let alert = |key| {
            let hash = hashes.alert(key);
            (hash, index.alert_targets(hash, overlay))
        };
        Self {
            targets: keys.targets.iter().map(target).collect(),
            alerts: keys.alerts.iter().map(alert).collect(),
        }
    }

    /// Whether all entries are still the same.
    pub(super) fn is_unchanged(&self, index: &Index, overlay: &IndexOverlay) -> bool {
        self.targets.iter().all(|(hash, id)| index.target(*hash, overlay) == *id)
            && self.alerts.iter().all(|(hash, ids)| index.alert_targets(*hash, overlay) == *ids)
    }

    /// Loads the states of the targets that exist.
    pub(super) fn states<E>(
        &self,
        keys: &Keys,
        mut load: impl FnMut(i64) -> Result<Option<Arc<CachedTarget>>, E>,
    ) -> Result<States, E> {
        let mut states = States::default();
        for (alert, (_, ids)) in keys.alerts.iter().zip(&self.alerts) {
            for id in ids {
                if let Some(known) = load(*id)? {
                    states.alerts.entry(alert.clone()).or_default().push(known.key.clone());
                    states.targets.insert(known.key.clone(), known.state.clone());
                }
            }
        }
        for (key, (_, id)) in keys.targets.iter().zip(&self.targets) {
            if let Some(id) = id
                && !states.targets.contains_key(key)
                && let Some(known) = load(*id)?
            {
                states.targets.insert(key.clone(), known.state.clone());
            }
        }
        // The engine takes the first of an alert's targets where any would do.
        states.alerts.values_mut().for_each(|targets| targets.sort_unstable());
        Ok(states)
    }
}

/// Suspends optimistic execution after a conflict, and counts the decisions in flight.
#[derive(Default)]
pub(super) struct SpeculationGate {
    /// Number of transactions that the writer still has to decide.
    skips_left: AtomicU32,
    /// Number of optimistic decisions that are being made.
    in_flight: AtomicU32,
    made: AtomicU64,
    conflicts: AtomicU64,
}

/// What became of the transactions since the store was opened. The result of a transaction does not show where it
/// was decided, so tests need these counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeculationCounts {
    /// Transactions that were decided optimistically.
    pub made: u64,
    /// Those of them that the writer decided again.
    pub conflicts: u64,
}

impl Sqlite {
    /// How often optimistic execution was used, and how often it was in vain.
    pub fn speculation_counts(&self) -> SpeculationCounts {
        let SpeculationGate { made, conflicts, .. } = &*self.gate;
        SpeculationCounts { made: made.load(Ordering::Relaxed), conflicts: conflicts.load(Ordering::Relaxed) }
    }
}

impl SpeculationGate {
    /// Records a conflict: other transactions change the same targets.
    pub(super) fn conflicted(&self) {
        self.skips_left.store(SKIPS_AFTER_CONFLICT, Ordering::Relaxed);
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn any_in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Counts a decision until the guard is dropped.
    pub(super) fn begin(&self) -> InFlightGuard<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlightGuard(&self.in_flight)
    }

    fn try_enter(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.skips_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }
}

/// An optimistic decision in flight.
pub(super) struct InFlightGuard<'a>(&'a AtomicU32);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an optimistic decision reads besides the states.
pub(super) struct Snapshot {
    pub clock: Arc<SharedClock>,
    pub created: Time,
    pub controls: Arc<Controls>,
    pub dictionaries: Arc<Dictionaries>,
}

/// Decides against the last commit; `None` if a state is not cached or the gate is closed.
pub(super) fn decide_optimistically(
    gate: &SpeculationGate,
    index: &SharedIndex,
    hashes: Fingerprints,
    snapshot: Snapshot,
    keys: &Keys,
    decide: &mut DecideFn,
) -> Option<Speculation> {
    // Due targets have no alerts, and are not urgent.
    if keys.alerts.is_empty() || !gate.try_enter() {
        return None;
    }
    let overlay = IndexOverlay::default();
    let mut known = Map::default();
    let (read_set, states) = {
        let index = index.read();
        let read_set = ReadSet::for_keys(keys, hashes, &index, &overlay);
        let states = read_set.states(keys, |id| {
            let found = index.state(id, &overlay).flatten().ok_or(CacheMiss)?;
            known.insert(id, found.clone());
            Ok::<_, CacheMiss>(Some(found))
        });
        (read_set, states.ok()?)
    };
    let Snapshot { clock, created, controls, dictionaries } = snapshot;
    // Read after the states, so that it is not before any of their times.
    let now = clock.now();
    let view =
        View { now, created, states, controls: controls.clone(), undelivered_decreases: Default::default() };
    let changes = decide(&view);
    let encoded = EncodedChanges::from_changes(&changes, &dictionaries).ok()?;
    gate.made.fetch_add(1, Ordering::Relaxed);
    Some(Speculation { now, read_set, targets: known, controls, changes, encoded })
}

struct CacheMiss;

fn encode(state: &TargetState) -> serde_json::Result<String> {
    // The size of most states: one allocation instead of one for each doubling.
    json::to_string(state, 2048)
}
