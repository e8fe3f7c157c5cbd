//! Problem details (RFC 9457): the error responses of the API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;

/// An error response (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: the status identifies the kind of error.
    #[serde(rename = "type")]
    pub kind: Word,
    /// The reason phrase of the status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and how to fix it.
    pub detail: String,
    /// The individual errors, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}
