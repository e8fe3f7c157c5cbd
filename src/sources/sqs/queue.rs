//! The calls of SQS.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
    MessageSystemAttributeName, QueueAttributeName,
};
use tokio::time::timeout;

use super::Settings;
use crate::aws::{self, CredentialsHandle};
use crate::domain::failure::{Class, Failure};
use crate::domain::name::Name;
use crate::domain::time::Time;

/// How long a call may take beyond the time that it waits for messages.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The client's own limit, above that of every call.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Messages in one call, a quota of SQS.
const MAX_MESSAGES: u8 = 10;
/// The maximum size of a response. Ten messages have 1 MiB each, and escapes can double it.
const MAX_RESPONSE_BYTES: usize = 32 * 1024 * 1024;

/// The message attribute with the trace of the sender.
const TRACEPARENT: &str = "traceparent";

/// A queue with its client.
#[derive(Debug)]
pub(crate) struct Queue {
    client: Client,
    credentials: CredentialsHandle,
    url: String,
}

/// A message that was received and is hidden from others for a while.
#[derive(Debug)]
pub(crate) struct QueueMessage {
    /// The id, for the log.
    pub id: String,
    /// The body.
    pub body: String,
    /// When it was sent to the queue.
    pub sent_at: Option<Time>,
    /// The message attribute `traceparent`.
    pub traceparent: Option<String>,
    receipt: String,
}

/// Connects queues, which share clients where they can.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    configs: aws::Configs,
    clients: aws::SharedClients<Client>,
}

impl Clients {
    /// None yet. Their credentials are loaded anew on each `reload`.
    pub(crate) fn new(reload: aws::CredentialsReload) -> Self {
        Self { configs: aws::Configs::new(reload), clients: aws::SharedClients::new() }
    }

    /// Creates the client of a queue. The connection is opened by the first call.
    ///
    /// # Errors
    /// Neither the settings nor the environment have a region.
    pub(crate) async fn connect(&mut self, source: &Name, settings: &Settings) -> anyhow::Result<Queue> {
        let key = aws::Key::new(&settings.access, CLIENT_TIMEOUT);
        let build = |config: &SdkConfig| {
            let mut config = aws_sdk_sqs::config::Builder::from(config);
            config.set_timeout_config(Some(key.timeouts()));
            if let Some(endpoint) = key.endpoint_url() {
                config.set_endpoint_url(Some(endpoint.to_owned()));
            }
            Client::from_conf(config.build())
        };
        let client = self.configs.client(&mut self.clients, source, &key, build).await;
        let client = client.map_err(|aws::ConnectError::NoRegion(source)| {
            anyhow::anyhow!("source `{source}` has no region: set its `sqs.region` or AWS_REGION")
        })?;
        Ok(Queue { client: client.sdk, credentials: client.credentials, url: settings.queue_url.clone() })
    }
}

impl Queue {
    /// Receives messages, and hides them from others for `visibility`. Waits up to `wait` for the first one; with any
    /// time to wait, SQS asks all of its servers, so that no answer means that the queue has no visible message.
    ///
    /// # Errors
    /// The call failed. Messages that it may have received are visible again later.
    pub(crate) async fn receive(
        &self,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<QueueMessage>, Failure> {
        let call = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(MAX_MESSAGES.into())
            .wait_time_seconds(seconds(wait))
            .visibility_timeout(seconds(visibility))
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_attribute_names(TRACEPARENT);
        let call = call.customize().interceptor(aws::ResponseLimit(MAX_RESPONSE_BYTES));
        let answer = timeout(wait + CALL_TIMEOUT, call.send()).await.map_err(|_| timed_out())?;
        let answer = answer.map_err(|error| self.credentials.failure(&error))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(QueueMessage::from_sdk).collect())
    }

    /// Deletes messages. Returns those that could not be deleted, with the first cause.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn delete<'m>(
        &self,
        messages: &[&'m QueueMessage],
    ) -> Result<(Vec<&'m QueueMessage>, Option<Failure>), Failure> {
        let entries = messages.iter().enumerate().filter_map(|(index, message)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
            entry.receipt_handle(&message.receipt).build().ok()
        });
        let call = self.client.delete_message_batch().queue_url(&self.url);
        let call = call.set_entries(Some(entries.collect())).customize().interceptor(aws::BOUNDED_RESPONSE);
        let answer = timeout(CALL_TIMEOUT, call.send()).await.map_err(|_| timed_out())?;
        let answer = answer.map_err(|error| self.credentials.failure(&error))?;
        let failed = answer.failed();
        let cause = failed
            .first()
            .map(|entry| aws::entry_failure(entry.code(), entry.message(), entry.sender_fault()));
        let is_failed = |index: usize| failed.iter().any(|entry| entry.id() == index.to_string());
        let failed = messages.iter().enumerate().filter(|(index, _)| is_failed(*index));
        Ok((failed.map(|(_, message)| *message).collect(), cause))
    }

    /// Hides messages from others for `visibility` from now on; zero shows them at once. Messages for which that fails are
    /// visible when their time is over.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn set_visibility(
        &self,
        messages: &[QueueMessage],
        visibility: Duration,
    ) -> Result<(), Failure> {
        for messages in messages.chunks(MAX_MESSAGES.into()) {
            let entries = messages.iter().enumerate().filter_map(|(index, message)| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(index.to_string());
                entry.receipt_handle(&message.receipt).visibility_timeout(seconds(visibility)).build().ok()
            });
            let call = self.client.change_message_visibility_batch().queue_url(&self.url);
            let call =
                call.set_entries(Some(entries.collect())).customize().interceptor(aws::BOUNDED_RESPONSE);
            let answer = timeout(CALL_TIMEOUT, call.send()).await.map_err(|_| timed_out())?;
            answer.map_err(|error| self.credentials.failure(&error))?;
        }
        Ok(())
    }

    /// Whether the queue moves messages to another one that were received too often.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn has_redrive_policy(&self) -> Result<bool, Failure> {
        let name = QueueAttributeName::RedrivePolicy;
        let call = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(name.clone());
        let call = call.customize().interceptor(aws::BOUNDED_RESPONSE);
        let answer = timeout(CALL_TIMEOUT, call.send()).await.map_err(|_| timed_out())?;
        let answer = answer.map_err(|error| self.credentials.failure(&error))?;
        Ok(answer.attributes().is_some_and(|attributes| attributes.contains_key(&name)))
    }
}

impl QueueMessage {
    /// `None` if it has no receipt, without which it cannot be deleted.
    fn from_sdk(message: Message) -> Option<Self> {
        let sent = message.attributes().and_then(|all| all.get(&MessageSystemAttributeName::SentTimestamp));
        let sent_at = sent.and_then(|millis| millis.parse().ok()).map(Time::from_millis);
        let attribute = message.message_attributes().and_then(|all| all.get(TRACEPARENT));
        let traceparent = attribute.and_then(|value| value.string_value()).map(str::to_owned);
        Some(Self {
            id: message.message_id.unwrap_or_default(),
            body: message.body.unwrap_or_default(),
            sent_at,
            traceparent,
            receipt: message.receipt_handle?,
        })
    }
}

/// Whole seconds, as SQS counts.
fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

fn timed_out() -> Failure {
    Failure::new(Class::Transient, "SQS did not answer in time").with_uncertainty(true)
}
