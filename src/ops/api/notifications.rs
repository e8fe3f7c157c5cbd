//! Kept notifications.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Filters and paging.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListNotificationsParams {
    /// Filter by source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Earliest time: RFC 3339, or a duration before now such as 90m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Latest time: RFC 3339, or a duration before now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Maximum number of results, 1 to 1000. Default 100. Fewer are returned if their bodies are large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of kept notifications, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NotificationPage")]
pub(crate) struct NotificationPage {
    /// How long notifications are kept (`retention.notifications`), or `off`.
    pub retention: String,
    /// The notifications.
    pub notifications: Vec<NotificationBodyView>,
    /// The cursor of the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A notification as it came.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "KeptNotification")]
pub(crate) struct NotificationBodyView {
    /// The source's name.
    pub source: String,
    /// When it was decided, RFC 3339.
    pub received_at: String,
    /// The body of the request, decoded.
    #[schemars(with = "Value")]
    pub body: Box<RawValue>,
}
