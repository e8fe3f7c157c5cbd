//! Targets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which targets are counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CoveredTargetsParams {
    /// A target key pattern; `*` matches any text, and is the default. A name without `/` and `*` is that of targets in
    /// any cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// The targets that a pattern covers, among those that alerts have reached and whose state is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CoveredTargets {
    /// The pattern; for a name alone, the one that it stands for.
    pub pattern: String,
    /// The number of targets.
    pub count: u64,
    /// Whether there may be more: the number of targets that are looked at is limited.
    pub is_partial: bool,
    /// The keys of the first targets.
    pub keys: Vec<String>,
}
