//! The JSON Schema of the settings.

#![expect(dead_code, reason = "the types only describe the schema and are never constructed")]

use schemars::JsonSchema;

/// An SNS topic.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(in crate::dispatch) struct Sns {
    /// ARN of the topic. If it ends in .fifo, the events of a target are delivered in order.
    topic_arn: String,
    /// AWS region. Default: the one in the ARN.
    region: Option<String>,
    /// Endpoint URL. Default: the AWS endpoint.
    endpoint_url: Option<String>,
    /// ARN of a role to assume for this topic.
    role_arn: Option<String>,
    /// External ID, if the role's trust policy requires one.
    external_id: Option<String>,
    /// Maximum size in bytes of a message, and of all messages of a call. Default 262144.
    #[schemars(range(min = 8192, max = 1_048_576))]
    max_message_bytes: Option<u32>,
}
