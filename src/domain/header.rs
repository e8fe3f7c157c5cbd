//! The fields of an encoded event that delivery needs.
//!
//! An event is stored and sent as the bytes that were encoded when it was emitted. Delivery reads from them
//! what a destination needs besides the body, and how long the event may be sent.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::Deserialize;

use super::time::Time;

/// The fields of an encoded event that delivery reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHeader {
    /// The event's id.
    pub id: Arc<str>,
    /// `type`: `io.scalebridge.scale_out.v1`.
    pub kind: Cow<'static, str>,
    /// `source`: `/scalebridge/prod-eu`.
    pub source: Arc<str>,
    /// `subject`: the target's key.
    pub subject: Arc<str>,
    /// `sequence`: strictly increasing per target.
    pub sequence: u64,
    /// `expirytime`: consumers do not act on the event after this time.
    pub expirytime: Time,
    /// W3C trace context; empty if absent.
    pub traceparent: Arc<str>,
    /// `data.rule`.
    pub rule: Arc<str>,
    /// `data.action`.
    pub action: Cow<'static, str>,
    /// The `starts_at` of the oldest alert; `None` if the event has no alerts.
    pub oldest_starts_at: Option<Time>,
}

/// An encoded event, identical for every destination and attempt. Cheap to clone.
#[derive(Clone)]
pub struct EncodedEvent(Arc<Inner>);

struct Inner {
    text: String,
    /// Present if the event was encoded by this process; the header of a stored event is parsed on demand.
    header: Option<Arc<EventHeader>>,
}

impl EncodedEvent {
    /// An event that has just been encoded, with its header.
    pub fn new(text: String, header: EventHeader) -> Self {
        Self(Arc::new(Inner { text, header: Some(Arc::new(header)) }))
    }

    /// The header of the event.
    ///
    /// # Errors
    /// The text is not an event of scalebridge.
    pub fn header(&self) -> Result<Arc<EventHeader>, Error> {
        self.0.header.clone().map_or_else(|| EventHeader::read(&self.0.text).map(Arc::new), Ok)
    }
}

impl Deref for EncodedEvent {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.text
    }
}

impl From<String> for EncodedEvent {
    fn from(text: String) -> Self {
        Self(Arc::new(Inner { text, header: None }))
    }
}

impl From<&str> for EncodedEvent {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq for EncodedEvent {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for EncodedEvent {}

impl fmt::Display for EncodedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for EncodedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.text, f)
    }
}

/// Why a text is not an event of scalebridge.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or a field is missing or of another type.
    #[error("the event cannot be read: {0}")]
    Form(#[from] serde_json::Error),
    /// `sequence` is not a whole number.
    #[error("the event cannot be read: its `sequence` is not a whole number")]
    Sequence,
    /// `expirytime` is not a time.
    #[error("the event cannot be read: its `expirytime` is not a time")]
    ExpiryTime,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    sequence: Cow<'a, str>,
    #[serde(borrow)]
    expirytime: Cow<'a, str>,
    #[serde(borrow, default)]
    traceparent: Cow<'a, str>,
    #[serde(borrow)]
    data: RawData<'a>,
}

#[derive(Deserialize)]
struct RawData<'a> {
    #[serde(borrow)]
    rule: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow, default)]
    alerts: Vec<RawAlert<'a>>,
}

#[derive(Deserialize)]
struct RawAlert<'a> {
    #[serde(borrow, default)]
    starts_at: Cow<'a, str>,
}

