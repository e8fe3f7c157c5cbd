//! The message attributes, which consumers can filter by without parsing the body.

use crate::domain::header::EventHeader;

/// The type of every message attribute.
pub(super) const ATTRIBUTE_TYPE: &str = "String";

/// The maximum of [`attribute_bytes`] minus the length of the subject, for any event that the bridge encodes:
/// ids have 32 digits, names at most 63 characters, a trace context 55.
pub(super) const MAX_ATTRIBUTE_BYTES_BESIDE_SUBJECT: usize = 512;

/// The message attributes as names and values. At most ten, none empty, all of type [`ATTRIBUTE_TYPE`].
pub(super) fn attributes(header: &EventHeader) -> impl Iterator<Item = (&'static str, &str)> {
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

/// The bytes that SQS counts for the attributes in addition to the body: names, types and values.
pub(super) fn attribute_bytes(header: &EventHeader) -> usize {
    attributes(header).map(|(name, value)| name.len() + ATTRIBUTE_TYPE.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Time;

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
