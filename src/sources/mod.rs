//! The kinds of sources: a body becomes a notification.
//!
//! Each kind is a folder of this module. Past it, nobody knows in which format an alert was received.

pub(crate) mod alertmanager;
mod foreign;
mod grafana;
mod prometheus;
pub(crate) mod sqs;

use std::time::Duration;

use foreign::Shape;

use crate::config::{self, OwnSettings, SettingsKey, SourceRow};
use crate::domain::notification::{MAX_ALERTS, Notification};
use crate::domain::time::Time;

const DAY: Duration = Duration::from_hours(24);

/// The kind of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// The webhook of Alertmanager and of what sends as it does: Mimir, Cortex, vmalert through Alertmanager.
    #[default]
    Alertmanager,
    /// The webhook contact point of Grafana's own alerting.
    Grafana,
    /// Alerts as Prometheus, vmalert and Thanos Ruler send them to Alertmanager.
    Prometheus,
    /// A queue of SQS with notifications in Alertmanager's format.
    Sqs(sqs::Settings),
}

/// Where a notification arrives over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `POST /webhook/{source}`
    Webhook,
    /// `POST /prometheus/{source}/api/v2/alerts`
    Prometheus,
}

impl config::SourceKind for SourceKind {
    const KINDS: &'static [SourceRow<Self>] = &[
        SourceRow {
            key: "alertmanager",
            default_occurrence_ttl: DAY,
            settings: OwnSettings::None(Self::Alertmanager),
        },
        SourceRow {
            key: "grafana",
            // Grafana repeats every four hours by default.
            default_occurrence_ttl: DAY,
            settings: OwnSettings::None(Self::Grafana),
        },
        SourceRow {
            key: "prometheus",
            // Alerts are sent every minute.
            default_occurrence_ttl: Duration::from_hours(1),
            settings: OwnSettings::None(Self::Prometheus),
        },
        SourceRow {
            key: "sqs",
            default_occurrence_ttl: DAY,
            settings: OwnSettings::Required(SettingsKey {
                example: "sqs: { queue_url: \"https://sqs.eu-west-1.amazonaws.com/123456789012/alerts\" }",
                schema: |generator| generator.subschema_for::<Option<sqs::schema::SourceQueue>>(),
                read: |node, diagnostics| sqs::settings::read(node, diagnostics).map(Self::Sqs),
            }),
        },
    ];

    fn no_alertmanager(key: &str) -> Option<&'static str> {
        match key {
            "grafana" => Some("is not supported for Grafana, which evaluates and sends its alerts by itself"),
            "prometheus" => {
                Some("has no effect: what sends to this source is Prometheus, without an Alertmanager")
            }
            // What arrives by a queue may come from an Alertmanager that can be reached.
            _ => None,
        }
    }

    fn is_polled(&self) -> bool {
        self.queue().is_some()
    }

    fn takes_alertmanagers_webhook(&self) -> bool {
        matches!(self, Self::Alertmanager)
    }
}

impl SourceKind {
    /// The value of `kind`.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Alertmanager => "alertmanager",
            Self::Grafana => "grafana",
            Self::Prometheus => "prometheus",
            Self::Sqs(_) => "sqs",
        }
    }

    /// The queue that the bridge polls; `None` if the source sends requests.
    pub(crate) fn queue(&self) -> Option<&sqs::Settings> {
        match self {
            Self::Sqs(settings) => Some(settings),
            Self::Alertmanager | Self::Grafana | Self::Prometheus => None,
        }
    }

    /// Whether notifications of this kind arrive at the endpoint.
    ///
    /// # Errors
    /// Where they arrive, or which kind arrives here.
    pub(crate) fn check_endpoint(&self, endpoint: Endpoint) -> Result<(), String> {
        let kind = self.key();
        match (self, endpoint) {
            (Self::Prometheus, Endpoint::Prometheus) => Ok(()),
            (Self::Prometheus, Endpoint::Webhook) => Err(format!(
                "this source is of kind {kind}, which is received at /prometheus/SOURCE/api/v2/alerts: in `alertmanagers` \
                 of Prometheus, set `path_prefix: /prometheus/SOURCE`"
            )),
            (_, Endpoint::Prometheus) => Err(format!(
                "this source is of kind {kind}: set `kind: prometheus` for it, or send its notifications to where this \
                 kind is received"
            )),
            (_, Endpoint::Webhook) => Ok(()),
        }
    }

    /// Whether the meaning of a body depends on when it was received.
    pub(crate) const fn depends_on_reception(&self) -> bool {
        matches!(self, Self::Prometheus)
    }

    /// Parses a body that was received at this wall-clock time.
    ///
    /// # Errors
    /// The body as a whole is rejected. An error in one alert makes only this alert invalid.
    pub(crate) fn parse(&self, body: &[u8], received_at: Time) -> Result<Notification, ParseError> {
        let parsed = match self {
            Self::Alertmanager => alertmanager::parse(body),
            Self::Grafana => grafana::parse(body),
            Self::Prometheus => prometheus::parse(body, received_at),
            // Its messages are notifications of Alertmanager.
            Self::Sqs(settings) => return sqs::parse(settings, body),
        };
        parsed.map_err(|error| match (error, Shape::of(body)) {
            (ParseError::Format(error), Some(shape)) if shape.kind() != self.key() => {
                ParseError::Format(format!("{error}; {}", shape.advice()))
            }
            (error, _) => error,
        })
    }

    /// The kind of a captured body, where its format tells that.
    pub(crate) fn of_body(body: &[u8]) -> Option<Self> {
        let key = Shape::of(body)?.kind();
        let row = <Self as config::SourceKind>::KINDS.iter().find(|row| row.key == key)?;
        match &row.settings {
            OwnSettings::None(kind) => Some(kind.clone()),
            OwnSettings::Required(_) => None,
        }
    }

    /// Parses a body that was received earlier, or that a person has made: as this kind, or as the kind that it has.
    ///
    /// # Errors
    /// The body as a whole is rejected.
    pub(crate) fn parse_any(&self, body: &[u8], received_at: Time) -> Result<Notification, ParseError> {
        self.parse(body, received_at).or_else(|error| match Self::of_body(body) {
            Some(kind) if kind.key() != self.key() => kind.parse(body, received_at),
            _ => Err(error),
        })
    }
}

/// JSON is UTF-8, in the fields that are ignored too.
fn utf8(body: &[u8]) -> Result<&str, ParseError> {
    std::str::from_utf8(body).map_err(|error| {
        ParseError::Format(format!("the body is not UTF-8 after its first {} bytes", error.valid_up_to()))
    })
}

/// Why a body is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    /// Not in the format of the source's kind. The text says what is wrong, and where.
    #[error("{0}")]
    Format(String),
    /// More than [`MAX_ALERTS`] alerts.
    #[error("the body has {0} alerts; the maximum is {MAX_ALERTS}; group by more labels")]
    TooManyAlerts(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceKind as _;

    #[test]
    fn the_default_is_the_first_kind_of_the_table() {
        assert_eq!(SourceKind::KINDS[0].key, SourceKind::default().key());
    }

    #[test]
    fn a_kind_without_settings_has_the_key_of_its_row() {
        for row in SourceKind::KINDS {
            if let OwnSettings::None(kind) = &row.settings {
                assert_eq!(kind.key(), row.key);
            }
        }
    }
}
