//! The body of Alertmanager's webhook, version "4".
//!
//! The format is documented with Alertmanager's `webhook_config`. New versions of Alertmanager add fields, so
//! unknown ones are ignored.

pub(crate) mod api;

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ParseError, utf8};
use crate::domain::labels::{Labels, Text};
use crate::domain::notification::{
    Alert, Envelope, InvalidAlert, MAX_ALERT_BYTES, MAX_ALERTS, MAX_FINGERPRINT_BYTES, Notification, Status,
};
use crate::domain::time::Time;
use crate::json::{Object, informative};

/// The annotation by which Grafana says why an alert is in its state. Several reasons are separated by commas.
pub(super) const STATE_REASON: &str = "grafana_state_reason";
/// A longer reason is cut.
pub(super) const MAX_REASON_CHARS: usize = 100;

/// `A` is the representation of an alert: its fields, or its JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<A> {
    version: String,
    alerts: Vec<A>,
    #[serde(default, deserialize_with = "informative")]
    receiver: Option<String>,
    #[serde(default, deserialize_with = "informative")]
    group_key: Option<String>,
    #[serde(default, rename = "externalURL", deserialize_with = "informative")]
    external_url: Option<String>,
    #[serde(default, rename = "notification_reason", deserialize_with = "informative")]
    reason: Option<String>,
    #[serde(default)]
    truncated_alerts: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAlert<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    labels: Labels,
    #[serde(default)]
    annotations: Option<Labels>,
    #[serde(borrow, default)]
    starts_at: Option<Text<'a>>,
    #[serde(borrow, default)]
    ends_at: Option<Text<'a>>,
    #[serde(borrow, default, rename = "generatorURL")]
    generator_url: Option<Text<'a>>,
    #[serde(borrow, default)]
    fingerprint: Option<Text<'a>>,
}

/// Parses a body.
///
/// # Errors
/// The message contains the position: line and column from serde_json, or the field.
pub(super) fn parse(body: &[u8]) -> Result<Notification, ParseError> {
    let body = utf8(body)?;
    // Fast path: nearly every body is valid, and so small that no alert can exceed the limit.
    if body.len() <= MAX_ALERT_BYTES
        && let Ok(Object(read)) = serde_json::from_str::<Object<Body<Object<RawAlert<'_>>>>>(body)
    {
        return from_body(read, |Object(read)| alert_from_raw(read));
    }
    let read = serde_json::from_str::<Object<Body<&RawValue>>>(body);
    let Object(read) = read.map_err(|error| shape_error(body, &error))?;
    from_body(read, |raw| parse_alert(raw.get()))
}

fn from_body<A>(
    read: Body<A>,
    alert: impl Fn(A) -> Result<Alert, InvalidAlert>,
) -> Result<Notification, ParseError> {
    if read.version != "4" {
        return Err(version_error(&read.version));
    }
    if read.alerts.len() > MAX_ALERTS {
        return Err(ParseError::TooManyAlerts(read.alerts.len()));
    }
    Ok(Notification {
        envelope: Envelope {
            receiver: read.receiver.unwrap_or_default(),
            group_key: read.group_key.unwrap_or_default(),
            external_url: read.external_url.unwrap_or_default(),
            reason: read.reason,
        },
        truncated_alerts: read.truncated_alerts.unwrap_or(0),
        alerts: read.alerts.into_iter().map(alert).collect(),
        sent_at: None,
    })
}

fn version_error(version: &str) -> ParseError {
    let version: String = version.chars().take(40).collect();
    ParseError::Format(format!("the body has version {version:?}; Alertmanager's version \"4\" is expected"))
}

/// Reports an unsupported version as such, and all other errors with serde_json's message, which contains
/// field, line and column.
fn shape_error(body: &str, error: &serde_json::Error) -> ParseError {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: serde_json::Value,
    }
    match serde_json::from_str::<Object<OnlyVersion>>(body) {
        Ok(Object(OnlyVersion { version: serde_json::Value::String(version) })) if version != "4" => {
            version_error(&version)
        }
        _ => ParseError::Format(format!("the body is not an Alertmanager notification: {error}")),
    }
}

