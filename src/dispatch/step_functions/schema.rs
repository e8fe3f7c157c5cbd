//! The JSON Schema of the settings.

#![expect(dead_code, reason = "the types only describe the schema and are never constructed")]

use schemars::JsonSchema;

/// A state machine of AWS Step Functions.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(in crate::dispatch) struct StepFunctions {
    /// ARN of the state machine, or of a version or an alias of it. Use a standard workflow: an express workflow starts
    /// an execution for each call, also when the answer to an earlier call was lost.
    state_machine_arn: String,
    /// AWS region. Default: the one in the ARN.
    region: Option<String>,
    /// Endpoint URL. Default: the AWS endpoint.
    endpoint_url: Option<String>,
    /// ARN of a role to assume for this state machine.
    role_arn: Option<String>,
    /// External ID, if the role's trust policy requires one.
    external_id: Option<String>,
}
