//! Answers of Alertmanager's API, version 2, from 0.25 on.
//!
//! Unlike a notification, an answer is not kept by anybody who would send it again: what cannot be read is counted, so that
//! nothing is concluded from what is missing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::labels::Labels;
use crate::domain::notification::{Alert, MAX_ALERT_BYTES, MAX_ALERTS, MAX_FINGERPRINT_BYTES, Status};
use crate::domain::reported::{
    MAX_COMMENT_CHARS, MAX_NAME_CHARS, ReportedAlert, ReportedState, Silence, SuppressedBy,
};
use crate::domain::time::Time;
use crate::json::{Object, informative};

/// Why an answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// Another shape.
    #[error("the answer is not that of Alertmanager's API: {0}")]
    Shape(String),
    /// Too many alerts.
    #[error("the answer has {0} alerts; the maximum is {MAX_ALERTS}")]
    TooManyAlerts(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAlert<'a> {
    labels: Labels,
    #[serde(default)]
    annotations: Option<Labels>,
    #[serde(borrow)]
    starts_at: Cow<'a, str>,
    #[serde(borrow)]
    fingerprint: Cow<'a, str>,
    #[serde(borrow)]
    receivers: Vec<RawReceiver<'a>>,
    #[serde(borrow)]
    status: RawStatus<'a>,
    #[serde(default, rename = "generatorURL", deserialize_with = "informative")]
    generator_url: Option<String>,
}

#[derive(Deserialize)]
struct RawReceiver<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawStatus<'a> {
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(default)]
    silenced_by: Vec<Arc<str>>,
    #[serde(default)]
    inhibited_by: Vec<Arc<str>>,
    /// Since 0.28.
    #[serde(default)]
    muted_by: Vec<Arc<str>>,
}

/// Reads the answer to `GET /api/v2/alerts`: the alerts, and the number of those that cannot be read.
///
/// # Errors
/// The answer as a whole cannot be used.
pub(crate) fn alerts(body: &[u8]) -> Result<(Vec<ReportedAlert>, usize), ApiError> {
    let raw: Vec<&RawValue> = serde_json::from_slice(body).map_err(shape)?;
    if raw.len() > MAX_ALERTS {
        return Err(ApiError::TooManyAlerts(raw.len()));
    }
    let all = raw.len();
    let read: Vec<ReportedAlert> = raw.into_iter().filter_map(|raw| alert(raw.get())).collect();
    let unreadable = all - read.len();
    Ok((read, unreadable))
}

