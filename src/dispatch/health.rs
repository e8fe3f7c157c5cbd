//! What a destination's calls have shown, and what follows for the next ones: whether any may start
//! ([`Breaker`]), how many at the same time ([`Window`]), and a rest where one at a time is too much.
//!
//! One dead destination must not burn through its whole backlog, and one that throttles must not be
//! hammered. Pure: instants and chance are arguments.

use tokio::time::Instant;

use super::breaker::{self, Allowed, Breaker};
use super::window::{self, Mark, Window};
use super::{Class, Failure};
use crate::domain::retry::Backoff;

/// A destination's health.
#[derive(Debug)]
pub(super) struct Health {
    backoff: Backoff,
    breaker: Breaker,
    window: Window,
    /// Throttles in a row at one call at a time, and until when nothing starts because of them.
    exhausted: u32,
    rest: Option<Instant>,
}

/// Stands for a call that was let through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    call: breaker::Ticket,
    mark: Mark,
}

/// What a call found out about its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// There was no call.
    Nothing,
    /// It took something, or refused it for what it was.
    Reached,
    /// The call failed as a whole, or the destination throttles.
    Failed(Failure),
}

/// What changed for the destination as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// A call failed; others are still made.
    Stumbles,
    /// It fails; what is for it waits.
    Fails,
    /// It still does.
    StillFails,
    /// It works again.
    Works,
    /// It throttles; fewer calls are made at the same time.
    Throttles,
    /// It takes all calls again.
    Recovered,
}

impl Health {
    pub(super) fn new(backoff: Backoff, concurrency: usize) -> Self {
        let (breaker, window) = (Breaker::new(backoff), Window::new(concurrency));
        Self { backoff, breaker, window, exhausted: 0, rest: None }
    }

    /// Until when no call starts, if that is after `now`.
    pub(super) fn paused(&self, now: Instant) -> Option<Instant> {
        let rest = self.rest.filter(|&until| until > now);
        match self.breaker.allowed(now) {
            Allowed::Later(until) => rest.max(Some(until)),
            _ => rest,
        }
    }

    /// How many calls may start now beside those that run.
    pub(super) fn room(&self, running: usize, now: Instant) -> usize {
        match self.breaker.allowed(now) {
            _ if self.paused(now).is_some() => 0,
            Allowed::All => self.window.width().saturating_sub(running),
            Allowed::Probe => usize::from(running < self.window.most()),
            Allowed::Later(_) | Allowed::AfterProbe => 0,
        }
    }

    /// Whether the next call is a probe: it carries one delivery.
    pub(super) fn probes(&self, now: Instant) -> bool {
        self.breaker.allowed(now) == Allowed::Probe
    }

    /// A call starts, if one may.
    pub(super) fn start(&mut self, running: usize, now: Instant) -> Option<Ticket> {
        if self.room(running, now) == 0 {
            return None;
        }
        Some(Ticket { call: self.breaker.start(now)?, mark: self.window.mark() })
    }

    /// A call that starts whatever was heard before, and tells nothing.
    pub(super) const fn start_regardless(&self) -> Ticket {
        Ticket { call: breaker::Ticket::REGARDLESS, mark: self.window.mark() }
    }

    /// A call is back.
    pub(super) fn heard(&mut self, ticket: Ticket, heard: &Heard, now: Instant, chance: f64) -> Change {
        match heard {
            Heard::Nothing => {
                self.breaker.unused(ticket.call, now);
                Change::None
            }
            Heard::Reached => self.reached(ticket),
            Heard::Failed(failure) if failure.class == Class::Throttled => {
                self.throttled(ticket, now, chance)
            }
            Heard::Failed(failure) => match self.breaker.failed(ticket.call, failure, now, chance) {
                breaker::Change::Opened => Change::Fails,
                breaker::Change::StaysOpen => Change::StillFails,
                _ if self.breaker.allowed(now) == Allowed::All => Change::Stumbles,
                _ => Change::None,
            },
        }
    }

