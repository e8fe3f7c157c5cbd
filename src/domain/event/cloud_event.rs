//! The encoded event, field by field. The doc comments are the descriptions in the published schema.

use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde::ser::SerializeSeq;

use super::{Adjustment, Event, EventAlert};
use crate::domain::labels::Labels;
use crate::domain::phase::Phase;
use crate::domain::rule::Limits;
use crate::domain::target::Target;
use crate::domain::time::{DisplayTime, Millis};

/// A scaling event: a CloudEvents 1.0 document in structured JSON. Fields are never renamed or retyped within
/// v1; new ones may be added.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "scalebridge event", rename = "Event", extend("$id" = "urn:scalebridge:schema:event:v1"))]
pub(super) struct CloudEvent<'a> {
    /// The version of the CloudEvents specification.
    #[schemars(extend("const" = "1.0"))]
    pub specversion: &'static str,
    /// A hash that identifies the event: duplicates of an event carry the same id, so consumers deduplicate
    /// by it.
    #[schemars(regex(pattern = "^[0-9a-f]{32}$"))]
    pub id: &'a str,
    /// `/scalebridge/` and the source of the notification.
    #[schemars(regex(pattern = "^/scalebridge/[a-z0-9][a-z0-9_-]{0,62}$"))]
    #[schemars(with = "String")]
    pub source: Arguments<'a>,
    /// The action and the version of the format.
    #[serde(rename = "type")]
    #[schemars(regex(pattern = "^io\\.scalebridge\\.(scale_out|scale_in|set_capacity|notify)\\.v1$"))]
    pub kind: &'a str,
    /// The target's key: platform/kind/account/region/cluster/namespace/name, `-` for absent parts, each part
    /// percent-encoded.
    pub subject: &'a str,
    /// The time of the emission, RFC 3339 with milliseconds.
    #[schemars(extend("format" = "date-time"))]
    #[schemars(with = "String")]
    pub time: Millis,
    /// The media type of `data`, always JSON.
    #[schemars(extend("const" = "application/json"))]
    pub datacontenttype: &'static str,
    /// The schema of `data`.
    #[schemars(extend("const" = "urn:scalebridge:schema:event-data:v1"))]
    pub dataschema: &'static str,
    /// Strictly increasing per target, even after a loss of the store: an event with a lower sequence than
    /// the last one that was carried out is out of date. A string of digits, because the value may exceed the
    /// precision of a double.
    #[schemars(regex(pattern = "^[0-9]+$"))]
    #[schemars(with = "String")]
    pub sequence: Arguments<'a>,
    /// Consumers must not act on the event after this time.
    #[schemars(extend("format" = "date-time"))]
    #[schemars(with = "String")]
    pub expirytime: Millis,
    /// W3C trace context: that of the notification's request, or one derived from the id.
    #[schemars(regex(pattern = "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"))]
    #[schemars(with = "String")]
    pub traceparent: Arguments<'a>,
    /// The requested change and its reason.
    pub data: EventData<'a>,
}

/// The requested change and its reason.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventData")]
pub(super) struct EventData<'a> {
    /// The rule that emitted the event.
    pub rule: &'a str,
    /// Whether the episode fires or has resolved.
    pub phase: Phase,
    /// The requested action.
    #[schemars(extend("enum" = ["scale_out", "scale_in", "set_capacity", "notify"]))]
    pub action: &'static str,
    /// The change of capacity; null for `notify`, which changes nothing.
    pub adjustment: Option<&'a Adjustment>,
    /// The target of the change.
    pub target: &'a Target,
    /// Bounds within which the consumer keeps capacity.
    pub limits: Limits,
    /// A human-readable summary, one line.
    pub reason: &'a str,
    /// The episode that the event belongs to.
    pub episode: Episode<'a>,
    /// All open alerts if firing; if resolved, those that closed with this decision. If the event would be
    /// too large, alerts are left out whole.
    #[schemars(with = "Vec<Alert<'static>>")]
    pub alerts: Alerts<'a>,
    /// The number of alerts before any were left out.
    pub alerts_total: usize,
    /// The notification that caused the event.
    pub notification: Notification<'a>,
    /// The rendered parameters of the rule.
    pub parameters: &'a BTreeMap<String, String>,
    /// The ids of the increases that a decrease after their episode answers, oldest first. A consumer takes back at most
    /// what it has applied for them. Empty in other events.
    #[schemars(with = "Vec<String>")]
    pub reverts: &'a [Arc<str>],
}

/// The time from the first firing alert to the last resolve, for one rule and target.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Episode")]
pub(super) struct Episode<'a> {
    /// The id of the episode.
    #[schemars(regex(pattern = "^[0-9a-f]{32}$"))]
    pub id: &'a str,
    /// The time at which the episode opened.
    #[schemars(extend("format" = "date-time"))]
    #[schemars(with = "String")]
    pub opened_at: Millis,
    /// The number of this event within its episode and phase, from 1.
    pub emission: u32,
}

/// The notification as Alertmanager describes it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Notification")]
pub(super) struct Notification<'a> {
    /// The configured source.
    pub source: &'a str,
    /// The receiver in Alertmanager's configuration.
    pub receiver: &'a str,
    /// Alertmanager's key of the group.
    pub group_key: &'a str,
    /// Alertmanager's own address.
    pub external_url: &'a str,
    /// Why Alertmanager sent it, if the notification contains a reason.
    pub reason: Option<&'a str>,
}

/// The first `count` alerts of the event.
pub(super) struct Alerts<'a> {
    pub event: &'a Event,
    pub count: usize,
}

impl Serialize for Alerts<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.count))?;
        for alert in &self.event.alerts[..self.count] {
            list.serialize_element(&Alert::new(alert, self.event.phase))?;
        }
        list.end()
    }
}

/// An alert of the episode.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Alert")]
pub(super) struct Alert<'a> {
    /// Alertmanager's hash of the labels.
    fingerprint: &'a str,
    /// Whether the alert fires or has resolved.
    status: Phase,
    /// The labels; those of the source take precedence.
    #[schemars(with = "BTreeMap<String, String>")]
    labels: &'a Labels,
    /// The latest annotations.
    #[schemars(with = "BTreeMap<String, String>")]
    annotations: &'a Labels,
    /// The start of the alert by Prometheus' clock.
    #[schemars(extend("format" = "date-time"))]
    #[schemars(with = "String")]
    starts_at: DisplayTime,
    /// The URL of the alert's expression in Prometheus.
    generator_url: &'a str,
}

impl<'a> Alert<'a> {
    pub(super) fn new(alert: &'a EventAlert, status: Phase) -> Self {
        Self {
            fingerprint: &alert.fingerprint,
            status,
            labels: &alert.labels,
            annotations: &alert.annotations,
            starts_at: DisplayTime(alert.starts_at),
            generator_url: &alert.generator_url,
        }
    }
}
