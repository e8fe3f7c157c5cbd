//! Parameters of operations.

use std::time::Duration;

use super::error::Error;
pub(crate) use crate::domain::actor_name::is_hidden;
use crate::domain::duration;
use crate::domain::name::Name;
use crate::domain::target_pattern::TargetPattern;
use crate::domain::time::Time;

const DEFAULT_PAGE_SIZE: usize = 100;
const MAX_PAGE_SIZE: usize = 1000;
/// Maximum length of an author and of a reason.
const MAX_TEXT_CHARS: usize = 500;

pub(super) fn name(key: &str, text: Option<&str>) -> Result<Option<Name>, Error> {
    let read = |text| Name::new(text).map_err(|error| Error::Invalid(format!("{key}: {error}")));
    text.map(read).transpose()
}

pub(super) fn pattern(text: Option<&str>) -> Result<Option<TargetPattern>, Error> {
    text.map(required_pattern).transpose()
}

pub(super) fn required_pattern(text: &str) -> Result<TargetPattern, Error> {
    TargetPattern::from_operator(text)
        .ok_or_else(|| Error::Invalid("target: invalid pattern; expected 1 to 4096 bytes".to_owned()))
}

/// Parses an RFC 3339 time, or a duration before `now`.
pub(super) fn time(key: &str, text: Option<&str>, now: Time) -> Result<Option<Time>, Error> {
    let read = |text: &str| match duration::parse(text) {
        Ok(ago) => {
            let nanos = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
            Ok(Time::from_nanos(now.as_nanos().saturating_sub(nanos)))
        }
        Err(_) => Time::parse(text).map_err(|error| {
            Error::Invalid(format!("{key}: {error}; or use a duration before now, for example 90m"))
        }),
    };
    text.map(read).transpose()
}

/// Parses a duration in Prometheus' format that is not zero.
pub(super) fn duration(key: &str, text: Option<&str>) -> Result<Option<Duration>, Error> {
    let read = |text: &str| {
        let duration = duration::parse(text).map_err(|error| Error::Invalid(format!("{key}: {error}")))?;
        match duration.is_zero() {
            true => Err(Error::Invalid(format!("{key}: must be greater than zero"))),
            false => Ok(duration),
        }
    };
    text.map(read).transpose()
}

pub(super) fn page_size(limit: Option<usize>) -> Result<usize, Error> {
    match limit.unwrap_or(DEFAULT_PAGE_SIZE) {
        limit @ 1..=MAX_PAGE_SIZE => Ok(limit),
        other => {
            Err(Error::Invalid(format!("limit: {other} is out of range; expected 1 to {MAX_PAGE_SIZE}")))
        }
    }
}

/// A text for other operators, for the log and for the audit trail.
pub(super) fn required_text(key: &str, text: &str) -> Result<String, Error> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_TEXT_CHARS || text.contains(is_hidden) {
        let expected = format!(
            "{key}: expected 1 to {MAX_TEXT_CHARS} characters without control or invisible characters"
        );
        return Err(Error::Invalid(expected));
    }
    Ok(text.to_owned())
}

/// The same for a text that can be absent; a blank one is absent.
pub(super) fn optional_text(key: &str, text: Option<&str>) -> Result<Option<String>, Error> {
    let given = text.filter(|text| !text.trim().is_empty());
    given.map(|text| required_text(key, text)).transpose()
}
