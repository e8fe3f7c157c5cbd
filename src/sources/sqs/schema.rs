//! The JSON Schema of the settings.

#![expect(dead_code, reason = "the types only describe the schema and are never constructed")]

use schemars::JsonSchema;

/// The queue of a source of kind sqs. Its messages are notifications in Alertmanager's format, bare or in an envelope of
/// SNS.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(in crate::sources) struct SourceQueue {
    /// The queue URL.
    queue_url: String,
    /// AWS region. Default: the one in the queue URL, otherwise that of the AWS SDK.
    region: Option<String>,
    /// Endpoint URL. Default: the AWS endpoint.
    endpoint_url: Option<String>,
    /// ARN of a role to assume for this queue.
    role_arn: Option<String>,
    /// External ID, if the role's trust policy requires one.
    external_id: Option<String>,
    /// The SNS topics whose messages are read. Without any, only bare notifications are.
    topic_arns: Option<Vec<String>>,
}
