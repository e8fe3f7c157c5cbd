//! The JSON Schema of the settings.

#![expect(dead_code, reason = "the types only describe the schema and are never constructed")]

use schemars::JsonSchema;

/// An event bus of Amazon EventBridge.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(in crate::dispatch) struct Eventbridge {
    /// Name or ARN of the event bus.
    bus: String,
    /// AWS region. Default: the one in the ARN, otherwise that of the AWS SDK.
    region: Option<String>,
    /// Endpoint URL. Default: the AWS endpoint.
    endpoint_url: Option<String>,
    /// ARN of a role to assume for this bus.
    role_arn: Option<String>,
    /// External ID, if the role's trust policy requires one.
    external_id: Option<String>,
    /// Maximum size of an entry in bytes. Default 262144.
    #[schemars(range(min = 8192, max = 1_000_000))]
    max_entry_bytes: Option<u32>,
}
