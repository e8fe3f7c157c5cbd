//! Backoff between the attempts of a delivery, and its expiry. Time and randomness are arguments.

use std::fmt;
use std::time::Duration;

use super::duration;
use super::header::EventHeader;
use super::time::{ClockReading, Time};

/// Exponential backoff with full jitter: the delay after the first attempt is at most `initial`, and this
/// maximum doubles with each further attempt up to `max`.
///
/// Full jitter spreads the retries of deliveries that failed together over the whole delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
}

/// Why two durations do not make a [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    /// `initial` is zero, so retries would have no delay.
    #[error("the initial backoff must be longer than zero")]
    Zero,
    /// `initial` is longer than `max`.
    #[error("the initial backoff must not exceed the maximum")]
    Order,
}

impl Backoff {
    /// Checks that `0 < initial <= max`.
    pub const fn new(initial: Duration, max: Duration) -> Result<Self, BackoffError> {
        if initial.is_zero() {
            Err(BackoffError::Zero)
        } else if initial.as_nanos() > max.as_nanos() {
            Err(BackoffError::Order)
        } else {
            Ok(Self { initial, max })
        }
    }

    /// The delay after `attempts` failed attempts (0 counts as 1); `jitter` is in `[0, 1)`.
    pub fn delay(&self, attempts: u32, jitter: f64) -> Duration {
        self.ceiling(attempts).mul_f64(if jitter >= 0.0 { jitter.min(1.0) } else { 0.0 })
    }

    /// The maximum delay after any number of attempts.
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// The maximum delay after `attempts` failed attempts.
    pub fn ceiling(&self, attempts: u32) -> Duration {
        let doubled = 1u32.checked_shl(attempts.saturating_sub(1));
        let delay = doubled.and_then(|factor| self.initial.checked_mul(factor));
        delay.map_or(self.max, |delay| delay.min(self.max))
    }
}

/// The ages at which deliveries to a destination are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgeLimits {
    /// The age of any delivery.
    pub max_age: Duration,
    /// The age of the delivery of an event that decreases capacity, if it is shorter.
    pub scale_in_max_age: Duration,
}

impl AgeLimits {
    /// Why a delivery has expired; `None` if it can be sent.
    pub fn expiry_reason(
        &self,
        clock: ClockReading,
        emitted_at: Time,
        event: &EventHeader,
    ) -> Option<ExpiryReason> {
        expiry_reason(clock, emitted_at, event.expirytime, self.limit_of(event))
    }

    /// The last moment at which a delivery has not expired, by the store's clock. It is another one after a step of the
    /// wall clock.
    pub fn expires_at(&self, clock: ClockReading, emitted_at: Time, event: &EventHeader) -> Time {
        clock.on_store(event.expirytime).min(emitted_at.after(self.limit_of(event)))
    }

    fn limit_of(&self, event: &EventHeader) -> Duration {
        if event.decreases_capacity() { self.scale_in_max_age.min(self.max_age) } else { self.max_age }
    }
}

/// Why a delivery has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryReason {
    /// It is older than the age limit.
    Age {
        /// The age limit.
        limit: Duration,
    },
    /// The event's `expirytime` has passed: consumers would not act on it.
    ExpiryTime {
        /// The `expirytime`.
        at: Time,
    },
}

impl fmt::Display for ExpiryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Age { limit } => {
                write!(f, "expired: not delivered within {}", duration::format(*limit))
            }
            Self::ExpiryTime { at } => write!(f, "expired: its expirytime {at} has passed"),
        }
    }
}

