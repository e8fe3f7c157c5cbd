//! The `expirytime` that a redrive or a renewal has set, as it is stored with the delivery.
//!
//! Events show it in milliseconds and it is stored in nanoseconds. Those below a millisecond are the number of redrives
//! that have set it, since Step Functions and durable functions need another name for each of them. A renewal keeps the
//! number: the event is the same, and an earlier call may have arrived.

use crate::domain::time::Time;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// What a redrive stores that sets the `expirytime` to `at`.
pub(super) fn after_redrive(at: Time, before: Option<Time>) -> Time {
    with_redrives(at, redrives(before).saturating_add(1))
}

/// What a renewal stores that sets the `expirytime` to `at`.
pub(super) fn after_renewal(at: Time, before: Option<Time>) -> Time {
    with_redrives(at, redrives(before))
}

/// The number of redrives that have set the `expirytime`.
pub(super) fn redrives(expiry: Option<Time>) -> u32 {
    let below = expiry.map_or(0, |expiry| expiry.as_nanos().rem_euclid(NANOS_PER_MILLI));
    u32::try_from(below).unwrap_or(0)
}

fn with_redrives(at: Time, redrives: u32) -> Time {
    let redrives = i64::from(redrives).min(NANOS_PER_MILLI - 1);
    Time::from_nanos(at.as_nanos() - at.as_nanos().rem_euclid(NANOS_PER_MILLI) + redrives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redrives_are_counted_and_renewals_are_not() {
        let at = |nanos: i64| Time::from_nanos(1_795_366_520_062_000_000 + nanos);
        assert_eq!(redrives(None), 0);
        let renewed = after_renewal(at(999_999), None);
        assert_eq!((renewed, redrives(Some(renewed))), (at(0), 0), "shown in the same millisecond");
        let first = after_redrive(at(123_456), Some(renewed));
        assert_eq!((first, redrives(Some(first))), (at(1), 1));
        let renewed = after_renewal(at(5_000_000), Some(first));
        assert_eq!((renewed, redrives(Some(renewed))), (at(5_000_001), 1));
        assert_eq!(redrives(Some(after_redrive(at(0), Some(renewed)))), 2);
        let last = after_redrive(at(0), Some(at(999_999)));
        assert_eq!(last, at(999_999), "it does not reach the next millisecond");
    }
}
