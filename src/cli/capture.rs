//! Captured notifications: files with bodies of Alertmanager's webhook requests.

use std::collections::BTreeMap;
use std::path::Path;

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
}

/// Reads and parses a file; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Capture, String> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    let bytes = bytes.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let notification =
        SourceKind::default().parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Capture { bytes, notification })
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

/// A firing alert with these labels.
pub(super) fn firing(labels: &[(String, String)]) -> Result<Capture, String> {
    let labels = labels.iter().cloned().collect();
    let bytes = body_of(&labels, &BTreeMap::new(), Status::Firing, wall_clock());
    let notification = SourceKind::default().parse(&bytes).map_err(|error| error.to_string())?;
    Ok(Capture { bytes, notification })
}

/// Parses `NAME=VALUE`.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// The earliest start of an alert, and the latest start or end, which is about when the notification was sent.
pub(super) fn time_range(notification: &Notification) -> Option<(Time, Time)> {
    let alerts = notification.alerts.iter().flatten();
    let changed_at = alerts.clone().map(|alert| match alert.status {
        Status::Firing => alert.starts_at,
        Status::Resolved => alert.ends_at.unwrap_or(alert.starts_at),
    });
    alerts.map(|alert| alert.starts_at).min().zip(changed_at.max())
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
