//! SQS queues, called with `SendMessageBatch`.
//!
//! For a FIFO queue, the message group is the target, so that consumers receive the events of a target in
//! order, and the deduplication id is the event's id, so that a retry after a lost response does not
//! create a second message (within the five minutes of SQS). For a standard queue, the message group is
//! the source, which makes it a fair queue: a storm of one source does not delay the others.

mod call;
pub(super) mod schema;
pub(super) mod settings;

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchOutput;
use bytes::Bytes;

use super::{Answer, Destination, Failure, Limits, OutgoingEvent, aws};
pub(super) use settings::Settings;

/// Quotas of SQS: entries per call, and their total size.
const MAX_ENTRIES: usize = 10;
const MAX_CALL_BYTES: usize = 1024 * 1024;

pub(super) type Clients = aws::SharedClients<Client>;

/// A client for destinations with this key.
pub(super) fn client(config: &SdkConfig, key: &aws::Key) -> Client {
    let mut config = aws_sdk_sqs::config::Builder::from(config);
    config.set_timeout_config(Some(key.timeouts()));
    if let Some(endpoint) = key.endpoint_url() {
        config.set_endpoint_url(Some(endpoint.to_owned()));
    }
    Client::from_conf(config.build())
}

#[derive(Debug)]
pub(crate) struct Sqs {
    client: Client,
    queue_url: String,
    fifo: bool,
    max_message_bytes: usize,
    credentials: aws::CredentialsHandle,
}

impl Sqs {
    /// The request always contains the configured URL of the queue, and is sent to the client's endpoint,
    /// so an emulator or a private endpoint may use another URL for the queue.
    pub(crate) fn new(client: Client, settings: &Settings) -> Self {
        Self {
            client,
            queue_url: settings.queue_url.clone(),
            fifo: settings.fifo,
            max_message_bytes: settings.max_message_bytes,
            credentials: aws::CredentialsHandle::default(),
        }
    }

    /// The same destination, with the credentials of its client.
    pub(in crate::dispatch) fn with_credentials(self, credentials: aws::CredentialsHandle) -> Self {
        Self { credentials, ..self }
    }

    #[cfg(test)]
    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

impl Destination for Sqs {
    fn limits(&self) -> Limits {
        Limits { events: MAX_ENTRIES, bytes: MAX_CALL_BYTES, max_event_bytes: self.max_message_bytes }
    }

    /// As counted by SQS: the body, and the name, type and value of each attribute.
    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        event.body.len() + super::message::attribute_bytes(&event.header)
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        let body = Bytes::from(call::body(&self.queue_url, batch, self.fifo));
        let length = body.len().to_string();
        // The SDK signs, sends and parses the response; the request body is written here.
        let call = self.client.send_message_batch().queue_url(&self.queue_url).customize();
        let call = call.mutate_request(move |request| {
            request.headers_mut().insert("content-length", length.clone());
            *request.body_mut() = body.clone().into();
        });
        let call = call.interceptor(aws::BOUNDED_RESPONSE);
        let output = call.send().await.map_err(|error| self.credentials.failure(&error))?;
        Ok(answers(batch.len(), &output))
    }
}

