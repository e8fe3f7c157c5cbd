//! Forgiving what rules owe.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to forgive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForgiveRequest {
    /// The target's key.
    pub target: String,
    /// Only what this rule owes. Default: what any rule owes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Who forgives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The reason, for other operators.
    pub reason: String,
}

/// What was forgiven.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Forgiven {
    /// The target's key.
    pub target: String,
    /// The increases for which nothing is taken back any more, oldest first.
    pub events: Vec<ForgivenEventView>,
}

/// An increase for which nothing is taken back any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ForgivenEvent")]
pub(crate) struct ForgivenEventView {
    /// The rule that owed a decrease for it.
    pub rule: String,
    /// The event's id.
    pub event: String,
}

/// The details of the audit entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ForgiveDetails {
    /// The target's key.
    pub target: String,
    /// The rule, if only what it owed was forgiven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The increases for which nothing is taken back any more.
    #[serde(default)]
    pub events: Vec<ForgivenEventView>,
}
