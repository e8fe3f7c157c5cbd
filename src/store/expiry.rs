//! Rewrites `expirytime` in the JSON text of an event without changing any other byte.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::time::Time;

#[derive(Deserialize)]
struct EventExpiry<'a> {
    #[serde(borrow)]
    expirytime: &'a RawValue,
}

/// The event with this `expirytime`. The JSON parser locates the old value, so neither label values nor whitespace
/// can be mistaken for it.
///
/// # Errors
/// The text is not a JSON object with exactly one `expirytime`.
pub(super) fn rewrite(event: &str, expirytime: Time) -> Result<String, serde_json::Error> {
    let parsed: EventExpiry<'_> = serde_json::from_str(event)?;
    let old = parsed.expirytime.get();
    // `old` is borrowed from `event`, so the difference of the addresses is its offset.
    let start = old.as_ptr().addr() - event.as_ptr().addr();
    let end = start + old.len();
    Ok(format!("{}\"{}\"{}", &event[..start], expirytime.to_millis_string(), &event[end..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn later() -> Time {
        Time::parse("2027-01-02T03:04:05.006Z").unwrap()
    }

    #[test]
    fn only_the_expirytime_of_the_published_event_changes() {
        let event = include_str!("../../tests/fixtures/event.json");
        let rewritten = rewrite(event, later()).unwrap();
        let differ: Vec<(&str, &str)> =
            event.lines().zip(rewritten.lines()).filter(|(old, new)| old != new).collect();
        let [(old, new)] = differ[..] else { panic!("{differ:?}") };
        assert!(old.contains("\"expirytime\": \"2026-11-22T17:55:20.062Z\""), "{old}");
        assert_eq!(new, old.replace("2026-11-22T17:55:20.062Z", "2027-01-02T03:04:05.006Z"));
        assert_eq!(rewritten.len(), event.len());
    }

    #[test]
    fn similar_text_elsewhere_is_not_changed() {
        let event = r#"{"a":"\"expirytime\":\"x\"","data":{"expirytime":"in"}, "expirytime" : "old" ,"z":[{"expirytime":1}]}"#;
        let expected = event.replace("\"old\"", "\"2027-01-02T03:04:05.006Z\"");
        assert_eq!(rewrite(event, later()).unwrap(), expected);
    }

    #[test]
    fn invalid_events_are_rejected() {
        for text in ["", "[]", "{}", r#"{"expirytime":"a","expirytime":"b"}"#, r#"{"expirytime":"a"}x"#] {
            assert!(rewrite(text, later()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn all_bytes_around_it_are_unchanged(before in "\\PC{0,40}", after in "\\PC{0,40}", old in "\\PC{0,30}") {
            let quoted = |text: &str| serde_json::to_string(text).unwrap();
            let (head, tail) = (format!("{{\"ä\":{},\"expirytime\":", quoted(&before)), format!(",\"z\":{}}}", quoted(&after)));
            let rewritten = rewrite(&format!("{head}{}{tail}", quoted(&old)), later()).unwrap();
            prop_assert_eq!(rewritten, format!("{head}\"2027-01-02T03:04:05.006Z\"{tail}"));
        }
    }
}
