//! Durations in Prometheus' format (`90s`, `1h30m`, `7d`), as in configuration and error messages.
//!
//! A duration is a sequence of whole numbers with the units `y w d h m s ms`, each at most once and from
//! large to small; a lone `0` needs no unit.

use std::time::Duration;

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The longest duration that is accepted, a hundred years, so that adding it to a time cannot overflow.
pub const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why a text is not a valid duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of the form number, unit, number, unit.
    #[error("`{0}` is not a duration: write it as Prometheus does, for example 90s, 1h30m or 7d")]
    Form(String),
    /// A unit appears twice, or after a smaller one.
    #[error("`{0}` is not a duration: each unit may appear once, from large to small (1h30m, not 30m1h)")]
    Order(String),
    /// Longer than [`MAX_DURATION`].
    #[error("`{0}` is longer than 100 years")]
    TooLong(String),
}

/// Reads a Prometheus duration.
///
/// ```
/// use std::time::Duration;
/// use scalebridge::domain::duration;
/// assert_eq!(duration::parse("1h30m"), Ok(Duration::from_secs(5400)));
/// assert!(duration::parse("1.5h").is_err());
/// ```
pub fn parse(text: &str) -> Result<Duration, Error> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let form = || Error::Form(text.chars().take(40).collect());
    let mut rest = text;
    let mut millis: u64 = 0;
    let mut next_unit = 0;
    if rest.is_empty() {
        return Err(form());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_lowercase).count();
        let number: u64 = rest[..digits].parse().map_err(|_| form())?;
        let unit = &rest[digits..digits + letters];
        let at = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(form)?;
        if at < next_unit {
            return Err(Error::Order(text.to_owned()));
        }
        next_unit = at + 1;
        millis = number
            .checked_mul(UNITS[at].1)
            .and_then(|part| millis.checked_add(part))
            .filter(|&sum| sum <= MAX_DURATION.as_millis() as u64)
            .ok_or_else(|| Error::TooLong(text.chars().take(40).collect()))?;
        rest = &rest[digits + letters..];
    }
    Ok(Duration::from_millis(millis))
}

/// Formats a duration in Prometheus' format, with a precision of milliseconds: `1h30m`, `0s`.
pub fn format(duration: Duration) -> String {
    let mut millis = duration.as_millis() as u64;
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    // Years and weeks are accepted but never written; Prometheus writes `1w`, this function `7d`.
    for (name, size) in &UNITS[2..] {
        if millis >= *size {
            text += &format!("{}{name}", millis / size);
            millis %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_durations_are_parsed_back() {
        for text in ["0s", "1ms", "90s", "1h30m", "7d", "1d2h3m4s5ms"] {
            let read = parse(text).unwrap();
            assert_eq!(parse(&format(read)), Ok(read), "{text}");
        }
        assert_eq!(format(Duration::from_secs(90)), "1m30s");
    }

    #[test]
    fn other_notations_are_rejected() {
        for text in
            ["", "5", "1.5h", "-1s", "1 h", "5 minutes", "s", "1hm", "1H", "9999999999999999999999s", "ü"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("30m1h"), Err(Error::Order("30m1h".into())));
        assert_eq!(parse("1s1s"), Err(Error::Order("1s1s".into())));
        assert!(matches!(parse("101y"), Err(Error::TooLong(_))));
    }
}
