//! Where the claims of a destination begin to look. Entries of settled deliveries stay in the index until vacuum removes
//! them, which a long transaction prevents: a scan that begins below them visits all of them.

use std::time::Duration;

/// How late a delivery that another replica has written can become visible without a scan from the beginning: its
/// transaction has to commit. What this process has written lowers the floor when it is committed.
const LAG: Duration = Duration::from_millis(100);
/// The minimum time between two scans from the beginning: they find what has become visible later than that.
const MIN_FULL_INTERVAL: Duration = Duration::from_secs(5);
/// Scans from the beginning take at most one part in so many of the time.
const FULL_SCAN_SHARE: u32 = 20;

/// The lowest due time at which deliveries can be claimable, as far as this process knows.
#[derive(Debug, Default)]
pub(in crate::store::postgres) struct ScanFloor {
    floor: Option<i64>,
    /// The lowest due time that this process has committed since the last scan was started.
    committed: Option<i64>,
    /// When the next scan from the beginning is due, by [`since_boot`](crate::store::clock::since_boot).
    next_full: Duration,
}

/// A scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::postgres) struct Scan {
    /// The lowest due time.
    pub from: i64,
    started: Duration,
}

impl ScanFloor {
    /// Starts a scan. `now` is the time since the machine was started.
    pub(in crate::store::postgres) fn start(&mut self, now: Duration) -> Scan {
        let committed = self.committed.take().unwrap_or(i64::MAX);
        let floor = self.floor.filter(|_| now < self.next_full).map(|floor| floor.min(committed));
        Scan { from: floor.unwrap_or(i64::MIN), started: now }
    }

    /// Deliveries that are due from this time on have become visible. A scan that has started may have missed them.
    pub(in crate::store::postgres) fn lower(&mut self, due: i64) {
        self.committed = Some(self.committed.map_or(due, |lowest| lowest.min(due)));
    }

    /// The scan has ended: nothing below `rest` has been left, at the server's time `server`.
    pub(in crate::store::postgres) fn end(&mut self, scan: Scan, now: Duration, server: i64, rest: i64) {
        let lag = i64::try_from(LAG.as_nanos()).unwrap_or(i64::MAX);
        self.floor = Some(rest.min(server.saturating_sub(lag)));
        if scan.from == i64::MIN {
            let took = now.saturating_sub(scan.started);
            self.next_full = now + (took * FULL_SCAN_SHARE).max(MIN_FULL_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_scan_begins_at_what_was_left_and_not_after_what_may_become_visible_late() {
        let mut floor = ScanFloor::default();
        let scan = floor.start(seconds(1));
        assert_eq!(scan.from, i64::MIN);
        floor.end(scan, seconds(1), 10_000_000_000, i64::MAX);
        let scan = floor.start(seconds(2));
        assert_eq!(scan.from, 9_900_000_000);
        floor.end(scan, seconds(2), 11_000_000_000, 7);
        assert_eq!(floor.start(seconds(3)).from, 7);
    }

    #[test]
    fn what_this_process_commits_during_a_scan_is_found_by_the_next_one_however_long_the_commit_took() {
        let mut floor = ScanFloor::default();
        let scan = floor.start(seconds(1));
        floor.end(scan, seconds(1), 10_000_000_000, i64::MAX);
        let scan = floor.start(seconds(2));
        floor.lower(3);
        floor.lower(5);
        floor.end(scan, seconds(2), 11_000_000_000, i64::MAX);
        assert_eq!([2, 3].map(|at| floor.start(seconds(at)).from), [3, 10_900_000_000]);
    }

    #[test]
    fn a_scan_from_the_beginning_is_repeated_the_less_often_the_longer_it_takes() {
        let mut floor = ScanFloor::default();
        let scan = floor.start(seconds(1));
        floor.end(scan, seconds(1), 0, 0);
        assert_eq!([5, 6].map(|at| floor.start(seconds(at)).from), [-100_000_000, i64::MIN]);
        let scan = floor.start(seconds(6));
        floor.end(scan, seconds(7), 0, 0);
        assert_eq!([26, 27].map(|at| floor.start(seconds(at)).from), [-100_000_000, i64::MIN]);
    }
}
