//! SNS topics, called with `PublishBatch`.
//!
//! A message has the attributes of one in SQS, by which subscriptions can filter. For a FIFO topic, the message group is
//! the target and the deduplication id is the event's id. For a standard topic, the message group is the source, which
//! SNS passes to standard queues.

pub(super) mod schema;
pub(super) mod settings;

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_sns::Client;
use aws_sdk_sns::error::BuildError;
use aws_sdk_sns::operation::publish_batch::PublishBatchOutput;
use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};

use super::message::{ATTRIBUTE_TYPE, attribute_bytes, attributes, message_group};
use super::{Answer, Class, Destination, Failure, Limits, OutgoingEvent, aws};
pub(super) use settings::Settings;

/// Quota of SNS: entries per call.
const MAX_ENTRIES: usize = 10;

pub(super) type Clients = aws::SharedClients<Client>;

/// A client for destinations with this key.
pub(super) fn client(config: &SdkConfig, key: &aws::Key) -> Client {
    let mut config = aws_sdk_sns::config::Builder::from(config);
    config.set_timeout_config(Some(key.timeouts()));
    if let Some(endpoint) = key.endpoint_url() {
        config.set_endpoint_url(Some(endpoint.to_owned()));
    }
    Client::from_conf(config.build())
}

#[derive(Debug)]
pub(crate) struct Sns {
    client: Client,
    topic_arn: String,
    fifo: bool,
    max_message_bytes: usize,
    credentials: aws::CredentialsHandle,
}

impl Sns {
    /// The topic is called at the client's endpoint.
    pub(crate) fn new(client: Client, settings: &Settings) -> Self {
        Self {
            client,
            topic_arn: settings.topic_arn.clone(),
            fifo: settings.fifo,
            max_message_bytes: settings.max_message_bytes,
            credentials: aws::CredentialsHandle::default(),
        }
    }

    /// The same destination, with the credentials of its client.
    pub(in crate::dispatch) fn with_credentials(self, credentials: aws::CredentialsHandle) -> Self {
        Self { credentials, ..self }
    }

    /// The id of an entry is its index in the batch.
    fn entry(&self, index: usize, event: &OutgoingEvent) -> Result<PublishBatchRequestEntry, BuildError> {
        let header = &event.header;
        let mut entry = PublishBatchRequestEntry::builder().id(index.to_string()).message(&*event.body);
        for (name, value) in attributes(header) {
            let value =
                MessageAttributeValue::builder().data_type(ATTRIBUTE_TYPE).string_value(value).build()?;
            entry = entry.message_attributes(name, value);
        }
        let group = message_group(header, self.fifo).map(std::borrow::Cow::into_owned);
        let deduplication_id = self.fifo.then(|| header.id.to_string());
        entry.set_message_group_id(group).set_message_deduplication_id(deduplication_id).build()
    }
}

impl Destination for Sns {
    /// The limit of a topic is for one message and for all messages of a call.
    fn limits(&self) -> Limits {
        let bytes = self.max_message_bytes;
        Limits { events: MAX_ENTRIES, bytes, max_event_bytes: bytes }
    }

    /// As counted by SNS: the body, and the name, type and value of each attribute.
    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        event.body.len() + attribute_bytes(&event.header)
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        let entries: Result<Vec<_>, _> =
            batch.iter().enumerate().map(|(index, event)| self.entry(index, event)).collect();
        // All that is required is there.
        let entries = entries.map_err(|error| Failure::new(Class::Misconfigured, error.to_string()))?;
        let call = self.client.publish_batch().topic_arn(&self.topic_arn);
        let call = call.set_publish_batch_request_entries(Some(entries)).customize();
        let call = call.interceptor(aws::BOUNDED_RESPONSE);
        let output = call.send().await.map_err(|error| self.credentials.failure(&error))?;
        Ok(answers(batch.len(), &output))
    }
}

