//! The event: a CloudEvents 1.0 document in structured JSON.
//!
//! A field is never renamed or retyped within `v1`. An event is encoded once, when it is emitted; every
//! attempt and every destination sends the same bytes, except that a redrive can set another `expirytime`.

mod cloud_event;
mod encoded;
mod legacy;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use encoded::{Error, EventDocument, id_prefix};
pub use legacy::{LegacyDecrease, LegacyEvent};

use cloud_event::{Alert, Alerts, CloudEvent, Episode, EventData, Notification};

use super::header::EventHeader;
use super::labels::Labels;
use super::name::Name;
use super::phase::Phase;
use super::rule::Limits;
use super::size_limit::SizeLimit;
use super::target::{Target, TargetKey};
use super::time::Time;
use super::trigger::{MAX_TRIGGER_FIELD_BYTES, Trigger};
use crate::json;

/// `dataschema` of every event.
pub const DATA_SCHEMA: &str = "urn:scalebridge:schema:event-data:v1";
/// `datacontenttype` of every event.
pub const DATA_CONTENT_TYPE: &str = "application/json";

const SOURCE_PREFIX: &str = "/scalebridge/";

/// The maximum size of an encoded event without alerts, parameters and target, including JSON escapes.
pub const MAX_ENVELOPE_BYTES: usize = 2048 + 4 * MAX_TRIGGER_FIELD_BYTES;

/// An event before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// 32 hex digits: a hash of what the event is about, so the same history results in the same id.
    pub id: Arc<str>,
    /// `scale_out`, `scale_in`, `set_capacity` or `notify`.
    pub action: &'static str,
    /// The time of the emission.
    pub time: Time,
    /// Strictly increasing per target.
    pub sequence: u64,
    /// Consumers must not act on the event when this much time has passed since `time`.
    pub expires_after: Duration,
    /// The rule that emitted the event.
    pub rule: Name,
    /// Whether the episode fires or has resolved.
    pub phase: Phase,
    /// The change of capacity; `None` for `notify`.
    pub adjustment: Option<Adjustment>,
    /// The target of the change.
    pub target: Arc<Target>,
    /// The target's key.
    pub key: TargetKey,
    /// Bounds within which the consumer keeps capacity.
    pub limits: Limits,
    /// A human-readable summary, one line.
    pub reason: String,
    /// The episode that the event belongs to.
    pub episode: EpisodeRef,
    /// All open occurrences if firing; if resolved, those that closed with this decision.
    pub alerts: Vec<EventAlert>,
    /// The notification that caused the event.
    pub trigger: Arc<Trigger>,
    /// The rendered parameters of the rule.
    pub parameters: BTreeMap<String, String>,
    /// The ids of the increases that an `on_resolved` decrease answers, oldest first.
    pub reverts: Vec<Arc<str>>,
}

/// A change of capacity in the terms of AWS Auto Scaling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Adjustment {
    /// How `value` is interpreted.
    #[serde(rename = "type")]
    pub kind: AdjustmentType,
    /// Units or percent; negative for a decrease.
    pub value: i64,
    /// The minimum number of units of a change in percent.
    pub min_magnitude: Option<u32>,
    /// Only with `ExactCapacity`: whether the consumer may decrease capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_decrease: Option<bool>,
}

impl Adjustment {
    /// Whether the change can decrease capacity.
    pub fn decreases_capacity(&self) -> bool {
        self.value < 0 || self.allow_decrease == Some(true)
    }

    /// `+2`, `-25%` or `=10`; a `!` after it says that the consumer may decrease capacity with it.
    pub fn to_short(&self) -> String {
        let may_decrease = if self.allow_decrease == Some(true) { "!" } else { "" };
        match self.kind {
            AdjustmentType::ChangeInCapacity => format!("{:+}", self.value),
            AdjustmentType::PercentChangeInCapacity => format!("{:+}%", self.value),
            AdjustmentType::ExactCapacity => format!("={}{may_decrease}", self.value),
        }
    }
}

/// The adjustment types of AWS Auto Scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdjustmentType {
    /// Change capacity by `value` units.
    ChangeInCapacity,
    /// Change capacity by `value` percent.
    PercentChangeInCapacity,
    /// Set capacity to `value` units.
    ExactCapacity,
}

/// The episode that an event belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpisodeRef {
    /// 32 hex digits.
    pub id: Arc<str>,
    /// The time at which the episode opened.
    pub opened_at: Time,
    /// The number of this event within its episode and phase, from 1.
    pub emission: u32,
}

