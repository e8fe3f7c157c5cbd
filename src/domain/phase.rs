//! The two ends of an episode.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The end of an episode that a decision is about: its beginning or its close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// `on_firing`.
    Firing,
    /// `on_resolved`.
    Resolved,
}

impl Phase {
    /// The name in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}