/// Returns why a delivery has expired: its `expirytime` has passed by the wall clock, as it has for consumers, or it
/// was emitted longer ago than `max_age` by the store's clock, as `emitted_at`. Returns `None` if it can be sent.
pub fn expiry_reason(
    clock: ClockReading,
    emitted_at: Time,
    expirytime: Time,
    max_age: Duration,
) -> Option<ExpiryReason> {
    if clock.wall > expirytime {
        Some(ExpiryReason::ExpiryTime { at: expirytime })
    } else if clock.now.since(emitted_at) > max_age {
        Some(ExpiryReason::Age { limit: max_age })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn limits_are_checked() {
        assert_eq!(Backoff::new(Duration::ZERO, seconds(1)), Err(BackoffError::Zero));
        assert_eq!(Backoff::new(seconds(2), seconds(1)), Err(BackoffError::Order));
        assert!(Backoff::new(seconds(1), seconds(1)).is_ok());
    }

    #[test]
    fn the_delay_doubles_up_to_its_limit() {
        let backoff = Backoff::new(Duration::from_millis(500), seconds(60)).unwrap();
        let ceilings: Vec<_> = (0..=9).map(|attempts| backoff.ceiling(attempts).as_millis()).collect();
        assert_eq!(ceilings, [500, 500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
        assert_eq!(backoff.delay(3, 0.25), Duration::from_millis(500));
    }

    #[test]
    fn invalid_jitter_is_no_delay() {
        let backoff = Backoff::new(seconds(1), seconds(60)).unwrap();
        assert_eq!(backoff.delay(1, f64::NAN), Duration::ZERO);
        assert_eq!(backoff.delay(1, -1.0), Duration::ZERO);
        assert_eq!(backoff.delay(1, f64::INFINITY), seconds(1));
    }

    proptest! {
        #[test]
        fn a_delay_is_within_its_ceiling_and_the_ceiling_within_the_limits(
            initial in 1u64..u64::MAX, more in 0u64..u64::MAX, attempts: u32, jitter in 0.0..1.0f64,
        ) {
            let (initial, max) = (Duration::from_nanos(initial), Duration::from_nanos(initial.saturating_add(more)));
            let backoff = Backoff::new(initial, max).unwrap();
            prop_assert!(backoff.delay(attempts, jitter) <= backoff.ceiling(attempts));
            prop_assert!((initial..=max).contains(&backoff.ceiling(attempts)));
            prop_assert!(backoff.ceiling(attempts) <= backoff.ceiling(attempts.saturating_add(1)));
        }

        #[test]
        fn more_jitter_is_a_longer_delay(attempts in 0u32..40, a in 0.0..1.0f64, b in 0.0..1.0f64) {
            let backoff = Backoff::new(Duration::from_millis(500), seconds(60)).unwrap();
            prop_assert!(backoff.delay(attempts, a.min(b)) <= backoff.delay(attempts, a.max(b)));
        }

        #[test]
        fn an_expired_delivery_stays_expired(emitted: i32, expiry: i32, age in 0u32..100_000, now: i32, later: u32) {
            let at = |second: i64| Time::from_millis(second * 1000);
            let (emitted, expiry) = (at(emitted.into()), at(expiry.into()));
            let has_expired = |now| expiry_reason(ClockReading::equal(now), emitted, expiry, seconds(age.into())).is_some();
            prop_assert!(!has_expired(at(now.into())) || has_expired(at(i64::from(now) + i64::from(later))));
        }
    }

    #[test]
    fn a_delivery_expires_when_it_is_too_old_and_not_before() {
        let at = |second: i64| Time::from_millis(second * 1000);
        let expiry = at(3600);
        let expiry_reason =
            |now, emitted, expiry, age| super::expiry_reason(ClockReading::equal(now), emitted, expiry, age);
        assert_eq!(expiry_reason(at(300), at(0), expiry, seconds(300)), None);
        let aged = expiry_reason(at(301), at(0), expiry, seconds(300)).unwrap();
        assert_eq!(aged.to_string(), "expired: not delivered within 5m");
        assert_eq!(expiry_reason(at(3600), at(0), expiry, seconds(7200)), None);
        let passed = expiry_reason(at(3601), at(0), expiry, seconds(7200)).unwrap();
        assert_eq!(passed.to_string(), "expired: its expirytime 1970-01-01T01:00:00Z has passed");
        assert_eq!(expiry_reason(at(-5), at(0), expiry, seconds(1)), None, "the clock was ahead before");
    }

    #[test]
    fn a_step_of_the_wall_clock_ends_the_validity_of_an_event_but_does_not_make_it_older() {
        let at = |second: i64| Time::from_millis(second * 1000);
        let reason = |now, wall| {
            expiry_reason(ClockReading { now: at(now), wall: at(wall) }, at(0), at(3600), seconds(300))
        };
        assert_eq!(reason(60, 60), None);
        assert_eq!(reason(60, 3_600), None, "it is not older than a minute");
        assert_eq!(reason(60, 3_601), Some(ExpiryReason::ExpiryTime { at: at(3600) }));
        assert_eq!(reason(301, -7_000), Some(ExpiryReason::Age { limit: seconds(300) }));
    }
}
