//! The JSON Schema of the settings.

#![expect(dead_code, reason = "the types only describe the schema and are never constructed")]

use schemars::JsonSchema;

/// A Lambda function.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(in crate::dispatch) struct Lambda {
    /// Function name or ARN.
    function: String,
    /// Alias or version.
    qualifier: Option<String>,
    /// Invocation type. Default event.
    invocation_type: Option<InvocationType>,
    /// Whether the function requires the events of a target in order. Default false.
    per_target_order: Option<bool>,
    /// Whether the function is a durable function, whose execution is named by the event's id. Requires a version or an
    /// alias. Default false.
    durable: Option<bool>,
    /// Maximum number of events per call; above 1 the payload is an array. Default 1.
    #[schemars(range(min = 1, max = 100))]
    max_events: Option<u32>,
    /// AWS region. Default: the one in the ARN, otherwise that of the AWS SDK.
    region: Option<String>,
    /// Endpoint URL. Default: the AWS endpoint.
    endpoint_url: Option<String>,
    /// ARN of a role to assume for this function.
    role_arn: Option<String>,
    /// External ID, if the role's trust policy requires one.
    external_id: Option<String>,
}

/// `event` is asynchronous: Lambda queues the event. `request_response` waits for the function's response.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum InvocationType {
    Event,
    RequestResponse,
}
