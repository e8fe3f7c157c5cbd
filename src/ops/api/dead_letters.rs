//! Dead letters, and the requests that redrive or discard them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Filters and paging.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListDeadLettersParams {
    /// Filter by destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Maximum number of results, 1 to 1000. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of dead letters, the oldest event first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DeadLetterPage")]
pub(crate) struct DeadLetterPage<D = DeadLetterView> {
    /// The dead letters.
    pub dead_letters: Vec<D>,
    /// The cursor of the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A delivery that was given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DeadLetterView {
    /// Its id: the event's number in the store and the destination, such as `17-scaling-queue`.
    pub id: String,
    /// The destination.
    pub destination: String,
    /// The event's id.
    pub event_id: String,
    /// The rule.
    pub rule: String,
    /// The target's key.
    pub subject: String,
    /// The action of the event.
    pub action: String,
    /// Whether it decreases capacity; such an event is redriven only with `force`.
    #[serde(rename = "takes_away")]
    pub decreases_capacity: bool,
    /// When it was emitted, RFC 3339.
    pub emitted_at: String,
    /// The event's `expirytime`, after which consumers do not act on it, RFC 3339; absent if the event is unreadable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// When it was given up, RFC 3339.
    pub given_up_at: String,
    /// The number of failed attempts.
    pub attempts: u32,
    /// Why it was given up.
    pub error: String,
    /// The event; only when a single dead letter is requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Value>,
}

/// Options of a redrive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RedriveOptions {
    /// Sets the event's expiry to this duration (in Prometheus' format) from now. Without it, redriving an expired event
    /// fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<String>,
    /// Whether to redrive, too, increases whose episode is over, and decreases while something fires on their target.
    pub force: bool,
    /// The operator, for the log and the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The reason, for the log and the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Selects dead letters: at least one filter, or `all`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DeadLetterSelector {
    /// Select by destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Select by rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Select by action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Select those given up before this time: RFC 3339, or a duration before now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_up_before: Option<String>,
    /// Select all dead letters.
    pub all: bool,
}

/// A bulk redrive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BulkRedrive {
    /// The dead letters.
    pub selector: DeadLetterSelector,
    /// The options that apply to each of them.
    pub options: RedriveOptions,
}

/// A bulk discard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BulkDiscard {
    /// The dead letters.
    pub selector: DeadLetterSelector,
    /// The operator, for the log and the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The reason, for the log and the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The result of a bulk operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BulkResult {
    /// The number of dead letters that were redriven or discarded.
    pub succeeded: u64,
    /// The failures, at most 100.
    pub failed: Vec<BulkFailure>,
    /// The number of failures; these dead letters are unchanged.
    pub failed_total: u64,
}

/// A dead letter for which a bulk operation failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BulkFailure {
    /// The dead letter's id.
    pub id: String,
    /// The cause.
    pub reason: String,
}
