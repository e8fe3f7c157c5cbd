//! What a Lambda function is invoked with, and what it answers: an event, a list of events, or messages of a queue by an
//! event source mapping with `ReportBatchItemFailures`.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::outcome::{Answer, Outcome};

/// What the function is invoked with.
#[derive(Debug)]
pub enum Invocation {
    Event(Box<RawValue>),
    Events(Vec<Box<RawValue>>),
    Messages(Vec<Message>),
}

/// A message of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub body: String,
    /// Of a FIFO queue. A standard queue has message groups as well, which promise no order.
    pub group: Option<String>,
}

/// Messages that stay in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    pub batch_item_failures: Vec<ItemFailure>,
}

/// A message that stays in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemFailure {
    pub item_identifier: String,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    message_id: String,
    body: String,
    event_source: String,
    #[serde(rename = "eventSourceARN", default)]
    queue_arn: String,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Deserialize, Default)]
struct Attributes {
    #[serde(rename = "MessageGroupId")]
    group: Option<String>,
}

impl Invocation {
    /// Reads a payload.
    ///
    /// # Errors
    /// It is neither an object nor a list, or has records that are not of SQS.
    pub fn read(payload: &str) -> Result<Self, String> {
        if payload.trim_start().starts_with('[') {
            let events = serde_json::from_str(payload).map_err(|error| format!("the payload: {error}"))?;
            return Ok(Self::Events(events));
        }
        let envelope: Envelope =
            serde_json::from_str(payload).map_err(|error| format!("the payload: {error}"))?;
        let Some(records) = envelope.records else {
            let event = RawValue::from_string(payload.trim().to_owned());
            return event.map(Self::Event).map_err(|error| format!("the payload: {error}"));
        };
        if let Some(other) = records.iter().find(|record| record.event_source != "aws:sqs") {
            return Err(format!("records of {} are not supported; map a queue of SQS", other.event_source));
        }
        let message = |record: Record| Message {
            id: record.message_id,
            body: record.body,
            group: record.attributes.group.filter(|_| record.queue_arn.ends_with(".fifo")),
        };
        Ok(Self::Messages(records.into_iter().map(message).collect()))
    }
}

/// The messages of a batch that are still handled: none of a FIFO group after one of it has failed, since the queue would
/// deliver that one later.
#[derive(Debug, Default)]
pub struct Batch {
    failed_groups: HashSet<String>,
    response: BatchResponse,
}

impl Batch {
    /// Whether a message is handled. If not, it stays in the queue.
    pub fn begins(&mut self, message: &Message) -> bool {
        let is_behind = message.group.as_ref().is_some_and(|group| self.failed_groups.contains(group));
        if is_behind {
            self.keep(message);
        }
        !is_behind
    }

    /// A message was handled.
    pub fn ends(&mut self, message: &Message, answer: &Answer) {
        if answer.outcome == Outcome::Retry {
            self.keep(message);
        }
    }

    fn keep(&mut self, message: &Message) {
        self.failed_groups.extend(message.group.clone());
        self.response.batch_item_failures.push(ItemFailure { item_identifier: message.id.clone() });
    }

    /// What is answered for the batch.
    pub fn response(self) -> BatchResponse {
        self.response
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(id: &str, group: Option<&str>) -> serde_json::Value {
        let attributes =
            group.map_or(json!({}), |group| json!({ "MessageGroupId": group, "SentTimestamp": "1" }));
        json!({
            "messageId": id, "receiptHandle": "x", "body": format!("{{\"n\":\"{id}\"}}"), "attributes": attributes,
            "messageAttributes": {}, "md5OfBody": "x", "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-west-1:111122223333:scaling.fifo", "awsRegion": "eu-west-1",
        })
    }

    fn messages(records: &[serde_json::Value]) -> Vec<Message> {
        match Invocation::read(&json!({ "Records": records }).to_string()).unwrap() {
            Invocation::Messages(messages) => messages,
            other => panic!("{other:?}"),
        }
    }

    /// The ids of the messages that stay, if those with these ids are to be tried again.
    fn left(messages: &[Message], retried: &[&str]) -> (Vec<String>, Vec<String>) {
        let (mut batch, mut handled) = (Batch::default(), Vec::new());
        for message in messages {
            if !batch.begins(message) {
                continue;
            }
            handled.push(message.id.clone());
            let outcome =
                if retried.contains(&message.id.as_str()) { Outcome::Retry } else { Outcome::Refused };
            let answer = Answer { id: String::new(), outcome, from: None, to: None, reason: String::new() };
            batch.ends(message, &answer);
        }
        let response = serde_json::to_value(batch.response()).unwrap();
        let left = response["batchItemFailures"].as_array().unwrap();
        (left.iter().map(|item| item["itemIdentifier"].as_str().unwrap().to_owned()).collect(), handled)
    }

    #[test]
    fn an_event_a_list_and_messages_of_a_queue_are_told_apart() {
        assert!(
            matches!(Invocation::read(r#" {"id":"x"} "#).unwrap(), Invocation::Event(event) if event.get() == r#"{"id":"x"}"#)
        );
        assert!(
            matches!(Invocation::read(r#"[{"id":"x"},{"id":"y"}]"#).unwrap(), Invocation::Events(events) if events.len() == 2)
        );
        let read = messages(&[record("1", Some("a")), record("2", None)]);
        assert_eq!(read[0], Message { id: "1".into(), body: r#"{"n":"1"}"#.into(), group: Some("a".into()) });
        assert_eq!(read[1].group, None);
        for payload in [
            "",
            "7",
            "null",
            r#"{"Records":[{"eventSource":"aws:s3","messageId":"1","body":""}]}"#,
            r#"{"Records":[{}]}"#,
        ] {
            assert!(Invocation::read(payload).is_err(), "{payload}");
        }
    }

    #[test]
    fn a_message_group_of_a_standard_queue_is_for_fairness_only() {
        let mut fair = record("1", Some("prod-eu"));
        fair["eventSourceARN"] = json!("arn:aws:sqs:eu-west-1:111122223333:scaling");
        assert_eq!(messages(&[fair])[0].group, None);
    }

    #[test]
    fn a_message_that_is_tried_again_keeps_the_later_ones_of_its_group_only() {
        let fifo = messages(&[
            record("1", Some("a")),
            record("2", Some("b")),
            record("3", Some("a")),
            record("4", Some("b")),
        ]);
        assert_eq!(
            left(&fifo, &["1"]),
            (vec!["1".into(), "3".into()], vec!["1".into(), "2".into(), "4".into()])
        );
        let standard = messages(&[record("1", None), record("2", None), record("3", None)]);
        assert_eq!(left(&standard, &["2"]), (vec!["2".into()], vec!["1".into(), "2".into(), "3".into()]));
    }

    #[test]
    fn a_refused_message_does_not_stay() {
        let fifo = messages(&[record("1", Some("a")), record("2", Some("a"))]);
        assert_eq!(left(&fifo, &[]), (Vec::new(), vec!["1".into(), "2".into()]));
    }
}
