//! What delivery has to know of an event, read back from the event as it was encoded.
//!
//! An event is stored and sent as the bytes that were made when it was emitted. Delivery takes from
//! them what a queue wants beside the body (attributes, group, deduplication id) and what tells how
//! long the event may still be sent, and leaves the rest unread.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::Deserialize;

use super::time::Time;

/// The parts of an encoded event that delivery looks at.
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
    /// `sequence`: rises with every event about the target.
    pub sequence: u64,
    /// After this nobody acts on the event.
    pub expirytime: Time,
    /// W3C's trace context; empty if there is none.
    pub traceparent: Arc<str>,
    /// `data.rule`.
    pub rule: Arc<str>,
    /// `data.action`.
    pub action: Cow<'static, str>,
    /// When the alert began that has been open the longest. None if the event has no alert.
    pub oldest_starts_at: Option<Time>,
}

/// An event as it is sent, to every destination and at every try. Cheap to clone.
#[derive(Clone)]
pub struct EncodedEvent(Arc<Inner>);

struct Inner {
    text: String,
    /// Where the event was made just now; of one that was stored it is read when it is asked for.
    header: Option<Arc<EventHeader>>,
}

impl EncodedEvent {
    /// An event that was made just now, with its header.
    pub fn new(text: String, header: EventHeader) -> Self {
        Self(Arc::new(Inner { text, header: Some(Arc::new(header)) }))
    }

    /// What delivery has to know of it.
    ///
    /// # Errors
    /// If the text is no event of ours.
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

/// Why a text is no event of ours.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or a part is missing or of another type.
    #[error("the event cannot be read: {0}")]
    Form(#[from] serde_json::Error),
    /// `sequence` is no number.
    #[error("the event cannot be read: its `sequence` is not a whole number")]
    Sequence,
    /// `expirytime` is no time.
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
            // It is only measured, so an alert without a time does not keep the event from its way.
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

    /// Whether the event may take capacity away: the shorter age limit is for it. An action that
    /// this version does not know counts as one that does.
    pub fn decreases_capacity(&self) -> bool {
        !matches!(&*self.action, "scale_out" | "notify")
    }

    /// The name of the source: the last part of `/scalebridge/prod-eu`.
    pub fn source_name(&self) -> &str {
        self.source.rsplit('/').next().unwrap_or_default()
    }

    /// The message attributes that a queue gets beside the body, name and value. At most ten, none
    /// empty; all of them are of the type [`ATTRIBUTE_TYPE`].
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("content-type", "application/cloudevents+json"),
            ("ce-specversion", "1.0"),
            ("ce-id", &self.id),
            ("ce-type", &self.kind),
            ("ce-source", &self.source),
            ("ce-subject", &self.subject),
            ("rule", &self.rule),
            ("traceparent", &self.traceparent),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty())
    }

    /// The bytes that SQS counts for the attributes, beside the body: names, types and values.
    pub fn attribute_bytes(&self) -> usize {
        self.attributes().map(|(name, value)| name.len() + ATTRIBUTE_TYPE.len() + value.len()).sum()
    }
}

/// The type of every message attribute.
pub const ATTRIBUTE_TYPE: &str = "String";

/// [`EventHeader::attribute_bytes`] is never more than this and the length of the subject, for any event
/// that the bridge makes: ids have 32 digits, names at most 63 characters, a trace context 55.
pub const MAX_ATTRIBUTE_BYTES_BESIDE_SUBJECT: usize = 512;

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
                "parameters":{{"action":"none of ours"}}}}}}"#
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
        let takes_away = |action| EventHeader::read(&event(action, "[]")).unwrap().decreases_capacity();
        assert!(!takes_away("scale_out"));
        assert!(!takes_away("notify"));
        assert!(takes_away("scale_in"));
        assert!(takes_away("set_capacity"));
        assert!(takes_away("a_later_action"));
    }

    #[test]
    fn what_is_no_event_is_refused_and_says_why() {
        let good = event("scale_out", "[]");
        let broken = [
            ("1795366520062131", "-1", "`sequence`"),
            ("2026-11-22T17:55:20.062Z", "soon", "`expirytime`"),
            ("\"id\"", "\"no\"", "missing field `id`"),
            ("\"data\":{", "\"data\":[{", "invalid type"),
        ];
        for (from, to, said) in broken {
            let error = EventHeader::read(&good.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn attributes_are_few_never_empty_and_counted() {
        let mut header = EventHeader::read(&event("scale_out", "[]")).unwrap();
        assert_eq!(header.attributes().count(), 8);
        header.traceparent = "".into();
        header.rule = "".into();
        let names: Vec<_> = header.attributes().map(|(name, _)| name).collect();
        assert_eq!(names, ["content-type", "ce-specversion", "ce-id", "ce-type", "ce-source", "ce-subject"]);
        let by_hand = 12 + 28 + 14 + 3 + 5 + 4 + 7 + 27 + 9 + 20 + 10 + 35 + 6 * 6;
        assert_eq!(header.attribute_bytes(), by_hand);
    }

    #[test]
    fn the_longest_attributes_are_within_the_bound() {
        let mut header = EventHeader::read(&event("set_capacity", "[]")).unwrap();
        header.id = "f".repeat(32).into();
        header.source = format!("/scalebridge/{}", "s".repeat(63)).into();
        header.rule = "r".repeat(63).into();
        header.traceparent = "0".repeat(55).into();
        let beside_subject = header.attribute_bytes() - header.subject.len();
        assert!(beside_subject <= MAX_ATTRIBUTE_BYTES_BESIDE_SUBJECT, "{beside_subject}");
    }

    proptest! {
        #[test]
        fn any_text_and_any_damage_is_an_answer_not_a_panic(text in ".{0,200}", at in 0usize..500, with in any::<char>()) {
            let _ = EventHeader::read(&text);
            let mut damaged: Vec<char> = event("scale_in", r#"[{"starts_at":"2026-11-22T16:55:20Z"}]"#).chars().collect();
            if at < damaged.len() {
                damaged[at] = with;
            }
            let _ = EventHeader::read(&damaged.into_iter().collect::<String>());
        }
    }
}