/// One answer for each of `count` entries. An entry that is missing in the response is a failure.
fn answers(count: usize, output: &SendMessageBatchOutput) -> Vec<Answer> {
    let mut answers_by_id: HashMap<&str, Answer> = HashMap::with_capacity(count);
    answers_by_id.extend(output.successful().iter().map(|entry| {
        let answer = format!("MessageId {}", entry.message_id().chars().take(100).collect::<String>());
        (entry.id(), Ok(Some(answer)))
    }));
    answers_by_id.extend(output.failed().iter().map(|entry| {
        (entry.id(), Err(aws::entry_failure(entry.code(), entry.message(), entry.sender_fault())))
    }));
    let missing = || Err(aws::missing_answer("SQS"));
    (0..count).map(|index| answers_by_id.remove(index.to_string().as_str()).unwrap_or_else(missing)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dispatch::Class;
    use crate::dispatch::stub::{Reply, Stub, outgoing, outgoing_about, sqs_client};

    const QUEUE: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/scaling";

    fn queue(stub: &Stub, fifo: bool) -> Sqs {
        let settings = Settings {
            queue_url: format!("{QUEUE}{}", if fifo { ".fifo" } else { "" }),
            fifo,
            access: aws::Access::default(),
            max_message_bytes: Settings::MAX_MESSAGE_BYTES,
        };
        Sqs::new(sqs_client(stub), &settings)
    }

    /// A response with these successful and failed entries.
    fn reply(successful: &[&str], failed: &[(&str, &str, bool)]) -> Reply {
        let successful: Vec<_> = successful
            .iter()
            .map(|id| json!({ "Id": id, "MessageId": "m", "MD5OfMessageBody": "x" }))
            .collect();
        let failed: Vec<_> = failed
            .iter()
            .map(|(id, code, fault)| json!({ "Id": id, "Code": code, "SenderFault": fault }))
            .collect();
        Reply::ok(json!({ "Successful": successful, "Failed": failed }))
    }

    fn string(value: &str) -> Value {
        json!({ "DataType": "String", "StringValue": value })
    }

    #[tokio::test]
    async fn a_fifo_entry_is_right_field_by_field() {
        let stub = Stub::start(|_| reply(&["0"], &[])).await;
        let event = outgoing(7);
        let answers = queue(&stub, true).send(std::slice::from_ref(&event)).await;
        assert_eq!(answers, Ok(vec![Ok(Some("MessageId m".into()))]));
        let request = stub.only_request();
        assert_eq!(request.headers["x-amz-target"], "AmazonSQS.SendMessageBatch");
        let expected = json!({
            "QueueUrl": "https://sqs.eu-west-1.amazonaws.com/123456789012/scaling.fifo",
            "Entries": [{
                "Id": "0",
                "MessageBody": &*event.body,
                "MessageGroupId": "eks/nodegroup/-/-/prod-eu/-/workers-7",
                "MessageDeduplicationId": "00000000000000000000000000000007",
                "MessageAttributes": {
                    "content-type": string("application/cloudevents+json"),
                    "ce-specversion": string("1.0"),
                    "ce-id": string("00000000000000000000000000000007"),
                    "ce-type": string("io.scalebridge.scale_out.v1"),
                    "ce-source": string("/scalebridge/prod-eu"),
                    "ce-subject": string("eks/nodegroup/-/-/prod-eu/-/workers-7"),
                    "rule": string("pods"),
                    "traceparent": string("00-0000000000000000000000000000000a-000000000000000b-00"),
                },
            }],
        });
        assert_eq!(request.json(), expected);
    }

    #[tokio::test]
    async fn a_standard_entry_has_its_source_as_group_and_no_deduplication() {
        let stub = Stub::start(|_| reply(&["0"], &[])).await;
        queue(&stub, false).send(&[outgoing(7)]).await.unwrap();
        let entry = &stub.only_request().json()["Entries"][0];
        assert_eq!(entry["MessageGroupId"], "prod-eu");
        assert_eq!(entry.get("MessageDeduplicationId"), None);
    }

    #[tokio::test]
    async fn each_event_gets_the_answer_of_its_id() {
        let stub = Stub::start(|_| {
            reply(&["3", "0"], &[("2", "InternalError", false), ("1", "InvalidMessageContents", true)])
        })
        .await;
        let batch: Vec<_> = (0..5).map(outgoing).collect();
        let answers = queue(&stub, true).send(&batch).await.unwrap();
        let classes: Vec<_> =
            answers.into_iter().map(|answer| answer.map(drop).map_err(|failure| failure.class)).collect();
        let expected = [Ok(()), Err(Class::Permanent), Err(Class::Transient), Ok(()), Err(Class::Transient)];
        assert_eq!(classes, expected, "4 is missing in the response");
    }

    #[tokio::test]
    async fn a_call_that_fails_is_the_failure_of_all() {
        let stub = Stub::start(|_| Reply::error(400, "AWS.SimpleQueueService.NonExistentQueue")).await;
        let failure = queue(&stub, true).send(&[outgoing(0), outgoing(1)]).await.unwrap_err();
        assert_eq!(failure.class, Class::Misconfigured);
        assert!(failure.message.starts_with("NonExistentQueue"), "{failure}");
        assert_eq!(stub.requests().len(), 1, "the SDK does not retry");
    }

    #[tokio::test]
    async fn event_bytes_are_what_sqs_counts() {
        let stub = Stub::start(|_| reply(&[], &[])).await;
        let event = outgoing_about(1, "t");
        let call = call::body(QUEUE, std::slice::from_ref(&event), true);
        let call: Value = serde_json::from_slice(&call).unwrap();
        let length = |value: &Value| value.as_str().unwrap().len();
        let entry = &call["Entries"][0];
        let attributes = entry["MessageAttributes"].as_object().unwrap();
        let counted = attributes
            .iter()
            .map(|(name, value)| name.len() + length(&value["DataType"]) + length(&value["StringValue"]));
        assert_eq!(
            queue(&stub, true).event_bytes(&event),
            length(&entry["MessageBody"]) + counted.sum::<usize>()
        );
    }
}
