//! Decision records: the decisions of one transaction as one JSON document. A record is written with every
//! transaction and rarely read, so it borrows what it writes; what is read is owned.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::blocker::Blocker;
use super::labels::Labels;
use super::notification::Status;
use super::phase::Phase;
use super::time::{DisplayTime, Millis};
use super::trigger::Trigger;
use super::verdict::Verdict;
use crate::json::lenient;

/// The decisions of one transaction. Records of pauses have `at` and no decisions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecisionRecord<'a> {
    /// The store's time, RFC 3339 with milliseconds.
    pub at: Millis,
    /// The notification that was processed; `None` if targets were due or a delivery was withdrawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification: Option<Cow<'a, Trigger>>,
    /// Whether Alertmanager left alerts out of the notification.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// In the order in which the engine made them.
    #[serde(default)]
    pub decisions: Vec<DecisionEntry<'a>>,
    /// The alerts of the notification and those of deferred actions, by fingerprint.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alerts: BTreeMap<Cow<'a, str>, RecordedAlert<'a>>,
}

impl DecisionRecord<'_> {
    /// Whether an encoded record can contain this string as a value: a cheap test of its text before the record
    /// is parsed. Never false for a record that contains it.
    pub fn may_contain(record: &str, value: &str) -> bool {
        // As `json` writes it, with escapes and quotation marks.
        serde_json::to_string(value).map_or(true, |json| record.contains(&json))
    }
}

/// One decision. What is unknown or does not apply is absent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecisionEntry<'a> {
    /// The rule's name; absent if no rule matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Cow<'a, str>>,
    /// The target's key, as in [`super::target::TargetKey`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Cow<'a, str>>,
    /// The phase of the episode that the decision is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The episode's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub episode: Option<Cow<'a, str>>,
    /// `scale_out`, `scale_in`, `set_capacity` or `notify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Cow<'a, str>>,
    /// By how much the event changes capacity, as [`super::event::Adjustment::to_short`] writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Cow<'a, str>>,
    /// The outcome.
    pub verdict: Verdict,
    /// The reason, where the verdict alone does not give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Cow<'a, str>>,
    /// What blocks the action; `detail` is then absent, since this gives it.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<Cow<'a, Blocker>>,
    /// When a deferred action is rechecked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
    /// Fingerprints of the alerts concerned: keys of [`DecisionRecord::alerts`].
    #[serde(default)]
    pub alerts: Vec<Cow<'a, str>>,
    /// The id of the emitted event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Cow<'a, str>>,
    /// The whole event that a rule in `mode: shadow` would have emitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Box<RawValue>>,
    /// The destination, for a decision about one delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Cow<'a, str>>,
}

/// An alert as it was when the decision was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordedAlert<'a> {
    /// `firing` or `resolved`.
    pub status: Status,
    /// The source that sent it, if that is not the source of the notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Cow<'a, str>>,
    /// RFC 3339, with as many digits as Alertmanager sent.
    pub starts_at: DisplayTime,
    /// The same for the end; absent while the alert fires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<DisplayTime>,
    /// The alert's labels, overridden by those of its source.
    #[serde(default)]
    pub labels: Cow<'a, Labels>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const FULL: &str = concat!(
        r#"{"at":"2026-11-22T16:55:20.060Z","notification":{"source":"prod","receiver":"scalebridge","#,
        r#""group_key":"{}:{x=\"y\"}","external_url":"http://am:9093","reason":"new alerts","#,
        r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},"truncated":true,"#,
        r#""decisions":[{"rule":"nodes","target":"eks/nodegroup/-/-/-/-/workers","phase":"resolved","#,
        r#""episode":"e","action":"scale_in","verdict":"shadowed","detail":"why \"not\"","#,
        r#""until":"2026-11-22T17:55:20.000Z","alerts":["f","\ttab"],"event":"id","#,
        r#""shadow":{"b":1.50,"a":[ ]},"destination":"queue"},{"verdict":"unmatched","alerts":[]}],"#,
        r#""alerts":{"\ttab":{"status":"firing","starts_at":"2026-11-22T16:55:15.05042Z","labels":{}},"#,
        r#""f":{"status":"resolved","starts_at":"2026-11-22T16:00:00Z","ends_at":"2026-11-22T16:50:00.5Z","#,
        r#""labels":{"namespace":"shop","pod":"a"}}}}"#,
    );

    fn write(record: &DecisionRecord<'_>) -> String {
        serde_json::to_string(record).unwrap()
    }

    #[test]
    fn a_full_record_is_written_as_it_was_read() {
        let read: DecisionRecord<'static> = serde_json::from_str(FULL).unwrap();
        assert_eq!(write(&read), FULL);
        let entry = &read.decisions[0];
        let copy = DecisionEntry {
            rule: entry.rule.as_deref().map(Cow::Borrowed),
            shadow: entry.shadow.clone(),
            ..entry.clone()
        };
        let borrowed = DecisionRecord {
            notification: read.notification.as_deref().map(Cow::Borrowed),
            decisions: vec![copy, read.decisions[1].clone()],
            alerts: read.alerts.iter().map(|(key, alert)| (Cow::Borrowed(&**key), alert.clone())).collect(),
            ..read
        };
        assert_eq!(write(&borrowed), FULL, "borrowed or owned, it is the same text");
    }

    #[test]
    fn absent_fields_are_neither_read_nor_written() {
        let minimal = r#"{"at":"2026-11-22T16:55:20.062Z","decisions":[]}"#;
        assert_eq!(write(&serde_json::from_str(minimal).unwrap()), minimal);
        let pause = json!({ "at": "2026-11-22T16:55:20.062Z", "paused": { "id": 1 }, "author": "ann" });
        let read: DecisionRecord<'static> = serde_json::from_str(&pause.to_string()).unwrap();
        assert_eq!(write(&read), minimal);
    }

    proptest! {
        #[test]
        fn a_record_may_contain_what_it_contains(
            rule in "\\PC{0,8}",
            fingerprint in "(\\PC|[\\x00-\\x1f\\x7f\u{fffe}\u{ffff}\"\\\\]){0,12}",
        ) {
            let mut record: DecisionRecord<'_> = serde_json::from_str(FULL).unwrap();
            record.decisions[0].rule = Some(Cow::Borrowed(&rule));
            record.decisions[1].alerts = vec![Cow::Borrowed(&fingerprint)];
            let text = write(&record);
            for value in [&*rule, &fingerprint, Verdict::Shadowed.as_str(), Verdict::Unmatched.as_str()] {
                prop_assert!(DecisionRecord::may_contain(&text, value), "{value:?}");
            }
            prop_assert!(!DecisionRecord::may_contain(&text, Verdict::Emitted.as_str()));
        }
    }
}