impl EventHeader {
    /// Reads the header of an encoded event.
    pub fn read(event: &str) -> Result<Self, Error> {
        let document: RawEvent<'_> = serde_json::from_str(event)?;
        let alerts = &document.data.alerts;
        Ok(Self {
            sequence: document.sequence.parse().map_err(|_| Error::Sequence)?,
            expirytime: Time::parse(&document.expirytime).map_err(|_| Error::ExpiryTime)?,
            // Only used for metrics, so an alert without a valid time does not block the event.
            oldest_starts_at: alerts.iter().filter_map(|alert| Time::parse(&alert.starts_at).ok()).min(),
            id: document.id.into(),
            kind: document.kind.into_owned().into(),
            source: document.source.into(),
            subject: document.subject.into(),
            traceparent: document.traceparent.into(),
            rule: document.data.rule.into(),
            action: document.data.action.into_owned().into(),
        })
    }

    /// Whether the event can decrease capacity, so that the shorter age limit applies. Actions that are
    /// unknown to this version count as decreases.
    pub fn decreases_capacity(&self) -> bool {
        !matches!(&*self.action, "scale_out" | "notify")
    }

    /// The name of the source: the last part of `/scalebridge/prod-eu`.
    pub fn source_name(&self) -> &str {
        self.source.rsplit('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(action: &str, alerts: &str) -> String {
        format!(
            r#"{{"specversion":"1.0","id":"b3f0","source":"/scalebridge/prod-eu",
                "type":"io.scalebridge.{action}.v1","subject":"eks/nodegroup/-/-/prod-eu/-/workers",
                "sequence":"1795366520062131","expirytime":"2026-11-22T17:55:20.062Z","traceparent":"00-1-2-00",
                "data":{{"rule":"pods","phase":"firing","action":"{action}","alerts":{alerts},
                "parameters":{{"action":"not the event's"}}}}}}"#
        )
    }

    #[test]
    fn every_part_is_read() {
        let alerts = r#"[{"labels":{"a":"\"\u00e4"},"starts_at":"2026-11-22T16:55:20Z"},
            {"starts_at":"2026-11-22T16:50:00Z"},{"starts_at":"?"},{}]"#;
        let header = EventHeader::read(&event("scale_out", alerts)).unwrap();
        let expected = EventHeader {
            id: "b3f0".into(),
            kind: "io.scalebridge.scale_out.v1".into(),
            source: "/scalebridge/prod-eu".into(),
            subject: "eks/nodegroup/-/-/prod-eu/-/workers".into(),
            sequence: 1_795_366_520_062_131,
            expirytime: Time::parse("2026-11-22T17:55:20.062Z").unwrap(),
            traceparent: "00-1-2-00".into(),
            rule: "pods".into(),
            action: "scale_out".into(),
            oldest_starts_at: Some(Time::parse("2026-11-22T16:50:00Z").unwrap()),
        };
        assert_eq!(header, expected);
        assert_eq!(header.source_name(), "prod-eu");
    }

    #[test]
    fn an_unknown_action_counts_as_a_decrease() {
        let decreases = |action| EventHeader::read(&event(action, "[]")).unwrap().decreases_capacity();
        assert!(!decreases("scale_out"));
        assert!(!decreases("notify"));
        assert!(decreases("scale_in"));
        assert!(decreases("set_capacity"));
        assert!(decreases("a_later_action"));
    }

    #[test]
    fn an_invalid_event_is_rejected_with_a_reason() {
        let good = event("scale_out", "[]");
        let broken = [
            ("1795366520062131", "-1", "`sequence`"),
            ("2026-11-22T17:55:20.062Z", "soon", "`expirytime`"),
            ("\"id\"", "\"no\"", "missing field `id`"),
            ("\"data\":{", "\"data\":[{", "invalid type"),
        ];
        for (from, to, expected) in broken {
            let error = EventHeader::read(&good.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_and_no_damage_causes_a_panic(text in ".{0,200}", at in 0usize..500, with in any::<char>()) {
            let _ = EventHeader::read(&text);
            let mut damaged: Vec<char> = event("scale_in", r#"[{"starts_at":"2026-11-22T16:55:20Z"}]"#).chars().collect();
            if at < damaged.len() {
                damaged[at] = with;
            }
            let _ = EventHeader::read(&damaged.into_iter().collect::<String>());
        }
    }
}
