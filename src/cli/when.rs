//! Times as operators write them: `1h`, `02:10`, `today`, `2026-11-29`, RFC 3339.

use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;

use crate::app::wall_clock;
use crate::domain::duration;
use crate::domain::time::Time;

/// A time as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum When {
    /// So long ago, by the bridge's clock. The text is that of the API.
    Ago(String),
    /// A time of the day.
    Clock(civil::Time),
    /// The beginning of a day; so many days before today.
    DaysAgo(i64),
    /// The beginning of this day.
    Day(civil::Date),
    /// This time.
    At(Time),
}

/// Parses a time. The error says what is accepted.
pub(super) fn parse(text: &str) -> Result<When, String> {
    if duration::parse(text).is_ok() {
        return Ok(When::Ago(text.to_owned()));
    }
    match text {
        "today" => return Ok(When::DaysAgo(0)),
        "yesterday" => return Ok(When::DaysAgo(1)),
        "now" => return Ok(When::Ago("0s".to_owned())),
        _ => {}
    }
    let is_clock = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') && text.contains(':');
    let padded = if text.find(':') == Some(1) { format!("0{text}") } else { text.to_owned() };
    if let Some(clock) = is_clock.then(|| padded.parse().ok()).flatten() {
        return Ok(When::Clock(clock));
    }
    if let (10, Ok(day)) = (text.len(), text.parse()) {
        return Ok(When::Day(day));
    }
    Time::parse(text).map(When::At).map_err(|_| {
        "expected a duration before now such as 90m, a time of the day such as 02:10, today, a day such as \
         2026-11-29, or RFC 3339"
            .to_owned()
    })
}

/// The clock and the zone by which times are read.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    now: Time,
    zone: TimeZone,
}

impl Calendar {
    /// The present, in the local zone or in UTC.
    pub(super) fn new(is_utc: bool) -> Self {
        Self { now: wall_clock(), zone: if is_utc { TimeZone::UTC } else { TimeZone::system() } }
    }

    /// The texts of the API for a range. Times of the day are the last ones that have passed; the end of a range is the
    /// first one after its beginning.
    pub(super) fn range(
        &self,
        since: Option<&When>,
        until: Option<&When>,
    ) -> (Option<String>, Option<String>) {
        let start = since.and_then(|since| self.past(since));
        let end = match (until, start) {
            (Some(When::Clock(clock)), Some(start)) => self.next(*clock, start),
            (Some(When::Ago(_)) | None, _) => None,
            (Some(until), _) => self.past(until),
        };
        let text = |when: Option<&When>, time: Option<Time>| match when {
            Some(When::Ago(text)) => Some(text.clone()),
            _ => time.map(|time| time.to_string()),
        };
        (text(since, start), text(until, end))
    }

    /// The beginning and the end of a range, whose end is now by default; `None` if a time cannot be represented.
    pub(super) fn period(&self, since: &When, until: Option<&When>) -> Option<(Time, Time)> {
        let start = self.past(since)?;
        let end = match until {
            None => self.now,
            Some(When::Clock(clock)) => self.next(*clock, start)?,
            Some(until) => self.past(until)?,
        };
        Some((start, end))
    }

    /// How long it is until a time that is to come; `None` if it has passed. A duration is one from now on.
    pub(super) fn time_until(&self, when: &When) -> Option<Duration> {
        let time = match when {
            When::Ago(text) => return duration::parse(text).ok().filter(|length| !length.is_zero()),
            When::Clock(clock) => self.next(*clock, self.now)?,
            other => self.past(other)?,
        };
        Some(time.since(self.now)).filter(|length| !length.is_zero())
    }

    fn zoned(&self, time: Time) -> jiff::Zoned {
        let stamp = jiff::Timestamp::from_nanosecond(i128::from(time.as_nanos())).unwrap_or_default();
        stamp.to_zoned(self.zone.clone())
    }

