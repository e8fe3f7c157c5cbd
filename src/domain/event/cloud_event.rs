//! The document that consumers get, field by field. What is said of a field here is what the published schema
//! says of it.

use std::collections::BTreeMap;
use std::fmt::Arguments;

use schemars::JsonSchema;
use serde::Serialize;
use serde::ser::SerializeSeq;

use super::{Adjustment, Event, EventAlert};
use crate::domain::labels::Labels;
use crate::domain::phase::Phase;
use crate::domain::rule::Limits;
use crate::domain::target::Target;
use crate::domain::time::{DisplayTime, Millis};

/// A scaling event: a CloudEvents 1.0 document in structured JSON. A field is never renamed or retyped within
/// v1; new ones may come.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "scalebridge event", rename = "Event", extend("$id" = "urn:scalebridge:schema:event:v1"))]
pub(super) struct CloudEvent<'a> {
    /// The version of CloudEvents.
    #[schemars(extend("const" = "1.0"))]
    pub specversion: &'static str,
    /// A hash of what the event is about: the same event always has the same id, so it is what to deduplicate by.
    #[schemars(regex(pattern = "^[0-9a-f]{32}$"))]
    pub id: &'a str,
    /// `/scalebridge/` and the source of the notification.
    #[schemars(regex(pattern = "^/scalebridge/[a-z0-9][a-z0-9_-]{0,62}$"))]
    #[schemars(with = "String")]
    pub source: Arguments<'a>,
    /// The action, with the version of the format.
    #[serde(rename = "type")]
    #[schemars(regex(pattern = "^io\\.scalebridge\\.(scale_out|scale_in|set_capacity|notify)\\.v1$"))]
    pub kind: &'a str,
    /// The target's key: platform/kind/account/region/cluster/namespace/name, `-` for what is absent, each part
    /// percent-encoded.
    pub subject: &'a str,
    /// When it was emitted, RFC 3339 with milliseconds.
    #[schemars(extend("format" = "date-time"))]
    #[schemars(with = "String")]
    pub time: Millis,
    /// Always JSON.
    #[schemars(extend("const" = "application/json"))]
    pub datacontenttype: &'static str,
    /// The schema of `data`.
    #[schemars(extend("const" = "urn:scalebridge:schema:event-data:v1"))]
    pub dataschema: &'static str,
    /// Rises strictly for each target, also over the loss of the store: an event with a lower one than the last
    /// that was carried out is out of date. Digits, since it may have more than a double can hold.
    #[schemars(regex(pattern = "^[0-9]+$"))]
    #[schemars(with = "String")]
    pub sequence: Arguments<'a>,
    /// A consumer does not act on the event after this time.
    #[schemars(extend("format" = "date-time"))]
    #[schemars(with = "String")]
    pub expirytime: Millis,
    /// W3C's trace context: the notification's, or one made from the id.
    #[schemars(regex(pattern = "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"))]
    #[schemars(with = "String")]
    pub traceparent: Arguments<'a>,
    /// What is to be done, and why.
    pub data: EventData<'a>,
}

/// What is to be done, and why.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventData")]
pub(super) struct EventData<'a> {
    /// The rule that emitted it.
    pub rule: &'a str,
    /// Which end of the episode.
    pub phase: Phase,
    /// What is to be done.
    #[schemars(extend("enum" = ["scale_out", "scale_in", "set_capacity", "notify"]))]
    pub action: &'static str,
    /// By how much; null for `notify`, which changes nothing.
    pub adjustment: Option<&'a Adjustment>,
    /// What it is about.
    pub target: &'a Target,
    /// Bounds that the consumer keeps capacity in.
    pub limits: Limits,
    /// One line for people.
    pub reason: &'a str,
    /// The episode that it belongs to.
    pub episode: Episode<'a>,
    /// When firing all open alerts, when resolved those that closed with this decision. A long list is cut to
    /// whole alerts.
    #[schemars(with = "Vec<Alert<'static>>")]
    pub alerts: Alerts<'a>,
    /// How many alerts there were before the list was cut.
    pub alerts_total: usize,
    /// The notification that caused it.
    pub notification: Notification<'a>,
    /// The rule's own texts.
    pub parameters: &'a BTreeMap<String, String>,
}

/// From the first alert that opens to the last that resolves, of one rule and target.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Episode")]
pub(super) struct Episode<'a> {
    /// Its id.
    #[schemars(regex(pattern = "^[0-9a-f]{32}$"))]
    pub id: &'a str,
    /// When it opened.
    #[schemars(extend("format" = "date-time"))]
    #[schemars(with = "String")]
    pub opened_at: Millis,
    /// Which event of the episode and phase this is, from 1.
    pub emission: u32,
}

/// What Alertmanager says of the notification.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Notification")]
pub(super) struct Notification<'a> {
    /// The source of the configuration.
    pub source: &'a str,
    /// The receiver in Alertmanager's configuration.
    pub receiver: &'a str,
    /// Alertmanager's key of the group.
    pub group_key: &'a str,
    /// Alertmanager's own address.
    pub external_url: &'a str,
    /// Why Alertmanager sent it, where it says so.
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

/// One alert.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Alert")]
pub(super) struct Alert<'a> {
    /// Alertmanager's hash of its labels.
    fingerprint: &'a str,
    /// Whether it fires.
    status: Phase,
    /// Its labels, those of the source laid over them.
    #[schemars(with = "BTreeMap<String, String>")]
    labels: &'a Labels,
    /// Its latest annotations.
    #[schemars(with = "BTreeMap<String, String>")]
    annotations: &'a Labels,
    /// When it began, by Prometheus' clock.
    #[schemars(extend("format" = "date-time"))]
    #[schemars(with = "String")]
    starts_at: DisplayTime,
    /// The page of the expression.
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
