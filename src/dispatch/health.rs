//! Health of a destination, derived from the outcomes of its calls: whether a call may start
//! ([`Breaker`]), how many at the same time ([`AdaptiveConcurrency`]), and a backoff when even a single
//! call at a time is throttled.
//!
//! This protects the backlog of a dead destination from being used up by failing calls, and a throttling
//! destination from overload. Pure: instants and randomness are arguments.

use tokio::time::Instant;

use super::breaker::{self, Admission, Breaker};
use super::concurrency::{self, AdaptiveConcurrency, Epoch};
use super::{Answer, Class, Failure, OutgoingEvent};
use crate::domain::retry::Backoff;
use crate::store::EventSeq;

/// Calls in a row without a delivered event, whatever their failures, from which on a destination counts as
/// unavailable, also while its breaker is closed.
const MAX_CALLS_WITHOUT_SUCCESS: u32 = 10;

#[derive(Debug)]
pub(super) struct Health {
    backoff: Backoff,
    breaker: Breaker,
    concurrency: AdaptiveConcurrency,
    /// Consecutive throttles at a limit of one call, and the end of the backoff that follows from them.
    throttles_at_minimum: u32,
    throttled_until: Option<Instant>,
    /// The number of calls since one delivered an event.
    calls_without_success: u32,
}

/// Identifies a call that was let through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    breaker_ticket: breaker::Ticket,
    epoch: Epoch,
}

/// The outcome of a call with regard to its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallOutcome {
    /// No call was made.
    Skipped,
    /// An event was delivered.
    Delivered,
    /// No event was delivered, because of the content of the events.
    Rejected(Failure),
    /// The destination answered, but accepted no event. `event` is the first that may be retried.
    NoneAccepted { failure: Failure, event: EventSeq },
    /// An event was throttled.
    Throttled { failure: Failure, delivered: bool },
    /// The call failed as a whole.
    Failed(Failure),
}

impl CallOutcome {
    /// The outcome of a call that failed as a whole.
    pub(super) fn failed(failure: Failure) -> Self {
        match failure.class {
            Class::Throttled => Self::Throttled { failure, delivered: false },
            _ => Self::Failed(failure),
        }
    }

    /// The outcome of a call that returned answers. A single throttled event makes it a throttle;
    /// a misconfiguration counts only if no event was delivered.
    pub(super) fn from_answers(batch: &[OutgoingEvent], answers: &[Answer]) -> Self {
        let failures = || {
            let with_event = batch.iter().zip(answers);
            with_event.filter_map(|(event, answer)| Some((event.lease.seq(), answer.as_ref().err()?)))
        };
        let first = |class| failures().find(|(_, failure)| failure.class == class);
        // An event that came too late was answered as it should be.
        let delivered = answers.iter().any(Result::is_ok) || first(Class::NotApplied).is_some();
        if let Some((_, failure)) = first(Class::Throttled) {
            Self::Throttled { failure: failure.clone(), delivered }
        } else if delivered {
            Self::Delivered
        } else if let Some((_, failure)) = first(Class::Misconfigured) {
            Self::Failed(failure.clone())
        } else if let Some((event, failure)) = first(Class::Transient) {
            Self::NoneAccepted { failure: failure.clone(), event }
        } else {
            first(Class::Permanent).map_or(Self::Skipped, |(_, failure)| Self::Rejected(failure.clone()))
        }
    }

    /// Why the call delivered nothing, or less than it could.
    pub(super) const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Skipped | Self::Delivered => None,
            Self::Rejected(failure)
            | Self::NoneAccepted { failure, .. }
            | Self::Throttled { failure, .. }
            | Self::Failed(failure) => Some(failure),
        }
    }

    /// Whether the failure is logged for the call instead of for its events.
    pub(super) const fn failed_as_a_whole(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Throttled { .. })
    }
}

