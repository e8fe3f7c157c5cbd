//! Directions of capacity changes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A direction of capacity changes. A `set_capacity` has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Increases capacity.
    ScaleOut,
    /// Decreases capacity.
    ScaleIn,
}

impl Direction {
    /// Both directions, in the order of the documentation.
    pub const ALL: [Self; 2] = [Self::ScaleOut, Self::ScaleIn];

    /// The name in configuration and API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ScaleOut => "scale_out",
            Self::ScaleIn => "scale_in",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
