//! Points in time, to the nanosecond. Nothing here reads a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970, UTC: from 1677 to 2262. Prometheus' and Alertmanager's clocks as well as
/// the store's are told in it; the zero time `0001-01-01T00:00:00Z` of Go is outside and therefore
/// never mistaken for a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(i64);

/// Why a text is no [`Time`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time: RFC 3339 between 1678 and 2262 is expected")]
pub struct NotATime(String);

impl Time {
    /// Nanoseconds since 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Milliseconds since 1970, held inside what can be told.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Reads RFC 3339 with any offset.
    pub fn parse(text: &str) -> Result<Self, NotATime> {
        let not = || NotATime(text.chars().take(40).collect());
        let stamp: jiff::Timestamp = text.parse().map_err(|_| not())?;
        i64::try_from(stamp.as_nanosecond()).map(Self).map_err(|_| not())
    }

    /// Nanoseconds since 1970.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Microseconds since 1970, never negative: what a `sequence` starts from.
    pub const fn as_micros(self) -> u64 {
        if self.0 < 0 { 0 } else { (self.0 / 1_000) as u64 }
    }

    /// Whole milliseconds since 1970.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This time and `duration` later, held inside what can be told.
    pub fn after(self, duration: Duration) -> Self {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long it is from `earlier` to this time; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same time cut to milliseconds, as events tell it: `2026-11-22T16:55:20.062Z`.
    pub fn to_millis_text(self) -> String {
        let stamp = jiff::Timestamp::from_millisecond(self.as_millis()).unwrap_or_default();
        format!("{stamp:.3}")
    }
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC with as many digits as the time has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or_default();
        write!(f, "{stamp}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alertmanagers_times_are_read_and_written_back() {
        let text = "2026-11-22T16:55:15.05042Z";
        assert_eq!(Time::parse(text).unwrap().to_string(), text);
        assert_eq!(Time::parse(text).unwrap().to_millis_text(), "2026-11-22T16:55:15.050Z");
        assert_eq!(Time::parse("2026-11-22T17:55:15+01:00"), Time::parse("2026-11-22T16:55:15Z"));
    }

    #[test]
    fn the_zero_time_is_no_time() {
        assert!(Time::parse("0001-01-01T00:00:00Z").is_err());
        assert!(Time::parse("yesterday").is_err());
    }
}