fn alert(raw: &str) -> Option<ReportedAlert> {
    if raw.len() > MAX_ALERT_BYTES {
        return None;
    }
    let Object(read) = serde_json::from_str::<Object<RawAlert<'_>>>(raw).ok()?;
    if read.fingerprint.is_empty() || read.fingerprint.len() > MAX_FINGERPRINT_BYTES {
        return None;
    }
    let RawStatus { state, silenced_by, inhibited_by, muted_by } = read.status;
    let silences = silenced_by.into_iter().map(SuppressedBy::Silence);
    let inhibitions = inhibited_by.into_iter().map(SuppressedBy::Inhibition);
    let intervals = muted_by.into_iter().map(SuppressedBy::TimeInterval);
    let suppressed_by: Vec<SuppressedBy> = silences.chain(inhibitions).chain(intervals).collect();
    Some(ReportedAlert {
        alert: Alert {
            status: Status::Firing,
            labels: Arc::new(read.labels),
            annotations: Arc::new(read.annotations.unwrap_or_default()),
            starts_at: Time::parse(&read.starts_at).ok()?,
            ends_at: None,
            valid_until: None,
            absence: None,
            generator_url: read.generator_url.unwrap_or_default().into(),
            fingerprint: (*read.fingerprint).into(),
        },
        receivers: read.receivers.into_iter().map(|receiver| (*receiver.name).into()).collect(),
        state: match &*state {
            "active" if suppressed_by.is_empty() => ReportedState::Active,
            "active" | "suppressed" => ReportedState::Suppressed,
            _ => ReportedState::Undecided,
        },
        suppressed_by,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSilence {
    id: Arc<str>,
    ends_at: String,
    #[serde(default, deserialize_with = "informative")]
    created_by: Option<String>,
    #[serde(default, deserialize_with = "informative")]
    comment: Option<String>,
}

/// Reads the silences that `is_wanted` of the answer to `GET /api/v2/silences`. They only inform.
///
/// # Errors
/// The answer as a whole cannot be used.
pub(crate) fn silences(
    body: &[u8],
    is_wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<Arc<str>, Silence>, ApiError> {
    let raw: Vec<&RawValue> = serde_json::from_slice(body).map_err(shape)?;
    let read = raw.into_iter().filter_map(|raw| {
        let Object(raw) = serde_json::from_str::<Object<RawSilence>>(raw.get()).ok()?;
        let cut = |text: Option<String>, max| text.unwrap_or_default().chars().take(max).collect();
        let ends_at = Time::parse(&raw.ends_at).ok()?;
        let created_by = cut(raw.created_by, MAX_NAME_CHARS);
        let comment = cut(raw.comment, MAX_COMMENT_CHARS);
        is_wanted(&raw.id).then_some((raw.id, Silence { created_by, comment, ends_at }))
    });
    Ok(read.collect())
}

/// Reads when Alertmanager was started from the answer to `GET /api/v2/status`.
///
/// # Errors
/// The answer cannot be used.
pub(crate) fn started_at(body: &[u8]) -> Result<Time, ApiError> {
    #[derive(Deserialize)]
    struct RawStatus {
        uptime: String,
    }
    let Object(status) = serde_json::from_slice::<Object<RawStatus>>(body).map_err(shape)?;
    Time::parse(&status.uptime).map_err(|error| ApiError::Shape(format!("uptime: {error}")))
}

/// The message of serde_json has the position, and nothing of the answer but the name of a field.
fn shape(error: serde_json::Error) -> ApiError {
    ApiError::Shape(error.to_string().chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/alertmanager/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    }

    #[test]
    fn answers_of_old_and_new_alertmanagers_are_read() {
        for version in ["0.25.0", "0.33.1"] {
            let (alerts, unreadable) = alerts(&captured(&format!("{version}/api-alerts"))).unwrap();
            assert_eq!((alerts.len(), unreadable), (4, 0), "{version}");
            let named =
                |name: &str| alerts.iter().find(|it| it.alert.labels.get("alertname") == name).unwrap();
            let (sender, inhibited, silenced) = (named("S"), named("T"), named("X"));
            let states = [sender, inhibited, silenced].map(|alert| alert.state);
            use ReportedState::{Active, Suppressed};
            assert_eq!(states, [Active, Suppressed, Suppressed], "{version}");
            let source = SuppressedBy::Inhibition(sender.alert.fingerprint.clone());
            assert_eq!(inhibited.suppressed_by, [source], "{version}");
            let [SuppressedBy::Silence(id)] = &silenced.suppressed_by[..] else { panic!("{silenced:?}") };
            assert_eq!(sender.receivers, ["sb".into()], "{version}");
            let silences = silences(&captured(&format!("{version}/api-silences")), |_| true).unwrap();
            let silence = &silences[id];
            assert_eq!((&*silence.created_by, &*silence.comment), ("alice", "maint"), "{version}");
            assert_eq!(silence.ends_at, Time::parse("2026-12-30T00:00:00Z").unwrap());
            assert!(started_at(&captured(&format!("{version}/api-status"))).is_ok(), "{version}");
        }
    }

    fn one(members: &str) -> (usize, usize) {
        let (read, unreadable) = alerts(format!("[{{{members}}}]").as_bytes()).unwrap();
        (read.len(), unreadable)
    }

    #[test]
    fn an_alert_of_another_shape_is_counted() {
        let alert = |time: &str, fingerprint: &str, status: &str| {
            format!(
                r#""labels":{{"a":"b"}},"startsAt":"{time}","fingerprint":"{fingerprint}","receivers":[],"status":{status}"#
            )
        };
        let (time, status) = ("2026-11-30T20:53:49.279Z", r#"{"state":"active"}"#);
        assert_eq!(one(&alert(time, "f", status)), (1, 0));
        for wrong in [
            alert("soon", "f", status),
            alert(time, "", status),
            alert(time, &"f".repeat(MAX_FINGERPRINT_BYTES + 1), status),
            alert(time, "f", "{}"),
            alert(time, "f", "7"),
            alert(time, "f", status).replace(r#""b""#, "7"),
            alert(time, "f", status).replace("receivers", "received"),
            alert(time, "f", status) + &format!(r#","x":"{}""#, "x".repeat(MAX_ALERT_BYTES)),
        ] {
            assert_eq!(one(&wrong), (0, 1), "{wrong}");
        }
    }

    #[test]
    fn an_answer_of_another_shape_is_an_error_that_does_not_repeat_it() {
        for body in
            ["", "{}", "null", "[", "<html>secret</html>", r#"{"status":"success","data":["secret"]}"#]
        {
            let errors = [
                alerts(body.as_bytes()).unwrap_err(),
                silences(body.as_bytes(), |_| true).unwrap_err(),
                started_at(body.as_bytes()).unwrap_err(),
            ];
            for error in errors {
                let error = error.to_string();
                assert!(
                    error.starts_with("the answer is not") && !error.contains("secret"),
                    "{body}: {error}"
                );
            }
        }
        let many = format!("[{}1]", "1,".repeat(MAX_ALERTS));
        assert_eq!(alerts(many.as_bytes()), Err(ApiError::TooManyAlerts(MAX_ALERTS + 1)));
    }

    #[test]
    fn texts_of_silences_are_cut() {
        let long = "ü".repeat(MAX_COMMENT_CHARS + 1);
        let body = format!(
            r#"[{{"id":"a","endsAt":"2026-12-30T00:00:00Z","createdBy":"{long}","comment":"{long}"}},{{"id":"b"}}]"#
        );
        let read = silences(body.as_bytes(), |_| true).unwrap();
        let chars = |text: &str| text.chars().count();
        assert_eq!(
            (chars(&read["a"].created_by), chars(&read["a"].comment)),
            (MAX_NAME_CHARS, MAX_COMMENT_CHARS)
        );
        assert_eq!(read.len(), 1);
        assert!(silences(body.as_bytes(), |id| id == "b").unwrap().is_empty());
    }
}
