//! Captured notifications: files with bodies of Alertmanager's webhook requests.

use std::path::Path;

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
