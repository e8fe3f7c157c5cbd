//! The calls to the queue. The worker's rights are `sqs:ReceiveMessage`, `sqs:DeleteMessage` and
//! `sqs:ChangeMessageVisibility`.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry as Entry, Message as SqsMessage,
    MessageSystemAttributeName as Attribute,
};

use crate::aws::errors;
use crate::metrics::{Metrics, QueueCall};
use crate::runtime::log::{Level, log};
use crate::runtime::order::Key;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Of one try of a call, beside the time for which a poll waits for messages.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Deletions and changes of visibility can be repeated.
const TRIES: u32 = 5;
/// The maximum number of messages in a call.
pub(super) const MAX_BATCH: usize = 10;

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Received {
    /// What it is deleted with.
    pub receipt: String,
    pub body: String,
    pub key: Key,
    /// How often it was received, with this time.
    pub receives: u32,
}

/// The queue.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    client: Client,
    url: String,
    /// For which a received message is not received by others.
    visibility: Duration,
    metrics: Metrics,
}

impl Queue {
    pub(super) fn new(config: &SdkConfig, url: String, visibility: Duration, metrics: Metrics) -> Self {
        let retries = RetryConfig::standard()
            .with_max_attempts(TRIES)
            .with_initial_backoff(Duration::from_millis(200))
            .with_max_backoff(Duration::from_secs(5));
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(TRY_TIMEOUT)
            .build();
        let config = aws_sdk_sqs::config::Builder::from(config)
            .retry_config(retries)
            .timeout_config(timeouts)
            // A poll is silent for as long as it waits.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Self { client: Client::from_conf(config), url, visibility, metrics }
    }

    pub(super) fn is_fifo(&self) -> bool {
        self.url.ends_with(".fifo")
    }

    /// Receives up to `max` messages; waits for the first one. One try: the caller repeats it.
    pub(super) async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Received>, String> {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(wait + TRY_TIMEOUT).build();
        let once = aws_sdk_sqs::config::Builder::new()
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        let call = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(max.clamp(1, MAX_BATCH)).unwrap_or(1))
            .wait_time_seconds(seconds(wait))
            .visibility_timeout(seconds(self.visibility))
            .message_system_attribute_names(Attribute::ApproximateReceiveCount)
            .message_system_attribute_names(Attribute::MessageGroupId);
        match call.customize().config_override(once).send().await {
            Ok(output) => {
                let messages = output.messages.unwrap_or_default();
                Ok(messages.into_iter().filter_map(|message| self.received(message)).collect())
            }
            Err(error) => {
                self.metrics.queue_error(QueueCall::Receive);
                Err(errors::text(&error))
            }
        }
    }

    /// `None` if it has no receipt handle, without which nothing can be done with it.
    fn received(&self, message: SqsMessage) -> Option<Received> {
        let receipt = message.receipt_handle?;
        let body = message.body.unwrap_or_default();
        let attributes = message.attributes.unwrap_or_default();
        let group = attributes.get(&Attribute::MessageGroupId).filter(|_| self.is_fifo());
        let receives = attributes.get(&Attribute::ApproximateReceiveCount);
        let receives = receives.and_then(|count| count.parse().ok()).unwrap_or(1);
        let key = Key::of(group.map(String::as_str), &body, &receipt);
        Some(Received { key, receipt, body, receives })
    }

    /// Deletes a message. If that fails it is received again; the ledger knows what was done.
    pub(super) async fn delete(&self, receipt: &str) {
        let call = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt);
        if let Err(error) = call.send().await {
            self.metrics.queue_error(QueueCall::Delete);
            let hint = "it will be received again, and is not applied twice";
            let error = errors::text(&error);
            log(Level::Warn, "a message was not deleted", &[("error", &error), ("effect", &hint)]);
        }
    }

    /// Lets nobody else receive these messages for another while.
    pub(super) async fn extend(&self, receipts: &[String]) {
        self.change_visibility(receipts, self.visibility).await;
    }

    /// Lets these messages be received again after `delay`.
    pub(super) async fn release(&self, receipts: &[String], delay: Duration) {
        self.change_visibility(receipts, delay).await;
    }

    async fn change_visibility(&self, receipts: &[String], timeout: Duration) {
        for batch in receipts.chunks(MAX_BATCH) {
            let entries = batch.iter().enumerate().filter_map(|(number, receipt)| {
                let entry = Entry::builder().id(number.to_string()).receipt_handle(receipt);
                entry.visibility_timeout(seconds(timeout)).build().ok()
            });
            let call = self.client.change_message_visibility_batch().queue_url(&self.url);
            let error = match call.set_entries(Some(entries.collect())).send().await {
                Ok(output) => output.failed.iter().find_map(failure_of),
                Err(error) => Some(errors::text(&error)),
            };
            if let Some(error) = error {
                self.metrics.queue_error(QueueCall::ChangeVisibility);
                log(Level::Warn, "the visibility of messages was not changed", &[("error", &error)]);
            }
        }
    }
}

/// `None` if the message was deleted or is visible again already, so that there is nothing to change.
fn failure_of(entry: &BatchResultErrorEntry) -> Option<String> {
    (!entry.sender_fault).then(|| format!("{}: {}", entry.code, entry.message.as_deref().unwrap_or_default()))
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
