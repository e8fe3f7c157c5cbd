//! The body of `POST /api/v2/alerts`, by which Prometheus, vmalert and Thanos Ruler send alerts to Alertmanager: an array
//! of alerts. They send each firing alert again and again, with an `endsAt` that lies a few evaluations ahead, and a
//! resolved one for 15 minutes with the time of its end.
//!
//! Fields are read, and defaults chosen, as Alertmanager does it, so that an alert is the same one on both ways.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::alertmanager::error_with_field;
use super::{ParseError, utf8};
use crate::domain::fingerprint;
use crate::domain::labels::{Labels, Text};
use crate::domain::notification::{
    Alert, Envelope, InvalidAlert, MAX_ALERT_BYTES, MAX_ALERTS, Notification, Status,
};
use crate::domain::time::Time;
use crate::json::Object;

/// How long a firing alert without `endsAt` is vouched for: the default of Alertmanager's `resolve_timeout`.
const RESOLVE_TIMEOUT: Duration = Duration::from_mins(5);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAlert<'a> {
    labels: Labels,
    #[serde(default)]
    annotations: Option<Labels>,
    #[serde(borrow, default)]
    starts_at: Option<Text<'a>>,
    #[serde(borrow, default)]
    ends_at: Option<Text<'a>>,
    #[serde(borrow, default, rename = "generatorURL")]
    generator_url: Option<Text<'a>>,
}

/// Parses a body that was received at this wall-clock time.
///
/// # Errors
/// The message contains the position: line and column from `serde_json`.
pub(super) fn parse(body: &[u8], received_at: Time) -> Result<Notification, ParseError> {
    let body = utf8(body)?;
    // Fast path: nearly every body is valid, and so small that no alert can exceed the limit.
    if body.len() <= MAX_ALERT_BYTES
        && let Ok(read) = serde_json::from_str::<Vec<Object<RawAlert<'_>>>>(body)
    {
        return notification(read, |Object(read)| alert_from_raw(read, received_at));
    }
    let read = serde_json::from_str::<Vec<&RawValue>>(body);
    let read = read.map_err(|error| {
        ParseError::Format(format!("the body is not an array of alerts as Prometheus sends it: {error}"))
    })?;
    notification(read, |raw| parse_alert(raw.get(), received_at))
}

fn notification<A>(
    read: Vec<A>,
    alert: impl Fn(A) -> Result<Alert, InvalidAlert>,
) -> Result<Notification, ParseError> {
    if read.len() > MAX_ALERTS {
        return Err(ParseError::TooManyAlerts(read.len()));
    }
    Ok(Notification {
        envelope: Envelope::default(),
        truncated_alerts: 0,
        alerts: read.into_iter().map(alert).collect(),
        sent_at: None,
    })
}

/// Parses a single alert, to find what is wrong with it.
fn parse_alert(raw: &str, received_at: Time) -> Result<Alert, InvalidAlert> {
    if raw.len() > MAX_ALERT_BYTES {
        let error = format!("the alert has {} bytes; the maximum is {MAX_ALERT_BYTES}", raw.len());
        return Err(InvalidAlert { error, ..readable_part(raw, received_at) });
    }
    let Object(read) = serde_json::from_str(raw).map_err(|error| InvalidAlert {
        error: error_with_field(raw, &error),
        ..readable_part(raw, received_at)
    })?;
    alert_from_raw(read, received_at)
}

