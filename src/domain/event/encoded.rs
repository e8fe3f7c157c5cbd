//! Reads encoded events: the counterpart of `cloud_event`, which writes them.
//!
//! Delivery, the store and the engine each need other fields. All of them read through [`EventDocument`], so
//! that what a version of the bridge understands of an event is decided here.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Adjustment, LegacyDecrease, LegacyEvent};
use crate::domain::header::{EncodedEvent, EventHeader};
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::time::Time;

/// An encoded event as it is read. The fields are borrowed from the text; a field that is missing is `None`,
/// and what a field must be is checked by the caller that needs it, for example [`EventDocument::header`].
/// The default is an event without fields.
#[derive(Debug, Clone, Default)]
pub struct EventDocument<'a> {
    text: &'a str,
    fields: Fields<'a>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    source: Option<Text<'a>>,
    #[serde(borrow)]
    subject: Option<Text<'a>>,
    #[serde(borrow)]
    time: Option<Text<'a>>,
    #[serde(borrow)]
    sequence: Option<Text<'a>>,
    /// Raw, because a redrive replaces these bytes of the text.
    #[serde(borrow)]
    expirytime: Option<&'a RawValue>,
    #[serde(borrow)]
    traceparent: Option<Text<'a>>,
    #[serde(borrow, default)]
    data: Data<'a>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    rule: Option<Text<'a>>,
    #[serde(borrow)]
    action: Option<Text<'a>>,
    #[serde(borrow)]
    phase: Option<Text<'a>>,
    /// Raw, because nearly no caller needs it.
    #[serde(borrow)]
    adjustment: Option<&'a RawValue>,
    #[serde(borrow, default)]
    episode: Episode<'a>,
    #[serde(borrow, default)]
    alerts: Vec<Alert<'a>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Episode<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Alert<'a> {
    #[serde(borrow)]
    fingerprint: Option<Text<'a>>,
    #[serde(borrow)]
    starts_at: Option<Text<'a>>,
}