/// An alert as an event contains it.
#[derive(Debug, Clone, PartialEq)]
pub struct EventAlert {
    /// Alertmanager's fingerprint.
    pub fingerprint: Arc<str>,
    /// The alert's labels; those of the source take precedence.
    pub labels: Arc<Labels>,
    /// The latest annotations.
    pub annotations: Arc<Labels>,
    /// The alert's `startsAt`.
    pub starts_at: Time,
    /// The URL of the alert's expression in Prometheus.
    pub generator_url: Arc<str>,
}

/// The JSON Schema of an encoded event, draft 2020-12.
pub fn schema() -> schemars::Schema {
    schemars::generate::SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<CloudEvent<'static>>()
}

impl Event {
    /// The value of a `ChangeInCapacity`.
    pub fn change_in_capacity(&self) -> Option<i64> {
        let adjustment = self.adjustment.as_ref()?;
        (adjustment.kind == AdjustmentType::ChangeInCapacity).then_some(adjustment.value)
    }

    /// Whether the event can decrease capacity.
    pub fn may_decrease_capacity(&self) -> bool {
        let lowers =
            self.adjustment.as_ref().is_some_and(|adjustment| adjustment.allow_decrease == Some(true));
        self.action == "scale_in" || lowers
    }

    /// The fields that delivery needs.
    pub fn header(&self) -> EventHeader {
        EventHeader {
            id: self.id.clone(),
            kind: self.kind(),
            source: format!("{SOURCE_PREFIX}{}", self.trigger.source).into(),
            subject: self.key.shared(),
            sequence: self.sequence,
            expirytime: self.expirytime(),
            traceparent: Traceparent(self).to_string().into(),
            rule: self.rule.shared(),
            action: self.action.into(),
            oldest_starts_at: self.alerts.iter().map(|alert| alert.starts_at).min(),
        }
    }

    fn kind(&self) -> Cow<'static, str> {
        match self.action {
            "scale_out" => "io.scalebridge.scale_out.v1".into(),
            "scale_in" => "io.scalebridge.scale_in.v1".into(),
            action => format!("io.scalebridge.{action}.v1").into(),
        }
    }

    /// The expiry time, truncated to milliseconds as in the encoded event.
    fn expirytime(&self) -> Time {
        Time::from_millis(self.time.after(self.expires_after).as_millis())
    }

    /// Encodes the event within `limit`. Alerts that do not fit are left out whole; `alerts_total` is the
    /// number of all alerts.
    ///
    /// The part without alerts always fits, because its size was checked when the alerts were evaluated (see
    /// [`check_fixed_bytes`]).
    pub fn encode(&self, limit: SizeLimit) -> String {
        let subject = &self.key;
        let room = limit.bytes.saturating_sub(limit.beside(subject.as_str().len()));
        let whole = self.encode_with_alerts(subject.as_str(), self.alerts.len());
        if whole.len() <= room {
            return whole;
        }
        let mut length = self.encode_with_alerts(subject.as_str(), 0).len();
        let mut count = 0;
        for alert in &self.alerts {
            // One more for the comma.
            length += to_json(&Alert::new(alert, self.phase)).len() + 1;
            if length > room {
                break;
            }
            count += 1;
        }
        self.encode_with_alerts(subject.as_str(), count)
    }

    fn encode_with_alerts(&self, subject: &str, count: usize) -> String {
        to_json(&CloudEvent {
            specversion: "1.0",
            id: &self.id,
            source: format_args!("{SOURCE_PREFIX}{}", self.trigger.source),
            kind: &self.kind(),
            subject,
            time: self.time.millis(),
            datacontenttype: DATA_CONTENT_TYPE,
            dataschema: DATA_SCHEMA,
            sequence: format_args!("{}", self.sequence),
            expirytime: self.expirytime().millis(),
            traceparent: format_args!("{}", Traceparent(self)),
            data: EventData {
                rule: self.rule.as_str(),
                phase: self.phase,
                action: self.action,
                adjustment: self.adjustment.as_ref(),
                target: &self.target,
                limits: self.limits,
                reason: &self.reason,
                episode: Episode {
                    id: &self.episode.id,
                    opened_at: self.episode.opened_at.millis(),
                    emission: self.episode.emission,
                },
                alerts: Alerts { event: self, count },
                alerts_total: self.alerts.len(),
                notification: Notification {
                    source: self.trigger.source.as_str(),
                    receiver: &self.trigger.receiver,
                    group_key: &self.trigger.group_key,
                    external_url: &self.trigger.external_url,
                    reason: self.trigger.reason.as_deref(),
                },
                parameters: &self.parameters,
                reverts: &self.reverts,
            },
        })
    }
}

