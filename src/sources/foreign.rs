//! Bodies of another kind than that of the source, to say which kind to configure, and to read captured bodies.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::json::{Object, informative};

/// A format that is recognized by a few of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Alertmanager's webhook, version "4".
    Alertmanager,
    /// Grafana's webhook, version "1".
    Grafana,
    /// An array of alerts.
    Prometheus,
    /// A message of SNS, with a notification or a confirmation of the subscription in it.
    Sns,
}

impl Shape {
    /// Recognizes a body, whether it is valid in all its parts or not.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default, deserialize_with = "informative")]
            version: Option<String>,
            #[serde(default)]
            alerts: Option<IgnoredAny>,
            #[serde(default, rename = "Type", deserialize_with = "informative")]
            sns_type: Option<String>,
            #[serde(default, rename = "TopicArn", deserialize_with = "informative")]
            topic_arn: Option<String>,
        }
        if body.trim_ascii_start().starts_with(b"[") {
            return serde_json::from_slice::<Vec<Object<IgnoredAny>>>(body)
                .is_ok()
                .then_some(Self::Prometheus);
        }
        let Object(head) = serde_json::from_slice::<Object<Head>>(body).ok()?;
        match (head.version.as_deref(), head.alerts.is_some()) {
            (Some("4"), true) => Some(Self::Alertmanager),
            (Some("1"), true) => Some(Self::Grafana),
            _ if head.sns_type.is_some() && head.topic_arn.is_some() => Some(Self::Sns),
            _ => None,
        }
    }

    /// The value of `kind` of the sources that take it.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Alertmanager => "alertmanager",
            Self::Grafana => "grafana",
            Self::Prometheus => "prometheus",
            Self::Sns => "sqs",
        }
    }

    /// What the body is, and how to configure its source.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::Alertmanager => {
                "this is a notification of Alertmanager's webhook: set `kind: alertmanager` for this source, and send it to \
                 /webhook/SOURCE"
            }
            Self::Grafana => {
                "this is a notification of Grafana's webhook contact point: set `kind: grafana` for this source, and send it \
                 to /webhook/SOURCE"
            }
            Self::Prometheus => {
                "these are alerts as Prometheus, vmalert and Thanos Ruler send them: set `kind: prometheus` for this source, \
                 and send them with the path prefix /prometheus/SOURCE"
            }
            Self::Sns => {
                "this is a message of Amazon SNS: subscribe an SQS queue to the topic, and set `kind: sqs` for a source that \
                 polls it; or send the notification itself, without SNS' envelope (raw message delivery)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_recognized_by_a_few_fields() {
        for (body, shape) in [
            (r#"{"version":"4","alerts":[{"broken":1}]}"#, Some(Shape::Alertmanager)),
            (r#"{"receiver":"r","alerts":[],"orgId":1,"version":"1"}"#, Some(Shape::Grafana)),
            (" \n[{\"labels\":1}]", Some(Shape::Prometheus)),
            ("[]", Some(Shape::Prometheus)),
            (
                r#"{"Type":"Notification","TopicArn":"arn:aws:sns:eu-west-1:1:t","Message":"{}"}"#,
                Some(Shape::Sns),
            ),
            (r#"{"Type":"SubscriptionConfirmation","TopicArn":"a","Token":"t"}"#, Some(Shape::Sns)),
            (r#"{"version":"4"}"#, None),
            (r#"{"version":4,"alerts":[]}"#, None),
            (r#"{"version":"2","alerts":[]}"#, None),
            ("[1]", None),
            ("[[{}]]", None),
            ("[{}", None),
            ("{", None),
            ("", None),
            ("\u{FF}", None),
        ] {
            assert_eq!(Shape::of(body.as_bytes()), shape, "{body}");
        }
    }
}
