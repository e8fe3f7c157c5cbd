//! Episodes: those that are open, and closed ones with a deferred action.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extract::{Query, page_size, parse_name, parse_pattern, services};
use super::operation::{Operation, ResponseBody, schema_of};
use super::problem::Problem;
use crate::domain::phase::Phase;
use crate::domain::state::{Deferred, Episode, Occurrence, RuleState};
use crate::domain::target::{KeyKind, PartialTarget};
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;
use crate::http::HttpState;
use crate::store::StoredState;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/episodes",
            "listEpisodes",
            "List open episodes, and closed ones with a deferred action",
            ResponseBody::Json(200, schema_of::<EpisodePage>),
            get(list),
        )
        .query::<ListEpisodesParams>(),
    ]
}

/// Filters and paging.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListEpisodesParams {
    /// Filter by rule.
    rule: Option<String>,
    /// Filter by target key pattern; `*` matches any text.
    target: Option<String>,
    /// Maximum number of targets that are scanned for one page, 1 to 1000. Default 100.
    limit: Option<usize>,
    /// `next` of the previous page.
    cursor: Option<i64>,
}

/// A page of episodes.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EpisodePage {
    /// Open episodes, and closed ones with a deferred action.
    episodes: Vec<EpisodeView>,
    /// The cursor of the next page. An empty page may have one too.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// An episode of a rule and a target.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EpisodeView {
    /// Its id.
    id: String,
    /// The rule; `heartbeat` for the heartbeat of a source.
    rule: String,
    /// `target`, `hold` or `heartbeat`.
    scope: &'static str,
    /// The target's key.
    subject: String,
    /// The target's fields, or those that a hold restricts.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<PartialTarget>,
    /// `firing` while it is open, `resolved` if it has closed and its `on_resolved` action is deferred.
    phase: Phase,
    /// When it opened, RFC 3339.
    opened_at: String,
    /// The number of `on_firing` events emitted.
    emissions: u32,
    /// Whether one of its alerts started before the store was created; it then never decreases capacity.
    adopted: bool,
    /// Whether one of its alerts has expired without a resolve; it then never decreases capacity.
    expired: bool,
    /// Its open alerts, or those that were open when it closed.
    alerts: Vec<OccurrenceView>,
    /// Its deferred action.
    #[serde(skip_serializing_if = "Option::is_none")]
    deferred: Option<DeferredView>,
}

/// An alert of an episode.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OccurrenceView {
    /// The source that sent it.
    source: String,
    /// Alertmanager's hash of its labels.
    fingerprint: String,
    /// Its `startsAt`, by Prometheus' clock.
    starts_at: String,
    /// When it was last received.
    heard_at: String,
    /// Its labels, overridden by those of the source.
    labels: BTreeMap<String, String>,
}

/// A deferred action.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DeferredView {
    /// The verdict that blocks it; absent for a repeat that is not due yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    /// When it was requested.
    since: String,
    /// When it is re-evaluated; absent if that depends on something other than time.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// When it is withdrawn if it is still blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<String>,
}

impl From<&Deferred> for DeferredView {
    fn from(deferred: &Deferred) -> Self {
        Self {
            verdict: deferred.blocked_by.map(Verdict::as_str),
            since: deferred.requested_at.to_millis_string(),
            until: deferred.recheck_at.map(Time::to_millis_string),
            deadline: deferred.deadline.map(Time::to_millis_string),
        }
    }
}

async fn list(
    State(shared): State<HttpState>,
    Query(params): Query<ListEpisodesParams>,
) -> Result<Json<EpisodePage>, Problem> {
    let services = services(&shared)?;
    let (rule, target, max) = (
        parse_name("rule", params.rule.as_deref())?,
        parse_pattern(params.target.as_deref())?,
        page_size(params.limit)?,
    );
    let states = services.store.states(params.cursor.unwrap_or(0), max).await?;
    let next = states.last().map(|last| last.id).filter(|_| states.len() == max);
    let mut episodes = Vec::new();
    for state in
        states.iter().filter(|state| target.as_ref().is_none_or(|pattern| pattern.covers(&state.key)))
    {
        let wanted =
            state.state.rules.iter().filter(|(name, _)| rule.as_ref().is_none_or(|rule| rule == *name));
        episodes
            .extend(wanted.flat_map(|(name, rule_state)| episode_views(state, name.as_str(), rule_state)));
    }
    Ok(Json(EpisodePage { episodes, next }))
}

fn episode_views(state: &StoredState, rule: &str, rule_state: &RuleState) -> Vec<EpisodeView> {
    let open = rule_state.episode.as_ref().map(|episode| {
        let alerts = episode.open.iter().map(occurrence_view).collect();
        episode_view(state, rule, Phase::Firing, episode, alerts, episode.deferred.as_ref())
    });
    let closing = rule_state.pending_close.as_ref().map(|closing| {
        let alerts = closing.closed.iter().map(occurrence_view).collect();
        episode_view(state, rule, Phase::Resolved, &closing.episode, alerts, Some(&closing.deferred))
    });
    open.into_iter().chain(closing).collect()
}

fn occurrence_view(open: &Occurrence) -> OccurrenceView {
    OccurrenceView {
        source: open.alert.source.to_string(),
        fingerprint: open.alert.fingerprint.to_string(),
        starts_at: open.starts_at.to_string(),
        heard_at: open.heard_at.to_millis_string(),
        labels: open.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

fn episode_view(
    state: &StoredState,
    rule: &str,
    phase: Phase,
    episode: &Episode,
    alerts: Vec<OccurrenceView>,
    deferred: Option<&Deferred>,
) -> EpisodeView {
    EpisodeView {
        id: episode.id.to_string(),
        rule: rule.to_owned(),
        scope: match state.key.kind() {
            KeyKind::Heartbeat => "heartbeat",
            KeyKind::Hold => "hold",
            KeyKind::Target => "target",
        },
        subject: state.key.as_str().to_owned(),
        target: state.key.fields(),
        phase,
        opened_at: episode.opened_at.to_millis_string(),
        emissions: episode.emissions,
        adopted: episode.adopted,
        expired: episode.expired,
        alerts,
        deferred: deferred.map(DeferredView::from),
    }
}
