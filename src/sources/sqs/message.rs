//! What a message of the queue contains: a notification, or an envelope of SNS around one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::Settings;
use crate::domain::notification::Notification;
use crate::domain::time::Time;
use crate::json::Object;
use crate::sources::{ParseError, alertmanager};

/// The longest text of an envelope that an error quotes.
const MAX_QUOTED_CHARS: usize = 200;

/// A message whose envelope is removed.
#[derive(Debug)]
pub(crate) struct OpenedMessage<'b> {
    /// The notification in Alertmanager's format.
    pub notification: Cow<'b, str>,
    /// When SNS received it; `None` without an envelope.
    pub sent_at: Option<Time>,
    /// The message attribute `traceparent` in SNS.
    pub traceparent: Option<String>,
}

/// An envelope of SNS. What has no `Type` is none.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    r#type: String,
    #[serde(default)]
    topic_arn: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default)]
    message_attributes: BTreeMap<String, Attribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    #[serde(default)]
    value: String,
}

/// Parses a message as a notification.
///
/// # Errors
/// It is none, or not from one of the topics.
pub(in crate::sources) fn parse(settings: &Settings, body: &[u8]) -> Result<Notification, ParseError> {
    // What is not UTF-8 is no notification either, and the parser says where.
    let Ok(text) = std::str::from_utf8(body) else { return alertmanager::parse(body) };
    let opened = open(settings, text)?;
    let sent_at = opened.sent_at;
    Ok(Notification { sent_at, ..alertmanager::parse(opened.notification.as_bytes())? })
}

/// Removes the envelope of a message, if it has one. The notification itself is not parsed.
///
/// # Errors
/// The envelope contains no notification, or is not from one of the topics.
pub(crate) fn open<'b>(settings: &Settings, body: &'b str) -> Result<OpenedMessage<'b>, ParseError> {
    let Ok(Object(envelope)) = serde_json::from_str::<Object<Envelope>>(body) else {
        return Ok(OpenedMessage { notification: body.into(), sent_at: None, traceparent: None });
    };
    let Envelope { r#type, topic_arn, message, timestamp, mut message_attributes } = envelope;
    if r#type != "Notification" {
        return Err(ParseError::Format(format!(
            "the message is of type {} of SNS; only those of type \"Notification\" are read{}",
            quoted(&r#type),
            if r#type == "SubscriptionConfirmation" { CONFIRM } else { "" }
        )));
    }
    let topic = topic_arn.unwrap_or_default();
    if !settings.topic_arns.contains(&topic) {
        let topic = quoted(&topic);
        return Err(ParseError::Format(format!(
            "the message is from the topic {topic}, which `topic_arns` of the source does not contain"
        )));
    }
    let Some(message) = message else {
        return Err(ParseError::Format("the envelope of SNS has no `Message`".to_owned()));
    };
    Ok(OpenedMessage {
        notification: message.into(),
        sent_at: timestamp.and_then(|text| Time::parse(&text).ok()),
        traceparent: message_attributes.remove("traceparent").map(|attribute| attribute.value),
    })
}

const CONFIRM: &str = ": confirm the subscription, or subscribe the queue as its owner";

/// The beginning of a text of others, with escapes.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(MAX_QUOTED_CHARS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::aws::Access;

    const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:alerts";

    fn settings(topics: &[&str]) -> Settings {
        Settings {
            queue_url: "https://sqs.eu-west-1.amazonaws.com/123456789012/alerts".into(),
            access: Access::default(),
            topic_arns: topics.iter().map(|&topic| topic.to_owned()).collect(),
        }
    }

    fn notification() -> Value {
        let alert = json!({
            "status": "firing", "labels": { "alertname": "a", "odd": "\" \\ \n \u{1} 🦀" }, "annotations": {},
            "startsAt": "2026-11-30T10:00:00Z", "fingerprint": "f",
        });
        json!({ "version": "4", "receiver": "bridge", "alerts": [alert] })
    }

    /// An envelope as SNS sends it.
    fn envelope() -> Value {
        json!({
            "Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "TopicArn": TOPIC,
            "Subject": "scalebridge", "Message": notification().to_string(),
            "Timestamp": "2026-11-30T10:00:01.655Z", "SignatureVersion": "1", "Signature": "EXAMPLE",
            "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/x.pem", "UnsubscribeURL": "https://x",
            "MessageAttributes": { "traceparent": { "Type": "String", "Value": "00-a-b-00" } },
        })
    }

    fn with(mut body: Value, key: &str, value: Value) -> Value {
        body[key] = value;
        body
    }

    fn error(settings: &Settings, body: &Value) -> String {
        parse(settings, body.to_string().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_notification_is_read_bare_and_in_an_envelope_of_a_listed_topic() {
        let bare = parse(&settings(&[]), notification().to_string().as_bytes()).unwrap();
        let sent = parse(&settings(&["other", TOPIC]), envelope().to_string().as_bytes()).unwrap();
        assert_eq!((bare.sent_at, sent.sent_at), (None, Time::parse("2026-11-30T10:00:01.655Z").ok()));
        assert_eq!(Notification { sent_at: None, ..sent }, bare);
        let labels = &bare.alerts[0].as_ref().unwrap().labels;
        assert_eq!(labels.get("odd"), "\" \\ \n \u{1} 🦀");
    }

    #[test]
    fn the_trace_of_the_sender_is_a_message_attribute() {
        let text = envelope().to_string();
        assert_eq!(open(&settings(&[TOPIC]), &text).unwrap().traceparent.as_deref(), Some("00-a-b-00"));
    }

    #[test]
    fn a_message_of_another_topic_is_not_read() {
        for topics in [&[][..], &["arn:aws:sns:eu-west-1:123456789012:other"]] {
            let error = error(&settings(topics), &envelope());
            assert!(error.contains(TOPIC) && error.contains("topic_arns"), "{error}");
        }
        let error = error(&settings(&[TOPIC]), &with(envelope(), "TopicArn", Value::Null));
        assert!(error.contains("topic_arns"), "{error}");
    }

    #[test]
    fn only_notifications_of_sns_are_read() {
        for kind in ["SubscriptionConfirmation", "UnsubscribeConfirmation", "notification", ""] {
            let error = error(&settings(&[TOPIC]), &with(envelope(), "Type", kind.into()));
            assert!(error.contains(&format!("{kind:?}")), "{error}");
            assert_eq!(error.contains("confirm the subscription"), kind == "SubscriptionConfirmation");
        }
    }

    #[test]
    fn an_envelope_without_a_notification_is_an_error() {
        let settings = settings(&[TOPIC]);
        for message in [json!("An alert fires"), json!("{\"version\":\"4\""), json!(""), Value::Null] {
            assert!(!error(&settings, &with(envelope(), "Message", message)).is_empty());
        }
        assert!(!error(&settings, &json!("text")).is_empty());
        assert!(parse(&settings, b"\xff").is_err());
    }

    #[test]
    fn a_time_that_cannot_be_read_is_none() {
        let text = with(envelope(), "Timestamp", "yesterday".into()).to_string();
        assert_eq!(open(&settings(&[TOPIC]), &text).unwrap().sent_at, None);
    }
}
