//! What the model takes, keeps and decides.

use std::collections::{BTreeMap, BTreeSet};

use super::settings::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Firing,
    Resolved,
    InvalidFiring,
}

#[derive(Clone, Debug)]
pub(crate) struct Alert {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) status: Status,
    pub(crate) starts_at: Time,
    pub(crate) ends_at: Time,
    /// The rules that take it (matching is outside of the model).
    pub(crate) rules: Vec<RuleId>,
    pub(crate) heartbeat: bool,
    pub(crate) metric: Option<i64>,
    /// Of a firing: until when the sender vouches for it.
    pub(crate) valid_until: Option<Time>,
    /// Of an end: that it is no evidence.
    pub(crate) is_absence: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    /// When a queue took it.
    pub(crate) sent_at: Option<Time>,
    pub(in crate::domain::engine::tests) truncated: bool,
    pub(in crate::domain::engine::tests) alerts: Vec<Alert>,
}

/// `Unknown`: the answer is lost; whether the event arrived is the input's choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Destination {
    Up,
    Down,
    Unknown { arrives: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Emitted,
    Shadowed,
    Duplicate,
    Stale,
    Late,
    StillOpen,
    NoAction,
    NoEvidence,
    Withdrawn,
    Superseded,
    Unmatched,
    Invalid,
    Expired,
    Heartbeat,
    Paused,
    Held,
    Outranked,
    Stabilizing,
    CoolingDown,
}

impl Verdict {
    /// `expect` compares these only where it names one.
    pub(crate) fn is_quiet(self) -> bool {
        use Verdict::*;
        matches!(self, Duplicate | StillOpen | NoAction | Stale | Unmatched | Heartbeat)
    }
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Decision {
    pub(crate) at: Time,
    pub(crate) rule: Option<RuleId>,
    pub(crate) verdict: Verdict,
    pub(crate) phase: Option<Phase>,
    pub(crate) action: Option<Action>,
    pub(crate) value: Option<i64>,
    pub(crate) reverts: Vec<EventNo>,
    pub(crate) until: Option<Time>,
    pub(crate) event: Option<EventNo>,
}

/// What happened to an emitted event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It is being tried (or withheld: an increase under a pause or hold).
    Pending,
    /// A decrease of unknown outcome that was taken back: it keeps its id and waits.
    Parked,
    /// An answer says so.
    Delivered(Time),
    /// A decrease of unknown outcome that was given up or superseded.
    CountsAsDelivered(Time),
    Abandoned(Time),
    Superseded(Time),
    /// An `on_resolved` notify whose episode delivered nothing.
    Withdrawn(Time),
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) no: EventNo,
    pub(crate) rule: RuleId,
    pub(crate) phase: Phase,
    pub(crate) action: Action,
    pub(crate) effects: Effects,
    pub(crate) value: i64,
    pub(crate) episode: EpisodeId,
    /// Which emission of this phase of the episode. With rule, phase and episode: the id.
    pub(crate) emission: usize,
    pub(crate) emitted_at: Time,
    pub(crate) expires_at: Time,
    pub(crate) reverts: Vec<EventNo>,
    pub(crate) fate: Fate,
    /// A call was made whose outcome is unknown.
    pub(crate) unknown: bool,
    /// What really happened, whether we know it or not.
    pub(crate) arrived_at: Option<Time>,
    /// The `on_resolved` event that took it back, once that counts as delivered.
    pub(crate) paid_by: Option<EventNo>,
    pub(crate) forgiven: bool,
    /// It was given up because of its age while a pause or hold withheld it.
    pub(crate) is_withheld: bool,
    /// `max_age` counts from here.
    pub(crate) age_from: Time,
    pub(crate) next_call: Time,
    /// The deferred action that it was, to defer it again with the evidence it had.
    pub(crate) evidence: Deferred,
}