/// Parses a single alert, to find what is wrong with it.
pub(super) fn parse_alert(raw: &str) -> Result<Alert, InvalidAlert> {
    if raw.len() > MAX_ALERT_BYTES {
        let error = format!("the alert has {} bytes; the maximum is {MAX_ALERT_BYTES}", raw.len());
        return Err(InvalidAlert { error, ..readable_part(raw) });
    }
    let Object(read) = serde_json::from_str(raw)
        .map_err(|error| InvalidAlert { error: error_with_field(raw, &error), ..readable_part(raw) })?;
    alert_from_raw(read)
}

fn alert_from_raw(read: RawAlert<'_>) -> Result<Alert, InvalidAlert> {
    let fingerprint = read.fingerprint.as_ref().map_or("", Text::as_str);
    let starts_at = read.starts_at.as_ref().map(Text::as_str);
    let status = parse_status(&read.status);
    let invalid = |error: String| InvalidAlert {
        error,
        fingerprint: usable_fingerprint(fingerprint),
        status,
        starts_at: starts_at.and_then(|text| Time::parse(text).ok()),
    };
    if fingerprint.is_empty() {
        return Err(invalid("no fingerprint".to_owned()));
    }
    if fingerprint.len() > MAX_FINGERPRINT_BYTES {
        return Err(invalid(format!("fingerprint: more than {MAX_FINGERPRINT_BYTES} bytes")));
    }
    let Some(status) = status else {
        let other: String = read.status.chars().take(40).collect();
        return Err(invalid(format!("status: `{other}` is neither firing nor resolved")));
    };
    let time = |field: &str, text: Option<&str>| match text {
        None => Err(invalid(format!("no {field}"))),
        Some(text) => Time::parse(text).map_err(|error| invalid(format!("{field}: {error}"))),
    };
    let starts_at = time("startsAt", starts_at)?;
    let ends_at = match status {
        // Alertmanager sends the zero time, since the end is not known yet.
        Status::Firing => None,
        Status::Resolved => Some(time("endsAt", read.ends_at.as_ref().map(Text::as_str))?),
    };
    let annotations = read.annotations.unwrap_or_default();
    let absence = (status == Status::Resolved).then(|| state_reason(&annotations)).flatten();
    Ok(Alert {
        status,
        labels: Arc::new(read.labels),
        annotations: Arc::new(annotations),
        starts_at,
        ends_at,
        valid_until: None,
        absence,
        generator_url: read.generator_url.as_ref().map_or("", Text::as_str).into(),
        fingerprint: fingerprint.into(),
    })
}

/// Why Grafana says that an alert is in its state, if that is not what its query returned: what it resolves then is no
/// evidence. It sends that also by an Alertmanager.
pub(super) fn state_reason(annotations: &Labels) -> Option<Arc<str>> {
    let reason: String = annotations.get(STATE_REASON).trim().chars().take(MAX_REASON_CHARS).collect();
    (!reason.is_empty()).then(|| reason.into())
}

fn parse_status(text: &str) -> Option<Status> {
    [Status::Firing, Status::Resolved].into_iter().find(|status| status.as_str() == text)
}

/// A fingerprint that identifies an alert: a truncated one could be that of another.
fn usable_fingerprint(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= MAX_FINGERPRINT_BYTES).then(|| text.to_owned())
}

/// serde_json reports the unexpected type, but not the field; the field is found by the column.
pub(super) fn error_with_field(raw: &str, error: &serde_json::Error) -> String {
    const FIELDS: [&str; 7] =
        ["status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint"];
    let line_start =
        raw.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    let mut before = (line_start + error.column()).min(raw.len());
    while !raw.is_char_boundary(before) {
        before -= 1;
    }
    let found = |field: &&str| raw[..before].rfind(&format!("\"{field}\""));
    let field = FIELDS.iter().filter(|field| found(field).is_some()).max_by_key(|field| found(field));
    match field {
        Some(field) => format!("{field}: {error}"),
        None => error.to_string(),
    }
}

