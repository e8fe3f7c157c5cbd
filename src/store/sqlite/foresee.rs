//! Deciding beside the writer.
//!
//! The writer is one thread, and what it does holds up everybody else. So a decision is made where the
//! notification came in, on what was committed last, and its states are encoded there too. The writer looks
//! whether all that the decision has seen is still so; where it is not, it decides again by itself. Which
//! of the two it was makes no difference to what is decided, since a decision can be run again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::bodies::{self, Group};
use super::index::{Fingerprint, Fingerprints, Ids, Index, Known, Staged};
use super::pack;
use super::samples::{KeptState, Samples};
use super::writer::SharedClock;
use crate::domain::control::Controls;
use crate::domain::engine::States;
use crate::domain::state::TargetState;
use crate::domain::time::Time;
use crate::json;
use crate::store::numbers::Map;
use crate::store::{Changes, Decide, Keys, View};

/// The index: the writer changes it, others read it.
pub type SharedIndex = Arc<RwLock<Index>>;

/// So many decisions are left to the writer after one that was made in vain.
const AFTER_A_MISS: u32 = 16;

/// A decision, and all that it has seen.
pub struct Foreseen {
    pub now: Time,
    pub seen: Seen,
    pub known: Map<i64, Arc<Known>>,
    pub controls: Arc<Controls>,
    pub changes: Changes,
    pub texts: Texts,
}

/// What a decision changes, as it is kept.
pub struct Texts {
    /// Of each state.
    pub states: Vec<KeptState>,
    /// Of the record, if that is packed.
    pub record: Option<Vec<u8>>,
    /// Of the events.
    pub events: Vec<Group>,
}

impl Texts {
    pub fn of(changes: &Changes, samples: &Samples) -> serde_json::Result<Self> {
        let states =
            changes.states.iter().map(|(_, state)| encode(state).map(|text| samples.keep(state, text)));
        Ok(Self {
            states: states.collect::<Result<_, _>>()?,
            record: changes.record.as_ref().and_then(|record| pack::pack(record.body.as_bytes())),
            events: bodies::group(&changes.events),
        })
    }
}

/// Where the wanted targets and alerts are in the index, in the order in which they are wanted.
pub struct Seen {
    targets: Vec<(Fingerprint, Option<i64>)>,
    alerts: Vec<(Fingerprint, Ids)>,
}

impl Seen {
    /// Looks all of them up.
    pub fn of(keys: &Keys, hashes: Fingerprints, index: &Index, staged: &Staged) -> Self {
        let target = |key| {
            let hash = hashes.target(key);
            (hash, index.target(hash, staged))
        };
        let alert = |key| {
            let hash = hashes.alert(key);
            (hash, index.alert_targets(hash, staged))
        };
        Self {
            targets: keys.targets.iter().map(target).collect(),
            alerts: keys.alerts.iter().map(alert).collect(),
        }
    }

    /// Whether all of them are where they were.
    pub fn is_still_so(&self, index: &Index, staged: &Staged) -> bool {
        self.targets.iter().all(|(hash, id)| index.target(*hash, staged) == *id)
            && self.alerts.iter().all(|(hash, ids)| index.alert_targets(*hash, staged) == *ids)
    }

    /// The states of what is known.
    pub fn states<E>(
        &self,
        keys: &Keys,
        mut load: impl FnMut(i64) -> Result<Option<Arc<Known>>, E>,
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

/// Whether it is worth while to decide beside the writer.
#[derive(Default)]
pub struct Foresight {
    /// So many decisions are left to the writer.
    blind: AtomicU32,
    /// So many are being made beside it.
    under_way: AtomicU32,
}

impl Foresight {
    /// A decision was made in vain: others are at the same targets.
    pub fn missed(&self) {
        self.blind.store(AFTER_A_MISS, Ordering::Relaxed);
    }

    /// Whether some are being made now.
    pub fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Counts one that is being made, until it is dropped.
    pub fn begin(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.under_way)
    }

    fn is_clear(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.blind.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }
}

/// A decision that is being made.
pub struct UnderWay<'a>(&'a AtomicU32);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a decision reads beside the states.
pub struct Present {
    pub clock: Arc<SharedClock>,
    pub created: Time,
    pub controls: Arc<Controls>,
    pub samples: Arc<Samples>,
}

/// Decides on what was committed last; `None` where that is not all in memory.
pub fn foresee(
    foresight: &Foresight,
    index: &SharedIndex,
    hashes: Fingerprints,
    present: Present,
    keys: &Keys,
    decide: &mut Decide,
) -> Option<Foreseen> {
    // What comes due has no alerts. It is not urgent.
    if keys.alerts.is_empty() || !foresight.is_clear() {
        return None;
    }
    let staged = Staged::default();
    let mut known = Map::default();
    let (seen, states) = {
        let index = index.read().unwrap_or_else(PoisonError::into_inner);
        let seen = Seen::of(keys, hashes, &index, &staged);
        let states = seen.states(keys, |id| {
            let found = index.state(id, &staged).flatten().ok_or(NotAtHand)?;
            known.insert(id, found.clone());
            Ok::<_, NotAtHand>(Some(found))
        });
        (seen, states.ok()?)
    };
    let Present { clock, created, controls, samples } = present;
    // After the look, so that it is not before anything that was seen.
    let now = clock.now();
    let view = View { now, created, states, controls: controls.clone(), unsent: Default::default() };
    let changes = decide(&view);
    let texts = Texts::of(&changes, &samples).ok()?;
    Some(Foreseen { now, seen, known, controls, changes, texts })
}

struct NotAtHand;

fn encode(state: &TargetState) -> serde_json::Result<String> {
    // As most states are: one allocation instead of one for each doubling.
    json::to_string(state, 2048)
}
