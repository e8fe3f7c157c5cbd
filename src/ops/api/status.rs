//! The status of the bridge.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unreadable_states::UnreadableRowView;
use super::{ReceptionGapView, Word};
use crate::domain::target::PartialTarget;
use crate::json::lenient;

/// The status of the bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Status {
    /// The version of scalebridge.
    pub version: Word,
    /// `starting`, `ready` or `stopping`.
    pub phase: Word,
    /// Why notifications are refused with 503 although the bridge runs: the store or the backlog limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusing: Option<String>,
    /// The store's time, RFC 3339.
    pub now: String,
    /// The active configuration, and the result of the last reload.
    pub configuration: ConfigurationStatus,
    /// Number of rules.
    pub rules: usize,
    /// Number of sources.
    pub sources: usize,
    /// Number of destinations.
    pub destinations: usize,
    /// Failing destinations with the cause, one line each.
    pub failing: Vec<String>,
    /// Deliveries that are neither settled nor dead-lettered.
    pub undelivered: u64,
    /// Number of active pauses.
    pub pauses: usize,
    /// The holds that are in force.
    #[serde(default)]
    pub holds: Vec<HoldView>,
    /// Number of open episodes by rule.
    pub open_episodes: BTreeMap<String, u64>,
    /// Number of deferred actions and late firings by blocking verdict.
    pub deferred: BTreeMap<Word, u64>,
    /// The last reception gap of each source that had one.
    #[serde(default)]
    pub reception_gaps: BTreeMap<String, ReceptionGapView>,
    /// Why credentials could not be checked by the last request that needed it, by source, or `admin.listen`: what of the
    /// bridge's own cannot be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auth_errors: BTreeMap<String, String>,
    /// States of targets that cannot be read, as far as they were found: each is found when it is needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable_rows: Vec<UnreadableRowView>,
}

/// A hold that is in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct HoldView {
    /// Its rule.
    pub rule: String,
    /// The fields of the targets that it covers; without any it covers all targets.
    #[serde(default, deserialize_with = "lenient")]
    pub covers: Option<PartialTarget>,
    /// Since when it is in force, RFC 3339.
    pub since: String,
    /// When its `max_duration` is over, RFC 3339; absent if it lasts as long as its alert fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Whether its alert cannot be read; it then blocks decreases only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
    /// Patterns of the only targets that it covers: those that the sources of its unreadable alerts may reach; absent if
    /// `covers` alone says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Vec<String>>,
}

/// The active configuration, and the result of the last reload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ConfigurationStatus {
    /// When the active configuration was loaded, RFC 3339.
    pub loaded_at: String,
    /// Why the last reload was rejected, if it was; the configuration loaded before it is still active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Sections that have changed in the files and need a restart to take effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
}
