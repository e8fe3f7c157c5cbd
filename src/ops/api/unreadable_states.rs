//! States of targets that cannot be read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::UnreadableRow;

/// A target's state that cannot be read. Alerts about the target get 503, and its deferred actions wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct UnreadableRowView {
    /// The number of the row, which `#` and the number identify.
    pub row: i64,
    /// The target's key; absent if it cannot be read either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// When it was found, RFC 3339.
    pub since: String,
    /// Why it cannot be read.
    pub error: String,
}

impl From<UnreadableRow> for UnreadableRowView {
    fn from(row: UnreadableRow) -> Self {
        Self {
            row: row.id,
            target: row.target.map(|target| target.to_string()),
            since: row.since.to_millis_string(),
            error: row.error,
        }
    }
}

/// Gives up the state of a target that cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DropUnreadableState {
    /// The target's key; or `#` and the number of the row, for example `#17`.
    pub target: String,
    /// Who gives it up, for the log and the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The reason, for the log and the audit trail.
    pub reason: String,
}
