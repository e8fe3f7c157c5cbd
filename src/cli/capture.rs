//! Captured notifications: files with bodies of requests, each of the kind that its format shows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::app::wall_clock;
use crate::domain::fingerprint;
use crate::domain::notification::{Notification, Status};
use crate::domain::time::Time;
use crate::kinds::Settings;
use crate::sources::SourceKind;

/// A captured notification and the bytes it was parsed from.
pub(super) struct Capture {
    pub bytes: Vec<u8>,
    pub notification: Notification,
    /// When it was received, if the meaning of the body depends on it.
    pub received_at: Option<Time>,
}

/// Reads and parses a file; `-` is standard input. Whether an alert of Prometheus has resolved depends on when it was
/// received: that is when its file was modified.
pub(super) fn read(path: &Path) -> Result<Capture, String> {
    let mut received_at = wall_clock();
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        received_at = modified(path).unwrap_or(received_at);
        std::fs::read(path)
    };
    let bytes = bytes.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let kind = SourceKind::of_body(&bytes).unwrap_or_default();
    let notification =
        kind.parse(&bytes, received_at).map_err(|error| format!("{}: {error}", path.display()))?;
    let received_at = kind.depends_on_reception().then_some(received_at);
    Ok(Capture { bytes, notification, received_at })
}

fn modified(path: &Path) -> Option<Time> {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    let since_1970 = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since_1970.as_nanos()).ok().map(Time::from_nanos)
}

/// The body of a notification about one alert, as Alertmanager writes it.
pub(super) fn body_of(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    status: Status,
    now: Time,
) -> Vec<u8> {
    let now = now.to_string();
    let ends_at = if status == Status::Resolved { now.as_str() } else { "0001-01-01T00:00:00Z" };
    let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let body = json!({
        "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": status, "receiver": "scalebridge-send",
        "groupLabels": {}, "commonLabels": labels, "commonAnnotations": annotations,
        "externalURL": "http://scalebridge-send",
        "alerts": [{
            "status": status, "labels": labels, "annotations": annotations, "startsAt": now, "endsAt": ends_at,
            "generatorURL": "", "fingerprint": fingerprint::from_labels(pairs),
        }],
    });
    body.to_string().into_bytes()
}

/// How long `send` vouches for a firing alert that it sends in Prometheus' format: it does not repeat it.
const VALIDITY: Duration = Duration::from_hours(24);

/// The body of a notification about one alert, as Prometheus writes it.
pub(super) fn prometheus_body_of(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    status: Status,
    now: Time,
) -> Vec<u8> {
    let ends_at = if status == Status::Resolved { now } else { now.after(VALIDITY) };
    let body = json!([{
        "labels": labels, "annotations": annotations, "startsAt": now.to_string(), "endsAt": ends_at.to_string(),
        "generatorURL": "",
    }]);
    body.to_string().into_bytes()
}

/// A firing alert with these labels.
pub(super) fn firing(labels: &[(String, String)]) -> Result<Capture, String> {
    let labels = labels.iter().cloned().collect();
    let bytes = body_of(&labels, &BTreeMap::new(), Status::Firing, wall_clock());
    let notification =
        SourceKind::default().parse(&bytes, wall_clock()).map_err(|error| error.to_string())?;
    Ok(Capture { bytes, notification, received_at: None })
}

/// Parses `NAME=VALUE`.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// The earliest start of an alert, and when the notification was received: about the latest start or end, if that is not
/// known.
pub(super) fn time_range(capture: &Capture) -> Option<(Time, Time)> {
    let alerts = capture.notification.alerts.iter().flatten();
    let changed_at = alerts.clone().map(|alert| match alert.status {
        Status::Firing => alert.starts_at,
        Status::Resolved => alert.ends_at.unwrap_or(alert.starts_at),
    });
    let received_at = capture.received_at.or(changed_at.max());
    alerts.map(|alert| alert.starts_at).min().zip(received_at)
}

/// The named source, or the only configured one.
pub(super) fn select_source(settings: &Settings, named: Option<&str>) -> Result<String, String> {
    let known: Vec<&str> = settings.sources.keys().map(crate::domain::name::Name::as_str).collect();
    match (named, known.as_slice()) {
        (Some(named), known) if known.contains(&named) => Ok(named.to_owned()),
        (Some(named), known) => {
            Err(format!("unknown source `{named}`; configured sources: {}", known.join(", ")))
        }
        (None, [only]) => Ok((*only).to_owned()),
        (None, known) => Err(format!(
            "several sources are configured; select one with --source {}",
            known.join(" or --source ")
        )),
    }
}
