//! Events with their deliveries, and episodes.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::extract::{Id, Query, page_size, parse_name, parse_pattern, services};
use super::problem::Problem;
use crate::domain::phase::Phase;
use crate::domain::state::{Deferred, Episode, RuleState};
use crate::domain::target::{KeyKind, PartialTarget};
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;
use crate::http::HttpState;
use crate::store::{self, StoredState};

/// An event, and what has become of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EventView {
    /// When it was emitted, RFC 3339.
    emitted_at: String,
    /// The event as it is sent.
    event: Value,
    /// One for each destination.
    deliveries: Vec<DeliveryView>,
}

/// What has become of an event at a destination.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DeliveryView {
    /// The destination.
    destination: String,
    /// `pending`, `retrying`, `delivered`, `dead`, `superseded`, `withdrawn` or `discarded`.
    state: &'static str,
    /// How often it was tried: what failed, and the one that arrived.
    attempts: u32,
    /// What went wrong the last time, or why it was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What the destination answered, where that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    /// When it is tried again, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
}

impl From<store::Delivery> for DeliveryView {
    fn from(delivery: store::Delivery) -> Self {
        let store::Delivery { destination, state, failed_attempts, error, answer, due } = delivery;
        // A row that tells of an answer has counted the attempt that arrived.
        let arrived = state == store::DeliveryState::Delivered && answer.is_none();
        Self {
            destination: destination.to_string(),
            state: state.as_str(),
            attempts: failed_attempts + u32::from(arrived),
            error,
            answer,
            next_attempt_at: due.map(Time::to_millis_string),
        }
    }
}

pub(super) async fn event(State(shared): State<HttpState>, Id(id): Id) -> Result<Json<EventView>, Problem> {
    let services = services(&shared)?;
    let found = services.store.event(&id).await?;
    let found = found.ok_or_else(|| {
        Problem::not_found(
            "there is no event with this id; `retention.delivered` says how long events are kept",
        )
    })?;
    let unreadable = |_| Problem::conflict("what is kept under this id is no JSON");
    Ok(Json(EventView {
        emitted_at: found.emitted_at.to_millis_string(),
        event: serde_json::from_str(&found.body).map_err(unreadable)?,
        deliveries: found.deliveries.into_iter().map(DeliveryView::from).collect(),
    }))
}

/// Which episodes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListEpisodesParams {
    /// Of this rule.
    rule: Option<String>,
    /// About targets with this key; `*` is any text.
    target: Option<String>,
    /// How many targets at most are looked at for one page, 1 to 1000. Default 100.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<i64>,
}

/// A page of episodes.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EpisodePage {
    /// The episodes that are open, and those that have closed and of which something waits.
    episodes: Vec<EpisodeView>,
    /// The cursor of the next page. A page may be empty and still have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// An episode of a rule and a target.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EpisodeView {
    /// Its id.
    id: String,
    /// The rule; a source's heartbeat has the name `heartbeat`.
    rule: String,
    /// `target`, `hold` or `heartbeat`.
    scope: &'static str,
    /// The target's key.
    subject: String,
    /// The target's fields, or those that a hold gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<PartialTarget>,
    /// `firing` while it is open, `resolved` when it has closed and its end waits.
    phase: Phase,
    /// When it opened, RFC 3339.
    opened_at: String,
    /// How many `on_firing` events it has emitted.
    emissions: u32,
    /// Whether something of it began before the store was created, so that it takes nothing away.
    adopted: bool,
    /// Whether the end of one of its alerts is not known, so that it takes nothing away.
    expired: bool,
    /// Its alerts: those that are open, or with which it closed.
    alerts: Vec<OccurrenceView>,
    /// What waits, if something does.
    #[serde(skip_serializing_if = "Option::is_none")]
    deferred: Option<DeferredView>,
}

/// An alert of an episode.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OccurrenceView {
    /// Who sent it.
    source: String,
    /// Alertmanager's hash of its labels.
    fingerprint: String,
    /// When it began, by Prometheus.
    starts_at: String,
    /// When it was last heard.
    heard_at: String,
    /// Its labels, the source's laid over them.
    labels: BTreeMap<String, String>,
}

/// An action that waits.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DeferredView {
    /// The verdict that stops it; absent for a repetition whose time has not come.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    /// When it was asked for.
    since: String,
    /// When it is looked at again; absent if that depends on something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// When it is withdrawn at the latest.
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

pub(super) async fn episodes(
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

fn occurrence_view(open: &crate::domain::state::Occurrence) -> OccurrenceView {
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
