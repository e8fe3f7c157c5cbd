//! The status of the bridge, and of the fleet if several share the store.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unreadable_states::UnreadableRowView;
use super::{ReceptionGapView, Word};
use crate::domain::target::PartialTarget;
use crate::json::lenient;

/// The status of the bridge. If several bridges share the store, what is not said to be the fleet's is about the one that
/// answers.
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
    /// Of the fleet: deliveries that are neither settled nor dead-lettered.
    pub undelivered: u64,
    /// Of the fleet: number of active pauses.
    pub pauses: usize,
    /// Of the fleet: the holds that are in force.
    #[serde(default)]
    pub holds: Vec<HoldView>,
    /// Of the fleet: number of open episodes by rule.
    pub open_episodes: BTreeMap<String, u64>,
    /// Of the fleet: number of deferred actions and late firings by blocking verdict.
    pub deferred: BTreeMap<Word, u64>,
    /// Of the fleet: the last reception gap of each source that had one.
    #[serde(default)]
    pub reception_gaps: BTreeMap<String, ReceptionGapView>,
    /// Why credentials could not be checked by the last request that needed it, by source, or `admin.listen`: what of the
    /// bridge's own cannot be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auth_errors: BTreeMap<String, String>,
    /// States of targets that cannot be read, as far as they were found: each is found when it is needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable_rows: Vec<UnreadableRowView>,
    /// The replicas that share the store; absent if only one bridge can use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetStatus>,
}

/// The replicas that share a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FleetStatus {
    /// The schema step of the database.
    pub schema_step: i32,
    /// When the replicas were read from the database, RFC 3339: at most a few seconds ago, unless the database is away.
    pub read_at: String,
    /// Those that run, and those that have ended within the last hour without being stopped.
    pub replicas: Vec<ReplicaView>,
}

/// A bridge that shares the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ReplicaView {
    /// Its id, new at each start.
    pub id: String,
    /// The name of its host.
    pub name: String,
    /// Whether it is the one that answers.
    #[serde(default)]
    pub answers: bool,
    /// The version of scalebridge.
    pub version: Word,
    /// The newest schema step that it knows.
    pub schema_step: i32,
    /// `ready` if it accepts notifications, `not_ready` if it starts, stops or is too old for the store, `lost` if it has given no sign
    /// of life for five seconds.
    pub status: Word,
    /// When it was started, RFC 3339.
    pub started_at: String,
    /// When it has given its last sign of life, RFC 3339; it gives one each second.
    pub last_seen_at: String,
    /// Its wall clock minus the clock of the database server in seconds; absent if it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_seconds: Option<f64>,
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
