//! Decisions; the decision itself is [`DecisionView`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use crate::bridge::Explanation;
pub(crate) use crate::bridge::decision_view::DecisionView;

/// Filters and paging.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListDecisionsParams {
    /// Filter by rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Filter by target key pattern; `*` matches any text. A name without `/` and `*` is that of targets in any cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Filter by verdict; separate several with commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Filter by the fingerprint of an alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Filter by the labels of an alert: matchers in Alertmanager's syntax, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// Filter by source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Filter by action (`scale_out`, `scale_in`, `set_capacity` or `notify`); separate several with commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Earliest time: RFC 3339, or a duration before now such as 90m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Latest time: RFC 3339, or a duration before now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Maximum number of results, 1 to 1000. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Whether the page has `total`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<bool>,
    /// `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of decisions, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DecisionPage")]
pub(crate) struct DecisionPage<D = DecisionView> {
    /// The decisions.
    pub decisions: Vec<D>,
    /// The cursor of the next page. An empty page may have one too: the number of records scanned per page is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The number of decisions that the filters select, on all pages; only with `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Whether there may be more than `total`: the number of records that are counted is limited.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub total_is_partial: bool,
}

/// Parameters of `explain`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainParams {
    /// The source of the notification; required if several are configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When the notification was received: an alert of Prometheus has resolved if its `endsAt` was over by then. A
    /// duration before now or RFC 3339. Default: now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_at: Option<String>,
}
