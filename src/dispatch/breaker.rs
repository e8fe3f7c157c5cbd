//! Circuit breaker of a destination.
//!
//! While it is closed, calls start freely. It opens when calls fail in a row: then nothing is sent for
//! a backoff that grows with each failure. A destination that fails for one event only does not open it. After the backoff it is half-open and lets one call through,
//! the probe, which carries a real delivery; no test messages are sent. The outcome of the probe alone
//! closes the breaker or opens it for a longer backoff. Pure: instants and randomness are arguments.

use tokio::time::Instant;

use super::{Class, Failure};
use crate::domain::retry::Backoff;
use crate::store::EventSeq;

/// Consecutive failures that open the breaker. A single lost connection among many calls does not.
const FAILURE_THRESHOLD: u32 = 3;

#[derive(Debug)]
pub(super) struct Breaker {
    backoff: Backoff,
    state: State,
    /// The number of state changes. Outcomes of calls that started before the last one are stale.
    generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `failures` calls have failed since the last success; those that were answered, about these events.
    Closed { failures: u32, events: [Option<EventSeq>; FAILURE_THRESHOLD as usize] },
    /// No call starts before `until`. It has opened `consecutive_opens` times without closing.
    Open { until: Instant, consecutive_opens: u32 },
    /// The probe is in flight.
    HalfOpen { consecutive_opens: u32 },
}

/// Identifies a call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(Option<u64>);

impl Ticket {
    /// For a call that bypasses the breaker and does not affect it.
    pub(super) const FORCED: Self = Self(None);
}

/// The calls that may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Any.
    All,
    /// One, the probe.
    Probe,
    /// None before this time.
    Later(Instant),
    /// None until the probe has completed.
    AfterProbe,
}

/// The state change by a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    None,
    Opened,
    /// The probe failed.
    StaysOpen,
    Closed,
}

impl State {
    /// Closed, and no call has failed since the last success.
    const CLOSED: Self = Self::Closed { failures: 0, events: [None; FAILURE_THRESHOLD as usize] };
}