impl Event {
    pub(crate) fn counts_as_delivered(&self) -> Option<Time> {
        match self.fate {
            Fate::Delivered(t) | Fate::CountsAsDelivered(t) => Some(t),
            _ => None,
        }
    }
    pub(crate) fn is_outstanding(&self) -> bool {
        matches!(self.fate, Fate::Pending | Fate::Parked)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Deferred {
    pub(crate) requested_at: Time,
    /// The window counts from here, at least.
    pub(crate) anchor: Time,
    pub(crate) episode: EpisodeId,
    /// What was recorded last.
    pub(crate) recorded: Option<(Verdict, Option<Time>)>,
    /// Deferred again or repeated by the clock: justified while the episode is open.
    pub(crate) stands: bool,
    /// Repeated by the clock.
    pub(crate) repeats: bool,
    /// After a give-up: no emission before this, unless a call succeeds.
    pub(crate) rest_until: Option<Time>,
    pub(crate) give_ups: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Occurrence {
    pub(crate) starts_at: Time,
    pub(crate) last_heard: Time,
    pub(crate) opened_at: Time,
    pub(crate) rules: BTreeSet<RuleId>,
    pub(crate) metric: Option<i64>,
    /// Until when the sender vouches for it.
    pub(crate) valid_until: Option<Time>,
    /// Ends that may be firings that came late, and when each was heard first: the last four.
    pub(crate) doubts: Vec<(Time, Time)>,
}

impl Occurrence {
    /// Its sender does not vouch for it any more.
    pub(crate) fn is_absent(&self, now: Time) -> bool {
        self.valid_until.is_some_and(|until| until <= now)
    }

    /// Whether an `endsAt` that has passed is its end: one that its sender could not know before, or one that is repeated.
    pub(crate) fn ends_with(&mut self, ends_at: Time, now: Time) -> bool {
        let Some(until) = self.valid_until else { return true };
        let mut copies =
            self.doubts.iter().filter(|(end, _)| *end == ends_at).map(|(_, heard_at)| now - heard_at);
        if let Some(age) = copies.next() {
            return age >= 10;
        }
        if ends_at < until && self.doubts.is_empty() {
            return true;
        }
        let kept = self.doubts.iter().rev().take(3).rev().copied();
        self.doubts = kept.chain([(ends_at, now)]).collect();
        self.valid_until = Some(until.max(ends_at));
        false
    }
}

#[derive(Clone, Debug)]
pub(crate) struct LateFiring {
    pub(crate) opens_at: Time,
    pub(crate) copy: Alert,
    pub(crate) last_copy_at: Time,
}

#[derive(Clone, Debug)]
pub(crate) struct InvalidFiring {
    pub(crate) starts_at: Time,
    pub(crate) last_heard: Time,
    pub(crate) rules: Vec<RuleId>,
    pub(crate) about_target: bool,
}

/// What is kept for each (source, fingerprint).
#[derive(Clone, Debug, Default)]
pub(crate) struct AlertState {
    pub(crate) heartbeat: bool,
    pub(crate) open: Option<Occurrence>,
    pub(crate) late: Option<LateFiring>,
    pub(crate) invalid: Option<InvalidFiring>,
    pub(crate) last_end: Option<Time>,
    pub(crate) end_heard_at: Time,
    pub(crate) ever_open: bool,
    /// The episode that it was in last, by rule.
    pub(crate) episodes: BTreeMap<RuleId, EpisodeId>,
}

#[derive(Clone, Debug)]
pub(crate) struct Episode {
    pub(crate) rule: RuleId,
    pub(crate) open: BTreeSet<Fingerprint>,
    /// The most alerts that were open at an emission.
    pub(crate) growth_mark: usize,
    /// An occurrence expired, was adopted, or was closed by a truncated body.
    pub(crate) tainted: bool,
    pub(crate) expired: bool,
    /// It had an emitted or deferred increase.
    pub(crate) needed: bool,
    pub(crate) closed_at: Option<Time>,
    /// A late firing has made it go on.
    pub(crate) reopened_at: Option<Time>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RuleState {
    pub(crate) open: Option<EpisodeId>,
    pub(crate) deferred: [Option<Deferred>; 2],
    /// The close by resolve from which on a decrease is due; none after another close.
    pub(crate) due_since: Option<(Time, EpisodeId)>,
    pub(crate) last_close: Option<(Time, bool)>,
}

/// The end of a late firing that was withdrawn, of an invalid firing, or of an occurrence.
#[derive(Clone, Debug)]
pub(crate) struct DoubtEnd {
    pub(crate) at: Time,
    pub(crate) rules: Vec<RuleId>,
    pub(crate) about_target: bool,
}
