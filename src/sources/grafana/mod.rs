//! The body of Grafana's webhook contact point, version "1".
//!
//! It is documented with Grafana's webhook integration, and made by `receivers/webhook` of grafana/alerting. An alert has the
//! fields of Alertmanager's, since Grafana contains an Alertmanager; its fingerprint is that of all labels, also of those that
//! begin with `__` and are not in the body.
//!
//! What resolves an alert is not always evidence that its condition is over. Grafana says so in the annotation
//! [`STATE_REASON`](alertmanager::STATE_REASON), which `alertmanager` reads: the series is missing, the query failed or returned nothing, or the rule was paused, changed or deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ParseError, alertmanager, utf8};
use crate::domain::labels::Labels;
use crate::domain::notification::{Alert, Envelope, InvalidAlert, MAX_ALERTS, Notification};
use crate::json::{Object, informative};

/// The alerts of a rule whose query fails or returns nothing. The label `rulename` has the name of the rule.
const WITHOUT_DATA: [&str; 2] = ["DatasourceNoData", "DatasourceError"];

/// The annotation `value_B` has the value of the query or expression `B`.
const VALUE_PREFIX: &str = "value_";

/// More values are ignored. A rule has a few queries and expressions.
const MAX_VALUES: usize = 64;

/// Completes each error about a body of another shape.
const CUSTOM_PAYLOAD: &str = "a custom payload of the contact point replaces the notification: remove it";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    version: String,
    #[serde(borrow)]
    alerts: Vec<&'a RawValue>,
    #[serde(default, deserialize_with = "informative")]
    receiver: Option<String>,
    #[serde(default, deserialize_with = "informative")]
    group_key: Option<String>,
    #[serde(default, rename = "externalURL", deserialize_with = "informative")]
    external_url: Option<String>,
    #[serde(default)]
    truncated_alerts: Option<u64>,
}

/// What an alert has beside the fields of Alertmanager's.
#[derive(Deserialize)]
struct Measured<'a> {
    /// The values of queries and expressions by their `refId`.
    #[serde(borrow)]
    values: BTreeMap<String, &'a RawValue>,
}

/// Parses a body.
///
/// # Errors
/// The message contains the position: line and column from serde_json, or the field.
pub(super) fn parse(body: &[u8]) -> Result<Notification, ParseError> {
    let body = utf8(body)?;
    let read = serde_json::from_str::<Object<Body<'_>>>(body);
    let Object(read) = read.map_err(|error| shape_error(body, &error))?;
    if read.version != "1" {
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
            reason: None,
        },
        truncated_alerts: read.truncated_alerts.unwrap_or(0),
        alerts: read.alerts.into_iter().map(|raw| parse_alert(raw.get())).collect(),
        sent_at: None,
    })
}

fn version_error(version: &str) -> ParseError {
    let version: String = version.chars().take(40).collect();
    let hint = match version.as_str() {
        "4" => "this is the version of Alertmanager: configure `kind: alertmanager` for this source",
        _ => CUSTOM_PAYLOAD,
    };
    ParseError::Format(format!(
        "the body has version {version:?}; version \"1\" of Grafana's webhook is expected; {hint}"
    ))
}

/// Reports an unsupported version as such, and all other errors with serde_json's message, which contains
/// field, line and column.
fn shape_error(body: &str, error: &serde_json::Error) -> ParseError {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: String,
    }
    match serde_json::from_str::<Object<OnlyVersion>>(body) {
        Ok(Object(OnlyVersion { version })) if version != "1" => version_error(&version),
        _ => ParseError::Format(format!(
            "the body is not a notification of Grafana: {error}; {CUSTOM_PAYLOAD}"
        )),
    }
}

fn parse_alert(raw: &str) -> Result<Alert, InvalidAlert> {
    let mut alert = alertmanager::parse_alert(raw)?;
    // Without data, Grafana sets each value to -1. An alert that fires for want of data fires: the rule says so.
    let has_data = alertmanager::state_reason(&alert.annotations).is_none();
    if has_data && !WITHOUT_DATA.contains(&alert.labels.get("alertname")) {
        add_values(Arc::make_mut(&mut alert.annotations), raw);
    }
    Ok(alert)
}

/// Adds the values as annotations. One that the rule has wins.
fn add_values(annotations: &mut Labels, raw: &str) {
    // They may be missing, or null.
    let Ok(Object(Measured { values })) = serde_json::from_str::<Object<Measured<'_>>>(raw) else { return };
    let numbers = values.into_iter().filter(|(_, value)| value.get().parse().is_ok_and(f64::is_finite));
    let named =
        numbers.map(|(reference, value)| (format!("{VALUE_PREFIX}{reference}"), value.get().to_owned()));
    let mut all: Labels = named.take(MAX_VALUES).collect();
    all.overlay(annotations);
    *annotations = all;
}

#[cfg(test)]
mod tests;
