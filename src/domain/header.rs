//! The fields of an encoded event that delivery needs.
//!
//! An event is stored and sent as the bytes that were encoded when it was emitted. Delivery needs from them what a
//! destination gets besides the body, and how long the event may be sent. `event/encoded.rs` reads them, unless this
//! process has encoded the event itself.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

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

    /// The header that came with the text; `None` if it has to be read, see [`EncodedEvent::header`].
    pub(super) fn known_header(&self) -> Option<Arc<EventHeader>> {
        self.0.header.clone()
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

impl EventHeader {
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
    fn an_unknown_action_counts_as_a_decrease() {
        let decreases = |action| EventHeader::read(&event(action, "[]")).unwrap().decreases_capacity();
        assert!(!decreases("scale_out"));
        assert!(!decreases("notify"));
        assert!(decreases("scale_in"));
        assert!(decreases("set_capacity"));
        assert!(decreases("a_later_action"));
    }
}