/// A string that is borrowed unless it has escapes. (serde does not borrow a `Cow` within an `Option`.)
#[derive(Debug, Clone, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Why a text is not an event of scalebridge.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or a field has another type.
    #[error("the event cannot be read: {0}")]
    Form(#[from] serde_json::Error),
    /// A required field is missing.
    #[error("the event cannot be read: missing field `{0}`")]
    Missing(&'static str),
    /// A field has another form.
    #[error("the event cannot be read: its `{field}` is not a {expected}")]
    Field {
        /// The path of the field.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
}

impl<'a> EventDocument<'a> {
    /// Reads an encoded event.
    ///
    /// # Errors
    /// The text is not a JSON object, or a field has another type than in an event.
    pub fn read(text: &'a str) -> Result<Self, Error> {
        Ok(Self { text, fields: serde_json::from_str(text)? })
    }

    /// What the event did, for a store of a version that did not track events; `None` if it cannot be read.
    pub fn legacy(&self, emitted_at: Time) -> Option<LegacyEvent> {
        let Fields { id, data, .. } = &self.fields;
        let phase = match text(data.phase.as_ref())? {
            "firing" => Phase::Firing,
            "resolved" => Phase::Resolved,
            _ => return None,
        };
        let adjustment = data.adjustment.map(|raw| serde_json::from_str(raw.get())).transpose().ok()?;
        let (id, rule) = (text(id.as_ref())?.into(), Name::new(text(data.rule.as_ref())?).ok()?);
        let decrease = adjustment.as_ref().filter(|adjustment: &&Adjustment| adjustment.decreases_capacity());
        let decrease = decrease.and_then(|_| LegacyDecrease::read(self.text)).map(Box::new);
        Some(LegacyEvent { id, emitted_at, phase, rule, adjustment, decrease })
    }

    /// The fields that delivery needs.
    ///
    /// # Errors
    /// One of them is missing or has another form.
    pub fn header(&self) -> Result<EventHeader, Error> {
        let Fields { id, kind, source, subject, sequence, traceparent, data, .. } = &self.fields;
        // Only used for metrics, so an alert without a valid time does not block the event.
        let starts = data.alerts.iter().filter_map(|alert| Time::parse(&alert.starts_at.as_ref()?.0).ok());
        Ok(EventHeader {
            id: required("id", id.as_ref())?.into(),
            kind: required("type", kind.as_ref())?.to_owned().into(),
            source: required("source", source.as_ref())?.into(),
            subject: required("subject", subject.as_ref())?.into(),
            sequence: required("sequence", sequence.as_ref())?
                .parse()
                .map_err(|_| Error::Field { field: "sequence", expected: "whole number" })?,
            expirytime: self.expirytime()?,
            traceparent: text(traceparent.as_ref()).unwrap_or_default().into(),
            rule: required("data.rule", data.rule.as_ref())?.into(),
            action: required("data.action", data.action.as_ref())?.to_owned().into(),
            oldest_starts_at: starts.min(),
        })
    }

    /// `id`.
    pub fn id(&self) -> Option<&str> {
        text(self.fields.id.as_ref())
    }

    /// `subject`: the key of the target.
    pub fn subject(&self) -> Option<&str> {
        text(self.fields.subject.as_ref())
    }

    /// `time`: the wall clock at the emission.
    pub fn time(&self) -> Option<Time> {
        text(self.fields.time.as_ref()).and_then(|time| Time::parse(time).ok())
    }

    /// `data.rule`.
    pub fn rule(&self) -> Option<&str> {
        text(self.fields.data.rule.as_ref())
    }

    /// `data.action`.
    pub fn action(&self) -> Option<&str> {
        text(self.fields.data.action.as_ref())
    }

    /// Whether `data.phase` is that of an event of an open episode.
    pub fn is_firing_phase(&self) -> bool {
        text(self.fields.data.phase.as_ref()) == Some("firing")
    }

    /// `data.episode.id`.
    pub fn episode(&self) -> Option<&str> {
        text(self.fields.data.episode.id.as_ref())
    }

    /// The fingerprints of the alerts that the event contains.
    pub fn fingerprints(&self) -> impl Iterator<Item = &str> {
        self.fields.data.alerts.iter().filter_map(|alert| text(alert.fingerprint.as_ref()))
    }

    /// The text of the event with another `expirytime`; no other byte changes. The JSON parser has located the
    /// old value, so neither label values nor whitespace can be mistaken for it.
    ///
    /// # Errors
    /// The event has no `expirytime`.
    pub fn with_expirytime(&self, expirytime: Time) -> Result<String, Error> {
        let old = self.fields.expirytime.ok_or(Error::Missing("expirytime"))?.get();
        // `old` is borrowed from the text, so the difference of the addresses is its offset.
        let start = old.as_ptr().addr() - self.text.as_ptr().addr();
        let (head, tail) = (&self.text[..start], &self.text[start + old.len()..]);
        Ok(format!("{head}\"{}\"{tail}", expirytime.to_millis_string()))
    }

    fn expirytime(&self) -> Result<Time, Error> {
        let raw = self.fields.expirytime.ok_or(Error::Missing("expirytime"))?;
        let read = serde_json::from_str::<Text<'_>>(raw.get()).ok();
        let time = read.and_then(|Text(text)| Time::parse(&text).ok());
        time.ok_or(Error::Field { field: "expirytime", expected: "time" })
    }
}

impl EventHeader {
    /// Reads the header of an encoded event.
    ///
    /// # Errors
    /// The text is not an event of scalebridge.
    pub fn read(event: &str) -> Result<Self, Error> {
        EventDocument::read(event)?.header()
    }
}

impl EncodedEvent {
    /// The header of the event: the one that it was encoded with, or read from the text.
    ///
    /// # Errors
    /// The text is not an event of scalebridge.
    pub fn header(&self) -> Result<Arc<EventHeader>, Error> {
        self.known_header().map_or_else(|| EventHeader::read(self).map(Arc::new), Ok)
    }
}

/// The beginning of every encoded event with this id, up to the end of the id. Ids have no index in the store,
/// which searches for them by this text.
pub fn id_prefix(id: &str) -> String {
    format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\"")
}

fn text<'a>(field: Option<&'a Text<'_>>) -> Option<&'a str> {
    field.map(|Text(text)| &**text)
}

fn required<'a>(name: &'static str, field: Option<&'a Text<'_>>) -> Result<&'a str, Error> {
    text(field).ok_or(Error::Missing(name))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::event::Event;
    use crate::domain::event::tests::event as sample;
    use crate::domain::phase::Phase;
    use crate::domain::size_limit::SizeLimit;
    use crate::domain::trigger::Trigger;

    const PUBLISHED: &str = include_str!("../../../tests/fixtures/event.json");

    fn later() -> Time {
        Time::parse("2027-01-02T03:04:05.006Z").unwrap()
    }

    fn rewrite(event: &str) -> Result<String, Error> {
        EventDocument::read(event)?.with_expirytime(later())
    }

    #[test]
    fn every_part_of_the_header_is_read() {
        let event = r#"{"specversion":"1.0","id":"b3f0","source":"/scalebridge/prod-eu",
            "type":"io.scalebridge.scale_out.v1","subject":"eks/nodegroup/-/-/prod-eu/-/workers",
            "sequence":"1795366520062131","expirytime":"2026-11-22T17:55:20.062Z","traceparent":"00-1-2-00",
            "data":{"rule":"pods","phase":"firing","action":"scale_out","parameters":{"action":"not the event's"},
            "alerts":[{"labels":{"a":"\"\u00e4"},"starts_at":"2026-11-22T16:55:20Z"},
            {"starts_at":"2026-11-22T16:50:00Z"},{"starts_at":"?"},{}]}}"#;
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
        assert_eq!(EventHeader::read(event).unwrap(), expected);
        assert_eq!(expected.source_name(), "prod-eu");
    }

    #[test]
    fn a_header_without_a_field_or_with_another_form_is_rejected_with_the_reason() {
        let good = sample(1, "").encode(SizeLimit::of_body(1 << 20));
        let broken = [
            ("\"1795366520062131\"", "\"-1\"", "`sequence` is not a whole number"),
            ("\"2026-11-22T17:55:20.062Z\"", "\"soon\"", "`expirytime` is not a time"),
            ("\"2026-11-22T17:55:20.062Z\"", "5", "`expirytime` is not a time"),
            ("\"expirytime\"", "\"no\"", "missing field `expirytime`"),
            ("\"id\":\"b3f0", "\"no\":\"b3f0", "missing field `id`"),
            ("\"action\"", "\"no\"", "missing field `data.action`"),
            ("\"unschedulable-pods\"", "null", "missing field `data.rule`"),
            ("\"data\":{", "\"data\":[{", "invalid type"),
        ];
        for (from, to, expected) in broken {
            assert!(good.contains(from), "{from}");
            let error = EventHeader::read(&good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn missing_fields_are_none_and_other_texts_are_rejected() {
        let empty = EventDocument::read("{}").unwrap();
        assert_eq!((empty.id(), empty.subject(), empty.rule()), (None, None, None));
        assert_eq!((empty.action(), empty.episode()), (None, None));
        assert_eq!(empty.fingerprints().count(), 0);
        for text in ["", "xxxx", "5", r#"{"id":5}"#, r#"{"id":"a","id":"b"}"#, "{}{}"] {
            assert!(EventDocument::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_expirytime_of_the_published_event_changes() {
        let rewritten = rewrite(PUBLISHED).unwrap();
        let differ: Vec<(&str, &str)> =
            PUBLISHED.lines().zip(rewritten.lines()).filter(|(old, new)| old != new).collect();
        let [(old, new)] = differ[..] else { panic!("{differ:?}") };
        assert!(old.contains("\"expirytime\": \"2026-11-22T17:55:20.062Z\""), "{old}");
        assert_eq!(new, old.replace("2026-11-22T17:55:20.062Z", "2027-01-02T03:04:05.006Z"));
        assert_eq!(rewritten.len(), PUBLISHED.len());
    }

    #[test]
    fn text_that_resembles_the_expirytime_is_not_changed() {
        let event = r#"{"a":"\"expirytime\":\"x\"","data":{"expirytime":"in"}, "expirytime" : "old" ,"z":[{"expirytime":1}]}"#;
        let expected = event.replace("\"old\"", "\"2027-01-02T03:04:05.006Z\"");
        assert_eq!(rewrite(event).unwrap(), expected);
        for text in ["[]", "{}", r#"{"expirytime":"a","expirytime":"b"}"#, r#"{"expirytime":"a"}x"#] {
            assert!(rewrite(text).is_err(), "{text}");
        }
    }

    /// Events with texts of any characters, in all fields that are read.
    fn events() -> impl Strategy<Value = Event> {
        let texts = prop::collection::vec("(\\PC|[\\x00-\\x1f\\x7f\u{fffe}\u{ffff}\"\\\\]){0,12}", 6);
        let actions = prop::sample::select(&["scale_out", "scale_in", "set_capacity", "notify"][..]);
        let times = (0..4_000_000_000_000_i64, 0..100_000_000_u64);
        (texts, actions, times, 0..4_usize, any::<u64>(), any::<bool>()).prop_map(
            |(texts, action, (at, expires_after), alerts, sequence, has_traceparent)| {
                let mut event = sample(alerts, &texts[0]);
                let traceparent =
                    has_traceparent.then(|| format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16)));
                event.trigger = Arc::new(Trigger {
                    receiver: texts[1].clone(),
                    group_key: texts[2].clone(),
                    traceparent,
                    ..(*event.trigger).clone()
                });
                Arc::make_mut(&mut event.target).name.clone_from(&texts[3]);
                event.key = event.target.key();
                event.parameters = [(texts[4].clone(), texts[5].clone())].into();
                for (index, alert) in event.alerts.iter_mut().enumerate() {
                    alert.fingerprint = texts[index].as_str().into();
                    alert.starts_at = Time::from_nanos(at.saturating_mul(1_000_000) - index as i64);
                }
                Event {
                    action,
                    sequence,
                    time: Time::from_millis(at),
                    expires_after: Duration::from_millis(expires_after),
                    phase: if has_traceparent { Phase::Firing } else { Phase::Resolved },
                    ..event
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(event in events()) {
            let text = event.encode(SizeLimit::NONE);
            let document = EventDocument::read(&text).unwrap();
            prop_assert_eq!(document.header().unwrap(), event.header());
            prop_assert_eq!(document.id(), Some(&*event.id));
            prop_assert_eq!(document.subject(), Some(event.key.as_str()));
            prop_assert_eq!(document.rule(), Some(event.rule.as_str()));
            prop_assert_eq!(document.action(), Some(event.action));
            prop_assert_eq!(document.episode(), Some(&*event.episode.id));
            let fingerprints: Vec<&str> = event.alerts.iter().map(|alert| &*alert.fingerprint).collect();
            prop_assert_eq!(document.fingerprints().collect::<Vec<_>>(), fingerprints);
            prop_assert!(text.starts_with(&id_prefix(&event.id)));
        }

        #[test]
        fn another_expirytime_gives_the_event_that_expires_then(event in events(), millis in 0..100_000_000_u64) {
            let other = Event { expires_after: Duration::from_millis(millis), ..event.clone() };
            let text = event.encode(SizeLimit::NONE);
            let rewritten = EventDocument::read(&text).unwrap().with_expirytime(other.expirytime());
            prop_assert_eq!(rewritten.unwrap(), other.encode(SizeLimit::NONE));
        }

        #[test]
        fn no_text_and_no_damage_causes_a_panic(text in ".{0,200}", at in 0usize..2000, with in any::<char>()) {
            let read = |text: &str| {
                let _ = EventHeader::read(text);
                let _ = EventDocument::read(text).map(|event| event.fingerprints().count());
                let _ = rewrite(text);
            };
            read(&text);
            let mut damaged: Vec<char> = PUBLISHED.chars().collect();
            if let Some(char) = damaged.get_mut(at) {
                *char = with;
            }
            read(&damaged.into_iter().collect::<String>());
        }
    }
}
