//! Decisions: query, stream and explain.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use futures_core::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::extract::{Query, json_bytes, page_size, parse_name, parse_pattern, parse_time, services};
use super::operation::{Operation, ResponseBody, schema_of};
use super::problem::Problem;
use crate::bridge::decision_view::DecisionView;
use crate::bridge::{Bridge, Explanation, Filter, MAX_EXPLAINED, Position};
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;
use crate::http::HttpState;

/// Events buffered for a stream whose reader is slow.
const STREAM_BUFFER_EVENTS: usize = 64;
/// A stream polls the store at this interval even without a wake-up.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/decisions",
            "listDecisions",
            "List decisions, newest first",
            ResponseBody::Json(200, schema_of::<DecisionPage>),
            get(list),
        )
        .query::<ListDecisionsParams>(),
        Operation::new(
            Method::GET,
            "/decisions/stream",
            "streamDecisions",
            "Stream decisions as server-sent events",
            ResponseBody::Stream(schema_of::<DecisionView>),
            get(stream),
        )
        .query::<ListDecisionsParams>(),
        Operation::new(
            Method::POST,
            "/explain",
            "explain",
            "Explain how a notification would be processed now; nothing is written",
            ResponseBody::Json(200, schema_of::<Explanation>),
            post(explain),
        )
        .query::<ExplainParams>()
        .body::<NotificationBody>(),
    ]
}

/// A notification in Alertmanager's format; unknown fields are ignored.
#[derive(JsonSchema)]
#[schemars(rename = "AlertmanagerNotification")]
#[expect(dead_code, reason = "used only for its schema")]
struct NotificationBody {
    /// Always "4".
    version: String,
    /// The alerts, each with status, labels, annotations, startsAt, endsAt, generatorURL and fingerprint.
    alerts: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// Filters and paging.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListDecisionsParams {
    /// Filter by rule.
    rule: Option<String>,
    /// Filter by target key pattern; `*` matches any text.
    target: Option<String>,
    /// Filter by verdict; separate several with commas.
    verdict: Option<String>,
    /// Filter by the fingerprint of an alert.
    fingerprint: Option<String>,
    /// Earliest time: RFC 3339, or a duration before now such as 90m.
    since: Option<String>,
    /// Latest time: RFC 3339, or a duration before now.
    until: Option<String>,
    /// Maximum number of results, 1 to 1000. Default 100.
    limit: Option<usize>,
    /// `next` of the previous page.
    cursor: Option<String>,
}

/// A page of decisions, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DecisionPage {
    /// The decisions.
    decisions: Vec<DecisionView>,
    /// The cursor of the next page. An empty page may have one too: the number of records scanned per page is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl ListDecisionsParams {
    fn filter(&self, now: Time) -> Result<Filter, Problem> {
        let words = self.verdict.iter().flat_map(|words| words.split(',')).map(str::trim);
        let verdicts = words.map(|word| {
            let known = || Verdict::ALL.map(Verdict::as_str).join(", ");
            Verdict::parse(word).ok_or_else(|| {
                Problem::bad_request(format!(
                    "verdict: unknown verdict `{word}`; known verdicts: {}",
                    known()
                ))
            })
        });
        Ok(Filter {
            rule: parse_name("rule", self.rule.as_deref())?,
            target: parse_pattern(self.target.as_deref())?,
            verdicts: verdicts.collect::<Result<_, _>>()?,
            fingerprint: self.fingerprint.clone(),
            since: parse_time("since", self.since.as_deref(), now)?,
            until: parse_time("until", self.until.as_deref(), now)?,
        })
    }
}