fn alert_from_raw(read: RawAlert<'_>, received_at: Time) -> Result<Alert, InvalidAlert> {
    let labels = without_empty(read.labels);
    let fingerprint = fingerprint::from_labels(labels.iter());
    let (starts_at, ends_at) = (time(read.starts_at.as_ref()), time(read.ends_at.as_ref()));
    let invalid = |error: String| InvalidAlert {
        error,
        fingerprint: (labels.iter().len() > 0).then(|| fingerprint.clone()),
        status: ends_at.as_ref().ok().map(|ends_at| status(*ends_at, received_at)),
        starts_at: starts_at.as_ref().ok().copied().flatten(),
    };
    if labels.iter().len() == 0 {
        return Err(invalid("labels: at least one with a value is required".to_owned()));
    }
    if labels.iter().any(|(name, _)| name.is_empty()) {
        return Err(invalid("labels: a name is empty".to_owned()));
    }
    let starts_at = starts_at.as_ref().map_err(|error| invalid(format!("startsAt: {error}")))?;
    let ends_at = *ends_at.as_ref().map_err(|error| invalid(format!("endsAt: {error}")))?;
    let starts_at = starts_at.or(ends_at).unwrap_or(received_at);
    if ends_at.is_some_and(|ends_at| ends_at < starts_at) {
        return Err(invalid("endsAt: is before startsAt".to_owned()));
    }
    let status = status(ends_at, received_at);
    let (ends_at, valid_until) = match status {
        Status::Firing => (None, Some(ends_at.unwrap_or_else(|| received_at.after(RESOLVE_TIMEOUT)))),
        Status::Resolved => (ends_at, None),
    };
    Ok(Alert {
        status,
        starts_at,
        ends_at,
        valid_until,
        absence: None,
        annotations: Arc::new(read.annotations.unwrap_or_default()),
        generator_url: read.generator_url.as_ref().map_or("", Text::as_str).into(),
        fingerprint: fingerprint.as_str().into(),
        labels: Arc::new(labels),
    })
}

/// An alert has resolved if its end is not in the future. That a firing alert arrives after its own `endsAt` cannot be seen
/// here: the engine compares the end with what was said before of the same occurrence.
fn status(ends_at: Option<Time>, received_at: Time) -> Status {
    if ends_at.is_some_and(|ends_at| ends_at <= received_at) { Status::Resolved } else { Status::Firing }
}

/// Reads a time. `None` if it is missing, or Go's zero time.
fn time(text: Option<&Text<'_>>) -> Result<Option<Time>, String> {
    match text.map(Text::as_str) {
        None | Some("") => Ok(None),
        Some(text) if is_zero_time(text) => Ok(None),
        Some(text) => Time::parse(text).map(Some).map_err(|error| error.to_string()),
    }
}

/// `0001-01-01T00:00:00.000Z`, which [`Time`] cannot represent.
fn is_zero_time(text: &str) -> bool {
    let fraction = text.strip_prefix("0001-01-01T00:00:00").and_then(|rest| rest.strip_suffix('Z'));
    fraction.is_some_and(|fraction| fraction.trim_start_matches('.').bytes().all(|digit| digit == b'0'))
}

/// An empty value is no label, neither for Alertmanager nor for its fingerprint.
fn without_empty(labels: Labels) -> Labels {
    if labels.iter().all(|(_, value)| !value.is_empty()) {
        return labels;
    }
    labels.iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// What can be read of an alert of another shape.
fn readable_part(raw: &str, received_at: Time) -> InvalidAlert {
    let value: serde_json::Value = serde_json::from_str(raw).unwrap_or_default();
    let time = |field: &str| Time::parse(value.get(field)?.as_str()?).ok();
    let labels = readable_labels(raw).map(without_empty).filter(|labels| labels.iter().len() > 0);
    let ends_at = time("endsAt");
    InvalidAlert {
        error: String::new(),
        fingerprint: labels.map(|labels| fingerprint::from_labels(labels.iter())),
        // Without an end that can be read, it may fire.
        status: ends_at.map(|ends_at| status(Some(ends_at), received_at)),
        starts_at: time("startsAt"),
    }
}

/// The labels, as strictly as those of a valid alert are read: any other set would be another alert.
fn readable_labels(raw: &str) -> Option<Labels> {
    #[derive(Deserialize)]
    struct OnlyLabels<'a> {
        #[serde(borrow)]
        labels: &'a RawValue,
    }
    let Object(read) = serde_json::from_str::<Object<OnlyLabels<'_>>>(raw).ok()?;
    serde_json::from_str(read.labels.get()).ok()
}

#[cfg(test)]
mod tests;
