//! Episodes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::domain::blocker::Blocker;
use crate::domain::phase::Phase;
use crate::domain::target::PartialTarget;
use crate::json::lenient;
use crate::store::StateCursor;

/// Filters and paging.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListEpisodesParams {
    /// Filter by rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Filter by target key pattern; `*` matches any text. A name without `/` and `*` is that of targets in any cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether only episodes of rules that owe a decrease on the target are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owing: Option<bool>,
    /// Maximum number of targets that are scanned for one page, 1 to 1000. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>")]
    pub cursor: Option<StateCursor>,
}

/// A page of episodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EpisodePage")]
pub(crate) struct EpisodePage<E = EpisodeView> {
    /// Open episodes, and closed ones whose action has not ended or whose rule still owes a decrease.
    pub episodes: Vec<E>,
    /// The cursor of the next page. An empty page may have one too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>")]
    pub next: Option<StateCursor>,
}

/// An episode of a rule and a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct EpisodeView {
    /// Its id; empty before it opens.
    pub id: String,
    /// The rule; `heartbeat` for the heartbeat of a source.
    pub rule: String,
    /// `target`, `hold` or `heartbeat`.
    pub scope: Word,
    /// The target's key.
    pub subject: String,
    /// The target's fields, or those that a hold restricts.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub target: Option<PartialTarget>,
    /// `late` before it opens, while a late firing waits for its resolve; `firing` while it is open, `resolved` if it has closed and its `on_resolved` action has not ended, or its rule still
    /// owes a decrease.
    #[schemars(with = "Phase")]
    pub phase: Word,
    /// When it opened, or will open if it is late, RFC 3339.
    pub opened_at: String,
    /// The number of `on_firing` events emitted.
    pub emissions: u32,
    /// Whether one of its alerts started before the store was created; it then never decreases capacity.
    pub adopted: bool,
    /// Whether one of its alerts has expired without a resolve; it then never decreases capacity.
    pub expired: bool,
    /// Its open alerts, or those that were open when it closed.
    pub alerts: Vec<OccurrenceView>,
    /// Its deferred action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deferred: Option<DeferredView>,
    /// For a hold with `max_duration`: when that is over, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<String>,
    /// For a hold: whether its `max_duration` is over, so that it blocks nothing although its alert fires.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold_over: bool,
    /// The increases that the rule has emitted for the target and not taken back, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owed: Vec<OwedView>,
}

/// An increase that is not taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OwedView {
    /// The event's id.
    pub event: String,
    /// When it was emitted, RFC 3339.
    pub emitted_at: String,
    /// When it was delivered, as far as decisions know, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<String>,
    /// The units that it has added; absent if it was not a `ChangeInCapacity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
}

/// An alert of an episode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OccurrenceView {
    /// The source that sent it.
    pub source: String,
    /// Alertmanager's hash of its labels.
    pub fingerprint: String,
    /// Its `startsAt`, by Prometheus' clock.
    pub starts_at: String,
    /// When it was last received.
    pub heard_at: String,
    /// Since when its sender does not vouch for it any more, if that is so: decreases of the target wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_since: Option<String>,
    /// Its labels, overridden by those of the source.
    pub labels: BTreeMap<String, String>,
}

/// A deferred action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DeferredView {
    /// The verdict that blocks it; absent for a repeat that is not due yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Word>,
    /// The requested action; absent if the rule has none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Word>,
    /// What blocks it now, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What blocks it now.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<Blocker>,
    /// When it was requested.
    pub since: String,
    /// Until when it is blocked as far as that is known now, which can be later than its last decision said; absent if that depends on something other than time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}
