//! Operations on the local AWS: queues and functions.

use std::fs;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName as System};

use super::schema::assert_valid_event;
use super::tools::{LocalAws, REGION};

/// Credentials of a test account; no metadata service.
pub(crate) const TEST_AWS_ENV: [(&str, &str); 4] = [
    ("AWS_REGION", REGION),
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// Environment in which the AWS SDK calls only the local AWS.
pub(crate) fn environment(aws: &LocalAws) -> Vec<(&'static str, String)> {
    let account = TEST_AWS_ENV.iter().map(|&(name, value)| (name, value.to_owned()));
    account.chain([("AWS_ENDPOINT_URL", aws.url())]).collect()
}

/// Creates a standard queue and returns its URL.
pub(crate) async fn create_queue(aws: &LocalAws, name: &str) -> String {
    let created = aws.sqs().create_queue().queue_name(name).send().await;
    created.expect("a queue").queue_url.expect("its URL")
}

/// Receives and deletes all messages that are in a queue now. Their bodies are events.
pub(crate) async fn receive_all(aws: &LocalAws, queue: &str) -> Vec<Message> {
    let all = receive_any(aws, queue).await;
    for message in &all {
        let body = message.body().unwrap_or_default();
        assert_valid_event(&serde_json::from_str(body).expect("an event"));
    }
    all
}

/// The bodies of all messages that are in a queue now, which are JSON. They are deleted.
pub(crate) async fn receive_all_bodies(aws: &LocalAws, queue: &str) -> Vec<serde_json::Value> {
    let body = |message: &Message| serde_json::from_str(message.body().expect("a body")).expect("JSON");
    receive_any(aws, queue).await.iter().map(body).collect()
}

async fn receive_any(aws: &LocalAws, queue: &str) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        let received = aws
            .sqs()
            .receive_message()
            .queue_url(queue)
            .max_number_of_messages(10)
            .message_attribute_names("All")
            .message_system_attribute_names(System::All)
            .send()
            .await
            .expect("an answer")
            .messages
            .unwrap_or_default();
        if received.is_empty() {
            return all;
        }
        for message in received {
            let receipt = message.receipt_handle().expect("a receipt").to_owned();
            aws.sqs()
                .delete_message()
                .queue_url(queue)
                .receipt_handle(receipt)
                .send()
                .await
                .expect("removed");
            all.push(message);
        }
    }
}

/// Creates a Python function from the source of its module, which must define `handler`.
pub(crate) fn create_function(aws: &LocalAws, dir: &std::path::Path, name: &str, code: &str) {
    let file = dir.join(format!("{name}.py"));
    fs::write(&file, code).expect("a file");
    aws.run(&["create-function", name, file.to_str().expect("UTF-8")]);
}
