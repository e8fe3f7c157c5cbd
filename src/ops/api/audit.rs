//! The audit trail.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use super::dead_letters::DeadLetterSelector;
use super::forgive::ForgiveDetails;
use super::pauses::PauseView;
use super::reload::ReloadReport;
use super::unreadable_states::UnreadableRowView;
use crate::json::lenient;

/// The act was performed.
pub(crate) const OUTCOME_DONE: &str = "done";
/// The act failed; a bulk operation may have changed some dead letters before.
pub(crate) const OUTCOME_FAILED: &str = "failed";
/// A bulk operation is in progress.
pub(crate) const OUTCOME_RUNNING: &str = "running";
/// A bulk operation did not end: the process or the request ended first.
pub(crate) const OUTCOME_INTERRUPTED: &str = "interrupted";

/// Filters and paging.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListAuditParams {
    /// Filter by actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Filter by act: `pause`, `resume`, `redrive`, `discard`, `bulk_redrive`, `bulk_discard`, `reload`,
    /// `drop_state` or `forgive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<String>,
    /// Earliest time: RFC 3339, or a duration before now such as 90m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Latest time: RFC 3339, or a duration before now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Maximum number of results, 1 to 1000. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of the audit trail, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuditPage")]
pub(crate) struct AuditPage<E = AuditEntryView> {
    /// The entries.
    pub entries: Vec<E>,
    /// The cursor of the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An act of an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuditEntry")]
pub(crate) struct AuditEntryView {
    /// Its number.
    pub id: i64,
    /// When it was performed; for a bulk operation, when it began. RFC 3339.
    pub at: String,
    /// Who performed it: the name of the credential of the request; without credentials its author, or `unknown`; `signal` or
    /// `file watcher`.
    pub actor: String,
    /// `pause`, `resume`, `redrive`, `discard`, `bulk_redrive`, `bulk_discard`, `reload`,
    /// `drop_state` or `forgive`.
    pub act: Word,
    /// What it concerned, and what came of it.
    #[serde(flatten)]
    pub details: AuditDetails,
}

/// What an act concerned, and what came of it. Stored as it is served.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct AuditDetails {
    /// The reason that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `done`, `failed`, `running` or `interrupted`. The last two are of bulk operations.
    #[serde(default)]
    pub outcome: Word,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// The pause that was set or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseView>,
    /// The id of the dead letter that was redriven or discarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
    /// The options of a redrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive: Option<RedriveDetails>,
    /// The selection and the counts of a bulk operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<BulkDetails>,
    /// What a reload changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<ReloadDetails>,
    /// The unreadable state that was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_state: Option<UnreadableRowView>,
    /// What was forgiven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgive: Option<ForgiveDetails>,
}

impl AuditDetails {
    /// The details of an act that was performed.
    pub(crate) fn done() -> Self {
        Self { outcome: OUTCOME_DONE.into(), ..Self::default() }
    }
}

/// The options of a redrive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RedriveDetails {
    /// The new lifetime of the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<String>,
    /// Whether events were redriven although they may not be needed: see `force` of a redrive.
    #[serde(default)]
    pub force: bool,
}

/// The selection and the counts of a bulk operation. While it runs, they are those of its last change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BulkDetails {
    /// The selected dead letters.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub selector: Option<DeadLetterSelector>,
    /// The number of dead letters that were redriven or discarded.
    #[serde(default)]
    pub succeeded: u64,
    /// The number of dead letters for which it failed; they are unchanged.
    #[serde(default)]
    pub failed_total: u64,
    /// When it ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ReloadDetails {
    /// Changes that were applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Sections that need a restart to take effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
    /// How often it was tried with the same failure, if more than once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl From<&ReloadReport> for ReloadDetails {
    fn from(report: &ReloadReport) -> Self {
        let ReloadReport { changed, needs_restart, warnings: _ } = report;
        Self { changed: changed.clone(), needs_restart: needs_restart.clone(), attempts: 0 }
    }
}