/// What can be read of an alert of another shape.
fn readable_part(raw: &str) -> InvalidAlert {
    let value: serde_json::Value = serde_json::from_str(raw).unwrap_or_default();
    let text = |field: &str| value.get(field).and_then(serde_json::Value::as_str);
    InvalidAlert {
        error: String::new(),
        fingerprint: text("fingerprint").and_then(usable_fingerprint),
        status: text("status").and_then(parse_status),
        starts_at: text("startsAt").and_then(|text| Time::parse(text).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fingerprint;

    fn captured(name: &str) -> Notification {
        let path = format!("{}/tests/fixtures/alertmanager/{name}.json", env!("CARGO_MANIFEST_DIR"));
        parse(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Parses a notification with one alert that has the given members instead of the usual ones.
    fn parse_one(members: &str) -> Result<Alert, InvalidAlert> {
        let usual = r#""status":"firing","labels":{"alertname":"X"},"startsAt":"2026-11-22T16:55:15Z","fingerprint":"f""#;
        let body = format!(
            r#"{{"version":"4","alerts":[{{{}}}]}}"#,
            if members.is_empty() { usual } else { members }
        );
        parse(body.as_bytes()).unwrap().alerts.remove(0)
    }

    fn error_of(members: &str) -> String {
        parse_one(members).unwrap_err().error
    }

    #[test]
    fn every_captured_notification_is_read() {
        for (name, alerts, truncated) in [
            ("one-firing", 1, 0),
            ("three-firing", 3, 0),
            ("three-firing-0.34-fields", 3, 0),
            ("one-resolved-three-firing", 4, 0),
            ("all-resolved", 3, 0),
            ("truncated", 2, 3),
            ("0.33.1/one-firing", 1, 0),
            ("0.33.1/one-repeated", 1, 0),
            ("0.33.1/three-firing", 3, 0),
            ("0.33.1/one-resolved-three-firing", 4, 0),
            ("0.33.1/all-resolved", 3, 0),
            ("0.33.1/truncated", 2, 3),
        ] {
            let notification = captured(name);
            assert!(notification.alerts.iter().all(Result::is_ok), "{name}");
            assert_eq!(
                (notification.alerts.len(), notification.truncated_alerts),
                (alerts, truncated),
                "{name}"
            );
        }
        for (name, reason) in [
            ("three-firing-0.34-fields", "first notification"),
            ("0.33.1/one-repeated", "repeat interval elapsed"),
            ("0.33.1/one-resolved-three-firing", "new alerts added"),
            ("0.33.1/all-resolved", "all alerts resolved"),
        ] {
            assert_eq!(captured(name).envelope.reason.as_deref(), Some(reason), "{name}");
        }
        assert_eq!(captured("three-firing").envelope.reason, None);
    }

    #[test]
    fn what_grafana_ends_without_evidence_is_an_absence_by_way_of_an_alertmanager_too() {
        let of = |status: &str, reason: &str| {
            let alert = parse_one(&format!(
                r#""status":"{status}","labels":{{"alertname":"X"}},"annotations":{{"grafana_state_reason":"{reason}"}},
                   "startsAt":"2026-11-22T16:55:15Z","endsAt":"2026-11-22T16:56:15Z","fingerprint":"f""#
            ));
            alert.unwrap().absence
        };
        assert_eq!(of("resolved", "MissingSeries").as_deref(), Some("MissingSeries"));
        assert_eq!(of("resolved", " "), None);
        assert_eq!(of("firing", "NoData"), None, "it fires");
    }

    #[test]
    fn all_fields_of_an_alert_are_read() {
        let alert = captured("all-resolved").alerts.remove(0).unwrap();
        assert_eq!(alert.status, Status::Resolved);
        assert_eq!(alert.labels.get("pod"), "web-1");
        assert_eq!(alert.annotations.get("value"), "3");
        assert_eq!(alert.starts_at.to_string(), "2026-11-22T16:55:15.05044Z");
        assert_eq!(alert.ends_at.unwrap().to_string(), "2026-11-22T16:55:55.002409Z");
        assert_eq!(&*alert.fingerprint, "8a27e5ec1094d7f3");
    }

    #[test]
    fn a_body_of_another_shape_is_rejected_with_its_position() {
        let rejected = |body: &str| parse(body.as_bytes()).unwrap_err().to_string();
        assert!(rejected("").contains("line 1 column 0"));
        assert!(rejected("{\"version\":\"4\",\n  oops}").contains("line 2 column 3"));
        assert!(rejected(r#"{"version":"4"}"#).contains("missing field `alerts`"));
        assert!(rejected(r#"{"version":"4","alerts":{}}"#).contains("expected a sequence"));
        assert!(rejected(r#"{"alerts":[]}"#).contains("missing field `version`"));
        assert!(rejected(r#"{"version":"3","alerts":[]}"#).contains("version \"3\""));
        assert!(rejected(r#"{"version":"5"}"#).contains("version \"5\""));
        for text in ["[]", "null", "7", r#"["4",[],null,null,null,null,null]"#] {
            assert!(rejected(text).contains("expected a JSON object"), "{text}");
        }
    }

    #[test]
    fn a_field_that_only_informs_may_have_any_type() {
        let body = r#"{ "version": "4", "alerts": [], "receiver": 5, "groupKey": ["a"], "externalURL": null,
            "notification_reason": { "code": 1 } }"#;
        let envelope = parse(body.as_bytes()).unwrap().envelope;
        assert_eq!([envelope.receiver, envelope.group_key, envelope.external_url], ["", "", ""]);
        assert_eq!(envelope.reason, None);
    }

    #[test]
    fn an_error_in_one_alert_says_what_and_where() {
        assert!(parse_one("").is_ok());
        assert!(
            error_of(r#""status":"pending","labels":{},"startsAt":"2026-11-22T16:55:15Z","fingerprint":"f""#)
                .contains("`pending`")
        );
        assert!(error_of(r#""status":"firing","labels":{"a":1},"fingerprint":"f""#).starts_with("labels: "));
        assert!(
            error_of(r#""status":"firing","labels":{"a":"1","a":"2"},"fingerprint":"f""#)
                .contains("`a` is given twice")
        );
        assert!(
            error_of(r#""status":"firing","labels":{},"startsAt":"2026-11-22T16:55:15Z""#)
                .contains("no fingerprint")
        );
        assert!(
            error_of(r#""status":"firing","labels":{},"startsAt":"soon","fingerprint":"f""#)
                .contains("startsAt: `soon`")
        );
        assert!(
            error_of(r#""status":"resolved","labels":{},"startsAt":"2026-11-22T16:55:15Z","endsAt":"0001-01-01T00:00:00Z","fingerprint":"f""#)
                .contains("endsAt")
        );
        let long = "x".repeat(MAX_ALERT_BYTES);
        assert!(error_of(&format!(r#""status":"{long}""#)).contains("bytes"));
    }

    #[test]
    fn an_alert_must_be_an_object() {
        let time = "2026-11-22T16:55:15Z";
        for alert in [r#""firing""#, "null", &format!(r#"["firing",{{}},{{}},"{time}","{time}","","f"]"#)] {
            let body = format!(r#"{{"version":"4","alerts":[{alert}]}}"#);
            let read = parse(body.as_bytes()).unwrap().alerts.remove(0);
            assert!(read.unwrap_err().error.contains("expected a JSON object"), "{alert}");
        }
    }

    #[test]
    fn a_notification_with_too_many_alerts_is_rejected() {
        let body = format!(r#"{{"version":"4","alerts":[{}1]}}"#, "1,".repeat(MAX_ALERTS));
        assert_eq!(parse(body.as_bytes()), Err(ParseError::TooManyAlerts(MAX_ALERTS + 1)));
    }

    #[test]
    fn an_invalid_alert_keeps_its_fingerprint() {
        let invalid = parse_one(r#""status":1,"fingerprint":"f00""#).unwrap_err();
        assert_eq!(invalid.fingerprint.as_deref(), Some("f00"));
    }

    #[test]
    fn an_empty_or_too_long_fingerprint_is_not_usable() {
        for fingerprint in [String::new(), "f".repeat(MAX_FINGERPRINT_BYTES + 1)] {
            for status in [r#""firing""#, "1"] {
                let members = format!(
                    r#""status":{status},"labels":{{}},"startsAt":"2026-11-22T16:55:15Z","fingerprint":"{fingerprint}""#
                );
                assert_eq!(parse_one(&members).unwrap_err().fingerprint, None, "{members}");
            }
        }
    }

    #[test]
    fn the_fingerprint_is_alertmanagers() {
        for alert in captured("three-firing").alerts {
            let alert = alert.unwrap();
            let labels: Vec<(&str, &str)> = alert.labels.iter().collect();
            assert_eq!(fingerprint::from_labels(labels), *alert.fingerprint);
        }
    }
}