    fn on(&self, day: civil::Date, clock: civil::Time) -> Option<Time> {
        let zoned = day.to_datetime(clock).to_zoned(self.zone.clone()).ok()?;
        Some(Time::from_nanos(i64::try_from(zoned.timestamp().as_nanosecond()).ok()?))
    }

    /// The time; that of a time of the day is the last one that has passed.
    fn past(&self, when: &When) -> Option<Time> {
        let today = self.zoned(self.now).date();
        match when {
            When::Ago(text) => {
                let ago = i64::try_from(duration::parse(text).ok()?.as_nanos()).ok()?;
                Some(Time::from_nanos(self.now.as_nanos().saturating_sub(ago)))
            }
            When::Clock(clock) => match self.on(today, *clock)? {
                passed if passed <= self.now => Some(passed),
                _ => self.on(today.yesterday().ok()?, *clock),
            },
            When::DaysAgo(days) => {
                let day = today.checked_sub(jiff::Span::new().try_days(*days).ok()?).ok()?;
                self.on(day, civil::Time::midnight())
            }
            When::Day(day) => self.on(*day, civil::Time::midnight()),
            When::At(time) => Some(*time),
        }
    }

    /// The first time after `start` at which a clock shows this.
    fn next(&self, clock: civil::Time, start: Time) -> Option<Time> {
        let day = self.zoned(start).date();
        match self.on(day, clock)? {
            time if time > start => Some(time),
            _ => self.on(day.tomorrow().ok()?, clock),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 02:30 on 29 November, two hours east of UTC.
    fn calendar() -> Calendar {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        Calendar { now: Time::parse("2026-11-29T00:30:00Z").unwrap(), zone }
    }

    fn range(since: &str, until: &str) -> (Option<String>, Option<String>) {
        let read = |text: &str| (!text.is_empty()).then(|| parse(text).unwrap());
        calendar().range(read(since).as_ref(), read(until).as_ref())
    }

    #[test]
    fn a_beginning_is_in_the_past() {
        let since = |text: &str| range(text, "").0.unwrap();
        assert_eq!(since("1h"), "1h", "by the clock of the bridge");
        assert_eq!(since("02:10"), "2026-11-29T00:10:00Z");
        assert_eq!(since("2:10"), "2026-11-29T00:10:00Z");
        assert_eq!(since("23:00"), "2026-11-28T21:00:00Z", "yesterday evening");
        assert_eq!(since("today"), "2026-11-28T22:00:00Z");
        assert_eq!(since("yesterday"), "2026-11-27T22:00:00Z");
        assert_eq!(since("2026-11-28"), "2026-11-27T22:00:00Z");
        assert_eq!(since("2026-11-28T01:02:03+01:00"), "2026-11-28T00:02:03Z");
    }

    #[test]
    fn an_end_follows_its_beginning() {
        assert_eq!(range("23:00", "02:00").1.unwrap(), "2026-11-29T00:00:00Z");
        assert_eq!(range("", "23:00").1.unwrap(), "2026-11-28T21:00:00Z");
        assert_eq!(range("today", "06:00").1.unwrap(), "2026-11-29T04:00:00Z");
        assert_eq!(range("2h", "1h").1.unwrap(), "1h");
        assert_eq!(range("", ""), (None, None));
    }

    #[test]
    fn a_pause_ends_at_a_time_that_is_to_come() {
        let until = |text: &str| calendar().time_until(&parse(text).unwrap()).map(duration::format);
        assert_eq!(until("06:00").unwrap(), "3h30m");
        assert_eq!(until("02:00").unwrap(), "23h30m", "tomorrow");
        assert_eq!(until("2026-11-30").unwrap(), "21h30m");
        assert_eq!(until("90m").unwrap(), "1h30m");
        assert_eq!(until("2026-11-29T00:00:00Z"), None);
    }

    #[test]
    fn other_texts_are_rejected_with_what_is_accepted() {
        for text in ["", "tomorrow", "25:00", "2026-13-01", "12", "1:2", "02:10 "] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("02:10, today"), "{text}: {error}");
        }
    }
}
