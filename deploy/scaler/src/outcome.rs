//! What is answered for an event.

use serde::Serialize;

/// How an event has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The capacity is what the event asks for.
    Applied,
    /// A bound has made the change smaller, possibly nothing.
    Capped,
    /// A copy of the event was applied before.
    AlreadyApplied,
    /// A later event of the target was applied before; this one changes nothing any more.
    Overtaken,
    /// It arrived after its `expirytime`.
    Expired,
    /// It will never be applied. The reason says why.
    Refused,
    /// It cannot be applied now; the same event is to be sent again.
    Retry,
    /// It would have been applied.
    DryRun,
}

/// The answer for an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub id: String,
    pub outcome: Outcome,
    /// The capacity before; `None` if it was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// The capacity after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
    /// One line for people; empty if there is nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
