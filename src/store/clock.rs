//! The store's time. It never goes back and follows steps of the wall clock slowly.
//!
//! A store knows each moment by two clocks, which a [`ClockReading`] has together: its own, and the wall clock. They
//! show the same, but for some time after a step of the wall clock, which may be hours. A store that several processes
//! share reads both from its server.
//!
//! | by the store's clock | by the wall clock |
//! | --- | --- |
//! | what waits: guards, `late_window`, the expiry of occurrences and pauses, the end of a backoff | `time` and `expirytime` of an event, and its `opened_at` |
//! | ages: `max_age` and `scale_in_max_age` of a delivery since its emission, retention | whether a delivery is past its `expirytime`, also at a redrive |
//! | `sequence`, `since` and `until` in states and controls | `at` and `until` of decision records, `at` of audit entries, when a delivery ended |
//! | `at` of stored events | queries by time: of records, audit entries and dead letters |
//! | | what is compared with the times of Prometheus, and every time that the API shows |
//! | | the clock in logs |
//!
//! A store time is compared with a time of another clock, or shown, as [`ClockReading::on_wall`]: as long ago, or as
//! far ahead, as it is by the store's clock. After the wall clock has stepped back, records have earlier stamps than
//! those before them. They stay ordered by id, and a time in a query selects records without any assumption about
//! their order.

use std::time::Duration;

use crate::domain::time::{ClockReading, Time};

/// The time since the machine was started, including the time in which it was suspended (`CLOCK_BOOTTIME`): a guard
/// that ends in an hour ends in an hour, whatever the machine does meanwhile.
pub(crate) fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // It starts at zero, so neither part is negative.
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// A monotonic clock that is slewed towards the wall clock by at most one percent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    now: Time,
    boottime: Duration,
}

impl Clock {
    /// Starts at the later of the wall clock and the last stored time. `boottime` is the current reading of
    /// [`since_boot`], or of another clock that only goes forward.
    pub(super) fn start(wall: Time, last_stored: Option<Time>, boottime: Duration) -> Self {
        Self { now: last_stored.map_or(wall, |last| last.max(wall)), boottime }
    }

    /// The current moment, given the readings of both clocks.
    pub(super) fn read(&mut self, wall: Time, boottime: Duration) -> ClockReading {
        let passed = boottime.saturating_sub(self.boottime);
        self.boottime = self.boottime.max(boottime);
        let unslewed = self.now.after(passed);
        let max_slew = i64::try_from(passed.as_nanos() / 100).unwrap_or(i64::MAX);
        let offset = wall.as_nanos().saturating_sub(unslewed.as_nanos());
        self.now = Time::from_nanos(unslewed.as_nanos().saturating_add(offset.clamp(-max_slew, max_slew)));
        ClockReading { now: self.now, wall }
    }
}

/// The difference between the clocks from which on it is reported.
const MAX_DIFFERENCE: Duration = Duration::from_secs(5);

/// Notices when the store's clock and the wall clock begin to differ, and when they agree again.
#[derive(Debug, Default)]
pub(crate) struct ClockComparison {
    differ: bool,
}

/// A change that [`ClockComparison`] has noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockChange {
    /// They differ by more than five seconds.
    Differ,
    /// They agree again.
    Agree,
}

impl ClockComparison {
    /// Compares the clocks. Returns a change once.
    pub(crate) fn compare(&mut self, reading: ClockReading) -> Option<ClockChange> {
        let differ = u128::from(reading.ahead_nanos().unsigned_abs()) > MAX_DIFFERENCE.as_nanos();
        if std::mem::replace(&mut self.differ, differ) == differ {
            return None;
        }
        Some(if differ { ClockChange::Differ } else { ClockChange::Agree })
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
        let read = clock.read(at(0), 100 * SECOND);
        assert_eq!(read, ClockReading { now: at(10_099), wall: at(0) });
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_speeds_it_up_by_a_percent() {
        let mut clock = Clock::start(at(0), None, Duration::ZERO);
        assert_eq!(clock.read(at(90_000), 100 * SECOND).now, at(101));
        assert_eq!(clock.read(at(90_000), 100 * SECOND).now, at(101), "no time passed");
    }

    #[test]
    fn a_small_difference_is_made_up_exactly() {
        let mut clock = Clock::start(at(0), None, Duration::ZERO);
        let wall = Time::from_millis(100_500);
        assert_eq!(clock.read(wall, 100 * SECOND), ClockReading::equal(wall));
    }

    /// Both clocks go on while the machine is suspended.
    #[test]
    fn the_time_in_which_the_machine_was_suspended_has_passed() {
        let mut clock = Clock::start(at(0), None, SECOND);
        assert_eq!(clock.read(at(3600), 3601 * SECOND), ClockReading::equal(at(3600)));
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_neither_guards_nor_the_order_of_times() {
        let mut clock = Clock::start(at(10_000), None, Duration::ZERO);
        for (second, wall) in [(1, 10_001), (2, 17_202), (3, 17_203), (4, 2_804), (5, 10_005)] {
            let ClockReading { now, wall: stamp } = clock.read(at(wall), second * SECOND);
            let error = now.as_nanos() - at(10_000 + i64::from(second)).as_nanos();
            assert!(error.abs() <= 50_000_000, "{error} ns after {second} s");
            assert_eq!(stamp, at(wall));
        }
    }

    #[test]
    fn a_difference_is_noticed_once_and_its_end_once() {
        let mut comparison = ClockComparison::default();
        let mut compare =
            |ahead: i64| comparison.compare(ClockReading { now: at(100 + ahead), wall: at(100) });
        assert_eq!([0, 5, -5].map(&mut compare), [None; 3]);
        assert_eq!([6, 7200, -6].map(&mut compare), [Some(ClockChange::Differ), None, None]);
        assert_eq!([-5, 0].map(&mut compare), [Some(ClockChange::Agree), None]);
    }
}
