//! The schedule of faults: one fault per call.

use super::Fault;

/// One round of the schedule: every fault except [`Fault::Silence`], and some calls without a fault.
const ROUND: [Fault; 16] = [
    Fault::Slow,
    Fault::Error,
    Fault::Throttled,
    Fault::Partial,
    Fault::Partial,
    Fault::Unmentioned,
    Fault::LostAnswer,
    Fault::LostAnswer,
    Fault::Garbage,
    Fault::Reset,
    Fault::Refused,
    Fault::None,
    Fault::None,
    Fault::None,
    Fault::None,
    Fault::None,
];

impl Fault {
    /// Whether the sender gets no acknowledgement of some accepted messages.
    pub(super) fn loses_answers(self) -> bool {
        matches!(self, Self::Unmentioned | Self::LostAnswer | Self::Silence | Self::Garbage)
    }
}

/// Rounds of all faults, each shuffled, so that a test with enough calls meets every fault.
/// [`Fault::Silence`] lasts until the caller times out, so it occurs only once, in the first round.
pub(super) struct Schedule {
    rng: fastrand::Rng,
    round: Vec<Fault>,
    remaining: Option<Vec<Fault>>,
    calls: usize,
}

impl Schedule {
    pub(super) fn none() -> Self {
        Self { rng: fastrand::Rng::with_seed(0), round: Vec::new(), remaining: None, calls: 0 }
    }

    pub(super) fn seeded(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut remaining = ROUND.to_vec();
        remaining.push(Fault::Silence);
        rng.shuffle(&mut remaining);
        Self { rng, round: ROUND.to_vec(), remaining: Some(remaining), calls: 0 }
    }

    /// Only faults after which the sender knows which messages were accepted.
    pub(super) fn without_lost_answers(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let round = ROUND.into_iter().filter(|fault| !fault.loses_answers()).collect();
        Self { rng, round, remaining: Some(Vec::new()), calls: 0 }
    }

    /// [`Fault::Silence`] for every call.
    pub(super) fn silent() -> Self {
        Self { round: vec![Fault::Silence], remaining: Some(Vec::new()), ..Self::none() }
    }

    /// Ends the schedule: no more faults.
    pub(super) fn heal(&mut self) {
        self.remaining = None;
    }

    /// The fault of the next call.
    pub(super) fn next_fault(&mut self) -> Fault {
        let Some(remaining) = &mut self.remaining else { return Fault::None };
        if remaining.is_empty() {
            remaining.extend(&self.round);
            self.rng.shuffle(remaining);
        }
        self.calls += 1;
        remaining.pop().unwrap_or(Fault::None)
    }

    /// A generator for the random details of one call.
    pub(super) fn fork_rng(&mut self) -> fastrand::Rng {
        self.rng.fork()
    }

    /// Whether every fault of the first round has occurred.
    pub(super) fn has_finished_round(&self) -> bool {
        self.calls > self.round.len()
    }
}