/// One answer for each of `count` entries. An entry that is missing in the response is a failure.
fn answers(count: usize, output: &PublishBatchOutput) -> Vec<Answer> {
    let mut answers_by_id: HashMap<&str, Answer> = HashMap::with_capacity(count);
    answers_by_id.extend(output.successful().iter().filter_map(|entry| {
        let message_id: String = entry.message_id().unwrap_or_default().chars().take(100).collect();
        Some((entry.id()?, Ok(Some(format!("MessageId {message_id}")))))
    }));
    answers_by_id.extend(output.failed().iter().map(|entry| {
        (entry.id(), Err(aws::entry_failure(entry.code(), entry.message(), entry.sender_fault())))
    }));
    let missing = || Err(aws::missing_answer("SNS"));
    (0..count).map(|index| answers_by_id.remove(index.to_string().as_str()).unwrap_or_else(missing)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::dispatch::stub::{Reply, Request, Stub, outgoing, outgoing_about};

    const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:scaling";

    fn topic(stub: &Stub, fifo: bool) -> Sns {
        let settings = Settings {
            topic_arn: format!("{TOPIC}{}", if fifo { ".fifo" } else { "" }),
            fifo,
            access: aws::Access::default(),
            max_message_bytes: 256 * 1024,
        };
        Sns::new(Client::new(&stub.sdk_config()), &settings)
    }

    /// A response with these successful and failed entries.
    fn reply(successful: &[&str], failed: &[(&str, &str, bool)]) -> Reply {
        let successful: String = successful
            .iter()
            .map(|id| format!("<member><Id>{id}</Id><MessageId>m-{id}</MessageId></member>"))
            .collect();
        let failed: String = failed
            .iter()
            .map(|(id, code, fault)| {
                format!(
                    "<member><Id>{id}</Id><Code>{code}</Code><Message>said so</Message>\
                     <SenderFault>{fault}</SenderFault></member>"
                )
            })
            .collect();
        Reply::text(
            200,
            &format!(
                "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishBatchResult>\
                 <Successful>{successful}</Successful><Failed>{failed}</Failed></PublishBatchResult>\
                 <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></PublishBatchResponse>"
            ),
        )
    }

    /// The parameters of a call, decoded.
    fn parameters(request: &Request) -> BTreeMap<String, String> {
        let decoded = |text: &str| {
            let text = text.replace('+', " ");
            percent_encoding::percent_decode_str(&text).decode_utf8().unwrap().into_owned()
        };
        let body = std::str::from_utf8(&request.body).unwrap();
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
    }

    /// The attributes of the first entry, in the order of their names.
    fn attributes_of(parameters: &BTreeMap<String, String>) -> BTreeMap<String, (String, String)> {
        let entry = "PublishBatchRequestEntries.member.1.MessageAttributes.entry";
        let value = |at: usize, name: &str| parameters.get(&format!("{entry}.{at}.{name}")).cloned();
        (1..)
            .map_while(|at| {
                let kind = value(at, "Value.DataType").unwrap_or_default();
                Some((value(at, "Name")?, (kind, value(at, "Value.StringValue").unwrap_or_default())))
            })
            .collect()
    }

    #[tokio::test]
    async fn a_fifo_entry_is_right_field_by_field() {
        let stub = Stub::start(|_| reply(&["0"], &[])).await;
        let event = outgoing(7);
        let answers = topic(&stub, true).send(std::slice::from_ref(&event)).await;
        assert_eq!(answers, Ok(vec![Ok(Some("MessageId m-0".into()))]));
        let parameters = parameters(&stub.only_request());
        let entry = |name: &str| parameters[&format!("PublishBatchRequestEntries.member.1.{name}")].clone();
        assert_eq!(parameters["Action"], "PublishBatch");
        assert_eq!(parameters["TopicArn"], format!("{TOPIC}.fifo"));
        assert_eq!((entry("Id"), entry("Message")), ("0".to_owned(), event.body.to_string()));
        assert_eq!(entry("MessageGroupId"), "eks/nodegroup/-/-/prod-eu/-/workers-7");
        assert_eq!(entry("MessageDeduplicationId"), "00000000000000000000000000000007");
        let expected = attributes(&event.header)
            .map(|(name, value)| (name.to_owned(), ("String".to_owned(), value.to_owned())));
        assert_eq!(attributes_of(&parameters), expected.collect());
    }

    #[tokio::test]
    async fn a_standard_entry_has_its_source_as_group_and_no_deduplication() {
        let stub = Stub::start(|_| reply(&["0"], &[])).await;
        topic(&stub, false).send(&[outgoing(7)]).await.unwrap();
        let parameters = parameters(&stub.only_request());
        assert_eq!(parameters["PublishBatchRequestEntries.member.1.MessageGroupId"], "prod-eu");
        assert!(!parameters.keys().any(|name| name.ends_with("MessageDeduplicationId")), "{parameters:?}");
    }

    #[tokio::test]
    async fn each_event_gets_the_answer_of_its_id() {
        let stub = Stub::start(|_| {
            let failed = [
                ("2", "InternalError", false),
                ("1", "InvalidParameter", true),
                ("4", "KMSThrottling", true),
                ("5", "AuthorizationError", true),
            ];
            reply(&["3", "0"], &failed)
        })
        .await;
        let batch: Vec<_> = (0..7).map(outgoing).collect();
        let answers = topic(&stub, true).send(&batch).await.unwrap();
        let found: Vec<_> = answers
            .iter()
            .map(|answer| answer.as_ref().map(drop).map_err(|failure| (failure.class, failure.uncertain)))
            .collect();
        let expected = [
            Ok(()),
            Err((Class::Permanent, false)),
            Err((Class::Transient, false)),
            Ok(()),
            Err((Class::Throttled, false)),
            Err((Class::Misconfigured, false)),
            Err((Class::Transient, true)),
        ];
        assert_eq!(found, expected, "6 is missing in the response");
    }

    #[tokio::test]
    async fn a_call_that_fails_is_the_failure_of_all() {
        for (status, code, class) in [
            (404, "NotFound", Class::Misconfigured),
            (403, "AuthorizationError", Class::Misconfigured),
            (400, "BatchRequestTooLong", Class::Permanent),
            (500, "InternalError", Class::Transient),
        ] {
            let text = format!(
                "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type>\
                 <Code>{code}</Code><Message>said so</Message></Error></ErrorResponse>"
            );
            let stub = Stub::start(move |_| Reply::text(status, &text)).await;
            let failure = topic(&stub, true).send(&[outgoing(0), outgoing(1)]).await.unwrap_err();
            assert_eq!((failure.class, failure.uncertain), (class, false), "{failure}");
            assert_eq!(failure.message, format!("{code}: said so"));
            assert_eq!(stub.requests().len(), 1, "the SDK does not retry");
        }
    }

    #[tokio::test]
    async fn event_bytes_are_what_sns_counts() {
        let stub = Stub::start(|_| reply(&["0"], &[])).await;
        let (topic, event) = (topic(&stub, true), outgoing_about(1, "t"));
        topic.send(std::slice::from_ref(&event)).await.unwrap();
        let parameters = parameters(&stub.only_request());
        let attributes = attributes_of(&parameters);
        let counted: usize =
            attributes.iter().map(|(name, (kind, value))| name.len() + kind.len() + value.len()).sum();
        let message = &parameters["PublishBatchRequestEntries.member.1.Message"];
        assert_eq!(topic.event_bytes(&event), message.len() + counted);
        let limits = topic.limits();
        assert_eq!((limits.bytes, limits.max_event_bytes), (262_144, 262_144), "of one message and of all");
    }
}