/// The trace context of the request, or else one derived from the event's id: the trace id is then the event
/// id.
struct Traceparent<'a>(&'a Event);

impl fmt::Display for Traceparent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.trigger.traceparent {
            Some(given) => f.write_str(given),
            None => {
                let id = &self.0.id;
                f.write_str("00-")?;
                f.write_str(id)?;
                f.write_str("-")?;
                f.write_str(id.get(..16).unwrap_or_default())?;
                f.write_str("-00")
            }
        }
    }
}

/// Whether a text is a valid `traceparent` of W3C Trace Context, version 00.
pub fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let nonzero = |part: &str| part.bytes().any(|b| b != b'0');
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], ["00", trace, span, flags]
        if hex(trace, 32) && nonzero(trace) && hex(span, 16) && nonzero(span) && hex(flags, 2))
}

/// Checks that an event with this target and these parameters, but without alerts, is within `limit`. Returns
/// its maximum size as the error, with what is sent beside it.
pub fn check_fixed_bytes(
    target: &Target,
    parameters: &BTreeMap<String, String>,
    limit: SizeLimit,
) -> Result<(), usize> {
    // Upper bound: a byte becomes at most six bytes in JSON and three in a key.
    let Target { kind, name, account, cluster, namespace, region, .. } = target;
    let optional = [account, cluster, namespace, region].map(|field| field.as_ref().map_or(0, String::len));
    let texts = kind.len() + name.len() + optional.iter().sum::<usize>();
    let more: usize = parameters.iter().map(|(name, value)| name.len() + value.len() + 1).sum();
    let max_key = 64 + 3 * texts;
    if MAX_ENVELOPE_BYTES + limit.beside(max_key) + max_key + 128 + 6 * (texts + more) <= limit.bytes {
        return Ok(());
    }
    let exact = exact_fixed_bytes(target, parameters, limit);
    if exact <= limit.bytes { Ok(()) } else { Err(exact) }
}

fn exact_fixed_bytes(target: &Target, parameters: &BTreeMap<String, String>, limit: SizeLimit) -> usize {
    let key = target.key().as_str().len();
    MAX_ENVELOPE_BYTES + limit.beside(key) + key + to_json(target).len() + to_json(parameters).len()
}

/// JSON with only characters that XML allows: some destinations reject others.
#[expect(clippy::expect_used, reason = "all keys are strings")]
fn to_json<T: Serialize>(value: &T) -> String {
    json::xml_safe(json::to_string(value, 2048).expect("all keys are strings"))
}

