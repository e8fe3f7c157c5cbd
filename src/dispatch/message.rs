//! What messages of SQS and SNS have beside the event: attributes, by which consumers can filter without parsing the
//! body, and the message group.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::domain::header::EventHeader;

/// The maximum length of a message group id.
const MAX_GROUP_CHARS: usize = 128;

/// The type of every message attribute.
pub(in crate::dispatch) const ATTRIBUTE_TYPE: &str = "String";

/// The maximum of [`attribute_bytes`] minus the length of the subject, for any event that the bridge encodes:
/// ids have 32 digits, names at most 63 characters, a trace context 55.
pub(in crate::dispatch) const MAX_ATTRIBUTE_BYTES_BESIDE_SUBJECT: usize = 512;

/// The message attributes as names and values. At most ten, none empty, all of type [`ATTRIBUTE_TYPE`]. SNS drops
/// messages with more than ten on their way to a queue with raw delivery.
pub(in crate::dispatch) fn attributes(header: &EventHeader) -> impl Iterator<Item = (&'static str, &str)> {
    let all = [
        ("content-type", "application/cloudevents+json"),
        ("ce-specversion", "1.0"),
        ("ce-id", &header.id),
        ("ce-type", &header.kind),
        ("ce-source", &header.source),
        ("ce-subject", &header.subject),
        ("rule", &header.rule),
        ("traceparent", &header.traceparent),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty())
}

/// The bytes that SQS and SNS count for the attributes in addition to the body: names, types and values.
pub(in crate::dispatch) fn attribute_bytes(header: &EventHeader) -> usize {
    attributes(header).map(|(name, value)| name.len() + ATTRIBUTE_TYPE.len() + value.len()).sum()
}

/// The message group of an event. In a FIFO queue or topic it is the target, otherwise the source: SQS then shares a
/// standard queue fairly between the sources. `None` if there is no source.
pub(in crate::dispatch) fn message_group(header: &EventHeader, fifo: bool) -> Option<Cow<'_, str>> {
    let text = if fifo { &header.subject } else { header.source_name() };
    (fifo || !text.is_empty()).then(|| message_group_id(text))
}

/// `text` as message group id: unchanged if it is allowed, otherwise its SHA-256.
fn message_group_id(text: &str) -> Cow<'_, str> {
    let allowed = (1..=MAX_GROUP_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if allowed {
        return text.into();
    }
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Time;

    #[test]
    fn message_group_ids_are_what_sqs_allows() {
        assert_eq!(message_group_id("eks/nodegroup/-/-/a%20b/-/w"), "eks/nodegroup/-/-/a%20b/-/w");
        assert_eq!(message_group_id(&"x".repeat(128)).len(), 128);
        let long = "x".repeat(129);
        let hashed = message_group_id(&long);
        assert_eq!((hashed.len(), &hashed), (64, &message_group_id(&long)));
        for odd in ["a b", "ü", "\u{7f}", ""] {
            assert_eq!(message_group_id(odd).len(), 64, "{odd:?}");
        }
        assert_eq!(message_group_id(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    fn header() -> EventHeader {
        EventHeader {
            id: "b3f0".into(),
            kind: "io.scalebridge.scale_out.v1".into(),
            source: "/scalebridge/prod-eu".into(),
            subject: "eks/nodegroup/-/-/prod-eu/-/workers".into(),
            sequence: 1,
            expirytime: Time::from_millis(0),
            traceparent: "00-1-2-00".into(),
            rule: "pods".into(),
            action: "scale_out".into(),
            oldest_starts_at: None,
        }
    }

    #[test]
    fn attributes_are_few_never_empty_and_counted() {
        let mut header = header();
        assert_eq!(attributes(&header).count(), 8);
        header.traceparent = "".into();
        header.rule = "".into();
        let names: Vec<_> = attributes(&header).map(|(name, _)| name).collect();
        assert_eq!(names, ["content-type", "ce-specversion", "ce-id", "ce-type", "ce-source", "ce-subject"]);
        let by_hand = 12 + 28 + 14 + 3 + 5 + 4 + 7 + 27 + 9 + 20 + 10 + 35 + 6 * 6;
        assert_eq!(attribute_bytes(&header), by_hand);
    }

    #[test]
    fn the_longest_attributes_are_within_the_bound() {
        let mut header = header();
        header.kind = "io.scalebridge.set_capacity.v1".into();
        header.id = "f".repeat(32).into();
        header.source = format!("/scalebridge/{}", "s".repeat(63)).into();
        header.rule = "r".repeat(63).into();
        header.traceparent = "0".repeat(55).into();
        let beside_subject = attribute_bytes(&header) - header.subject.len();
        assert!(beside_subject <= MAX_ATTRIBUTE_BYTES_BESIDE_SUBJECT, "{beside_subject}");
    }
}
