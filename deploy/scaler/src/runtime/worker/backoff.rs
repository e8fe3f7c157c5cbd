//! How long is waited before something is tried again.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
/// Of an event of a standard queue.
const MAX_STANDARD: Duration = Duration::from_secs(300);
/// Of an event of a FIFO queue. It is shorter, since all later events of the target wait meanwhile.
const MAX_FIFO: Duration = Duration::from_secs(60);
/// Of a poll of the queue.
const MAX_POLL: Duration = Duration::from_secs(30);

/// Until an event that was received this often (at least once) is to be received again, in whole seconds. `chance` is
/// from 0 to 1.
pub(super) fn of_event(receives: u32, is_fifo: bool, chance: f64) -> Duration {
    let max = if is_fifo { MAX_FIFO } else { MAX_STANDARD };
    let seconds = exponential(receives, max).mul_f64(spread(chance)).as_secs_f64();
    Duration::from_secs((seconds.round() as u64).max(FIRST.as_secs()))
}

/// Until the queue is polled again after this many failures one after the other (at least one).
pub(super) fn of_poll(failures: u32, chance: f64) -> Duration {
    exponential(failures, MAX_POLL).mul_f64(spread(chance))
}

/// It doubles with each try.
fn exponential(tries: u32, max: Duration) -> Duration {
    let doublings = tries.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).min(max)
}

/// Between a half and the whole, so that workers do not try again all at once.
fn spread(chance: f64) -> f64 {
    0.5 + chance.clamp(0.0, 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_maximum() {
        let seconds = |is_fifo, chance| -> Vec<u64> {
            (0..=11).map(|receives| of_event(receives, is_fifo, chance).as_secs()).collect()
        };
        assert_eq!(seconds(false, 1.0), [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(seconds(false, 0.0), [1, 1, 1, 2, 4, 8, 16, 32, 64, 128, 150, 150]);
        assert_eq!(seconds(true, 1.0), [1, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
        assert_eq!(of_event(u32::MAX, false, 1.0), MAX_STANDARD);

        let polls: Vec<u64> = (1..=7).map(|failures| of_poll(failures, 1.0).as_secs()).collect();
        assert_eq!(polls, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(of_poll(1, 0.0), Duration::from_millis(500));
        assert_eq!(of_poll(u32::MAX, 7.0), MAX_POLL);
    }
}
