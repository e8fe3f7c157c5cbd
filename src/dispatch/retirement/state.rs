//! The states of a retirement, and the transitions between them: a pure function.

use std::time::Duration;

use tokio::time::Instant;

/// The maximum time to wait for transactions that use the old rules.
pub(super) const RETIRED_RULES_TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum time without progress while transactions withhold all remaining deliveries.
pub(super) const WITHHELD_TIMEOUT: Duration = Duration::from_secs(2);
/// The delay before a failed operation of the store is repeated.
pub(super) const STORE_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The state of a destination that is retired, or whose worker is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Before the first event: configured with a worker, or an orphan.
    Active,
    /// Removed from the configuration. Transactions that use the old rules can still enqueue events, so its worker
    /// continues; at `deadline` they are not waited for any more.
    Quiescing { deadline: Instant },
    /// Its worker claims nothing and settles what it has claimed.
    Stopping(Successor),
    /// Undelivered events become dead letters, or are withdrawn if there is nothing to compensate.
    Draining(Progress),
    /// Transactions withhold all remaining deliveries. At `deadline` they are left to the next start.
    Withheld { progress: Progress, deadline: Instant },
    /// The store has failed; the drain is repeated at `retry_at`.
    BackingOff { progress: Progress, retry_at: Instant },
    /// Nothing is left to drain; the store stores the position of the destination and closes its lane.
    ClosingLane(Progress),
    /// Final: the destination has neither a worker nor a lane.
    Retired { drained: u64 },
    /// Final: its worker has ended, and another one takes over its claims.
    HandedOver,
    /// Final: the process stops. The destination is an orphan at the next start, if it has undelivered events.
    Interrupted,
}

/// What follows a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Successor {
    /// Nothing: the destination was removed.
    None,
    /// A worker with other settings.
    Worker,
}

/// The progress of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Deliveries that became dead letters or were withdrawn.
    pub drained: u64,
    /// The end of the wait for withheld deliveries, if nothing was drained since it began.
    pub withheld_deadline: Option<Instant>,
}

/// What happens to a destination in retirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A reload has removed it.
    Removed,
    /// It has undelivered events and is not configured at the start of the process.
    Orphaned,
    /// A reload has changed its settings.
    Replaced,
    /// No transaction uses the old rules any more.
    RulesReleased,
    /// The deadline of the state has passed.
    TimedOut,
    /// Its worker has ended.
    WorkerEnded,
    /// Claimed deliveries were settled.
    Drained(u64),
    /// It has undelivered events, none of which can be claimed.
    NothingClaimable,
    /// Deliveries may be claimable again.
    Woken,
    /// It has no undelivered events.
    Empty,
    /// The store has closed its lane.
    LaneClosed,
    /// An operation of the store has failed.
    StoreFailed,
    /// The process stops.
    ProcessStops,
}

impl State {
    /// The state after `event`. An event that does not belong to the state changes nothing.
    pub(super) fn after(self, event: Event, now: Instant) -> Self {
        match (self, event) {
            (Self::Active, Event::Removed) => Self::Quiescing { deadline: now + RETIRED_RULES_TIMEOUT },
            (Self::Active, Event::Orphaned) => Self::Draining(Progress::default()),
            (Self::Active, Event::Replaced) => Self::Stopping(Successor::Worker),
            (Self::Quiescing { .. }, Event::RulesReleased | Event::TimedOut) => {
                Self::Stopping(Successor::None)
            }
            (Self::Stopping(Successor::None), Event::WorkerEnded) => Self::Draining(Progress::default()),
            (Self::Stopping(Successor::Worker), Event::WorkerEnded) => Self::HandedOver,
            (Self::Draining(progress), Event::Drained(count)) => {
                let drained = progress.drained.saturating_add(count);
                Self::Draining(Progress { drained, withheld_deadline: None })
            }
            (Self::Draining(progress), Event::NothingClaimable) => {
                let deadline = progress.withheld_deadline.unwrap_or(now + WITHHELD_TIMEOUT);
                match deadline > now {
                    true => Self::Withheld { progress, deadline },
                    false => Self::ClosingLane(progress),
                }
            }
            (Self::Withheld { progress, deadline }, Event::Woken) => {
                Self::Draining(Progress { withheld_deadline: Some(deadline), ..progress })
            }
            (Self::Withheld { progress, .. }, Event::TimedOut) | (Self::Draining(progress), Event::Empty) => {
                Self::ClosingLane(progress)
            }
            (Self::Draining(progress) | Self::ClosingLane(progress), Event::StoreFailed) => {
                let progress = Progress { withheld_deadline: None, ..progress };
                Self::BackingOff { progress, retry_at: now + STORE_RETRY_DELAY }
            }
            (Self::BackingOff { progress, .. }, Event::TimedOut) => Self::Draining(progress),
            (Self::ClosingLane(progress), Event::LaneClosed) => Self::Retired { drained: progress.drained },
            (state, Event::ProcessStops) if !state.is_final() => Self::Interrupted,
            (state, _) => state,
        }
    }

    /// Whether no event changes the state.
    pub(super) const fn is_final(self) -> bool {
        matches!(self, Self::Retired { .. } | Self::HandedOver | Self::Interrupted)
    }
}