impl Breaker {
    pub(super) const fn new(backoff: Backoff) -> Self {
        Self { backoff, state: State::CLOSED, generation: 0 }
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Ends the backoff: the next delivery is the probe.
    pub(super) fn end_backoff(&mut self, now: Instant) {
        if let State::Open { until, .. } = &mut self.state {
            *until = (*until).min(now);
        }
    }

    pub(super) fn admission(&self, now: Instant) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::All,
            State::Open { until, .. } if until > now => Admission::Later(until),
            State::Open { .. } => Admission::Probe,
            State::HalfOpen { .. } => Admission::AfterProbe,
        }
    }

    /// Starts a call if one is admitted.
    pub(super) fn start(&mut self, now: Instant) -> Option<Ticket> {
        match self.admission(now) {
            Admission::All => {}
            Admission::Probe => {
                let State::Open { consecutive_opens, .. } = self.state else { return None };
                self.enter(State::HalfOpen { consecutive_opens });
            }
            Admission::Later(_) | Admission::AfterProbe => return None,
        }
        Some(Ticket(Some(self.generation)))
    }

    /// The destination accepted an event, or rejected it because of its content.
    pub(super) fn on_reached(&mut self, ticket: Ticket) -> Transition {
        match self.state {
            _ if self.is_stale(ticket) => Transition::None,
            State::HalfOpen { .. } => {
                self.enter(State::CLOSED);
                Transition::Closed
            }
            // Not `enter`: the outcomes of concurrent calls stay valid.
            _ => {
                self.state = State::CLOSED;
                Transition::None
            }
        }
    }

    /// The call failed: as a whole, or by an answer that accepts no event, of which `event` is the first. Further
    /// failures of the same event do not count. A misconfiguration opens the breaker at once.
    pub(super) fn on_failure(
        &mut self,
        ticket: Ticket,
        failure: &Failure,
        event: Option<EventSeq>,
        now: Instant,
        chance: f64,
    ) -> Transition {
        match self.state {
            _ if self.is_stale(ticket) => Transition::None,
            State::Closed { events, .. } if event.is_some() && events.contains(&event) => Transition::None,
            State::Closed { failures, mut events }
                if failures + 1 < FAILURE_THRESHOLD && failure.class != Class::Misconfigured =>
            {
                events[failures as usize] = event;
                self.state = State::Closed { failures: failures + 1, events };
                Transition::None
            }
            State::Closed { .. } => {
                self.open(1, now, chance);
                Transition::Opened
            }
            State::HalfOpen { consecutive_opens } | State::Open { consecutive_opens, .. } => {
                self.open(consecutive_opens.saturating_add(1), now, chance);
                Transition::StaysOpen
            }
        }
    }

    /// The call was throttled, which does not open the breaker. A throttled probe is inconclusive: the
    /// next one follows after a backoff of the same length.
    pub(super) fn on_throttle(&mut self, ticket: Ticket, now: Instant, chance: f64) {
        if let (State::HalfOpen { consecutive_opens }, false) = (self.state, self.is_stale(ticket)) {
            self.open(consecutive_opens, now, chance);
        }
    }

    /// No call was made because each of its deliveries had expired, was superseded or was too large.
    pub(super) fn on_skipped(&mut self, ticket: Ticket, now: Instant) {
        if let (State::HalfOpen { consecutive_opens }, false) = (self.state, self.is_stale(ticket)) {
            self.enter(State::Open { until: now, consecutive_opens });
        }
    }

    fn is_stale(&self, ticket: Ticket) -> bool {
        ticket.0 != Some(self.generation)
    }

    fn open(&mut self, consecutive_opens: u32, now: Instant, chance: f64) {
        self.enter(State::Open {
            until: now + self.backoff.delay(consecutive_opens, chance),
            consecutive_opens,
        });
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn breaker() -> Breaker {
        Breaker::new(Backoff::new(seconds(4), seconds(60)).unwrap())
    }

    fn reset() -> Failure {
        Failure::transient("reset by peer")
    }

    fn denied() -> Failure {
        Failure::new(Class::Misconfigured, "AccessDenied")
    }

    #[test]
    fn consecutive_failures_open_it_and_a_success_resets_the_count() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for failures in [1, 2, 1, 2] {
            let ticket = breaker.start(now).unwrap();
            assert_eq!(breaker.on_failure(ticket, &reset(), None, now, 0.5), Transition::None);
            assert!(matches!(breaker.state, State::Closed { failures: count, .. } if count == failures));
            if failures == 2 {
                let ticket = breaker.start(now).unwrap();
                assert_eq!(breaker.on_reached(ticket), Transition::None);
            }
        }
        for _ in 0..2 {
            let ticket = breaker.start(now).unwrap();
            breaker.on_failure(ticket, &reset(), None, now, 0.5);
        }
        let ticket = breaker.start(now).unwrap();
        assert_eq!(breaker.on_failure(ticket, &reset(), None, now, 0.5), Transition::Opened);
        assert_eq!(breaker.admission(now), Admission::Later(now + seconds(2)));
    }

    #[test]
    fn answers_that_accept_no_event_open_it_unless_they_are_all_about_one_event() {
        let (mut breaker, now) = (breaker(), Instant::now());
        let mut fail = |seq| {
            let ticket = breaker.start(now).unwrap();
            breaker.on_failure(ticket, &reset(), Some(EventSeq(seq)), now, 0.5)
        };
        assert!((0..100).all(|_| fail(1) == Transition::None));
        assert_eq!(
            [fail(2), fail(1), fail(2), fail(3)],
            [Transition::None, Transition::None, Transition::None, Transition::Opened]
        );
    }

    #[test]
    fn the_next_delivery_after_an_idle_time_is_the_probe_without_a_backoff() {
        let (mut breaker, now) = (breaker(), Instant::now());
        breaker.end_backoff(now);
        assert_eq!(breaker.admission(now), Admission::All);
        let ticket = breaker.start(now).unwrap();
        breaker.on_failure(ticket, &denied(), None, now, 0.5);
        breaker.end_backoff(now);
        assert_eq!(breaker.admission(now), Admission::Probe);
        let probe = breaker.start(now).unwrap();
        breaker.end_backoff(now);
        assert_eq!(breaker.admission(now), Admission::AfterProbe);
        breaker.on_failure(probe, &denied(), None, now, 0.5);
        assert_eq!(breaker.admission(now), Admission::Later(now + seconds(4)), "the backoff still grows");
    }

    #[test]
    fn a_misconfiguration_opens_it_at_once() {
        let (mut breaker, now) = (breaker(), Instant::now());
        let ticket = breaker.start(now).unwrap();
        assert_eq!(breaker.on_failure(ticket, &denied(), None, now, 0.5), Transition::Opened);
    }

    #[test]
    fn after_the_backoff_one_probe_decides() {
        let (mut breaker, start) = (breaker(), Instant::now());
        let before = breaker.start(start).unwrap();
        let ticket = breaker.start(start).unwrap();
        breaker.on_failure(ticket, &denied(), None, start, 0.5);
        assert_eq!(breaker.start(start + seconds(1)), None);
        // The outcomes of calls that started before are stale.
        assert_eq!(breaker.on_reached(before), Transition::None);
        assert_eq!(breaker.on_failure(before, &reset(), None, start + seconds(1), 0.5), Transition::None);

        let now = start + seconds(2);
        assert_eq!(breaker.admission(now), Admission::Probe);
        let probe = breaker.start(now).unwrap();
        assert_eq!((breaker.admission(now), breaker.start(now)), (Admission::AfterProbe, None));
        assert_eq!(breaker.on_reached(before), Transition::None);
        assert_eq!(breaker.on_failure(probe, &reset(), None, now, 0.5), Transition::StaysOpen);
        assert_eq!(breaker.admission(now), Admission::Later(now + seconds(4)), "the backoff grows");

        let now = now + seconds(4);
        let probe = breaker.start(now).unwrap();
        assert_eq!(breaker.on_reached(probe), Transition::Closed);
        assert_eq!(breaker.admission(now), Admission::All);
        let ticket = breaker.start(now).unwrap();
        breaker.on_failure(ticket, &denied(), None, now, 0.5);
        assert_eq!(breaker.admission(now), Admission::Later(now + seconds(2)), "the backoff starts over");
    }

    #[test]
    fn a_skipped_or_throttled_probe_decides_nothing() {
        let (mut breaker, now) = (breaker(), Instant::now());
        let ticket = breaker.start(now).unwrap();
        breaker.on_failure(ticket, &denied(), None, now, 0.0);
        let probe = breaker.start(now).unwrap();
        breaker.on_skipped(probe, now);
        assert_eq!(breaker.admission(now), Admission::Probe);
        let probe = breaker.start(now).unwrap();
        breaker.on_throttle(probe, now, 0.5);
        assert_eq!(breaker.admission(now), Admission::Later(now + seconds(2)), "no longer than before");
    }

    #[test]
    fn throttling_does_not_open_it() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for _ in 0..100 {
            let ticket = breaker.start(now).unwrap();
            breaker.on_throttle(ticket, now, 0.5);
        }
        assert_eq!(breaker.admission(now), Admission::All);
    }

    /// A random operation. A `usize` selects one of the calls in flight.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Start,
        Elapse(u64),
        Reached(usize),
        Failed(usize, bool),
        Throttled(usize),
        Skipped(usize),
        Forced,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Start),
            2 => (0u64..100).prop_map(Step::Elapse),
            2 => any::<usize>().prop_map(Step::Reached),
            4 => any::<(usize, bool)>().prop_map(|(at, misconfigured)| Step::Failed(at, misconfigured)),
            1 => any::<usize>().prop_map(Step::Throttled),
            1 => any::<usize>().prop_map(Step::Skipped),
            1 => Just(Step::Forced),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn any_sequence_has_one_probe_at_a_time_and_no_call_during_a_backoff(steps in steps(), chance in 0.0..1.0f64) {
            let mut breaker = breaker();
            let mut now = Instant::now();
            let mut calls: Vec<Ticket> = vec![];
            for step in steps {
                let before = breaker.state;
                match step {
                    Step::Start => match breaker.start(now) {
                        Some(ticket) => calls.push(ticket),
                        None => {
                            let closed = matches!(before, State::Closed { .. });
                            prop_assert!(!closed);
                        }
                    },
                    Step::Elapse(count) => now += seconds(count),
                    Step::Forced => {
                        prop_assert_eq!(breaker.on_reached(Ticket::FORCED), Transition::None);
                        prop_assert_eq!(breaker.on_failure(Ticket::FORCED, &denied(), None, now, chance), Transition::None);
                        prop_assert_eq!(breaker.state, before);
                    }
                    _ if calls.is_empty() => {}
                    Step::Reached(at) => {
                        let ticket = calls.swap_remove(at % calls.len());
                        let closed = breaker.on_reached(ticket) == Transition::Closed;
                        prop_assert_eq!(closed, matches!(before, State::HalfOpen { .. }) && ticket.0 == Some(breaker.generation - 1));
                    }
                    Step::Failed(at, misconfigured) => {
                        let ticket = calls.swap_remove(at % calls.len());
                        breaker.on_failure(ticket, &if misconfigured { denied() } else { reset() }, None, now, chance);
                    }
                    Step::Throttled(at) => {
                        let ticket = calls.swap_remove(at % calls.len());
                        breaker.on_throttle(ticket, now, chance);
                        let closed = |state| matches!(state, State::Closed { .. });
                        prop_assert_eq!(closed(before), closed(breaker.state));
                    }
                    Step::Skipped(at) => breaker.on_skipped(calls.swap_remove(at % calls.len()), now),
                }
                // Only these can change a breaker that is not closed.
                let live = calls.iter().filter(|ticket| !breaker.is_stale(**ticket)).count();
                match breaker.state {
                    State::Closed { failures, .. } => prop_assert!(failures < FAILURE_THRESHOLD),
                    State::Open { until, .. } => {
                        prop_assert_eq!(live, 0);
                        prop_assert!(until <= now + seconds(60));
                    }
                    State::HalfOpen { .. } => prop_assert_eq!(live, 1),
                }
            }
            // Liveness: after all calls have completed and the longest backoff is over, a call may start.
            for ticket in calls {
                breaker.on_skipped(ticket, now);
            }
            prop_assert!(breaker.start(now + seconds(60)).is_some());
        }
    }
}