/// The change of the health by a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthChange {
    None,
    /// A call failed; the breaker stays closed.
    CallFailed,
    /// The destination became unavailable: the breaker opened, or no event was delivered for many calls.
    Down,
    /// Another call failed meanwhile.
    StillDown,
    /// An event was delivered, or the breaker closed.
    Up,
    /// The destination throttles; the concurrency is reduced.
    Throttled,
    /// The concurrency is back at its maximum.
    Unthrottled,
}

impl Health {
    pub(super) fn new(backoff: Backoff, concurrency: usize) -> Self {
        let (breaker, concurrency) = (Breaker::new(backoff), AdaptiveConcurrency::new(concurrency));
        Self {
            backoff,
            breaker,
            concurrency,
            throttles_at_minimum: 0,
            throttled_until: None,
            calls_without_success: 0,
        }
    }

    /// Whether the destination counts as available.
    pub(super) const fn is_up(&self) -> bool {
        self.breaker.is_closed() && self.calls_without_success < MAX_CALLS_WITHOUT_SUCCESS
    }

    /// Nothing is left to be delivered: the next delivery is the probe, without a backoff.
    pub(super) fn on_idle(&mut self, now: Instant) {
        self.breaker.end_backoff(now);
    }

    /// The time before which no call starts, if it is after `now`.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        let throttled_until = self.throttled_until.filter(|&until| until > now);
        match self.breaker.admission(now) {
            Admission::Later(until) => throttled_until.max(Some(until)),
            _ => throttled_until,
        }
    }

    /// The number of calls that may start now, in addition to `running` ones.
    pub(super) fn available_calls(&self, running: usize, now: Instant) -> usize {
        match self.breaker.admission(now) {
            _ if self.paused_until(now).is_some() => 0,
            Admission::All => self.concurrency.limit().saturating_sub(running),
            Admission::Probe => usize::from(running < self.concurrency.max_limit()),
            Admission::Later(_) | Admission::AfterProbe => 0,
        }
    }

    /// Whether the next call is a probe, which carries a single delivery.
    pub(super) fn is_probe_next(&self, now: Instant) -> bool {
        self.breaker.admission(now) == Admission::Probe
    }

    /// Starts a call if one is admitted.
    pub(super) fn start(&mut self, running: usize, now: Instant) -> Option<Ticket> {
        if self.available_calls(running, now) == 0 {
            return None;
        }
        Some(Ticket { breaker_ticket: self.breaker.start(now)?, epoch: self.concurrency.epoch() })
    }

    /// Starts a call that bypasses the breaker and does not affect it.
    pub(super) const fn start_forced(&self) -> Ticket {
        Ticket { breaker_ticket: breaker::Ticket::FORCED, epoch: self.concurrency.epoch() }
    }

    /// Records the outcome of a call.
    pub(super) fn record(
        &mut self,
        ticket: Ticket,
        outcome: &CallOutcome,
        now: Instant,
        chance: f64,
    ) -> HealthChange {
        let was_up = self.is_up();
        self.count(ticket, outcome);
        let change = self.apply(ticket, outcome, now, chance);
        match (was_up, self.is_up()) {
            (true, false) => HealthChange::Down,
            (false, true) => HealthChange::Up,
            // The breaker is closed, but nothing was delivered.
            (false, false) if self.breaker.is_closed() && outcome.failure().is_some() => {
                HealthChange::StillDown
            }
            _ => change,
        }
    }

    fn count(&mut self, ticket: Ticket, outcome: &CallOutcome) {
        match outcome {
            _ if ticket.breaker_ticket == breaker::Ticket::FORCED => {}
            CallOutcome::Skipped => {}
            CallOutcome::Delivered | CallOutcome::Throttled { delivered: true, .. } => {
                self.calls_without_success = 0;
            }
            _ => self.calls_without_success = self.calls_without_success.saturating_add(1),
        }
    }

    fn apply(&mut self, ticket: Ticket, outcome: &CallOutcome, now: Instant, chance: f64) -> HealthChange {
        let (failure, event) = match outcome {
            CallOutcome::Skipped => {
                self.breaker.on_skipped(ticket.breaker_ticket, now);
                return HealthChange::None;
            }
            CallOutcome::Delivered | CallOutcome::Rejected(_) => return self.on_reached(ticket),
            CallOutcome::Throttled { .. } => return self.on_throttle(ticket, now, chance),
            CallOutcome::NoneAccepted { failure, event } => (failure, Some(*event)),
            CallOutcome::Failed(failure) => (failure, None),
        };
        match self.breaker.on_failure(ticket.breaker_ticket, failure, event, now, chance) {
            breaker::Transition::Opened => HealthChange::Down,
            breaker::Transition::StaysOpen => HealthChange::StillDown,
            _ if event.is_none() && self.breaker.is_closed() => HealthChange::CallFailed,
            _ => HealthChange::None,
        }
    }

    fn on_reached(&mut self, ticket: Ticket) -> HealthChange {
        self.throttles_at_minimum = 0;
        self.throttled_until = None;
        let limit_change = self.concurrency.on_success(ticket.epoch);
        match (self.breaker.on_reached(ticket.breaker_ticket), limit_change) {
            (breaker::Transition::Closed, _) => HealthChange::Up,
            (_, concurrency::LimitChange::Restored) => HealthChange::Unthrottled,
            _ => HealthChange::None,
        }
    }

    fn on_throttle(&mut self, ticket: Ticket, now: Instant, chance: f64) -> HealthChange {
        self.breaker.on_throttle(ticket.breaker_ticket, now, chance);
        match self.concurrency.on_throttle(ticket.epoch) {
            concurrency::LimitChange::Reduced => HealthChange::Throttled,
            concurrency::LimitChange::AtMinimum => {
                self.throttles_at_minimum = self.throttles_at_minimum.saturating_add(1);
                self.throttled_until = Some(now + self.backoff.delay(self.throttles_at_minimum, chance));
                // With a maximum of 1, there is no `Reduced` that would report the throttling.
                if self.throttles_at_minimum == 1 && self.concurrency.max_limit() == 1 {
                    HealthChange::Throttled
                } else {
                    HealthChange::None
                }
            }
            _ => HealthChange::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn health(concurrency: usize) -> Health {
        Health::new(Backoff::new(seconds(4), seconds(60)).unwrap(), concurrency)
    }

    fn failed(class: Class) -> CallOutcome {
        CallOutcome::failed(Failure::new(class, "no"))
    }

    #[test]
    fn concurrent_failed_calls_open_the_breaker_once() {
        let (mut health, now) = (health(8), Instant::now());
        let tickets: Vec<_> = (0..8).map(|running| health.start(running, now).unwrap()).collect();
        assert_eq!(health.available_calls(8, now), 0);
        let outcome = failed(Class::Transient);
        let changes: Vec<_> =
            tickets.into_iter().map(|ticket| health.record(ticket, &outcome, now, 0.5)).collect();
        use HealthChange::{CallFailed, Down, None};
        assert_eq!(changes, [CallFailed, CallFailed, Down, None, None, None, None, None]);
        assert_eq!(health.paused_until(now), Some(now + seconds(2)));

        let later = now + seconds(2);
        assert_eq!(
            (health.paused_until(later), health.available_calls(3, later), health.is_probe_next(later)),
            (Option::None, 1, true)
        );
        assert_eq!(health.available_calls(8, later), 0, "hanging calls count towards the limit");
        let probe = health.start(0, later).unwrap();
        assert_eq!((health.available_calls(1, later), health.is_probe_next(later)), (0, false));
        assert_eq!(health.record(probe, &CallOutcome::Delivered, later, 0.5), HealthChange::Up);
        assert_eq!(health.available_calls(0, later), 8);
    }

    #[test]
    fn a_throttle_reduces_concurrency_and_pauses_only_at_the_minimum() {
        let (mut health, now) = (health(4), Instant::now());
        let throttled = failed(Class::Throttled);
        let throttle = |health: &mut Health, now| {
            let ticket = health.start(0, now).unwrap();
            (health.record(ticket, &throttled, now, 0.5), health.paused_until(now))
        };
        assert_eq!(throttle(&mut health, now), (HealthChange::Throttled, None));
        assert_eq!(health.available_calls(0, now), 2);
        assert_eq!(throttle(&mut health, now), (HealthChange::None, None));
        assert_eq!(throttle(&mut health, now), (HealthChange::None, Some(now + seconds(2))));
        let now = now + seconds(2);
        assert_eq!(throttle(&mut health, now), (HealthChange::None, Some(now + seconds(4))));
        let now = now + seconds(4);
        assert!(!health.is_probe_next(now), "throttling does not open the breaker");
        let ticket = health.start(0, now).unwrap();
        assert_eq!(health.record(ticket, &CallOutcome::Delivered, now, 0.5), HealthChange::None);
        assert_eq!(health.available_calls(0, now), 2);
        let changes: Vec<_> = (0..5)
            .map(|_| {
                let ticket = health.start(0, now).unwrap();
                health.record(ticket, &CallOutcome::Delivered, now, 0.5)
            })
            .collect();
        assert_eq!(changes.iter().position(|change| *change == HealthChange::Unthrottled), Some(4));
    }

    #[test]
    fn a_drain_bypasses_the_breaker_and_records_nothing() {
        let (mut health, now) = (health(2), Instant::now());
        let ticket = health.start(0, now).unwrap();
        assert_eq!(health.record(ticket, &failed(Class::Misconfigured), now, 0.5), HealthChange::Down);
        let ticket = health.start_forced();
        assert_eq!(health.record(ticket, &CallOutcome::Delivered, now, 0.5), HealthChange::None);
        assert_eq!(health.paused_until(now), Some(now + seconds(2)));
    }
    #[test]
    fn ten_calls_in_a_row_without_success_count_as_unavailable_whatever_failed() {
        let none_accepted = |seq| CallOutcome::NoneAccepted {
            failure: Failure::transient("function error"),
            event: EventSeq(seq),
        };
        let rejected = CallOutcome::Rejected(Failure::permanent("refused"));
        for outcome in [none_accepted(1), rejected, failed(Class::Throttled)] {
            let (mut health, mut now) = (health(4), Instant::now());
            let mut call = |outcome: &CallOutcome| {
                now += seconds(60);
                let ticket = health.start(0, now).unwrap();
                health.record(ticket, outcome, now, 0.5)
            };
            let first: Vec<_> = (0..9).map(|_| call(&outcome)).collect();
            assert!(!first.contains(&HealthChange::Down), "{outcome:?}: {first:?}");
            assert_eq!([call(&outcome), call(&outcome)], [HealthChange::Down, HealthChange::StillDown]);
            assert_eq!(call(&CallOutcome::Skipped), HealthChange::None, "{outcome:?}");
            assert_eq!(call(&CallOutcome::Delivered), HealthChange::Up, "{outcome:?}");
            assert_ne!(call(&outcome), HealthChange::Down, "counted from the start");
        }
    }

    #[test]
    fn a_function_that_fails_for_every_event_opens_the_breaker() {
        let (mut health, now) = (health(4), Instant::now());
        let mut changes = vec![];
        for seq in 0..3 {
            let ticket = health.start(0, now).unwrap();
            let outcome =
                CallOutcome::NoneAccepted { failure: Failure::transient("error"), event: EventSeq(seq) };
            changes.push(health.record(ticket, &outcome, now, 0.5));
        }
        assert_eq!(changes, [HealthChange::None, HealthChange::None, HealthChange::Down]);
        assert!(health.paused_until(now).is_some());
        health.on_idle(now);
        assert!(health.is_probe_next(now), "the next delivery after an idle time");
    }
}
