//! Optimistic execution. A transaction is decided on the caller's thread against the last commit, and its write set
//! is made there too; the writer validates the read set and applies the write set, or decides again. The writer is
//! one thread and the bottleneck, so the work is moved off it. The result is the same in both cases, because a
//! decision is a pure function that can be run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use super::read_set::{LoadError, ReadSet};
use super::write_set::WriteSet;
use crate::domain::control::Controls;
use crate::domain::time::Time;
use crate::store::sqlite::codec::dictionaries::Dictionaries;
use crate::store::sqlite::committed::clock::SharedClock;
use crate::store::sqlite::committed::index::{Fingerprints, Index, Layers};
use crate::store::{DecideFn, Keys, View};

/// The index: changed by the writer, read by all threads.
pub(crate) type SharedIndex = Arc<RwLock<Index>>;

/// Number of transactions that the writer decides after a conflict.
const SKIPS_AFTER_CONFLICT: u32 = 16;

/// An optimistic decision: everything that it has read, and everything that it writes.
pub(crate) struct Speculation {
    pub read_set: ReadSet,
    pub controls: Arc<Controls>,
    pub write_set: WriteSet,
}

/// Suspends optimistic execution after a conflict, and counts the decisions in flight.
#[derive(Default)]
pub(crate) struct SpeculationGate {
    /// Number of transactions that the writer still has to decide.
    skips_left: AtomicU32,
    /// Number of optimistic decisions that are being made.
    in_flight: AtomicU32,
}

impl SpeculationGate {
    /// Records a conflict: other transactions change the same targets.
    pub(crate) fn conflicted(&self) {
        self.skips_left.store(SKIPS_AFTER_CONFLICT, Ordering::Relaxed);
    }

    pub(crate) fn any_in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Counts a decision until the guard is dropped.
    pub(crate) fn begin(&self) -> InFlightGuard<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlightGuard(&self.in_flight)
    }

    fn try_enter(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.skips_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }
}

/// An optimistic decision in flight.
pub(crate) struct InFlightGuard<'a>(&'a AtomicU32);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an optimistic decision reads besides the states.
pub(crate) struct Snapshot {
    pub clock: Arc<SharedClock>,
    pub created: Time,
    pub controls: Arc<Controls>,
    pub dictionaries: Arc<Dictionaries>,
}

/// Why nothing is decided here: a state is not cached, or cannot be written.
struct Undecided;

impl From<serde_json::Error> for Undecided {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// Decides against the last commit; `None` if a state is not cached or the gate is closed.
pub(crate) fn decide_optimistically(
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
    let read_set = {
        let index = index.read();
        let cached = |id| index.state(id, Layers::NONE).ok_or(LoadError::Failed(Undecided));
        ReadSet::look_up(keys, hashes, &index, Layers::NONE).load(keys, cached).ok()?
    };
    let Snapshot { clock, created, controls, dictionaries } = snapshot;
    // Read after the states, so that it is not before any of their times.
    let now = clock.now();
    let states = read_set.states(keys);
    let view =
        View { now, created, states, controls: controls.clone(), undelivered_decreases: Default::default() };
    let changes = decide(&view);
    let write_set =
        WriteSet::new::<Undecided>(now, changes, &read_set, hashes, &dictionaries, |_| Err(Undecided)).ok()?;
    Some(Speculation { read_set, controls, write_set })
}