/// Validates an encoded event against the published schema.
#[cfg(test)]
pub(super) fn assert_matches_schema(event: &Event) {
    use std::sync::OnceLock;

    static PUBLISHED: OnceLock<jsonschema::Validator> = OnceLock::new();
    let published = PUBLISHED.get_or_init(|| {
        let schema = serde_json::to_value(schema()).unwrap();
        jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
    });
    let text = event.encode(SizeLimit::of_body(1 << 20));
    let document = serde_json::from_str(&text).unwrap();
    let errors: Vec<String> = published.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "not as published: {errors:?}\n{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::target::Platform;

    pub(super) fn event(alerts: usize, summary: &str) -> Event {
        let time = Time::parse("2026-11-22T16:55:20.062131Z").unwrap();
        let alert = |at: usize| EventAlert {
            fingerprint: format!("{at:016x}").into(),
            labels: Arc::new([("alertname", "KubePodUnschedulable")].into_iter().collect()),
            annotations: Arc::new([("summary", summary)].into_iter().collect()),
            starts_at: Time::parse("2026-11-22T16:55:15.05042Z").unwrap(),
            generator_url: "http://prom:9090/graph".into(),
        };
        let target = Target {
            platform: Platform::Eks,
            kind: "nodegroup".into(),
            name: "workers".into(),
            account: None,
            cluster: Some("prod-eu".into()),
            namespace: None,
            region: Some("eu-west-1".into()),
        };
        Event {
            id: "b3f0b3f0b3f0b3f0b3f0b3f0b3f0b3f0".into(),
            action: "scale_out",
            time,
            sequence: time.as_micros(),
            expires_after: Duration::from_secs(3600),
            rule: Name::new("unschedulable-pods").unwrap(),
            phase: Phase::Firing,
            adjustment: Some(Adjustment {
                kind: AdjustmentType::ChangeInCapacity,
                value: 2,
                min_magnitude: None,
                allow_decrease: None,
            }),
            key: target.key(),
            target: Arc::new(target),
            limits: Limits { min_capacity: Some(2), max_capacity: Some(40) },
            reason: "1 alert firing: KubePodUnschedulable".into(),
            episode: EpisodeRef { id: "e".repeat(32).into(), opened_at: time, emission: 1 },
            alerts: (0..alerts).map(alert).collect(),
            trigger: Arc::new(Trigger {
                source: Name::new("prod-eu").unwrap(),
                receiver: "scaling".into(),
                group_key: "{}:{}".into(),
                external_url: "http://am:9093".into(),
                reason: Some("first notification".into()),
                traceparent: None,
            }),
            parameters: [("runbook".to_owned(), "https://runbooks/nodes".to_owned())].into(),
            reverts: Vec::new(),
        }
    }

    fn read(text: &str) -> serde_json::Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_header_equals_the_parsed_one() {
        let event = event(2, "pod web-0 unschedulable");
        assert_eq!(event.header(), EventHeader::read(&event.encode(SizeLimit::of_body(262_144))).unwrap());
    }

    #[test]
    fn the_encoding_is_the_published_example() {
        let text = event(1, "pod web-0 unschedulable").encode(SizeLimit::of_body(262_144));
        let published = include_str!("../../tests/fixtures/event.json");
        // Apart from white space both texts are equal, including the order of fields.
        let compact: String = published.lines().map(str::trim_start).collect();
        assert_eq!(
            text,
            compact.replace("\": ", "\":").replace(", \"", ",\"").replace("{ ", "{").replace(" }", "}")
        );
        assert_eq!(read(&text), read(published));
    }

    #[test]
    fn alerts_that_do_not_fit_are_left_out_whole() {
        let event = event(40, &"x".repeat(500));
        let whole = event.encode(SizeLimit::of_body(1 << 20)).len();
        let beside = 512 + event.key.as_str().len();
        for limit in [8 * 1024, 10_000, 16 * 1024, whole + 500] {
            let text = event.encode(SizeLimit { bytes: limit, metadata_bytes: 512, subject_copies: 1 });
            let document = read(&text);
            let included = document["data"]["alerts"].as_array().unwrap().len();
            assert!(text.len() + beside <= limit, "{limit}: {}", text.len());
            assert_eq!(document["data"]["alerts_total"], 40, "{limit}");
            assert!(included < 40, "{limit}");
            let one_more = whole / 40 + 20;
            assert!(limit - text.len() <= beside + one_more, "{limit}: as many as fit, {included}");
        }
        let all = read(&event.encode(SizeLimit::of_body(whole)));
        assert_eq!(all["data"]["alerts"].as_array().unwrap().len(), 40);
    }

    #[test]
    fn only_characters_that_xml_allows_are_written() {
        let odd: String = (0..=0xFFFF_u32).filter_map(char::from_u32).collect();
        let text = event(1, &odd).encode(SizeLimit::NONE);
        let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..);
        assert!(text.chars().all(allowed));
        assert_eq!(read(&text)["data"]["alerts"][0]["annotations"]["summary"], odd);
    }

    #[test]
    fn the_fixed_part_stays_within_its_bound() {
        let worst = "\u{1}\"\\ü".repeat(1000);
        let mut event = event(0, "");
        event.parameters = [("p".to_owned(), worst.clone())].into();
        Arc::make_mut(&mut event.target).name = worst[..300].to_owned();
        event.key = event.target.key();
        event.reason = json::truncate_escaped(&worst, 400).to_owned();
        let envelope = super::super::notification::Envelope {
            receiver: worst.clone(),
            group_key: worst.clone(),
            external_url: worst.clone(),
            reason: Some(worst),
        };
        event.trigger = Arc::new(Trigger::new(&event.trigger.source, &envelope, None));
        for (metadata_bytes, subject_copies) in [(0, 0), (512, 1)] {
            let limit = |bytes| SizeLimit { bytes, metadata_bytes, subject_copies };
            let check = |bytes| check_fixed_bytes(&event.target, &event.parameters, limit(bytes));
            let room = exact_fixed_bytes(&event.target, &event.parameters, limit(0));
            assert_eq!(check(room), Ok(()));
            assert_eq!(check(room - 1), Err(room));
            let beside = metadata_bytes + subject_copies * event.key.as_str().len();
            assert!(event.encode(limit(room)).len() + beside <= room);
        }
    }

    #[test]
    fn only_a_valid_traceparent_is_accepted() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(text), "{text}");
        }
    }
}
