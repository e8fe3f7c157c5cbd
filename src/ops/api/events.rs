//! Events with their deliveries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Word;

/// An event and its deliveries. It is searched from the newest event backwards, in bounded steps and without an index:
/// an old event among millions takes longer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct EventView {
    /// When it was emitted, RFC 3339.
    pub emitted_at: String,
    /// The event, in the form in which it is delivered.
    pub event: Value,
    /// One delivery per destination.
    pub deliveries: Vec<DeliveryView>,
}

/// Filters and paging.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListDeliveriesParams {
    /// Earliest emission: RFC 3339, or a duration before now such as 90m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Latest emission: RFC 3339, or a duration before now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Maximum number of events, 1 to 1000. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of events with their deliveries, newest first. Events that every destination has settled are retained for
/// `retention.delivered`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DeliveryPage {
    /// The events.
    pub events: Vec<EventDeliveriesView>,
    /// The cursor of the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The deliveries of an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EventDeliveries")]
pub(crate) struct EventDeliveriesView {
    /// When the event was emitted, RFC 3339.
    pub emitted_at: String,
    /// One delivery per destination.
    pub deliveries: Vec<DeliveryView>,
}

/// The delivery of an event to a destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DeliveryView {
    /// The destination.
    pub destination: String,
    /// `pending`, `retrying`, `delivered`, `dead`, `superseded`, `withdrawn`, `discarded` or `replaced`.
    pub state: Word,
    /// The number of calls that were made, with the successful one.
    pub attempts: u32,
    /// When the destination accepted the event, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<String>,
    /// The error of the last attempt, or why the event was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the destination answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Whether the delivery was taken back: it is not called until nothing blocks its action any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// Whether a call may have arrived although no answer said so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncertain: bool,
    /// The id of the earlier event of the target for which it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<String>,
    /// When the next attempt is due, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<String>,
}