async fn list(
    State(shared): State<HttpState>,
    Query(params): Query<ListDecisionsParams>,
) -> Result<Json<DecisionPage>, Problem> {
    let services = services(&shared)?;
    let filter = params.filter(services.store.now())?;
    let position = |text: &str| {
        Position::parse(text).ok_or_else(|| Problem::bad_request("cursor: invalid; use the `next` of a page"))
    };
    let after = params.cursor.as_deref().map(position).transpose()?;
    let page = services.bridge.decisions(&filter, after, page_size(params.limit)?).await?;
    let next = page.next.map(|next| format!("{}.{}", next.record, next.index));
    Ok(Json(DecisionPage { decisions: page.decisions, next }))
}

/// Sends each new decision as a server-sent event. A reader that reconnects with `Last-Event-ID` resumes after it.
async fn stream(
    State(shared): State<HttpState>,
    Query(params): Query<ListDecisionsParams>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let services = services(&shared)?;
    if params.cursor.is_some() || params.limit.is_some() || params.until.is_some() {
        return Err(Problem::bad_request("cursor, limit and until are not supported by the stream"));
    }
    let permit = shared.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable("too many concurrent streams; close one"))?;
    let filter = params.filter(services.store.now())?;
    let last_event_id =
        headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(Position::parse);
    // Subscribed before the first query, so that no commit in between is missed.
    let mut commits = services.bridge.subscribe_commits();
    let mut after = match last_event_id {
        Some(last_event_id) => last_event_id,
        None if filter.since.is_some() => Position { record: 0, index: 0 },
        None => services.bridge.newest_position().await?,
    };
    let (sender, receiver) = mpsc::channel(STREAM_BUFFER_EVENTS);
    let (bridge, lifecycle): (Bridge, _) = (services.bridge.clone(), shared.lifecycle.clone());
    tokio::spawn(async move {
        let _permit = permit;
        loop {
            let found = match bridge.decisions_after(&filter, after).await {
                Ok((found, last)) => {
                    let more = last != after;
                    after = last;
                    (found, more)
                }
                Err(error) => {
                    tracing::warn!(%error, "reading decisions for a stream failed, retrying");
                    (Vec::new(), false)
                }
            };
            let (found, more) = found;
            for decision in found {
                let data = serde_json::to_string(&decision).unwrap_or_default();
                let event = Event::default().id(decision.id).event("decision").data(data);
                if sender.send(event).await.is_err() {
                    return;
                }
            }
            if more {
                continue;
            }
            tokio::select! {
                () = sender.closed() => return,
                () = lifecycle.stopping() => return,
                changed = commits.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    });
    Ok(Sse::new(EventStream(receiver)).keep_alive(KeepAlive::default()))
}

struct EventStream(mpsc::Receiver<Event>);

impl Stream for EventStream {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|event| event.map(Ok))
    }
}

/// Parameters of `explain`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainParams {
    /// The source of the notification; required if several are configured.
    source: Option<String>,
}

async fn explain(
    State(shared): State<HttpState>,
    Query(params): Query<ExplainParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Explanation>, Problem> {
    let services = services(&shared)?;
    let settings = services.settings.load_full();
    let names: Vec<&str> = settings.sources.keys().map(crate::domain::name::Name::as_str).collect();
    let source = match (params.source.as_deref(), names.as_slice()) {
        (Some(source), _) => source,
        (None, [only]) => only,
        (None, names) => {
            return Err(Problem::bad_request(format!("source: required, one of {}", names.join(", "))));
        }
    };
    let handle = services.bridge.source(source);
    let handle = handle.ok_or_else(|| Problem::not_found(format!("unknown source `{source}`")))?;
    let bytes = json_bytes(&headers, body, settings.server.max_body_bytes).await?;
    let kind = settings.source_kinds.get(source).copied().unwrap_or_default();
    let notification = kind.parse(&bytes).map_err(|error| Problem::bad_request(error.to_string()))?;
    if notification.alerts.len() > MAX_EXPLAINED {
        return Err(Problem::bad_request(format!(
            "too many alerts; at most {MAX_EXPLAINED} can be explained in one request"
        )));
    }
    Ok(Json(services.bridge.explain(&handle, notification).await?))
}
