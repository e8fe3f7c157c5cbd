//! Whether a destination is called at all.
//!
//! Closed, calls start freely. When calls fail as a whole it opens: nothing is sent for a pause that
//! grows with every failure. After the pause one call is let through, the probe, which carries a real
//! delivery: there is no message that is only a test. It alone decides: back to closed, or a longer
//! pause. Pure: instants and chance are arguments.

use tokio::time::Instant;

use super::{Class, Failure};
use crate::domain::retry::Backoff;

/// Failures in a row that open it. One lost connection among many calls is no dead destination.
const TOLERATED: u32 = 3;

/// Lets calls through or not.
#[derive(Debug)]
pub(super) struct Breaker {
    backoff: Backoff,
    state: State,
    /// Counts the changes of state. What a call found out that began before the last one is old news.
    generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many calls failed since the last success.
    Closed { failures: u32 },
    /// It opened or its probe failed so often in a row; nothing starts before `until`.
    Open { until: Instant, times: u32 },
    /// The probe is on its way.
    HalfOpen { times: u32 },
}

/// Stands for a call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(Option<u64>);

impl Ticket {
    /// For a call that is made whatever the breaker says, and that tells it nothing.
    pub(super) const REGARDLESS: Self = Self(None);
}

/// Which calls may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Any.
    All,
    /// One, the probe.
    Probe,
    /// None before this time.
    Later(Instant),
    /// None until the probe is back.
    AfterProbe,
}

/// What a call changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    /// The probe failed.
    StaysOpen,
    Closed,
}

impl Breaker {
    pub(super) const fn new(backoff: Backoff) -> Self {
        Self { backoff, state: State::Closed { failures: 0 }, generation: 0 }
    }

    pub(super) fn allowed(&self, now: Instant) -> Allowed {
        match self.state {
            State::Closed { .. } => Allowed::All,
            State::Open { until, .. } if until > now => Allowed::Later(until),
            State::Open { .. } => Allowed::Probe,
            State::HalfOpen { .. } => Allowed::AfterProbe,
        }
    }

    /// A call starts, if it may.
    pub(super) fn start(&mut self, now: Instant) -> Option<Ticket> {
        match self.allowed(now) {
            Allowed::All => {}
            Allowed::Probe => {
                let State::Open { times, .. } = self.state else { return None };
                self.enter(State::HalfOpen { times });
            }
            Allowed::Later(_) | Allowed::AfterProbe => return None,
        }
        Some(Ticket(Some(self.generation)))
    }

    /// The destination took something, or refused it for what it was.
    pub(super) fn reached(&mut self, ticket: Ticket) -> Change {
        match self.state {
            _ if self.is_old(ticket) => Change::None,
            State::HalfOpen { .. } => {
                self.enter(State::Closed { failures: 0 });
                Change::Closed
            }
            // Not a change that makes other calls' answers old.
            _ => {
                self.state = State::Closed { failures: 0 };
                Change::None
            }
        }
    }

    /// The call failed as a whole. What a person has to mend opens it at once.
    pub(super) fn failed(&mut self, ticket: Ticket, failure: &Failure, now: Instant, chance: f64) -> Change {
        match self.state {
            _ if self.is_old(ticket) => Change::None,
            State::Closed { failures }
                if failures + 1 < TOLERATED && failure.class != Class::Misconfigured =>
            {
                self.state = State::Closed { failures: failures + 1 };
                Change::None
            }
            State::Closed { .. } => {
                self.open(1, now, chance);
                Change::Opened
            }
            State::HalfOpen { times } | State::Open { times, .. } => {
                self.open(times.saturating_add(1), now, chance);
                Change::StaysOpen
            }
        }
    }

    /// The call was throttled: no reason to open. A probe has proved nothing, and the next one follows
    /// after a pause of the same length.
    pub(super) fn throttled(&mut self, ticket: Ticket, now: Instant, chance: f64) {
        if let (State::HalfOpen { times }, false) = (self.state, self.is_old(ticket)) {
            self.open(times, now, chance);
        }
    }

    /// There was no call: what it should have carried was not to be sent any more.
    pub(super) fn unused(&mut self, ticket: Ticket, now: Instant) {
        if let (State::HalfOpen { times }, false) = (self.state, self.is_old(ticket)) {
            self.enter(State::Open { until: now, times });
        }
    }

    fn is_old(&self, ticket: Ticket) -> bool {
        ticket.0 != Some(self.generation)
    }

    fn open(&mut self, times: u32, now: Instant, chance: f64) {
        self.enter(State::Open { until: now + self.backoff.delay(times, chance), times });
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
    fn a_few_failures_in_a_row_open_it_and_one_success_among_them_does_not() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for failures in [1, 2, 1, 2] {
            let ticket = breaker.start(now).unwrap();
            assert_eq!(breaker.failed(ticket, &reset(), now, 0.5), Change::None);
            assert_eq!(breaker.state, State::Closed { failures });
            if failures == 2 {
                let ticket = breaker.start(now).unwrap();
                assert_eq!(breaker.reached(ticket), Change::None);
            }
        }
        for _ in 0..2 {
            let ticket = breaker.start(now).unwrap();
            breaker.failed(ticket, &reset(), now, 0.5);
        }
        let ticket = breaker.start(now).unwrap();
        assert_eq!(breaker.failed(ticket, &reset(), now, 0.5), Change::Opened);
        assert_eq!(breaker.allowed(now), Allowed::Later(now + seconds(2)));
    }