    fn reached(&mut self, ticket: Ticket) -> Change {
        self.exhausted = 0;
        self.rest = None;
        let width = self.window.passed(ticket.mark);
        match (self.breaker.reached(ticket.call), width) {
            (breaker::Change::Closed, _) => Change::Works,
            (_, window::Change::Full) => Change::Recovered,
            _ => Change::None,
        }
    }

    fn throttled(&mut self, ticket: Ticket, now: Instant, chance: f64) -> Change {
        self.breaker.throttled(ticket.call, now, chance);
        match self.window.throttled(ticket.mark) {
            window::Change::Narrowed => Change::Throttles,
            window::Change::Exhausted => {
                self.exhausted = self.exhausted.saturating_add(1);
                self.rest = Some(now + self.backoff.delay(self.exhausted, chance));
                // One call at a time may be all that is configured.
                if self.exhausted == 1 && self.window.most() == 1 { Change::Throttles } else { Change::None }
            }
            _ => Change::None,
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

    fn failed(class: Class) -> Heard {
        Heard::Failed(Failure::new(class, "no"))
    }

    #[test]
    fn calls_that_ran_together_open_it_once() {
        let (mut health, now) = (health(8), Instant::now());
        let tickets: Vec<_> = (0..8).map(|running| health.start(running, now).unwrap()).collect();
        assert_eq!(health.room(8, now), 0);
        let heard = failed(Class::Transient);
        let changes: Vec<_> =
            tickets.into_iter().map(|ticket| health.heard(ticket, &heard, now, 0.5)).collect();
        use Change::{Fails, None, Stumbles};
        assert_eq!(changes, [Stumbles, Stumbles, Fails, None, None, None, None, None]);
        assert_eq!(health.paused(now), Some(now + seconds(2)));

        let later = now + seconds(2);
        assert_eq!(
            (health.paused(later), health.room(3, later), health.probes(later)),
            (Option::None, 1, true)
        );
        assert_eq!(health.room(8, later), 0, "calls that hang keep their places");
        let probe = health.start(0, later).unwrap();
        assert_eq!((health.room(1, later), health.probes(later)), (0, false));
        assert_eq!(health.heard(probe, &Heard::Reached, later, 0.5), Change::Works);
        assert_eq!(health.room(0, later), 8);
    }

    #[test]
    fn a_throttle_makes_fewer_calls_and_a_rest_only_when_there_is_no_less() {
        let (mut health, now) = (health(4), Instant::now());
        let throttled = failed(Class::Throttled);
        let throttle = |health: &mut Health, now| {
            let ticket = health.start(0, now).unwrap();
            (health.heard(ticket, &throttled, now, 0.5), health.paused(now))
        };
        assert_eq!(throttle(&mut health, now), (Change::Throttles, None));
        assert_eq!(health.room(0, now), 2);
        assert_eq!(throttle(&mut health, now), (Change::None, None));
        assert_eq!(throttle(&mut health, now), (Change::None, Some(now + seconds(2))));
        let now = now + seconds(2);
        assert_eq!(throttle(&mut health, now), (Change::None, Some(now + seconds(4))));
        let now = now + seconds(4);
        assert!(!health.probes(now), "the breaker has nothing to do with it");
        let ticket = health.start(0, now).unwrap();
        assert_eq!(health.heard(ticket, &Heard::Reached, now, 0.5), Change::None);
        assert_eq!(health.room(0, now), 2);
        let changes: Vec<_> = (0..5)
            .map(|_| {
                let ticket = health.start(0, now).unwrap();
                health.heard(ticket, &Heard::Reached, now, 0.5)
            })
            .collect();
        assert_eq!(changes.iter().position(|change| *change == Change::Recovered), Some(4));
    }

    #[test]
    fn a_drain_is_not_asked_and_tells_nothing() {
        let (mut health, now) = (health(2), Instant::now());
        let ticket = health.start(0, now).unwrap();
        assert_eq!(health.heard(ticket, &failed(Class::Misconfigured), now, 0.5), Change::Fails);
        let ticket = health.start_regardless();
        assert_eq!(health.heard(ticket, &Heard::Reached, now, 0.5), Change::None);
        assert_eq!(health.paused(now), Some(now + seconds(2)));
    }
}
