//! The queue of refused events.

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::aws::{self, errors};
use crate::outcome::Answer;

/// The message group in a FIFO queue. Their order does not matter.
const GROUP: &str = "refusals";

/// A queue of SQS, standard or FIFO.
pub struct Refusals {
    client: Client,
    queue_url: String,
}

impl Refusals {
    pub fn new(config: &SdkConfig, queue_url: String) -> Self {
        let timeouts = TimeoutConfig::builder().operation_timeout(aws::CALL_TIMEOUT).build();
        let config = aws_sdk_sqs::config::Builder::from(config)
            // Sent twice, it is there twice: its id tells.
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(timeouts)
            .build();
        Self { client: Client::from_conf(config), queue_url }
    }

    /// Sends `{ "answer": …, "event": … }`; the event is a text if it is no JSON.
    ///
    /// # Errors
    /// Why the queue did not take it.
    pub async fn send(&self, event: &str, answer: &Answer) -> Result<(), String> {
        let body = match serde_json::from_str::<&RawValue>(event) {
            Ok(event) => json!({ "answer": answer, "event": event }),
            Err(_) => json!({ "answer": answer, "event": event }),
        };
        let mut call = self.client.send_message().queue_url(&self.queue_url).message_body(body.to_string());
        if self.queue_url.ends_with(".fifo") {
            let id = Sha256::digest(event).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            call = call.message_group_id(GROUP).message_deduplication_id(id);
        }
        call.send().await.map(drop).map_err(|error| errors::text(&error))
    }
}
