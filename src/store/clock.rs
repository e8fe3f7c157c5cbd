//! The store's time. It never goes back and follows steps of the wall clock slowly.

use std::time::Duration;

use crate::domain::time::Time;

/// A monotonic clock that is slewed towards the wall clock by at most one percent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    now: Time,
    monotonic: Duration,
}

impl Clock {
    /// Starts at the later of the wall clock and the last stored time. `monotonic` is the current reading of the
    /// monotonic clock, with any origin.
    pub(super) fn start(wall: Time, last_stored: Option<Time>, monotonic: Duration) -> Self {
        Self { now: last_stored.map_or(wall, |last| last.max(wall)), monotonic }
    }

    /// The current time, given the readings of both clocks.
    pub(super) fn read(&mut self, wall: Time, monotonic: Duration) -> Time {
        let passed = monotonic.saturating_sub(self.monotonic);
        self.monotonic = self.monotonic.max(monotonic);
        let unslewed = self.now.after(passed);
        let max_slew = i64::try_from(passed.as_nanos() / 100).unwrap_or(i64::MAX);
        let offset = wall.as_nanos().saturating_sub(unslewed.as_nanos());
        self.now = Time::from_nanos(unslewed.as_nanos().saturating_add(offset.clamp(-max_slew, max_slew)));
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn it_starts_no_earlier_than_what_was_stored() {
        assert_eq!(Clock::start(at(100), Some(at(500)), SECOND).now, at(500));
        assert_eq!(Clock::start(at(100), Some(at(50)), SECOND).now, at(100));
        assert_eq!(Clock::start(at(100), None, SECOND).now, at(100));
    }

    #[test]
    fn a_wall_clock_that_jumps_back_slows_it_by_a_percent() {
        let mut clock = Clock::start(at(10_000), None, Duration::ZERO);
        assert_eq!(clock.read(at(0), 100 * SECOND), at(10_099));
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_speeds_it_up_by_a_percent() {
        let mut clock = Clock::start(at(0), None, Duration::ZERO);
        assert_eq!(clock.read(at(90_000), 100 * SECOND), at(101));
        assert_eq!(clock.read(at(90_000), 100 * SECOND), at(101), "no time passed");
    }

    #[test]
    fn a_small_difference_is_made_up_exactly() {
        let mut clock = Clock::start(at(0), None, Duration::ZERO);
        let wall = Time::from_millis(100_500);
        assert_eq!(clock.read(wall, 100 * SECOND), wall);
    }
}