    #[test]
    fn what_a_person_has_to_mend_opens_it_at_once() {
        let (mut breaker, now) = (breaker(), Instant::now());
        let ticket = breaker.start(now).unwrap();
        assert_eq!(breaker.failed(ticket, &denied(), now, 0.5), Change::Opened);
    }

    #[test]
    fn after_the_pause_one_probe_decides() {
        let (mut breaker, start) = (breaker(), Instant::now());
        let before = breaker.start(start).unwrap();
        let ticket = breaker.start(start).unwrap();
        breaker.failed(ticket, &denied(), start, 0.5);
        assert_eq!(breaker.start(start + seconds(1)), None);
        // Calls that began before are old news, whatever they say.
        assert_eq!(breaker.reached(before), Change::None);
        assert_eq!(breaker.failed(before, &reset(), start + seconds(1), 0.5), Change::None);

        let now = start + seconds(2);
        assert_eq!(breaker.allowed(now), Allowed::Probe);
        let probe = breaker.start(now).unwrap();
        assert_eq!((breaker.allowed(now), breaker.start(now)), (Allowed::AfterProbe, None));
        assert_eq!(breaker.reached(before), Change::None);
        assert_eq!(breaker.failed(probe, &reset(), now, 0.5), Change::StaysOpen);
        assert_eq!(breaker.allowed(now), Allowed::Later(now + seconds(4)), "the pause grows");

        let now = now + seconds(4);
        let probe = breaker.start(now).unwrap();
        assert_eq!(breaker.reached(probe), Change::Closed);
        assert_eq!(breaker.allowed(now), Allowed::All);
        let ticket = breaker.start(now).unwrap();
        breaker.failed(ticket, &denied(), now, 0.5);
        assert_eq!(breaker.allowed(now), Allowed::Later(now + seconds(2)), "it begins anew");
    }

    #[test]
    fn a_probe_that_was_not_used_or_throttled_decides_nothing() {
        let (mut breaker, now) = (breaker(), Instant::now());
        let ticket = breaker.start(now).unwrap();
        breaker.failed(ticket, &denied(), now, 0.0);
        let probe = breaker.start(now).unwrap();
        breaker.unused(probe, now);
        assert_eq!(breaker.allowed(now), Allowed::Probe);
        let probe = breaker.start(now).unwrap();
        breaker.throttled(probe, now, 0.5);
        assert_eq!(breaker.allowed(now), Allowed::Later(now + seconds(2)), "no longer than before");
    }

    #[test]
    fn a_throttle_opens_nothing() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for _ in 0..100 {
            let ticket = breaker.start(now).unwrap();
            breaker.throttled(ticket, now, 0.5);
        }
        assert_eq!(breaker.allowed(now), Allowed::All);
    }

    /// What can happen to it; the number picks one of the calls that are on their way.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Start,
        Pass(u64),
        Reached(usize),
        Failed(usize, bool),
        Throttled(usize),
        Unused(usize),
        Regardless,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Start),
            2 => (0u64..100).prop_map(Step::Pass),
            2 => any::<usize>().prop_map(Step::Reached),
            4 => any::<(usize, bool)>().prop_map(|(at, mend)| Step::Failed(at, mend)),
            1 => any::<usize>().prop_map(Step::Throttled),
            1 => any::<usize>().prop_map(Step::Unused),
            1 => Just(Step::Regardless),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn whatever_happens_one_probe_at_a_time_and_no_call_in_a_pause(steps in steps(), chance in 0.0..1.0f64) {
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
                    Step::Pass(time) => now += seconds(time),
                    Step::Regardless => {
                        prop_assert_eq!(breaker.reached(Ticket::REGARDLESS), Change::None);
                        prop_assert_eq!(breaker.failed(Ticket::REGARDLESS, &denied(), now, chance), Change::None);
                        prop_assert_eq!(breaker.state, before);
                    }
                    _ if calls.is_empty() => {}
                    Step::Reached(at) => {
                        let ticket = calls.swap_remove(at % calls.len());
                        let closed = breaker.reached(ticket) == Change::Closed;
                        prop_assert_eq!(closed, matches!(before, State::HalfOpen { .. }) && ticket.0 == Some(breaker.generation - 1));
                    }
                    Step::Failed(at, mend) => {
                        let ticket = calls.swap_remove(at % calls.len());
                        breaker.failed(ticket, &if mend { denied() } else { reset() }, now, chance);
                    }
                    Step::Throttled(at) => {
                        let ticket = calls.swap_remove(at % calls.len());
                        breaker.throttled(ticket, now, chance);
                        let closed = |state| matches!(state, State::Closed { .. });
                        prop_assert_eq!(closed(before), closed(breaker.state));
                    }
                    Step::Unused(at) => breaker.unused(calls.swap_remove(at % calls.len()), now),
                }
                // The one that can change a breaker that is not closed.
                let live = calls.iter().filter(|ticket| !breaker.is_old(**ticket)).count();
                match breaker.state {
                    State::Closed { failures } => prop_assert!(failures < TOLERATED),
                    State::Open { until, .. } => {
                        prop_assert_eq!(live, 0);
                        prop_assert!(until <= now + seconds(60));
                    }
                    State::HalfOpen { .. } => prop_assert_eq!(live, 1),
                }
            }
            // Nothing is stuck: with every call back and the longest pause over, one may start.
            for ticket in calls {
                breaker.unused(ticket, now);
            }
            prop_assert!(breaker.start(now + seconds(60)).is_some());
        }
    }
}
