//! Whether a destination works as a whole, and how long it is left alone if not.
//!
//! One dead destination must not burn through its whole backlog: while calls fail as a whole, one
//! after the other is tried, with growing pauses between them, and only that call's events count an
//! attempt. Pure: instants and chance are arguments.

use tokio::time::Instant;

use crate::domain::retry::Backoff;

/// What a destination's calls have shown.
#[derive(Debug)]
pub(super) struct Health {
    backoff: Backoff,
    /// Failed calls in a row, those that ran at the same time counted once.
    failures: u32,
    /// When the last of them was noted, and until when no call starts.
    pause: Option<(Instant, Instant)>,
}

/// What a call changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Fails,
    Works,
}

impl Health {
    pub(super) const fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0, pause: None }
    }

    /// A call reached its destination.
    pub(super) fn reached(&mut self) -> Change {
        let change = if self.failures == 0 { Change::None } else { Change::Works };
        self.failures = 0;
        self.pause = None;
        change
    }

    /// A call that began at `started` failed as a whole, which is known at `now`.
    pub(super) fn failed(&mut self, started: Instant, now: Instant, chance: f64) -> Change {
        // It began before the last failure was known: it says nothing new.
        if self.pause.is_some_and(|(noted, _)| started < noted) {
            return Change::None;
        }
        self.failures = self.failures.saturating_add(1);
        self.pause = Some((now, now + self.backoff.delay(self.failures, chance)));
        if self.failures == 1 { Change::Fails } else { Change::None }
    }

    /// Until when no call starts, if that is after `now`.
    pub(super) fn paused(&self, now: Instant) -> Option<Instant> {
        self.pause.map(|(_, until)| until).filter(|&until| until > now)
    }

    /// How many calls may run at the same time: one while it fails.
    pub(super) const fn width(&self, concurrency: usize) -> usize {
        if self.failures == 0 { concurrency } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn calls_that_ran_together_count_as_one_failure() {
        let start = Instant::now();
        let mut health = Health::new(Backoff::new(seconds(4), seconds(60)).unwrap());
        assert_eq!(health.width(8), 8);
        assert_eq!(health.failed(start, start + seconds(1), 0.5), Change::Fails);
        assert_eq!(health.failed(start, start + seconds(2), 0.5), Change::None);
        assert_eq!(health.paused(start + seconds(2)), Some(start + seconds(3)));
        assert_eq!(health.paused(start + seconds(3)), None);
        assert_eq!(health.width(8), 1);
        assert_eq!(health.failed(start + seconds(3), start + seconds(3), 0.5), Change::None);
        assert_eq!(health.paused(start + seconds(3)), Some(start + seconds(7)), "the pause grows");
    }

    #[test]
    fn the_first_success_ends_it() {
        let start = Instant::now();
        let mut health = Health::new(Backoff::new(seconds(4), seconds(60)).unwrap());
        assert_eq!(health.reached(), Change::None);
        health.failed(start, start, 0.9);
        assert_eq!(health.reached(), Change::Works);
        assert_eq!((health.paused(start), health.width(8)), (None, 8));
        assert_eq!(health.failed(start, start, 0.9), Change::Fails);
    }
}
