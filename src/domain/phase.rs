//! The two ends of an episode.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a decision is about the beginning or the end of an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// `on_firing`.
    Firing,
    /// `on_resolved`.
    Resolved,
}

impl Phase {
    /// The word in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}
