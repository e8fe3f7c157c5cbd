//! Points in time with nanosecond precision. Nothing here reads a clock.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanoseconds since 1970, UTC: from 1677 to 2262. Used for the clocks of Prometheus, Alertmanager and the
/// store. Go's zero time `0001-01-01T00:00:00Z` is outside of the range and therefore rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(i64);

/// The text is not a valid [`Time`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time: RFC 3339 between 1678 and 2262 is expected")]
pub struct ParseTimeError(String);

impl Time {
    /// From nanoseconds since 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From milliseconds since 1970, saturating.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Parses RFC 3339 with any offset.
    pub fn parse(text: &str) -> Result<Self, ParseTimeError> {
        let invalid = || ParseTimeError(text.chars().take(40).collect());
        let stamp: jiff::Timestamp = text.parse().map_err(|_| invalid())?;
        i64::try_from(stamp.as_nanosecond()).map(Self).map_err(|_| invalid())
    }

    /// Nanoseconds since 1970, negative before.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Microseconds since 1970, 0 for earlier times. The lower bound of a `sequence`.
    pub const fn as_micros(self) -> u64 {
        if self.0 < 0 { 0 } else { (self.0 / 1_000) as u64 }
    }

    /// Milliseconds since 1970, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This time plus `duration`, saturating.
    pub fn after(self, duration: Duration) -> Self {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// The duration since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC, truncated to milliseconds as in events: `2026-11-22T16:55:20.062Z`.
    pub fn to_millis_string(self) -> String {
        self.millis().to_string()
    }

    /// As [`Self::to_millis_string`], but formatted lazily.
    pub const fn millis(self) -> Millis {
        Millis(self)
    }

    /// RFC 3339 with nine fractional digits, without the `Z`. Each event contains at least three times, so
    /// this avoids general formatting.
    fn to_rfc3339(self) -> Rfc3339Text {
        let (seconds, nanos) = (self.0.div_euclid(1_000_000_000), self.0.rem_euclid(1_000_000_000));
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let mut text = *b"0000-00-00T00:00:00.000000000";
        let mut put = |value: i64, from: usize, to: usize| {
            let mut rest = value;
            for at in (from..to).rev() {
                // A remainder modulo ten is a single digit.
                text[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        };
        put(year, 0, 4);
        put(month, 5, 7);
        put(day, 8, 10);
        put(second / 3600, 11, 13);
        put(second / 60 % 60, 14, 16);
        put(second % 60, 17, 19);
        put(nanos, 20, NANOS_LEN);
        Rfc3339Text { text, nanos }
    }
}

/// One moment by the store's clock and by the wall clock, which may be hours apart after a step of the wall clock.
/// `store/clock.rs` says which one is used for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The store's time. It never goes back, and every wait is measured by it.
    pub now: Time,
    /// The wall clock, which others compare with their own clocks.
    pub wall: Time,
}

impl ClockReading {
    /// The later one by the store's clock.
    pub fn later(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        a.into_iter().chain(b).max_by_key(|reading| reading.now)
    }

    /// A moment at which both clocks show the same.
    pub const fn equal(now: Time) -> Self {
        Self { now, wall: now }
    }

    /// A time by the store's clock as a time by the wall clock: as long ago, or as far ahead, from this moment.
    pub const fn on_wall(self, time: Time) -> Time {
        Time(time.0.saturating_sub(self.ahead_nanos()))
    }

    /// A time by the wall clock as a time by the store's clock; the inverse of [`Self::on_wall`].
    pub const fn on_store(self, time: Time) -> Time {
        Time(time.0.saturating_add(self.ahead_nanos()))
    }

    /// A time by the store's clock as others see it, see [`Self::on_wall`] and [`Time::to_millis_string`].
    pub fn show(self, time: Time) -> String {
        self.on_wall(time).to_millis_string()
    }

    /// The store's clock minus the wall clock, in nanoseconds.
    pub const fn ahead_nanos(self) -> i64 {
        self.now.0.saturating_sub(self.wall.0)
    }
}

/// The length of a time up to its milliseconds, and up to its nanoseconds.
const MILLIS_LEN: usize = "2026-11-22T16:55:20.062".len();
const NANOS_LEN: usize = MILLIS_LEN + 6;

struct Rfc3339Text {
    text: [u8; NANOS_LEN],
    nanos: i64,
}

impl Rfc3339Text {
    /// Writes the first `length` characters and the `Z`.
    fn write_to(&self, length: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text[..length]).map_err(|_| fmt::Error)?)?;
        f.write_str("Z")
    }
}

/// A time that is serialized as it is displayed: RFC 3339 with as many fractional digits as needed.
#[derive(Debug, Clone, Copy)]
pub struct DisplayTime(pub Time);

impl Serialize for DisplayTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DisplayTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Time::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A time truncated to milliseconds: `2026-11-22T16:55:20.062Z`.
#[derive(Debug, Clone, Copy)]
pub struct Millis(Time);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_rfc3339().write_to(MILLIS_LEN, f)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DisplayTime::deserialize(deserializer).map(|time| time.0.millis())
    }
}

/// Year, month and day from the number of days since 1970. Internally a year begins in March, so that a leap
/// day is its last day.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    // The number of days from March 1 of year 0 to 1970.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months have 153 days, starting in March and in August.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC with as many fractional digits as needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rfc3339 = self.to_rfc3339();
        let length = match rfc3339.nanos {
            0 => MILLIS_LEN - ".062".len(),
            _ => rfc3339.text.iter().rposition(|digit| *digit != b'0').map_or(NANOS_LEN, |last| last + 1),
        };
        rfc3339.write_to(length, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_time_is_written_as_rfc_3339(nanos in any::<i64>(), coarse in prop::sample::select(vec![1, 1_000, 1_000_000, 1_000_000_000])) {
            let nanos = nanos / coarse * coarse;
            let stamp = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
            prop_assert_eq!(Time::from_nanos(nanos).to_string(), stamp.to_string());
            let millis = jiff::Timestamp::from_millisecond(nanos.div_euclid(1_000_000)).unwrap();
            prop_assert_eq!(Time::from_nanos(nanos).to_millis_string(), format!("{millis:.3}"));
        }
    }

    #[test]
    fn alertmanagers_times_survive_a_round_trip() {
        let text = "2026-11-22T16:55:15.05042Z";
        assert_eq!(Time::parse(text).unwrap().to_string(), text);
        assert_eq!(Time::parse(text).unwrap().to_millis_string(), "2026-11-22T16:55:15.050Z");
        assert_eq!(Time::parse("2026-11-22T17:55:15+01:00"), Time::parse("2026-11-22T16:55:15Z"));
    }

    #[test]
    fn a_store_time_is_shown_as_long_ago_by_the_wall_clock() {
        let at = |second: i64| Time::from_millis(second * 1000);
        let behind = ClockReading { now: at(1000), wall: at(8200) };
        assert_eq!((behind.on_wall(at(940)), behind.on_wall(at(1060))), (at(8140), at(8260)));
        assert_eq!(behind.ahead_nanos(), -7_200_000_000_000);
        assert_eq!(ClockReading::equal(at(5)).on_wall(at(3)), at(3));
    }

    #[test]
    fn the_zero_time_is_rejected() {
        assert!(Time::parse("0001-01-01T00:00:00Z").is_err());
        assert!(Time::parse("yesterday").is_err());
    }
}
